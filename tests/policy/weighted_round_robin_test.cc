// Weighted round-robin by exact sequences, then by random weights, credit, recalls and members,
// against the parts that the weights promise, computed in whole numbers.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

// How many turns a worker may be owed at most; beyond it they are forgiven.
constexpr uint32_t kTurnsOwedMax = 1024;

std::unique_ptr<Policy> Weighted(std::vector<uint32_t> weights) {
  return WeightedRoundRobin({.weights = std::move(weights)}).value();
}

TEST(WeightedRoundRobin, SpreadsTheTurnsOfTheHeavyWorkers) {
  Crew crew(3);
  EXPECT_EQ(crew.PickMany(*Ready(Weighted({4, 1, 1}), crew), 12),
            (Workers{0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 2}));
  EXPECT_EQ(crew.PickMany(*Ready(Weighted({5, 1, 1}), crew), 7), (Workers{0, 0, 0, 1, 0, 0, 2}));
  EXPECT_EQ(crew.PickMany(*Ready(Weighted({1, 2, 3}), crew), 6), (Workers{2, 1, 2, 0, 1, 2}));
}

TEST(WeightedRoundRobin, IsAPlainRotationWhenAllWeightsAreEqual) {
  Crew crew(3);
  const Workers rotation{0, 1, 2, 0, 1, 2, 0, 1, 2, 0};
  EXPECT_EQ(crew.PickMany(*Ready(Weighted({}), crew), 10), rotation);
  EXPECT_EQ(crew.PickMany(*Ready(Weighted({7, 7, 7}), crew), 10), rotation);
}

TEST(WeightedRoundRobin, GivesWorkersBeyondTheListTheWeightOne) {
  Crew crew(4);
  EXPECT_EQ(crew.PickMany(*Ready(Weighted({3}), crew), 12),
            crew.PickMany(*Ready(Weighted({3, 1, 1, 1}), crew), 12));
}

TEST(WeightedRoundRobin, IgnoresTheWeightsOfWorkersThatHaveNotJoined) {
  Crew crew(3);
  crew.SetJoined(1, false);
  EXPECT_EQ(crew.PickMany(*Ready(Weighted({1, 1000, 1}), crew), 6), (Workers{0, 2, 0, 2, 0, 2}));
}

TEST(WeightedRoundRobin, RefusesAWeightOutOfRange) {
  for (const uint32_t weight : {0u, kWeightMax + 1, UINT32_MAX}) {
    const auto policy = WeightedRoundRobin({.weights = {1, weight}});
    EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument) << weight;
  }
  EXPECT_TRUE(WeightedRoundRobin({.weights = {1, kWeightMax}}).ok());
}

TEST(WeightedRoundRobin, OwesItsTurnsToAWorkerWithoutCreditAndPaysThemFirst) {
  Crew crew(3);
  auto policy = Ready(Weighted({2, 1, 1}), crew);
  crew.OnlyCreditFor({0, 2});
  // Of three turns two are worker 0's and one is worker 2's, and worker 1 misses one.
  EXPECT_EQ(crew.PickMany(*policy, 6), (Workers{0, 0, 2, 0, 0, 2}));
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 6), (Workers{1, 1, 0, 1, 0, 2}));
}

TEST(WeightedRoundRobin, OwesATurnForARecall) {
  Crew crew(2);
  auto policy = Ready(Weighted({1, 1}), crew);
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 1}));
  policy->OnRecall(1);
  crew.OnlyCreditFor({0});
  EXPECT_EQ(crew.Pick(*policy), 0u);  // the recalled arrival, placed again
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{1, 1, 0, 1}));
}

TEST(WeightedRoundRobin, SharesTheTurnsOfAWorkerThatIsAwayByTheWeightsOfTheOthers) {
  Crew crew(3);
  auto policy = Ready(Weighted({6, 3, 1}), crew);
  crew.OnlyCreditFor({1, 2});
  const Workers picks = crew.PickMany(*policy, 400);
  EXPECT_EQ(std::count(picks.begin(), picks.end(), 1u), 300);
}

TEST(WeightedRoundRobin, ForgivesTurnsBeyondTheBound) {
  for (const uint32_t weight : {1u, 7u}) {
    Crew crew(2);
    auto policy = Ready(Weighted({1, weight}), crew);
    crew.OnlyCreditFor({0});
    crew.PickMany(*policy, 10 * kTurnsOwedMax);
    policy->OnRecall(1);
    crew.CreditForAll();
    const Workers picks = crew.PickMany(*policy, 2 * kTurnsOwedMax);
    const auto debt_end = std::find(picks.begin(), picks.end(), 0u);
    // Its debt, and the turns that are its own before the next one of worker 0.
    EXPECT_GE(debt_end - picks.begin(), kTurnsOwedMax);
    EXPECT_LE(debt_end - picks.begin(), kTurnsOwedMax + weight);
  }
}

TEST(WeightedRoundRobin, OwesNothingToAWorkerThatLeft) {
  Crew crew(3);
  auto policy = Ready(Weighted({}), crew);
  crew.OnlyCreditFor({0, 2});
  crew.PickMany(*policy, 10);
  crew.SetJoined(1, false);
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 2}));
  crew.SetJoined(1, true);  // the index is used anew
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 6), (Workers{0, 1, 2, 0, 1, 2}));
}

TEST(WeightedRoundRobin, AWorkerThatTakesOverAnIndexBetweenTwoPicksInheritsNoDebt) {
  Crew crew(3);
  auto policy = Ready(Weighted({}), crew);
  crew.OnlyCreditFor({0, 2});
  crew.PickMany(*policy, 10);
  policy->OnLeave(1);  // and another worker joins at its index before the next pick
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 6), (Workers{0, 1, 2, 0, 1, 2}));
}

TEST(WeightedRoundRobin, OwesNothingForARecallFromAWorkerThatLeft) {
  Crew crew(3);
  auto policy = Ready(Weighted({}), crew);
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
  crew.SetJoined(1, false);
  EXPECT_EQ(crew.Pick(*policy), 0u);
  policy->OnRecall(1);
  crew.SetJoined(1, true);
  const Workers picks = crew.PickMany(*policy, 30);
  EXPECT_LE(std::count(picks.begin(), picks.end(), 1u), 10);
}

TEST(WeightedRoundRobin, KeepsTheDebtsOfOthersWhenWorkersJoinAndLeave) {
  Crew crew(5);
  crew.SetJoined(4, false);
  auto policy = Ready(Weighted({}), crew);
  crew.OnlyCreditFor({0, 1, 3});
  crew.PickMany(*policy, 30);  // 2 is owed ten turns
  crew.SetJoined(1, false);
  crew.SetJoined(4, true);
  crew.CreditForAll();
  const Workers debt = crew.PickMany(*policy, 9);
  EXPECT_EQ(debt, Workers(9, 2));
  const Workers picks = crew.PickMany(*policy, 41);
  for (const uint32_t worker : {0u, 3u, 4u}) {
    EXPECT_NEAR(static_cast<double>(std::count(picks.begin(), picks.end(), worker)), 10, 1);
  }
}

TEST(WeightedRoundRobin, KeepsTurnsAndWeightsWhenTheNumberOfWorkersGrows) {
  Crew small(2);
  auto policy = Ready(Weighted({1, 1, 2}), small);
  EXPECT_EQ(small.PickMany(*policy, 3), (Workers{0, 1, 0}));
  Crew grown(3);
  policy->Prepare(3);
  const Workers picks = grown.PickMany(*policy, 400);
  EXPECT_NEAR(static_cast<double>(std::count(picks.begin(), picks.end(), 2u)), 200, 1);
  EXPECT_NEAR(static_cast<double>(std::count(picks.begin(), picks.end(), 0u)), 100, 1);
}

std::vector<uint32_t> AnyWeights(Chance& chance, uint32_t count) {
  std::vector<uint32_t> weights;
  const uint32_t most = chance.OneIn(2) ? 5 : kWeightMax;
  for (uint32_t i = 0; i < count; ++i) {
    weights.push_back(1 + (chance.OneIn(2) ? 0 : chance.Below(most)));
  }
  return weights;
}

// By how much the picks of a worker differ from its part, at most, times the sum of the weights.
int64_t Deviation(const std::vector<int64_t>& picked, const std::vector<uint32_t>& weights) {
  const int64_t all = std::accumulate(picked.begin(), picked.end(), int64_t{0});
  const int64_t sum = std::accumulate(weights.begin(), weights.end(), int64_t{0});
  int64_t deviation = 0;
  for (size_t i = 0; i < picked.size(); ++i) {
    deviation = std::max(deviation, std::abs(picked[i] * sum - all * int64_t{weights[i]}));
  }
  return deviation;
}

// Invariant (1). To pick the worker to which most is due fails here.
TEST(WeightedRoundRobin, DiffersFromEveryPartByLessThanOneTurnAfterEveryPick) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 60; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    const uint32_t count = 1 + chance.Below(32);
    const std::vector<uint32_t> weights = AnyWeights(chance, count);
    const int64_t sum = std::accumulate(weights.begin(), weights.end(), int64_t{0});
    Crew crew(count);
    auto policy = Ready(Weighted(weights), crew);
    std::vector<int64_t> picked(count);
    for (int64_t i = 0; i < std::min<int64_t>(2 * sum, 3000); ++i) {
      ++picked[crew.Pick(*policy)];
      ASSERT_LT(Deviation(picked, weights), sum) << "pick " << i;
    }
  }
}

// Invariant (2).
TEST(WeightedRoundRobin, IsExactAgainOnceDebtsArePaidWhateverTheCredit) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 60; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    const uint32_t count = 2 + chance.Below(8);
    std::vector<uint32_t> weights;
    for (uint32_t i = 0; i < count; ++i) weights.push_back(1 + chance.Below(9));
    const int64_t sum = std::accumulate(weights.begin(), weights.end(), int64_t{0});
    Crew crew(count);
    auto policy = Ready(Weighted(weights), crew);
    std::vector<int64_t> net(count);  // picked and not recalled
    for (int phase = 0; phase < 4; ++phase) {
      // Too short a time to be owed more than the bound.
      Disturb(crew, *policy, chance, 100, net);
      crew.CreditForAll();
      for (uint32_t i = 0; i < count * kTurnsOwedMax; ++i) ++net[crew.Pick(*policy)];
      for (int64_t i = 0; i < 2 * sum; ++i) {
        ++net[crew.Pick(*policy)];
        ASSERT_LT(Deviation(net, weights), sum);
      }
    }
  }
}

// Long enough for what the policy counts to start again several times.
TEST(WeightedRoundRobin, StaysExactOverManyPicks) {
  const std::vector<uint32_t> weights{1000, 1, 1, 7};
  Crew crew(4);
  auto policy = Ready(Weighted(weights), crew);
  const View view = crew.MakeView();
  std::vector<int64_t> picked(4);
  for (int i = 0; i < 40'000'000; ++i) ++picked[policy->Pick({}, view)];
  EXPECT_LT(Deviation(picked, weights), 1009);
}

// Only the lightest worker has credit, so each pick hands a thousand turns to the heavy one.
TEST(WeightedRoundRobin, CountsALongAbsenceOfAHeavyWorkerWithoutOverflow) {
  Crew crew(3);
  auto policy = Ready(Weighted({kWeightMax, 1, kWeightMax}), crew);
  crew.OnlyCreditFor({1});
  const View view = crew.MakeView();
  for (int i = 0; i < 5'000'000; ++i) ASSERT_EQ(policy->Pick({}, view), 0u);
  crew.CreditForAll();
  const Workers picks = crew.PickMany(*policy, 2 * kTurnsOwedMax + 2000);
  EXPECT_NEAR(static_cast<double>(std::count(picks.begin(), picks.end(), 0u)), kTurnsOwedMax + 1000,
              1);
  EXPECT_NEAR(static_cast<double>(std::count(picks.begin(), picks.end(), 1u)), 1, 1);
}

TEST(WeightedRoundRobin, StarvesNoWorkerThatKeepsCredit) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 20; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    constexpr uint32_t kWorkers = 5;
    constexpr uint32_t kWeightSum = 4 + 3 + 1 + 2 + 1;
    Crew crew(kWorkers);
    auto policy = Ready(Weighted({1, 4, 3, 2, 1}), crew);
    size_t waited = 0;
    for (int step = 0; step < 5000; ++step) {
      // Worker 0 always has credit; the others lose and regain it, in long stretches.
      for (uint32_t worker = 1; worker < kWorkers; ++worker) {
        if (chance.OneIn(400)) crew.facts(worker).credit = chance.Below(2);
      }
      waited = crew.Pick(*policy) == 0 ? 0 : waited + 1;
      ASSERT_LE(waited, (kWorkers - 1) * kTurnsOwedMax + kWeightSum);
    }
  }
}

}  // namespace
}  // namespace ringmaster::testing
