// Sources with readiness intake: what an edge, a count and a ticket given back lead to.

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "back_off_times.h"
#include "core/engine.h"
#include "core/op.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

constexpr int32_t kHungUp = 0x10;  // POLLHUP

// Something happens in the middle of a batch.
class Hooked final : public Policy {
 public:
  explicit Hooked(std::function<void()> hook) : hook_(std::move(hook)) {}
  std::string name() const override { return "hooked"; }
  size_t Pick(const Arrival& /*arrival*/, const View& /*view*/) override {
    hook_();
    return 0;
  }

 private:
  std::function<void()> hook_;
};

class TicketsTest : public EngineTest {
 protected:
  uint32_t AddListener(std::unique_ptr<Policy> policy = RoundRobin()) {
    return AddSource({.readiness = true, .countable = true}, std::move(policy));
  }
  uint32_t AddOther(std::unique_ptr<Policy> policy = RoundRobin()) {
    return AddSource({.readiness = true}, std::move(policy));
  }
  static Completion Counted(int32_t count, uint32_t source = 0) {
    return {.key = {.kind = OpKind::kCount, .index = source}, .result = count};
  }
  uint64_t Issued(uint32_t source = 0) const { return engine_.ledger().source(source).arrivals; }
  uint64_t Dropped(uint32_t source = 0) const { return engine_.ledger().source(source).dropped; }
  // The worker has done with so many tickets that it claimed.
  void Done(uint32_t worker, uint32_t count = 1) { workers_[worker]->state().Release(count); }
  // The only worker of a listener claims the only ticket.
  void ClaimTheOnlyOne() {
    AddListener();
    AddWorker();
    Batch();
    Batch({Edge()});
    Batch({Counted(1)});
    Claim(0);
  }
  // Descriptors are short, and the source pauses. Then it tries again.
  void RunOutAndTryAgain(uint32_t source = 0) {
    engine_.GiveBack(source, EMFILE);
    Batch({Knock()});
    EXPECT_EQ(engine_.WaitMax(now_ns_), FirstPauseNs());
    now_ns_ += FirstPauseNs();
    Batch();
  }
};

// --- Of what can be counted ----------------------------------------------------------------------

TEST_F(TicketsTest, AsksHowManyWaitAndIssuesAsMany) {
  AddListener();
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Only(OpKind::kCount).fd, kListenFd);
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  Batch({Counted(3)});
  EXPECT_EQ(Unclaimed(0), 2u);
  EXPECT_EQ(Unclaimed(1), 1u);
  EXPECT_FALSE(engine_.ready(0));
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{kPoll, kPoll}));  // a ticket carries the poll mask
}

TEST_F(TicketsTest, ASecondEdgeIssuesOnlyWhatNobodyIsToldOf) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(2)});
  Batch({Edge()});
  Batch({Counted(3)});
  EXPECT_EQ(Issued(), 3u);
}

// A claim is noticed before it is compared with the count. Claimed tickets stand for nothing that
// waits any more, unless their accept is still to come.
TEST_F(TicketsTest, AClaimedTicketStandsForNothingThatWaits) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  Batch({Edge()});
  Claim(0);
  Batch({Counted(1)});
  EXPECT_EQ(Issued(), 2u);
  EXPECT_EQ(Unclaimed(0), 1u);
}

TEST_F(TicketsTest, AnEdgeBehindACountIsOfWhatItHasNotCounted) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(0), Edge()});
  EXPECT_EQ(Count(OpKind::kCount), 1u);
}

TEST_F(TicketsTest, CountsOnceAtATime) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  Batch({Counted(1)});
  EXPECT_EQ(Issued(), 1u);
}

TEST_F(TicketsTest, IssuesNoMoreThanThereIsCreditAndTheRestWhenThereIsSome) {
  AddListener();
  AddWorker({.window = 2});
  Batch();
  Batch({Edge()});
  Batch({Counted(5)});
  EXPECT_EQ(Issued(), 2u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);  // ready, without credit: hungry
  Claim(0);
  Batch({End(-ECANCELED), Knock()});
  Batch({Counted(3)});
  EXPECT_EQ(Issued(), 4u);
}

TEST_F(TicketsTest, NeverLetsAWorkerHaveMoreThanItsCapacity) {
  AddListener();
  AddWorker({.window = 8, .capacity = 2});
  Batch();
  Batch({Edge()});
  Batch({Counted(8)});
  EXPECT_EQ(Issued(), 2u);
  Claim(0);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
  Done(0);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  Batch({Counted(6)});
  EXPECT_EQ(Issued(), 3u);
}

TEST_F(TicketsTest, WhatCannotBeCountedNowIsLeftToAWorker) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(-EBADF)});
  EXPECT_EQ(Issued(), 1u);
}

TEST_F(TicketsTest, AHangUpIsForAWorkerToFindOutAbout) {
  AddListener();
  AddWorker();
  Batch();
  Completion edge = Edge();
  edge.result = kPoll | kHungUp;
  Batch({edge});
  Batch({Counted(0)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{kPoll | kHungUp});
}

// --- Of anything else ----------------------------------------------------------------------------

TEST_F(TicketsTest, IssuesOneAndLetsNewerEdgesMergeIntoIt) {
  AddOther();
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge(), Edge()});
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  EXPECT_EQ(Issued(), 1u);
  EXPECT_EQ(Claim(0).size(), 1u);
  Batch({Edge()});  // what it announces may have come after the worker had looked
  EXPECT_EQ(Issued(), 2u);
  EXPECT_EQ(Claim(1).size(), 1u);
}

// The look at the inbox comes after the edge, so a ticket that is unclaimed then will find it.
TEST_F(TicketsTest, AnEdgeThatComesWithAClaimIssuesAnother) {
  AddOther();
  AddWorker();
  Batch();
  Batch({Edge()});
  Claim(0);
  Batch({Edge()});
  EXPECT_EQ(Issued(), 2u);
}

TEST_F(TicketsTest, TellsWhatThePollSaidLast) {
  AddOther();
  AddWorker();
  Batch();
  Completion edge = Edge();
  edge.result = kPoll | kHungUp;
  Batch({edge});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{kPoll | kHungUp});
}

TEST_F(TicketsTest, WaitsWithoutCreditForWhoeverMakesSome) {
  AddOther();
  AddWorker({.window = 1, .capacity = 1});
  Batch();
  Batch({Edge()});
  Claim(0);
  Batch({Edge()});
  EXPECT_EQ(Issued(), 1u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Done(0);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
}

// --- Given back ----------------------------------------------------------------------------------

TEST_F(TicketsTest, ATicketGivenBackIsIssuedAgainToSomebody) {
  AddOther();
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  Claim(0);
  engine_.GiveBack(0, 0);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
  EXPECT_EQ(Claim(1).size(), 1u);
}

// Leaving and joining again while inside a callback brings the words round, so a younger ticket is
// claimed before an older one. Its worker may have accepted by it when the backlog is counted.
TEST_F(TicketsTest, OneThatWasClaimedOutOfOrderIsNotUnclaimed) {
  AddListener();
  AddWorker({.window = 2});
  Batch();
  Batch({Edge()});
  Batch({Counted(2)});
  ASSERT_EQ(Issued(), 2u);
  workers_[0]->inbox().Begin();
  ASSERT_TRUE(workers_[0]->TakeOne());
  for (int i = 0; i < 2; ++i) {
    engine_.Leave(SourceIndex(0), 0);
    engine_.Join(SourceIndex(0), 0);
    Batch({Knock()});
    Batch({Counted(2)});
  }
  ASSERT_EQ(Unclaimed(0), 2u);
  ASSERT_TRUE(workers_[0]->TakeOne());  // the younger one
  const uint64_t issued = Issued();
  Batch({Edge()});
  Batch({Counted(2)});  // of which it accepts neither
  EXPECT_EQ(Issued(), issued + 1);
}

// The knock that announces it must not end the pause at once.
TEST_F(TicketsTest, AShortageWaitsUntilSomethingIsReleased) {
  ClaimTheOnlyOne();
  engine_.GiveBack(0, EMFILE);
  Batch({Knock()});
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  EXPECT_EQ(Issued(), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), FirstPauseNs());
  // Nor must the place of the ticket, which is given back later, or the end of the claim.
  Done(0);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  EXPECT_TRUE(hunger_.HearKnockOfLease());
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kCount), 1u);
}

TEST_F(TicketsTest, AShortageEndsByItselfAfterAWhile) {
  ClaimTheOnlyOne();
  engine_.GiveBack(0, ENFILE);
  Batch({Knock()});
  now_ns_ += FirstPauseNs();
  Batch();
  EXPECT_EQ(Count(OpKind::kCount), 1u);
}

TEST_F(TicketsTest, ASourceThatIsNoListenerAnyMoreIsGivenUp) {
  ClaimTheOnlyOne();
  engine_.GiveBack(0, EINVAL);
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kState), 1u);
  Batch({State(0)});
  EXPECT_EQ(CountEvents(EventKind::kSourceFailed), 1u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
}

// Whoever found nothing may have looked before what the edge of the same batch is of came.
TEST_F(TicketsTest, HavingFoundNothingDoesNotTakeANewerEdgeBack) {
  for (const bool countable : {true, false}) {
    const uint32_t source = countable ? AddListener() : AddOther();
    if (countable) AddWorker();
    if (!countable) engine_.Join(SourceIndex(source), 0);
    Batch();
    engine_.GiveBack(source, EAGAIN);
    Batch({Edge(source)});
    EXPECT_EQ(Count(OpKind::kCount) + Issued(source), 1u) << countable;
  }
}

// Two workers give back in one batch.
TEST_F(TicketsTest, HavingFoundNothingDoesNotTakeBackWhatAnotherOneHasSeen) {
  AddOther();
  AddWorker();
  Batch();
  engine_.GiveBack(0, 0);
  engine_.GiveBack(0, EAGAIN);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 1u);
}

// And by itself it says that nobody need look.
TEST_F(TicketsTest, HavingFoundNothingIssuesNothing) {
  AddOther();
  AddWorker();
  Batch();
  engine_.GiveBack(0, EAGAIN);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 0u);
}

// One connection in two goes wrong, never two in a row.
TEST_F(TicketsTest, ATicketThatIsRedeemedBeginsANewRowOfErrors) {
  AddListener();
  AddWorker();
  Batch();
  for (uint32_t i = 0; i < 3 * ErrorsUntilPause(); ++i) {
    engine_.GiveBack(0, ECONNABORTED);
    Batch({Knock()});
    EXPECT_TRUE(engine_.WaitsForSuccess(0));
    engine_.Redeemed(0);
    Batch({Knock()});
    EXPECT_FALSE(engine_.WaitsForSuccess(0));
  }
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(TicketsTest, SoDoesOneThatFindsNothing) {
  AddListener();
  AddWorker();
  Batch();
  for (uint32_t i = 0; i < 3 * ErrorsUntilPause(); ++i) {
    engine_.GiveBack(0, ECONNABORTED);
    Batch({Knock()});
    engine_.GiveBack(0, EAGAIN);
    Batch({Knock()});
  }
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(TicketsTest, NothingButErrorsPauses) {
  AddListener();
  AddWorker();
  Batch();
  for (uint32_t i = 0; i < ErrorsUntilPause(); ++i) {
    engine_.GiveBack(0, ECONNABORTED);
    Batch({Knock()});
  }
  EXPECT_EQ(engine_.WaitMax(now_ns_), FirstPauseNs());
}

TEST_F(TicketsTest, TheEndOfAShortageIsSaidAfterACalmTime) {
  AddListener();
  AddWorker();
  Batch();
  for (uint32_t episode = 1; episode <= 2; ++episode) {
    engine_.GiveBack(0, EMFILE);
    Batch({Knock()});
    EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), episode);
    engine_.Redeemed(0);
    Batch({Knock()});
    EXPECT_EQ(CountEvents(EventKind::kAccepting), episode - 1);
    // Nothing comes meanwhile.
    EXPECT_EQ(engine_.WaitMax(now_ns_), kDescriptorsCalmNs);
    now_ns_ += kDescriptorsCalmNs;
    Batch();
    EXPECT_EQ(CountEvents(EventKind::kAccepting), episode);
    EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  }
}

TEST_F(TicketsTest, TheEndOfAShortageIsSaidAtOnceWhenAWorkerFindsNothing) {
  AddOther();
  AddWorker();
  Batch();
  engine_.GiveBack(0, EMFILE);
  Batch({Knock()});
  engine_.GiveBack(0, EAGAIN);
  Batch({Knock()});
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 1u);
}

// What one worker has found is older or newer than the shortage of another, nobody knows.
TEST_F(TicketsTest, AShortageAndASuccessInOneBatchAreAShortage) {
  AddListener();
  AddWorker();
  Batch();
  engine_.GiveBack(0, EMFILE);
  engine_.Redeemed(0);
  engine_.GiveBack(0, EAGAIN);
  Batch({Knock()});
  EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), 1u);
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 0u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), FirstPauseNs());
}

// Nor is it known which of two errors is the newer.
TEST_F(TicketsTest, ABadConnectionInTheSameBatchDoesNotHideAShortage) {
  for (const bool shortage_last : {true, false}) {
    const uint32_t source = AddListener();
    if (shortage_last) AddWorker();
    if (!shortage_last) engine_.Join(SourceIndex(source), 0);
    Batch();
    engine_.GiveBack(source, shortage_last ? ECONNABORTED : EMFILE);
    engine_.GiveBack(source, shortage_last ? EMFILE : ECONNABORTED);
    Batch({Knock()});
    EXPECT_EQ(CountEvents(EventKind::kOutOfDescriptors), shortage_last ? 1u : 2u);
    EXPECT_EQ(engine_.WaitMax(now_ns_), FirstPauseNs());
  }
}

TEST_F(TicketsTest, AShortageEndsAlsoWhenNothingWaitsAnyMore) {
  AddListener();
  AddWorker();
  Batch();
  RunOutAndTryAgain();
  Batch({Counted(0)});
  now_ns_ += kDescriptorsCalmNs;
  Batch();
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 1u);
}

// A connection that went wrong had a descriptor. Nothing else need come: the worker that gets the
// next ticket finds nothing, and need not say so.
TEST_F(TicketsTest, AShortageEndsAlsoWhenAConnectionGoesWrongAfterIt) {
  AddOther();
  AddWorker();
  Batch();
  RunOutAndTryAgain();
  ASSERT_EQ(Issued(), 1u);
  Claim(0);
  AddWorker({.completions = true});
  engine_.Leave(SourceIndex(0), 0);
  engine_.GiveBack(0, EPERM);
  Batch({Knock()});
  ASSERT_EQ(Count(OpKind::kSend), 1u);
  Done(1, workers_[1]->tally().Take(1).places);
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kSend), 0u);
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 0u);
  now_ns_ += kDescriptorsCalmNs;
  Batch();
  EXPECT_EQ(CountEvents(EventKind::kAccepting), 1u);
}

// --- Recall, leaving, ending ---------------------------------------------------------------------

TEST_F(TicketsTest, IsRecalledFromAWorkerThatDoesNotMove) {
  AddListener();
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  EXPECT_EQ(Unclaimed(0), 1u);
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(Unclaimed(0), 0u);
  EXPECT_EQ(Claim(1), std::vector<int32_t>{kPoll});
  EXPECT_EQ(Issued(), 1u);
}

TEST_F(TicketsTest, OfAWorkerThatLeavesGoesToAnother) {
  AddOther();
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  engine_.RemoveWorker(0);
  Batch();
  EXPECT_EQ(Claim(1).size(), 1u);
}

// It may have claimed one that it does not redeem any more.
TEST_F(TicketsTest, ALeaveMakesTheSourceReady) {
  AddListener();
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  Claim(0);
  Batch();
  engine_.RemoveWorker(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kCount), 1u);
}

TEST_F(TicketsTest, IsWithdrawnWhenItsSourceIsRemoved) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(2)});
  engine_.RemoveSource(0);
  Batch();
  EXPECT_EQ(Count(OpKind::kClose), 0u);  // there is nothing to close
  EXPECT_TRUE(Claim(0).empty());
  EXPECT_EQ(Dropped(), 2u);
  EXPECT_EQ(engine_.open(0), 0u);
  Batch({End(-ECANCELED)});
  EXPECT_TRUE(engine_.IntakeEnded(0));
}

TEST_F(TicketsTest, ARemovalWaitsForACountUnderWay) {
  AddListener();
  AddWorker();
  Batch();
  Batch({Edge()});
  engine_.RemoveSource(0);
  Batch({End(-ECANCELED)});
  EXPECT_FALSE(engine_.IntakeEnded(0));
  Batch({Counted(1)});
  EXPECT_TRUE(engine_.IntakeEnded(0));
  EXPECT_EQ(Issued(), 0u);
}

TEST_F(TicketsTest, IsWithdrawnWhenIntakeStops) {
  AddOther();
  AddWorker();
  Batch();
  Batch({Edge()});
  engine_.StopIntake();
  Batch();
  EXPECT_TRUE(Claim(0).empty());
  EXPECT_EQ(engine_.Outstanding(), 0u);
  EXPECT_EQ(Dropped(), 1u);
}

TEST_F(TicketsTest, NoneIsIssuedWhilePausedAndArmingTellsWhatCameMeanwhile) {
  AddOther();
  AddWorker();
  Batch();
  engine_.Pause(0);
  Batch({Edge()});
  EXPECT_EQ(Issued(), 0u);
  Batch({End(-ECANCELED)});
  engine_.Resume(0);
  Batch();
  EXPECT_EQ(Issued(), 1u);  // the edge of before has not been forgotten
}

// --- Handed over as completions ------------------------------------------------------------------

TEST_F(TicketsTest, IsSentAsThePollMaskUnderTheToken) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Only(OpKind::kSend).sent, kPoll);
  EXPECT_EQ(Only(OpKind::kSend).tag, Token(0, 0));
}

// The worker looks, finds nothing more, and says Took: an edge in between is not for the ticket
// that was taken.
TEST_F(TicketsTest, AnEdgeThatComesBeforeTookIsLookedAtWhenItComes) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  Batch({Edge()});
  EXPECT_EQ(Issued(), 1u);
  Done(0, workers_[0]->tally().Take(1).places);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
}

TEST_F(TicketsTest, ACountBeforeTookIsRepeatedWhenItComes) {
  AddListener();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  Batch({Edge()});
  Batch({Counted(1)});  // the first was accepted, another one has come
  EXPECT_EQ(Issued(), 1u);
  Done(0, workers_[0]->tally().Take(1).places);
  Batch({Knock()});
  Batch({Counted(1)});
  EXPECT_EQ(Issued(), 2u);
}

// Nothing else wakes the master then: whoever says Took must find that it is waited for.
TEST_F(TicketsTest, WaitsForTookOnceAnEdgeHasComeBeforeIt) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  EXPECT_FALSE(hunger_.HearKnock());
  Batch({Edge()});
  engine_.CheckAll(true);
  Done(0, workers_[0]->tally().Take(1).places);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
  engine_.CheckAll(true);
}

TEST_F(TicketsTest, WaitsForTookOnceACountHasComeBeforeIt) {
  AddListener();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  EXPECT_FALSE(hunger_.HearKnock());
  Batch({Edge()});
  Batch({Counted(1)});
  engine_.CheckAll(true);
  Done(0, workers_[0]->tally().Take(1).places);
  EXPECT_TRUE(hunger_.HearKnock());
}

// It counts once for each edge, not again and again while it waits.
TEST_F(TicketsTest, DoesNotCountAgainBeforeTook) {
  AddListener();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  Batch({Edge()});
  Batch({Counted(1)});
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kCount), 1u);
}

TEST_F(TicketsTest, OneGivenBackBeforeTookIsIssuedAgainAfterIt) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  engine_.GiveBack(0, 0);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 1u);
  engine_.CheckAll(true);
  Done(0, workers_[0]->tally().Take(1).places);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
}

// What is said between the look and the raised flag is not knocked for.
TEST_F(TicketsTest, LooksForTookOnceMoreWhenTheFlagIsUp) {
  bool takes = false;
  AddOther(std::make_unique<Hooked>([&] {
    if (takes) Done(0, workers_[0]->tally().Take(1).places);
  }));
  const uint32_t other = AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge(other)});
  takes = true;
  Batch({Edge(other), Edge(0)});  // the first must wait for Took, which comes in this batch
  EXPECT_EQ(Issued(other), 2u);
}

// A leave, and the end of the source: nobody waits for a Took that matters to nobody.
TEST_F(TicketsTest, DoesNotWaitForTookWhenTheSourceIsGone) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  Batch({Edge()});
  engine_.RemoveSource(0);
  Batch({End(-ECANCELED)});
  EXPECT_FALSE(hunger_.HearKnock());
  engine_.CheckAll(true);
}

// Whoever receives tickets as completions need not tell that they did well.
TEST_F(TicketsTest, WhatIsTakenAndNotGivenBackCountsAsASuccess) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  for (uint32_t i = 0; i < 3 * ErrorsUntilPause(); ++i) {
    for (const int32_t error : {ECONNABORTED, 0}) {
      Batch({Edge()});
      if (error != 0) engine_.GiveBack(0, error);
      Done(0, workers_[0]->tally().Take(4).places);
      Batch({Knock()});
      Done(0, workers_[0]->tally().Take(4).places);
      Batch({Knock()});
    }
  }
  EXPECT_FALSE(engine_.WaitsForSuccess(0));
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(TicketsTest, WhatIsTakenAndAlwaysGivenBackIsNoSuccess) {
  for (const bool took_first : {false, true}) {
    const uint32_t source = AddOther();
    if (!took_first) AddWorker({.completions = true});
    if (took_first) engine_.Join(SourceIndex(source), 0);
    Batch();
    Batch({Edge(source)});
    uint32_t errors = 0;
    for (; errors < 2 * ErrorsUntilPause() && engine_.WaitMax(now_ns_) != FirstPauseNs();
         ++errors) {
      if (took_first) {
        Done(0, workers_[0]->tally().Take(4).places);
        Batch({Knock()});
      }
      engine_.GiveBack(source, ECONNABORTED);
      Batch({Knock()});
      if (!took_first) Done(0, workers_[0]->tally().Take(4).places);
      Batch({Knock()});
    }
    EXPECT_LE(errors, ErrorsUntilPause() + 1) << took_first;
    engine_.RemoveSource(source);
    Batch({End(-ECANCELED, source)});
  }
}

// A ticket is no connection: what it stands for is not lost with a worker that takes nothing.
TEST_F(TicketsTest, SomebodyElseGetsOneWhenItsWorkerTakesNothing) {
  AddOther();
  AddWorker({.completions = true});
  AddWorker();
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kSend), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kRecallAfter);
  now_ns_ += kRecallAfter;
  Batch();
  EXPECT_EQ(CountEvents(EventKind::kWorkerStalled), 1u);
  EXPECT_EQ(Claim(1), std::vector<int32_t>{kPoll});
  // The late Took is of no further meaning.
  Done(0, workers_[0]->tally().Take(1).places);
  Batch({Knock()});
  EXPECT_EQ(Issued(), 2u);
  EXPECT_EQ(CountEvents(EventKind::kWorkerMoves), 1u);
}

// Nobody waits any more for a ticket by which something went wrong. That says nothing of the next
// one, whose worker says only that it has taken it.
TEST_F(TicketsTest, AFailureIsForgottenTogetherWithItsTicket) {
  for (const bool leaves : {false, true}) {
    SCOPED_TRACE(leaves ? "the worker leaves" : "the worker stalls");
    const uint32_t source = AddOther();
    const uint32_t worker = AddWorker({.completions = true});
    Batch();
    Batch({Edge(source)});
    RunOutAndTryAgain(source);  // when it is taken
    uint32_t next = worker;
    if (leaves) {
      next = AddWorker({.completions = true});
      engine_.RemoveWorker(worker);
    } else {
      now_ns_ += kRecallAfter;
      Batch();
      Done(worker, workers_[worker]->tally().Take(1).places);
    }
    Batch({Knock()});
    ASSERT_EQ(Only(OpKind::kSend).tag, Token(source, next));
    EXPECT_TRUE(engine_.WaitsForSuccess(source));
    Done(next, workers_[next]->tally().Take(1).places);
    Batch();
    EXPECT_FALSE(engine_.WaitsForSuccess(source));
    engine_.ClearEvents();
    now_ns_ += kDescriptorsCalmNs;
    Batch();
    EXPECT_EQ(CountEvents(EventKind::kAccepting), 1u);
    engine_.RemoveWorker(next);
    engine_.RemoveSource(source);
    Batch();
    Batch({End(-ECANCELED, source)});
  }
}

// After a shortage Took alone says that all is well again, so whoever says it must find that it is
// waited for.
TEST_F(TicketsTest, WaitsForTookWhileAShortageIsToEnd) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  engine_.GiveBack(0, EMFILE);
  Batch();
  Done(0, workers_[0]->tally().Take(1).places);
  EXPECT_TRUE(hunger_.HearKnockOfLease());
  Batch({Knock()});
  ASSERT_EQ(Count(OpKind::kSend), 1u);
  engine_.CheckAll(false);
  Done(0, workers_[0]->tally().Take(1).places);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  EXPECT_FALSE(engine_.WaitsForSuccess(0));
  EXPECT_FALSE(hunger_.HearKnock());
}

// A connection of another source that could not be sent is not taken for the first that was.
TEST_F(TicketsTest, IsKnownToBeTakenAlsoWhenAConnectionBeforeItCouldNotBeSent) {
  AddOther();
  const uint32_t other = EngineTest::AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10, other)});
  Batch({Failed(Only(OpKind::kSend), EBADF)});
  now_ns_ += kDoorbellRetryNsMin;
  Batch({Edge()});  // and again the connection
  EXPECT_EQ(Count(OpKind::kSend), 2u);
  Done(0, workers_[0]->tally().Take(2).places);
  Batch({Edge()});
  EXPECT_EQ(Issued(), 2u);
}

// The failure is told late, and the worker has said by then that it took the ticket.
TEST_F(TicketsTest, IsKnownToBeTakenAlsoWhenThatWasCountedForAConnectionBeforeIt) {
  AddOther();
  const uint32_t other = EngineTest::AddSource();
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10, other)});
  const Op unsent = Only(OpKind::kSend);
  Batch({Edge()}, /*all_reported=*/false);
  Done(0, workers_[0]->tally().Take(1).places);
  Batch({}, /*all_reported=*/false);
  Batch({Failed(unsent, EBADF)});
  Batch({Edge()});
  now_ns_ += kDoorbellRetryNsMax;  // then its ring is tried again
  Batch();
  EXPECT_EQ(Issued(), 2u);
}

// Its worker has left before the failure was told, so somebody else has been given one.
TEST_F(TicketsTest, OneThatCouldNotBeSentMergesIntoTheNext) {
  Gate gate;
  gate.Limit(2);
  AddSource({.readiness = true, .gate = &gate}, RoundRobin());
  AddWorker({.completions = true});
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  const Op unsent = Only(OpKind::kSend);
  engine_.RemoveWorker(0);
  Batch({}, /*all_reported=*/false);
  EXPECT_EQ(Unclaimed(1) + Unclaimed(2), 1u);
  Batch({Failed(unsent, EBADFD)});
  EXPECT_EQ(Unclaimed(1) + Unclaimed(2), 1u);
  EXPECT_EQ(Held(), 0u);
  EXPECT_EQ(gate.used(), 1u);
  EXPECT_EQ(engine_.open(1) + engine_.open(2), 1u);
}

TEST_F(TicketsTest, IsIssuedAgainWhenItCouldNotBeSent) {
  AddOther();
  AddWorker({.completions = true});
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Failed(Only(OpKind::kSend), EBADF)});
  EXPECT_EQ(Claim(1).size(), 1u);
  EXPECT_EQ(Issued(), 1u);
}

// Took says how many, never which. So it may have been counted for a ticket that was not sent, and
// that one seems to be untaken still when its failure is told.
TEST_F(TicketsTest, IsIssuedAgainAlsoWhenItsWorkerHasSaidThatItTookSomethingElse) {
  AddOther();
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  const Op unsent = Only(OpKind::kSend);
  Done(0, workers_[0]->tally().Take(1).places);
  Batch({Failed(unsent, EBADF)});
  now_ns_ += kDoorbellRetryNsMin;
  Batch();
  EXPECT_EQ(Count(OpKind::kSend), 1u);
}

// --- Identity ------------------------------------------------------------------------------------

bool IsNothing(const GivenBack::News& news) {
  return !news.more && !news.redeemed && !news.nothing && news.error == 0;
}

TEST(Identity, ATicketOfASourceThatHasGoneSaysNothingOfTheNextOne) {
  GivenBack given_back;
  given_back.Say(7, EBADF);
  EXPECT_TRUE(IsNothing(given_back.Hear(8)));
  EXPECT_TRUE(IsNothing(given_back.Hear(8)));
  given_back.Say(8, 0);
  EXPECT_TRUE(given_back.Hear(8).more);
  EXPECT_TRUE(IsNothing(given_back.Hear(8)));
  given_back.Say(8, EMFILE);
  EXPECT_EQ(given_back.Hear(8).error, EMFILE);
}

// Both come back between two looks of the master.
TEST(Identity, ALateTicketDoesNotHideOneOfTheNextSource) {
  GivenBack given_back;
  given_back.Say(8, ENFILE);
  given_back.Say(7, EBADF);
  EXPECT_EQ(given_back.Hear(8).error, ENFILE);
  given_back.Say(7, EBADF);
  given_back.Say(8, ENFILE);
  EXPECT_EQ(given_back.Hear(8).error, ENFILE);
}

TEST(Identity, AReasonThatIsNoErrnoIsNone) {
  GivenBack given_back;
  for (const int32_t error : {-1, INT32_MIN, 4096, INT32_MAX}) {
    given_back.Say(1, error);
    const GivenBack::News news = given_back.Hear(1);
    EXPECT_TRUE(news.more) << error;
    EXPECT_EQ(news.error, 0) << error;
  }
}

// Two workers speak between two looks of the master: neither takes back what the other has said.
TEST(GivenBackTest, WhatSeveralSayIsAllHeard) {
  GivenBack given_back;
  given_back.Say(1, 0);
  given_back.Say(1, EAGAIN);
  given_back.Say(1, EMFILE);
  given_back.SayRedeemed(1);
  const GivenBack::News news = given_back.Hear(1);
  EXPECT_TRUE(news.more && news.nothing && news.redeemed);
  EXPECT_EQ(news.error, EMFILE);
  EXPECT_TRUE(IsNothing(given_back.Hear(1)));
}

// A bad connection must not hide a shortage from the master, or the source would not back off.
TEST(GivenBackTest, OfSeveralErrorsTheGravestIsHeard) {
  for (const bool gravest_last : {true, false}) {
    GivenBack given_back;
    given_back.Say(1, gravest_last ? ECONNABORTED : EMFILE);
    given_back.Say(1, gravest_last ? EMFILE : ECONNABORTED);
    EXPECT_EQ(given_back.Hear(1).error, EMFILE) << gravest_last;
  }
}

TEST(GivenBackTest, HavingFoundNothingIsNoReasonToLookAgain) {
  GivenBack given_back;
  given_back.Say(1, EAGAIN);
  EXPECT_FALSE(given_back.Hear(1).more);
  given_back.Say(1, EMFILE);
  EXPECT_FALSE(given_back.Hear(1).more);
}

TEST(GivenBackTest, OneIsAskedToSayThatAllIsWell) {
  GivenBack given_back;
  EXPECT_FALSE(given_back.Asked());
  given_back.Ask();
  EXPECT_TRUE(given_back.Asked());
  EXPECT_FALSE(given_back.Asked());
}

TEST(Identity, ASerialIsThatOfASourceUntilTheSourceHasGone) {
  SourceIdentity identity;
  EXPECT_FALSE(identity.Is(0));
  identity.Set(3);
  EXPECT_TRUE(identity.Is(3));
  EXPECT_FALSE(identity.Is(2));
  identity.Set(0);
  EXPECT_FALSE(identity.Is(3));
  EXPECT_FALSE(identity.Is(0));
}

TEST_F(TicketsTest, AnIndexIsUsedAgainAndASerialNever) {
  AddOther();
  const uint64_t first = engine_.source_serial(0);
  EXPECT_NE(first, 0u);
  engine_.RemoveSource(0);
  Batch();
  EXPECT_EQ(AddOther(), 0u);
  EXPECT_NE(engine_.source_serial(0), first);
}

// Whoever redeems has found that its source is still there, and uses its books until it is done.
TEST_F(TicketsTest, AnIndexIsNotUsedAgainWhileATicketIsBeingRedeemed) {
  AddOther();
  AddWorker();
  Batch();
  Batch({Edge()});
  Claim(0);
  workers_[0]->state().redeeming = 1;
  engine_.RemoveSource(0);
  Batch();
  Batch({End(-ECANCELED)});
  ASSERT_TRUE(engine_.IntakeEnded(0));
  EXPECT_EQ(engine_.NextSource(), 1u);
  workers_[0]->state().redeeming = 0;
  EXPECT_EQ(engine_.NextSource(), 0u);
}

// --- The rest ------------------------------------------------------------------------------------

TEST_F(TicketsTest, NothingIsAllocatedOnTheWay) {
  AddListener();
  AddWorker({.window = 4});
  AddWorker({.window = 4, .completions = true});
  Batch();
  const std::vector<Completion> edge{Edge()};
  const std::vector<Completion> counted{Counted(6)};
  const size_t before = testing::AllocationCount();
  for (int i = 0; i < 20; ++i) {
    engine_.OnBatch(edge, now_ns_, ops_);
    engine_.OnBatch(counted, now_ns_, ops_);
    workers_[0]->inbox().Begin();
    uint32_t taken = 0;
    while (workers_[0]->TakeOne()) ++taken;
    Done(0, taken);
    Done(1, workers_[1]->tally().Take(4).places);
    engine_.OnBatch({}, now_ns_, ops_);
  }
  EXPECT_EQ(testing::AllocationCount(), before);
  EXPECT_GT(Issued(), 20u);
}

}  // namespace
}  // namespace ringmaster::core
