// Connections that are installed in the file tables of workers. Method: as in engine_fixture.h. The
// test is the kernel, which says of each what has become of it, when the test wants it to.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/delivery.h"
#include "core/op.h"
#include "core/port_state.h"
#include "core/slots.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

class InstallingTest : public EngineTest {
 protected:
  std::vector<Op> Ops(OpKind kind) const {
    std::vector<Op> found;
    for (const Op& op : ops_) {
      if (op.key.kind == kind) found.push_back(op);
    }
    return found;
  }
  std::vector<Op> Installs() const { return Ops(OpKind::kInstall); }
  // The descriptors that are to be installed at the worker by the last batch.
  std::vector<int32_t> Installed(uint32_t worker) const {
    std::vector<int32_t> fds;
    for (const Op& op : Installs()) {
      if (op.fd == 100 + static_cast<int32_t>(worker)) fds.push_back(op.sent);
    }
    return fds;
  }
  static Completion Told(const Op& op, int32_t slot = 0) { return {.key = op.key, .result = slot}; }
  // The worker says that it took so many, as Port::Took does. Returns whether it knocks.
  bool Take(uint32_t worker, uint64_t count) {
    workers_[worker]->state().SayRoom();
    workers_[worker]->state().Release(workers_[worker]->tally().Take(count).places);
    return hunger_.HearKnock();
  }
  // A lease of the worker ends. Returns whether that knocks.
  bool EndLease(uint32_t worker) {
    workers_[worker]->state().SayRoom();
    workers_[worker]->state().Release();
    return hunger_.HearKnockOfLease();
  }
};

TEST_F(InstallingTest, ClosesWhatItHasWhenTheKernelHasInstalledIt) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  ASSERT_EQ(Installs().size(), 2u);
  const std::vector<Op> installs = Installs();
  EXPECT_EQ(installs[0].sent, 10);
  EXPECT_EQ(installs[0].tag, Token(0, 0));
  EXPECT_NE(installs[0].slot, installs[1].slot);
  EXPECT_EQ(engine_.ledger().worker(0).claimed, 2u);
  Batch();  // everything that was sent is reported; what is installed is told one by one
  EXPECT_EQ(engine_.Outstanding(), 2u);
  Batch({Told(installs[1], 5)});
  ASSERT_EQ(Count(OpKind::kLetGo), 1u);
  EXPECT_EQ(Only(OpKind::kLetGo).fd, 11);
  EXPECT_EQ(Only(OpKind::kLetGo).slot, installs[1].slot);
  EXPECT_FALSE(Only(OpKind::kLetGo).hang_up);
  EXPECT_EQ(engine_.Outstanding(), 1u);
  Batch({Told(installs[0], 0)});
  EXPECT_EQ(Only(OpKind::kLetGo).fd, 10);
  EXPECT_EQ(engine_.Outstanding(), 0u);
  EXPECT_EQ(engine_.open(0), 2u);  // until the worker takes them
}

TEST_F(InstallingTest, BelievesNothingThatItHasNotAskedFor) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10)});
  const Op install = Installs()[0];
  Completion other = Told(install);
  other.key.kind = OpKind::kSend;
  Batch({other});
  EXPECT_EQ(engine_.Outstanding(), 1u);
  Batch({Told(install)});
  Batch({Told(install)});
  EXPECT_EQ(Count(OpKind::kLetGo), 0u);
}

TEST_F(InstallingTest, AFullTableWaitsUntilTheWorkerSaysThatThereIsRoom) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10)});
  Batch({Failed(Installs()[0], kNoSlot)});
  EXPECT_EQ(Only(OpKind::kLetGo).fd, -1);  // it stays open
  EXPECT_TRUE(Installs().empty());
  EXPECT_EQ(Held(), 1u);
  EXPECT_EQ(engine_.open(0), 0u);
  EXPECT_EQ(CountEvents(EventKind::kTableFull), 1u);
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 0u);
  EXPECT_EQ(engine_.table_fulls(0), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  engine_.CheckAll(true);
  for (int i = 0; i < 10; ++i) {
    Batch({Knock()});
    EXPECT_TRUE(Installs().empty());
  }
  EXPECT_TRUE(Take(0, 0));
  Batch({Knock()});
  EXPECT_EQ(Installed(0), (std::vector<int32_t>{10}));
  Batch({Failed(Installs()[0], kNoSlot)});
  EXPECT_TRUE(Installs().empty());
  EXPECT_EQ(CountEvents(EventKind::kTableFull), 1u);  // said once
  EXPECT_TRUE(EndLease(0));
  workers_[0]->state().ForceReserve();
  Batch({Knock()});
  EXPECT_EQ(Installed(0), (std::vector<int32_t>{10}));
}

// The worker makes room after the kernel has found none, and before the master hears of that. It
// will say nothing more.
TEST_F(InstallingTest, TriesAgainIfTheWorkerSaidSoBeforeTheMasterHeardThatTheTableIsFull) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  const std::vector<Op> installs = Installs();
  Batch({Told(installs[0])});
  Take(0, 1);
  Batch({Failed(installs[1], kNoSlot)});
  ASSERT_EQ(Installed(0), (std::vector<int32_t>{11}));
  // That one was sent after it had said so, so now it is full.
  Batch({Failed(Installs()[0], kNoSlot)});
  EXPECT_TRUE(Installs().empty());
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

// The older of the two says less.
TEST_F(InstallingTest, TheLatestFailureSaysSinceWhenTheTableIsFull) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10)});
  const Op first = Installs()[0];
  Take(0, 0);
  Batch({Arrival(11)});
  const Op second = Installs()[0];
  for (const std::vector<Completion>& batch :
       {std::vector{Failed(second, kNoSlot)}, std::vector{Failed(first, kNoSlot)}}) {
    Batch(batch);
    EXPECT_TRUE(Installs().empty());
  }
  EXPECT_EQ(Held(), 2u);
  Take(0, 0);
  Batch({Knock()});
  EXPECT_EQ(Installed(0), (std::vector<int32_t>{10, 11}));
}

TEST_F(InstallingTest, WhatDoesNotFitGoesToSomebodyElseInItsOldOrder) {
  AddSource({}, RoundRobin());
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  const std::vector<Op> installs = Installs();
  AddWorker({.window = 4});
  Batch({Failed(installs[1], kNoSlot), Failed(installs[0], kNoSlot)});
  EXPECT_EQ(Claim(1), (std::vector<int32_t>{10, 11}));
}

// The kernel tells in any order, also in several batches.
TEST_F(InstallingTest, WhatDoesNotFitKeepsItsOrderHoweverTheKernelTellsIt) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  const std::vector<Op> installs = Installs();
  Batch({Failed(installs[0], kNoSlot), Arrival(13)});
  Batch({Failed(installs[2], kNoSlot), Failed(installs[1], kNoSlot)});
  Take(0, 0);
  Batch({Knock()});
  EXPECT_EQ(Installed(0), (std::vector<int32_t>{10, 11, 12, 13}));
}

TEST_F(InstallingTest, WhatCouldNotBeSentAndWhatDoesNotFitComeBackInOrder) {
  AddSource({}, RoundRobin());
  AddWorker({.direct = true});
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12), Arrival(13)});
  const std::vector<Op> installs = Installs();
  const std::vector<Op> sends = Ops(OpKind::kSend);
  ASSERT_EQ(installs.size(), 2u);
  ASSERT_EQ(sends.size(), 2u);
  AddWorker({.window = 4});
  Batch({Failed(sends[0], ENOMEM), Failed(installs[1], kNoSlot), Failed(installs[0], kNoSlot),
         Failed(sends[1], ENOMEM)});
  EXPECT_EQ(Claim(2), (std::vector<int32_t>{10, 11, 12, 13}));
}

TEST_F(InstallingTest, TriesARingThatCannotBeReachedAgainAfterAPause) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10)});
  Batch({Failed(Installs()[0], EOWNERDEAD)});
  EXPECT_TRUE(Installs().empty());
  EXPECT_EQ(Held(), 1u);
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 1u);
  EXPECT_EQ(engine_.table_fulls(0), 0u);
  now_ns_ += engine_.WaitMax(now_ns_);
  Batch();
  EXPECT_EQ(Installed(0), (std::vector<int32_t>{10}));
}

// It is in the table, so nobody else may have it; and its worker does not know where.
TEST_F(InstallingTest, EndsWhatIsInstalledAndCouldNotBeTold) {
  Gate gate;
  gate.Limit(8);
  AddSource({.gate = &gate});
  AddWorker({.direct = true});
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10)});
  const Op install = Installs()[0];
  Batch({Failed(install, kUntold)});
  EXPECT_TRUE(Installs().empty());
  const std::vector<Op> gone = Ops(OpKind::kLetGo);
  ASSERT_EQ(gone.size(), 2u);
  EXPECT_EQ(gone[0].slot, install.slot);
  EXPECT_EQ(gone[0].fd, -1);
  EXPECT_EQ(gone[1].slot, -1);
  EXPECT_EQ(gone[1].fd, 10);
  EXPECT_TRUE(gone[1].hang_up);
  EXPECT_EQ(engine_.ledger().source(0).dropped, 1u);
  EXPECT_EQ(engine_.open(0) + engine_.open(1), 0u);
  EXPECT_EQ(gate.used(), 0u);
  EXPECT_EQ(CountEvents(EventKind::kDoorbellFailed), 1u);
}

TEST_F(InstallingTest, NoMoreIsUnderWayThanThereAreSlots) {
  AddSource({}, RoundRobin());
  AddWorker({.window = 8, .direct = true});
  AddWorker({.window = 8, .direct = true});
  Batch();
  std::vector<Completion> arrivals;
  for (int32_t fd = 10; fd < 22; ++fd) arrivals.push_back(Arrival(fd));
  Batch(arrivals);
  std::vector<Op> installs = Installs();
  ASSERT_EQ(installs.size(), kSlots);
  EXPECT_EQ(Held(), 12u - kSlots);
  Batch();
  EXPECT_TRUE(Installs().empty());
  // A slot that becomes free is used in the same batch, after it is cleared.
  Batch({Told(installs[3])});
  ASSERT_EQ(Installs().size(), 1u);
  EXPECT_EQ(Installs()[0].slot, installs[3].slot);
  const auto at = [&](OpKind kind) {
    return std::find_if(ops_.begin(), ops_.end(),
                        [&](const Op& op) { return op.key.kind == kind; });
  };
  EXPECT_LT(at(OpKind::kLetGo), at(OpKind::kInstall));
}

TEST_F(InstallingTest, AWorkerThatLeavesWaitsForWhatIsUnderWay) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  const std::vector<Op> installs = Installs();
  engine_.RemoveWorker(0);
  EXPECT_TRUE(engine_.InstallsAtLeavers());
  EXPECT_EQ(AddWorker({.direct = true}), 0u);  // the index is used again
  Batch({Told(installs[0])});
  EXPECT_TRUE(engine_.InstallsAtLeavers());
  EXPECT_EQ(engine_.failed_at_leavers(), 0u);
  Batch({Failed(installs[1], kNoSlot)});
  EXPECT_FALSE(engine_.InstallsAtLeavers());
  EXPECT_EQ(engine_.failed_at_leavers(), 1u);
  // That the table of its predecessor is full says nothing of the new one's.
  ASSERT_EQ(Installs().size(), 1u);
  EXPECT_EQ(Installs()[0].sent, 11);
  EXPECT_EQ(engine_.table_fulls(0), 0u);
  EXPECT_EQ(engine_.ledger().worker(0).assigned, 1u);
}

TEST_F(InstallingTest, WhatIsStillUnderWayAtTheEndCountsAsInstalled) {
  AddSource();
  AddWorker({.direct = true});
  Batch();
  Batch({Arrival(10)});
  const Op install = Installs()[0];
  engine_.StopIntake();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(engine_.Outstanding(), 1u);  // a drain waits for it
  engine_.RefuseAll();
  Batch();
  EXPECT_EQ(Only(OpKind::kLetGo).fd, 10);
  EXPECT_EQ(engine_.Outstanding(), 0u);
  Batch({Told(install)});
  EXPECT_EQ(Count(OpKind::kLetGo), 0u);
  EXPECT_EQ(engine_.ledger().source(0).claimed, 1u);
}

TEST_F(InstallingTest, SendsATicketBecauseThatIsNoFile) {
  AddSource({.readiness = true});
  AddWorker({.direct = true});
  Batch();
  Batch({Edge()});
  EXPECT_TRUE(Installs().empty());
  ASSERT_EQ(Count(OpKind::kSend), 1u);
  EXPECT_EQ(Only(OpKind::kSend).sent, kPoll);
  Batch();
  EXPECT_EQ(engine_.Outstanding(), 0u);
}

TEST_F(InstallingTest, NeverAllocatesWhenItInstalls) {
  AddSource();
  AddWorker({.window = 8, .direct = true});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  std::vector<Op> installs = Installs();
  std::vector<Completion> answers;
  for (const Op& op : installs) answers.push_back(Failed(op, kNoSlot));
  const size_t before = testing::AllocationCount();
  engine_.OnBatch(answers, now_ns_, ops_);
  EXPECT_EQ(testing::AllocationCount(), before);
}

}  // namespace
}  // namespace ringmaster::core
