// An engine as a whole: how it ends, how it rests, and that it never allocates. Method: as in
// engine_fixture.h.

#include "core/engine.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "back_off_times.h"
#include "core/inbox.h"
#include "core/op.h"
#include "core/port_state.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

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
  engine_.Join(SourceIndex(accepted_from), 0);
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
  Pauses pauses;
  for (int i = 0; i < 10; ++i) {
    Batch({Accepted(-kWouldWait), Accepted(-kWouldWait)});
    EXPECT_EQ(Count(OpKind::kAccept), 0u);
    const int64_t wait_ns = engine_.WaitMax(now_ns_);
    EXPECT_EQ(wait_ns, pauses.Next());
    now_ns_ += wait_ns;
    Batch();
    EXPECT_EQ(Count(OpKind::kAccept), 2u);
  }
  EXPECT_EQ(CountEvents(EventKind::kSourceBlocks), 1u);
  Batch({Accepted(10), Accepted(-EAGAIN)});
  EXPECT_EQ(Unclaimed(0), 1u);
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 0u);
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

}  // namespace
}  // namespace ringmaster::core
