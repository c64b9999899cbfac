// What the engine does about the kernel's queue of a listener. When does it ask how often the queue
// has overflowed, and what does it say about that?

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "core/engine.h"
#include "core/op.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

class OverflowTest : public EngineTest {
 protected:
  uint32_t AddListener(int32_t overflows = 0) {
    return engine_.AddSource(
        {.fd = kListenFd, .tells_overflows = true, .overflows = overflows, .policy = RoundRobin()});
  }
  static Completion Told(int32_t overflows, uint32_t source = 0) {
    return {.key = {.kind = OpKind::kOverflows, .index = source}, .result = overflows};
  }
  uint64_t Overflows(uint32_t source = 0) const { return engine_.intake(source).overflows; }
  // A source with a worker that has taken all it may, so that the source is starved. What was asked
  // meanwhile is answered.
  void Starve() {
    AddListener();
    AddWorker({.window = 1});
    Batch();
    Batch({Edge()});
    Batch({Told(0), Accepted(10)});
    Batch({Edge()});
    ASSERT_TRUE(engine_.starved(0));
    Batch({End(-ECANCELED)});
    engine_.ClearEvents();
  }
};

TEST_F(OverflowTest, AsksWhileSomethingComesAtMostTenTimesASecond) {
  AddListener();
  AddWorker();
  Batch();
  EXPECT_EQ(Count(OpKind::kOverflows), 0u);  // armed, and nothing has come: there is no queue
  Batch({Edge()});
  EXPECT_EQ(Only(OpKind::kOverflows).fd, kListenFd);
  Batch({Told(0), Accepted(10), Accepted(-EAGAIN)});
  for (int i = 0; i < 9; ++i) {
    now_ns_ += kOverflowLookNs / 10;
    Claim(0);
    Batch({Edge()});
    EXPECT_EQ(Count(OpKind::kOverflows), 0u);
    Batch({Accepted(11 + i), Accepted(-EAGAIN)});
  }
  now_ns_ += kOverflowLookNs / 10;
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kOverflows), 1u);  // for what has come since
  Batch({Told(0)});
  now_ns_ += kOverflowLookNs;
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kOverflows), 0u);
}

// The queue of a source that is not taken in fills up without a word. The master is awake for
// another reason; asking is none to wake.
TEST_F(OverflowTest, AsksWhileIntakeIsStoppedAndNeverWakesForIt) {
  Starve();
  now_ns_ += kOverflowLookNs;
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kOverflows), 1u);
  Batch({Told(3)});
  EXPECT_EQ(Overflows(), 3u);
  EXPECT_EQ(CountEvents(EventKind::kBacklogOverflow), 1u);
  Claim(0);
  engine_.Pause(0);
  Batch({Knock()});
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  now_ns_ += kOverflowLookNs;
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kOverflows), 1u);
}

TEST_F(OverflowTest, SaysItOncePerEpisode) {
  Starve();
  const auto told = [&](int32_t overflows, int64_t after_ns) {
    now_ns_ += after_ns;
    engine_.ClearEvents();
    Batch();
    engine_.NoteOverflows(0, overflows);
    return CountEvents(EventKind::kBacklogOverflow);
  };
  EXPECT_EQ(told(1, 0), 1u);
  EXPECT_EQ(told(2, kOverflowCalmNs / 2), 0u);
  EXPECT_EQ(told(3, kOverflowCalmNs - 1), 0u);
  EXPECT_EQ(told(3, kOverflowCalmNs), 0u);
  EXPECT_EQ(told(4, 0), 1u);  // the last was so long ago
  EXPECT_EQ(Overflows(), 4u);
}

// What was dropped before the source was added is not its own; and the kernel's number begins anew.
TEST_F(OverflowTest, CountsFromWhenItWasAddedAndPastTheEndOfTheNumber) {
  AddListener(kOverflowsMask - 1);
  engine_.NoteOverflows(0, kOverflowsMask - 1);
  EXPECT_EQ(Overflows(), 0u);
  engine_.NoteOverflows(0, 2);
  EXPECT_EQ(Overflows(), 4u);
  engine_.NoteOverflows(0, -EBADF);
  engine_.NoteOverflows(0, 2);
  EXPECT_EQ(Overflows(), 4u);
}

TEST_F(OverflowTest, AsksNothingOfWhatCannotTellOrIsGone) {
  AddSource({.multishot_accept = false});
  AddListener();
  now_ns_ += kOverflowLookNs;
  Batch();
  EXPECT_EQ(Only(OpKind::kOverflows).key.index, 1u);
  engine_.RemoveSource(1);
  EXPECT_FALSE(engine_.IntakeEnded(1));  // the answer is still to come
  Batch({Told(5, 1)});
  EXPECT_TRUE(engine_.IntakeEnded(1));
  now_ns_ += kOverflowLookNs;
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kOverflows), 0u);
}

TEST_F(OverflowTest, AsksABoundedNumberInOneBatch) {
  for (uint32_t i = 0; i < kOverflowLooksPerBatchMax + 1; ++i) AddListener();
  Batch();
  EXPECT_EQ(Count(OpKind::kOverflows), kOverflowLooksPerBatchMax);
  Batch({Knock()});
  EXPECT_EQ(Only(OpKind::kOverflows).key.index, kOverflowLooksPerBatchMax);
}

// Nobody drives the master, so an answer would never come, and the source would wait for it.
TEST_F(OverflowTest, AsksForNothingWhileNobodyDrivesItAndForgetsWhatItHadAsked) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  ASSERT_EQ(Count(OpKind::kOverflows), 1u);
  engine_.Rest();
  Batch({Accepted(-EAGAIN), Accepted(-EAGAIN), End(-ECANCELED)});
  EXPECT_FALSE(engine_.AtRest());  // the answer is under way
  engine_.ForgetRing();
  EXPECT_TRUE(engine_.AtRest());
  engine_.RemoveSource(0);
  EXPECT_TRUE(engine_.IntakeEnded(0));
  AddListener();
  now_ns_ += kOverflowLookNs;
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kOverflows), 0u);
  engine_.GoOn();
}

}  // namespace
}  // namespace ringmaster::core
