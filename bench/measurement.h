// From a plan to its report: what every command of ringmaster-bench that measures has in common.

#ifndef RINGMASTER_BENCH_MEASUREMENT_H_
#define RINGMASTER_BENCH_MEASUREMENT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/runner.h"
#include "bench/workload.h"

namespace ringmaster::bench {

// The limits of what can be asked for.
struct PlanSize {
  double seconds = 0;
  uint32_t repetitions = 0;
  uint32_t workers = 0;
  std::string transport;
};

// A plan of that size, still without mechanisms and workloads. InvalidArgument says what may be
// asked for.
absl::StatusOr<Plan> MakePlan(const PlanSize& size, uint64_t seed);

// Add to a plan what is named. InvalidArgument says which name is wrong, which ones there are, and
// which one may have been meant.
absl::Status AddMechanisms(std::span<const std::string> names, Plan& plan);
absl::Status AddWorkloads(std::span<const std::string> names, const WorkloadOptions& options,
                          Plan& plan);

struct MeasurementOptions {
  std::string command;      // that repeats it, the seed spelled out
  std::string report_path;  // of the HTML page; empty: none
  std::string json_path;    // empty: none
};

// The plan that `make` makes of the seed; where there is none, one is drawn. Returns its error, or
// InvalidArgument if the figures and the page would be the same file.
absl::StatusOr<Plan> ReadyPlan(std::optional<uint64_t> seed, const std::string& report_path,
                               const std::string& json_path,
                               const std::function<absl::StatusOr<Plan>(uint64_t seed)>& make);

// Measures, with progress on stderr; writes the files and then prints the result to stdout. Whether
// they can be written is found out before anything is measured. FailedPrecondition, with the
// reasons, when nothing of the plan can be measured here; Unavailable if nothing was, although the
// report says so as well.
absl::Status MeasureAndReport(const Plan& plan, const MeasurementOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MEASUREMENT_H_
