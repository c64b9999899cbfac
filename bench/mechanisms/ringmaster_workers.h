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
#include "bench/mechanisms/ringmaster_name.h"
#include "bench/mechanisms/uring_worker.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/port.h"

namespace ringmaster::bench {

// What they do besides serving is in the name: whether they say when they wait, and claim before
// they do anything else when they woke (`hints`); and whether they pass on what is ready when
// others wait (`passes_on`). The host does neither. The name also says whether they serve by
// descriptors or by slots (`has_tables`).

// Claims when a doorbell completes on its ring. It is one of `running` from its beginning until it
// needs the master no more. The balancer outlives it, as it does the next two.
std::unique_ptr<UringWorker> MakeInboxWorker(const ServerOptions& options, uint32_t index,
                                             Balancer& balancer, std::vector<Source> sources,
                                             const RingmasterName& name,
                                             std::atomic<uint32_t>& running);

// Is given each connection as a completion of its ring, or in the ring's file table.
std::unique_ptr<UringWorker> MakeCompletionWorker(const ServerOptions& options, uint32_t index,
                                                  Balancer& balancer, std::vector<Source> sources,
                                                  const RingmasterName& name);

// Drives the master, too: by one more descriptor of its loop, or, if the name says so, by
// completions of its ring. While there are `others`, they need the master; at the end it shuts the
// balancer down and hands the last of its counts to `write`.
std::unique_ptr<UringWorker> MakeHostingWorker(const ServerOptions& options, uint32_t index,
                                               Balancer& balancer, std::vector<Source> sources,
                                               const RingmasterName& name,
                                               const std::atomic<uint32_t>& others,
                                               std::function<void(const BalancerStats&)> write);

// Has an epoll set, which watches the mailbox of `port`. It passes on to `source`.
std::unique_ptr<EpollWorker> MakeMailboxWorker(const ServerOptions& options, uint32_t index,
                                               Mailbox mailbox, Port port, Source source,
                                               const RingmasterName& name);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_RINGMASTER_WORKERS_H_
