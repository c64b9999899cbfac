// How much it is worth to a policy that a worker waits.

#ifndef RINGMASTER_SRC_POLICY_WAIT_SLACK_H_
#define RINGMASTER_SRC_POLICY_WAIT_SLACK_H_

#include <cstdint>

#include "ringmaster/policy.h"

namespace ringmaster {

// A policy that goes by open connections would take either of two workers that are so many apart.
// So a worker that is known not to wait counts as having so many more. One is the least that lets a
// worker that waits win against an equal, and the connections stay even within one.
inline constexpr uint32_t kWaitSlack = 1;

// At most 33 bits. Without a branch and without a limit, because it is asked of each candidate.
inline uint64_t LoadOf(const Candidate& candidate) {
  return uint64_t{candidate.open} + candidate.busy * uint64_t{kWaitSlack};
}

// Whether a policy that goes by load would take either; `from` is busy, and its load includes what
// would be moved.
inline bool MayMoveByLoad(const Candidate& from, const Candidate& to) {
  return LoadOf(to) < LoadOf(from);
}

}  // namespace ringmaster

#endif  // RINGMASTER_SRC_POLICY_WAIT_SLACK_H_
