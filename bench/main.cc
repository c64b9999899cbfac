// ringmaster-bench: measures how accepted connections reach the workers of a server.
//
// Exit status: 0 measured, 1 could not be measured (the reason is on stderr), 2 wrong options.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "bench/demo.h"
#include "bench/workload.h"
#include "ringmaster/policy.h"

namespace {

constexpr int kCannotMeasure = 1;
constexpr int kWrongOptions = 2;

// A server and its clients need two descriptors for each connection, and the usual soft limit is
// kept low only for the sake of programs that use select.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int Report(const absl::Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "ringmaster-bench: %s\n", std::string(status.message()).c_str());
  return absl::IsInvalidArgument(status) ? kWrongOptions : kCannotMeasure;
}

}  // namespace

int main(int argc, char** argv) {
  using ringmaster::bench::DemoOptions;

  CLI::App app("Measures how accepted connections reach the workers of a server.",
               "ringmaster-bench");
  app.set_version_flag("--version", "ringmaster-bench " RINGMASTER_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);

  DemoOptions options;
  uint64_t seed = 0;
  std::vector<std::string> policies;
  for (const std::string_view policy : ringmaster::PolicyNames()) policies.emplace_back(policy);
  CLI::App* demo = app.add_subcommand(
      "demo", "The same connections through EPOLLEXCLUSIVE and through ringmaster's policies");
  demo->add_option("--seconds", options.seconds, "Length of one measurement")
      ->capture_default_str();
  demo->add_option("--repetitions", options.repetitions, "Of each, interleaved")
      ->capture_default_str();
  demo->add_option("--report", options.report_path, "Write the report as an HTML page")
      ->type_name("FILE.html");
  demo->add_option("--json", options.json_path, "Write the figures as JSON")->type_name("FILE");
  demo->add_option("--policies", options.policies, "Some of: " + absl::StrJoin(policies, ", "))
      ->delimiter(',')
      ->type_name("A,B")
      ->default_str(absl::StrJoin(options.policies, ","));
  demo->add_option("--workloads", options.workloads,
                   "Some of: " + absl::StrJoin(ringmaster::bench::WorkloadNames(), ", "))
      ->delimiter(',')
      ->type_name("A,B")
      ->default_str(absl::StrJoin(options.workloads, ","));
  demo->add_option("--workers", options.workers, "Threads that serve")->capture_default_str();
  demo->add_option("--transport", options.transport, "tcp or unix")
      ->type_name("NAME")
      ->capture_default_str();
  CLI::Option* seed_option =
      demo->add_option("--seed", seed, "Of the order and the schedules; drawn unless given");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kWrongOptions;
  }
  if (seed_option->count() > 0) options.seed = seed;

  RaiseDescriptorLimit();
  return Report(ringmaster::bench::RunDemo(options));
}
