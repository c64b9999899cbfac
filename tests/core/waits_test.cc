// Workers that say when they wait (Port::BeforeWait). Method: the test is the kernel and the
// workers, and asks the policy what it was shown.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine_fixture.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

class WaitsTest : public EngineTest {
 protected:
  // Picks whoever is first, or nobody when `wants_idle_` and nobody is; remembers what it was
  // shown.
  class Showing final : public Policy {
   public:
    explicit Showing(WaitsTest* test) : test_(test) {}
    std::string name() const override { return "showing"; }
    size_t Pick(const ringmaster::Arrival&, const View& view) override {
      test_->shown_.assign(view.candidates.begin(), view.candidates.end());
      if (test_->in_pick_) std::exchange(test_->in_pick_, nullptr)->BeforeWait(test_->hunger_);
      if (!test_->wants_idle_) return 0;
      for (size_t i = 0; i < view.candidates.size(); ++i) {
        if (view.candidates[i].idle) return i;
      }
      return kNobodyNow;
    }

   private:
    WaitsTest* const test_;
  };

  void AddShowing() { AddSource({}, std::make_unique<Showing>(this)); }
  void BeforeWait(uint32_t worker) { workers_[worker]->BeforeWait(hunger_); }
  void AfterWait(uint32_t worker) { workers_[worker]->AfterWait(); }

  bool wants_idle_ = false;
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
  EXPECT_TRUE(shown_[0].idle);
  EXPECT_FALSE(shown_[0].busy);
  EXPECT_FALSE(shown_[1].idle);
  EXPECT_TRUE(shown_[1].busy);
  BeforeWait(1);
  Batch({Arrival(11)});
  EXPECT_FALSE(shown_[0].idle);  // it has something unclaimed
  EXPECT_FALSE(shown_[0].busy);
  EXPECT_TRUE(shown_[1].idle);
  EXPECT_EQ(Claim(0).size(), 2u);
  AfterWait(0);
  Batch({Arrival(12)});
  EXPECT_FALSE(shown_[0].idle);  // it is in no claim, and yet busy
  EXPECT_TRUE(shown_[0].busy);
}

TEST_F(WaitsTest, AWorkerWithoutHintsIsIdleWhenItIsInNoClaimAndNeverBusy) {
  AddShowing();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  EXPECT_TRUE(shown_[0].idle);
  EXPECT_FALSE(shown_[0].busy);
  Claim(0);
  workers_[0]->state().StartServing();
  Batch({Arrival(11)});
  EXPECT_FALSE(shown_[0].idle);
  EXPECT_FALSE(shown_[0].busy);
}

// Its loop says too little: it claims in what it takes for its wait.
TEST_F(WaitsTest, AWorkerInAClaimIsNeverIdleWhateverItSays) {
  AddShowing();
  AddWorker();
  Batch();
  BeforeWait(0);
  workers_[0]->state().StartServing();
  Batch({Arrival(10)});
  EXPECT_FALSE(shown_[0].idle);
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

}  // namespace
}  // namespace ringmaster::core
