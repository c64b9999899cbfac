#include "bench/result.h"

#include <gtest/gtest.h>

#include <vector>

namespace ringmaster::bench {
namespace {

RunResult MadeRun(double jain, Figure p99_us, std::vector<double> shares) {
  RunResult run;
  run.figures.jain = jain;
  run.figures.p99_us = p99_us;
  run.shares = std::move(shares);
  return run;
}

// The result of one mechanism with nothing to compare it with.
Result SummarizeOne(std::vector<RunResult> runs) {
  const std::vector<Series> all = {{.mechanism = "only", .runs = std::move(runs)}};
  return Summarize(all).front();
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
  const Result result = SummarizeOne(runs);
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
  EXPECT_EQ(SummarizeOne(runs).median.p99_us, 25);
}

TEST(Summarize, QuotesNothingThatIsMissingInHalfTheRepetitions) {
  const std::vector<RunResult> half = {MadeRun(1, 10, {}), MadeRun(1, {}, {})};
  EXPECT_FALSE(SummarizeOne(half).median.p99_us.has_value());
  const std::vector<RunResult> most = {MadeRun(1, 10, {}), MadeRun(1, {}, {}), MadeRun(1, 20, {})};
  EXPECT_EQ(SummarizeOne(most).median.p99_us, 20);
}

TEST(Summarize, CountsAPercentileThatIsMissingAsLongerThanAny) {
  std::vector<RunResult> runs = {MadeRun(1, 40, {}), MadeRun(1, {}, {}), MadeRun(1, 10, {}),
                                 MadeRun(1, 20, {}), MadeRun(1, 30, {})};
  runs[1].figures.offered_per_second = 2000;
  const Result result = SummarizeOne(runs);
  EXPECT_EQ(result.median.p99_us, 30) << "25 is the median of those that kept up";
  EXPECT_EQ(result.low.p99_us, 10);
  EXPECT_EQ(result.high.p99_us, 40);
  EXPECT_EQ(result.fell_behind_count, 1u);
  // Of other figures, those that are there are summed up.
  runs[0].figures.jain = {};
  EXPECT_EQ(SummarizeOne(runs).median.jain, 1);
}

// Each repetition favours another worker. Their mean would be even, and a lie.
TEST(Summarize, ShowsTheSharesOfTheRepetitionWithTheMedianIndex) {
  const std::vector<RunResult> runs = {MadeRun(0.9, {}, {0.6, 0.4}), MadeRun(0.5, {}, {0, 1}),
                                       MadeRun(0.6, {}, {0.95, 0.05})};
  EXPECT_EQ(SummarizeOne(runs).shares, (std::vector<double>{0.95, 0.05}));
}

Series MadeSeries(const std::string& mechanism, std::vector<double> p99_us) {
  Series series{.mechanism = mechanism, .workload = "light", .transport = "tcp"};
  for (const double value : p99_us) series.runs.push_back(MadeRun(1, value, {}));
  return series;
}

// The machine became ten times slower in the second repetition. The ratio of the medians, 20 / 20,
// would call the two equal; pair by pair the one takes twice the time of the other.
TEST(Summarize, ComparesRepetitionsThatRanSideBySide) {
  const std::vector<Series> all = {MadeSeries(kReference, {10, 100, 20}),
                                   MadeSeries("other", {20, 220, 20})};
  const std::vector<Result> results = Summarize(all);
  EXPECT_EQ(results[1].ratio.p99_us, 2);
  EXPECT_EQ(results[1].ratio_low.p99_us, 1);
  EXPECT_EQ(results[1].ratio_high.p99_us, 2.2);
  EXPECT_EQ(results[0].ratio.p99_us, 1);
}

TEST(Summarize, CountsAPairOfWhichOneSideFellBehindBeyondAnyRatio) {
  const auto ratio = [](const std::vector<Series>& all) { return Summarize(all)[1].ratio.p99_us; };
  std::vector<Series> all = {MadeSeries(kReference, {10, 10, 10}),
                             MadeSeries("other", {10, 20, 30})};
  all[1].runs[0].figures.p99_us = {};
  EXPECT_EQ(ratio(all), 3);
  EXPECT_EQ(Summarize(all)[1].ratio_high.p99_us, 3);
  all[0].runs[1].figures.p99_us = {};
  EXPECT_EQ(ratio(all), 3) << "the one side fell behind in the first, the other in the second";
  all[0].runs[2].figures.p99_us = {};
  EXPECT_FALSE(ratio(all).has_value());
}

TEST(Summarize, ComparesWithinAWorkloadAndATransportOnly) {
  std::vector<Series> all = {MadeSeries(kReference, {10}), MadeSeries("other", {20})};
  all[0].workload = "saturated";
  EXPECT_FALSE(Summarize(all)[1].ratio.p99_us.has_value());
  all[0].workload = all[1].workload;
  all[0].transport = "unix";
  EXPECT_FALSE(Summarize(all)[1].ratio.p99_us.has_value());
}

TEST(Summarize, HasNoRatioToNothing) {
  std::vector<Series> all = {MadeSeries(kReference, {0, 0, 5}), MadeSeries("other", {1, 2, 5})};
  EXPECT_FALSE(Summarize(all)[1].ratio.p99_us.has_value());
  all[0].runs.clear();
  EXPECT_FALSE(Summarize(all)[1].ratio.p99_us.has_value());
}

TEST(Summarize, KeepsTheReasonOfWhatCannotRunHere) {
  const std::vector<Series> all = {{.mechanism = "reuseport-ebpf", .skipped = "bpf: EPERM"}};
  const Result result = Summarize(all).front();
  EXPECT_EQ(result.skipped, "bpf: EPERM");
  EXPECT_EQ(result.repetitions, 0u);
  EXPECT_FALSE(result.median.p99_us.has_value());
}

TEST(Summarize, SaysThatTheGeneratorWasTheBottleneckInHalfTheRepetitions) {
  std::vector<RunResult> runs(3);
  runs[0].generator_limited = true;
  EXPECT_FALSE(SummarizeOne(runs).generator_limited());
  runs[1].generator_limited = true;
  EXPECT_TRUE(SummarizeOne(runs).generator_limited());
  EXPECT_FALSE(SummarizeOne({}).generator_limited());
}

}  // namespace
}  // namespace ringmaster::bench
