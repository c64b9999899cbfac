// Workers that say when they wait (Port::BeforeWait). Method: the test is the kernel and the
// workers, and asks the policy what it was shown.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/aside.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

class WaitsTest : public EngineTest {
 protected:
  // Picks `picked_` if that is a candidate, else whoever is first, or nobody when `wants_idle_` and
  // nobody is. Remembers what it was shown. Takes either of two workers as `may_move_` says.
  class Showing final : public Policy {
   public:
    explicit Showing(WaitsTest* test) : test_(test) {}
    std::string name() const override { return "showing"; }
    size_t Pick(const ringmaster::Arrival&, const View& view) override {
      test_->shown_.assign(view.candidates.begin(), view.candidates.end());
      if (test_->in_pick_) std::exchange(test_->in_pick_, nullptr)->BeforeWait(test_->hunger_);
      if (test_->never_) return kNobodyNow;
      for (size_t i = 0; i < view.candidates.size(); ++i) {
        if (view.candidates[i].worker == test_->picked_) return i;
      }
      if (!test_->wants_idle_) return 0;
      for (size_t i = 0; i < view.candidates.size(); ++i) {
        if (view.candidates[i].idle()) return i;
      }
      return kNobodyNow;
    }
    bool MayMove(const ringmaster::Arrival&, const Candidate& from,
                 const Candidate& to) const override {
      return test_->may_move_(from.worker, to.worker);
    }

   private:
    WaitsTest* const test_;
  };

  void AddShowing() { AddSource({}, std::make_unique<Showing>(this)); }
  void BeforeWait(uint32_t worker) { workers_[worker]->BeforeWait(hunger_); }
  void AfterWait(uint32_t worker) { workers_[worker]->AfterWait(); }

  // By now, whatever lies with a busy worker may be moved.
  void SleepUntilDue() {
    EXPECT_LE(engine_.WaitMax(now_ns_), kMoveAfterNs);
    now_ns_ += kMoveAfterNs;
  }

  uint32_t picked_ = UINT32_MAX;
  bool wants_idle_ = false;
  bool never_ = false;  // picks nobody
  std::function<bool(uint32_t from, uint32_t to)> may_move_ = [](uint32_t, uint32_t) {
    return false;
  };
  MemoryWorker* in_pick_ = nullptr;  // says in the middle of a pick that it waits
  std::vector<Candidate> shown_;
};

TEST_F(WaitsTest, AWorkerThatGivesHintsIsIdleWhileItWaitsWithNothingUnclaimed) {
  AddShowing();
  AddWorker();
  AddWorker();
  Batch();
  BeforeWait(0);
  AfterWait(1);
  Batch({Arrival(10)});
  EXPECT_TRUE(shown_[0].idle());
  EXPECT_FALSE(shown_[0].busy());
  EXPECT_FALSE(shown_[1].idle());
  EXPECT_TRUE(shown_[1].busy());
  BeforeWait(1);
  Batch({Arrival(11)});
  EXPECT_FALSE(shown_[0].idle());  // it has something unclaimed
  EXPECT_FALSE(shown_[0].busy());
  EXPECT_TRUE(shown_[1].idle());
  EXPECT_EQ(Claim(0).size(), 2u);
  AfterWait(0);
  Batch({Arrival(12)});
  EXPECT_FALSE(shown_[0].idle());  // it is in no claim, and yet busy
  EXPECT_TRUE(shown_[0].busy());
}

TEST_F(WaitsTest, AWorkerWithoutHintsIsIdleWhenItIsInNoClaimAndNeverBusy) {
  AddShowing();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  EXPECT_TRUE(shown_[0].idle());
  EXPECT_FALSE(shown_[0].busy());
  Claim(0);
  workers_[0]->state().StartServing();
  Batch({Arrival(11)});
  EXPECT_FALSE(shown_[0].idle());
  EXPECT_FALSE(shown_[0].busy());
}

// Its loop says too little: it claims in what it takes for its wait.
TEST_F(WaitsTest, AWorkerInAClaimIsNeverIdleWhateverItSays) {
  AddShowing();
  AddWorker();
  Batch();
  BeforeWait(0);
  workers_[0]->state().StartServing();
  Batch({Arrival(10)});
  EXPECT_FALSE(shown_[0].idle());
}

TEST_F(WaitsTest, ConnectionsGoToWorkersThatWait) {
  AddSource({}, LeastLoaded());
  for (int i = 0; i < 3; ++i) AddWorker();
  Batch();
  AfterWait(0);
  BeforeWait(1);
  AfterWait(2);
  Batch({Arrival(10)});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  Batch({Arrival(11)});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{11});
  // It has two more than the others by now.
  Batch({Arrival(12), Arrival(13)});
  EXPECT_EQ(Claim(0).size() + Claim(2).size(), 2u);
}

TEST_F(WaitsTest, WhatIsSetAsideIsAskedAboutWhenSomebodySaysThatItWaits) {
  wants_idle_ = true;
  AddShowing();
  AddWorker();
  AddWorker();
  Batch();
  AfterWait(0);
  AfterWait(1);
  Batch({Arrival(10)});
  EXPECT_EQ(engine_.ledger().source(0).aside, 1u);
  EXPECT_TRUE(workers_[1]->BeforeWait(hunger_));
  EXPECT_FALSE(workers_[0]->BeforeWait(hunger_));  // one knock is enough
  AfterWait(0);
  Batch({Knock()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  Batch({Knock()});
  EXPECT_FALSE(workers_[1]->BeforeWait(hunger_));  // nobody wants to know
}

TEST_F(WaitsTest, WhoSaysThatItWaitsWhileThePolicyIsAskedIsNotMissed) {
  wants_idle_ = true;
  AddShowing();
  AddWorker();
  Batch();
  AfterWait(0);
  in_pick_ = workers_[0].get();
  Batch({Arrival(10)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

// It makes no credit, and comes to its wait far more often than anybody claims.
TEST_F(WaitsTest, AWorkerThatIsAboutToWaitDoesNotKnockForCredit) {
  AddShowing();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Held(), 1u);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(workers_[0]->BeforeWait(hunger_));
  EXPECT_TRUE(workers_[0]->Claim(hunger_));
}

// --- What lies with a busy worker is moved, by (23) ----------------------------------------------

TEST_F(WaitsTest, WhatLiesWithABusyWorkerIsMovedToOneThatWaitsAndTheTurnIsOwed) {
  AddSource({}, RoundRobin());
  AddWorker();
  AddWorker();
  Batch();
  AfterWait(0);
  BeforeWait(1);
  Batch({Arrival(10)});
  EXPECT_EQ(Unclaimed(0), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), kMoveAfterNs);
  now_ns_ += kMoveAfterNs - 1;
  Batch();
  EXPECT_EQ(Unclaimed(0), 1u);
  now_ns_ += 1;
  Batch();
  EXPECT_EQ(Claim(0), std::vector<int32_t>{});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  // It has not stalled: it has its window, and its turn is owed.
  EXPECT_EQ(engine_.window(0), 4u);
  EXPECT_EQ(engine_.stalls(0), 0u);
  EXPECT_EQ(CountEvents(EventKind::kWorkerStalled), 0u);
  BeforeWait(0);
  Batch({Arrival(11), Arrival(12), Arrival(13)});
  EXPECT_EQ(Claim(0).size(), 2u);
  EXPECT_EQ(Claim(1).size(), 1u);
}

// Otherwise each arrival would lie there first, because a turn is owed to the busy worker.
TEST_F(WaitsTest, WhoWasRelievedGetsNothingUntilItWaits) {
  AddSource({}, RoundRobin());
  for (int i = 0; i < 3; ++i) AddWorker();
  Batch();
  AfterWait(0);
  BeforeWait(1);
  BeforeWait(2);
  Batch({Arrival(10)});
  EXPECT_EQ(Unclaimed(0), 1u);
  now_ns_ += kMoveAfterNs;
  Batch();
  EXPECT_EQ(Claim(1).size(), 1u);
  for (int32_t i = 0; i < 4; ++i) {
    Batch({Arrival(11 + i)});
    EXPECT_EQ(Unclaimed(0), 0u);
    EXPECT_EQ(Claim(i % 2 == 0 ? 2 : 1).size(), 1u);
  }
  BeforeWait(0);
  Batch({Arrival(20)});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{20});
}

TEST_F(WaitsTest, WhoWasRelievedIsAskedWhereThereIsNobodyElse) {
  AddSource({}, RoundRobin());
  AddWorker();
  AddWorker({.capacity = 1});
  Batch();
  AfterWait(0);
  BeforeWait(1);
  Batch({Arrival(10)});
  now_ns_ += kMoveAfterNs;
  Batch();
  EXPECT_EQ(Claim(1).size(), 1u);  // and it is full
  Batch({Arrival(11)});
  EXPECT_EQ(Unclaimed(0), 1u);
  EXPECT_EQ(Claim(0).size(), 1u);
  workers_[1]->state().Release();
  AfterWait(0);
  BeforeWait(1);
  Batch({Arrival(12)});
  EXPECT_EQ(Unclaimed(0), 1u) << "it has claimed since";
}

TEST_F(WaitsTest, WhoeverWaitsFirstIsAskedForWhenNobodyDoes) {
  AddSource({}, RoundRobin());
  AddWorker();
  AddWorker();
  Batch();
  AfterWait(0);
  AfterWait(1);
  Batch({Arrival(10)});
  EXPECT_FALSE(workers_[1]->BeforeWait(hunger_));  // it is too young
  AfterWait(1);
  SleepUntilDue();
  Batch();
  EXPECT_GT(engine_.WaitMax(now_ns_), kMoveAfterNs);  // the master does not go on looking
  EXPECT_TRUE(workers_[1]->BeforeWait(hunger_));
  Batch({Knock()});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  EXPECT_FALSE(workers_[1]->BeforeWait(hunger_));
}

// It says so after it was looked at, and before the flag is up.
TEST_F(WaitsTest, WhoSaysThatItWaitsWhileSomethingElseIsMovedIsNotMissed) {
  AddShowing();
  for (int i = 0; i < 4; ++i) AddWorker();
  Batch();
  for (uint32_t worker = 0; worker < 4; ++worker) AfterWait(worker);
  may_move_ = [](uint32_t from, uint32_t to) { return to == from + 2; };
  for (picked_ = 0; picked_ < 2; ++picked_) Batch({Arrival(10 + static_cast<int32_t>(picked_))});
  SleepUntilDue();
  // The first is looked at before the second.
  BeforeWait(3);
  in_pick_ = workers_[2].get();
  Batch();
  EXPECT_EQ(Unclaimed(3), 1u);
  EXPECT_EQ(Unclaimed(0), 1u);
  EXPECT_EQ(engine_.WaitMax(now_ns_), 0);
  Batch();
  EXPECT_EQ(Claim(2), std::vector<int32_t>{10});
  EXPECT_EQ(Claim(3), std::vector<int32_t>{11});
}

TEST_F(WaitsTest, NothingIsMovedTwice) {
  AddSource({}, RoundRobin());
  AddWorker();
  AddWorker();
  Batch();
  AfterWait(0);
  BeforeWait(1);
  Batch({Arrival(10)});
  SleepUntilDue();
  Batch();
  EXPECT_EQ(Unclaimed(1), 1u);
  AfterWait(1);  // for something else
  BeforeWait(0);
  now_ns_ += 2 * kMoveAfterNs;
  Batch({Knock()});
  EXPECT_EQ(Unclaimed(1), 1u);
  now_ns_ += kRecallAfter;
  Claim(0);  // nothing, but the master hears of it
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
}

TEST_F(WaitsTest, AWorkerThatGoesOnClaimingKeepsWhatItHas) {
  AddSource({}, RoundRobin());
  AddWorker({.window = 16});
  Batch();
  AfterWait(0);
  std::vector<Completion> arrivals;
  for (int32_t fd = 10; fd < 20; ++fd) arrivals.push_back(Arrival(fd));
  Batch(arrivals);
  AddWorker();
  BeforeWait(1);
  workers_[0]->inbox().Begin();
  for (int i = 0; i < 9; ++i) {
    now_ns_ += kMoveAfterNs - 1;
    EXPECT_TRUE(workers_[0]->TakeOne());
    Batch();
    EXPECT_EQ(Unclaimed(1), 0u) << i;
  }
  now_ns_ += kMoveAfterNs;
  Batch();
  EXPECT_EQ(Unclaimed(1), 1u);
  EXPECT_EQ(engine_.ledger().worker(0).moved, 1u);
  EXPECT_EQ(engine_.ledger().worker(0).recalled, 0u);  // that is for workers that are stuck
}

TEST_F(WaitsTest, NothingIsMovedThatThePolicyOrTheSourceWantsToStay) {
  AddSource({.recall = false}, RoundRobin());
  AddShowing();
  AddWorker();
  AddWorker();
  Batch();
  AfterWait(0);
  BeforeWait(1);
  picked_ = 0;
  Batch({Arrival(10, 0), Arrival(11, 1)});
  ASSERT_EQ(Unclaimed(0), 2u);
  for (int i = 0; i < 10; ++i) {
    now_ns_ += kMoveAfterNs;
    Batch();
    EXPECT_GT(engine_.WaitMax(now_ns_), 0);
  }
  EXPECT_EQ(Unclaimed(0), 2u);
}

TEST_F(WaitsTest, LeastLoadedMovesNothingToAWorkerWithTwoMore) {
  AddSource({}, LeastLoaded());
  AddWorker();
  AddWorker();
  Batch();
  for (int i = 0; i < 2; ++i) workers_[1]->state().ForceReserve();
  AfterWait(0);
  BeforeWait(1);
  Batch({Arrival(10)});
  EXPECT_EQ(Unclaimed(0), 1u);
  now_ns_ += kMoveAfterNs;
  Batch();
  EXPECT_EQ(Unclaimed(0), 1u);
  workers_[1]->Release(hunger_);
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
}

TEST_F(WaitsTest, NothingIsMovedToAWorkerThatHasNoPlaceOrGivesNoHints) {
  AddSource({}, RoundRobin());
  AddWorker();
  AddWorker({.capacity = 1});
  AddWorker();  // without hints
  Batch();
  workers_[1]->state().ForceReserve();
  AfterWait(0);
  BeforeWait(1);
  Batch({Arrival(10)});
  ASSERT_EQ(Unclaimed(0), 1u);
  now_ns_ += 2 * kMoveAfterNs;
  Batch();
  EXPECT_EQ(Unclaimed(0), 1u);
}

TEST_F(WaitsTest, WhatIsMovedAndPickedForNobodyIsSetAside) {
  AddShowing();
  AddWorker();
  AddWorker();
  Batch();
  AfterWait(0);
  BeforeWait(1);
  picked_ = 0;
  Batch({Arrival(10)});
  may_move_ = [this](uint32_t, uint32_t to) {
    never_ = true;
    return to == 1;
  };
  now_ns_ += kMoveAfterNs;
  Batch();
  EXPECT_EQ(Unclaimed(0), 0u);
  EXPECT_EQ(engine_.ledger().source(0).aside, 1u);
  never_ = false;
  now_ns_ += kAskAgainNsMax;
  picked_ = 1;
  Batch();
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
}

TEST_F(WaitsTest, TicketsAreMovedToo) {
  AddSource({.readiness = true}, RoundRobin());
  AddWorker();
  AddWorker();
  Batch();
  AfterWait(0);
  BeforeWait(1);
  Batch({Edge()});
  EXPECT_EQ(Unclaimed(0), 1u);
  SleepUntilDue();
  Batch();
  EXPECT_EQ(Claim(0).size(), 0u);
  EXPECT_EQ(Claim(1).size(), 1u);
}

TEST_F(WaitsTest, ToAReceiverOfCompletionsItIsSent) {
  AddSource({}, RoundRobin());
  AddWorker();
  AddWorker({.completions = true});
  Batch();
  AfterWait(0);
  BeforeWait(1);
  Batch({Arrival(10)});
  SleepUntilDue();
  Batch();
  EXPECT_EQ(Only(OpKind::kSend).sent, 10);
}

}  // namespace
}  // namespace ringmaster::core
