// When overdue offers are looked at. Method: the test says what each look has found.

#include "core/looks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kNow = 1'000'000'000;
constexpr int64_t kLimit = 10'000'000;

TEST(LooksTest, TheNextIsWhenTheRestIsOverdue) {
  Looks looks;
  looks.Ended(false, kNow + kLimit, kNow, kLimit);
  EXPECT_EQ(looks.again_ns(), kNow + kLimit);
  EXPECT_FALSE(looks.wants_taker());
  EXPECT_FALSE(looks.rarer());
}

TEST(LooksTest, BecomeRarerUpToALimitWhileSomebodyElseIsWaitedFor) {
  Looks looks;
  for (int64_t factor = 1; factor <= 4 * kLookPauseFactorMax; factor *= 2) {
    looks.InVain(kNow);
    looks.Ended(true, kWaitForever, kNow, kLimit);
    EXPECT_TRUE(looks.wants_taker());
    EXPECT_TRUE(looks.rarer());
    EXPECT_EQ(looks.again_ns(), kNow + std::min(factor, kLookPauseFactorMax) * kLimit);
  }
}

TEST(LooksTest, SoTheyDoWhereNothingMayBeRecalled) {
  Looks looks;
  looks.Ended(false, kWaitForever, kNow, kLimit);
  looks.Ended(false, kWaitForever, kNow, kLimit);
  EXPECT_FALSE(looks.wants_taker());
  EXPECT_EQ(looks.again_ns(), kNow + 2 * kLimit);
}

TEST(LooksTest, AreNoLaterThanTheNextOverdueOfferAlsoWhileTheyAreRare) {
  Looks looks;
  for (int i = 0; i < 4; ++i) looks.Ended(true, kWaitForever, kNow, kLimit);
  looks.Ended(true, kNow + 1, kNow, kLimit);
  EXPECT_EQ(looks.again_ns(), kNow + 1);
  looks.Ended(true, kWaitForever, kNow, kLimit);
  looks.Offered(kNow + 2);
  EXPECT_EQ(looks.again_ns(), kNow + 2);
  looks.Offered(kNow + 3);
  EXPECT_EQ(looks.again_ns(), kNow + 2);
}

TEST(LooksTest, TheNextIsNotPutOffWhenSomebodyJoins) {
  Looks looks;
  looks.Ended(false, kWaitForever, kNow, kLimit);
  looks.LookSoon();
  EXPECT_LE(looks.again_ns(), kNow);
}

TEST(LooksTest, RememberWhenTheyWereInVainForTheFirstTime) {
  Looks looks;
  EXPECT_EQ(looks.vain_since_ns(), 0);
  looks.InVain(kNow);
  looks.InVain(kNow + kLimit);
  EXPECT_EQ(looks.vain_since_ns(), kNow);
  looks.Recalled();
  EXPECT_EQ(looks.vain_since_ns(), 0);
}

TEST(LooksTest, BeginAnewWhenSomethingWasRecalled) {
  Looks looks;
  for (int i = 0; i < 4; ++i) looks.Ended(true, kWaitForever, kNow, kLimit);
  looks.Recalled();
  EXPECT_FALSE(looks.rarer());
  looks.Ended(true, kWaitForever, kNow, kLimit);
  EXPECT_EQ(looks.again_ns(), kNow + kLimit);
}

TEST(LooksTest, ForgetEverythingWhenTheWorkerMoves) {
  Looks looks;
  looks.InVain(kNow);
  looks.Ended(true, kWaitForever, kNow, kLimit);
  looks.Moved();
  EXPECT_FALSE(looks.wants_taker());
  EXPECT_FALSE(looks.rarer());
  EXPECT_EQ(looks.vain_since_ns(), 0);
  EXPECT_EQ(looks.again_ns(), 0);
}

}  // namespace
}  // namespace ringmaster::core
