#include "workload.h"

#include <cerrno>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "output/format.h"
#include "output/suggest.h"

namespace ringmaster::simtool {
namespace {

using sim::LoadKind;

constexpr char kTrace[] = "trace:";

constexpr std::pair<const char*, LoadKind> kKinds[] = {
    {"poisson", LoadKind::kPoisson},      {"bursts", LoadKind::kBursts},
    {"heavy-tail", LoadKind::kHeavyTail}, {"one-slow", LoadKind::kOneSlow},
    {"one-dead", LoadKind::kOneDead},     {"long-lived", LoadKind::kLongLived},
};

// A column of a trace: which one it is, and how many nanoseconds its unit has.
struct Column {
  size_t index = 0;
  double unit_ns = 0;
};

// Zero: there is no such unit.
double NsOf(absl::string_view unit) {
  if (unit == "s") return 1e9;
  if (unit == "ms") return 1e6;
  if (unit == "us") return 1e3;
  return unit == "ns" ? 1 : 0;
}

absl::Status Complaint(const std::string& where, size_t line, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ", line ", line, ": ", what));
}

absl::StatusOr<Column> FindColumn(const std::vector<std::string>& names, const std::string& name,
                                  const std::string& where) {
  for (size_t i = 0; i < names.size(); ++i) {
    if (!absl::StartsWith(names[i], name + "_")) continue;
    const double unit_ns = NsOf(absl::string_view(names[i]).substr(name.size() + 1));
    if (unit_ns == 0) {
      return Complaint(
          where, 1,
          absl::StrCat("the unit of \"", names[i],
                       "\" is unknown: it must be s, ms, us or ns, as in ", name, "_us"));
    }
    return Column{.index = i, .unit_ns = unit_ns};
  }
  return Complaint(where, 1,
                   absl::StrCat("no column says when or how long: begin the file with a line that "
                                "names the columns and their units, as in arrival_ms,service_us; "
                                "missing is ",
                                name));
}

// Nothing if it is no such number.
std::optional<int64_t> Field(const std::vector<std::string>& fields, const Column& column) {
  double value = 0;
  if (column.index >= fields.size() || !absl::SimpleAtod(fields[column.index], &value)) return {};
  value *= column.unit_ns;
  // A century is more than anybody records, and far from what would overflow.
  if (!(value >= 0 && value < 3e18)) return {};
  return std::llround(value);
}

std::vector<std::string> FieldsOf(absl::string_view line) {
  std::vector<std::string> fields = absl::StrSplit(line, ',');
  for (std::string& field : fields) absl::StripAsciiWhitespace(&field);
  return fields;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad() || !file.is_open()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the trace \"", path, "\" cannot be read: ", std::generic_category().message(errno),
        "; give the path of a CSV file"));
  }
  return text;
}

}  // namespace

absl::StatusOr<Workload> FindWorkload(const std::string& name) {
  if (absl::StartsWith(name, kTrace)) {
    const std::string path = name.substr(sizeof(kTrace) - 1);
    const absl::StatusOr<std::string> text = ReadFile(path);
    if (!text.ok()) return text.status();
    absl::StatusOr<std::vector<sim::TracedArrival>> trace = ParseTrace(*text, path);
    if (!trace.ok()) return trace.status();
    return Workload{.name = name, .trace = *std::move(trace)};
  }
  for (const auto& [known, kind] : kKinds) {
    if (name == known) return Workload{.name = name, .kind = kind};
  }
  const std::vector<std::string> names = WorkloadNames();
  const std::string guess = output::DidYouMean(name, names);
  return absl::InvalidArgumentError(absl::StrCat(
      "there is no workload \"", name, "\"", guess.empty() ? "." : guess, " Known are ",
      absl::StrJoin(names, ", "), " and trace:FILE; --list says what they are"));
}

std::vector<std::string> WorkloadNames() {
  std::vector<std::string> names;
  for (const auto& [name, kind] : kKinds) names.emplace_back(name);
  return names;
}

std::string DescribeWorkload(const Workload& workload, double service_us) {
  if (!workload.kind.has_value()) {
    return absl::StrCat("recorded, ",
                        output::FormatCount(static_cast<double>(workload.trace.size())),
                        " connections");
  }
  const std::string mean = output::FormatUs(service_us);
  const std::string exponential =
      absl::StrCat("independent arrivals, exponential service times, ", mean, " on average");
  switch (*workload.kind) {
    case LoadKind::kPoisson:
      return exponential;
    case LoadKind::kBursts:
      return absl::StrCat("bursts of ", sim::kBurstPerWorker,
                          " connections for each worker at once, the bursts independent; "
                          "exponential service times, ",
                          mean, " on average");
    case LoadKind::kHeavyTail: {
      const double shortest_us = sim::TailShortest(service_us);
      return absl::StrCat(
          "independent arrivals, service times by a bounded Pareto distribution: "
          "shape ",
          sim::kTailShape, ", ", output::FormatUs(shortest_us), " to ",
          output::FormatUs(shortest_us * sim::kTailSpread), ", ", mean, " on average");
    }
    case LoadKind::kOneSlow:
      return absl::StrCat(exponential, "; worker 0 needs ", sim::kSlowFactor, " times as long");
    case LoadKind::kOneDead:
      return absl::StrCat(exponential, "; worker 0 takes nothing more after ",
                          output::FormatShare(sim::kDiesAfter), " of them");
    case LoadKind::kLongLived:
      return absl::StrCat("connections of ", sim::kRequestsMean, " requests on average, ",
                          sim::kOpenMean,
                          " open for each worker, which stay with it; figures are of requests, "
                          "exponential service times, ",
                          mean, " on average");
  }
  return "";
}

absl::StatusOr<std::vector<sim::TracedArrival>> ParseTrace(const std::string& text,
                                                           const std::string& where) {
  const std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  const std::vector<std::string> names = FieldsOf(lines.front());
  const absl::StatusOr<Column> arrival = FindColumn(names, "arrival", where);
  if (!arrival.ok()) return arrival.status();
  const absl::StatusOr<Column> service = FindColumn(names, "service", where);
  if (!service.ok()) return service.status();
  std::vector<sim::TracedArrival> trace;
  for (size_t i = 1; i < lines.size(); ++i) {
    if (absl::StripAsciiWhitespace(lines[i]).empty()) continue;
    const std::vector<std::string> fields = FieldsOf(lines[i]);
    const std::optional<int64_t> at_ns = Field(fields, *arrival);
    const std::optional<int64_t> service_ns = Field(fields, *service);
    if (!at_ns.has_value() || !service_ns.has_value()) {
      return Complaint(where, i + 1,
                       absl::StrCat("the ", at_ns.has_value() ? "service" : "arrival",
                                    " time is not a number from 0 on; correct or remove the line"));
    }
    trace.push_back({.at_ns = *at_ns, .service_ns = *service_ns});
  }
  if (trace.empty()) return Complaint(where, 1, "no arrival follows; a trace needs at least one");
  return trace;
}

}  // namespace ringmaster::simtool
