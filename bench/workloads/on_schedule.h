// What the workloads have in common whose clients come on a random schedule that waits for nobody.

#ifndef RINGMASTER_BENCH_WORKLOADS_ON_SCHEDULE_H_
#define RINGMASTER_BENCH_WORKLOADS_ON_SCHEDULE_H_

#include <cstdint>
#include <optional>

#include "bench/workload.h"

namespace ringmaster::bench {

class OnSchedule : public Workload {
 public:
  // `own_rate`: connections per second where the options name no other.
  OnSchedule(const WorkloadOptions& options, double own_rate)
      : rate_(options.rate.value_or(own_rate)) {}

  bool open_loop() const override { return true; }
  std::optional<double> rate() const override { return rate_; }
  bench::Load Load(const Setting& setting, uint64_t seed) const override {
    return OpenLoop{.starts_ns = PoissonSchedule(rate_, setting.TotalNs(), seed)};
  }

 private:
  const double rate_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_WORKLOADS_ON_SCHEDULE_H_
