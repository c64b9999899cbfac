#include "bench/demo.h"

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "bench/measurement.h"
#include "output/format.h"

namespace ringmaster::bench {
namespace {

using output::FormatMinutes;

absl::StatusOr<Plan> PlanOf(const DemoOptions& options, uint64_t seed) {
  absl::StatusOr<Plan> plan = MakePlan({.seconds = options.seconds,
                                        .repetitions = options.repetitions,
                                        .workers = options.workers,
                                        .transport = options.transport},
                                       seed);
  if (!plan.ok()) return plan.status();
  std::vector<std::string> mechanisms = {"epoll-exclusive"};
  for (const std::string& policy : options.policies) {
    mechanisms.push_back(absl::StrCat("ringmaster:", policy));
  }
  if (absl::Status status = AddMechanisms(mechanisms, *plan); !status.ok()) return status;
  for (const auto& mechanism : plan->mechanisms) {
    // With nothing to compare there is nothing to show.
    if (const std::string why = plan->WhyNot(*mechanism); !why.empty()) {
      return absl::UnavailableError(why);
    }
  }
  if (absl::Status status = AddWorkloads(options.workloads, {}, *plan); !status.ok()) {
    return status;
  }
  return plan;
}

// The command that repeats the measurement, the program as it was called and the seed spelled out;
// where files were written to does not matter for that.
std::string CommandOf(const DemoOptions& options, uint64_t seed) {
  return absl::StrCat(program_invocation_name, " demo --seconds ", options.seconds,
                      " --repetitions ", options.repetitions, " --workers ", options.workers,
                      " --transport ", options.transport, " --policies ",
                      absl::StrJoin(options.policies, ","), " --workloads ",
                      absl::StrJoin(options.workloads, ","), " --seed ", seed);
}

}  // namespace

absl::Status RunDemo(const DemoOptions& given) {
  DemoOptions options = given;
  // "a, b" is what people write.
  for (std::vector<std::string>* const names : {&options.policies, &options.workloads}) {
    for (std::string& name : *names) absl::StripAsciiWhitespace(&name);
  }
  const absl::StatusOr<Plan> plan = ReadyPlan(options.seed, options.report_path, options.json_path,
                                              [&](uint64_t seed) { return PlanOf(options, seed); });
  if (!plan.ok()) return plan.status();
  std::printf("ringmaster-bench: %zu mechanisms, %zu workloads, %u repetitions, seed %llu\n",
              plan->mechanisms.size(), plan->workloads.size(), plan->repetitions,
              static_cast<unsigned long long>(plan->seed));
  for (const auto& mechanism : plan->mechanisms) {
    std::printf("  %-24s %s\n", mechanism->name().c_str(), mechanism->summary().c_str());
  }
  std::printf("About %s.\n\n", FormatMinutes(plan->ExpectedNs()).c_str());
  std::fflush(stdout);
  const absl::Status status = MeasureAndReport(*plan, {.command = CommandOf(options, plan->seed),
                                                       .report_path = options.report_path,
                                                       .json_path = options.json_path});
  if (!status.ok()) return status;
  std::printf(
      "\nWhat to try next:\n"
      "  build/tools/echo/ringmaster-echo --help              a server to use it with\n"
      "  build/bench/ringmaster-bench demo --seconds 5        longer windows, steadier figures\n"
      "  build/bench/ringmaster-bench demo --workloads mixed  newcomers beside those that stay\n"
      "  build/bench/ringmaster-bench demo --transport unix   the same without TCP\n"
      "  build/bench/ringmaster-bench compare --list          every rival there is\n");
  std::fflush(stdout);
  return absl::OkStatus();
}

}  // namespace ringmaster::bench
