// Hermes: each sieve alone, then their order, then all of them against the rule written down with
// sets of workers.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

constexpr int64_t kMs = 1'000'000;

TEST(Hermes, TakesTurnsAmongThoseThatAreLeft) {
  Crew crew(4);
  auto policy = Ready(Hermes(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 6), (Workers{0, 1, 2, 3, 0, 1}));
  crew.facts(2).still_ns = 6 * kMs;
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{3, 0, 1, 3}));
}

TEST(Hermes, LeavesOutAWorkerThatHasNotMovedForOverFiveMilliseconds) {
  Crew crew(2);
  auto policy = Ready(Hermes(), crew);
  crew.facts(0).still_ns = 5 * kMs;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 1}));
  crew.facts(0).still_ns = 5 * kMs + 1;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{1, 1}));
}

TEST(Hermes, TakesTheTimeFromItsOptions) {
  Crew crew(2);
  auto policy = Ready(Hermes({.still_ms_max = 20}), crew);
  crew.facts(0).still_ns = 20 * kMs;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 1}));
  crew.facts(0).still_ns = 20 * kMs + 1;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{1, 1}));
  auto never = Ready(Hermes({.still_ms_max = UINT32_MAX}), crew);
  crew.facts(0).still_ns = int64_t{UINT32_MAX} * kMs;
  EXPECT_EQ(crew.PickMany(*never, 2), (Workers{0, 1}));
}

TEST(Hermes, LetsEverybodyThroughWhenNobodyMoves) {
  Crew crew(3);
  auto policy = Ready(Hermes(), crew);
  for (uint32_t worker = 0; worker < 3; ++worker) crew.facts(worker).still_ns = 50 * kMs;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
  crew.facts(1).open = 9;  // the other sieves go on
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 2}));
}

TEST(Hermes, LeavesOutThoseWithOverOneAndAHalfTimesTheAverageOfConnections) {
  Crew crew(4);
  auto policy = Ready(Hermes(), crew);
  crew.facts(0).open = crew.facts(1).open = 10;
  crew.facts(2).open = 8;
  crew.facts(3).open = 14;  // average 10.5, limit 15.75
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{0, 1, 2, 3}));
  crew.facts(3).open = 17;  // average 11.25, limit 16.875
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{0, 1, 2, 0}));
}

TEST(Hermes, ToleratesExactlyOneAndAHalfTimesTheAverage) {
  Crew crew(2);
  auto policy = Ready(Hermes(), crew);
  crew.facts(0).open = 1;
  crew.facts(1).open = 3;  // average 2
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 1}));
  crew.facts(1).open = 4;
  EXPECT_EQ(crew.PickMany(*policy, 2), (Workers{0, 0}));
}

TEST(Hermes, PassesOverBusyWorkersUnlessAllAre) {
  Crew crew(4);
  auto policy = Ready(Hermes(), crew);
  crew.SetBusy(1, true);
  crew.SetBusy(2, true);
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{0, 3, 0, 3}));
  crew.SetBusy(0, true);
  crew.SetBusy(3, true);
  EXPECT_EQ(crew.PickMany(*policy, 5), (Workers{0, 1, 2, 3, 0}));
}

// That a worker waits does not let it through a sieve.
TEST(Hermes, DoesNotPreferAWorkerThatWaitsWithManyConnections) {
  Crew crew(3);
  auto policy = Ready(Hermes(), crew);
  crew.SetBusy(0, true);
  crew.SetBusy(1, true);
  crew.facts(2).open = 9;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 0}));
}

TEST(Hermes, LeavesOutThoseWithOverOneAndAHalfTimesTheAverageOfUnclaimedOffers) {
  Crew crew(3);
  auto policy = Ready(Hermes(), crew);
  for (uint32_t worker = 0; worker < 3; ++worker) crew.facts(worker).open = 20;
  crew.facts(1).unclaimed = 5;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 2, 0}));
}

// The first sieve drops a worker that has the most connections, the second one that has the most
// offers. If they were counted in the averages, the limits would let the next ones through.
TEST(Hermes, TakesEachAverageOverThoseThatAreLeft) {
  Crew crew(5);
  auto policy = Ready(Hermes(), crew);
  crew.facts(0) = {.worker = 0, .open = 1000, .unclaimed = 1, .credit = 1, .still_ns = 9 * kMs};
  crew.facts(1) = {.worker = 1, .open = 30, .unclaimed = 20, .credit = 1};
  crew.facts(2) = {.worker = 2, .open = 10, .unclaimed = 4, .credit = 1};
  crew.facts(3) = {.worker = 3, .open = 10, .unclaimed = 1, .credit = 1};
  crew.facts(4) = {.worker = 4, .open = 10, .unclaimed = 1, .credit = 1};
  EXPECT_EQ(crew.PickMany(*policy, 4), (Workers{3, 4, 3, 4}));
}

TEST(Hermes, ComparesTheWholeRangeOfCounts) {
  Crew crew(3);
  auto policy = Ready(Hermes(), crew);
  crew.facts(0).open = crew.facts(1).open = UINT32_MAX;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{0, 1, 2}));
  crew.facts(1).open = 0;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{1, 2, 1}));
}

TEST(Hermes, FollowsItsRuleUnderAnyFacts) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 50; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    Crew crew(1 + chance.Below(16));
    auto policy = Ready(Hermes(), crew);
    uint32_t next = 0;
    for (int step = 0; step < 300; ++step) {
      for (uint32_t worker = 0; worker < crew.size(); ++worker) {
        Candidate& facts = crew.facts(worker);
        facts.credit = chance.Below(3);
        facts.open = chance.Below(12);
        facts.unclaimed = chance.Below(4);
        facts.still_ns = chance.OneIn(2) ? 0 : chance.Below(8) * kMs;
        facts.activity = AnyActivity(chance, facts.unclaimed);
      }
      if (!crew.HasCandidate()) continue;
      const View view = crew.MakeView();
      std::vector<Candidate> left(view.candidates.begin(), view.candidates.end());
      const auto sieve = [&](const auto& keeps) {
        std::vector<Candidate> kept;
        std::copy_if(left.begin(), left.end(), std::back_inserter(kept), keeps);
        if (!kept.empty()) left = kept;
      };
      const auto sieve_by = [&](uint32_t Candidate::*load) {
        uint64_t sum = 0;
        for (const Candidate& one : left) sum += one.*load;
        const double average = static_cast<double>(sum) / static_cast<double>(left.size());
        sieve([&](const Candidate& one) { return one.*load <= average + average / 2; });
      };
      sieve([](const Candidate& one) { return one.still_ns <= 5 * kMs; });
      sieve_by(&Candidate::open);
      sieve_by(&Candidate::unclaimed);
      sieve([](const Candidate& one) { return !one.busy(); });
      const auto turn = std::find_if(left.begin(), left.end(),
                                     [&](const Candidate& one) { return one.worker >= next; });
      const uint32_t expected = turn != left.end() ? turn->worker : left.front().worker;
      ASSERT_EQ(crew.Pick(*policy), expected) << "step " << step;
      next = expected + 1;
    }
  }
}

}  // namespace
}  // namespace ringmaster::testing
