// Arming: what of one source is armed in the ring: its poll or its multishot accept, and, where
// that does not tell of the source's end, a poll for the end beside it.
//
// | state  | Arm     | End      | the last completion |
// |--------|---------|----------|---------------------|
// | idle   | armed   | -        | of an older arming  |
// | armed  | -       | ending   | idle                |
// | ending | -       | -        | idle                |
//
// What was told to end may complete with something else first. So nothing is armed again before the
// last completion is there. Each arming has a generation, by which its completions are known.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_ARMING_H_
#define RINGMASTER_SRC_CORE_ARMING_H_

#include <cstdint>

#include "core/op.h"

namespace ringmaster::core {

class Arming {
 public:
  Arming() = default;
  // Of a source whose index was another's before: `generation` is that of the other's last arming.
  explicit Arming(uint16_t generation) : generation_(generation) {}

  bool idle() const { return state_ == State::kIdle; }
  bool armed() const { return state_ == State::kArmed; }
  // Of the last arming; also that of whatever else the source is asked.
  uint16_t generation() const { return generation_; }
  // Which facts the arming asks for.
  uint8_t facts() const { return key_.facts; }

  // Returns the key of the operation; it was idle.
  OpKey Arm(OpKind kind, uint8_t facts, uint32_t index) {
    ++generation_;
    state_ = State::kArmed;
    key_ = {.kind = kind, .facts = facts, .generation = generation_, .index = index};
    return key_;
  }
  // The same of the operation that ends it; it was armed.
  OpKey End(OpKind kind) {
    state_ = State::kEnding;
    return With(kind, key_);
  }
  // A last completion is there. Returns whether it was that of this arming.
  bool Complete(uint16_t generation) {
    if (generation != generation_) return false;
    state_ = State::kIdle;
    return true;
  }

  // --- The watch of the end, by the rule "asked about its end" of core/listening.h -------------

  bool watches_end() const { return watch_ != State::kIdle; }
  // It is begun behind the accept, so that this takes first what had come before the end.
  bool WatchIsDue() const { return armed() && watch_ == State::kIdle; }
  OpKey Watch(uint8_t facts, uint32_t index) {
    watch_ = State::kArmed;
    watch_key_ = {
        .kind = OpKind::kHangUp, .facts = facts, .generation = generation_, .index = index};
    return watch_key_;
  }
  // It ends with the arming.
  bool WatchIsOver() const { return !armed() && watch_ == State::kArmed; }
  OpKey EndWatch() {
    watch_ = State::kEnding;
    return With(OpKind::kHangUpEnd, watch_key_);
  }
  void WatchCompletes() { watch_ = State::kIdle; }

  // The ring is out of reach: nothing will complete.
  void Forget() { state_ = watch_ = State::kIdle; }

 private:
  enum class State : uint8_t { kIdle, kArmed, kEnding };

  static OpKey With(OpKind kind, OpKey key) {
    key.kind = kind;
    return key;
  }

  State state_ = State::kIdle;
  State watch_ = State::kIdle;
  uint16_t generation_ = 0;
  OpKey key_;        // of what is armed or ending
  OpKey watch_key_;  // the same of the watch
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ARMING_H_
