// The workloads of ringmaster-sim: those that are drawn, and recorded ones.

#ifndef RINGMASTER_TOOLS_SIM_WORKLOAD_H_
#define RINGMASTER_TOOLS_SIM_WORKLOAD_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "sim/study_load.h"

namespace ringmaster::simtool {

struct Workload {
  std::string name;
  std::optional<sim::LoadKind> kind;      // none: recorded
  std::vector<sim::TracedArrival> trace;  // recorded
};

// By its name, or trace:FILE, whose file is read. InvalidArgument says what is wrong and where.
absl::StatusOr<Workload> FindWorkload(const std::string& name);

std::vector<std::string> WorkloadNames();

// What a workload is, with its parameters.
std::string DescribeWorkload(const Workload& workload, double service_us);

// A recorded load: the text of a CSV file whose first line names the columns, arrival and service.
// Each has its unit, as in "arrival_ms,service_us"; the units are s, ms, us and ns. More columns
// are left aside. `where` is named in complaints.
absl::StatusOr<std::vector<sim::TracedArrival>> ParseTrace(const std::string& text,
                                                           const std::string& where);

}  // namespace ringmaster::simtool

#endif  // RINGMASTER_TOOLS_SIM_WORKLOAD_H_
