// Two choices: its rule for each pair that it draws, then that the pairs are drawn evenly and how
// well many connections come out. The seeds are fixed, so nothing is left to chance here.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

TEST(TwoChoices, PicksTheLessLoadedOfTwoWorkersAlways) {
  Crew crew(2);
  auto policy = Ready(TwoChoices(), crew);
  crew.facts(0).open = 1;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 1));
  crew.facts(1).open = 2;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 0));
}

TEST(TwoChoices, PrefersAnIdleWorkerAmongEqualsOnly) {
  Crew crew(2);
  auto policy = Ready(TwoChoices(), crew);
  crew.facts(0).activity = Activity::kClaiming;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 1));
  crew.facts(1).open = 1;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 0));
}

TEST(TwoChoices, TakesABusyWorkerForOneWithTwiceAsManyAndOne) {
  Crew crew(2);
  auto policy = Ready(TwoChoices(), crew);
  crew.SetBusy(0, true);
  crew.facts(1).open = 1;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 1));
  crew.facts(1).open = 2;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 0));
  crew.facts(0).open = 4;
  crew.facts(1).open = 9;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 1));
  crew.facts(1).open = 10;
  EXPECT_EQ(crew.PickMany(*policy, 20), Workers(20, 0));
}

TEST(TwoChoices, NeverPicksTheOneThatLosesAgainstEverybody) {
  Crew crew(5);
  auto policy = Ready(TwoChoices(), crew);
  crew.facts(3).open = 1;
  for (int i = 0; i < 1000; ++i) EXPECT_NE(crew.Pick(*policy), 3u);
}

TEST(TwoChoices, PicksTheSameForTheSameSeedAndSomethingElseForAnother) {
  Crew crew(16);
  const Workers picks = crew.PickMany(*Ready(TwoChoices({.seed = 1}), crew), 100);
  EXPECT_EQ(crew.PickMany(*Ready(TwoChoices({.seed = 1}), crew), 100), picks);
  EXPECT_NE(crew.PickMany(*Ready(TwoChoices({.seed = 2}), crew), 100), picks);
  EXPECT_NE(crew.PickMany(*Ready(TwoChoices(), crew), 100), picks);
}

// With loads 0, 1, 2 … the picked worker is the lower one of the pair. Of n workers, n - 1 - i
// pairs have worker i as the lower one. A worker drawn twice would show as a pick of the highest.
TEST(TwoChoices, DrawsEveryPairEquallyOftenAndNobodyTwice) {
  constexpr uint32_t kWorkers = 6;
  constexpr double kPairs = kWorkers * (kWorkers - 1) / 2.0;
  constexpr int kPicks = 150'000;
  Crew crew(kWorkers);
  for (uint32_t worker = 0; worker < kWorkers; ++worker) crew.facts(worker).open = worker;
  auto policy = Ready(TwoChoices(), crew);
  std::vector<int> counts(kWorkers);
  for (int i = 0; i < kPicks; ++i) ++counts[crew.Pick(*policy)];
  EXPECT_EQ(counts[kWorkers - 1], 0);
  for (uint32_t worker = 0; worker + 1 < kWorkers; ++worker) {
    const double expected = kPicks * (kWorkers - 1 - worker) / kPairs;
    EXPECT_NEAR(counts[worker], expected, 5 * std::sqrt(expected)) << "worker " << worker;
  }
}

TEST(TwoChoices, PicksBothOfAPairEquallyOftenWhenTheyAreEqual) {
  constexpr int kPicks = 100'000;
  Crew crew(2);
  auto policy = Ready(TwoChoices(), crew);
  int first = 0;
  for (int i = 0; i < kPicks; ++i) first += crew.Pick(*policy) == 0 ? 1 : 0;
  EXPECT_NEAR(first, kPicks / 2, 5 * std::sqrt(kPicks) / 2);
}

// One random choice leaves the fullest of 64 workers over 80 connections above the average of
// 1,000.
TEST(TwoChoices, KeepsTheFullestWithinAFewConnectionsOfTheAverage) {
  constexpr uint32_t kWorkers = 64;
  constexpr uint32_t kEach = 1000;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Crew crew(kWorkers);
    auto policy = Ready(TwoChoices({.seed = seed}), crew);
    for (uint32_t i = 0; i < kWorkers * kEach; ++i) ++crew.facts(crew.Pick(*policy)).open;
    uint32_t fullest = 0;
    for (uint32_t worker = 0; worker < kWorkers; ++worker) {
      fullest = std::max(fullest, crew.facts(worker).open);
    }
    EXPECT_LE(fullest, kEach + 4) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ringmaster::testing
