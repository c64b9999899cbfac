// How policies that go by load count it: open connections, and what a worker does.

#ifndef RINGMASTER_SRC_POLICY_LOAD_H_
#define RINGMASTER_SRC_POLICY_LOAD_H_

#include <cstdint>

#include "ringmaster/policy.h"

namespace ringmaster {

// The load that a worker would have with one connection more, in units of kLoadUnit: each of its
// connections weighs as much as its activity says (see Activity). So what is not idle comes after
// an equal that is, and beyond 255 connections it counts for up to a 256th more. At most 42 bits.
// There is no branch and no limit, because every candidate is asked.
inline constexpr uint64_t kLoadUnit = 256;
inline uint64_t LoadWithOneMore(const Candidate& candidate) {
  return (uint64_t{candidate.open} + 1) * static_cast<uint64_t>(candidate.activity);
}

// The same in whole connections, without the one more: whether a worker is idle is cut off.
inline uint64_t LoadOf(const Candidate& candidate) {
  return LoadWithOneMore(candidate) / kLoadUnit - 1;
}

// Whether a policy that goes by load would take either; `from` is busy, and its load includes what
// would be moved.
inline bool MayMoveByLoad(const Candidate& from, const Candidate& to) {
  return LoadWithOneMore(to) + static_cast<uint64_t>(from.activity) <= LoadWithOneMore(from);
}

}  // namespace ringmaster

#endif  // RINGMASTER_SRC_POLICY_LOAD_H_
