// How a balancer ends: the listeners first, then what was accepted, with or without waiting, for
// every host. Method: a listener is closed where the library says that nothing refers to it any
// more. Whether anything does shows by what a client that comes then meets.

#include <gtest/gtest.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "errands.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr auto kForEver = absl::InfiniteDuration();

// Listening TCP sockets of one address by SO_REUSEPORT, the first on a port that the kernel
// chooses. The test closes them.
int Listen(sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(bind(fd, generic, size), 0);
  EXPECT_EQ(listen(fd, 4096), 0);
  EXPECT_EQ(getsockname(fd, generic, &size), 0);
  return fd;
}

// A connected client, or -errno.
int Connect(const sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

// The byte that the client is sent; -1 when it is closed or reset without one.
int Receive(int client) {
  unsigned char byte;
  return recv(client, &byte, 1, 0) == 1 ? byte : -1;
}

// The index of who serves, or -1 when nobody does.
int Ask(const sockaddr_in& address) {
  const int client = Connect(address);
  if (client < 0) return -1;
  const int served_by = Receive(client);
  close(client);
  return served_by;
}

// Keeps the first connection, and answers the others.
class Keeper {
 public:
  Worker::Serve serve() {
    return [this](uint32_t worker, Connection connection) {
      if (keeps_.exchange(true)) return ServeIndex(worker, std::move(connection));
      const auto byte = static_cast<unsigned char>(worker);
      EXPECT_EQ(write(connection.fd(), &byte, 1), 1);
      kept_ = std::move(connection);
      has_ = true;
    };
  }
  bool has() const { return has_; }
  void LetGo() { kept_ = {}; }

 private:
  std::atomic<bool> keeps_{false};
  std::atomic<bool> has_{false};
  Connection kept_;
};

// Who drives the balancer, on a thread of its own where that is not the balancer.
class Driver {
 public:
  Driver(Host host, uint32_t masters) : host_(host), masters_(masters) {}
  ~Driver() { Stop(); }

  BalancerOptions options() const { return {.host = host_, .masters = masters_}; }

  void Start(Balancer& balancer) {
    if (host_ == Host::kThread) return;
    thread_ = std::thread([this, &balancer] {
      if (host_ == Host::kLoop) {
        RunLoop(balancer);
      } else {
        RunRing(balancer);
      }
    });
    EXPECT_TRUE(Eventually([this] { return started_.load(); }));
  }
  void Stop() {
    errands_.Stop();
    if (thread_.joinable()) thread_.join();
  }
  // Runs where the balancer is driven, or here when it has a thread.
  void Do(std::function<void()> job) {
    if (host_ == Host::kThread) return job();
    errands_.Do(std::move(job));
  }

 private:
  void RunLoop(Balancer& balancer) {
    EXPECT_TRUE(balancer.RunOnce().ok());
    const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (const int fd : {balancer.fd(), errands_.fd()}) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      EXPECT_EQ(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
    }
    started_ = true;
    while (!errands_.stopped()) {
      epoll_event event;
      if (epoll_wait(epoll_fd, &event, 1, -1) != 1) continue;
      if (event.data.fd == errands_.fd()) errands_.OnReadable();
      balancer.RunOnce().IgnoreError();
    }
    close(epoll_fd);
  }

  void RunRing(Balancer& balancer) {
    constexpr uint64_t kMasters = uint64_t{1} << 56;
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(64, &ring, 0), 0);
    const auto watch = [&] {
      io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
      io_uring_prep_poll_add(sqe, errands_.fd(), POLLIN);
      io_uring_sqe_set_data64(sqe, 0);
    };
    EXPECT_TRUE(balancer
                    .Lend({.ring_fd = ring.ring_fd,
                           .get_sqe = [&] { return io_uring_get_sqe(&ring); },
                           .submit = [&] { return io_uring_submit(&ring); },
                           .user_data_mask = kMasters,
                           .user_data_value = kMasters})
                    .ok());
    EXPECT_TRUE(balancer.RunOnce().ok());
    watch();
    started_ = true;
    while (!errands_.stopped()) {
      io_uring_submit_and_wait(&ring, 1);
      bool woken = false;
      io_uring_cqe* cqe;
      while (io_uring_peek_cqe(&ring, &cqe) == 0) {
        woken |= !balancer.OnCompletion(*cqe);
        io_uring_cqe_seen(&ring, cqe);
      }
      if (woken) {
        errands_.OnReadable();
        watch();
      }
      balancer.RunOnce().IgnoreError();
    }
    balancer.Shutdown(absl::ZeroDuration());
    io_uring_queue_exit(&ring);
  }

  const Host host_;
  const uint32_t masters_;
  Errands errands_;
  std::atomic<bool> started_{false};
  std::thread thread_;
};

struct Way {
  const char* name;
  Host host = Host::kThread;
  uint32_t masters = 1;
  Intake intake = Intake::kPollAccept;
};

class ShutdownTest : public BalancerTest, public ::testing::WithParamInterface<Way> {
 protected:
  void SetUp() override {
    BalancerTest::SetUp();
    if (IsSkipped()) return;
    Create(driver_.options());
    for (uint32_t i = 0; i < GetParam().masters; ++i) {
      listeners_.push_back(Listen(address_));
      sources_.push_back(
          balancer_->AddSource(listeners_[i], {.intake = GetParam().intake}).value());
    }
    driver_.Start(*balancer_);
  }
  void TearDown() override {
    driver_.Stop();
    CloseListeners();
  }

  void CloseListeners() {
    for (const int fd : listeners_) close(fd);
    listeners_.clear();
  }

  sockaddr_in address_{};
  std::vector<int> listeners_;
  std::vector<Source> sources_;
  Driver driver_{GetParam().host, GetParam().masters};
};

INSTANTIATE_TEST_SUITE_P(
    All, ShutdownTest,
    ::testing::Values(Way{"Thread"}, Way{"ThreadAccept", Host::kThread, 1, Intake::kAccept},
                      Way{"ThreadReadiness", Host::kThread, 1, Intake::kReadiness},
                      Way{"ThreeMasters", Host::kThread, 3}, Way{"Loop", Host::kLoop},
                      Way{"Ring", Host::kRing}),
    [](const auto& instance) { return instance.param.name; });

// On the thread of a host, too, and by a worker in its own callback.
TEST_P(ShutdownTest, BeginsWithTheListenersAndDrainsWithoutWaiting) {
  Keeper keeper;
  const auto worker = AddWorker(sources_, keeper.serve());
  const int client = Connect(address_);
  ASSERT_EQ(Receive(client), 0);
  ASSERT_TRUE(Eventually([&] { return keeper.has(); }));
  std::atomic<int> intake_ended{0};
  std::atomic<int> ended{0};
  driver_.Do([&] {
    EXPECT_TRUE(balancer_
                    ->BeginShutdown({.drain = kForEver,
                                     .on_intake_ended =
                                         [&] {
                                           EXPECT_EQ(ended, 0);
                                           CloseListeners();
                                           ++intake_ended;
                                         },
                                     .on_ended =
                                         [&](const ShutdownReport& report) {
                                           EXPECT_TRUE(report.drained);
                                           EXPECT_EQ(report.open, 0u);
                                           ++ended;
                                         }})
                    .ok());
  });
  ASSERT_TRUE(Eventually([&] { return intake_ended == 1; }));
  EXPECT_EQ(Connect(address_), -ECONNREFUSED);
  EXPECT_EQ(balancer_->Ended(), std::nullopt);
  EXPECT_EQ(balancer_->Stats().workers[0].open, 1u);
  keeper.LetGo();
  ASSERT_TRUE(Eventually([&] { return ended == 1; }));
  ASSERT_TRUE(Eventually([&] { return balancer_->Ended().has_value(); }));
  EXPECT_TRUE(balancer_->Ended()->drained);
  EXPECT_TRUE(balancer_->Shutdown(kForEver).drained);
  // What has happened already is told at once, and nothing a second time.
  int late = 0;
  EXPECT_TRUE(balancer_
                  ->BeginShutdown({.on_intake_ended = [&] { ++late; },
                                   .on_ended = [&](const ShutdownReport&) { ++late; }})
                  .ok());
  EXPECT_EQ(late, 2);
  EXPECT_EQ(intake_ended, 1);
  EXPECT_EQ(ended, 1);
  close(client);
}

// What a restart needs: while one generation drains, the next one gets every new client.
TEST_P(ShutdownTest, EveryClientWhoComesMeanwhileIsServedBySomebodyElse) {
  Keeper keeper;
  const auto worker = AddWorker(sources_, keeper.serve());
  const int client = Connect(address_);
  ASSERT_EQ(Receive(client), 0);
  sockaddr_in address = address_;
  const int listener = Listen(address);
  const auto next = Balancer::Create().value();
  Source source = next->AddSource(listener).value();
  std::atomic<int> served{0};
  const Worker successor(
      [&](int ring_fd, uint64_t tag) {
        absl::StatusOr<Port> port = next->AddWorker({.ring_fd = ring_fd, .tag = tag});
        EXPECT_TRUE(source.Join(*port).ok());
        return port;
      },
      [&](uint32_t index, Connection connection) {
        ++served;
        ServeIndex(index, std::move(connection));
      });
  Gate closed;
  ASSERT_TRUE(balancer_
                  ->BeginShutdown({.drain = kForEver,
                                   .on_intake_ended =
                                       [&] {
                                         CloseListeners();
                                         closed.Open();
                                       }})
                  .ok());
  closed.Wait();
  for (int i = 0; i < 200; ++i) ASSERT_EQ(Ask(address_), 0) << i;
  EXPECT_EQ(served, 200);
  EXPECT_EQ(balancer_->Ended(), std::nullopt);
  balancer_->BeginShutdown().IgnoreError();
  EXPECT_EQ(balancer_->Shutdown(kForEver).open, 1u);
  close(client);
  close(listener);
}

// One connection that never closes has the only place. Those that nobody will let in any more learn
// it at once, not at the end of the drain.
TEST_P(ShutdownTest, WhoWaitsForAPlaceInTheBacklogNeedNotWaitForTheDrain) {
  if (GetParam().intake == Intake::kAccept) GTEST_SKIP() << "accepts ahead of room";
  Keeper keeper;
  const auto worker = AddWorker(sources_, keeper.serve(), {.capacity = 1});
  const int open = Connect(address_);
  ASSERT_EQ(Receive(open), 0);
  std::array<int, 64> waiting;
  for (int& client : waiting) client = Connect(address_);
  ASSERT_TRUE(
      balancer_->BeginShutdown({.drain = kForEver, .on_intake_ended = [&] { CloseListeners(); }})
          .ok());
  for (const int client : waiting) {
    EXPECT_EQ(Receive(client), -1);
    close(client);
  }
  EXPECT_EQ(balancer_->Ended(), std::nullopt);
  EXPECT_EQ(balancer_->Stats().workers[0].open, 1u);
  keeper.LetGo();
  EXPECT_TRUE(balancer_->Shutdown(kForEver).drained);
  close(open);
}

TEST_P(ShutdownTest, ABlockingCallReturnsAfterBothCallbacks) {
  const auto worker = AddWorker(sources_);
  EXPECT_EQ(Ask(address_), 0);
  int told = 0;
  const ShutdownReport report = balancer_->Shutdown(
      {.drain = kForEver,
       .on_intake_ended = [&] { EXPECT_EQ(told++, 0); },
       .on_ended = [&](const ShutdownReport& last) { EXPECT_EQ(told++, int{last.drained}); }});
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(told, 2);
}

TEST_P(ShutdownTest, AWorkerBeginsItInItsOwnCallbackAndTheDeadlineHolds) {
  Connection kept;
  std::atomic<bool> begun{false};
  const auto worker = AddWorker(sources_, [&](uint32_t, Connection connection) {
    kept = std::move(connection);
    EXPECT_TRUE(balancer_->BeginShutdown({.drain = absl::Milliseconds(1)}).ok());
    begun = true;
  });
  const int client = Connect(address_);
  ASSERT_TRUE(Eventually([&] { return begun.load(); }));
  ASSERT_TRUE(Eventually([&] { return balancer_->Ended().has_value(); }));
  EXPECT_FALSE(balancer_->Ended()->drained);
  EXPECT_EQ(balancer_->Ended()->open, 1u);
  close(client);
}

// A worker that sleeps until it is told something. It keeps what it claims until the balancer
// drains, and ends when the balancer has ended. Returns whether it was told of both.
bool SleepUntilTheEnd(Balancer& balancer, std::vector<Source> sources, bool has_ring,
                      std::atomic<int>& joined, std::atomic<int>& kept) {
  constexpr int kLongMs = 30'000;  // when a worker that was not told gives up
  io_uring ring;
  EXPECT_EQ(io_uring_queue_init(8, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN),
            0);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = has_ring ? balancer.AddWorker({.ring_fd = ring.ring_fd, .tag = 1}).value()
                       : balancer.AddWorker(mailbox).value();
  for (Source& source : sources) EXPECT_TRUE(source.Join(port).ok());
  ++joined;
  std::vector<Connection> connections;
  bool told = false;
  while (!port.ended()) {
    if (has_ring) {
      __kernel_timespec patience{.tv_sec = kLongMs / 1000, .tv_nsec = 0};
      io_uring_cqe* completion;
      const int result = io_uring_wait_cqe_timeout(&ring, &completion, &patience);
      if (result == -ETIME) return false;
      if (result == 0) io_uring_cqe_seen(&ring, completion);
    } else {
      pollfd mail{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
      if (poll(&mail, 1, kLongMs) == 0) return false;
    }
    port.Claim([&](Connection connection) {
      connections.push_back(std::move(connection));
      ++kept;
    });
    if (port.draining()) {
      told = true;
      connections.clear();
    }
  }
  port.Leave();
  io_uring_queue_exit(&ring);
  return told;
}

TEST_P(ShutdownTest, WorkersThatSleepAreToldOfTheDrainAndOfTheEnd) {
  std::atomic<int> joined{0};
  std::atomic<int> kept{0};
  std::atomic<int> told{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < 4; ++i) {
    workers.emplace_back([this, i, &joined, &kept, &told] {
      told += SleepUntilTheEnd(*balancer_, sources_, /*has_ring=*/i % 2 == 0, joined, kept);
    });
  }
  ASSERT_TRUE(Eventually([&] { return joined == 4; }));
  std::array<int, 6> silent;
  for (int& client : silent) client = Connect(address_);
  ASSERT_TRUE(Eventually([&] { return kept == 6; }));
  EXPECT_TRUE(balancer_->Shutdown(kForEver).drained);
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(told, 4);
  for (const int client : silent) close(client);
}

class EndTest : public BalancerTest {};

TEST_F(EndTest, AWorkerOnTheHostAsksAfterItHasDrivenTheMaster) {
  Create({.host = Host::kLoop});
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  Port port = balancer_->AddWorker({.on_host = true}).value();
  ASSERT_TRUE(source.Join(port).ok());
  ASSERT_TRUE(balancer_->RunOnce().ok());
  EXPECT_FALSE(port.draining());
  const int client = listener.Connect();
  Connection kept;
  const auto wake = [&] {
    pollfd master{.fd = balancer_->fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&master, 1, 30'000), 1);
    balancer_->RunOnce().IgnoreError();
  };
  while (kept.fd() < 0) {
    wake();
    port.Claim([&](Connection connection) { kept = std::move(connection); });
  }
  std::thread([this] { EXPECT_TRUE(balancer_->BeginShutdown({.drain = kForEver}).ok()); }).join();
  while (!port.draining()) wake();
  EXPECT_FALSE(port.ended());
  kept = {};
  while (!port.ended()) wake();
  EXPECT_TRUE(balancer_->Ended()->drained);
  close(client);
}

// There is no ring of a master to ring the workers by.
TEST_F(EndTest, WorkersAreToldOfTheEndAlsoWhereNobodyDrives) {
  for (const Host host : {Host::kLoop, Host::kRing}) {
    for (const bool had_host : {false, true}) {
      if (had_host && host == Host::kRing) continue;
      Create({.host = host});
      const Listener listener = Listener::Tcp();
      Source source = AddSource(listener);
      std::atomic<int> joined{0};
      std::atomic<int> kept{0};
      std::atomic<int> told{0};
      std::vector<std::thread> workers;
      for (const bool has_ring : {false, true}) {
        workers.emplace_back([&, has_ring] {
          told += SleepUntilTheEnd(*balancer_, {source}, has_ring, joined, kept);
        });
      }
      ASSERT_TRUE(Eventually([&] { return joined == 2; }));
      if (had_host) std::thread([this] { EXPECT_TRUE(balancer_->RunOnce().ok()); }).join();
      EXPECT_TRUE(balancer_->BeginShutdown({.drain = kForEver}).ok());
      for (std::thread& worker : workers) worker.join();
      EXPECT_EQ(told, 2);
    }
  }
}

// Nothing but connections comes into its ring, so it asks of its own accord.
TEST_F(EndTest, AWorkerThatIsSentItsConnectionsIsNotRung) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(8, &ring, 0), 0);
  Port port =
      balancer_->AddWorker({.ring_fd = ring.ring_fd, .handoff = Handoff::kCompletion}).value();
  ASSERT_TRUE(source.Join(port).ok());
  EXPECT_FALSE(port.draining());
  EXPECT_FALSE(port.ended());
  EXPECT_TRUE(balancer_->Shutdown(kForEver).drained);
  EXPECT_TRUE(port.draining());
  EXPECT_TRUE(port.ended());
  io_uring_cqe* completion;
  EXPECT_EQ(io_uring_peek_cqe(&ring, &completion), -EAGAIN);
  port.Leave();
  io_uring_queue_exit(&ring);
}

TEST_F(EndTest, APortWithoutABalancerHasNothingMoreToWaitFor) {
  EXPECT_TRUE(Port().draining());
  EXPECT_TRUE(Port().ended());
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  EXPECT_FALSE(port.ended());
  const pid_t child = fork();
  if (child == 0) _exit(port.draining() && port.ended() ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  port.Leave();
  EXPECT_TRUE(port.draining());
  EXPECT_TRUE(port.ended());
}

TEST_F(EndTest, TheEventCallbackMayBeginIt) {
  std::atomic<bool> begun{false};
  balancer_ = Balancer::Create({.on_event = [&](const Event& event) {
                if (event.kind != Event::Kind::kSourceFailed) return;
                EXPECT_TRUE(balancer_->BeginShutdown({.drain = kForEver}).ok());
                EXPECT_EQ(balancer_->Ended(), std::nullopt);
                begun = true;
              }}).value();
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  const auto worker = AddWorker({source});
  ASSERT_EQ(AskWhoServes(listener), 0);
  ASSERT_EQ(shutdown(listener.fd(), SHUT_RDWR), 0);
  ASSERT_TRUE(Eventually([&] { return begun.load(); }));
  ASSERT_TRUE(Eventually([&] { return balancer_->Ended().has_value(); }));
  EXPECT_TRUE(balancer_->Ended()->drained);
}

TEST_F(EndTest, ABalancerWithoutItsHostEndsAtOnce) {
  for (const Host host : {Host::kLoop, Host::kRing}) {
    Create({.host = host});
    const Listener listener = Listener::Tcp();
    Source source = AddSource(listener);
    int told = 0;
    EXPECT_TRUE(
        balancer_
            ->BeginShutdown({.drain = kForEver,
                             .on_intake_ended =
                                 [&] {
                                   EXPECT_EQ(told++, 0);
                                   // It would wait for itself.
                                   balancer_->Shutdown(kForEver);
                                 },
                             .on_ended = [&](const ShutdownReport&) { EXPECT_EQ(told++, 1); }})
            .ok());
    EXPECT_EQ(told, 2);
    EXPECT_TRUE(balancer_->Ended().has_value());
    EXPECT_EQ(balancer_->RunOnce().code(), absl::StatusCode::kFailedPrecondition);
  }
}

// A ticket's descriptor is the source's. So it is not given up while there is one, whatever thread
// and whatever port it was claimed by, but no longer than the drain.
TEST_F(EndTest, TicketsKeepTheirSourceUntilTheyEndOrTheDrainDoes) {
  for (const bool in_time : {true, false}) {
    Create({});
    const int event_fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
    Source source = balancer_->AddSource(event_fd, {.intake = Intake::kReadiness}).value();
    const Mailbox mailbox = Mailbox::Create().value();
    Port port = balancer_->AddWorker(mailbox).value();
    ASSERT_TRUE(source.Join(port).ok());
    std::optional<Ticket> ticket;
    ASSERT_TRUE(Eventually([&] {
      port.Claim([](Connection) {}, [&](Ticket claimed) { ticket.emplace(std::move(claimed)); });
      return ticket.has_value();
    }));
    port.Leave();
    std::atomic<bool> may_end{false};
    std::atomic<bool> told{false};
    ASSERT_TRUE(balancer_
                    ->BeginShutdown({.drain = in_time ? kForEver : absl::Milliseconds(1),
                                     .on_intake_ended =
                                         [&] {
                                           EXPECT_EQ(may_end.load(), in_time);
                                           told = true;
                                         }})
                    .ok());
    if (in_time) {
      // The master has seen to it that everything else has ended.
      for (int i = 0; i < 3; ++i) EXPECT_EQ(balancer_->Stats().sources.size(), 1u);
      EXPECT_FALSE(told);
      may_end = true;
      ticket.reset();
    }
    ASSERT_TRUE(Eventually([&] { return told.load(); }));
    balancer_->Shutdown(kForEver);
    close(event_fd);
  }
}

// Who asks after the end of the intake is told of that by the own call. If the balancer ends just
// then, the call tells of that, too, and afterwards. Method: the end comes while the call tells of
// the intake, and whoever asked before has heard of it.
TEST_F(EndTest, WhoAsksBetweenTheEndsIsToldOfThemInTheirOrder) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  Keeper keeper;
  const auto worker = AddWorker({source}, keeper.serve());
  const int client = listener.Connect();
  ASSERT_TRUE(Eventually([&] { return keeper.has(); }));
  std::atomic<bool> intake_ended{false};
  std::atomic<bool> ended{false};
  ASSERT_TRUE(balancer_
                  ->BeginShutdown({.drain = kForEver,
                                   .on_intake_ended = [&] { intake_ended = true; },
                                   .on_ended = [&](const ShutdownReport&) { ended = true; }})
                  .ok());
  ASSERT_TRUE(Eventually([&] { return intake_ended.load(); }));
  std::atomic<int> told{0};
  EXPECT_TRUE(balancer_
                  ->BeginShutdown({.drain = kForEver,
                                   .on_intake_ended =
                                       [&] {
                                         keeper.LetGo();
                                         EXPECT_TRUE(Eventually([&] { return ended.load(); }));
                                         poll(nullptr, 0, 20);  // for whoever is told too early
                                         EXPECT_EQ(told++, 0);
                                       },
                                   .on_ended =
                                       [&](const ShutdownReport& report) {
                                         EXPECT_EQ(told++, 1);
                                         EXPECT_TRUE(report.drained);
                                       }})
                  .ok());
  EXPECT_EQ(told, 2);
  close(client);
}

// The descriptor may be closed by then, and its number may be another file's.
TEST_F(EndTest, WhoeverJoinsWhenTheIntakeHasEndedHearsOfTheEnd) {
  for (const uint32_t masters : {1u, 2u}) {
    std::unique_ptr<Balancer> balancer = Balancer::Create({.masters = masters}).value();
    std::optional<Listener> listener = Listener::Tcp();
    Source source = balancer->AddSource(listener->fd()).value();
    const Mailbox mailbox = Mailbox::Create().value();
    Port port = balancer->AddWorker(mailbox).value();
    balancer->Shutdown({.on_intake_ended = [&] { listener.reset(); }});
    const absl::Status joined = source.Join(port);
    EXPECT_EQ(joined.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(joined.message().find("shut down") != std::string_view::npos) << joined;
  }
}

// What was refused before, because its source was removed and nobody was left to serve it, was not
// held or offered at the deadline.
TEST_F(EndTest, TheReportCountsOnlyWhatItsOwnEndRefused) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.intake = Intake::kAccept});
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox, {.window = 1}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener.Connect());
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().accepted == 3; }));
  ASSERT_TRUE(source.Remove().ok());
  port.Leave();
  ASSERT_TRUE(Eventually([&] { return balancer_->Stats().refused == 3; }));
  const ShutdownReport report = balancer_->Shutdown(kForEver);
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.refused, 0u);
  EXPECT_EQ(report.stats.refused, 3u);
  for (const int client : clients) close(client);
}

}  // namespace
}  // namespace ringmaster
