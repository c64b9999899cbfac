// Method: as in engine_fixture.h. What may arrive is bounded by the rule of core/room.h. The test
// is a ring that uses up all that it may bring, and then one that brings more.

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "core/deadline.h"
#include "core/engine.h"
#include "engine_fixture.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

constexpr uint32_t kEntries = 64;          // as the fixture tells the engine
constexpr uint32_t kCompletionsMax = 512;  // the default of EngineConfig
constexpr int64_t kLatest = std::numeric_limits<int64_t>::max();
constexpr int64_t kEarliest = std::numeric_limits<int64_t>::min();

class RoomTest : public EngineTest {
 protected:
  std::vector<Completion> Burst(uint32_t count, uint32_t source = 0) {
    std::vector<Completion> burst;
    for (; count > 0; --count) burst.push_back(Arrival(fd_++, source));
    return burst;
  }
  // As a master does between two batches. Whether there was anything to do.
  bool MakeRoom() {
    const bool wanted = engine_.WantsRoom();
    if (wanted) engine_.MakeRoom();
    return wanted;
  }

  int32_t fd_ = 1000;
};

TEST_F(RoomTest, TakesAllThatARingMayBringAfterTheHoldIsReached) {
  AddSource({.hold = 1});
  AddSource({.hold = 1});
  AddWorker({.window = 1});
  Batch();
  Batch(Burst(kCompletionsMax));
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 2u);  // the second for want of room
  // The end is submitted by a turn that has reaped as much again, and the queue is full by then.
  Batch(Burst(kCompletionsMax, 1));
  Batch(Burst(kEntries));
  Batch({End(fd_++, 0), End(fd_++, 1)});
  EXPECT_EQ(Count(OpKind::kClose), 0u);
  EXPECT_EQ(CountEvents(EventKind::kTurnedAway), 0u);
  EXPECT_EQ(Held(0) + Held(1) + Unclaimed(0), 2 * kCompletionsMax + kEntries + 2);
}

TEST_F(RoomTest, TurnsAwayWhatARingBringsBeyondItsWordAndGoesOn) {
  AddSource({.hold = 1});
  AddWorker({.window = 1});
  Batch();
  const uint32_t room = engine_.ledger().room();
  uint32_t brought = 0;
  while (brought < room) {
    Batch(Burst(kEntries));
    brought += kEntries;
  }
  Batch(Burst(10));
  brought += 10;
  EXPECT_EQ(Count(OpKind::kClose), 10u);
  EXPECT_EQ(engine_.ledger().source(0).refused, brought - room);
  EXPECT_GT(CountEvents(EventKind::kTurnedAway), 0u);
  EXPECT_TRUE(MakeRoom());
  EXPECT_EQ(engine_.WaitMax(now_ns_), 0);
  Batch(Burst(10));
  EXPECT_EQ(Count(OpKind::kClose), 0u);
}

// Such a ring uses up the room that was kept for accepts under way, too. What they find is turned
// away, and its places are free again.
TEST_F(RoomTest, TurnsAwayWhatAnAcceptFindsForWhichARingHasLeftNoRoom) {
  Gate gate;
  gate.Limit(4);
  AddSource({.hold = 1});
  AddSource({.multishot_accept = false, .gate = &gate});
  AddWorker({.window = 4});
  Batch();
  Batch({Edge(1)});
  ASSERT_EQ(Count(OpKind::kAccept), 2u);
  EXPECT_EQ(gate.used(), 2u);
  ring_keeps_its_word_ = false;
  Batch(Burst(engine_.ledger().room()));
  Batch({Accepted(10, 1), Accepted(-EAGAIN, 1)});
  EXPECT_EQ(Only(OpKind::kClose).fd, 10);
  EXPECT_EQ(gate.used(), 0u);
  EXPECT_EQ(engine_.promised(0), 0u);
  EXPECT_EQ(CountEvents(EventKind::kTurnedAway), 1u);
  EXPECT_TRUE(MakeRoom());
  ring_keeps_its_word_ = true;
  Batch();
}

// A burst of one source must not keep another one's connections out.
TEST_F(RoomTest, MakesRoomForOthersBesideWhatIsHeldBeyondTheHold) {
  AddSource({.hold = 1});
  AddSource({.hold = 4});
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch(Burst(kCompletionsMax));
  Batch(Burst(kCompletionsMax));
  Batch({End(-ECANCELED, 0), End(-ECANCELED, 1)});
  EXPECT_TRUE(MakeRoom());
  Batch();
  EXPECT_EQ(Only(OpKind::kAcceptEach).key.index, 1u);
  EXPECT_FALSE(MakeRoom());
  AddWorker({.window = 4});
  engine_.Leave(SourceIndex(0), 1);  // it is there for the others
  Batch({Edge(2)});
  EXPECT_GT(Count(OpKind::kAccept), 0u);
}

TEST_F(RoomTest, HoldsNoMoreThanAProcessHasDescriptors) {
  AddSource({.hold = kRecordsMax});
  AddSource({.hold = kRecordsMax});
  EXPECT_EQ(engine_.ledger().room(), kRecordsMax);
}

// A thousand sources share what one needs, and adding one more costs what it needs itself.
TEST_F(RoomTest, IsSharedByAllSources) {
  AddWorker({.window = 32});
  const size_t before = testing::AllocationCount();
  for (int i = 0; i < 1000; ++i) AddSource({.multishot_accept = false});
  EXPECT_LT(testing::AllocationCount() - before, 10'000u);
  EXPECT_LT(engine_.ledger().room(), 1000u);
}

TEST_F(RoomTest, BelievesNothingThatNobodyHasAskedFor) {
  AddSource({.multishot_accept = false});
  AddSource();
  AddWorker();
  Batch();
  constexpr uint32_t kFar = 1 << 30;
  std::vector<Completion> stray;
  for (const OpKind kind : {OpKind::kPoll, OpKind::kCount, OpKind::kAccept, OpKind::kAcceptEach,
                            OpKind::kSend, OpKind::kDoorbell, OpKind::kClose}) {
    for (const uint32_t index : {0u, 1u, kFar}) {
      if (kind == OpKind::kPoll && index == 0) continue;
      if (kind == OpKind::kAcceptEach && index == 1) continue;
      for (const int32_t result : {-EBADF, 7}) {
        stray.push_back({.key = {.kind = kind, .index = index}, .result = result});
      }
    }
  }
  Batch(stray);
  EXPECT_EQ(engine_.ledger().source(0).arrivals + engine_.ledger().source(1).arrivals, 0u);
  EXPECT_TRUE(ops_.empty());
  EXPECT_TRUE(engine_.events().empty());
}

TEST_F(RoomTest, HearsOnceOfAConnectionThatWasNotSentAlthoughItIsToldTwice) {
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10)}, false);
  const Op sent = Only(OpKind::kSend);
  Batch({Failed(sent, EBADFD), Failed(sent, EBADFD)});
  EXPECT_EQ(Held(), 1u);
}

// --- Times at the edges --------------------------------------------------------------------------

TEST(Deadline, NeverWraps) {
  EXPECT_EQ(After(5, 6), 11);
  EXPECT_EQ(After(5, kLatest), kWaitForever);
  EXPECT_EQ(After(kLatest, kLatest), kWaitForever);
  EXPECT_EQ(After(kLatest, -1), kLatest - 1);
  EXPECT_EQ(After(-5, kEarliest), 0);
}

TEST_F(RoomTest, KeepsForEverWhatMayGrowForEverOld) {
  for (const int64_t age_max_ns : {kLatest, kLatest - 1, kLatest - now_ns_}) {
    engine_.AddSource({.fd = kListenFd,
                       .intake = {.kind = IntakeKind::kAccept},
                       .hold = 4,
                       .age_max_ns = age_max_ns,
                       .policy = LeastLoaded()});
  }
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10, 0), Arrival(11, 0), Arrival(12, 1), Arrival(13, 2)});
  now_ns_ += kRecallAfter * 1000;
  Batch();
  EXPECT_EQ(Count(OpKind::kClose), 0u);
  EXPECT_EQ(Held(0) + Held(1) + Held(2) + Unclaimed(0), 4u);
}

}  // namespace
}  // namespace ringmaster::core
