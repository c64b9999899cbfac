// Workers that accept through their own io_uring: what the mechanisms that do so have in common.

#ifndef RINGMASTER_BENCH_MECHANISMS_URING_ACCEPT_SERVER_H_
#define RINGMASTER_BENCH_MECHANISMS_URING_ACCEPT_SERVER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "bench/mechanism.h"

namespace ringmaster::bench {

enum class AcceptKind : uint8_t {
  kMultishot,  // armed once, completes for each connection
  kOneShot,    // armed again after each connection
};

absl::StatusOr<std::unique_ptr<Server>> StartUringAcceptServer(const ServerOptions& options,
                                                               AcceptKind kind);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_URING_ACCEPT_SERVER_H_
