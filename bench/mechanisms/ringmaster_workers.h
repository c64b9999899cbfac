// The workers of the library in a measurement: those of its rivals, with one branch more in a loop
// that they would have anyway.

#ifndef RINGMASTER_BENCH_MECHANISMS_RINGMASTER_WORKERS_H_
#define RINGMASTER_BENCH_MECHANISMS_RINGMASTER_WORKERS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "bench/mechanism.h"
#include "bench/mechanisms/epoll_worker.h"
#include "bench/mechanisms/uring_worker.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/port.h"

namespace ringmaster::bench {

// `hints`: it says when it waits, and claims before it does anything else when it woke.

// Claims when a doorbell completes on its ring. It is one of `running` from its beginning until it
// needs the master no more. The balancer outlives it, as it does the next two.
std::unique_ptr<UringWorker> MakeInboxWorker(const ServerOptions& options, uint32_t index,
                                             Balancer& balancer, std::vector<Source> sources,
                                             bool hints, std::atomic<uint32_t>& running);

// Is given each connection as a completion of its ring.
std::unique_ptr<UringWorker> MakeCompletionWorker(const ServerOptions& options, uint32_t index,
                                                  Balancer& balancer, std::vector<Source> sources,
                                                  bool hints);

// Drives the master, too: by one more descriptor of its loop, or, if it `rides`, by completions of
// its ring. While there are `others`, they need the master; at the end it shuts the balancer down
// and hands the last of its counts to `write`.
std::unique_ptr<UringWorker> MakeHostingWorker(const ServerOptions& options, uint32_t index,
                                               Balancer& balancer, std::vector<Source> sources,
                                               bool rides, const std::atomic<uint32_t>& others,
                                               std::function<void(const BalancerStats&)> write);

// Has an epoll set, which watches the mailbox of `port`.
std::unique_ptr<EpollWorker> MakeMailboxWorker(const ServerOptions& options, uint32_t index,
                                               Mailbox mailbox, Port port, bool hints);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_RINGMASTER_WORKERS_H_
