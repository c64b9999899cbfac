// Aim: whether a source is aimed, that is, whether its desk is open and its permits decide who
// serves (core/desk.h), or whether its engine deals. And how the master looks after an open desk.
//
// While connections come, the master looks every kLookNs, and sleeps otherwise: no arrival wakes
// it. If a look finds that something waits, the next one comes sooner. If that finds that nothing
// has moved meanwhile, it marks the workers that have permits. When nothing has come for
// kQuietNs, the master arms its poll and waits without a limit. The next connection wakes it once.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_AIM_H_
#define RINGMASTER_SRC_CORE_AIM_H_

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {

class Aim {
 public:
  static constexpr int64_t kQuietNs = 1'000'000'000;
  // After its desk was closed by a holder, the engine deals for so long; twice as long if that
  // happens again soon.
  static constexpr int64_t kDealNs = 1'000'000;
  static constexpr int64_t kDealNsMax = 64'000'000;

  bool open() const { return open_; }
  // Its poll is armed meanwhile: nothing has come for long.
  bool quiet() const { return open_ && quiet_; }

  void Open(int64_t now_ns, int64_t recall_after_ns) {
    open_ = true;
    opened_at_ns_ = now_ns;
    retry_ns_ = 0;
    Wake(now_ns, recall_after_ns);
  }
  // The master has closed it.
  void Close() { open_ = false; }
  // A holder has closed it, at this time or a little earlier.
  void Closed(int64_t now_ns) {
    open_ = false;
    const bool soon = now_ns < After(opened_at_ns_, 16 * deal_ns_);
    deal_ns_ = soon ? std::min(2 * deal_ns_, kDealNsMax) : kDealNs;
    deal_until_ns_ = After(now_ns, deal_ns_);
  }
  // Until then the engine deals.
  int64_t deal_until_ns() const { return deal_until_ns_; }

  // It could not be opened, because all workers are rung: when to look again.
  int64_t Retry(int64_t now_ns) {
    if (now_ns >= retry_at_ns_) {
      retry_ns_ = std::clamp(2 * retry_ns_, kDealNs / 8, kDealNsMax);
      retry_at_ns_ = After(now_ns, retry_ns_);
    }
    return retry_at_ns_;
  }

  // Connections come again, or come still.
  void Wake(int64_t now_ns, int64_t recall_after_ns) {
    quiet_ = waited_ = false;
    quiet_at_ns_ = After(now_ns, kQuietNs);
    look_at_ns_ = After(now_ns, recall_after_ns);
  }
  int64_t look_at_ns() const { return open_ && !quiet_ ? look_at_ns_ : kWaitForever; }

  // A look at `now_ns`: so many wait, and so many were ever accepted by permits. Returns whether
  // the workers that have permits are to be marked.
  bool Look(uint32_t waiting, uint64_t accepted, int64_t now_ns, int64_t recall_after_ns) {
    const bool moved = accepted != accepted_;
    accepted_ = accepted;
    if (moved || waiting > 0) quiet_at_ns_ = After(now_ns, kQuietNs);
    const bool stuck = waited_ && waiting > 0 && !moved;
    waited_ = waiting > 0;
    look_at_ns_ = After(now_ns, waited_ ? recall_after_ns / 2 : recall_after_ns);
    quiet_ = now_ns >= quiet_at_ns_;
    return stuck;
  }

 private:
  bool open_ = false;
  bool quiet_ = false;
  bool waited_ = false;  // something did at the last look
  uint64_t accepted_ = 0;
  int64_t opened_at_ns_ = 0;
  int64_t look_at_ns_ = 0;
  int64_t quiet_at_ns_ = 0;
  int64_t deal_ns_ = kDealNs;
  int64_t deal_until_ns_ = 0;
  int64_t retry_ns_ = 0;
  int64_t retry_at_ns_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_AIM_H_
