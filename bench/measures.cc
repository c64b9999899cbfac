#include "bench/measures.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "output/format.h"

namespace ringmaster::bench {
namespace {

using output::FormatCount;
using output::FormatFixed;
using output::FormatShare;
using output::FormatUs;

constexpr char kOurs[] = "ringmaster:";
constexpr size_t kPartsMax = 3;  // after the policy: intake, handoff, host

std::string OneDigit(double value) { return FormatFixed(value, 1); }
std::string TwoDigits(double value) { return FormatFixed(value, 2); }
std::string Milliseconds(double value) { return FormatUs(value * 1000); }

constexpr Measure kMeasures[] = {
    {&Figures::connections_per_second, "connections per second", "conn/s", FormatCount,
     Better::kMore},
    {&Figures::p50_us, "p50", "p50", FormatUs, Better::kLess},
    {&Figures::p99_us, "p99", "p99", FormatUs, Better::kLess},
    {&Figures::p999_us, "p99.9", "p99.9", FormatUs, Better::kLess},
    {&Figures::max_us, "longest", "longest", FormatUs, Better::kLess},
    {&Figures::requests_per_second, "requests per second", "req/s", FormatCount, Better::kMore},
    {&Figures::request_p50_us, "requests’ p50", "p50", FormatUs, Better::kLess},
    {&Figures::request_p99_us, "requests’ p99", "p99", FormatUs, Better::kLess},
    {&Figures::request_p999_us, "requests’ p99.9", "p99.9", FormatUs, Better::kLess},
    {&Figures::new_p50_us, "newcomers’ p50", "new p50", FormatUs, Better::kLess},
    {&Figures::new_p99_us, "newcomers’ p99", "new p99", FormatUs, Better::kLess},
    {&Figures::jain, "Jain index", "Jain", TwoDigits, Better::kMore},
    {&Figures::max_over_mean, "busiest over mean", "max/avg", TwoDigits, Better::kLess},
    {&Figures::cpu_us_per_connection, "server CPU, µs", "CPU µs", OneDigit, Better::kLess},
    {&Figures::cpu_us_per_request, "server CPU for a request, µs", "CPU/req", OneDigit,
     Better::kLess},
    {&Figures::context_switches_per_connection, "context switches", "ctx sw", TwoDigits,
     Better::kLess},
    {&Figures::system_calls_per_connection, "system calls", "calls", OneDigit, Better::kLess},
    {&Figures::worker_wakes_per_connection, "worker wake-ups", "wakes", TwoDigits, Better::kLess},
    {&Figures::empty_wakes_per_connection, "empty wake-ups", "empty", TwoDigits, Better::kLess},
    {&Figures::arrival_wakes_per_connection, "wake-ups by arrivals", "by arr.", TwoDigits,
     Better::kNeither},
    {&Figures::master_wakes_per_connection, "acceptor’s wake-ups", "master", TwoDigits,
     Better::kLess},
    {&Figures::doorbells_per_connection, "doorbells", "bells", TwoDigits, Better::kLess},
    {&Figures::generator_cpu_share, "generator’s CPU", "gen CPU", FormatShare, Better::kNeither},
    {&Figures::server_cpu_share, "server’s CPU", "srv CPU", FormatShare, Better::kNeither},
    {&Figures::recalled, "recalled", "recall", FormatCount, Better::kNeither},
    {&Figures::lost, "lost", "lost", FormatCount, Better::kLess},
    {&Figures::reset, "reset", "reset", FormatCount, Better::kLess},
    {&Figures::refused, "refused", "refused", FormatCount, Better::kLess},
    {&Figures::idle_worker_share, "trials with an idle worker", "idle", FormatShare, Better::kLess},
    {&Figures::resume_ms, "until it went on", "resume", Milliseconds, Better::kLess},
    {&Figures::over_cap, "over the cap", "over", FormatCount, Better::kLess},
    {&Figures::offered_per_second, "offered per second", "offered", FormatCount, Better::kNeither},
};

constexpr Figure Figures::*kShareFigures[] = {&Figures::max_over_mean, &Figures::p50_us,
                                              &Figures::cpu_us_per_connection};
constexpr Figure Figures::*kThroughputFigures[] = {
    &Figures::connections_per_second, &Figures::p99_us, &Figures::cpu_us_per_connection};
constexpr Figure Figures::*kTailFigures[] = {&Figures::p99_us, &Figures::p999_us,
                                             &Figures::connections_per_second};
constexpr Figure Figures::*kStayingFigures[] = {&Figures::requests_per_second,
                                                &Figures::request_p99_us, &Figures::max_over_mean};
constexpr Figure Figures::*kLossFigures[] = {&Figures::lost, &Figures::p99_us,
                                             &Figures::server_cpu_share};

}  // namespace

std::span<const Measure> Measures() { return kMeasures; }

const Measure& MeasureOf(Figure Figures::*figure) {
  return *std::find_if(std::begin(kMeasures), std::end(kMeasures),
                       [&](const Measure& measure) { return measure.figure == figure; });
}

Better BetterUnder(const WorkloadText& workload, const Measure& measure) {
  const bool spread = measure.figure == &Figures::jain || measure.figure == &Figures::max_over_mean;
  if (spread && !workload.slow_workers.empty()) return Better::kNeither;
  const bool rate = measure.figure == &Figures::connections_per_second ||
                    measure.figure == &Figures::requests_per_second;
  if (rate && workload.open_loop) {
    return Better::kNeither;
  }
  return measure.better;
}

std::span<Figure Figures::*const> DecidingFigures(Question question) {
  switch (question) {
    case Question::kShare:
      return kShareFigures;
    case Question::kThroughput:
      return kThroughputFigures;
    case Question::kTail:
      return kTailFigures;
    case Question::kLoss:
      return kLossFigures;
    case Question::kStaying:
      return kStayingFigures;
  }
  return {};
}

const Answered& AnsweredUnder(Question question) {
  static constexpr Answered kConnections = {.what = "connections",
                                            .rate = &Figures::connections_per_second,
                                            .p50 = &Figures::p50_us,
                                            .p99 = &Figures::p99_us,
                                            .p999 = &Figures::p999_us};
  static constexpr Answered kRequests = {.what = "requests",
                                         .rate = &Figures::requests_per_second,
                                         .p50 = &Figures::request_p50_us,
                                         .p99 = &Figures::request_p99_us,
                                         .p999 = &Figures::request_p999_us};
  return question == Question::kStaying ? kRequests : kConnections;
}

const char* QuestionText(Question question) {
  switch (question) {
    case Question::kShare:
      return "Who serves when anybody could, and what does it cost?";
    case Question::kThroughput:
      return "How much is served when there is more than enough to do?";
    case Question::kTail:
      return "Who waits, and for how long?";
    case Question::kLoss:
      return "Who is turned away, or let in and then forgotten?";
    case Question::kStaying:
      return "How are those served whose connections stay?";
  }
  return "";
}

std::string FellBehindText(const Result& result) {
  if (result.fell_behind_count == 0) return "";
  return absl::StrCat(result.fell_behind_count, " of ", result.repetitions,
                      result.repetitions == 1 ? " repetition" : " repetitions");
}

Names::Names(const Report& report) {
  std::vector<std::vector<std::string>> all;
  for (const Result& result : report.results) {
    if (IsOurs(result.mechanism)) all.push_back(absl::StrSplit(result.mechanism, '/'));
  }
  if (all.empty()) return;
  // From the end, as long as all have the same; the policy itself always stays.
  std::vector<std::string> shared;
  while (shared.size() < kPartsMax) {
    const size_t at = shared.size() + 1;  // from the end
    const auto same = [&](const std::vector<std::string>& parts) {
      return parts.size() > at && parts[parts.size() - at] == all[0][all[0].size() - at];
    };
    if (!std::all_of(all.begin(), all.end(), same)) break;
    shared.insert(shared.begin(), all[0][all[0].size() - at]);
  }
  if (!shared.empty()) suffix_ = absl::StrCat("/", absl::StrJoin(shared, "/"));
  pattern_ = absl::StrCat(kOurs, "POLICY");
  static constexpr const char* kParts[kPartsMax] = {"/INTAKE", "/HANDOFF", "/HOST"};
  const bool any_parts = all[0].size() > 1;
  for (size_t i = 0; any_parts && i + shared.size() < kPartsMax; ++i) {
    absl::StrAppend(&pattern_, kParts[i]);
  }
  pattern_ += suffix_;
}

bool Names::IsOurs(const std::string& mechanism) { return mechanism.starts_with(kOurs); }

std::string Names::Short(const std::string& mechanism) const {
  return IsOurs(mechanism) ? Clear(mechanism).substr(sizeof(kOurs) - 1) : mechanism;
}

std::string Names::Clear(const std::string& mechanism) const {
  if (!IsOurs(mechanism) || !mechanism.ends_with(suffix_)) return mechanism;
  return mechanism.substr(0, mechanism.size() - suffix_.size());
}

}  // namespace ringmaster::bench
