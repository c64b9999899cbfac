// Pace: how many single accepts one polled source asks for at a time. It begins with two: one that
// finds a connection, and one that finds no more. While all of them find one, it asks for twice as
// many the next time. When they have found the end of the backlog, it asks for one more than they
// have found. Multishot accepts need none of this.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_PACE_H_
#define RINGMASTER_SRC_CORE_PACE_H_

#include <algorithm>
#include <cstdint>

namespace ringmaster::core {

inline constexpr uint32_t kAcceptsPerBatchMin = 2;
inline constexpr uint32_t kAcceptsPerBatchMax = 64;

class Pace {
 public:
  // How many to ask for next.
  uint32_t wanted() const { return wanted_; }
  // Asked for and not completed.
  uint32_t under_way() const { return under_way_; }

  // So many are asked for; none is under way.
  void Ask(uint32_t count) { under_way_ = count; }
  void Complete() { --under_way_; }
  // Whatever is under way will never complete. Returns how many these were.
  uint32_t Forget() {
    const uint32_t forgotten = under_way_;
    under_way_ = 0;
    return forgotten;
  }

  // What has completed: a connection, or the end of the backlog.
  void Found() { ++found_; }
  void FoundEnd() { found_end_ = true; }

  // All completions of a batch were said: decides how many to ask for next, unless some are still
  // under way.
  void Learn() {
    if (under_way_ > 0) return;
    if (found_end_) {
      wanted_ = std::clamp(found_ + 1, kAcceptsPerBatchMin, kAcceptsPerBatchMax);
    } else if (found_ >= wanted_) {
      wanted_ = std::min(wanted_ * 2, kAcceptsPerBatchMax);
    }
    found_ = 0;
    found_end_ = false;
  }
  // After a pause it is not known what there is.
  void BeginAnew() { wanted_ = kAcceptsPerBatchMin; }

 private:
  uint32_t wanted_ = kAcceptsPerBatchMin;
  uint32_t under_way_ = 0;
  uint32_t found_ = 0;      // since Learn has last decided
  bool found_end_ = false;  // the same
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_PACE_H_
