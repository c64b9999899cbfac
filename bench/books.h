// What a server writes down about a run, and what it is asked to do meanwhile. Both are in memory
// that it shares with the process that measures.

#ifndef RINGMASTER_BENCH_BOOKS_H_
#define RINGMASTER_BENCH_BOOKS_H_

#include <array>
#include <atomic>
#include <cstdint>

namespace ringmaster::bench {

inline constexpr uint32_t kWorkersMax = 64;

// Written by one thread, read by the measuring process while it runs: counts that stand alone and
// order nothing, hence relaxed everywhere. Cache lines of its own, so that counting costs nothing.
struct alignas(64) ThreadBooks {
  std::atomic<uint64_t> wakes{0};          // returns from the call in which the thread waits
  std::atomic<uint64_t> empty_wakes{0};    // of these, the ones that found nothing to do
  std::atomic<uint64_t> arrival_wakes{0};  // of these, the ones that an arrival caused
  std::atomic<uint64_t> system_calls{0};   // see calls.h
  std::atomic<uint64_t> doorbells{0};      // messages that told another thread to look
};

struct WorkerBooks : ThreadBooks {
  std::atomic<uint64_t> taken{0};      // connections that the worker has taken
  std::atomic<uint64_t> passed_on{0};  // of these, the ones that another worker has taken since
  std::atomic<uint64_t> open_max{0};   // the most that it had open at once
  std::atomic<uint64_t> cpu_ns{0};     // what the worker has computed, written when it ends
};

// Written by the measuring process, read by one worker; relaxed for the same reason.
struct alignas(64) WorkerOrders {
  std::atomic<int64_t> rest_ns{0};  // sleep so long with the next connection that you take
  std::atomic<bool> leaves{false};  // take no more connections, go on with those that you have
};

struct ServerBooks {
  std::array<WorkerBooks, kWorkersMax> workers;
  std::array<WorkerOrders, kWorkersMax> orders;

  // The measuring process is done: do not sleep with connections any more, however many are left.
  std::atomic<bool> stopping{false};

  // The thread that accepts for the workers, where there is one. Without one nobody rings a
  // doorbell either.
  std::atomic<bool> has_master{false};
  ThreadBooks master;

  // Offers taken back from workers that did not move; negative: the mechanism cannot do that.
  std::atomic<int64_t> recalled{-1};

  // The RLIMIT_NOFILE with which there would be room for as many connections as was asked, besides
  // what the server has open itself.
  uint32_t descriptor_limit = 0;

  // Why the server could not start: an absl::StatusCode and a text. Written, as `descriptor_limit`,
  // before the report that the control socket carries, which orders them.
  int failure_code = 0;
  std::array<char, 1024> failure{};
};

// Adds for the only writer: a plain load and store, without a locked instruction.
inline void Count(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_BOOKS_H_
