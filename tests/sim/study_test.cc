// Studies. The ideal queue is compared with what queueing theory says in closed form, and loads
// with what was asked for. Beside the ideal, the library's engine loses nothing, and the same seed
// gives the same figures. With one connection at a time for each worker its p99 is that of the
// ideal.

#include "sim/study.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "ringmaster/policy.h"
#include "sim/prng.h"
#include "sim/study_load.h"

namespace ringmaster::sim {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr uint32_t kNoLimit = UINT32_MAX;

constexpr LoadKind kKinds[] = {LoadKind::kPoisson, LoadKind::kBursts,  LoadKind::kHeavyTail,
                               LoadKind::kOneSlow, LoadKind::kOneDead, LoadKind::kLongLived};

StudyOutcome Serve(const std::string& policy, const StudyOptions& options, const Load& load) {
  return RunStudy(options, load, [&policy] { return PolicyByName(policy).value(); });
}

// That a request has to wait with Poisson arrivals, exponential service and so many servers.
double ErlangC(uint32_t servers, double load) {
  const double offered = load * servers;
  double blocked = 1;  // Erlang B, by its recursion
  for (uint32_t i = 1; i <= servers; ++i) blocked = offered * blocked / (i + offered * blocked);
  return blocked / (1 - load * (1 - blocked));
}

TEST(OneQueue, WaitsAsErlangSays) {
  for (const uint32_t workers : {1u, 2u, 10u, 50u}) {
    for (const double load : {0.5, 0.8}) {
      const Load drawn = DrawLoad(
          {.workers = workers, .requests = 400'000, .load = load, .service_ns = kMs, .seed = 5});
      const StudyOutcome outcome = ServeFromOneQueue(drawn);
      const auto waited =
          static_cast<double>(std::count_if(outcome.wait_ns.begin(), outcome.wait_ns.end(),
                                            [](int64_t wait_ns) { return wait_ns > 0; }));
      const double waits = ErlangC(workers, load);
      const double mean_ns = waits * kMs / (workers * (1 - load));
      // Half of a per mille of the arrivals, and 6 %, is what chance makes of so many.
      EXPECT_NEAR(waited / 400'000, waits, 0.0005 + 0.06 * waits) << workers << " at " << load;
      EXPECT_NEAR(Summarize(outcome.wait_ns).mean_ns, mean_ns, 0.0005 * kMs + 0.06 * mean_ns)
          << workers << " at " << load;
    }
  }
}

TEST(OneQueue, WaitsAsPollaczekAndKhinchinSayWhenAllRequestsAreAlike) {
  Prng prng(11);
  std::vector<TracedArrival> trace;
  double at_ns = 0;
  for (int i = 0; i < 400'000; ++i) {
    const double uniform = static_cast<double>(prng.Next() >> 11) * 0x1.0p-53;
    at_ns -= std::log1p(-uniform) * kMs / 0.7;
    trace.push_back({.at_ns = std::llround(at_ns), .service_ns = kMs});
  }
  const Load load = LoadOfTrace(trace, {.workers = 1, .load = 0});
  const double mean_ns = 0.7 * kMs / (2 * (1 - 0.7));
  EXPECT_NEAR(Summarize(ServeFromOneQueue(load).wait_ns).mean_ns, mean_ns, 0.05 * mean_ns);
}

TEST(OneQueue, IsFirstComeFirstServed) {
  const std::vector<TracedArrival> trace = {{0, 10}, {1, 10}, {2, 10}, {3, 1}, {30, 5}};
  const StudyOutcome outcome = ServeFromOneQueue(LoadOfTrace(trace, {.workers = 2, .load = 0}));
  EXPECT_EQ(outcome.wait_ns, (std::vector<int64_t>{0, 0, 8, 8, 0}));
  EXPECT_EQ(outcome.sojourn_ns, (std::vector<int64_t>{10, 10, 18, 9, 5}));
}

TEST(OneQueue, ASlowWorkerIsAskedLastAndADeadOneNotAtAll) {
  const LoadOptions options{
      .kind = LoadKind::kOneSlow, .workers = 4, .requests = 20'000, .load = 0.5, .service_ns = kMs};
  LoadOptions dead = options;
  dead.kind = LoadKind::kOneDead;
  const StudyOutcome with_slow = ServeFromOneQueue(DrawLoad(options));
  EXPECT_LT(with_slow.taken[0], with_slow.taken[1] / 4);
  EXPECT_GT(with_slow.taken[0], 0u);
  const Load with_dead = DrawLoad(dead);
  const StudyOutcome outcome = ServeFromOneQueue(with_dead);
  EXPECT_EQ(outcome.lost, 0u);
  EXPECT_LT(outcome.taken[0], outcome.taken[1] / 2);
}

TEST(StudyLoad, IsWhatWasAskedFor) {
  for (const LoadKind kind : kKinds) {
    LoadOptions options{.kind = kind,
                        .workers = 16,
                        .requests = 200'000,
                        .load = 0.8,
                        .service_ns = kMs,
                        .seed = 3};
    const Load load = DrawLoad(options);
    double service_ns = 0;
    for (const LoadRequest& request : load.requests) {
      service_ns += static_cast<double>(request.service_ns);
    }
    double capacity = options.workers;
    if (kind == LoadKind::kOneSlow) capacity = options.workers - 1 + 1 / kSlowFactor;
    if (kind == LoadKind::kOneDead) capacity = options.workers - 1;
    const auto lasted_ns = static_cast<double>(load.requests.back().at_ns);
    EXPECT_NEAR(service_ns / (lasted_ns * capacity), 0.8, 0.03) << static_cast<int>(kind);
    EXPECT_NEAR(service_ns / static_cast<double>(load.requests.size()), kMs, 0.03 * kMs);
    EXPECT_NEAR(static_cast<double>(load.requests.size()), 200'000, 10'000);
  }
}

TEST(StudyLoad, ATraceIsStretchedToTheLoadThatIsAskedFor) {
  const std::vector<TracedArrival> trace = {{100, 40}, {0, 60}, {50, 100}};
  EXPECT_DOUBLE_EQ(OfferedLoad(trace, 2), 1.0);
  const Load as_it_is = LoadOfTrace(trace, {.workers = 2, .load = 0});
  EXPECT_EQ(as_it_is.requests[1].at_ns, 50);
  EXPECT_EQ(as_it_is.requests[1].service_ns, 100);
  const Load half = LoadOfTrace(trace, {.workers = 2, .load = 0.5});
  EXPECT_EQ(half.requests[1].at_ns, 100);
  EXPECT_EQ(half.requests[2].at_ns, 200);
}

TEST(StudyLoad, TheTailHasTheMeanThatWasAskedFor) {
  // The integral of x times the density, numerically.
  const double shortest = TailShortest(1);
  const double rare = std::pow(kTailSpread, -kTailShape);
  double mean = 0;
  constexpr int kSteps = 1'000'000;
  for (int i = 0; i < kSteps; ++i) {
    const double u = (i + 0.5) / kSteps;
    mean += shortest * std::pow(1 - u * (1 - rare), -1 / kTailShape) / kSteps;
  }
  EXPECT_NEAR(mean, 1, 0.001);
}

// Every request is served once, as long as it takes, and not before it comes.
void ExpectWhole(const StudyOutcome& outcome, const Load& load, const std::string& what) {
  EXPECT_EQ(outcome.lost, 0u) << what;
  EXPECT_EQ(std::accumulate(outcome.taken.begin(), outcome.taken.end(), uint64_t{0}),
            load.connections.size())
      << what;
  for (size_t i = 0; i < load.requests.size(); ++i) {
    const int64_t took_ns = outcome.sojourn_ns[i] - outcome.wait_ns[i];
    const int64_t service_ns = load.requests[i].service_ns;
    ASSERT_GE(outcome.wait_ns[i], 0) << what;
    ASSERT_TRUE(took_ns == service_ns ||
                (load.slow_worker == 0 && took_ns == load.ServiceNs(0, load.requests[i])))
        << what;
  }
}

TEST(Study, EveryPolicyServesEverythingOfEveryLoad) {
  for (const LoadKind kind : kKinds) {
    const Load load = DrawLoad(
        {.kind = kind, .workers = 6, .requests = 600, .load = 0.8, .service_ns = kMs, .seed = 9});
    for (const std::string_view policy : PolicyNames()) {
      for (const uint32_t masters : {1u, 3u}) {
        for (const uint32_t capacity : {1u, 3u, kNoLimit}) {
          if (kind == LoadKind::kLongLived && capacity != kNoLimit) continue;
          const StudyOutcome outcome =
              Serve(std::string(policy), {.masters = masters, .capacity = capacity}, load);
          ExpectWhole(outcome, load,
                      std::string(policy) + ", load " + std::to_string(static_cast<int>(kind)) +
                          ", masters " + std::to_string(masters) + ", capacity " +
                          std::to_string(capacity));
        }
      }
    }
  }
}

TEST(Study, TheSameSeedGivesTheSameOutcome) {
  LoadOptions options{.kind = LoadKind::kHeavyTail,
                      .workers = 32,
                      .requests = 3'000,
                      .load = 0.9,
                      .service_ns = kMs,
                      .seed = 21};
  const StudyOptions study{.masters = 2, .capacity = kNoLimit};
  const StudyOutcome once = Serve("two-choices", study, DrawLoad(options));
  const StudyOutcome again = Serve("two-choices", study, DrawLoad(options));
  EXPECT_EQ(once.sojourn_ns, again.sojourn_ns);
  EXPECT_EQ(once.taken, again.taken);
  EXPECT_EQ(once.turns, again.turns);
  options.seed = 22;
  EXPECT_NE(Serve("two-choices", study, DrawLoad(options)).sojourn_ns, once.sojourn_ns);
}

TEST(Study, WithoutCostsOneConnectionAtATimeIsTheIdeal) {
  const Load load =
      DrawLoad({.workers = 16, .requests = 20'000, .load = 0.9, .service_ns = 10 * kMs, .seed = 4});
  const Distribution ideal = Summarize(ServeFromOneQueue(load).wait_ns);
  const StudyCosts free{
      .wake_ns = 0, .doorbell_ns = 0, .turn_ns = 0, .look_ns = 0, .operation_ns = 0};
  for (const std::string_view policy : PolicyNames()) {
    const StudyOutcome outcome = Serve(std::string(policy), {.costs = free}, load);
    const Distribution wait = Summarize(outcome.wait_ns);
    EXPECT_NEAR(wait.mean_ns, ideal.mean_ns, 100) << policy;
    EXPECT_NEAR(static_cast<double>(wait.p99_ns), static_cast<double>(ideal.p99_ns), 10'000)
        << policy;
  }
}

// What the library promises of its default policy, as far as virtual time can tell.
TEST(Study, WithOneConnectionAtATimeAndAThousandWorkersP99IsThatOfTheIdeal) {
  for (const double load : {0.8, 0.95}) {
    const Load drawn = DrawLoad({.kind = LoadKind::kHeavyTail,
                                 .workers = 1024,
                                 .requests = 20'000,
                                 .load = load,
                                 .service_ns = 10 * kMs,
                                 .seed = 1});
    const Distribution ideal = Summarize(ServeFromOneQueue(drawn).sojourn_ns);
    const StudyOutcome outcome = Serve("least-loaded", {}, drawn);
    const Distribution ours = Summarize(outcome.sojourn_ns);
    EXPECT_EQ(outcome.lost, 0u);
    EXPECT_LE(static_cast<double>(ours.p99_ns), 1.05 * static_cast<double>(ideal.p99_ns)) << load;
    EXPECT_GE(ours.mean_ns, ideal.mean_ns) << load;
  }
}

TEST(Study, WhatADeadWorkerHasNotClaimedIsRecalled) {
  const Load load = DrawLoad({.kind = LoadKind::kOneDead,
                              .workers = 4,
                              .requests = 4'000,
                              .load = 0.6,
                              .service_ns = kMs,
                              .seed = 2});
  const StudyOutcome outcome = Serve("round-robin", {.capacity = kNoLimit}, load);
  ExpectWhole(outcome, load, "round-robin");
  EXPECT_GT(outcome.recalled, 0u);
  // It took its turns as long as it lived.
  EXPECT_NEAR(static_cast<double>(outcome.taken[0]), 250, 40);
}

TEST(Study, LeastLoadedSpreadsLongLivedConnectionsBetterThanAHash) {
  const Load load = DrawLoad({.kind = LoadKind::kLongLived,
                              .workers = 16,
                              .requests = 20'000,
                              .load = 0.7,
                              .service_ns = kMs,
                              .seed = 6});
  const auto p99 = [&](const std::string& policy) {
    return Summarize(Serve(policy, {.capacity = kNoLimit}, load).sojourn_ns).p99_ns;
  };
  EXPECT_LT(p99("least-loaded"), p99("affinity-hash"));
}

TEST(Study, SeveralMastersShareTheWorkers) {
  const Load load =
      DrawLoad({.workers = 32, .requests = 10'000, .load = 0.9, .service_ns = 10 * kMs, .seed = 8});
  const StudyOutcome one = Serve("least-loaded", {}, load);
  const StudyOutcome four = Serve("least-loaded", {.masters = 4}, load);
  ExpectWhole(four, load, "four masters");
  EXPECT_GT(JainIndex(four.taken), 0.98);
  // The kernel deals connections to listeners by a hash, so a free worker may be asked by a master
  // that has nothing. Nevertheless nobody is left alone.
  EXPECT_LT(Summarize(four.sojourn_ns).mean_ns, 1.2 * Summarize(one.sojourn_ns).mean_ns);
}

TEST(Figures, AreExact) {
  std::vector<int64_t> values(1000);
  std::iota(values.begin(), values.end(), 1);
  values.push_back(-1);  // not served
  const Distribution distribution = Summarize(values);
  EXPECT_DOUBLE_EQ(distribution.mean_ns, 500.5);
  EXPECT_EQ(distribution.p50_ns, 500);
  EXPECT_EQ(distribution.p99_ns, 990);
  EXPECT_EQ(distribution.p999_ns, 999);
  EXPECT_EQ(distribution.max_ns, 1000);
  EXPECT_DOUBLE_EQ(JainIndex(std::vector<uint64_t>{1, 1, 1, 1}), 1);
  EXPECT_DOUBLE_EQ(JainIndex(std::vector<uint64_t>{4, 0, 0, 0}), 0.25);
}

}  // namespace
}  // namespace ringmaster::sim
