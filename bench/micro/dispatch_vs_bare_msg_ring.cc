// How far is the library's dispatch from the least that the kernel makes possible?
//
// A batch of arrivals is in the master's hands; the iteration is over when the workers have taken
// all of it. Two workers sleep in their own rings in between, as those of an idle server do.
//
//   Bare       one MSG_RING for each arrival, round-robin, all in one system call: no credit, no
//              policy, no books, nothing that could be taken back. Nobody who sends each arrival
//              can be faster.
//   Dispatch   the library's own path behind the accept: the engine with its default policy,
//              inboxes, one doorbell for each worker and batch, claims, releases, knocks.
//
// With a batch of one the library can only be slower, by what it computes. With larger ones it
// sends fewer messages than the bare loop.

#include <benchmark/benchmark.h>
#include <liburing.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/micro/arrivals.h"
#include "bench/micro/pinning.h"
#include "core/engine.h"
#include "core/op.h"
#include "ring/features.h"
#include "ring/uring_ring.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kWorkers = 2;
constexpr uint32_t kWindow = 64;
constexpr uint64_t kStop = UINT64_MAX;
constexpr uint64_t kTag = 1;

// Why a benchmark is left out, in the words by which its test knows it.
std::string NoIoUring(int error) { return std::string("no io_uring: ") + std::strerror(error); }

// A worker's ring and thread; `take` says how many arrivals a completion brought.
class Worker {
 public:
  template <typename Take>
  void Start(int cpu, std::atomic<uint64_t>& taken, Take take) {
    thread_ = std::thread([this, cpu, &taken, take] {
      PinThread(cpu);
      io_uring_params params{};
      params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
      const int result = io_uring_queue_init_params(256, &ring_, &params);
      opened_.store(result, std::memory_order_release);
      opened_.notify_one();
      if (result == 0) Loop(taken, take);
    });
    opened_.wait(1, std::memory_order_acquire);
  }

  // 0 or -errno.
  int opened() const { return opened_.load(std::memory_order_acquire); }
  int ring_fd() const { return ring_.ring_fd; }

  void Join() {
    thread_.join();
    if (opened() == 0) io_uring_queue_exit(&ring_);
  }

 private:
  template <typename Take>
  void Loop(std::atomic<uint64_t>& taken, Take take) {
    for (;;) {
      io_uring_cqe* cqe = nullptr;
      if (io_uring_wait_cqe(&ring_, &cqe) != 0) continue;
      const uint64_t user_data = cqe->user_data;
      io_uring_cqe_seen(&ring_, cqe);
      if (user_data == kStop) return;
      taken.fetch_add(take(), std::memory_order_release);
    }
  }

  io_uring ring_{};
  std::atomic<int> opened_{1};
  std::thread thread_;
};

void WaitFor(const std::atomic<uint64_t>& taken, uint64_t wanted) {
  while (taken.load(std::memory_order_acquire) < wanted) std::this_thread::yield();
}

void SendMessage(io_uring& ring, int fd, uint64_t user_data) {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  io_uring_prep_msg_ring(sqe, fd, 0, user_data, 0);
  io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
}

// The workers' threads, and the master's ring for the bare loop and for saying good-bye.
struct Crew {
  template <typename TakeOf>
  explicit Crew(TakeOf take_of) {
    error = io_uring_queue_init(256, &ring, 0);
    if (error != 0) return;
    for (uint32_t i = 0; i < kWorkers; ++i) {
      workers[i].Start(static_cast<int>(i) + 1, taken, take_of(i));
      if (workers[i].opened() != 0) error = workers[i].opened();
    }
  }
  void End() {
    if (ring.ring_fd <= 0) return;
    for (Worker& worker : workers) {
      if (worker.opened() == 0) SendMessage(ring, worker.ring_fd(), kStop);
    }
    io_uring_submit(&ring);
    for (Worker& worker : workers) worker.Join();
    io_uring_queue_exit(&ring);
  }

  io_uring ring{};
  std::atomic<uint64_t> taken{0};
  Worker workers[kWorkers];
  int error = 0;
};

void RunBare(benchmark::State& state) {
  const auto batch = static_cast<uint64_t>(state.range(0));
  Crew crew([](uint32_t) { return [] { return uint64_t{1}; }; });
  if (crew.error != 0) {
    state.SkipWithError(NoIoUring(-crew.error).c_str());
    return crew.End();
  }
  uint64_t sent = 0;
  for (auto _ : state) {
    for (uint64_t i = 0; i < batch; ++i) {
      SendMessage(crew.ring, crew.workers[sent++ % kWorkers].ring_fd(), kTag);
    }
    io_uring_submit(&crew.ring);
    WaitFor(crew.taken, sent);
  }
  state.SetItemsProcessed(static_cast<int64_t>(sent));
  crew.End();
}

void RunDispatch(benchmark::State& state) {
  const auto batch = static_cast<uint64_t>(state.range(0));
  const auto features = ring::ProbeFeatures();
  if (!features.ok())
    return state.SkipWithError(
        ("no io_uring: " + std::string(features.status().message())).c_str());
  auto master = ring::UringRing::Create({.features = *features}).value();
  if (const int result = master->Enable(); result != 0) {
    return state.SkipWithError(NoIoUring(-result).c_str());
  }
  core::Hunger hunger;
  core::Engine engine({.completion_entries = 4096}, &hunger);
  engine.AddSource({.fd = 4,
                    .intake = {.kind = core::IntakeKind::kAccept},
                    .hold = 256,
                    .policy = LeastLoaded()});
  std::vector<std::unique_ptr<sim::MemoryWorker>> memories;
  for (uint32_t i = 0; i < kWorkers; ++i)
    memories.push_back(std::make_unique<sim::MemoryWorker>(kWindow));
  Crew crew([&](uint32_t i) {
    return [&hunger, memory = memories[i].get()] { return uint64_t{memory->ClaimAll(hunger)}; };
  });
  if (crew.error != 0) {
    state.SkipWithError(NoIoUring(-crew.error).c_str());
    return crew.End();
  }
  for (uint32_t i = 0; i < kWorkers; ++i) {
    engine.AddWorker({.inbox = &memories[i]->inbox(),
                      .state = &memories[i]->state(),
                      .ring_fd = crew.workers[i].ring_fd(),
                      .tag = kTag,
                      .window_max = kWindow});
    engine.Join(core::SourceIndex(0), i);
  }
  std::vector<core::Op> ops;
  const std::vector<core::Completion> arrivals = MadeUpArrivals(engine, batch, ops);
  std::vector<core::Completion> completions;
  completions.reserve(64);
  uint64_t sent = 0;
  int64_t now_ns = 0;
  for (auto _ : state) {
    engine.OnBatch(arrivals, ++now_ns, ops);
    master->Turn(ops, 0, completions);
    sent += batch;
    WaitFor(crew.taken, sent);
  }
  state.SetItemsProcessed(static_cast<int64_t>(sent));
  crew.End();
}

// On a thread of its own: the affinity must not stay with the benchmark's.
template <void (*kRun)(benchmark::State&)>
void Pinned(benchmark::State& state) {
  std::thread([&] {
    PinThread(0);
    kRun(state);
  }).join();
}

BENCHMARK(Pinned<RunBare>)->Name("Bare")->Arg(1)->Arg(8)->Arg(64)->UseRealTime();
BENCHMARK(Pinned<RunDispatch>)->Name("Dispatch")->Arg(1)->Arg(8)->Arg(64)->UseRealTime();

}  // namespace
}  // namespace ringmaster::bench

BENCHMARK_MAIN();
