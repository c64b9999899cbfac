#include "sim/config.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "ringmaster/policy.h"
#include "sim/prng.h"

namespace ringmaster::sim {
namespace {

constexpr int64_t kMicrosecond = 1'000;
constexpr int64_t kMillisecond = 1'000'000;

void DrawHandoff(Prng& prng, SimWorkerConfig& worker) {
  worker.completions = true;
  worker.took_first = prng.Chance({1, 4});
  worker.adopts_of_8 = prng.OneOf(std::array<uint32_t, 4>{0, 4, 8, 8});
}

void DrawWorkers(Prng& prng, SimConfig& config) {
  config.workers.resize(1 + prng.Below(8));
  const bool alike = prng.Chance({1, 2});
  const std::array<uint32_t, 7> windows = {1, 2, 3, 4, 8, 16, 32};
  const std::array<uint32_t, 8> capacities = {1,          2,          4,          16,
                                              UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
  const uint32_t window = prng.OneOf(windows);
  const uint32_t capacity = prng.OneOf(capacities);
  // The workers have inboxes only, or completions only, or both side by side.
  const auto completions_of_4 = prng.OneOf(std::array<uint32_t, 5>{0, 0, 1, 2, 4});
  for (SimWorkerConfig& worker : config.workers) {
    if (prng.Below(4) < completions_of_4) DrawHandoff(prng, worker);
    worker.window = alike ? window : prng.OneOf(windows);
    worker.capacity = alike ? capacity : prng.OneOf(capacities);
    worker.cpu = prng.Chance({1, 2}) ? static_cast<int32_t>(prng.Below(4)) : -1;
    worker.sources = prng.Chance({3, 4}) ? 0xff : static_cast<uint32_t>(prng.Below(0x100));
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

// Faults that hold for the whole world, rather than events in it.
void ApplyFaults(Prng& prng, SimConfig& config) {
  config.completion_entries = prng.OneOf(std::array<uint32_t, 3>{16, 32, 64});
  if (prng.Chance(config.faults[Fault::kCqSmall])) {
    // A queue with fewer entries than a batch of single accepts and one edge for each source need
    // would be full for ever.
    config.completion_entries = static_cast<uint32_t>(prng.Between(4, 12));
  }
  // If a turn brings less than there is, the engine learns late what has failed.
  config.completions_max = config.completion_entries;
  if (prng.Chance({1, 3})) {
    const auto few = prng.OneOf(std::array<uint32_t, 3>{2, 6, config.completion_entries});
    config.completions_max = 1 + static_cast<uint32_t>(prng.Below(few));
  }
  if (prng.Chance(config.faults[Fault::kEmfile])) {
    config.descriptors_max = static_cast<int32_t>(prng.Between(1, 12));
  }
  for (SimWorkerConfig& worker : config.workers) {
    if (!prng.Chance(config.faults[Fault::kWorkerJoinsLate])) continue;
    worker.joins_at_ns = prng.Between(0, config.workload.gap_ns_mean * config.workload.arrivals);
  }
}

// More comes to one source than its workers can take, and a little to the others.
void DrawFlood(Prng& prng, SimConfig& config) {
  config.workload.flood_of_16 = prng.OneOf(std::array<uint32_t, 3>{8, 14, 15});
  config.workload.arrivals = 300;
  config.workload.gap_ns_mean = 20 * kMicrosecond;
  config.workload.service_ns_mean = 100 * kMicrosecond;
  config.workers.resize(std::min<size_t>(config.workers.size(), 2));
  if (prng.Chance({1, 2})) {
    for (SimWorkerConfig& worker : config.workers) worker.window = 1;
  }
  for (SimSourceConfig& source : config.sources) source.master = config.sources[0].master;
}

// Policies that pick nobody for now: by chance, because one worker alone will do, or both.
void DrawReluctance(Prng& prng, SimConfig& config) {
  for (SimSourceConfig& source : config.sources) {
    if (prng.Chance({1, 3})) continue;
    source.nobody_of_8 = prng.OneOf(std::array<uint32_t, 4>{0, 1, 4, 7});
    source.strict = prng.Chance({1, 2});
  }
}

// Workers that say when they wait, and are busy with other things now and then.
void DrawHints(Prng& prng, SimConfig& config) {
  const bool all = prng.Chance({1, 2});
  for (SimWorkerConfig& worker : config.workers) {
    worker.hints = all || prng.Chance({1, 2});
    if (worker.hints) worker.works_of_8 = prng.OneOf(std::array<uint32_t, 4>{0, 1, 4, 7});
  }
}

// Sources that wait for workers, which may join late, or never so many.
void DrawStarts(Prng& prng, SimConfig& config) {
  for (SimSourceConfig& source : config.sources) {
    source.start_workers = 1 + static_cast<uint32_t>(prng.Below(config.workers.size() + 1));
  }
  for (SimWorkerConfig& worker : config.workers) {
    if (config.hosted && &worker == &config.workers[0]) continue;
    if (!prng.Chance({1, 2})) continue;
    worker.joins_at_ns = prng.Between(0, config.workload.gap_ns_mean * config.workload.arrivals);
  }
}

// Sources that are aimed, with workers that watch their sights.
void DrawAims(Prng& prng, SimConfig& config) {
  for (SimSourceConfig& source : config.sources) {
    if (prng.Chance({1, 8})) continue;
    MakeAimable(prng, source);
    // Without recalls a permit of a worker that has died stays with it.
    source.recall |= config.faults[Fault::kWorkerDies].n > 0;
  }
  config.hosted = false;  // a master on a host aims nothing
  for (SimWorkerConfig& worker : config.workers) {
    if (prng.Chance({1, 32})) continue;
    worker.completions = worker.took_first = false;
    worker.adopts_of_8 = 8;
    worker.hints = worker.sight = true;
    worker.level = prng.Chance({1, 2});
    worker.works_of_8 = prng.OneOf(std::array<uint32_t, 4>{0, 0, 1, 4});
  }
  // How often the master looks. It does so for a second after everything has ended.
  config.recall_after_ns = prng.OneOf(std::array<int64_t, 2>{3 * kMillisecond, 10 * kMillisecond});
  for (size_t i = kFaultsDrawnThird; i < kFaultCount; ++i) {
    config.faults.ratios[i] = DrawFault(prng, 4);
  }
}

// Workers with file tables of their own, many of them too small.
void DrawTables(Prng& prng, SimConfig& config) {
  if (config.hosted) return;  // a master that rides has no table
  config.slots = prng.OneOf(std::array<uint32_t, 4>{1, 2, 4, 64});
  for (SimWorkerConfig& worker : config.workers) {
    if (worker.sight || prng.Chance({1, 4})) continue;
    if (!worker.completions) DrawHandoff(prng, worker);
    worker.table = prng.OneOf(std::array<uint32_t, 6>{1, 2, 3, 4, 16, 64});
  }
}

}  // namespace

void MakeAimable(Prng& prng, SimSourceConfig& source) {
  source.aimed = true;
  source.multishot_accept = source.readiness = source.countable = source.local = false;
  source.age_max_ns = 0;
  source.tells_age = true;
  source.nobody_of_8 = 0;
  source.strict = false;
  const absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(source.policy);
  if (policy.ok() && (*policy)->AnyThread()) return;
  source.policy = prng.Chance({1, 2}) ? "round-robin" : "least-loaded";
}

// Any policy of the library. Policies that take a parameter get one half of the time.
std::string DrawPolicyName(Prng& prng) {
  std::string name(PolicyNames()[prng.Below(PolicyNames().size())]);
  const uint64_t parameter = prng.Below(6);
  if (parameter < 3 && PolicyByName(name + ":3").ok()) name += ":" + std::to_string(parameter + 1);
  return name;
}

SimSourceConfig DrawSource(Prng& prng) {
  SimSourceConfig source;
  source.policy = DrawPolicyName(prng);
  source.multishot_accept = prng.Chance({1, 2});
  source.hold = prng.OneOf(std::array<uint32_t, 5>{1, 2, 4, 16, 64});
  source.recall = !prng.Chance({1, 8});
  if (prng.Chance({1, 4})) {
    source.readiness = true;
    source.countable = prng.Chance({1, 2});
    source.multishot_accept = false;
  } else if (prng.Chance({1, 8})) {
    source.age_max_ns =
        prng.OneOf(std::array<int64_t, 3>{kMillisecond, 5 * kMillisecond, 40 * kMillisecond});
  }
  if (prng.Chance({1, 8})) source.capacity = prng.OneOf(std::array<uint32_t, 4>{1, 2, 4, 16});
  if (prng.Chance({1, 8})) source.backlog_max = prng.OneOf(std::array<uint32_t, 4>{1, 2, 4, 16});
  return source;
}

SimConfig DrawConfig(uint64_t seed) {
  Prng prng(seed);
  SimConfig config;
  config.seed = seed;
  config.course = seed ^ 0x5eed;
  config.faults = DrawFaultPlan(prng);
  config.masters = prng.OneOf(std::array<uint32_t, 4>{1, 1, 2, 3});
  for (uint64_t i = 1 + std::min(prng.Below(3), prng.Below(3)); i > 0; --i) {
    config.sources.push_back(DrawSource(prng));
    config.sources.back().master = static_cast<uint32_t>(prng.Below(config.masters));
  }
  DrawWorkers(prng, config);
  DrawWorkload(prng, config);
  ApplyFaults(prng, config);
  if (config.masters == 1 && prng.Chance({1, 4})) {
    config.hosted = true;
    config.workers[0].completions = false;
    config.workers[0].joins_at_ns = 0;
  }
  config.recall_after_ns =
      prng.OneOf(std::array<int64_t, 3>{kMillisecond, 3 * kMillisecond, 10 * kMillisecond});
  // A worker that dies keeps its places for ever.
  if (config.faults[Fault::kWorkerDies].n == 0 && prng.Chance({1, 4}))
    config.capacity = prng.OneOf(std::array<uint32_t, 4>{1, 2, 4, 16});
  config.defers_task_work = prng.Chance({3, 4});
  config.accepts_at_reap = prng.Chance({1, 4});
  config.turn_ns_max = prng.OneOf(std::array<int64_t, 3>{0, 2 * kMicrosecond, 50 * kMicrosecond});
  config.wake_ns_max = prng.OneOf(std::array<int64_t, 3>{0, 5 * kMicrosecond, 100 * kMicrosecond});
  config.shuts_down = prng.Chance({1, 4});
  config.shutdown_drain_ns = prng.Between(0, 30 * kMillisecond);
  if (prng.Chance({1, 16})) {
    // Bursts that the engine does not expect, from sources that may hold next to nothing. In one
    // half of these worlds, all sources but the first may accept one by one beside it, as drawn.
    config.entries_told = 1;
    config.completion_entries = 64;
    config.completions_max = prng.OneOf(std::array<uint32_t, 2>{1, 8});
    config.keeps_back = prng.Chance({1, 2});
    config.workload.burst = {1, 2};
    config.workload.burst_max = 50;
    bool as_drawn = false;
    for (SimSourceConfig& source : config.sources) {
      if (!as_drawn) source.multishot_accept = !source.readiness;
      source.hold = 1;
      as_drawn = config.completions_max == 1;
    }
  }
  if (config.hosted) config.host_steps_max = prng.OneOf(std::array<uint32_t, 4>{1, 2, 4, 16});
  for (size_t i = kFaultsDrawnFirst; i < kFaultsDrawnSecond; ++i) {
    config.faults.ratios[i] = DrawFault(prng, 4);
  }
  config.tick_ns = prng.OneOf(std::array<int64_t, 3>{0, kMillisecond / 4, kMillisecond});
  for (SimSourceConfig& source : config.sources) {
    if (source.age_max_ns > 0) source.tells_age = !prng.Chance({1, 4});
  }
  for (SimSourceConfig& source : config.sources) {
    source.local = !source.countable && prng.Chance({1, 2});
  }
  if (config.sources.size() > 1 && prng.Chance({1, 8})) DrawFlood(prng, config);
  if (prng.Chance({1, 6})) DrawReluctance(prng, config);
  if (prng.Chance({1, 2})) DrawHints(prng, config);
  for (size_t i = kFaultsDrawnSecond; i < kFaultsDrawnThird; ++i) {
    config.faults.ratios[i] = DrawFault(prng, 2);
  }
  if (prng.Chance({1, 6})) DrawStarts(prng, config);
  // A stream of its own: every other world stays as it was.
  Prng aims(seed ^ 0xa1a1);
  if (aims.Chance({1, 5})) DrawAims(aims, config);
  Prng tables(seed ^ 0x7ab1e);
  if (tables.Chance({1, 6})) DrawTables(tables, config);
  return config;
}

}  // namespace ringmaster::sim
