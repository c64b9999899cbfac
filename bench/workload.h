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

// What a run is like: the clients begin with the warm-up.
struct Setting {
  int64_t warm_up_ns = 0;
  int64_t window_ns = 0;
  uint32_t workers = 1;

  int64_t TotalNs() const { return warm_up_ns + window_ns; }
};

// Something that happens to one worker.
struct Incident {
  int64_t at_ns = 0;      // since the window's beginning
  uint32_t worker = 0;    // one that the server has
  int64_t freeze_ns = 0;  // it sleeps so long with the next connection that it takes
  bool leaves = false;    // it takes no more connections from its next turn on
};

// What a run leaves behind.
struct Evidence {
  const Setting& setting;
  const LoadResult& load;
  std::vector<uint64_t> open_max;  // by worker, the most connections at once
};

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

  // Connections per second of a schedule that WorkloadOptions::rate sets; none: the schedule is the
  // workload's own, or there is none.
  virtual std::optional<double> rate() const { return std::nullopt; }

  // What the clients do; the same for the same seed.
  virtual bench::Load Load(const Setting& setting, uint64_t seed) const = 0;

  // How long a window must be to show what it is there for; a longer one is taken as it is.
  virtual int64_t WindowNsMin() const { return 0; }

  // How long the clients must have been there before the window begins.
  virtual int64_t WarmUpNsMin() const { return 0; }

  // Traits of each of `count` workers.
  virtual std::vector<WorkerTraits> Workers(uint32_t count) const {
    return std::vector<WorkerTraits>(count);
  }

  // What happens to the workers during a window of this length, in the order of time.
  virtual std::vector<Incident> Incidents(int64_t /*window_ns*/) const { return {}; }

  // How much a worker computes for a connection, in units (request.h); the same for every
  // mechanism, because it follows from the number and the seed.
  virtual uint32_t Work(uint64_t /*number*/, uint64_t /*seed*/) const { return 0; }

  // How many descriptors the server gets for connections; none: no limit of the workload's.
  virtual std::optional<uint32_t> Descriptors() const { return std::nullopt; }

  // Whether connections stay open beyond their answer. Not asked of a mechanism that serves one
  // connection at a time: its workers would do nothing but hold them.
  virtual bool holds_connections() const { return false; }

  // Whether `Evaluate` wants to know of each single answer.
  virtual bool logs_answers() const { return false; }

  // What only it can tell, from what was counted: fills in figures of its own.
  virtual void Evaluate(const Evidence& /*evidence*/, RunResult& /*run*/) const {}
};

// What a worker does for a request of clients that stay.
enum class Service : uint8_t {
  kSleep,  // waits, as for a database
  kSpin,   // computes
};

// Of the workloads whose clients stay.
struct StayOptions {
  uint32_t connections = 64;
  uint32_t opening_us = 3000;  // between two clients' first connections; 0: all at once
  Service service = Service::kSleep;
  uint32_t service_us = 1000;
  uint32_t think_us = 20'000;
  bool open_loop = false;
};

struct WorkloadOptions {
  std::optional<double> rate;  // connections per second of an open loop, instead of its own
  StayOptions stay;
};

// Makes a workload from its name. InvalidArgument names the known ones.
absl::StatusOr<std::unique_ptr<Workload>> MakeWorkload(std::string_view name,
                                                       const WorkloadOptions& options = {});

std::vector<std::string> WorkloadNames();

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_WORKLOAD_H_
