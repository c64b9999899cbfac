// What is armed. Method: the test is the ring, which completes what it was asked for.

#include "core/arming.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "core/op.h"

namespace ringmaster::core {
namespace {

TEST(ArmingTest, TellsItsCompletionsByTheirGeneration) {
  Arming arming;
  EXPECT_TRUE(arming.idle());
  const OpKey first = arming.Arm(OpKind::kPoll, kFactPeer, 7);
  EXPECT_TRUE(arming.armed());
  EXPECT_EQ(first.kind, OpKind::kPoll);
  EXPECT_EQ(first.index, 7u);
  EXPECT_EQ(arming.facts(), kFactPeer);
  EXPECT_TRUE(arming.Complete(first.generation));
  EXPECT_TRUE(arming.idle());
  const OpKey second = arming.Arm(OpKind::kPoll, 0, 7);
  EXPECT_NE(second.generation, first.generation);
  EXPECT_FALSE(arming.Complete(first.generation));
  EXPECT_TRUE(arming.armed());
}

TEST(ArmingTest, IsNotIdleBeforeWhatWasToldToEndHasEnded) {
  Arming arming;
  const OpKey key = arming.Arm(OpKind::kAcceptEach, kFactCame, 3);
  const OpKey end = arming.End(OpKind::kAcceptEnd);
  EXPECT_EQ(end.kind, OpKind::kAcceptEnd);
  EXPECT_EQ(end.generation, key.generation);
  EXPECT_EQ(end.facts, kFactCame);
  EXPECT_FALSE(arming.armed());
  EXPECT_FALSE(arming.idle());
  EXPECT_TRUE(arming.Complete(key.generation));
  EXPECT_TRUE(arming.idle());
}

TEST(ArmingTest, GoesOnFromTheGenerationOfTheLastSourceWithItsIndex) {
  Arming last;
  const OpKey late = last.Arm(OpKind::kPoll, 0, 1);
  Arming arming(last.generation());
  EXPECT_TRUE(arming.idle());
  arming.Arm(OpKind::kPoll, 0, 1);
  EXPECT_FALSE(arming.Complete(late.generation));
}

TEST(ArmingTest, WatchesTheEndAsLongAsItIsArmed) {
  Arming arming;
  EXPECT_FALSE(arming.WatchIsDue());
  const OpKey key = arming.Arm(OpKind::kAcceptEach, 0, 2);
  EXPECT_TRUE(arming.WatchIsDue());
  EXPECT_EQ(arming.Watch(0, 2).kind, OpKind::kHangUp);
  EXPECT_TRUE(arming.watches_end());
  EXPECT_FALSE(arming.WatchIsDue());
  EXPECT_FALSE(arming.WatchIsOver());
  arming.Complete(key.generation);
  EXPECT_TRUE(arming.WatchIsOver());
  EXPECT_EQ(arming.EndWatch().kind, OpKind::kHangUpEnd);
  EXPECT_FALSE(arming.WatchIsOver());  // it is told once
}

// What is armed again meanwhile has no watch before the old one has ended.
TEST(ArmingTest, BeginsNoWatchBesideOneThatEnds) {
  Arming arming;
  const OpKey key = arming.Arm(OpKind::kAcceptEach, 0, 2);
  arming.Watch(0, 2);
  arming.Complete(key.generation);
  arming.EndWatch();
  arming.Arm(OpKind::kAcceptEach, 0, 2);
  EXPECT_FALSE(arming.WatchIsDue());
  arming.WatchCompletes();
  EXPECT_TRUE(arming.WatchIsDue());
}

TEST(ArmingTest, ForgetsWhatARingOutOfReachHad) {
  Arming arming;
  arming.Arm(OpKind::kAcceptEach, 0, 2);
  arming.Watch(0, 2);
  arming.Forget();
  EXPECT_TRUE(arming.idle());
  EXPECT_FALSE(arming.watches_end());
}

}  // namespace
}  // namespace ringmaster::core
