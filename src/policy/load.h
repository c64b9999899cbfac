// How policies that go by load count it: open connections, and what a worker does.

#ifndef RINGMASTER_SRC_POLICY_LOAD_H_
#define RINGMASTER_SRC_POLICY_LOAD_H_

#include <cstdint>

#include "ringmaster/policy.h"

namespace ringmaster {

// Open connections and activity (see Activity) in halves of a connection: the load, and in the
// lowest bit whether the worker is not idle. A busy worker has a load of one more than its open
// connections: that is the least that lets one that waits win against an equal, and the connections
// stay even within one. At most 34 bits. There is no branch and no limit, because every candidate
// is asked.
inline uint64_t LoadInHalves(const Candidate& candidate) {
  return 2 * uint64_t{candidate.open} + static_cast<uint64_t>(candidate.activity);
}

// The same in whole connections: whether a worker is idle is cut off.
inline uint64_t LoadOf(const Candidate& candidate) { return LoadInHalves(candidate) / 2; }

// Whether a policy that goes by load would take either; `from` is busy, and its load includes what
// would be moved.
inline bool MayMoveByLoad(const Candidate& from, const Candidate& to) {
  return LoadOf(to) < LoadOf(from);
}

}  // namespace ringmaster

#endif  // RINGMASTER_SRC_POLICY_LOAD_H_
