// What ringmaster-sim has found out, and how it is told: in the terminal, as CSV and as JSON.

#ifndef RINGMASTER_TOOLS_SIM_RESULTS_H_
#define RINGMASTER_TOOLS_SIM_RESULTS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "options.h"
#include "sim/study.h"

namespace ringmaster::simtool {

// The name of the ideal in the place of a policy.
inline constexpr char kIdeal[] = "one queue (ideal)";

// One policy, or the ideal, under one load.
struct Row {
  std::string policy;
  std::string workload;
  uint32_t workers = 0;
  uint32_t masters = 0;   // of the ideal: none
  uint32_t capacity = 1;  // of a worker; UINT32_MAX: no limit. The ideal does not ask for it
  double load = 0;
  uint64_t requests = 0;
  uint64_t connections = 0;
  sim::Distribution sojourn;  // from the arrival until it is served
  sim::Distribution wait;     // from the arrival until a worker begins
  double p99_ratio = 1;       // of the sojourn to the ideal's
  double jain = 1;            // of the connections of the workers
  uint64_t recalled = 0;
  double doorbells = 0;          // for each connection
  double turns = 0;              // of masters, for each connection
  double master_busy_share = 0;  // of the busiest
  uint64_t lost = 0;

  bool ideal() const { return masters == 0; }
};

// What a capacity of workers means.
std::string CapacityText(uint32_t capacity);

// Prints rows as they come, under a head for each load.
class Table {
 public:
  explicit Table(const Options& options);

  // What holds for all of it.
  std::string Intro() const;
  // Before the first row of a load.
  std::string Head(const Row& ideal) const;
  std::string Line(const Row& row) const;

 private:
  const Options& options_;
  size_t policy_width_ = 0;
  bool with_masters_ = false;
};

std::string AsCsv(std::span<const Row> rows);
// With the options under "options", so that a program can repeat it.
std::string AsJson(std::span<const Row> rows, const Options& options);

}  // namespace ringmaster::simtool

#endif  // RINGMASTER_TOOLS_SIM_RESULTS_H_
