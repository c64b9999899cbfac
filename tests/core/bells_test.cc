// Who is rung, and when. Method: as in engine_fixture.h.

#include "core/bells.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "core/inbox.h"
#include "core/op.h"
#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

using BellsTest = EngineTest;

TEST_F(BellsTest, RingsAWorkerOnceForAllThatABatchOffers) {
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

TEST_F(BellsTest, RepeatsADoorbellThatFailed) {
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

TEST_F(BellsTest, ForgetsAFailedDoorbellOnceTheWorkerHasLooked) {
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
TEST_F(BellsTest, RepeatsAFailedDoorbellAlthoughAnOlderClaimGoesOn) {
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

TEST_F(BellsTest, RingsAgainAWorkerThatStoppedEarlyAndDidNotComeBack) {
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

TEST_F(BellsTest, TellsEveryWorkerThatTheIntakeHasStopped) {
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

TEST_F(BellsTest, TellsAWorkerLaterWhoseDoorbellOfTheEndFails) {
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

TEST_F(BellsTest, AMasterThatEndsRingsAtOnceWhereADoorbellIsOwed) {
  AddSource();
  AddWorker();
  Batch();
  engine_.StopIntake();
  Batch();
  Batch({Failed(Only(OpKind::kDoorbell), EBADFD), End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kDoorbell), 0u);
  engine_.TellWorkers();
  Batch();
  EXPECT_EQ(Count(OpKind::kDoorbell), 1u);
}

}  // namespace
}  // namespace ringmaster::core
