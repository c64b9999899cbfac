// Who a master has: its sources and its workers as set-up sees them, by index. The engine has the
// rest of the books.
//
// One thread at a time: the one that drives the master, or whoever is alone with it.

#ifndef RINGMASTER_SRC_RUNTIME_ROSTER_H_
#define RINGMASTER_SRC_RUNTIME_ROSTER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "core/engine.h"
#include "ring/process.h"
#include "ringmaster/balancer.h"
#include "ringmaster/stats.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// A source of one master. The serial tells it from others that have had its index.
struct SourceKey {
  uint32_t index;
  uint64_t serial;
};

struct SourceEntry {
  bool used = false;
  uint64_t serial = 0;
  int fd = -1;
  bool tickets = false;
  bool tells_backlog = false;    // ring::BacklogOf works
  bool tells_overflows = false;  // ring::OverflowsOf works
};

struct WorkerEntry {
  PortShared* shared = nullptr;  // null: the index is free
  ring::OwnDescriptor ring_fd;   // our duplicate
  Handoff handoff = Handoff::kInbox;
  uint32_t window = 0;  // as added
};

// Workers some of whom may be redeeming a ticket whose source has just gone: when they have been
// waited for, nobody uses its descriptor any more. See core::SourceIdentity.
class Redeemers {
 public:
  Redeemers() = default;
  Redeemers(const Redeemers&) = delete;
  Redeemers& operator=(const Redeemers&) = delete;
  ~Redeemers();
  void Add(PortShared* shared);
  void Wait() const;

 private:
  std::vector<PortShared*> held_;
};

class Roster {
 public:
  // The master is the one with this index of so many.
  Roster(uint32_t master, uint32_t masters) : master_(master), masters_(masters) {}
  ~Roster();
  Roster(const Roster&) = delete;
  Roster& operator=(const Roster&) = delete;

  // The index by which users know a source of this master.
  uint32_t PublicIndex(uint32_t source) const { return source * masters_ + master_; }

  // Errors when the handle is of no use any more.
  absl::Status Check(SourceKey source) const;
  absl::Status Check(uint32_t worker, const PortShared* shared) const;

  void AddSource(uint32_t index, const SourceEntry& source);
  void RemoveSource(uint32_t index) { sources_[index].used = false; }
  const SourceEntry& source(uint32_t index) const { return sources_[index]; }
  uint32_t source_slots() const { return static_cast<uint32_t>(sources_.size()); }

  // The index is free.
  void AddWorker(uint32_t index, WorkerEntry worker);
  // Whether the worker of this index is that one.
  bool Has(uint32_t worker, const PortShared* shared) const {
    return worker < workers_.size() && workers_[worker].shared == shared;
  }
  const WorkerEntry& worker(uint32_t index) const { return workers_[index]; }
  const std::vector<WorkerEntry>& workers() const { return workers_; }
  // All that may be redeeming a ticket now.
  void AddTo(Redeemers& redeemers) const;

  // The engine has removed the worker. What is counted of it is kept, and its ring is closed soon:
  // something that was submitted may still use its number.
  void Release(uint32_t worker, const core::Engine& engine);
  // The same after the end, when nothing is counted any more.
  void Forget(uint32_t worker);
  // No worker is rung any more. A worker's ring would go on with what it has under way as long as
  // there is a duplicate.
  void CloseAllRingsSoon();
  // Closes the rings of workers that have left. The kernel has taken all that was submitted.
  void CloseRings() { rings_to_close_.clear(); }
  bool rings_to_close() const { return !rings_to_close_.empty(); }

  // While intake has ended: whether a worker may still use the descriptor of a source. No ticket is
  // claimed any more when all are withdrawn, so a worker that is seen outside of a claim, and
  // without a ticket, gets none.
  bool TicketsOut() const;
  // Connections that the workers have open.
  uint64_t Open() const;
  // Of workers that have left.
  const WorkerStats& departed() const { return departed_; }

 private:
  const uint32_t master_;
  const uint32_t masters_;
  std::vector<SourceEntry> sources_;
  std::vector<WorkerEntry> workers_;
  std::vector<ring::OwnDescriptor> rings_to_close_;
  std::vector<PortShared*> ticket_holders_;  // that have left with tickets; held
  bool had_tickets_ = false;                 // a source whose arrivals are tickets
  WorkerStats departed_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_ROSTER_H_
