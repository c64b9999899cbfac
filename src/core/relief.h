// Relief: how much of what a worker has to do is better done by others, who wait.
//
// A worker that wakes may find several of its connections ready: each has something to do. It comes
// to the second when it is done with the first, and so on. If another worker waits meanwhile, it
// could begin at once with the last of them. But passing a connection on costs a hop by way of the
// master: two threads are woken, one after the other. So it pays only for what would wait for much
// longer than that.
//
// How long something waits is known when it is known how long each takes. That is measured while
// several are ready, from the moment when the worker begins with one to the moment when it begins
// with another or waits. A worker that never has several ready is never measured, and costs no look
// at the clock.
//
// A value class: pure, owned by one port and called on its thread, never allocates.

#ifndef RINGMASTER_SRC_CORE_RELIEF_H_
#define RINGMASTER_SRC_CORE_RELIEF_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace ringmaster::core {

// What would wait for so long is better passed on: several times what a hop takes, a tenth of a
// millisecond or so.
inline constexpr int64_t kReliefNs = 500'000;

class Relief {
 public:
  // The worker begins with the first of `ready`, which is at least 1. Returns how many of them, the
  // last ones, would wait for kReliefNs or longer. None, as long as it is not known how long each
  // takes.
  size_t Begin(size_t ready, int64_t now_ns) {
    if (measuring() && ready < ready_) Learn((now_ns - since_ns_) / Signed(ready_ - ready));
    ready_ = ready;
    since_ns_ = now_ns;
    if (each_ns_ == 0) return 0;
    // The one at position `k` waits for k times as long as each takes; the first does not wait.
    const auto waits_briefly = static_cast<size_t>((kReliefNs + each_ns_ - 1) / each_ns_);
    return ready - std::min(ready, waits_briefly);
  }
  // So many of them are done by others.
  void PassedOn(size_t count) { ready_ -= std::min(ready_, count); }

  // The worker has done all that was ready.
  void End(int64_t now_ns) {
    if (ready_ > 0) Learn((now_ns - since_ns_) / Signed(ready_));
    ready_ = 0;
  }

  // It does something else now, and has not done all that was ready, unless it had begun with the
  // last. What that takes is not to be measured.
  void Interrupt(int64_t now_ns) {
    if (ready_ == 1) Learn(now_ns - since_ns_);
    ready_ = 0;
  }

  // Whether it has begun and not ended.
  bool measuring() const { return ready_ > 0; }
  // How long each takes: the average, in which what was long ago counts for little. 0: not known.
  int64_t each_ns() const { return each_ns_; }

 private:
  static constexpr int64_t kMemory = 8;  // so many count for most of the average

  static int64_t Signed(size_t count) { return static_cast<int64_t>(count); }

  // One that took very long counts as twice the average, and a little: the thread was preempted, or
  // that one was special. If all take longer now, the average grows by an eighth with each.
  void Learn(int64_t took_ns) {
    took_ns = std::max<int64_t>(took_ns, 1);
    if (each_ns_ > 0) took_ns = std::min(took_ns, 2 * each_ns_ + kReliefNs / 10);
    each_ns_ =
        each_ns_ == 0 ? took_ns : std::max<int64_t>(each_ns_ + (took_ns - each_ns_) / kMemory, 1);
  }

  size_t ready_ = 0;  // at the last moment that it knows of
  int64_t since_ns_ = 0;
  int64_t each_ns_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_RELIEF_H_
