// Who gets what, and what policies are shown. Method: as in engine_fixture.h.

#include "core/dealer.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/inbox.h"
#include "core/port_state.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

using DealerTest = EngineTest;

// A policy that keeps what it was shown.
class LookingPolicy final : public Policy {
 public:
  explicit LookingPolicy(std::vector<Candidate>* seen) : seen_(seen) {}
  std::string name() const override { return "looking"; }
  size_t Pick(const ringmaster::Arrival&, const View& view) override {
    seen_->assign(view.candidates.begin(), view.candidates.end());
    return 0;
  }

 private:
  std::vector<Candidate>* const seen_;
};

TEST_F(DealerTest, TellsThePolicyForHowLongAWorkerHasNotMoved) {
  std::vector<Candidate> seen;
  AddSource({}, std::make_unique<LookingPolicy>(&seen));
  AddWorker();
  AddWorker();
  Batch();
  now_ns_ += 50'000'000;
  Batch({Arrival(10)});
  EXPECT_EQ(seen[0].still_ns, 0);  // nothing waits for it
  now_ns_ += 1000;
  Batch({Arrival(11)});
  EXPECT_EQ(seen[0].still_ns, 1000);
  EXPECT_EQ(seen[1].still_ns, 0);
  now_ns_ += 1000;
  workers_[0]->inbox().Begin();
  EXPECT_TRUE(workers_[0]->TakeOne());
  now_ns_ += 1000;
  Batch({Arrival(12)});
  EXPECT_EQ(seen[0].still_ns, 0);  // as the master has just seen that it moves
  now_ns_ += 500;
  Batch({Arrival(13)});
  EXPECT_EQ(seen[0].still_ns, 500);
}

// A lease may end before its worker says that it has taken the connection.
TEST_F(DealerTest, ShowsThePolicyNoMoreUnclaimedThanOpen) {
  std::vector<Candidate> seen;
  AddSource({}, std::make_unique<LookingPolicy>(&seen));
  AddWorker({.completions = true});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(seen[0].open, 1u);
  EXPECT_EQ(seen[0].unclaimed, 1u);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(workers_[0]->tally().Lease());
    workers_[0]->Release(hunger_);
  }
  now_ns_ += 1000;
  Batch({Arrival(12)});
  EXPECT_EQ(seen[0].open, 0u);
  EXPECT_EQ(seen[0].unclaimed, 0u);
  EXPECT_EQ(seen[0].still_ns, 0);  // nothing waits for it
  workers_[0]->tally().Take(2);
  now_ns_ += 1000;
  Batch({Arrival(13)});
  EXPECT_EQ(seen[0].open, 1u);
  EXPECT_EQ(seen[0].unclaimed, 1u);
}

TEST_F(DealerTest, DealsARoundExactly) {
  AddSource({}, RoundRobin());
  for (int i = 0; i < 3; ++i) AddWorker({.window = 8});
  Batch();
  std::vector<size_t> claimed(3);
  int32_t fd = 10;
  for (int batch = 0; batch < 60; ++batch) {
    Batch({Arrival(fd), Arrival(fd + 1), Arrival(fd + 2), Arrival(fd + 3), Arrival(fd + 4)});
    fd += 5;
    for (uint32_t worker = 0; worker < 3; ++worker) claimed[worker] += Claim(worker).size();
  }
  EXPECT_EQ(claimed, (std::vector<size_t>{100, 100, 100}));
}

TEST_F(DealerTest, OffersToASlowWorkerOnlyWhenItIsNotAtWorkUnlessNobodyElseCanTakeIt) {
  AddSource({}, RoundRobin());
  AddWorker({.window = 8});
  AddWorker({.window = 2});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Claim(1), std::vector<int32_t>{11});
  now_ns_ += kRecallAfter;
  Batch();  // recalled from worker 0, whose window has not grown back yet
  EXPECT_EQ(Claim(1), std::vector<int32_t>{10});
  Claim(0);  // it moves
  Batch();
  EXPECT_EQ(engine_.window(0), 4u);

  workers_[0]->state().serving = 1;
  Batch({Arrival(12)});  // its turn, and it is owed one
  EXPECT_EQ(Unclaimed(0), 0u);
  EXPECT_EQ(Claim(1), std::vector<int32_t>{12});
  Batch({Arrival(13), Arrival(14), Arrival(15)});
  EXPECT_EQ(Unclaimed(1), 2u);
  EXPECT_EQ(Unclaimed(0), 1u);  // the window of worker 1 is full
  Claim(0);
  Claim(1);
  workers_[0]->state().serving = 0;
  Batch({Arrival(16)});
  EXPECT_EQ(Unclaimed(0), 1u);
  Claim(0);

  now_ns_ += kSlowMemory * kRecallAfter;  // long enough to be forgotten
  workers_[0]->state().serving = 1;
  Batch({Arrival(17)});
  EXPECT_EQ(Unclaimed(0), 1u);
}

TEST_F(DealerTest, OwesARecalledTurnBack) {
  AddSource({}, RoundRobin());
  for (int i = 0; i < 2; ++i) AddWorker({.window = 8});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  std::vector<size_t> claimed(2);
  claimed[1] += Claim(1).size();
  now_ns_ += kRecallAfter;
  Batch();  // the first worker's turn goes to the second
  claimed[1] += Claim(1).size();
  claimed[0] += Claim(0).size();
  Batch();
  EXPECT_EQ(claimed, (std::vector<size_t>{0, 2}));
  for (int32_t fd = 20; fd < 28; ++fd) {
    Batch({Arrival(fd)});
    for (uint32_t worker = 0; worker < 2; ++worker) claimed[worker] += Claim(worker).size();
  }
  EXPECT_EQ(claimed, (std::vector<size_t>{5, 5}));
}

TEST_F(DealerTest, TellsThePolicyWhoIsIdle) {
  AddSource({}, Exclusive(WakeOrder::kLifo));
  for (int i = 0; i < 2; ++i) AddWorker({.window = 8});
  Batch();
  Batch({Arrival(10)});
  const uint32_t first = Unclaimed(0) == 1 ? 0 : 1;
  now_ns_ += kRecallAfter / 2;  // long enough not to come together
  Batch({Arrival(11)});
  EXPECT_EQ(Unclaimed(1 - first), 1u);
}

}  // namespace
}  // namespace ringmaster::core
