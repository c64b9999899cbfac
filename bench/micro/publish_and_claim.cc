// What does an offer cost that goes through an inbox, without any doorbell?
//
// OneThread is the sum of both sides' instructions: the cache lines never leave the CPU. Pipelined
// has a worker of its own, which is awake all the time and claims as fast as it can while the
// master publishes batch after batch. What is measured is the slower of the two, with the lines
// travelling between them. Real masters publish a batch at a time, so batches of 1, 8 and 64 are
// asked for.

#include <benchmark/benchmark.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include "core/inbox.h"
#include "sim/memory_worker.h"

namespace ringmaster::bench {
namespace {

using core::Offer;

constexpr uint32_t kWindow = 1024;

void OneThread(benchmark::State& state) {
  const auto batch = static_cast<uint64_t>(state.range(0));
  sim::MemoryWorker memory(kWindow);
  core::Inbox& inbox = memory.inbox();
  uint64_t tail = 0;
  for (auto _ : state) {
    for (uint64_t i = 0; i < batch; ++i) inbox.Write(tail++, {.source = 0, .fd = 7});
    inbox.Publish(tail);
    benchmark::DoNotOptimize(inbox.Ring());
    inbox.Begin();
    while (inbox.Claim() != 0) {
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(tail));
}
BENCHMARK(OneThread)->Arg(1)->Arg(8)->Arg(64);

void Pipelined(benchmark::State& state) {
  const auto batch = static_cast<uint64_t>(state.range(0));
  sim::MemoryWorker memory(kWindow);
  core::Inbox& inbox = memory.inbox();
  std::atomic<bool> stop{false};
  std::thread worker([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      inbox.Begin();
      while (inbox.Claim() != 0) {
      }
    }
  });
  uint64_t tail = 0;
  for (auto _ : state) {
    for (uint64_t i = 0; i < batch; ++i, ++tail) {
      // The word of a lap ago; the inbox has room for two windows.
      while (!inbox.Empty(tail)) std::this_thread::yield();
      inbox.Write(tail, {.source = 0, .fd = 7});
    }
    inbox.Publish(tail);
    benchmark::DoNotOptimize(inbox.Ring());
  }
  stop.store(true, std::memory_order_relaxed);
  worker.join();
  state.SetItemsProcessed(static_cast<int64_t>(tail));
}
BENCHMARK(Pipelined)->Arg(1)->Arg(8)->Arg(64)->UseRealTime();

}  // namespace
}  // namespace ringmaster::bench

BENCHMARK_MAIN();
