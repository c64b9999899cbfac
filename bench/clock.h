// The clocks of the benchmark.

#ifndef RINGMASTER_BENCH_CLOCK_H_
#define RINGMASTER_BENCH_CLOCK_H_

#include <cstdint>
#include <ctime>

namespace ringmaster::bench {

inline constexpr int64_t kMicrosecond = 1'000;
inline constexpr int64_t kMillisecond = 1'000'000;
inline constexpr int64_t kSecond = 1'000'000'000;

// Nanoseconds of any clock.
inline int64_t ReadClock(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * kSecond + time.tv_nsec;
}

// Monotonic time.
inline int64_t NowNs() { return ReadClock(CLOCK_MONOTONIC); }

// What the calling thread has computed so far.
inline int64_t ThreadCpuNs() { return ReadClock(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_CLOCK_H_
