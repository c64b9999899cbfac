#include "bench/workload.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

struct Entry {
  std::string_view name;
  std::unique_ptr<Workload> (*make)(const WorkloadOptions& options);
};

constexpr Entry kWorkloads[] = {
    {"light", MakeLight},
    {"light-once", MakeLightOnce},
    {"saturated", MakeSaturated},
    {"closed-1", MakeClosed<1>},
    {"closed-2", MakeClosed<2>},
    {"closed-4", MakeClosed<4>},
    {"closed-8", MakeClosed<8>},
    {"closed-16", MakeClosed<16>},
    {"closed-32", MakeClosed<32>},
    {"closed-64", MakeClosed<64>},
    {"slow-worker", MakeSlowWorker},
    {"slow-worker-closed", MakeSlowWorkerClosed},
    {"frozen-worker", MakeFrozenWorker},
    {"paced", MakePaced},
    {"bursts", MakeBursts},
    {"skewed", MakeSkewed},
    {"few-long-2", MakeFewLong2},
    {"few-long-3", MakeFewLong3},
    {"few-long-17", MakeFewLong17},
    {"order", MakeOrder},
    {"stay", MakeStay},
    {"stay-unequal", MakeStayUnequal},
    {"mixed", MakeMixed},
    {"close-one", MakeCloseOne},
    {"emfile", MakeEmfile},
    {"flood", MakeFlood},
};

}  // namespace

absl::StatusOr<std::unique_ptr<Workload>> MakeWorkload(std::string_view name,
                                                       const WorkloadOptions& options) {
  for (const Entry& entry : kWorkloads) {
    if (entry.name == name) return entry.make(options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no workload is called \"", std::string(name),
                   "\"; known are: ", absl::StrJoin(WorkloadNames(), ", ")));
}

std::vector<std::string> WorkloadNames() {
  std::vector<std::string> names;
  for (const Entry& entry : kWorkloads) names.emplace_back(entry.name);
  return names;
}

}  // namespace ringmaster::bench
