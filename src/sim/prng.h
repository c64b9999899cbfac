// The simulator's only source of chance: xoshiro256**, seeded by splitmix64 (both by Blackman and
// Vigna, in the public domain). The same seed gives the same numbers with every compiler and
// library, which the distributions of <random> do not promise; hence integers only.

#ifndef RINGMASTER_SRC_SIM_PRNG_H_
#define RINGMASTER_SRC_SIM_PRNG_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ringmaster::sim {

// "n times out of `of`"; never when n is 0.
struct Ratio {
  uint32_t n = 0;
  uint32_t of = 1;
};

class Prng {
 public:
  explicit Prng(uint64_t seed) {
    for (uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15;
      uint64_t mixed = seed;
      mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
      mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
      word = mixed ^ (mixed >> 31);
    }
  }

  uint64_t Next() {
    const uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = std::rotl(state_[3], 45);
    return result;
  }

  // 0 to bound - 1; the bias of the remainder does not matter here. `bound` is at least 1.
  uint64_t Below(uint64_t bound) { return (Next() >> 11) % bound; }

  // Both ends included.
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Below(static_cast<uint64_t>(high - low) + 1));
  }

  bool Chance(Ratio ratio) { return ratio.n > 0 && Below(ratio.of) < ratio.n; }

  // About exponentially distributed: -log2 of a uniform number, its fraction interpolated linearly,
  // times ln 2. At most 64 times the mean.
  int64_t Exponential(int64_t mean) {
    const uint64_t bits = Next() | 1;
    const auto whole = static_cast<int64_t>(std::countl_zero(bits));
    const auto fraction = static_cast<int64_t>((bits << whole) >> 54) - 512;  // 0 to 511
    const int64_t in_512ths = whole * 512 + (511 - fraction);
    return mean * in_512ths / 512 * 693 / 1000;
  }

  // One of the values of a table.
  template <typename T, size_t size>
  T OneOf(const std::array<T, size>& table) {
    return table[Below(size)];
  }

 private:
  std::array<uint64_t, 4> state_;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_PRNG_H_
