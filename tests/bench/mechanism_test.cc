// Every mechanism under every transport, in the process of its own in which it is measured.

#include "bench/mechanism.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_replace.h"
#include "bench/load_generator.h"
#include "bench/runner.h"
#include "bench/server_process.h"
#include "bench/workload.h"
#include "ringmaster/balancer.h"

namespace ringmaster::bench {
namespace {

constexpr uint64_t kConnections = 400;

bool NeedsIoUring(const std::string& name) { return name.starts_with("ringmaster:"); }

std::string WhyNoIoUring() {
  // Created and gone before the fork, as a balancer asks for.
  return std::string(Balancer::Create().status().message());
}

class EveryMechanism : public testing::TestWithParam<std::tuple<std::string, Transport>> {
 protected:
  void SetUp() override {
    if (!NeedsIoUring(name())) return;
    if (const std::string why = WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  }
  static std::string name() { return std::get<0>(GetParam()); }
  static Transport transport() { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(All, EveryMechanism,
                         testing::Combine(testing::ValuesIn(MechanismNames()),
                                          testing::Values(Transport::kTcp, Transport::kUnix)),
                         [](const auto& param) {
                           return absl::StrReplaceAll(std::get<0>(param.param),
                                                      {{"-", "_"}, {":", "_"}}) +
                                  "_" + std::string(TransportName(std::get<1>(param.param)));
                         });

TEST_P(EveryMechanism, ServesEveryConnectionOnceAndWritesItDown) {
  const auto mechanism = MakeMechanism(name()).value();
  EXPECT_EQ(mechanism->name(), name());
  const auto server =
      ServerProcess::Start(*mechanism, transport(), std::vector<WorkerTraits>(3)).value();
  const LoadResult load =
      RunLoad({.target = server->target(),
               .load = OpenLoop{.starts_ns = EvenSchedule(4000, 100 * kMillisecond)},
               .duration_ns = 100 * kMillisecond,
               .grace_ns = 20 * kSecond})
          .value();
  EXPECT_EQ(load.answered, kConnections);
  EXPECT_EQ(load.lost(), 0u);
  EXPECT_GT(server->CpuNs(), 0);
  const ServerCost cost = server->Stop().value();
  EXPECT_GT(cost.cpu_ns, 0);
  EXPECT_GT(cost.context_switches, 0);
  const std::vector<uint64_t> taken = server->TakenByWorker();
  ASSERT_EQ(taken.size(), 3u);
  EXPECT_EQ(std::accumulate(taken.begin(), taken.end(), uint64_t{0}), kConnections);
  EXPECT_EQ(server->books().recalled >= 0, NeedsIoUring(name()));
  for (size_t i = 0; i < taken.size(); ++i) EXPECT_GT(server->books().workers[i].cpu_ns, 0u);
}

TEST_P(EveryMechanism, StopsWhileConnectionsAreOpen) {
  const auto server = ServerProcess::Start(*MakeMechanism(name()).value(), transport(),
                                           std::vector<WorkerTraits>(2))
                          .value();
  // The grace is over before the slowest is answered, at the latest when the server is gone.
  const absl::StatusOr<LoadResult> load = RunLoad({.target = server->target(),
                                                   .load = ClosedLoop{.clients = 16},
                                                   .duration_ns = 20 * kMillisecond,
                                                   .grace_ns = 0});
  ASSERT_TRUE(load.ok());
  EXPECT_TRUE(server->Stop().ok());
  EXPECT_FALSE(server->Stop().ok()) << "it has been stopped";
}

TEST(RoundRobin, GivesEveryWorkerTheSame) {
  if (const std::string why = WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  const auto server = ServerProcess::Start(*MakeMechanism("ringmaster:round-robin").value(),
                                           Transport::kTcp, std::vector<WorkerTraits>(4))
                          .value();
  const LoadResult load =
      RunLoad({.target = server->target(),
               .load = OpenLoop{.starts_ns = std::vector<int64_t>(40, 0), .connections_max = 1},
               .duration_ns = kMillisecond,
               .grace_ns = 20 * kSecond})
          .value();
  EXPECT_EQ(load.answered, 40u);
  ASSERT_TRUE(server->Stop().ok());
  if (server->books().recalled > 0) GTEST_SKIP() << "a worker was not scheduled for long";
  EXPECT_EQ(server->TakenByWorker(), (std::vector<uint64_t>{10, 10, 10, 10}));
}

TEST(MakeMechanism, NamesTheKnownOnesWhenItDoesNotKnowOne) {
  const absl::Status status = MakeMechanism("carrier-pigeon").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("epoll-exclusive"), std::string::npos) << status;
  EXPECT_EQ(MakeMechanism("ringmaster:nonsense").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(MakeWorkload, MakesEveryOneByItsName) {
  for (const std::string& name : WorkloadNames()) {
    const auto workload = MakeWorkload(name).value();
    EXPECT_EQ(workload->name(), name);
    EXPECT_EQ(workload->Workers(3).size(), 3u);
    EXPECT_EQ(workload->open_loop(), std::holds_alternative<OpenLoop>(workload->Load(kSecond, 1)));
  }
  EXPECT_EQ(MakeWorkload("nonsense").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ServerProcess, RefusesImpossibleNumbersOfWorkers) {
  const auto mechanism = MakeMechanism("epoll-exclusive").value();
  for (const size_t count : {size_t{0}, size_t{kWorkersMax} + 1}) {
    EXPECT_EQ(ServerProcess::Start(*mechanism, Transport::kTcp, std::vector<WorkerTraits>(count))
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// A mechanism that fails in each way that a server can.
class Broken : public Mechanism {
 public:
  enum class Way { kRefuses, kCrashesAtStart, kCrashesLater };
  explicit Broken(Way way) : way_(way) {}
  std::string name() const override { return "broken"; }
  std::string summary() const override { return "does not work"; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
    if (way_ == Way::kRefuses) return absl::PermissionDeniedError("not today; come tomorrow");
    if (way_ == Way::kCrashesAtStart) raise(SIGKILL);
    class Crash : public Server {
     public:
      ~Crash() override { raise(SIGKILL); }
    };
    return std::make_unique<Crash>();
  }

 private:
  const Way way_;
};

TEST(ServerProcess, HandsOnWhyAMechanismCannotStart) {
  const absl::Status status = ServerProcess::Start(Broken(Broken::Way::kRefuses), Transport::kTcp,
                                                   std::vector<WorkerTraits>(1))
                                  .status();
  EXPECT_EQ(status, absl::PermissionDeniedError("not today; come tomorrow"));
}

TEST(ServerProcess, TellsOfACrashBeforeItIsReadyAndAfterwards) {
  const std::vector<WorkerTraits> workers(1);
  EXPECT_FALSE(
      ServerProcess::Start(Broken(Broken::Way::kCrashesAtStart), Transport::kTcp, workers).ok());
  const auto server =
      ServerProcess::Start(Broken(Broken::Way::kCrashesLater), Transport::kTcp, workers).value();
  const absl::Status status = server->Stop().status();
  EXPECT_NE(status.message().find("KILL"), std::string::npos) << status;
}

TEST(Runner, MeasuresEveryPairAsOftenAsAskedAndSaysWhereItIs) {
  Plan plan;
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  for (const char* name : {"light", "slow-worker"}) {
    plan.workloads.push_back(MakeWorkload(name).value());
  }
  plan.workers = 2;
  plan.repetitions = 2;
  plan.warm_up_ns = 10 * kMillisecond;
  plan.duration_ns = 50 * kMillisecond;
  plan.seed = 7;
  std::vector<size_t> seen;
  const std::vector<Result> results = RunPlan(plan, [&](const Progress& progress) {
                                        EXPECT_EQ(progress.run_count, 4u);
                                        if (seen.empty() || seen.back() != progress.run) {
                                          seen.push_back(progress.run);
                                        }
                                      }).value();
  EXPECT_EQ(seen, (std::vector<size_t>{0, 1, 2, 3}));
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[0].workload, "light");
  EXPECT_EQ(results[1].workload, "slow-worker");
  for (const Result& result : results) {
    EXPECT_EQ(result.mechanism, "epoll-exclusive");
    EXPECT_EQ(result.repetitions, 2u);
    EXPECT_EQ(result.shares.size(), 2u);
    EXPECT_GT(result.median.connections_per_second.value(), 0);
    EXPECT_EQ(result.median.lost, 0);
    EXPECT_FALSE(result.median.recalled.has_value());
  }
  EXPECT_EQ(TextsOf(plan)[1].slow_workers, std::vector<uint32_t>{0});
}

TEST(Runner, FailsBeforeItMeasuresWhenAMechanismCannotStart) {
  Plan plan;
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  plan.mechanisms.push_back(std::make_unique<Broken>(Broken::Way::kRefuses));
  plan.workloads.push_back(MakeWorkload("light").value());
  const auto results =
      RunPlan(plan, [](const Progress&) { ADD_FAILURE() << "something was measured"; });
  EXPECT_EQ(results.status().code(), absl::StatusCode::kPermissionDenied);
}

}  // namespace
}  // namespace ringmaster::bench
