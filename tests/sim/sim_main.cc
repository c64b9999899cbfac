// Runs simulated worlds.
//
//   ringmaster_sim_seeds [--from A] [--count N] [--seeds FILE]   a range, FILE's worlds before it
//   ringmaster_sim_seeds --seed S [--trace] [--shrink]           one, and what happens in it
//   ringmaster_sim_seeds --config TEXT [--trace] [--shrink]      the same of a world written down
//   ringmaster_sim_seeds --trace-hash [--from A] [--count N]     what happens in each, as a number
//
// Each line of FILE begins with a seed or is a configuration, as it is printed of a world that
// fails. Without a range it runs as many as fit the build: fewer under a sanitizer. Ends with what
// the runs have reached; a large set that misses a fault or a state fails, because it has not
// tested it.
//
// --shrink makes a world that fails small and prints it with its trace; the first failures of a
// range are shrunk anyway.
//
// --trace-hash shows whether a change of the code changes what it does. It prints one line for each
// world, with the seed and the hash of its trace, and one for all of them together. Two builds that
// behave alike print the same lines; where they do not, the first line that differs names a seed
// whose traces to compare.

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "sim/config.h"
#include "sim/shrink.h"
#include "sim/simulation.h"

namespace ringmaster::sim {
namespace {

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define RINGMASTER_SIM_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define RINGMASTER_SIM_SANITIZED 1
#endif

#ifdef RINGMASTER_SIM_SANITIZED
constexpr uint64_t kSeedsByDefault = 10'000;
#else
constexpr uint64_t kSeedsByDefault = 20'000;
#endif
// A smaller set need not reach everything: some states take several rare things to come together.
constexpr uint64_t kSeedsToReachAll = 20'000;
constexpr uint32_t kFailuresMax = 10;
constexpr uint32_t kShrunkMax = 2;

// An engine that breaks an invariant of its own aborts; the world, and its trace if there is one,
// must be known then.
std::string current_world;
std::string current_trace;
void OnAbort(int) {
  for (const std::string* text : {&current_trace, &current_world}) {
    const ssize_t written = write(STDERR_FILENO, text->data(), text->size());
    static_cast<void>(written);
  }
}

struct Totals {
  uint64_t runs = 0;
  uint64_t failures = 0;
  Counters counters;
  std::array<uint64_t, kFaultCount> planned{};  // runs that had the fault in their plan
  std::array<uint64_t, kFaultCount> struck{};   // runs in which it struck
  std::array<uint64_t, kMilestoneCount> reached{};
};

void Add(const Outcome& outcome, Totals& totals) {
  ++totals.runs;
  totals.counters.batches += outcome.counters.batches;
  totals.counters.events += outcome.counters.events;
  for (size_t i = 0; i < kFaultCount; ++i) {
    totals.counters.faults[i] += outcome.counters.faults[i];
    totals.planned[i] += outcome.faults.ratios[i].n > 0;
    totals.struck[i] += outcome.counters.faults[i] > 0;
  }
  for (size_t i = 0; i < kMilestoneCount; ++i) {
    totals.counters.milestones[i] += outcome.counters.milestones[i];
    totals.reached[i] += outcome.counters.milestones[i] > 0;
  }
}

// Does `work` in a process of its own, because a world that breaks an invariant of the engine ends
// its process. Returns what `work` returns; nothing if it ended otherwise, and in `said` what the
// process said first.
std::optional<std::string> Apart(const std::function<std::string()>& work, std::string& said) {
  int ends[2];
  if (pipe(ends) != 0) return work();
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);
    dup2(ends[1], STDERR_FILENO);
    const std::string text = work();
    _exit(write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char bytes[4096];
  for (ssize_t size; (size = read(ends[0], bytes, sizeof(bytes))) > 0;) {
    text.append(bytes, static_cast<size_t>(size));
  }
  close(ends[0]);
  int status = 1;
  waitpid(child, &status, 0);
  if (status == 0) return text;
  said = text.substr(0, text.find('\n'));
  return std::nullopt;
}

Outcome RunApart(const SimConfig& config) {
  Outcome outcome;
  const auto run = [&config] {
    const Outcome inner = RunSimulation(config);
    return std::to_string(inner.counters.events) + " " + std::to_string(inner.counters.strikes) +
           " " + inner.failure;
  };
  const std::optional<std::string> told = Apart(run, outcome.failure);
  if (!told.has_value()) return outcome;
  std::istringstream words(*told);
  words >> outcome.counters.events >> outcome.counters.strikes;
  words.get();
  std::getline(words, outcome.failure);
  outcome.ok = outcome.failure.empty();
  return outcome;
}

// All runs of it in one process as long as none ends it; otherwise each in its own, and fewer.
SimConfig ShrinkApart(const SimConfig& config, const Outcome& outcome) {
  std::string said;
  const auto shrink = [&] {
    const auto run = [](const SimConfig& candidate) { return RunSimulation(candidate); };
    return Describe(Shrink(config, outcome, run).config);
  };
  const std::optional<std::string> text = Apart(shrink, said);
  if (text.has_value()) return ParseConfig(*text).value();
  return Shrink(config, outcome, RunApart, {.runs_max = 4'000}).config;
}

int RunOne(const SimConfig& config, bool trace) {
  current_world = "aborted in " + Describe(config) + "\n";
  current_trace.clear();
  std::printf("%s\n", Describe(config).c_str());
  std::fflush(stdout);
  const Outcome outcome = RunSimulation(config, Breakage::kNone, trace ? &current_trace : nullptr);
  std::printf("%s%s after %lld ns, trace %016llx\n", current_trace.c_str(),
              outcome.ok ? "passed" : outcome.failure.c_str(),
              static_cast<long long>(outcome.lasted_ns),
              static_cast<unsigned long long>(outcome.trace_hash));
  std::fflush(stdout);
  current_trace.clear();
  return outcome.ok ? 0 : 1;
}

// Ends with the trace of the small world.
int ShrinkOne(const SimConfig& config) {
  const Outcome outcome = RunApart(config);
  if (outcome.ok) return RunOne(config, false);
  std::printf("  %s\n  shrunk to the --config of the next line:\n", outcome.failure.c_str());
  std::fflush(stdout);
  return RunOne(ShrinkApart(config, outcome), true);
}

void RunWorld(const SimConfig& config, Totals& totals) {
  current_world = "aborted in " + Describe(config) + "\n";
  const Outcome outcome = RunSimulation(config);
  Add(outcome, totals);
  if (outcome.ok) return;
  ++totals.failures;
  std::printf("FAILED %s\n  %s\n", Describe(config).c_str(), outcome.failure.c_str());
  std::fflush(stdout);
  if (totals.failures <= kShrunkMax) ShrinkOne(config);
}

// Returns how much was never reached.
uint32_t Report(const Totals& totals) {
  std::printf("%llu runs, %llu failed, %llu batches, %llu events\n",
              static_cast<unsigned long long>(totals.runs),
              static_cast<unsigned long long>(totals.failures),
              static_cast<unsigned long long>(totals.counters.batches),
              static_cast<unsigned long long>(totals.counters.events));
  uint32_t missed = 0;
  std::printf("%-22s %10s %10s %12s\n", "fault", "planned in", "struck in", "times");
  for (size_t i = 0; i < kFaultCount; ++i) {
    std::printf("%-22s %10llu %10llu %12llu\n", std::string(kFaultNames[i]).c_str(),
                static_cast<unsigned long long>(totals.planned[i]),
                static_cast<unsigned long long>(totals.struck[i]),
                static_cast<unsigned long long>(totals.counters.faults[i]));
    missed += totals.struck[i] == 0;
  }
  std::printf("%-22s %10s %10s %12s\n", "state", "", "reached in", "times");
  for (size_t i = 0; i < kMilestoneCount; ++i) {
    std::printf("%-22s %10s %10llu %12llu\n", std::string(kMilestoneNames[i]).c_str(), "",
                static_cast<unsigned long long>(totals.reached[i]),
                static_cast<unsigned long long>(totals.counters.milestones[i]));
    missed += totals.reached[i] == 0;
  }
  return missed;
}

// Returns how many worlds failed. A world that fails has a trace, too.
uint64_t HashTraces(uint64_t from, uint64_t count) {
  uint64_t all = 0;
  uint64_t failures = 0;
  for (uint64_t seed = from; seed < from + count; ++seed) {
    const SimConfig config = DrawConfig(seed);
    current_world = "aborted in " + Describe(config) + "\n";
    const Outcome outcome = RunSimulation(config);
    failures += outcome.ok ? 0 : 1;
    all = (all ^ outcome.trace_hash) * 0x100000001b3;
    all ^= all >> 29;
    std::printf("%llu %016llx%s\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(outcome.trace_hash), outcome.ok ? "" : " FAILED");
  }
  std::printf("all %llu: %016llx\n", static_cast<unsigned long long>(count),
              static_cast<unsigned long long>(all));
  return failures;
}

// A world in each line that is not empty and not a comment: a configuration, or a seed and what it
// was.
bool ReadWorlds(const char* path, std::vector<SimConfig>& worlds) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    uint64_t seed = 0;
    std::istringstream words(line);
    if (line.empty() || line.front() == '#') continue;
    if (words >> seed) {
      worlds.push_back(DrawConfig(seed));
      continue;
    }
    absl::StatusOr<SimConfig> config = ParseConfig(line);
    if (!config.ok()) {
      std::fprintf(stderr, "%s: %s\n", path, config.status().ToString().c_str());
      return false;
    }
    worlds.push_back(*std::move(config));
  }
  return file.eof();
}

struct Options {
  uint64_t from = 1;
  uint64_t count = kSeedsByDefault;
  std::vector<SimConfig> worlds;
  std::optional<SimConfig> one;
  bool trace = false;
  bool trace_hash = false;
  bool shrink = false;
};

bool ParseOptions(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--trace") {
      options.trace = true;
      continue;
    }
    if (option == "--trace-hash") {
      options.trace_hash = true;
      continue;
    }
    if (option == "--shrink") {
      options.shrink = true;
      continue;
    }
    if (++i == argc) return false;
    const char* const value = argv[i];
    if (option == "--from") {
      options.from = std::strtoull(value, nullptr, 10);
    } else if (option == "--count") {
      options.count = std::strtoull(value, nullptr, 10);
    } else if (option == "--seed") {
      options.one = DrawConfig(std::strtoull(value, nullptr, 10));
    } else if (option == "--config") {
      absl::StatusOr<SimConfig> config = ParseConfig(value);
      if (!config.ok()) {
        std::fprintf(stderr, "%s\n", config.status().ToString().c_str());
        return false;
      }
      options.one = *std::move(config);
    } else if (option != "--seeds" || !ReadWorlds(value, options.worlds)) {
      return false;
    }
  }
  return true;
}

int RunMany(const Options& options) {
  std::printf("%zu remembered worlds, then %llu seeds from %llu\n", options.worlds.size(),
              static_cast<unsigned long long>(options.count),
              static_cast<unsigned long long>(options.from));
  std::fflush(stdout);
  Totals totals;
  for (const SimConfig& world : options.worlds) RunWorld(world, totals);
  for (uint64_t i = 0; i < options.count && totals.failures < kFailuresMax; ++i) {
    RunWorld(DrawConfig(options.from + i), totals);
  }
  const uint32_t missed = Report(totals);
  if (missed > 0 && options.count >= kSeedsToReachAll) {
    std::printf("FAILED: %u faults or states were never reached\n", missed);
    return 1;
  }
  return totals.failures == 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  Options options;
  if (!ParseOptions(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: %s [--from A] [--count N] [--seeds FILE]\n"
                 "       %s --seed S | --config TEXT [--trace] [--shrink]\n"
                 "       %s --trace-hash [--from A] [--count N]\n",
                 argv[0], argv[0], argv[0]);
    return 2;
  }
  std::signal(SIGABRT, OnAbort);
  if (options.trace_hash) return HashTraces(options.from, options.count) == 0 ? 0 : 1;
  if (!options.one.has_value()) return RunMany(options);
  return options.shrink ? ShrinkOne(*options.one) : RunOne(*options.one, options.trace);
}

}  // namespace
}  // namespace ringmaster::sim

int main(int argc, char** argv) { return ringmaster::sim::Main(argc, argv); }
