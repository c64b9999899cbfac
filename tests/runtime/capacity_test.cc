// How many connections may be open at once, of a source and of a whole balancer, and how long one
// may wait for a worker. Method: ten times as many clients come as are admitted. The workers count
// what they have open, and a connection is let go only when the test says so.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr uint32_t kCap = 8;
constexpr int kClients = 10 * kCap;

class CapacityTest : public BalancerTest, public ::testing::WithParamInterface<Intake> {
 protected:
  // A worker that keeps what it claims.
  std::unique_ptr<Worker> AddKeeper(std::vector<Source> sources, WorkerOptions options = {}) {
    return AddWorker(std::move(sources), kept_.serve(), options);
  }
  SourceStats StatsOf(const Source& source) {
    for (const SourceStats& stats : balancer_->Stats().sources) {
      if (stats.source == source.index()) return stats;
    }
    return {};
  }
  // Lets go what is open, and returns how many that were.
  size_t LetGo() { return kept_.TakeAll().size(); }
  void Connect(const Listener& listener, int count) {
    for (int i = 0; i < count; ++i) clients_.push_back(listener.Connect());
  }
  // Serves all of them, a round of what is admitted at a time.
  void ServeAll(size_t all, size_t cap) {
    for (size_t served = 0; served < all;) {
      const size_t next = std::min(cap, all - served);
      ASSERT_TRUE(Eventually([&] { return kept_.size() >= next; }))
          << served << " " << kept_.size();
      served += LetGo();
    }
    EXPECT_EQ(kept_.most(), cap);
    ExpectEnds(clients_);
  }

  Kept kept_;
  std::vector<int> clients_;
};
INSTANTIATE_TEST_SUITE_P(Exact, CapacityTest,
                         ::testing::Values(Intake::kPollAccept, Intake::kAccept,
                                           Intake::kReadiness),
                         [](const auto& intake) {
                           return intake.param == Intake::kReadiness ? "Readiness"
                                  : intake.param == Intake::kAccept  ? "Accept"
                                                                     : "PollAccept";
                         });

TEST_P(CapacityTest, ASourceHasNoMoreOpenThanToldAndTheRestIsServedLater) {
  const Listener listener = Listener::Tcp();
  Source source =
      balancer_->AddSource(listener.fd(), {.intake = GetParam(), .capacity = kCap}).value();
  std::array<std::unique_ptr<Worker>, 3> workers;
  for (auto& worker : workers) worker = AddKeeper({source});
  Connect(listener, kClients);
  ServeAll(kClients, kCap);
}

TEST_P(CapacityTest, ABalancerHasNoMoreOpenThanToldOverAllItsSources) {
  Create({.capacity = kCap});
  const std::array<Listener, 2> listeners{Listener::Tcp(), Listener::Unix()};
  std::vector<Source> sources;
  for (const Listener& listener : listeners) {
    sources.push_back(balancer_->AddSource(listener.fd(), {.intake = GetParam()}).value());
  }
  std::array<std::unique_ptr<Worker>, 3> workers;
  for (auto& worker : workers) worker = AddKeeper(sources);
  for (const Listener& listener : listeners) Connect(listener, kClients / 2);
  ServeAll(kClients, kCap);
}

// One source that is full does not keep the other from being served.
TEST_P(CapacityTest, OneSourceThatIsFullLeavesTheOthersAlone) {
  const Listener full = Listener::Tcp();
  const Listener other = Listener::Tcp();
  Source first = balancer_->AddSource(full.fd(), {.intake = GetParam(), .capacity = 1}).value();
  Source second = balancer_->AddSource(other.fd(), {.intake = GetParam()}).value();
  const auto keeper = AddKeeper({first});
  const auto worker = AddWorker({second});
  Connect(full, 3);
  ASSERT_TRUE(Eventually([&] { return kept_.size() == 1; }));
  for (int i = 0; i < 10; ++i) EXPECT_GE(AskWhoServes(other), 0);
  EXPECT_EQ(kept_.size(), 1u);
  for (const int client : clients_) close(client);
}

// What is admitted may be released by a lease that outlives its port.
TEST_P(CapacityTest, ALeaseThatOutlivesItsWorkerKeepsItsPlace) {
  const Listener listener = Listener::Tcp();
  Source source =
      balancer_->AddSource(listener.fd(), {.intake = GetParam(), .capacity = 1}).value();
  auto keeper = AddKeeper({source});
  Connect(listener, 2);
  ASSERT_TRUE(Eventually([&] { return kept_.size() == 1; }));
  keeper.reset();
  const auto another = AddKeeper({source});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(kept_.size(), 1u);
  EXPECT_EQ(LetGo(), 1u);
  ASSERT_TRUE(Eventually([&] { return kept_.size() == 1; }));
  for (const int client : clients_) close(client);
}

TEST_F(CapacityTest, ABalancerCountsWhatIsHandedOverAsCompletions) {
  Create({.capacity = kCap});
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  std::array<std::unique_ptr<Worker>, 2> workers;
  for (auto& worker : workers) worker = AddKeeper({source}, {.handoff = Handoff::kCompletion});
  Connect(listener, kClients);
  ServeAll(kClients, kCap);
}

TEST_F(CapacityTest, RefusesImpossibleOnes) {
  EXPECT_FALSE(Balancer::Create({.capacity = 0}).ok());
  const Listener listener = Listener::Tcp();
  EXPECT_FALSE(balancer_->AddSource(listener.fd(), {.capacity = 0}).ok());
  EXPECT_FALSE(balancer_->AddSource(listener.fd(), {.age_max = absl::Nanoseconds(1)}).ok());
  Source limited = balancer_->AddSource(listener.fd(), {.capacity = 1}).value();
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port =
      balancer_->AddWorker({.ring_fd = ring.ring_fd, .handoff = Handoff::kCompletion}).value();
  const absl::Status joined = limited.Join(port);
  EXPECT_NE(joined.message().find("capacity"), std::string::npos) << joined;
  port.Leave();
  io_uring_queue_exit(&ring);
}

// --- The kernel's queue --------------------------------------------------------------------------

// The worker has all that it may, so the queue fills up and overflows.
TEST_F(CapacityTest, TellsOfAKernelQueueThatOverflows) {
  constexpr int kLimit = 4;
  const Listener listener = Listener::Tcp(kLimit);
  Source source = AddSource(listener);
  const auto keeper = AddKeeper({source}, {.capacity = 1});
  clients_.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return kept_.size() == 1; }));
  SourceStats stats = balancer_->Stats().sources[0];
  EXPECT_EQ(stats.backlog, 0u);
  EXPECT_EQ(stats.backlog_limit, uint32_t{kLimit});
  EXPECT_EQ(stats.backlog_overflows, 0u);
  Connect(listener, kLimit + 1);
  EXPECT_EQ(balancer_->Stats().sources[0].backlog, kLimit + 1u);
  EXPECT_FALSE(SawEvent(Event::Kind::kBacklogOverflow));
  clients_.push_back(listener.ConnectWithoutWaiting());
  stats = balancer_->Stats().sources[0];
  EXPECT_GE(stats.backlog_overflows, 1u);
  ASSERT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kBacklogOverflow); }));
  std::lock_guard lock(mutex_);
  const auto event = std::find_if(events_.begin(), events_.end(), [](const Event& it) {
    return it.kind == Event::Kind::kBacklogOverflow;
  });
  EXPECT_EQ(event->source, 0u);
  for (const char* word : {"source 0", "listen()", "capacity", "somaxconn"}) {
    EXPECT_NE(event->text.find(word), std::string::npos) << event->text;
  }
  for (const int client : clients_) close(client);
}

// Without Stats: the master asks when it is awake.
TEST_F(CapacityTest, TellsOfAnOverflowByItself) {
  const Listener listener = Listener::Tcp(1);
  Source source = AddSource(listener);
  const auto keeper = AddKeeper({source}, {.capacity = 1});
  for (int i = 0; i < 4; ++i) clients_.push_back(listener.ConnectWithoutWaiting());
  ASSERT_TRUE(Eventually([&] {
    LetGo();  // which makes credit, and so wakes it
    return SawEvent(Event::Kind::kBacklogOverflow);
  }));
  for (const int client : clients_) close(client);
}

TEST_F(CapacityTest, SaysNothingOfAKernelQueueThatItDoesNotKnow) {
  const Listener listener = Listener::Unix();
  AddSource(listener);
  const SourceStats stats = balancer_->Stats().sources[0];
  EXPECT_FALSE(stats.backlog.has_value());
  EXPECT_FALSE(stats.backlog_limit.has_value());
  EXPECT_FALSE(stats.backlog_overflows.has_value());
}

// --- The age limit -------------------------------------------------------------------------------

// The worker does not claim, and there is nobody else.
TEST_F(CapacityTest, WhatNobodyClaimsInTimeIsClosedAndCounted) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.age_max = absl::Milliseconds(20)});
  Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox, {.window = 2}).value();
  ASSERT_TRUE(source.Join(port).ok());
  Connect(listener, 2);
  for (int i = 0; i < 2; ++i) {
    pollfd ended{.fd = clients_[static_cast<size_t>(i)], .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&ended, 1, 10'000), 1) << "still open";
  }
  EXPECT_EQ(balancer_->Stats().dropped, 2u);
  EXPECT_EQ(balancer_->Stats().sources[0].dropped, 2u);
  // It has done nothing wrong by leaving them: what comes when it moves again is its own.
  // One after the other, because who comes before it moves grows too old in the kernel's queue.
  int served = 0;
  ASSERT_TRUE(Eventually([&] {
    Connect(listener, 1);
    poll(nullptr, 0, 1);
    port.Claim([&](Connection) { ++served; });
    return served > 0;
  }));
  for (const int client : clients_) close(client);
}

// Everybody hangs up while the only place is taken; who has come after them is next.
TEST_F(CapacityTest, WhoHasHungUpIsClosedAndNobodyIsAsked) {
  for (const bool local : {false, true}) {
    for (const Intake intake : {Intake::kPollAccept, Intake::kAccept}) {
      const Listener listener = local ? Listener::Unix() : Listener::Tcp();
      Source source =
          AddSource(listener, {.intake = intake, .hold = 1, .age_max = absl::Seconds(60)});
      auto keeper = AddKeeper({source}, {.capacity = 1});
      const int first = listener.Connect();
      ASSERT_TRUE(Eventually([&] { return kept_.size() == 1; }));
      // This one stops the intake: with kAccept it is held, otherwise it stays in the queue.
      const int second = listener.Connect();
      ASSERT_TRUE(Eventually([&] { return StatsOf(source).pauses > 0; }));
      EXPECT_EQ(StatsOf(source).held, intake == Intake::kAccept ? 1u : 0u);
      for (int i = 0; i < kClients; ++i) close(listener.Connect());
      const int last = listener.Connect();
      for (int i = 0; i < 2; ++i) {
        ASSERT_EQ(LetGo(), 1u);
        ASSERT_TRUE(Eventually([&] { return kept_.size() == 1; }));
      }
      const SourceStats stats = StatsOf(source);
      EXPECT_EQ(stats.claimed, 3u);
      EXPECT_EQ(stats.gone, static_cast<uint64_t>(kClients));
      EXPECT_EQ(stats.dropped, stats.gone);
      EXPECT_EQ(stats.accepted, kClients + 3u);
      EXPECT_EQ(LetGo(), 1u);
      EXPECT_TRUE(source.Remove().ok());
      keeper->Stop();
      for (const int client : {first, second, last}) close(client);
    }
  }
}

// With exact admission clients wait in the kernel's queue, which counts.
TEST_F(CapacityTest, TheTimeInTheKernelsQueueCounts) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.age_max = absl::Seconds(1)});
  const auto keeper = AddKeeper({source}, {.capacity = 1});
  clients_.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return kept_.size() == 1; }));
  Connect(listener, kClients);
  poll(nullptr, 0, 1'100);
  EXPECT_EQ(StatsOf(source).accepted, 1u);
  clients_.push_back(listener.Connect());
  const char request = 'r';
  EXPECT_EQ(send(clients_.back(), &request, 1, 0), 1);
  EXPECT_EQ(shutdown(clients_.back(), SHUT_WR), 0);  // it waits for the answer
  LetGo();
  ASSERT_TRUE(Eventually([&] { return StatsOf(source).claimed == 2; }));
  EXPECT_EQ(StatsOf(source).dropped, static_cast<uint64_t>(kClients));
  EXPECT_EQ(StatsOf(source).gone, 0u);
  for (const int client : clients_) close(client);
}

TEST_F(CapacityTest, WhatIsClaimedInTimeIsNotDropped) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.age_max = absl::Seconds(60)});
  const auto worker = AddWorker({source});
  for (int i = 0; i < 100; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  EXPECT_EQ(balancer_->Stats().dropped, 0u);
}

}  // namespace
}  // namespace ringmaster
