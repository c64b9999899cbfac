#include "bench/result.h"

#include <gtest/gtest.h>

#include <vector>

#include "bench/format.h"

namespace ringmaster::bench {
namespace {

RunResult MadeRun(double jain, Figure p99_us, std::vector<double> shares) {
  RunResult run;
  run.figures.jain = jain;
  run.figures.p99_us = p99_us;
  run.shares = std::move(shares);
  return run;
}

TEST(JainIndex, IsOneWhenAllHaveTheSameAndOneNthWhenOneHasAll) {
  EXPECT_DOUBLE_EQ(JainIndex(std::vector<double>{5, 5, 5, 5}), 1);
  EXPECT_DOUBLE_EQ(JainIndex(std::vector<double>{8, 0, 0, 0}), 0.25);
  EXPECT_DOUBLE_EQ(JainIndex(std::vector<double>{3, 1}), 0.8);
  EXPECT_DOUBLE_EQ(JainIndex(std::vector<double>{0, 0}), 1);
}

TEST(MaxOverMean, SaysHowMuchTheBusiestHas) {
  EXPECT_DOUBLE_EQ(MaxOverMean(std::vector<double>{8, 0, 0, 0}), 4);
  EXPECT_DOUBLE_EQ(MaxOverMean(std::vector<double>{2, 2}), 1);
  EXPECT_DOUBLE_EQ(MaxOverMean(std::vector<double>{0, 0}), 1);
}

TEST(Summarize, TakesTheMedianAndTheExtremesOfEachFigure) {
  const std::vector<RunResult> runs = {MadeRun(0.5, 30, {}), MadeRun(0.7, 10, {}),
                                       MadeRun(0.6, 20, {})};
  const Result result = Summarize(runs);
  EXPECT_EQ(result.repetitions, 3u);
  EXPECT_EQ(result.median.jain, 0.6);
  EXPECT_EQ(result.median.p99_us, 20);
  EXPECT_EQ(result.low.p99_us, 10);
  EXPECT_EQ(result.high.p99_us, 30);
  EXPECT_FALSE(result.median.recalled.has_value());
}

TEST(Summarize, TakesTheMeanOfTheTwoInTheMiddle) {
  const std::vector<RunResult> runs = {MadeRun(1, 10, {}), MadeRun(1, 40, {}), MadeRun(1, 20, {}),
                                       MadeRun(1, 30, {})};
  EXPECT_EQ(Summarize(runs).median.p99_us, 25);
}

TEST(Summarize, QuotesNothingThatIsMissingInHalfTheRepetitions) {
  const std::vector<RunResult> half = {MadeRun(1, 10, {}), MadeRun(1, {}, {})};
  EXPECT_FALSE(Summarize(half).median.p99_us.has_value());
  const std::vector<RunResult> most = {MadeRun(1, 10, {}), MadeRun(1, {}, {}), MadeRun(1, 20, {})};
  EXPECT_EQ(Summarize(most).median.p99_us, 15);
}

// Each repetition favours another worker. Their mean would be even, and a lie.
TEST(Summarize, ShowsTheSharesOfTheRepetitionWithTheMedianIndex) {
  const std::vector<RunResult> runs = {MadeRun(0.9, {}, {0.6, 0.4}), MadeRun(0.5, {}, {0, 1}),
                                       MadeRun(0.6, {}, {0.95, 0.05})};
  EXPECT_EQ(Summarize(runs).shares, (std::vector<double>{0.95, 0.05}));
}

TEST(Format, WritesDurationsWithThreeDigitsAndTheUnitThatSuits) {
  EXPECT_EQ(FormatUs(0), "0.00 µs");
  EXPECT_EQ(FormatUs(9.994), "9.99 µs");
  EXPECT_EQ(FormatUs(9.996), "10.0 µs");
  EXPECT_EQ(FormatUs(88.12), "88.1 µs");
  EXPECT_EQ(FormatUs(999.4), "999 µs");
  EXPECT_EQ(FormatUs(999.6), "1.00 ms");
  EXPECT_EQ(FormatUs(20'400), "20.4 ms");
  EXPECT_EQ(FormatUs(2e6), "2.00 s");
}

TEST(Format, WritesCountsWithCommas) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999.4), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567.5), "1,234,568");
  EXPECT_EQ(FormatCount(-1234), "-1,234");
}

TEST(Format, WritesTheRest) {
  EXPECT_EQ(FormatShare(0.254), "25 %");
  EXPECT_EQ(FormatMinutes(65'400'000'000), "1:05");
  EXPECT_EQ(FormatFigure(Figure(), FormatUs), "–");
}

}  // namespace
}  // namespace ringmaster::bench
