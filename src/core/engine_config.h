// What the engine is told when it is made, and when a source or a worker is added; and what it
// tells: events and counts.

#ifndef RINGMASTER_SRC_CORE_ENGINE_CONFIG_H_
#define RINGMASTER_SRC_CORE_ENGINE_CONFIG_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "core/desk.h"
#include "core/inbox.h"
#include "core/intake.h"
#include "core/permits.h"
#include "core/port_state.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

enum class EventKind : uint8_t {
  kOutOfDescriptors,
  kAccepting,
  kSourceFailed,
  kWorkerStalled,
  kWorkerMoves,
  kDoorbellFailed,  // or the sending, or installing, of a connection
  kSourceBlocks,    // nobody accepts from it: it has become blocking, and who did might wait
  kTurnedAway,      // the ring has brought more than it said it could, see core/room.h
  kBacklogOverflow,
  kPolicyFailed,  // of the source, see policy_fault
  kSetAside,      // its policy has set aside as much as may be, or for long, see core/aside.h
  kTableFull,     // the file table of a worker, for the first time, see core/sending.h
};

struct EngineEvent {
  EventKind kind = EventKind::kAccepting;
  uint32_t source = 0;
  uint32_t worker = 0;
  int32_t error = 0;  // errno
  // kWorkerStalled of a worker with an inbox: whether anything was recalled from it; whether it is
  // inside a claim; whether it was rung and has not begun a claim since.
  bool recalled = false;
  bool serving = false;
  bool told = false;
};

struct SourceConfig {
  int32_t fd = -1;
  uint64_t file = 0;  // see Op
  SourceIntake::Traits intake;
  bool countable = false;        // readiness: kCount tells how many connections wait
  bool tells_overflows = false;  // kOverflows works
  int32_t overflows = 0;         // what it would complete with now: those are not counted
  uint32_t hold = 0;             // kAccept: the intake pauses when so many are held. All: no more
                                 // are set aside; nor more than kAsideMax, but one in any case
  bool recall = true;
  uint32_t start_workers = 1;  // the intake starts when so many have joined, or when it is resumed
  uint32_t accept_flags = 0;
  Gate* gate = nullptr;    // borrowed; null: as many connections as the workers may have
  int64_t age_max_ns = 0;  // drops what nobody has claimed by then; 0: never. Not of tickets
  uint8_t age_facts = 0;   // what is asked for then, see core/ages.h: kFactCame or kFactGone
  std::unique_ptr<Policy> policy;
  // By which it may be aimed (core/aimer.h); borrowed; all null: it is always dealt.
  Desk* desk = nullptr;
  Sights* sights = nullptr;
  SourceSet* hungry = nullptr;
};

// What belongs to a worker; borrowed until the worker has left.
struct WorkerConfig {
  Inbox* inbox = nullptr;  // unused when there is a tally
  PortState* state = nullptr;
  Tally* tally = nullptr;  // arrivals are handed over as completions, see core/delivery.h
  bool direct = false;     // and connections are installed in the file table of its ring
  int32_t ring_fd = -1;    // -1: it looks after every batch, and is not rung
  uint64_t tag = 0;
  uint32_t capacity = UINT32_MAX;
  uint32_t window_max = 1;
  int32_t cpu = -1;
  int sight = -1;                    // -1: none, so it gets no permits
  WorkerPermits* permits = nullptr;  // if it has a sight
  // The index that it gets; it is not in use. UINT32_MAX: the lowest that is free.
  uint32_t index = UINT32_MAX;
  // What other masters have at the same worker: one that has work from them is not idle.
  std::vector<const Inbox*> other_inboxes;
  std::vector<Tally*> other_tallies;
};

// What a source's intake has gone through.
struct IntakeCount {
  uint64_t arms = 0;           // times that it was armed
  uint64_t pauses = 0;         // times that it stopped by our doing: no credit, enough held, out of
                               // descriptors, paused
  uint64_t errors = 0;         // failed accepts
  uint64_t overflows = 0;      // connections that the kernel has discarded, as far as it was asked
  uint64_t policy_faults = 0;  // what a policy did that it must not
  uint64_t by_permit = 0;      // connections that workers which have left have accepted by permits
};

// A connection that a worker has claimed and passed on.
struct PassedOn {
  uint32_t source = 0;
  int32_t fd = -1;
  uint32_t giver = UINT32_MAX;  // the worker, or one that has left; UINT32_MAX: nobody of them
  Arrival facts;                // as far as the policy needs them
};

struct EngineConfig {
  int64_t recall_after_ns = 10'000'000;
  uint32_t completion_entries = 0;  // of the ring that is there; see core/room.h
  uint32_t completions_max = 512;   // that one batch may bring
  uint32_t slots = 0;               // of its file table, see core/slots.h; 0: it has none
  int32_t watch_fd = -1;            // the master's eventfd; -1: nobody knocks through the ring
  const CpuTopology* topology = nullptr;  // borrowed; null: unknown
  Gate* gate = nullptr;                   // of all sources together; borrowed, may be null
  bool shares_workers = false;            // with other masters, who deal at the same time
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ENGINE_CONFIG_H_
