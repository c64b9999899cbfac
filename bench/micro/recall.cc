// What does it cost to take an offer back?
//
// Offer is the protocol alone: written, published and recalled again, nobody claims. TooLate is the
// attempt that finds that the worker was faster. Engine is the whole step. A worker holds a window
// of overdue offers and does not move; one batch of the engine takes them all back and offers them
// to another. It is the time per offer, with the doorbell's operation and without the kernel's
// part.

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/engine.h"
#include "core/inbox.h"
#include "core/op.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::bench {
namespace {

using core::Offer;

constexpr uint32_t kWindow = 32;
constexpr Offer kOffer{.source = 0, .fd = 7};

void OfferAndRecall(benchmark::State& state) {
  sim::MemoryWorker memory(kWindow);
  uint64_t tail = 0;
  for (auto _ : state) {
    memory.inbox().Write(tail, kOffer);
    memory.inbox().Publish(tail + 1);
    benchmark::DoNotOptimize(memory.inbox().Recall(tail, kOffer));
    ++tail;
  }
}
BENCHMARK(OfferAndRecall);

void TooLate(benchmark::State& state) {
  sim::MemoryWorker memory(kWindow);
  for (auto _ : state) benchmark::DoNotOptimize(memory.inbox().Recall(0, kOffer));
}
BENCHMARK(TooLate);

// An engine with one source and two workers, the second of which has no room until it is wanted.
void Engine(benchmark::State& state) {
  constexpr int64_t kRecallAfterNs = 10'000'000;
  int64_t offers = 0;
  for (auto _ : state) {
    core::Hunger hunger;
    core::Engine engine({.recall_after_ns = kRecallAfterNs, .completion_entries = 64}, &hunger);
    sim::MemoryWorker stuck(kWindow);
    sim::MemoryWorker other(kWindow);
    engine.AddSource({.fd = 4,
                      .intake = {.kind = core::IntakeKind::kAccept},
                      .hold = 2 * kWindow,
                      .policy = RoundRobin()});
    const auto add = [&](sim::MemoryWorker& memory, int32_t ring_fd) {
      const uint32_t worker = engine.AddWorker({.inbox = &memory.inbox(),
                                                .state = &memory.state(),
                                                .ring_fd = ring_fd,
                                                .window_max = kWindow});
      engine.Join(core::SourceIndex(0), worker);
      return worker;
    };
    add(stuck, 100);
    std::vector<core::Op> ops;
    engine.OnBatch({}, 0, ops);
    std::vector<core::Completion> arrivals;
    for (const core::Op& op : ops) {
      if (op.key.kind != core::OpKind::kAcceptEach) continue;
      for (uint32_t i = 0; i < kWindow; ++i) {
        arrivals.push_back({.key = op.key, .result = static_cast<int32_t>(10 + i), .more = true});
      }
    }
    engine.OnBatch(arrivals, 0, ops);
    add(other, 101);
    // Only what follows is measured; what is around it could not be left out of a loop.
    const auto begin = std::chrono::steady_clock::now();
    engine.OnBatch({}, 2 * kRecallAfterNs, ops);
    benchmark::DoNotOptimize(ops.data());
    const auto end = std::chrono::steady_clock::now();
    state.SetIterationTime(std::chrono::duration<double>(end - begin).count());
    const uint32_t recalled = other.ClaimAll(hunger);
    if (recalled != kWindow) {
      state.SkipWithError("not every overdue offer was recalled");
      break;
    }
    offers += recalled;
  }
  state.SetItemsProcessed(offers);
}
BENCHMARK(Engine)->UseManualTime();

}  // namespace
}  // namespace ringmaster::bench

BENCHMARK_MAIN();
