// Affinity by CPU on a machine of two memory nodes with two caches each. There are two cores to a
// cache and two hardware threads to a core: CPUs 0 to 15, in that order. One worker for each CPU
// unless said otherwise.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

constexpr int32_t kCpus = 16;
constexpr uint32_t kDefaultSlack = 5;

CpuTopology TwoNodes() {
  CpuTopology topology;
  for (int32_t cpu = 0; cpu < kCpus; ++cpu) {
    topology.cpus.push_back({.core = cpu / 2, .cache = cpu / 4, .node = cpu / 8});
  }
  return topology;
}

Crew OneWorkerForEachCpu() {
  Crew crew(kCpus);
  crew.topology() = TwoNodes();
  for (uint32_t worker = 0; worker < crew.size(); ++worker) {
    crew.facts(worker).cpu = static_cast<int32_t>(worker);
  }
  return crew;
}

Arrival On(int32_t cpu) { return {.incoming_cpu = cpu}; }

TEST(AffinityCpu, AsksForTheIncomingCpuAndTheOthersForNothing) {
  EXPECT_TRUE(AffinityCpu()->facts().incoming_cpu);
  EXPECT_FALSE(RoundRobin()->facts().incoming_cpu);
  EXPECT_FALSE(Exclusive()->facts().incoming_cpu);
  EXPECT_FALSE(LeastLoaded()->facts().incoming_cpu);
}

TEST(AffinityCpu, PicksTheWorkerOnTheIncomingCpu) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 3, On(11)), (Workers{11, 11, 11}));
  EXPECT_EQ(crew.Pick(*policy, On(0)), 0u);
}

// Taking the nearest worker away each time reveals the order of the groups.
TEST(AffinityCpu, GoesFromCpuToCoreToCacheToNodeToAnywhere) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu(), crew);
  std::vector<uint32_t> order;
  for (uint32_t i = 0; i < crew.size(); ++i) {
    order.push_back(crew.Pick(*policy, On(5)));
    crew.facts(order.back()).credit = 0;
  }
  EXPECT_EQ(order, (Workers{5, 4, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15}));
}

TEST(AffinityCpu, StaysNearWhileTheLoadIsWithinTheSlack) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu({.slack = 3}), crew);
  for (uint32_t worker = 0; worker < crew.size(); ++worker) crew.facts(worker).open = 10;
  crew.facts(5).open = 13;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 5u);
  crew.facts(5).open = 14;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 4u);
  crew.facts(4).open = 14;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 6u);
  crew.facts(6).open = crew.facts(7).open = 14;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 0u);
  for (uint32_t worker = 0; worker < 8; ++worker) crew.facts(worker).open = 14;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 8u);
}

TEST(AffinityCpu, HasASlackOfFiveUnlessToldOtherwise) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu(), crew);
  crew.facts(5).open = kDefaultSlack;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 5u);
  crew.facts(5).open = kDefaultSlack + 1;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 4u);
}

TEST(AffinityCpu, MeasuresTheSlackAgainstTheLeastLoadedOfAllCandidates) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu({.slack = 2}), crew);
  for (uint32_t worker = 0; worker < crew.size(); ++worker) crew.facts(worker).open = 9;
  crew.facts(14).open = 0;  // far away, and the only one within the slack
  EXPECT_EQ(crew.Pick(*policy, On(5)), 14u);
  crew.facts(14).credit = 0;  // not a candidate, hence no measure
  EXPECT_EQ(crew.Pick(*policy, On(5)), 5u);
}

TEST(AffinityCpu, TakesTheLeastLoadedOfAGroup) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu(), crew);
  crew.facts(5).credit = crew.facts(4).credit = 0;
  crew.facts(6).open = 2;
  crew.facts(7).open = 1;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 7u);
}

TEST(AffinityCpu, RotatesAmongEqualsOfAGroupEvenWhenGroupsAlternate) {
  Crew crew(6);
  for (uint32_t worker = 0; worker < 6; ++worker) crew.facts(worker).cpu = worker < 3 ? 1 : 2;
  auto policy = Ready(AffinityCpu(), crew);
  Workers picks;
  for (int i = 0; i < 8; ++i) picks.push_back(crew.Pick(*policy, On(1 + i % 2)));
  EXPECT_EQ(picks, (Workers{0, 3, 1, 4, 2, 5, 0, 3}));
}

TEST(AffinityCpu, AWorkerThatTakesOverAnIndexDoesNotInheritItsTurn) {
  Crew crew(3);
  auto policy = Ready(AffinityCpu(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
  policy->OnLeave(2);  // and another one joins at its index
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{2, 0, 1}));
}

TEST(AffinityCpu, IsLeastLoadedWithRotationWhenTheIncomingCpuIsUnknown) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu(), crew);
  for (uint32_t worker = 0; worker < crew.size(); ++worker) crew.facts(worker).open = 4;
  crew.facts(9).open = crew.facts(12).open = 3;
  EXPECT_EQ(crew.PickMany(*policy, 3, On(-1)), (Workers{9, 12, 9}));
}

TEST(AffinityCpu, CountsAWorkerOnAnUnknownCpuAsFarAway) {
  Crew crew(3);
  crew.topology() = TwoNodes();
  crew.facts(2).cpu = 7;  // same node; the others are unknown
  auto policy = Ready(AffinityCpu(), crew);
  EXPECT_EQ(crew.Pick(*policy, On(0)), 2u);
  crew.facts(2).open = kDefaultSlack + 1;
  EXPECT_EQ(crew.Pick(*policy, On(0)), 0u);
}

TEST(AffinityCpu, DoesNotTakeUnknownIdsForShared) {
  Crew crew(2);
  crew.topology().cpus = {{.core = 0, .cache = -1, .node = -1},
                          {.core = 1, .cache = -1, .node = -1}};
  crew.facts(0).cpu = -1;
  crew.facts(1).cpu = 1;  // its cache and node are as unknown as those of CPU 0
  auto policy = Ready(AffinityCpu(), crew);
  crew.facts(1).open = 1;
  EXPECT_EQ(crew.Pick(*policy, On(0)), 0u);
}

TEST(AffinityCpu, PrefersAWorkerThatWaitsWithinAGroupOnly) {
  Crew crew(3);
  crew.facts(0).cpu = crew.facts(1).cpu = 7;
  crew.facts(2).cpu = 9;
  auto policy = Ready(AffinityCpu(), crew);
  crew.SetBusy(0, true);
  EXPECT_EQ(crew.PickMany(*policy, 3, On(7)), (Workers{1, 1, 1}));
  crew.facts(1).open = 2;
  EXPECT_EQ(crew.PickMany(*policy, 2, On(7)), (Workers{0, 0}));
  crew.SetBusy(1, true);
  crew.facts(1).open = 0;
  EXPECT_EQ(crew.PickMany(*policy, 2, On(7)), (Workers{1, 0}));
  // Those that are far away, too.
  EXPECT_EQ(crew.PickMany(*policy, 3, On(5)), (Workers{2, 2, 2}));
}

TEST(AffinityCpu, LetsNothingBeMovedToAnotherCpu) {
  const auto policy = AffinityCpu();
  const Candidate from{.worker = 0, .open = 1, .cpu = 7, .activity = Activity::kBusy};
  const Candidate near{.worker = 1, .cpu = 7, .activity = Activity::kIdle};
  const Candidate far{.worker = 2, .cpu = 9, .activity = Activity::kIdle};
  EXPECT_TRUE(policy->MayMove(On(7), from, near));
  EXPECT_FALSE(policy->MayMove(On(7), from, far));
}

TEST(AffinityCpu, KnowsTheSameCpuWithoutATopology) {
  Crew crew(4);
  for (uint32_t worker = 0; worker < 4; ++worker) {
    crew.facts(worker).cpu = 100 + static_cast<int32_t>(worker);
  }
  auto policy = Ready(AffinityCpu(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 2, On(102)), (Workers{2, 2}));
  EXPECT_EQ(crew.Pick(*policy, On(99)), 0u);
}

TEST(AffinityCpu, AlwaysStaysNearWithTheLargestSlack) {
  Crew crew = OneWorkerForEachCpu();
  auto policy = Ready(AffinityCpu({.slack = UINT32_MAX}), crew);
  for (uint32_t worker = 0; worker < crew.size(); ++worker) crew.facts(worker).open = 10;
  crew.facts(5).open = 2'000'000'000;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 5u);
  crew.facts(5).credit = 0;
  EXPECT_EQ(crew.Pick(*policy, On(5)), 4u);  // an empty group holds nobody
}

TEST(AffinityCpu, NeverExceedsTheSlackAndNeverPassesOverANearerWorkerWithinIt) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 50; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    const uint32_t slack = chance.Below(6);
    Crew crew(1 + chance.Below(20));
    crew.topology() = TwoNodes();
    auto policy = Ready(AffinityCpu({.slack = slack}), crew);
    const auto nearness = [&](int32_t a, int32_t b) {
      if (a < 0 || b < 0) return 4;
      if (a == b) return 0;
      return a / 2 == b / 2 ? 1 : a / 4 == b / 4 ? 2 : a / 8 == b / 8 ? 3 : 4;
    };
    for (int step = 0; step < 300; ++step) {
      for (uint32_t worker = 0; worker < crew.size(); ++worker) {
        Candidate& facts = crew.facts(worker);
        facts.credit = chance.Below(2);
        facts.open = chance.Below(12);
        facts.activity = AnyActivity(chance, facts.unclaimed);
        facts.cpu = static_cast<int32_t>(chance.Below(kCpus + 1)) - 1;
      }
      if (!crew.HasCandidate()) continue;
      const int32_t incoming = static_cast<int32_t>(chance.Below(kCpus + 1)) - 1;
      const View view = crew.MakeView();
      uint32_t open_min = UINT32_MAX;
      for (const Candidate& one : view.candidates) open_min = std::min(open_min, one.open);
      const Candidate picked = crew.facts(crew.Pick(*policy, On(incoming)));
      ASSERT_LE(picked.open, open_min + slack);
      for (const Candidate& one : view.candidates) {
        if (one.open > open_min + slack) continue;
        ASSERT_LE(nearness(incoming, picked.cpu), nearness(incoming, one.cpu));
        if (nearness(incoming, picked.cpu) == nearness(incoming, one.cpu)) {
          ASSERT_LE(Load(picked), Load(one));
        }
      }
    }
  }
}

}  // namespace
}  // namespace ringmaster::testing
