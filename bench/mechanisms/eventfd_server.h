// One thread accepts for all: it picks a worker for each connection, puts it into that worker's
// queue and wakes the worker through an eventfd. What the mechanisms that differ only in how they
// pick have in common.
//
// Written as a careful server would have it. The queue is a ring with one writer and one reader,
// without a lock, as HAProxy's is. The eventfd is written only if the worker has not been told
// since it last found its queue empty. Netty and Tokio do the same; memcached writes it for every
// connection. A worker that is full, or whose queue is, is passed over. If all are, the listener is
// left alone until one has room, and then the acceptor is woken. Out of descriptors it pauses for
// kAcceptPauseNs.

#ifndef RINGMASTER_BENCH_MECHANISMS_EVENTFD_SERVER_H_
#define RINGMASTER_BENCH_MECHANISMS_EVENTFD_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/mechanism.h"

namespace ringmaster::bench {

// What the acceptor knows of a worker when it picks.
struct QueueView {
  uint32_t open = 0;  // connections that it serves or that are in its queue
  bool room = false;  // whether it may be given one more
};

// Picks a worker that has room; `last` is the one that was picked before. None if none has.
using PickWorker = std::optional<uint32_t> (*)(const std::vector<QueueView>& workers,
                                               uint32_t last);

absl::StatusOr<std::unique_ptr<Server>> StartEventfdServer(const ServerOptions& options,
                                                           PickWorker pick);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_EVENTFD_SERVER_H_
