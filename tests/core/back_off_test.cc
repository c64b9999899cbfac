// The books of an intake that fails. Method: the test says what happened and when.

#include "core/back_off.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kNow = 1'000'000'000;

// --- Errors in a row -----------------------------------------------------------------------------

TEST(BackOffBlockTest, IsSaidAgainOnlyAfterACalm) {
  BackOff back_off;
  EXPECT_TRUE(back_off.Block(1'000));
  EXPECT_FALSE(back_off.Block(1'000 + kDescriptorsCalmNs - 1));
  EXPECT_FALSE(back_off.Block(1'000 + kDescriptorsCalmNs));  // it has blocked meanwhile
  EXPECT_TRUE(back_off.Block(1'000 + 3 * kDescriptorsCalmNs));
}

TEST(BackOffTest, SixteenErrorsInARowAreTooMany) {
  BackOff books;
  for (uint32_t i = 1; i < kAcceptErrorsInRowMax; ++i) EXPECT_FALSE(books.Fail());
  EXPECT_TRUE(books.Fail());
  EXPECT_TRUE(books.Fail());  // and every further one
}

TEST(BackOffTest, ASuccessBeginsANewRow) {
  BackOff books;
  for (uint32_t i = 1; i < kAcceptErrorsInRowMax; ++i) books.Fail();
  EXPECT_TRUE(books.waits_for_success());
  books.Succeed();
  EXPECT_FALSE(books.waits_for_success());
  EXPECT_FALSE(books.Fail());
}

TEST(BackOffTest, SoDoesFindingNothing) {
  BackOff books;
  for (uint32_t i = 1; i < kAcceptErrorsInRowMax; ++i) books.Fail();
  EXPECT_FALSE(books.FindNothing());
  EXPECT_FALSE(books.Fail());
}

// --- The pause -----------------------------------------------------------------------------------

TEST(BackOffTest, ThePauseDoublesUpToALimit) {
  BackOff books;
  for (int64_t pause_ns = kBackOffNsMin; pause_ns < 2 * kBackOffNsMax; pause_ns *= 2) {
    EXPECT_TRUE(books.Pause(kNow));
    EXPECT_TRUE(books.pauses());
    EXPECT_EQ(books.retry_at_ns(), kNow + std::min(pause_ns, kBackOffNsMax));
    books.Resume();
    EXPECT_FALSE(books.pauses());
  }
}

TEST(BackOffTest, APauseIsNotMadeLongerByWhatComesInIt) {
  BackOff books;
  EXPECT_TRUE(books.Pause(kNow));
  EXPECT_FALSE(books.Pause(kNow + 1));
  EXPECT_EQ(books.retry_at_ns(), kNow + kBackOffNsMin);
}

TEST(BackOffTest, ASuccessEndsThePauseAndTheNextOneIsShort) {
  BackOff books;
  books.Pause(kNow);
  books.Resume();
  books.Pause(kNow);
  books.Succeed();
  EXPECT_FALSE(books.pauses());
  books.Pause(kNow);
  EXPECT_EQ(books.retry_at_ns(), kNow + kBackOffNsMin);
}

// --- A shortage ----------------------------------------------------------------------------------

TEST(BackOffTest, AShortageBeginsOnce) {
  BackOff books;
  EXPECT_TRUE(books.RunOut(kNow));
  EXPECT_FALSE(books.RunOut(kNow + 1));
  EXPECT_TRUE(books.out_of_descriptors());
}

TEST(BackOffTest, FindingNothingEndsIt) {
  BackOff books;
  books.RunOut(kNow);
  EXPECT_TRUE(books.FindNothing());
  EXPECT_FALSE(books.FindNothing());
  EXPECT_TRUE(books.RunOut(kNow));
}

// At the limit accepting succeeds and fails in turn.
TEST(BackOffTest, ASuccessEndsItOnlyAfterACalmTime) {
  BackOff books;
  books.RunOut(kNow);
  books.Succeed();
  EXPECT_EQ(books.calm_at_ns(), kNow + kDescriptorsCalmNs);
  EXPECT_FALSE(books.EndsShortage(kNow + kDescriptorsCalmNs - 1));
  books.RunOut(kNow + kDescriptorsCalmNs - 1);
  EXPECT_FALSE(books.EndsShortage(kNow + kDescriptorsCalmNs));
  books.Succeed();
  EXPECT_TRUE(books.EndsShortage(kNow + 2 * kDescriptorsCalmNs));
  EXPECT_FALSE(books.EndsShortage(kNow + 2 * kDescriptorsCalmNs));
}

TEST(BackOffTest, TimeAloneDoesNotEndIt) {
  BackOff books;
  books.RunOut(kNow);
  EXPECT_EQ(books.calm_at_ns(), kWaitForever);
  EXPECT_FALSE(books.EndsShortage(kNow + 10 * kDescriptorsCalmNs));
  EXPECT_TRUE(books.waits_for_success());
  books.Succeed();  // long after
  EXPECT_TRUE(books.EndsShortage(kNow + 10 * kDescriptorsCalmNs));
}

TEST(BackOffTest, NotWhileItPauses) {
  BackOff books;
  books.RunOut(kNow);
  books.Try(kNow);
  books.Pause(kNow);
  EXPECT_EQ(books.calm_at_ns(), kWaitForever);
  EXPECT_FALSE(books.EndsShortage(kNow + kDescriptorsCalmNs));
}

// A multishot accept that is armed and says nothing is content; it may have been armed late.
TEST(BackOffTest, BeingArmedIsLikeASuccessAndTheCalmTimeBeginsThen) {
  BackOff books;
  books.RunOut(kNow);
  books.Try(kNow + 5 * kDescriptorsCalmNs);
  books.Try(kNow + 6 * kDescriptorsCalmNs);
  EXPECT_FALSE(books.waits_for_success());
  EXPECT_FALSE(books.EndsShortage(kNow + 5 * kDescriptorsCalmNs));
  EXPECT_TRUE(books.EndsShortage(kNow + 6 * kDescriptorsCalmNs));
}

TEST(BackOffTest, WithoutAShortageNothingEnds) {
  BackOff books;
  books.Succeed();
  EXPECT_EQ(books.calm_at_ns(), kWaitForever);
  EXPECT_FALSE(books.EndsShortage(kNow));
  EXPECT_FALSE(books.FindNothing());
  EXPECT_FALSE(books.waits_for_success());
}

}  // namespace
}  // namespace ringmaster::core
