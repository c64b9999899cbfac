// Against distributions whose quantiles are known. The values are the inverse of the distribution
// function at evenly spaced points, so nothing here is left to chance.

#include "bench/histogram.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace ringmaster::bench {
namespace {

constexpr int kValues = 100'000;
constexpr double kQuantiles[] = {0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999};

template <typename Inverse>
Histogram Fill(Inverse inverse) {
  Histogram histogram;
  for (int i = 0; i < kValues; ++i) {
    histogram.Add(static_cast<uint64_t>(inverse((i + 0.5) / kValues)));
  }
  return histogram;
}

// Upwards as far as a bucket is wide; downwards only as far as evenly spaced points and whole
// numbers are from the distribution.
template <typename Inverse>
void ExpectQuantiles(const Histogram& histogram, Inverse inverse) {
  for (const double quantile : kQuantiles) {
    const double low = inverse(quantile - 0.5 / kValues) - 1;
    const double high = inverse(quantile + 0.5 / kValues) * (1 + Histogram::kRelativeError) + 1;
    EXPECT_GE(static_cast<double>(histogram.Quantile(quantile)), low) << quantile;
    EXPECT_LE(static_cast<double>(histogram.Quantile(quantile)), high) << quantile;
  }
}

TEST(Histogram, FindsTheQuantilesOfAUniformDistribution) {
  const auto inverse = [](double p) { return p * 3e7; };
  ExpectQuantiles(Fill(inverse), inverse);
}

TEST(Histogram, FindsTheQuantilesOfAnExponentialDistribution) {
  const auto inverse = [](double p) { return -250'000 * std::log1p(-p); };
  ExpectQuantiles(Fill(inverse), inverse);
}

// Nine powers of ten in one histogram.
TEST(Histogram, FindsTheQuantilesOfAWideDistribution) {
  const auto inverse = [](double p) { return std::pow(10, 2 + 9 * p); };
  ExpectQuantiles(Fill(inverse), inverse);
}

TEST(Histogram, KeepsSmallValuesExactly) {
  Histogram histogram;
  for (uint64_t value = 0; value < 256; ++value) histogram.Add(value);
  for (uint64_t rank = 1; rank <= 256; ++rank) {
    EXPECT_EQ(histogram.Quantile(static_cast<double>(rank) / 256), rank - 1);
  }
}

TEST(Histogram, NeverUnderstatesAndNeverOverstatesByMoreThanItSays) {
  for (int bit = 0; bit < 64; ++bit) {
    for (const uint64_t below : {uint64_t{0}, (uint64_t{1} << bit) / 3, (uint64_t{1} << bit) - 1}) {
      const uint64_t value = (uint64_t{1} << bit) + below;
      Histogram histogram;
      histogram.Add(value);
      histogram.Add(std::numeric_limits<uint64_t>::max());  // else the maximum caps the answer
      EXPECT_GE(histogram.Quantile(0.5), value);
      EXPECT_LE(histogram.Quantile(0.5) - value,
                static_cast<uint64_t>(static_cast<double>(value) * Histogram::kRelativeError));
    }
  }
}

TEST(Histogram, KeepsTheMaximumExactly) {
  Histogram histogram;
  histogram.Add(1'000'003);
  histogram.Add(999);
  EXPECT_EQ(histogram.max(), 1'000'003u);
  EXPECT_EQ(histogram.min(), 999u);
  EXPECT_EQ(histogram.Quantile(1), 1'000'003u);
}

TEST(Histogram, KeepsTheMeanExactly) {
  Histogram histogram;
  histogram.Add(1'000'001, 3);
  histogram.Add(5);
  EXPECT_DOUBLE_EQ(histogram.Mean(), (3 * 1'000'001.0 + 5) / 4);
}

TEST(Histogram, CountsAValueAsOftenAsItIsSaid) {
  Histogram many;
  many.Add(10, 99);
  many.Add(1000, 1);
  EXPECT_EQ(many.count(), 100u);
  EXPECT_EQ(many.Quantile(0.99), 10u);
  EXPECT_GE(many.Quantile(0.991), 1000u);
}

TEST(Histogram, DoesNotChangeWhenAValueIsAddedZeroTimes) {
  Histogram histogram;
  histogram.Add(7);
  histogram.Add(1'000'000, 0);
  EXPECT_EQ(histogram.max(), 7u);
  EXPECT_EQ(histogram.count(), 1u);
}

TEST(Histogram, MergesAsIfAllHadBeenAddedToOne) {
  Histogram odd, even, all;
  for (uint64_t value = 1; value < 100'000; value += 7) {
    (value % 2 == 0 ? even : odd).Add(value);
    all.Add(value);
  }
  odd.Merge(even);
  EXPECT_EQ(odd.count(), all.count());
  EXPECT_EQ(odd.min(), all.min());
  EXPECT_EQ(odd.max(), all.max());
  EXPECT_DOUBLE_EQ(odd.Mean(), all.Mean());
  for (const double quantile : kQuantiles) {
    EXPECT_EQ(odd.Quantile(quantile), all.Quantile(quantile));
  }
}

TEST(Histogram, StaysTheSameWhenAnEmptyOneIsMerged) {
  Histogram histogram;
  histogram.Add(40);
  histogram.Merge(Histogram());
  EXPECT_EQ(histogram.min(), 40u);
  EXPECT_EQ(histogram.max(), 40u);
  EXPECT_EQ(histogram.count(), 1u);
}

TEST(Histogram, AnswersZeroWhenItIsEmpty) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.min(), 0u);
  EXPECT_EQ(histogram.max(), 0u);
  EXPECT_EQ(histogram.Quantile(0.5), 0u);
  EXPECT_EQ(histogram.Mean(), 0);
}

}  // namespace
}  // namespace ringmaster::bench
