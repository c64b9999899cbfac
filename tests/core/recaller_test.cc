// What is recalled from workers that do not move, and what is said of them. Method: as in
// engine_fixture.h.

#include "core/recaller.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "core/inbox.h"
#include "core/op.h"
#include "core/port_state.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

class RecallTest : public EngineTest {
 protected:
  // Two workers with a window of 4; the first has been offered everything and does not move.
  void OfferToTheFirst(std::initializer_list<int32_t> fds, uint32_t source = 0) {
    engine_.Leave(SourceIndex(source), 1);
    Batch();
    for (const int32_t fd : fds) Batch({Arrival(fd, source)});
    engine_.Join(SourceIndex(source), 1);
    ASSERT_GE(Unclaimed(0), fds.size());
  }
  void SetUp() override {
    AddSource();
    AddWorker();
    AddWorker();
    Batch();
  }
};

TEST_F(RecallTest, ComesAtTheLimitAndNotBefore) {
  OfferToTheFirst({10});
  EXPECT_EQ(engine_.WaitMax(now_ns_), kRecallAfter);
  now_ns_ += kRecallAfter - 1;
  Batch();
  EXPECT_EQ(Unclaimed(0), 1u);
  now_ns_ += 1;
  Batch();
  EXPECT_EQ(Unclaimed(0), 0u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  EXPECT_EQ(CountEvents(EventKind::kWorkerStalled), 1u);
}

TEST_F(RecallTest, MovesTheReservationToo) {
  OfferToTheFirst({10});
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(workers_[0]->state().open, 0u);
  EXPECT_EQ(workers_[1]->state().open, 1u);
}

TEST_F(RecallTest, NeedsSomebodyWhoCanTakeIt) {
  Batch({Arrival(1), Arrival(2), Arrival(3), Arrival(4), Arrival(5), Arrival(6), Arrival(7),
         Arrival(8)});
  ASSERT_EQ(Unclaimed(0), 4u);
  ASSERT_EQ(Unclaimed(1), 4u);
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(engine_.ledger().worker(0).recalled, 0u);
  EXPECT_TRUE(workers_[1]->Claim(hunger_));  // it makes credit, and the master asked for it
  Batch({Knock()});
  EXPECT_EQ(engine_.ledger().worker(0).recalled, 4u);
  EXPECT_EQ(Unclaimed(1), 4u);
}

class SilentStallTest : public EngineTest {
 protected:
  // Sleeps as the master does, for so long; returns how often it woke.
  uint32_t Sleep(int64_t for_ns) {
    const int64_t until_ns = now_ns_ + for_ns;
    for (uint32_t wakes = 0;; ++wakes) {
      const int64_t wait_ns = engine_.WaitMax(now_ns_);
      EXPECT_GT(wait_ns, 0);
      if (wait_ns <= 0 || wait_ns > until_ns - now_ns_) {
        now_ns_ = until_ns;
        return wakes;
      }
      now_ns_ += wait_ns;
      Batch();
    }
  }
  size_t Stalls() const { return CountEvents(EventKind::kWorkerStalled); }
};

TEST_F(SilentStallTest, OfTheOnlyWorkerIsSaid) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  Sleep(kSilentStallFactor * kRecallAfter - 1);
  EXPECT_EQ(Stalls(), 0u);
  Sleep(kSilentStallFactor * kRecallAfter);
  ASSERT_EQ(Stalls(), 1u);
  EXPECT_FALSE(engine_.events()[0].recalled);
  EXPECT_FALSE(engine_.events()[0].serving);
  EXPECT_TRUE(engine_.events()[0].told);
  EXPECT_EQ(engine_.stalls(0), 1u);
  // Said once, and looks become rarer.
  EXPECT_LE(Sleep(1000 * kRecallAfter), 1000 / kLookPauseFactorMax + 8);
  EXPECT_EQ(Stalls(), 1u);
  EXPECT_EQ(CountEvents(EventKind::kWorkerMoves), 0u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  Batch();
  EXPECT_EQ(CountEvents(EventKind::kWorkerMoves), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(SilentStallTest, OfAllWorkersIsSaidOfEach) {
  AddSource({}, RoundRobin());
  AddWorker({.window = 1});
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  workers_[1]->state().serving = 1;
  Sleep(2 * kSilentStallFactor * kRecallAfter);
  ASSERT_EQ(Stalls(), 2u);
  for (const EngineEvent& event : engine_.events()) {
    EXPECT_FALSE(event.recalled);
    EXPECT_EQ(event.serving, event.worker == 1);
    EXPECT_EQ(event.told, event.worker == 0);
  }
}

TEST_F(SilentStallTest, OfAWorkerThatMayNotBeRecalledFromIsSaid) {
  AddSource({.recall = false});
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  AddWorker();
  Sleep(2 * kSilentStallFactor * kRecallAfter);
  EXPECT_EQ(Stalls(), 1u);
}

TEST_F(SilentStallTest, OneThatIsRelievedIsSaidAtOnce) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  AddWorker();
  Sleep(kRecallAfter);
  ASSERT_EQ(Stalls(), 1u);
  EXPECT_TRUE(engine_.events()[0].recalled);
}

TEST_F(SilentStallTest, IsNotSaidOfAWorkerThatMoves) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12), Arrival(13)});
  for (int i = 0; i < 3; ++i) {
    Sleep((kSilentStallFactor - 1) * kRecallAfter);
    workers_[0]->inbox().Begin();
    EXPECT_TRUE(workers_[0]->TakeOne());
    Batch();
  }
  EXPECT_EQ(Stalls(), 0u);
  // Nor of what was idle for long, and is given something.
  Claim(0);
  Batch();
  Sleep(100 * kRecallAfter);
  Batch({Arrival(14)});
  Sleep((kSilentStallFactor - 1) * kRecallAfter);
  EXPECT_EQ(Stalls(), 0u);
}

// A host comes back after long: the worker has been told a moment ago at most.
TEST_F(SilentStallTest, WhatTheMasterWasLateForDoesNotCount) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  now_ns_ += 100 * kRecallAfter;
  Batch();
  EXPECT_EQ(Stalls(), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kRecallAfter);
  Sleep(kRecallAfter);
  EXPECT_EQ(Stalls(), 1u);
}

TEST_F(RecallTest, GivesNoCreditBackBeforeTheWorkerMoves) {
  OfferToTheFirst({10});
  now_ns_ += kRecallAfter;
  Batch();
  Batch({Arrival(11), Arrival(12), Arrival(13), Arrival(14)});
  EXPECT_EQ(Unclaimed(0), 0u);
  EXPECT_EQ(Unclaimed(1), 4u);
  EXPECT_EQ(Held(), 1u);
  workers_[0]->Claim(hunger_);  // finds nothing, and has moved
  Batch({Knock()});
  EXPECT_EQ(Unclaimed(0), 1u);
  EXPECT_EQ(engine_.window(0), 2u);  // half of what it was, once for the whole stall
  EXPECT_EQ(CountEvents(EventKind::kWorkerMoves), 1u);
}

TEST_F(RecallTest, OpensTheWindowAgainByPromptClaims) {
  OfferToTheFirst({10});
  now_ns_ += kRecallAfter;
  Batch();
  Claim(0);
  Claim(1);
  for (int32_t fd = 20; engine_.window(0) < 4 && fd < 200; ++fd) {
    Batch({Arrival(fd)});
    Claim(0);
    Claim(1);
    Batch();
  }
  EXPECT_EQ(engine_.window(0), 4u);
}

// The look comes early, because it was for an offer that was taken back meanwhile. Nobody else
// could have what is left, so the next one is put off, until somebody joins who can.
TEST_F(RecallTest, ComesAtTheLimitAlsoWhereSomebodyJoinsAfterALookInVain) {
  const uint32_t other = AddSource();
  engine_.Join(SourceIndex(other), 0);
  OfferToTheFirst({10});
  engine_.SetCapacity(1, 1);
  workers_[1]->state().ForceReserve();
  for (int i = 0; i < 6; ++i) {
    now_ns_ += engine_.WaitMax(now_ns_);
    Batch();
  }
  engine_.Leave(SourceIndex(0), 0);
  Batch({Arrival(11, other)});
  Batch({Knock()});
  EXPECT_EQ(Unclaimed(0), 1u);
  engine_.Join(SourceIndex(other), 1);
  EXPECT_TRUE(workers_[1]->Release(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  workers_[1]->Release(hunger_);
  Batch({Knock()});
  ASSERT_EQ(engine_.WaitMax(now_ns_), kRecallAfter);
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{11});
}

TEST_F(RecallTest, DealsTheOldestFirst) {
  OfferToTheFirst({10, 11, 12});
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(Claim(1), (std::vector<int32_t>{10, 11, 12}));
}

TEST_F(RecallTest, IsOffWhereTheSourceSaysSo) {
  const uint32_t source = AddSource({.recall = false});
  engine_.Join(SourceIndex(source), 0);
  Batch();
  Batch({Arrival(10, source)});
  engine_.Join(SourceIndex(source), 1);
  now_ns_ += 100 * kRecallAfter;
  Batch();
  EXPECT_EQ(Unclaimed(0), 1u);
}

// The worker has moved half a limit before the offer grew old. The next look comes when it will
// have stood still for a whole limit, also when other batches come before.
TEST_F(RecallTest, LooksAgainWhenTheWorkerHasStoodStillForTheLimit) {
  OfferToTheFirst({10, 11});
  now_ns_ += kRecallAfter / 2;
  workers_[0]->inbox().Begin();
  ASSERT_TRUE(workers_[0]->TakeOne());
  Batch();
  const int64_t moved_at_ns = now_ns_;
  now_ns_ += kRecallAfter / 2;
  for (int i = 0; i < 5; ++i) {
    Batch({Knock()});
    EXPECT_EQ(engine_.WaitMax(now_ns_), moved_at_ns + kRecallAfter - now_ns_);
    now_ns_ += kRecallAfter / 20;
  }
  now_ns_ = moved_at_ns + kRecallAfter;
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{11});
}

TEST_F(RecallTest, TakesFromAWorkerThatMovesOnlyForAnIdleOneAndMuchLater) {
  OfferToTheFirst({10, 11, 12});
  const int64_t offered_at_ns = now_ns_;
  now_ns_ += kRecallAfter / 2;
  workers_[0]->inbox().Begin();
  ASSERT_TRUE(workers_[0]->TakeOne());
  Batch();
  now_ns_ += kRecallAfter / 2;
  Batch();  // what is left is old; the worker is rung again and answers that for a while
  while (now_ns_ + kRecallAfter / 2 < offered_at_ns + kIdleRecallFactor * kRecallAfter) {
    now_ns_ += kRecallAfter / 2;
    workers_[0]->inbox().Begin();
    Batch();
    ASSERT_EQ(engine_.ledger().worker(0).recalled, 0u);
  }
  now_ns_ += kRecallAfter / 2;
  workers_[0]->inbox().Begin();
  Batch();
  EXPECT_EQ(engine_.ledger().worker(0).recalled, 2u);
  EXPECT_EQ(CountEvents(EventKind::kWorkerStalled), 0u);
  // Their limit has doubled, so that nothing is passed round for ever.
  ASSERT_EQ(Unclaimed(1), 2u);
  now_ns_ += kRecallAfter;
  workers_[0]->inbox().Begin();
  Batch();
  EXPECT_EQ(engine_.ledger().worker(1).recalled, 0u);
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(engine_.ledger().worker(1).recalled, 2u);
}

// One that wants a taker stands behind one that may not be recalled at all.
TEST_F(RecallTest, DoesNotSpinForATakerOfAnotherSource) {
  const uint32_t fixed = AddSource({.recall = false});
  engine_.Join(SourceIndex(fixed), 0);
  Batch();
  Batch({Arrival(10, fixed)});
  OfferToTheFirst({11});
  engine_.Leave(SourceIndex(0), 1);
  engine_.Join(SourceIndex(fixed), 1);  // it has credit, for the other source only
  ASSERT_EQ(AddWorker({.window = 1}), 2u);
  engine_.Leave(SourceIndex(fixed), 2);
  Batch({Arrival(12)});
  ASSERT_EQ(Unclaimed(2), 1u);
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  EXPECT_EQ(engine_.ledger().worker(0).recalled, 0u);
}

// Leaving and joining again while inside a callback brings the words round: the worker finds a
// younger offer before an older one. That it has moved must count when the older one is old.
TEST_F(RecallTest, SeesMotionInWhatIsClaimedOutOfOrder) {
  const uint32_t slow = AddWorker({.window = 2});
  engine_.Leave(SourceIndex(0), 0);
  engine_.Leave(SourceIndex(0), 1);
  Batch();
  Batch({Arrival(10), Arrival(11)});
  workers_[slow]->inbox().Begin();
  ASSERT_TRUE(workers_[slow]->TakeOne());
  for (int i = 0; i < 2; ++i) {
    engine_.Leave(SourceIndex(0), slow);
    engine_.Join(SourceIndex(0), slow);
    Batch(i == 0 ? std::initializer_list<Completion>{Arrival(12)}
                 : std::initializer_list<Completion>{});
  }
  ASSERT_EQ(Unclaimed(slow), 2u);
  std::vector<int32_t> fds;
  ASSERT_TRUE(workers_[slow]->TakeOne(&fds));
  ASSERT_EQ(fds, std::vector<int32_t>{12});
  engine_.Join(SourceIndex(0), 0);
  const uint64_t recalled_by_leaving = engine_.ledger().worker(slow).recalled;
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(engine_.ledger().worker(slow).recalled, recalled_by_leaving);
  EXPECT_EQ(engine_.ledger().worker(slow).claimed, 2u);
}

TEST_F(RecallTest, LooksLessOftenWhileNobodyCanTakeAnything) {
  Batch({Arrival(1), Arrival(2), Arrival(3), Arrival(4), Arrival(5), Arrival(6), Arrival(7),
         Arrival(8)});
  now_ns_ += kRecallAfter;
  int64_t wait_ns = 0;
  for (int i = 0; i < 8; ++i) {
    Batch();
    EXPECT_GE(engine_.WaitMax(now_ns_), wait_ns);
    wait_ns = engine_.WaitMax(now_ns_);
    now_ns_ += wait_ns;
  }
  EXPECT_EQ(wait_ns, kLookPauseFactorMax * kRecallAfter);
}

TEST_F(RecallTest, LooksAtANewOfferInTimeAlthoughOldOnesWereLookedAtInVain) {
  OfferToTheFirst({10});
  engine_.Leave(SourceIndex(0), 1);
  now_ns_ += kRecallAfter;
  for (int i = 0; i < 6; ++i) {
    Batch();
    now_ns_ += engine_.WaitMax(now_ns_);
  }
  Batch({Arrival(11)});
  EXPECT_LE(engine_.WaitMax(now_ns_), kRecallAfter);
}

TEST_F(RecallTest, HappensAtOnceWhenTheWorkerLeaves) {
  OfferToTheFirst({10, 11});
  engine_.RemoveWorker(0);
  EXPECT_FALSE(engine_.worker_used(0));
  EXPECT_EQ(workers_[0]->state().open, 0u);
  Batch();
  EXPECT_EQ(Claim(1), (std::vector<int32_t>{10, 11}));
}

TEST_F(RecallTest, LeavesAloneWhatTheLeaverHasClaimed) {
  OfferToTheFirst({10, 11});
  workers_[0]->inbox().Begin();
  ASSERT_TRUE(workers_[0]->TakeOne());
  engine_.RemoveWorker(0);
  EXPECT_EQ(engine_.ledger().worker(0).claimed, 1u);
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{11});
}

TEST_F(RecallTest, LeavingOneSourceKeepsTheOffersOfOthers) {
  OfferToTheFirst({10});
  const uint32_t other = AddSource();
  engine_.Join(SourceIndex(other), 0);
  Batch();
  Batch({Arrival(20, other)});
  engine_.Leave(SourceIndex(0), 0);
  Batch();
  EXPECT_EQ(Claim(0), std::vector<int32_t>{20});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
}

TEST_F(RecallTest, ANewWorkerWithTheIndexOfALeaverIgnoresItsFailures) {
  OfferToTheFirst({10});
  const Op doorbell{.key = {.kind = OpKind::kDoorbell, .generation = 1, .index = 0}};
  engine_.RemoveWorker(0);
  Batch();
  Claim(1);
  ASSERT_EQ(AddWorker(), 0u);
  Batch({Failed(doorbell, EBADFD)});
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 0u);
}

}  // namespace
}  // namespace ringmaster::core
