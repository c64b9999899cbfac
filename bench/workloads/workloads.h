// The workloads' makers, for the table in workload.cc.

#ifndef RINGMASTER_BENCH_WORKLOADS_WORKLOADS_H_
#define RINGMASTER_BENCH_WORKLOADS_WORKLOADS_H_

#include <cstdint>
#include <memory>

#include "bench/workload.h"

namespace ringmaster::bench {

std::unique_ptr<Workload> MakeBursts(const WorkloadOptions& options);
// closed-N, for N of 1, 2, 4, 8, 16, 32 and 64.
template <uint32_t kClients>
std::unique_ptr<Workload> MakeClosed(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeCloseOne(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeEmfile(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeFewLong17(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeFewLong2(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeFewLong3(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeFlood(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeFrozenWorker(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeLight(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeLightOnce(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeMixed(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeOrder(const WorkloadOptions& options);
std::unique_ptr<Workload> MakePaced(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeSaturated(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeSkewed(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeSlowWorker(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeSlowWorkerClosed(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeStay(const WorkloadOptions& options);
std::unique_ptr<Workload> MakeStayUnequal(const WorkloadOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_WORKLOADS_WORKLOADS_H_
