// What a balancer counts, for metrics and reports. `Balancer::Stats` copies it while everything
// goes on. `Balancer::Shutdown` returns the final numbers.
//
// Cost of one `Balancer::Stats`: it wakes the master once, between two batches. The master walks
// over the sources, the workers and the offers that nobody has claimed, and asks the kernel twice
// about each TCP listener. The caller's thread allocates. The accept path pays nothing: the master
// needs most of these numbers anyway, and the others are plain increments. Once a second is free, a
// thousand times a second is not.

#ifndef RINGMASTER_STATS_H_
#define RINGMASTER_STATS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ringmaster {

// One worker. With Handoff::kCompletion and kDirect a connection counts as claimed when it has been
// handed over. `unclaimed` and `oldest_unclaimed` are then about what the worker has not yet said
// it took (Port::Took). What it has already finished is not `unclaimed`, even before it says so.
struct WorkerStats {
  uint32_t worker = 0;  // index
  // Offers made to it. An arrival that was recalled or moved counts at each worker that it was
  // offered to.
  uint64_t assigned = 0;
  uint64_t claimed = 0;  // offers that it has claimed
  // Of these, connections that it has accepted itself, because the source was aimed at it
  // (Port::WatchSight). Each counts as assigned and claimed at once.
  uint64_t by_permit = 0;
  // Offers taken back from it: they had waited for too long, it left, or its ring could not be
  // reached.
  uint64_t recalled = 0;
  // Offers that went to a worker that waited, because this one said that it was busy
  // (Port::BeforeWait). With kInbox: assigned = claimed + recalled + moved + unclaimed.
  uint64_t moved = 0;
  uint64_t doorbells = 0;  // doorbells sent
  uint64_t stalls = 0;     // how often it was found not to move
  // With Handoff::kDirect: how often a connection did not fit into its file table, and went to
  // somebody else or waited. Each counts as recalled, too.
  uint64_t table_full = 0;
  uint32_t unclaimed = 0;  // offers that wait for it now
  // Connections that it has open, offers included. Never shown as less than `unclaimed`. The worker
  // goes on while the master reads the two, so what it finishes in between is shown as open once
  // more.
  uint32_t open = 0;
  absl::Duration oldest_unclaimed = absl::ZeroDuration();  // how long the oldest offer has waited
};

// One source. accepted + passed_on = claimed + refused + dropped + held + what is offered now. With
// Intake::kReadiness an arrival is a ticket, not a connection.
struct SourceStats {
  uint32_t source = 0;    // index
  uint64_t accepted = 0;  // arrivals
  // How often a worker has passed a connection on (Source::PassOn). Then it is claimed once more.
  uint64_t passed_on = 0;
  uint64_t claimed = 0;  // arrivals that workers have claimed
  // Connections closed without having been served, or passed on and served no more: by a shutdown,
  // or because the source was removed and no worker had joined it any more.
  uint64_t refused = 0;
  // Connections closed because they were older than age_max, or their clients were gone. Also
  // tickets that were withdrawn because the source was removed or the intake ended.
  uint64_t dropped = 0;
  // Those of `dropped` whose clients had hung up before they were accepted. Known only with
  // age_max.
  uint64_t gone = 0;
  uint64_t held = 0;  // accepted, not offered
  // Of these, how many the policy has set aside, that is picked nobody for (Policy::kNobodyNow);
  // and for how long the oldest of them has been set aside.
  uint64_t set_aside = 0;
  absl::Duration oldest_set_aside = absl::ZeroDuration();
  // How often an arrival was set aside. Being asked about again does not count.
  uint64_t times_set_aside = 0;
  // How often the intake stopped: no credit, enough held, out of descriptors, or Source::Pause.
  uint64_t pauses = 0;
  uint64_t rearms = 0;  // how often it was armed after the first time
  // Failed accepts. Where a worker has failed to accept by a permit, that and what the master finds
  // then count.
  uint64_t errors = 0;
  // Whether it is decided at this moment who gets the next connection, before that comes: see
  // Port::WatchSight. It changes often under load.
  bool aimed = false;
  // How often the policy threw, or picked beyond its candidates.
  uint64_t policy_faults = 0;

  // The kernel's queue of connections that nobody has accepted: how many it has at this moment, and
  // how many make it full (the kernel takes one more). Only for listening TCP sockets. For a Unix
  // listener, or anything else, there is no value, because the kernel does not tell.
  std::optional<uint32_t> backlog = std::nullopt;
  std::optional<uint32_t> backlog_limit = std::nullopt;
  // Attempts to connect that the kernel has discarded since the source was added, because that
  // queue was full. A client whose attempt was discarded hangs until it tries again, and counts
  // again if the queue is still full. A client whose last packet of the handshake was discarded
  // believes that it is connected. It hangs for good if it waits for the server to speak first. The
  // number includes attempts that were discarded for other reasons, which are rare: too many
  // half-open connections without SYN cookies, or no memory.
  std::optional<uint64_t> backlog_overflows = std::nullopt;
};

struct BalancerStats {
  uint64_t accepted = 0;                  // arrivals since the start
  uint64_t passed_on = 0;                 // how often workers have passed connections on
  uint64_t refused = 0;                   // arrivals closed without having been served
  uint64_t dropped = 0;                   // arrivals closed as too old or gone, or withdrawn
  uint64_t gone = 0;                      // those of `dropped` whose clients had hung up
  uint64_t recalled = 0;                  // offers taken back, see WorkerStats
  uint64_t moved = 0;                     // offers moved to waiting workers, see WorkerStats
  uint64_t held = 0;                      // arrivals accepted and not offered
  uint64_t master_wakes = 0;              // how often the master has looked
  std::vector<SourceStats> sources = {};  // those that have not been removed, by index
  std::vector<WorkerStats> workers = {};  // those that have not left, by index
  WorkerStats departed = {};              // the sums of the workers that have left
  // OK; or why all of the above is zero: FailedPrecondition in a forked child, in a function of a
  // policy, and in the event callback of a balancer with several masters.
  absl::Status status = absl::OkStatus();
};

// What became of everything when a balancer was shut down.
struct ShutdownReport {
  bool drained = false;      // everything was claimed, and every lease released, in time
  uint64_t refused = 0;      // connections that nobody had claimed at the deadline; now closed
  uint64_t open = 0;         // claimed connections still open; their workers keep them
  BalancerStats stats = {};  // the final numbers
  // OK; or why nothing was shut down: FailedPrecondition in a forked child, in the event callback,
  // and in a function of a policy.
  absl::Status status = absl::OkStatus();
};

}  // namespace ringmaster

#endif  // RINGMASTER_STATS_H_
