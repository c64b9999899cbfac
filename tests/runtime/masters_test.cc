// Several masters that serve the same workers. Method: every worker joins the sources of all
// masters, and what must hold for one master must hold for the sum of them.

#include <dirent.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr uint32_t kMasters = 2;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

class MastersTest : public BalancerTest {
 protected:
  void SetUp() override {
    BalancerTest::SetUp();
    if (IsSkipped()) return;
    Create({.masters = kMasters});
  }

  // One listener for each master.
  std::vector<Source> AddSources(const std::function<SourceOptions()>& options = [] {
    return SourceOptions();
  }) {
    std::vector<Source> sources;
    for (const Listener& listener : listeners_) sources.push_back(AddSource(listener, options()));
    return sources;
  }

  const std::array<Listener, kMasters> listeners_{Listener::Tcp(), Listener::Tcp()};
};

// --- What is the same as with one ----------------------------------------------------------------

class EveryWayOfMasters : public MastersTest,
                          public ::testing::WithParamInterface<std::pair<Intake, Handoff>> {};
INSTANTIATE_TEST_SUITE_P(Masters, EveryWayOfMasters,
                         ::testing::Values(std::pair(Intake::kPollAccept, Handoff::kInbox),
                                           std::pair(Intake::kPollAccept, Handoff::kCompletion),
                                           std::pair(Intake::kAccept, Handoff::kInbox),
                                           std::pair(Intake::kAccept, Handoff::kCompletion),
                                           std::pair(Intake::kReadiness, Handoff::kInbox)),
                         [](const auto& way) {
                           const Intake intake = way.param.first;
                           return std::string(intake == Intake::kPollAccept ? "PollAccept"
                                              : intake == Intake::kAccept   ? "Accept"
                                                                            : "Readiness") +
                                  (way.param.second == Handoff::kInbox ? "Inbox" : "Completion");
                         });

TEST_P(EveryWayOfMasters, ServeEveryConnectionOnceAndCountItOnce) {
  const Intake intake = GetParam().first;
  const Handoff handoff = GetParam().second;
  const std::vector<Source> sources =
      AddSources([intake] { return SourceOptions{.intake = intake}; });
  // Windows of 1, so that every claim and every Took is somebody's credit.
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 3; ++i) {
    workers.push_back(AddWorker(sources, ServeIndex, {.handoff = handoff, .window = 1}));
  }
  constexpr int kEach = 400;
  std::vector<std::thread> clients;
  std::atomic<int> lost{0};
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&, i] {
      for (int n = 0; n < kEach; ++n) {
        if (AskWhoServes(listeners_[static_cast<size_t>(i) % kMasters]) < 0) ++lost;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(lost, 0);
  uint64_t claimed = 0;
  for (const auto& worker : workers) claimed += worker->claimed();
  EXPECT_EQ(claimed, 4u * kEach);
  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.open, 0u);
  ASSERT_EQ(report.stats.sources.size(), kMasters);
  for (uint32_t i = 0; i < kMasters; ++i) EXPECT_EQ(report.stats.sources[i].source, i);
  if (intake == Intake::kReadiness) return;  // there the arrivals are tickets
  EXPECT_EQ(report.stats.accepted, 4u * kEach);
  ASSERT_EQ(report.stats.workers.size(), 3u);
  uint64_t counted = 0;
  for (const WorkerStats& worker : report.stats.workers) counted += worker.claimed;
  EXPECT_EQ(counted, 4u * kEach);
  for (const SourceStats& source : report.stats.sources) EXPECT_EQ(source.claimed, 2u * kEach);
}

TEST_P(EveryWayOfMasters, LoseNothingWhileWorkersComeAndGo) {
  const Intake intake = GetParam().first;
  const Handoff handoff = GetParam().second;
  std::vector<Source> sources = AddSources([intake] { return SourceOptions{.intake = intake}; });
  const auto steady = AddWorker(sources, ServeIndex, {.handoff = handoff});
  std::atomic<bool> stop{false};
  std::thread changes([&] {
    while (!stop) AddWorker(sources, ServeIndex, {.handoff = handoff, .window = 2})->Stop();
  });
  for (int i = 0; i < 600; ++i) {
    ASSERT_GE(AskWhoServes(listeners_[static_cast<size_t>(i) % kMasters]), 0) << i;
  }
  stop = true;
  changes.join();
}

TEST_F(MastersTest, AMailboxServesAllOfThemAndTakesTurns) {
  Create({.masters = kMasters, .recall_after = absl::Seconds(60)});
  // The masters deal, and doorbells tell.
  std::vector<Source> sources = AddSources([] { return SourceOptions{.permits = false}; });
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  for (uint64_t i = 0; i < kMasters; ++i) ASSERT_TRUE(sources[i].Join(port, {.token = i}).ok());
  std::vector<int> clients;
  constexpr int kEach = 4;
  for (int i = 0; i < kEach; ++i) {
    for (const Listener& listener : listeners_) clients.push_back(listener.Connect());
  }
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 2 * kEach; }));
  // One at a time: the mailbox stays readable, and no master waits until another one has had all.
  std::vector<uint64_t> tokens;
  for (int i = 0; i < 2 * kEach; ++i) {
    pollfd readable{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
    ASSERT_EQ(poll(&readable, 1, 10'000), 1) << i;
    const bool left =
        port.Claim([&](Connection connection) { tokens.push_back(connection.token()); }, 1);
    EXPECT_EQ(left, i + 1 < 2 * kEach);
  }
  ASSERT_EQ(tokens.size(), 2u * kEach);
  for (size_t i = 1; i < tokens.size(); ++i) EXPECT_NE(tokens[i], tokens[i - 1]);
  pollfd readable{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&readable, 1, 0), 0);
  for (const int client : clients) close(client);
}

TEST_F(MastersTest, WhatALeavingWorkerHasNotClaimedIsServedByOthers) {
  std::vector<Source> sources = AddSources();
  const Mailbox mailbox = Mailbox::Create().value();
  Port leaver = balancer_->AddWorker(mailbox).value();
  for (Source& source : sources) ASSERT_TRUE(source.Join(leaver).ok());
  std::vector<int> clients;
  for (const Listener& listener : listeners_) {
    for (int i = 0; i < 5; ++i) clients.push_back(listener.Connect());
  }
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 10; }));
  leaver.Leave();
  const auto heir = AddWorker(sources);
  ASSERT_TRUE(Eventually([&] { return heir->claimed() == 10; }));
  EXPECT_EQ(heir->index(), leaver.worker());  // the index is free at every master
  for (const int client : clients) close(client);
}

// --- What they share -----------------------------------------------------------------------------

// A worker keeps what it claims until the test lets go.
class SharedLimits : public MastersTest {
 protected:
  static constexpr uint32_t kCap = 8;
  static constexpr size_t kClients = 10 * kCap;

  std::unique_ptr<Worker> AddKeeper(std::vector<Source> sources, WorkerOptions options = {}) {
    return AddWorker(std::move(sources), kept_.serve(), options);
  }
  // Floods both listeners with ten times the cap and serves them as those before leave. At no
  // moment are more accepted than may be, neither by the workers' count nor by the masters'. The
  // masters' counts are taken after and before those that they are compared with.
  void FloodAndServe(size_t cap, Intake intake) {
    std::vector<int> clients;
    for (size_t i = 0; i < kClients; ++i) {
      clients.push_back(listeners_[i % kMasters].Connect());
    }
    for (size_t served = 0; served < kClients;) {
      const size_t next = std::min(cap, kClients - served);
      ASSERT_TRUE(Eventually([&] { return kept_.size() >= next; }))
          << served << " " << kept_.size();
      if (intake != Intake::kReadiness) {  // whose arrivals are tickets
        EXPECT_LE(balancer_->Stats().accepted, served + cap);
      }
      std::vector<Connection> leaving = kept_.TakeAll();
      EXPECT_LE(leaving.size(), cap);
      served += leaving.size();
      // One after the other, so that places are free one at a time while both masters want them.
      for (Connection& connection : leaving) connection = Connection();
    }
    ExpectEnds(clients);
  }

  Kept kept_;
};

TEST_F(SharedLimits, ABalancersCapacityIsExact) {
  for (int run = 0; run < 20; ++run) {
    Create({.masters = kMasters, .capacity = kCap});
    const Intake intake = run % 2 == 0 ? Intake::kPollAccept : Intake::kReadiness;
    const std::vector<Source> sources =
        AddSources([intake] { return SourceOptions{.intake = intake}; });
    const auto one = AddKeeper(sources);
    const auto two = AddKeeper(sources);
    FloodAndServe(kCap, intake);
    if (HasFatalFailure()) return;
  }
}

TEST_F(SharedLimits, SoAreTheCapacitiesOfTheWorkers) {
  for (int run = 0; run < 20; ++run) {
    Create({.masters = kMasters});
    const Intake intake = run % 2 == 0 ? Intake::kPollAccept : Intake::kReadiness;
    const std::vector<Source> sources =
        AddSources([intake] { return SourceOptions{.intake = intake}; });
    const auto one = AddKeeper(sources, {.capacity = 3});
    const auto two = AddKeeper(sources, {.capacity = kCap - 3});
    FloodAndServe(kCap, intake);
    if (HasFatalFailure()) return;
  }
}

TEST_F(SharedLimits, ALoneWorkerWithOnePlaceIsSharedByBoth) {
  for (int run = 0; run < 20; ++run) {
    Create({.masters = kMasters});
    const auto worker = AddKeeper(AddSources(), {.capacity = 1, .window = 1});
    FloodAndServe(1, Intake::kPollAccept);
  }
}

// What a policy sees of a worker's load includes what another master has given it. So connections
// that stay are spread as evenly as one master spreads them. Without recalls and with ample
// windows, so that a worker that the machine is slow to run is no reason to give others more.
TEST_F(SharedLimits, LeastLoadedIsAsEvenAsWithOneMaster) {
  constexpr size_t kWorkers = 4;
  constexpr size_t kConnections = 400;
  const auto max_over_mean = [&](uint32_t masters) {
    Create({.masters = masters});
    const std::vector<Source> sources = AddSources([] { return SourceOptions{.recall = false}; });
    std::vector<std::unique_ptr<Worker>> workers;
    for (size_t i = 0; i < kWorkers; ++i) workers.push_back(AddKeeper(sources, {.window = 512}));
    std::vector<std::thread> clients;
    std::array<std::vector<int>, kMasters> connected;
    for (size_t i = 0; i < kMasters; ++i) {
      clients.emplace_back([&, i] {
        for (size_t n = 0; n < kConnections / kMasters; ++n) {
          connected[i].push_back(listeners_[i].Connect());
        }
      });
    }
    for (std::thread& client : clients) client.join();
    EXPECT_TRUE(Eventually([&] { return kept_.size() == kConnections; }));
    uint32_t most = 0;
    for (const WorkerStats& worker : balancer_->Stats().workers) most = std::max(most, worker.open);
    for (const auto& list : connected) {
      for (const int client : list) close(client);
    }
    kept_.TakeAll();
    return static_cast<double>(most) * kWorkers / kConnections;
  };
  EXPECT_LE(max_over_mean(kMasters), 1.05 * max_over_mean(1));
}

// --- What is their own ---------------------------------------------------------------------------

TEST_F(MastersTest, ASourceGoesToTheMasterThatHasTheFewestUnlessToldOtherwise) {
  const Listener third = Listener::Unix();
  const Listener fourth = Listener::Unix();
  EXPECT_EQ(AddSource(listeners_[0], {.master = 1}).index(), 1u);
  EXPECT_EQ(AddSource(listeners_[1]).index(), 0u);
  Source on_first = AddSource(third, {.master = 0});
  EXPECT_EQ(on_first.index(), 2u);
  EXPECT_EQ(AddSource(fourth).index(), 3u);
  ASSERT_TRUE(on_first.Remove().ok());
  const Listener fifth = Listener::Unix();
  EXPECT_EQ(AddSource(fifth).index(), 2u);
}

TEST_F(MastersTest, ASocketIsWatchedByOneOfThem) {
  AddSource(listeners_[0], {.master = 0});
  const int another = dup(listeners_[0].fd());
  const absl::Status status = balancer_->AddSource(another, {.master = 1}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "source 0")) << status;
  close(another);
}

TEST_F(MastersTest, TheirThreadsAreNumbered) {
  std::set<std::string> names;
  DIR* const tasks = opendir("/proc/self/task");
  ASSERT_NE(tasks, nullptr);
  while (const dirent* const task = readdir(tasks)) {
    std::ifstream file(std::string("/proc/self/task/") + task->d_name + "/comm");
    std::string name;
    if (std::getline(file, name)) names.insert(name);
  }
  closedir(tasks);
  EXPECT_TRUE(names.contains("ringmaster-0"));
  EXPECT_TRUE(names.contains("ringmaster-1"));
  EXPECT_FALSE(names.contains("ringmaster"));
}

TEST_F(MastersTest, WrongOptionsAreRefusedInWords) {
  const auto refuses = [](BalancerOptions options, const char* word) {
    const absl::Status status = Balancer::Create(std::move(options)).status();
    EXPECT_EQ(status.code(), kInvalid) << word;
    EXPECT_TRUE(absl::StrContains(status.message(), word)) << status;
  };
  refuses({.masters = 0}, "from 1 to 16");
  refuses({.masters = 17}, "from 1 to 16");
  refuses({.host = Host::kLoop, .masters = 2}, "Host::kThread");
  refuses({.masters = 2, .cpu = 0}, "cpu");
  refuses({.masters = 2, .thread_name = "fourteen-chars"}, "a number takes 2");
  EXPECT_TRUE(Balancer::Create({.masters = 16}).ok());
  const absl::Status status =
      balancer_->AddSource(listeners_[0].fd(), {.master = kMasters}).status();
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_TRUE(absl::StrContains(status.message(), "2 masters")) << status;
}

// A callback on the thread of one master must not wait for another one, which may be waiting to
// report something itself.
TEST_F(MastersTest, CallsFromTheCallbackAreRefusedAtEveryMaster) {
  std::unique_ptr<Balancer> balancer;
  std::array<Source, kMasters> sources;
  std::mutex mutex;
  std::vector<absl::Status> answers;
  balancer = Balancer::Create({.masters = kMasters,
                               .on_event =
                                   [&](const Event& event) {
                                     if (event.kind != Event::Kind::kSourceFailed) return;
                                     std::lock_guard lock(mutex);
                                     for (Source& source : sources)
                                       answers.push_back(source.Pause());
                                     balancer->Shutdown(absl::ZeroDuration());
                                     EXPECT_TRUE(balancer->Stats().sources.empty());
                                   }})
                 .value();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer->AddWorker(mailbox).value();
  for (size_t i = 0; i < kMasters; ++i) {
    sources[i] = balancer->AddSource(listeners_[i].fd()).value();
    ASSERT_TRUE(sources[i].Join(port).ok());
  }
  {
    std::lock_guard lock(mutex);  // what was set up is there when a callback looks
    for (const Listener& listener : listeners_) shutdown(listener.fd(), SHUT_RDWR);
  }
  ASSERT_TRUE(Eventually([&] {
    std::lock_guard lock(mutex);
    return answers.size() == kMasters * kMasters;
  }));
  for (const absl::Status& answer : answers) EXPECT_EQ(answer.code(), kPrecondition) << answer;
}

TEST_F(MastersTest, ADeadlineClosesWhatEveryMasterHasOffered) {
  std::vector<Source> sources = AddSources();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  for (Source& source : sources) ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (const Listener& listener : listeners_) {
    for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  }
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 6; }));
  const ShutdownReport report = balancer_->Shutdown(absl::Milliseconds(20));
  EXPECT_FALSE(report.drained);
  EXPECT_EQ(report.refused, 6u);
  EXPECT_EQ(report.stats.sources.size(), 2u);
  EXPECT_EQ(balancer_->Shutdown(absl::ZeroDuration()).refused, 6u);
  EXPECT_EQ(balancer_->Stats().refused, 6u);
  EXPECT_EQ(balancer_->AddWorker(Mailbox::Create().value()).status().code(), kPrecondition);
  for (const int client : clients) close(client);
}

}  // namespace
}  // namespace ringmaster
