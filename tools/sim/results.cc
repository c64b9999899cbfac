#include "results.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "output/format.h"

namespace ringmaster::simtool {
namespace {

constexpr double kNsPerUs = 1e3;

std::string Time(double ns) { return output::FormatUs(ns / kNsPerUs); }
std::string Time(int64_t ns) { return Time(static_cast<double>(ns)); }

// As many columns of a terminal as `text` takes, whose only characters of several bytes are µ and
// ×.
size_t WidthOf(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

std::string Left(const std::string& text, size_t width) {
  return text + std::string(width - std::min(width, WidthOf(text)), ' ');
}
std::string Right(const std::string& text, size_t width) {
  return std::string(width - std::min(width, WidthOf(text)), ' ') + text;
}

struct Cell {
  const char* title;
  size_t width;
  std::string text;
};

// Of the machinery there is nothing to tell where there is none.
std::string OrDash(const Row& row, const std::string& text) { return row.ideal() ? "–" : text; }

std::vector<Cell> CellsOf(const Row& row) {
  return {
      {"mean", 9, Time(row.sojourn.mean_ns)},
      {"p50", 9, Time(row.sojourn.p50_ns)},
      {"p99", 9, Time(row.sojourn.p99_ns)},
      {"p99.9", 9, Time(row.sojourn.p999_ns)},
      {"max", 9, Time(row.sojourn.max_ns)},
      {"× ideal", 8, output::FormatFixed(row.p99_ratio, 3)},
      {"wait: mean", 11, Time(row.wait.mean_ns)},
      {"p99", 9, Time(row.wait.p99_ns)},
      {"max", 9, Time(row.wait.max_ns)},
      {"Jain", 6, output::FormatFixed(row.jain, 2)},
      {"recalled", 9, OrDash(row, output::FormatCount(static_cast<double>(row.recalled)))},
      {"doorbells", 10, OrDash(row, output::FormatFixed(row.doorbells, 2))},
      {"turns", 6, OrDash(row, output::FormatFixed(row.turns, 2))},
      {"busy", 6, OrDash(row, output::FormatShare(row.master_busy_share))},
      {"lost", 5, output::FormatCount(static_cast<double>(row.lost))},
  };
}

// One figure for programs; empty for the ideal if it is of the machinery.
struct Field {
  const char* name;
  nlohmann::ordered_json value;
};

std::vector<Field> FieldsOf(const Row& row) {
  using Json = nlohmann::ordered_json;
  const auto us = [](double ns) { return Json(ns / kNsPerUs); };
  const auto whole_us = [&us](int64_t ns) { return us(static_cast<double>(ns)); };
  const auto machinery = [&row](const Json& value) { return row.ideal() ? Json() : value; };
  return {
      {"workload", row.workload},
      {"workers", row.workers},
      {"load", row.load},
      {"policy", row.policy},
      {"masters", machinery(row.masters)},
      {"capacity", machinery(row.capacity == UINT32_MAX ? 0 : row.capacity)},  // 0: no limit
      {"requests", row.requests},
      {"connections", row.connections},
      {"sojourn_mean_us", us(row.sojourn.mean_ns)},
      {"sojourn_p50_us", whole_us(row.sojourn.p50_ns)},
      {"sojourn_p99_us", whole_us(row.sojourn.p99_ns)},
      {"sojourn_p999_us", whole_us(row.sojourn.p999_ns)},
      {"sojourn_max_us", whole_us(row.sojourn.max_ns)},
      {"p99_ratio_to_ideal", row.p99_ratio},
      {"wait_mean_us", us(row.wait.mean_ns)},
      {"wait_p50_us", whole_us(row.wait.p50_ns)},
      {"wait_p99_us", whole_us(row.wait.p99_ns)},
      {"wait_p999_us", whole_us(row.wait.p999_ns)},
      {"wait_max_us", whole_us(row.wait.max_ns)},
      {"jain", row.jain},
      {"recalled", machinery(row.recalled)},
      {"doorbells_per_connection", machinery(row.doorbells)},
      {"turns_per_connection", machinery(row.turns)},
      {"master_busy_share", machinery(row.master_busy_share)},
      {"lost", row.lost},
  };
}

std::string CsvText(const nlohmann::ordered_json& value) {
  if (value.is_null()) return "";
  if (!value.is_string()) return value.dump();
  const std::string text = value.get<std::string>();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

}  // namespace

std::string CapacityText(uint32_t capacity) {
  if (capacity == UINT32_MAX) return "no limit of connections at a worker";
  return absl::StrCat(capacity, capacity == 1 ? " connection" : " connections",
                      " at a time for each worker");
}

Table::Table(const Options& options) : options_(options), policy_width_(WidthOf(kIdeal)) {
  for (const std::string& policy : options.policies) {
    policy_width_ = std::max(policy_width_, WidthOf(policy));
  }
  with_masters_ = options.masters.size() > 1 || options.masters.front() > 1;
}

std::string Table::Intro() const {
  const sim::StudyCosts& costs = options_.costs;
  std::string text = absl::StrCat(
      "seed ", options_.seed, ", window ", options_.window, ", recalled after ",
      output::FormatUs(options_.recall_after_ms * 1e3), "; the first ",
      output::FormatShare(options_.warm_up), " of the arrivals are not in the times\n",
      "costs: a master that sleeps runs after ", Time(costs.wake_ns), ", a worker after ",
      Time(costs.doorbell_ns), "; a turn takes ", Time(costs.turn_ns), ", ", costs.look_ns,
      " ns for each worker, and ", Time(costs.operation_ns), " for each operation\n");
  for (const Workload& workload : options_.workloads) {
    absl::StrAppend(&text, workload.name, ": ", DescribeWorkload(workload, options_.service_us),
                    "; ", CapacityText(CapacityFor(options_, workload)), "\n");
  }
  return text;
}

std::string Table::Head(const Row& ideal) const {
  std::string text = absl::StrCat(
      "\n", ideal.workload, ", ", ideal.workers, " workers, load ",
      output::FormatFixed(ideal.load, 2), ", ",
      output::FormatCount(static_cast<double>(ideal.requests)), " requests",
      ideal.connections == ideal.requests
          ? ""
          : absl::StrCat(" of ", output::FormatCount(static_cast<double>(ideal.connections)),
                         " connections"),
      "\n", Left("policy", policy_width_), with_masters_ ? Right("masters", 9) : "");
  for (const Cell& cell : CellsOf(ideal)) text += Right(cell.title, cell.width + 1);
  return text + "\n";
}

std::string Table::Line(const Row& row) const {
  std::string text = Left(row.policy, policy_width_);
  if (with_masters_) text += Right(OrDash(row, absl::StrCat(row.masters)), 9);
  for (const Cell& cell : CellsOf(row)) text += Right(cell.text, cell.width + 1);
  return text + "\n";
}

std::string AsCsv(std::span<const Row> rows) {
  std::string text;
  for (const Row& row : rows) {
    const std::vector<Field> fields = FieldsOf(row);
    if (text.empty()) {
      text = absl::StrJoin(fields, ",",
                           [](std::string* out, const Field& field) { out->append(field.name); }) +
             "\n";
    }
    text += absl::StrJoin(
                fields, ",",
                [](std::string* out, const Field& field) { out->append(CsvText(field.value)); }) +
            "\n";
  }
  return text;
}

std::string AsJson(std::span<const Row> rows, const Options& options) {
  nlohmann::ordered_json json;
  json["options"] = {{"seed", options.seed},
                     {"service_us", options.service_us},
                     {"window", options.window},
                     {"recall_after_ms", options.recall_after_ms},
                     {"warm_up", options.warm_up},
                     {"wake_us", static_cast<double>(options.costs.wake_ns) / kNsPerUs},
                     {"doorbell_us", static_cast<double>(options.costs.doorbell_ns) / kNsPerUs},
                     {"turn_us", static_cast<double>(options.costs.turn_ns) / kNsPerUs},
                     {"look_ns", options.costs.look_ns},
                     {"operation_us", static_cast<double>(options.costs.operation_ns) / kNsPerUs}};
  json["rows"] = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    nlohmann::ordered_json object;
    for (Field& field : FieldsOf(row)) object[field.name] = std::move(field.value);
    json["rows"].push_back(std::move(object));
  }
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace ringmaster::simtool
