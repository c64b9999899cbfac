// Runs plans of mechanisms that are made up.

#include "bench/runner.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>

#include <memory>
#include <string>
#include <vector>

#include "support/descriptor_limit.h"

namespace ringmaster::bench {
namespace {

// One that would fail, if anybody tried.
class Unable : public Mechanism {
 public:
  std::string name() const override { return "unable"; }
  std::string summary() const override { return "cannot run anywhere"; }
  std::string WhyNot(Transport transport) const override {
    return transport == Transport::kTcp ? "no privilege; run as root" : "";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
    return absl::UnimplementedError("unable was started");
  }
};

Plan MadePlan() {
  Plan plan{.repetitions = 2, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond};
  plan.mechanisms.push_back(std::make_unique<Unable>());
  plan.workloads.push_back(MakeWorkload("light").value());
  return plan;
}

TEST(RunPlan, ReportsAMechanismThatCannotRunHereWithItsReason) {
  Plan plan = MadePlan();
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  EXPECT_EQ(plan.RunCount(), 2u);
  size_t told = 0;
  const auto results = RunPlan(plan, [&](const Progress& progress) {
    ++told;
    EXPECT_EQ(progress.mechanism, "epoll-exclusive");
    EXPECT_EQ(progress.run_count, 2u);
  });
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_GE(told, 2u);
  ASSERT_EQ(results->size(), 2u);
  EXPECT_EQ(results->at(0).mechanism, "unable");
  EXPECT_EQ(results->at(0).skipped, "no privilege; run as root");
  EXPECT_EQ(results->at(0).repetitions, 0u);
  EXPECT_EQ(results->at(1).skipped, "");
  EXPECT_EQ(results->at(1).repetitions, 2u);
}

// One that can run, and a moment later cannot.
class Fickle : public Mechanism {
 public:
  std::string name() const override { return "fickle"; }
  std::string summary() const override { return "changes its mind"; }
  std::string WhyNot(Transport) const override { return asked_++ == 0 ? "not yet" : ""; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
    return absl::UnimplementedError("fickle was started");
  }

 private:
  mutable int asked_ = 0;
};

TEST(RunPlan, AsksAMechanismOnceWhetherItCanRun) {
  Plan plan{.repetitions = 1, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond};
  plan.mechanisms.push_back(std::make_unique<Fickle>());
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  plan.workloads.push_back(MakeWorkload("light").value());
  EXPECT_EQ(plan.RunCount(), 1u);
  const auto results = RunPlan(plan, [](const Progress& progress) {
    EXPECT_EQ(progress.run_count, 1u);
    EXPECT_EQ(progress.run, 0u);
  });
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(results->at(0).skipped, "not yet");
}

TEST(RunPlan, AsksForTheTransportThatIsUsed) {
  Plan plan = MadePlan();
  plan.transport = Transport::kUnix;
  const auto results = RunPlan(plan, [](const Progress&) {}).value();
  EXPECT_EQ(results[0].skipped, "unable was started");
}

// Starts so many times, and then no more.
class Exhausted : public Mechanism {
 public:
  explicit Exhausted(int starts) : starts_(starts) {}
  std::string name() const override { return "exhausted"; }
  std::string summary() const override { return "runs out"; }
  std::string WhyNot(Transport) const override { return ""; }
  // Asked for in the measuring process before each start, which is in another one.
  bool shares_port() const override {
    --starts_;
    return false;
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    if (starts_ < 0) return absl::ResourceExhaustedError("no memory left; get more");
    return MakeMechanism("epoll-exclusive").value()->Start(options);
  }

 private:
  mutable int starts_;
};

TEST(RunPlan, GoesOnWithoutAMechanismThatFails) {
  for (const int starts : {0, 1, 2}) {
    Plan plan{.repetitions = 3, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond};
    plan.mechanisms.push_back(std::make_unique<Exhausted>(starts));
    plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
    plan.workloads.push_back(MakeWorkload("light").value());
    Progress last;
    std::vector<std::string> skipped;
    const auto results = RunPlan(plan, [&](const Progress& progress) {
      EXPECT_TRUE(progress.run < progress.run_count || !progress.skipped.empty());
      if (!progress.skipped.empty()) skipped.push_back(progress.mechanism);
      last = progress;
    });
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_EQ(results->at(0).repetitions, 0u);
    EXPECT_TRUE(results->at(0).skipped.ends_with("no memory left; get more"));
    EXPECT_EQ(results->at(0).skipped.starts_with("failed in repetition 2 of 3"), starts == 2);
    EXPECT_EQ(results->at(1).skipped, "");
    EXPECT_EQ(results->at(1).repetitions, 3u);
    EXPECT_EQ(skipped, std::vector<std::string>{"exhausted"});
    EXPECT_EQ(last.run_count, 3u + static_cast<size_t>(starts));
  }
}

// One whose connections are slots.
class WithoutDescriptors : public Unable {
 public:
  std::string WhyNot(Transport) const override { return ""; }
  bool takes_descriptors() const override { return false; }
};

TEST(RunPlan, LeavesOutALimitOfDescriptorsWhereConnectionsTakeNone) {
  const Plan plan{.repetitions = 1};
  const WithoutDescriptors mechanism;
  const std::string why = plan.WhySkip(mechanism, *MakeWorkload("emfile").value());
  EXPECT_NE(why.find("measure uring-oneshot-each"), std::string::npos) << why;
  EXPECT_EQ(plan.WhySkip(mechanism, *MakeWorkload("flood").value()), "");
}

TEST(RunPlan, SkipsAWorkloadForWhoseClientsThereAreTooFewDescriptors) {
  const DescriptorLimit few(256);
  Plan plan{.workers = 4, .repetitions = 1, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond};
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  for (const char* name : {"flood", "light"}) {
    plan.workloads.push_back(MakeWorkload(name).value());
  }
  EXPECT_NE(plan.WhyNot(*plan.workloads[0]).find("ulimit -n 448"), std::string::npos);
  EXPECT_EQ(plan.WhyNot(*plan.workloads[1]), "");
  const auto results = RunPlan(plan, [](const Progress&) {});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(results->at(0).skipped,
            "RLIMIT_NOFILE is 256, too few descriptors for 320 clients; "
            "raise it with: ulimit -n 448");
  EXPECT_EQ(results->at(1).repetitions, 1u);
}

TEST(RunPlan, AsksNobodyToHoldConnectionsWhoServesOneAtATime) {
  Plan plan{.repetitions = 1, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond};
  plan.mechanisms.push_back(MakeMechanism("blocking-accept").value());
  for (const char* name : {"flood", "light"}) {
    plan.workloads.push_back(MakeWorkload(name).value());
  }
  EXPECT_EQ(plan.RunCount(), 1u);
  const auto results = RunPlan(plan, [](const Progress&) {}).value();
  EXPECT_NE(results[0].skipped.find("one connection at a time"), std::string::npos);
  EXPECT_EQ(results[1].skipped, "");
  EXPECT_EQ(results[1].repetitions, 1u);
}

// One whose workers take nothing.
class Idle : public Mechanism {
 public:
  std::string name() const override { return "idle"; }
  std::string summary() const override { return "does nothing"; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
    return std::make_unique<Server>();
  }
};

TEST(RunPlan, HasNoSharesOfNothing) {
  Plan plan{.repetitions = 1, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond};
  plan.mechanisms.push_back(std::make_unique<Idle>());
  plan.workloads.push_back(MakeWorkload("light").value());
  const auto results = RunPlan(plan, [](const Progress&) {}).value();
  EXPECT_EQ(results[0].repetitions, 1u);
  EXPECT_GT(results[0].median.lost.value(), 0);
  EXPECT_TRUE(results[0].shares.empty());
  EXPECT_FALSE(results[0].median.jain.has_value());
  EXPECT_FALSE(results[0].median.max_over_mean.has_value());
}

// Takes the clients' descriptors away as soon as they run, so that they cannot connect.
TEST(RunPlan, SaysThatTheClientsThemselvesCouldNotConnect) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 4;
  Plan plan{.repetitions = 1, .warm_up_ns = 0, .duration_ns = kSecond};
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  plan.workloads.push_back(MakeWorkload("light").value());
  const auto results = RunPlan(plan, [&](const Progress& progress) {
    if (progress.elapsed_ns > 100 * kMillisecond) setrlimit(RLIMIT_NOFILE, &few);
    if (!progress.skipped.empty()) setrlimit(RLIMIT_NOFILE, &before);
  });
  setrlimit(RLIMIT_NOFILE, &before);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_NE(results->at(0).skipped.find("Too many open files"), std::string::npos)
      << results->at(0).skipped;
}

TEST(RunPlan, TakesTheWindowThatAWorkloadNeeds) {
  Plan plan{.duration_ns = kMillisecond};
  const auto frozen = MakeWorkload("frozen-worker").value();
  EXPECT_EQ(plan.WindowNs(*frozen), frozen->WindowNsMin());
  plan.duration_ns = 3600 * kSecond;
  EXPECT_EQ(plan.WindowNs(*frozen), 3600 * kSecond);
}

TEST(RunPlan, SaysHowLongTheWindowOfEachResultWas) {
  Plan plan = MadePlan();
  plan.workloads.push_back(MakeWorkload("frozen-worker").value());
  const auto results = RunPlan(plan, [](const Progress&) {}).value();
  EXPECT_EQ(results[0].seconds, 0.02);
  EXPECT_EQ(results[1].seconds, 2);
}

TEST(RunPlan, FillsInEveryFigureThatAMechanismHas) {
  Plan plan{.repetitions = 1, .warm_up_ns = 10 * kMillisecond, .duration_ns = 100 * kMillisecond};
  for (const char* name : {"epoll-exclusive", "eventfd-least-loaded"}) {
    plan.mechanisms.push_back(MakeMechanism(name).value());
  }
  plan.workloads.push_back(MakeWorkload("saturated").value());
  const auto results = RunPlan(plan, [](const Progress&) {}).value();
  for (const Result& result : results) {
    const Figures& figures = result.median;
    for (const Figure Figures::*figure :
         {&Figures::connections_per_second, &Figures::p50_us, &Figures::p999_us, &Figures::max_us,
          &Figures::jain, &Figures::worker_wakes_per_connection,
          &Figures::arrival_wakes_per_connection, &Figures::context_switches_per_connection,
          &Figures::system_calls_per_connection, &Figures::cpu_us_per_connection,
          &Figures::generator_cpu_share, &Figures::server_cpu_share}) {
      EXPECT_GT((figures.*figure).value_or(0), 0) << result.mechanism;
    }
    for (const Figure Figures::*figure : {&Figures::empty_wakes_per_connection, &Figures::lost,
                                          &Figures::reset, &Figures::refused}) {
      EXPECT_TRUE((figures.*figure).has_value()) << result.mechanism;
    }
    const bool master = result.mechanism != "epoll-exclusive";
    EXPECT_EQ(figures.master_wakes_per_connection.has_value(), master);
    EXPECT_EQ(figures.doorbells_per_connection.has_value(), master);
    EXPECT_FALSE(figures.recalled.has_value());
    EXPECT_FALSE(result.pinned);
  }
}

// Says how many processors its server may use.
class Pinned : public Mechanism {
 public:
  std::string name() const override { return "pinned"; }
  std::string summary() const override { return "looks where it is"; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
    return absl::InternalError(std::to_string(Processors()));
  }
  static int Processors() {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    sched_getaffinity(0, sizeof(cpus), &cpus);
    return CPU_COUNT(&cpus);
  }
};

TEST(RunPlan, PinsTheServerToHalfOfTheProcessors) {
  Plan plan{.repetitions = 1, .pin = true};
  plan.mechanisms.push_back(std::make_unique<Pinned>());
  plan.workloads.push_back(MakeWorkload("light").value());
  const int processors = Pinned::Processors();
  const auto results = RunPlan(plan, [](const Progress&) {});
  if (processors < 2) {
    EXPECT_EQ(results.status().code(), absl::StatusCode::kFailedPrecondition);
    GTEST_SKIP() << "one processor has no halves";
  }
  EXPECT_EQ(results.value().at(0).skipped, std::to_string(processors / 2));
  EXPECT_EQ(Pinned::Processors(), processors) << "the measuring process is not";
}

TEST(RunPlan, SaysThatTheRunWasPinned) {
  if (Pinned::Processors() < 2) GTEST_SKIP() << "one processor has no halves";
  Plan plan{.repetitions = 1, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond, .pin = true};
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  plan.workloads.push_back(MakeWorkload("light").value());
  const auto results = RunPlan(plan, [](const Progress&) {}).value();
  EXPECT_TRUE(results[0].pinned);
  EXPECT_EQ(results[0].median.lost, 0);
}

}  // namespace
}  // namespace ringmaster::bench
