#include "bench/measurement.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/books.h"
#include "bench/clock.h"
#include "bench/html_report.h"
#include "bench/machine.h"
#include "bench/progress_line.h"
#include "bench/report.h"
#include "output/format.h"
#include "output/output_file.h"
#include "output/suggest.h"

namespace ringmaster::bench {
namespace {

using output::DidYouMean;
using output::IsSameFile;
using output::PrepareFile;
using output::WriteFile;

constexpr double kSecondsMin = 0.1;
constexpr double kSecondsMax = 60;
constexpr uint32_t kRepetitionsMax = 99;

// What is in the way when all of a plan is skipped, each reason once for a mechanism.
absl::Status NothingToMeasure(const Plan& plan) {
  std::vector<std::string> reasons;
  for (const auto& mechanism : plan.mechanisms) {
    std::set<std::string> told;
    for (const auto& workload : plan.workloads) {
      const std::string why = plan.WhySkip(*mechanism, *workload);
      if (told.insert(why).second) reasons.push_back(absl::StrCat(mechanism->name(), ": ", why));
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat("nothing can be measured here; ", absl::StrJoin(reasons, "; ")));
}

// Makes each of `names` and adds it to `made`.
template <typename Make, typename Made>
absl::Status Add(std::span<const std::string> names, Make make, std::vector<std::string> (*known)(),
                 std::vector<Made>& made) {
  for (const std::string& name : names) {
    absl::StatusOr<Made> one = make(name);
    if (!one.ok()) {
      return absl::Status(one.status().code(),
                          absl::StrCat(one.status().message(), DidYouMean(name, known())));
    }
    made.push_back(*std::move(one));
  }
  return absl::OkStatus();
}

// InvalidArgument if the figures and the page would be the same file.
absl::Status CheckFiles(const std::string& report_path, const std::string& json_path) {
  if (report_path.empty() || json_path.empty() || !IsSameFile(report_path, json_path)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--json and --report both name the file ", report_path,
                   ", and one would overwrite the other; name two files"));
}

absl::StatusOr<Report> MakeReport(const Plan& plan, const MeasurementOptions& options) {
  // Before the measurement, whose own load would be in it otherwise.
  Report report{.context = DescribeMachine()};
  report.context.command = options.command;
  report.context.seed = plan.seed;
  report.context.hogs = plan.hogs;
  report.context.seconds = static_cast<double>(plan.duration_ns) / kSecond;
  report.context.warm_up_seconds = static_cast<double>(plan.warm_up_ns) / kSecond;
  report.workloads = TextsOf(plan);
  for (const auto& mechanism : plan.mechanisms) {
    report.mechanisms.push_back({mechanism->name(), mechanism->summary()});
  }
  ProgressLine line;
  absl::StatusOr<std::vector<Result>> results =
      RunPlan(plan, [&](const Progress& progress) { line.Show(progress); });
  if (!results.ok()) {
    // Whatever its code, such as that of an EINVAL, it is not about an option.
    return absl::UnavailableError(results.status().message());
  }
  report.results = *std::move(results);
  return report;
}

// Every result may have been skipped; the first reason stands for all of them, which the report
// has.
absl::Status WhetherMeasured(const Report& report) {
  for (const Result& result : report.results) {
    if (result.repetitions > 0) return absl::OkStatus();
  }
  if (report.results.empty()) return absl::UnavailableError("nothing was to be measured");
  const Result& first = report.results.front();
  return absl::UnavailableError(absl::StrCat("nothing could be measured: ", first.mechanism, ", ",
                                             first.workload, ": ", first.skipped));
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const PlanSize& size, uint64_t seed) {
  if (!(size.seconds >= kSecondsMin && size.seconds <= kSecondsMax)) {
    return absl::InvalidArgumentError(absl::StrCat("--seconds must be from ", kSecondsMin, " to ",
                                                   kSecondsMax, ", not ", size.seconds));
  }
  if (size.repetitions < 1 || size.repetitions > kRepetitionsMax) {
    return absl::InvalidArgumentError(absl::StrCat("--repetitions must be from 1 to ",
                                                   kRepetitionsMax, ", not ", size.repetitions));
  }
  if (size.workers < 1 || size.workers > kWorkersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("--workers must be from 1 to ", kWorkersMax, ", not ", size.workers));
  }
  Plan plan;
  plan.repetitions = size.repetitions;
  plan.workers = size.workers;
  plan.duration_ns = std::llround(size.seconds * kSecond);
  plan.seed = seed;
  if (size.transport == "unix") {
    plan.transport = Transport::kUnix;
  } else if (size.transport != "tcp") {
    return absl::InvalidArgumentError(
        absl::StrCat("--transport must be tcp or unix, not \"", size.transport, "\""));
  }
  return plan;
}

absl::Status AddMechanisms(std::span<const std::string> names, Plan& plan) {
  const auto known = [] {
    std::vector<std::string> all = MechanismNames();
    for (std::string& name : DirectMechanismNames()) all.push_back(std::move(name));
    return all;
  };
  return Add(names, MakeMechanism, known, plan.mechanisms);
}

absl::Status AddWorkloads(std::span<const std::string> names, const WorkloadOptions& options,
                          Plan& plan) {
  return Add(
      names, [&](const std::string& name) { return MakeWorkload(name, options); }, WorkloadNames,
      plan.workloads);
}

absl::StatusOr<Plan> ReadyPlan(std::optional<uint64_t> seed, const std::string& report_path,
                               const std::string& json_path,
                               const std::function<absl::StatusOr<Plan>(uint64_t seed)>& make) {
  absl::StatusOr<Plan> plan = make(seed.has_value() ? *seed : std::random_device()());
  if (!plan.ok()) return plan;
  if (absl::Status status = CheckFiles(report_path, json_path); !status.ok()) return status;
  return plan;
}

absl::Status MeasureAndReport(const Plan& plan, const MeasurementOptions& options) {
  if (plan.RunCount() == 0) return NothingToMeasure(plan);
  // Before minutes of measuring, not after them.
  for (const std::string& path : {options.report_path, options.json_path}) {
    if (path.empty()) continue;
    if (absl::Status status = PrepareFile(path); !status.ok()) {
      return absl::UnavailableError(status.message());
    }
  }
  absl::StatusOr<Report> report = MakeReport(plan, options);
  if (!report.ok()) return report.status();
  // The files first, and each for itself: whatever else fails, they are what is kept.
  absl::Status status;
  std::string written;
  if (!options.json_path.empty()) {
    const absl::Status json = WriteFile(options.json_path, JsonReport(*report));
    status.Update(json);
    if (json.ok()) absl::StrAppend(&written, "\nFigures: ", options.json_path, "\n");
  }
  if (!options.report_path.empty()) {
    const absl::Status html = WriteFile(options.report_path, HtmlReport(*report));
    status.Update(html);
    if (html.ok()) {
      absl::StrAppend(&written, "\nReport:  ", options.report_path, "  (open it in a browser)\n");
    }
  }
  std::fputs((TerminalReport(*report, StyleOf(STDOUT_FILENO)) + written).c_str(), stdout);
  std::fflush(stdout);
  // Whatever its code, such as that of an EINVAL, it is not about an option.
  if (!status.ok()) return absl::UnavailableError(status.message());
  return WhetherMeasured(*report);
}

}  // namespace ringmaster::bench
