// The command line of ringmaster-sim.

#ifndef RINGMASTER_TOOLS_SIM_OPTIONS_H_
#define RINGMASTER_TOOLS_SIM_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/study.h"
#include "workload.h"

namespace ringmaster::simtool {

// Exit status after a command line that makes no sense.
inline constexpr int kWrongOptions = 2;

struct Options {
  std::vector<std::string> policies;
  std::vector<Workload> workloads;
  std::vector<uint32_t> workers = {64};
  std::vector<uint32_t> masters = {1};
  std::vector<double> loads = {0.8, 0.95};
  bool loads_given = false;  // otherwise recorded loads are taken as they are
  uint32_t arrivals = 200'000;
  std::optional<uint32_t> capacity;  // 0: no limit; none: what the workload suggests
  uint32_t window = 32;
  double recall_after_ms = 10;
  double service_us = 10'000;
  double warm_up = 0.1;
  sim::StudyCosts costs;
  uint64_t seed = 1;
  std::string csv_path;
  std::string json_path;
  std::string picture_path;
};

// What the command line asks for: to run with `options`, or to end at once with `exit_status`. The
// latter is for help, a list, the version or a complaint, which has been printed.
struct CommandLine {
  Options options;
  std::optional<int> exit_status;
};

// Help, lists and version go to stdout with status 0, complaints to stderr with status 2.
CommandLine ParseCommandLine(int argument_count, char** arguments);

// WorkerOptions::capacity for a workload: UINT32_MAX is no limit.
uint32_t CapacityFor(const Options& options, const Workload& workload);

}  // namespace ringmaster::simtool

#endif  // RINGMASTER_TOOLS_SIM_OPTIONS_H_
