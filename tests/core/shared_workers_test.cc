// Two engines that serve the same workers, as two masters do: what they share, and how one hears of
// what the other has given back. Method: as in the tests of one engine; the batches of the two are
// interleaved by hand, and the same at random in the simulator.

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "core/engine.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::core {
namespace {

using sim::MemoryWorker;

// A master with one polled source.
struct TestMaster {
  explicit TestMaster(Gate* gate = nullptr)
      : engine({.recall_after_ns = kRecallAfter,
                .completion_entries = 64,
                .watch_fd = kWatchFd,
                .gate = gate,
                .shares_workers = true},
               &hunger) {
    engine.AddSource({.fd = kListenFd, .policy = Exclusive()});
  }

  // Returns how many accepts it asks for.
  size_t Batch(const std::vector<Completion>& completions = {}, int64_t now_ns = 1'000'000'000) {
    size_t accepts = 0;
    engine.OnBatch(completions, now_ns, ops);
    for (const Op& op : ops) {
      if (op.key.kind == OpKind::kPoll) armed = op.key;
      accepts += op.key.kind == OpKind::kAccept;
    }
    engine.CheckAll(false);
    return accepts;
  }
  size_t Edge() { return Batch({{.key = armed, .result = kPoll, .more = true}}); }
  size_t Accepts(const std::vector<int32_t>& results, int64_t now_ns = 1'000'000'000) {
    std::vector<Completion> completions;
    for (const int32_t result : results) {
      completions.push_back({.key = {.kind = OpKind::kAccept}, .result = result});
    }
    return Batch(completions, now_ns);
  }
  // What it would be woken by, if it waits for credit.
  bool Hears() { return hunger.HearKnock(); }

  Hunger hunger;
  Engine engine;
  std::vector<Op> ops;
  OpKey armed;
};

class SharedWorkersTest : public ::testing::Test {
 protected:
  // A worker of both; it has an inbox from each, and one state.
  void AddWorker(uint32_t capacity = UINT32_MAX, uint32_t window = 4) {
    const auto index = static_cast<uint32_t>(of_first_.size());
    of_first_.push_back(std::make_unique<MemoryWorker>(window));
    of_second_.push_back(std::make_unique<MemoryWorker>(window));
    PortState& state = of_first_.back()->state();
    for (TestMaster* const master : {&first_, &second_}) {
      const bool is_first = master == &first_;
      Inbox& own = (is_first ? of_first_ : of_second_).back()->inbox();
      const Inbox& other = (is_first ? of_second_ : of_first_).back()->inbox();
      master->engine.AddWorker({.inbox = &own,
                                .state = &state,
                                .ring_fd = 100 + static_cast<int32_t>(index),
                                .capacity = capacity,
                                .window_max = window,
                                .index = index,
                                .other_inboxes = {&other}});
      master->engine.Join(SourceIndex(0), index);
    }
  }
  void Arm() {
    first_.Batch();
    second_.Batch();
  }
  uint32_t Open(size_t worker) const { return of_first_[worker]->state().open; }

  TestMaster first_;
  TestMaster second_;
  std::vector<std::unique_ptr<MemoryWorker>> of_first_;
  std::vector<std::unique_ptr<MemoryWorker>> of_second_;
};

TEST_F(SharedWorkersTest, TheLastPlaceIsPromisedToOneAcceptOnly) {
  AddWorker(1);
  Arm();
  EXPECT_EQ(first_.Edge(), 1u);
  EXPECT_EQ(Open(0), 1u);
  EXPECT_EQ(second_.Edge(), 0u);
  EXPECT_EQ(first_.Accepts({10}), 0u);
  EXPECT_EQ(Open(0), 1u);
  EXPECT_EQ(first_.engine.ledger().worker(0).unclaimed, 1u);
}

TEST_F(SharedWorkersTest, AnAcceptThatFindsNothingSetsItsPlaceFreeAndTheOtherHearsOfIt) {
  AddWorker(1);
  Arm();
  ASSERT_EQ(first_.Edge(), 1u);
  ASSERT_EQ(second_.Edge(), 0u);
  EXPECT_FALSE(first_.engine.PlacesFreed());
  first_.Accepts({-EAGAIN});
  EXPECT_EQ(Open(0), 0u);
  EXPECT_TRUE(first_.engine.PlacesFreed());
  EXPECT_FALSE(first_.engine.PlacesFreed());
  EXPECT_TRUE(second_.Hears());
  EXPECT_EQ(second_.Batch(), 1u);
}

// The policy decides who gets it when it is there; the place that had been reserved is free then.
TEST_F(SharedWorkersTest, APromiseDoesNotDecideWhoGetsTheConnection) {
  AddWorker(4);
  AddWorker(4);
  Arm();
  // Exclusive, last in first out: the second worker was picked last.
  first_.engine.SetPolicy(0, LeastLoaded());
  of_first_[0]->state().ForceReserve();
  ASSERT_EQ(first_.Edge(), 2u);
  EXPECT_EQ(Open(0) + Open(1), 3u);
  first_.Accepts({10, -EAGAIN});
  EXPECT_EQ(Open(0), 1u);
  EXPECT_EQ(Open(1), 1u);
  EXPECT_TRUE(first_.engine.PlacesFreed());
}

TEST_F(SharedWorkersTest, ARecallKeepsThePlaceUntilSomebodyElseHasOne) {
  AddWorker(1);
  AddWorker(1);
  Arm();
  ASSERT_EQ(first_.Edge(), 2u);
  first_.Accepts({10, -EAGAIN});
  ASSERT_EQ(Open(0), 1u);
  ASSERT_EQ(Open(1), 0u);
  first_.Batch({}, 1'000'000'000 + 2 * kRecallAfter);
  EXPECT_EQ(Open(0), 0u);
  EXPECT_EQ(Open(1), 1u);
  EXPECT_TRUE(first_.engine.PlacesFreed());
}

// What nobody can take any more is in nobody's place.
TEST_F(SharedWorkersTest, AWorkerThatLeavesTakesItsPromisesWithIt) {
  AddWorker(1);
  AddWorker(1);
  Arm();
  ASSERT_EQ(first_.Edge(), 2u);
  PortState& state = of_first_[0]->state();
  first_.engine.RemoveWorker(0);
  EXPECT_EQ(state.open, 0u);
  first_.Accepts({10, 11});
  EXPECT_EQ(Open(1), 1u);
  EXPECT_EQ(first_.engine.ledger().source(0).held, 1u);
}

// Both have asked, and each would wait for the place that the other has reserved.
TEST_F(SharedWorkersTest, PromisesAreKeptWhenTheCapacityIsLowered) {
  AddWorker(2, 1);
  Arm();
  ASSERT_EQ(first_.Edge(), 1u);
  ASSERT_EQ(second_.Edge(), 1u);
  first_.engine.SetCapacity(0, 1);
  second_.engine.SetCapacity(0, 1);
  first_.Accepts({10});
  second_.Accepts({20});
  EXPECT_EQ(first_.engine.ledger().worker(0).unclaimed, 1u);
  EXPECT_EQ(second_.engine.ledger().worker(0).unclaimed, 1u);
}

TEST_F(SharedWorkersTest, WhereSomebodyIsUnlimitedNothingIsReserved) {
  AddWorker(1);
  AddWorker();
  Arm();
  ASSERT_EQ(first_.Edge(), 2u);
  EXPECT_EQ(Open(0) + Open(1), 0u);
}

TEST_F(SharedWorkersTest, OneWithWorkFromTheOtherIsNotIdle) {
  AddWorker();
  AddWorker();
  Arm();
  // By the order of their indexes both would pick the first.
  first_.Edge();
  first_.Accepts({10, -EAGAIN});
  second_.Edge();
  second_.Accepts({20, -EAGAIN});
  EXPECT_EQ(first_.engine.ledger().worker(0).unclaimed, 1u);
  EXPECT_EQ(second_.engine.ledger().worker(0).unclaimed, 0u);
  EXPECT_EQ(second_.engine.ledger().worker(1).unclaimed, 1u);
}

TEST(SharedGate, APlaceThatOneGivesBackIsWhatTheOtherWaitsFor) {
  Gate gate;
  gate.Limit(1);
  TestMaster first(&gate);
  TestMaster second(&gate);
  MemoryWorker of_first(4);
  MemoryWorker of_second(4);
  first.engine.AddWorker({.inbox = &of_first.inbox(), .state = &of_first.state(), .window_max = 4});
  second.engine.AddWorker(
      {.inbox = &of_second.inbox(), .state = &of_first.state(), .window_max = 4});
  for (TestMaster* const master : {&first, &second}) {
    master->engine.Join(SourceIndex(0), 0);
    master->Batch();
  }
  ASSERT_EQ(first.Edge(), 1u);
  ASSERT_EQ(second.Edge(), 0u);
  first.Accepts({-EAGAIN});
  EXPECT_TRUE(first.engine.PlacesFreed());
  EXPECT_TRUE(second.Hears());
  EXPECT_EQ(second.Batch(), 1u);
}

}  // namespace
}  // namespace ringmaster::core
