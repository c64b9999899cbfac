// What the interface demands of every policy, checked for each built-in one.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::testing {
namespace {

class EveryPolicy : public ::testing::TestWithParam<const char*> {
 protected:
  static std::unique_ptr<Policy> Make() { return PolicyByName(GetParam()).value(); }
};

// Members, credit and load of a crew, all by chance; at least one candidate is left.
void Shake(Crew& crew, Chance& chance) {
  for (uint32_t worker = 0; worker < crew.size(); ++worker) {
    if (chance.OneIn(20)) crew.SetJoined(worker, !crew.joined(worker));
    Candidate& facts = crew.facts(worker);
    facts.credit = chance.Below(3);
    facts.open = chance.Below(8);
    facts.unclaimed = std::min(facts.open, chance.Below(3));
    facts.cpu = static_cast<int32_t>(chance.Below(9)) - 1;
    facts.idle = facts.unclaimed == 0 && chance.OneIn(2);
  }
  if (crew.HasCandidate()) return;
  crew.SetJoined(0, true);
  crew.facts(0).credit = 1;
}

Arrival AnyArrival(Chance& chance) {
  return {.incoming_cpu = static_cast<int32_t>(chance.Below(12)) - 1};
}

CpuTopology EightCpus() {
  CpuTopology topology;
  for (int32_t cpu = 0; cpu < 8; ++cpu) {
    topology.cpus.push_back({.core = cpu / 2, .cache = cpu / 4, .node = 0});
  }
  return topology;
}

TEST_P(EveryPolicy, PicksTheSameForTheSameHistory) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 10; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    Crew crew(1 + chance.Below(40));
    crew.topology() = EightCpus();
    auto one = Ready(Make(), crew);
    auto other = Ready(Make(), crew);
    for (int step = 0; step < 500; ++step) {
      Shake(crew, chance);
      const Arrival arrival = AnyArrival(chance);
      const uint32_t worker = crew.Pick(*one, arrival);
      ASSERT_EQ(crew.Pick(*other, arrival), worker);
      if (chance.OneIn(8)) {
        one->OnRecall(worker);
        other->OnRecall(worker);
      }
    }
  }
}

// One policy is prepared for all workers from the start, the other as they come.
TEST_P(EveryPolicy, KeepsWhatItKnowsWhenThereAreMoreWorkers) {
  Chance chance(FirstSeed());
  Crew few(8);
  Crew many(40);
  auto at_once = Ready(Make(), many);
  auto in_steps = Ready(Make(), few);
  for (int step = 0; step < 200; ++step) {
    Crew& crew = step < 100 ? few : many;
    if (step == 100) {
      in_steps->Prepare(2);  // never fewer
      in_steps->Prepare(many.size());
    }
    Shake(crew, chance);
    const Arrival arrival = AnyArrival(chance);
    ASSERT_EQ(crew.Pick(*in_steps, arrival), crew.Pick(*at_once, arrival)) << "step " << step;
  }
}

TEST_P(EveryPolicy, AllocatesWhenPreparedAndNeverAfterwards) {
  Chance chance(FirstSeed());
  Crew crew(64);
  crew.topology() = EightCpus();
  auto policy = Ready(Make(), crew);
  for (int step = 0; step < 2000; ++step) {
    Shake(crew, chance);
    const Arrival arrival = AnyArrival(chance);
    const View view = crew.MakeView();
    const size_t before = AllocationCount();
    const size_t position = policy->Pick(arrival, view);
    policy->OnRecall(view.candidates[position].worker);
    const size_t after = AllocationCount();
    ASSERT_EQ(after, before);
  }
}

// Guards the test above: an allocation of this program is counted.
TEST(CountingAllocations, SeesAnAllocation) {
  const size_t before = AllocationCount();
  const auto memory = std::make_unique<std::vector<int>>(100);
  EXPECT_EQ(AllocationCount() - before, 2u);
  EXPECT_EQ(memory->size(), 100u);
}

TEST_P(EveryPolicy, TakesTheOnlyCandidate) {
  Crew crew(9);
  auto policy = Ready(Make(), crew);
  for (uint32_t worker = 0; worker < crew.size(); ++worker) {
    crew.OnlyCreditFor({worker});
    EXPECT_EQ(crew.Pick(*policy), worker);
  }
}

// Arrivals that stay open, each with the pick before it counted, spread over equal workers.
TEST_P(EveryPolicy, LeavesNoWorkerOutWhenConnectionsStay) {
  Crew crew(8);
  auto policy = Ready(Make(), crew);
  for (int i = 0; i < 8; ++i) {
    Candidate& facts = crew.facts(crew.Pick(*policy));
    ++facts.open;
    ++facts.unclaimed;
    facts.idle = false;
  }
  for (uint32_t worker = 0; worker < crew.size(); ++worker) {
    EXPECT_EQ(crew.facts(worker).open, 1u) << "worker " << worker;
  }
}

TEST_P(EveryPolicy, ServesWorkersAboveTheFirstNumberOnceItIsPreparedForThem) {
  Crew few(2);
  auto policy = Ready(Make(), few);
  few.PickMany(*policy, 3);
  Crew many(500);
  many.OnlyCreditFor({400, 499});
  policy->Prepare(many.size());
  for (int i = 0; i < 10; ++i) EXPECT_GE(many.Pick(*policy), 400u);
}

INSTANTIATE_TEST_SUITE_P(BuiltIn, EveryPolicy,
                         ::testing::Values("round-robin", "exclusive", "exclusive-fifo",
                                           "affinity-cpu", "affinity-cpu:0", "least-loaded"),
                         [](const ::testing::TestParamInfo<const char*>& policy) {
                           std::string name = policy.param;
                           for (char& c : name) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace ringmaster::testing
