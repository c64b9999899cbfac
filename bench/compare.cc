#include "bench/compare.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/clock.h"
#include "bench/hogs.h"
#include "bench/measurement.h"
#include "bench/measures.h"
#include "bench/mechanism.h"
#include "bench/workload.h"
#include "output/format.h"

namespace ringmaster::bench {
namespace {

using output::FormatFixed;
using output::FormatMinutes;

constexpr uint32_t kRepetitions = 9;
constexpr uint32_t kRepetitionsIfQuick = 3;

// A quarter of an hour, with something in hand for a machine that is slower than expected.
constexpr int64_t kBudgetNs = 14 * 60 * kSecond;
// Longer windows are steadier; beyond two seconds more repetitions tell more. With less than one
// second the p99.9 of 2,000 connections per second would rest on a single connection.
constexpr int kTenthsMax = 20;
constexpr int kTenthsMin = 10;
constexpr double kSecondsIfQuick = 0.5;

// More than one generator can start; the schedule is in memory, 8 bytes a connection.
constexpr uint32_t kRateMax = 1'000'000;

constexpr size_t kNameWidth = 23;

constexpr uint32_t kConnectionsMax = 20'000;
constexpr uint32_t kMicrosecondsMax = 60'000'000;

void AddOnce(const std::string& name, std::vector<std::string>& names) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

// The longest windows with which all of it fits into the budget.
double ChooseSeconds(Plan& plan) {
  for (int tenths = kTenthsMax; tenths > kTenthsMin; --tenths) {
    plan.duration_ns = tenths * (kSecond / 10);
    if (plan.ExpectedNs() <= kBudgetNs) return tenths / 10.0;
  }
  return kTenthsMin / 10.0;
}

// "a, b" is what people write; nobody means a name that begins with a space.
std::vector<std::string> PiecesOf(std::string_view list) {
  std::vector<std::string> pieces = absl::StrSplit(std::string(list), ',', absl::SkipWhitespace());
  for (std::string& piece : pieces) absl::StripAsciiWhitespace(&piece);
  return pieces;
}

// A window in which nothing is to start would measure nothing, and look like a server at rest.
absl::Status CheckRates(const Plan& plan) {
  for (const auto& workload : plan.workloads) {
    const double seconds = static_cast<double>(plan.WindowNs(*workload)) / kSecond;
    if (workload->rate().value_or(kRateMax) * seconds >= 1) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("with ", *workload->rate(), " connections per second, ", workload->name(),
                     " would start none in a window of ", FormatFixed(seconds, 1),
                     " s; choose a higher --rate or longer --seconds"));
  }
  return absl::OkStatus();
}

// What differs from the defaults, as it is written on a command line.
std::string StayTextOf(const CompareOptions& options) {
  const StayOptions defaults;
  const StayOptions& stay = options.stay;
  std::string text;
  const auto add = [&text](const char* option, uint32_t value, uint32_t by_default) {
    if (value != by_default) absl::StrAppend(&text, " ", option, " ", value);
  };
  add("--connections", stay.connections, defaults.connections);
  add("--opening-us", stay.opening_us, defaults.opening_us);
  add("--service-us", stay.service_us, defaults.service_us);
  add("--think-us", stay.think_us, defaults.think_us);
  if (options.service != "sleep") absl::StrAppend(&text, " --service ", options.service);
  if (stay.open_loop) text += " --open-loop";
  return text;
}

// The command that repeats the measurement, everything spelled out that was chosen or drawn; where
// files were written to does not matter for that.
std::string CommandOf(const CompareOptions& options, const Plan& plan) {
  std::string command = absl::StrCat(
      program_invocation_name, " compare --workload ",
      absl::StrJoin(PiecesOf(options.workloads), ","), " --transport ", options.transport,
      " --mechanisms ", absl::StrJoin(PiecesOf(options.mechanisms), ","), " --workers ",
      plan.workers, " --repetitions ", plan.repetitions, " --seconds ",
      static_cast<double>(plan.duration_ns) / kSecond);
  if (options.rate) absl::StrAppend(&command, " --rate ", *options.rate);
  if (options.pin) absl::StrAppend(&command, " --pin");
  if (options.hogs > 0) absl::StrAppend(&command, " --hogs ", options.hogs);
  absl::StrAppend(&command, StayTextOf(options));
  return absl::StrCat(command, " --seed ", plan.seed);
}

absl::Status CheckStay(const CompareOptions& options) {
  const StayOptions& stay = options.stay;
  if (stay.connections == 0 || stay.connections > kConnectionsMax) {
    return absl::InvalidArgumentError(absl::StrCat("--connections must be from 1 to ",
                                                   kConnectionsMax, ", not ", stay.connections));
  }
  for (const auto& [name, us] :
       {std::pair("--opening-us", stay.opening_us), std::pair("--service-us", stay.service_us),
        std::pair("--think-us", stay.think_us)}) {
    if (us <= kMicrosecondsMax) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name, " must be at most ", kMicrosecondsMax, ", which is a minute, not ", us));
  }
  if (stay.open_loop && stay.think_us == 0) {
    return absl::InvalidArgumentError(
        "--open-loop needs a --think-us of at least 1 between two requests");
  }
  if (options.service != "sleep" && options.service != "spin") {
    return absl::InvalidArgumentError(
        absl::StrCat("--service must be sleep or spin, not \"", options.service, "\""));
  }
  return absl::OkStatus();
}

std::string ListLine(const std::string& name, const std::string& text) {
  const std::string begin = name.size() > kNameWidth
                                ? absl::StrCat("  ", name, "\n", std::string(kNameWidth + 3, ' '))
                                : absl::StrFormat("  %-*s ", kNameWidth, name);
  return absl::StrCat(begin, text, "\n");
}

}  // namespace

std::vector<std::string> MechanismsOf(std::string_view list) {
  std::vector<std::string> pieces;
  for (const std::string& piece : PiecesOf(list)) {
    if (!pieces.empty() && std::isdigit(static_cast<unsigned char>(piece[0])) != 0) {
      absl::StrAppend(&pieces.back(), ",", piece);
    } else {
      pieces.push_back(piece);
    }
  }
  std::vector<std::string> names;
  for (const std::string& piece : pieces) {
    if (piece == "direct") {
      for (const std::string& name : DirectMechanismNames()) AddOnce(name, names);
      continue;
    }
    const bool all = piece == "all";
    if (!all && piece != "rivals" && piece != "ringmaster") {
      AddOnce(piece, names);
      continue;
    }
    for (const std::string& name : MechanismNames()) {
      if (all || Names::IsOurs(name) == (piece == "ringmaster")) AddOnce(name, names);
    }
  }
  return names;
}

std::vector<std::string> WorkloadsOf(std::string_view list) {
  std::vector<std::string> names;
  for (const std::string& piece : PiecesOf(list)) {
    if (piece != "all") {
      AddOnce(piece, names);
      continue;
    }
    for (const std::string& name : WorkloadNames()) AddOnce(name, names);
  }
  return names;
}

absl::StatusOr<Plan> PlanOf(const CompareOptions& given, uint64_t seed) {
  if (absl::Status status = CheckStay(given); !status.ok()) return status;
  if (given.hogs > kHogsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("--hogs must be at most ", kHogsMax, ", not ", given.hogs));
  }
  CompareOptions options = given;
  options.stay.service = options.service == "spin" ? Service::kSpin : Service::kSleep;
  if (options.rate && !(*options.rate > 0 && *options.rate <= kRateMax)) {
    return absl::InvalidArgumentError(absl::StrCat("--rate must be more than 0 and at most ",
                                                   kRateMax, " connections per second, not ",
                                                   *options.rate));
  }
  absl::StatusOr<Plan> plan = MakePlan({.seconds = options.seconds.value_or(kSecondsIfQuick),
                                        .repetitions = options.repetitions.value_or(
                                            options.quick ? kRepetitionsIfQuick : kRepetitions),
                                        .workers = options.workers,
                                        .transport = options.transport},
                                       seed);
  if (!plan.ok()) return plan.status();
  const std::vector<std::string> mechanisms = MechanismsOf(options.mechanisms);
  if (mechanisms.empty()) {
    return absl::InvalidArgumentError("--mechanisms names no mechanism; see --list");
  }
  const std::vector<std::string> workloads = WorkloadsOf(options.workloads);
  if (workloads.empty()) {
    return absl::InvalidArgumentError("--workload names no workload; see --list");
  }
  if (absl::Status status = AddMechanisms(mechanisms, *plan); !status.ok()) return status;
  const WorkloadOptions workload_options = {.rate = options.rate, .stay = options.stay};
  if (absl::Status status = AddWorkloads(workloads, workload_options, *plan); !status.ok()) {
    return status;
  }
  plan->pin = options.pin;
  plan->hogs = options.hogs;
  if (!options.seconds && !options.quick) {
    plan->duration_ns = std::llround(ChooseSeconds(*plan) * kSecond);
  }
  if (absl::Status status = CheckRates(*plan); !status.ok()) return status;
  return plan;
}

std::string HeaderOf(const Plan& plan) {
  const auto seconds = [](int64_t ns) {
    return absl::StrCat(FormatFixed(static_cast<double>(ns) / kSecond, 1), " s");
  };
  std::vector<std::string> longer;
  for (const auto& workload : plan.workloads) {
    const int64_t window_ns = plan.WindowNs(*workload);
    if (window_ns == plan.duration_ns) continue;
    longer.push_back(absl::StrCat(workload->name(), " ", seconds(window_ns)));
  }
  return absl::StrCat(plan.mechanisms.size(), " mechanisms, ", plan.workloads.size(),
                      " workloads, ", plan.repetitions, " repetitions of ",
                      seconds(plan.duration_ns), ", seed ", plan.seed, ": about ",
                      FormatMinutes(plan.ExpectedNs()), ".\n",
                      longer.empty() ? std::string()
                                     : absl::StrCat("Longer windows, because they need them: ",
                                                    absl::StrJoin(longer, ", "), ".\n"));
}

std::string RateNote(const Plan& plan) {
  std::vector<std::string> names;
  for (const auto& workload : plan.workloads) {
    if (!workload->rate()) names.push_back(workload->name());
  }
  if (names.empty()) return "";
  return absl::StrCat("--rate does not apply to ", absl::StrJoin(names, ", "),
                      ": there a schedule is fixed, or clients wait for answers.");
}

std::string ListOf(const Plan& everything) {
  std::string text = "Mechanisms (--mechanisms A,B, or all, rivals, ringmaster):\n";
  bool direct = false;
  for (const auto& mechanism : everything.mechanisms) {
    if (!std::exchange(direct, !mechanism->takes_descriptors()) && direct) {
      text +=
          "\nMechanisms that serve from file tables of io_uring, to be compared with each other "
          "(direct):\n";
    }
    text += ListLine(mechanism->name(), mechanism->summary());
    if (const std::string why = everything.WhyNot(*mechanism); !why.empty()) {
      text += ListLine("", absl::StrCat("cannot run here: ", why));
    }
  }
  text += "\nWorkloads (--workload A,B, or all):\n";
  for (const auto& workload : everything.workloads) {
    text += ListLine(workload->name(),
                     absl::StrCat(workload->title(), ". ", QuestionText(workload->question())));
  }
  return text;
}

absl::Status ListComparison(const CompareOptions& options) {
  const absl::StatusOr<Plan> everything =
      PlanOf({.workloads = "all", .mechanisms = "all,direct", .transport = options.transport}, 0);
  if (!everything.ok()) return everything.status();
  std::fputs(ListOf(*everything).c_str(), stdout);
  return absl::OkStatus();
}

absl::Status RunComparison(const CompareOptions& options) {
  const absl::StatusOr<Plan> plan = ReadyPlan(options.seed, options.report_path, options.json_path,
                                              [&](uint64_t seed) { return PlanOf(options, seed); });
  if (!plan.ok()) return plan.status();
  std::fputs(HeaderOf(*plan).c_str(), stdout);
  for (const auto& mechanism : plan->mechanisms) {
    if (const std::string why = plan->WhyNot(*mechanism); !why.empty()) {
      std::printf("  %s cannot run here: %s\n", mechanism->name().c_str(), why.c_str());
    }
  }
  if (const std::string note = RateNote(*plan); options.rate && !note.empty()) {
    std::printf("  %s\n", note.c_str());
  }
  for (const auto& workload : plan->workloads) {
    if (const std::string why = plan->WhyNot(*workload); !why.empty()) {
      std::printf("  %s cannot be measured here: %s\n", workload->name().c_str(), why.c_str());
    }
  }
  if (plan->repetitions < kRepetitions) {
    std::printf(
        "For a first look, not for quoting: figures to quote need at least %u repetitions.\n",
        kRepetitions);
  }
  std::printf("\n");
  std::fflush(stdout);
  return MeasureAndReport(*plan, {.command = CommandOf(options, *plan),
                                  .report_path = options.report_path,
                                  .json_path = options.json_path});
}

}  // namespace ringmaster::bench
