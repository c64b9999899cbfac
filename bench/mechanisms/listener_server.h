// Workers that take connections from listeners by accept4, in epoll loops of their own. The
// mechanisms that leave the choice to the kernel have that in common.

#ifndef RINGMASTER_BENCH_MECHANISMS_LISTENER_SERVER_H_
#define RINGMASTER_BENCH_MECHANISMS_LISTENER_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/epoll_worker.h"

namespace ringmaster::bench {

struct ListenerServerOptions {
  uint32_t events = 0;               // of the listener in each worker's set, besides EPOLLIN
  int takes_max = kTakesPerTurnMax;  // accepts for each wake-up
  uint32_t readd_after = 0;          // wake-ups, see EpollWorker::Door
  // One for each worker, which owns it and closes it when it leaves; none: all share the server's.
  std::vector<int> own_listeners;
  // Called on the worker's thread, after one of its connections has been closed and when it leaves.
  std::function<void(uint32_t worker)> on_closed;
  std::function<void(uint32_t worker)> on_leave;
};

absl::StatusOr<std::unique_ptr<EpollServer>> StartListenerServer(
    const ServerOptions& server, const ListenerServerOptions& options);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_LISTENER_SERVER_H_
