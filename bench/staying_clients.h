// Clients that stay: each keeps its connection and sends one request after the other over it. What
// is measured is how the *requests* are answered, and which worker has how many connections.
//
// Beside them there may be clients of the other kind (load_generator.h), each of which comes with
// one request and goes. How long does a newcomer wait behind those who stay?
//
// Threads: one for the clients that stay, one for the newcomers. RunStaying returns when both have
// ended.

#ifndef RINGMASTER_BENCH_STAYING_CLIENTS_H_
#define RINGMASTER_BENCH_STAYING_CLIENTS_H_

#include "absl/status/statusor.h"
#include "bench/load_generator.h"

namespace ringmaster::bench {

// Runs a load that is StayingClients.
absl::StatusOr<LoadResult> RunStaying(const LoadOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_STAYING_CLIENTS_H_
