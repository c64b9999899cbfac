// Affinity by CPU: serve a connection near the CPU that processed its packets.
//
// What it decides. The candidates fall into groups by what the worker's CPU shares with the
// connection's. That is the CPU itself, the core, the last-level cache, the memory node, or nothing
// known. The least loaded worker of the nearest group gets the arrival. It does not if it has over
// `slack` open connections more than the least loaded of all candidates. Then the next group is
// asked in the same way. Within a group a worker that says that it does not wait (`busy`) counts as
// having each of its connections twice, the arrival included. Equally loaded workers of a group
// take turns: the one picked longest ago goes first. When either CPU is unknown, the worker counts
// as far away; so without facts this is least-loaded.
//
// Source. Ingo Molnar asked for wake-ups on the CPU where the event ran when the 2015 epoll patches
// were discussed. Affinity-Accept (EuroSys 2012) measured what locality is worth, inside the
// kernel. Dragonfly's `conn_use_incoming_cpu` does it in a server, bounded by the least loaded
// thread plus 5 (hence the default). It reports 15 to 20 % less CPU time (PR #987).
//
// Cost. One short pass over the candidates when a worker on the CPU itself gets the arrival, and
// one longer pass more when none does. The master makes one getsockopt for each connection
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
#include <string>
#include <vector>

#include "policy/load.h"
#include "policy/smallest_key.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

using Cpu = CpuTopology::Cpu;

// Everything is unknown when the CPU is not in the topology.
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

  void Prepare(uint32_t worker_slots) override {
    if (worker_slots > picked_at_.size()) picked_at_.resize(worker_slots);
  }

  // Wanted is the least loaded worker of the nearest group that has one within the slack. Among all
  // workers within the slack, that is the first by nearness, then load, then turn. Most arrivals
  // find a worker on their own CPU. The pass that finds the least loaded worker also finds that
  // one, without a look at the topology.
  size_t Pick(const Arrival& arrival, const View& view) override {
    Best on_cpu{.position = view.candidates.size()};
    uint32_t open_min = std::numeric_limits<uint32_t>::max();
    const int32_t cpu = arrival.incoming_cpu >= 0 ? arrival.incoming_cpu : kNobodys;
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      const Candidate& candidate = view.candidates[i];
      open_min = std::min(open_min, candidate.open);
      if (candidate.cpu != cpu) continue;
      const uint64_t load = std::min<uint64_t>(LoadOf(candidate), UINT32_MAX);
      on_cpu.Offer(i, LoadAndTurn(load, candidate.worker));
    }
    const uint64_t open_max = uint64_t{open_min} + slack_;
    const bool stays = on_cpu.position < view.candidates.size() &&
                       view.candidates[on_cpu.position].open <= open_max;
    const size_t position = stays ? on_cpu.position : NearestWithin(open_min, arrival, view);
    picked_at_[view.candidates[position].worker] = picks_++;
    return position;
  }

  // Within the same group for certain.
  bool MayMove(const Arrival& arrival, const Candidate& from, const Candidate& to) const override {
    return (arrival.incoming_cpu < 0 || from.cpu == to.cpu) && MayMoveByLoad(from, to);
  }

  void OnLeave(uint32_t worker) override {
    if (worker < picked_at_.size()) picked_at_[worker] = 0;
  }

 private:
  static constexpr int32_t kNobodys = -2;  // a CPU or id that no candidate has; unknown is -1

  // The candidate with the smallest key so far.
  struct Best {
    size_t position = 0;
    uint64_t key = std::numeric_limits<uint64_t>::max();

    void Offer(size_t other, uint64_t other_key) {
      const bool better = other_key < key;
      position = better ? other : position;
      key = better ? other_key : key;
    }
  };

  size_t NearestWithin(uint32_t open_min, const Arrival& arrival, const View& view) const {
    const Cpu home = OnlyKnown(Locate(*view.topology, arrival.incoming_cpu));
    return SmallestKey(view.candidates, [&](const Candidate& candidate) {
      // The least loaded worker is never beyond the slack, so somebody is found. Mostly all workers
      // are within it, or nearly none.
      const uint32_t excess = candidate.open - open_min;
      if (excess > slack_) return std::numeric_limits<uint64_t>::max();
      // Somebody on the same CPU may be within the slack although the least loaded there is not: it
      // is busy, and that one waits.
      const uint64_t away = candidate.cpu != arrival.incoming_cpu || candidate.cpu < 0;
      const uint64_t distance = away * Distance(home, Locate(*view.topology, candidate.cpu));
      const uint64_t load = std::min<uint64_t>(LoadOf(candidate) - open_min, kExcessMax);
      return distance << 61 | LoadAndTurn(load, candidate.worker);
    });
  }

  // Of another CPU. A table, because what the next candidate shares is as good as random to a
  // branch predictor.
  static uint64_t Distance(const Cpu& home, const Cpu& other) {
    constexpr uint8_t kDistances[] = {4, 3, 2, 2, 1, 1, 1, 1};
    const uint32_t core = home.core == other.core;
    const uint32_t cache = home.cache == other.cache;
    const uint32_t node = home.node == other.node;
    return kDistances[core << 2 | cache << 1 | node];
  }

  // An unknown id is shared with nobody, not even with another unknown one.
  static Cpu OnlyKnown(const Cpu& home) {
    const auto known = [](int32_t id) { return id < 0 ? kNobodys : id; };
    return {.core = known(home.core), .cache = known(home.cache), .node = known(home.node)};
  }

  // The load is cut off there, so that load, distance and turn fit into one number. More makes no
  // difference.
  static constexpr uint32_t kExcessMax = (1u << 29) - 1;

  // The longer ago the last pick was, the smaller it is. It wraps: a worker that was left out for
  // four billion picks loses its place among equals.
  uint64_t LoadAndTurn(uint64_t load, uint32_t worker) const {
    return load << 32 | static_cast<uint32_t>(picked_at_[worker] - picks_);
  }

  const uint32_t slack_;
  std::vector<uint32_t> picked_at_;  // by index: number of the worker's last pick, 0: none yet
  uint32_t picks_ = 1;               // number of the next pick
};

}  // namespace

std::unique_ptr<Policy> AffinityCpu(AffinityCpuOptions options) {
  return std::make_unique<AffinityCpuPolicy>(options);
}

}  // namespace ringmaster
