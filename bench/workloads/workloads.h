// The workloads' makers, for the table in workload.cc.

#ifndef RINGMASTER_BENCH_WORKLOADS_WORKLOADS_H_
#define RINGMASTER_BENCH_WORKLOADS_WORKLOADS_H_

#include <memory>

#include "bench/workload.h"

namespace ringmaster::bench {

std::unique_ptr<Workload> MakeLight(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeSaturated(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeSlowWorker(const WorkloadOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_WORKLOADS_WORKLOADS_H_
