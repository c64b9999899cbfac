// The simulator itself: it repeats, and it notices when a part is broken. Method for the latter:
// one part is broken on purpose, a few hundred seeds are run, and the checker must fail in at least
// one. An engine that breaks an invariant of its own instead would end the process, and this test
// with it: the checker must be the first to notice.

#include "sim/simulation.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "sim/config.h"

namespace ringmaster::sim {
namespace {

struct BrokenPart {
  Breakage breakage;
  const char* name;
  const char* expected;  // part of what the checker says in at least one of the runs
};

class BrokenPartTest : public testing::TestWithParam<BrokenPart> {};

TEST_P(BrokenPartTest, IsNoticedByTheChecker) {
  constexpr uint64_t kSeeds = 400;
  uint64_t noticed = 0;
  uint64_t as_expected = 0;
  std::string example;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Outcome outcome = RunSimulation(seed, GetParam().breakage);
    if (outcome.ok) continue;
    ++noticed;
    if (outcome.failure.find(GetParam().expected) != std::string::npos) ++as_expected;
    example = outcome.failure;
  }
  EXPECT_GT(noticed, 0u);
  EXPECT_GT(as_expected, 0u) << noticed << " runs failed in another way, one with: " << example;
  RecordProperty("noticed_of_400", static_cast<int>(noticed));
}

INSTANTIATE_TEST_SUITE_P(
    Simulation, BrokenPartTest,
    testing::Values(
        BrokenPart{Breakage::kWorkerKeepsRung, "WorkerKeepsRung", "was not served"},
        BrokenPart{Breakage::kWorkerServesTwice, "WorkerServesTwice", "a second time"},
        BrokenPart{Breakage::kWorkerDropsOffer, "WorkerDropsOffer", "was not served"},
        BrokenPart{Breakage::kWorkerNeverKnocks, "WorkerNeverKnocks", "was not woken"},
        BrokenPart{Breakage::kLeaseNeverKnocks, "LeaseNeverKnocks", "was not woken"},
        BrokenPart{Breakage::kLeaseReleasesTwice, "LeaseReleasesTwice", "than its state says"},
        BrokenPart{Breakage::kLeaseForgotten, "LeaseForgotten", "was not served"},
        BrokenPart{Breakage::kRingLosesDoorbell, "RingLosesDoorbell", "has been rung"},
        BrokenPart{Breakage::kRingLosesEdge, "RingLosesEdge", "was not served"},
        BrokenPart{Breakage::kRingLosesConnection, "RingLosesConnection", "was not served"},
        BrokenPart{Breakage::kRingReportsTwice, "RingReportsTwice", "not just accepted"},
        BrokenPart{Breakage::kRingHidesTheEnd, "RingHidesTheEnd", "was not served"},
        BrokenPart{Breakage::kMasterNeverLooksAtAge, "MasterNeverLooksAtAge",
                   "which does not move"},
        BrokenPart{Breakage::kPolicySkipsOneWorker, "PolicySkipsOneWorker", "round-robin gave"}),
    [](const testing::TestParamInfo<BrokenPart>& part) { return std::string(part.param.name); });

TEST(Simulation, PassesWithTheSameSeedsWhenNothingIsBroken) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    const Outcome outcome = RunSimulation(seed);
    EXPECT_TRUE(outcome.ok) << outcome.summary << "\n" << outcome.failure;
  }
}

TEST(Simulation, RepeatsExactlyWithTheSameSeed) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const Outcome first = RunSimulation(seed);
    std::string text;
    const Outcome second = RunSimulation(seed, Breakage::kNone, &text);
    EXPECT_EQ(first.trace_hash, second.trace_hash) << first.summary;
    EXPECT_EQ(first.lasted_ns, second.lasted_ns);
    EXPECT_EQ(first.summary, second.summary);
    EXPECT_FALSE(text.empty());
  }
}

TEST(Simulation, DiffersFromSeedToSeed) {
  EXPECT_NE(RunSimulation(1).trace_hash, RunSimulation(2).trace_hash);
}

TEST(Simulation, SaysWhatASeedHasDrawn) {
  const std::string summary = Describe(DrawConfig(7));
  for (const char* part : {"seed=7 ", " workers=", " source=", " cq=", " faults="}) {
    EXPECT_NE(summary.find(part), std::string::npos) << part << " in " << summary;
  }
}

// A fault-free world of equal workers with ample room: the round must come out even.
TEST(Simulation, DealsARoundEvenlyWithoutFaults) {
  SimConfig config;
  config.seed = 1;
  config.sources = {{.policy = PolicyKind::kRoundRobin}};
  for (int i = 0; i < 5; ++i) config.workers.push_back({.window = 32, .sources = 1});
  config.recall_after_ns = 1'000'000'000;
  config.completion_entries = 64;
  config.completions_max = 64;
  config.workload = {.arrivals = 153, .gap_ns_mean = 200'000, .service_ns_mean = 10'000};
  const Outcome even = RunSimulation(config);
  EXPECT_TRUE(even.ok) << even.failure;
  const Outcome uneven = RunSimulation(config, Breakage::kPolicySkipsOneWorker);
  EXPECT_NE(uneven.failure.find("round-robin gave"), std::string::npos) << uneven.failure;
}

}  // namespace
}  // namespace ringmaster::sim
