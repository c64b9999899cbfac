// Least-loaded by exact sequences, then its two promises under random facts.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

TEST(LeastLoaded, PicksTheFewestOpenConnections) {
  Crew crew(4);
  auto policy = Ready(LeastLoaded(), crew);
  for (uint32_t worker = 0; worker < 4; ++worker) crew.facts(worker).open = 7 - worker;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{3, 3}));
  crew.facts(3).open = 6;
  EXPECT_EQ(crew.Pick(*policy), 2u);
}

TEST(LeastLoaded, RotatesAmongEquals) {
  Crew crew(3);
  auto policy = Ready(LeastLoaded(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 7), (Workers{0, 1, 2, 0, 1, 2, 0}));
}

TEST(LeastLoaded, TakesTheFirstOfEqualsIfTheyDoNotRotate) {
  Crew crew(4);
  auto policy = Ready(LeastLoaded({.rotate_ties = false}), crew);
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 0, 0}));
  crew.facts(0).open = 1;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{1, 1}));
  // Also among more than are equal, and after a memory that another one has left.
  crew.facts(3).open = 1;
  std::vector<uint64_t> words(Policy::kMemoryWords + 4, 3);
  ASSERT_TRUE(policy->Load(words));
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{1, 1}));
  crew.facts(1).open = crew.facts(2).open = 1;
  EXPECT_EQ(crew.Pick(*policy), 0u);
}

TEST(LeastLoaded, RotatesFromTheLastPickWhoeverThatWas) {
  Crew crew(4);
  auto policy = Ready(LeastLoaded(), crew);
  crew.facts(0).open = crew.facts(1).open = crew.facts(3).open = 1;
  EXPECT_EQ(crew.Pick(*policy), 2u);
  crew.facts(2).open = 1;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{3, 0, 1}));
}

TEST(LeastLoaded, PrefersAnIdleWorkerAmongEqualsOnly) {
  Crew crew(3);
  auto policy = Ready(LeastLoaded(), crew);
  crew.facts(0).activity = crew.facts(1).activity = Activity::kClaiming;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{2, 2}));
  crew.facts(2).open = 1;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 0}));
}

TEST(LeastLoaded, TakesABusyWorkerForOneWithTwiceAsManyAndOne) {
  Crew crew(3);
  auto policy = Ready(LeastLoaded(), crew);
  crew.SetBusy(0, true);
  crew.SetBusy(1, true);
  const struct {
    uint32_t busy_has;
    uint32_t counts_as;
  } kCases[] = {{0, 1}, {1, 3}, {2, 5}, {16, 33}, {254, 509}};
  for (const auto& [busy_has, counts_as] : kCases) {
    crew.facts(0).open = crew.facts(1).open = busy_has;
    crew.facts(2).open = counts_as;
    EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{2, 2})) << busy_has;
    crew.facts(2).open = counts_as + 1;
    EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 0})) << busy_has;
  }
}

// A worker that gives no hints is neither preferred nor passed over.
TEST(LeastLoaded, TakesAWorkerWithoutHintsAsOneThatWaits) {
  Crew crew(3);
  auto policy = Ready(LeastLoaded(), crew);
  crew.SetBusy(1, true);
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{0, 2, 0, 2}));
  crew.facts(0).activity = Activity::kClaiming;  // it is in a claim
  crew.facts(2).open = 1;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 0}));
}

TEST(LeastLoaded, LevelsWorkersThatAreAllBusyOrAllWait) {
  for (const bool busy : {false, true}) {
    Crew crew(4);
    auto policy = Ready(LeastLoaded(), crew);
    for (uint32_t worker = 0; worker < 4; ++worker) crew.SetBusy(worker, busy);
    for (int i = 0; i < 64; ++i) ++crew.facts(crew.Pick(*policy)).open;
    for (uint32_t worker = 0; worker < 4; ++worker) EXPECT_EQ(crew.facts(worker).open, 16u);
  }
}

TEST(LeastLoaded, KeepsItsPlaceWhenWorkersLackCreditForAWhile) {
  Crew crew(4);
  auto policy = Ready(LeastLoaded(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 1}));
  crew.OnlyCreditFor({0, 3});
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{3, 0}));
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{1, 2, 3}));
}

TEST(LeastLoaded, ComparesTheWholeRangeOfCounts) {
  Crew crew(3);
  auto policy = Ready(LeastLoaded(), crew);
  constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
  crew.facts(0).open = kMost;
  crew.facts(1).open = kMost - 1;
  crew.facts(2).open = kMost;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{1, 1}));
  crew.facts(0).open = 1;
  crew.facts(1).open = crew.facts(2).open = 0x8000'0000;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 0}));
}

// When connections stay, the counts fill up level, whatever they were.
TEST(LeastLoaded, LevelsUnevenWorkers) {
  Crew crew(3);
  auto policy = Ready(LeastLoaded(), crew);
  crew.facts(0).open = 5;
  crew.facts(1).open = 2;
  for (int i = 0; i < 11; ++i) ++crew.facts(crew.Pick(*policy)).open;
  for (uint32_t worker = 0; worker < 3; ++worker) EXPECT_EQ(crew.facts(worker).open, 6u);
}

TEST(LeastLoaded, NeverPicksFarAboveTheMinimumNorOneThatIsNotIdleBesideAnEqualIdleOne) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 50; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    Crew crew(1 + chance.Below(16));
    auto policy = Ready(LeastLoaded(), crew);
    for (int step = 0; step < 300; ++step) {
      for (uint32_t worker = 0; worker < crew.size(); ++worker) {
        Candidate& facts = crew.facts(worker);
        facts.credit = chance.Below(2);
        facts.open = chance.Below(4);
        facts.activity = AnyActivity(chance, facts.unclaimed);
      }
      if (!crew.HasCandidate()) continue;
      const View view = crew.MakeView();
      const Candidate picked = crew.facts(crew.Pick(*policy));
      for (const Candidate& one : view.candidates) {
        ASSERT_LE(Load(picked), Load(one));
        if (one.open == picked.open && one.idle()) {
          ASSERT_TRUE(picked.idle());
        }
      }
    }
  }
}

}  // namespace
}  // namespace ringmaster::testing
