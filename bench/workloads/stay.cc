// Who is served well when connections stay? A connection is dealt once and lives with that
// decision. A worker that got more of them than the others is slower for all that it has, for as
// long as they stay. `mixed` asks besides how long somebody new waits.

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"
#include "bench/random.h"
#include "bench/workloads/workloads.h"

namespace ringmaster::bench {
namespace {

constexpr double kNewcomersPerSecond = 200;
constexpr int64_t kStayNs = 2 * kSecond;           // of stay-unequal, on the average
constexpr int64_t kSettleNs = 200 * kMillisecond;  // after the last client has come, at least

std::string Milliseconds(uint32_t us) { return absl::StrCat(us / 1000.0, " ms"); }

class Stay : public Workload {
 public:
  explicit Stay(const WorkloadOptions& options) : options_(options.stay) {}

  std::string name() const override { return "stay"; }
  std::string title() const override { return "Connections that stay"; }
  std::string description() const override {
    return absl::StrCat(Clients(), " ", Requests(),
                        ". Look at the connections of the busiest worker, and at the requests' "
                        "tail: who shares a worker with many waits for them.");
  }
  Question question() const override { return Question::kStaying; }
  bool open_loop() const override { return options_.open_loop; }
  bool holds_connections() const override { return true; }
  int64_t WarmUpNsMin() const override {
    // By then all have asked, but for those that ask very rarely.
    return kMicrosecond * options_.opening_us * options_.connections +
           std::max(kSettleNs, 5 * kMicrosecond * options_.think_us);
  }
  bench::Load Load(const Setting&, uint64_t seed) const override {
    return StayingClients{.clients = options_.connections,
                          .opening_ns = kMicrosecond * options_.opening_us,
                          .think_ns = kMicrosecond * options_.think_us,
                          .open_loop = options_.open_loop,
                          .seed = seed};
  }
  std::vector<WorkerTraits> Workers(uint32_t count) const override {
    WorkerTraits traits;
    if (options_.service == Service::kSleep) traits.request_ns = kMicrosecond * options_.service_us;
    return std::vector<WorkerTraits>(count, traits);
  }
  uint32_t Work(uint64_t, uint64_t) const override {
    return options_.service == Service::kSpin ? options_.service_us : 0;
  }
  void Evaluate(const Evidence& evidence, RunResult& run) const override;

 protected:
  std::string Clients() const {
    return absl::StrCat(options_.connections, " clients come ",
                        options_.opening_us == 0
                            ? "all at once"
                            : absl::StrCat(Milliseconds(options_.opening_us), " apart"),
                        " and stay.");
  }
  std::string Requests() const {
    return absl::StrCat(
        "Each asks every ", Milliseconds(options_.think_us),
        options_.open_loop ? ", whether it has been answered or not" : " after its last answer",
        ", and a request takes ", Milliseconds(options_.service_us), " of ",
        options_.service == Service::kSleep ? "waiting" : "computing");
  }

  const StayOptions options_;
};

// The shares are those of the connections that there are at the end of the window, because none, or
// other ones, come in it.
void Stay::Evaluate(const Evidence& evidence, RunResult& run) const {
  run.shares.clear();
  run.figures.jain.reset();
  run.figures.max_over_mean.reset();
  for (const LoadResult::Sample& sample : evidence.load.samples) {
    const auto& connections = sample.connections;
    run.over_time.push_back(
        {.seconds = static_cast<double>(sample.at_ns) / kSecond,
         .by_worker = {connections.begin(), connections.begin() + evidence.setting.workers}});
  }
  if (run.over_time.empty()) return;
  const std::vector<uint32_t>& last = run.over_time.back().by_worker;
  double all = 0;
  for (const uint32_t connections : last) all += connections;
  if (all == 0) return;
  for (const uint32_t connections : last) run.shares.push_back(connections / all);
  run.figures.jain = JainIndex(run.shares);
  run.figures.max_over_mean = MaxOverMean(run.shares);
}

class StayUnequal : public Stay {
 public:
  using Stay::Stay;
  std::string name() const override { return "stay-unequal"; }
  std::string title() const override { return "Connections that stay, some busier and longer"; }
  std::string description() const override {
    return absl::StrCat(Clients(), " ", Requests(), " on the average. Some ask ",
                        "up to eight times as often, and some stay up to eight times as long as "
                        "the average of ",
                        kStayNs / kSecond,
                        " s. Whoever goes is followed by another. Look at the requests' tail.");
  }
  bench::Load Load(const Setting& setting, uint64_t seed) const override {
    auto load = std::get<StayingClients>(Stay::Load(setting, seed));
    load.unequal = true;
    load.stay_ns = kStayNs;
    return load;
  }
};

class Mixed : public Stay {
 public:
  explicit Mixed(const WorkloadOptions& options)
      : Stay(options), rate_(options.rate.value_or(kNewcomersPerSecond)) {}
  std::string name() const override { return "mixed"; }
  std::string title() const override { return "Newcomers beside connections that stay"; }
  std::string description() const override {
    return absl::StrCat(Clients(), " ", Requests(), ". Beside them ", rate_,
                        " clients per second come with one request and go. Look at how long a "
                        "newcomer waits: somebody idles nearly always.");
  }
  std::optional<double> rate() const override { return rate_; }
  bench::Load Load(const Setting& setting, uint64_t seed) const override {
    auto load = std::get<StayingClients>(Stay::Load(setting, seed));
    load.newcomers = OpenLoop{.starts_ns = PoissonSchedule(rate_, setting.TotalNs(), seed + 1)};
    return load;
  }

 private:
  const double rate_;
};

}  // namespace

std::unique_ptr<Workload> MakeStay(const WorkloadOptions& options) {
  return std::make_unique<Stay>(options);
}

std::unique_ptr<Workload> MakeStayUnequal(const WorkloadOptions& options) {
  return std::make_unique<StayUnequal>(options);
}

std::unique_ptr<Workload> MakeMixed(const WorkloadOptions& options) {
  return std::make_unique<Mixed>(options);
}

}  // namespace ringmaster::bench
