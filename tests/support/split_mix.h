// What the random tests draw from.

#ifndef RINGMASTER_TESTS_SUPPORT_SPLIT_MIX_H_
#define RINGMASTER_TESTS_SUPPORT_SPLIT_MIX_H_

#include <cstdint>

namespace ringmaster::testing {

// SplitMix64 (Steele, Lea and Flood, 2014). It gives the same numbers for the same seed on every
// machine, which the distributions of the standard library do not promise. For one thread at a
// time.
class SplitMix {
 public:
  explicit SplitMix(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += kStep);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15;

 private:
  uint64_t state_;
};

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_SUPPORT_SPLIT_MIX_H_
