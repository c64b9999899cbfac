// What is known of a worker's pace. Method: the test says what the worker did and when.

#include "core/motion.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kNow = 1'000'000'000;
constexpr int64_t kLimit = 10'000'000;
constexpr uint32_t kWindow = 8;

class MotionTest : public ::testing::Test {
 protected:
  void TakePromptly(uint32_t count, int64_t now_ns = kNow) {
    motion_.Took(count, 0);
    motion_.Moved(now_ns);
  }
  // It is recalled from, and moves again.
  void Stumble() {
    motion_.OweMotion(kNow);
    motion_.Moved(kNow);
  }

  Motion motion_{kWindow, kLimit};
};

// --- The window ----------------------------------------------------------------------------------

TEST_F(MotionTest, BeginsWithTheWholeWindow) {
  EXPECT_EQ(motion_.window(), kWindow);
  EXPECT_EQ(motion_.window_max(), kWindow);
  EXPECT_FALSE(motion_.owes_motion());
  EXPECT_FALSE(motion_.stalled());
  EXPECT_FALSE(motion_.slow(kNow));
}

TEST_F(MotionTest, IsHalvedOnceForEachStallDownToOne) {
  for (const uint32_t window : {4u, 2u, 1u, 1u}) {
    motion_.OweMotion(kNow);
    motion_.OweMotion(kNow);  // the next offer that is recalled, of the same stall
    EXPECT_EQ(motion_.window(), window);
    motion_.Moved(kNow);
  }
}

TEST_F(MotionTest, IsDoubledByPromptClaimsInARowUpToItsLimit) {
  for (int i = 0; i < 3; ++i) Stumble();
  ASSERT_EQ(motion_.window(), 1u);
  TakePromptly(kPromptClaimsToGrow - 1);
  EXPECT_EQ(motion_.window(), 1u);
  TakePromptly(1);
  EXPECT_EQ(motion_.window(), 2u);
  for (int i = 0; i < 4; ++i) TakePromptly(kPromptClaimsToGrow);
  EXPECT_EQ(motion_.window(), kWindow);
}

TEST_F(MotionTest, ManyClaimsAtOnceDoubleItOnce) {
  for (int i = 0; i < 3; ++i) Stumble();
  TakePromptly(10 * kPromptClaimsToGrow);
  EXPECT_EQ(motion_.window(), 2u);
}

TEST_F(MotionTest, ALateClaimBeginsANewRow) {
  Stumble();
  TakePromptly(kPromptClaimsToGrow - 1);
  motion_.Took(1, kLimit);
  TakePromptly(kPromptClaimsToGrow - 1);
  EXPECT_EQ(motion_.window(), kWindow / 2);
  TakePromptly(1);
  EXPECT_EQ(motion_.window(), kWindow);
}

TEST_F(MotionTest, SoDoesARecall) {
  TakePromptly(kPromptClaimsToGrow - 1);
  Stumble();
  TakePromptly(kPromptClaimsToGrow - 1);
  EXPECT_EQ(motion_.window(), kWindow / 2);
}

TEST_F(MotionTest, AWholeWindowFollowsItsLimitAndAnyOtherGrows) {
  motion_.SetWindowMax(2 * kWindow);
  EXPECT_EQ(motion_.window(), 2 * kWindow);
  Stumble();
  motion_.SetWindowMax(4 * kWindow);
  EXPECT_EQ(motion_.window(), kWindow);
  EXPECT_EQ(motion_.window_max(), 4 * kWindow);
  motion_.SetWindowMax(3);
  EXPECT_EQ(motion_.window(), 3u);
}

// --- Owing motion --------------------------------------------------------------------------------

TEST_F(MotionTest, OnlyAMoveEndsWhatItOwes) {
  motion_.OweMotion(kNow);
  motion_.BeginsToWait(kNow);
  motion_.Took(1, 0);
  EXPECT_TRUE(motion_.owes_motion());
  motion_.Moved(kNow + 1);
  EXPECT_FALSE(motion_.owes_motion());
  EXPECT_EQ(motion_.moved_at_ns(), kNow + 1);
}

// --- Slow ----------------------------------------------------------------------------------------

TEST_F(MotionTest, CountsAsSlowForAWhileAlthoughItMoves) {
  Stumble();
  TakePromptly(kPromptClaimsToGrow);
  EXPECT_EQ(motion_.window(), kWindow);
  EXPECT_TRUE(motion_.slow(kNow + kSlowMemory * kLimit - 1));
  EXPECT_FALSE(motion_.slow(kNow + kSlowMemory * kLimit));
}

TEST_F(MotionTest, IsSlowForEverWhereTheLimitIsTheEndOfTheClock) {
  Motion motion(kWindow, kWaitForever / kSlowMemory);
  motion.OweMotion(kNow);
  EXPECT_TRUE(motion.slow(kWaitForever - 1));
}

// --- Standing still ------------------------------------------------------------------------------

TEST_F(MotionTest, StandsStillSinceItMovedOrBeganToWaitWhateverIsLater) {
  motion_.Moved(kNow);
  EXPECT_EQ(motion_.StillNs(kNow + 5), 5);
  motion_.BeginsToWait(kNow + 3);
  EXPECT_EQ(motion_.StillNs(kNow + 5), 2);
  motion_.Moved(kNow + 4);
  EXPECT_EQ(motion_.StillNs(kNow + 5), 1);
  EXPECT_EQ(motion_.StillNs(kNow), 0);  // a clock that was read before
}

TEST_F(MotionTest, IsSaidToStallOnceAndToMoveAgainOnce) {
  EXPECT_FALSE(motion_.Moved(kNow));
  motion_.Stall();
  EXPECT_TRUE(motion_.stalled());
  EXPECT_TRUE(motion_.Moved(kNow));
  EXPECT_FALSE(motion_.Moved(kNow));
  EXPECT_EQ(motion_.stalls(), 1u);
}

TEST_F(MotionTest, ASilentStallIsLateAndAfterALookInVain) {
  motion_.BeginsToWait(kNow);
  const int64_t at_ns = kNow + kSilentStallFactor * kLimit;
  EXPECT_EQ(motion_.SilentAtNs(0), at_ns);
  EXPECT_EQ(motion_.SilentAtNs(kNow + kLimit), at_ns);
  // The master was late: the worker has as long from the first look on as an offer may wait.
  EXPECT_EQ(motion_.SilentAtNs(at_ns), at_ns + kLimit);
  motion_.Stall();
  EXPECT_EQ(motion_.SilentAtNs(kNow), kWaitForever);  // it has been said
  motion_.Moved(at_ns);
  EXPECT_EQ(motion_.SilentAtNs(0), at_ns + kSilentStallFactor * kLimit);
}

}  // namespace
}  // namespace ringmaster::core
