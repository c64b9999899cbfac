#include "core/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/inbox.h"
#include "core/op.h"
#include "core/port_state.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

// --- Arming --------------------------------------------------------------------------------------

TEST_F(EngineTest, ArmsASourceWhenTheFirstWorkerJoins) {
  AddSource({.multishot_accept = false});
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 0u);
  EXPECT_EQ(Count(OpKind::kWatch), 1u);
  AddWorker();
  Batch();
  EXPECT_EQ(Only(OpKind::kPoll).fd, kListenFd);
  Batch();
  EXPECT_TRUE(ops_.empty());
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  engine_.CheckAll(true);
}

TEST_F(EngineTest, ASourceThatWaitsForWorkersStartsWithTheLastOfThem) {
  for (const bool multishot : {false, true}) {
    const uint32_t source = AddSource({.multishot_accept = multishot, .start_workers = 3});
    AddWorker();
    AddWorker();
    Batch();
    EXPECT_EQ(Count(OpKind::kPoll) + Count(OpKind::kAcceptEach), 0u);
    engine_.CheckAll(true);
    AddWorker();
    Batch();
    EXPECT_EQ(Count(OpKind::kPoll) + Count(OpKind::kAcceptEach), 1u);
    // Who leaves later does not stop it again.
    engine_.Leave(source, 0);
    engine_.Leave(source, 1);
    Batch();
    EXPECT_TRUE(ops_.empty());
    engine_.RemoveSource(source);
    for (uint32_t worker = 0; worker < 3; ++worker) engine_.RemoveWorker(worker);
    workers_.clear();
    Batch();
    Batch({End(-ECANCELED)});
  }
}

TEST_F(EngineTest, ASourceThatWaitsForWorkersStartsWhenItIsResumed) {
  AddSource({.multishot_accept = false, .start_workers = 3});
  AddWorker();
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 0u);
  engine_.Resume(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 1u);
  engine_.CheckAll(true);
}

TEST_F(EngineTest, DisarmsASourceWhenTheLastWorkerLeaves) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  engine_.Leave(0, 0);
  Batch();
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(ops_.empty());
}

TEST_F(EngineTest, ArmsAPollAnewThatEndedBecauseTheQueueWasFull) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  const uint16_t generation = armed_[0].generation;
  Batch({End(kPoll)});
  EXPECT_NE(Only(OpKind::kPoll).key.generation, generation);
  EXPECT_GT(Count(OpKind::kAccept), 0u);  // what the last completion said still counts
}

TEST_F(EngineTest, ArmsAMultishotAcceptAnewAndKeepsItsLastConnection) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10), End(11)});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
}

TEST_F(EngineTest, ArmsTheWatchAnewThatEnded) {
  AddSource();
  AddWorker();
  Batch();
  Batch({{.key = {.kind = OpKind::kWatch}, .result = 1, .more = false}});
  EXPECT_EQ(Only(OpKind::kWatch).fd, kWatchFd);
}

TEST_F(EngineTest, WaitsForTheEndBeforeItArmsAgain) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  engine_.Pause(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  engine_.Resume(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 0u);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kPoll), 1u);
}

TEST_F(EngineTest, DealsWhatIsHeldWhileItsSourceIsPaused) {
  AddSource();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.Pause(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{11});
}

// --- Accepting by polls --------------------------------------------------------------------------

TEST_F(EngineTest, AsksForNoMoreConnectionsThanThereIsCredit) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
}

TEST_F(EngineTest, AsksForNoMoreConnectionsThanTheCapacityAllows) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 8, .capacity = 1});
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  Batch({Accepted(10)});
  Claim(0);
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_TRUE(workers_[0]->Release(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
}

TEST_F(EngineTest, AcceptsUntilNothingIsFound) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 64});
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 2u);
  Batch({Accepted(10), Accepted(11)});
  EXPECT_EQ(Count(OpKind::kAccept), 4u);  // one edge may stand for many arrivals
  Batch({Accepted(12), Accepted(-EAGAIN), Accepted(-EAGAIN), Accepted(-EAGAIN)});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_FALSE(engine_.ready(0));
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11, 12}));
}

TEST_F(EngineTest, PausesAPolledSourceWhileNobodyHasCredit) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  Batch({Accepted(10)});
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(ops_.empty());
  EXPECT_TRUE(engine_.ready(0));
  engine_.CheckAll(true);
}

TEST_F(EngineTest, AsksToBeWokenOnceAndGoesOnWhenAClaimMakesCredit) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  Batch({Accepted(10)});
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(workers_[0]->Claim(hunger_));
  EXPECT_FALSE(workers_[0]->Release(hunger_));  // one knock is enough
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  EXPECT_EQ(Count(OpKind::kPoll), 1u);
  EXPECT_FALSE(workers_[0]->Claim(hunger_));  // it is not hungry any more
}

TEST_F(EngineTest, LetsSeveralSourcesTakeTurns) {
  AddSource({.multishot_accept = false});
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  std::vector<uint32_t> turns;
  int32_t fd = 10;
  Batch({Edge(0), Edge(1)});
  for (int i = 0; i < 6; ++i) {
    const uint32_t source = Only(OpKind::kAccept).key.index;
    turns.push_back(source);
    Batch({Accepted(fd++, source)});
    Claim(0);
    Batch({Knock()});
  }
  EXPECT_EQ(std::count(turns.begin(), turns.end(), 0u), 3);
  EXPECT_EQ(std::count(turns.begin(), turns.end(), 1u), 3);
}

// --- Errors --------------------------------------------------------------------------------------

TEST_F(EngineTest, BacksOffWithoutDescriptorsAndTriesAgainAtAKnock) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Accepted(-EMFILE), Accepted(-EMFILE)});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kBackOffNsMin);
  EXPECT_TRUE(workers_[0]->Claim(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);  // a claim closes nothing
  workers_[0]->state().ForceReserve();
  EXPECT_TRUE(workers_[0]->Release(hunger_));
  Batch({Knock()});
  EXPECT_GT(Count(OpKind::kAccept), 0u);
  Batch({Accepted(10), Accepted(-EMFILE)});
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);  // still the same shortage
}

TEST_F(EngineTest, TriesAgainAfterTheBackOffWithoutAKnockAndWaitsLongerEachTime) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  for (int64_t wait_ns = kBackOffNsMin; wait_ns < kBackOffNsMax; wait_ns *= 2) {
    Batch({Accepted(-ENFILE)});
    EXPECT_EQ(engine_.WaitMax(now_ns_), wait_ns);
    now_ns_ += wait_ns;
    Batch();
    EXPECT_EQ(Count(OpKind::kAccept), 1u);
  }
  Batch({Accepted(-ENFILE)});
  EXPECT_EQ(engine_.WaitMax(now_ns_), kBackOffNsMax);
}

TEST_F(EngineTest, BacksOffWithAMultishotAcceptToo) {
  AddSource();
  AddWorker();
  Batch();
  Batch({End(-EMFILE)});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 0u);
  workers_[0]->state().ForceReserve();
  EXPECT_TRUE(workers_[0]->Release(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
}

// Whether a multishot accept meets a shortage it says at once; nothing else need come.
TEST_F(EngineTest, SaysThatAShortageOfAMultishotAcceptIsOverThoughNothingArrives) {
  AddSource();
  AddWorker();
  Batch();
  Batch({End(-EMFILE)});
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  now_ns_ += kBackOffNsMin;
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kDescriptorsCalmNs);
  now_ns_ += kDescriptorsCalmNs;
  Batch();
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(EngineTest, SaysNothingOfAShortageThatGoesOn) {
  AddSource();
  AddWorker();
  Batch();
  for (int i = 0; i < 20; ++i) {
    Batch({End(-EMFILE)});
    now_ns_ += kBackOffNsMax;
    Batch();
    EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  }
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 0u);
}

TEST_F(EngineTest, GoesOnAfterAConnectionThatWentWrong) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  Batch({Accepted(-ECONNABORTED)});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  EXPECT_EQ(engine_.events().size(), 0u);
}

TEST_F(EngineTest, DoesNotSpinWhenNothingButErrorsComes) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  for (uint32_t i = 0; i < kAcceptErrorsInRowMax; ++i) Batch({Accepted(-EPERM)});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kBackOffNsMin);
}

TEST_F(EngineTest, TriesAgainLaterWhenAPollCannotBeArmedForLackOfMemory) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({End(-ENOMEM)});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 0u);
  EXPECT_EQ(Count(OpKind::kPoll), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kBackOffNsMin);
  now_ns_ += kBackOffNsMin;
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 1u);
}

TEST_F(EngineTest, GivesASourceUpThatCannotBeAcceptedFromAndSaysSoOnce) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 2});
  Batch();
  Batch({Edge()});
  Batch({Accepted(-EINVAL), Accepted(-EINVAL)});
  EXPECT_EQ(Only(OpKind::kState).fd, kListenFd);
  EXPECT_EQ(Count(OpKind::kAccept), 0u);  // not before it is known
  Batch({State(0)});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 1u);
  EXPECT_EQ(engine_.events()[0].error, EINVAL);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(ops_.empty());
}

// --- Holding -------------------------------------------------------------------------------------

TEST_F(EngineTest, EndsAMultishotAcceptWhenItHoldsEnough) {
  AddSource({.hold = 2});
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 0u);
  Batch({Arrival(12)});
  EXPECT_EQ(Held(), 2u);
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  Batch({Arrival(13), End(-ECANCELED)});  // one that was on its way
  EXPECT_EQ(Held(), 3u);
  std::vector<int32_t> served;
  for (int i = 0; i < 4; ++i) {
    for (const int32_t fd : Claim(0)) served.push_back(fd);
    Batch({Knock()});
  }
  EXPECT_EQ(served, (std::vector<int32_t>{10, 11, 12, 13}));
  EXPECT_TRUE(engine_.armed(0));
}

TEST_F(EngineTest, KeepsRoomForWhatArrivesBetweenTheDecisionAndTheEnd) {
  AddSource({.hold = 1});
  AddWorker({.window = 1});
  Batch();
  int32_t fd = 10;
  for (int batch = 0; batch < 2; ++batch) {
    std::vector<Completion> full;
    for (int i = 0; i < 64; ++i) full.push_back(Arrival(fd++));
    engine_.OnBatch(full, now_ns_, ops_);
  }
  EXPECT_EQ(Held(), 127u);
  engine_.CheckAll(false);
}

// --- Ringing -------------------------------------------------------------------------------------

TEST_F(EngineTest, RingsAWorkerOnceForAllThatABatchOffers) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  EXPECT_EQ(Only(OpKind::kDoorbell).fd, 100);
  EXPECT_EQ(Only(OpKind::kDoorbell).tag, 200u);
  Batch({Arrival(13)});
  EXPECT_EQ(Count(OpKind::kDoorbell), 0u);  // it has not yet begun to look
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11, 12, 13}));
  Batch({Arrival(14)});
  EXPECT_EQ(Count(OpKind::kDoorbell), 1u);
}

TEST_F(EngineTest, RepeatsADoorbellThatFailed) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  const Op doorbell = Only(OpKind::kDoorbell);
  Batch({Failed(doorbell, EBADFD)});
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 1u);
  EXPECT_EQ(Count(OpKind::kDoorbell), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kDoorbellRetryNsMin);
  now_ns_ += kDoorbellRetryNsMin;
  Batch();
  EXPECT_EQ(Count(OpKind::kDoorbell), 1u);
  Batch({Failed(doorbell, EBADFD)});
  EXPECT_EQ(engine_.WaitMax(now_ns_), 2 * kDoorbellRetryNsMin);
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 1u);
}

TEST_F(EngineTest, ForgetsAFailedDoorbellOnceTheWorkerHasLooked) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  const Op doorbell = Only(OpKind::kDoorbell);
  Claim(0);
  Batch({Failed(doorbell, ENOMEM)});
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

// An offer taken by a claim that began before the doorbell failed says nothing about the offers
// that came after it.
TEST_F(EngineTest, RepeatsAFailedDoorbellAlthoughAnOlderClaimGoesOn) {
  AddSource();
  AddWorker({.window = 8});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  workers_[0]->inbox().Begin();
  ASSERT_TRUE(workers_[0]->TakeOne());
  Batch({Arrival(12)});
  const Op doorbell = Only(OpKind::kDoorbell);
  Batch({Failed(doorbell, ENOMEM)});
  ASSERT_TRUE(workers_[0]->TakeOne());
  ASSERT_FALSE(workers_[0]->TakeOne());
  now_ns_ += kDoorbellRetryNsMin;
  Batch();
  EXPECT_EQ(Count(OpKind::kDoorbell), 1u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{12});
}

TEST_F(EngineTest, RingsAgainAWorkerThatStoppedEarlyAndDidNotComeBack) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11)});
  std::vector<int32_t> fds;
  workers_[0]->Claim(hunger_, &fds, 1);
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(Count(OpKind::kDoorbell), 1u);
}

// --- Recalling -----------------------------------------------------------------------------------

class RecallTest : public EngineTest {
 protected:
  // Two workers with a window of 4; the first has been offered everything and does not move.
  void OfferToTheFirst(std::initializer_list<int32_t> fds, uint32_t source = 0) {
    engine_.Leave(source, 1);
    Batch();
    for (const int32_t fd : fds) Batch({Arrival(fd, source)});
    engine_.Join(source, 1);
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

// --- Stalls that nobody can relieve --------------------------------------------------------------

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

TEST_F(RecallTest, DealsTheOldestFirst) {
  OfferToTheFirst({10, 11, 12});
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(Claim(1), (std::vector<int32_t>{10, 11, 12}));
}

TEST_F(RecallTest, IsOffWhereTheSourceSaysSo) {
  const uint32_t source = AddSource({.recall = false});
  engine_.Join(source, 0);
  Batch();
  Batch({Arrival(10, source)});
  engine_.Join(source, 1);
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
  engine_.Join(fixed, 0);
  Batch();
  Batch({Arrival(10, fixed)});
  OfferToTheFirst({11});
  engine_.Leave(0, 1);
  engine_.Join(fixed, 1);  // it has credit, for the other source only
  ASSERT_EQ(AddWorker({.window = 1}), 2u);
  engine_.Leave(fixed, 2);
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
  engine_.Leave(0, 0);
  engine_.Leave(0, 1);
  Batch();
  Batch({Arrival(10), Arrival(11)});
  workers_[slow]->inbox().Begin();
  ASSERT_TRUE(workers_[slow]->TakeOne());
  for (int i = 0; i < 2; ++i) {
    engine_.Leave(0, slow);
    engine_.Join(0, slow);
    Batch(i == 0 ? std::initializer_list<Completion>{Arrival(12)}
                 : std::initializer_list<Completion>{});
  }
  ASSERT_EQ(Unclaimed(slow), 2u);
  std::vector<int32_t> fds;
  ASSERT_TRUE(workers_[slow]->TakeOne(&fds));
  ASSERT_EQ(fds, std::vector<int32_t>{12});
  engine_.Join(0, 0);
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
  engine_.Leave(0, 1);
  now_ns_ += kRecallAfter;
  for (int i = 0; i < 6; ++i) {
    Batch();
    now_ns_ += engine_.WaitMax(now_ns_);
  }
  Batch({Arrival(11)});
  EXPECT_LE(engine_.WaitMax(now_ns_), kRecallAfter);
}

// --- Leaving -------------------------------------------------------------------------------------

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
  engine_.Join(other, 0);
  Batch();
  Batch({Arrival(20, other)});
  engine_.Leave(0, 0);
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

// --- Handing over completions --------------------------------------------------------------------

class SendingEngineTest : public EngineTest {
 protected:
  // The descriptors that were sent to `worker` in the last batch.
  std::vector<int32_t> Sent(uint32_t worker) const {
    std::vector<int32_t> fds;
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kSend && op.fd == 100 + static_cast<int32_t>(worker)) {
        fds.push_back(op.sent);
      }
    }
    return fds;
  }
  std::vector<Op> Sends() const {
    std::vector<Op> sends;
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kSend) sends.push_back(op);
    }
    return sends;
  }
  // The worker says that it took so many. Returns whether it knocks.
  bool Take(uint32_t worker, uint64_t count) {
    workers_[worker]->state().Release(workers_[worker]->tally().Take(count).places);
    return hunger_.HearKnock();
  }
};

TEST_F(SendingEngineTest, SendsEachArrivalUnderTheTokenOfItsSource) {
  AddSource();
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10, 0), Arrival(11, 1)});
  ASSERT_EQ(Sends().size(), 2u);
  EXPECT_EQ(Sends()[0].sent, 10);
  EXPECT_EQ(Sends()[0].tag, Token(0, 0));
  EXPECT_EQ(Sends()[1].sent, 11);
  EXPECT_EQ(Sends()[1].tag, Token(1, 0));
  EXPECT_EQ(Count(OpKind::kDoorbell), 0u);
  EXPECT_EQ(engine_.ledger().worker(0).claimed, 2u);
  EXPECT_EQ(engine_.Unclaimed(0), 2u);
  EXPECT_EQ(engine_.open(0), 2u);
  EXPECT_EQ(engine_.Outstanding(), 2u);  // not yet known to have been received
  Batch();
  EXPECT_EQ(engine_.Outstanding(), 0u);
}

TEST_F(SendingEngineTest, SendsNoMoreThanTheWindowUntilTheWorkerTakes) {
  AddSource();
  AddWorker({.window = 2, .completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12), Arrival(13)});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{10, 11}));
  EXPECT_EQ(Held(), 2u);
  EXPECT_TRUE(Take(0, 1));
  Batch({Knock()});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{12}));
  EXPECT_TRUE(Take(0, 2));
  Batch({Knock()});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{13}));
  EXPECT_FALSE(Take(0, 1));
}

TEST_F(SendingEngineTest, TakesCreditThatIsMadeWhileItRaisesTheFlag) {
  AddSource();
  AddWorker({.window = 1, .completions = true});
  Batch();
  Batch({Arrival(10)});
  EXPECT_FALSE(Take(0, 1));  // nobody is hungry yet
  Batch({Arrival(11)});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{11}));
}

TEST_F(SendingEngineTest, DealsAgainInOrderWhatCouldNotBeSent) {
  AddSource({}, RoundRobin());
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  const std::vector<Op> sends = Sends();
  ASSERT_EQ(sends.size(), 2u);
  AddWorker({.completions = true});
  Batch({Failed(sends[0], EBADF), Failed(sends[1], EBADF)});
  EXPECT_EQ(Sent(1), (std::vector<int32_t>{10, 11}));
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 1u);
  EXPECT_EQ(engine_.ledger().worker(0).claimed, 0u);
  EXPECT_EQ(engine_.ledger().worker(0).recalled, 2u);
  EXPECT_EQ(engine_.open(0), 0u);
  EXPECT_EQ(engine_.Unclaimed(0), 0u);
  EXPECT_EQ(engine_.ledger().worker(1).claimed, 2u);
}

TEST_F(SendingEngineTest, TriesARingThatCannotBeReachedAgainAfterAPause) {
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10)});
  Batch({Failed(Sends()[0], ENOMEM)});
  EXPECT_TRUE(Sends().empty());
  EXPECT_EQ(Held(), 1u);
  const int64_t pause_ns = engine_.WaitMax(now_ns_);
  EXPECT_EQ(pause_ns, kDoorbellRetryNsMin);
  now_ns_ += pause_ns;
  Batch();
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{10}));
  Batch({Failed(Sends()[0], ENOMEM)});
  EXPECT_EQ(engine_.WaitMax(now_ns_), 2 * kDoorbellRetryNsMin);
  now_ns_ += 2 * kDoorbellRetryNsMin;
  Batch();
  Batch();
  Take(0, 1);
  Batch({Knock(), Arrival(11)});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{11}));
  Batch({Failed(Sends()[0], ENOMEM)});
  EXPECT_EQ(engine_.WaitMax(now_ns_), kDoorbellRetryNsMin);  // it had been reached meanwhile
}

// Both happen in one batch: the ring may be tried again, and an offer of somebody else is overdue.
TEST_F(SendingEngineTest, ARingThatIsTriedAgainTakesWhatIsOverdueFirst) {
  AddSource({}, RoundRobin());
  AddWorker({.window = 1});
  AddWorker({.window = 2, .completions = true});
  Batch();
  now_ns_ += 1;
  Batch({Arrival(10), Arrival(11)});
  now_ns_ += kRecallAfter - kDoorbellRetryNsMin;
  Batch({Failed(Sends()[0], ENOMEM), Arrival(12)});
  EXPECT_TRUE(Sends().empty());
  now_ns_ += kDoorbellRetryNsMin;
  Batch();
  EXPECT_EQ(Sent(1), (std::vector<int32_t>{10, 11}));
}

TEST_F(SendingEngineTest, KeepsWhatWasSentUntilEverythingIsReported) {
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10)});
  const Op send = Sends()[0];
  Batch({Arrival(11)}, /*all_reported=*/false);
  Batch({Failed(send, EBADF)});  // late, and still known
  EXPECT_EQ(Held(), 1u);
  EXPECT_EQ(engine_.ledger().source(0).claimed, 1u);
}

// Only the next turn can make room for more: the worker has taken everything and will not knock.
TEST_F(SendingEngineTest, AsksTheRingAgainWhenTooMuchIsNotReported) {
  AddSource();
  AddWorker({.window = 1, .completions = true});
  Batch();
  for (const int32_t fd : {10, 11}) {
    Batch({Arrival(fd)}, /*all_reported=*/false);
    EXPECT_EQ(Sent(0), (std::vector<int32_t>{fd}));
    Take(0, 1);
  }
  Batch({Arrival(12)}, /*all_reported=*/false);
  EXPECT_TRUE(Sends().empty());
  EXPECT_EQ(engine_.WaitMax(now_ns_), 0);
  Batch();
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{12}));
  EXPECT_EQ(engine_.WaitMax(now_ns_), kRecallAfter);
}

TEST_F(SendingEngineTest, DealsAgainWhatCouldNotBeSentToAWorkerThatHasLeft) {
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10)});
  const Op send = Sends()[0];
  engine_.RemoveWorker(0);
  EXPECT_EQ(AddWorker({.completions = true}), 0u);  // the index is used again
  Batch({Failed(send, EBADF)});
  ASSERT_EQ(Sends().size(), 1u);
  EXPECT_EQ(Sends()[0].sent, 10);
  EXPECT_EQ(engine_.ledger().worker(0).assigned, 1u);
  EXPECT_EQ(engine_.ledger().worker(0).recalled, 0u);
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 0u);
}

TEST_F(SendingEngineTest, NeverRecallsWhatItHasSent) {
  AddSource();
  AddWorker({.window = 1, .completions = true});
  AddWorker({.window = 1, .completions = true});
  Batch();
  Batch({Arrival(10)});
  now_ns_ += 100 * kRecallAfter;
  Batch();
  EXPECT_TRUE(ops_.empty());
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(SendingEngineTest, SendsNothingMoreToAWorkerThatTakesNothing) {
  AddSource({}, RoundRobin());
  AddWorker({.completions = true});
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{10}));
  EXPECT_EQ(Sent(1), (std::vector<int32_t>{11}));
  now_ns_ += kRecallAfter;
  Take(1, 1);
  Batch({Arrival(12), Arrival(13), Arrival(14)});
  EXPECT_EQ(Sent(1), (std::vector<int32_t>{12, 13, 14}));
  EXPECT_EQ(CountEvents(EventKind::kWorkerStalled), 1u);
  EXPECT_EQ(engine_.stalls(0), 1u);
  EXPECT_EQ(engine_.window(0), 2u);
  EXPECT_EQ(engine_.OldestUnclaimedNs(0), kRecallAfter);
  Take(0, 1);
  Batch({Arrival(15)});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{15}));  // it is owed a turn, and moves again
  EXPECT_EQ(CountEvents(EventKind::kWorkerMoves), 1u);
}

// The failure is told so late that the worker seems to have taken nothing for long. It has nothing
// to take, so nothing that it does could end that.
TEST_F(SendingEngineTest, DoesNotWaitForMotionOfAWorkerThatHasNothingToTake) {
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10)});
  const Op send = Sends()[0];
  now_ns_ += kRecallAfter;
  Batch({}, /*all_reported=*/false);
  EXPECT_EQ(CountEvents(EventKind::kWorkerStalled), 1u);
  Batch({Failed(send, ENOMEM)});
  now_ns_ += engine_.WaitMax(now_ns_);
  Batch();
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{10}));
}

TEST_F(SendingEngineTest, GivesItsWindowBackToAWorkerThatTakesPromptly) {
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10)});
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(engine_.window(0), 2u);
  Take(0, 1);
  for (int32_t fd = 11; engine_.window(0) < 4 && fd < 30; ++fd) {
    Batch({Arrival(fd)});
    Take(0, 1);
  }
  EXPECT_EQ(engine_.window(0), 4u);
}

TEST_F(SendingEngineTest, BelievesNoWorkerThatTookMoreThanItGot) {
  AddSource();
  AddWorker({.window = 1, .completions = true});
  Batch();
  EXPECT_EQ(workers_[0]->tally().Take(5).count, 0u);
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Sends().size(), 1u);
  EXPECT_EQ(engine_.Unclaimed(0), 1u);
  EXPECT_EQ(workers_[0]->tally().Take(5).count, 1u);
  engine_.CheckAll(false);
}

// The place was given back by the worker, so the failure must not give it back again.
TEST_F(SendingEngineTest, CountsRightWhenAWorkerTookWhatCouldNotBeSent) {
  AddSource();
  AddWorker({.window = 1, .capacity = 1, .completions = true});
  Batch();
  Batch({Arrival(10)});
  const Op send = Sends()[0];
  EXPECT_EQ(engine_.open(0), 1u);
  Take(0, 1);  // of a completion that will never be in its ring
  Batch({Failed(send, ENOMEM)});
  EXPECT_EQ(engine_.open(0), 0u);
  EXPECT_EQ(engine_.Unclaimed(0), 0u);
  now_ns_ += engine_.WaitMax(now_ns_);
  Batch();
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{10}));
  EXPECT_EQ(engine_.open(0), 1u);
  Take(0, 1);
  Batch({Arrival(11)});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{11}));
}

TEST_F(SendingEngineTest, ALeaseKeepsThePlaceOfWhatCouldNotBeSent) {
  AddSource();
  AddWorker({.window = 2, .completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  const Op send = Sends()[1];
  Take(0, 1);                                  // the first one
  EXPECT_TRUE(workers_[0]->tally().Lease());   // of the first one, too late for its own place
  EXPECT_FALSE(workers_[0]->tally().Lease());  // there is no other
  Batch({Failed(send, ENOMEM)});
  EXPECT_EQ(engine_.open(0), 1u);
  EXPECT_EQ(workers_[0]->tally().Untaken(), 0u);
}

TEST_F(SendingEngineTest, ASendThatFailsAfterTheDeadlineIsRefused) {
  AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10)});
  const Op send = Sends()[0];
  engine_.StopIntake();
  EXPECT_EQ(engine_.WaitMax(now_ns_), 0);  // it is known after the next turn
  engine_.RefuseAll();
  Batch({Failed(send, EBADF), End(-ECANCELED)});
  EXPECT_EQ(Only(OpKind::kClose).fd, 10);
  EXPECT_EQ(engine_.Outstanding(), 0u);
}

TEST_F(SendingEngineTest, MixesWithWorkersThatHaveAnInbox) {
  AddSource({}, RoundRobin());
  AddWorker();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  EXPECT_EQ(Sent(1), (std::vector<int32_t>{11}));
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 12}));
  // What a stuck worker does not claim may be handed over.
  Batch({Arrival(13), Arrival(14)});
  EXPECT_EQ(Sent(1), (std::vector<int32_t>{13}));
  now_ns_ += kRecallAfter;
  Take(1, 2);
  Batch();
  EXPECT_EQ(Sent(1), (std::vector<int32_t>{14}));
}

TEST_F(SendingEngineTest, NeverAllocatesWhileItSends) {
  AddSource();
  for (int i = 0; i < 4; ++i) AddWorker({.window = 8, .completions = true});
  Batch();
  std::vector<Completion> arrivals;
  int32_t fd = 10;
  for (int round = 0; round < 50; ++round) {
    arrivals.clear();
    for (int i = 0; i < 20; ++i) arrivals.push_back(Arrival(fd++));
    const size_t before = testing::AllocationCount();
    engine_.OnBatch(arrivals, now_ns_, ops_, round % 3 == 0);
    const size_t after = testing::AllocationCount();
    EXPECT_EQ(after, before);
    EXPECT_FALSE(ops_.empty() && round % 3 == 0);
    for (uint32_t worker = 0; worker < 4; ++worker) {
      if (engine_.Unclaimed(worker) > 0) Take(worker, engine_.Unclaimed(worker));
    }
    if (Held() > 40) break;  // held back because nothing was reported for long
  }
}

// --- Changes while running -----------------------------------------------------------------------

TEST_F(EngineTest, TakesASourceInNoMoreThatIsRemovedAndDealsWhatItHasAccepted) {
  AddSource();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.RemoveSource(0);
  EXPECT_FALSE(engine_.IntakeEnded(0));
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  Batch({Arrival(12), End(-ECANCELED)});
  EXPECT_TRUE(engine_.IntakeEnded(0));
  EXPECT_EQ(Held(), 2u);
  for (const int32_t fd : {10, 11, 12}) {
    EXPECT_EQ(Claim(0), (std::vector<int32_t>{fd}));
    Batch({Knock()});
    EXPECT_EQ(Count(OpKind::kAcceptEach), 0u);
  }
}

TEST_F(EngineTest, RefusesWhatARemovedSourceHoldsWhenTheLastWorkerHasLeft) {
  AddSource();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.RemoveSource(0);
  Batch();
  engine_.RemoveWorker(0);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kClose), 2u);
  EXPECT_EQ(engine_.ledger().source(0).refused, 2u);
}

TEST_F(EngineTest, UsesTheIndexOfARemovedSourceAgainOnceNothingOfItIsLeft) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  engine_.RemoveSource(0);
  EXPECT_EQ(engine_.NextSource(), 1u);  // armed
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(engine_.NextSource(), 1u);  // an offer
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
  workers_[0]->state().serving = 1;  // as if that claim went on
  Batch();
  EXPECT_EQ(engine_.NextSource(), 1u);  // the worker may be looking up its token
  workers_[0]->state().serving = 0;
  EXPECT_EQ(engine_.NextSource(), 0u);
  EXPECT_EQ(AddSource(), 0u);
  EXPECT_EQ(engine_.ledger().source(0).arrivals, 0u);
  EXPECT_EQ(engine_.departed_sources().arrivals, 1u);
  EXPECT_EQ(engine_.departed_sources().claimed, 1u);
  const uint16_t generation = armed_[0].generation;
  engine_.Join(0, 0);
  Batch();
  EXPECT_NE(Only(OpKind::kAcceptEach).key.generation, generation);
}

TEST_F(EngineTest, AddsASourceWhereItWasToldToThoughALowerIndexIsFreeByThen) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  engine_.RemoveSource(0);
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
  workers_[0]->state().serving = 1;  // as if that claim went on
  Batch();
  const uint32_t index = engine_.NextSource();
  EXPECT_EQ(index, 1u);
  workers_[0]->state().serving = 0;  // its claim ends just now
  EXPECT_EQ(engine_.AddSource(index, {.fd = 7, .policy = LeastLoaded()}), 1u);
  EXPECT_TRUE(engine_.source_removed(0));
  EXPECT_FALSE(engine_.source_removed(1));
  EXPECT_EQ(engine_.NextSource(), 0u);
}

// A policy that needs a fact.
class CpuPolicy final : public Policy {
 public:
  std::string name() const override { return "cpu"; }
  FactsNeeded facts() const override { return {.incoming_cpu = true}; }
  void Prepare(uint32_t worker_slots) override { prepared_ = worker_slots; }
  size_t Pick(const ringmaster::Arrival&, const View& view) override {
    EXPECT_GE(prepared_, view.joined.size());
    return view.candidates.size() - 1;
  }

 private:
  uint32_t prepared_ = 0;
};

TEST_F(EngineTest, SwitchesThePolicyOfASourceFromTheNextArrivalOn) {
  AddSource({.multishot_accept = false}, Exclusive());
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  EXPECT_EQ(ops_[0].key.facts, 0);
  const std::unique_ptr<Policy> old = engine_.SetPolicy(0, std::make_unique<CpuPolicy>());
  EXPECT_EQ(old->name(), "exclusive");
  Batch({Accepted(10), Accepted(-EAGAIN)});  // asked for before
  EXPECT_EQ(Claim(1), (std::vector<int32_t>{10}));
  Batch({Edge()});
  EXPECT_EQ(ops_[0].key.facts, kFactIncomingCpu);
}

TEST_F(EngineTest, ArmsAnewWhenTheNewPolicyNeedsOtherFacts) {
  AddSource({.multishot_accept = true}, RoundRobin());
  AddWorker();
  Batch();
  const OpKey first = armed_[0];
  EXPECT_EQ(first.facts, 0);
  engine_.SetPolicy(0, LeastLoaded());
  Batch();
  EXPECT_TRUE(ops_.empty());
  engine_.SetPolicy(0, std::make_unique<CpuPolicy>());
  Batch();
  // What is ended is what was armed.
  EXPECT_EQ(Only(OpKind::kAcceptEnd).key.facts, first.facts);
  EXPECT_EQ(Only(OpKind::kAcceptEnd).key.generation, first.generation);
  Batch({Arrival(10), {.key = first, .result = -ECANCELED}});
  EXPECT_EQ(Only(OpKind::kAcceptEach).key.facts, kFactIncomingCpu);
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
}

TEST_F(EngineTest, ASmallerWindowHoldsAfterWhatWasOfferedIsClaimed) {
  AddSource();
  AddWorker({.window = 4});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  EXPECT_EQ(Unclaimed(0), 3u);
  engine_.SetWindow(0, 1);
  Batch({Arrival(13), Arrival(14)});
  EXPECT_EQ(Held(), 2u);
  EXPECT_EQ(Claim(0).size(), 3u);
  Batch({Knock()});
  EXPECT_EQ(Unclaimed(0), 1u);
  engine_.SetWindow(0, 4);
  Batch();
  EXPECT_EQ(Unclaimed(0), 2u);
}

TEST_F(EngineTest, ASmallerCapacityHoldsAfterConnectionsHaveEnded) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.SetCapacity(0, 1);
  EXPECT_EQ(Claim(0).size(), 2u);
  Batch({Arrival(12)});
  EXPECT_EQ(Held(), 1u);
  workers_[0]->Release(hunger_);
  Batch({Knock()});
  EXPECT_EQ(Held(), 1u);
  workers_[0]->Release(hunger_);
  Batch({Knock()});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{12}));
  engine_.SetCapacity(0, 2);
  Batch({Arrival(13)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{13}));
}

TEST_F(EngineTest, CountsHowOftenASourceIsArmedPausedAndInError) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  EXPECT_EQ(engine_.intake(0).arms, 1u);
  engine_.Pause(0);
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(engine_.intake(0).pauses, 1u);
  engine_.Resume(0);
  Batch();
  EXPECT_EQ(engine_.intake(0).arms, 2u);
  Batch({Edge()});
  Batch({Accepted(-ECONNABORTED), Accepted(-EAGAIN)});
  EXPECT_EQ(engine_.intake(0).errors, 1u);
  Batch({Edge()});
  Batch({Accepted(-EMFILE), Accepted(-EMFILE)});
  EXPECT_EQ(engine_.intake(0).errors, 3u);
  EXPECT_EQ(engine_.intake(0).pauses, 2u);
}

TEST_F(EngineTest, TellsHowOldTheOldestUnclaimedOfferIs) {
  AddSource();
  AddWorker();
  Batch();
  EXPECT_EQ(engine_.OldestUnclaimedNs(0), 0);
  Batch({Arrival(10)});
  now_ns_ += 1000;
  Batch({Arrival(11)});
  now_ns_ += 1000;
  Batch();
  EXPECT_EQ(engine_.OldestUnclaimedNs(0), 2000);
  Claim(0);
  Batch();
  EXPECT_EQ(engine_.OldestUnclaimedNs(0), 0);
}

// --- Ending --------------------------------------------------------------------------------------

TEST_F(EngineTest, DealsWhatIsHeldAfterTheIntakeWasStopped) {
  AddSource();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.StopIntake();
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  EXPECT_FALSE(engine_.IntakeEnded());
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(engine_.IntakeEnded());
  EXPECT_EQ(engine_.Outstanding(), 2u);
  EXPECT_TRUE(workers_[0]->Claim(hunger_));  // every claim wakes the master now
  Batch({Knock()});
  EXPECT_TRUE(workers_[0]->Claim(hunger_));
  Batch({Knock()});
  EXPECT_EQ(engine_.Outstanding(), 0u);
}

TEST_F(EngineTest, ClosesWhatIsHeldAndOfferedAtTheDeadlineABoundedNumberAtATime) {
  AddSource({.hold = 200});
  AddWorker({.window = 4});
  Batch();
  int32_t fd = 1000;
  std::vector<Completion> burst;
  for (int i = 0; i < 100; ++i) burst.push_back(Arrival(fd++));
  engine_.OnBatch(burst, now_ns_, ops_);
  engine_.StopIntake();
  engine_.RefuseAll();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kClose), kRefusalsPerBatchMax);
  EXPECT_EQ(engine_.WaitMax(now_ns_), 0);
  Batch();
  EXPECT_EQ(Count(OpKind::kClose), 100 - kRefusalsPerBatchMax);
  EXPECT_EQ(engine_.Outstanding(), 0u);
  EXPECT_EQ(engine_.ledger().source(0).refused, 100u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{});
  EXPECT_EQ(workers_[0]->state().open, 0u);
}

TEST_F(EngineTest, TellsEveryWorkerThatTheIntakeHasStopped) {
  AddSource();
  for (int i = 0; i < 3; ++i) AddWorker();
  AddWorker({.completions = true});  // nothing but arrivals comes into its ring
  Batch();
  Batch({Arrival(10)});
  ASSERT_EQ(Only(OpKind::kDoorbell).key.index, 0u);
  engine_.StopIntake();
  Batch();
  // The first one's doorbell is on its way, and tells it that, too.
  ASSERT_EQ(Count(OpKind::kDoorbell), 2u);
  EXPECT_TRUE(workers_[0]->inbox().Rung());
  for (uint32_t worker = 0; worker < 3; ++worker) Claim(worker);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kDoorbell), 0u);
  engine_.TellWorkers();
  Batch();
  EXPECT_EQ(Count(OpKind::kDoorbell), 3u);
}

TEST_F(EngineTest, TellsAWorkerLaterWhoseDoorbellOfTheEndFails) {
  AddSource();
  AddWorker();
  Batch();
  engine_.StopIntake();
  Batch();
  Batch({Failed(Only(OpKind::kDoorbell), EBADFD), End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kDoorbell), 0u);
  now_ns_ += engine_.WaitMax(now_ns_);
  Batch();
  EXPECT_EQ(Count(OpKind::kDoorbell), 1u);
  Claim(0);
  Batch();
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

// --- Descriptors that others have changed
// ----------------------------------------------------------

TEST_F(EngineTest, GivesASourceUpWhoseNumberIsAnotherFilesByNow) {
  for (const TestSourceOptions& options :
       {TestSourceOptions{.multishot_accept = false}, TestSourceOptions{},
        TestSourceOptions{.readiness = true, .countable = true}}) {
    AddSource(options);
  }
  AddWorker();
  Batch();
  // When it is armed, when it is accepted from, and when what waits there is counted.
  Batch({End(-kOtherFile, 0), End(-kOtherFile, 1), Edge(2)});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 2u);
  Batch({{.key = Only(OpKind::kCount).key, .result = -kOtherFile}});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 3u);
  EXPECT_EQ(engine_.events().back().error, kOtherFile);
  EXPECT_EQ(engine_.ledger().source(2).arrivals, 0u);
  engine_.ClearEvents();
  const uint32_t accepted_from = AddSource({.multishot_accept = false});
  engine_.Join(accepted_from, 0);
  Batch();
  Batch({Edge(accepted_from)});
  Batch({Accepted(-kOtherFile, accepted_from), Accepted(-kOtherFile, accepted_from)});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 1u);
  Batch();
  EXPECT_TRUE(ops_.empty());
}

TEST_F(EngineTest, PausesWhileASourceBlocksAndSaysSoOnce) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  Batch({Edge()});
  for (int i = 0; i < 10; ++i) {
    Batch({Accepted(-kWouldWait), Accepted(-kWouldWait)});
    EXPECT_EQ(Count(OpKind::kAccept), 0u);
    const int64_t wait_ns = engine_.WaitMax(now_ns_);
    EXPECT_GT(wait_ns, 0);
    EXPECT_LE(wait_ns, kBackOffNsMax);
    now_ns_ += wait_ns;
    Batch();
    EXPECT_EQ(Count(OpKind::kAccept), 2u);
  }
  EXPECT_EQ(CountEvents(EventKind::kSourceBlocks), 1u);
  Batch({Accepted(10), Accepted(-EAGAIN)});
  EXPECT_EQ(Unclaimed(0), 1u);
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 0u);
}

// --- Dealing -------------------------------------------------------------------------------------

// A policy that keeps what it was shown.
class LookingPolicy final : public Policy {
 public:
  explicit LookingPolicy(std::vector<Candidate>* seen) : seen_(seen) {}
  std::string name() const override { return "looking"; }
  size_t Pick(const ringmaster::Arrival&, const View& view) override {
    seen_->assign(view.candidates.begin(), view.candidates.end());
    return 0;
  }

 private:
  std::vector<Candidate>* const seen_;
};

TEST_F(EngineTest, TellsThePolicyForHowLongAWorkerHasNotMoved) {
  std::vector<Candidate> seen;
  AddSource({}, std::make_unique<LookingPolicy>(&seen));
  AddWorker();
  AddWorker();
  Batch();
  now_ns_ += 50'000'000;
  Batch({Arrival(10)});
  EXPECT_EQ(seen[0].still_ns, 0);  // nothing waits for it
  now_ns_ += 1000;
  Batch({Arrival(11)});
  EXPECT_EQ(seen[0].still_ns, 1000);
  EXPECT_EQ(seen[1].still_ns, 0);
  now_ns_ += 1000;
  workers_[0]->inbox().Begin();
  EXPECT_TRUE(workers_[0]->TakeOne());
  now_ns_ += 1000;
  Batch({Arrival(12)});
  EXPECT_EQ(seen[0].still_ns, 0);  // as the master has just seen that it moves
  now_ns_ += 500;
  Batch({Arrival(13)});
  EXPECT_EQ(seen[0].still_ns, 500);
}

// A lease may end before its worker says that it has taken the connection.
TEST_F(EngineTest, ShowsThePolicyNoMoreUnclaimedThanOpen) {
  std::vector<Candidate> seen;
  AddSource({}, std::make_unique<LookingPolicy>(&seen));
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(seen[0].open, 1u);
  EXPECT_EQ(seen[0].unclaimed, 1u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(workers_[0]->tally().Lease());
    workers_[0]->Release(hunger_);
  }
  now_ns_ += 1000;
  Batch({Arrival(12)});
  EXPECT_EQ(seen[0].open, 0u);
  EXPECT_EQ(seen[0].unclaimed, 0u);
  EXPECT_EQ(seen[0].still_ns, 0);  // nothing waits for it
  workers_[0]->tally().Take(2);
  now_ns_ += 1000;
  Batch({Arrival(13)});
  EXPECT_EQ(seen[0].open, 1u);
  EXPECT_EQ(seen[0].unclaimed, 1u);
}

TEST_F(EngineTest, DealsARoundExactly) {
  AddSource({}, RoundRobin());
  for (int i = 0; i < 3; ++i) AddWorker({.window = 8});
  Batch();
  std::vector<size_t> claimed(3);
  int32_t fd = 10;
  for (int batch = 0; batch < 60; ++batch) {
    Batch({Arrival(fd), Arrival(fd + 1), Arrival(fd + 2), Arrival(fd + 3), Arrival(fd + 4)});
    fd += 5;
    for (uint32_t worker = 0; worker < 3; ++worker) claimed[worker] += Claim(worker).size();
  }
  EXPECT_EQ(claimed, (std::vector<size_t>{100, 100, 100}));
}

TEST_F(EngineTest, OffersToASlowWorkerOnlyWhenItIsNotAtWorkUnlessNobodyElseCanTakeIt) {
  AddSource({}, RoundRobin());
  AddWorker({.window = 8});
  AddWorker({.window = 2});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{11});
  now_ns_ += kRecallAfter;
  Batch();  // recalled from worker 0, whose window has not grown back yet
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  Claim(0);  // it moves
  Batch();
  EXPECT_EQ(engine_.window(0), 4u);

  workers_[0]->state().serving = 1;
  Batch({Arrival(12)});  // its turn, and it is owed one
  EXPECT_EQ(Unclaimed(0), 0u);
  EXPECT_EQ(Claim(1), std::vector<int32_t>{12});
  Batch({Arrival(13), Arrival(14), Arrival(15)});
  EXPECT_EQ(Unclaimed(1), 2u);
  EXPECT_EQ(Unclaimed(0), 1u);  // the window of worker 1 is full
  Claim(0);
  Claim(1);
  workers_[0]->state().serving = 0;
  Batch({Arrival(16)});
  EXPECT_EQ(Unclaimed(0), 1u);
  Claim(0);

  now_ns_ += kSlowMemory * kRecallAfter;  // long enough to be forgotten
  workers_[0]->state().serving = 1;
  Batch({Arrival(17)});
  EXPECT_EQ(Unclaimed(0), 1u);
}

TEST_F(EngineTest, OwesARecalledTurnBack) {
  AddSource({}, RoundRobin());
  for (int i = 0; i < 2; ++i) AddWorker({.window = 8});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  std::vector<size_t> claimed(2);
  claimed[1] += Claim(1).size();
  now_ns_ += kRecallAfter;
  Batch();  // the first worker's turn goes to the second
  claimed[1] += Claim(1).size();
  claimed[0] += Claim(0).size();
  Batch();
  EXPECT_EQ(claimed, (std::vector<size_t>{0, 2}));
  for (int32_t fd = 20; fd < 28; ++fd) {
    Batch({Arrival(fd)});
    for (uint32_t worker = 0; worker < 2; ++worker) claimed[worker] += Claim(worker).size();
  }
  EXPECT_EQ(claimed, (std::vector<size_t>{5, 5}));
}

TEST_F(EngineTest, TellsThePolicyWhoIsIdle) {
  AddSource({}, Exclusive(WakeOrder::kLifo));
  for (int i = 0; i < 2; ++i) AddWorker({.window = 8});
  Batch();
  Batch({Arrival(10)});
  const uint32_t first = Unclaimed(0) == 1 ? 0 : 1;
  now_ns_ += kRecallAfter / 2;  // long enough not to come together
  Batch({Arrival(11)});
  EXPECT_EQ(Unclaimed(1 - first), 1u);
}

// A host that has other work to do hands the operations of a batch over later, and may set up more
// before that.
TEST_F(EngineTest, WhatABatchAsksForStaysAsItIsWhileOthersAreAdded) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  const Op doorbell = Only(OpKind::kDoorbell);
  const Op* const at = ops_.data();
  for (int i = 0; i < 40; ++i) AddWorker({.window = 64, .completions = i % 2 == 0});
  for (int i = 0; i < 40; ++i) AddSource({.hold = 1000});
  EXPECT_EQ(ops_.data(), at);
  EXPECT_EQ(Only(OpKind::kDoorbell).fd, doorbell.fd);
  EXPECT_EQ(Only(OpKind::kDoorbell).tag, doorbell.tag);
}

// --- While nobody drives the master --------------------------------------------------------------

TEST_F(EngineTest, RestsUntilSomebodyDrivesItAgain) {
  AddSource();
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_TRUE(hunger_.HearKnock());
  engine_.Rest();
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  EXPECT_FALSE(engine_.AtRest());
  Claim(0);
  // What was on its way is kept, and nobody is told of it.
  Batch({Arrival(12), End(-ECANCELED), Edge(1), End(-ECANCELED, 1)});
  EXPECT_TRUE(ops_.empty());
  EXPECT_TRUE(engine_.AtRest());
  EXPECT_EQ(Held(), 2u);
  EXPECT_FALSE(hunger_.HearKnock());
  // Set-up goes on.
  AddSource();
  AddWorker({.window = 8});
  Batch();
  EXPECT_TRUE(ops_.empty());
  engine_.GoOn();
  Batch();
  EXPECT_EQ(Held(), 0u);
  EXPECT_EQ(Count(OpKind::kDoorbell), 2u);
  EXPECT_EQ(Count(OpKind::kAcceptEach), 2u);
  // The edge had come before it rested.
  EXPECT_EQ(Count(OpKind::kAccept), 2u);
}

// What is too old is taken back from a worker, who may have to be rung to see that it moves.
TEST_F(EngineTest, NothingGrowsTooOldWhileNobodyDrivesIt) {
  engine_.AddSource({.fd = kListenFd,
                     .intake = {.kind = IntakeKind::kAccept},
                     .hold = 8,
                     .age_max_ns = 1'000,
                     .policy = LeastLoaded()});
  AddWorker({.window = 4});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  workers_[0]->inbox().Begin();  // it has seen the doorbell, and is busy
  engine_.Rest();
  now_ns_ += 1'000;
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(ops_.empty());
  EXPECT_EQ(engine_.ledger().source(0).offered, 2u);
  engine_.GoOn();
  Batch();
  EXPECT_EQ(Count(OpKind::kClose), 2u);
  EXPECT_EQ(Count(OpKind::kDoorbell), 1u);
}

// The ring went with the thread that drove it.
TEST_F(EngineTest, ForgetsWhatWasUnderWayInARingThatIsOutOfReach) {
  Gate gate;
  gate.Limit(2);
  AddSource({.multishot_accept = false, .gate = &gate});
  AddSource({.readiness = true, .countable = true});
  AddWorker({.capacity = 2});
  AddWorker({.completions = true});
  Batch();
  Batch({Edge(0), Edge(1)});
  EXPECT_EQ(Count(OpKind::kAccept), 2u);
  EXPECT_EQ(Count(OpKind::kCount), 1u);
  EXPECT_TRUE(gate.Full());
  engine_.Rest();
  engine_.ForgetRing();
  Batch();
  EXPECT_TRUE(engine_.AtRest());
  EXPECT_EQ(gate.used(), 0u);
  EXPECT_EQ(engine_.open(0), 0u);
  engine_.GoOn();
  Batch();
  EXPECT_EQ(Count(OpKind::kWatch), 1u);
  EXPECT_EQ(Count(OpKind::kPoll), 2u);
  EXPECT_EQ(Count(OpKind::kAccept), 2u);
  EXPECT_EQ(Count(OpKind::kCount), 1u);
}

TEST_F(EngineTest, NeverAllocatesPerArrivalAfterSetUp) {
  AddSource();
  AddSource({.multishot_accept = false}, RoundRobin());
  for (int i = 0; i < 3; ++i) AddWorker({.window = 4});
  Batch();
  std::vector<Completion> completions;
  completions.reserve(64);
  int32_t fd = 10;
  const size_t before = testing::AllocationCount();
  for (int i = 0; i < 5000; ++i) {
    completions.clear();
    for (int arrival = 0; arrival < 5; ++arrival) completions.push_back(Arrival(fd++));
    completions.push_back(Edge(1));
    engine_.OnBatch(completions, now_ns_, ops_);
    const size_t accepts = Count(OpKind::kAccept);
    completions.clear();
    for (size_t accept = 0; accept < accepts; ++accept) completions.push_back(Accepted(fd++, 1));
    now_ns_ += kRecallAfter;  // so that recalls are among it
    engine_.OnBatch(completions, now_ns_, ops_);
    for (uint32_t worker = i % 3 == 0 ? 1 : 0; worker < 3; ++worker) {
      workers_[worker]->Claim(hunger_);
    }
    now_ns_ += engine_.WaitMax(now_ns_) == 0 ? 1 : 0;
  }
  EXPECT_EQ(testing::AllocationCount(), before);
  EXPECT_GT(engine_.ledger().worker(0).recalled, 0u);
}

// --- Policies that do what they must not ---------------------------------------------------------

// Answers and throws as the test says.
struct Mood {
  size_t position = 0;
  bool throws = false;
};
class MoodyPolicy final : public Policy {
 public:
  explicit MoodyPolicy(Mood* mood) : mood_(mood) {}
  std::string name() const override { return "moody"; }
  size_t Pick(const ringmaster::Arrival&, const View&) override {
    if (mood_->throws) throw std::runtime_error("not today");
    return mood_->position;
  }
  void OnRecall(uint32_t) override {
    if (mood_->throws) throw 1;
  }
  void OnLeave(uint32_t worker) override { OnRecall(worker); }

 private:
  Mood* const mood_;
};

TEST_F(EngineTest, APickBeyondTheCandidatesIsTakenForTheFirstAndReportedOnce) {
  Mood mood{.position = 2};
  AddSource({}, std::make_unique<MoodyPolicy>(&mood));
  AddWorker();
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 1u);
  EXPECT_EQ(engine_.policy_fault(0), "policy moody picked position 2 of 2 candidates");
  EXPECT_EQ(engine_.intake(0).policy_faults, 2u);
  engine_.ClearEvents();
  Batch({Arrival(12)});
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 0u);
  // Another one is another one.
  engine_.SetPolicy(0, std::make_unique<MoodyPolicy>(&mood));
  EXPECT_EQ(engine_.policy_fault(0), "");
  Batch({Arrival(13)});
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 1u);
}

TEST_F(EngineTest, WhatAPolicyThrowsCostsNoArrival) {
  Mood mood{.throws = true};
  AddSource({}, std::make_unique<MoodyPolicy>(&mood));
  AddWorker();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  EXPECT_EQ(engine_.policy_fault(0), "policy moody threw \"not today\" in Pick");
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 1u);
  now_ns_ += kRecallAfter;
  Batch();  // a recall, of which it is told, and another pick
  engine_.Leave(0, 1);
  Batch();
  EXPECT_EQ(Claim(0).size(), 0u);  // after the recall it is to move first
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  EXPECT_EQ(engine_.intake(0).policy_faults, 5u);
}

}  // namespace
}  // namespace ringmaster::core
