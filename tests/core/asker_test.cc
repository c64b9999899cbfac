// What is asked of the kernel for a source: single accepts, and room for what comes unasked.
// Method: as in engine_fixture.h.

#include "core/asker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

#include "core/op.h"
#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

using AskerTest = EngineTest;

TEST_F(AskerTest, AsksForNoMoreConnectionsThanThereIsCredit) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
}

TEST_F(AskerTest, AsksForNoMoreConnectionsThanTheCapacityAllows) {
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

TEST_F(AskerTest, AcceptsUntilNothingIsFound) {
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

TEST_F(AskerTest, PausesAPolledSourceWhileNobodyHasCredit) {
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

TEST_F(AskerTest, AsksToBeWokenOnceAndGoesOnWhenAClaimMakesCredit) {
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

TEST_F(AskerTest, LetsSeveralSourcesTakeTurns) {
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

TEST_F(AskerTest, EndsAMultishotAcceptWhenItHoldsEnough) {
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

TEST_F(AskerTest, KeepsRoomForWhatArrivesBetweenTheDecisionAndTheEnd) {
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

}  // namespace
}  // namespace ringmaster::core
