// The books of the room in the ledger, of what lacks, and of what grows too old. Method: the test
// counts along.

#include <gtest/gtest.h>

#include <cstdint>

#include "core/ages.h"
#include "core/deadline.h"
#include "core/lack.h"
#include "core/room.h"

namespace ringmaster::core {
namespace {

TEST(RoomBooksTest, WhatComesUnaskedHasRoomOfItsOwn) {
  Room room(/*completion_entries=*/64, /*completions_max=*/16);
  EXPECT_EQ(room.BurstMax(), 0u);
  EXPECT_TRUE(room.IsFor(1, 1));
  room.AddEach(10);
  room.AddEach(10);
  EXPECT_EQ(room.BurstMax(), 2 * 16u + 64 + 2);
  EXPECT_TRUE(room.IsFor(0, 98));
  EXPECT_FALSE(room.IsFor(1, 98));
  room.RemoveEach(10);
  EXPECT_TRUE(room.IsFor(1, 98));
}

TEST(RoomBooksTest, AnAcceptUnderWayHasItsRoom) {
  Room room(64, 16);
  room.Ask(3);
  EXPECT_TRUE(room.IsFor(1, 4));
  EXPECT_FALSE(room.IsFor(2, 4));
  room.Complete();
  EXPECT_TRUE(room.IsFor(2, 4));
}

TEST(RoomBooksTest, NeedsWhatIsThereAndAllThatMayBe) {
  Room room(64, 16);
  room.AddWords(128);
  room.AddEach(10);
  room.Ask(2);
  EXPECT_EQ(room.Needed(/*used=*/5, /*sent_max=*/7), 5u + 2 + 128 + 7 + 10 + room.BurstMax());
  room.RemoveWords(128);
  room.RemoveEach(10);
  EXPECT_EQ(room.Needed(0, 0), 2u);
}

TEST(RoomBooksTest, WindowsMayShrink) {
  Room room(64, 16);
  room.ChangeWindow(0, 8);
  room.ChangeWindow(0, 4);
  room.ChangeWindow(8, 2);
  EXPECT_EQ(room.windows(), 6u);
}

TEST(RoomBooksTest, SaysOnceInABatchThatSomethingIsTurnedAway) {
  Room room(64, 16);
  EXPECT_TRUE(room.TurnAway());
  EXPECT_FALSE(room.TurnAway());
  EXPECT_TRUE(room.wanted());
  EXPECT_TRUE(room.Make());
  EXPECT_FALSE(room.Make());
  room.BeginBatch();
  EXPECT_TRUE(room.TurnAway());
}

TEST(AgesTest, RemembersTheFirstThatWillBeTooOld) {
  Ages ages;
  EXPECT_FALSE(ages.LookNow(kWaitForever - 1));
  EXPECT_FALSE(ages.IsOver(/*came_at_ns=*/100, /*age_max_ns=*/50, /*now_ns=*/120));
  EXPECT_FALSE(ages.IsOver(110, 50, 120));
  EXPECT_EQ(ages.due_at_ns(), 150);
  EXPECT_FALSE(ages.LookNow(149));
  EXPECT_TRUE(ages.LookNow(150));
  EXPECT_TRUE(ages.IsOver(100, 50, 150));
  EXPECT_FALSE(ages.IsOver(110, 50, 150));
  EXPECT_EQ(ages.due_at_ns(), 160);
}

TEST(AgesTest, WhatHasNoLimitIsNeverTooOld) {
  Ages ages;
  EXPECT_FALSE(ages.IsOver(0, 0, kWaitForever));
  EXPECT_EQ(ages.due_at_ns(), kWaitForever);
}

TEST(LackTest, AMultishotAcceptThatYieldsLacksAPlace) {
  Lack lack;
  EXPECT_FALSE(lack.Set(false, true));
  EXPECT_TRUE(lack.place() && lack.yields());
  EXPECT_TRUE(lack.Set(true, false));
  EXPECT_TRUE(lack.place() && !lack.yields());
  EXPECT_TRUE(lack.Set(false, false));
  EXPECT_FALSE(lack.place());
}

TEST(LackTest, EachRoundFindsOutAnewWhetherThereIsCredit) {
  Lack lack;
  lack.LackCredit();
  EXPECT_TRUE(lack.credit());
  lack.BeginRound();
  EXPECT_FALSE(lack.credit());
}

}  // namespace
}  // namespace ringmaster::core
