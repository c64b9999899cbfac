// What polls have shown and tickets have told. Method: the test says which edges come.

#include "core/edges.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "core/op.h"

namespace ringmaster::core {
namespace {

constexpr int32_t kIn = kReadableMask;
constexpr int32_t kHup = 0x10;  // POLLHUP

TEST(EdgesTest, AnEdgeLastsUntilALookFindsNothing) {
  Edges edges;
  EXPECT_FALSE(edges.ready());
  edges.Come(kIn);
  EXPECT_TRUE(edges.ready());
  edges.Clear();
  EXPECT_FALSE(edges.ready());
  edges.LookAgain();
  EXPECT_TRUE(edges.ready());
}

TEST(EdgesTest, WhatAwaitsTookIsLookedForAtOnceWhenThereIsMore) {
  Edges edges;
  EXPECT_FALSE(edges.StopAwaiting());
  edges.AwaitTook();
  EXPECT_TRUE(edges.ready());
  EXPECT_TRUE(edges.awaits_took());
  EXPECT_TRUE(edges.StopAwaiting());
  EXPECT_TRUE(edges.ready());
  edges.AwaitTook();
  edges.MayHaveMore();
  EXPECT_FALSE(edges.awaits_took());
  EXPECT_TRUE(edges.ready());
}

TEST(EdgesTest, ATicketTellsAllThatCameSinceTheLast) {
  Edges edges;
  edges.ComeOfOther(kIn);
  EXPECT_FALSE(edges.ends());
  edges.ComeOfOther(kHup);
  EXPECT_TRUE(edges.ends());
  EXPECT_TRUE(edges.has_untold_end());
  EXPECT_EQ(edges.Tell(), kIn | kHup);
  EXPECT_FALSE(edges.ends());
  EXPECT_EQ(edges.Tell(), kIn);
}

// Each arming shows a hang-up anew: that is no news once a ticket has told it.
TEST(EdgesTest, ToldOnceAHangUpIsNoNewsWhenItIsArmedAnew) {
  Edges edges;
  edges.Arm();
  edges.ComeOfOther(kIn | kHup);
  edges.Tell();
  edges.Clear();
  edges.Arm();
  edges.ComeOfOther(kHup);
  EXPECT_FALSE(edges.ready());
  edges.ComeOfOther(kHup);  // of the same arming: something has come
  EXPECT_TRUE(edges.ready());
}

TEST(EdgesTest, SomethingToReadIsNewsBesideAHangUpButNotBesideTheEnd) {
  Edges hung_up;
  hung_up.ComeOfOther(kIn | kHup);
  hung_up.Tell();
  hung_up.Clear();
  hung_up.Arm();
  hung_up.ComeOfOther(kIn | kHup);
  EXPECT_TRUE(hung_up.ready());

  Edges ended;
  ended.ComeOfOther(kIn | kEndedMask);
  ended.Tell();
  ended.Clear();
  ended.Arm();
  ended.ComeOfOther(kIn | kEndedMask);
  EXPECT_FALSE(ended.ready());
}

// An edge without it shows that a hang-up does not last: the next one is news.
TEST(EdgesTest, AHangUpThatWasOverIsNewsAgain) {
  Edges edges;
  edges.ComeOfOther(kHup);
  edges.Tell();
  edges.ComeOfOther(kIn);
  edges.Tell();
  edges.Clear();
  edges.Arm();
  edges.ComeOfOther(kHup);
  EXPECT_TRUE(edges.ready());
  EXPECT_TRUE(edges.has_untold_end());
}

TEST(EdgesTest, WhatNobodyHeededIsToldAgain) {
  Edges edges;
  edges.ComeOfOther(kHup);
  EXPECT_EQ(edges.Tell(), kIn | kHup);
  edges.TellAgain();
  EXPECT_FALSE(edges.has_untold_end());
  EXPECT_EQ(edges.Tell(), kIn | kHup);
  edges.Untell(kHup);  // a ticket that was merged
  EXPECT_EQ(edges.Tell(), kIn | kHup);
}

}  // namespace
}  // namespace ringmaster::core
