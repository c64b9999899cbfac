// A balancer that rides on the io_uring of a loop of the program's own (Host::kRing). Method: the
// loop waits for its ring and nothing else, so whatever the master waits for must come through it.

#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "balancer_fixture.h"
#include "errands.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr uint64_t kMask = uint64_t{0xff} << 56;
constexpr uint64_t kMaster = uint64_t{0x5a} << 56;
constexpr uint64_t kErrand = 1;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

RingLoan Lend(io_uring& ring) {
  return {.ring_fd = ring.ring_fd,
          .get_sqe = [&ring] { return io_uring_get_sqe(&ring); },
          .submit = [&ring] { return io_uring_submit(&ring); },
          .user_data_mask = kMask,
          .user_data_value = kMaster};
}

// A loop on its own thread, which creates the balancer on its ring, drives it and, if told to, has
// a worker of its own.
class RidingHost {
 public:
  struct Options {
    unsigned ring_flags = 0;
    unsigned entries = 64;
    bool serves = false;
    bool dawdles = false;  // between handing over completions and driving the master
  };
  // `set_up` runs on the host's thread once the balancer is there.
  RidingHost(Options options, BalancerOptions balancer_options,
             std::function<void(Balancer&, Port&)> set_up)
      : options_(options) {
    thread_ =
        std::thread([this, options = std::move(balancer_options),
                     set_up = std::move(set_up)]() mutable { Run(std::move(options), set_up); });
    EXPECT_TRUE(Eventually([this] { return ready_.load(); }));
  }
  ~RidingHost() { Stop(); }

  Balancer& balancer() { return *balancer_; }
  uint64_t served() const { return served_; }
  // Runs on the host's thread, between two turns of its loop.
  void Do(std::function<void()> job) { errands_.Do(std::move(job)); }
  void Stop() {
    if (!thread_.joinable()) return;
    errands_.Stop();
    thread_.join();
  }

 private:
  void Run(BalancerOptions options, const std::function<void(Balancer&, Port&)>& set_up) {
    io_uring_params params{};
    params.flags = options_.ring_flags;
    ASSERT_EQ(io_uring_queue_init_params(options_.entries, &ring_, &params), 0);
    options.host = Host::kRing;
    balancer_ = Balancer::Create(std::move(options)).value();
    Port port;
    if (options_.serves) port = balancer_->AddWorker({.on_host = true}).value();
    set_up(*balancer_, port);
    WatchErrands();
    EXPECT_TRUE(balancer_->Lend(Lend(ring_)).ok());
    EXPECT_TRUE(balancer_->RunOnce().ok());
    ready_ = true;
    while (!errands_.stopped()) Turn(port);
    port.Leave();
    balancer_.reset();
    io_uring_queue_exit(&ring_);
  }

  void Turn(Port& port) {
    io_uring_submit_and_wait(&ring_, 1);
    io_uring_cqe* cqe;
    unsigned head;
    unsigned seen = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++seen;
      const bool masters = balancer_->OnCompletion(*cqe);
      EXPECT_EQ(masters, cqe->user_data != kErrand);
      errand_ |= !masters;
    }
    io_uring_cq_advance(&ring_, seen);
    if (options_.dawdles) std::this_thread::sleep_for(std::chrono::milliseconds(3));
    balancer_->RunOnce().IgnoreError();
    port.Claim([&](Connection connection) {
      ++served_;
      ServeIndex(port.worker(), std::move(connection));
    });
    if (!std::exchange(errand_, false)) return;
    WatchErrands();
    errands_.OnReadable();
  }

  void WatchErrands() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    io_uring_prep_poll_add(sqe, errands_.fd(), POLLIN);
    io_uring_sqe_set_data64(sqe, kErrand);
  }

  const Options options_;
  Errands errands_;
  io_uring ring_{};
  std::unique_ptr<Balancer> balancer_;
  std::atomic<bool> ready_{false};
  bool errand_ = false;  // `errands_` was readable
  std::atomic<uint64_t> served_{0};
  std::thread thread_;
};

class RidingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  }

  // A worker with a ring of its own.
  static std::unique_ptr<Worker> AddWorker(RidingHost& host, Source source,
                                           WorkerOptions options = {},
                                           Worker::Serve serve = ServeIndex) {
    return std::make_unique<Worker>(
        [&host, source, options](int ring_fd, uint64_t tag) mutable -> absl::StatusOr<Port> {
          options.ring_fd = ring_fd;
          options.tag = tag;
          absl::StatusOr<Port> port = host.balancer().AddWorker(options);
          if (!port.ok()) return port;
          const uint64_t token = options.handoff == Handoff::kCompletion ? Worker::kTokens : 0;
          const absl::Status joined = source.Join(*port, {.token = token});
          if (!joined.ok()) return joined;
          return port;
        },
        std::move(serve));
  }
};

class EveryKindOfRing : public RidingTest, public ::testing::WithParamInterface<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Rings, EveryKindOfRing,
                         ::testing::Values(0u, IORING_SETUP_COOP_TASKRUN,
                                           IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN),
                         [](const auto& flags) {
                           return flags.param == 0                           ? "Plain"
                                  : flags.param == IORING_SETUP_COOP_TASKRUN ? "Cooperative"
                                                                             : "Deferring";
                         });

TEST_P(EveryKindOfRing, ServesBesideOtherWorkers) {
  const Listener listener = Listener::Tcp();
  Source source;
  RidingHost host({.ring_flags = GetParam(), .serves = true}, {},
                  [&](Balancer& balancer, Port& port) {
                    source = balancer.AddSource(listener.fd(), {.policy = RoundRobin()}).value();
                    ASSERT_TRUE(source.Join(port).ok());
                  });
  {
    const auto one = AddWorker(host, source);
    const auto two = AddWorker(host, source);
    const uint64_t served =
        AskUntil(listener, 1500, [&] { return one->claimed() > 0 && two->claimed() > 0; });
    EXPECT_EQ(host.served() + one->claimed() + two->claimed(), served);
  }
  for (int i = 0; i < 100; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
}

TEST_P(EveryKindOfRing, WhatAWorkerPassesOnIsServedByOthers) {
  const Listener listener = Listener::Tcp();
  Source source;
  RidingHost host({.ring_flags = GetParam(), .serves = true}, {},
                  [&](Balancer& balancer, Port& port) {
                    source = balancer.AddSource(listener.fd(), {.policy = RoundRobin()}).value();
                    ASSERT_TRUE(source.Join(port).ok());
                  });
  std::atomic<int> refused{0};
  const auto giver = AddWorker(host, source, {}, [&](uint32_t, Connection connection) {
    refused += !source.PassOn(std::move(connection)).ok();
  });
  const auto other = AddWorker(host, source);
  const uint64_t served = AskUntil(listener, 300, [&] { return giver->claimed() > 0; });
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(host.served() + other->claimed(), served);
}

TEST_P(EveryKindOfRing, EveryIntakeAndHandoffWorks) {
  for (const Intake intake : {Intake::kPollAccept, Intake::kAccept, Intake::kReadiness}) {
    for (const Handoff handoff : {Handoff::kInbox, Handoff::kCompletion}) {
      if (intake == Intake::kReadiness && handoff == Handoff::kCompletion) continue;
      const Listener listener = Listener::Unix();
      Source source;
      RidingHost host({.ring_flags = GetParam()}, {}, [&](Balancer& balancer, Port&) {
        source = balancer.AddSource(listener.fd(), {.intake = intake}).value();
      });
      const auto worker = AddWorker(host, source, {.handoff = handoff, .window = 2});
      for (int i = 0; i < 200; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
    }
  }
}

// Nobody but the clock wakes the loop.
TEST_P(EveryKindOfRing, DeadlinesWakeTheLoop) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Source source;
  Port stuck;
  RidingHost host({.ring_flags = GetParam()}, {}, [&](Balancer& balancer, Port&) {
    source = balancer.AddSource(listener.fd(), {.policy = RoundRobin()}).value();
    stuck = balancer.AddWorker(mailbox).value();
    ASSERT_TRUE(source.Join(stuck).ok());
  });
  const auto worker = AddWorker(host, source);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(AskWhoServes(listener), static_cast<int>(worker->index()));
  }
  EXPECT_GT(host.balancer().Stats().recalled, 0u);
  stuck.Leave();
}

// The queue has room for a single entry: what does not fit waits for the next turn, or is submitted
// in between.
TEST_F(RidingTest, ASubmissionQueueThatIsFullLosesNothing) {
  const Listener listener = Listener::Tcp();
  Source source;
  RidingHost host({.entries = 1}, {}, [&](Balancer& balancer, Port&) {
    source = balancer.AddSource(listener.fd(), {.policy = RoundRobin()}).value();
  });
  const auto one = AddWorker(host, source);
  const auto two = AddWorker(host, source, {.handoff = Handoff::kCompletion});
  std::vector<std::thread> clients;
  std::atomic<int> lost{0};
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      for (int n = 0; n < 200; ++n) lost += AskWhoServes(listener) < 0;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(lost, 0);
}

// What comes while the host waits is served without a wake-up of anybody else, and without a turn
// of a ring beside its own.
TEST_F(RidingTest, UnderExclusiveTheHostServesWhatComesWhileItIsIdle) {
  const Listener listener = Listener::Tcp();
  Source source;
  RidingHost host({.serves = true}, {}, [&](Balancer& balancer, Port& port) {
    source =
        balancer.AddSource(listener.fd(), {.policy = Exclusive(WakeOrder::kLifo), .recall = false})
            .value();
    ASSERT_TRUE(source.Join(port).ok());
  });
  const auto worker = AddWorker(host, source);
  for (int i = 0; i < 500; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
  EXPECT_EQ(host.served(), 500u);
}

TEST_F(RidingTest, CallsOnTheThreadOfTheHostDoNotWaitForItsLoop) {
  const Listener listener = Listener::Tcp();
  Source source;
  RidingHost host({.serves = true}, {}, [&](Balancer& balancer, Port& port) {
    source = balancer.AddSource(listener.fd()).value();
    ASSERT_TRUE(source.Join(port).ok());
  });
  for (int i = 0; i < 10; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
  host.Do([&] {
    ASSERT_TRUE(source.Remove().ok());
    source = host.balancer().AddSource(listener.fd()).value();  // the same socket, at once
    EXPECT_EQ(host.balancer().Stats().sources.size(), 1u);
  });
  const auto worker = AddWorker(host, source);
  for (int i = 0; i < 10; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
}

// --- Whatever the order, and whoever drives ------------------------------------------------------

// One turn of a loop as the header prints it; false when nothing came for ten seconds.
bool TurnOnce(io_uring& ring, Balancer& balancer) {
  __kernel_timespec patience{.tv_sec = 10, .tv_nsec = 0};
  io_uring_cqe* cqe;
  if (io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &patience, nullptr) < 0) return false;
  unsigned head;
  unsigned seen = 0;
  io_uring_for_each_cqe(&ring, head, cqe) {
    EXPECT_TRUE(balancer.OnCompletion(*cqe));
    ++seen;
  }
  io_uring_cq_advance(&ring, seen);
  EXPECT_TRUE(balancer.RunOnce().ok());
  return true;
}

// The loop waits before it calls RunOnce. It lends its ring before any step of set-up or after it,
// and begins to wait at any moment after that. Other threads do the rest.
TEST_F(RidingTest, ALoopThatWaitsFirstIsWokenWhateverTheOrderOfSetUp) {
  for (const bool worker_first : {false, true}) {
    for (int lends_after = 0; lends_after <= 3; ++lends_after) {
      for (int begins_after = lends_after; begins_after <= 3; ++begins_after) {
        for (const bool client_first : {false, true}) {
          io_uring ring;
          ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
          std::unique_ptr<Balancer> balancer = Balancer::Create({.host = Host::kRing}).value();
          const Listener listener = Listener::Tcp();
          const Mailbox mailbox = Mailbox::Create().value();
          int client = client_first ? listener.Connect() : -1;
          Source source;
          Port port;
          std::atomic<bool> stop{false};
          std::thread loop;
          for (int step = 0; step <= 3; ++step) {
            if (step == lends_after) {
              ASSERT_TRUE(balancer->Lend(Lend(ring)).ok());
            }
            if (step == begins_after) {
              loop = std::thread([&] {
                while (!stop) ASSERT_TRUE(TurnOnce(ring, *balancer));
              });
            }
            if (step == 2) {
              ASSERT_TRUE(source.Join(port).ok());
            } else if (step < 2 && (step == 0) == worker_first) {
              port = balancer->AddWorker(mailbox).value();
            } else if (step < 2) {
              source = balancer->AddSource(listener.fd()).value();
            }
          }
          if (client < 0) client = listener.Connect();
          pollfd doorbell{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
          EXPECT_EQ(poll(&doorbell, 1, 10'000), 1) << worker_first << lends_after << begins_after;
          port.Claim([](Connection) {});
          stop = true;
          balancer->Stats();  // wakes it
          loop.join();
          balancer.reset();
          io_uring_queue_exit(&ring);
          close(client);
        }
      }
    }
  }
}

TEST_F(RidingTest, AnotherLoopGoesOnWhenTheThreadOfTheHostHasEnded) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  std::atomic<int> gone{0};
  BalancerOptions options{.host = Host::kRing};
  options.on_event = [&](const Event& event) {
    if (event.kind != Event::Kind::kHostGone) return;
    EXPECT_TRUE(absl::StrContains(event.text, "Lend")) << event.text;
    ++gone;
  };
  std::unique_ptr<Balancer> balancer = Balancer::Create(std::move(options)).value();
  Source source = balancer->AddSource(listener.fd(), {.intake = Intake::kAccept}).value();
  Port port = balancer->AddWorker(mailbox, {.window = 2}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  io_uring first;
  std::thread([&] {
    ASSERT_EQ(io_uring_queue_init(64, &first, 0), 0);
    ASSERT_TRUE(balancer->Lend(Lend(first)).ok());
    for (int turns = 0; turns < 2; ++turns) ASSERT_TRUE(TurnOnce(first, *balancer));
    for (int i = 0; i < 10; ++i) clients.push_back(listener.Connect());
    while (balancer->Stats().accepted < 5) ASSERT_TRUE(TurnOnce(first, *balancer));
  }).join();
  EXPECT_EQ(gone, 1);
  EXPECT_GE(balancer->Stats().accepted, 5u);
  const absl::Status without = balancer->RunOnce();
  EXPECT_EQ(without.code(), kPrecondition);
  EXPECT_TRUE(absl::StrContains(without.message(), "has ended")) << without;
  // What the first ring still says is the master's, and no connection of it stays open.
  unsigned head;
  unsigned seen = 0;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(&first, head, cqe) {
    EXPECT_TRUE(balancer->OnCompletion(*cqe));
    ++seen;
  }
  io_uring_cq_advance(&first, seen);
  io_uring_queue_exit(&first);
  // A ring that another thread has created for itself, then the loop's own.
  io_uring foreign;
  std::thread([&] {
    const unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    ASSERT_EQ(io_uring_queue_init(8, &foreign, flags), 0);
  }).join();
  io_uring second;
  ASSERT_EQ(io_uring_queue_init(64, &second, 0), 0);
  RingLoan loan = Lend(second);
  const absl::Status alike = balancer->Lend(loan);
  EXPECT_EQ(alike.code(), kInvalid);
  EXPECT_TRUE(absl::StrContains(alike.message(), "user_data_value")) << alike;
  loan.user_data_value = kMaster ^ (uint64_t{1} << 56);
  RingLoan of_other = Lend(foreign);
  of_other.user_data_value = loan.user_data_value;
  ASSERT_TRUE(balancer->Lend(of_other).ok());
  const absl::Status refused = balancer->RunOnce();
  EXPECT_EQ(refused.code(), kPrecondition);
  EXPECT_TRUE(absl::StrContains(refused.message(), "belongs to the thread")) << refused;
  ASSERT_TRUE(balancer->Lend(loan).ok());
  uint64_t served = 0;
  clients.push_back(listener.Connect());
  while (balancer->Stats().accepted < 6 || served < balancer->Stats().accepted) {
    ASSERT_TRUE(TurnOnce(second, *balancer));
    port.Claim([&](Connection) { ++served; });
  }
  // Nobody waits for ever: served, or let go with the first ring.
  for (const int client : clients) {
    pollfd end{.fd = client, .events = POLLIN, .revents = 0};
    while (poll(&end, 1, 0) == 0) {
      ASSERT_TRUE(TurnOnce(second, *balancer));
      port.Claim([](Connection) {});
    }
    close(client);
  }
  balancer.reset();
  io_uring_queue_exit(&second);
  io_uring_queue_exit(&foreign);
}

// Of those whom the kernel wakes for the listener, a multishot accept that stays armed in the ring
// of a host that has ended is first. Nobody would read what it brings. So one client that comes
// when the next host accepts must be served, whatever came before and comes after.
TEST_P(EveryKindOfRing, NothingStaysArmedInTheRingOfAHostThatHasEnded) {
  const Listener tcp = Listener::Tcp();
  const Listener local = Listener::Unix();
  const Mailbox mailbox = Mailbox::Create().value();
  std::unique_ptr<Balancer> balancer = Balancer::Create({.host = Host::kRing}).value();
  Port port = balancer->AddWorker(mailbox).value();
  for (const int fd : {tcp.fd(), local.fd()}) {
    Source source = balancer->AddSource(fd, {.intake = Intake::kAccept}).value();
    ASSERT_TRUE(source.Join(port).ok());
  }
  // They stay open until the end.
  std::vector<io_uring> rings(3);
  uint64_t accepted = 0;
  for (size_t i = 0; i < rings.size(); ++i) {
    std::thread([&] {
      io_uring_params params{};
      params.flags = GetParam();
      ASSERT_EQ(io_uring_queue_init_params(64, &rings[i], &params), 0);
      RingLoan loan = Lend(rings[i]);
      loan.user_data_value = uint64_t{i + 1} << 56;
      ASSERT_TRUE(balancer->Lend(std::move(loan)).ok());
      ASSERT_TRUE(TurnOnce(rings[i], *balancer));
      io_uring_submit(&rings[i]);  // what it has armed
      for (const Listener* const listener : {&tcp, &local}) {
        const int client = listener->Connect();
        ++accepted;
        while (balancer->Stats().accepted < accepted) ASSERT_TRUE(TurnOnce(rings[i], *balancer));
        port.Claim([](Connection) {});
        close(client);
      }
    }).join();
    if (HasFailure()) break;
  }
  // Nothing has come to a ring of which nobody knows, and what was armed there has been said to
  // have ended.
  balancer.reset();
  for (io_uring& ring : rings) io_uring_queue_exit(&ring);
}

// Doorbells and connections that the queue of the ring had no room for are not lost with it.
TEST_F(RidingTest, WhatWasNotHandedOverBeforeTheHostEndedIsDealtAgain) {
  const Listener listener = Listener::Tcp();
  io_uring receiver;
  ASSERT_EQ(io_uring_queue_init(64, &receiver, 0), 0);
  std::unique_ptr<Balancer> balancer = Balancer::Create({.host = Host::kRing}).value();
  Source source = balancer->AddSource(listener.fd(), {.policy = RoundRobin()}).value();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer->AddWorker(mailbox).value();
  Port other =
      balancer->AddWorker({.ring_fd = receiver.ring_fd, .handoff = Handoff::kCompletion}).value();
  ASSERT_TRUE(source.Join(port).ok());
  ASSERT_TRUE(source.Join(other, {.token = 7}).ok());
  std::vector<int> clients;
  bool full = false;
  std::thread([&] {
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(64, &ring, 0), 0);
    RingLoan loan = Lend(ring);
    loan.get_sqe = [&] { return full ? nullptr : io_uring_get_sqe(&ring); };
    ASSERT_TRUE(balancer->Lend(std::move(loan)).ok());
    for (int turns = 0; turns < 2; ++turns) ASSERT_TRUE(TurnOnce(ring, *balancer));
    for (int i = 0; i < 2; ++i) clients.push_back(listener.Connect());
    // The edge, which brings accepts, whose connections cannot be told to anybody.
    ASSERT_TRUE(TurnOnce(ring, *balancer));
    full = true;
    while (balancer->Stats().accepted < 2) ASSERT_TRUE(TurnOnce(ring, *balancer));
    io_uring_queue_exit(&ring);
  }).join();
  io_uring next;
  ASSERT_EQ(io_uring_queue_init(64, &next, 0), 0);
  RingLoan loan = Lend(next);
  loan.user_data_value = 0;
  ASSERT_TRUE(balancer->Lend(std::move(loan)).ok());
  int served = 0;
  while (served < 2) {
    ASSERT_TRUE(TurnOnce(next, *balancer));
    port.Claim([&](Connection) { ++served; });
    for (io_uring_cqe* cqe; io_uring_peek_cqe(&receiver, &cqe) == 0;) {
      EXPECT_EQ(cqe->user_data, 7u);
      const Connection taken = other.Adopt(cqe->res);
      ++served;
      io_uring_cqe_seen(&receiver, cqe);
      other.Took();
    }
  }
  for (const int client : clients) {
    pollfd end{.fd = client, .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&end, 1, 10'000), 1);
    close(client);
  }
  port.Leave();
  other.Leave();
  balancer.reset();
  io_uring_queue_exit(&next);
  io_uring_queue_exit(&receiver);
}

TEST_F(RidingTest, AShutdownOnTheThreadOfTheHostIsOneByZero) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port;
  RidingHost host({}, {}, [&](Balancer& balancer, Port&) {
    Source source = balancer.AddSource(listener.fd()).value();
    port = balancer.AddWorker(mailbox).value();
    ASSERT_TRUE(source.Join(port).ok());
  });
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return host.balancer().Stats().workers[0].unclaimed == 3; }));
  ShutdownReport report;
  host.Do([&] { report = host.balancer().Shutdown(absl::Seconds(60)); });
  EXPECT_FALSE(report.drained);
  EXPECT_EQ(report.refused, 3u);
  ExpectEnds(clients);
  // The loop goes on, without the master: the ends of its operations come, and nobody is accepted.
  const int late = listener.Connect();
  host.Do([] {});
  pollfd answer{.fd = late, .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&answer, 1, 20), 0);
  close(late);
}

TEST_F(RidingTest, ADrainFromAnotherThreadGoesOnWhileTheHostServes) {
  const Listener listener = Listener::Tcp();
  RidingHost host({.serves = true}, {}, [&](Balancer& balancer, Port& port) {
    Source source = balancer.AddSource(listener.fd()).value();
    ASSERT_TRUE(source.Join(port).ok());
  });
  for (int i = 0; i < 10; ++i) ASSERT_GE(AskWhoServes(listener), 0) << i;
  const ShutdownReport report = host.balancer().Shutdown(absl::Seconds(10));
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.stats.accepted, 10u);
}

// The loop still hands over what comes late while the workers let go of their rings.
TEST_F(RidingTest, WorkersLeaveAfterTheEndWhileTheLoopGoesOn) {
  for (int round = 0; round < 20; ++round) {
    const Listener listener = Listener::Tcp();
    Source source;
    RidingHost host({.dawdles = true}, {}, [&](Balancer& balancer, Port&) {
      source = balancer.AddSource(listener.fd(), {.policy = RoundRobin()}).value();
    });
    const WorkerOptions completion{.handoff = Handoff::kCompletion};
    std::vector<std::unique_ptr<Worker>> workers;
    for (int i = 0; i < 3; ++i) workers.push_back(AddWorker(host, source, completion));
    std::vector<int> clients;
    for (int i = 0; i < 30; ++i) clients.push_back(listener.Connect());
    // What was sent last is followed by a marker, which comes after the end.
    host.balancer().Shutdown(absl::ZeroDuration());
    for (const auto& worker : workers) worker->Stop();
    for (const int client : clients) close(client);
  }
}

TEST_F(RidingTest, WrongLoansAreRefusedInWords) {
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  std::unique_ptr<Balancer> balancer = Balancer::Create({.host = Host::kRing}).value();
  const auto refuses = [&](const std::function<void(RingLoan&)>& change, const char* word) {
    RingLoan loan = Lend(ring);
    change(loan);
    const absl::Status status = balancer->Lend(std::move(loan));
    EXPECT_EQ(status.code(), kInvalid) << word;
    EXPECT_TRUE(absl::StrContains(status.message(), word)) << status;
  };
  refuses([](RingLoan& loan) { loan.get_sqe = nullptr; }, "get_sqe");
  refuses([](RingLoan& loan) { loan.submit = nullptr; }, "submit");
  refuses([](RingLoan& loan) { loan.user_data_mask = 0; }, "highest byte");
  refuses([](RingLoan& loan) { loan.user_data_mask = ~uint64_t{0}; }, "highest byte");
  refuses([](RingLoan& loan) { loan.user_data_value = 1; }, "bits of the mask");
  RingLoan no_ring = Lend(ring);
  no_ring.ring_fd = 0;
  EXPECT_FALSE(balancer->Lend(std::move(no_ring)).ok());
  const absl::Status without = balancer->RunOnce();
  EXPECT_EQ(without.code(), kPrecondition);
  EXPECT_TRUE(absl::StrContains(without.message(), "Lend")) << without;
  EXPECT_TRUE(balancer->Lend(Lend(ring)).ok());
  EXPECT_EQ(balancer->Lend(Lend(ring)).code(), kPrecondition);
  EXPECT_EQ(Balancer::Create({.host = Host::kLoop}).value()->Lend(Lend(ring)).code(),
            kPrecondition);
  EXPECT_EQ(Balancer::Create({.host = Host::kRing, .masters = 2}).status().code(), kInvalid);
  EXPECT_EQ(Balancer::Create({.host = Host::kRing, .cpu = 0}).status().code(), kInvalid);
  balancer.reset();
  io_uring_queue_exit(&ring);
}

// The end without a loop reads what the loan would change.
TEST_F(RidingTest, ALoopThatLendsWhileItEndsWithoutALoopWaitsForThat) {
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  std::unique_ptr<Balancer> balancer = Balancer::Create({.host = Host::kRing}).value();
  const Listener listener = Listener::Tcp();
  ASSERT_TRUE(balancer->AddSource(listener.fd()).ok());
  std::thread loop;
  balancer->Shutdown({.on_intake_ended = [&] {
    std::atomic<bool> runs{false};
    loop = std::thread([&] {
      runs = true;
      const absl::Status lent = balancer->Lend(Lend(ring));
      EXPECT_EQ(lent.code(), kPrecondition);
      EXPECT_TRUE(absl::StrContains(lent.message(), "shut down")) << lent;
      EXPECT_TRUE(balancer->Ended().has_value());
    });
    while (!runs) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    // Here it cannot wait.
    EXPECT_EQ(balancer->Lend(Lend(ring)).code(), kPrecondition);
  }});
  loop.join();
  io_uring_queue_exit(&ring);
}

TEST_F(RidingTest, MayBeDestroyedWithoutHavingBeenDrivenAndAfterItsRing) {
  for (const bool lends : {false, true}) {
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
    std::unique_ptr<Balancer> balancer = Balancer::Create({.host = Host::kRing}).value();
    if (lends) {
      ASSERT_TRUE(balancer->Lend(Lend(ring)).ok());
    }
    const Listener listener = Listener::Tcp();
    Source source = balancer->AddSource(listener.fd()).value();
    const Mailbox mailbox = Mailbox::Create().value();
    balancer->AddWorker(mailbox).value().Leave();
    Port port = balancer->AddWorker({.on_host = true}).value();
    ASSERT_TRUE(source.Join(port).ok());
    io_uring_queue_exit(&ring);
    balancer.reset();
    port.Leave();
  }
}

}  // namespace
}  // namespace ringmaster
