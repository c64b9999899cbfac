// What a simulated run counts: how often each fault struck, and which states it reached. A set of
// runs that never reached one of them has not tested it.

#ifndef RINGMASTER_SRC_SIM_COUNTERS_H_
#define RINGMASTER_SRC_SIM_COUNTERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sim/fault_plan.h"

namespace ringmaster::sim {

enum class Milestone : uint8_t {
  kServed,            // connections
  kRecall,            // offers taken back by age
  kRecallFromDead,    // of these, from a worker that had died
  kKnock,             // a hungry master was knocked up
  kBackOff,           // accepting ran out of descriptors
  kFullCq,            // a multishot ended because the completion queue was full
  kHoldLimit,         // a multishot accept was ended because too much was held
  kPollEnded,         // a poll was ended because nobody had credit
  kCapacity,          // a worker was full
  kWindowShrunk,      // a worker's window was below its largest
  kDoorbellRepeated,  // a doorbell was sent again after it failed
  kLeaveWithOffers,   // a worker left and had offers
  kIndexReused,       // a new worker got the index of one that had left
  kStallReported,     // the engine said that a worker does not move
  kMotionReported,    // the engine said that it moves again
  kEmptyClaim,        // a doorbell came for nothing
  kDrained,           // a run ended with everything served
  kShutDown,          // a run ended by a shutdown
  kRefused,           // connections refused by a shutdown
};
inline constexpr size_t kMilestoneCount = 19;

inline constexpr std::array<std::string_view, kMilestoneCount> kMilestoneNames = {
    "served",       "recall",         "recall_from_dead",  "knock",
    "back_off",     "full_cq",        "hold_limit",        "poll_ended",
    "capacity",     "window_shrunk",  "doorbell_repeated", "leave_with_offers",
    "index_reused", "stall_reported", "motion_reported",   "empty_claim",
    "drained",      "shut_down",      "refused",
};

struct Counters {
  std::array<uint64_t, kFaultCount> faults{};
  std::array<uint64_t, kMilestoneCount> milestones{};
  uint64_t batches = 0;
  uint64_t events = 0;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_COUNTERS_H_
