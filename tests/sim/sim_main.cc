// Runs simulations by seed.
//
//   ringmaster_sim_seeds [--from A] [--count N] [--seeds FILE]   a range, FILE's seeds before it
//   ringmaster_sim_seeds --seed S [--trace]                      one run, and what happens in it
//
// Without a range it runs as many as fit the build: fewer under a sanitizer. Ends with what the
// runs have reached; a large set that misses a fault or a state fails, because it has not tested
// it.

#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

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
constexpr uint64_t kSeedsByDefault = 2'000;
#else
constexpr uint64_t kSeedsByDefault = 20'000;
#endif
// A smaller set need not reach everything.
constexpr uint64_t kSeedsToReachAll = 2'000;
constexpr uint32_t kFailuresMax = 10;

// An engine that breaks an invariant of its own aborts; the seed must be known then.
char current_run[64] = "";
void OnAbort(int) {
  const ssize_t written = write(STDERR_FILENO, current_run, std::strlen(current_run));
  static_cast<void>(written);
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

void RunSeed(uint64_t seed, Totals& totals) {
  std::snprintf(current_run, sizeof(current_run), "aborted in seed %llu\n",
                static_cast<unsigned long long>(seed));
  const Outcome outcome = RunSimulation(seed);
  Add(outcome, totals);
  if (outcome.ok) return;
  ++totals.failures;
  std::printf("FAILED %s\n  %s\n", outcome.summary.c_str(), outcome.failure.c_str());
}

int RunOne(uint64_t seed, bool trace) {
  std::printf("%s\n", Describe(DrawConfig(seed)).c_str());
  std::fflush(stdout);
  std::string text;
  const Outcome outcome = RunSimulation(seed, Breakage::kNone, trace ? &text : nullptr);
  std::printf("%s%s after %lld ns, trace %016llx\n", text.c_str(),
              outcome.ok ? "passed" : outcome.failure.c_str(),
              static_cast<long long>(outcome.lasted_ns),
              static_cast<unsigned long long>(outcome.trace_hash));
  return outcome.ok ? 0 : 1;
}

// Returns how much was never reached.
uint32_t Report(const Totals& totals) {
  std::printf("%llu runs, %llu failed, %llu batches, %llu events\n",
              static_cast<unsigned long long>(totals.runs),
              static_cast<unsigned long long>(totals.failures),
              static_cast<unsigned long long>(totals.counters.batches),
              static_cast<unsigned long long>(totals.counters.events));
  uint32_t missed = 0;
  std::printf("%-20s %10s %10s %12s\n", "fault", "planned in", "struck in", "times");
  for (size_t i = 0; i < kFaultCount; ++i) {
    std::printf("%-20s %10llu %10llu %12llu\n", std::string(kFaultNames[i]).c_str(),
                static_cast<unsigned long long>(totals.planned[i]),
                static_cast<unsigned long long>(totals.struck[i]),
                static_cast<unsigned long long>(totals.counters.faults[i]));
    missed += totals.struck[i] == 0;
  }
  std::printf("%-20s %10s %10s %12s\n", "state", "", "reached in", "times");
  for (size_t i = 0; i < kMilestoneCount; ++i) {
    std::printf("%-20s %10s %10llu %12llu\n", std::string(kMilestoneNames[i]).c_str(), "",
                static_cast<unsigned long long>(totals.reached[i]),
                static_cast<unsigned long long>(totals.counters.milestones[i]));
    missed += totals.reached[i] == 0;
  }
  return missed;
}

// A seed at the beginning of each line that is not a comment.
bool ReadSeeds(const char* path, std::vector<uint64_t>& seeds) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    uint64_t seed = 0;
    std::istringstream words(line);
    if (words >> seed) seeds.push_back(seed);
  }
  return file.eof();
}

int Main(int argc, char** argv) {
  uint64_t from = 1;
  uint64_t count = kSeedsByDefault;
  std::vector<uint64_t> seeds;
  bool one = false;
  bool trace = false;
  uint64_t seed = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (option == "--trace") {
      trace = true;
    } else if (option == "--from" && value != nullptr) {
      from = std::strtoull(argv[++i], nullptr, 10);
    } else if (option == "--count" && value != nullptr) {
      count = std::strtoull(argv[++i], nullptr, 10);
    } else if (option == "--seed" && value != nullptr) {
      one = true;
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (option == "--seeds" && value != nullptr) {
      if (!ReadSeeds(argv[++i], seeds)) {
        std::fprintf(stderr, "cannot read %s\n", value);
        return 2;
      }
    } else {
      std::fprintf(stderr, "usage: %s [--from A] [--count N] [--seeds FILE] | --seed S [--trace]\n",
                   argv[0]);
      return 2;
    }
  }
  if (one) return RunOne(seed, trace);
  std::printf("%zu remembered seeds, then %llu from %llu\n", seeds.size(),
              static_cast<unsigned long long>(count), static_cast<unsigned long long>(from));
  std::fflush(stdout);
  std::signal(SIGABRT, OnAbort);
  Totals totals;
  for (const uint64_t remembered : seeds) RunSeed(remembered, totals);
  for (uint64_t i = 0; i < count && totals.failures < kFailuresMax; ++i) RunSeed(from + i, totals);
  const uint32_t missed = Report(totals);
  if (missed > 0 && count >= kSeedsToReachAll) {
    std::printf("FAILED: %u faults or states were never reached\n", missed);
    return 1;
  }
  return totals.failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace ringmaster::sim

int main(int argc, char** argv) { return ringmaster::sim::Main(argc, argv); }
