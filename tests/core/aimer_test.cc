// Which sources are aimed, and what the master does for them (core/aimer.h). Method: the test is
// the kernel and the workers; each worker has a sight, so its index is that of its permits.

#include "core/aimer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <set>
#include <utility>

#include "core/aim.h"
#include "core/desk.h"
#include "engine_fixture.h"
#include "fake_sights.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

class AimerTest : public EngineTest {
 protected:
  void AddAimed(TestSourceOptions options = {}, std::unique_ptr<Policy> policy = RoundRobin()) {
    options.multishot_accept = false;
    options.desk = &desk_;
    options.sights = &sights_;
    AddSource(options, std::move(policy));
  }
  void AddWorkers(uint32_t count, uint32_t capacity = UINT32_MAX) {
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t index = AddWorker({.capacity = capacity, .sight = true});
      workers_[index]->state().SayWaiting();
    }
  }

  Permits& PermitsOf(uint32_t worker) { return permits_[worker]->of_source[0]; }
  uint32_t Claimable() {
    uint32_t claimable = 0;
    for (const auto& of : permits_) claimable += of->of_source[0].Read().claimable;
    return claimable;
  }
  // The worker accepts by a permit. Its connection stays open.
  void Accept(uint32_t worker) {
    ASSERT_TRUE(PermitsOf(worker).Claim());
    workers_[worker]->state().ForceReserve();
    --sights_.waiting;
    PermitsOf(worker).CountAccepted();
    PermitsOf(worker).Finish();
    desk_.Visit();
  }
  // The next batch, when it is due.
  void SleepAndBatch() {
    const int64_t wait_ns = engine_.WaitMax(now_ns_);
    ASSERT_NE(wait_ns, kWaitForever);
    now_ns_ += wait_ns;
    Batch();
  }

  FakeSights sights_;
  Desk desk_;
};

TEST_F(AimerTest, ASourceIsAimedWhereAllWorkersHaveSights) {
  AddAimed();
  AddWorkers(2);
  Batch();
  EXPECT_TRUE(engine_.aimed(0));
  EXPECT_EQ(Count(OpKind::kPoll), 0U);
  EXPECT_EQ(sights_.shown, (std::set<int>{0}));
  sights_.waiting = 1;
  Accept(0);
  EXPECT_EQ(sights_.shown, (std::set<int>{1}));
  EXPECT_EQ(engine_.ByPermitOf(0), 1U);
  EXPECT_EQ(engine_.ByPermit(0), 1U);
}

TEST_F(AimerTest, WithoutHintsItIsDealt) {
  AddAimed();
  AddWorkers(1);
  AddWorker({.sight = true});
  Batch();
  EXPECT_FALSE(engine_.aimed(0));
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  workers_[1]->state().SayWaiting();
  Batch();
  EXPECT_TRUE(engine_.aimed(0));
}

TEST_F(AimerTest, AWorkerWithoutASightIsDealtTo) {
  AddAimed();
  AddWorkers(2);
  Batch();
  AddWorker();
  EXPECT_FALSE(engine_.aimed(0));
  EXPECT_EQ(Claimable(), 0U);
  Batch();
  EXPECT_FALSE(engine_.aimed(0));
  EXPECT_EQ(Count(OpKind::kPoll), 1U);
  EXPECT_EQ(Count(OpKind::kAccept), 2U) << "something may have come meanwhile";
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  engine_.RemoveWorker(2);
  Batch();
  EXPECT_TRUE(engine_.aimed(0));
  EXPECT_EQ(Count(OpKind::kPollEnd), 1U);
}

TEST_F(AimerTest, PoliciesThatNeedFactsOrTheMastersThreadAreDealt) {
  class Own final : public Policy {
    std::string name() const override { return "own"; }
    size_t Pick(const ringmaster::Arrival&, const View&) override { return 0; }
  };
  AddAimed({}, AffinityHash());
  AddWorkers(1);
  Batch();
  EXPECT_FALSE(engine_.aimed(0));
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  engine_.SetPolicy(0, std::make_unique<Own>());
  Batch();
  EXPECT_FALSE(engine_.aimed(0));
  // Whoever has the largest weight waits least, and would not get its share.
  engine_.SetPolicy(0, WeightedRoundRobin({.weights = {4, 1}}).value());
  Batch();
  EXPECT_FALSE(engine_.aimed(0));
  engine_.SetPolicy(0, LeastLoaded());
  Batch();
  EXPECT_TRUE(engine_.aimed(0));
  engine_.SetPolicy(0, AffinityCpu());
  EXPECT_FALSE(engine_.aimed(0));
}

TEST_F(AimerTest, APausedSourceHasNoPermits) {
  AddAimed();
  AddWorkers(2);
  Batch();
  engine_.Pause(0);
  Batch();
  EXPECT_FALSE(engine_.aimed(0));
  EXPECT_EQ(Claimable(), 0U);
  EXPECT_TRUE(sights_.shown.empty());
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  engine_.Resume(0);
  Batch();
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  EXPECT_TRUE(engine_.aimed(0));
}

TEST_F(AimerTest, WhereNobodyHasAPlaceTheMasterWaitsForOne) {
  AddAimed();
  AddWorkers(2, /*capacity=*/1);
  Batch();
  sights_.waiting = 3;
  Accept(0);
  Accept(1);
  EXPECT_TRUE(desk_.closed());
  EXPECT_EQ(sights_.calls, 1);
  Batch({Knock()});
  EXPECT_FALSE(engine_.aimed(0));
  EXPECT_EQ(Count(OpKind::kAccept), 0U);
  EXPECT_TRUE(engine_.WaitsOnlyFor(Waits::For::kCredit));
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  workers_[0]->state().Release();
  EXPECT_TRUE(hunger_.HearKnockOfLease());
  Batch({Knock()});
  ASSERT_EQ(Count(OpKind::kAccept), 1U);
  Batch({Accepted(50)});
  EXPECT_EQ(Claim(0).size(), 1U);
}

TEST_F(AimerTest, ItIsAimedAgainAlthoughSomethingIsOffered) {
  AddAimed();
  AddWorkers(2);
  Batch();
  ASSERT_TRUE(PermitsOf(0).Claim());
  PermitsOf(0).GiveUp();
  desk_.VisitInTrouble(ECONNRESET);
  Batch({Knock()});
  EXPECT_FALSE(engine_.aimed(0));
  Batch({Accepted(50), Accepted(-EAGAIN)});
  EXPECT_FALSE(engine_.aimed(0));
  SleepAndBatch();
  EXPECT_TRUE(engine_.aimed(0));
  // Who was rung is passed over until it moves.
  const uint32_t rung = Unclaimed(0) > 0 ? 0 : 1;
  EXPECT_EQ(PermitsOf(1 - rung).Read().claimable, 1U);
  EXPECT_EQ(Claim(rung).size(), 1U);
}

// A doorbell marks a worker, so nobody could have a permit.
TEST_F(AimerTest, WhereAllAreRungItIsAimedWhenSomebodyHasLooked) {
  AddAimed();
  AddWorkers(1);
  Batch();
  desk_.VisitInTrouble(ECONNRESET);
  Batch({Knock()});
  Batch({Accepted(50), Accepted(-EAGAIN)});
  for (int i = 0; i < 5; ++i) {
    SleepAndBatch();
    EXPECT_FALSE(engine_.aimed(0));
  }
  EXPECT_EQ(Claim(0).size(), 1U);
  SleepAndBatch();
  EXPECT_TRUE(engine_.aimed(0));
}

// The engine asks the policy, so the desk must be the master's.
TEST_F(AimerTest, ARecallTakesTheDesk) {
  AddAimed();
  AddWorkers(2);
  Batch();
  desk_.VisitInTrouble(ECONNRESET);
  Batch({Knock()});
  Batch({Accepted(50), Accepted(-EAGAIN)});
  SleepAndBatch();
  ASSERT_TRUE(engine_.aimed(0));
  const uint32_t stuck = Unclaimed(0) > 0 ? 0 : 1;
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(Unclaimed(stuck), 0U);
  EXPECT_EQ(Claim(1 - stuck).size(), 1U);
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  SleepAndBatch();
  EXPECT_TRUE(engine_.aimed(0));
}

TEST_F(AimerTest, AfterTroubleItIsDealtForEverLonger) {
  AddAimed();
  AddWorkers(1);
  Batch();
  int64_t last_ns = 0;
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(engine_.aimed(0));
    ASSERT_TRUE(PermitsOf(0).Claim());
    PermitsOf(0).GiveUp();
    desk_.VisitInTrouble(EINVAL);
    Batch({Knock()});
    Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
    const int64_t wait_ns = engine_.WaitMax(now_ns_);
    EXPECT_GE(wait_ns, last_ns);
    EXPECT_LE(wait_ns, Aim::kDealNsMax);
    last_ns = wait_ns;
    SleepAndBatch();
  }
  EXPECT_EQ(last_ns, Aim::kDealNsMax);
}

TEST_F(AimerTest, AWorkerThatDoesNotMoveIsMarkedAndAnotherGetsThePermit) {
  AddAimed();
  AddWorkers(2);
  Batch();
  sights_.waiting = 1;  // and worker 0 does not come
  SleepAndBatch();
  EXPECT_EQ(Count(OpKind::kDoorbell), 0U) << "it may have come just now";
  const int64_t seen_at_ns = now_ns_;
  SleepAndBatch();
  EXPECT_LE(now_ns_ - seen_at_ns, kRecallAfter / 2);
  EXPECT_EQ(Only(OpKind::kDoorbell).tag, 200U);
  EXPECT_EQ(PermitsOf(0).Read().claimable, 0U);
  EXPECT_EQ(PermitsOf(1).Read().claimable, 1U);
  Accept(1);
  Claim(0);  // it moves
  desk_.Visit();
  EXPECT_EQ(Claimable(), 1U);
}

// A count that fails now and then does not hide that nothing moves.
TEST_F(AimerTest, WhatCannotBeCountedMayWait) {
  AddAimed();
  AddWorkers(2);
  Batch();
  sights_.waiting = 1;
  SleepAndBatch();
  sights_.waiting = -1;
  sights_.on_waiting = [&] { sights_.on_waiting = [&] { sights_.waiting = 1; }; };
  SleepAndBatch();
  EXPECT_EQ(Only(OpKind::kDoorbell).tag, 200U);
  EXPECT_EQ(PermitsOf(1).Read().claimable, 1U);
}

TEST_F(AimerTest, NobodyIsMarkedWhileAnythingMoves) {
  AddAimed();
  AddWorkers(2);
  Batch();
  for (int i = 0; i < 20; ++i) {
    sights_.waiting = 2;
    Accept(PermitsOf(0).Read().claimable > 0 ? 0 : 1);
    SleepAndBatch();
    EXPECT_EQ(Count(OpKind::kDoorbell), 0U);
  }
}

TEST_F(AimerTest, WithoutRecallNobodyIsMarked) {
  AddAimed({.recall = false});
  AddWorkers(2);
  Batch();
  sights_.waiting = 1;
  for (int i = 0; i < 5; ++i) {
    SleepAndBatch();
    EXPECT_EQ(Count(OpKind::kDoorbell), 0U);
  }
  EXPECT_EQ(PermitsOf(0).Read().claimable, 1U);
}

// As of a thread that is cancelled within its accept.
TEST_F(AimerTest, WithoutRecallWhatWasGivenUpIsIssuedAnew) {
  AddAimed({.recall = false});
  AddWorkers(1);
  Batch();
  sights_.waiting = 1;
  ASSERT_TRUE(PermitsOf(0).Claim());
  PermitsOf(0).GiveUp();
  for (int i = 0; i < 2; ++i) SleepAndBatch();
  EXPECT_EQ(Claimable(), 1U);
}

TEST_F(AimerTest, AnotherSightTakesTheDesk) {
  AddAimed();
  AddWorkers(1);
  Batch();
  EXPECT_EQ(sights_.shown, (std::set<int>{0}));
  engine_.SetSight(0, 7, permits_[0].get());
  EXPECT_TRUE(sights_.shown.empty());
  EXPECT_EQ(Claimable(), 0U);
  Batch();
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  EXPECT_EQ(sights_.shown, (std::set<int>{7}));
  engine_.SetSight(0, -1, permits_[0].get());
  Batch();
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  EXPECT_FALSE(engine_.aimed(0));
}

TEST_F(AimerTest, ADescriptorThatWasClosedIsTheEngines) {
  AddAimed();
  AddWorkers(1);
  Batch();
  sights_.gone = true;
  SleepAndBatch();
  EXPECT_FALSE(engine_.aimed(0));
  EXPECT_EQ(engine_.WaitMax(now_ns_), 0);
  Batch();
  EXPECT_EQ(Count(OpKind::kAccept), 2U) << "which says that there is no listener";
}

TEST_F(AimerTest, WhatAWorkerCannotAcceptCountsAsAnError) {
  AddAimed();
  AddWorkers(1);
  Batch();
  ASSERT_TRUE(PermitsOf(0).Claim());
  PermitsOf(0).GiveUp();
  desk_.VisitInTrouble(EMFILE);
  Batch();
  EXPECT_EQ(engine_.intake(0).errors, 1U);
}

TEST_F(AimerTest, AQuietMasterSleepsUntilItsPollShowsAConnection) {
  AddAimed();
  AddWorkers(2);
  Batch();
  const int64_t begun_ns = now_ns_;
  int batches = 0;
  while (engine_.WaitMax(now_ns_) != kWaitForever) {
    SleepAndBatch();
    ASSERT_LT(++batches, 1'000);
  }
  EXPECT_GE(now_ns_ - begun_ns, Aim::kQuietNs);
  EXPECT_LE(now_ns_ - begun_ns, Aim::kQuietNs + 2 * kRecallAfter);
  EXPECT_TRUE(engine_.aimed(0));
  EXPECT_EQ(Count(OpKind::kPoll), 1U);
  sights_.waiting = 1;
  Accept(0);
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 0U) << "a worker has it";
  EXPECT_EQ(Count(OpKind::kPollEnd), 1U);
  EXPECT_LE(engine_.WaitMax(now_ns_), kRecallAfter);
}

TEST_F(AimerTest, AnEndThatThePollShowsIsTheEngines) {
  AddAimed();
  AddWorkers(2);
  Batch();
  while (engine_.WaitMax(now_ns_) != kWaitForever) SleepAndBatch();
  Batch({{.key = armed_[0], .result = kPoll | 0x10, .more = true}});  // POLLHUP
  EXPECT_FALSE(engine_.aimed(0));
  EXPECT_EQ(Count(OpKind::kAccept), 2U);
}

TEST_F(AimerTest, WhoLeavesHasCounted) {
  AddAimed();
  AddWorkers(2);
  Batch();
  sights_.waiting = 2;
  Accept(0);
  Accept(1);
  engine_.RemoveWorker(1);
  EXPECT_EQ(engine_.ByPermitOf(0), 2U);
  EXPECT_EQ(engine_.ByPermit(1), 1U);
  Batch();
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN)});
  EXPECT_TRUE(engine_.aimed(0));
  EXPECT_EQ(sights_.shown, (std::set<int>{0}));
  engine_.StopIntake();
  EXPECT_TRUE(sights_.shown.empty());
  EXPECT_EQ(Claimable(), 0U);
}

TEST_F(AimerTest, AnotherSourceOfTheSameIndexCountsAnew) {
  AddAimed();
  AddWorkers(1);
  Batch();
  sights_.waiting = 1;
  Accept(0);
  workers_[0]->state().Release();
  engine_.RemoveSource(0);
  Batch();
  ASSERT_EQ(engine_.NextSource(), 0U);
  AddAimed();
  EXPECT_EQ(engine_.ByPermitOf(0), 0U);
  EXPECT_EQ(engine_.ByPermit(0), 1U);
  EXPECT_EQ(engine_.departed_sources().claimed, 1U);
}

}  // namespace
}  // namespace ringmaster::core
