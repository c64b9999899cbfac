// What is armed, and when. Method: as in engine_fixture.h.

#include "core/armer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "core/op.h"
#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

using ArmerTest = EngineTest;

TEST_F(ArmerTest, ArmsASourceWhenTheFirstWorkerJoins) {
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

TEST_F(ArmerTest, ASourceThatWaitsForWorkersStartsWithTheLastOfThem) {
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
    engine_.Leave(SourceIndex(source), 0);
    engine_.Leave(SourceIndex(source), 1);
    Batch();
    EXPECT_TRUE(ops_.empty());
    engine_.RemoveSource(source);
    for (uint32_t worker = 0; worker < 3; ++worker) engine_.RemoveWorker(worker);
    workers_.clear();
    Batch();
    Batch({End(-ECANCELED)});
  }
}

TEST_F(ArmerTest, ASourceThatWaitsForWorkersStartsWhenItIsResumed) {
  AddSource({.multishot_accept = false, .start_workers = 3});
  AddWorker();
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 0u);
  engine_.Resume(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kPoll), 1u);
  engine_.CheckAll(true);
}

TEST_F(ArmerTest, DisarmsASourceWhenTheLastWorkerLeaves) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  engine_.Leave(SourceIndex(0), 0);
  Batch();
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(ops_.empty());
}

TEST_F(ArmerTest, ArmsAPollAnewThatEndedBecauseTheQueueWasFull) {
  AddSource({.multishot_accept = false});
  AddWorker();
  Batch();
  const uint16_t generation = armed_[0].generation;
  Batch({End(kPoll)});
  EXPECT_NE(Only(OpKind::kPoll).key.generation, generation);
  EXPECT_GT(Count(OpKind::kAccept), 0u);  // what the last completion said still counts
}

TEST_F(ArmerTest, ArmsAMultishotAcceptAnewAndKeepsItsLastConnection) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10), End(11)});
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
}

TEST_F(ArmerTest, ArmsTheWatchAnewThatEnded) {
  AddSource();
  AddWorker();
  Batch();
  Batch({{.key = {.kind = OpKind::kWatch}, .result = 1, .more = false}});
  EXPECT_EQ(Only(OpKind::kWatch).fd, kWatchFd);
}

TEST_F(ArmerTest, WaitsForTheEndBeforeItArmsAgain) {
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

TEST_F(ArmerTest, DealsWhatIsHeldWhileItsSourceIsPaused) {
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

TEST_F(ArmerTest, CountsHowOftenASourceIsArmedPausedAndInError) {
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

}  // namespace
}  // namespace ringmaster::core
