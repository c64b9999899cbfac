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

// One that would fail the test if it was started.
class Unable : public Mechanism {
 public:
  std::string name() const override { return "unable"; }
  std::string summary() const override { return "is not started"; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
    return absl::UnimplementedError("unable was started");
  }
};

TEST(MeasureAndReport, RefusesToWriteWhereThereIsNoDirectoryBeforeItMeasures) {
  const std::string directory = testing::TempDir() + "/not_there";
  Plan plan = PlanOf("epoll-exclusive", "light");
  plan.mechanisms.push_back(std::make_unique<Unable>());
  for (const MeasurementOptions& options :
       {MeasurementOptions{.report_path = directory + "/report.html"},
        MeasurementOptions{.json_path = directory + "/figures.json"}}) {
    const absl::Status status = MeasureAndReport(plan, options);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(status.message().find("there is no directory " + directory + "; create it first"),
              std::string::npos)
        << status;
  }
  EXPECT_FALSE(std::filesystem::exists(directory));
}

}  // namespace
}  // namespace ringmaster::bench
