// Reports of made-up figures, so that what they say is known beforehand.

#include "bench/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/claims.h"
#include "bench/html_report.h"
#include "bench/measures.h"
#include "bench/result.h"

namespace ringmaster::bench {
namespace {

constexpr int kRepetitions = 9;

// Every repetition gave the same.
Series Made(const std::string& mechanism, const std::string& workload, double rate, double p50_us,
            std::vector<double> shares) {
  RunResult run;
  run.figures.connections_per_second = rate;
  run.figures.p50_us = p50_us;
  run.figures.p99_us = 2 * p50_us;
  run.figures.p999_us = 4 * p50_us;
  run.figures.max_us = 5 * p50_us;
  run.figures.jain = JainIndex(shares);
  run.figures.max_over_mean = MaxOverMean(shares);
  run.figures.worker_wakes_per_connection = 0.9;
  run.figures.empty_wakes_per_connection = 0.1;
  run.figures.doorbells_per_connection = 0.25;
  run.figures.context_switches_per_connection = 1.5;
  run.figures.system_calls_per_connection = 6.5;
  run.figures.cpu_us_per_connection = 17.4;
  run.figures.generator_cpu_share = 0.5;
  run.figures.lost = 0;
  run.shares = shares;
  return {.mechanism = mechanism,
          .workload = workload,
          .transport = "tcp",
          .workers = static_cast<uint32_t>(shares.size()),
          .seconds = 1.2,
          .runs = std::vector<RunResult>(kRepetitions, run)};
}

std::vector<Series> MadeSeries() {
  const std::vector<double> skewed = {0.7, 0.2, 0.1, 0};
  const std::vector<double> even = {0.25, 0.25, 0.25, 0.25};
  std::vector<Series> all = {
      Made("epoll-exclusive", "light", 3500, 60, skewed),
      Made("ringmaster:least-loaded", "light", 3400, 90, even),
      Made("epoll-exclusive", "saturated", 40'000, 900, skewed),
      Made("ringmaster:least-loaded", "saturated", 44'000, 900, even),
      Made("epoll-exclusive", "slow-worker", 2000, 10'000, skewed),
      Made("ringmaster:least-loaded", "slow-worker", 2000, 10'000, even),
  };
  for (RunResult& run : all[1].runs) run.figures.recalled = 3;
  return all;
}

Report MadeReport(const std::vector<Series>& all = MadeSeries()) {
  Report report;
  report.context = {.program = "ringmaster-bench 0.1.0",
                    .date = "2026-11-23 12:00 UTC",
                    .kernel = "6.18.44",
                    .cpus = 2,
                    .cpu_model = "A CPU",
                    .governor = "performance",
                    .mitigations = "meltdown: PTI; 3 not affected",
                    .liburing = "2.3",
                    .ring_flags = "SINGLE_ISSUER",
                    .compiler = "gcc 12.2.0",
                    .build_flags = "-O2 -g",
                    .commit = "0123456789ab",
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
  report.mechanisms = {{"epoll-exclusive", "the kernel's way"},
                       {"ringmaster:least-loaded", "the library's way"}};
  report.results = Summarize(all);
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
  EXPECT_TRUE(Contains(claims[2].text, "(+10 % pair by pair)")) << claims[2].text;
  EXPECT_EQ(claims[3].verdict, Verdict::kEven);
  EXPECT_EQ(claims[4].verdict, Verdict::kEven);
}

TEST(Claims, TurnRoundWhenTheFiguresDo) {
  std::vector<Series> all = MadeSeries();
  for (size_t i = 0; i < all.size(); i += 2) std::swap(all[i].mechanism, all[i + 1].mechanism);
  const Report report = MadeReport(all);
  const std::vector<Claim> claims = ClaimsOf(report);
  ASSERT_EQ(claims.size(), 5u);
  EXPECT_EQ(claims[0].verdict, Verdict::kWorse);
  EXPECT_EQ(claims[1].verdict, Verdict::kBetter);
  EXPECT_EQ(claims[2].verdict, Verdict::kWorse);
  EXPECT_TRUE(Contains(claims[2].text, "(−9 % pair by pair)")) << claims[2].text;
  EXPECT_TRUE(Contains(HeadlineOf(report),
                       "epoll-exclusive gave the busiest of 4 workers 25 % of the connections, "
                       "ringmaster:least-loaded 70 %"))
      << HeadlineOf(report);
}

TEST(Claims, DecideNothingThatTheRepetitionsCannotTellApart) {
  std::vector<Series> all = MadeSeries();
  all[3].runs[4].figures.connections_per_second = 39'999;
  EXPECT_EQ(ClaimsOf(MadeReport(all))[2].verdict, Verdict::kEven);
}

// All went slower for a while, and both sides with it: their ranges overlap, the pairs do not.
TEST(Claims, CompareRepetitionsThatRanSideBySide) {
  std::vector<Series> all = MadeSeries();
  all[2].runs[4].figures.connections_per_second = 10'000;
  all[3].runs[4].figures.connections_per_second = 11'000;
  EXPECT_EQ(ClaimsOf(MadeReport(all))[2].verdict, Verdict::kBetter);
}

TEST(Claims, DecideNothingFromFewRepetitions) {
  std::vector<Series> all = MadeSeries();
  for (Series& series : all) series.runs.resize(kPairsMin - 1);
  all.push_back(Made("reuseport", "saturated", 1, 900, {0.25, 0.25, 0.25, 0.25}));
  all.back().runs.resize(kPairsMin - 1);
  for (const Claim& claim : ClaimsOf(MadeReport(all))) {
    EXPECT_EQ(claim.verdict, Verdict::kEven);
    EXPECT_FALSE(Contains(claim.text, "other rivals")) << claim.text;
  }
  all = MadeSeries();
  for (Series& series : all) series.runs.resize(kPairsMin);
  EXPECT_EQ(ClaimsOf(MadeReport(all))[0].verdict, Verdict::kBetter);
}

// As a run under an open loop is that did not achieve what was offered.
void FallBehind(RunResult& run) {
  run.figures.p50_us = run.figures.p99_us = run.figures.p999_us = run.figures.max_us = {};
  run.figures.connections_per_second = 1200;
  run.figures.offered_per_second = 2000;
}

TEST(Claims, SayWhoDoesNotKeepUpAndWhoLosesConnections) {
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[5].runs) {
    FallBehind(run);
    run.figures.lost = 17;
  }
  const std::vector<Claim> claims = ClaimsOf(MadeReport(all));
  ASSERT_EQ(claims.size(), 5u);
  EXPECT_EQ(claims[3].verdict, Verdict::kWorse);
  EXPECT_TRUE(Contains(claims[3].text, "does not keep up in 9 of 9 repetitions: 1,200 of 2,000"))
      << claims[3].text;
  EXPECT_EQ(claims[4].verdict, Verdict::kWorse);
  EXPECT_TRUE(Contains(claims[4].text, "17")) << claims[4].text;
}

TEST(Claims, DecideNothingFromFewRepetitionsThatFellBehind) {
  std::vector<Series> all = MadeSeries();
  for (Series& series : all) series.runs.resize(kPairsMin - 1);
  for (RunResult& run : all[5].runs) FallBehind(run);
  const std::vector<Claim> claims = ClaimsOf(MadeReport(all));
  ASSERT_EQ(claims.size(), 4u);
  EXPECT_EQ(claims[3].verdict, Verdict::kEven);
  EXPECT_TRUE(Contains(claims[3].text, "in 4 of 4 repetitions")) << claims[3].text;
}

// It fell behind in eight pairs and won the ninth.
TEST(Claims, DecideByFallingBehindOnlyWhenItHoldsInEveryPair) {
  std::vector<Series> all = MadeSeries();
  for (size_t i = 1; i < all[5].runs.size(); ++i) FallBehind(all[5].runs[i]);
  all[4].runs[0].figures.p99_us = 30'000;
  const std::vector<Claim> claims = ClaimsOf(MadeReport(all));
  ASSERT_EQ(claims.size(), 4u);
  EXPECT_EQ(claims[3].verdict, Verdict::kEven);
  EXPECT_TRUE(Contains(claims[3].text, "in 8 of 9 repetitions")) << claims[3].text;
}

TEST(Compare, CallsAPairInWhichBothFellBehindWonByNeither) {
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[4].runs) run.figures.p99_us = 30'000;
  EXPECT_EQ(Compare(MadeReport(all).results[5], MadeReport(all).results[4], &Figures::p99_us),
            Verdict::kBetter);
  FallBehind(all[4].runs[3]);
  EXPECT_EQ(Compare(MadeReport(all).results[5], MadeReport(all).results[4], &Figures::p99_us),
            Verdict::kBetter);
  FallBehind(all[5].runs[3]);
  EXPECT_EQ(Compare(MadeReport(all).results[5], MadeReport(all).results[4], &Figures::p99_us),
            Verdict::kEven);
}

TEST(Claims, AnswerAWorkloadThatIsThereToLoseConnections) {
  std::vector<Series> all = MadeSeries();
  all[0].workload = all[1].workload = "close-one";
  for (RunResult& run : all[0].runs) run.figures.resume_ms = 500;
  for (RunResult& run : all[1].runs) run.figures.resume_ms = 5;
  Series reuseport = Made("reuseport", "close-one", 3500, 60, {0.25, 0.25, 0.25, 0.25});
  for (RunResult& run : reuseport.runs) run.figures.lost = 41;
  all.push_back(reuseport);
  Report report = MadeReport(all);
  report.workloads[0].name = "close-one";
  report.workloads[0].question = Question::kLoss;
  const std::vector<Claim> claims = ClaimsOf(report);
  ASSERT_GE(claims.size(), 2u);
  EXPECT_EQ(claims[0].verdict, Verdict::kEven);
  EXPECT_TRUE(Contains(claims[0].text, "no connection is lost with ringmaster:least-loaded"));
  EXPECT_TRUE(Contains(claims[0].text, "it is better than 1, even with 0, worse than 0"));
  EXPECT_EQ(claims[1].verdict, Verdict::kBetter);
  EXPECT_TRUE(Contains(claims[1].text, "5.00 ms with ringmaster:least-loaded, 500 ms with"))
      << claims[1].text;
}

TEST(Claims, CountTheRivalsAndNameThoseThatAreBetter) {
  const std::vector<double> even = {0.25, 0.25, 0.25, 0.25};
  std::vector<Series> all = MadeSeries();
  all.push_back(Made("blocking-accept", "saturated", 45'000, 900, even));
  all.push_back(Made("reuseport", "saturated", 47'000, 900, even));
  all.push_back(Made("epoll-shared", "saturated", 20'000, 900, even));
  all.push_back(Made("eventfd-round-robin", "saturated", 44'000, 900, even));
  all.push_back({.mechanism = "reuseport-ebpf", .workload = "saturated", .skipped = "EPERM"});
  const std::string text = ClaimsOf(MadeReport(all))[2].text;
  EXPECT_TRUE(Contains(text,
                       "Of 4 other rivals it is better than 1, even with 1, worse than 2 "
                       "(reuseport 47,000, blocking-accept 45,000)."))
      << text;
}

// Pair by pair it is 5 % slower, and by its median faster.
TEST(Claims, ShowNoPercentageThatTheMediansBesideItContradict) {
  std::vector<Series> all = MadeSeries();
  constexpr double kTheirs[] = {10'000, 20'000, 30'000, 40'000, 50'000,
                                60'000, 70'000, 80'000, 90'000};
  for (size_t i = 0; i < std::size(kTheirs); ++i) {
    all[2].runs[i].figures.connections_per_second = kTheirs[i];
    all[3].runs[i].figures.connections_per_second = 0.95 * kTheirs[i];
  }
  all[3].runs[0].figures.connections_per_second = 51'000;
  const Report report = MadeReport(all);
  ASSERT_LT(*report.results[3].ratio.connections_per_second, 1);
  const Claim claim = ClaimsOf(report)[2];
  EXPECT_EQ(claim.verdict, Verdict::kEven);
  EXPECT_TRUE(Contains(claim.text,
                       "51,000 connections per second with ringmaster:least-loaded, 50,000 with "
                       "epoll-exclusive, no difference that these repetitions can tell."))
      << claim.text;
}

TEST(Claims, NeverCallADecidedDifferenceNothing) {
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[3].runs) run.figures.connections_per_second = 40'001;
  EXPECT_TRUE(Contains(ClaimsOf(MadeReport(all))[2].text, "(+less than 0.1 % pair by pair)"));
  for (RunResult& run : all[3].runs) run.figures.connections_per_second = 40'120;
  EXPECT_TRUE(Contains(ClaimsOf(MadeReport(all))[2].text, "(+0.3 % pair by pair)"));
}

TEST(Headline, HasBothHalvesOfTheTruth) {
  EXPECT_TRUE(Contains(HeadlineOf(MadeReport()), "; under full load it serves 10 % more."))
      << HeadlineOf(MadeReport());
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[3].runs) run.figures.connections_per_second = 30'000;
  EXPECT_TRUE(Contains(HeadlineOf(MadeReport(all)), "; under full load it serves 25 % fewer."));
  all[3].runs[0].figures.connections_per_second = 50'000;
  EXPECT_TRUE(Contains(HeadlineOf(MadeReport(all)), "; under full load they are even."));
}

TEST(Claims, CompareTheDefaultPolicyNotTheLuckiest) {
  std::vector<Series> all = MadeSeries();
  all.insert(all.begin(), Made("ringmaster:exclusive", "light", 9999, 1, {0.25, 0.25, 0.25, 0.25}));
  EXPECT_EQ(SidesOf(MadeReport(all)).ours, "ringmaster:least-loaded");
  EXPECT_EQ(SidesOf(MadeReport(all)).rival, "epoll-exclusive");
}

// Five repetitions of a workload whose clients stay, ours three times as good.
Report StayingReport() {
  std::vector<Series> all(2);
  for (size_t side = 0; side < all.size(); ++side) {
    all[side] = {.mechanism = side == 0 ? "epoll-exclusive" : "ringmaster:least-loaded",
                 .workload = "mixed",
                 .transport = "tcp",
                 .workers = 4,
                 .seconds = 1};
    for (int i = 0; i < 5; ++i) {
      RunResult run;
      run.figures.requests_per_second = side == 0 ? 900 : 2700;
      run.figures.request_p50_us = side == 0 ? 30'000 : 1000;
      run.figures.request_p99_us = side == 0 ? 90'000 : 9000;
      run.figures.request_p999_us = side == 0 ? 95'000 : 9900;
      run.figures.new_p50_us = side == 0 ? 1000 : 2000;
      run.figures.new_p99_us = side == 0 ? 7000 : 9000;
      run.figures.max_over_mean = side == 0 ? 4 : 1;
      run.figures.jain = side == 0 ? 0.25 : 1;
      run.shares = side == 0 ? std::vector<double>{1, 0, 0, 0} : std::vector<double>(4, 0.25);
      run.over_time = {{.seconds = -0.5, .by_worker = {0, 0, 0, 0}},
                       {.seconds = 1, .by_worker = {16, 16, 16, 16}}};
      all[side].runs.push_back(run);
    }
  }
  Report report = MadeReport(all);
  report.workloads = {{.name = "mixed",
                       .title = "Newcomers",
                       .description = "Beside.",
                       .question = Question::kStaying}};
  return report;
}

// The connections that stay come first; what is lost elsewhere stands in the same sentence.
TEST(Headline, BeginsWithTheConnectionsThatStay) {
  const std::string begin =
      "epoll-exclusive gave the busiest of 4 workers 100 % of the connections that stay, "
      "ringmaster:least-loaded 25 %, which answers 3.00 times the requests";
  Report report = StayingReport();
  EXPECT_EQ(HeadlineOf(report), begin + ".");
  const Report others = MadeReport();
  report.workloads.insert(report.workloads.end(), others.workloads.begin(), others.workloads.end());
  report.results.insert(report.results.end(), others.results.begin(), others.results.end());
  EXPECT_EQ(HeadlineOf(report), begin +
                                    "; under full load it serves 10 % more"
                                    "; at light load its p50 is 1.50 times the other’s.");
}

TEST(Claims, SpeakOfRequestsWhereClientsStay) {
  const std::vector<Claim> claims = ClaimsOf(StayingReport());
  ASSERT_EQ(claims.size(), 4u);
  EXPECT_TRUE(Contains(claims[0].text, "25 % of the connections")) << claims[0].text;
  EXPECT_TRUE(Contains(claims[1].text, "2,700 requests per second with ringmaster:least-loaded"))
      << claims[1].text;
  EXPECT_EQ(claims[1].verdict, Verdict::kBetter);
  EXPECT_TRUE(Contains(claims[2].text, "99 % of the requests are answered within 9.00 ms"))
      << claims[2].text;
  EXPECT_TRUE(Contains(claims[3].text, "99 % of the newcomers")) << claims[3].text;
  EXPECT_EQ(claims[3].verdict, Verdict::kWorse);
}

TEST(JsonReport, WritesWhatClientsThatStayGot) {
  const auto json = nlohmann::json::parse(JsonReport(StayingReport()));
  const auto& ours = json["results"][1];
  EXPECT_EQ(ours["median"]["requests_per_second"], 2700);
  EXPECT_EQ(ours["median"]["request_p50_us"], 1000);
  EXPECT_EQ(ours["median"]["request_p99_us"], 9000);
  EXPECT_EQ(ours["median"]["request_p999_us"], 9900);
  EXPECT_EQ(ours["median"]["new_p50_us"], 2000);
  EXPECT_EQ(ours["median"]["new_p99_us"], 9000);
  EXPECT_EQ(ours["ratio_to_epoll_exclusive"]["requests_per_second"], 3);
  EXPECT_EQ(ours["connections_over_time"][1]["by_worker"], nlohmann::json({16, 16, 16, 16}));
  EXPECT_EQ(json["context"]["hogs"], 0);
}

TEST(TerminalReport, ShowsRequestsWhereClientsStay) {
  const std::string text = TerminalReport(StayingReport(), {.columns = 120});
  EXPECT_TRUE(Contains(text, "req/s")) << text;
  EXPECT_TRUE(Contains(text, "2,700")) << text;
  EXPECT_TRUE(Contains(text, "new p99")) << text;
  EXPECT_FALSE(Contains(text, "conn/s")) << text;
}

TEST(HtmlReport, ShowsRequestsWhereClientsStay) {
  const std::string page = HtmlReport(StayingReport());
  EXPECT_TRUE(Contains(page, "requests per second"));
  EXPECT_TRUE(Contains(page, "newcomers’ p99"));
}

TEST(Caveats, SayThatProcessesWereBusyAsWasAskedFor) {
  Report report = MadeReport();
  report.context.hogs = 2;
  ASSERT_EQ(CaveatsOf(report).size(), CaveatsOf(MadeReport()).size() + 1);
  EXPECT_TRUE(Contains(CaveatsOf(report)[0] + CaveatsOf(report).back(), "Beside 2 processes"));
}

TEST(Claims, KnowTheDefaultPolicyByItsFullNameToo) {
  std::vector<Series> all = MadeSeries();
  for (size_t i = 1; i < all.size(); i += 2) all[i].mechanism += "/poll-accept/inbox/thread";
  all.insert(all.begin(), Made("ringmaster:exclusive/poll-accept/inbox/thread", "light", 9999, 1,
                               {0.25, 0.25, 0.25, 0.25}));
  EXPECT_EQ(SidesOf(MadeReport(all)).ours, "ringmaster:least-loaded/poll-accept/inbox/thread");
}

TEST(Claims, AreNoneWhenThereIsNothingToCompare) {
  Report report = MadeReport();
  std::erase_if(report.results, [](const Result& r) { return r.mechanism == "epoll-exclusive"; });
  EXPECT_TRUE(ClaimsOf(report).empty());
  EXPECT_FALSE(HeadlineOf(report).empty());
}

Names NamesOfMechanisms(const std::vector<std::string>& mechanisms) {
  Report report;
  for (const std::string& name : mechanisms) report.results.push_back({.mechanism = name});
  return Names(report);
}

TEST(Names, LeaveOutWhatAllOfOursHave) {
  const Names names =
      NamesOfMechanisms({"reuseport", "ringmaster:least-loaded/poll-accept/inbox/thread",
                         "ringmaster:exclusive/accept/inbox/thread"});
  EXPECT_EQ(names.pattern(), "ringmaster:POLICY/INTAKE/inbox/thread");
  EXPECT_EQ(names.Short("ringmaster:exclusive/accept/inbox/thread"), "exclusive/accept");
  EXPECT_EQ(names.Clear("ringmaster:exclusive/accept/inbox/thread"), "ringmaster:exclusive/accept");
  EXPECT_EQ(names.Short("reuseport"), "reuseport");
}

TEST(Names, NeverLeaveOutThePolicy) {
  const std::string name = "ringmaster:least-loaded/poll-accept/inbox/thread";
  const Names names = NamesOfMechanisms({name});
  EXPECT_EQ(names.Short(name), "least-loaded");
  EXPECT_EQ(names.pattern(), "ringmaster:POLICY/poll-accept/inbox/thread");
  EXPECT_EQ(NamesOfMechanisms({"ringmaster:exclusive"}).Short("ringmaster:exclusive"), "exclusive");
  EXPECT_EQ(NamesOfMechanisms({"ringmaster:exclusive"}).pattern(), "ringmaster:POLICY");
  EXPECT_EQ(NamesOfMechanisms({"reuseport"}).pattern(), "");
}

TEST(Caveats, AreNoneForAQuietMachineAndEnoughRepetitions) {
  EXPECT_TRUE(CaveatsOf(MadeReport()).empty());
}

TEST(Caveats, SayWhatIsNotForQuoting) {
  std::vector<Series> all = MadeSeries();
  for (Series& series : all) series.runs.resize(3);
  EXPECT_TRUE(Contains(CaveatsOf(MadeReport(all)).at(0), "Not for quoting: 3 repetitions"));
  for (Series& series : all) series.runs.resize(1);
  EXPECT_TRUE(Contains(CaveatsOf(MadeReport(all)).at(0), "Not for quoting: 1 repetition "));
  EXPECT_FALSE(Contains(TerminalReport(MadeReport(all), {.columns = 120}), "±0%"));
}

TEST(Caveats, SayThatABuildIsSlowOnPurpose) {
  Report report = MadeReport();
  report.context.build_flags = "-O2 -g -fsanitize=thread";
  EXPECT_TRUE(Contains(CaveatsOf(report).at(0), "-fsanitize=thread"));
}

TEST(Caveats, SayThatTheGeneratorWasTheBottleneck) {
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[2].runs) run.generator_limited = true;
  const Report report = MadeReport(all);
  EXPECT_TRUE(Contains(CaveatsOf(report).at(0), "In 1 of 6 measurements"));
  EXPECT_TRUE(Contains(TerminalReport(report, {}), "≥40,000"));
}

// What programs rely on: every key, and what kind of value it has.
TEST(JsonReport, HasTheFieldsOfItsSchema) {
  const auto json = nlohmann::json::parse(JsonReport(MadeReport()));
  EXPECT_EQ(json.at("schema_version"), 1);
  const auto& context = json.at("context");
  for (const char* text :
       {"program", "commit", "date", "kernel", "cpu_model", "governor", "mitigations", "liburing",
        "ring_flags", "compiler", "build_flags", "command"}) {
    EXPECT_TRUE(context.at(text).is_string()) << text;
  }
  for (const char* number :
       {"cpus", "cpus_allowed", "seed", "seconds", "warm_up_seconds", "load_before"}) {
    EXPECT_TRUE(context.at(number).is_number()) << number;
  }
  EXPECT_EQ(context.at("kernel"), "6.18.44");
  EXPECT_EQ(context.at("seed"), 42);
  EXPECT_EQ(context.at("command"), "ringmaster-bench demo --seed 42");
  ASSERT_EQ(json.at("results").size(), 6u);
  for (const auto& result : json.at("results")) {
    for (const char* text : {"mechanism", "workload", "transport"}) {
      EXPECT_TRUE(result.at(text).is_string()) << text;
    }
    EXPECT_TRUE(result.at("pinned").is_boolean());
    EXPECT_TRUE(result.at("generator_limited").is_boolean());
    EXPECT_TRUE(result.at("workers").is_number_unsigned());
    EXPECT_TRUE(result.at("repetitions").is_number_unsigned());
    EXPECT_TRUE(result.at("shares").is_array());
    for (const char* figure :
         {"connections_per_second", "p50_us", "p99_us", "p999_us", "max_us", "jain",
          "max_over_mean", "worker_wakes_per_connection", "empty_wakes_per_connection",
          "doorbells_per_connection", "context_switches_per_connection", "cpu_us_per_connection",
          "generator_cpu_share", "recalled", "lost"}) {
      const auto& median = result.at("median").at(figure);
      EXPECT_TRUE(median.is_number() || median.is_null()) << figure;
      const auto& ratio = result.at("ratio_to_epoll_exclusive").at(figure);
      EXPECT_TRUE(ratio.is_number() || ratio.is_null()) << figure;
      for (const char* spread : {"spread", "ratio_spread"}) {
        const auto& pair = result.at(spread).at(figure);
        EXPECT_TRUE(pair.is_null() || (pair.is_array() && pair.size() == 2)) << figure;
      }
    }
  }
}

TEST(JsonReport, WritesTheFiguresThatWereMeasured) {
  const auto json = nlohmann::json::parse(JsonReport(MadeReport()));
  const auto& result = json.at("results").at(1);
  EXPECT_EQ(result.at("mechanism"), "ringmaster:least-loaded");
  EXPECT_EQ(result.at("workload"), "light");
  EXPECT_EQ(result.at("transport"), "tcp");
  EXPECT_EQ(result.at("workers"), 4);
  EXPECT_EQ(result.at("repetitions"), kRepetitions);
  EXPECT_EQ(result.at("seconds"), 1.2);
  EXPECT_EQ(result.at("median").at("p99_us"), 180);
  EXPECT_EQ(result.at("median").at("recalled"), 3);
  EXPECT_EQ(result.at("fell_behind"), 0);
  EXPECT_EQ(result.at("spread").at("p99_us"), nlohmann::json::array({180, 180}));
  EXPECT_EQ(result.at("ratio_to_epoll_exclusive").at("p99_us"), 1.5);
  EXPECT_EQ(result.at("shares"), nlohmann::json::array({0.25, 0.25, 0.25, 0.25}));
  EXPECT_EQ(result.at("runs").at("p99_us").size(), static_cast<size_t>(kRepetitions));
  EXPECT_FALSE(result.at("runs").contains("resume_ms"));
}

TEST(JsonReport, SaysWhyAMechanismDidNotRun) {
  std::vector<Series> all = MadeSeries();
  all[1].runs.clear();
  all[1].skipped = "bpf(2): EPERM";
  const auto json = nlohmann::json::parse(JsonReport(MadeReport(all)));
  EXPECT_TRUE(json.at("results").at(0).at("skipped").is_null());
  EXPECT_EQ(json.at("results").at(1).at("skipped"), "bpf(2): EPERM");
  EXPECT_EQ(json.at("results").at(1).at("repetitions"), 0);
}

TEST(JsonReport, WritesNullForSharesOfNothing) {
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[0].runs) {
    run.shares.clear();
    run.figures.jain = run.figures.max_over_mean = {};
  }
  const Report report = MadeReport(all);
  const auto json = nlohmann::json::parse(JsonReport(report));
  EXPECT_TRUE(json.at("results").at(0).at("shares").is_null());
  EXPECT_TRUE(json.at("results").at(0).at("median").at("jain").is_null());
  EXPECT_TRUE(json.at("results").at(1).at("shares").is_array());
  EXPECT_FALSE(Contains(HtmlReport(report), "nan"));
  EXPECT_FALSE(TerminalReport(report, {}).empty());
}

TEST(JsonReport, WritesNullForWhatIsMissing) {
  const auto json = nlohmann::json::parse(JsonReport(MadeReport()));
  EXPECT_TRUE(json.at("results").at(0).at("median").at("recalled").is_null());
  EXPECT_TRUE(json.at("results").at(0).at("spread").at("recalled").is_null());
}

TEST(JsonReport, ReplacesWhatIsNoUtf8) {
  Report report = MadeReport();
  report.context.cpu_model = "A CPU\xff of \xc3";
  const auto json = nlohmann::json::parse(JsonReport(report));
  EXPECT_EQ(json.at("context").at("cpu_model"), "A CPU\uFFFD of \uFFFD");
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
  // Once in the overview, and in both tables of each workload.
  size_t rows = 0;
  for (size_t at = 0; (at = html.find("<th scope=\"row\"", at)) != std::string::npos; ++at) ++rows;
  EXPECT_EQ(rows, report.mechanisms.size() + 2 * report.results.size());
  for (const MechanismText& mechanism : report.mechanisms) {
    EXPECT_TRUE(Contains(html, mechanism.name));
  }
  EXPECT_TRUE(Contains(html, report.context.mitigations));
  EXPECT_TRUE(Contains(html, report.context.commit));
  EXPECT_TRUE(Contains(html, report.context.command));
  EXPECT_TRUE(Contains(html, report.context.kernel));
  EXPECT_TRUE(Contains(html, "worker 0, the slow one"));
}

TEST(HtmlReport, ShowsLosingCasesAsTheyAre) {
  EXPECT_TRUE(Contains(HtmlReport(MadeReport()), "▼ worse"));
}

TEST(HtmlReport, SaysHowOftenAMechanismFellBehind) {
  std::vector<Series> all = MadeSeries();
  EXPECT_FALSE(Contains(HtmlReport(MadeReport(all)), "behind in"));
  FallBehind(all[5].runs[0]);
  EXPECT_TRUE(
      Contains(HtmlReport(MadeReport(all)), "20.0 ms<small>behind in 1 of 9 repetitions</small>"));
  for (RunResult& run : all[5].runs) FallBehind(run);
  const std::string html = HtmlReport(MadeReport(all));
  EXPECT_TRUE(Contains(html, "fell behind<small>behind in 9 of 9 repetitions</small>"));
  EXPECT_TRUE(Contains(html, "fell behind in 9 of 9 repetitions: 1,200 of 2,000 per second"));
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

TEST(HtmlReport, SaysWhichMechanismsDidNotRunAndWhy) {
  std::vector<Series> all = MadeSeries();
  all.push_back({.mechanism = "reuseport-ebpf", .workload = "light", .skipped = "bpf(2): EPERM"});
  const std::string html = HtmlReport(MadeReport(all));
  EXPECT_TRUE(Contains(html, "did not run: bpf(2): EPERM"));
}

TEST(HtmlReport, IsWholeWhenNothingCouldRun) {
  std::vector<Series> all = MadeSeries();
  for (Series& series : all) {
    series.runs.clear();
    series.skipped = "no io_uring";
  }
  const std::string html = HtmlReport(MadeReport(all));
  EXPECT_TRUE(Contains(html, "did not run: no io_uring"));
  EXPECT_TRUE(Contains(html, "</html>"));
}

// As many as a comparison has: no row may be dropped, and each has its own place.
TEST(HtmlReport, HasARowForEachOfThreeDozenMechanisms) {
  std::vector<Series> all = MadeSeries();
  for (int i = 0; i < 36; ++i) {
    all.push_back(Made("mechanism-" + std::to_string(i), "light", 1000, 10, {0.5, 0.5}));
  }
  const std::string html = HtmlReport(MadeReport(all));
  for (int i = 0; i < 36; ++i) {
    EXPECT_TRUE(Contains(html, ">mechanism-" + std::to_string(i) + "</text>")) << i;
  }
}

TEST(HtmlReport, DrawsTheOrderWhereAWorkloadAsksForIt) {
  EXPECT_FALSE(Contains(HtmlReport(MadeReport()), "In which order"));
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[0].runs) run.order = {0, 1, 2, 3, 0};
  const Report report = MadeReport(all);
  EXPECT_TRUE(Contains(HtmlReport(report), "epoll-exclusive, connection 4: worker 3"));
  EXPECT_TRUE(Contains(TerminalReport(report, {}), "0 1 2 3 0"));
}

TEST(HtmlReport, TintsOnlyWhatEveryRepetitionConfirms) {
  std::vector<Series> all = MadeSeries();
  EXPECT_TRUE(Contains(HtmlReport(MadeReport(all)), "<td class=\"better-1\">44,000"));
  all[3].runs[0].figures.connections_per_second = 39'000;
  EXPECT_TRUE(Contains(HtmlReport(MadeReport(all)), "<td>44,000"));
}

TEST(HtmlReport, MarksThatTheGeneratorWasTheBottleneck) {
  EXPECT_FALSE(Contains(HtmlReport(MadeReport()), "A hollow dot"));
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[2].runs) run.generator_limited = true;
  EXPECT_TRUE(Contains(HtmlReport(MadeReport(all)), "A hollow dot"));
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

TEST(TerminalReport, MarksBestAndWorstWhereThatMeansSomething) {
  const std::string text = TerminalReport(MadeReport(), {.columns = 120});
  EXPECT_TRUE(Contains(text, "44,000*")) << text;
  EXPECT_TRUE(Contains(text, "40,000!")) << text;
  EXPECT_TRUE(Contains(text, "60.0 µs*")) << text;
  EXPECT_TRUE(Contains(text, "90.0 µs!")) << text;
  std::vector<Series> all = MadeSeries();
  for (RunResult& run : all[5].runs) run.figures.connections_per_second = 1999;
  // Of what is offered, all serve all.
  EXPECT_FALSE(Contains(TerminalReport(MadeReport(all), {.columns = 120}), "1,999!"));
}

TEST(TerminalReport, SaysHowOftenAMechanismFellBehind) {
  std::vector<Series> all = MadeSeries();
  EXPECT_FALSE(Contains(TerminalReport(MadeReport(all), {.columns = 300}), "of the offered load"));
  FallBehind(all[5].runs[0]);
  const std::string text = TerminalReport(MadeReport(all), {.columns = 300});
  EXPECT_TRUE(
      Contains(text, "a – stands where it is the median: least-loaded in 1 of 9 repetitions."))
      << text;
  EXPECT_TRUE(Contains(text, ">99%")) << text;
}

TEST(TerminalReport, SaysWhereAWindowWasLonger) {
  std::vector<Series> all = MadeSeries();
  EXPECT_FALSE(Contains(TerminalReport(MadeReport(all), {}), "windows of"));
  for (size_t i = 4; i < all.size(); ++i) all[i].seconds = 2;
  EXPECT_TRUE(Contains(TerminalReport(MadeReport(all), {}), "slow-worker, windows of 2.0 s\n"));
}

TEST(TerminalReport, EndsWithTheCommandThatRepeatsIt) {
  EXPECT_TRUE(TerminalReport(MadeReport(), {}).ends_with("\nringmaster-bench demo --seed 42\n"));
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

TEST(HtmlReport, SaysWhenTheProcessMayUseFewerCpusThanThereAre) {
  Report report = MadeReport();
  report.context.cpus = report.context.cpus_allowed = 8;
  report.context.load_before = 1.1;
  EXPECT_FALSE(Contains(HtmlReport(report), "may use"));
  EXPECT_FALSE(report.context.busy());
  report.context.cpus_allowed = 2;
  EXPECT_TRUE(Contains(HtmlReport(report), "8 × A CPU, of which this process may use 2, load"));
  EXPECT_TRUE(report.context.busy());
  EXPECT_TRUE(Contains(HtmlReport(report), "load 1.1 on 2 CPUs"));
  EXPECT_EQ(nlohmann::json::parse(JsonReport(report)).at("context").at("cpus_allowed"), 2);
}

TEST(TerminalReport, KeepsWithinItsColumns) {
  const std::vector<double> even = {0.25, 0.25, 0.25, 0.25};
  const std::string how = "/poll-accept/inbox/thread";
  std::vector<Series> all = MadeSeries();
  for (size_t i = 1; i < all.size(); i += 2) all[i].mechanism += how;
  all.push_back(Made("eventfd-least-loaded", "saturated", 40'000, 900, even));
  all.push_back(Made("ringmaster:weighted-round-robin:4,2,1,1" + how, "saturated", 9, 9e7, even));
  all.push_back({.mechanism = "reuseport-ebpf",
                 .workload = "saturated",
                 .skipped = "bpf(2) was refused (EPERM): loading a program needs CAP_BPF; run it "
                            "as root, or leave this mechanism out"});
  Report report = MadeReport(all);
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
