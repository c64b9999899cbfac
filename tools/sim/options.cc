#include "options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "output/output_file.h"
#include "output/suggest.h"
#include "ringmaster/policy.h"

namespace ringmaster::simtool {
namespace {

constexpr uint32_t kWorkersMin = 2;
constexpr uint32_t kWorkersMax = 1024;
constexpr uint32_t kMastersMax = 16;
constexpr uint32_t kArrivalsMin = 100;
constexpr uint32_t kArrivalsMax = 20'000'000;
constexpr uint32_t kCapacityMax = 1'000'000;
constexpr uint32_t kWindowMax = 1024;
constexpr double kSecondUs = 1e6;

std::vector<std::string> KnownPolicies() {
  std::vector<std::string> names;
  for (const std::string_view name : PolicyNames()) names.emplace_back(name);
  return names;
}

template <typename Number>
struct Range {
  Number low;
  Number high;

  std::string Text() const { return absl::StrCat("from ", low, " to ", high); }
  bool Has(Number number) const { return number >= low && number <= high; }
};

// CLI11 takes -1 for the largest number, so numbers are read here. Nothing if it is none.
template <typename Number>
std::optional<Number> Read(const std::string& text) {
  Number number{};
  if constexpr (std::is_floating_point_v<Number>) {
    if (!absl::SimpleAtod(text, &number) || !std::isfinite(number)) return std::nullopt;
  } else {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  }
  return number;
}

// What is wrong with a number, or nothing; CLI11 puts the option before it.
template <typename Number>
std::string WhyNot(const std::string& text, const Range<Number>& range) {
  const std::optional<Number> number = Read<Number>(text);
  if (number.has_value() && range.Has(*number)) return "";
  return absl::StrCat("it must be a ", std::is_floating_point_v<Number> ? "" : "whole ", "number ",
                      range.Text(), ", not \"", text, "\"");
}

template <typename Number>
void AddNumber(CLI::App& app, const std::string& name, Number& value, Range<Number> range,
               const std::string& help) {
  app.add_option_function<std::string>(
         name, [&value](const std::string& text) { value = *Read<Number>(text); }, help)
      ->check([range](const std::string& text) { return WhyNot(text, range); })
      ->type_name(std::is_floating_point_v<Number> ? "X" : "N")
      ->default_str(absl::StrCat(value));
}

template <typename Number>
CLI::Option* AddNumbers(CLI::App& app, const std::string& name, std::vector<Number>& values,
                        Range<Number> range, const std::string& help) {
  return app
      .add_option_function<std::vector<std::string>>(
          name,
          [&values](const std::vector<std::string>& texts) {
            values.clear();
            for (const std::string& text : texts) values.push_back(*Read<Number>(text));
          },
          help)
      ->delimiter(',')
      ->check([range](const std::string& text) { return WhyNot(text, range); })
      ->type_name(std::is_floating_point_v<Number> ? "X,.." : "N,..")
      ->default_str(absl::StrJoin(values, ","));
}

// Times are told in the unit that suits, and kept in nanoseconds.
void AddTime(CLI::App& app, const std::string& name, int64_t& value_ns, double unit_ns,
             const std::string& help) {
  const Range<double> range{.low = 0, .high = kSecondUs};
  app.add_option_function<std::string>(
         name,
         [&value_ns, unit_ns](const std::string& text) {
           value_ns = std::llround(*Read<double>(text) * unit_ns);
         },
         help)
      ->check([range](const std::string& text) { return WhyNot(text, range); })
      ->type_name("X")
      ->default_str(absl::StrCat(static_cast<double>(value_ns) / unit_ns));
}

void AddFile(CLI::App& app, const std::string& name, std::string& path, const std::string& help) {
  app.add_option(name, path, help)->type_name("FILE")->check([](const std::string& text) {
    return text.empty() ? std::string("the name of the file is empty: give one") : std::string();
  });
}

// The parameters of a policy may have commas of their own: what is a number belongs to the name
// before it.
std::vector<std::string> JoinParameters(const std::vector<std::string>& parts) {
  std::vector<std::string> names;
  for (const std::string& part : parts) {
    if (!names.empty() && Read<uint64_t>(part).has_value()) {
      absl::StrAppend(&names.back(), ",", part);
    } else {
      names.push_back(part);
    }
  }
  return names;
}

// The same as options hold it, before the names are looked up.
struct Texts {
  std::vector<std::string> policies;
  std::vector<std::string> workloads = {"heavy-tail"};
  bool list = false;
};

// What is wrong with options that are fine one by one, or with names; empty if nothing is.
std::string Settle(const Texts& texts, Options& options) {
  options.policies = JoinParameters(texts.policies);
  if (options.policies.empty() || texts.policies == std::vector<std::string>{"all"}) {
    options.policies = KnownPolicies();
  }
  for (const std::string& policy : options.policies) {
    const absl::StatusOr<std::unique_ptr<Policy>> made = PolicyByName(policy);
    if (!made.ok()) return absl::StrCat("--policies: ", std::string(made.status().message()));
  }
  std::vector<std::string> workloads = texts.workloads;
  if (workloads == std::vector<std::string>{"all"}) workloads = WorkloadNames();
  for (const std::string& name : workloads) {
    absl::StatusOr<Workload> workload = FindWorkload(name);
    if (!workload.ok()) {
      return absl::StrCat("--workload: ", std::string(workload.status().message()));
    }
    options.workloads.push_back(*std::move(workload));
  }
  const std::string* const paths[] = {&options.csv_path, &options.json_path, &options.picture_path};
  for (const std::string* const path : paths) {
    for (const std::string* const other : paths) {
      if (path < other && !path->empty() && output::IsSameFile(*path, *other)) {
        return absl::StrCat("two files would be written to ", *path,
                            ", and the second would replace the first: give them different names");
      }
    }
  }
  return "";
}

void PrintList() {
  std::cout << "workloads (--workload):\n";
  for (const std::string& name : WorkloadNames()) {
    const absl::StatusOr<Workload> workload = FindWorkload(name);
    std::cout << "  " << name << std::string(14 - name.size(), ' ')
              << DescribeWorkload(*workload, Options().service_us) << '\n';
  }
  std::cout << "  trace:FILE    a CSV file whose first line names arrival and service with their "
               "units,\n"
               "                as in arrival_ms,service_us\n"
               "policies (--policies):\n";
  for (const std::string& name : KnownPolicies()) std::cout << "  " << name << '\n';
}

// As CLI11 tells it, with what may have been meant.
int Complain(const CLI::App& app, const std::string& what) {
  std::string message = what;
  std::vector<std::string> known;
  for (const CLI::Option* option : app.get_options()) known.push_back(option->get_name());
  for (const std::string& extra : app.remaining()) {
    message += output::DidYouMean(extra.substr(0, extra.find('=')), known);
  }
  std::cerr << "ringmaster-sim: " << message << "\nTry 'ringmaster-sim --help'.\n";
  return kWrongOptions;
}

void AddOptions(CLI::App& app, Options& options, Texts& texts, CLI::Option*& loads) {
  app.add_option("--policies", texts.policies,
                 "names with commas between them, each with its parameters if it takes some, or "
                 "all. The names: " +
                     absl::StrJoin(KnownPolicies(), ", "))
      ->delimiter(',')
      ->type_name("A,B")
      ->default_str("all");
  app.add_option("--workload", texts.workloads,
                 "names with commas between them, or all. The names: " +
                     absl::StrJoin(WorkloadNames(), ", ") +
                     "; or trace:FILE, a CSV file with the columns arrival_UNIT and service_UNIT, "
                     "where UNIT is s, ms, us or ns")
      ->delimiter(',')
      ->type_name("A,B")
      ->default_str(absl::StrJoin(texts.workloads, ","));
  AddNumbers<uint32_t>(app, "--workers", options.workers, {kWorkersMin, kWorkersMax},
                       "how many workers serve; several numbers are played one after the other");
  AddNumbers<uint32_t>(app, "--masters", options.masters, {1, kMastersMax},
                       "how many masters accept, each from a listener of its own");
  loads = AddNumbers<double>(app, "--load", options.loads, {0.01, 0.999},
                             "the load: what part of their time the workers are to be busy. A "
                             "trace is stretched to it, and without this option played as it is");
  AddNumber<uint32_t>(app, "--arrivals", options.arrivals, {kArrivalsMin, kArrivalsMax},
                      "how many requests come; each connection has one, with long-lived several");
  app.add_option_function<std::string>(
         "--capacity", [&](const std::string& text) { options.capacity = *Read<uint32_t>(text); },
         "WorkerOptions::capacity: how many connections a worker may have at once, offers "
         "included. 1: a worker that is busy is offered nothing. 0: no limit; then --window bounds "
         "how many wait behind one connection. A worker serves a connection to its end, in the "
         "callback of Claim, before it claims the next [default: 1; long-lived: 0]")
      ->type_name("N")
      ->check([](const std::string& text) {
        return WhyNot(text, Range<uint32_t>{.low = 0, .high = kCapacityMax});
      });
  AddNumber<uint32_t>(app, "--window", options.window, {1, kWindowMax},
                      "WorkerOptions::window: how many offers may wait unclaimed for a worker");
  AddNumber<double>(
      app, "--recall-after-ms", options.recall_after_ms, {0.1, 60'000},
      "after what time an unclaimed offer is recalled from a worker that does not move");
  AddNumber<double>(app, "--service-us", options.service_us, {0.1, 1e9},
                    "mean service time; a trace brings its own");
  AddNumber<double>(app, "--warm-up", options.warm_up, {0, 0.9},
                    "what part of the arrivals, at the start, is left out of the times");
  AddTime(app, "--wake-us", options.costs.wake_ns, 1e3,
          "cost: from an arrival or a knock until a master that sleeps runs");
  AddTime(app, "--doorbell-us", options.costs.doorbell_ns, 1e3,
          "cost: from a doorbell until a worker that sleeps runs");
  AddTime(app, "--turn-us", options.costs.turn_ns, 1e3, "cost: a turn of a master");
  AddTime(app, "--look-ns", options.costs.look_ns, 1,
          "cost: for each worker in each turn of a master");
  AddTime(app, "--operation-us", options.costs.operation_ns, 1e3,
          "cost: an operation of a master, such as an accept or a doorbell");
  AddNumber<uint64_t>(app, "--seed", options.seed, {0, UINT64_MAX},
                      "the same seed and the same options give the same figures");
  AddFile(app, "--csv", options.csv_path, "write the figures as CSV, times in microseconds");
  AddFile(app, "--json", options.json_path, "write the figures as JSON");
  AddFile(app, "--picture", options.picture_path,
          "write a picture (SVG): p99 by the number of workers if there are several numbers, "
          "otherwise by policy");
  app.add_flag("--list", texts.list, "list the workloads and policies");
}

}  // namespace

CommandLine ParseCommandLine(int argument_count, char** arguments) {
  CommandLine result;
  Texts texts;
  CLI::App app{
      "Plays a load in virtual time through the library's own engine and policies. Plays it\n"
      "beside that through the ideal: one queue for all, from which a free worker takes the\n"
      "first connection at once and at no cost. Shows how much longer than that they take.",
      "ringmaster-sim"};
  app.set_version_flag("--version", "ringmaster-sim " RINGMASTER_VERSION);
  app.get_formatter()->column_width(30);
  CLI::Option* loads = nullptr;
  AddOptions(app, result.options, texts, loads);
  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::ParseError& outcome) {
    const bool asked = outcome.get_exit_code() == 0;
    result.exit_status =
        asked ? app.exit(outcome, std::cout, std::cerr) : Complain(app, outcome.what());
    return result;
  }
  result.options.loads_given = !loads->empty();
  if (texts.list) {
    PrintList();
    result.exit_status = 0;
    return result;
  }
  if (const std::string complaint = Settle(texts, result.options); !complaint.empty()) {
    result.exit_status = Complain(app, complaint);
  }
  return result;
}

uint32_t CapacityFor(const Options& options, const Workload& workload) {
  const uint32_t suggested = workload.kind == sim::LoadKind::kLongLived ? 0 : 1;
  const uint32_t capacity = options.capacity.value_or(suggested);
  return capacity == 0 ? UINT32_MAX : capacity;
}

}  // namespace ringmaster::simtool
