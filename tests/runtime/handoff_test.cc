// Connections that are handed over as completions of the worker's own ring (Handoff::kCompletion),
// on the real ring. The workers' loops hold no library code but Took, and Adopt where a test counts
// open connections. One loop is written out here as an application would write it.

#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr uint64_t kAccepted = 77;

// A ring whose completions the test reads one by one.
class HandoffTest : public BalancerTest {
 protected:
  void SetUp() override {
    BalancerTest::SetUp();
    if (IsSkipped()) return;
    // The tests take from the ring when they want to, and the machine may be slow: nobody counts as
    // stuck meanwhile.
    Create({.recall_after = absl::Seconds(60)});
    ASSERT_EQ(io_uring_queue_init(64, &ring_, 0), 0);
    ring_made_ = true;
  }
  void TearDown() override {
    port_.Leave();
    if (ring_made_) io_uring_queue_exit(&ring_);
    for (const int fd : clients_) close(fd);
  }

  Source Join(const Listener& listener, WorkerOptions options, SourceOptions source_options = {}) {
    options.ring_fd = ring_.ring_fd;
    options.handoff = Handoff::kCompletion;
    port_ = balancer_->AddWorker(options).value();
    Source source = AddSource(listener, std::move(source_options));
    EXPECT_TRUE(source.Join(port_, {.token = kAccepted}).ok());
    return source;
  }

  void ConnectMany(const Listener& listener, int count) {
    for (int i = 0; i < count; ++i) clients_.push_back(listener.Connect());
  }

  // The descriptor of the next completion, which the test owns; waits for it.
  int Next() {
    io_uring_cqe* cqe = nullptr;
    EXPECT_EQ(io_uring_wait_cqe(&ring_, &cqe), 0);
    EXPECT_EQ(cqe->user_data, kAccepted);
    EXPECT_EQ(cqe->flags, 0u);
    const int fd = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    return fd;
  }

  WorkerStats StatsOf(uint32_t position = 0) { return balancer_->Stats().workers[position]; }

  io_uring ring_{};
  bool ring_made_ = false;
  Port port_;
  std::vector<int> clients_;
};

TEST_F(HandoffTest, ACompletionCarriesAConnectedNonBlockingDescriptor) {
  const Listener listener = Listener::Tcp();
  Join(listener, {});
  ConnectMany(listener, 1);
  const int fd = Next();
  EXPECT_EQ(write(fd, "x", 1), 1);
  char byte = 0;
  EXPECT_EQ(read(clients_[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
  EXPECT_EQ(read(fd, &byte, 1), -1);
  EXPECT_EQ(errno, EAGAIN);
  close(fd);
  port_.Took();
}

TEST_F(HandoffTest, SendsNoMoreThanTheWindowUntilTheWorkerTook) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
    const Listener listener = Listener::Tcp();
    Source source = Join(listener, {.window = 3}, {.intake = intake});
    ConnectMany(listener, 10);
    int served = 0;
    for (const int wave : {3, 3, 3, 1}) {
      EXPECT_TRUE(Eventually([&] { return io_uring_cq_ready(&ring_) == unsigned(wave); }));
      EXPECT_EQ(StatsOf().unclaimed, unsigned(wave));
      for (int i = 0; i < wave; ++i, ++served) close(Next());
      EXPECT_EQ(io_uring_cq_ready(&ring_), 0u);
      port_.Took(static_cast<size_t>(wave));
    }
    EXPECT_EQ(served, 10);
    EXPECT_TRUE(Eventually([&] { return StatsOf().unclaimed == 0; }));
    const WorkerStats stats = StatsOf();
    EXPECT_EQ(stats.claimed, 10u);
    EXPECT_EQ(stats.open, 0u);
    EXPECT_EQ(stats.doorbells, 0u);
    EXPECT_TRUE(source.Remove().ok());
    port_.Leave();
  }
}

TEST_F(HandoffTest, AnAdoptedConnectionCountsUntilItsLeaseEndsWhicheverIsSaidFirst) {
  const Listener listener = Listener::Tcp();
  Join(listener, {.window = 8});
  ConnectMany(listener, 4);
  std::vector<Connection> open;
  open.push_back(port_.Adopt(Next(), kAccepted));
  EXPECT_EQ(open[0].token(), kAccepted);
  open.push_back(port_.Adopt(Next()));
  const int third = Next();
  close(Next());
  EXPECT_EQ(StatsOf().open, 4u);
  port_.Took(4);
  EXPECT_EQ(StatsOf().open, 2u);
  open.push_back(port_.Adopt(third));  // late, and counted from now on
  EXPECT_EQ(StatsOf().open, 3u);
  open.pop_back();
  EXPECT_EQ(StatsOf().open, 2u);
  open.clear();
  EXPECT_EQ(StatsOf().open, 0u);
}

TEST_F(HandoffTest, WhatHasEndedBeforeItWasSaidToBeTakenIsNotUnclaimed) {
  const Listener listener = Listener::Tcp();
  Join(listener, {.window = 8});
  ConnectMany(listener, 3);
  ASSERT_TRUE(Eventually([&] { return io_uring_cq_ready(&ring_) == 3; }));
  for (int i = 0; i < 2; ++i) const Connection adopted = port_.Adopt(Next(), kAccepted);
  EXPECT_EQ(StatsOf().unclaimed, 1u);
  EXPECT_EQ(StatsOf().open, 1u);
  close(Next());
  port_.Took(3);
  EXPECT_EQ(StatsOf().unclaimed, 0u);
  EXPECT_EQ(StatsOf().open, 0u);
}

TEST_F(HandoffTest, NeverExceedsTheCapacityWhenConnectionsAreAdopted) {
  const Listener listener = Listener::Tcp();
  Join(listener, {.capacity = 2, .window = 8});
  ConnectMany(listener, 6);
  std::vector<Connection> open;
  for (int i = 0; i < 6; ++i) {
    open.push_back(port_.Adopt(Next()));
    port_.Took();
    EXPECT_LE(StatsOf().open, 2u);
    if (open.size() == 2) open.erase(open.begin());
  }
}

TEST_F(HandoffTest, TookOfMoreThanWasSentIsIgnored) {
  const Listener listener = Listener::Tcp();
  Join(listener, {.window = 2});
  port_.Took(1000);
  ConnectMany(listener, 5);
  EXPECT_TRUE(Eventually([&] { return io_uring_cq_ready(&ring_) == 2; }));
  EXPECT_EQ(StatsOf().unclaimed, 2u);
  close(Next());
  close(Next());
  port_.Took(1000);
  EXPECT_TRUE(Eventually([&] { return io_uring_cq_ready(&ring_) == 2; }));
  EXPECT_EQ(StatsOf().open, 2u);
  close(Next());
  close(Next());
}

TEST_F(HandoffTest, AWorkerWithAnInboxMayAdoptWhatCameAnotherWay) {
  const Listener listener = Listener::Tcp();
  port_ = balancer_->AddWorker({.ring_fd = ring_.ring_fd, .tag = 1}).value();
  ConnectMany(listener, 1);
  Connection connection = port_.Adopt(accept(listener.fd(), nullptr, nullptr), 5);
  EXPECT_EQ(connection.token(), 5u);
  EXPECT_EQ(StatsOf().open, 1u);
  port_.Took(1);  // of no meaning here
  EXPECT_EQ(StatsOf().open, 1u);
  connection = Connection();
  EXPECT_EQ(StatsOf().open, 0u);
}

TEST_F(HandoffTest, AWorkerThatTakesNothingGetsNoMoreAndTheOthersServe) {
  Create({});
  const Listener listener = Listener::Tcp();
  Source source = Join(listener, {}, {.policy = RoundRobin()});
  auto other = AddWorker({source}, ServeIndex, {.handoff = Handoff::kCompletion});
  int stuck = 0;
  int served = 0;
  // Those that the stuck worker got keep waiting; the others are served. A client of these waits
  // for long before it counts as one of those, because the machine may be slow.
  const timeval patience{.tv_usec = 200'000};
  for (int i = 0; i < 200; ++i) {
    const int client = listener.Connect();
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char byte = 0;
    if (read(client, &byte, 1) == 1) {
      ++served;
      close(client);
    } else {
      ++stuck;
      clients_.push_back(client);
    }
  }
  EXPECT_TRUE(SawEvent(Event::Kind::kWorkerStalled));
  const BalancerStats stats = balancer_->Stats();
  EXPECT_LE(stats.workers[0].assigned, 32u);
  EXPECT_GE(stats.workers[0].stalls, 1u);
  EXPECT_GT(served, 100);
  // It moves: what it had is served, and it gets its turns again.
  for (uint64_t i = 0; i < stats.workers[0].assigned; ++i) {
    const int fd = Next();
    EXPECT_EQ(write(fd, "x", 1), 1);
    close(fd);
  }
  port_.Took(stats.workers[0].assigned);
  EXPECT_TRUE(Eventually([&] {
    const int client = listener.Connect();
    clients_.push_back(client);
    return io_uring_cq_ready(&ring_) > 0;
  }));
  while (io_uring_cq_ready(&ring_) > 0) close(Next());
}

TEST_F(HandoffTest, WhatIsInTheRingOfAWorkerThatLeavesIsItsOwn) {
  const Listener listener = Listener::Tcp();
  Join(listener, {});
  ConnectMany(listener, 3);
  EXPECT_TRUE(Eventually([&] { return io_uring_cq_ready(&ring_) == 3; }));
  port_.Leave();
  EXPECT_EQ(balancer_->Stats().departed.claimed, 3u);
  for (int i = 0; i < 3; ++i) {
    const Connection connection = port_.Adopt(Next());
    EXPECT_EQ(write(connection.fd(), "x", 1), 1);
  }
  for (const int client : clients_) {
    char byte = 0;
    EXPECT_EQ(read(client, &byte, 1), 1);
  }
  port_.Took(3);  // harmless
}

// The ring's number is used again by another ring, which must not be sent to.
TEST_F(HandoffTest, ARingThatIsClosedWithoutLeavingIsNeverMistakenForAnother) {
  const Listener listener = Listener::Tcp();
  io_uring doomed{};
  ASSERT_EQ(io_uring_queue_init(8, &doomed, 0), 0);
  Source source = AddSource(listener, {.policy = RoundRobin()});
  Port lost =
      balancer_->AddWorker({.ring_fd = doomed.ring_fd, .handoff = Handoff::kCompletion}).value();
  ASSERT_TRUE(source.Join(lost, {.token = kAccepted}).ok());
  const int number = doomed.ring_fd;
  io_uring_queue_exit(&doomed);
  io_uring heir{};
  ASSERT_EQ(io_uring_queue_init(8, &heir, 0), 0);
  ASSERT_EQ(heir.ring_fd, number);
  ConnectMany(listener, 5);
  EXPECT_TRUE(Eventually([&] { return StatsOf().claimed == 5; }));  // in the ring that nobody reads
  EXPECT_EQ(io_uring_cq_ready(&heir), 0u);
  lost.Leave();
  io_uring_queue_exit(&heir);
}

TEST_F(HandoffTest, ShutdownWaitsForWhatWasAdopted) {
  const Listener listener = Listener::Tcp();
  Join(listener, {});
  ConnectMany(listener, 1);
  Connection connection = port_.Adopt(Next());
  port_.Took();
  EXPECT_EQ(balancer_->Shutdown(absl::ZeroDuration()).open, 1u);
  EXPECT_FALSE(balancer_->Shutdown(absl::ZeroDuration()).drained);
  connection = Connection();
  EXPECT_EQ(port_.Adopt(-1).fd(), -1);
}

TEST_F(HandoffTest, ADrainEndsWhenTheLastAdoptedConnectionDoes) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  auto worker = AddWorker({source}, ServeIndex, {.handoff = Handoff::kCompletion});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(AskWhoServes(listener), 0);
  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.open, 0u);
  EXPECT_EQ(report.stats.workers[0].claimed, 20u);
}

}  // namespace
}  // namespace ringmaster
