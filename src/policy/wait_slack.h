// How much it is worth to a policy that a worker waits.

#ifndef RINGMASTER_SRC_POLICY_WAIT_SLACK_H_
#define RINGMASTER_SRC_POLICY_WAIT_SLACK_H_

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ringmaster/policy.h"

namespace ringmaster {

// A policy that goes by open connections would take either of two workers that are so many apart.
// So a worker that is known not to wait counts as having so many more. One is the least that lets a
// worker that waits win against an equal, and the connections stay even within one.
inline constexpr uint32_t kWaitSlack = 1;

// At most 32 bits.
inline uint64_t LoadOf(const Candidate& candidate) {
  const uint64_t load = uint64_t{candidate.open} + (candidate.busy ? kWaitSlack : 0);
  return std::min<uint64_t>(load, std::numeric_limits<uint32_t>::max());
}

// Whether a policy that goes by load would take either; `from` is busy, and its load includes what
// would be moved.
inline bool MayMoveByLoad(const Candidate& from, const Candidate& to) {
  return LoadOf(to) < LoadOf(from);
}

}  // namespace ringmaster

#endif  // RINGMASTER_SRC_POLICY_WAIT_SLACK_H_
