// Counts durations by size, in constant memory and constant time, and answers quantiles.
//
// Log-linear: below 256 every value has a bucket of its own. Above, each power of two is divided
// into 128 buckets of equal width. So a quantile is at most 1/128 (0.8 %) above the truth, over the
// whole range of 64 bits. Minimum, maximum and mean are exact.
//
// Threads: none of its own; one thread at a time.

#ifndef RINGMASTER_BENCH_HISTOGRAM_H_
#define RINGMASTER_BENCH_HISTOGRAM_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace ringmaster::bench {

class Histogram {
 public:
  // The largest relative error of a quantile.
  static constexpr double kRelativeError = 1.0 / 128;

  Histogram();

  void Add(uint64_t value) { Add(value, 1); }
  void Add(uint64_t value, uint64_t times);

  // As if everything that was added to `other` had been added here.
  void Merge(const Histogram& other);

  uint64_t count() const { return count_; }
  // 0 when empty, as all the following are.
  uint64_t min() const { return count_ == 0 ? 0 : min_; }
  uint64_t max() const { return max_; }
  double Mean() const;

  // The smallest value that at least a part `quantile` (0 to 1) of all values does not exceed, to
  // kRelativeError upwards and never above max().
  uint64_t Quantile(double quantile) const;

 private:
  static constexpr uint32_t kHalfBits = 7;  // log2 of the buckets in one power of two

  static size_t BucketOf(uint64_t value);
  static uint64_t HighestIn(size_t bucket);

  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  uint64_t min_ = std::numeric_limits<uint64_t>::max();
  uint64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_HISTOGRAM_H_
