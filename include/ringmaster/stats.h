// What a balancer counts, for metrics and reports. `Balancer::Stats` copies it while everything
// goes on; `Balancer::Shutdown` returns the last of it.
//
// Cost of one `Balancer::Stats`: it wakes the master once, between two batches, for a walk over the
// sources, the workers and the offers that nobody has claimed, and asks the kernel twice about each
// TCP listener; it allocates on the side of the caller. The accept path pays nothing for it: every
// number here is one that the master needs anyway or an increment of its own. Once a second is
// free, a thousand times a second is not.

#ifndef RINGMASTER_STATS_H_
#define RINGMASTER_STATS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ringmaster {

// A worker. With Handoff::kCompletion a connection counts as claimed when it has been handed over,
// and `unclaimed` and `oldest_unclaimed` tell what the worker has not yet said that it took; what
// it has finished before it says so is not `unclaimed`.
struct WorkerStats {
  uint32_t worker = 0;     // index
  uint64_t assigned = 0;   // offers made, each place of a recalled arrival counts
  uint64_t claimed = 0;    // offers taken by the worker
  uint64_t recalled = 0;   // offers taken back; kInbox: assigned = claimed + recalled + unclaimed
  uint64_t doorbells = 0;  // doorbells sent
  uint64_t stalls = 0;     // times that it was found not to move
  uint32_t unclaimed = 0;
  // Never less than `unclaimed`: the worker goes on while it is looked at, and what it has finished
  // since its offers were counted is shown as open once more.
  uint32_t open = 0;
  absl::Duration oldest_unclaimed = absl::ZeroDuration();
};

// A source. accepted = claimed + refused + dropped + held + what is offered now. With
// Intake::kReadiness an arrival is a ticket, not a connection.
struct SourceStats {
  uint32_t source = 0;    // index
  uint64_t accepted = 0;  // arrivals
  uint64_t claimed = 0;
  uint64_t refused = 0;  // closed without having been served, by a shutdown or because the source
                         // was removed when no worker had joined it any more
  uint64_t dropped = 0;  // closed because they were older than age_max, or had gone; or tickets
                         // withdrawn because the source was removed or intake ended
  uint64_t gone = 0;     // of these, whose clients had hung up before they were accepted; known
                         // only where age_max is set
  uint64_t held = 0;     // accepted, not offered
  uint64_t pauses = 0;   // times that the intake stopped: no credit, enough held, out of
                         // descriptors, or told to
  uint64_t rearms = 0;   // times that it was armed after the first
  uint64_t errors = 0;   // failed accepts
  // Times that the policy threw, or picked beyond its candidates.
  uint64_t policy_faults = 0;

  // The kernel's queue of connections that nobody has accepted, as it is at this moment, and at how
  // many it is full; the kernel takes one more. Only of listening TCP sockets: of a Unix listener,
  // or of anything else, the kernel does not tell, and there is no value.
  std::optional<uint32_t> backlog = std::nullopt;
  std::optional<uint32_t> backlog_limit = std::nullopt;
  // Attempts to connect that the kernel has dropped since the source was added, because that queue
  // was full. Their clients hang until they try again, and count again if it is still full. One
  // whose last packet of the handshake was dropped takes itself for connected: it hangs for good if
  // it waits for the server to speak first. The kernel counts drops for other reasons with them
  // (too many half-open connections without SYN cookies, no memory), which are rare.
  std::optional<uint64_t> backlog_overflows = std::nullopt;
};

struct BalancerStats {
  uint64_t accepted = 0;                  // arrivals since the start
  uint64_t refused = 0;                   // of these, closed without having been served
  uint64_t dropped = 0;                   // of these, closed as too old or gone, or withdrawn
  uint64_t gone = 0;                      // of the dropped, whose clients had hung up
  uint64_t recalled = 0;                  // offers taken back
  uint64_t held = 0;                      // accepted, not offered
  uint64_t master_wakes = 0;              // times the master has looked
  std::vector<SourceStats> sources = {};  // those that have not been removed, by index
  std::vector<WorkerStats> workers = {};  // those that have not left, by index
  WorkerStats departed = {};              // what those that left have done, added up
  // OK; or why all of the above is zero: FailedPrecondition in a forked child, in a function of a
  // policy, and in the event callback of one of several masters.
  absl::Status status = absl::OkStatus();
};

// What became of everything when a balancer was shut down.
struct ShutdownReport {
  bool drained = false;      // everything was claimed and every lease released in time
  uint64_t refused = 0;      // connections that were held or offered at the deadline, now closed
  uint64_t open = 0;         // claimed connections still open; their workers keep them
  BalancerStats stats = {};  // final
  // OK; or why nothing was shut down: FailedPrecondition in a forked child, in the event callback,
  // and in a function of a policy.
  absl::Status status = absl::OkStatus();
};

}  // namespace ringmaster

#endif  // RINGMASTER_STATS_H_
