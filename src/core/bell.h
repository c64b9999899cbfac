// Bell: the doorbells of one worker, as its master keeps the books of them. A doorbell fails while
// the worker's ring cannot be reached. It is owed then, and rung again after a pause, which doubles
// while doorbells fail one after the other. Until it was rung, the worker does not know that it was
// offered something.
//
// To a worker with a tally connections are sent, and it is not rung. There the sending is what
// fails. The books are the same: while the bell is owed, nothing is sent to that worker.
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
  // The ring could not be reached. Returns whether this is the first time in a row, which is to be
  // reported. Several may fail in one batch: they count once.
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

  // The worker has looked after everything was published, so it need not be told any more.
  void Heard() {
    owed_ = false;
    pause_ns_ = 0;
  }
  // Its ring works: the next failure begins a new row. What is owed stays owed.
  void Works() { pause_ns_ = 0; }

  bool owed() const { return owed_; }
  // When it is to be tried again; kWaitForever: nothing is owed.
  int64_t due_at_ns() const { return owed_ ? again_ns_ : kWaitForever; }

  // Whether it is to be tried again now; if so, it is owed no more.
  bool TryAgain(int64_t now_ns) { return now_ns >= again_ns_ && TryNow(); }
  // Whether it is owed; if so, it is tried before its time, and owed no more.
  bool TryNow() { return std::exchange(owed_, false); }

 private:
  bool owed_ = false;
  int64_t again_ns_ = 0;
  uint64_t doorbells_ = 0;
  int64_t pause_ns_ = 0;  // 0: none has failed of late
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_BELL_H_
