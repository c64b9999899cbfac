#include "bench/runner.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <numeric>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/hogs.h"
#include "bench/load_generator.h"
#include "bench/random.h"
#include "bench/server_process.h"

namespace ringmaster::bench {
namespace {

constexpr int64_t kProgressNs = 200 * kMillisecond;
constexpr int64_t kGraceNs = 2 * kSecond;
// What a run costs besides its warm-up and window, until it has been measured. A server is to be
// started and stopped, and where connections are lost there is the grace for them. On the average
// of the default plan.
constexpr int64_t kOverheadNsExpected = 130 * kMillisecond;

Figure ToUs(std::optional<uint64_t> ns) {
  return ns ? Figure(static_cast<double>(*ns) / kMicrosecond) : Figure();
}

// Which processors who runs on; none: on any.
struct Halves {
  std::vector<int> server;
  std::vector<int> clients;
};

absl::StatusOr<Halves> HalvesOf(bool pin) {
  if (!pin) return Halves{};
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return absl::ErrnoToStatus(errno, "cannot find out about the processors");
  }
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &allowed)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2) {
    return absl::FailedPreconditionError(
        "server and clients cannot be pinned apart on one processor; leave them unpinned");
  }
  const auto middle = cpus.begin() + static_cast<ptrdiff_t>(cpus.size() / 2);
  return Halves{.server = {cpus.begin(), middle}, .clients = {middle, cpus.end()}};
}

void RunOn(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(static_cast<size_t>(cpu), &set);
  // They were allowed a moment ago; if one has been taken away since, where it runs is not ours to
  // say any more.
  (void)sched_setaffinity(0, sizeof(set), &set);
}

// The load on a thread of its own, and where it stands. The thread ends before the next fork; the
// one that made it only waits, so that what it does meanwhile delays no client.
class RunningLoad {
 public:
  enum class Stage : uint8_t { kWarmUp, kWindow, kGrace, kOver };

  RunningLoad(LoadOptions options, std::vector<int> cpus)
      : options_(std::move(options)), thread_([this, cpus = std::move(cpus)] {
          RunOn(cpus);
          options_.on_window = [this](bool begins) {
            Enter(begins ? Stage::kWindow : Stage::kGrace);
          };
          result_ = RunLoad(options_);
          Enter(Stage::kOver);
        }) {}
  RunningLoad(const RunningLoad&) = delete;
  RunningLoad& operator=(const RunningLoad&) = delete;
  ~RunningLoad() {
    if (thread_.joinable()) thread_.join();
  }

  // Waits until the load has got further than `seen`, or until `deadline_ns`.
  Stage WaitFor(Stage seen, int64_t deadline_ns) {
    const std::chrono::steady_clock::time_point deadline{std::chrono::nanoseconds(deadline_ns)};
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline, [&] { return stage_ != seen; });
    return stage_;
  }

  // When the window began; monotonic.
  int64_t began_ns() {
    const std::lock_guard lock(mutex_);
    return began_ns_;
  }

  // Ends with the load.
  const absl::StatusOr<LoadResult>& Result() {
    if (thread_.joinable()) thread_.join();
    return result_;
  }

 private:
  void Enter(Stage stage) {
    const std::lock_guard lock(mutex_);
    if (stage == Stage::kWindow) began_ns_ = NowNs();
    stage_ = stage;
    changed_.notify_one();
  }

  LoadOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Stage stage_ = Stage::kWarmUp;
  int64_t began_ns_ = 0;
  absl::StatusOr<LoadResult> result_ = absl::UnknownError("the load has not begun");
  std::thread thread_;
};

struct Edges {
  ServerCounts begin;
  ServerCounts end;
};

// Looks at the server when the window begins and when it ends, and lets happen what is to happen in
// between. Returns when the load is over.
absl::StatusOr<Edges> Follow(RunningLoad& load, ServerProcess& server,
                             const std::vector<Incident>& incidents,
                             const std::function<void()>& on_progress) {
  using Stage = RunningLoad::Stage;
  Edges edges;
  absl::Status status;
  auto next = incidents.begin();
  int64_t progress_ns = NowNs() + kProgressNs;
  for (Stage seen = Stage::kWarmUp; seen != Stage::kOver;) {
    int64_t deadline_ns = progress_ns;
    const bool waits = seen == Stage::kWindow && next != incidents.end();
    if (waits) deadline_ns = std::min(deadline_ns, load.began_ns() + next->at_ns);
    const Stage stage = load.WaitFor(seen, deadline_ns);
    // Should this thread not have run for the whole window, both are the same and tell nothing.
    for (ServerCounts* edge : {&edges.begin, &edges.end}) {
      if (edge->at_ns != 0 || stage < (edge == &edges.begin ? Stage::kWindow : Stage::kGrace)) {
        continue;
      }
      absl::StatusOr<ServerCounts> counts = server.ReadCounts();
      // The load ends by itself.
      status.Update(counts.status());
      *edge = counts.ok() ? *std::move(counts) : ServerCounts{.at_ns = NowNs()};
    }
    seen = stage;
    const int64_t now_ns = NowNs();
    for (; seen == Stage::kWindow && next != incidents.end() &&
           load.began_ns() + next->at_ns <= now_ns;
         ++next) {
      if (next->freeze_ns > 0) server.Freeze(next->worker, next->freeze_ns);
      if (next->leaves) server.TellToLeave(next->worker);
    }
    if (now_ns < progress_ns) continue;
    on_progress();
    progress_ns = now_ns + kProgressNs;
  }
  if (!status.ok()) return status;
  return edges;
}

// The figures that every workload has.
Figures FiguresOf(const LoadResult& load, const Edges& edges, const ServerProcess& server) {
  Figures figures;
  if (load.open_loop) figures.offered_per_second = load.offered_per_second();
  if (load.staying) {
    figures.requests_per_second = load.achieved_per_second();
    figures.request_p50_us = ToUs(load.LatencyNs(0.5));
    figures.request_p99_us = ToUs(load.LatencyNs(0.99));
    figures.request_p999_us = ToUs(load.LatencyNs(0.999));
  } else {
    figures.connections_per_second = load.achieved_per_second();
    figures.p50_us = ToUs(load.LatencyNs(0.5));
    figures.p99_us = ToUs(load.LatencyNs(0.99));
    figures.p999_us = ToUs(load.LatencyNs(0.999));
    figures.max_us = ToUs(load.LatencyNs(1));
  }
  for (const LoadResult& newcomers : load.newcomers) {
    figures.connections_per_second = newcomers.achieved_per_second();
    figures.new_p50_us = ToUs(newcomers.LatencyNs(0.5));
    figures.new_p99_us = ToUs(newcomers.LatencyNs(0.99));
  }
  figures.generator_cpu_share =
      static_cast<double>(load.cpu_ns) / static_cast<double>(load.window_ns);
  const auto cpu_ns = static_cast<double>(edges.end.cpu_ns - edges.begin.cpu_ns);
  figures.server_cpu_share = cpu_ns / static_cast<double>(edges.end.at_ns - edges.begin.at_ns);
  if (const auto taken = static_cast<double>(edges.end.Taken() - edges.begin.Taken());
      taken > 0 && !load.staying) {  // with clients that stay most of it goes to their requests
    const auto per_connection = [&](auto ServerCounts::*count) {
      return static_cast<double>(edges.end.*count - edges.begin.*count) / taken;
    };
    figures.worker_wakes_per_connection = per_connection(&ServerCounts::wakes);
    figures.empty_wakes_per_connection = per_connection(&ServerCounts::empty_wakes);
    figures.arrival_wakes_per_connection = per_connection(&ServerCounts::arrival_wakes);
    if (server.books().has_master) {
      figures.master_wakes_per_connection = per_connection(&ServerCounts::master_wakes);
      figures.doorbells_per_connection = per_connection(&ServerCounts::doorbells);
    }
    figures.context_switches_per_connection = per_connection(&ServerCounts::context_switches);
    figures.system_calls_per_connection = per_connection(&ServerCounts::system_calls);
    figures.cpu_us_per_connection = cpu_ns / kMicrosecond / taken;
  }
  if (load.staying && load.answered_in_window > 0) {
    figures.cpu_us_per_request =
        cpu_ns / kMicrosecond / static_cast<double>(load.answered_in_window);
  }
  if (const int64_t recalled = server.books().recalled; recalled >= 0) {
    figures.recalled = static_cast<double>(recalled);
  }
  figures.lost = static_cast<double>(load.lost());
  figures.reset = static_cast<double>(load.reset);
  figures.refused = static_cast<double>(load.refused);
  for (const LoadResult& newcomers : load.newcomers) {
    *figures.lost += static_cast<double>(newcomers.lost());
    *figures.reset += static_cast<double>(newcomers.reset);
    *figures.refused += static_cast<double>(newcomers.refused);
  }
  return figures;
}

RunResult Evaluate(const Workload& workload, const Setting& setting, const LoadResult& load,
                   const Edges& edges, const ServerProcess& server) {
  RunResult run{.figures = FiguresOf(load, edges, server),
                .generator_limited = load.generator_limited()};
  // Nothing is neither even nor uneven.
  if (const auto taken = static_cast<double>(edges.end.Taken() - edges.begin.Taken()); taken > 0) {
    for (size_t i = 0; i < setting.workers; ++i) {
      run.shares.push_back(static_cast<double>(edges.end.taken[i] - edges.begin.taken[i]) / taken);
    }
    run.figures.jain = JainIndex(run.shares);
    run.figures.max_over_mean = MaxOverMean(run.shares);
  }
  Evidence evidence{.setting = setting, .load = load, .open_max = {}};
  for (size_t i = 0; i < setting.workers; ++i) {
    evidence.open_max.push_back(server.books().workers[i].open_max);
  }
  workload.Evaluate(evidence, run);
  return run;
}

Setting SettingOf(const Plan& plan, const Workload& workload) {
  return {.warm_up_ns = std::max(plan.warm_up_ns, workload.WarmUpNsMin()),
          .window_ns = plan.WindowNs(workload),
          .workers = plan.workers};
}

// What the server needs, with the limit of descriptors that the workload wants for connections. How
// many the mechanism has open itself is found out by starting it.
absl::StatusOr<ServerSetUp> SetUpFor(const Plan& plan, const Mechanism& mechanism,
                                     const Workload& workload, const Halves& halves) {
  ServerSetUp set_up{.transport = plan.transport,
                     .workers = workload.Workers(plan.workers),
                     .cpus = halves.server};
  const std::optional<uint32_t> descriptors = workload.Descriptors();
  if (!descriptors.has_value()) return set_up;
  set_up.descriptor_room = *descriptors;
  const auto trial = ServerProcess::Start(mechanism, set_up);
  if (!trial.ok()) return trial.status();
  set_up.descriptor_limit = (*trial)->books().descriptor_limit;
  return set_up;
}

// What was lost would otherwise be put down to the server.
absl::Status WhetherTheyCouldConnect(const LoadResult& load) {
  if (load.failed == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "the clients could not make ", load.failed, " of ", load.started,
      " connections themselves: ", std::strerror(load.failure), "; this machine lacks what ",
      "they need (descriptors, ports, memory, a loopback interface that is up), so it says ",
      "nothing of the server"));
}

absl::StatusOr<RunResult> RunOnce(const Plan& plan, const Mechanism& mechanism,
                                  const Workload& workload, uint64_t seed, const Halves& halves,
                                  const std::function<void()>& on_progress) {
  const Setting setting = SettingOf(plan, workload);
  const absl::StatusOr<ServerSetUp> set_up = SetUpFor(plan, mechanism, workload, halves);
  if (!set_up.ok()) return set_up.status();
  absl::StatusOr<std::unique_ptr<ServerProcess>> server = ServerProcess::Start(mechanism, *set_up);
  if (!server.ok()) return server.status();
  std::optional<RunningLoad> running;
  try {
    running.emplace(
        LoadOptions{
            .target = (*server)->target(),
            .load = workload.Load(setting, seed),
            .warm_up_ns = setting.warm_up_ns,
            .duration_ns = setting.window_ns,
            .grace_ns = kGraceNs,
            .work = [&](uint64_t number) { return workload.Work(number, seed); },
            .log_answers = workload.logs_answers(),
        },
        halves.clients);
  } catch (const std::system_error& error) {
    return NoThread(error);
  }
  const absl::StatusOr<Edges> edges =
      Follow(*running, **server, workload.Incidents(setting.window_ns), on_progress);
  const absl::StatusOr<LoadResult>& load = running->Result();
  if (!load.ok()) return load.status();
  const absl::StatusOr<ServerCost> cost = (*server)->Stop();
  // A crash tells more than that nobody answered.
  for (const absl::Status& status : {cost.status(), edges.status()}) {
    if (!status.ok()) return status;
  }
  absl::Status failed = WhetherTheyCouldConnect(*load);
  for (const LoadResult& newcomers : load->newcomers) {
    failed.Update(WhetherTheyCouldConnect(newcomers));
  }
  if (!failed.ok()) return failed;
  return Evaluate(workload, setting, *load, *edges, **server);
}

int64_t ExpectedRunNs(const Plan& plan, const Workload& workload) {
  return SettingOf(plan, workload).TotalNs() + kOverheadNsExpected;
}

// A plan while it is run.
class PlanRun {
 public:
  PlanRun(const Plan& plan, Halves halves, const std::function<void(const Progress&)>& on_progress)
      : plan_(plan), halves_(std::move(halves)), on_progress_(on_progress) {
    for (const auto& workload : plan.workloads) {
      for (const auto& mechanism : plan.mechanisms) {
        all_.push_back({.mechanism = mechanism->name(),
                        .workload = workload->name(),
                        .transport = std::string(TransportName(plan.transport)),
                        .pinned = plan.pin,
                        .workers = plan.workers,
                        .seconds = static_cast<double>(plan.WindowNs(*workload)) / kSecond,
                        .skipped = plan.WhySkip(*mechanism, *workload)});
      }
    }
  }

  // Starts every mechanism once, so that one that fails is told of at once.
  void TryMechanisms() {
    for (size_t i = 0; i < plan_.mechanisms.size(); ++i) {
      std::vector<size_t> pairs;
      for (size_t pair = i; pair < all_.size(); pair += plan_.mechanisms.size()) {
        if (all_[pair].skipped.empty()) pairs.push_back(pair);
      }
      if (pairs.empty()) continue;
      const absl::Status status = Try(*plan_.mechanisms[i]);
      if (status.ok()) continue;
      for (const size_t pair : pairs) Skip(pair, std::string(status.message()));
    }
  }

  void Repeat() {
    for (size_t pair = 0; pair < all_.size(); ++pair) {
      if (!all_[pair].skipped.empty()) continue;
      progress_.run_count += plan_.repetitions;
      expected_ns_ += ExpectedRunNs(plan_, WorkloadOf(pair)) * plan_.repetitions;
    }
    began_ns_ = NowNs();
    std::vector<size_t> order(all_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    Random random(plan_.seed);
    for (uint32_t repetition = 0; repetition < plan_.repetitions; ++repetition) {
      random.Shuffle(order);
      const uint64_t seed = random.Next();
      for (const size_t pair : order) {
        if (all_[pair].skipped.empty()) Measure(pair, seed);
      }
    }
  }

  std::vector<Result> Results() const { return Summarize(all_); }

 private:
  // By workload, then by mechanism.
  const Workload& WorkloadOf(size_t pair) const {
    return *plan_.workloads[pair / plan_.mechanisms.size()];
  }
  const Mechanism& MechanismOf(size_t pair) const {
    return *plan_.mechanisms[pair % plan_.mechanisms.size()];
  }

  absl::Status Try(const Mechanism& mechanism) const {
    const auto server =
        ServerProcess::Start(mechanism, {.transport = plan_.transport,
                                         .workers = std::vector<WorkerTraits>(plan_.workers),
                                         .cpus = halves_.server});
    return server.ok() ? (*server)->Stop().status() : server.status();
  }

  void Measure(size_t pair, uint64_t seed) {
    progress_.workload = all_[pair].workload;
    progress_.mechanism = all_[pair].mechanism;
    const int64_t run_began_ns = NowNs();
    const int64_t run_ns = progress_.run == 0
                               ? expected_ns_ / static_cast<int64_t>(progress_.run_count)
                               : (run_began_ns - began_ns_) / static_cast<int64_t>(progress_.run);
    const auto tell = [&] {
      const int64_t now_ns = NowNs();
      progress_.elapsed_ns = now_ns - began_ns_;
      const auto left = static_cast<int64_t>(progress_.run_count - progress_.run);
      progress_.remaining_ns = std::max<int64_t>(run_ns * left - (now_ns - run_began_ns), 0);
      on_progress_(progress_);
    };
    tell();
    absl::StatusOr<RunResult> run =
        RunOnce(plan_, MechanismOf(pair), WorkloadOf(pair), seed, halves_, tell);
    ++progress_.run;
    std::vector<RunResult>& runs = all_[pair].runs;
    if (run.ok()) return runs.push_back(*std::move(run));
    progress_.run_count -= plan_.repetitions - runs.size() - 1;
    std::string why(run.status().message());
    if (!runs.empty()) {
      why = absl::StrCat("failed in repetition ", runs.size() + 1, " of ", plan_.repetitions, ": ",
                         why);
    }
    Skip(pair, std::move(why));
  }

  // Whatever failed, the other pairs go on. What has been measured of this one goes too: a
  // mechanism that fails now and then has no figures to be compared by.
  void Skip(size_t pair, std::string why) {
    all_[pair].skipped = std::move(why);
    all_[pair].runs.clear();
    progress_.workload = all_[pair].workload;
    progress_.mechanism = all_[pair].mechanism;
    progress_.skipped = all_[pair].skipped;
    on_progress_(progress_);
    progress_.skipped.clear();
  }

  const Plan& plan_;
  const Halves halves_;
  const std::function<void(const Progress&)>& on_progress_;
  std::vector<Series> all_;
  Progress progress_;
  int64_t began_ns_ = 0;
  int64_t expected_ns_ = 0;  // of all runs
};

}  // namespace

const std::string& Plan::WhyNot(const Mechanism& mechanism) const {
  const auto [answer, is_new] = answers.try_emplace({&mechanism, transport});
  if (is_new) answer->second = mechanism.WhyNot(transport);
  return answer->second;
}

std::string Plan::WhySkip(const Mechanism& mechanism, const Workload& workload) const {
  if (const std::string& why = WhyNot(mechanism); !why.empty()) return why;
  if (mechanism.serves_one_at_a_time() && workload.holds_connections()) {
    return "serves one connection at a time: as long as these stay open, it would serve as many as "
           "it has workers";
  }
  if (!mechanism.takes_descriptors() && workload.Descriptors().has_value()) {
    return "its connections are slots of file tables, which no limit of descriptors limits: "
           "measure "
           "uring-oneshot-each, or ringmaster with the handoff completion or inbox";
  }
  return WhyNot(workload);
}

std::string Plan::WhyNot(const Workload& workload) const {
  const Setting setting = SettingOf(*this, workload);
  return std::string(CheckDescriptors(workload.Load(setting, seed)).message());
}

size_t Plan::RunCount() const {
  size_t pairs = 0;
  for (const auto& mechanism : mechanisms) {
    for (const auto& workload : workloads) {
      if (WhySkip(*mechanism, *workload).empty()) ++pairs;
    }
  }
  return pairs * repetitions;
}

int64_t Plan::WindowNs(const Workload& workload) const {
  return std::max(duration_ns, workload.WindowNsMin());
}

int64_t Plan::ExpectedNs() const {
  int64_t sum_ns = 0;
  for (const auto& mechanism : mechanisms) {
    for (const auto& workload : workloads) {
      if (!WhySkip(*mechanism, *workload).empty()) continue;
      sum_ns += ExpectedRunNs(*this, *workload);
    }
  }
  return sum_ns * repetitions;
}

absl::StatusOr<std::vector<Result>> RunPlan(
    const Plan& plan, const std::function<void(const Progress&)>& on_progress) {
  absl::StatusOr<Halves> halves = HalvesOf(plan.pin);
  if (!halves.ok()) return halves.status();
  const absl::StatusOr<Hogs> hogs = Hogs::Start(plan.hogs);
  if (!hogs.ok()) return hogs.status();
  PlanRun run(plan, *std::move(halves), on_progress);
  run.TryMechanisms();
  run.Repeat();
  return run.Results();
}

std::vector<WorkloadText> TextsOf(const Plan& plan) {
  std::vector<WorkloadText> texts;
  for (const auto& workload : plan.workloads) {
    WorkloadText text{.name = workload->name(),
                      .title = workload->title(),
                      .description = workload->description(),
                      .question = workload->question(),
                      .open_loop = workload->open_loop()};
    const std::vector<WorkerTraits> workers = workload->Workers(plan.workers);
    for (uint32_t i = 0; i < workers.size(); ++i) {
      if (workers[i].delay_ns > 0) text.slow_workers.push_back(i);
    }
    texts.push_back(std::move(text));
  }
  return texts;
}

}  // namespace ringmaster::bench
