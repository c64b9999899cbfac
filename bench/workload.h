// A workload: what the clients do and what is wrong with the workers.
//
// Each is one file in workloads/ that implements Workload and stands in the table of workload.cc.

#ifndef RINGMASTER_BENCH_WORKLOAD_H_
#define RINGMASTER_BENCH_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/load_generator.h"
#include "bench/mechanism.h"
#include "bench/result.h"

namespace ringmaster::bench {

class Workload {
 public:
  virtual ~Workload() = default;

  // As command lines and reports write it.
  virtual std::string name() const = 0;

  // A headline, and one or two sentences on what is done and what to look for.
  virtual std::string title() const = 0;
  virtual std::string description() const = 0;

  // What it is there to answer; decides which figures a report compares first.
  virtual Question question() const = 0;

  // Whether the latency counts from a schedule (open loop) or from when a client was ready.
  virtual bool open_loop() const = 0;

  // What the clients do for `duration_ns`, warm-up included; the same for the same seed.
  virtual std::variant<ClosedLoop, OpenLoop> Load(int64_t duration_ns, uint64_t seed) const = 0;

  // Traits of each of `count` workers.
  virtual std::vector<WorkerTraits> Workers(uint32_t count) const {
    return std::vector<WorkerTraits>(count);
  }
};

struct WorkloadOptions {
  std::optional<double> rate;  // connections per second of an open loop, instead of its own
};

// Makes a workload from its name. InvalidArgument names the known ones.
absl::StatusOr<std::unique_ptr<Workload>> MakeWorkload(std::string_view name,
                                                       const WorkloadOptions& options = {});

std::vector<std::string> WorkloadNames();

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_WORKLOAD_H_
