// Chance from a seed: the same stream for the same seed on every machine.

#ifndef RINGMASTER_TESTS_ATTACK_RANDOM_H_
#define RINGMASTER_TESTS_ATTACK_RANDOM_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "support/split_mix.h"

namespace ringmaster::attack {

// One stream of draws. For one thread at a time.
class Random {
 public:
  explicit Random(uint64_t seed, uint64_t stream = 0)
      : bits_(seed * testing::SplitMix::kStep + stream * 0xd1342543de82ef95) {}

  uint64_t Next() { return bits_.Next(); }
  // 0 to bound - 1.
  uint32_t Below(size_t bound) { return static_cast<uint32_t>((Next() >> 32) * bound >> 32); }
  uint32_t Between(uint32_t least, uint32_t most) { return least + Below(most - least + 1); }
  bool OneIn(uint32_t n) { return Below(n) == 0; }
  template <class T>
  T Of(std::initializer_list<T> values) {
    return values.begin()[Below(values.size())];
  }

 private:
  testing::SplitMix bits_;
};

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_RANDOM_H_
