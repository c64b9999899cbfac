// What does the library compute for a connection, kernel and service left out?
//
// EnginePerArrival: a batch of arrivals of a multishot accept goes into the engine. It deals them
// by the default policy to as many workers as are asked for. Then the workers claim all and release
// it. EnginePerPolledArrival: the same with the default intake. A poll says that something came,
// and the engine asks for single accepts until one finds nothing, which takes further batches. With
// `limited` all workers have a capacity, so a place is promised for each accept.
//
// Everything happens on one thread in memory. Time per batch of arrivals, items per arrival.

#include <benchmark/benchmark.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "bench/micro/arrivals.h"
#include "core/engine.h"
#include "core/op.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kWindow = 64;

using Workers = std::vector<std::unique_ptr<sim::MemoryWorker>>;

Workers AddWorkers(core::Engine& engine, uint32_t count, uint32_t capacity) {
  Workers workers;
  for (uint32_t i = 0; i < count; ++i) {
    workers.push_back(std::make_unique<sim::MemoryWorker>(kWindow));
    engine.AddWorker({.inbox = &workers.back()->inbox(),
                      .state = &workers.back()->state(),
                      .ring_fd = static_cast<int32_t>(100 + i),
                      .capacity = capacity,
                      .window_max = kWindow});
    engine.Join(core::SourceIndex(0), i);
  }
  return workers;
}

void Finish(benchmark::State& state, int64_t claimed, uint32_t batch) {
  if (claimed != static_cast<int64_t>(state.iterations()) * batch) {
    state.SkipWithError("an arrival was not claimed in its own batch");
  }
  state.SetItemsProcessed(claimed);
}

void EnginePerArrival(benchmark::State& state) {
  const auto batch = static_cast<uint32_t>(state.range(1));
  core::Hunger hunger;
  core::Engine engine({.completion_entries = 256}, &hunger);
  engine.AddSource({.fd = 4,
                    .intake = {.kind = core::IntakeKind::kAccept},
                    .hold = 256,
                    .policy = LeastLoaded()});
  const Workers workers =
      AddWorkers(engine, static_cast<uint32_t>(state.range(0)), /*capacity=*/UINT32_MAX);
  std::vector<core::Op> ops;
  const std::vector<core::Completion> arrivals = MadeUpArrivals(engine, batch, ops);
  int64_t now_ns = 0;
  int64_t claimed = 0;
  for (auto _ : state) {
    engine.OnBatch(arrivals, now_ns += 1000, ops);
    benchmark::DoNotOptimize(ops.data());
    for (const auto& worker : workers) claimed += worker->ClaimAll(hunger);
  }
  Finish(state, claimed, batch);
}
BENCHMARK(EnginePerArrival)->ArgNames({"workers", "batch"})->ArgsProduct({{2, 8, 64}, {1, 8, 64}});

void EnginePerPolledArrival(benchmark::State& state) {
  const auto batch = static_cast<uint32_t>(state.range(1));
  core::Hunger hunger;
  core::Engine engine({.completion_entries = 256}, &hunger);
  engine.AddSource({.fd = 4, .policy = LeastLoaded()});
  const Workers workers = AddWorkers(engine, static_cast<uint32_t>(state.range(0)),
                                     state.range(2) != 0 ? 2 * kWindow : UINT32_MAX);
  std::vector<core::Op> ops;
  engine.OnBatch({}, 0, ops);
  core::Completion edge{.result = core::kReadableMask, .more = true};
  for (const core::Op& op : ops) {
    if (op.key.kind == core::OpKind::kPoll) edge.key = op.key;
  }
  std::vector<core::Completion> completions;
  std::vector<core::Completion> next;
  int64_t now_ns = 0;
  int64_t claimed = 0;
  for (auto _ : state) {
    uint32_t waiting = batch;
    completions.assign(1, edge);
    while (!completions.empty()) {
      engine.OnBatch(completions, now_ns += 1000, ops);
      next.clear();
      for (const core::Op& op : ops) {
        if (op.key.kind != core::OpKind::kAccept) continue;
        next.push_back({.key = op.key, .result = waiting > 0 ? 1000 : -EAGAIN});
        if (waiting > 0) --waiting;
      }
      std::swap(completions, next);
    }
    benchmark::DoNotOptimize(ops.data());
    for (const auto& worker : workers) claimed += worker->ClaimAll(hunger);
  }
  Finish(state, claimed, batch);
}
BENCHMARK(EnginePerPolledArrival)
    ->ArgNames({"workers", "batch", "limited"})
    ->ArgsProduct({{2, 8, 64}, {1, 8, 64}, {0, 1}});

}  // namespace
}  // namespace ringmaster::bench

BENCHMARK_MAIN();
