// Runs mechanisms under workloads, repeatedly and interleaved, and says all the time what it does.
//
// Order matters on a shared machine: whatever drifts (a neighbour, a thermal limit, caches) must
// not favour one side. So every repetition runs each pair of mechanism and workload once, in an
// order drawn anew from the seed. The clients of one repetition follow the same schedule with every
// mechanism.

#ifndef RINGMASTER_BENCH_RUNNER_H_
#define RINGMASTER_BENCH_RUNNER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/clock.h"
#include "bench/mechanism.h"
#include "bench/result.h"
#include "bench/target.h"
#include "bench/workload.h"

namespace ringmaster::bench {

struct Plan {
  std::vector<std::unique_ptr<Mechanism>> mechanisms;
  std::vector<std::unique_ptr<Workload>> workloads;
  Transport transport = Transport::kTcp;
  uint32_t workers = 4;
  uint32_t repetitions = 5;
  int64_t warm_up_ns = 250 * kMillisecond;
  int64_t duration_ns = kSecond;  // one window
  // The server runs on one half of the processors, the clients on the other. Neither takes time
  // from the other, and which of them is the limit can be seen.
  bool pin = false;
  uint64_t seed = 0;
  // Processes that are busy meanwhile, on any processor.
  uint32_t hogs = 0;

  // Mechanism::WhyNot over the plan's transport. Asked once: a machine that has just enough of
  // something may answer differently each time, and then no two counts of the runs would agree.
  const std::string& WhyNot(const Mechanism& mechanism) const;
  mutable std::map<std::pair<const Mechanism*, Transport>, std::string> answers;

  // Why nothing can be measured under a workload of this plan here, as far as that is known before
  // anything is started. Empty if something can.
  std::string WhyNot(const Workload& workload) const;

  // Of the mechanisms that can run here.
  size_t RunCount() const;
  // Why a pair is not measured; empty if it is.
  std::string WhySkip(const Mechanism& mechanism, const Workload& workload) const;
  // Of a run under `workload`, which may need a longer window than the plan's.
  int64_t WindowNs(const Workload& workload) const;
  int64_t ExpectedNs() const;
};

// Where a measurement stands.
struct Progress {
  size_t run = 0;  // the one that is under way, counted from 0
  size_t run_count = 0;
  std::string workload;
  std::string mechanism;
  int64_t elapsed_ns = 0;
  int64_t remaining_ns = 0;  // an estimate that learns from the runs so far
  // Why this mechanism under this workload has just been given up; empty: it is under way.
  std::string skipped;
};

// Runs the plan; `on_progress` is called on the calling thread, several times a second. Starts
// every mechanism once before anything is measured, so that one that fails is told of at once. A
// mechanism that cannot run here, or that fails under a workload, is skipped from then on, with its
// reason in the result. The others go on, so that minutes of measuring are not lost to one of them.
// Returns the results in the plan's order, by workload; there may be none with figures.
// FailedPrecondition when there are too few processors to pin to. The calling process must have one
// thread.
absl::StatusOr<std::vector<Result>> RunPlan(
    const Plan& plan, const std::function<void(const Progress&)>& on_progress);

// The texts of the plan's workloads.
std::vector<WorkloadText> TextsOf(const Plan& plan);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_RUNNER_H_
