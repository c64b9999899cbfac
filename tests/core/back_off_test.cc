// The books of an intake that fails. Method: the test says what happened and when.

#include "core/back_off.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {
namespace {

using Failure = BackOff::Failure;

constexpr int64_t kNow = 1'000'000'000;

BackOff::Verdict RunsOut(BackOff& books, int64_t now_ns = kNow) {
  return books.Fail(Failure::kShortage, now_ns);
}

// Whether a further connection that goes wrong makes a pause.
bool Fails(BackOff& books) { return books.Fail(Failure::kConnection, kNow).pauses; }

// --- Errors in a row -----------------------------------------------------------------------------

TEST(BackOffTest, SixteenErrorsInARowAreTooMany) {
  BackOff books;
  for (uint32_t i = 1; i < kAcceptErrorsInRowMax; ++i) EXPECT_FALSE(Fails(books));
  EXPECT_TRUE(Fails(books));
  EXPECT_TRUE(books.ResumeEarly());
  EXPECT_TRUE(Fails(books));  // and every further one
}

TEST(BackOffTest, ASuccessBeginsANewRow) {
  BackOff books;
  for (uint32_t i = 1; i < kAcceptErrorsInRowMax; ++i) Fails(books);
  EXPECT_TRUE(books.waits_for_success());
  books.Succeed();
  EXPECT_FALSE(books.waits_for_success());
  EXPECT_FALSE(Fails(books));
}

TEST(BackOffTest, SoDoesFindingNothing) {
  BackOff books;
  for (uint32_t i = 1; i < kAcceptErrorsInRowMax; ++i) Fails(books);
  EXPECT_FALSE(books.FindNothing());
  EXPECT_FALSE(Fails(books));
}

// --- The pause -----------------------------------------------------------------------------------

TEST(BackOffTest, ThePauseDoublesUpToALimitWhateverFails) {
  for (const Failure failure : {Failure::kShortage, Failure::kNoMemory, Failure::kBlocks}) {
    BackOff books;
    for (int64_t pause_ns = kBackOffNsMin; pause_ns < 2 * kBackOffNsMax; pause_ns *= 2) {
      EXPECT_TRUE(books.Fail(failure, kNow).pauses);
      EXPECT_TRUE(books.pauses());
      const int64_t until_ns = kNow + std::min(pause_ns, kBackOffNsMax);
      EXPECT_EQ(books.due_at_ns(), until_ns);
      EXPECT_FALSE(books.Resume(until_ns - 1));
      EXPECT_TRUE(books.Resume(until_ns));
      EXPECT_FALSE(books.Resume(until_ns));
      EXPECT_FALSE(books.pauses());
    }
  }
}

TEST(BackOffTest, APauseIsNotMadeLongerByWhatComesInIt) {
  BackOff books;
  EXPECT_TRUE(RunsOut(books).pauses);
  for (const Failure failure : {Failure::kShortage, Failure::kNoMemory, Failure::kBlocks}) {
    EXPECT_FALSE(books.Fail(failure, kNow + 1).pauses);
  }
  EXPECT_EQ(books.due_at_ns(), kNow + kBackOffNsMin);
}

TEST(BackOffTest, ADescriptorThatMayBeFreeEndsThePause) {
  BackOff books;
  EXPECT_FALSE(books.ResumeEarly());
  RunsOut(books);
  EXPECT_TRUE(books.ResumeEarly());
  EXPECT_FALSE(books.pauses());
}

TEST(BackOffTest, ASuccessEndsThePauseAndTheNextOneIsShort) {
  BackOff books;
  RunsOut(books);
  books.ResumeEarly();
  RunsOut(books);
  books.Succeed();
  EXPECT_FALSE(books.pauses());
  RunsOut(books);
  EXPECT_EQ(books.due_at_ns(), kNow + kBackOffNsMin);
}

// --- What is reported ----------------------------------------------------------------------------

TEST(BackOffTest, ThatASourceBlocksIsSaidAgainOnlyAfterACalm) {
  BackOff books;
  const auto blocks = [&](int64_t now_ns) { return books.Fail(Failure::kBlocks, now_ns).say; };
  EXPECT_TRUE(blocks(1'000));
  EXPECT_FALSE(blocks(1'000 + kDescriptorsCalmNs - 1));
  EXPECT_FALSE(blocks(1'000 + kDescriptorsCalmNs));  // it has blocked meanwhile
  EXPECT_TRUE(blocks(1'000 + 3 * kDescriptorsCalmNs));
}

TEST(BackOffTest, AConnectionThatWentWrongIsNot) {
  BackOff books;
  for (uint32_t i = 0; i < 2 * kAcceptErrorsInRowMax; ++i) {
    EXPECT_FALSE(books.Fail(Failure::kConnection, kNow).say);
  }
}

TEST(BackOffTest, AShortageBeginsOnce) {
  BackOff books;
  EXPECT_TRUE(RunsOut(books).say);
  EXPECT_FALSE(RunsOut(books).say);
}

// --- A shortage ----------------------------------------------------------------------------------

TEST(BackOffTest, FindingNothingEndsIt) {
  BackOff books;
  RunsOut(books);
  EXPECT_TRUE(books.FindNothing());
  EXPECT_FALSE(books.FindNothing());
  EXPECT_TRUE(RunsOut(books).say);
}

// At the limit accepting succeeds and fails in turn.
TEST(BackOffTest, ASuccessEndsItOnlyAfterACalmTime) {
  BackOff books;
  RunsOut(books);
  books.Succeed();
  EXPECT_EQ(books.due_at_ns(), kNow + kDescriptorsCalmNs);
  EXPECT_FALSE(books.EndsShortage(kNow + kDescriptorsCalmNs - 1));
  RunsOut(books, kNow + kDescriptorsCalmNs - 1);
  EXPECT_FALSE(books.EndsShortage(kNow + kDescriptorsCalmNs));
  books.Succeed();
  EXPECT_TRUE(books.EndsShortage(kNow + 2 * kDescriptorsCalmNs));
  EXPECT_FALSE(books.EndsShortage(kNow + 2 * kDescriptorsCalmNs));
}

// It got its descriptor first.
TEST(BackOffTest, SoDoesAConnectionThatWentWrong) {
  BackOff books;
  RunsOut(books);
  books.ResumeEarly();
  books.Fail(Failure::kConnection, kNow);
  EXPECT_EQ(books.due_at_ns(), kNow + kDescriptorsCalmNs);
}

TEST(BackOffTest, TimeAloneDoesNotEndIt) {
  BackOff books;
  RunsOut(books);
  books.ResumeEarly();
  EXPECT_EQ(books.due_at_ns(), kWaitForever);
  EXPECT_FALSE(books.EndsShortage(kNow + 10 * kDescriptorsCalmNs));
  EXPECT_TRUE(books.waits_for_success());
  books.Succeed();  // long after
  EXPECT_TRUE(books.EndsShortage(kNow + 10 * kDescriptorsCalmNs));
}

TEST(BackOffTest, NotWhileItPauses) {
  BackOff books;
  RunsOut(books);
  books.ResumeEarly();
  books.Try(kNow);
  books.Fail(Failure::kNoMemory, kNow);
  EXPECT_LT(books.due_at_ns(), kNow + kDescriptorsCalmNs);
  EXPECT_FALSE(books.EndsShortage(kNow + kDescriptorsCalmNs));
}

// A multishot accept that is armed and says nothing is content; it may have been armed late.
TEST(BackOffTest, BeingArmedIsLikeASuccessAndTheCalmTimeBeginsThen) {
  BackOff books;
  RunsOut(books);
  books.ResumeEarly();
  books.Try(kNow + 5 * kDescriptorsCalmNs);
  books.Try(kNow + 6 * kDescriptorsCalmNs);
  EXPECT_FALSE(books.waits_for_success());
  EXPECT_FALSE(books.EndsShortage(kNow + 5 * kDescriptorsCalmNs));
  EXPECT_TRUE(books.EndsShortage(kNow + 6 * kDescriptorsCalmNs));
}

TEST(BackOffTest, WithoutAShortageNothingEnds) {
  BackOff books;
  books.Succeed();
  EXPECT_EQ(books.due_at_ns(), kWaitForever);
  EXPECT_FALSE(books.EndsShortage(kNow));
  EXPECT_FALSE(books.FindNothing());
  EXPECT_FALSE(books.waits_for_success());
}

}  // namespace
}  // namespace ringmaster::core
