// Whose turn it is among the candidates.

#ifndef RINGMASTER_SRC_POLICY_FIRST_FROM_H_
#define RINGMASTER_SRC_POLICY_FIRST_FROM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "ringmaster/policy.h"

namespace ringmaster {

// Position of the first candidate whose index is not below `worker`, or the number of candidates
// when there is none. Indexes ascend, so a worker's position is never above its index. If all
// workers have credit, position and index are equal, and one look finds the worker.
inline size_t FirstFrom(std::span<const Candidate> candidates, uint32_t worker) {
  if (worker < candidates.size() && candidates[worker].worker == worker) return worker;
  const auto end =
      candidates.begin() + static_cast<ptrdiff_t>(std::min<size_t>(worker, candidates.size()));
  const auto first = std::lower_bound(
      candidates.begin(), end, worker,
      [](const Candidate& candidate, uint32_t index) { return candidate.worker < index; });
  return static_cast<size_t>(first - candidates.begin());
}

// The same, but goes on from the start when there is none.
inline size_t TurnFrom(std::span<const Candidate> candidates, uint32_t worker) {
  const size_t position = FirstFrom(candidates, worker);
  return position == candidates.size() ? 0 : position;
}

}  // namespace ringmaster

#endif  // RINGMASTER_SRC_POLICY_FIRST_FROM_H_
