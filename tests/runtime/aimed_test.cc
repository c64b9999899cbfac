// Sources whose policy decides before a connection comes (Port::WatchSight), on the real ring, with
// real clients. Each loop waits for ever, so a connection that nobody is woken for ends the test by
// its time limit.

#include <gtest/gtest.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "support/server.h"

namespace ringmaster {
namespace {

sockaddr_in AddressOf(const Listener& listener) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  EXPECT_EQ(getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  return address;
}

// A client, or -errno.
int ConnectTo(const sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

bool IsRefused(const sockaddr_in& address) {
  const int client = ConnectTo(address);
  if (client >= 0) close(client);
  return client == -ECONNREFUSED;
}

enum class Loop { kEpoll, kEpollEdge, kUring };

struct Way {
  Loop loop = Loop::kEpoll;
  bool hints = true;
};

std::string NameOf(const ::testing::TestParamInfo<Way>& info) {
  const std::string loop = info.param.loop == Loop::kEpoll       ? "epoll"
                           : info.param.loop == Loop::kEpollEdge ? "edge"
                                                                 : "uring";
  return loop + (info.param.hints ? "" : "_without_hints");
}

// A worker with a loop of its own that watches its sight.
class SightWorker {
 public:
  using Serve = std::function<void(uint32_t, Connection)>;

  SightWorker(Balancer& balancer, std::vector<Source> sources, Way way, Serve serve,
              uint32_t capacity = UINT32_MAX)
      : way_(way), serve_(std::move(serve)), stop_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    thread_ = std::thread([this, &balancer, sources = std::move(sources), capacity]() mutable {
      if (way_.loop == Loop::kUring) {
        RunUring(balancer, sources, capacity);
      } else {
        RunEpoll(balancer, sources, capacity);
      }
    });
    ready_.Wait();
  }
  ~SightWorker() {
    Stop();
    close(stop_fd_);
  }
  SightWorker(const SightWorker&) = delete;
  SightWorker& operator=(const SightWorker&) = delete;

  void Stop() {
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    EXPECT_EQ(write(stop_fd_, &one, sizeof(one)), 8);
    thread_.join();
  }
  uint32_t index() const { return index_; }
  uint64_t claimed() const { return claimed_; }
  // How often its wait has ended.
  uint64_t wakes() const { return wakes_; }

 private:
  void Join(Port& port, std::vector<Source>& sources) {
    index_ = port.worker();
    for (Source& source : sources) ASSERT_TRUE(source.Join(port).ok());
    ready_.Open();
  }
  // Claims until nothing is left.
  void Claim(Port& port) {
    while (port.Claim([this](Connection connection) {
      ++claimed_;
      serve_(index_, std::move(connection));
    })) {
    }
  }
  void BeforeWait(Port& port) {
    if (way_.hints) port.BeforeWait();
  }
  void AfterWait(Port& port) {
    ++wakes_;
    if (way_.hints && port.AfterWait()) Claim(port);
  }

  void RunEpoll(Balancer& balancer, std::vector<Source>& sources, uint32_t capacity) {
    Mailbox mailbox = Mailbox::Create().value();
    Port port = balancer.AddWorker(mailbox, {.capacity = capacity}).value();
    const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (const int fd : {mailbox.fd(), stop_fd_}) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      if (way_.loop == Loop::kEpollEdge) event.events |= EPOLLET;
      EXPECT_EQ(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
    }
    Join(port, sources);
    for (bool stop = false; !stop;) {
      epoll_event events[2];
      BeforeWait(port);
      const int count = epoll_wait(epoll_fd, events, 2, -1);
      AfterWait(port);
      for (int i = 0; i < count; ++i) {
        if (events[i].data.fd == stop_fd_) {
          stop = true;
        } else {
          Claim(port);
        }
      }
    }
    port.Leave();
    close(epoll_fd);
  }

  void RunUring(Balancer& balancer, std::vector<Source>& sources, uint32_t capacity) {
    constexpr uint64_t kDoorbell = 1;
    constexpr uint64_t kSight = 2;
    constexpr uint64_t kStop = 3;
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(16, &ring, 0), 0);
    Port port =
        balancer.AddWorker({.ring_fd = ring.ring_fd, .tag = kDoorbell, .capacity = capacity})
            .value();
    const int sight = port.WatchSight().value();
    const auto watch = [&](int fd, uint64_t tag) {
      io_uring_sqe* const entry = io_uring_get_sqe(&ring);
      io_uring_prep_poll_multishot(entry, fd, POLLIN);
      io_uring_sqe_set_data64(entry, tag);
    };
    watch(sight, kSight);
    watch(stop_fd_, kStop);
    io_uring_submit(&ring);
    Join(port, sources);
    for (bool stop = false; !stop;) {
      BeforeWait(port);
      io_uring_submit_and_wait(&ring, 1);
      AfterWait(port);
      io_uring_cqe* completion;
      bool claim = false;
      while (io_uring_peek_cqe(&ring, &completion) == 0) {
        stop |= completion->user_data == kStop;
        claim |= completion->user_data != kStop;
        if (completion->user_data == kSight && (completion->flags & IORING_CQE_F_MORE) == 0) {
          watch(sight, kSight);
        }
        io_uring_cqe_seen(&ring, completion);
      }
      if (claim) Claim(port);
    }
    port.Leave();
    io_uring_queue_exit(&ring);
  }

  const Way way_;
  const Serve serve_;
  const int stop_fd_;
  Gate ready_;
  uint32_t index_ = UINT32_MAX;
  std::atomic<uint64_t> claimed_{0};
  std::atomic<uint64_t> wakes_{0};
  std::thread thread_;
};

class AimedTest : public BalancerTest, public ::testing::WithParamInterface<Way> {
 protected:
  void AddWorkers(std::vector<Source> sources, int count, SightWorker::Serve serve = ServeIndex,
                  uint32_t capacity = UINT32_MAX) {
    for (int i = 0; i < count; ++i) {
      workers_.push_back(
          std::make_unique<SightWorker>(*balancer_, sources, GetParam(), serve, capacity));
    }
  }
  void TearDown() override {
    workers_.clear();
    balancer_.reset();
  }
  // It outlives the balancer.
  const Listener& NewListener() {
    listeners_.push_back(Listener::Tcp());
    return listeners_.back();
  }
  bool Aimed(size_t source = 0) { return balancer_->Stats().sources[source].aimed; }
  uint64_t ByPermit() {
    const BalancerStats stats = balancer_->Stats();
    uint64_t by_permit = stats.departed.by_permit;
    for (const WorkerStats& worker : stats.workers) by_permit += worker.by_permit;
    return by_permit;
  }

  std::deque<Listener> listeners_;
  std::vector<std::unique_ptr<SightWorker>> workers_;
};

TEST_P(AimedTest, TurnsAreExactWithoutTheMaster) {
  const Listener& listener = NewListener();
  AddWorkers({AddSource(listener, {.policy = RoundRobin()})}, 4);
  std::vector<uint64_t> served(4);
  uint64_t all = 0;
  // A worker that a busy machine keeps from coming to its wait is passed over, and owed its turns.
  const auto even = [&] {
    const auto [least, most] = std::minmax_element(served.begin(), served.end());
    return *most - *least <= 1;
  };
  for (; all < 400 || (!even() && all < 100'000); ++all) {
    const int worker = AskWhoServes(listener);
    ASSERT_GE(worker, 0);
    ++served[static_cast<size_t>(worker)];
  }
  EXPECT_TRUE(even());
  const BalancerStats stats = balancer_->Stats();
  EXPECT_EQ(stats.accepted, all);
  ASSERT_EQ(stats.sources.size(), 1U);
  EXPECT_EQ(stats.sources[0].claimed, all);
  EXPECT_EQ(stats.sources[0].accepted, all);
  for (const WorkerStats& worker : stats.workers) {
    // What is dealt may be recalled where a busy machine keeps a worker from its claim.
    EXPECT_EQ(worker.assigned, worker.claimed + worker.recalled + worker.moved);
    EXPECT_EQ(worker.claimed, served[worker.worker]);
    EXPECT_LE(worker.by_permit, worker.claimed);
    // Without hints the master deals.
    if (GetParam().hints) {
      EXPECT_GT(worker.by_permit, worker.claimed / 2);
    } else {
      EXPECT_EQ(worker.by_permit, 0U);
    }
  }
}

// A claim that has found nothing is over, although the permit has come back to the same worker.
TEST_P(AimedTest, AClaimThatFindsNothingEnds) {
  const Listener& listener = NewListener();
  AddWorkers({AddSource(listener)}, 1);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(AskWhoServes(listener), 0);
  Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  const Listener& other = NewListener();
  Source source = AddSource(other);
  ASSERT_TRUE(source.Join(port).ok());
  // One may find that the master has just issued the permit.
  int more = 0;
  for (int i = 0; i < 100; ++i) more += port.Claim([](Connection) { FAIL(); }) ? 1 : 0;
  EXPECT_LT(more, 10);
  const int client = other.Connect();
  pollfd entry{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&entry, 1, 10'000), 1);
  port.Claim([](Connection connection) { ServeIndex(7, std::move(connection)); });
  ExpectAnswers({client});
}

TEST_P(AimedTest, AFloodIsServed) {
  const Listener& listener = NewListener();
  AddWorkers({AddSource(listener)}, 4);
  Clients clients({&listener}, 8);
  EXPECT_TRUE(clients.Go(3'000));
  clients.Stop();
  EXPECT_EQ(clients.failed(), 0U);
  const BalancerStats stats = balancer_->Stats();
  EXPECT_EQ(stats.accepted, clients.served());
  uint64_t claimed = 0;
  for (const WorkerStats& worker : stats.workers) claimed += worker.claimed;
  EXPECT_EQ(claimed, clients.served());
  // A client sees the end of its connection before the lease is released.
  for (const WorkerStats& worker : stats.workers) {
    EXPECT_TRUE(Eventually([&] { return balancer_->Stats().workers[worker.worker].open == 0; }));
  }
}

TEST_P(AimedTest, WhatWaitsForAWorkerThatDoesNotMoveIsServedByOthers) {
  const Listener& listener = NewListener();
  Gate freed;
  std::atomic<int> frozen{0};
  AddWorkers({AddSource(listener, {.policy = RoundRobin()})}, 3,
             [&](uint32_t worker, Connection connection) {
               ServeIndex(worker, std::move(connection));
               if (worker == 0 && frozen.exchange(1) == 0) freed.Wait();
             });
  for (int i = 0; i < 60; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  freed.Open();
  for (int i = 0; i < 60; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  workers_.clear();  // before what they refer to
}

TEST_P(AimedTest, CapacitiesAreExact) {
  const Listener& listener = NewListener();
  Kept kept;
  const Source source = AddSource(listener, {.capacity = 5});
  AddWorkers({source}, 3, kept.serve(), /*capacity=*/2);
  std::vector<int> clients;
  for (int i = 0; i < 12; ++i) clients.push_back(listener.Connect());
  int served = 0;
  while (served < 12) {
    ASSERT_TRUE(Eventually([&] { return kept.size() > 0; }));
    std::vector<Connection> now = kept.TakeAll();
    served += static_cast<int>(now.size());
  }
  EXPECT_LE(kept.most(), 5U);
  ExpectEnds(clients);
  workers_.clear();
}

TEST_P(AimedTest, PausesPoliciesAndRemovalsLoseNothing) {
  const Listener& listener = NewListener();
  Source source = AddSource(listener);
  AddWorkers({source}, 3);
  Clients clients({&listener}, 4);
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(clients.Go(20));
    EXPECT_TRUE(source.SetPolicy(i % 2 == 0 ? RoundRobin() : LeastLoaded()).ok());
    EXPECT_TRUE(source.Pause().ok());
    EXPECT_TRUE(source.Resume().ok());
    if (i % 3 == 0) {
      EXPECT_TRUE(clients.Go(20));
      EXPECT_TRUE(source.SetPolicy(AffinityHash()).ok());
    }
    if (i == 5) {
      workers_.pop_back();
      AddWorkers({source}, 1);
    }
  }
  EXPECT_TRUE(clients.Go(20));
  clients.Stop();
  EXPECT_EQ(clients.failed(), 0U);
  EXPECT_TRUE(source.Remove().ok());
  EXPECT_EQ(balancer_->Stats().accepted, clients.served());
}

// A worker may have permits of several sources. While it serves a connection of one, what comes at
// the others goes to whoever waits, long before the master looks.
TEST_P(AimedTest, ABusyWorkerKeepsNoPermitOfAnotherSource) {
  if (!GetParam().hints) GTEST_SKIP() << "only who says when it waits gets permits";
  Create({.recall_after = absl::Minutes(1)});
  const Listener& first = NewListener();
  const Listener& second = NewListener();
  std::deque<Gate> freed(8);
  std::atomic<Gate*> held = nullptr;
  AddWorkers({AddSource(first), AddSource(second)}, 2, [&](uint32_t worker, Connection connection) {
    Gate* const gate = held.exchange(nullptr);
    ServeIndex(worker, std::move(connection));
    if (gate != nullptr) gate->Wait();
  });
  const absl::Time begun = absl::Now();
  for (Gate& gate : freed) {
    held = &gate;
    const int busy = AskWhoServes(first);
    EXPECT_GE(busy, 0);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(AskWhoServes(second), 1 - busy);
    gate.Open();
    EXPECT_GE(AskWhoServes(second), 0);
  }
  EXPECT_LT(absl::Now() - begun, absl::Seconds(30)) << "the master had to look";
  workers_.clear();  // before what they refer to
}

// Both have permits of the first source, too, which they come to first and find nothing by.
TEST_P(AimedTest, WhatComesIsNotHandedToAndFro) {
  Create({.recall_after = absl::Minutes(1)});
  const Source first = AddSource(NewListener());
  const Listener& second = NewListener();
  AddWorkers({first, AddSource(second)}, 2);
  for (int i = 0; i < 200; ++i) ASSERT_GE(AskWhoServes(second), 0);
  uint64_t wakes = 0;
  for (const auto& worker : workers_) wakes += worker->wakes();
  EXPECT_LT(wakes, 5 * 200U);
}

TEST_P(AimedTest, TwoSourcesShareTheirWorkers) {
  const Listener& first = NewListener();
  const Listener& second = NewListener();
  AddWorkers({AddSource(first), AddSource(second)}, 2);
  Clients clients({&first, &second}, 4);
  EXPECT_TRUE(clients.Go(1'000));
  clients.Stop();
  EXPECT_EQ(clients.failed(), 0U);
}

TEST_P(AimedTest, AQuietSourceIsServedAgain) {
  const Listener& listener = NewListener();
  AddWorkers({AddSource(listener)}, 2);
  EXPECT_GE(AskWhoServes(listener), 0);
  if (GetParam().hints) {
    // Its poll is armed when it is quiet, and then the master sleeps (AimerTest).
    ASSERT_TRUE(Eventually([&] { return Aimed(); }));
    const uint64_t rearms = balancer_->Stats().sources[0].rearms;
    ASSERT_TRUE(Eventually([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return balancer_->Stats().sources[0].rearms > rearms;
    }));
    EXPECT_TRUE(Aimed());
  }
  for (int i = 0; i < 20; ++i) EXPECT_GE(AskWhoServes(listener), 0);
}

TEST_P(AimedTest, AShutdownServesWhatItHasAccepted) {
  const Listener& listener = NewListener();
  Kept kept;
  AddWorkers({AddSource(listener)}, 2, kept.serve());
  std::vector<int> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return kept.size() == 6; }));
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    kept.TakeAll();
  });
  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
  later.join();
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.stats.accepted, 6U);
  ExpectEnds(clients);
  workers_.clear();
}

TEST_P(AimedTest, SeveralSourcesKeepTheirLimitsAndTheBalancers) {
  workers_.clear();
  balancer_.reset();
  Create({.capacity = 5});
  Kept kept;
  std::vector<Source> sources;
  std::vector<const Listener*> listeners;
  for (int i = 0; i < 3; ++i) {
    listeners.push_back(&NewListener());
    sources.push_back(AddSource(*listeners.back(), {.capacity = 2}));
  }
  AddWorkers(sources, 2, kept.serve());
  std::vector<int> clients;
  for (int i = 0; i < 5; ++i) {
    for (const Listener* const listener : listeners) clients.push_back(listener->Connect());
  }
  size_t served = 0;
  while (served < clients.size()) {
    ASSERT_TRUE(Eventually([&] { return kept.size() > 0; }));
    served += kept.TakeAll().size();
  }
  EXPECT_LE(kept.most(), 5U);
  ExpectEnds(clients);
  workers_.clear();
}

// Who gets connections as completions has no sight, so the master deals while it has joined.
TEST_P(AimedTest, CompletionsAreHandedOverBesidePermits) {
  const Listener& listener = NewListener();
  const Source source = AddSource(listener, {.policy = RoundRobin()});
  AddWorkers({source}, 1);
  for (int round = 0; round < 3; ++round) {
    if (GetParam().hints) {
      ASSERT_TRUE(Eventually([&] { return Aimed(); }));
    }
    EXPECT_EQ(AskWhoServes(listener), static_cast<int>(workers_[0]->index()));
    const auto handed = AddWorker({source}, ServeIndex, {.handoff = Handoff::kCompletion});
    EXPECT_FALSE(Aimed());
    std::set<int> served;
    for (int i = 0; i < 4; ++i) served.insert(AskWhoServes(listener));
    EXPECT_EQ(served.size(), 2U);
  }
  if (GetParam().hints) {
    EXPECT_GE(ByPermit(), 3U);
  }
}

TEST_P(AimedTest, AUnixListenerIsDealt) {
  listeners_.push_back(Listener::Unix());
  AddWorkers({AddSource(listeners_.back())}, 2);
  for (int i = 0; i < 50; ++i) EXPECT_GE(AskWhoServes(listeners_.back()), 0);
  EXPECT_FALSE(Aimed());
  EXPECT_EQ(ByPermit(), 0U);
}

// Its number is another listener's at once. Nobody accepts from that, and the source is given up.
TEST_P(AimedTest, AListenerThatIsClosedUnderItsSourceIsGivenUp) {
  const Listener& listener = NewListener();
  Source source = AddSource(listener);
  AddWorkers({source}, 2);
  for (int i = 0; i < 10; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  if (GetParam().hints) {
    ASSERT_TRUE(Eventually([&] { return Aimed(); }));
  }
  const sockaddr_in address = AddressOf(listener);
  const int kept = dup(listener.fd());
  const Listener& other = NewListener();
  ASSERT_EQ(dup2(other.fd(), listener.fd()), listener.fd());
  std::vector<int> strangers;
  for (int i = 0; i < 4; ++i) strangers.push_back(other.Connect());
  // Whoever comes to the old one wakes the workers, which accept.
  const int client = ConnectTo(address);
  EXPECT_GE(client, 0);
  ASSERT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kSourceFailed); }));
  EXPECT_FALSE(Aimed());
  EXPECT_TRUE(source.Remove().ok());
  for (const int stranger : strangers) {
    const int accepted = accept4(other.fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    EXPECT_GE(accepted, 0) << "another has accepted it";
    close(accepted);
    close(stranger);
  }
  ASSERT_EQ(dup2(kept, listener.fd()), listener.fd());
  close(kept);
  close(client);
}

// The balancer keeps nothing that would keep a listener open.
TEST_P(AimedTest, WhoIsClosedWhenItsSourceIsRemovedRefusesClients) {
  auto listener = std::make_unique<Listener>(Listener::Tcp());
  Source source = AddSource(*listener);
  AddWorkers({source}, 2);
  EXPECT_GE(AskWhoServes(*listener), 0);
  const sockaddr_in address = AddressOf(*listener);
  ASSERT_TRUE(source.Remove().ok());
  listener.reset();
  EXPECT_TRUE(IsRefused(address));
}

TEST_P(AimedTest, WhoIsClosedWhenTheIntakeHasEndedRefusesClients) {
  auto listener = std::make_unique<Listener>(Listener::Tcp());
  AddWorkers({AddSource(*listener)}, 2);
  EXPECT_GE(AskWhoServes(*listener), 0);
  const sockaddr_in address = AddressOf(*listener);
  bool refused = false;
  balancer_->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] {
                         listener.reset();
                         refused = IsRefused(address);
                       }});
  EXPECT_TRUE(refused);
}

// On whatever thread it is asked.
TEST_P(AimedTest, APolicyIsRefusedWhatItAsksOfItsBalancer) {
  class Asking final : public Policy {
   public:
    Asking(Balancer* balancer, std::atomic<int>& refused)
        : balancer_(balancer), refused_(refused) {}
    std::string name() const override { return "asking"; }
    bool AnyThread() const override { return true; }
    size_t Pick(const Arrival&, const View&) override {
      if (balancer_->Stats().status.code() == absl::StatusCode::kFailedPrecondition) ++refused_;
      ++picks_;
      return 0;
    }
    ~Asking() override { EXPECT_EQ(picks_, refused_); }

   private:
    Balancer* const balancer_;
    std::atomic<int>& refused_;
    int picks_ = 0;
  };
  std::atomic<int> refused{0};
  const Listener& listener = NewListener();
  AddWorkers({AddSource(listener, {.policy = std::make_unique<Asking>(balancer_.get(), refused)})},
             2);
  for (int i = 0; i < 50; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  EXPECT_GE(refused, 50);
  workers_.clear();
  balancer_.reset();
}

// Of what this test alone claims.
class ClaimingTest : public BalancerTest {};

// One connection at a time, while another source always has one for the worker. Nothing is recalled
// meanwhile.
TEST_F(ClaimingTest, OffersAreClaimedBesidePermits) {
  balancer_.reset();
  Create({.recall_after = absl::Seconds(60)});
  const Listener aimed = Listener::Tcp();
  const Listener dealt = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  port.BeforeWait();
  Source first = AddSource(aimed);
  Source second = AddSource(dealt, {.permits = false});
  ASSERT_TRUE(first.Join(port, {.token = 1}).ok());
  ASSERT_TRUE(second.Join(port, {.token = 2}).ok());
  std::vector<uint64_t> from;
  const auto claim_one = [&] {
    return port.Claim([&](Connection connection) { from.push_back(connection.token()); }, 1);
  };
  std::vector<int> clients;
  for (int i = 0; i < 2; ++i) clients.push_back(dealt.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == 2; }));
  EXPECT_TRUE(claim_one());  // from now on the worker counts as one that moves
  port.BeforeWait();
  balancer_->Stats();  // the master has found out that the claim has closed the desk
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().sources[0].aimed; }));
  for (int i = 0; i < 3; ++i) clients.push_back(aimed.Connect());
  for (int i = 0; i < 2; ++i) claim_one();
  EXPECT_EQ(std::count(from.begin(), from.end(), 2), 2);
  EXPECT_TRUE(Eventually([&] {
    claim_one();
    return from.size() == 5;
  }));
  ExpectEnds(clients);
}

// Its lease ends on another thread while the worker waits. Nothing else happens that would bring
// anybody to the desk, and nothing is recalled.
TEST_F(ClaimingTest, AWaiterThatGetsAPlaceGetsThePermitOfABusyWorker) {
  balancer_.reset();
  Create({.recall_after = absl::Seconds(60)});
  const Listener listener = Listener::Tcp();
  const Mailbox mailboxes[] = {Mailbox::Create().value(), Mailbox::Create().value()};
  Port waiter = balancer_->AddWorker(mailboxes[0], {.capacity = 1}).value();
  Port busy = balancer_->AddWorker(mailboxes[1]).value();
  waiter.BeforeWait();
  busy.BeforeWait();
  busy.AfterWait();
  Source source = AddSource(listener);
  ASSERT_TRUE(source.Join(waiter).ok());
  ASSERT_TRUE(source.Join(busy).ok());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().sources[0].aimed; }));
  const auto shown_to = [&](int worker, int timeout_ms) {
    pollfd sight{.fd = mailboxes[worker].fd(), .events = POLLIN, .revents = 0};
    return poll(&sight, 1, timeout_ms) == 1;
  };
  std::vector<int> clients{listener.Connect()};
  ASSERT_TRUE(shown_to(0, 10'000));
  Connection held;
  waiter.Claim([&](Connection connection) { held = std::move(connection); });
  ASSERT_GE(held.fd(), 0);
  waiter.BeforeWait();
  clients.push_back(listener.Connect());
  ASSERT_TRUE(shown_to(1, 10'000));
  EXPECT_FALSE(shown_to(0, 0));
  ASSERT_TRUE(balancer_->Stats().sources[0].aimed);
  std::thread([&] { Connection ended = std::move(held); }).join();
  ASSERT_TRUE(shown_to(0, 0));
  int claimed = 0;
  waiter.Claim([&](Connection) { ++claimed; });
  EXPECT_EQ(claimed, 1);
  ExpectEnds(clients);
}

TEST_F(ClaimingTest, WhoGetsCompletionsHasNoSight) {
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port =
      balancer_->AddWorker({.ring_fd = ring.ring_fd, .handoff = Handoff::kCompletion}).value();
  EXPECT_EQ(port.WatchSight().status().code(), absl::StatusCode::kFailedPrecondition);
  port.Leave();
  io_uring_queue_exit(&ring);
}

// The second time nothing changes, also while a source is aimed.
TEST_F(ClaimingTest, ASightIsWatchedOnce) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  port.BeforeWait();
  Source source = AddSource(listener);
  ASSERT_TRUE(source.Join(port).ok());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().sources[0].aimed; }));
  EXPECT_EQ(port.WatchSight().value(), mailbox.fd());
  EXPECT_TRUE(balancer_->Stats().sources[0].aimed);
  const int client = listener.Connect();
  pollfd entry{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&entry, 1, 10'000), 1);
  port.Claim([](Connection connection) { ServeIndex(7, std::move(connection)); });
  ExpectAnswers({client});
}

// With a host the master is awake when its worker is.
TEST(AimedHostTest, AHostDeals) {
  if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  const Listener listener = Listener::Tcp();
  auto balancer = Balancer::Create({.host = Host::kLoop}).value();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer->AddWorker(mailbox).value();
  port.BeforeWait();
  Source source = balancer->AddSource(listener.fd()).value();
  std::thread joins([&] { EXPECT_TRUE(source.Join(port).ok()); });
  std::atomic<int> served{0};
  const int client = listener.Connect();
  const bool done = Eventually([&] {
    EXPECT_TRUE(balancer->RunOnce().ok());
    port.Claim([&](Connection connection) {
      ++served;
      ServeIndex(7, std::move(connection));
    });
    return served == 1;
  });
  EXPECT_TRUE(done);
  joins.join();
  ExpectAnswers({client});
  std::thread stats([&] {
    const BalancerStats now = balancer->Stats();
    EXPECT_FALSE(now.sources[0].aimed);
    EXPECT_EQ(now.workers[0].by_permit, 0U);
    served = 2;
  });
  while (served < 2) EXPECT_TRUE(balancer->RunOnce().ok());
  stats.join();
}

INSTANTIATE_TEST_SUITE_P(Ways, AimedTest,
                         ::testing::Values(Way{Loop::kEpoll}, Way{Loop::kEpoll, false},
                                           Way{Loop::kEpollEdge}, Way{Loop::kUring},
                                           Way{Loop::kUring, false}),
                         NameOf);

}  // namespace
}  // namespace ringmaster
