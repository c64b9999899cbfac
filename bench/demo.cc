#include "bench/demo.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "bench/format.h"
#include "bench/html_report.h"
#include "bench/report.h"
#include "bench/runner.h"

namespace ringmaster::bench {
namespace {

constexpr double kSecondsMin = 0.1;
constexpr double kSecondsMax = 60;
constexpr uint32_t kRepetitionsMax = 99;
constexpr int kProgressCells = 20;

// "6.18.44" of "6.18.44-1-amd64": what follows the numbers is the distribution's.
std::string KernelRelease() {
  utsname name{};
  uname(&name);
  const std::string release = name.release;
  size_t end = 0;
  while (end < release.size() &&
         (std::isdigit(static_cast<unsigned char>(release[end])) != 0 || release[end] == '.')) {
    ++end;
  }
  return release.substr(0, end);
}

absl::StatusOr<Plan> MakePlan(const DemoOptions& options, uint64_t seed) {
  if (!(options.seconds >= kSecondsMin && options.seconds <= kSecondsMax)) {
    return absl::InvalidArgumentError(
        absl::StrCat("a window lasts ", kSecondsMin, " to ", kSecondsMax, " seconds"));
  }
  if (options.repetitions < 1 || options.repetitions > kRepetitionsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are 1 to ", kRepetitionsMax, " repetitions"));
  }
  if (options.workers < 1 || options.workers > kWorkersMax) {
    return absl::InvalidArgumentError(absl::StrCat("there are 1 to ", kWorkersMax, " workers"));
  }
  Plan plan;
  plan.repetitions = options.repetitions;
  plan.workers = options.workers;
  plan.duration_ns = std::llround(options.seconds * kSecond);
  plan.seed = seed;
  if (options.transport == "unix") {
    plan.transport = Transport::kUnix;
  } else if (options.transport != "tcp") {
    return absl::InvalidArgumentError("the transport is tcp or unix");
  }
  std::vector<std::string> mechanisms = {"epoll-exclusive"};
  for (const std::string& policy : options.policies) {
    mechanisms.push_back(absl::StrCat("ringmaster:", policy));
  }
  for (const std::string& name : mechanisms) {
    absl::StatusOr<std::unique_ptr<Mechanism>> mechanism = MakeMechanism(name);
    if (!mechanism.ok()) return mechanism.status();
    plan.mechanisms.push_back(*std::move(mechanism));
  }
  for (const std::string& name : options.workloads) {
    absl::StatusOr<std::unique_ptr<Workload>> workload = MakeWorkload(name);
    if (!workload.ok()) return workload.status();
    plan.workloads.push_back(*std::move(workload));
  }
  return plan;
}

// The command that repeats the measurement, the seed spelled out; where files were written to does
// not matter for that.
std::string CommandOf(const DemoOptions& options, uint64_t seed) {
  return absl::StrCat("ringmaster-bench demo --seconds ", options.seconds, " --repetitions ",
                      options.repetitions, " --workers ", options.workers, " --transport ",
                      options.transport, " --policies ", absl::StrJoin(options.policies, ","),
                      " --workloads ", absl::StrJoin(options.workloads, ","), " --seed ", seed);
}

// One line that is always up to date on a terminal; elsewhere, one line for each run.
class ProgressLine {
 public:
  ProgressLine() : terminal_(isatty(STDERR_FILENO) == 1), style_(StyleOf(STDERR_FILENO)) {}
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() {
    // Clears the line, which the result follows.
    if (terminal_) std::fputs("\r\033[K", stderr);
  }

  void Show(const Progress& progress) {
    if (!terminal_ && told_ == progress.run + 1) return;
    told_ = progress.run + 1;
    std::string line =
        absl::StrFormat("%3d/%d  %s elapsed, %s left", progress.run + 1, progress.run_count,
                        FormatMinutes(progress.elapsed_ns), FormatMinutes(progress.remaining_ns));
    if (terminal_) absl::StrAppend(&line, "  ", Bar(progress));
    absl::StrAppend(&line, "  ", progress.workload, ", ", progress.mechanism);
    if (terminal_) {
      std::fprintf(stderr, "\r%s\033[K", Cut(line).c_str());
    } else {
      std::fprintf(stderr, "%s\n", line.c_str());
    }
    std::fflush(stderr);
  }

 private:
  std::string Bar(const Progress& progress) const {
    const double whole = static_cast<double>(progress.elapsed_ns + progress.remaining_ns);
    const double part = whole > 0 ? static_cast<double>(progress.elapsed_ns) / whole : 0;
    std::string bar;
    for (int i = 0; i < kProgressCells; ++i) {
      const bool done = i < part * kProgressCells;
      bar += style_.utf8 ? (done ? "━" : "┄") : (done ? "=" : ".");
    }
    return bar;
  }

  // To the terminal's width: a line that wraps could not be overwritten.
  std::string Cut(const std::string& line) const {
    int columns = 0;
    size_t end = 0;
    for (; end < line.size(); ++end) {
      if ((line[end] & 0xc0) != 0x80 && ++columns >= style_.columns) break;
    }
    return line.substr(0, end);
  }

  const bool terminal_;
  const TerminalStyle style_;
  size_t told_ = 0;
};

// Makes the folder of a file that is to be written, and finds out whether it can be; what is in the
// file stays for now.
absl::Status PrepareFile(const std::string& path) {
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  if (!std::ofstream(path, std::ios::app)) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  }
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file.fail()) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunDemo(const DemoOptions& options) {
  uint64_t seed = options.seed.value_or(0);
  if (!options.seed.has_value()) seed = std::random_device()();
  absl::StatusOr<Plan> plan = MakePlan(options, seed);
  if (!plan.ok()) return plan.status();
  // Before a minute of measuring, not after it.
  for (const std::string& path : {options.report_path, options.json_path}) {
    if (path.empty()) continue;
    if (absl::Status status = PrepareFile(path); !status.ok()) return status;
  }
  std::printf("ringmaster-bench: %zu mechanisms, %zu workloads, %u repetitions, seed %llu\n",
              plan->mechanisms.size(), plan->workloads.size(), plan->repetitions,
              static_cast<unsigned long long>(seed));
  for (const auto& mechanism : plan->mechanisms) {
    std::printf("  %-24s %s\n", mechanism->name().c_str(), mechanism->summary().c_str());
  }
  std::printf("About %s.\n\n", FormatMinutes(plan->ExpectedNs()).c_str());
  std::fflush(stdout);

  double load_before = 0;
  getloadavg(&load_before, 1);
  Report report;
  {
    ProgressLine line;
    absl::StatusOr<std::vector<Result>> results =
        RunPlan(*plan, [&](const Progress& progress) { line.Show(progress); });
    if (!results.ok()) {
      // Whatever its code, such as that of an EINVAL, it is not about an option.
      return absl::UnavailableError(results.status().message());
    }
    report.results = *std::move(results);
  }
  report.workloads = TextsOf(*plan);
  report.context = {
      .program = absl::StrCat("ringmaster-bench ", RINGMASTER_VERSION),
      .date = absl::FormatTime("%Y-%m-%d %H:%M UTC", absl::Now(), absl::UTCTimeZone()),
      .kernel = KernelRelease(),
      .cpus = std::thread::hardware_concurrency(),
      .liburing = LIBURING_VERSION,
      .command = CommandOf(options, seed),
      .seed = seed,
      .seconds = options.seconds,
      .warm_up_seconds = static_cast<double>(plan->warm_up_ns) / kSecond,
      .load_before = load_before,
  };
  std::fputs(TerminalReport(report, StyleOf(STDOUT_FILENO)).c_str(), stdout);
  if (!options.json_path.empty()) {
    if (absl::Status status = WriteFile(options.json_path, JsonReport(report)); !status.ok()) {
      return status;
    }
    std::printf("\nFigures: %s\n", options.json_path.c_str());
  }
  if (!options.report_path.empty()) {
    if (absl::Status status = WriteFile(options.report_path, HtmlReport(report)); !status.ok()) {
      return status;
    }
    std::printf("\nReport:  %s  (open it in a browser)\n", options.report_path.c_str());
  }
  std::printf(
      "\nWhat to try next:\n"
      "  build/tools/echo/ringmaster-echo --help            a server to use it with\n"
      "  build/bench/ringmaster-bench demo --seconds 5      longer windows, steadier figures\n"
      "  build/bench/ringmaster-bench demo --transport unix the same without TCP\n");
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace ringmaster::bench
