// Exclusive: one arrival wakes one worker that waits.
//
// What it decides. Among the idle candidates it picks the one that was picked last (kLifo) or
// longest ago (kFifo). With kLifo few workers stay hot, and the others sleep on. With kFifo all
// take part, those never picked first. Of workers that give hints it is a fact that they are idle.
// When no candidate is idle, those with the fewest unclaimed offers compete instead, in the same
// order. Workers that were never picked stand in the order of their indexes. With kLifo, a
// candidate that drives the master stands before all others while it is idle. It is awake, so it
// counts as the one that went to sleep last. And with kLifo, what arrives before the woken worker
// has come round goes to that worker too, kRun offers at most. So arrivals that come together wake
// one worker.
//
// Source. EPOLLEXCLUSIVE (Jason Baron, Linux 4.5) wakes one waiter and leaves open which. Ingo
// Molnar's question about the 2015 patches was whether it should be the last or the first that went
// to sleep. Here it is a parameter. FIFO is what threads blocked in accept(2) get, and what users
// of EPOLLEXCLUSIVE miss when its fixed order loads a few workers only (PowerDNS #10446).
//
// The run. A wake-up takes tens of microseconds, and clients that were answered together come back
// together. If each arrival woke another worker, several workers would wake for what one of them
// could have served. (Under a light load of four clients, the run makes 1.3 context switches for
// each connection instead of 1.8, and a p50 of 1.15 times that of EPOLLEXCLUSIVE instead of 1.3;
// bench/METHOD.md has the commands.) An arrival waits for at most kRun - 1 others to be served. A
// worker that has not come round within kRunNsMax is busy rather than about to come, and the next
// arrival wakes another.
//
// Cost. One pass over the candidates, one remembered number for each worker.
//
// When not to use it. kLifo with long-lived connections: it looks at who waits and never at how
// many connections are open, so quiet connections pile up on the hot workers. Nor where a callback
// takes milliseconds while other workers idle, because what comes together waits for one worker.
// (In ringmaster-sim with 64 workers, 10 ms each, load 0.95, p99 is 1.075 times that of one queue;
// with least-loaded it is 1.041.) Use least-loaded then.

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

// How many offers one wake-up is given at most, and for how long after it.
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

  bool MayMove(const Arrival&, const Candidate&, const Candidate&) const override { return true; }

  void OnLeave(uint32_t worker) override {
    if (worker < picked_at_.size()) picked_at_[worker] = 0;
    if (worker == last_) last_ = kNobody;
  }

 private:
  // The upper half of the key is the queue at the worker. The queue is 0 when the worker is idle,
  // and one more than is unclaimed when it is not. With kLifo it is doubled, so that an idle worker
  // that is awake fits in before all others. The lower half is the order among equals. There are no
  // branches, because all of it is as good as random to a branch predictor.
  template <WakeOrder order>
  size_t First(std::span<const Candidate> candidates) const {
    return SmallestKey(candidates, [&](const Candidate& candidate) {
      const uint64_t unclaimed = candidate.unclaimed;
      const uint32_t picks_since = picks_ - picked_at_[candidate.worker];
      if constexpr (order == WakeOrder::kFifo) {
        return (unclaimed + !candidate.idle()) << 32 | uint32_t{~picks_since};
      }
      const uint64_t more = candidate.idle() ? !candidate.on_host : 3;
      return (2 * unclaimed + more) << 32 | picks_since;
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
  // By index: number of the worker's last pick, 0 before the first. The numbers wrap: a worker that
  // was left out for four billion picks loses its place in the order.
  std::vector<uint32_t> picked_at_;
  uint32_t picks_ = 1;  // number of the next pick
  uint32_t last_ = kNobody;
};

}  // namespace

std::unique_ptr<Policy> Exclusive(WakeOrder order) {
  return std::make_unique<ExclusivePolicy>(order);
}

}  // namespace ringmaster
