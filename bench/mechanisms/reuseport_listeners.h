// What the mechanisms with a listener for each worker have in common: SO_REUSEPORT (Linux 3.9).

#ifndef RINGMASTER_BENCH_MECHANISMS_REUSEPORT_LISTENERS_H_
#define RINGMASTER_BENCH_MECHANISMS_REUSEPORT_LISTENERS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/mechanism.h"
#include "bench/target.h"

namespace ringmaster::bench {

// Why there are no such listeners over `transport`; empty if there are.
std::string WhyNoReusePort(Transport transport);

// A listener for each worker at the server's address, in the workers' order, which is that of the
// kernel's group. The server's own stops listening: it would get a share. The caller closes them.
absl::StatusOr<std::vector<int>> MakeReusePortListeners(const ServerOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_REUSEPORT_LISTENERS_H_
