// `ringmaster-bench demo`: the same connections through EPOLLEXCLUSIVE and through ringmaster's
// policies, side by side, in less than two minutes. What the library is there for comes first:
// connections that stay. Light load comes last, because it shows the price.

#ifndef RINGMASTER_BENCH_DEMO_H_
#define RINGMASTER_BENCH_DEMO_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace ringmaster::bench {

struct DemoOptions {
  double seconds = 1.0;
  uint32_t repetitions = 5;
  uint32_t workers = 4;
  std::string transport = "tcp";
  std::vector<std::string> policies = {"round-robin", "least-loaded", "exclusive"};
  std::vector<std::string> workloads = {"stay", "saturated", "slow-worker", "light"};
  std::optional<uint64_t> seed;  // drawn when there is none
  std::string report_path;       // of the HTML page; empty: none
  std::string json_path;         // empty: none
};

// Prints progress to stderr and the result to stdout, and writes the files. InvalidArgument for
// options that mean nothing; anything else is why it could not be measured.
absl::Status RunDemo(const DemoOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_DEMO_H_
