// Chance that is the same everywhere: the standard library's distributions give different values in
// different implementations, so a printed seed would not replay a run. SplitMix64 (Steele, Lea and
// Flood, 2014), which passes the usual test batteries and is three lines.

#ifndef RINGMASTER_BENCH_RANDOM_H_
#define RINGMASTER_BENCH_RANDOM_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ringmaster::bench {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // From 0 inclusive to 1 exclusive.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

  // Exponentially distributed.
  double Exponential(double mean) { return -mean * std::log1p(-Uniform()); }

  // Each order is equally likely (Fisher and Yates); the bias of the modulus is below 2^-40 for any
  // vector that fits into memory here.
  template <typename T>
  void Shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[Next() % i]);
  }

 private:
  uint64_t state_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_RANDOM_H_
