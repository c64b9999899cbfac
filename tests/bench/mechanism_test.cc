// Every mechanism under every transport, in the process of its own in which it is measured.

#include "bench/mechanism.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <memory>
#include <numeric>
#include <string>
#include <system_error>
#include <tuple>
#include <vector>

#include "absl/strings/str_replace.h"
#include "bench/load_generator.h"
#include "bench/runner.h"
#include "bench/server_process.h"
#include "bench/serving.h"
#include "bench/staying_clients.h"
#include "bench/workload.h"

namespace ringmaster::bench {
namespace {

constexpr uint64_t kConnections = 400;

// Has a thread that accepts for the workers.
bool HasMaster(const std::string& name) {
  return name.starts_with("ringmaster:") || name.starts_with("eventfd-");
}

// Serves from the file tables of its workers' rings, so most of what it does is no system call.
bool HasTables(const std::string& name) {
  return !MakeMechanism(name).value()->takes_descriptors();
}

// Waits for what is answered late on a machine that is busy.
constexpr int64_t kGraceNs = 20 * kSecond;

std::unique_ptr<ServerProcess> StartServer(const std::string& name, const ServerSetUp& set_up) {
  absl::StatusOr<std::unique_ptr<ServerProcess>> server =
      ServerProcess::Start(*MakeMechanism(name).value(), set_up);
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

// `count` connections as fast as one client after the other can.
LoadOptions OneByOne(const Target& target, size_t count) {
  return {.target = target,
          .load = OpenLoop{.starts_ns = std::vector<int64_t>(count, 0), .connections_max = 1},
          .duration_ns = kMillisecond,
          .grace_ns = kGraceNs};
}

std::vector<std::string> Names() {
  std::vector<std::string> names = MechanismNames();
  for (const std::string& name : DirectMechanismNames()) names.push_back(name);
  names.emplace_back("ringmaster:least-loaded/accept/inbox/thread");
  names.emplace_back("ringmaster:round-robin/poll-accept/completion/thread");
  names.emplace_back("ringmaster:exclusive/readiness/inbox/thread");
  names.emplace_back("ringmaster:least-loaded/poll-accept/mailbox/thread");
  names.emplace_back("ringmaster:round-robin/readiness/mailbox/thread");
  names.emplace_back("ringmaster:round-robin/poll-accept/inbox/loop");
  names.emplace_back("ringmaster:round-robin/poll-accept/inbox/ring");
  names.emplace_back("ringmaster:round-robin/poll-accept/inbox/thread-2");
  names.emplace_back("ringmaster:round-robin/poll-accept/inbox/thread/hints");
  names.emplace_back("ringmaster:round-robin/poll-accept/inbox/thread/no-hints");
  return names;
}

class EveryMechanism : public testing::TestWithParam<std::tuple<std::string, Transport>> {
 protected:
  void SetUp() override {
    const std::string why = MakeMechanism(name()).value()->WhyNot(transport());
    if (!why.empty()) GTEST_SKIP() << why;
  }
  static std::string name() { return std::get<0>(GetParam()); }
  static Transport transport() { return std::get<1>(GetParam()); }
  static ServerSetUp SetUpOf(size_t workers, const WorkerTraits& traits = {}) {
    return {.transport = transport(), .workers = std::vector<WorkerTraits>(workers, traits)};
  }
};
INSTANTIATE_TEST_SUITE_P(All, EveryMechanism,
                         testing::Combine(testing::ValuesIn(Names()),
                                          testing::Values(Transport::kTcp, Transport::kUnix)),
                         [](const auto& param) {
                           return absl::StrReplaceAll(std::get<0>(param.param),
                                                      {{"-", "_"}, {":", "_"}, {"/", "_"}}) +
                                  "_" + std::string(TransportName(std::get<1>(param.param)));
                         });

TEST_P(EveryMechanism, ServesEveryConnectionOnceAndWritesItDown) {
  const auto mechanism = MakeMechanism(name()).value();
  EXPECT_EQ(mechanism->name(), name());
  EXPECT_FALSE(mechanism->summary().empty());
  const auto server = StartServer(name(), SetUpOf(3));
  const LoadResult load =
      RunLoad({.target = server->target(),
               .load = OpenLoop{.starts_ns = EvenSchedule(4000, 100 * kMillisecond)},
               .duration_ns = 100 * kMillisecond,
               .grace_ns = kGraceNs})
          .value();
  EXPECT_EQ(load.answered, kConnections);
  EXPECT_EQ(load.lost(), 0u);
  EXPECT_GT(server->CpuNs(), 0);
  const ServerCost cost = server->Stop().value();
  EXPECT_GT(cost.cpu_ns, 0);
  EXPECT_GT(cost.context_switches, 0);
  const std::vector<uint64_t> taken = server->TakenByWorker();
  ASSERT_EQ(taken.size(), 3u);
  // On a busy machine a worker may pass one on that is ready, because another one waits. What was
  // ready may have been a request, which the other one answers, or the end after its answer.
  uint64_t passed_on = 0;
  for (size_t i = 0; i < taken.size(); ++i) passed_on += server->books().workers[i].passed_on;
  EXPECT_EQ(std::accumulate(taken.begin(), taken.end(), uint64_t{0}), kConnections + passed_on);
  // The server's books and what the clients were told are independent of each other.
  for (size_t i = 0; i < taken.size(); ++i) {
    EXPECT_LE(load.answered_by[i], taken[i]) << i;
    EXPECT_LE(taken[i] - load.answered_by[i], passed_on) << i;
  }
  EXPECT_EQ(server->books().recalled >= 0, name().starts_with("ringmaster:"));
  for (size_t i = 0; i < taken.size(); ++i) EXPECT_GT(server->books().workers[i].cpu_ns, 0u);
}

TEST_P(EveryMechanism, CountsWakesAndSystemCallsAlike) {
  const auto server = StartServer(name(), SetUpOf(2));
  const ServerCounts before = server->ReadCounts().value();
  const LoadResult load = RunLoad(OneByOne(server->target(), 100)).value();
  EXPECT_EQ(load.answered, 100u);
  // The end of the last connection may still be on its way; three of its calls are not.
  const ServerCounts after = server->ReadCounts().value();
  ASSERT_TRUE(server->Stop().ok());
  EXPECT_EQ(after.Taken() - before.Taken(), 100u);
  EXPECT_GT(after.at_ns, before.at_ns);
  EXPECT_GT(after.cpu_ns, before.cpu_ns);
  EXPECT_GT(after.context_switches, before.context_switches);
  EXPECT_GT(after.wakes, before.wakes);
  EXPECT_LE(after.empty_wakes - before.empty_wakes, after.wakes - before.wakes);
  EXPECT_GT(after.arrival_wakes, before.arrival_wakes);
  EXPECT_LE(after.arrival_wakes - before.arrival_wakes, after.wakes - before.wakes);
  // Each connection takes something to get it, a recv and a send, the recv that finds its end, and
  // a close. Every wake-up is a call, too. Requests of a ring are submitted by one that waits, and
  // an answer must be submitted before the next client comes.
  EXPECT_GE(after.system_calls - before.system_calls, HasTables(name()) ? 100u : 398u);
  EXPECT_GE(after.system_calls - before.system_calls, after.wakes - before.wakes);
  EXPECT_EQ(server->books().has_master, HasMaster(name()));
  // Asking for its counts wakes a master, too.
  EXPECT_EQ(after.master_wakes > before.master_wakes, HasMaster(name()));
  // Where workers accept by themselves, nobody is rung.
  EXPECT_TRUE(HasMaster(name()) || after.doorbells == before.doorbells);
}

TEST_P(EveryMechanism, StopsWhileConnectionsAreOpen) {
  const auto server = StartServer(name(), SetUpOf(2));
  // The grace is over before the slowest is answered, at the latest when the server is gone.
  const absl::StatusOr<LoadResult> load = RunLoad({.target = server->target(),
                                                   .load = ClosedLoop{.clients = 16},
                                                   .duration_ns = 20 * kMillisecond,
                                                   .grace_ns = 0});
  ASSERT_TRUE(load.ok());
  EXPECT_TRUE(server->Stop().ok());
  EXPECT_FALSE(server->Stop().ok()) << "it has been stopped";
  EXPECT_FALSE(server->ReadCounts().ok()) << "nobody is there to answer";
}

// Ten times as many clients as may be served at once, each of which stays for a while.
// A multishot accept has them all in the ring of one worker, which sleeps with each.
TEST_P(EveryMechanism, StopsHoweverManyWaitForASlowWorker) {
  const auto server = StartServer(name(), SetUpOf(1, {.delay_ns = 500 * kMillisecond}));
  ASSERT_TRUE(RunLoad({.target = server->target(),
                       .load = OpenLoop{.starts_ns = EvenSchedule(4000, 25 * kMillisecond)},
                       .duration_ns = 25 * kMillisecond,
                       .grace_ns = 0})
                  .ok());
  EXPECT_TRUE(server->Stop().ok());
}

TEST_P(EveryMechanism, AdmitsNoMoreThanItsWorkersMayHaveAndServesTheRestLater) {
  const auto server = StartServer(name(), SetUpOf(2, {.capacity = 3}));
  OpenLoop flood{.starts_ns = std::vector<int64_t>(60, 0), .hold_ns = 2 * kMillisecond};
  const LoadResult load = RunLoad({.target = server->target(),
                                   .load = std::move(flood),
                                   .duration_ns = 100 * kMillisecond,
                                   .grace_ns = kGraceNs})
                              .value();
  EXPECT_EQ(load.answered, 60u);
  ASSERT_TRUE(server->Stop().ok());
  // A multishot accept is answered before anybody can know how many there are.
  if (name().starts_with("uring-multishot-")) return;
  for (int worker = 0; worker < 2; ++worker) {
    EXPECT_LE(server->books().workers[static_cast<size_t>(worker)].open_max, 3u) << worker;
  }
}

TEST_P(EveryMechanism, GoesOnAfterItHasRunOutOfDescriptors) {
  constexpr uint32_t kRoom = 6;
  ServerSetUp set_up = SetUpOf(2);
  set_up.descriptor_room = kRoom;
  set_up.descriptor_limit = StartServer(name(), set_up)->books().descriptor_limit;
  const auto server = StartServer(name(), set_up);
  OpenLoop load{.starts_ns = std::vector<int64_t>(30, 0), .hold_ns = 5 * kMillisecond};
  const LoadResult result = RunLoad({.target = server->target(),
                                     .load = std::move(load),
                                     .duration_ns = 100 * kMillisecond,
                                     .grace_ns = kGraceNs})
                                .value();
  EXPECT_EQ(result.answered, 30u);
  ASSERT_TRUE(server->Stop().ok());
  uint64_t open_max = 0;
  for (const WorkerBooks& worker : server->books().workers) {
    open_max = std::max<uint64_t>(open_max, worker.open_max);
  }
  EXPECT_GT(open_max, 0u);
  if (HasTables(name())) return;  // there is a descriptor for a moment only, or never
  EXPECT_LE(open_max, kRoom);
}

// What a worker has begun it finishes; the others serve everything that comes later.
TEST_P(EveryMechanism, LosesNothingWhenAWorkerLeaves) {
  const auto server = StartServer(name(), SetUpOf(2));
  EXPECT_EQ(RunLoad(OneByOne(server->target(), 50)).value().answered, 50u);
  server->TellToLeave(0);
  const uint64_t taken = server->TakenByWorker()[0];
  const LoadResult load = RunLoad(OneByOne(server->target(), 1000)).value();
  // One can have waited in the queue of the worker's own listener.
  const uint64_t lost_max = MakeMechanism(name()).value()->shares_port() ? 1 : 0;
  EXPECT_LE(load.lost(), lost_max);
  ASSERT_TRUE(server->Stop().ok());
  // It leaves at the end of its next turn. One client at a time makes short turns, but on a busy
  // machine the next connection may always be there when it looks. A few more come in while a
  // multishot accept is being cancelled.
  EXPECT_LE(server->TakenByWorker()[0] - taken, kTakesPerTurnMax + 10u);
}

TEST_P(EveryMechanism, KeepsTheConnectionsOfAWorkerThatFreezesWaiting) {
  constexpr int64_t kFreezeNs = 20 * kMillisecond;
  const auto server = StartServer(name(), SetUpOf(1));
  server->Freeze(0, kFreezeNs);
  const LoadResult load = RunLoad(OneByOne(server->target(), 5)).value();
  EXPECT_EQ(load.answered, 5u);
  EXPECT_GE(load.latency_ns.max(), static_cast<uint64_t>(kFreezeNs));
}

// Clients that stay and ask by chance: some of them at once, while other workers wait.
class PassesOn : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(
    All, PassesOn,
    testing::Values("ringmaster:least-loaded", "ringmaster:round-robin",
                    "ringmaster:least-loaded/poll-accept/completion",
                    "ringmaster:least-loaded/poll-accept/mailbox",
                    "ringmaster:least-loaded/poll-accept/inbox/thread-2"),
    [](const auto& param) {
      return absl::StrReplaceAll(param.param, {{"-", "_"}, {":", "_"}, {"/", "_"}});
    });

uint64_t TakenByAll(const std::string& name, uint32_t clients) {
  const auto server = StartServer(
      name, {.workers = std::vector<WorkerTraits>(4, {.request_ns = 2 * kMillisecond})});
  const LoadResult load = RunStaying({.target = server->target(),
                                      .load = StayingClients{.clients = clients,
                                                             .opening_ns = 0,
                                                             .think_ns = 6 * kMillisecond},
                                      .duration_ns = 500 * kMillisecond,
                                      .grace_ns = kGraceNs})
                              .value();
  EXPECT_EQ(load.lost(), 0u);
  EXPECT_GT(load.answered, clients);
  EXPECT_TRUE(server->Stop().ok());
  const std::vector<uint64_t> taken = server->TakenByWorker();
  return std::accumulate(taken.begin(), taken.end(), uint64_t{0});
}

TEST_P(PassesOn, WhatIsReadyWhileOthersWait) {
  const std::string why = MakeMechanism(GetParam()).value()->WhyNot(Transport::kTcp);
  if (!why.empty()) GTEST_SKIP() << why;
  EXPECT_GT(TakenByAll(GetParam(), 12), 12u);
}

class DoesNotPassOn : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(
    All, DoesNotPassOn,
    testing::Values("ringmaster:least-loaded/poll-accept/inbox/thread/hints",
                    "ringmaster:least-loaded/poll-accept/direct/thread"),
    [](const auto& param) {
      return absl::StrReplaceAll(param.param, {{"-", "_"}, {":", "_"}, {"/", "_"}});
    });

TEST_P(DoesNotPassOn, WhenItIsNotToldOrHasReadTheRequest) {
  const std::string why = MakeMechanism(GetParam()).value()->WhyNot(Transport::kTcp);
  if (!why.empty()) GTEST_SKIP() << why;
  EXPECT_EQ(TakenByAll(GetParam(), 12), 12u);
}

class TakesTurns : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(
    All, TakesTurns,
    testing::Values("ringmaster:round-robin", "ringmaster:round-robin/poll-accept/completion",
                    "ringmaster:round-robin/poll-accept/direct",
                    "ringmaster:round-robin/poll-accept/completion-register",
                    "ringmaster:round-robin/poll-accept/inbox-register",
                    "ringmaster:round-robin/poll-accept/mailbox/thread/dealt",
                    "eventfd-round-robin"),
    [](const auto& param) {
      return absl::StrReplaceAll(param.param, {{"-", "_"}, {":", "_"}, {"/", "_"}});
    });

TEST_P(TakesTurns, GivesEveryWorkerTheSame) {
  const std::string why = MakeMechanism(GetParam()).value()->WhyNot(Transport::kTcp);
  if (!why.empty()) GTEST_SKIP() << why;
  const auto server = StartServer(GetParam(), {.workers = std::vector<WorkerTraits>(4)});
  EXPECT_EQ(RunLoad(OneByOne(server->target(), 40)).value().answered, 40u);
  ASSERT_TRUE(server->Stop().ok());
  if (server->books().recalled > 0) GTEST_SKIP() << "a worker was not scheduled for long";
  EXPECT_EQ(server->TakenByWorker(), (std::vector<uint64_t>{10, 10, 10, 10}));
}

// One at a time and with a pause after each, everybody waits, and the kernel's order decides.
TEST(EpollExclusiveReadd, LetsOthersComeFirstAfterSixteen) {
  const auto most = [](const std::string& name) {
    const auto server = StartServer(name, {.workers = std::vector<WorkerTraits>(4)});
    EXPECT_EQ(RunLoad({.target = server->target(),
                       .load = ClosedLoop{.clients = 1, .think_ns = kMillisecond},
                       .duration_ns = 300 * kMillisecond,
                       .grace_ns = kGraceNs})
                  .value()
                  .lost(),
              0u);
    EXPECT_TRUE(server->Stop().ok());
    const std::vector<uint64_t> taken = server->TakenByWorker();
    return static_cast<double>(*std::max_element(taken.begin(), taken.end())) /
           static_cast<double>(std::accumulate(taken.begin(), taken.end(), uint64_t{0}));
  };
  EXPECT_GT(most("epoll-exclusive-one"), 0.6);
  EXPECT_LT(most("epoll-exclusive-readd"), 0.5);
}

TEST(MakeMechanism, PrintsWhatIsLeftOutOfANameOfRingmasters) {
  for (const char* name : {"ringmaster:least-loaded", "ringmaster:least-loaded/poll-accept",
                           "ringmaster:least-loaded/poll-accept/inbox",
                           "ringmaster:least-loaded/poll-accept/inbox/thread"}) {
    EXPECT_EQ(MakeMechanism(name).value()->name(),
              "ringmaster:least-loaded/poll-accept/inbox/thread");
  }
  EXPECT_EQ(MakeMechanism("ringmaster:affinity-cpu:3/accept").value()->name(),
            "ringmaster:affinity-cpu:3/accept/inbox/thread");
  EXPECT_EQ(MakeMechanism("ringmaster:least-loaded/accept/mailbox/thread/pass-on").value()->name(),
            "ringmaster:least-loaded/accept/mailbox/thread");
  for (const char* name : {"ringmaster:least-loaded/accept/mailbox/thread/hints",
                           "ringmaster:least-loaded/accept/mailbox/thread/no-hints"}) {
    EXPECT_EQ(MakeMechanism(name).value()->name(), name);
  }
}

TEST(MakeMechanism, SaysWhichPartOfANameItDoesNotKnowAndWhatItKnows) {
  const struct {
    const char* name;
    const char* part;
    const char* known;
  } kNames[] = {
      {"ringmaster:least-loaded/poll", "intake \"poll\"", "poll-accept, accept"},
      {"ringmaster:least-loaded/accept/telepathy", "handoff \"telepathy\"",
       "inbox, completion, mailbox, direct, completion-register, inbox-register"},
      {"ringmaster:least-loaded/accept/inbox/nobody", "host \"nobody\"", "thread-4, loop, ring"},
      {"ringmaster:least-loaded/accept/inbox/thread/hints/more", "more parts",
       "INTAKE/HANDOFF/HOST"},
      {"ringmaster:least-loaded/accept/inbox/thread/more", "\"more\"", "no-hints"},
      {"ringmaster:least-loaded/", "intake \"\"", "poll-accept"},
      {"ringmaster:affinity-hash/readiness", "has none", "poll-accept"},
      {"ringmaster:exclusive/readiness/completion", "tickets", "inbox"},
      {"ringmaster:exclusive/accept/completion/loop", "claims", "host thread"},
      {"ringmaster:exclusive/accept/mailbox/loop", "has a ring", "host thread"},
      {"ringmaster:exclusive/accept/direct/loop", "claims", "host thread"},
      {"ringmaster:exclusive/accept/inbox-register/ring", "claims", "host thread"},
      {"ringmaster:exclusive/readiness/direct", "tickets", "inbox"},
      {"ringmaster:exclusive/accept/direct/thread/pass-on", "has read", "take hints"},
      {"ringmaster:exclusive/accept/inbox/dedicated", "host dedicated", "called thread now"},
      {"ringmaster:exclusive/accept/inbox/dedicated-2", "host dedicated-2", "called thread-2 now"},
      {"ringmaster:exclusive/accept/inbox/worker", "host worker", "called loop now"},
  };
  for (const auto& [name, part, known] : kNames) {
    const absl::Status status = MakeMechanism(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
    EXPECT_NE(status.message().find(known), std::string::npos) << status;
  }
}

TEST(MakeMechanism, SaysThatReusePortIsNotForUnixSockets) {
  for (const char* name : {"reuseport", "reuseport-cbpf", "reuseport-ebpf",
                           "ringmaster:least-loaded/poll-accept/inbox/thread-2"}) {
    const std::string why = MakeMechanism(name).value()->WhyNot(Transport::kUnix);
    EXPECT_NE(why.find("use TCP"), std::string::npos) << why;
  }
  EXPECT_EQ(MakeMechanism("reuseport-cbpf").value()->WhyNot(Transport::kTcp), "");
}

TEST(MakeMechanism, NamesTheKnownOnesWhenItDoesNotKnowOne) {
  const absl::Status status = MakeMechanism("carrier-pigeon").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("epoll-exclusive"), std::string::npos) << status;
  EXPECT_EQ(MakeMechanism("ringmaster:nonsense").status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ServerProcess, RefusesImpossibleNumbersOfWorkers) {
  const auto mechanism = MakeMechanism("epoll-exclusive").value();
  for (const size_t count : {size_t{0}, size_t{kWorkersMax} + 1}) {
    EXPECT_EQ(ServerProcess::Start(*mechanism, {.workers = std::vector<WorkerTraits>(count)})
                  .status()
                  .code(),
              absl::StatusCode::kInvalidArgument);
  }
}

// A mechanism that fails in each way that a server can.
class Broken : public Mechanism {
 public:
  enum class Way { kRefuses, kHasNoThread, kCrashesAtStart, kCrashesLater };
  explicit Broken(Way way) : way_(way) {}
  std::string name() const override { return "broken"; }
  std::string summary() const override { return "does not work"; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
    if (way_ == Way::kRefuses) return absl::PermissionDeniedError("not today; come tomorrow");
    if (way_ == Way::kHasNoThread) {
      throw std::system_error(EAGAIN, std::generic_category(), "what a std::thread throws");
    }
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
  const absl::Status status =
      ServerProcess::Start(Broken(Broken::Way::kRefuses), {.workers = std::vector<WorkerTraits>(1)})
          .status();
  EXPECT_EQ(status, absl::PermissionDeniedError("not today; come tomorrow"));
}

TEST(ServerProcess, SaysThatThereAreTooFewThreads) {
  const absl::Status status = ServerProcess::Start(Broken(Broken::Way::kHasNoThread),
                                                   {.workers = std::vector<WorkerTraits>(1)})
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("cannot start a thread"), std::string::npos) << status;
  EXPECT_NE(status.message().find("ulimit -u"), std::string::npos) << status;
}

TEST(ServerProcess, TellsOfACrashBeforeItIsReadyAndAfterwards) {
  const ServerSetUp set_up{.workers = std::vector<WorkerTraits>(1)};
  EXPECT_FALSE(ServerProcess::Start(Broken(Broken::Way::kCrashesAtStart), set_up).ok());
  const auto server = ServerProcess::Start(Broken(Broken::Way::kCrashesLater), set_up).value();
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

TEST(Runner, TellsBeforeItMeasuresThatAMechanismCannotStart) {
  Plan plan{.repetitions = 1, .warm_up_ns = 0, .duration_ns = 20 * kMillisecond};
  plan.mechanisms.push_back(MakeMechanism("epoll-exclusive").value());
  plan.mechanisms.push_back(std::make_unique<Broken>(Broken::Way::kRefuses));
  plan.mechanisms.push_back(std::make_unique<Broken>(Broken::Way::kCrashesAtStart));
  plan.workloads.push_back(MakeWorkload("light").value());
  std::vector<std::string> told;
  const auto results = RunPlan(plan, [&](const Progress& progress) {
                         if (told.size() < 3) told.push_back(progress.skipped);
                       }).value();
  EXPECT_EQ(told, (std::vector<std::string>{"not today; come tomorrow", results[2].skipped, ""}));
  EXPECT_EQ(results[0].repetitions, 1u);
  EXPECT_EQ(results[1].skipped, "not today; come tomorrow");
  EXPECT_NE(results[2].skipped.find("ended before it was ready"), std::string::npos);
}

}  // namespace
}  // namespace ringmaster::bench
