// What a server writes down about a run, in memory that it shares with the process that measures.

#ifndef RINGMASTER_BENCH_BOOKS_H_
#define RINGMASTER_BENCH_BOOKS_H_

#include <array>
#include <atomic>
#include <cstdint>

namespace ringmaster::bench {

inline constexpr uint32_t kWorkersMax = 64;

// Written by one worker, read by the measuring process while it runs: counts that stand alone and
// order nothing, hence relaxed everywhere. A cache line each, so that counting costs nothing.
struct alignas(64) WorkerBooks {
  std::atomic<uint64_t> taken{0};   // connections that the worker has taken
  std::atomic<uint64_t> cpu_ns{0};  // what the worker has computed, written when it ends
};

struct ServerBooks {
  std::array<WorkerBooks, kWorkersMax> workers;

  // Why the server could not start: an absl::StatusCode and a text. Written before the report that
  // the pipe carries, which orders them.
  int failure_code = 0;
  std::array<char, 1024> failure{};

  // What only some mechanisms have; negative: not this one. Written when the server ends.
  int64_t recalled = -1;      // offers taken back from workers that did not move
  int64_t master_wakes = -1;  // times the balancing thread looked
  int64_t doorbells = -1;     // messages that told a worker to look
};

// Adds for the only writer: a plain load and store, without a locked instruction.
inline void Count(std::atomic<uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_BOOKS_H_
