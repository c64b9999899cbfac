// `ringmaster-bench compare`: every mechanism side by side, under the workloads that tell them
// apart.

#ifndef RINGMASTER_BENCH_COMPARE_H_
#define RINGMASTER_BENCH_COMPARE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/runner.h"

namespace ringmaster::bench {

struct CompareOptions {
  std::string workloads = "saturated,light,slow-worker";  // by comma, or "all"
  std::string mechanisms = "all";                         // see MechanismsOf
  std::string transport = "tcp";
  uint32_t workers = 4;
  std::optional<uint32_t> repetitions;  // 9, or 3 if `quick`
  std::optional<double> seconds;  // of one window; chosen so that it takes a quarter of an hour
  std::optional<double> rate;     // of the open loops
  std::optional<uint64_t> seed;   // drawn when there is none
  bool quick = false;
  uint32_t hogs = 0;              // processes that are busy meanwhile
  StayOptions stay;               // of the workloads whose clients stay
  std::string service = "sleep";  // of these: sleep or spin
  bool pin = false;               // server and clients on different processors
  std::string report_path;        // of the HTML page; empty: none
  std::string json_path;          // empty: none
};

// The names in a list by comma, the sets "all", "rivals" and "ringmaster" spelled out, each once. A
// piece that begins with a digit belongs to the one before it. The parameters of a policy have
// commas, too, and no mechanism begins with a digit.
std::vector<std::string> MechanismsOf(std::string_view list);

// The names in a list by comma, "all" spelled out, each once. Spaces around a comma do not matter.
std::vector<std::string> WorkloadsOf(std::string_view list);

// What would be measured. InvalidArgument for options that mean nothing, with what may have been
// meant.
absl::StatusOr<Plan> PlanOf(const CompareOptions& options, uint64_t seed);

// What is going to be measured, and how long it takes.
std::string HeaderOf(const Plan& plan);

// Which workloads of the plan do not look at --rate, in a line; empty if all do.
std::string RateNote(const Plan& plan);

// The mechanisms and workloads, a line for each, and why a mechanism cannot run here.
std::string ListOf(const Plan& everything);

// Prints what there is to compare.
absl::Status ListComparison(const CompareOptions& options);

// Prints progress to stderr and the result to stdout, and writes the files.
absl::Status RunComparison(const CompareOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_COMPARE_H_
