// Runs plans of mechanisms that are made up.

#include "bench/runner.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

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

TEST(RunPlan, AsksForTheTransportThatIsUsed) {
  Plan plan = MadePlan();
  plan.transport = Transport::kUnix;
  const auto results = RunPlan(plan, [](const Progress&) {});
  EXPECT_EQ(results.status().code(), absl::StatusCode::kUnimplemented);
}

TEST(MakeWorkload, TakesTheRateOfAnOpenLoop) {
  const auto workload = MakeWorkload("slow-worker", {.rate = 500}).value();
  const auto load = std::get<OpenLoop>(workload->Load({.window_ns = 10 * kSecond}, 1));
  EXPECT_NEAR(static_cast<double>(load.starts_ns.size()), 5000, 500);
  EXPECT_NE(workload->description().find("500 connections"), std::string::npos);
}

}  // namespace
}  // namespace ringmaster::bench
