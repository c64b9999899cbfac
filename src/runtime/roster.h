// The sources and the workers of a master as set-up sees them, by index. The engine has the rest of
// the books.
//
// Threads: one at a time, that is the thread that drives the master, or a caller while nobody
// drives it.

#ifndef RINGMASTER_SRC_RUNTIME_ROSTER_H_
#define RINGMASTER_SRC_RUNTIME_ROSTER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "core/engine.h"
#include "ring/process.h"
#include "ringmaster/balancer.h"
#include "ringmaster/stats.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// A source of one master. The serial tells the source from others that have had its index.
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
  bool may_be_aimed = false;     // workers may accept from it by permits
};

struct WorkerEntry {
  PortShared* shared = nullptr;  // null: the index is free
  ring::OwnDescriptor ring_fd;   // our duplicate
  Handoff handoff = Handoff::kInbox;
  uint32_t window = 0;             // as added
  uint64_t tag = 0;                // of its doorbell
  ring::OwnDescriptor sight = {};  // our duplicate
};

// Workers that may be redeeming a ticket of a source which was just removed. When they have been
// waited for, nobody uses the source's descriptor any more. See core::SourceIdentity.
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
  // For the master with index `master` among `masters`.
  Roster(uint32_t master, uint32_t masters) : master_(master), masters_(masters) {}
  ~Roster();
  Roster(const Roster&) = delete;
  Roster& operator=(const Roster&) = delete;

  // The index by which users know a source of this master.
  uint32_t PublicIndex(uint32_t source) const { return source * masters_ + master_; }

  // These fail when the handle is of no use any more.
  absl::Status Check(SourceKey source) const;
  absl::Status Check(uint32_t worker, const PortShared* shared) const;

  void AddSource(uint32_t index, const SourceEntry& source);
  void RemoveSource(uint32_t index) { sources_[index].used = false; }
  const SourceEntry& source(uint32_t index) const { return sources_[index]; }
  uint32_t source_slots() const { return static_cast<uint32_t>(sources_.size()); }

  // `index` must be free.
  void AddWorker(uint32_t index, WorkerEntry worker);
  // Whether the worker with this index is the one of `shared`.
  bool Has(uint32_t worker, const PortShared* shared) const {
    return worker < workers_.size() && workers_[worker].shared == shared;
  }
  void SetSight(uint32_t index, ring::OwnDescriptor sight) {
    workers_[index].sight = std::move(sight);
  }
  const WorkerEntry& worker(uint32_t index) const { return workers_[index]; }
  const std::vector<WorkerEntry>& workers() const { return workers_; }
  // Adds all workers that may be redeeming a ticket now.
  void AddTo(Redeemers& redeemers) const;

  // The engine has removed the worker. The roster keeps what was counted of it. CloseRings closes
  // our duplicate of its ring, which something that was submitted may still use until then.
  void Release(uint32_t worker, const core::Engine& engine);
  // As Release, but keeps no counts: for workers that leave when the master has ended.
  void Forget(uint32_t worker);
  // No worker is rung any more. The duplicates are let go of, because a worker's ring would go on
  // with what it has under way as long as there is one.
  void CloseAllRingsSoon();
  // Closes our duplicates of the rings of workers that have left. Call it when the kernel has taken
  // everything that was submitted.
  void CloseRings() { rings_to_close_.clear(); }
  bool rings_to_close() const { return !rings_to_close_.empty(); }

  // After the intake has ended: whether a worker may still use the descriptor of a source. When all
  // tickets are withdrawn, none is claimed any more. So a worker that is seen outside of a claim,
  // and without a ticket, gets none.
  bool TicketsOut() const;
  // Connections that the workers have open.
  uint64_t Open() const;
  // The sums of the workers that have left.
  const WorkerStats& departed() const { return departed_; }

 private:
  const uint32_t master_;
  const uint32_t masters_;
  std::vector<SourceEntry> sources_;
  std::vector<WorkerEntry> workers_;
  std::vector<ring::OwnDescriptor> rings_to_close_;
  std::vector<PortShared*> ticket_holders_;  // that have left with tickets; held
  bool had_tickets_ = false;                 // a source whose arrivals are tickets
  bool may_have_permits_ = false;            // a source that may be aimed
  WorkerStats departed_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_ROSTER_H_
