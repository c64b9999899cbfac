#include "sim/config.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "sim/prng.h"

namespace ringmaster::sim {
namespace {

constexpr int64_t kMicrosecond = 1'000;
constexpr int64_t kMillisecond = 1'000'000;

constexpr std::array<std::string_view, 5> kPolicyNames = {
    "round-robin", "exclusive", "exclusive-fifo", "affinity-cpu", "least-loaded"};

void DrawSources(Prng& prng, SimConfig& config) {
  config.sources.resize(1 + std::min(prng.Below(3), prng.Below(3)));
  for (SimSourceConfig& source : config.sources) {
    source.policy = static_cast<PolicyKind>(prng.Below(kPolicyNames.size()));
    source.multishot_accept = prng.Chance({1, 2});
    source.hold = prng.OneOf(std::array<uint32_t, 5>{1, 2, 4, 16, 64});
    source.recall = !prng.Chance({1, 8});
  }
}

void DrawWorkers(Prng& prng, SimConfig& config) {
  config.workers.resize(1 + prng.Below(8));
  const uint64_t all_sources = (uint64_t{1} << config.sources.size()) - 1;
  const bool alike = prng.Chance({1, 2});
  const std::array<uint32_t, 7> windows = {1, 2, 3, 4, 8, 16, 32};
  const std::array<uint32_t, 8> capacities = {1,          2,          4,          16,
                                              UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
  const uint32_t window = prng.OneOf(windows);
  const uint32_t capacity = prng.OneOf(capacities);
  for (SimWorkerConfig& worker : config.workers) {
    worker.window = alike ? window : prng.OneOf(windows);
    worker.capacity = alike ? capacity : prng.OneOf(capacities);
    worker.cpu = prng.Chance({1, 2}) ? static_cast<int32_t>(prng.Below(4)) : -1;
    worker.sources = prng.Chance({3, 4}) ? all_sources : prng.Below(all_sources + 1);
  }
}

void DrawWorkload(Prng& prng, SimConfig& config) {
  Workload& workload = config.workload;
  workload.arrivals = static_cast<uint32_t>(prng.Between(1, prng.Chance({1, 4}) ? 160 : 60));
  workload.gap_ns_mean = prng.OneOf(std::array<int64_t, 5>{
      2 * kMicrosecond, 20 * kMicrosecond, 200 * kMicrosecond, kMillisecond, 5 * kMillisecond});
  workload.burst = {prng.Chance({1, 2}) ? 1u : 0u, prng.OneOf(std::array<uint32_t, 3>{2, 8, 30})};
  workload.burst_max = prng.OneOf(std::array<uint32_t, 3>{2, 10, 50});
  workload.service_ns_mean = prng.OneOf(std::array<int64_t, 5>{
      kMicrosecond, 10 * kMicrosecond, 100 * kMicrosecond, kMillisecond, 4 * kMillisecond});
  workload.lease_ns_mean =
      prng.OneOf(std::array<int64_t, 4>{0, 50 * kMicrosecond, kMillisecond, 20 * kMillisecond});
}

// Faults that are facts of the whole world rather than events in it.
void ApplyFaults(Prng& prng, SimConfig& config) {
  config.completion_entries = prng.OneOf(std::array<uint32_t, 3>{16, 32, 64});
  if (prng.Chance(config.faults[Fault::kCqSmall])) {
    // Fewer than a batch of single accepts and one edge for each source need would be full for
    // ever.
    config.completion_entries = static_cast<uint32_t>(prng.Between(4, 12));
  }
  config.completions_max = prng.Chance({1, 4})
                               ? 1 + static_cast<uint32_t>(prng.Below(config.completion_entries))
                               : config.completion_entries;
  if (prng.Chance(config.faults[Fault::kEmfile])) {
    config.descriptors_max = static_cast<int32_t>(prng.Between(1, 12));
  }
  for (SimWorkerConfig& worker : config.workers) {
    if (!prng.Chance(config.faults[Fault::kWorkerJoinsLate])) continue;
    worker.joins_at_ns = prng.Between(0, config.workload.gap_ns_mean * config.workload.arrivals);
  }
}

}  // namespace

SimConfig DrawConfig(uint64_t seed) {
  Prng prng(seed);
  SimConfig config;
  config.seed = seed;
  config.faults = DrawFaultPlan(prng);
  DrawSources(prng, config);
  DrawWorkers(prng, config);
  DrawWorkload(prng, config);
  ApplyFaults(prng, config);
  config.recall_after_ns =
      prng.OneOf(std::array<int64_t, 3>{kMillisecond, 3 * kMillisecond, 10 * kMillisecond});
  config.defers_task_work = prng.Chance({3, 4});
  config.accepts_at_reap = prng.Chance({1, 4});
  config.turn_ns_max = prng.OneOf(std::array<int64_t, 3>{0, 2 * kMicrosecond, 50 * kMicrosecond});
  config.wake_ns_max = prng.OneOf(std::array<int64_t, 3>{0, 5 * kMicrosecond, 100 * kMicrosecond});
  config.shuts_down = prng.Chance({1, 4});
  config.shutdown_drain_ns = prng.Between(0, 30 * kMillisecond);
  return config;
}

std::string Describe(const SimConfig& config) {
  std::string text = "seed=" + std::to_string(config.seed);
  const auto number = [&text](std::string_view name, int64_t value) {
    text.append(" ").append(name).append("=").append(std::to_string(value));
  };
  number("workers", static_cast<int64_t>(config.workers.size()));
  for (const SimWorkerConfig& worker : config.workers) {
    text += &worker == config.workers.data() ? " window:capacity=" : ",";
    text += std::to_string(worker.window) + ":";
    text += worker.capacity == UINT32_MAX ? "-" : std::to_string(worker.capacity);
  }
  for (const SimSourceConfig& source : config.sources) {
    text += " source=";
    text += kPolicyNames[static_cast<size_t>(source.policy)];
    text += source.multishot_accept ? ":accept:hold" + std::to_string(source.hold) : ":poll-accept";
    if (!source.recall) text += ":no-recall";
  }
  number("recall_after_ns", config.recall_after_ns);
  number("cq", config.completion_entries);
  number("per_turn", config.completions_max);
  if (config.descriptors_max != INT32_MAX) number("descriptors_max", config.descriptors_max);
  if (config.accepts_at_reap) text += " accepts-at-reap";
  if (!config.defers_task_work) text += " eager-task-work";
  if (config.shuts_down) number("shutdown_drain_ns", config.shutdown_drain_ns);
  number("arrivals", config.workload.arrivals);
  number("gap_ns", config.workload.gap_ns_mean);
  number("service_ns", config.workload.service_ns_mean);
  number("lease_ns", config.workload.lease_ns_mean);
  bool any = false;
  for (size_t i = 0; i < kFaultCount; ++i) {
    const Ratio ratio = config.faults.ratios[i];
    if (ratio.n == 0) continue;
    text += any ? "," : " faults=";
    any = true;
    text.append(kFaultNames[i]).append(":").append(std::to_string(ratio.n));
    text.append("/").append(std::to_string(ratio.of));
  }
  if (!any) text += " faults=none";
  return text;
}

}  // namespace ringmaster::sim
