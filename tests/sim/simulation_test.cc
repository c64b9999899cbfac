// The simulator itself: it repeats, and it notices when a part is broken. Method for the latter:
// one part is broken on purpose, a few hundred seeds are run, and the checker must fail in at least
// one. An engine that breaks an invariant of its own instead would end the process, and this test
// with it. So the checker must be the first to notice.

#include "sim/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "sim/config.h"
#include "sim/shrink.h"

namespace ringmaster::sim {
namespace {

struct BrokenPart {
  Breakage breakage;
  const char* name;
  const char* expected;          // part of what the checker says in at least one of the runs
  const char* provoked_by = "";  // words that make what each seed has drawn more likely to show it
};

// What the checker notices is the same in each build, so a sanitized one stops when it has noticed
// it. It takes its time, and looks at the memory of the unbroken engine with other seeds, too.
#ifdef RINGMASTER_TEST_SANITIZED
constexpr bool kStopsWhenNoticed = true;
#else
constexpr bool kStopsWhenNoticed = false;
#endif

// A source that is aimed, and workers that say when they wait.
constexpr const char* kAimed =
    " hosted=0 source=policy:round-robin/aimed:1 worker=window:4/hints:1/sight:1/works_of_8:4"
    " worker=window:4/hints:1/sight:1/level:1/works_of_8:1 faults=meanwhile:1/5";

// The same, with one worker that has a single place and leases that last.
constexpr const char* kAimedAtFull =
    " hosted=0 source=policy:round-robin/aimed:1 lease_ns=1000000"
    " worker=capacity:1/hints:1/sight:1 worker=hints:1/sight:1/works_of_8:7 faults=meanwhile:1/5";

class BrokenPartTest : public testing::TestWithParam<BrokenPart> {};

TEST_P(BrokenPartTest, IsNoticedByTheChecker) {
  constexpr uint64_t kSeeds = 1'000;
  uint64_t noticed = 0;
  uint64_t as_expected = 0;
  std::string example;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const std::string text = Describe(DrawConfig(seed)) + GetParam().provoked_by;
    const absl::StatusOr<SimConfig> config = ParseConfig(text);
    if (!config.ok()) continue;  // the words do not fit what the seed has drawn
    const Outcome outcome = RunSimulation(*config, GetParam().breakage);
    if (outcome.ok) continue;
    ++noticed;
    if (outcome.failure.find(GetParam().expected) != std::string::npos) ++as_expected;
    example = outcome.failure;
    if (kStopsWhenNoticed && as_expected > 0) break;
  }
  EXPECT_GT(noticed, 0u);
  EXPECT_GT(as_expected, 0u) << noticed << " runs failed in another way, one with: " << example;
  RecordProperty("noticed_of_1000", static_cast<int>(noticed));
}

INSTANTIATE_TEST_SUITE_P(
    Simulation, BrokenPartTest,
    testing::Values(
        BrokenPart{Breakage::kWorkerKeepsRung, "WorkerKeepsRung", "was not served"},
        BrokenPart{Breakage::kWorkerServesTwice, "WorkerServesTwice", "a second time"},
        BrokenPart{Breakage::kWorkerDropsOffer, "WorkerDropsOffer", "was not served"},
        BrokenPart{Breakage::kWorkerNeverKnocks, "WorkerNeverKnocks", "was not woken"},
        BrokenPart{Breakage::kWorkerHidesThatItWaits, "WorkerHidesThatItWaitsFromMoves",
                   "which is busy",
                   " hosted=0 source=policy:round-robin service_ns=4000000"
                   " worker=window:4/hints:1/works_of_8:7 worker=window:4/hints:1/works_of_8:7"},
        BrokenPart{Breakage::kWorkerHidesThatItWaits, "WorkerHidesThatItWaits", "was not woken",
                   " hosted=0 source=policy:least-loaded/nobody_of_8:4"
                   " worker=window:4/hints:1/works_of_8:4 worker=window:4/hints:1/works_of_8:4"},
        BrokenPart{Breakage::kWorkerLooksUpNeighbour, "WorkerLooksUpNeighbour",
                   "under the token of another source"},
        BrokenPart{Breakage::kWorkerForgetsItsRing, "WorkerForgetsItsRing", "was not served"},
        BrokenPart{Breakage::kWorkerHidesRoom, "WorkerHidesRoom", "was not served",
                   " hosted=0 worker=completions:1/table:1/window:4"},
        BrokenPart{Breakage::kLeaverDoesNotWait, "LeaverDoesNotWait", "not its worker's",
                   " hosted=0 worker=completions:1/table:4/window:4 worker="
                   " faults=worker_leaves:1/2,doorbell_late:1/2"},
        BrokenPart{Breakage::kRingHidesInstalled, "RingHidesInstalled", "the master keeps",
                   " hosted=0 shuts_down=0 worker=completions:1/table:64/window:4"},
        BrokenPart{Breakage::kTookGivesNoCredit, "TookGivesNoCredit", "was not woken"},
        BrokenPart{Breakage::kTookGivesCreditTwice, "TookGivesCreditTwice",
                   "as many unclaimed as its window allows"},
        BrokenPart{Breakage::kAdoptTakesAnotherPlace, "AdoptTakesAnotherPlace",
                   "than its state says"},
        BrokenPart{Breakage::kLeaseNeverKnocks, "LeaseNeverKnocks", "was not woken"},
        BrokenPart{Breakage::kLeaseReleasesTwice, "LeaseReleasesTwice", "than its state says"},
        BrokenPart{Breakage::kLeaseForgotten, "LeaseForgotten", "was not served"},
        BrokenPart{Breakage::kGateForgotten, "GateForgotten", "was not served"},
        BrokenPart{Breakage::kGateReleasedTwice, "GateReleasedTwice", "open than it may"},
        BrokenPart{Breakage::kTicketForgotten, "TicketForgotten", "was not served"},
        BrokenPart{Breakage::kTicketWithoutSerial, "TicketWithoutSerial",
                   "none of its tickets has said",
                   " source=policy:round-robin/readiness:1"
                   " faults=ticket_kept:1/1,source_removed:1/1"},
        BrokenPart{Breakage::kTicketUsesItsNumber, "TicketUsesItsNumber", "by a ticket of source",
                   " source=policy:round-robin/readiness:1"
                   " faults=ticket_kept:1/2,source_removed:1/2"},
        BrokenPart{Breakage::kRingCountsTooFew, "RingCountsTooFew", "was not served"},
        BrokenPart{Breakage::kRingHidesOverflows, "RingHidesOverflows", "nobody was told"},
        BrokenPart{Breakage::kRingLosesDoorbell, "RingLosesDoorbell", "has been rung"},
        BrokenPart{Breakage::kRingLosesSend, "RingLosesSend", "was not served"},
        BrokenPart{Breakage::kRingHidesSendFailure, "RingHidesSendFailure", "was not served"},
        BrokenPart{Breakage::kRingSendsTwice, "RingSendsTwice", "is handed over twice"},
        BrokenPart{Breakage::kRingLosesEdge, "RingLosesEdge", "was not served"},
        BrokenPart{Breakage::kRingHidesTheHangUp, "RingHidesTheHangUp", "nobody serves",
                   " hosted=0 shuts_down=0 faults=source_shut_down:1/2"},
        BrokenPart{Breakage::kSocketDeniesItsEnd, "SocketDeniesItsEnd", "nobody serves",
                   " hosted=0 shuts_down=0 source=policy:least-loaded/local:1"
                   " faults=source_shut_down:1/2"},
        BrokenPart{Breakage::kSocketNeverListens, "SocketNeverListens", "nothing is wrong with it",
                   " faults=accept_doubtful:1/5"},
        BrokenPart{Breakage::kRingLosesConnection, "RingLosesConnection", "was not served"},
        BrokenPart{Breakage::kRingReportsTwice, "RingReportsTwice", "not just accepted"},
        BrokenPart{Breakage::kRingHidesTheEnd, "RingHidesTheEnd", "was not served"},
        BrokenPart{Breakage::kRingKeepsNothingBack, "RingKeepsNothingBack", "without being told to",
                   " told=1 keeps_back=1 per_turn=2 cq=64 arrivals=160 burst_n=1 burst_of=1"
                   " burst_max=100 source=policy:least-loaded/multishot:1/hold:1"},
        BrokenPart{Breakage::kRingKeepsArmed, "RingKeepsArmed", "is let go while it is armed"},
        BrokenPart{Breakage::kMasterClosesRingTooEarly, "MasterClosesRingTooEarly",
                   "not its worker's", " faults=submit_partly:1/1,worker_leaves:1/2"},
        BrokenPart{Breakage::kHostForgetsItself, "HostForgetsItself", "has been rung",
                   " hosted=1 masters=1 arrivals=12 gap_ns=1000000 service_ns=100000000"
                   " lease_ns=0 turn_ns_max=0 wake_ns_max=0 shuts_down=0"},
        BrokenPart{
            Breakage::kHostCallsBetweenTurns, "HostCallsBetweenTurns", "not a worker's",
            " host_steps=1 worker= worker= worker= faults=source_removed:1/2,worker_leaves:1/1"},
        BrokenPart{Breakage::kTicketTellsNothing, "TicketTellsNothing", "is never reported",
                   " hosted=0 descriptors_max=2 source=policy:least-loaded/readiness:1"},
        BrokenPart{Breakage::kTicketHidesShortage, "TicketHidesShortage", "and nobody was told",
                   " hosted=0 descriptors_max=2 source=policy:least-loaded/readiness:1"},
        BrokenPart{Breakage::kMasterHidesStalls, "MasterHidesStalls", "nobody was told",
                   " faults=worker_stalls:1/2"},
        BrokenPart{Breakage::kMasterForgetsTook, "MasterForgetsTook", "was not woken",
                   " hosted=0 source=policy:least-loaded/readiness:1 worker=completions:1"
                   " faults=took_late:1/2"},
        BrokenPart{Breakage::kMasterTellsNobody, "MasterTellsNobody", "was not served",
                   " hosted=0 masters=2 capacity=1 source=policy:least-loaded/master:1"
                   " faults=spurious_edge:1/2"},
        BrokenPart{Breakage::kMasterOverlooksHangUps, "MasterOverlooksHangUps", "has hung up",
                   " told=0 source=policy:least-loaded/age_max_ns:40000000"
                   " faults=client_hangs_up:1/2,source_pauses:1/2"},
        BrokenPart{Breakage::kMasterCountsFromAccept, "MasterCountsFromAccept", "is too old",
                   " told=0 source=policy:least-loaded/age_max_ns:1000000"
                   " faults=source_pauses:1/2"},
        BrokenPart{Breakage::kMasterCountsTooMuch, "MasterCountsTooMuch", "without being told to"},
        BrokenPart{Breakage::kPassedOnForgotten, "PassedOnForgotten", "was not woken",
                   " hosted=0 faults=passed_on:1/2"},
        BrokenPart{Breakage::kPassedOnKeepsItsPlace, "PassedOnKeepsItsPlace", "was not served",
                   " faults=passed_on:1/2"},
        BrokenPart{Breakage::kPassedOnWakesNobody, "PassedOnWakesNobody", "was not woken",
                   " hosted=0 faults=passed_on:1/2"},
        BrokenPart{Breakage::kMasterForgetsGivers, "MasterForgetsGivers", "has passed it on",
                   " faults=passed_on:1/2"},
        BrokenPart{Breakage::kMasterForgetsOthers, "MasterForgetsOthers", "was not woken",
                   " hosted=0 worker=capacity:1 worker=capacity:1 faults=passed_on:1/2"},
        BrokenPart{Breakage::kSourceStartsEarly, "SourceStartsEarly", "waits for workers"},
        BrokenPart{Breakage::kSourceStartsLate, "SourceStartsLate", "was not woken"},
        BrokenPart{Breakage::kPolicyNeverPicks, "PolicyNeverPicks", "wakes again and again",
                   " shuts_down=0 source=policy:least-loaded/nobody_of_8:8"},
        BrokenPart{Breakage::kMasterForgetsAside, "MasterForgetsAside", "is set aside",
                   " hosted=0 source=policy:least-loaded/nobody_of_8:4"},
        BrokenPart{Breakage::kMasterAsksTooMuch, "MasterAsksTooMuch", "more is set aside",
                   " source=policy:least-loaded/multishot:1/hold:1/nobody_of_8:7"},
        BrokenPart{Breakage::kSwitchDropsArrival, "SwitchDropsArrival", "books differ"},
        BrokenPart{Breakage::kMasterNeverLooksAtAge, "MasterNeverLooksAtAge",
                   "which does not move"},
        BrokenPart{Breakage::kVisitorLeavesNoNote, "VisitorLeavesNoNote", "out at rest",
                   " hosted=0 masters=1 source=policy:round-robin/aimed:1 gap_ns=20000"
                   " service_ns=10000 worker=hints:1/sight:1/works_of_8:4"
                   " worker=hints:1/sight:1/level:1/works_of_8:1 worker=hints:1/sight:1"
                   " faults=meanwhile:1/2"},
        BrokenPart{Breakage::kPermitNeverVisits, "PermitNeverVisits", "has no permit", kAimed},
        BrokenPart{Breakage::kPermitWithoutPlace, "PermitWithoutPlace", "open than it may",
                   " hosted=0 lease_ns=20000000 gap_ns=200000 recall_after_ns=10000000"
                   " source=policy:round-robin/aimed:1/capacity:1 worker=hints:1/sight:1"
                   " worker=hints:1/sight:1/level:1"},
        BrokenPart{Breakage::kPermitUnmarked, "PermitUnmarked", "a listener that was closed",
                   kAimed},
        BrokenPart{Breakage::kPermitCountsNot, "PermitCountsNot", "more permits are out", kAimed},
        BrokenPart{Breakage::kPermitHidesTrouble, "PermitHidesTrouble",
                   "the master does not get the desk", kAimed},
        BrokenPart{Breakage::kPermitStays, "PermitStays", "has a permit of a desk that is closed",
                   kAimed},
        BrokenPart{Breakage::kSightWokenBlindly, "SightWokenBlindly", "sleeps although", kAimed},
        BrokenPart{Breakage::kSightSleepsOn, "SightSleepsOn", "sleeps although", kAimed},
        BrokenPart{Breakage::kSightStays, "SightStays", "shows a source whose desk is closed",
                   kAimed},
        BrokenPart{Breakage::kDeskHidesThatItIsBusy, "DeskHidesThatItIsBusy",
                   "lies with a worker that is busy", kAimed},
        BrokenPart{Breakage::kDeskHidesThatItWaits, "DeskHidesThatItWaits",
                   "lies with a worker that is busy", kAimed},
        BrokenPart{Breakage::kFreedPlaceStaysHidden, "FreedPlaceStaysHidden",
                   "lies with a worker that is busy", kAimedAtFull},
        BrokenPart{Breakage::kDeskCallsNobody, "DeskCallsNobody", "was not woken", kAimed},
        BrokenPart{Breakage::kMasterNeverLooksAtDesk, "MasterNeverLooksAtDesk", "not armed at rest",
                   kAimed},
        BrokenPart{Breakage::kPolicySkipsOneWorker, "PolicySkipsOneWorker", "round-robin gave"}),
    [](const testing::TestParamInfo<BrokenPart>& part) { return std::string(part.param.name); });

TEST(Simulation, PassesWithTheSameSeedsWhenNothingIsBroken) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    const Outcome outcome = RunSimulation(seed);
    EXPECT_TRUE(outcome.ok) << seed << ": " << outcome.failure;
  }
}

TEST(Simulation, RepeatsExactlyWithTheSameSeed) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    const Outcome first = RunSimulation(seed);
    std::string text;
    const Outcome second = RunSimulation(seed, Breakage::kNone, &text);
    EXPECT_EQ(first.trace_hash, second.trace_hash) << seed;
    EXPECT_EQ(first.lasted_ns, second.lasted_ns);
    EXPECT_FALSE(text.empty());
  }
}

TEST(Simulation, DiffersFromSeedToSeed) {
  EXPECT_NE(RunSimulation(1).trace_hash, RunSimulation(2).trace_hash);
}

TEST(Simulation, SaysWhatASeedHasDrawnAndReadsItAgain) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const std::string text = Describe(DrawConfig(seed));
    const absl::StatusOr<SimConfig> config = ParseConfig(text);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(Describe(*config), text);
    EXPECT_EQ(RunSimulation(*config).trace_hash, RunSimulation(seed).trace_hash) << text;
  }
}

TEST(Simulation, NamesTheWordThatItDoesNotUnderstand) {
  for (const char* word : {"frobs=1", "arrivals=many", "source=policy:least-loaded/frobs:1",
                           "worker=window:-1", "faults=frobs:1/2", "faults=emfile:1/0"}) {
    const absl::Status status = ParseConfig("seed=1 " + std::string(word)).status();
    EXPECT_NE(status.message().find(word), std::string::npos) << status;
  }
  EXPECT_FALSE(ParseConfig("seed=1").ok());  // without a source
}

// A fault-free world of equal workers with ample room: the round must come out even.
TEST(Simulation, DealsARoundEvenlyWithoutFaults) {
  SimConfig config;
  config.seed = 1;
  config.sources = {{.policy = "round-robin"}};
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

// What is broken must be shown by a world that can be read, and that can be run again from its
// text.
TEST_P(BrokenPartTest, ShrinksToAFewThings) {
  if (kStopsWhenNoticed) GTEST_SKIP() << "the plain build runs thousands of worlds for this";
  const auto run = [](const SimConfig& config) {
    return RunSimulation(config, GetParam().breakage);
  };
  for (uint64_t seed = 1;; ++seed) {
    const std::string text = Describe(DrawConfig(seed)) + GetParam().provoked_by;
    const absl::StatusOr<SimConfig> config = ParseConfig(text);
    if (!config.ok()) continue;
    const Outcome outcome = run(*config);
    if (outcome.failure.find(GetParam().expected) == std::string::npos) continue;
    const Shrunk shrunk = Shrink(*config, outcome, run);
    const Outcome again = run(ParseConfig(Describe(shrunk.config)).value());
    EXPECT_EQ(again.failure, shrunk.failure);
    EXPECT_EQ(KindOfFailure(again.failure), KindOfFailure(outcome.failure));
    EXPECT_LE(shrunk.config.sources.size(), 2u) << Describe(shrunk.config);
    EXPECT_LE(shrunk.config.workers.size(), 5u) << Describe(shrunk.config);
    EXPECT_LE(shrunk.config.workload.arrivals, 20u) << Describe(shrunk.config);
    EXPECT_LE(shrunk.config.strikes_max, 20u) << Describe(shrunk.config);
    const auto planned =
        std::count_if(shrunk.config.faults.ratios.begin(), shrunk.config.faults.ratios.end(),
                      [](const Ratio& ratio) { return ratio.n > 0; });
    EXPECT_LE(planned, 5) << Describe(shrunk.config);
    return;
  }
}

}  // namespace
}  // namespace ringmaster::sim
