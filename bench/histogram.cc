#include "bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace ringmaster::bench {
namespace {

constexpr uint32_t kValueBits = 64;

}  // namespace

// The values below 2^(kHalfBits + 1) take two halves, every further power of two one more.
Histogram::Histogram() : buckets_(size_t{kValueBits - kHalfBits + 1} << kHalfBits) {}

// A value is shifted right until kHalfBits + 1 significant bits are left. Then it lies in the upper
// half of its range, and the number of shifts tells which range.
size_t Histogram::BucketOf(uint64_t value) {
  const uint32_t width = static_cast<uint32_t>(std::bit_width(value));
  const uint32_t shift = width > kHalfBits + 1 ? width - (kHalfBits + 1) : 0;
  return (size_t{shift} << kHalfBits) + static_cast<size_t>(value >> shift);
}

uint64_t Histogram::HighestIn(size_t bucket) {
  constexpr size_t kWhole = size_t{1} << (kHalfBits + 1);
  if (bucket < kWhole) return bucket;
  const size_t shift = (bucket >> kHalfBits) - 1;
  const uint64_t significant = bucket - (shift << kHalfBits);
  // For the very last bucket the sum wraps round to 0, and the result is the largest value.
  return ((significant + 1) << shift) - 1;
}

void Histogram::Add(uint64_t value, uint64_t times) {
  if (times == 0) return;
  buckets_[BucketOf(value)] += times;
  count_ += times;
  min_ = std::min(min_, value);
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value) * static_cast<double>(times);
}

void Histogram::Merge(const Histogram& other) {
  for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

double Histogram::Mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

uint64_t Histogram::Quantile(double quantile) const {
  if (count_ == 0) return 0;
  const double wanted = std::ceil(std::clamp(quantile, 0.0, 1.0) * static_cast<double>(count_));
  const uint64_t rank = std::clamp<uint64_t>(static_cast<uint64_t>(wanted), 1, count_);
  uint64_t seen = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += buckets_[i];
    if (seen >= rank) return std::min(HighestIn(i), max_);
  }
  return max_;
}

}  // namespace ringmaster::bench
