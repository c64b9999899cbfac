// The pass over the candidates that most policies make.

#ifndef RINGMASTER_SRC_POLICY_SMALLEST_KEY_H_
#define RINGMASTER_SRC_POLICY_SMALLEST_KEY_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "ringmaster/policy.h"

namespace ringmaster {

// Position of the candidate with the smallest `key_of(candidate)`; the first of several. There are
// no branches, because which key is smaller is as good as random to a branch predictor. There are
// two chains of comparisons, because in a single chain each comparison waits for the one before it.
// Four chains would need more registers than there are beside a key that takes work to compute.
template <typename KeyOf>
size_t SmallestKey(std::span<const Candidate> candidates, KeyOf key_of) {
  struct Best {
    uint64_t key = std::numeric_limits<uint64_t>::max();
    size_t position = 0;

    void Offer(uint64_t other_key, size_t other) {
      const bool better = other_key < key;
      key = better ? other_key : key;
      position = better ? other : position;
    }
    void Offer(const Best& other) {
      if (other.key == key && other.position > position) return;
      if (other.key <= key) *this = other;
    }
  };
  Best first, second;
  size_t i = 0;
  for (; i + 2 <= candidates.size(); i += 2) {
    first.Offer(key_of(candidates[i]), i);
    second.Offer(key_of(candidates[i + 1]), i + 1);
  }
  for (; i < candidates.size(); ++i) first.Offer(key_of(candidates[i]), i);
  first.Offer(second);
  return first.position;
}

}  // namespace ringmaster

#endif  // RINGMASTER_SRC_POLICY_SMALLEST_KEY_H_
