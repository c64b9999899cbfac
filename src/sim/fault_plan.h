// What may go wrong in a simulated world, and how often. Each fault has a ratio: how many of the
// occasions at which it could strike it does. A seed draws a few faults with very different ratios,
// because faults that always come together hide each other.
//
// What io_uring on Linux 6.18 was seen to do that could surprise a master, and where it is here:
//
//  * A full completion queue ends a multishot operation: kCqSmall, SimRing::PostMultishot.
//  * A turn brings less than there is: SimConfig::completions_max.
//  * A submission is taken in part, the rest later: kSubmitPartly.
//  * A poll is an edge, edges are merged, some mean nothing: kEdgeMerged, kSpuriousEdge.
//  * Arming reports what is there already: always.
//  * A multishot cannot be armed for lack of memory: kArmFails.
//  * Cancelling takes a while, and more comes before the end: kCancelLate.
//  * accept gives EMFILE, ENFILE, ENOBUFS, ENOMEM: kEmfile.
//  * The connection is gone, or a firewall refuses it: kAcceptError.
//  * A client hangs up while it waits, and is accepted as any other: kClientHangsUp.
//  * When a client came is told in ticks of the kernel's clock: SimConfig::tick_ns.
//  * shutdown() of the listener gives POLLHUP, then EINVAL; of a Unix one POLLHUP and EAGAIN, or to
//    a multishot accept nothing at all: kSourceShutDown, SimSourceConfig::local.
//  * An accept that never waits happens when its completion is read (before Linux 6.10):
//    SimConfig::accepts_at_reap.
//  * Completions are made at the end of a turn only: SimConfig::defers_task_work.
//  * MSG_RING gives EBADFD (disabled, or no ring), ENOMEM, EOWNERDEAD, EBADF, EOVERFLOW:
//    kDoorbellFails, kSendFails.
//  * SEND_FD gives ENFILE: SimWorkerConfig::table. It gives EOVERFLOW for what is in the table, and
//    nobody can be told: kSendFails. It answers late: World::StartInstall.
//  * MSG_RING succeeds although the target's queue is full: always, a worker's ring has no end.
//  * MSG_RING succeeds although the owner is dead: kWorkerDies.
//  * A deferring ring wakes nobody before its owner enters: kDoorbellLate.
//  * The number of a closed ring or listener is used again: always at once, see SimKernel.
//  * A closed listener resets what was not accepted: always.
//  * A ring may end with the thread that used it: kHostEnds.
//
// What cannot occur at this seam, and why:
//  * Linked operations with all their rules: the engine submits none. A kInstall is two, which the
//    ring links.
//  * A poll that is level-triggered, or exclusive: nor these.
//  * A shared address buffer: the ring asks for peers by itself.
//  * A ring in an epoll set, and registered eventfds: a worker's own affair, behind the doorbell.
//  * EINTR, EAGAIN and EBUSY of the enter call: UringRing retries, and kSubmitPartly remains of it.
//  * A ring that is unusable: Turn fails, and the runtime closes what is left without a ring.
//  * Forged completions: who holds the master's ring is trusted.
//  * Races below the granularity of one atomic operation: the model of the protocol and the thread
//    sanitizer check them. Here every atomic operation that matters is an event of its own.

#ifndef RINGMASTER_SRC_SIM_FAULT_PLAN_H_
#define RINGMASTER_SRC_SIM_FAULT_PLAN_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sim/prng.h"

namespace ringmaster::sim {

enum class Fault : uint8_t {
  kCqSmall,             // the master's completion queue has 4 to 12 entries (drawn once)
  kSubmitPartly,        // a turn takes only some of the operations, the next one the rest
  kDoorbellFails,       // a doorbell completes with EBADFD or ENOMEM
  kDoorbellLate,        // a worker learns up to 30 ms late that something is in its ring
  kSendFails,           // handing a connection over completes with EBADFD, ENOMEM or EOWNERDEAD
  kEmfile,              // few descriptors may be open at once (drawn once)
  kAcceptError,         // a connection turns out aborted when it is accepted
  kArmFails,            // a multishot operation ends at once with ENOMEM
  kSpuriousEdge,        // a poll completes although nothing is there
  kEdgeMerged,          // arrivals while an edge is pending make no further completion
  kCancelLate,          // what was ended goes on until the end of the turn
  kMasterSlow,          // the master wakes up to 5 ms late
  kWorkerSlow,          // a callback takes a hundred times as long
  kWorkerStalls,        // a worker does not move for a while
  kWorkerDies,          // a worker never moves again
  kWorkerLeaves,        // a worker leaves between two claims, or while it waits
  kWorkerLeavesSource,  // a worker leaves one source and joins it again later
  kWorkerJoinsLate,     // a worker joins while traffic is on (drawn once for each worker)
  kClaimStopsEarly,     // a claim, or a batch of completions, is bounded and begun again
  kClaimForgets,        // a claim is bounded and the worker forgets to call again
  kTookLate,            // a worker says later that it has taken something
  kTookTooMuch,         // a worker says that it has taken more than it has
  kSourcePauses,        // a source is paused for a while
  kSourceRemoved,       // a source is removed; another one may be added later
  kSourceShutDown,      // somebody shuts a listener down
  kPolicySwitched,      // a source gets another policy
  kLimitsChanged,       // a worker gets another capacity or window
  kTicketKept,          // a worker redeems a ticket long after its claim, whatever has become of
                        // its source
  kHostEnds,            // the thread of a host ends, perhaps with its ring; another one follows
  kClientHangsUp,       // a client hangs up soon, whether it has been accepted by then or not
  kAcceptDoubtful,      // an accept fails as it does of what is no listener, and it is one
  kPassedOn,            // a worker passes a connection on, or all that it has when it leaves
  kMeanwhile,           // whoever holds a desk is slow, and others go on
  kSightFails,          // a sight cannot show a source
  kUncounted,           // the kernel does not say how many connections wait
};
inline constexpr size_t kFaultCount = 35;
// The faults after this one are drawn after everything else, so that the worlds of older seeds stay
// as they were.
inline constexpr size_t kFaultsDrawnFirst = 27;
// The same of those after this one, beside what else was drawn by then.
inline constexpr size_t kFaultsDrawnSecond = 31;
// The same of those after this one, which strike at desks only.
inline constexpr size_t kFaultsDrawnThird = 32;

inline constexpr std::array<std::string_view, kFaultCount> kFaultNames = {
    "cq_small",        "submit_partly",  "doorbell_fails", "doorbell_late",     "send_fails",
    "emfile",          "accept_error",   "arm_fails",      "spurious_edge",     "edge_merged",
    "cancel_late",     "master_slow",    "worker_slow",    "worker_stalls",     "worker_dies",
    "worker_leaves",   "leaves_source",  "joins_late",     "claim_stops_early", "claim_forgets",
    "took_late",       "took_too_much",  "source_pauses",  "source_removed",    "source_shut_down",
    "policy_switched", "limits_changed", "ticket_kept",    "host_ends",         "client_hangs_up",
    "accept_doubtful", "passed_on",      "meanwhile",      "sight_fails",       "uncounted",
};

struct FaultPlan {
  std::array<Ratio, kFaultCount> ratios;

  Ratio& operator[](Fault fault) { return ratios[static_cast<size_t>(fault)]; }
  const Ratio& operator[](Fault fault) const { return ratios[static_cast<size_t>(fault)]; }
};

// One plan of eight has no fault at all. In the others each fault takes part with the same chance.
// That chance is drawn first, so that some plans have one or two faults and some have nearly all.
inline Ratio DrawFault(Prng& prng, uint64_t included_of_8) {
  const bool included = prng.Below(8) < included_of_8;
  const uint32_t of = prng.OneOf(std::array<uint32_t, 5>{2, 5, 20, 100, 500});
  return included ? Ratio{.n = 1, .of = of} : Ratio{};
}
inline FaultPlan DrawFaultPlan(Prng& prng) {
  FaultPlan plan;
  const uint64_t included_of_8 = prng.Below(8);
  for (size_t i = 0; i < kFaultsDrawnFirst; ++i) plan.ratios[i] = DrawFault(prng, included_of_8);
  return plan;
}

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_FAULT_PLAN_H_
