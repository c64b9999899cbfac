// Workers that accept through their own io_uring: what the mechanisms that do so have in common.
// They accept descriptors, or slots of the ring's file table.

#ifndef RINGMASTER_BENCH_MECHANISMS_URING_ACCEPT_SERVER_H_
#define RINGMASTER_BENCH_MECHANISMS_URING_ACCEPT_SERVER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/uring_worker.h"

namespace ringmaster::bench {

enum class AcceptKind : uint8_t {
  kMultishot,  // armed once, completes for each connection
  kOneShot,    // armed again after each connection
};

// `connections`: kDescriptors or kSlots.
absl::StatusOr<std::unique_ptr<Server>> StartUringAcceptServer(const ServerOptions& options,
                                                               AcceptKind kind,
                                                               ConnectionsAre connections);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_URING_ACCEPT_SERVER_H_
