// What does the library compute for a connection, kernel and service left out?
//
// A batch of arrivals goes into the engine, which deals it by the default policy to as many workers
// as are asked for; then the workers claim all and release it. Everything happens on one thread in
// memory. Time per batch, items per arrival.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/micro/arrivals.h"
#include "core/engine.h"
#include "core/op.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kWindow = 64;

void EnginePerArrival(benchmark::State& state) {
  const auto workers = static_cast<uint32_t>(state.range(0));
  const auto batch = static_cast<uint32_t>(state.range(1));
  core::Hunger hunger;
  core::Engine engine({.completion_entries = 256}, &hunger);
  engine.AddSource({.fd = 4, .multishot_accept = true, .hold = 256, .policy = LeastLoaded()});
  std::vector<std::unique_ptr<sim::MemoryWorker>> memories;
  for (uint32_t i = 0; i < workers; ++i) {
    memories.push_back(std::make_unique<sim::MemoryWorker>(kWindow));
    engine.AddWorker({.inbox = &memories.back()->inbox(),
                      .state = &memories.back()->state(),
                      .ring_fd = static_cast<int32_t>(100 + i),
                      .window_max = kWindow});
    engine.Join(0, i);
  }
  std::vector<core::Op> ops;
  const std::vector<core::Completion> arrivals = MadeUpArrivals(engine, batch, ops);
  int64_t now_ns = 0;
  int64_t claimed = 0;
  for (auto _ : state) {
    engine.OnBatch(arrivals, now_ns += 1000, ops);
    benchmark::DoNotOptimize(ops.data());
    for (const auto& memory : memories) claimed += memory->ClaimAll(hunger);
  }
  if (claimed != static_cast<int64_t>(state.iterations()) * batch) {
    state.SkipWithError("an arrival was not claimed in its own batch");
  }
  state.SetItemsProcessed(claimed);
}
BENCHMARK(EnginePerArrival)->ArgNames({"workers", "batch"})->ArgsProduct({{2, 8, 64}, {1, 8, 64}});

}  // namespace
}  // namespace ringmaster::bench

BENCHMARK_MAIN();
