// What the interface demands of every policy, checked for each built-in one.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"
#include "support/allocation_count.h"

namespace ringmaster::testing {
namespace {

class EveryPolicy : public ::testing::TestWithParam<std::string> {
 protected:
  static std::unique_ptr<Policy> Make() { return PolicyByName(GetParam()).value(); }
  // The name without parameters.
  static std::string Base() { return GetParam().substr(0, GetParam().find(':')); }
};

// Members, credit and load of a crew, all by chance; at least one candidate is left.
void Shake(Crew& crew, Chance& chance) {
  for (uint32_t worker = 0; worker < crew.size(); ++worker) {
    if (chance.OneIn(20)) crew.SetJoined(worker, !crew.joined(worker));
    Candidate& facts = crew.facts(worker);
    facts.credit = chance.Below(3);
    facts.open = chance.Below(8);
    facts.unclaimed = std::min(facts.open, chance.Below(3));
    facts.cpu = static_cast<int32_t>(chance.Below(9)) - 1;
    facts.still_ns = facts.unclaimed == 0 ? 0 : chance.Below(20'000'000);
    facts.activity = AnyActivity(chance, facts.unclaimed);
  }
  if (crew.HasCandidate()) return;
  crew.SetJoined(0, true);
  crew.facts(0).credit = 1;
}

Arrival AnyArrival(Chance& chance) {
  const auto kind = static_cast<Peer::Kind>(chance.Below(4));
  const auto byte = [&] { return static_cast<uint8_t>(chance.Below(5)); };
  return {.incoming_cpu = static_cast<int32_t>(chance.Below(12)) - 1,
          .peer = {.kind = kind, .address = {10, 0, byte(), byte()}}};
}

CpuTopology EightCpus() {
  CpuTopology topology;
  for (int32_t cpu = 0; cpu < 8; ++cpu) {
    topology.cpus.push_back({.core = cpu / 2, .cache = cpu / 4, .node = 0});
  }
  return topology;
}

// Workers that are processes have a policy object each, and take turns with it.
TEST_P(EveryPolicy, GoesOnInAnotherObjectIfItMayBeMoved) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 10; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    Crew crew(1 + chance.Below(40));
    crew.topology() = EightCpus();
    auto one = Ready(Make(), crew);
    std::array<std::unique_ptr<Policy>, 3> others;
    for (auto& other : others) other = Ready(Make(), crew);
    std::vector<uint64_t> words(Policy::kMemoryWords + 40);
    if (!one->Save(words)) {
      EXPECT_FALSE(one->AnyThread()) << "a policy of AnyThread can be moved";
      return;
    }
    for (int step = 0; step < 500; ++step) {
      Shake(crew, chance);
      const Arrival arrival = AnyArrival(chance);
      Policy& other = *others[chance.Below(others.size())];
      ASSERT_TRUE(other.Load(words));
      const uint32_t worker = crew.Pick(*one, arrival);
      ASSERT_EQ(crew.Pick(other, arrival), worker) << step;
      if (chance.OneIn(8)) {
        one->OnRecall(worker);
        other.OnRecall(worker);
      }
      ASSERT_TRUE(other.Save(words));
    }
  }
}

// What it loads may have been written by a process that was killed, or that is hostile.
TEST_P(EveryPolicy, IsSoundWhateverItLoads) {
  Chance chance(FirstSeed());
  Crew crew(40);
  crew.topology() = EightCpus();
  auto policy = Ready(Make(), crew);
  std::vector<uint64_t> words(Policy::kMemoryWords + 40);
  for (int step = 0; step < 2'000; ++step) {
    for (uint64_t& word : words) {
      word =
          chance.OneIn(3) ? 0 : uint64_t{chance.Below(UINT32_MAX)} << 32 | chance.Below(UINT32_MAX);
    }
    if (!policy->Load(words)) return;
    Shake(crew, chance);
    for (int i = 0; i < 3; ++i) policy->OnRecall(crew.Pick(*policy, AnyArrival(chance)));
    ASSERT_TRUE(policy->Save(words));
  }
}

TEST_P(EveryPolicy, PicksTheSameForTheSameHistory) {
  const uint64_t first = FirstSeed();
  for (uint64_t seed = first; seed < first + 10; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed=" << seed);
    Chance chance(seed);
    Crew crew(1 + chance.Below(40));
    crew.topology() = EightCpus();
    auto one = Ready(Make(), crew);
    auto other = Ready(Make(), crew);
    for (int step = 0; step < 500; ++step) {
      Shake(crew, chance);
      const Arrival arrival = AnyArrival(chance);
      const uint32_t worker = crew.Pick(*one, arrival);
      ASSERT_EQ(crew.Pick(*other, arrival), worker);
      if (chance.OneIn(8)) {
        one->OnRecall(worker);
        other->OnRecall(worker);
      }
    }
  }
}

// One policy is prepared for all workers from the start, the other as they come.
TEST_P(EveryPolicy, KeepsWhatItKnowsWhenThereAreMoreWorkers) {
  Chance chance(FirstSeed());
  Crew few(8);
  Crew many(40);
  auto at_once = Ready(Make(), many);
  auto in_steps = Ready(Make(), few);
  for (int step = 0; step < 200; ++step) {
    Crew& crew = step < 100 ? few : many;
    if (step == 100) {
      in_steps->Prepare(2);  // never fewer
      in_steps->Prepare(many.size());
    }
    Shake(crew, chance);
    const Arrival arrival = AnyArrival(chance);
    ASSERT_EQ(crew.Pick(*in_steps, arrival), crew.Pick(*at_once, arrival)) << "step " << step;
  }
}

TEST_P(EveryPolicy, AllocatesWhenPreparedAndNeverAfterwards) {
  Chance chance(FirstSeed());
  Crew crew(64);
  crew.topology() = EightCpus();
  auto policy = Ready(Make(), crew);
  for (int step = 0; step < 2000; ++step) {
    Shake(crew, chance);
    const Arrival arrival = AnyArrival(chance);
    const View view = crew.MakeView();
    const size_t before = AllocationCount();
    const size_t position = policy->Pick(arrival, view);
    policy->OnRecall(view.candidates[position].worker);
    const size_t after = AllocationCount();
    ASSERT_EQ(after, before);
  }
}

// Guards the test above: an allocation of this program is counted.
TEST(CountingAllocations, SeesAnAllocation) {
  const size_t before = AllocationCount();
  const auto memory = std::make_unique<std::vector<int>>(100);
  EXPECT_EQ(AllocationCount() - before, 2u);
  EXPECT_EQ(memory->size(), 100u);
}

TEST_P(EveryPolicy, TakesTheOnlyCandidate) {
  Crew crew(9);
  auto policy = Ready(Make(), crew);
  for (uint32_t worker = 0; worker < crew.size(); ++worker) {
    crew.OnlyCreditFor({worker});
    EXPECT_EQ(crew.Pick(*policy), worker);
  }
}

// What lies with a worker that is busy may go to one that waits, unless that has many more open.
TEST_P(EveryPolicy, LetsNothingBeMovedToAWorkerWithManyMoreUnlessItIgnoresLoad) {
  Crew crew(2);
  auto policy = Ready(Make(), crew);
  const Candidate from{.worker = 0, .open = 3, .unclaimed = 1, .activity = Activity::kBusy};
  const Arrival known{.peer = {.kind = Peer::Kind::kIpv4, .address = {10, 0, 0, 1}}};
  Candidate to{.worker = 1, .open = 3, .activity = Activity::kIdle};
  const bool has_homes = Base() == "affinity-hash";
  EXPECT_EQ(policy->MayMove(known, from, to), !has_homes);
  EXPECT_TRUE(policy->MayMove({}, from, to));
  to.open = 30;
  const bool by_turns = Base() == "round-robin" || Base() == "weighted-round-robin";
  EXPECT_EQ(policy->MayMove({}, from, to), by_turns || Base().starts_with("exclusive"));
}

// Arrivals that stay open, each with the pick before it counted, spread over equal workers, whether
// they come one by one or together.
TEST_P(EveryPolicy, LeavesNoWorkerOutWhenConnectionsStay) {
  if (Base() == "two-choices") GTEST_SKIP() << "it is left to chance whom it draws";
  if (GetParam() == "weighted-round-robin:4,1,1") GTEST_SKIP() << "its workers are not equal";
  for (const bool together : {false, true}) {
    // Exclusive wakes one worker for what comes together.
    if (together && GetParam() == "exclusive") continue;
    Crew crew(8);
    auto policy = Ready(Make(), crew);
    for (int i = 0; i < 8; ++i) {
      Candidate& facts = crew.facts(crew.Pick(*policy));
      ++facts.open;
      if (together) ++facts.unclaimed;  // else claimed, and being served
      facts.activity = Activity::kClaiming;
    }
    for (uint32_t worker = 0; worker < crew.size(); ++worker) {
      EXPECT_EQ(crew.facts(worker).open, 1u) << "worker " << worker << ", together " << together;
    }
  }
}

TEST_P(EveryPolicy, ServesWorkersAboveTheFirstNumberOnceItIsPreparedForThem) {
  Crew few(2);
  auto policy = Ready(Make(), few);
  few.PickMany(*policy, 3);
  Crew many(500);
  many.OnlyCreditFor({400, 499});
  policy->Prepare(many.size());
  for (int i = 0; i < 10; ++i) EXPECT_GE(many.Pick(*policy), 400u);
}

// Two equal workers that are free again each time: whoever is preferred, it is not always the one
// with the lower index.
TEST_P(EveryPolicy, TakesTurnsAmongEqualsThatAreFreeAgain) {
  if (GetParam() == "exclusive") GTEST_SKIP() << "it is to stay with the worker woken last";
  if (GetParam() == "least-loaded:first") GTEST_SKIP() << "it is to stay with the first";
  Crew crew(2);
  auto policy = Ready(Make(), crew);
  const Workers picks = crew.PickMany(*policy, 60);
  EXPECT_GE(std::count(picks.begin(), picks.end(), 0u), 12);
  EXPECT_GE(std::count(picks.begin(), picks.end(), 1u), 12);
}

// A worker takes over the index of one that has left before the next pick. It must be treated as if
// the one before it had never been there.
TEST_P(EveryPolicy, LetsAWorkerThatTakesOverAnIndexInheritNothing) {
  if (GetParam() == "exclusive") GTEST_SKIP() << "it is to stay with the worker woken last";
  Chance chance(FirstSeed());
  for (int round = 0; round < 20; ++round) {
    Crew crew(3);
    auto policy = Ready(Make(), crew);
    // Worker 1 is owed what it can be owed.
    crew.OnlyCreditFor({0, 2});
    for (int i = 0; i < 50; ++i) crew.Pick(*policy, AnyArrival(chance));
    for (int i = 0; i < 50; ++i) policy->OnRecall(1);
    policy->OnLeave(1);
    crew.CreditForAll();
    int in_a_row = 0;
    while (in_a_row < 20 && crew.Pick(*policy, AnyArrival(chance)) == 1) ++in_a_row;
    ASSERT_LT(in_a_row, 20);
  }
}

// Recalls and leaves of workers that it has never met, or that no longer exist.
TEST_P(EveryPolicy, IsNotDisturbedByWorkersThatItDoesNotKnow) {
  Chance chance(FirstSeed());
  Crew crew(6);
  crew.SetJoined(5, false);
  auto one = Ready(Make(), crew);
  auto other = Ready(Make(), crew);
  for (int step = 0; step < 300; ++step) {
    for (const uint32_t stranger : {5u, 6u, 1'000'000u, UINT32_MAX}) {
      one->OnRecall(stranger);
      one->OnLeave(stranger);
    }
    const Arrival arrival = AnyArrival(chance);
    ASSERT_EQ(crew.Pick(*one, arrival), crew.Pick(*other, arrival)) << "step " << step;
  }
}

// As when it is put in the place of another: the first thing that it hears may be a recall.
TEST_P(EveryPolicy, TakesOverASourceWhoseWorkersHaveJoinedLongAgo) {
  Chance chance(FirstSeed());
  Crew crew(40);
  auto policy = Make();
  policy->Prepare(crew.size());
  policy->OnRecall(7);
  policy->OnLeave(8);
  crew.SetJoined(8, false);
  for (int step = 0; step < 300; ++step) crew.Pick(*policy, AnyArrival(chance));
}

TEST_P(EveryPolicy, ServesAThousandWorkers) {
  Chance chance(FirstSeed());
  Crew crew(1024);
  crew.topology() = EightCpus();
  auto policy = Ready(Make(), crew);
  for (int step = 0; step < 1024; ++step) {
    if (step % 8 == 0) Shake(crew, chance);
    const uint32_t worker = crew.Pick(*policy, AnyArrival(chance));
    ASSERT_TRUE(crew.joined(worker));
    ASSERT_GT(crew.facts(worker).credit, 0u);
  }
}

std::vector<std::string> NamesAndVariants() {
  std::vector<std::string> names(PolicyNames().begin(), PolicyNames().end());
  names.insert(names.end(), {"affinity-cpu:0", "weighted-round-robin:4,1,1", "least-loaded:first",
                             "two-choices:7", "hermes:0"});
  return names;
}

INSTANTIATE_TEST_SUITE_P(BuiltIn, EveryPolicy, ::testing::ValuesIn(NamesAndVariants()),
                         [](const ::testing::TestParamInfo<std::string>& policy) {
                           std::string name = policy.param;
                           for (char& c : name) {
                             if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
                           }
                           return name;
                         });

}  // namespace
}  // namespace ringmaster::testing
