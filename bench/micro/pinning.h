// Where the threads of a benchmark run. A hop within a CPU and one between CPUs differ by several
// times. So a benchmark that leaves the choice to the scheduler measures the choice.

#ifndef RINGMASTER_BENCH_MICRO_PINNING_H_
#define RINGMASTER_BENCH_MICRO_PINNING_H_

#include <sched.h>

namespace ringmaster::bench {

// Binds the calling thread to the CPU that is the `index`-th of those that the process may use,
// counted round.
inline void PinThread(int index) {
  static const cpu_set_t allowed = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof(set), &set);
    return set;
  }();
  const int count = CPU_COUNT(&allowed);
  if (count == 0) return;
  int left = index % count;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || left-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
    return;
  }
}

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MICRO_PINNING_H_
