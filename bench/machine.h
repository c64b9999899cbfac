// What a reader must know of the machine and the program to judge a figure.

#ifndef RINGMASTER_BENCH_MACHINE_H_
#define RINGMASTER_BENCH_MACHINE_H_

#include <string>
#include <string_view>

#include "bench/result.h"

namespace ringmaster::bench {

// "6.18.44" of "6.18.44-1-amd64": what follows the numbers is the distribution's or the host's.
std::string KernelVersionOf(std::string_view release);

// What the kernel says about the CPU's vulnerabilities, in a line: each that is mitigated or open
// by name, the rest by number. `folder` is /sys/devices/system/cpu/vulnerabilities; "unknown" if it
// cannot be read.
std::string SummarizeVulnerabilities(const std::string& folder);

// The machine as it is now, and how this program was built. Leaves what is of one measurement
// (command, seed, seconds, warm_up_seconds) to the caller.
Context DescribeMachine();

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MACHINE_H_
