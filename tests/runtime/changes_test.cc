// A balancer that is reshaped while it serves: sources are added and removed, policies switched,
// workers come, go and end without a word, limits change. Method: clients that never stop, each
// connection answered exactly once by a worker that says who it is, and the books compared at the
// end.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

#ifdef RINGMASTER_TEST_SANITIZED
constexpr int kChanges = 100;
#else
constexpr int kChanges = 1000;
#endif

class ChangesTest : public BalancerTest, public ::testing::WithParamInterface<Intake> {
 protected:
  // Every connection that was accepted was answered, and claimed by somebody.
  void ExpectBooksToAgree(const Clients& clients) {
    EXPECT_EQ(clients.failed(), 0u);
    const BalancerStats stats = balancer_->Stats();
    EXPECT_EQ(stats.accepted, clients.served());
    EXPECT_EQ(stats.refused, 0u);
    EXPECT_EQ(stats.held, 0u);
    uint64_t claimed = stats.departed.claimed;
    for (const WorkerStats& worker : stats.workers) claimed += worker.claimed;
    EXPECT_EQ(claimed, clients.served());
    const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
    EXPECT_TRUE(report.drained);
    EXPECT_EQ(report.refused, 0u);
  }
};

TEST_P(ChangesTest, LosesNothingWhileWorkersAreRemovedAndAddedAndPoliciesSwitched) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin(), .intake = GetParam(), .hold = 16});
  auto stays = AddWorker({source});
  auto also_stays = AddWorker({source}, ServeIndex, {.handoff = Handoff::kCompletion});
  Clients clients({&listener}, 4);
  for (int i = 0; i < kChanges; ++i) {
    const Handoff handoff = i % 2 == 0 ? Handoff::kInbox : Handoff::kCompletion;
    auto passes_by = AddWorker({source}, ServeIndex,
                               {.handoff = handoff, .window = 1 + static_cast<uint32_t>(i) % 4});
    const std::string_view policy = PolicyNames()[static_cast<size_t>(i) % PolicyNames().size()];
    EXPECT_TRUE(source.SetPolicy(PolicyByName(policy).value()).ok());
    if (!clients.Go(3)) break;
  }
  clients.Stop();
  const BalancerStats stats = balancer_->Stats();
  EXPECT_GT(stats.departed.claimed, 0u);
  std::printf("%llu connections, %llu of them by workers that came and went\n",
              static_cast<unsigned long long>(clients.served()),
              static_cast<unsigned long long>(stats.departed.claimed));
  ExpectBooksToAgree(clients);
}

TEST_P(ChangesTest, LosesNothingWhileSourcesAreAddedAndRemoved) {
  const Listener always = Listener::Tcp();
  const Listener sometimes = Listener::Unix();
  Source source = AddSource(always, {.intake = GetParam()});
  auto first = AddWorker({source});
  auto second = AddWorker({source}, ServeIndex, {.handoff = Handoff::kCompletion});
  Clients clients({&always, &sometimes}, 4);
  for (int i = 0; i < kChanges / 4; ++i) {
    Source passing = AddSource(sometimes, {.intake = GetParam()});
    EXPECT_TRUE(passing.Join(first->port(), {.token = 1}).ok());
    EXPECT_TRUE(passing.Join(second->port(), {.token = testing::Worker::kTokens + 1}).ok());
    if (!clients.Go(6)) break;
    EXPECT_TRUE(passing.Remove().ok());
  }
  Source last = AddSource(sometimes, {.intake = GetParam()});
  EXPECT_TRUE(last.Join(first->port()).ok());
  clients.Stop();
  ExpectBooksToAgree(clients);
}

TEST_P(ChangesTest, LosesNothingWhileLimitsChange) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin(), .intake = GetParam()});
  auto first = AddWorker({source});
  auto second = AddWorker({source}, ServeIndex, {.handoff = Handoff::kCompletion});
  Clients clients({&listener}, 4);
  for (uint32_t i = 0; i < kChanges / 4; ++i) {
    for (Worker* worker : {first.get(), second.get()}) {
      EXPECT_TRUE(worker->port().SetWindow(1 + i % 32).ok());
      EXPECT_TRUE(worker->port().SetCapacity(1 + i % 3).ok());
    }
    if (!clients.Go(3)) break;
  }
  clients.Stop();
  ExpectBooksToAgree(clients);
}

INSTANTIATE_TEST_SUITE_P(Intakes, ChangesTest,
                         ::testing::Values(Intake::kPollAccept, Intake::kAccept),
                         [](const ::testing::TestParamInfo<Intake>& intake) {
                           return intake.param == Intake::kAccept ? "accept" : "poll_accept";
                         });

// --- Removing a source ---------------------------------------------------------------------------

TEST_F(BalancerTest, ARemovedSourceIsNotWatchedAnyMoreAndItsBacklogStays) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener, {.intake = intake});
    auto worker = AddWorker({source});
    EXPECT_GE(AskWhoServes(listener), 0);
    EXPECT_TRUE(source.Remove().ok());
    const int waiting = listener.Connect();
    const BalancerStats stats = balancer_->Stats();
    EXPECT_TRUE(stats.sources.empty());
    // Whoever listens next gets it: here the test itself.
    EXPECT_TRUE(Eventually([&] {
      const int fd = accept(listener.fd(), nullptr, nullptr);
      if (fd >= 0) close(fd);
      return fd >= 0;
    }));
    close(waiting);
  }
}

TEST_F(BalancerTest, AfterRemovingTheDescriptorMayBeClosedOrAddedAnew) {
  auto listener = std::make_unique<Listener>(Listener::Tcp());
  Source source = AddSource(*listener);
  auto worker = AddWorker({source});
  EXPECT_EQ(AskWhoServes(*listener), 0);
  EXPECT_TRUE(source.Remove().ok());
  Source again = AddSource(*listener);
  EXPECT_TRUE(again.Join(worker->port()).ok());
  EXPECT_EQ(AskWhoServes(*listener), 0);
  EXPECT_TRUE(again.Remove().ok());
  // Nothing keeps the socket listening once it is closed.
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(listener->fd(), reinterpret_cast<sockaddr*>(&address), &size);
  listener.reset();
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), size), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
  close(client);
}

TEST_F(BalancerTest, AHandleOfARemovedSourceSaysSo) {
  const Listener listener = Listener::Tcp();
  const Listener other = Listener::Tcp();
  Source source = AddSource(listener);
  Source copy = source;
  auto worker = AddWorker({source});
  EXPECT_TRUE(source.Remove().ok());
  Source heir = AddSource(other);
  EXPECT_EQ(heir.index(), source.index());
  for (Source* stale : {&source, &copy}) {
    for (const absl::Status& status :
         {stale->Remove(), stale->Pause(), stale->Resume(), stale->SetPolicy(RoundRobin()),
          stale->Join(worker->port()), stale->Leave(worker->port())}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
      EXPECT_NE(status.message().find("was removed"), std::string::npos) << status;
    }
  }
  EXPECT_TRUE(heir.Join(worker->port()).ok());
  EXPECT_EQ(AskWhoServes(other), 0);
}

TEST_F(BalancerTest, WhatARemovedSourceHasAcceptedIsStillServed) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.intake = Intake::kAccept, .recall = false});
  io_uring ring;  // of a worker that claims when the test says so
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1, .window = 2}).value();
  ASSERT_TRUE(source.Join(port, {.token = 7}).ok());
  std::vector<int> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().accepted == 6; }));
  EXPECT_TRUE(source.Remove().ok());
  int served = 0;
  const auto serve = [&](Connection connection) {
    EXPECT_EQ(connection.token(), 7u);
    EXPECT_EQ(write(connection.fd(), "x", 1), 1);
    ++served;
  };
  EXPECT_TRUE(Eventually([&] {
    port.Claim(serve);
    return served == 6;
  }));
  ExpectAnswers(clients);
  port.Leave();
  io_uring_queue_exit(&ring);
}

TEST_F(BalancerTest, WhatARemovedSourceHoldsIsRefusedWhenItsLastWorkerLeaves) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.intake = Intake::kAccept});
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1, .window = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().accepted == 3; }));
  EXPECT_TRUE(source.Remove().ok());
  port.Leave();
  ExpectEnds(clients);
  EXPECT_TRUE(Eventually([&] { return balancer_->Stats().refused == 3; }));
  io_uring_queue_exit(&ring);
}

TEST_F(BalancerTest, TakesMoreSourcesOverItsLifeThanAtATime) {
  const Listener listener = Listener::Tcp();
  for (int i = 0; i < 1100; ++i) {
    Source source = AddSource(listener);
    ASSERT_EQ(source.index(), 0u);
    ASSERT_TRUE(source.Remove().ok());
  }
}

// --- Switching the policy ------------------------------------------------------------------------

TEST_F(BalancerTest, APolicyThatIsSwitchedDecidesFromTheNextArrivalOn) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = Exclusive()});
  auto first = AddWorker({source});
  auto second = AddWorker({source});
  // One at a time and LIFO: the same worker again and again, once it has been seen to wait.
  EXPECT_TRUE(source.SetPolicy(RoundRobin()).ok());
  std::array<int, 2> served{};
  for (int i = 0; i < 20; ++i) ++served[static_cast<size_t>(AskWhoServes(listener))];
  EXPECT_EQ(served[0], 10);
  EXPECT_EQ(served[1], 10);
  EXPECT_EQ(source.SetPolicy(nullptr).code(), absl::StatusCode::kInvalidArgument);
}

// The one that is replaced is destroyed on the thread that asked, not on the master's.
TEST_F(BalancerTest, TheOldPolicyEndsOnTheThreadOfTheCaller) {
  class Ending final : public Policy {
   public:
    explicit Ending(std::thread::id* ended_on) : ended_on_(ended_on) {}
    ~Ending() override { *ended_on_ = std::this_thread::get_id(); }
    std::string name() const override { return "ending"; }
    size_t Pick(const Arrival&, const View&) override { return 0; }

   private:
    std::thread::id* const ended_on_;
  };
  const Listener listener = Listener::Tcp();
  std::thread::id ended_on;
  Source source = AddSource(listener, {.policy = std::make_unique<Ending>(&ended_on)});
  EXPECT_TRUE(source.SetPolicy(LeastLoaded()).ok());
  EXPECT_EQ(ended_on, std::this_thread::get_id());
}

// --- Limits --------------------------------------------------------------------------------------

TEST_F(BalancerTest, CapacityAndWindowCanBeChangedAndWrongOnesAreRefusedInWords) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  auto worker = AddWorker({source}, ServeIndex, {.window = 8});
  Port& port = worker->port();
  EXPECT_TRUE(port.SetWindow(1).ok());
  EXPECT_TRUE(port.SetWindow(8).ok());
  EXPECT_TRUE(port.SetCapacity(1).ok());
  EXPECT_EQ(AskWhoServes(listener), 0);
  for (const absl::Status& status : {port.SetWindow(0), port.SetWindow(9), port.SetCapacity(0)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_NE(port.SetWindow(9).message().find("was added with 8"), std::string::npos);
  auto handed = AddWorker({source}, ServeIndex, {.handoff = Handoff::kCompletion, .window = 8});
  EXPECT_TRUE(handed->port().SetWindow(64).ok());  // nothing was allocated for it
  Port none;
  EXPECT_EQ(none.SetWindow(1).code(), absl::StatusCode::kFailedPrecondition);
}

// --- Ends without a word -------------------------------------------------------------------------

TEST_F(BalancerTest, AThreadThatEndsWithoutLeavingLeaksNoCapacity) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  auto doomed = AddWorker({source}, ServeIndex, {.capacity = 8});
  auto survivor = AddWorker({source});
  for (int i = 0; i < 20; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  doomed->Die();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(AskWhoServes(listener), 1);
  EXPECT_EQ(balancer_->Stats().workers[0].open, 0u);
  EXPECT_EQ(balancer_->Stats().workers[0].unclaimed, 0u);
  EXPECT_GE(balancer_->Stats().workers[0].stalls, 1u);
}

// --- Statistics ----------------------------------------------------------------------------------

TEST_F(BalancerTest, CountsWhatASourceAndAWorkerGoThrough) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port = balancer_->AddWorker({.ring_fd = ring.ring_fd, .tag = 1, .window = 2}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 2; }));
  ASSERT_TRUE(Eventually(
      [&] { return balancer_->Stats().workers[0].oldest_unclaimed > absl::Milliseconds(1); }));
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().sources[0].pauses == 1; }));  // no credit
  BalancerStats stats = balancer_->Stats();
  ASSERT_EQ(stats.sources.size(), 1u);
  EXPECT_EQ(stats.sources[0].accepted, 2u);
  EXPECT_EQ(stats.sources[0].claimed, 0u);
  EXPECT_EQ(stats.workers[0].doorbells, 1u);
  port.Claim([](Connection) {});
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().sources[0].accepted == 3; }));
  port.Claim([](Connection) {});
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().sources[0].claimed == 3; }));
  stats = balancer_->Stats();
  EXPECT_GE(stats.sources[0].rearms, 1u);
  EXPECT_EQ(stats.sources[0].errors, 0u);
  EXPECT_EQ(stats.workers[0].oldest_unclaimed, absl::ZeroDuration());
  for (const int client : clients) close(client);
  port.Leave();
  io_uring_queue_exit(&ring);
}

}  // namespace
}  // namespace ringmaster
