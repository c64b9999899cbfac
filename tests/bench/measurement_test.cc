// What comes before a measurement, and whether it comes about.

#include "bench/measurement.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/workload.h"

namespace ringmaster::bench {
namespace {

Plan PlanOf(const std::string& mechanism, const std::string& workload) {
  Plan plan{.transport = Transport::kUnix,
            .repetitions = 1,
            .warm_up_ns = 0,
            .duration_ns = 20 * kMillisecond};
  plan.mechanisms.push_back(MakeMechanism(mechanism).value());
  plan.workloads.push_back(MakeWorkload(workload).value());
  return plan;
}

TEST(MeasureAndReport, FailsWithTheReasonsWhenNothingCanBeMeasured) {
  const std::string path = testing::TempDir() + "/nothing_was_measured.json";
  Plan plan = PlanOf("reuseport", "light");
  plan.workloads.push_back(MakeWorkload("paced").value());
  const absl::Status status = MeasureAndReport(plan, {.json_path = path});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(status.message());
  const size_t reason = message.find("reuseport: SO_REUSEPORT");
  EXPECT_NE(reason, std::string::npos) << message;
  EXPECT_EQ(message.find("reuseport: ", reason + 1), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(MeasureAndReport, GoesOnWithWhatCanBeMeasured) {
  Plan plan = PlanOf("reuseport", "light");
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  EXPECT_TRUE(MeasureAndReport(plan, {}).ok());
}

}  // namespace
}  // namespace ringmaster::bench
