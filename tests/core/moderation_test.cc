// When the master lets arrivals wait for one another, and when it does not.

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kMicrosecond = 1'000;
constexpr int64_t kMillisecond = 1'000'000;

class ModerationTest : public EngineTest {
 protected:
  void SetUp() override {
    AddSource();
    AddWorker({.window = 64});
    Batch();
  }

  // One batch of so many, served at once, so that the next may come; how long to gather then.
  int64_t AfterArrivals(uint32_t count, int64_t gap_ns) {
    now_ns_ += gap_ns * count;
    std::vector<Completion> arrivals(count, Arrival(9));
    Batch(arrivals);
    Claim(0);
    Batch();
    return engine_.Gather(now_ns_);
  }
};

TEST_F(ModerationTest, NeverAtLightLoad) {
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(AfterArrivals(1, 280 * kMicrosecond), 0) << i;
  }
}

// Four clients that pause for a millisecond and come back together; on a slow machine, too.
TEST_F(ModerationTest, NeverBecauseOfAFewThatComeTogether) {
  engine_.SetTurnCost(20 * kMicrosecond);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(AfterArrivals(1, kMillisecond), 0) << i;
    ASSERT_EQ(AfterArrivals(1, 12 * kMicrosecond), 0) << i;
    ASSERT_EQ(AfterArrivals(2, 12 * kMicrosecond), 0) << i;
  }
}

TEST_F(ModerationTest, UnderLoadForSomeTurnsOfTheMaster) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 20 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherTurns * kTurnCostNs);
  // The same load in larger batches is the same load.
  for (int i = 0; i < 100; ++i) AfterArrivals(4, 20 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherTurns * kTurnCostNs);
  for (int i = 0; i < 100; ++i) AfterArrivals(4, 40 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
}

// What is much for a slow machine is little for a fast one.
TEST_F(ModerationTest, LoadIsMeasuredByWhatATurnCosts) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 60 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  engine_.SetTurnCost(15 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherTurns * 15 * kMicrosecond);
  engine_.SetTurnCost(100 * kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), kGatherNsMax);
  engine_.SetTurnCost(kMicrosecond);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
}

TEST_F(ModerationTest, SwitchesItselfOnAndOffWithinAFewArrivals) {
  int arrivals = 0;
  while (AfterArrivals(1, 10 * kMicrosecond) == 0) ASSERT_LT(++arrivals, 48);
  arrivals = 0;
  while (AfterArrivals(1, 280 * kMicrosecond) > 0) ASSERT_LT(++arrivals, 4);
}

TEST_F(ModerationTest, NeverLongerThanTheNextLookAtAges) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 20 * kMicrosecond);
  ASSERT_GT(engine_.Gather(now_ns_), 0);
  Batch({Arrival(9)});
  now_ns_ += kRecallAfter - 5 * kMicrosecond;
  EXPECT_LE(engine_.Gather(now_ns_), engine_.WaitMax(now_ns_));
  EXPECT_LE(engine_.Gather(now_ns_), 5 * kMicrosecond);
}

TEST_F(ModerationTest, NeverWhileAcceptsAreAskedForOrTheEndIsNear) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 10 * kMicrosecond);
  AddSource({.multishot_accept = false});
  engine_.Join(1, 0);
  Batch();
  ASSERT_GT(engine_.Gather(now_ns_), 0);
  Batch({Edge(1)});
  ASSERT_GT(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  std::vector<Completion> none(Count(OpKind::kAccept), Accepted(-EAGAIN, 1));
  Batch(none);
  EXPECT_GT(engine_.Gather(now_ns_), 0);
  engine_.StopIntake();
  Batch();
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
}

// A worker that made room would idle until its knock is heard.
TEST_F(ModerationTest, NeverWhileWorkWaitsForCredit) {
  for (int i = 0; i < 100; ++i) AfterArrivals(1, 10 * kMicrosecond);
  ASSERT_GT(engine_.Gather(now_ns_), 0);
  engine_.SetWindow(0, 1);
  Batch({Arrival(9), Arrival(9)});
  ASSERT_EQ(Held(), 1u);
  EXPECT_EQ(engine_.Gather(now_ns_), 0);
  Claim(0);
  Batch({Knock()});
  ASSERT_EQ(Held(), 0u);
  EXPECT_GT(engine_.Gather(now_ns_), 0);
}

}  // namespace
}  // namespace ringmaster::core
