// Thorough mixing of 64 bits, for policies that hash or draw.

#ifndef RINGMASTER_SRC_POLICY_MIX_H_
#define RINGMASTER_SRC_POLICY_MIX_H_

#include <cstdint>

namespace ringmaster {

// A bijection in which every bit of the result depends on every bit of `x`. It is two
// multiplications between shifts, with the constants of SplitMix64 (Steele, Lea and Flood, 2014).
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Odd, and without a pattern in its bits: the golden ratio. Its multiples never repeat.
inline constexpr uint64_t kMixStep = 0x9e3779b97f4a7c15;

}  // namespace ringmaster

#endif  // RINGMASTER_SRC_POLICY_MIX_H_
