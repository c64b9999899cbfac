// The library as its users call it, on the real ring, with worker threads and real clients. Time
// enters only as a bound on how long a test may take, never as something that is asserted. Where a
// test needs an order of events, it holds one side back until the other has reported.

#include "ringmaster/balancer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "balancer_fixture.h"
#include "support/descriptor_limit.h"
#include "support/server.h"

namespace ringmaster {
namespace {

// --- Serving -----------------------------------------------------------------------------------

struct Way {
  std::string policy;
  Intake intake;
  bool unix_socket;
  Handoff handoff;
};

class EveryWay : public BalancerTest, public ::testing::WithParamInterface<Way> {};

TEST_P(EveryWay, ServesEveryConnectionOnce) {
  constexpr int kConnectionsPerClient = 500;
  constexpr int kClients = 4;
  const Listener listener = GetParam().unix_socket ? Listener::Unix() : Listener::Tcp();
  Source source = AddSource(
      listener, {.policy = PolicyByName(GetParam().policy).value(), .intake = GetParam().intake});
  std::vector<std::unique_ptr<Worker>> workers;
  for (int i = 0; i < 4; ++i) {
    workers.push_back(AddWorker({source}, ServeIndex, {.handoff = GetParam().handoff}));
  }
  std::array<std::atomic<uint64_t>, 4> served{};
  std::vector<std::thread> clients;
  std::atomic<int> failed{0};
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&] {
      for (int i = 0; i < kConnectionsPerClient; ++i) {
        const int who = AskWhoServes(listener);
        if (who < 0) {
          ++failed;
        } else {
          ++served[static_cast<size_t>(who)];
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed, 0);
  for (auto& worker : workers) EXPECT_EQ(worker->claimed(), served[worker->index()]);

  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.refused, 0u);
  EXPECT_EQ(report.open, 0u);
  EXPECT_EQ(report.stats.accepted, kConnectionsPerClient * kClients);
  uint64_t claimed = 0;
  uint64_t claimed_min = UINT64_MAX;
  uint64_t claimed_max = 0;
  for (const WorkerStats& worker : report.stats.workers) {
    EXPECT_EQ(worker.claimed, served[worker.worker]);
    EXPECT_EQ(worker.assigned, worker.claimed + worker.recalled);
    EXPECT_EQ(worker.open, 0u);
    claimed += worker.claimed;
    claimed_min = std::min(claimed_min, worker.claimed);
    claimed_max = std::max(claimed_max, worker.claimed);
  }
  EXPECT_EQ(claimed, kConnectionsPerClient * kClients);
  // A worker that was kept from running is owed turns, of which some may be left at the end.
  const bool nobody_stalled =
      std::all_of(report.stats.workers.begin(), report.stats.workers.end(),
                  [](const WorkerStats& worker) { return worker.stalls == 0; });
  if (GetParam().policy == "round-robin" && nobody_stalled) {
    EXPECT_LE(claimed_max - claimed_min, 1 + report.stats.recalled);
  }
}

std::vector<Way> EveryCombination() {
  std::vector<Way> ways;
  for (const std::string_view policy : PolicyNames()) {
    for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
      for (const bool unix_socket : {false, true}) {
        for (const Handoff handoff : {Handoff::kInbox, Handoff::kCompletion}) {
          ways.push_back({std::string(policy), intake, unix_socket, handoff});
        }
      }
    }
  }
  return ways;
}

INSTANTIATE_TEST_SUITE_P(Ways, EveryWay, ::testing::ValuesIn(EveryCombination()),
                         [](const ::testing::TestParamInfo<Way>& way) {
                           std::string name = way.param.policy;
                           std::replace(name.begin(), name.end(), '-', '_');
                           name += way.param.intake == Intake::kAccept ? "_accept" : "_poll";
                           name += way.param.unix_socket ? "_unix" : "_tcp";
                           return name +
                                  (way.param.handoff == Handoff::kInbox ? "_inbox" : "_completion");
                         });

// On loopback a connection's packets are processed where its client runs.
TEST_F(BalancerTest, ServesAPinnedClientOnItsOwnCpuUnderAffinityCpu) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &allowed)) cpus.push_back(cpu);
  }
  if (cpus.size() < 2) GTEST_SKIP() << "only one CPU here";
  cpus.resize(2);
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    const Listener listener = Listener::Tcp();
    // On a busy machine a worker may get no CPU for longer than recall_after. Then the other one
    // would serve in its place.
    Source source =
        AddSource(listener, {.policy = AffinityCpu(), .intake = intake, .recall = false});
    std::vector<std::unique_ptr<Worker>> workers;
    for (const int cpu : cpus) workers.push_back(AddWorker({source}, ServeIndex, {.cpu = cpu}));
    for (size_t i = 0; i < cpus.size(); ++i) {
      std::thread client([&] {
        cpu_set_t own;
        CPU_ZERO(&own);
        CPU_SET(static_cast<size_t>(cpus[i]), &own);
        ASSERT_EQ(sched_setaffinity(0, sizeof(own), &own), 0);
        for (int k = 0; k < 200; ++k) {
          ASSERT_EQ(AskWhoServes(listener), static_cast<int>(workers[i]->index()));
        }
      });
      client.join();
    }
    EXPECT_TRUE(source.Remove().ok());
  }
}

TEST_F(BalancerTest, GivesEachSourceItsToken) {
  const Listener first = Listener::Tcp();
  const Listener second = Listener::Unix();
  const auto serve_token = [](uint32_t, Connection connection) {
    ServeIndex(static_cast<uint32_t>(connection.token()), std::move(connection));
  };
  auto worker =
      AddWorker({AddSource(first), AddSource(second, {.intake = Intake::kAccept})}, serve_token);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(AskWhoServes(first), 0);
    EXPECT_EQ(AskWhoServes(second), 1);
  }
}

TEST_F(BalancerTest, AcceptedSocketsAreNonBlockingAndCloseOnExecUnlessToldOtherwise) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    for (const bool plain : {false, true}) {
      Create({});
      const Listener listener = Listener::Tcp();
      Source source =
          AddSource(listener, {.intake = intake, .nonblocking = !plain, .close_on_exec = !plain});
      std::atomic<int> flags{0};
      auto worker = AddWorker({source}, [&](uint32_t index, Connection connection) {
        flags = ((fcntl(connection.fd(), F_GETFL) & O_NONBLOCK) != 0 ? 1 : 0) +
                ((fcntl(connection.fd(), F_GETFD) & FD_CLOEXEC) != 0 ? 2 : 0);
        ServeIndex(index, std::move(connection));
      });
      EXPECT_EQ(AskWhoServes(listener), 0);
      EXPECT_EQ(flags, plain ? 0 : 3);
    }
  }
}

TEST_F(BalancerTest, LeavesTheFlagsOfTheListenerAlone) {
  const Listener listener = Listener::Tcp();
  ASSERT_EQ(fcntl(listener.fd(), F_SETFL, 0), 0);  // blocking: the master must not block on it
  const int flags = fcntl(listener.fd(), F_GETFL);
  absl::StatusOr<Source> source = balancer_->AddSource(listener.fd());
  if (!source.ok()) GTEST_SKIP() << source.status();  // kernels before 6.10 say so
  auto worker = AddWorker({*source});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(AskWhoServes(listener), 0);
  EXPECT_EQ(fcntl(listener.fd(), F_GETFL), flags);
}

// --- Capacity, hold, pause ---------------------------------------------------------------------

// Keeps what it is given until it is told to let go.
class Keeper {
 public:
  Worker::Serve serve() {
    return [this](uint32_t index, Connection connection) {
      const auto byte = static_cast<unsigned char>(index);
      ASSERT_EQ(write(connection.fd(), &byte, 1), 1);
      std::lock_guard lock(mutex_);
      kept_.push_back(std::move(connection));
    };
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return kept_.size();
  }
  // Closes the oldest, then releases its lease.
  void LetGo() {
    std::lock_guard lock(mutex_);
    kept_.pop_front();
  }

 private:
  std::mutex mutex_;
  std::deque<Connection> kept_;
};

TEST_F(BalancerTest, NeverExceedsTheCapacityOfAWorkerAndLeavesTheRestInTheBacklog) {
  constexpr uint32_t kCapacity = 3;
  constexpr int kClients = 30;
  const Listener listener = Listener::Tcp();
  Keeper keeper;
  Source source = AddSource(listener);
  auto worker = AddWorker({source}, keeper.serve(), {.capacity = kCapacity});
  std::vector<int> clients;
  for (int i = 0; i < kClients; ++i) clients.push_back(listener.Connect());
  for (int let_go = 0; let_go < kClients; ++let_go) {
    const size_t expected = std::min<size_t>(kCapacity, static_cast<size_t>(kClients - let_go));
    ASSERT_TRUE(Eventually([&] { return keeper.size() == expected; }));
    const BalancerStats stats = balancer_->Stats();
    EXPECT_LE(stats.accepted, static_cast<uint64_t>(let_go) + kCapacity);
    EXPECT_LE(stats.workers[0].open, kCapacity);
    keeper.LetGo();
  }
  ExpectAnswers(clients);
}

TEST_F(BalancerTest, HoldsNoMoreThanToldWhenNobodyHasCredit) {
  constexpr uint32_t kHold = 5;
  constexpr int kClients = 40;
  const Listener listener = Listener::Tcp();
  Keeper keeper;
  // A completion queue of 64 lets a burst pass, so connect one at a time.
  Source source = AddSource(listener, {.intake = Intake::kAccept, .hold = kHold});
  auto worker = AddWorker({source}, keeper.serve(), {.capacity = 1});
  std::vector<int> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(listener.Connect());
    const uint64_t expected = std::min<uint64_t>(static_cast<uint64_t>(i) + 1, kHold + 1);
    ASSERT_TRUE(Eventually([&] { return balancer_->Stats().accepted >= expected; }));
  }
  const BalancerStats stats = balancer_->Stats();
  EXPECT_EQ(stats.held, kHold);
  EXPECT_EQ(stats.accepted, kHold + 1);
  for (int let_go = 0; let_go < kClients; ++let_go) {
    ASSERT_TRUE(Eventually([&] { return keeper.size() == 1; }));
    keeper.LetGo();
  }
  ExpectAnswers(clients);
}

TEST_F(BalancerTest, AcceptsNothingWhilePausedAndEverythingAfterwards) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    Create({});
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener, {.intake = intake});
    auto worker = AddWorker({source});
    EXPECT_EQ(AskWhoServes(listener), 0);
    ASSERT_TRUE(source.Pause().ok());
    // The request to disarm goes out with the batch of the call; one more call means that it has.
    balancer_->Stats();
    std::vector<int> clients;
    for (int i = 0; i < 20; ++i) clients.push_back(listener.Connect());
    EXPECT_EQ(balancer_->Stats().accepted, 1u);
    ASSERT_TRUE(source.Resume().ok());
    ExpectAnswers(clients);
  }
}

TEST_F(BalancerTest, WhatWaitsAtTheStartIsSharedByAllWorkersThatTheSourceWaitsFor) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    Create({});
    const Listener listener = Listener::Tcp();
    std::vector<int> clients;
    for (int i = 0; i < 40; ++i) clients.push_back(listener.Connect());
    Source source = AddSource(
        listener, {.policy = RoundRobin(), .intake = intake, .start_workers = 4, .recall = false});
    Kept kept;
    std::vector<std::unique_ptr<Worker>> workers;
    for (int i = 0; i < 3; ++i) workers.push_back(AddWorker({source}, kept.serve()));
    EXPECT_EQ(balancer_->Stats().accepted, 0u);
    workers.push_back(AddWorker({source}, kept.serve()));
    ASSERT_TRUE(Eventually([&] { return kept.size() == clients.size(); }));
    for (const std::unique_ptr<Worker>& worker : workers) EXPECT_EQ(worker->claimed(), 10u);
    kept.TakeAll();
    for (const int client : clients) close(client);
  }
}

TEST_F(BalancerTest, AnIndependentEdgeTriggeredWaiterSeesEveryConnectionThatIsHeldBack) {
  constexpr int kConnections = 100;
  const Listener listener = Listener::Tcp();
  Keeper keeper;
  Source source = AddSource(listener);
  // Room for one. The next connection is accepted only when the one before is let go, which happens
  // when the waiter has reported the next one.
  auto worker = AddWorker({source}, keeper.serve(), {.capacity = 1});
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {}};
  ASSERT_EQ(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener.fd(), &event), 0);
  std::vector<int> clients{listener.Connect()};
  ASSERT_TRUE(Eventually([&] { return keeper.size() == 1; }));
  while (epoll_wait(epoll_fd, &event, 1, 0) == 1) {
  }
  int seen = 0;
  for (int i = 0; i < kConnections; ++i) {
    clients.push_back(listener.Connect());
    seen += epoll_wait(epoll_fd, &event, 1, 5000);
    keeper.LetGo();
    ASSERT_TRUE(Eventually([&] { return keeper.size() == 1; }));
  }
  EXPECT_EQ(seen, kConnections);
  keeper.LetGo();
  for (const int client : clients) close(client);
  close(epoll_fd);
}

// --- Leases ------------------------------------------------------------------------------------

TEST_F(BalancerTest, ALeaseMayBeReleasedFromAnotherThreadAndAfterEverythingElseIsGone) {
  Lease lease;
  {
    const Listener listener = Listener::Tcp();
    std::mutex mutex;
    Source source = AddSource(listener);
    auto worker = AddWorker({source}, [&](uint32_t index, Connection connection) {
      std::lock_guard lock(mutex);
      lease = connection.TakeLease();
      ServeIndex(index, std::move(connection));
    });
    EXPECT_EQ(AskWhoServes(listener), 0);
    EXPECT_EQ(balancer_->Stats().workers[0].open, 1u);
    const ShutdownReport report = balancer_->Shutdown(absl::ZeroDuration());
    EXPECT_EQ(report.open, 1u);
    EXPECT_FALSE(report.drained);
    balancer_.reset();
  }
  EXPECT_TRUE(lease.held());
  std::thread([&] { lease.Release(); }).join();
  EXPECT_FALSE(lease.held());
}

// --- Leaving, dying, freezing ------------------------------------------------------------------

TEST_F(BalancerTest, WhatALeavingWorkerHasNotClaimedIsServedByOthers) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin(), .recall = false});
  io_uring idle_ring;  // of a worker that never claims
  ASSERT_EQ(io_uring_queue_init(8, &idle_ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = idle_ring.ring_fd, .tag = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 10; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 10; }));
  auto worker = AddWorker({source});
  port.Leave();
  EXPECT_FALSE(port.joined());
  io_uring_queue_exit(&idle_ring);
  for (const int client : clients) {
    char byte = 0;
    EXPECT_EQ(read(client, &byte, 1), 1);
    EXPECT_EQ(byte, 1);
    close(client);
  }
  const BalancerStats stats = balancer_->Stats();
  EXPECT_EQ(stats.departed.assigned, 10u);
  EXPECT_EQ(stats.departed.recalled, 10u);
  ASSERT_EQ(stats.workers.size(), 1u);
  EXPECT_EQ(stats.workers[0].claimed, 10u);
}

// Nobody could take what waits for it, so nothing is recalled.
TEST_F(BalancerTest, AStallThatNobodyCanRelieveIsSaid) {
  Create({.recall_after = absl::Milliseconds(1)});
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  Gate gate;
  auto worker = AddWorker({source}, [&](uint32_t index, Connection connection) {
    gate.Wait();
    ServeIndex(index, std::move(connection));
  });
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kWorkerStalled); }));
  {
    std::lock_guard lock(mutex_);
    EXPECT_EQ(events_[0].worker, worker->index());
    EXPECT_NE(events_[0].text.find("for 10ms"), std::string::npos) << events_[0].text;
    EXPECT_NE(events_[0].text.find("inside a claim"), std::string::npos) << events_[0].text;
  }
  EXPECT_EQ(balancer_->Stats().workers[0].stalls, 1u);
  EXPECT_FALSE(SawEvent(Event::Kind::kWorkerMoves));
  gate.Open();
  EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kWorkerMoves); }));
  ExpectAnswers(clients);
  EXPECT_EQ(balancer_->Stats().workers[0].recalled, 0u);
}

// One doorbell stands for any number of connections, so there will never be eight completions.
TEST_F(BalancerTest, AWorkerThatWaitsForSeveralCompletionsIsFoundOut) {
  Create({.recall_after = absl::Milliseconds(1)});
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(64, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(listener.Connect());
  io_uring_cqe* cqe = nullptr;
  __kernel_timespec timeout{.tv_sec = 0, .tv_nsec = 50'000'000};
  static_cast<void>(io_uring_wait_cqes(&ring, &cqe, 8, &timeout, nullptr));
  EXPECT_LT(io_uring_cq_ready(&ring), 8u);
  EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kWorkerStalled); }));
  {
    std::lock_guard lock(mutex_);
    EXPECT_NE(events_[0].text.find("several completions"), std::string::npos) << events_[0].text;
  }
  int served = 0;
  port.Claim([&](const Connection&) { ++served; });
  EXPECT_GE(served, 8);
  EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kWorkerMoves); }));
  for (const int client : clients) close(client);
  port.Leave();
  io_uring_queue_exit(&ring);
}

TEST_F(BalancerTest, AWorkerThatDiesWithoutLeavingLosesNothing) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  auto doomed = AddWorker({source});
  auto survivor = AddWorker({source});
  for (int i = 0; i < 20; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  doomed->Die();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(AskWhoServes(listener), 1);
  EXPECT_TRUE(SawEvent(Event::Kind::kWorkerStalled));
  const BalancerStats stats = balancer_->Stats();
  EXPECT_GE(stats.workers[0].recalled, 1u);
  EXPECT_LE(stats.workers[0].recalled, 32u);  // its window, once
  EXPECT_EQ(stats.workers[0].unclaimed, 0u);
}

TEST_F(BalancerTest, AFrozenWorkerKeepsOnlyWhatItHasClaimedAndGetsNothingNewUntilItMoves) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  Gate thaw;
  Gate frozen;
  std::atomic<bool> freezing{true};
  auto sleeper = AddWorker({source}, [&](uint32_t index, Connection connection) {
    if (freezing.exchange(false)) {
      frozen.Open();
      thaw.Wait();
    }
    ServeIndex(index, std::move(connection));
  });
  auto other = AddWorker({source});
  const int first = listener.Connect();
  frozen.Wait();
  // One client at a time: a few find the frozen worker's window open, wait and are recalled.
  for (int i = 0; i < 100; ++i) EXPECT_EQ(AskWhoServes(listener), 1);
  EXPECT_EQ(sleeper->claimed(), 1u);
  const BalancerStats stats = balancer_->Stats();
  EXPECT_GE(stats.workers[0].recalled, 1u);
  EXPECT_EQ(stats.workers[0].assigned, 1 + stats.workers[0].recalled);
  EXPECT_LE(stats.workers[0].recalled, 32u);
  thaw.Open();
  char byte = 1;
  EXPECT_EQ(read(first, &byte, 1), 1);
  EXPECT_EQ(byte, 0);
  close(first);
  // It moves, so it gets its turns again.
  std::set<int> seen;
  EXPECT_TRUE(Eventually([&] { return seen.insert(AskWhoServes(listener)), seen.count(0) == 1; }));
  EXPECT_TRUE(SawEvent(Event::Kind::kWorkerMoves));
}

TEST_F(BalancerTest, LosesNothingWhileWorkersComeAndGoAndTheSourcePausesAndResumes) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    Create({.completion_entries = 64});
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener, {.policy = RoundRobin(), .intake = intake, .hold = 16});
    auto stays = AddWorker({source}, ServeIndex, {.capacity = 1, .window = 1});
    Clients clients({&listener}, 3);
    std::atomic<bool> stop{false};
    std::thread pauses([&] {
      while (!stop) {
        EXPECT_TRUE(source.Pause().ok());
        EXPECT_TRUE(source.Resume().ok());
        balancer_->Stats();
      }
    });
    for (uint32_t i = 0; i < 100; ++i) {
      auto narrow = AddWorker({source}, ServeIndex, {.capacity = 1 + i % 3, .window = 1 + i % 4});
      auto wide = AddWorker({source});
      EXPECT_TRUE(clients.Go(5));
    }
    stop = true;
    pauses.join();
    clients.Stop();
    EXPECT_EQ(clients.failed(), 0u);
    const BalancerStats stats = balancer_->Stats();
    EXPECT_EQ(stats.accepted, clients.served());
    EXPECT_EQ(stats.departed.claimed + stats.workers[0].claimed, clients.served());
    const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
    EXPECT_TRUE(report.drained);
    EXPECT_EQ(report.refused, 0u);
  }
}

TEST_F(BalancerTest, AClaimThatStopsEarlySaysSoAndLeavesTheRest) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 7}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 5; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 5; }));
  io_uring_cqe* cqe = nullptr;
  ASSERT_EQ(io_uring_wait_cqe(&ring, &cqe), 0);
  EXPECT_EQ(cqe->user_data, 7u);
  EXPECT_EQ(cqe->res, 0);
  io_uring_cqe_seen(&ring, cqe);
  int served = 0;
  const auto serve = [&](Connection connection) {
    ++served;
    ServeIndex(0, std::move(connection));
  };
  EXPECT_TRUE(port.Claim(serve, 2));
  EXPECT_EQ(served, 2);
  EXPECT_TRUE(port.Claim(serve, 0));
  EXPECT_EQ(served, 2);
  EXPECT_FALSE(port.Claim(serve, 100));
  EXPECT_EQ(served, 5);
  EXPECT_FALSE(port.Claim(serve));
  for (const int client : clients) close(client);
  port.Leave();
  EXPECT_FALSE(port.Claim(serve));
  io_uring_queue_exit(&ring);
}

// --- Running out of descriptors ----------------------------------------------------------------

TEST_F(BalancerTest, OutOfDescriptorsItWaitsForALeaseAndServesEveryone) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    events_.clear();
    Create({});
    constexpr int kClients = 50;
    constexpr int kRoom = 5;
    const Listener listener = Listener::Tcp();
    std::vector<int> clients;
    for (int i = 0; i < kClients; ++i) clients.push_back(listener.Connect());
    Keeper keeper;
    Source source = AddSource(listener, {.intake = intake});
    // Armed only under the limit, because the kernel samples it when a multishot accept is armed.
    ASSERT_TRUE(source.Pause().ok());
    auto worker = AddWorker({source}, keeper.serve());
    const DescriptorLimit limit(NextDescriptor() + kRoom);
    ASSERT_TRUE(source.Resume().ok());
    ASSERT_TRUE(Eventually([&] { return keeper.size() == kRoom; }));
    ASSERT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kOutOfDescriptors); }));
    for (int let_go = 0; let_go < kClients; ++let_go) {
      ASSERT_TRUE(Eventually([&] { return keeper.size() > 0; })) << let_go;
      keeper.LetGo();
    }
    ExpectAnswers(clients);
  }
}

// --- The end -----------------------------------------------------------------------------------

TEST_F(BalancerTest, ShutdownClosesAtTheDeadlineWhatNobodyClaimed) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  io_uring ring;  // of a worker that never claims
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 200; ++i) clients.push_back(listener.Connect());
  // Its window is full; the others stay in the backlog.
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 32; }));
  const ShutdownReport report = balancer_->Shutdown(absl::Milliseconds(10));
  EXPECT_FALSE(report.drained);
  EXPECT_EQ(report.refused, 32u);
  EXPECT_EQ(report.open, 0u);
  EXPECT_EQ(report.stats.accepted, 32u);
  int ended = 0;
  for (const int client : clients) {
    char byte;
    if (recv(client, &byte, 1, MSG_DONTWAIT) == 0) ++ended;
    close(client);
  }
  EXPECT_EQ(ended, 32);
  // A second call returns the same report.
  EXPECT_EQ(balancer_->Shutdown(absl::InfiniteDuration()).refused, 32u);
  EXPECT_EQ(balancer_->Stats().refused, 32u);
  port.Leave();
  io_uring_queue_exit(&ring);
}

TEST_F(BalancerTest, ShutdownWaitsForLeasesAndACallFromAnotherThreadCutsItShort) {
  const Listener listener = Listener::Tcp();
  Keeper keeper;
  Source source = AddSource(listener);
  auto worker = AddWorker({source}, keeper.serve());
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
  const int client = listener.Connect();
  ASSERT_TRUE(Eventually([&] { return keeper.size() == 1; }));
  ShutdownReport report;
  std::thread draining([&] { report = balancer_->Shutdown(absl::InfiniteDuration()); });
  // A balancer that drains takes no more workers.
  ASSERT_TRUE(Eventually([&] { return !balancer_->AddWorker({.ring_fd = ring.ring_fd}).ok(); }));
  const ShutdownReport cut = balancer_->Shutdown(absl::ZeroDuration());
  draining.join();
  EXPECT_EQ(report.open, 1u);
  EXPECT_EQ(cut.open, 1u);
  EXPECT_FALSE(report.drained);
  close(client);
  io_uring_queue_exit(&ring);
}

TEST_F(BalancerTest, AfterShutdownEverythingSaysSo) {
  const Listener listener = Listener::Tcp();
  const Listener another = Listener::Tcp();
  Source source = AddSource(listener);
  auto worker = AddWorker({source});
  balancer_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(balancer_->AddSource(another.fd()).status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(source.Pause().code(), absl::StatusCode::kFailedPrecondition);
  balancer_.reset();
  EXPECT_EQ(source.Resume().code(), absl::StatusCode::kFailedPrecondition);
}

// --- Mistakes ----------------------------------------------------------------------------------

TEST_F(BalancerTest, RefusesWhatIsNotAListenerAndSaysWhy) {
  const auto refused = [&](int fd) { return balancer_->AddSource(fd).status(); };
  EXPECT_NE(refused(-1).message().find("not an open descriptor"), absl::string_view::npos);
  const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_NE(refused(file).message().find("not a socket"), absl::string_view::npos);
  close(file);
  const int socket_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_NE(refused(socket_fd).message().find("listen()"), absl::string_view::npos);
  close(socket_fd);
}

TEST_F(BalancerTest, RefusesTheSameSocketTwiceAlsoBehindAnotherDescriptor) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  EXPECT_EQ(balancer_->AddSource(listener.fd()).status().code(), absl::StatusCode::kAlreadyExists);
  const int duplicate = dup(listener.fd());
  EXPECT_EQ(balancer_->AddSource(duplicate).status().code(), absl::StatusCode::kAlreadyExists);
  close(duplicate);
  const Listener another = Listener::Tcp();
  EXPECT_TRUE(balancer_->AddSource(another.fd()).ok());
}

TEST_F(BalancerTest, RefusesARingThatCannotBeRungAndSaysWhy) {
  const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(balancer_->AddWorker({.ring_fd = file}).status().code(),
            absl::StatusCode::kInvalidArgument);
  close(file);
  EXPECT_EQ(balancer_->AddWorker({.ring_fd = file}).status().code(),
            absl::StatusCode::kInvalidArgument);
  io_uring disabled;
  ASSERT_EQ(io_uring_queue_init(4, &disabled, IORING_SETUP_R_DISABLED), 0);
  EXPECT_EQ(balancer_->AddWorker({.ring_fd = disabled.ring_fd}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  io_uring_queue_exit(&disabled);
}

TEST_F(BalancerTest, RefusesOptionsOutOfRange) {
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
  const int fd = ring.ring_fd;
  const Listener listener = Listener::Tcp();
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(balancer_->AddWorker({.ring_fd = fd, .window = 0}).status().code(), invalid);
  EXPECT_EQ(balancer_->AddWorker({.ring_fd = fd, .window = 1025}).status().code(), invalid);
  EXPECT_EQ(balancer_->AddWorker({.ring_fd = fd, .capacity = 0}).status().code(), invalid);
  EXPECT_EQ(
      balancer_->AddSource(listener.fd(), {.intake = Intake::kAccept, .hold = 0}).status().code(),
      invalid);
  EXPECT_EQ(Balancer::Create({.thread_name = "sixteen letters!"}).status().code(), invalid);
  EXPECT_EQ(Balancer::Create({.recall_after = absl::ZeroDuration()}).status().code(), invalid);
  EXPECT_EQ(Balancer::Create({.completion_entries = 63}).status().code(), invalid);
  EXPECT_FALSE(Balancer::Create({.cpu = 1023}).ok());
  io_uring_queue_exit(&ring);
}

// The number of a source is given to another listener, at the latest while it is watched.
TEST_F(BalancerTest, TellsASourceFromWhatHasItsNumberLater) {
  const Listener first = Listener::Tcp();
  const Listener second = Listener::Tcp();
  const int number = fcntl(first.fd(), F_DUPFD_CLOEXEC, 0);
  const auto precondition = absl::StatusCode::kFailedPrecondition;
  for (const bool late : {false, true}) {
    ASSERT_EQ(dup2(first.fd(), number), number);
    Source source = balancer_->AddSource(number).value();
    {
      const auto worker = late ? AddWorker({source}) : AddWorker({});
      if (late) {
        EXPECT_EQ(AskWhoServes(first), 0);  // so it is armed
      }
      ASSERT_EQ(dup2(second.fd(), number), number);
      EXPECT_EQ(balancer_->AddSource(number).status().code(), precondition);
      io_uring ring;
      ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
      Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd}).value();
      const absl::Status joined = source.Join(port);
      EXPECT_EQ(joined.code(), precondition);
      EXPECT_NE(joined.message().find("closed while it was a source"), absl::string_view::npos);
      if (late) {
        const int client = first.Connect();
        EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kSourceFailed); }));
        EXPECT_EQ(balancer_->Stats().sources[0].accepted, 1u);
        close(client);
      }
      port.Leave();
      io_uring_queue_exit(&ring);
    }
    EXPECT_TRUE(source.Remove().ok());
    EXPECT_TRUE(balancer_->AddSource(number).value().Remove().ok());
  }
  close(number);
}

TEST_F(BalancerTest, RefusesToJoinTwiceOrToAnotherBalancer) {
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd}).value();
  EXPECT_TRUE(source.Join(port).ok());
  EXPECT_EQ(source.Join(port).code(), absl::StatusCode::kAlreadyExists);
  auto other = Balancer::Create().value();
  Port foreign = other->AddWorker({.ring_fd = ring.ring_fd}).value();
  EXPECT_EQ(source.Join(foreign).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(source.Leave(port).ok());
  EXPECT_EQ(source.Leave(port).code(), absl::StatusCode::kNotFound);
  port.Leave();
  EXPECT_EQ(source.Join(port).code(), absl::StatusCode::kInvalidArgument);
  Source nowhere;
  EXPECT_EQ(nowhere.Pause().code(), absl::StatusCode::kFailedPrecondition);
  foreign.Leave();
  io_uring_queue_exit(&ring);
}

TEST_F(BalancerTest, AnsweringFromTheEventCallbackIsRefusedInsteadOfWaitingForEver) {
  std::atomic<int> code{-1};
  std::atomic<Balancer*> handle{nullptr};
  auto balancer = Balancer::Create({.on_event = [&](const Event&) {
                    Balancer* self = handle.load();
                    const Listener listener = Listener::Tcp();
                    code = static_cast<int>(self->AddSource(listener.fd()).status().code());
                  }}).value();
  handle = balancer.get();
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
  const Listener listener = Listener::Tcp();
  Source source = balancer->AddSource(listener.fd()).value();
  Port port = balancer->AddWorker({.ring_fd = ring.ring_fd}).value();
  ASSERT_TRUE(source.Join(port).ok());
  ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);  // brings about an event
  ASSERT_TRUE(Eventually([&] { return code != -1; }));
  EXPECT_EQ(code, static_cast<int>(absl::StatusCode::kFailedPrecondition));
  port.Leave();
  io_uring_queue_exit(&ring);
}

// The descriptors of this process that are io_urings.
std::set<int> Rings() {
  std::set<int> rings;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    if (std::filesystem::read_symlink(entry.path(), error) == "anon_inode:[io_uring]") {
      rings.insert(std::stoi(entry.path().filename()));
    }
  }
  return rings;
}

// The master cannot be waited for there, so the worker has left a little later; until then nobody
// else gets its index.
TEST_F(BalancerTest, APortMayLeaveInTheEventCallback) {
  for (const uint32_t masters : {1u, 3u}) {
    balancer_.reset();
    const size_t before = Rings().size();
    std::atomic<bool> left{false};
    Port leaving;
    auto balancer = Balancer::Create({.masters = masters,
                                      .on_event =
                                          [&](const Event&) {
                                            leaving.Leave();
                                            left = true;
                                          }})
                        .value();
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
    const Listener listener = Listener::Tcp();
    Source source = balancer->AddSource(listener.fd(), {.master = 0}).value();
    leaving = balancer->AddWorker({.ring_fd = ring.ring_fd}).value();
    EXPECT_EQ(leaving.worker(), 0u);
    ASSERT_TRUE(source.Join(leaving).ok());
    ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);  // brings about an event
    ASSERT_TRUE(Eventually([&] { return left.load(); }));
    EXPECT_FALSE(leaving.joined());
    EXPECT_TRUE(Eventually([&] {
      Port next = balancer->AddWorker({.ring_fd = ring.ring_fd}).value();
      return next.worker() == 0;
    }));
    EXPECT_TRUE(Eventually([&] { return balancer->Stats().workers.empty(); }));
    EXPECT_EQ(Rings().size(), before + 1 + masters);
    io_uring_queue_exit(&ring);
  }
}

// Those of one master are read between its batches; to wait for another one could be for ever.
TEST_F(BalancerTest, InTheEventCallbackStatisticsAreReadOrRefusedInWords) {
  for (const uint32_t masters : {1u, 2u}) {
    std::atomic<Balancer*> handle{nullptr};
    std::atomic<bool> called{false};
    BalancerStats stats;
    ShutdownReport report;
    auto balancer = Balancer::Create({.masters = masters,
                                      .on_event =
                                          [&](const Event&) {
                                            stats = handle.load()->Stats();
                                            report = handle.load()->Shutdown(absl::ZeroDuration());
                                            called = true;
                                          }})
                        .value();
    handle = balancer.get();
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
    const Listener listener = Listener::Tcp();
    Source source = balancer->AddSource(listener.fd(), {.master = 0}).value();
    Port port = balancer->AddWorker({.ring_fd = ring.ring_fd}).value();
    ASSERT_TRUE(source.Join(port).ok());
    ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);  // brings about an event
    ASSERT_TRUE(Eventually([&] { return called.load(); }));
    if (masters == 1) {
      EXPECT_TRUE(stats.status.ok()) << stats.status;
      ASSERT_EQ(stats.sources.size(), 1u);
      EXPECT_EQ(stats.sources[0].errors, balancer->Stats().sources[0].errors);
      EXPECT_EQ(stats.workers.size(), 1u);
    } else {
      EXPECT_EQ(stats.status.code(), absl::StatusCode::kFailedPrecondition);
    }
    EXPECT_EQ(report.status.code(), absl::StatusCode::kFailedPrecondition);
    // Nothing was shut down.
    EXPECT_TRUE(source.Resume().ok());
    EXPECT_TRUE(balancer->Stats().status.ok());
    EXPECT_TRUE(balancer->Shutdown(absl::ZeroDuration()).status.ok());
    port.Leave();
    io_uring_queue_exit(&ring);
  }
}

// Calls the balancer, answers nonsense, and throws.
class BadPolicy final : public Policy {
 public:
  BadPolicy(Balancer* balancer, BalancerStats* stats) : balancer_(balancer), stats_(stats) {}
  std::string name() const override { return "bad"; }
  size_t Pick(const Arrival&, const View& view) override {
    *stats_ = balancer_->Stats();
    if (++picks_ % 2 == 0) throw std::runtime_error("no idea");
    return view.candidates.size();
  }

 private:
  Balancer* const balancer_;
  BalancerStats* const stats_;
  int picks_ = 0;
};

TEST_F(BalancerTest, APolicyThatDoesWhatItMustNotIsNamedAndCostsNothing) {
  const Listener listener = Listener::Tcp();
  BalancerStats stats;
  Source source =
      AddSource(listener, {.policy = std::make_unique<BadPolicy>(balancer_.get(), &stats)});
  auto worker = AddWorker({source});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(AskWhoServes(listener), 0);
  const BalancerStats now = balancer_->Stats();
  EXPECT_EQ(stats.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(now.sources[0].policy_faults, 10u);
  const std::lock_guard lock(mutex_);
  ASSERT_EQ(events_.size(), 1u);
  EXPECT_EQ(events_[0].kind, Event::Kind::kPolicyFailed);
  EXPECT_NE(events_[0].text.find("policy bad picked position 1 of 1"), std::string::npos)
      << events_[0].text;
}

using BalancerDeathTest = BalancerTest;

// Brings about an event, in whose callback the process is to end; or the test times out.
void WaitForAnEventOf(Balancer& balancer) {
  io_uring ring;
  io_uring_queue_init(4, &ring, 0);
  const Listener listener = Listener::Tcp();
  Source source = balancer.AddSource(listener.fd()).value();
  Port port = balancer.AddWorker({.ring_fd = ring.ring_fd}).value();
  source.Join(port).IgnoreError();
  shutdown(listener.fd(), SHUT_RDWR);
  pause();
}

TEST_F(BalancerDeathTest, AnEventCallbackThatThrowsEndsWithASentence) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        auto balancer = Balancer::Create({.on_event = [](const Event&) {
                          throw std::runtime_error("cannot log");
                        }}).value();
        WaitForAnEventOf(*balancer);
      },
      "ringmaster: the event callback threw \"cannot log\"");
}

TEST_F(BalancerDeathTest, DestroyingTheBalancerInItsEventCallbackEndsWithASentence) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        std::unique_ptr<Balancer> balancer;
        balancer = Balancer::Create({.on_event = [&](const Event&) { balancer.reset(); }}).value();
        WaitForAnEventOf(*balancer);
      },
      "ringmaster: a Balancer is destroyed inside a callback");
}

TEST_F(BalancerTest, ASourceThatIsShutDownIsReportedAndWatchedNoMore) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    events_.clear();
    Create({});
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener, {.intake = intake});
    auto worker = AddWorker({source});
    EXPECT_EQ(AskWhoServes(listener), 0);
    ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);
    EXPECT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kSourceFailed); }));
    const uint64_t wakes = balancer_->Stats().master_wakes;
    balancer_->Stats();
    EXPECT_LE(balancer_->Stats().master_wakes, wakes + 4);  // it does not spin
  }
}

TEST_F(BalancerTest, AMasterWhoseRingFailsClosesWhatNobodyClaimedAndSaysSo) {
  balancer_.reset();
  const std::set<int> before = Rings();
  Create({});
  std::vector<int> own;
  for (const int ring : Rings()) {
    if (before.count(ring) == 0) own.push_back(ring);
  }
  ASSERT_EQ(own.size(), 1u);
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  io_uring ring;  // of a worker that never claims
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 3; }));
  // Another descriptor in its place: the next turn finds no ring there.
  const int other = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(dup3(other, own[0], O_CLOEXEC), own[0]);
  close(other);
  source.Pause().IgnoreError();  // makes the master turn
  ASSERT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kMasterFailed); }));
  EXPECT_FALSE(source.Resume().ok());
  ExpectEnds(clients);
  const ShutdownReport report = balancer_->Shutdown(absl::InfiniteDuration());
  EXPECT_EQ(report.refused, 3u);
  EXPECT_FALSE(report.drained);
  int claimed = 0;
  port.Claim([&](Connection) { ++claimed; });
  EXPECT_EQ(claimed, 0);
  port.Leave();
  io_uring_queue_exit(&ring);
}

// A duplicate of a worker's ring would keep what that has under way, and with it connections.
TEST_F(BalancerTest, AnEndedBalancerKeepsNoRingWhateverHandlesExist) {
  balancer_.reset();
  const size_t before = Rings().size();
  for (const Host host : {Host::kThread, Host::kLoop}) {
    Create({.host = host});
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener);
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
    Port early = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1}).value();
    Port late = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 2}).value();
    ASSERT_TRUE(source.Join(early).ok());
    ASSERT_TRUE(source.Join(late).ok());
    if (host == Host::kLoop) {
      EXPECT_TRUE(balancer_->RunOnce().ok());
    }
    EXPECT_EQ(Rings().size(), before + 4);  // the master's, the worker's, two duplicates
    balancer_->Shutdown(absl::ZeroDuration());
    early.Leave();
    // A loop may be watching the descriptor of its master.
    EXPECT_EQ(Rings().size(), before + (host == Host::kLoop ? 2 : 1));
    balancer_.reset();
    EXPECT_EQ(Rings().size(), before + 1);
    late.Leave();
    io_uring_queue_exit(&ring);
  }
}

// --- fork --------------------------------------------------------------------------------------

// What a child exits with; -1 when a signal ends it, as after ten seconds.
int StatusOf(pid_t child) {
  int status = -1;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}
pid_t ForkChild() {
  const pid_t child = fork();
  if (child == 0) alarm(10);
  return child;
}

// Of those that this process has, how many a balancer, or a mailbox, must have made.
size_t RingsAndEvents() {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const std::string target = std::filesystem::read_symlink(entry.path(), error);
    count += target == "anon_inode:[io_uring]" || target == "anon_inode:[eventfd]";
  }
  return count;
}

enum class Remedy { kDestroy, kDestroyMailboxToo, kCall, kCallAndDestroy };

// The handles are on the stacks of threads that a child does not have, so none of them is destroyed
// there.
class AForkedChild : public BalancerTest, public ::testing::WithParamInterface<Remedy> {};

INSTANTIATE_TEST_SUITE_P(Remedies, AForkedChild,
                         ::testing::Values(Remedy::kDestroy, Remedy::kDestroyMailboxToo,
                                           Remedy::kCall, Remedy::kCallAndDestroy));

TEST_P(AForkedChild, LetsGoOfSourcesWhateverHandlesExist) {
  const size_t others = RingsAndEvents() - 2;  // of the fixture's balancer: its ring and its event
  for (const uint32_t masters : {1u, 2u}) {
    Create({.masters = masters});
    auto listener = std::make_unique<Listener>(Listener::Tcp());
    const int on = 1;  // its connections inherit it, which linger when they have ended
    ASSERT_EQ(setsockopt(listener->fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    auto source = std::make_unique<Source>(AddSource(*listener));
    Mailbox mailbox = Mailbox::Create().value();
    Port port = balancer_->AddWorker(mailbox).value();
    ASSERT_TRUE(source->Join(port).ok());
    const int client = listener->Connect();
    Lease lease;
    ASSERT_TRUE(Eventually([&] {
      port.Claim([&](Connection connection) { lease = connection.TakeLease(); });
      return lease.held();
    }));
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    ASSERT_EQ(getsockname(listener->fd(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    int ready[2];
    int done[2];
    ASSERT_EQ(pipe(ready), 0);
    ASSERT_EQ(pipe(done), 0);
    const pid_t child = ForkChild();
    ASSERT_GE(child, 0);
    if (child == 0) {
      close(listener->fd());
      close(done[1]);
      if (GetParam() == Remedy::kCall || GetParam() == Remedy::kCallAndDestroy) {
        AfterForkInChild();
        AfterForkInChild();
      }
      if (GetParam() != Remedy::kCall) balancer_.reset();
      if (GetParam() == Remedy::kDestroyMailboxToo) mailbox = Mailbox();
      const bool gone = RingsAndEvents() == others;
      lease.Release();
      char byte = gone ? 0 : 1;
      static_cast<void>(write(ready[1], &byte, 1));
      static_cast<void>(read(done[0], &byte, 1));  // lives on
      _exit(gone ? 0 : 1);
    }
    close(done[0]);
    char byte = 1;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    // In the parent everything goes on; nothing of its own is closed by the call.
    AfterForkInChild();
    EXPECT_EQ(balancer_->Stats().workers[0].open, 1u);
    const int another = listener->Connect();
    EXPECT_TRUE(Eventually([&] {
      int served = 0;
      port.Claim([&](Connection) { ++served; });
      return served == 1;
    }));
    close(another);
    close(client);
    lease.Release();
    // The parent ends and is started again, while the child lives on.
    port.Leave();
    source.reset();
    balancer_.reset();
    listener.reset();
    EXPECT_TRUE(Eventually([&] {
      const int again = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      setsockopt(again, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
      const bool bound = bind(again, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                         listen(again, 4) == 0;
      close(again);
      return bound;
    }));
    for (const int fd : {done[1], ready[0], ready[1]}) close(fd);
    EXPECT_EQ(StatusOf(child), 0);
    Create({});
  }
}

// The handler stays with the process, so it is another process that asks for it.
TEST_F(BalancerTest, AForkedChildLetsGoByItselfWhereThatWasAskedFor) {
  balancer_.reset();
  const size_t others = RingsAndEvents();
  const pid_t asking = ForkChild();
  ASSERT_GE(asking, 0);
  if (asking == 0) {
    auto balancer = Balancer::Create({.close_after_fork = true});
    if (!balancer.ok()) _exit(3);
    auto second = Balancer::Create({.close_after_fork = true});
    const bool has = RingsAndEvents() == others + 4;
    const pid_t child = fork();
    if (child == 0) {
      const bool gone = RingsAndEvents() == others;
      // One of its own is its own.
      auto own = Mailbox::Create();
      AfterForkInChild();
      const bool stays = own.ok() && RingsAndEvents() == others + 1;
      balancer->reset();
      _exit(gone && stays ? 0 : 1);
    }
    _exit(has && StatusOf(child) == 0 ? 0 : 2);
  }
  EXPECT_EQ(StatusOf(asking), 0);
}

// Other threads hold every lock there is at one fork or another.
TEST_F(BalancerTest, AForkedChildAsksForTheProcessBeforeAnyLock) {
  constexpr int kForks = 60;
  for (const Host host : {Host::kThread, Host::kLoop, Host::kRing}) {
    Create({.host = host});
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener);
    Mailbox mailbox = Mailbox::Create().value();
    Port port = balancer_->AddWorker(mailbox).value();
    ASSERT_TRUE(source.Join(port).ok());
    std::atomic<bool> stop{false};
    std::vector<std::thread> busy;
    for (int i = 0; i < 2; ++i) {
      busy.emplace_back([&, i] {
        const Listener another = Listener::Unix();
        while (!stop) {
          if (i == 0) {
            absl::StatusOr<Source> added = balancer_->AddSource(another.fd());
            if (added.ok()) added->Remove().IgnoreError();
          } else {
            balancer_->Stats();
          }
        }
      });
    }
    for (int i = 0; i < kForks; ++i) {
      const pid_t child = ForkChild();
      ASSERT_GE(child, 0);
      if (child == 0) {
        const auto refused = absl::StatusCode::kFailedPrecondition;
        const Listener own = Listener::Unix();
        io_uring ring;
        io_uring_queue_init(4, &ring, 0);
        int wrong = 0;
        if (balancer_->AddSource(own.fd()).status().code() != refused) wrong |= 1;
        if (balancer_->AddWorker({.ring_fd = ring.ring_fd}).status().code() != refused) wrong |= 2;
        if (balancer_->AddWorker(mailbox).status().code() != refused) wrong |= 2;
        if (balancer_->Lend({}).code() != refused) wrong |= 4;
        if (balancer_->RunOnce().code() != refused) wrong |= 4;
        if (balancer_->OnCompletion({}) || balancer_->fd() != -1) wrong |= 4;
        if (source.Join(port).code() != refused || source.Leave(port).code() != refused ||
            source.Pause().code() != refused || source.Again().code() != refused ||
            source.SetPolicy(RoundRobin()).code() != refused || source.Remove().code() != refused) {
          wrong |= 8;
        }
        if (port.SetCapacity(1).code() != refused || port.SetWindow(1).code() != refused) {
          wrong |= 16;
        }
        balancer_->Stats();
        balancer_->Shutdown(absl::InfiniteDuration());
        port.Claim([&](Connection) { wrong |= 32; });
        port.Leave();
        balancer_.reset();
        source = Source();  // the last handle
        _exit(wrong);
      }
      ASSERT_EQ(StatusOf(child), 0) << "fork " << i;
    }
    stop = true;
    for (std::thread& thread : busy) thread.join();
    port.Leave();
  }
}

TEST_F(BalancerTest, AForkedChildCanNeitherClaimNorDisturb) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  const int client = listener.Connect();
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 1; }));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int wrong = 0;
    port.Claim([&](Connection connection) {
      wrong |= 1;
      static_cast<void>(connection.TakeFd());
    });
    if (source.Pause().code() != absl::StatusCode::kFailedPrecondition) wrong |= 2;
    if (!balancer_->Stats().workers.empty()) wrong |= 4;
    port.Leave();
    balancer_.reset();
    _exit(wrong);
  }
  EXPECT_EQ(StatusOf(child), 0);
  // The parent has lost nothing.
  int served = 0;
  port.Claim([&](Connection connection) {
    ++served;
    ServeIndex(0, std::move(connection));
  });
  EXPECT_EQ(served, 1);
  char byte;
  EXPECT_EQ(read(client, &byte, 1), 1);
  close(client);
  port.Leave();
  io_uring_queue_exit(&ring);
}

// --- Rest --------------------------------------------------------------------------------------

// Voluntary context switches of this process's thread with that name.
uint64_t SwitchesOfThread(const std::string& name) {
  uint64_t switches = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    bool matches = false;
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("Name:")) matches = line.substr(6) == name;
      if (matches && line.starts_with("voluntary_ctxt_switches:")) {
        switches += std::stoull(line.substr(24));
      }
    }
  }
  return switches;
}

TEST_F(BalancerTest, TheMasterTakesNoSignalsThatAreForTheProgram) {
  bool found = false;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream status(task.path() / "status");
    bool matches = false;
    for (std::string line; std::getline(status, line);) {
      if (line == "Name:\tringmaster") matches = true;
      if (!matches || !line.starts_with("SigBlk:")) continue;
      found = true;
      const uint64_t blocked = std::stoull(line.substr(7), nullptr, 16);
      for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGALRM}) {
        EXPECT_NE(blocked >> (signal - 1) & 1, 0u) << signal;
      }
    }
  }
  EXPECT_TRUE(found);
}

TEST_F(BalancerTest, AnIdleBalancerMakesNoWakeUpInTenSeconds) {
  const Listener first = Listener::Tcp();
  const Listener second = Listener::Tcp();
  Source polled = AddSource(first);
  Source accepted = AddSource(second, {.intake = Intake::kAccept});
  auto one = AddWorker({polled, accepted});
  auto two = AddWorker({polled, accepted});
  for (int i = 0; i < 10; ++i) {
    EXPECT_GE(AskWhoServes(first), 0);
    EXPECT_GE(AskWhoServes(second), 0);
  }
  // The last offers are looked at once more when they would be due for a recall.
  uint64_t before = 0;
  ASSERT_TRUE(Eventually([&] {
    before = SwitchesOfThread("ringmaster");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return SwitchesOfThread("ringmaster") == before;
  }));
  const uint64_t worker_wakes = one->wakes() + two->wakes();
  std::this_thread::sleep_for(std::chrono::seconds(10));
  EXPECT_EQ(SwitchesOfThread("ringmaster"), before);
  EXPECT_EQ(one->wakes() + two->wakes(), worker_wakes);
  EXPECT_GE(AskWhoServes(first), 0);  // and it still serves
}

}  // namespace
}  // namespace ringmaster
