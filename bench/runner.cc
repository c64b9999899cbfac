#include "bench/runner.h"

#include <algorithm>
#include <chrono>
#include <future>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bench/load_generator.h"
#include "bench/random.h"
#include "bench/server_process.h"

namespace ringmaster::bench {
namespace {

constexpr auto kProgressInterval = std::chrono::milliseconds(200);
constexpr int64_t kGraceNs = 2 * kSecond;
// What a run costs besides its warm-up and window, until it has been measured.
constexpr int64_t kOverheadNsExpected = 20 * kMillisecond;

double ToUs(uint64_t ns) { return static_cast<double>(ns) / kMicrosecond; }

// What the window's edges tell of the server.
struct Edge {
  std::vector<uint64_t> taken;
  int64_t cpu_ns = 0;
};

double Total(const std::vector<uint64_t>& values) {
  return static_cast<double>(std::accumulate(values.begin(), values.end(), uint64_t{0}));
}

RunResult Evaluate(const LoadResult& load, const Edge& begin, const Edge& end,
                   const ServerProcess& server, const ServerCost& cost) {
  RunResult run;
  for (size_t i = 0; i < begin.taken.size(); ++i) {
    run.shares.push_back(static_cast<double>(end.taken[i] - begin.taken[i]));
  }
  const double taken = std::accumulate(run.shares.begin(), run.shares.end(), 0.0);
  for (double& share : run.shares) share = taken == 0 ? 0 : share / taken;

  Figures& figures = run.figures;
  figures.connections_per_second = load.achieved_per_second();
  if (load.open_loop) figures.offered_per_second = load.offered_per_second();
  if (load.latency_valid()) {
    figures.p50_us = ToUs(load.latency_ns.Quantile(0.5));
    figures.p99_us = ToUs(load.latency_ns.Quantile(0.99));
    figures.p999_us = ToUs(load.latency_ns.Quantile(0.999));
    figures.max_us = ToUs(load.latency_ns.max());
  }
  figures.jain = JainIndex(run.shares);
  figures.max_over_mean = MaxOverMean(run.shares);
  figures.generator_cpu_share =
      static_cast<double>(load.cpu_ns) / static_cast<double>(load.window_ns);
  if (taken > 0) {
    figures.cpu_us_per_connection =
        static_cast<double>(end.cpu_ns - begin.cpu_ns) / kMicrosecond / taken;
  }
  if (const double ever = Total(server.TakenByWorker()); ever > 0) {
    figures.context_switches_per_connection = static_cast<double>(cost.context_switches) / ever;
  }
  if (const int64_t recalled = server.books().recalled; recalled >= 0) {
    figures.recalled = static_cast<double>(recalled);
  }
  figures.server_cpu_share =
      static_cast<double>(end.cpu_ns - begin.cpu_ns) / static_cast<double>(load.window_ns);
  figures.lost = static_cast<double>(load.lost());
  figures.reset = static_cast<double>(load.reset);
  figures.refused = static_cast<double>(load.refused);
  return run;
}

absl::StatusOr<RunResult> RunOnce(const Plan& plan, const Mechanism& mechanism,
                                  const Workload& workload, uint64_t seed,
                                  const std::function<void()>& on_progress) {
  absl::StatusOr<std::unique_ptr<ServerProcess>> server =
      ServerProcess::Start(mechanism, plan.transport, workload.Workers(plan.workers));
  if (!server.ok()) return server.status();
  Edge edges[2];
  const LoadOptions options{
      .target = (*server)->target(),
      .load = workload.Load(plan.warm_up_ns + plan.duration_ns, seed),
      .warm_up_ns = plan.warm_up_ns,
      .duration_ns = plan.duration_ns,
      .grace_ns = kGraceNs,
      .on_window =
          [&](bool begins) {
            edges[begins ? 0 : 1] = {.taken = (*server)->TakenByWorker(),
                                     .cpu_ns = (*server)->CpuNs()};
          },
  };
  // The load has a thread of its own, which ends before the next fork, and this one only waits:
  // what it prints does not delay the clients.
  std::future<absl::StatusOr<LoadResult>> running =
      std::async(std::launch::async, [&] { return RunLoad(options); });
  while (running.wait_for(kProgressInterval) == std::future_status::timeout) on_progress();
  const absl::StatusOr<LoadResult> load = running.get();
  if (!load.ok()) return load.status();
  const absl::StatusOr<ServerCost> cost = (*server)->Stop();
  if (!cost.ok()) {
    return absl::Status(cost.status().code(), absl::StrCat(mechanism.name(), ", ", workload.name(),
                                                           ": ", cost.status().message()));
  }
  return Evaluate(*load, edges[0], edges[1], **server, *cost);
}

}  // namespace

size_t Plan::RunCount() const {
  const auto able = std::count_if(mechanisms.begin(), mechanisms.end(), [&](const auto& mechanism) {
    return mechanism->WhyNot(transport).empty();
  });
  return static_cast<size_t>(able) * workloads.size() * repetitions;
}

int64_t Plan::ExpectedNs() const {
  return static_cast<int64_t>(RunCount()) * (warm_up_ns + duration_ns + kOverheadNsExpected);
}

absl::StatusOr<std::vector<Result>> RunPlan(
    const Plan& plan, const std::function<void(const Progress&)>& on_progress) {
  for (const auto& mechanism : plan.mechanisms) {
    if (!mechanism->WhyNot(plan.transport).empty()) continue;
    const auto server =
        ServerProcess::Start(*mechanism, plan.transport, std::vector<WorkerTraits>(plan.workers));
    if (!server.ok()) return server.status();
    if (auto stopped = (*server)->Stop(); !stopped.ok()) return stopped.status();
  }
  const size_t pair_count = plan.mechanisms.size() * plan.workloads.size();
  std::vector<Series> all;
  for (size_t pair = 0; pair < pair_count; ++pair) {
    all.push_back(
        {.mechanism = plan.mechanisms[pair % plan.mechanisms.size()]->name(),
         .workload = plan.workloads[pair / plan.mechanisms.size()]->name(),
         .transport = std::string(TransportName(plan.transport)),
         .workers = plan.workers,
         .skipped = plan.mechanisms[pair % plan.mechanisms.size()]->WhyNot(plan.transport)});
  }
  std::vector<size_t> order(pair_count);
  std::iota(order.begin(), order.end(), size_t{0});
  Random random(plan.seed);
  const int64_t began_ns = NowNs();
  Progress progress{.run_count = plan.RunCount()};
  for (uint32_t repetition = 0; repetition < plan.repetitions; ++repetition) {
    random.Shuffle(order);
    const uint64_t seed = random.Next();
    for (const size_t pair : order) {
      if (!all[pair].skipped.empty()) continue;
      const Workload& workload = *plan.workloads[pair / plan.mechanisms.size()];
      const Mechanism& mechanism = *plan.mechanisms[pair % plan.mechanisms.size()];
      progress.workload = workload.name();
      progress.mechanism = mechanism.name();
      const int64_t run_began_ns = NowNs();
      const int64_t run_ns = progress.run == 0
                                 ? plan.ExpectedNs() / static_cast<int64_t>(progress.run_count)
                                 : (run_began_ns - began_ns) / static_cast<int64_t>(progress.run);
      const auto tell = [&] {
        const int64_t now_ns = NowNs();
        progress.elapsed_ns = now_ns - began_ns;
        const auto left = static_cast<int64_t>(progress.run_count - progress.run);
        progress.remaining_ns = std::max<int64_t>(run_ns * left - (now_ns - run_began_ns), 0);
        on_progress(progress);
      };
      tell();
      absl::StatusOr<RunResult> run = RunOnce(plan, mechanism, workload, seed, tell);
      if (!run.ok()) return run.status();
      all[pair].runs.push_back(*std::move(run));
      ++progress.run;
    }
  }
  return Summarize(all);
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
