// Affinity by CPU: serve a connection near the CPU that processed its packets.
//
// What it decides. The candidates fall into groups by what the worker's CPU shares with the
// connection's: the CPU itself, the core, the last-level cache, the memory node, nothing known. The
// least loaded worker of the nearest group gets the arrival unless it has more than `slack` open
// connections above the least loaded of all candidates; then the next group is asked in the same
// way. Equally loaded workers of a group take turns: the one picked longest ago goes first. When
// either CPU is unknown the worker counts as far away, so without facts this is least-loaded.
//
// Source. Ingo Molnar asked for wake-ups on the CPU where the event ran when the 2015 epoll patches
// were discussed. Affinity-Accept (EuroSys 2012) measured what locality is worth, inside the
// kernel. Dragonfly's `conn_use_incoming_cpu` does it in a server, bounded by the least loaded
// thread plus 5 (hence the default), and reports 15 to 20 % less CPU time (PR #987).
//
// Cost. Two short passes over the candidates when the nearest group takes the arrival, one more for
// each group that does not; and one getsockopt for each connection, made by the master
// (SO_INCOMING_CPU).
//
// When not to use it. When workers are not bound to CPUs, so that their last CPU says little about
// the next; when one CPU handles all interrupts, so that its neighbours get `slack` more than the
// rest for nothing; or when the client runs on the same machine, where the incoming CPU is the
// client's.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

using Cpu = CpuTopology::Cpu;

// All unknown when the CPU is not in the topology.
Cpu Locate(const CpuTopology& topology, int32_t cpu) {
  const size_t index = static_cast<uint32_t>(cpu);
  return index < topology.cpus.size() ? topology.cpus[index] : Cpu{};
}

class AffinityCpuPolicy final : public Policy {
 public:
  explicit AffinityCpuPolicy(AffinityCpuOptions options) : slack_(options.slack) {}

  std::string name() const override {
    if (slack_ == AffinityCpuOptions{}.slack) return "affinity-cpu";
    return "affinity-cpu:" + std::to_string(slack_);
  }

  FactsNeeded facts() const override { return {.incoming_cpu = true}; }

  // A worker that gets the index of one that left inherits its turn among equals, no more.
  void Prepare(uint32_t worker_slots) override {
    if (worker_slots > picked_at_.size()) picked_at_.resize(worker_slots);
  }

  // Most arrivals find a place in the first group, hence a cheap pass for each group that is asked
  // instead of one that sorts every candidate into its group. A group may include the nearer ones,
  // which were asked before: nobody there was within the slack.
  size_t Pick(const Arrival& arrival, const View& view) override {
    const Cpu home = Locate(*view.topology, arrival.incoming_cpu);
    const uint64_t open_max = uint64_t{OpenMin(view.candidates)} + slack_;
    const size_t none = view.candidates.size();
    size_t best = none;
    if (arrival.incoming_cpu >= 0) {
      best = BestWhere(view.candidates, open_max, [&](const Candidate& candidate) {
        return candidate.cpu == arrival.incoming_cpu;
      });
    }
    for (const auto id : {&Cpu::core, &Cpu::cache, &Cpu::node}) {
      if (best != none || home.*id < 0) continue;
      best = BestWhere(view.candidates, open_max, [&](const Candidate& candidate) {
        return Locate(*view.topology, candidate.cpu).*id == home.*id;
      });
    }
    if (best == none) {
      best = BestWhere(view.candidates, open_max, [](const Candidate&) { return true; });
    }
    picked_at_[view.candidates[best].worker] = picks_++;
    return best;
  }

 private:
  static uint32_t OpenMin(std::span<const Candidate> candidates) {
    uint32_t open_min = std::numeric_limits<uint32_t>::max();
    for (const Candidate& candidate : candidates) open_min = std::min(open_min, candidate.open);
    return open_min;
  }

  // Position of the least loaded of the candidates that are `near`, by turns among equals; the
  // number of candidates when that one has more than `open_max`, or when there is none.
  template <typename Near>
  size_t BestWhere(std::span<const Candidate> candidates, uint64_t open_max, Near near) const {
    size_t best = candidates.size();
    uint64_t best_key = std::numeric_limits<uint64_t>::max();
    for (size_t i = 0; i < candidates.size(); ++i) {
      const Candidate& candidate = candidates[i];
      if (!near(candidate)) continue;
      const uint64_t key = uint64_t{candidate.open} << 32 | Turn(candidate.worker);
      const bool better = key < best_key;
      best = better ? i : best;
      best_key = better ? key : best_key;
    }
    return best_key >> 32 <= open_max ? best : candidates.size();
  }

  // The longer ago the last pick, the smaller. Wraps, which costs a worker that was left out for
  // four billion picks its place among equals.
  uint32_t Turn(uint32_t worker) const { return picked_at_[worker] - picks_; }

  const uint32_t slack_;
  std::vector<uint32_t> picked_at_;  // by index: number of the worker's last pick, 0: none yet
  uint32_t picks_ = 1;               // number of the next pick
};

}  // namespace

std::unique_ptr<Policy> AffinityCpu(AffinityCpuOptions options) {
  return std::make_unique<AffinityCpuPolicy>(options);
}

}  // namespace ringmaster
