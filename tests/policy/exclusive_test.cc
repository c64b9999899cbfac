// Exclusive, in both orders, by exact sequences, then against the rule written down as a sort.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

// Every worker busy with that many unclaimed offers.
void MakeBusy(Crew& crew, std::vector<uint32_t> unclaimed) {
  for (uint32_t worker = 0; worker < unclaimed.size(); ++worker) {
    crew.facts(worker).activity = Activity::kClaiming;
    crew.facts(worker).unclaimed = unclaimed[worker];
  }
}

TEST(ExclusiveLifo, KeepsOneWorkerHotWhileItIsIdleAgainEachTime) {
  Crew crew(4);
  auto policy = Ready(Exclusive(WakeOrder::kLifo), crew);
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 0, 0}));
}

TEST(ExclusiveLifo, WakesTheIdleWorkerThatWasPickedLast) {
  Crew crew(4);
  auto policy = Ready(Exclusive(WakeOrder::kLifo), crew);
  crew.OnlyCreditFor({2});
  crew.Pick(*policy);
  crew.OnlyCreditFor({1});
  crew.Pick(*policy);
  crew.CreditForAll();
  crew.facts(1).activity = Activity::kClaiming;
  EXPECT_EQ(crew.Pick(*policy), 2u);
  crew.facts(1).activity = Activity::kIdle;
  EXPECT_EQ(crew.Pick(*policy), 2u);
  crew.facts(2).activity = Activity::kClaiming;
  EXPECT_EQ(crew.Pick(*policy), 1u);
  crew.facts(1).activity = Activity::kClaiming;
  EXPECT_EQ(crew.Pick(*policy), 0u);  // never picked: by index
}

TEST(ExclusiveLifo, TheHostComesFirstWhileItIsIdle) {
  Crew crew(3);
  auto policy = Ready(Exclusive(WakeOrder::kLifo), crew);
  crew.facts(2).on_host = true;
  EXPECT_EQ(crew.Pick(*policy), 2u);
  crew.facts(2).activity = Activity::kClaiming;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 0}));
  crew.facts(2).activity = Activity::kIdle;
  EXPECT_EQ(crew.Pick(*policy), 2u);
}

TEST(ExclusiveLifo, AWorkerThatTakesOverAnIndexIsNotTheOneThatWasWokenLast) {
  Crew crew(3);
  auto policy = Ready(Exclusive(WakeOrder::kLifo), crew);
  for (const uint32_t worker : {1, 2}) {
    crew.OnlyCreditFor({worker});
    crew.Pick(*policy);
  }
  crew.CreditForAll();
  policy->OnLeave(2);  // and another one joins at its index
  EXPECT_EQ(crew.Pick(*policy), 1u);
}

TEST(ExclusiveLifo, WhatComesTogetherWakesOneWorkerUpToFourOffers) {
  Crew crew(3);
  auto policy = Ready(Exclusive(WakeOrder::kLifo), crew);
  EXPECT_EQ(crew.Pick(*policy), 0u);
  crew.facts(0).activity = Activity::kClaiming;
  for (uint32_t unclaimed = 1; unclaimed < 4; ++unclaimed) {
    crew.facts(0).unclaimed = unclaimed;
    crew.facts(0).still_ns = 199'999;
    EXPECT_EQ(crew.Pick(*policy), 0u) << unclaimed;
  }
  crew.facts(0).unclaimed = 4;
  EXPECT_EQ(crew.Pick(*policy), 1u);
}

TEST(ExclusiveLifo, WakesAnotherWorkerWhenTheFirstHasClaimedOrDoesNotComeRound) {
  for (const bool claimed : {true, false}) {
    Crew crew(3);
    auto policy = Ready(Exclusive(WakeOrder::kLifo), crew);
    crew.OnlyCreditFor({2});
    EXPECT_EQ(crew.Pick(*policy), 2u);
    crew.CreditForAll();
    crew.facts(2).activity = Activity::kClaiming;
    crew.facts(2).unclaimed = claimed ? 0 : 1;
    crew.facts(2).still_ns = claimed ? 0 : 200'000;
    EXPECT_EQ(crew.Pick(*policy), 0u) << claimed;
  }
}

TEST(ExclusiveLifo, WhatComesTogetherDoesNotSplitBetweenTheHostAndAnother) {
  Crew crew(3);
  auto policy = Ready(Exclusive(WakeOrder::kLifo), crew);
  crew.facts(2).on_host = true;
  crew.facts(2).activity = Activity::kClaiming;
  EXPECT_EQ(crew.Pick(*policy), 0u);
  crew.facts(0).activity = Activity::kClaiming;
  crew.facts(0).unclaimed = 1;
  crew.facts(2).activity = Activity::kIdle;
  EXPECT_EQ(crew.Pick(*policy), 0u);
  policy->OnLeave(0);  // and another one joins at its index
  EXPECT_EQ(crew.Pick(*policy), 2u);
}

TEST(ExclusiveFifo, WakesAWorkerForEachThatComes) {
  Crew crew(3);
  auto policy = Ready(Exclusive(WakeOrder::kFifo), crew);
  EXPECT_EQ(crew.Pick(*policy), 0u);
  crew.facts(0).activity = Activity::kClaiming;
  crew.facts(0).unclaimed = 1;
  EXPECT_EQ(crew.Pick(*policy), 1u);
}

TEST(ExclusiveFifo, WakesThoseNeverPickedFirstByIndexThenTheOneThatWaitedLongest) {
  Crew crew(4);
  auto policy = Ready(Exclusive(WakeOrder::kFifo), crew);
  crew.OnlyCreditFor({1});
  crew.Pick(*policy);
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*policy, 6), (Workers{0, 2, 3, 1, 0, 2}));
}

TEST(ExclusiveFifo, AWorkerThatTakesOverAnIndexIsOneThatWasNeverPicked) {
  Crew crew(3);
  auto policy = Ready(Exclusive(WakeOrder::kFifo), crew);
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
  policy->OnLeave(2);  // and another one joins at its index
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{2, 0, 1}));
}

TEST(ExclusiveFifo, PassesOverBusyWorkersWhileOneIsIdle) {
  Crew crew(3);
  auto policy = Ready(Exclusive(WakeOrder::kFifo), crew);
  crew.facts(0).activity = Activity::kClaiming;  // has taken all its offers and serves
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{1, 2, 1, 2}));
}

TEST(Exclusive, PicksTheFewestUnclaimedWhenNoneIsIdle) {
  for (const WakeOrder order : {WakeOrder::kLifo, WakeOrder::kFifo}) {
    Crew crew(4);
    auto policy = Ready(Exclusive(order), crew);
    MakeBusy(crew, {3, 2, 1, 2});
    EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{2, 2}));
  }
}

TEST(Exclusive, BreaksTiesOfUnclaimedByTheSameOrder) {
  Crew crew(3);
  auto lifo = Ready(Exclusive(WakeOrder::kLifo), crew);
  auto fifo = Ready(Exclusive(WakeOrder::kFifo), crew);
  MakeBusy(crew, {5, 5, 5});
  crew.OnlyCreditFor({1});
  crew.Pick(*lifo);
  crew.Pick(*fifo);
  crew.CreditForAll();
  EXPECT_EQ(crew.PickMany(*lifo, 3), (Workers{1, 1, 1}));
  EXPECT_EQ(crew.PickMany(*fifo, 4), (Workers{0, 2, 1, 0}));
}

TEST(Exclusive, FollowsTheRuleUnderRandomFacts) {
  const uint64_t first = FirstSeed();
  for (const WakeOrder order : {WakeOrder::kLifo, WakeOrder::kFifo}) {
    for (uint64_t seed = first; seed < first + 30; ++seed) {
      SCOPED_TRACE(::testing::Message() << "seed=" << seed);
      Chance chance(seed);
      Crew crew(1 + chance.Below(12));
      auto policy = Ready(Exclusive(order), crew);
      std::vector<int64_t> last_pick(crew.size(), -1);
      uint32_t woken = crew.size();
      for (int64_t step = 0; step < 300; ++step) {
        for (uint32_t worker = 0; worker < crew.size(); ++worker) {
          Candidate& facts = crew.facts(worker);
          facts.credit = chance.OneIn(3) ? 0 : 1;
          facts.unclaimed = chance.Below(6);
          facts.still_ns = facts.unclaimed > 0 ? chance.Below(4) * 100'000 : 0;
          facts.activity = AnyActivity(chance, facts.unclaimed);
          facts.on_host = worker == 0 && seed % 2 == 0;
        }
        if (!crew.HasCandidate()) continue;
        const View view = crew.MakeView();
        // Last in, first out: the one being woken, then the host if it is idle. Then idle first,
        // then fewest unclaimed, then the order of wake-ups, then the index.
        const auto rank = [&](const Candidate& candidate) {
          const int64_t last = last_pick[candidate.worker];
          const bool lifo = order == WakeOrder::kLifo;
          const bool being_woken = lifo && candidate.worker == woken && candidate.unclaimed >= 1 &&
                                   candidate.unclaimed <= 3 && candidate.still_ns < 200'000;
          const bool awake = lifo && candidate.idle() && candidate.on_host;
          return std::tuple(!being_woken, !awake, !candidate.idle(), candidate.unclaimed,
                            lifo ? -last : last, candidate.worker);
        };
        const auto expected = std::min_element(
            view.candidates.begin(), view.candidates.end(),
            [&](const Candidate& a, const Candidate& b) { return rank(a) < rank(b); });
        const uint32_t worker = crew.Pick(*policy);
        ASSERT_EQ(worker, expected->worker);
        last_pick[worker] = step;
        woken = worker;
      }
    }
  }
}

}  // namespace
}  // namespace ringmaster::testing
