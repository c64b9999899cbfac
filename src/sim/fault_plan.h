// What may go wrong in a simulated world, and how often. Each fault is a ratio of the occasions at
// which it could strike; a seed draws a few of them with wildly different weights, because faults
// that always come together hide each other.

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
  kDoorbellFails,       // a doorbell completes with EBADFD or ENOMEM
  kDoorbellLate,        // a doorbell takes up to 30 ms
  kEmfile,              // few descriptors may be open at once (drawn once)
  kAcceptError,         // a connection turns out aborted when it is accepted
  kSpuriousEdge,        // a poll completes although nothing is there
  kEdgeMerged,          // arrivals while an edge is pending make no further completion
  kCancelLate,          // what was ended goes on until the end of the turn
  kMasterSlow,          // the master wakes up to 5 ms late
  kWorkerSlow,          // a callback takes a hundred times as long
  kWorkerStalls,        // a worker does not move for a while
  kWorkerDies,          // a worker never moves again
  kWorkerLeaves,        // a worker leaves between two claims
  kWorkerLeavesSource,  // a worker leaves one source and joins it again later
  kWorkerJoinsLate,     // a worker joins while traffic is on (drawn once for each worker)
  kSourcePauses,        // a source is paused for a while
  kClaimStopsEarly,     // a claim is bounded and called again
  kClaimForgets,        // a claim is bounded and the worker forgets to call again
};
inline constexpr size_t kFaultCount = 18;

inline constexpr std::array<std::string_view, kFaultCount> kFaultNames = {
    "cq_small",      "doorbell_fails",    "doorbell_late", "emfile",        "accept_error",
    "spurious_edge", "edge_merged",       "cancel_late",   "master_slow",   "worker_slow",
    "worker_stalls", "worker_dies",       "worker_leaves", "leaves_source", "joins_late",
    "source_pauses", "claim_stops_early", "claim_forgets",
};

struct FaultPlan {
  std::array<Ratio, kFaultCount> ratios;

  Ratio& operator[](Fault fault) { return ratios[static_cast<size_t>(fault)]; }
  const Ratio& operator[](Fault fault) const { return ratios[static_cast<size_t>(fault)]; }
};

// No fault at all in one plan of eight; otherwise each is in with the same chance, which is drawn
// first, so that some plans have one or two faults and some have nearly all.
inline FaultPlan DrawFaultPlan(Prng& prng) {
  FaultPlan plan;
  const uint64_t included_of_8 = prng.Below(8);
  for (Ratio& ratio : plan.ratios) {
    const bool included = prng.Below(8) < included_of_8;
    const uint32_t of = prng.OneOf(std::array<uint32_t, 5>{2, 5, 20, 100, 500});
    if (included) ratio = {.n = 1, .of = of};
  }
  return plan;
}

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_FAULT_PLAN_H_
