// Bell: the books of one worker's doorbells. A doorbell fails while the worker's ring cannot be
// reached. Then the worker does not know that it was offered something, and a doorbell is owed to
// it. The worker is rung again after a pause, which doubles while doorbells fail one after the
// other.
//
// A worker with a tally is not rung: arrivals are sent to it. There the sending is what fails. The
// books are the same: while a doorbell is owed, nothing is sent to that worker.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_BELL_H_
#define RINGMASTER_SRC_CORE_BELL_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/deadline.h"

namespace ringmaster::core {

inline constexpr int64_t kDoorbellRetryNsMin = 1'000'000;
inline constexpr int64_t kDoorbellRetryNsMax = 100'000'000;

class Bell {
 public:
  // The ring could not be reached. Returns whether this is the first failure in a row, which is to
  // be reported. Failures before the pause is over count once.
  bool Fail(int64_t now_ns) {
    const bool first = pause_ns_ == 0;
    if (owed_ && now_ns < again_ns_) return first;
    owed_ = true;
    pause_ns_ = std::clamp(pause_ns_ * 2, kDoorbellRetryNsMin, kDoorbellRetryNsMax);
    again_ns_ = After(now_ns, pause_ns_);
    return first;
  }

  // A doorbell goes out.
  void Ring() { ++doorbells_; }
  // How many have.
  uint64_t doorbells() const { return doorbells_; }

  // The worker has begun a claim after everything was published, so no doorbell is owed any more.
  void Heard() {
    owed_ = false;
    pause_ns_ = 0;
  }
  // The ring works: the next failure is the first in a row. What is owed stays owed.
  void Works() { pause_ns_ = 0; }

  bool owed() const { return owed_; }
  // When the worker is to be rung again; kWaitForever: nothing is owed.
  int64_t due_at_ns() const { return owed_ ? again_ns_ : kWaitForever; }

  // Whether the worker is to be rung again now. If so, nothing is owed any more.
  bool TryAgain(int64_t now_ns) { return now_ns >= again_ns_ && TryNow(); }
  // Whether a doorbell is owed. If so, the worker is rung before its time, and nothing is owed any
  // more.
  bool TryNow() { return std::exchange(owed_, false); }

 private:
  bool owed_ = false;
  int64_t again_ns_ = 0;
  uint64_t doorbells_ = 0;
  int64_t pause_ns_ = 0;  // 0: none has failed of late
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_BELL_H_
