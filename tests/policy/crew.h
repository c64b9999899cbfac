// What the policy tests drive a policy with. A test sets the facts of a crew of workers, and a
// policy gets a view of it. Beside it stands a small generator of seeded chance.

#ifndef RINGMASTER_TESTS_POLICY_CREW_H_
#define RINGMASTER_TESTS_POLICY_CREW_H_

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iostream>
#include <memory>
#include <vector>

#include "ringmaster/policy.h"
#include "support/split_mix.h"

namespace ringmaster::testing {

class Chance {
 public:
  explicit Chance(uint64_t seed) : bits_(seed) {}

  // 0 to `bound` - 1.
  uint32_t Below(uint32_t bound) { return static_cast<uint32_t>(bits_.Next() % bound); }
  bool OneIn(uint32_t n) { return Below(n) == 0; }

 private:
  SplitMix bits_;
};

// How a policy that goes by load counts a worker: in whole connections.
inline uint64_t Load(const Candidate& candidate) {
  const uint64_t open = candidate.open;
  return candidate.busy() ? 2 * open + 1 : open;
}

// Something that a worker may do, given what it has not claimed.
inline Activity AnyActivity(Chance& chance, uint32_t unclaimed) {
  if (chance.OneIn(3)) return Activity::kBusy;
  return unclaimed == 0 && chance.OneIn(2) ? Activity::kIdle : Activity::kClaiming;
}

// The first of the seeds of a random test: --gtest_random_seed=N when given. Printed, so that a
// failure can be replayed.
inline uint64_t FirstSeed() {
  const int32_t given = GTEST_FLAG_GET(random_seed);
  const uint64_t seed = given != 0 ? static_cast<uint64_t>(given) : 20150224;
  std::cout << "seed=" << seed << " (replay with --gtest_random_seed)" << std::endl;
  return seed;
}

// Workers 0 to n - 1, all joined, idle and with credit unless a test says otherwise.
class Crew {
 public:
  explicit Crew(uint32_t worker_count) : slots_(worker_count) {
    for (uint32_t i = 0; i < worker_count; ++i) {
      slots_[i].facts = {.worker = i, .credit = 1, .activity = Activity::kIdle};
    }
  }

  uint32_t size() const { return static_cast<uint32_t>(slots_.size()); }
  Candidate& facts(uint32_t worker) { return slots_[worker].facts; }
  // The worker gives hints: it waits with nothing unclaimed, or it does not wait.
  void SetBusy(uint32_t worker, bool busy) {
    facts(worker).activity = busy ? Activity::kBusy : Activity::kIdle;
  }
  CpuTopology& topology() { return topology_; }

  void SetJoined(uint32_t worker, bool joined) { slots_[worker].joined = joined; }
  bool joined(uint32_t worker) const { return slots_[worker].joined; }

  // Takes credit from all but those named.
  void OnlyCreditFor(std::initializer_list<uint32_t> workers) {
    for (Slot& slot : slots_) slot.facts.credit = 0;
    for (const uint32_t worker : workers) slots_[worker].facts.credit = 1;
  }
  void CreditForAll() {
    for (Slot& slot : slots_) slot.facts.credit = 1;
  }
  bool HasCandidate() const {
    for (const Slot& slot : slots_) {
      if (slot.joined && slot.facts.credit > 0) return true;
    }
    return false;
  }

  // Valid until the next call.
  View MakeView() {
    joined_.clear();
    candidates_.clear();
    for (const Slot& slot : slots_) {
      if (!slot.joined) continue;
      joined_.push_back(slot.facts.worker);
      if (slot.facts.credit > 0) candidates_.push_back(slot.facts);
    }
    return {.candidates = candidates_, .joined = joined_, .topology = &topology_};
  }

  // The worker that `policy` picks.
  uint32_t Pick(Policy& policy, Arrival arrival = {}) {
    const View view = MakeView();
    const size_t position = policy.Pick(arrival, view);
    EXPECT_LT(position, view.candidates.size()) << "not a position in the candidates";
    return view.candidates[position].worker;
  }

  std::vector<uint32_t> PickMany(Policy& policy, size_t count, Arrival arrival = {}) {
    std::vector<uint32_t> picks;
    for (size_t i = 0; i < count; ++i) picks.push_back(Pick(policy, arrival));
    return picks;
  }

 private:
  struct Slot {
    Candidate facts;
    bool joined = true;
  };

  std::vector<Slot> slots_;
  CpuTopology topology_;
  std::vector<uint32_t> joined_;
  std::vector<Candidate> candidates_;
};

// A policy made ready for `crew`.
inline std::unique_ptr<Policy> Ready(std::unique_ptr<Policy> policy, const Crew& crew) {
  policy->Prepare(crew.size());
  return policy;
}

// `steps` picks, while chance gives and takes credit and recalls. `net` has what each worker was
// given and what was not recalled from it.
inline void Disturb(Crew& crew, Policy& policy, Chance& chance, size_t steps,
                    std::vector<int64_t>& net) {
  for (size_t step = 0; step < steps; ++step) {
    for (uint32_t worker = 0; worker < crew.size(); ++worker) {
      if (chance.OneIn(3)) crew.facts(worker).credit = chance.Below(2);
    }
    if (!crew.HasCandidate()) continue;
    const uint32_t worker = crew.Pick(policy);
    ++net[worker];
    if (!chance.OneIn(16)) continue;
    policy.OnRecall(worker);
    --net[worker];
  }
}

// What failing assertions show; spelt out so that the expected sequences stay readable.
using Workers = std::vector<uint32_t>;

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_POLICY_CREW_H_
