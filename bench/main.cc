// ringmaster-bench: measures how accepted connections reach the workers of a server.
//
// Exit status: 0 measured, 1 could not be measured (the reason is on stderr), 2 wrong options.

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_join.h"
#include "bench/compare.h"
#include "bench/demo.h"
#include "bench/workload.h"
#include "output/suggest.h"
#include "ringmaster/policy.h"

namespace {

constexpr int kCannotMeasure = 1;
constexpr int kWrongOptions = 2;

// A server and its clients need two descriptors for each connection. The usual soft limit is kept
// low only for the sake of programs that use select.
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

// A descriptor that the caller has closed would be given to a socket, and what is printed would go
// to a client. Reading from what only can be written to fails, and the other way round.
void OccupyStandardDescriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(fd, F_GETFD) >= 0) continue;
    // The lowest that is free, which is this one.
    if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

// Whether all that was printed has arrived: a report that a full disk has cut must not look whole.
int WithOutput(int status) {
  const bool flushed = std::fflush(stdout) == 0;
  if (flushed && std::ferror(stdout) == 0 && std::cout.flush()) return status;
  std::fprintf(stderr,
               "ringmaster-bench: the standard output could not be written, and what was printed "
               "is not whole; --json and --report write files\n");
  return status == 0 ? kCannotMeasure : status;
}

using ringmaster::bench::CompareOptions;
using ringmaster::bench::DemoOptions;

// CLI11 takes -1 for the largest number, and nothing at all for the name of a file.
std::string WhyNoSeed(const std::string& text) {
  uint64_t seed = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error == std::errc() && end == text.data() + text.size()) return "";
  return "a seed is a whole number from 0 to 18446744073709551615, not \"" + text + "\"";
}

std::string WhyNoFile(const std::string& text) {
  return text.empty() ? "the name of the file is empty" : "";
}

// What every command that measures takes.
template <typename Options>
void AddCommon(CLI::App& command, Options& options) {
  command.add_option("--transport", options.transport, "tcp or unix")
      ->type_name("NAME")
      ->capture_default_str();
  command.add_option("--workers", options.workers, "How many threads serve")->capture_default_str();
  command
      .add_option("--seed", options.seed,
                  "Seed of the order and the schedules; drawn at random and printed unless given")
      ->check(WhyNoSeed);
  command.add_option("--json", options.json_path, "Write the figures as JSON")
      ->check(WhyNoFile)
      ->type_name("FILE");
  command.add_option("--report", options.report_path, "Write the report as an HTML page")
      ->check(WhyNoFile)
      ->type_name("FILE.html");
}

void AddDemo(CLI::App& app, DemoOptions& options) {
  std::vector<std::string> policies;
  for (const std::string_view policy : ringmaster::PolicyNames()) policies.emplace_back(policy);
  CLI::App* demo = app.add_subcommand(
      "demo", "The same connections through EPOLLEXCLUSIVE and through ringmaster's policies");
  demo->add_option("--seconds", options.seconds, "Length of one measurement")
      ->capture_default_str();
  demo->add_option("--repetitions", options.repetitions,
                   "How often each measurement is made; interleaved with the others")
      ->capture_default_str();
  demo->add_option("--policies", options.policies, "Some of: " + absl::StrJoin(policies, ", "))
      ->delimiter(',')
      ->type_name("A,B")
      ->default_str(absl::StrJoin(options.policies, ","));
  demo->add_option("--workloads", options.workloads,
                   "Some of: " + absl::StrJoin(ringmaster::bench::WorkloadNames(), ", "))
      ->delimiter(',')
      ->type_name("A,B")
      ->default_str(absl::StrJoin(options.workloads, ","));
  AddCommon(*demo, options);
}

void AddCompare(CLI::App& app, CompareOptions& options, bool& list) {
  CLI::App* compare = app.add_subcommand(
      "compare", "Every mechanism side by side; takes a quarter of an hour unless told otherwise");
  compare->add_flag("--list", list,
                    "List the mechanisms and workloads; say what cannot run here, and why");
  compare
      ->add_option("--workload", options.workloads,
                   "Names with commas between them, or all; see --list")
      ->type_name("A,B")
      ->capture_default_str();
  compare
      ->add_option("--mechanisms", options.mechanisms,
                   "Names with commas between them, or all, rivals, ringmaster, direct; see "
                   "--list. Of ringmaster:POLICY/INTAKE/HANDOFF/HOST the last parts may be left "
                   "out")
      ->type_name("A,B")
      ->capture_default_str();
  compare->add_option("--repetitions", options.repetitions,
                      "How often each measurement is made, interleaved with the others; 9 unless "
                      "given. Fewer are not for quoting");
  compare->add_option("--seconds", options.seconds,
                      "Length of one measurement; chosen to fit a quarter of an hour unless given");
  compare->add_option("--rate", options.rate,
                      "Connections per second, in the workloads with a schedule");
  compare->add_option(
      "--hogs", options.hogs,
      "How many other processes compute all the time meanwhile, as on a machine that is shared");
  compare
      ->add_option("--connections", options.stay.connections,
                   "In stay, stay-unequal and mixed: how many clients stay")
      ->capture_default_str();
  compare
      ->add_option(
          "--opening-us", options.stay.opening_us,
          "In these three: time between the first connections of two clients; 0: all at once")
      ->capture_default_str();
  compare
      ->add_option(
          "--service", options.service,
          "In these three: what a request does, sleep (wait for something) or spin (compute)")
      ->type_name("NAME")
      ->capture_default_str();
  compare
      ->add_option("--service-us", options.stay.service_us,
                   "In these three: how long a request does so")
      ->capture_default_str();
  compare
      ->add_option("--think-us", options.stay.think_us,
                   "In these three: mean time between an answer and the next request")
      ->capture_default_str();
  compare->add_flag("--open-loop", options.stay.open_loop,
                    "In these three: requests follow a schedule that waits for no answer");
  compare->add_flag("--pin", options.pin,
                    "Run the server on one half of the processors and the clients on the other");
  AddCommon(*compare, options);
  compare->add_flag("--quick", options.quick,
                    "3 short repetitions for a first look; not for quoting");
}

// Prints the message, what may have been meant, and where to look; nothing else.
int ReportWrongOptions(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = &app;
  for (const CLI::App* chosen : app.get_subcommands()) command = chosen;
  std::string message = error.what();
  std::vector<std::string> known;
  for (const CLI::Option* option : command->get_options()) known.push_back(option->get_name());
  for (const CLI::App* sub : command->get_subcommands({})) known.push_back(sub->get_name());
  for (const std::string& extra : app.remaining(true)) {
    message += ringmaster::output::DidYouMean(extra.substr(0, extra.find('=')), known);
  }
  std::string path = "ringmaster-bench";
  if (command != &app) path += " " + command->get_name();
  std::fprintf(stderr, "ringmaster-bench: %s\nTry '%s --help'.\n", message.c_str(), path.c_str());
  return kWrongOptions;
}

}  // namespace

int main(int argc, char** argv) {
  OccupyStandardDescriptors();
  // A reader that leaves early must not take the files along: writing fails instead.
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app("Measures how accepted connections reach the workers of a server.",
               "ringmaster-bench");
  app.set_version_flag("--version", "ringmaster-bench " RINGMASTER_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  DemoOptions demo;
  CompareOptions compare;
  bool list = false;
  AddDemo(app, demo);
  AddCompare(app, compare, list);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return WithOutput(app.exit(error));
    return ReportWrongOptions(app, error);
  }
  if (list) return WithOutput(Report(ListComparison(compare)));
  RaiseDescriptorLimit();
  if (app.got_subcommand("demo")) return WithOutput(Report(RunDemo(demo)));
  return WithOutput(Report(RunComparison(compare)));
}
