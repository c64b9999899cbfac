// Method: each transition is made once and the books are compared. Then a random walk goes over all
// of them, in which the ledger's own check must hold after every step.

#include "core/ledger.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "sim/prng.h"

namespace ringmaster::core {
namespace {

class LedgerTest : public testing::Test {
 protected:
  LedgerTest() { ledger_.Reserve(2, 3, 8); }

  Ledger ledger_;
};

TEST_F(LedgerTest, NumbersTheArrivalsOfEachSourceDensely) {
  EXPECT_EQ(ledger_.record(ledger_.Arrive(0, 10, {})).number, 0u);
  EXPECT_EQ(ledger_.record(ledger_.Arrive(1, 11, {})).number, 0u);
  EXPECT_EQ(ledger_.record(ledger_.Arrive(0, 12, {})).number, 1u);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, HoldsArrivalsInTheirOrder) {
  const ArrivalId first = ledger_.Arrive(0, 10, {});
  const ArrivalId second = ledger_.Arrive(0, 11, {});
  EXPECT_EQ(ledger_.FirstHeld(0), first);
  ledger_.Offer(first, 1, 100);
  EXPECT_EQ(ledger_.FirstHeld(0), second);
  EXPECT_EQ(ledger_.FirstHeld(1), kNoArrival);
}

TEST_F(LedgerTest, CountsAnOfferForItsSourceAndItsWorker) {
  const ArrivalId id = ledger_.Arrive(0, 10, {});
  ledger_.Offer(id, 2, 100);
  EXPECT_EQ(ledger_.record(id).where, Where::kOffered);
  EXPECT_EQ(ledger_.record(id).offered_at_ns, 100);
  EXPECT_EQ(ledger_.source(0).held, 0u);
  EXPECT_EQ(ledger_.source(0).offered, 1u);
  EXPECT_EQ(ledger_.worker(2).assigned, 1u);
  EXPECT_EQ(ledger_.worker(2).unclaimed, 1u);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, ForgetsAnArrivalThatWasClaimed) {
  const ArrivalId id = ledger_.Arrive(0, 10, {});
  ledger_.Offer(id, 2, 100);
  ledger_.Claim(id);
  EXPECT_EQ(ledger_.record(id).where, Where::kFree);
  EXPECT_EQ(ledger_.source(0).claimed, 1u);
  EXPECT_EQ(ledger_.worker(2).claimed, 1u);
  EXPECT_EQ(ledger_.worker(2).unclaimed, 0u);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, HoldsARecalledArrivalBeforeAllOthersUnderItsOldNumber) {
  const ArrivalId recalled = ledger_.Arrive(0, 10, {.incoming_cpu = 3});
  ledger_.Offer(recalled, 2, 100);
  const ArrivalId younger = ledger_.Arrive(0, 11, {});
  ledger_.Recall(recalled);
  EXPECT_EQ(ledger_.FirstHeld(0), recalled);
  EXPECT_EQ(ledger_.record(recalled).number, 0u);
  EXPECT_EQ(ledger_.record(recalled).facts.incoming_cpu, 3);
  EXPECT_EQ(ledger_.worker(2).recalled, 1u);
  EXPECT_EQ(ledger_.worker(2).unclaimed, 0u);
  ledger_.Offer(recalled, 1, 200);
  EXPECT_EQ(ledger_.FirstHeld(0), younger);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, KeepsTheEndOfTheQueueWhenTheOnlyHeldArrivalWasRecalled) {
  const ArrivalId recalled = ledger_.Arrive(0, 10, {});
  ledger_.Offer(recalled, 2, 100);
  ledger_.Recall(recalled);
  const ArrivalId younger = ledger_.Arrive(0, 11, {});
  ledger_.Offer(recalled, 2, 200);
  EXPECT_EQ(ledger_.FirstHeld(0), younger);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, HandsOutTheDescriptorOfARefusedArrival) {
  const ArrivalId id = ledger_.Arrive(1, 17, {});
  EXPECT_EQ(ledger_.Refuse(id), 17);
  EXPECT_EQ(ledger_.source(1).refused, 1u);
  EXPECT_EQ(ledger_.FirstHeld(1), kNoArrival);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, HoldsWhatIsPassedOnInTheQueueOfItsGiverUntilThatHasLeft) {
  const ArrivalId first = ledger_.PassOn(0, 10, {.incoming_cpu = 3}, 1, 100);
  const ArrivalId second = ledger_.Arrive(0, 11, {});
  const ArrivalId third = ledger_.PassOn(0, 12, {}, 2, 100);
  const ArrivalId fourth = ledger_.PassOn(0, 13, {}, kNoGiver, 100);
  EXPECT_EQ(ledger_.record(fourth).number, 3u);
  EXPECT_EQ(ledger_.FirstHeld(0), second);
  EXPECT_EQ(ledger_.FirstPassedOn(SourceIndex(0), kNoGiver), first);
  EXPECT_EQ(ledger_.FirstPassedOn(SourceIndex(0), 1), third);
  EXPECT_EQ(ledger_.FirstPassedOn(SourceIndex(1), kNoGiver), kNoArrival);
  EXPECT_EQ(ledger_.source(0).to_deal(), 4u);
  EXPECT_EQ(ledger_.source(0).new_to_deal(), 1u);
  EXPECT_EQ(ledger_.source(0).with_givers, 2u);
  ledger_.CheckAll();
  ledger_.ForgetGiver(SourceIndex(0), 1);
  EXPECT_EQ(ledger_.FirstHeld(0), first);
  EXPECT_EQ(ledger_.FirstPassedOn(SourceIndex(0), kNoGiver), third);
  EXPECT_EQ(ledger_.source(0).new_to_deal(), 1u);
  ledger_.ForgetGivers(SourceIndex(0));
  EXPECT_FALSE(ledger_.AnyGivers());
  for (const ArrivalId id : {first, second, third, fourth}) {
    EXPECT_EQ(ledger_.FirstHeld(0), id);
    ledger_.Offer(id, 0, 200);
    ledger_.Claim(id);
  }
  EXPECT_EQ(ledger_.source(0).passed_on, 3u);
  EXPECT_EQ(ledger_.source(0).claimed, 4u);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, WhatComesBackGoesToTheQueueOfItsGiverIfThatIsStillThere) {
  const ArrivalId first = ledger_.PassOn(0, 10, {}, 1, 100);
  const ArrivalId second = ledger_.PassOn(0, 11, {}, 1, 100);
  ledger_.SetAside(first, 100);
  ledger_.SetAside(second, 100);
  EXPECT_EQ(ledger_.source(0).new_to_deal(), 0u);
  const ArrivalId third = ledger_.PassOn(0, 12, {}, 1, 100);
  ledger_.TakeUp(0);
  EXPECT_EQ(ledger_.FirstOf(SourceIndex(0), 1), first);
  ledger_.Offer(first, 2, 100);
  EXPECT_EQ(ledger_.FirstOf(SourceIndex(0), 1), second);
  ledger_.Recall(first);
  EXPECT_EQ(ledger_.FirstOf(SourceIndex(0), 1), first);
  ledger_.Offer(first, 2, 100);
  ledger_.ForgetGiver(SourceIndex(0), 1);
  ledger_.Recall(first);
  EXPECT_EQ(ledger_.FirstOf(SourceIndex(0), 1), kNoArrival);
  for (const ArrivalId id : {first, second, third}) {
    EXPECT_EQ(ledger_.FirstHeld(0), id);
    ledger_.Refuse(id);
  }
  ledger_.CheckAll();
}

TEST_F(LedgerTest, HasRoomForAsManyAsReserved) {
  std::vector<ArrivalId> ids;
  while (ledger_.room() > 0) ids.push_back(ledger_.Arrive(0, static_cast<int32_t>(ids.size()), {}));
  EXPECT_EQ(ids.size(), 8u);
  ledger_.Refuse(ids.front());
  EXPECT_TRUE(ledger_.room() > 0);
  ledger_.Reserve(2, 3, 9);
  ledger_.Arrive(0, 100, {});
  EXPECT_TRUE(ledger_.room() > 0);
  ledger_.CheckAll();
}

TEST_F(LedgerTest, StartsAWorkerThatIsUsedAnewFromZero) {
  const ArrivalId id = ledger_.Arrive(0, 10, {});
  ledger_.Offer(id, 2, 100);
  ledger_.Claim(id);
  ledger_.ResetWorker(2);
  EXPECT_EQ(ledger_.worker(2).assigned, 0u);
  EXPECT_EQ(ledger_.source(0).claimed, 1u);
  ledger_.CheckAll();
}

TEST(LedgerDeathTest, EndsTheProcessRatherThanClaimTwice) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Ledger ledger;
  ledger.Reserve(1, 1, 2);
  const ArrivalId id = ledger.Arrive(0, 10, {});
  ledger.Offer(id, 0, 1);
  ledger.Claim(id);
  EXPECT_DEATH(ledger.Claim(id), "broken invariant");
}

TEST(Ledger, AddsUpAfterEveryStepOfARandomWalk) {
  constexpr uint64_t kSeed = 20150217;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  sim::Prng prng(kSeed);
  Ledger ledger;
  ledger.Reserve(3, 4, 20);
  std::vector<ArrivalId> offered;
  uint64_t arrived = 0;
  for (int step = 0; step < 20'000; ++step) {
    const auto source = static_cast<uint32_t>(prng.Below(3));
    const ArrivalId passed_on = ledger.FirstPassedOn(SourceIndex(source), kNoGiver);
    const ArrivalId held =
        passed_on == kNoArrival || prng.Chance({1, 2}) ? ledger.FirstHeld(source) : passed_on;
    const auto worker = static_cast<uint32_t>(prng.Below(4));
    const size_t pick = offered.empty() ? 0 : prng.Below(offered.size());
    switch (prng.Below(8)) {
      case 0:
      case 1:
        if (ledger.room() == 0) break;
        ledger.Arrive(source, static_cast<int32_t>(step), {});
        ++arrived;
        break;
      case 2:
        if (held == kNoArrival) break;
        ledger.Offer(held, worker, step);
        offered.push_back(held);
        break;
      case 3:
        if (offered.empty()) break;
        prng.Chance({1, 3}) ? ledger.Recall(offered[pick]) : ledger.Claim(offered[pick]);
        offered.erase(offered.begin() + static_cast<ptrdiff_t>(pick));
        break;
      case 4:
        if (held != kNoArrival && prng.Chance({1, 4})) ledger.Refuse(held);
        break;
      case 5:
        if (ledger.room() == 0) break;
        ledger.PassOn(source, step, {}, prng.Chance({1, 4}) ? kNoGiver : worker, step);
        break;
      case 6:
        if (held != kNoArrival) ledger.SetAside(held, step);
        if (prng.Chance({1, 2})) ledger.TakeUp(source);
        break;
      case 7:
        if (prng.Chance({1, 4})) ledger.ForgetGiver(SourceIndex(source), worker);
        if (prng.Chance({1, 16})) ledger.ForgetGivers(SourceIndex(source));
        break;
    }
    ledger.CheckAll();
  }
  EXPECT_EQ(ledger.source(0).arrivals + ledger.source(1).arrivals + ledger.source(2).arrivals,
            arrived);
}

}  // namespace
}  // namespace ringmaster::core
