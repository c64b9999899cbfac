// Places, promises and kept credit. Method: the test is the engine, which takes and gives back, and
// the leases, other masters and workers that change the shared counts meanwhile.

#include "core/places.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "core/index.h"
#include "core/port_state.h"

namespace ringmaster::core {
namespace {

// Neither is taken for the other, so two that are exchanged do not compile.
static_assert(!std::is_convertible_v<uint32_t, SourceIndex>);
static_assert(!std::is_convertible_v<WorkerIndex, SourceIndex>);
static_assert(!std::is_constructible_v<WorkerIndex, SourceIndex>);

constexpr SourceIndex kPolled{0};     // a source that may have promises
constexpr SourceIndex kMultishot{1};  // one that may not
constexpr uint32_t kFirst = 0;        // workers
constexpr uint32_t kSecond = 1;

class PlacesTest : public ::testing::Test {
 protected:
  PlacesTest() {
    own_.Limit(2);
    shared_.Limit(3);
    places_.SetSource(kPolled, &own_, true);
    places_.SetSource(kMultishot, nullptr, false);
  }
  void SetWorkers(uint32_t first, uint32_t second) {
    places_.SetWorker(kFirst, &states_[kFirst], first);
    places_.SetWorker(kSecond, &states_[kSecond], second);
  }
  uint32_t Open(uint32_t worker) { return states_[worker].open.load(); }
  bool Keep(std::vector<uint32_t> credits) {
    const bool kept = places_.Keep(kPolled, std::array{kFirst, kSecond}, credits);
    places_.CheckAll();
    return kept;
  }

  Gate own_;
  Gate shared_;
  std::array<PortState, 2> states_;
  Places places_{&shared_};
};

// --- Gates ---------------------------------------------------------------------------------------

TEST_F(PlacesTest, APlaceIsTakenAtBothGatesOrAtNone) {
  EXPECT_TRUE(places_.Reserve(kPolled));
  EXPECT_TRUE(places_.Reserve(kPolled));
  EXPECT_TRUE(places_.Full(kPolled));
  EXPECT_FALSE(places_.Reserve(kPolled));
  EXPECT_EQ(shared_.used(), 2u);
  EXPECT_TRUE(places_.Reserve(kMultishot));
  EXPECT_TRUE(places_.Full(kMultishot));
  own_.GiveBack();  // the end of a lease
  EXPECT_FALSE(places_.Reserve(kPolled));
  EXPECT_EQ(own_.used(), 1u);
}

TEST_F(PlacesTest, GivingOneBackAtTheBalancersGateIsForOtherMastersToo) {
  places_.Reserve(kPolled);
  EXPECT_FALSE(places_.TakeFreed());
  places_.GiveBack(kPolled);
  EXPECT_EQ(own_.used() + shared_.used(), 0u);
  EXPECT_TRUE(places_.TakeFreed());
  EXPECT_FALSE(places_.TakeFreed());
}

TEST_F(PlacesTest, WithoutGatesThereIsAlwaysAPlace) {
  Places places(nullptr);
  places.SetSource(0, nullptr, true);
  EXPECT_TRUE(places.Reserve(0));
  EXPECT_FALSE(places.Full(0));
  places.ForceReserve(0);
  places.GiveBack(0);
  EXPECT_FALSE(places.TakeFreed());
}

TEST_F(PlacesTest, WhatComesUnaskedTakesOneWhateverTheLimit) {
  for (int i = 0; i < 5; ++i) places_.ForceReserve(kPolled);
  EXPECT_EQ(own_.used(), 5u);
  EXPECT_EQ(shared_.used(), 5u);
}

TEST_F(PlacesTest, TheNextToEnterHasThePlaceOfACount) {
  places_.Reserve(kPolled);
  places_.LeaveToCount(kPolled);
  EXPECT_TRUE(places_.Reserve(kPolled));
  EXPECT_EQ(own_.used(), 1u);
  EXPECT_FALSE(places_.TakeFromCount(kPolled));
  places_.LeaveToCount(kPolled);
  EXPECT_TRUE(places_.TakeFromCount(kPolled));
  EXPECT_EQ(own_.used(), 0u);
}

// --- Capacities and promises ---------------------------------------------------------------------

TEST_F(PlacesTest, AnArrivalTakesAPlaceBelowTheCapacity) {
  SetWorkers(1, Places::kUnlimited);
  EXPECT_EQ(places_.At(kFirst, kPolled), 1u);
  EXPECT_TRUE(places_.Take(kFirst, kPolled));
  EXPECT_EQ(places_.At(kFirst, kPolled), 0u);
  EXPECT_FALSE(places_.Take(kFirst, kPolled));
  EXPECT_TRUE(places_.Take(kSecond, kPolled));
  EXPECT_EQ(Open(kFirst), 1u);
}

TEST_F(PlacesTest, WhatComesBackFromALimitedWorkerIsPromised) {
  SetWorkers(1, Places::kUnlimited);
  places_.Take(kFirst, kPolled);
  places_.TakeBack(kFirst, kPolled);
  EXPECT_EQ(Open(kFirst), 1u);
  EXPECT_EQ(places_.Promised(kPolled, kFirst), 1u);
  EXPECT_EQ(places_.At(kFirst, kPolled), 1u);
  EXPECT_EQ(places_.At(kFirst, kMultishot), 0u);
  EXPECT_EQ(places_.Open(kFirst, kPolled), 0u);  // the promise is for what is to come
  EXPECT_EQ(places_.Open(kFirst, kMultishot), 1u);
  EXPECT_FALSE(places_.TakeFreed());
  EXPECT_TRUE(places_.Take(kFirst, kPolled));
  EXPECT_EQ(places_.promises(kPolled), 0u);
  EXPECT_EQ(Open(kFirst), 1u);
}

// Others are told of a place at a worker that waits and had none, and of no other place.
TEST_F(PlacesTest, APlaceOfAFullWorkerThatWaitsIsNoted) {
  SetWorkers(2, Places::kUnlimited);
  states_[kFirst].places = 2;
  states_[kFirst].SayWaiting();
  for (int i = 0; i < 2; ++i) places_.Take(kFirst, kMultishot);
  EXPECT_FALSE(places_.TakeFreedAtWaiter());
  places_.TakeBack(kFirst, kMultishot);
  EXPECT_TRUE(places_.TakeFreedAtWaiter());
  EXPECT_FALSE(places_.TakeFreedAtWaiter());
  places_.TakeBack(kFirst, kMultishot);  // it had one before
  EXPECT_FALSE(places_.TakeFreedAtWaiter());
  for (int i = 0; i < 2; ++i) places_.Take(kFirst, kMultishot);
  states_[kFirst].SayBusy();
  places_.TakeBack(kFirst, kMultishot);
  EXPECT_FALSE(places_.TakeFreedAtWaiter());
}

TEST_F(PlacesTest, WhatComesBackOtherwiseIsFree) {
  SetWorkers(1, Places::kUnlimited);
  places_.Take(kSecond, kPolled);
  places_.TakeBack(kSecond, kPolled);
  EXPECT_EQ(Open(kSecond), 0u);
  places_.Take(kFirst, kMultishot);
  places_.TakeBack(kFirst, kMultishot);
  EXPECT_EQ(Open(kFirst), 0u);
  EXPECT_EQ(places_.promises(kPolled) + places_.promises(kMultishot), 0u);
  EXPECT_TRUE(places_.TakeFreed());
}

TEST_F(PlacesTest, APromiseHoldsAlsoWhenTheCapacityIsLowered) {
  SetWorkers(2, 2);
  ASSERT_TRUE(Keep({1, 0}));
  states_[kFirst].ForceReserve();
  places_.SetCapacity(kFirst, 1);
  EXPECT_EQ(places_.At(kFirst, kPolled), 1u);
  EXPECT_EQ(places_.At(kFirst, kMultishot), 0u);
  EXPECT_TRUE(places_.Take(kFirst, kPolled));
}

// --- Kept credit ---------------------------------------------------------------------------------

TEST_F(PlacesTest, CreditIsKeptWhereThereIsTheMost) {
  SetWorkers(Places::kUnlimited, Places::kUnlimited);
  EXPECT_TRUE(Keep({2, 3}));
  EXPECT_EQ(places_.Kept(kPolled, kSecond), 1u);
  EXPECT_EQ(places_.KeptAt(kSecond), 1u);
  EXPECT_EQ(places_.Kept(kMultishot, kSecond), 0u);
  EXPECT_FALSE(Keep({0, 0}));
  EXPECT_EQ(places_.keeps(kPolled), 1u);
  EXPECT_EQ(places_.promises(kPolled), 0u);
}

TEST_F(PlacesTest, RatherAtAWorkerWithoutALimit) {
  SetWorkers(5, Places::kUnlimited);
  EXPECT_TRUE(Keep({5, 1}));
  EXPECT_EQ(places_.Kept(kPolled, kSecond), 1u);
  EXPECT_EQ(Open(kFirst), 0u);
  places_.Leaves(kPolled, kSecond);
  SetWorkers(Places::kUnlimited, 5);
  EXPECT_TRUE(Keep({1, 5}));
  EXPECT_EQ(places_.Kept(kPolled, kFirst), 1u);
}

TEST_F(PlacesTest, WhereAllAreLimitedAPlaceIsPromisedWithIt) {
  SetWorkers(1, 1);
  EXPECT_TRUE(Keep({1, 1}));
  EXPECT_EQ(places_.Promised(kPolled, kFirst), 1u);
  EXPECT_EQ(Open(kFirst), 1u);
}

TEST_F(PlacesTest, APlaceThatAnotherMasterHasTakenIsLookedForElsewhere) {
  SetWorkers(1, 1);
  states_[kFirst].ForceReserve();
  EXPECT_TRUE(Keep({1, 1}));
  EXPECT_EQ(places_.Promised(kPolled, kSecond), 1u);
  EXPECT_FALSE(Keep({1, 1}));
}

TEST_F(PlacesTest, AnArrivalUsesWhatWasKeptWhereItIsOffered) {
  SetWorkers(4, 4);
  ASSERT_TRUE(Keep({1, 1}));
  EXPECT_TRUE(places_.Take(kSecond, kPolled));
  EXPECT_EQ(places_.keeps(kPolled), 1u);
  EXPECT_TRUE(places_.Take(kFirst, kPolled));
  EXPECT_EQ(places_.keeps(kPolled), 0u);
  EXPECT_EQ(places_.promises(kPolled), 0u);
  places_.CheckAll();
}

TEST_F(PlacesTest, LetsGoOfWhatIsMoreThanIsUnderWay) {
  SetWorkers(4, 4);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Keep({1, 1}));
  EXPECT_FALSE(places_.LetGo(kPolled, 3, 3));
  EXPECT_TRUE(places_.LetGo(kPolled, 1, 2));
  EXPECT_EQ(places_.keeps(kPolled), 1u);
  EXPECT_EQ(places_.promises(kPolled), 2u);
  EXPECT_EQ(Open(kFirst) + Open(kSecond), 2u);
  EXPECT_TRUE(places_.TakeFreed());
  EXPECT_TRUE(places_.LetGo(kPolled, 0, 0));
  EXPECT_EQ(Open(kFirst) + Open(kSecond), 0u);
  places_.CheckAll();
}

TEST_F(PlacesTest, AWorkerThatLeavesKeepsNothing) {
  SetWorkers(4, 4);
  ASSERT_TRUE(Keep({1, 0}));
  ASSERT_TRUE(Keep({0, 1}));
  places_.Leaves(kPolled, kFirst);
  EXPECT_EQ(Open(kFirst), 0u);
  EXPECT_EQ(places_.Kept(kPolled, kFirst) + places_.Promised(kPolled, kFirst), 0u);
  EXPECT_EQ(places_.keeps(kPolled), 1u);
  EXPECT_EQ(places_.promises(kPolled), 1u);
  places_.CheckAll();
}

}  // namespace
}  // namespace ringmaster::core
