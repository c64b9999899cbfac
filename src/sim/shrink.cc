#include "sim/shrink.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ringmaster::sim {
namespace {

// With how many other courses a reduction is tried: few at first, more when nothing helps any more.
constexpr uint64_t kCoursesMin = 6;
constexpr uint64_t kCoursesMax = 400;

bool IsDigit(char letter) { return letter >= '0' && letter <= '9'; }

// The configuration without source `index`. Workers that join later sources join them at their new
// indexes.
SimConfig WithoutSource(SimConfig config, size_t index) {
  config.sources.erase(config.sources.begin() + static_cast<ptrdiff_t>(index));
  for (SimWorkerConfig& worker : config.workers) {
    const uint32_t before = worker.sources & ((1u << index) - 1);
    worker.sources = worker.sources == 0xff ? 0xff : before | (worker.sources >> 1 & ~before);
  }
  return config;
}

class Shrinker {
 public:
  Shrinker(const SimConfig& config, const Outcome& outcome,
           const std::function<Outcome(const SimConfig&)>& run, const ShrinkBudget& budget)
      : kind_(KindOfFailure(outcome.failure)), run_(run), budget_(budget) {
    Keep(config, outcome);
  }

  Shrunk Run() {
    while (courses_ <= kCoursesMax && !Spent()) {
      bool smaller = false;
      smaller |= FewerStrikes();
      smaller |= FewerArrivals();
      smaller |= FewerWorkers();
      smaller |= FewerSources();
      smaller |= FewerFaults();
      smaller |= PlainerWorld();
      smaller |= PlainerWorkers();
      smaller |= PlainerSources();
      if (!smaller) courses_ *= 4;
    }
    return {.config = best_, .failure = failure_, .runs = runs_};
  }

 private:
  bool Spent() const { return runs_ >= budget_.runs_max || events_ >= budget_.events_max; }

  void Keep(const SimConfig& config, const Outcome& outcome) {
    best_ = config;
    text_ = Describe(config);
    failure_ = outcome.failure;
    strikes_ = outcome.counters.strikes;
  }

  bool FailsAlike(const SimConfig& config) {
    ++runs_;
    const Outcome outcome = run_(config);
    events_ += outcome.counters.events;
    if (outcome.ok || KindOfFailure(outcome.failure) != kind_) return false;
    Keep(config, outcome);
    return true;
  }

  // Returns whether the reduction was kept.
  bool Try(SimConfig config) {
    if (Describe(config) == text_) return false;
    if (!Spent() && FailsAlike(config)) return true;
    for (config.course = 0; config.course < courses_ && !Spent(); ++config.course) {
      if (FailsAlike(config)) return true;
    }
    return false;
  }

  // Returns whether the number that `set` sets has become smaller; it is `count` now.
  template <typename Set>
  bool Fewer(uint64_t count, uint64_t least, Set set) {
    bool smaller = false;
    for (uint64_t step = count; step > 0; step /= 2) {
      while (count >= least + step) {
        SimConfig config = best_;
        set(config, count - step);
        if (!Try(std::move(config))) break;
        count -= step;
        smaller = true;
      }
    }
    return smaller;
  }

  bool FewerStrikes() {
    if (best_.strikes_max > strikes_) {
      // The same world, told how many faults it has.
      best_.strikes_max = static_cast<uint32_t>(strikes_);
      text_ = Describe(best_);
    }
    return Fewer(best_.strikes_max, 0, [](SimConfig& config, uint64_t count) {
      config.strikes_max = static_cast<uint32_t>(count);
    });
  }

  bool FewerArrivals() {
    return Fewer(best_.workload.arrivals, 1, [](SimConfig& config, uint64_t count) {
      config.workload.arrivals = static_cast<uint32_t>(count);
    });
  }

  bool FewerWorkers() {
    bool smaller = false;
    const size_t host = best_.hosted ? 1 : 0;  // stays
    for (size_t i = best_.workers.size(); i-- > host;) {
      SimConfig config = best_;
      config.workers.erase(config.workers.begin() + static_cast<ptrdiff_t>(i));
      if (Try(config)) {
        smaller = true;
        continue;
      }
      // Where sources wait for all of them, they wait for one less.
      for (SimSourceConfig& source : config.sources) {
        source.start_workers = std::max(source.start_workers, 2u) - 1;
      }
      smaller |= Try(std::move(config));
    }
    return smaller;
  }

  bool FewerSources() {
    bool smaller = false;
    for (size_t i = best_.sources.size(); i-- > 0;) {
      if (best_.sources.size() > 1) smaller |= Try(WithoutSource(best_, i));
    }
    return smaller;
  }

  bool FewerFaults() {
    bool smaller = false;
    for (size_t i = 0; i < kFaultCount; ++i) {
      SimConfig config = best_;
      config.faults.ratios[i] = {};
      smaller |= Try(std::move(config));
    }
    return smaller;
  }

  // Tries a change of one thing in a copy of the best.
  template <typename Change>
  bool Plainer(Change change) {
    SimConfig config = best_;
    change(config);
    return Try(std::move(config));
  }

  bool PlainerWorld() {
    bool smaller = false;
    smaller |= Plainer([](SimConfig& config) {
      config.shuts_down = false;
      config.shutdown_drain_ns = 0;
    });
    smaller |= Plainer([](SimConfig& config) { config.masters = 1; });
    smaller |= Plainer([](SimConfig& config) { config.hosted = false; });
    smaller |= Plainer([](SimConfig& config) { config.shutdown_drain_ns = 0; });
    smaller |= Plainer([](SimConfig& config) { config.defers_task_work = true; });
    smaller |= Plainer([](SimConfig& config) { config.accepts_at_reap = false; });
    smaller |= Plainer([](SimConfig& config) { config.descriptors_max = INT32_MAX; });
    smaller |= Plainer([](SimConfig& config) {
      config.entries_told = 0;
      config.keeps_back = false;
    });
    smaller |= Plainer([](SimConfig& config) { config.completions_max = 64; });
    smaller |= Plainer([](SimConfig& config) { config.host_steps_max = 16; });
    smaller |= Plainer([](SimConfig& config) { config.completion_entries = 64; });
    // If the failure needs a full queue, a shorter queue is full with fewer entries.
    if (best_.workload.arrivals > 20 && best_.completion_entries > 12) {
      smaller |= Plainer([](SimConfig& config) {
        config.completion_entries = config.completions_max = 12;
        config.workload.arrivals = 20;
      });
    }
    // If the failure needs too much to be held, a smaller hold needs less for that.
    if (best_.workload.arrivals > 20 && best_.entries_told > 0) {
      smaller |= Plainer([](SimConfig& config) {
        for (SimSourceConfig& source : config.sources) source.hold = 1;
        config.workload.arrivals = 20;
      });
    }
    smaller |= Plainer([](SimConfig& config) { config.capacity = 0; });
    smaller |= Plainer([](SimConfig& config) { config.turn_ns_max = 0; });
    smaller |= Plainer([](SimConfig& config) { config.wake_ns_max = 0; });
    smaller |= Plainer([](SimConfig& config) { config.workload.burst = {}; });
    smaller |= Plainer([](SimConfig& config) { config.workload.burst_max = 1; });
    smaller |= Plainer([](SimConfig& config) { config.workload.flood_of_16 = 0; });
    smaller |= Plainer([](SimConfig& config) { config.workload.lease_ns_mean = 0; });
    smaller |= Plainer([](SimConfig& config) { config.workload.service_ns_mean = 1'000; });
    smaller |= Plainer([](SimConfig& config) { config.workload.gap_ns_mean = 1'000'000; });
    smaller |= Plainer([](SimConfig& config) { config.recall_after_ns = 10'000'000; });
    return smaller;
  }

  bool PlainerWorkers() {
    bool smaller = false;
    for (size_t i = 0; i < best_.workers.size(); ++i) {
      const auto plainer = [&](auto change) {
        smaller |= Plainer([&](SimConfig& config) { change(config.workers[i]); });
      };
      plainer([](SimWorkerConfig& worker) { worker = {.window = worker.window}; });
      plainer([](SimWorkerConfig& worker) {
        worker = {.window = worker.window, .hints = worker.sight, .sight = worker.sight};
      });
      plainer([](SimWorkerConfig& worker) { worker.level = false; });
      plainer([](SimWorkerConfig& worker) { worker.took_first = false; });
      plainer([](SimWorkerConfig& worker) { worker.adopts_of_8 = 8; });
      plainer([](SimWorkerConfig& worker) { worker.capacity = UINT32_MAX; });
      plainer([](SimWorkerConfig& worker) { worker.cpu = -1; });
      plainer([](SimWorkerConfig& worker) { worker.sources = 0xff; });
      plainer([](SimWorkerConfig& worker) { worker.joins_at_ns = 0; });
      plainer([](SimWorkerConfig& worker) { worker.works_of_8 = 0; });
      plainer([](SimWorkerConfig& worker) {
        worker.hints = worker.sight = worker.level = false;
        worker.works_of_8 = 0;
      });
      plainer([](SimWorkerConfig& worker) { worker.window = 1; });
      plainer([](SimWorkerConfig& worker) { worker.window = std::min(worker.window, 4u); });
    }
    return smaller;
  }

  bool PlainerSources() {
    bool smaller = false;
    for (size_t i = 0; i < best_.sources.size(); ++i) {
      const auto plainer = [&](auto change) {
        smaller |= Plainer([&](SimConfig& config) { change(config.sources[i]); });
      };
      plainer([](SimSourceConfig& source) { source = {}; });
      plainer([](SimSourceConfig& source) { source = {.aimed = source.aimed}; });
      plainer([](SimSourceConfig& source) {
        if (source.policy != "least-loaded") source.policy = "round-robin";
      });
      plainer([](SimSourceConfig& source) { source.multishot_accept = false; });
      plainer([](SimSourceConfig& source) { source.hold = 16; });
      plainer([](SimSourceConfig& source) { source.recall = true; });
      plainer([](SimSourceConfig& source) { source.capacity = 0; });
      plainer([](SimSourceConfig& source) { source.age_max_ns = 0; });
      plainer([](SimSourceConfig& source) { source.tells_age = true; });
      plainer([](SimSourceConfig& source) { source.backlog_max = UINT32_MAX; });
      plainer([](SimSourceConfig& source) { source.start_workers = 1; });
      plainer([](SimSourceConfig& source) { source.local = false; });
      plainer([](SimSourceConfig& source) { source.strict = false; });
      plainer([](SimSourceConfig& source) { source.nobody_of_8 = 0; });
      plainer([](SimSourceConfig& source) { source.readiness = source.countable = false; });
    }
    return smaller;
  }

  const std::string kind_;
  const std::function<Outcome(const SimConfig&)>& run_;
  const ShrinkBudget budget_;
  SimConfig best_;
  std::string text_;  // of it
  std::string failure_;
  uint64_t strikes_ = 0;
  uint64_t courses_ = kCoursesMin;
  uint32_t runs_ = 0;
  uint64_t events_ = 0;
};

}  // namespace

std::string KindOfFailure(const std::string& failure) {
  std::string kind;
  for (const char letter : failure) {
    if (!IsDigit(letter)) {
      kind += letter;
    } else if (kind.empty() || kind.back() != '#') {
      kind += '#';
    }
  }
  return kind;
}

Shrunk Shrink(const SimConfig& config, const Outcome& outcome,
              const std::function<Outcome(const SimConfig&)>& run, const ShrinkBudget& budget) {
  return Shrinker(config, outcome, run, budget).Run();
}

}  // namespace ringmaster::sim
