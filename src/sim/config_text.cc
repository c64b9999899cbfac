// A configuration as text and back. One list of fields serves both directions.

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "sim/config.h"

namespace ringmaster::sim {
namespace {

template <typename Config, typename Visitor>
void VisitSource(Config& source, Visitor& visit) {
  visit("policy", source.policy);
  visit("master", source.master);
  visit("multishot", source.multishot_accept);
  visit("hold", source.hold);
  visit("recall", source.recall);
  visit("readiness", source.readiness);
  visit("countable", source.countable);
  visit("capacity", source.capacity);
  visit("age_max_ns", source.age_max_ns);
  visit("tells_age", source.tells_age);
  visit("backlog_max", source.backlog_max);
  visit("start_workers", source.start_workers);
  visit("local", source.local);
  visit("nobody_of_8", source.nobody_of_8);
  visit("strict", source.strict);
  visit("aimed", source.aimed);
}

template <typename Config, typename Visitor>
void VisitWorker(Config& worker, Visitor& visit) {
  visit("completions", worker.completions);
  visit("took_first", worker.took_first);
  visit("adopts_of_8", worker.adopts_of_8);
  visit("table", worker.table);
  visit("capacity", worker.capacity);
  visit("window", worker.window);
  visit("cpu", worker.cpu);
  visit("sources", worker.sources);
  visit("joins_at_ns", worker.joins_at_ns);
  visit("hints", worker.hints);
  visit("works_of_8", worker.works_of_8);
  visit("sight", worker.sight);
  visit("level", worker.level);
}

template <typename Config, typename Visitor>
void VisitNumbers(Config& config, Visitor& visit) {
  visit("seed", config.seed);
  visit("course", config.course);
  visit("masters", config.masters);
  visit("hosted", config.hosted);
  visit("host_steps", config.host_steps_max);
  visit("recall_after_ns", config.recall_after_ns);
  visit("capacity", config.capacity);
  visit("cq", config.completion_entries);
  visit("per_turn", config.completions_max);
  visit("told", config.entries_told);
  visit("keeps_back", config.keeps_back);
  visit("slots", config.slots);
  visit("descriptors_max", config.descriptors_max);
  visit("strikes_max", config.strikes_max);
  visit("defers_task_work", config.defers_task_work);
  visit("accepts_at_reap", config.accepts_at_reap);
  visit("tick_ns", config.tick_ns);
  visit("turn_ns_max", config.turn_ns_max);
  visit("wake_ns_max", config.wake_ns_max);
  visit("shuts_down", config.shuts_down);
  visit("shutdown_drain_ns", config.shutdown_drain_ns);
  visit("arrivals", config.workload.arrivals);
  visit("gap_ns", config.workload.gap_ns_mean);
  visit("burst_n", config.workload.burst.n);
  visit("burst_of", config.workload.burst.of);
  visit("burst_max", config.workload.burst_max);
  visit("flood_of_16", config.workload.flood_of_16);
  visit("service_ns", config.workload.service_ns_mean);
  visit("lease_ns", config.workload.lease_ns_mean);
}

std::string ToText(const std::string& text) { return text; }
std::string ToText(bool value) { return value ? "1" : "0"; }
template <typename Number>
std::string ToText(Number number) {
  return std::to_string(number);
}

bool FromText(std::string_view text, std::string& value) {
  value = std::string(text);
  return !text.empty();
}
template <typename Number>
bool FromText(std::string_view text, Number& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}
bool FromText(std::string_view text, bool& value) {
  value = text == "1";
  return value || text == "0";
}

// Collects names and values.
struct Lister {
  std::vector<std::pair<std::string_view, std::string>> fields;
  template <typename Value>
  void operator()(std::string_view name, const Value& value) {
    fields.emplace_back(name, ToText(value));
  }
};

// Sets the field of that name.
struct Setter {
  std::string_view name;
  std::string_view text;
  bool done = false;
  template <typename Value>
  void operator()(std::string_view field, Value& value) {
    if (field == name) done = FromText(text, value);
  }
};

// Appends the fields that differ from the defaults: the name, `equals` and the value, with
// `separator` before each but the first.
void Append(const Lister& given, const Lister& by_default, char equals, char separator,
            std::string& text) {
  bool first = true;
  for (size_t i = 0; i < given.fields.size(); ++i) {
    const auto& [name, value] = given.fields[i];
    if (value == by_default.fields[i].second) continue;
    if (!std::exchange(first, false)) text += separator;
    text.append(name).append(1, equals).append(value);
  }
}

// The text before the first `separator`; `rest` is what follows it.
std::string_view Cut(std::string_view& rest, char separator) {
  const size_t end = rest.find(separator);
  const std::string_view word = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
  return word;
}

template <typename Config, typename Visit>
bool ParseFields(std::string_view rest, Config& config, Visit visit_all) {
  while (!rest.empty()) {
    Setter setter;
    setter.text = Cut(rest, '/');
    setter.name = Cut(setter.text, ':');
    visit_all(config, setter);
    if (!setter.done) return false;
  }
  return true;
}

bool ParseFaults(std::string_view rest, FaultPlan& plan) {
  while (!rest.empty()) {
    std::string_view value = Cut(rest, ',');
    const std::string_view name = Cut(value, ':');
    bool known = false;
    for (size_t i = 0; i < kFaultCount; ++i) {
      if (kFaultNames[i] != name) continue;
      const std::string_view n = Cut(value, '/');
      known = FromText(n, plan.ratios[i].n) && FromText(value, plan.ratios[i].of) &&
              plan.ratios[i].of > 0;
    }
    if (!known) return false;
  }
  return true;
}

bool ParseWord(std::string_view word, SimConfig& config) {
  Setter setter;
  setter.text = word;
  setter.name = Cut(setter.text, '=');
  if (setter.name == "source") {
    return ParseFields(setter.text, config.sources.emplace_back(),
                       [](auto& source, auto& visit) { VisitSource(source, visit); });
  }
  if (setter.name == "worker") {
    return ParseFields(setter.text, config.workers.emplace_back(),
                       [](auto& worker, auto& visit) { VisitWorker(worker, visit); });
  }
  if (setter.name == "faults") return ParseFaults(setter.text, config.faults);
  VisitNumbers(config, setter);
  return setter.done;
}

// Checks what a run relies on.
bool Sound(const SimConfig& config) {
  bool sound = !config.sources.empty() && config.masters > 0 && config.masters <= 16 &&
               config.completion_entries > 0 && config.completions_max > 0 &&
               config.recall_after_ns > 0 && config.tick_ns >= 0 && config.workload.burst.of > 0 &&
               config.workload.burst_max > 0;
  if (config.hosted) {
    sound &= config.host_steps_max > 0 && config.masters == 1 && !config.workers.empty() &&
             !config.workers[0].completions && config.workers[0].joins_at_ns == 0;
  }
  for (const SimWorkerConfig& worker : config.workers) {
    sound &= worker.window > 0 && worker.window <= 512 && worker.capacity > 0;
    sound &= !worker.sight || (worker.hints && !worker.completions);
    sound &= worker.table == 0 || (worker.completions && !config.hosted && config.slots > 0);
  }
  for (const SimSourceConfig& source : config.sources) {
    sound &= !source.multishot_accept || source.hold > 0;
    sound &= !source.readiness || (!source.multishot_accept && source.age_max_ns == 0);
    sound &= !source.aimed ||
             (!source.multishot_accept && !source.readiness && !source.local && !config.hosted);
    sound &= source.age_max_ns >= 0 && source.backlog_max > 0 && source.nobody_of_8 <= 8 &&
             source.start_workers > 0;
  }
  return sound;
}

}  // namespace

std::string Describe(const SimConfig& config) {
  const SimConfig defaults;
  const SimSourceConfig default_source;
  const SimWorkerConfig default_worker;
  std::string text;
  Lister given;
  Lister by_default;
  VisitNumbers(config, given);
  VisitNumbers(defaults, by_default);
  by_default.fields[0].second.clear();  // the seed is always told
  Append(given, by_default, '=', ' ', text);
  for (const SimSourceConfig& source : config.sources) {
    Lister fields;
    Lister default_fields;
    VisitSource(source, fields);
    VisitSource(default_source, default_fields);
    default_fields.fields[0].second.clear();  // and so are policies
    text += " source=";
    Append(fields, default_fields, ':', '/', text);
  }
  for (const SimWorkerConfig& worker : config.workers) {
    Lister fields;
    Lister default_fields;
    VisitWorker(worker, fields);
    VisitWorker(default_worker, default_fields);
    text += " worker=";
    Append(fields, default_fields, ':', '/', text);
  }
  const char* separator = " faults=";
  for (size_t i = 0; i < kFaultCount; ++i) {
    const Ratio ratio = config.faults.ratios[i];
    if (ratio.n == 0) continue;
    text.append(separator).append(kFaultNames[i]).append(":").append(std::to_string(ratio.n));
    text.append("/").append(std::to_string(ratio.of));
    separator = ",";
  }
  return text;
}

absl::StatusOr<SimConfig> ParseConfig(std::string_view text) {
  SimConfig config;
  while (!text.empty()) {
    const std::string_view word = Cut(text, ' ');
    if (!word.empty() && !ParseWord(word, config)) {
      return absl::InvalidArgumentError("a simulated world has no \"" + std::string(word) + "\"");
    }
  }
  if (!Sound(config)) {
    return absl::InvalidArgumentError(
        "a simulated world needs a source, 1 to 16 masters, recall_after_ns, and windows, "
        "capacities, queues and holds above zero; a host is the first worker, has an inbox and "
        "is there from the beginning, and has one master; who watches a sight has an inbox and "
        "gives hints; who has a file table gets completions, without a host; an aimed source is a "
        "TCP listener that is polled");
  }
  return config;
}

}  // namespace ringmaster::sim
