// What workers have claimed and passed on. Method: as in engine_fixture.h; a worker that passes a
// connection on gives its place back first, as the worker's side of the library does.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

class PassedOnTest : public EngineTest {
 protected:
  // What a policy was shown last.
  struct Shown {
    std::vector<uint32_t> candidates;
    std::vector<uint32_t> joined;
    ringmaster::Arrival arrival;
  };
  // Picks the last candidate, or nobody.
  class Watching final : public Policy {
   public:
    explicit Watching(PassedOnTest* test) : test_(test) {}
    std::string name() const override { return "watching"; }
    FactsNeeded facts() const override { return {.peer = true}; }
    size_t Pick(const ringmaster::Arrival& arrival, const View& view) override {
      Shown& shown = test_->shown_;
      shown = {.joined = {view.joined.begin(), view.joined.end()}, .arrival = arrival};
      for (const Candidate& candidate : view.candidates) {
        shown.candidates.push_back(candidate.worker);
      }
      return test_->picks_nobody_ ? kNobodyNow : view.candidates.size() - 1;
    }

   private:
    PassedOnTest* const test_;
  };

  std::unique_ptr<Policy> Watch() { return std::make_unique<Watching>(this); }

  // The worker has claimed them, before if it has no open ones, and gives them to somebody else.
  void PassOn(uint32_t giver, std::vector<int32_t> fds, uint32_t source = 0,
              bool request_waits = false) {
    std::vector<PassedOn> passed_on;
    for (const int32_t fd : fds) {
      if (engine_.open(giver) > 0) workers_[giver]->state().Release();
      passed_on.push_back(
          {.source = source, .fd = fd, .giver = giver, .facts = {.request_waits = request_waits}});
    }
    engine_.PassOn(passed_on, now_ns_);
  }
  std::vector<int32_t> Closed() const {
    std::vector<int32_t> closed;
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kClose) closed.push_back(op.fd);
    }
    return closed;
  }
  const SourceCount& Count(uint32_t source = 0) const { return engine_.ledger().source(source); }
  using EngineTest::Count;

  Shown shown_;
  bool picks_nobody_ = false;
};

TEST_F(PassedOnTest, GoesToSomebodyElseAlthoughTheGiverHasTheFewest) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  ASSERT_EQ(Claim(0), std::vector<int32_t>{10});
  AddWorker();
  workers_[1]->state().open = 2;
  PassOn(0, {10});
  Batch();
  EXPECT_EQ(engine_.open(0), 0u);
  EXPECT_EQ(engine_.open(1), 3u);
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  Batch({Knock()});
  EXPECT_EQ(Count().arrivals, 1u);
  EXPECT_EQ(Count().passed_on, 1u);
  EXPECT_EQ(Count().claimed, 2u);
  engine_.CheckAll(true);
}

TEST_F(PassedOnTest, ThePolicyIsShownTheOthersAndWhatWasAskedOfTheConnection) {
  AddSource({}, Watch());
  for (int i = 0; i < 3; ++i) AddWorker();
  Batch();
  const std::vector<PassedOn> passed_on = {
      {.source = 0, .fd = 10, .giver = 1, .facts = {.peer = {.port = 77}}}};
  engine_.PassOn(passed_on, now_ns_);
  Batch();
  EXPECT_EQ(shown_.candidates, (std::vector<uint32_t>{0, 2}));
  EXPECT_EQ(shown_.joined, (std::vector<uint32_t>{0, 2}));
  EXPECT_EQ(shown_.arrival.peer.port, 77);
  EXPECT_EQ(Claim(2), std::vector<int32_t>{10});  // its position among all three
  Batch({Arrival(11)});
  EXPECT_EQ(shown_.joined, (std::vector<uint32_t>{0, 1, 2}));
}

// Rule "a request waits" of core/dealer.h.
TEST_F(PassedOnTest, WhatHasARequestGoesToThoseWhoWait) {
  AddSource({}, Watch());
  for (int i = 0; i < 5; ++i) AddWorker();
  for (const uint32_t busy : {0u, 3u}) workers_[busy]->AfterWait();
  for (const uint32_t waits : {1u, 2u}) workers_[waits]->BeforeWait(hunger_);
  Batch();  // the last gives no hints, so it may be doing anything
  const std::vector<PassedOn> passed_on(
      4, {.source = 0, .fd = 10, .giver = 0, .facts = {.request_waits = true}});
  engine_.PassOn(std::span(passed_on).first(1), now_ns_);
  Batch();
  EXPECT_EQ(shown_.candidates, (std::vector<uint32_t>{1, 2}));
  EXPECT_EQ(shown_.joined, (std::vector<uint32_t>{1, 2, 3, 4}));
  EXPECT_TRUE(shown_.arrival.request_waits);
  EXPECT_EQ(Claim(2), std::vector<int32_t>{10});  // its position among all five
  // What was given something does not wait any more; if nobody does, it may be anybody.
  engine_.PassOn(passed_on, now_ns_);
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  EXPECT_EQ(Claim(2), std::vector<int32_t>{10});
  EXPECT_EQ(shown_.candidates, (std::vector<uint32_t>{1, 2, 3, 4}));
  EXPECT_EQ(Claim(4), (std::vector<int32_t>{10, 10}));
  engine_.CheckAll(true);
}

TEST_F(PassedOnTest, WhatHasARequestMayGoToAWaiterAlsoWhenItsGiverHasLeft) {
  AddSource({}, Watch());
  for (int i = 0; i < 3; ++i) AddWorker();
  workers_[0]->BeforeWait(hunger_);
  workers_[1]->AfterWait();
  Batch();
  const std::vector<PassedOn> passed_on = {
      {.source = 0, .fd = 10, .giver = UINT32_MAX, .facts = {.request_waits = true}}};
  engine_.PassOn(passed_on, now_ns_);
  Batch();
  EXPECT_EQ(shown_.candidates, std::vector<uint32_t>{0});
  EXPECT_EQ(shown_.joined, (std::vector<uint32_t>{0, 1, 2}));
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, ComesBackWhenNobodyElseHasJoined) {
  AddSource({}, Watch());
  AddWorker();
  Batch();
  PassOn(0, {10});
  Batch();
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, KeepsItsTurnAmongWhatIsNew) {
  AddSource();
  AddWorker({.window = 1});
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  ASSERT_EQ(Held(), 1u);
  PassOn(0, {5});
  Batch({Arrival(13)});
  ASSERT_EQ(Held(), 3u);
  EXPECT_EQ(Claim(1).size(), 1u);
  Batch({Knock()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{12});
  Batch({Knock()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{5});
  Batch({Knock()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{13});
}

// The others are full: it waits for them, and the giver goes on with what is new.
TEST_F(PassedOnTest, WaitsForTheOthersAndHoldsUpNothingElse) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 8});
  AddWorker({.window = 8, .capacity = 1});
  Batch();
  workers_[1]->state().open = 1;
  PassOn(0, {10, 11});
  Batch();
  EXPECT_EQ(Held(), 2u);
  EXPECT_FALSE(engine_.starved(0));
  engine_.CheckAll(true);
  Batch({Edge()});
  ASSERT_EQ(Count(OpKind::kAccept), 2u);
  Batch({Accepted(20), Accepted(-EAGAIN)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{20});
  Batch();
  EXPECT_EQ(engine_.WaitMax(now_ns_), kWaitForever);
  engine_.CheckAll(true);
  EXPECT_TRUE(workers_[1]->Release(hunger_));  // it was asked to knock
  Batch({Knock()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  EXPECT_EQ(Held(), 1u);
}

// So does a source that is full, which must not take the credit of a giver for a reason to go on.
TEST_F(PassedOnTest, WaitsForTheOthersAtAFullGateWithoutSpinning) {
  Gate gate;
  gate.Limit(1);
  AddSource({.multishot_accept = false, .gate = &gate});
  AddWorker();
  AddWorker({.capacity = 1});
  workers_[1]->state().open = 1;
  Batch();
  gate.ForceReserve();
  PassOn(0, {10});
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  Batch({Knock()});
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  engine_.CheckAll(true);
}

TEST_F(PassedOnTest, DoesNotCountTowardsTheHold) {
  AddSource({.hold = 1});
  AddWorker();
  AddWorker({.capacity = 1});
  workers_[1]->state().open = 1;
  Batch();
  PassOn(0, {10, 11});
  Batch();
  EXPECT_EQ(Held(), 2u);
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 0u);
  Batch({Arrival(12)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{12});
}

TEST_F(PassedOnTest, WhatTwoGiversHavePassedOnDoesNotHoldUpEachOther) {
  AddSource();
  AddWorker();
  AddWorker();
  AddWorker({.capacity = 1});
  workers_[1]->state().open = 4;
  workers_[2]->state().open = 1;
  engine_.SetCapacity(1, 4);
  Batch();
  PassOn(0, {10});
  workers_[1]->state().open = 5;
  PassOn(1, {11});
  Batch();
  EXPECT_EQ(Claim(0), std::vector<int32_t>{11});
  EXPECT_EQ(Held(), 1u);
}

TEST_F(PassedOnTest, IsForAnybodyWhenItsGiverHasLeft) {
  AddSource();
  AddWorker();
  AddWorker({.capacity = 1});
  workers_[1]->state().open = 1;
  Batch();
  PassOn(0, {10, 11});
  Batch();
  ASSERT_EQ(Held(), 2u);
  engine_.RemoveWorker(0);
  Batch();
  EXPECT_EQ(AddWorker(), 0u);  // another one of the same index
  Batch();
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
  engine_.CheckAll(true);
}

TEST_F(PassedOnTest, AGiverThatHasNotJoinedIsNoGiver) {
  AddSource();
  AddWorker();
  AddWorker();
  engine_.Leave(SourceIndex(0), 0);
  Batch();
  PassOn(0, {10});
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, AGiverThatHasJoinedAnewWhenItIsTakenInIsItsGiver) {
  AddSource();
  AddWorker();
  AddWorker({.capacity = 1});
  workers_[1]->state().open = 1;
  Batch();
  engine_.Leave(SourceIndex(0), 0);
  engine_.Join(SourceIndex(0), 0);
  PassOn(0, {10});
  Batch();
  EXPECT_EQ(Held(), 1u);
  engine_.Leave(SourceIndex(0), 0);
  engine_.Join(SourceIndex(0), 0);
  Batch();
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, IsRecalledForAThirdButNotForItsGiver) {
  AddSource();
  AddWorker();
  AddWorker();
  Batch();
  PassOn(0, {10});
  Batch();
  ASSERT_EQ(Unclaimed(1), 1u);
  now_ns_ += 10 * kRecallAfter;
  Batch();
  EXPECT_EQ(Unclaimed(1), 1u);
  AddWorker();
  now_ns_ += 10 * kRecallAfter;
  Batch();
  EXPECT_EQ(Unclaimed(1), 0u);
  EXPECT_EQ(Claim(2), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, IsNotRecalledWhenOnlyItsGiverHasCredit) {
  AddSource();
  AddWorker();
  AddWorker();
  AddWorker({.capacity = 1});
  workers_[2]->state().open = 1;
  Batch();
  PassOn(0, {10});
  Batch();
  ASSERT_EQ(Unclaimed(1), 1u);
  now_ns_ += 10 * kRecallAfter;
  Batch();
  EXPECT_EQ(Unclaimed(1), 1u);
  EXPECT_TRUE(workers_[2]->Release(hunger_));  // it was asked to knock
  Batch({Knock()});
  EXPECT_EQ(Claim(2), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, IsRecalledFromItsGiverThatWasAloneWhenItCameBack) {
  AddSource();
  AddWorker();
  Batch();
  PassOn(0, {10});
  Batch();
  ASSERT_EQ(Unclaimed(0), 1u);
  AddWorker();
  now_ns_ += 10 * kRecallAfter;
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, WhatComesBackFromALeaverDoesNotGoToItsGiver) {
  AddSource();
  for (int i = 0; i < 3; ++i) AddWorker();
  workers_[2]->state().open = 4;
  Batch();
  PassOn(0, {10});
  Batch();
  ASSERT_EQ(Unclaimed(1), 1u);
  engine_.RemoveWorker(1);
  Batch();
  EXPECT_EQ(Claim(2), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, ManyAtOnceFindRoomAndABatchAllocatesNothing) {
  AddSource({.hold = 1});
  for (int i = 0; i < 4; ++i) AddWorker({.window = 64});
  Batch();
  std::vector<int32_t> fds;
  for (int32_t fd = 100; fd < 20'100; ++fd) fds.push_back(fd);
  workers_[0]->state().open = static_cast<uint32_t>(fds.size());
  const auto middle = fds.begin() + 60;
  for (uint32_t worker = 1; worker < 4; ++worker) workers_[worker]->BeforeWait(hunger_);
  PassOn(0, {fds.begin(), middle}, 0, /*request_waits=*/true);
  PassOn(0, {middle, fds.end()});
  const uint64_t before = testing::AllocationCount();
  engine_.OnBatch({}, now_ns_, ops_);
  EXPECT_EQ(testing::AllocationCount(), before);
  engine_.CheckAll(false);
  EXPECT_EQ(Held(), fds.size() - 3 * 64);
  size_t served = 0;
  for (int rounds = 0; rounds < 1'000 && served < fds.size(); ++rounds) {
    EXPECT_TRUE(Claim(0).empty());
    for (uint32_t worker = 1; worker < 4; ++worker) served += Claim(worker).size();
    Batch({Knock()});
  }
  EXPECT_EQ(served, fds.size());
  EXPECT_EQ(Count(OpKind::kClose), 0u);
}

TEST_F(PassedOnTest, KeepsItsPlaceAtTheGate) {
  Gate gate;
  gate.Limit(1);
  AddSource({.multishot_accept = false, .gate = &gate});
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Accepted(10)});
  const uint32_t first = Unclaimed(0) == 1 ? 0 : 1;
  ASSERT_EQ(Claim(first), std::vector<int32_t>{10});
  ASSERT_EQ(gate.used(), 1u);
  PassOn(first, {10});
  Batch();
  EXPECT_EQ(gate.used(), 1u);
  EXPECT_EQ(Claim(1 - first), std::vector<int32_t>{10});
  PassOn(1 - first, {10});
  engine_.StopIntake();
  engine_.RefuseAll();
  Batch();
  EXPECT_EQ(Closed(), std::vector<int32_t>{10});
  EXPECT_EQ(gate.used(), 0u);
  EXPECT_EQ(Count().refused, 1u);
}

// A promise is for what was asked for. One that the accept did not need is free, although
// something is held that was passed on.
TEST_F(PassedOnTest, KeepsNoPromise) {
  AddSource({.multishot_accept = false});
  AddWorker({.capacity = 1});
  AddWorker({.capacity = 1});
  workers_[1]->state().open = 1;
  Batch();
  Batch({Edge()});
  ASSERT_EQ(engine_.promised(0), 1u);
  const std::vector<PassedOn> passed_on = {{.source = 0, .fd = 10, .giver = 0}};
  engine_.PassOn(passed_on, now_ns_);
  Batch({Accepted(-EAGAIN)});
  EXPECT_EQ(Held(), 1u);
  EXPECT_EQ(engine_.promised(0), 0u);
}

TEST_F(PassedOnTest, OfARemovedSourceIsDealtAsLongAsAnybodyHasJoined) {
  AddSource();
  AddWorker({.window = 1});
  AddWorker({.window = 1});
  Batch();
  engine_.RemoveSource(0);
  PassOn(0, {10, 11});
  Batch({End(-ECANCELED)});
  EXPECT_EQ(engine_.NextSource(), 1u);
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  engine_.RemoveWorker(0);
  engine_.RemoveWorker(1);
  Batch();
  EXPECT_EQ(Closed(), std::vector<int32_t>{11});
  EXPECT_EQ(Count().refused, 1u);
  EXPECT_EQ(engine_.NextSource(), 0u);
}

TEST_F(PassedOnTest, WhatIsRefusedAtOnceIsCounted) {
  Gate gate;
  gate.Limit(2);
  AddSource({.gate = &gate});
  gate.ForceReserve();
  engine_.RefuseAtOnce(0);
  EXPECT_EQ(gate.used(), 0u);
  EXPECT_EQ(Count().passed_on, 1u);
  EXPECT_EQ(Count().refused, 1u);
  engine_.CheckAll(false);
}

TEST_F(PassedOnTest, ItsAgeCountsFromThen) {
  constexpr int64_t kAgeMax = 5'000'000;
  engine_.AddSource({.fd = kListenFd, .hold = 64, .age_max_ns = kAgeMax, .policy = LeastLoaded()});
  AddWorker();
  AddWorker({.capacity = 1});
  workers_[1]->state().open = 1;
  Batch();
  now_ns_ += 100 * kAgeMax;
  PassOn(0, {10});
  Batch();
  EXPECT_EQ(engine_.WaitMax(now_ns_), kAgeMax);
  now_ns_ += kAgeMax - 1;
  Batch();
  EXPECT_EQ(Held(), 1u);
  now_ns_ += 1;
  Batch();
  EXPECT_EQ(Closed(), std::vector<int32_t>{10});
  EXPECT_EQ(Count().dropped, 1u);
}

TEST_F(PassedOnTest, MayBeSetAsideWithoutBeingAskedAboutForNothing) {
  AddSource({}, Watch());
  AddWorker();
  AddWorker();
  Batch();
  picks_nobody_ = true;
  PassOn(0, {10});
  Batch();
  EXPECT_EQ(Count().aside, 1u);
  EXPECT_GT(engine_.WaitMax(now_ns_), 0);  // the giver's credit is no news
  engine_.CheckAll(true);
  picks_nobody_ = false;
  now_ns_ += 10'000'000;
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
}

TEST_F(PassedOnTest, IsHandedOverAsACompletion) {
  AddSource();
  AddWorker({.completions = true});
  AddWorker({.completions = true});
  Batch();
  PassOn(1, {10});
  Batch();
  EXPECT_EQ(Only(OpKind::kSend).fd, 100);
  EXPECT_EQ(Only(OpKind::kSend).sent, 10);
  const Op sent = Only(OpKind::kSend);
  Batch({Failed(sent, ENOMEM)});
  EXPECT_EQ(Count(OpKind::kSend), 0u);  // its ring is tried again later
  EXPECT_EQ(Held(), 1u);
}

TEST_F(PassedOnTest, IsHeldWhileNobodyDrivesTheMaster) {
  AddSource();
  AddWorker();
  AddWorker();
  Batch();
  engine_.Rest();
  Batch({End(-ECANCELED)});
  PassOn(0, {10});
  Batch();
  EXPECT_EQ(Held(), 1u);
  engine_.GoOn();
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
}

}  // namespace
}  // namespace ringmaster::core
