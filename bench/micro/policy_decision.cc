// What does a decision of a policy cost, with everything that it looks at in the cache?
//
// A snapshot of 2 to 1,024 workers stands ready, all with credit, their loads drawn once. Each
// iteration picks for an arrival whose CPU goes round. A policy that looks at every candidate grows
// with their number, one that does not stays flat: that is the question. Gathering the snapshot is
// not in it, see engine_per_arrival.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/random.h"
#include "ringmaster/policy.h"

namespace ringmaster::bench {
namespace {

constexpr int32_t kCpus = 64;

// So many CPUs that share caches by eights and memory nodes by halves.
CpuTopology MakeTopology() {
  CpuTopology topology;
  for (int32_t cpu = 0; cpu < kCpus; ++cpu) {
    topology.cpus.push_back({.core = cpu / 2, .cache = cpu / 8, .node = cpu / (kCpus / 2)});
  }
  return topology;
}

void PolicyDecision(benchmark::State& state, const std::string& name) {
  const auto workers = static_cast<uint32_t>(state.range(0));
  const std::unique_ptr<Policy> policy = PolicyByName(name).value();
  policy->Prepare(workers);
  const CpuTopology topology = MakeTopology();
  Random random(1);
  std::vector<Candidate> candidates;
  std::vector<uint32_t> joined;
  for (uint32_t worker = 0; worker < workers; ++worker) {
    const auto open = static_cast<uint32_t>(random.Next() % 100);
    candidates.push_back({.worker = worker,
                          .open = open,
                          .unclaimed = open % 2,
                          .credit = 1 + open % 32,
                          .cpu = static_cast<int32_t>(worker % kCpus),
                          .activity = open % 2 == 0 ? Activity::kIdle : Activity::kClaiming});
    joined.push_back(worker);
  }
  const View view{.candidates = candidates, .joined = joined, .topology = &topology};
  Arrival arrival;
  for (auto _ : state) {
    arrival.incoming_cpu = (arrival.incoming_cpu + 1) % kCpus;
    benchmark::DoNotOptimize(policy->Pick(arrival, view));
  }
}

}  // namespace
}  // namespace ringmaster::bench

int main(int argc, char** argv) {
  for (const std::string_view name : ringmaster::PolicyNames()) {
    const std::string text(name);
    benchmark::RegisterBenchmark(
        text.c_str(),
        [text](benchmark::State& state) { ringmaster::bench::PolicyDecision(state, text); })
        ->Arg(2)
        ->Arg(8)
        ->Arg(64)
        ->Arg(256)
        ->Arg(1024);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
}
