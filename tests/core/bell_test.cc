// A ring that cannot be reached. Method: the test says when a doorbell failed and when the worker
// was seen to have looked.

#include "core/bell.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

#include "core/deadline.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kNow = 1'000'000'000;

TEST(BellTest, OwesNothingAtFirst) {
  Bell bell;
  EXPECT_FALSE(bell.owed());
  EXPECT_EQ(bell.due_at_ns(), kWaitForever);
  EXPECT_FALSE(bell.TryAgain(kNow));
}

TEST(BellTest, IsRungAgainAfterThePauseAndNotBefore) {
  Bell bell;
  EXPECT_TRUE(bell.Fail(kNow));
  EXPECT_TRUE(bell.owed());
  EXPECT_EQ(bell.due_at_ns(), kNow + kDoorbellRetryNsMin);
  EXPECT_FALSE(bell.TryAgain(kNow + kDoorbellRetryNsMin - 1));
  EXPECT_TRUE(bell.TryAgain(kNow + kDoorbellRetryNsMin));
  EXPECT_FALSE(bell.owed());
  EXPECT_FALSE(bell.TryAgain(kNow + kDoorbellRetryNsMin));  // once
}

TEST(BellTest, ThePauseDoublesUpToALimitAndIsReportedOnce) {
  Bell bell;
  int64_t now_ns = kNow;
  for (int64_t pause_ns = kDoorbellRetryNsMin; pause_ns < 4 * kDoorbellRetryNsMax; pause_ns *= 2) {
    EXPECT_EQ(bell.Fail(now_ns), pause_ns == kDoorbellRetryNsMin);
    EXPECT_EQ(bell.due_at_ns(), now_ns + std::min(pause_ns, kDoorbellRetryNsMax));
    now_ns = bell.due_at_ns();
    EXPECT_TRUE(bell.TryAgain(now_ns));
  }
}

TEST(BellTest, SeveralFailuresOfOneBatchCountOnce) {
  Bell bell;
  EXPECT_TRUE(bell.Fail(kNow));
  EXPECT_FALSE(bell.Fail(kNow));
  EXPECT_EQ(bell.due_at_ns(), kNow + kDoorbellRetryNsMin);
}

TEST(BellTest, AWorkerThatHasLookedIsOwedNothing) {
  Bell bell;
  bell.Fail(kNow);
  bell.Heard();
  EXPECT_FALSE(bell.owed());
  EXPECT_TRUE(bell.Fail(kNow));  // a new row
  EXPECT_EQ(bell.due_at_ns(), kNow + kDoorbellRetryNsMin);
}

// A worker that takes what was sent before says nothing of what could not be sent since.
TEST(BellTest, ARingThatWorksBeginsANewRowAndKeepsWhatIsOwed) {
  Bell bell;
  bell.Fail(kNow);
  bell.TryAgain(kNow + kDoorbellRetryNsMin);
  bell.Fail(kNow + kDoorbellRetryNsMin);
  const int64_t due_at_ns = bell.due_at_ns();
  bell.Works();
  EXPECT_TRUE(bell.owed());
  EXPECT_EQ(bell.due_at_ns(), due_at_ns);
  EXPECT_TRUE(bell.Fail(due_at_ns));
  EXPECT_EQ(bell.due_at_ns(), due_at_ns + kDoorbellRetryNsMin);
}

TEST(BellTest, IsTriedBeforeItsTimeByWhoeverCannotTryLater) {
  Bell bell;
  EXPECT_FALSE(bell.TryNow());  // nothing is owed
  bell.Fail(0);
  EXPECT_FALSE(bell.TryAgain(0));
  EXPECT_TRUE(bell.TryNow());
  EXPECT_FALSE(bell.owed());
  EXPECT_FALSE(bell.TryNow());
}

}  // namespace
}  // namespace ringmaster::core
