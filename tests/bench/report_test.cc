// Reports of made-up figures, so that what they say is known beforehand.

#include "bench/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/claims.h"
#include "bench/html_report.h"
#include "bench/result.h"

namespace ringmaster::bench {
namespace {

// Every repetition gave the same.
Result Made(const std::string& mechanism, const std::string& workload, double rate, double p50_us,
            std::vector<double> shares) {
  Result result;
  result.mechanism = mechanism;
  result.workload = workload;
  result.transport = "tcp";
  result.workers = static_cast<uint32_t>(shares.size());
  result.repetitions = 5;
  result.median.connections_per_second = rate;
  result.median.p50_us = p50_us;
  result.median.p99_us = 2 * p50_us;
  result.median.p999_us = 4 * p50_us;
  result.median.max_us = 5 * p50_us;
  result.median.jain = JainIndex(shares);
  result.median.max_over_mean = MaxOverMean(shares);
  result.median.generator_cpu_share = 0.5;
  result.median.lost = 0;
  result.low = result.median;
  result.high = result.median;
  result.shares = std::move(shares);
  return result;
}

Report MadeReport() {
  Report report;
  report.context = {.program = "ringmaster-bench 0.1.0",
                    .date = "2026-11-23 12:00 UTC",
                    .kernel = "6.18.44",
                    .cpus = 2,
                    .liburing = "2.3",
                    .command = "ringmaster-bench demo --seed 42",
                    .seed = 42,
                    .seconds = 1.2,
                    .warm_up_seconds = 0.25};
  report.workloads = {{.name = "light",
                       .title = "Even, light load",
                       .description = "Few clients.",
                       .question = Question::kShare},
                      {.name = "saturated",
                       .title = "Full load",
                       .description = "Many clients.",
                       .question = Question::kThroughput},
                      {.name = "slow-worker",
                       .title = "One slow worker",
                       .description = "Sleeps.",
                       .question = Question::kTail,
                       .open_loop = true,
                       .slow_workers = {0}}};
  const std::vector<double> skewed = {0.7, 0.2, 0.1, 0};
  const std::vector<double> even = {0.25, 0.25, 0.25, 0.25};
  report.results = {
      Made("epoll-exclusive", "light", 3500, 60, skewed),
      Made("ringmaster:least-loaded", "light", 3400, 90, even),
      Made("epoll-exclusive", "saturated", 40'000, 900, skewed),
      Made("ringmaster:least-loaded", "saturated", 44'000, 900, even),
      Made("epoll-exclusive", "slow-worker", 2000, 10'000, skewed),
      Made("ringmaster:least-loaded", "slow-worker", 2000, 10'000, even),
  };
  report.results[1].median.recalled = 3;
  return report;
}

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Claims, SayWhatIsBetterWhatIsWorseAndWhatIsEven) {
  const std::vector<Claim> claims = ClaimsOf(MadeReport());
  ASSERT_EQ(claims.size(), 5u);
  EXPECT_EQ(claims[0].verdict, Verdict::kBetter);
  EXPECT_TRUE(Contains(claims[0].text, "25 %")) << claims[0].text;
  EXPECT_TRUE(Contains(claims[0].text, "70 %")) << claims[0].text;
  EXPECT_EQ(claims[1].verdict, Verdict::kWorse);
  EXPECT_TRUE(Contains(claims[1].text, "90.0 µs with ringmaster:least-loaded")) << claims[1].text;
  EXPECT_TRUE(Contains(claims[1].text, "60.0 µs with epoll-exclusive")) << claims[1].text;
  EXPECT_EQ(claims[2].verdict, Verdict::kBetter);
  EXPECT_TRUE(Contains(claims[2].text, "(+10 %)")) << claims[2].text;
  EXPECT_EQ(claims[3].verdict, Verdict::kEven);
  EXPECT_EQ(claims[4].verdict, Verdict::kEven);
}

TEST(Claims, TurnRoundWhenTheFiguresDo) {
  Report report = MadeReport();
  for (size_t i = 0; i < report.results.size(); i += 2) {
    std::swap(report.results[i].mechanism, report.results[i + 1].mechanism);
  }
  const std::vector<Claim> claims = ClaimsOf(report);
  ASSERT_EQ(claims.size(), 5u);
  EXPECT_EQ(claims[0].verdict, Verdict::kWorse);
  EXPECT_EQ(claims[1].verdict, Verdict::kBetter);
  EXPECT_EQ(claims[2].verdict, Verdict::kWorse);
  EXPECT_TRUE(Contains(claims[2].text, "(−9 %)")) << claims[2].text;
  EXPECT_TRUE(Contains(HeadlineOf(report),
                       "epoll-exclusive gave the busiest of 4 workers 25 % of the connections, "
                       "ringmaster:least-loaded 70 %"))
      << HeadlineOf(report);
}

TEST(Claims, DecideNothingThatTheRepetitionsCannotTellApart) {
  Report report = MadeReport();
  report.results[3].low.connections_per_second = 39'999;
  EXPECT_EQ(ClaimsOf(report)[2].verdict, Verdict::kEven);
}

TEST(Claims, SayWhoDoesNotKeepUpAndWhoLosesConnections) {
  Report report = MadeReport();
  Result& ours = report.results[5];
  ours.median.p50_us = ours.median.p99_us = ours.median.p999_us = {};
  ours.median.connections_per_second = 1200;
  ours.median.offered_per_second = 2000;
  ours.high.lost = ours.low.lost = ours.median.lost = 17;
  const std::vector<Claim> claims = ClaimsOf(report);
  ASSERT_EQ(claims.size(), 5u);
  EXPECT_EQ(claims[3].verdict, Verdict::kWorse);
  EXPECT_TRUE(Contains(claims[3].text, "1,200 of 2,000")) << claims[3].text;
  EXPECT_EQ(claims[4].verdict, Verdict::kWorse);
  EXPECT_TRUE(Contains(claims[4].text, "17")) << claims[4].text;
}

TEST(Claims, CompareTheDefaultPolicyNotTheLuckiest) {
  Report report = MadeReport();
  report.results.insert(report.results.begin(),
                        Made("ringmaster:exclusive", "light", 9999, 1, {0.25, 0.25, 0.25, 0.25}));
  EXPECT_EQ(SidesOf(report).ours, "ringmaster:least-loaded");
  EXPECT_EQ(SidesOf(report).rival, "epoll-exclusive");
}

TEST(Claims, AreNoneWhenThereIsNothingToCompare) {
  Report report = MadeReport();
  std::erase_if(report.results, [](const Result& r) { return r.mechanism == "epoll-exclusive"; });
  EXPECT_TRUE(ClaimsOf(report).empty());
  EXPECT_FALSE(HeadlineOf(report).empty());
}

TEST(JsonReport, HasTheFieldsOfItsSchema) {
  const auto json = nlohmann::json::parse(JsonReport(MadeReport()));
  EXPECT_EQ(json.at("schema_version"), 1);
  const auto& context = json.at("context");
  EXPECT_EQ(context.at("kernel"), "6.18.44");
  EXPECT_EQ(context.at("cpus"), 2);
  EXPECT_EQ(context.at("liburing"), "2.3");
  EXPECT_EQ(context.at("seed"), 42);
  EXPECT_EQ(context.at("command"), "ringmaster-bench demo --seed 42");
  ASSERT_EQ(json.at("results").size(), 6u);
  const auto& result = json.at("results").at(1);
  EXPECT_EQ(result.at("mechanism"), "ringmaster:least-loaded");
  EXPECT_EQ(result.at("workload"), "light");
  EXPECT_EQ(result.at("transport"), "tcp");
  EXPECT_EQ(result.at("workers"), 4);
  EXPECT_EQ(result.at("repetitions"), 5);
  for (const char* figure : {"connections_per_second", "p50_us", "p99_us", "p999_us", "max_us",
                             "jain", "max_over_mean", "generator_cpu_share", "recalled", "lost"}) {
    EXPECT_TRUE(result.at("median").at(figure).is_number()) << figure;
    EXPECT_TRUE(result.at("spread").contains(figure)) << figure;
  }
  EXPECT_EQ(result.at("median").at("p99_us"), 180);
  EXPECT_EQ(result.at("spread").at("p99_us"), nlohmann::json::array({180, 180}));
  EXPECT_EQ(result.at("shares"), nlohmann::json::array({0.25, 0.25, 0.25, 0.25}));
}

TEST(JsonReport, WritesNullForWhatIsMissing) {
  const auto json = nlohmann::json::parse(JsonReport(MadeReport()));
  EXPECT_TRUE(json.at("results").at(0).at("median").at("recalled").is_null());
  EXPECT_TRUE(json.at("results").at(0).at("spread").at("recalled").is_null());
}

TEST(HtmlReport, LoadsAndRunsNothing) {
  const std::string html = HtmlReport(MadeReport());
  for (const char* part : {"http://", "https://", "//cdn", " src=", " href=", "srcset", "@import",
                           "<script", "<link", "<iframe", "<img", "url(", "onload", "onclick"}) {
    EXPECT_FALSE(Contains(html, part)) << part;
  }
  EXPECT_TRUE(Contains(html, "default-src 'none'"));
}

TEST(HtmlReport, IsForLightForDarkAndForPaper) {
  const std::string html = HtmlReport(MadeReport());
  EXPECT_TRUE(Contains(html, "prefers-color-scheme:dark"));
  EXPECT_TRUE(Contains(html, "@media print"));
}

TEST(HtmlReport, ShowsEveryMechanismUnderEveryWorkloadAndTheCommandThatRepeatsIt) {
  const Report report = MadeReport();
  const std::string html = HtmlReport(report);
  for (const WorkloadText& workload : report.workloads) {
    EXPECT_TRUE(Contains(html, workload.title));
    EXPECT_TRUE(Contains(html, workload.description));
  }
  size_t rows = 0;
  for (size_t at = 0; (at = html.find("<th scope=\"row\">", at)) != std::string::npos; ++at) ++rows;
  EXPECT_EQ(rows, report.results.size());
  EXPECT_TRUE(Contains(html, report.context.command));
  EXPECT_TRUE(Contains(html, report.context.kernel));
  EXPECT_TRUE(Contains(html, "worker 0, the slow one"));
}

TEST(HtmlReport, ShowsLosingCasesAsTheyAre) {
  EXPECT_TRUE(Contains(HtmlReport(MadeReport()), "▼ worse"));
}

TEST(HtmlReport, HasNoNumberThatIsNone) {
  Report report = MadeReport();
  for (Result& result : report.results) {
    result.median.p50_us = result.median.p99_us = result.median.p999_us = {};
    result.low = result.high = {};
    result.shares = {0, 0, 0, 0};
  }
  const std::string html = HtmlReport(report);
  EXPECT_FALSE(Contains(html, "nan"));
  EXPECT_FALSE(Contains(html, "\"inf"));
  EXPECT_TRUE(Contains(html, "No latency that could be quoted."));
}

TEST(HtmlReport, EscapesWhatItIsGiven) {
  Report report = MadeReport();
  report.context.command = "a <b> & \"c\"";
  EXPECT_TRUE(Contains(HtmlReport(report), "a &lt;b&gt; &amp; &quot;c&quot;"));
}

TEST(TerminalReport, ShowsSharesIndexRateAndPercentiles) {
  const std::string text = TerminalReport(MadeReport(), {.columns = 120});
  for (const char* part :
       {"ringmaster:least-loaded", "70 20 10  0 %", "25 25 25 25 %", "1.00", "44,000", "60.0 µs",
        "120 µs", "240 µs", "Worker 0 is the slow one", "Open loop", "Closed loop"}) {
    EXPECT_TRUE(Contains(text, part)) << part << "\n" << text;
  }
}

TEST(TerminalReport, HasNoEscapeSequencesWithoutColours) {
  EXPECT_FALSE(Contains(TerminalReport(MadeReport(), {.colours = false}), "\033"));
  EXPECT_TRUE(Contains(TerminalReport(MadeReport(), {.colours = true}), "\033[1m"));
}

TEST(TerminalReport, IsPlainAsciiWhereNothingElseCanBeShown) {
  const std::string text = TerminalReport(MadeReport(), {.utf8 = false});
  const bool ascii = std::all_of(text.begin(), text.end(),
                                 [](char c) { return static_cast<signed char>(c) >= 0; });
  EXPECT_TRUE(ascii) << text;
}

TEST(TerminalReport, WarnsOfAMachineThatWasBusyAlready) {
  Report report = MadeReport();
  report.context.load_before = 1;
  EXPECT_FALSE(Contains(TerminalReport(report, {}), "busy "));
  EXPECT_FALSE(Contains(HtmlReport(report), "busy "));
  report.context.load_before = 1.1;
  EXPECT_TRUE(Contains(TerminalReport(report, {}), "busy "));
  EXPECT_TRUE(Contains(HtmlReport(report), "busy "));
}

TEST(TerminalReport, KeepsWithinItsColumns) {
  Report report = MadeReport();
  report.context.load_before = 9;
  for (const int columns : {90, 100, 120}) {
    const std::string text = TerminalReport(report, {.utf8 = false, .columns = columns});
    size_t longest = 0;
    for (size_t at = 0, end = 0; end != std::string::npos; at = end + 1) {
      end = text.find('\n', at);
      longest = std::max(longest, (end == std::string::npos ? text.size() : end) - at);
    }
    EXPECT_LE(longest, static_cast<size_t>(columns)) << text;
  }
}

}  // namespace
}  // namespace ringmaster::bench
