// Lack: what one source lacked when it was last dealt. The dealer says so, and what waits, and what
// is armed, goes by it (core/waits.h, core/intake.h).
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_LACK_H_
#define RINGMASTER_SRC_CORE_LACK_H_

#include <utility>

namespace ringmaster::core {

class Lack {
 public:
  void BeginRound() { credit_ = others_ = false; }
  // Credit: it holds something or is ready, and found no candidate.
  void LackCredit() { credit_ = true; }
  bool credit() const { return credit_; }
  // Others: it holds what only those have credit for who have passed it on.
  void LackOthers() { others_ = true; }
  bool others() const { return others_; }

  // A place or room, without which no multishot accept is armed; or its turn, for which it yields a
  // place that there is. Returns whether it lacked any of these before.
  bool Set(bool place, bool turn) {
    turn_ = turn;
    return std::exchange(place_, place || turn);
  }
  bool place() const { return place_; }
  bool turn() const { return turn_; }

 private:
  bool credit_ = false;
  bool others_ = false;
  bool place_ = false;
  bool turn_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_LACK_H_
