// Sources and workers come, change and go. Method: as in engine_fixture.h.

#include "core/registry.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/op.h"
#include "core/port_state.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

using RegistryTest = EngineTest;

TEST_F(RegistryTest, TakesASourceInNoMoreThatIsRemovedAndDealsWhatItHasAccepted) {
  AddSource();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.RemoveSource(0);
  EXPECT_FALSE(engine_.IntakeEnded(0));
  Batch();
  EXPECT_EQ(Count(OpKind::kAcceptEnd), 1u);
  Batch({Arrival(12), End(-ECANCELED)});
  EXPECT_TRUE(engine_.IntakeEnded(0));
  EXPECT_EQ(Held(), 2u);
  for (const int32_t fd : {10, 11, 12}) {
    EXPECT_EQ(Claim(0), (std::vector<int32_t>{fd}));
    Batch({Knock()});
    EXPECT_EQ(Count(OpKind::kAcceptEach), 0u);
  }
}

TEST_F(RegistryTest, RefusesWhatARemovedSourceHoldsWhenTheLastWorkerHasLeft) {
  AddSource();
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.RemoveSource(0);
  Batch();
  engine_.RemoveWorker(0);
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Count(OpKind::kClose), 2u);
  EXPECT_EQ(engine_.ledger().source(0).refused, 2u);
}

TEST_F(RegistryTest, UsesTheIndexOfARemovedSourceAgainOnceNothingOfItIsLeft) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  engine_.RemoveSource(0);
  EXPECT_EQ(engine_.NextSource(), 1u);  // armed
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(engine_.NextSource(), 1u);  // an offer
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
  workers_[0]->state().serving = 1;  // as if that claim went on
  Batch();
  EXPECT_EQ(engine_.NextSource(), 1u);  // the worker may be looking up its token
  workers_[0]->state().serving = 0;
  EXPECT_EQ(engine_.NextSource(), 0u);
  EXPECT_EQ(AddSource(), 0u);
  EXPECT_EQ(engine_.ledger().source(0).arrivals, 0u);
  EXPECT_EQ(engine_.departed_sources().arrivals, 1u);
  EXPECT_EQ(engine_.departed_sources().claimed, 1u);
  const uint16_t generation = armed_[0].generation;
  engine_.Join(SourceIndex(0), 0);
  Batch();
  EXPECT_NE(Only(OpKind::kAcceptEach).key.generation, generation);
}

TEST_F(RegistryTest, AddsASourceWhereItWasToldToThoughALowerIndexIsFreeByThen) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  engine_.RemoveSource(0);
  Batch();
  Batch({End(-ECANCELED)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
  workers_[0]->state().serving = 1;  // as if that claim went on
  Batch();
  const uint32_t index = engine_.NextSource();
  EXPECT_EQ(index, 1u);
  workers_[0]->state().serving = 0;  // its claim ends just now
  EXPECT_EQ(engine_.AddSource(index, {.fd = 7, .policy = LeastLoaded()}), 1u);
  EXPECT_TRUE(engine_.source_removed(0));
  EXPECT_FALSE(engine_.source_removed(1));
  EXPECT_EQ(engine_.NextSource(), 0u);
}

// A policy that needs a fact.
class CpuPolicy final : public Policy {
 public:
  std::string name() const override { return "cpu"; }
  FactsNeeded facts() const override { return {.incoming_cpu = true}; }
  void Prepare(uint32_t worker_slots) override { prepared_ = worker_slots; }
  size_t Pick(const ringmaster::Arrival&, const View& view) override {
    EXPECT_GE(prepared_, view.joined.size());
    return view.candidates.size() - 1;
  }

 private:
  uint32_t prepared_ = 0;
};

TEST_F(RegistryTest, SwitchesThePolicyOfASourceFromTheNextArrivalOn) {
  AddSource({.multishot_accept = false}, Exclusive());
  AddWorker();
  AddWorker();
  Batch();
  Batch({Edge()});
  EXPECT_EQ(ops_[0].key.facts, 0);
  const std::unique_ptr<Policy> old = engine_.SetPolicy(0, std::make_unique<CpuPolicy>());
  EXPECT_EQ(old->name(), "exclusive");
  Batch({Accepted(10), Accepted(-EAGAIN)});  // asked for before
  EXPECT_EQ(Claim(1), (std::vector<int32_t>{10}));
  Batch({Edge()});
  EXPECT_EQ(ops_[0].key.facts, kFactIncomingCpu);
}

TEST_F(RegistryTest, ArmsAnewWhenTheNewPolicyNeedsOtherFacts) {
  AddSource({.multishot_accept = true}, RoundRobin());
  AddWorker();
  Batch();
  const OpKey first = armed_[0];
  EXPECT_EQ(first.facts, 0);
  engine_.SetPolicy(0, LeastLoaded());
  Batch();
  EXPECT_TRUE(ops_.empty());
  engine_.SetPolicy(0, std::make_unique<CpuPolicy>());
  Batch();
  // What is ended is what was armed.
  EXPECT_EQ(Only(OpKind::kAcceptEnd).key.facts, first.facts);
  EXPECT_EQ(Only(OpKind::kAcceptEnd).key.generation, first.generation);
  Batch({Arrival(10), {.key = first, .result = -ECANCELED}});
  EXPECT_EQ(Only(OpKind::kAcceptEach).key.facts, kFactIncomingCpu);
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
}

TEST_F(RegistryTest, ASmallerWindowHoldsAfterWhatWasOfferedIsClaimed) {
  AddSource();
  AddWorker({.window = 4});
  Batch();
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  EXPECT_EQ(Unclaimed(0), 3u);
  engine_.SetWindow(0, 1);
  Batch({Arrival(13), Arrival(14)});
  EXPECT_EQ(Held(), 2u);
  EXPECT_EQ(Claim(0).size(), 3u);
  Batch({Knock()});
  EXPECT_EQ(Unclaimed(0), 1u);
  engine_.SetWindow(0, 4);
  Batch();
  EXPECT_EQ(Unclaimed(0), 2u);
}

TEST_F(RegistryTest, ASmallerCapacityHoldsAfterConnectionsHaveEnded) {
  AddSource();
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11)});
  engine_.SetCapacity(0, 1);
  EXPECT_EQ(Claim(0).size(), 2u);
  Batch({Arrival(12)});
  EXPECT_EQ(Held(), 1u);
  workers_[0]->Release(hunger_);
  Batch({Knock()});
  EXPECT_EQ(Held(), 1u);
  workers_[0]->Release(hunger_);
  Batch({Knock()});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{12}));
  engine_.SetCapacity(0, 2);
  Batch({Arrival(13)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{13}));
}

}  // namespace
}  // namespace ringmaster::core
