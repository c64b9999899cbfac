// Arrivals that are sent to the rings of workers. Method: as in engine_fixture.h.

#include "core/delivery.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/op.h"
#include "core/port_state.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

class DeliveryTest : public EngineTest {
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

TEST_F(DeliveryTest, SendsEachArrivalUnderTheTokenOfItsSource) {
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

TEST_F(DeliveryTest, SendsNoMoreThanTheWindowUntilTheWorkerTakes) {
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

TEST_F(DeliveryTest, TakesCreditThatIsMadeWhileItRaisesTheFlag) {
  AddSource();
  AddWorker({.window = 1, .completions = true});
  Batch();
  Batch({Arrival(10)});
  EXPECT_FALSE(Take(0, 1));  // nobody is hungry yet
  Batch({Arrival(11)});
  EXPECT_EQ(Sent(0), (std::vector<int32_t>{11}));
}

TEST_F(DeliveryTest, DealsAgainInOrderWhatCouldNotBeSent) {
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

TEST_F(DeliveryTest, TriesARingThatCannotBeReachedAgainAfterAPause) {
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
TEST_F(DeliveryTest, ARingThatIsTriedAgainTakesWhatIsOverdueFirst) {
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

TEST_F(DeliveryTest, KeepsWhatWasSentUntilEverythingIsReported) {
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
TEST_F(DeliveryTest, AsksTheRingAgainWhenTooMuchIsNotReported) {
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

TEST_F(DeliveryTest, DealsAgainWhatCouldNotBeSentToAWorkerThatHasLeft) {
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

TEST_F(DeliveryTest, NeverRecallsWhatItHasSent) {
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

TEST_F(DeliveryTest, SendsNothingMoreToAWorkerThatTakesNothing) {
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
TEST_F(DeliveryTest, DoesNotWaitForMotionOfAWorkerThatHasNothingToTake) {
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

TEST_F(DeliveryTest, GivesItsWindowBackToAWorkerThatTakesPromptly) {
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

TEST_F(DeliveryTest, BelievesNoWorkerThatTookMoreThanItGot) {
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
TEST_F(DeliveryTest, CountsRightWhenAWorkerTookWhatCouldNotBeSent) {
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

TEST_F(DeliveryTest, ALeaseKeepsThePlaceOfWhatCouldNotBeSent) {
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

TEST_F(DeliveryTest, ASendThatFailsAfterTheDeadlineIsRefused) {
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

TEST_F(DeliveryTest, MixesWithWorkersThatHaveAnInbox) {
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

TEST_F(DeliveryTest, NeverAllocatesWhileItSends) {
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

}  // namespace
}  // namespace ringmaster::core
