// Which CPUs share a core, a cache and a memory node, as the kernel tells it.

#ifndef RINGMASTER_SRC_RUNTIME_TOPOLOGY_H_
#define RINGMASTER_SRC_RUNTIME_TOPOLOGY_H_

#include <string>

#include "ringmaster/policy.h"

namespace ringmaster::internal {

// Reads /sys/devices/system/cpu below `root` ("" in production). What is not there stays unknown,
// because containers and small machines may show little or nothing.
CpuTopology ReadTopology(const std::string& root = "");

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_TOPOLOGY_H_
