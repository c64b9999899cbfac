// What a source with age_max does with clients that have waited long before they were accepted, or
// have hung up. Method: the test is the ring, and says of each connection when its client came.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kAgeMax = 20 * kMs;

class AgeTest : public EngineTest {
 protected:
  uint32_t AddAging(TestSourceOptions options = {}, std::unique_ptr<Policy> policy = RoundRobin()) {
    return engine_.AddSource(
        {.fd = kListenFd + static_cast<int32_t>(engine_.source_slots()),
         .intake = {.kind =
                        options.multishot_accept ? IntakeKind::kAccept : IntakeKind::kPollAccept},
         .hold = options.hold,
         .gate = options.gate,
         .age_max_ns = kAgeMax,
         .age_facts = kFactCame,
         .policy = std::move(policy)});
  }
  Completion Waited(Completion completion, int64_t waited_ns) const {
    completion.came_at_ns = now_ns_ - waited_ns;
    return completion;
  }
  static Completion Gone(Completion completion) {
    completion.gone = true;
    return completion;
  }
  const SourceCount& Counts(uint32_t source = 0) const { return engine_.ledger().source(source); }
  std::vector<int32_t> Closed() const {
    std::vector<int32_t> closed;
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kClose) closed.push_back(op.fd);
    }
    return closed;
  }
};

TEST_F(AgeTest, AsksOfEachConnectionOnlyWhereThereIsALimit) {
  AddSource();
  AddAging();
  engine_.AddSource({.fd = 9, .age_facts = kFactCame, .policy = AffinityCpu()});
  AddWorker();
  Batch();
  EXPECT_EQ(armed_[0].facts, 0);
  EXPECT_EQ(armed_[1].facts, kFactCame);
  EXPECT_EQ(armed_[2].facts, kFactIncomingCpu);
  // Whatever its policy.
  engine_.SetPolicy(1, AffinityHash());
  Batch();
  Batch({End(-ECANCELED, 1)});
  EXPECT_EQ(armed_[1].facts, kFactCame | kFactPeer);
}

TEST_F(AgeTest, ClosesAtOnceWhoHasGone) {
  AddAging();
  AddWorker();
  Batch();
  Batch({Gone(Arrival(10)), Arrival(11), Gone(Waited(Arrival(12), kMs))});
  EXPECT_EQ(Closed(), (std::vector<int32_t>{10, 12}));
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{11}));
  Batch();
  EXPECT_EQ(Counts().arrivals, 3u);
  EXPECT_EQ(Counts().dropped, 2u);
  EXPECT_EQ(Counts().gone, 2u);
  EXPECT_EQ(Counts().claimed, 1u);
}

TEST_F(AgeTest, ClosesAtOnceWhoIsTooOldAndNobodyBeforeThat) {
  AddAging();
  AddWorker();
  Batch();
  Batch({Waited(Arrival(10), kAgeMax + kMs), Waited(Arrival(11), kAgeMax),
         Waited(Arrival(12), kAgeMax - 1)});
  EXPECT_EQ(Closed(), (std::vector<int32_t>{10, 11}));
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{12}));
  EXPECT_EQ(Counts().dropped, 2u);
  EXPECT_EQ(Counts().gone, 0u);
}

TEST_F(AgeTest, CountsTheTimeBeforeTheAccept) {
  AddAging();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Waited(Arrival(11), 15 * kMs), Waited(Arrival(12), -kMs), Arrival(13)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));  // which makes no credit known yet
  EXPECT_EQ(engine_.WaitMax(now_ns_), 5 * kMs);
  now_ns_ += 5 * kMs;
  engine_.Pause(0);
  Batch();
  EXPECT_EQ(Closed(), (std::vector<int32_t>{11}));
  // One that is said to come later has come now, as one of which nothing is said.
  EXPECT_EQ(Unclaimed(0), 1u);
  EXPECT_EQ(Held(), 1u);
  now_ns_ += 15 * kMs;
  Batch();
  EXPECT_EQ(Closed(), (std::vector<int32_t>{12, 13}));
}

// The place at the worker and those in both limits are free for the next at once.
TEST_F(AgeTest, GivesThePlaceOfWhoHasGoneToTheNext) {
  Gate gate;
  gate.Limit(1);
  AddAging({.multishot_accept = false, .gate = &gate});
  AddWorker({.capacity = 1});
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  for (int32_t fd = 10; fd < 200; ++fd) {
    Batch({fd % 2 == 0 ? Gone(Accepted(fd)) : Waited(Accepted(fd), kAgeMax)});
    EXPECT_EQ(Closed(), (std::vector<int32_t>{fd}));
    ASSERT_EQ(Count(OpKind::kAccept), 1u);
    ASSERT_EQ(engine_.promised(0), 1u);
  }
  Batch({Accepted(200)});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{200}));
  EXPECT_EQ(gate.used(), 1u);
  EXPECT_EQ(engine_.open(0), 1u);
}

// More are too old than one batch closes.
TEST_F(AgeTest, DealsNothingThatIsTooOld) {
  constexpr int32_t kHeld = 2 * kRefusalsPerBatchMax + 10;
  AddAging({.hold = 1024});
  const uint32_t worker = AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10)});
  for (int32_t i = 0; i < kHeld; ++i) Batch({Arrival(11 + i)});
  ASSERT_EQ(Held(), static_cast<uint64_t>(kHeld));
  now_ns_ += kAgeMax - kMs;
  EXPECT_EQ(Claim(worker), (std::vector<int32_t>{10}));
  now_ns_ += kMs;
  for (size_t closed = 0; closed < kHeld;) {
    Batch();
    EXPECT_LE(Count(OpKind::kClose), kRefusalsPerBatchMax);
    ASSERT_GT(Count(OpKind::kClose), 0u);
    closed += Count(OpKind::kClose);
    EXPECT_EQ(engine_.WaitMax(now_ns_) == 0, closed < kHeld);
    EXPECT_EQ(Unclaimed(worker), 0u);
  }
  EXPECT_EQ(Counts().dropped, static_cast<uint64_t>(kHeld));
}

// What was recalled twice, say, is not in the order in which it came.
TEST_F(AgeTest, DropsWhatIsTooOldBehindWhatIsNotWhenItsTurnComes) {
  AddAging();
  AddWorker({.window = 2});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12), Waited(Arrival(13), 15 * kMs), Arrival(14)});
  now_ns_ += 5 * kMs;
  Batch();
  EXPECT_EQ(Held(), 3u);
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
  Batch();
  EXPECT_EQ(Closed(), (std::vector<int32_t>{13}));
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{12, 14}));
}

// A ring that brings a whole batch of those leaves no trace in the ledger's room.
TEST_F(AgeTest, NeedsNoRoomForWhoHasGone) {
  AddAging({.hold = 1});
  AddWorker({.window = 1});
  Batch();
  const uint32_t room = engine_.ledger().room();
  std::vector<Completion> gone;
  for (int32_t fd = 10; fd < 510; ++fd) gone.push_back(Gone(Arrival(fd)));
  for (int i = 0; i < 10; ++i) Batch(gone);
  EXPECT_EQ(engine_.ledger().room(), room);
  EXPECT_FALSE(engine_.WantsRoom());
  EXPECT_EQ(Counts().gone, 5000u);
  Batch({Arrival(600)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{600}));
}

}  // namespace
}  // namespace ringmaster::core
