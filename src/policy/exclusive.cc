// Exclusive: one arrival wakes one worker, one that waits.
//
// What it decides. Among the idle candidates the one that was picked last (kLifo: few workers stay
// hot, the others sleep on) or the one that was picked longest ago (kFifo: all take part, those
// never picked first). When none is idle, those with the fewest unclaimed offers compete instead,
// in the same order. Workers that were never picked stand in the order of their indexes. With kLifo
// a candidate that drives the master stands before all others while it is idle: it is the one that
// went to sleep last, because it is awake. And with kLifo what comes before the woken worker has
// come round goes to it too, kRun offers at most: arrivals that come together wake one worker.
//
// Source. EPOLLEXCLUSIVE (Jason Baron, Linux 4.5) wakes one waiter and leaves open which. Ingo
// Molnar's question about the 2015 patches was whether it should be the last or the first that went
// to sleep: here it is a parameter. FIFO is what threads blocked in accept(2) get, and what users
// of EPOLLEXCLUSIVE miss when its fixed order loads a few workers only (PowerDNS #10446).
//
// The run. A wake-up takes tens of microseconds, and clients that were answered together come back
// together; woken one by one, several workers wake for what one of them could have served. (A light
// load of four clients: 1.3 context switches for each connection instead of 1.8, and half of them
// answered within 1.15 times what EPOLLEXCLUSIVE takes instead of 1.3; bench/METHOD.md has the
// commands.) What waits longest waits for kRun - 1 others to be served. A worker that has not come
// round within kRunNsMax is not about to: it is busy, and the next arrival wakes another.
//
// Cost. One pass over the candidates, one remembered number for each worker.
//
// When not to use it. kLifo with long-lived connections: it looks at who waits and never at how
// many connections are open, so quiet ones pile up on the hot workers; nor where a callback takes
// milliseconds and others idle, because what comes together waits for one worker (ringmaster-sim,
// 64 workers, 10 ms each, load 0.95: p99 1.075 times that of one queue, 1.041 with least-loaded).
// Use least-loaded then.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "policy/first_from.h"
#include "policy/smallest_key.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

// The most that one wake-up is given, and for how long after it.
constexpr uint32_t kRun = 4;
constexpr int64_t kRunNsMax = 200'000;
constexpr uint32_t kNobody = std::numeric_limits<uint32_t>::max();

class ExclusivePolicy final : public Policy {
 public:
  explicit ExclusivePolicy(WakeOrder order) : order_(order) {}

  std::string name() const override {
    return order_ == WakeOrder::kLifo ? "exclusive" : "exclusive-fifo";
  }

  void Prepare(uint32_t worker_slots) override {
    if (worker_slots > picked_at_.size()) picked_at_.resize(worker_slots);
  }

  size_t Pick(const Arrival&, const View& view) override {
    size_t best = BeingWoken(view.candidates);
    if (best == view.candidates.size()) {
      best = order_ == WakeOrder::kLifo ? First<WakeOrder::kLifo>(view.candidates)
                                        : First<WakeOrder::kFifo>(view.candidates);
    }
    last_ = view.candidates[best].worker;
    picked_at_[last_] = picks_++;
    return best;
  }

  void OnLeave(uint32_t worker) override {
    if (worker < picked_at_.size()) picked_at_[worker] = 0;
    if (worker == last_) last_ = kNobody;
  }

 private:
  // The upper half is the queue at the worker: none when it is idle, and at least one when it is
  // busy, if only with what it has claimed; twice that, so that the one that is awake fits in
  // before all others. The lower half is the order among equals. Without branches, because all of
  // it is as good as random to a branch predictor.
  template <WakeOrder order>
  size_t First(std::span<const Candidate> candidates) const {
    return SmallestKey(candidates, [&](const Candidate& candidate) {
      const uint64_t queue = uint64_t{candidate.unclaimed} + !candidate.idle;
      const uint32_t picks_since = picks_ - picked_at_[candidate.worker];
      if constexpr (order == WakeOrder::kFifo) return queue << 32 | uint32_t{~picks_since};
      const uint64_t awake = candidate.on_host & candidate.idle;
      return (2 * queue + 1 - awake) << 32 | picks_since;
    });
  }

  // Position of the worker that was woken last, if it is still to come round and may get more;
  // else the number of candidates.
  size_t BeingWoken(std::span<const Candidate> candidates) const {
    if (last_ == kNobody || order_ == WakeOrder::kFifo) return candidates.size();
    const size_t position = FirstFrom(candidates, last_);
    if (position == candidates.size()) return position;
    const Candidate& last = candidates[position];
    const bool goes_on = last.worker == last_ && last.unclaimed > 0 && last.unclaimed < kRun &&
                         last.still_ns < kRunNsMax;
    return goes_on ? position : candidates.size();
  }

  const WakeOrder order_;
  // By index: number of the worker's last pick, 0 before the first. The numbers wrap, which costs a
  // worker that was left out for four billion picks its place in the order.
  std::vector<uint32_t> picked_at_;
  uint32_t picks_ = 1;  // number of the next pick
  uint32_t last_ = kNobody;
};

}  // namespace

std::unique_ptr<Policy> Exclusive(WakeOrder order) {
  return std::make_unique<ExclusivePolicy>(order);
}

}  // namespace ringmaster
