// Policies that pick nobody for a while (core/aside.h). Method: the test is the kernel and the
// workers. The policy answers as the test says: which worker, by the port of the client, or nobody.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

constexpr int64_t kMs = 1'000'000;

// Every client has a worker that is its own, and goes to nobody else.
size_t ToItsOwn(const Arrival& arrival, const View& view) {
  for (size_t i = 0; i < view.candidates.size(); ++i) {
    if (view.candidates[i].worker == arrival.peer.port) return i;
  }
  return Policy::kNobodyNow;
}

size_t ToNobody(const Arrival&, const View&) { return Policy::kNobodyNow; }

class AsideTest : public EngineTest {
 protected:
  using Answer = std::function<size_t(const ringmaster::Arrival&, const View&)>;

  class Answering final : public Policy {
   public:
    Answering(AsideTest* test, Answer answer) : test_(test), answer_(std::move(answer)) {}
    std::string name() const override { return "answering"; }
    size_t Pick(const ringmaster::Arrival& arrival, const View& view) override {
      ++test_->picks_;
      return answer_(arrival, view);
    }

   private:
    AsideTest* const test_;
    const Answer answer_;
  };

  std::unique_ptr<Policy> Says(Answer answer) {
    return std::make_unique<Answering>(this, std::move(answer));
  }
  static Completion Of(uint16_t client, Completion completion) {
    completion.facts.peer.port = client;
    return completion;
  }
  static Completion Counted(int32_t count) {
    return {.key = {.kind = OpKind::kCount}, .result = count};
  }
  uint64_t SetAside(uint32_t source = 0) const { return engine_.ledger().source(source).aside; }
  uint64_t EverSetAside() const { return engine_.ledger().source(0).aside_ever; }
  std::vector<int32_t> Closed() const {
    std::vector<int32_t> closed;
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kClose) closed.push_back(op.fd);
    }
    return closed;
  }
  // What a master that sleeps does: batches, until it would sleep for longer than this.
  void SleepFor(int64_t ns) {
    const int64_t until_ns = now_ns_ + ns;
    for (int batches = 0;; ++batches) {
      ASSERT_LT(batches, 10'000) << "it spins";
      const int64_t wait_ns = engine_.WaitMax(now_ns_);
      if (After(now_ns_, wait_ns) > until_ns) break;
      now_ns_ += wait_ns;
      Batch();
    }
    now_ns_ = until_ns;
  }
  // A worker claims what it has, which is more than nothing, and the master hears of it.
  void ClaimAndKnock(uint32_t worker, std::vector<int32_t> fds) {
    std::vector<int32_t> claimed;
    EXPECT_TRUE(workers_[worker]->Claim(hunger_, &claimed));
    EXPECT_EQ(claimed, fds);
    Batch({Knock()});
  }

  uint64_t picks_ = 0;
};

TEST_F(AsideTest, AnArrivalWaitsForTheWorkerThatItIsForAndHoldsNobodyElseUp) {
  AddSource({}, Says(ToItsOwn));
  AddWorker({.window = 1});
  AddWorker({.window = 4});
  Batch();
  Batch({Of(0, Arrival(10)), Of(0, Arrival(11)), Of(1, Arrival(12)), Of(0, Arrival(13))});
  EXPECT_EQ(SetAside(), 2u);
  EXPECT_EQ(Held(), 2u);
  ClaimAndKnock(1, {12});
  EXPECT_EQ(SetAside(), 2u);
  engine_.CheckAll(true);
  // Whoever has its credit back knocks, and the oldest gets it.
  ClaimAndKnock(0, {10});
  EXPECT_EQ(SetAside(), 1u);
  ClaimAndKnock(0, {11});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{13});
  EXPECT_EQ(SetAside(), 0u);
  EXPECT_EQ(EverSetAside(), 2u);
  EXPECT_EQ(engine_.intake(0).policy_faults, 0u);
}

TEST_F(AsideTest, AFreePlaceOfALeaseIsSomethingNew) {
  AddSource({}, Says([](const auto&, const View& view) {
              return view.candidates[0].open < 2 ? size_t{0} : Policy::kNobodyNow;
            }));
  AddWorker({.window = 8});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  EXPECT_EQ(SetAside(), 1u);
  Claim(0);
  Batch({Knock()});
  EXPECT_EQ(SetAside(), 1u);
  EXPECT_TRUE(workers_[0]->Release(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{12});
}

TEST_F(AsideTest, ALeaseThatEndsWhileThePolicyIsAskedIsNotMissed) {
  bool first = true;
  AddSource({}, Says([&](const auto&, const View& view) {
              // It was looked at before, and the flag is raised later.
              if (std::exchange(first, false)) workers_[0]->state().Release();
              return view.candidates[0].open < 1 ? size_t{0} : Policy::kNobodyNow;
            }));
  AddWorker({.window = 8});
  workers_[0]->state().ForceReserve();
  Batch();
  Batch({Arrival(10)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(AsideTest, AWorkerThatJoinsAndOneThatLeavesAndAnotherPolicyAreSomethingNew) {
  AddSource({}, Says([](const auto&, const View& view) {
              return view.joined.size() == 2 ? size_t{1} : Policy::kNobodyNow;
            }));
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  EXPECT_EQ(SetAside(), 1u);
  AddWorker();
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  AddWorker();
  Batch();
  Batch({Arrival(11)});
  EXPECT_EQ(SetAside(), 1u);
  engine_.Leave(SourceIndex(0), 0);
  Batch();
  EXPECT_EQ(Claim(2), std::vector<int32_t>{11});
  AddWorker();
  Batch();
  Batch({Arrival(12)});
  EXPECT_EQ(SetAside(), 1u);
  engine_.SetPolicy(0, LeastLoaded());
  Batch();
  EXPECT_EQ(SetAside(), 0u);
  EXPECT_EQ(Held(), 0u);
}

TEST_F(AsideTest, IsAskedAgainAfterAWhileAndNeverSpins) {
  bool now = false;
  AddSource(
      {}, Says([&now](const auto&, const View&) { return now ? size_t{0} : Policy::kNobodyNow; }));
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(picks_, 2u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kAskAgainNsMin);
  // Nothing has changed, so whoever wakes the master for something else costs no question.
  Batch({Knock()});
  EXPECT_EQ(picks_, 2u);
  SleepFor(10'000 * kMs);
  EXPECT_GE(picks_, 2u + 2 * 100);
  EXPECT_LE(picks_, 2u + 2 * 110);
  now = true;
  SleepFor(kAskAgainNsMax);
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
  Batch({Knock()});
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

// It was due while its worker had no credit. Nothing is better afterwards than it was shown before.
TEST_F(AsideTest, WhatIsDueWhileNobodyHasCreditIsAskedAboutWhenSomebodyHas) {
  AddSource({}, Says([](const auto& arrival, const View&) {
              return arrival.peer.port == 0 ? size_t{0} : Policy::kNobodyNow;
            }));
  AddWorker({.window = 1});
  Batch();
  Batch({Of(1, Arrival(10)), Of(0, Arrival(11))});
  EXPECT_EQ(picks_, 2u);
  SleepFor(kAskAgainNsMin);
  EXPECT_EQ(picks_, 2u);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{11});
  workers_[0]->Release(hunger_);
  Batch({Knock()});
  EXPECT_EQ(picks_, 3u);
  Batch({Knock()});
  EXPECT_EQ(picks_, 3u);
}

TEST_F(AsideTest, SaysOnceThatSomethingWaitsForLongAndThatNoMoreMayBe) {
  size_t answer = Policy::kNobodyNow;
  AddSource({.hold = 3}, Says([&answer](const auto&, const View&) { return answer; }));
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  SleepFor(900 * kMs);
  EXPECT_EQ(CountEvents(EventKind::kSetAside), 0u);
  SleepFor(300 * kMs);
  EXPECT_EQ(CountEvents(EventKind::kSetAside), 1u);
  engine_.CatchUp(now_ns_);
  EXPECT_EQ(engine_.OldestAsideNs(0), 1'200 * kMs);
  SleepFor(5'000 * kMs);
  EXPECT_EQ(CountEvents(EventKind::kSetAside), 1u);
  answer = 0;
  SleepFor(kAskAgainNsMax);
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  EXPECT_EQ(engine_.OldestAsideNs(0), 0);
  answer = Policy::kNobodyNow;
  Batch({Arrival(11), Arrival(12)});
  EXPECT_EQ(CountEvents(EventKind::kSetAside), 1u);
  Batch({Arrival(13)});
  EXPECT_EQ(CountEvents(EventKind::kSetAside), 2u);
}

TEST_F(AsideTest, NoMoreIsSetAsideThanMayBeAndNothingMoreIsAskedFor) {
  AddSource({.multishot_accept = false, .hold = 3}, Says(ToItsOwn));
  AddWorker({.window = 8});
  AddWorker({.window = 8});
  engine_.SetWindow(0, 1);
  Batch();
  Batch({Edge()});
  ASSERT_EQ(Count(OpKind::kAccept), 2u);
  Batch({Of(0, Accepted(10)), Of(0, Accepted(11))});
  EXPECT_EQ(SetAside(), 1u);
  // There may be two more, although more was found so far each time.
  ASSERT_EQ(Count(OpKind::kAccept), 2u);
  Batch({Of(0, Accepted(12)), Of(0, Accepted(13))});
  EXPECT_EQ(SetAside(), 3u);
  EXPECT_EQ(CountEvents(EventKind::kSetAside), 1u);
  // It may have more, so it is armed until the next edge.
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  EXPECT_EQ(Count(OpKind::kPollEnd), 1u);
  Batch({End(-ECANCELED)});
  engine_.CheckAll(true);
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kAccept) + Count(OpKind::kPoll), 0u);
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  ClaimAndKnock(0, {10});
  EXPECT_EQ(SetAside(), 2u);
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  Batch({Accepted(-EAGAIN)});
  EXPECT_TRUE(engine_.armed(0));
  engine_.CheckAll(true);
}

TEST_F(AsideTest, AMultishotAcceptEndsWhenAsMuchIsHeldAsMayBe) {
  AddSource({.hold = 2}, Says(ToNobody));
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  // What came beyond it is held, and nobody was asked about it.
  EXPECT_EQ(SetAside(), 2u);
  EXPECT_EQ(Held(), 3u);
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  Batch({End(-ECANCELED)});
  engine_.CheckAll(true);
  const uint64_t picks = picks_;
  Batch({Knock()});
  EXPECT_EQ(picks_, picks);
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  engine_.SetPolicy(0, RoundRobin());
  Batch();
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11, 12}));
  EXPECT_EQ(Count(OpKind::kAcceptEach), 1u);
}

TEST_F(AsideTest, KeepsNeitherCreditNorPlacesFromOtherSources) {
  AddSource({.multishot_accept = false, .hold = 2}, Says(ToNobody));
  AddSource({.multishot_accept = false}, RoundRobin());
  AddWorker({.window = 1, .capacity = 1});
  Batch();
  Batch({Edge(0)});
  ASSERT_EQ(Count(OpKind::kAccept), 1u);
  EXPECT_EQ(engine_.promised(0), 1u);
  Batch({Accepted(10, 0), Edge(1)});
  EXPECT_EQ(SetAside(0), 1u);
  // Both had their turn: the place that the first has found nobody for is free for the second.
  ASSERT_EQ(Only(OpKind::kAccept).key.index, 1u);
  Batch({Accepted(20, 1)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{20});
  EXPECT_EQ(workers_[0]->state().open, 1u);
  EXPECT_EQ(engine_.promised(0), 0u);
  Batch({Knock()});
  engine_.CheckAll(true);
}

TEST_F(AsideTest, OfOneSourceThatIsFullOthersAreServed) {
  AddSource({.multishot_accept = false, .hold = 1}, Says(ToNobody));
  AddSource({.multishot_accept = false}, RoundRobin());
  AddWorker({.window = 2});
  Batch();
  Batch({Edge(0)});
  Batch({Accepted(10, 0), Accepted(11, 0)});
  EXPECT_EQ(SetAside(0), 1u);
  EXPECT_EQ(Held(0), 2u);
  for (int32_t fd = 20; fd < 60; fd += 2) {
    Batch({Edge(1)});
    ASSERT_EQ(Count(OpKind::kAccept), 2u);
    Batch({Accepted(fd, 1), Accepted(fd + 1, 1)});
    EXPECT_EQ(Claim(0), (std::vector<int32_t>{fd, fd + 1}));
    Batch({Knock()});
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kAccept) Batch({Accepted(-EAGAIN, 1), Accepted(-EAGAIN, 1)});
    }
  }
}

TEST_F(AsideTest, WhatIsRecalledGoesBackToItsPlaceInTheOrder) {
  AddSource({}, Says(ToItsOwn));
  AddWorker({.window = 2});
  AddWorker({.window = 1});
  AddWorker({.window = 8});
  Batch();
  // 10 and 11 lie with the first, 12 with the second, and 13 waits for that.
  Batch({Of(0, Arrival(10)), Of(1, Arrival(11)), Of(1, Arrival(12)), Of(0, Arrival(13))});
  EXPECT_EQ(SetAside(), 1u);
  now_ns_ += kRecallAfter;
  Batch({Knock()});
  // The others could have what lies with workers that do not move, but are not for it.
  EXPECT_EQ(SetAside(), 4u);
  EXPECT_EQ(Claim(0).size() + Claim(1).size() + Claim(2).size(), 0u);
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{11});
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{13});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{12});
}

TEST_F(AsideTest, WhatGrowsTooOldIsClosed) {
  engine_.AddSource({.fd = kListenFd,
                     .intake = {.kind = IntakeKind::kAccept},
                     .hold = 8,
                     .age_max_ns = 20 * kMs,
                     .age_facts = kFactCame,
                     .policy = Says(ToNobody)});
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  now_ns_ += 10 * kMs;
  Batch({Arrival(11)});
  EXPECT_EQ(SetAside(), 2u);
  now_ns_ += 9 * kMs;
  Batch();
  EXPECT_TRUE(Closed().empty());
  now_ns_ += 1 * kMs;
  EXPECT_EQ(engine_.WaitMax(now_ns_), 0);
  Batch();
  EXPECT_EQ(Closed(), std::vector<int32_t>{10});
  now_ns_ += 10 * kMs;
  Batch();
  EXPECT_EQ(Closed(), std::vector<int32_t>{11});
  EXPECT_EQ(engine_.ledger().source(0).dropped, 2u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(AsideTest, IsDealtAfterTheSourceWasRemovedAndRefusedWhenNobodyIsLeft) {
  AddSource({}, Says(ToItsOwn));
  AddWorker({.window = 1});
  AddWorker({.window = 1});
  Batch();
  Batch({Of(0, Arrival(10)), Of(0, Arrival(11)), Of(2, Arrival(12))});
  engine_.RemoveSource(0);
  Batch();
  EXPECT_EQ(SetAside(), 2u);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{11});
  EXPECT_EQ(engine_.NextSource(), 1u);
  engine_.Leave(SourceIndex(0), 0);
  Batch();
  EXPECT_TRUE(Closed().empty());
  engine_.Leave(SourceIndex(0), 1);
  Batch();
  EXPECT_EQ(Closed(), std::vector<int32_t>{12});
  EXPECT_EQ(engine_.NextSource(), 0u);
}

TEST_F(AsideTest, AShutdownGoesOnAskingUntilItsDeadlineAndClosesTheRest) {
  AddSource({}, Says(ToItsOwn));
  AddWorker({.window = 1});
  Batch();
  Batch({Of(0, Arrival(10)), Of(0, Arrival(11)), Of(1, Arrival(12))});
  engine_.StopIntake();
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(engine_.Outstanding(), 3u);
  ClaimAndKnock(0, {10});
  ClaimAndKnock(0, {11});
  EXPECT_EQ(engine_.Outstanding(), 1u);
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  engine_.RefuseAll();
  Batch();
  EXPECT_EQ(Closed(), std::vector<int32_t>{12});
  EXPECT_EQ(engine_.Outstanding(), 0u);
  EXPECT_EQ(engine_.ledger().source(0).refused, 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
}

TEST_F(AsideTest, NobodyIsAskedWhileTheMasterRestsAndAllAreAfterwards) {
  size_t answer = Policy::kNobodyNow;
  AddSource({}, Says([&answer](const auto&, const View&) { return answer; }));
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  engine_.Rest();
  Batch();
  Batch({End(-ECANCELED)});
  answer = 0;
  now_ns_ += 1'000 * kMs;
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  Batch();
  EXPECT_EQ(SetAside(), 1u);
  engine_.GoOn();
  Batch();
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(AsideTest, APausedSourceIsStillDealt) {
  AddSource({}, Says(ToItsOwn));
  AddWorker({.window = 1});
  Batch();
  Batch({Of(0, Arrival(10)), Of(0, Arrival(11))});
  engine_.Pause(0);
  Batch();
  ClaimAndKnock(0, {10});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{11});
}

TEST_F(AsideTest, NobodyIsAskedWhileNobodyHasJoined) {
  AddSource({}, Says(ToNobody));
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  engine_.Leave(SourceIndex(0), 0);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(SetAside(), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  engine_.CheckAll(true);
  engine_.SetPolicy(0, RoundRobin());
  engine_.Join(SourceIndex(0), 0);
  Batch();
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(AsideTest, OfWhatCannotBeCountedOneTicketWaitsAndMoreMergesIntoIt) {
  size_t answer = Policy::kNobodyNow;
  AddSource({.readiness = true}, Says([&answer](const auto&, const View&) { return answer; }));
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  EXPECT_EQ(SetAside(), 1u);
  Batch({Edge()});
  Batch({Edge()});
  EXPECT_EQ(SetAside(), 1u);
  EXPECT_EQ(engine_.ledger().source(0).arrivals, 1u);
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  engine_.CheckAll(true);
  answer = 1;
  SleepFor(kAskAgainNsMin);
  EXPECT_EQ(Claim(1), std::vector<int32_t>{kPoll});
  EXPECT_EQ(engine_.ledger().source(0).arrivals, 1u);
  Batch({Edge()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{kPoll});
}

TEST_F(AsideTest, OfAListenerNoMoreTicketsWaitThanMayBeSetAside) {
  size_t answer = Policy::kNobodyNow;
  AddSource({.hold = 3, .readiness = true, .countable = true},
            Says([&answer](const auto&, const View&) { return answer; }));
  AddWorker({.window = 8});
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  EXPECT_EQ(SetAside(), 1u);
  Batch({Edge()});
  Batch({Counted(9)});
  EXPECT_EQ(SetAside(), 3u);
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  Batch({End(-ECANCELED)});
  EXPECT_FALSE(engine_.armed(0));
  engine_.CheckAll(true);
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  answer = 0;
  SleepFor(kAskAgainNsMax);
  EXPECT_EQ(Claim(0).size(), 3u);
  Batch({Knock()});
  EXPECT_TRUE(engine_.ready(0) || Count(OpKind::kCount) == 1);
}

// What the first ticket was for may have been accepted before the count. Then the count is of one
// more than are told of.
TEST_F(AsideTest, AFullSourceStillWaitsForTheTicketsThatWereUntakenWhenItCounted) {
  size_t answer = 0;
  AddSource({.hold = 1, .readiness = true, .countable = true},
            Says([&answer](const auto&, const View&) { return answer; }));
  AddWorker({.completions = true});
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  EXPECT_EQ(Count(OpKind::kSend), 1u);
  answer = Policy::kNobodyNow;
  Batch({Edge()});
  Batch({Counted(2)});
  EXPECT_EQ(SetAside(), 1u);
  Batch({End(-ECANCELED)});
  engine_.CheckAll(true);
  answer = 0;
  SleepFor(kAskAgainNsMin);
  EXPECT_EQ(SetAside(), 0u);
  engine_.CheckAll(true);
  const Tally::Took took = workers_[0]->tally().Take(2);
  EXPECT_EQ(took.count, 2u);
  workers_[0]->state().Release(took.places);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  EXPECT_EQ(Count(OpKind::kCount), 1u);
}

TEST_F(AsideTest, TicketsThatAreSetAsideAreWithdrawnWithTheirSourceAndGiveTheirPlacesBack) {
  Gate gate;
  gate.Limit(4);
  AddSource({.readiness = true, .gate = &gate}, Says(ToNobody));
  AddSource({.readiness = true}, Says(ToNobody));
  AddWorker();
  Batch();
  Batch({Edge(0), Edge(1)});
  EXPECT_EQ(SetAside(0), 1u);
  EXPECT_EQ(gate.used(), 1u);
  engine_.RemoveSource(0);
  Batch();
  EXPECT_EQ(SetAside(0), 0u);
  EXPECT_EQ(gate.used(), 0u);
  engine_.StopIntake();
  Batch();
  EXPECT_EQ(SetAside(1), 0u);
  EXPECT_EQ(engine_.Outstanding(), 0u);
}

TEST_F(AsideTest, AWorkerToWhomCompletionsAreSentSaysByTookThatItCanHaveMore) {
  AddSource({}, Says(ToItsOwn));
  AddWorker({.window = 1, .completions = true});
  AddWorker({.window = 1, .completions = true});
  Batch();
  Batch({Of(0, Arrival(10)), Of(0, Arrival(11))});
  EXPECT_EQ(Only(OpKind::kSend).sent, 10);
  Batch();
  const Tally::Took took = workers_[0]->tally().Take(1);
  workers_[0]->state().Release(took.places);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Knock()});
  EXPECT_EQ(Only(OpKind::kSend).sent, 11);
}

TEST_F(AsideTest, NothingIsAllocatedForWhatIsSetAside) {
  AddSource({.hold = 64}, Says(ToItsOwn));
  AddWorker({.window = 2});
  AddWorker({.window = 4});
  Batch();
  std::vector<Completion> completions;
  completions.reserve(8);
  const uint64_t before = testing::AllocationCount();
  for (int32_t i = 0; i < 500; ++i) {
    completions.clear();
    for (uint16_t client = 0; client < 3; ++client) {
      if (Held() < 32) completions.push_back(Of(client % 2, Arrival(10 + client)));
    }
    now_ns_ += kMs;
    engine_.OnBatch(completions, now_ns_, ops_);
    if (i % 3 == 0) workers_[0]->Claim(hunger_);
    workers_[1]->Claim(hunger_);
  }
  EXPECT_EQ(testing::AllocationCount(), before);
  EXPECT_GT(EverSetAside(), 100u);
}

// Random arrivals, claims and ends. What is set aside is never more than may be, and nothing is
// lost. Each gets its own worker in the order in which they came.
TEST_F(AsideTest, EachGetsItsOwnInOrder) {
  AddSource({.hold = 5}, Says(ToItsOwn));
  for (uint32_t window : {1u, 2u, 4u}) AddWorker({.window = window});
  Batch();
  std::vector<std::vector<int32_t>> came(3);
  std::vector<std::vector<int32_t>> got(3);
  uint32_t random = 1;
  const auto draw = [&random](uint32_t below) {
    random = random * 1664525 + 1013904223;
    return (random >> 16) % below;
  };
  for (int32_t step = 0; step < 5'000; ++step) {
    std::vector<Completion> completions;
    const auto client = static_cast<uint16_t>(draw(3));
    if (step < 4'000 && engine_.armed(0) && Held() < 5 && draw(2) == 0) {
      completions.push_back(Of(client, Arrival(1000 + step)));
      came[client].push_back(1000 + step);
    }
    now_ns_ += 10'000;
    Batch(completions);
    ASSERT_LE(SetAside(), 5u);
    if (draw(3) == 0 || step >= 4'000) workers_[client]->Claim(hunger_, &got[client]);
    if (engine_.armed(0) || Count(OpKind::kAcceptEnd) == 0) continue;
  }
  EXPECT_EQ(Held(), 0u);
  EXPECT_EQ(got, came);
  EXPECT_GT(EverSetAside(), 500u);
}

// Between two batches a source is removed and another one gets its index: nothing that the first
// one had kept at its workers may be forgotten.
TEST_F(AsideTest, APlaceThatATicketWasPromisedIsFreeWhenItsSourceMakesRoomForAnother) {
  const uint32_t source = AddSource(
      {.multishot_accept = false, .hold = 1, .readiness = true, .countable = true}, Says(ToNobody));
  AddWorker({.capacity = 2});
  Batch();
  Batch({Edge()});
  Batch({Counted(5)});
  ASSERT_EQ(SetAside(), 1u);
  Batch({End(-ECANCELED)});
  engine_.RemoveSource(source);
  ASSERT_EQ(engine_.NextSource(), source);
  AddSource();
  Batch();
  EXPECT_EQ(workers_[0]->state().open, 0u);
}

}  // namespace
}  // namespace ringmaster::core
