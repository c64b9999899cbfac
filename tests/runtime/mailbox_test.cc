// Workers with every kind of loop but an io_uring one, on the real ring, with real clients. Each
// loop waits for ever, so a doorbell that is lost ends the test by its time limit. What is asserted
// about a moment is asserted when the master has reported that the moment has come. That a claim
// makes no system call is shown by having the kernel end the process at the first one.

#include "ringmaster/mailbox.h"

#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/allocation_count.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

bool Readable(const Mailbox& mailbox) {
  pollfd entry{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
  return poll(&entry, 1, 0) == 1;
}

// The ring in the mailbox's epoll set, as long as that has nothing else.
int RingOf(const Mailbox& mailbox) {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(mailbox.fd()));
  for (std::string word; info >> word;) {
    int fd = -1;
    if (word == "tfd:" && info >> fd) return fd;
  }
  return -1;
}

// Reads the byte that a served connection is answered with, and closes. -1 without one.
int Answer(int client) {
  unsigned char byte;
  const ssize_t size = read(client, &byte, 1);
  close(client);
  return size == 1 ? byte : -1;
}

enum class LoopKind { kEpollLevel, kEpollEdge, kPoll, kSelect };

// Waits until one of two descriptors is readable.
class Waiter {
 public:
  Waiter(LoopKind kind, int mailbox_fd, int command_fd)
      : kind_(kind), fds_{mailbox_fd, command_fd} {
    if (kind != LoopKind::kEpollLevel && kind != LoopKind::kEpollEdge) return;
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    for (const int fd : fds_) {
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      if (kind == LoopKind::kEpollEdge) event.events |= EPOLLET;
      EXPECT_EQ(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event), 0);
    }
  }
  ~Waiter() {
    if (epoll_fd_ >= 0) close(epoll_fd_);
  }
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;

  struct Ready {
    bool mailbox = false;
    bool command = false;
  };
  Ready Wait() {
    while (true) {
      const Ready ready = WaitOnce();
      if (ready.mailbox || ready.command) return ready;
      EXPECT_EQ(errno, EINTR);
    }
  }

 private:
  Ready WaitOnce() {
    Ready ready;
    if (kind_ == LoopKind::kSelect) {
      fd_set set;
      FD_ZERO(&set);
      for (const int fd : fds_) FD_SET(fd, &set);
      if (select(std::max(fds_[0], fds_[1]) + 1, &set, nullptr, nullptr, nullptr) < 0) return ready;
      ready = {.mailbox = FD_ISSET(fds_[0], &set) != 0, .command = FD_ISSET(fds_[1], &set) != 0};
    } else if (kind_ == LoopKind::kPoll) {
      pollfd entries[2] = {{.fd = fds_[0], .events = POLLIN, .revents = 0},
                           {.fd = fds_[1], .events = POLLIN, .revents = 0}};
      if (poll(entries, 2, -1) < 0) return ready;
      ready = {.mailbox = entries[0].revents != 0, .command = entries[1].revents != 0};
    } else {
      epoll_event events[2];
      const int count = epoll_wait(epoll_fd_, events, 2, -1);
      for (int i = 0; i < count; ++i) {
        (events[i].data.fd == fds_[0] ? ready.mailbox : ready.command) = true;
      }
    }
    return ready;
  }

  LoopKind kind_;
  std::array<int, 2> fds_;
  int epoll_fd_ = -1;
};

// A loop on a thread of its own that serves one mailbox. The mailbox is made and added by the
// thread that constructs it, so what claims is always another thread. Level-triggered loops claim
// once for each wake-up and remember nothing.
class LoopWorker {
 public:
  LoopWorker(LoopKind kind, size_t connections_max, Balancer& balancer, std::vector<Source> sources,
             testing::Worker::Serve serve = ServeIndex)
      : kind_(kind),
        connections_max_(connections_max),
        serve_(std::move(serve)),
        mailbox_(Mailbox::Create().value()),
        port_(balancer.AddWorker(mailbox_).value()),
        command_fd_(eventfd(0, EFD_CLOEXEC)) {
    for (Source& source : sources) EXPECT_TRUE(source.Join(port_).ok());
    thread_ = std::thread([this] { Run(); });
  }
  // Stops and leaves.
  ~LoopWorker() {
    EXPECT_EQ(eventfd_write(command_fd_, 1), 0);
    thread_.join();
    close(command_fd_);
  }
  LoopWorker(const LoopWorker&) = delete;
  LoopWorker& operator=(const LoopWorker&) = delete;

  uint32_t index() const { return port_.worker(); }
  uint64_t claimed() const { return claimed_; }
  uint64_t wakes() const { return wakes_; }

 private:
  void Run() {
    Waiter waiter(kind_, mailbox_.fd(), command_fd_);
    const auto serve = [this](Connection connection) {
      ++claimed_;
      serve_(port_.worker(), std::move(connection));
    };
    while (true) {
      const Waiter::Ready ready = waiter.Wait();
      if (ready.command) return;
      ++wakes_;
      while (port_.Claim(serve, connections_max_) && kind_ == LoopKind::kEpollEdge) {
      }
    }
  }

  const LoopKind kind_;
  const size_t connections_max_;
  const testing::Worker::Serve serve_;
  Mailbox mailbox_;
  Port port_;
  const int command_fd_;
  std::atomic<uint64_t> claimed_{0};
  std::atomic<uint64_t> wakes_{0};
  std::thread thread_;
};

class MailboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
    balancer_ = Balancer::Create().value();
  }

  // All connections are dealt: this is about doorbells.
  Source AddSource(const Listener& listener, SourceOptions options = {}) {
    options.permits = false;
    return balancer_->AddSource(listener.fd(), std::move(options)).value();
  }

  // A port at `mailbox` that joins `source`.
  Port AddWorker(const Mailbox& mailbox, Source source, WorkerOptions options = {}) {
    Port port = balancer_->AddWorker(mailbox, options).value();
    EXPECT_TRUE(source.Join(port).ok());
    return port;
  }

  // Connects `count` clients and waits until all are offered to the only worker, which has none.
  std::vector<int> Offer(const Listener& listener, uint32_t count) {
    std::vector<int> clients;
    for (uint32_t i = 0; i < count; ++i) clients.push_back(listener.Connect());
    EXPECT_TRUE(Eventually([&] { return balancer_->Stats().workers.at(0).unclaimed == count; }));
    return clients;
  }

  std::unique_ptr<Balancer> balancer_;
};

// Asks with several clients at once, `connections` in all. By worker, who served how many.
std::vector<uint64_t> Ask(const Listener& listener, int connections, size_t workers) {
  constexpr int kClients = 4;
  std::vector<std::atomic<uint64_t>> served(workers);
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&] {
      for (int i = 0; i < connections / kClients; ++i) {
        const int who = AskWhoServes(listener);
        ASSERT_GE(who, 0);
        ++served.at(static_cast<size_t>(who));
      }
    });
  }
  for (std::thread& client : clients) client.join();
  return {served.begin(), served.end()};
}

// --- Serving -----------------------------------------------------------------------------------

struct Loop {
  std::string name;
  LoopKind kind;
  size_t connections_max;
};

class EveryLoop : public MailboxTest, public ::testing::WithParamInterface<Loop> {};

TEST_P(EveryLoop, ServesEveryConnectionOnce) {
  constexpr int kConnections = 2000;
  const Listener listener = Listener::Tcp();
  // Without recall, so that nobody serves what another one was not woken for.
  Source source = AddSource(listener, {.policy = RoundRobin(), .recall = false});
  LoopWorker one(GetParam().kind, GetParam().connections_max, *balancer_, {source});
  LoopWorker two(GetParam().kind, GetParam().connections_max, *balancer_, {source});
  const std::vector<uint64_t> served = Ask(listener, kConnections, 2);
  EXPECT_EQ(served[0] + served[1], kConnections);
  EXPECT_EQ(served[0], one.claimed());
  EXPECT_EQ(served[1], two.claimed());

  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.refused, 0u);
  EXPECT_EQ(report.stats.accepted, kConnections);
  EXPECT_EQ(report.stats.recalled, 0u);
  EXPECT_GT(std::min(served[0], served[1]), 0u);
}

// Bursts, so that a claim with a bound leaves something behind.
TEST_P(EveryLoop, ServesABurstWithoutBeingRecalledFrom) {
  constexpr uint32_t kBurst = 20;
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  LoopWorker worker(GetParam().kind, GetParam().connections_max, *balancer_, {source});
  for (int round = 0; round < 20; ++round) {
    std::vector<int> clients;
    for (uint32_t i = 0; i < kBurst; ++i) clients.push_back(listener.Connect());
    for (const int client : clients) EXPECT_EQ(Answer(client), 0);
  }
  EXPECT_EQ(worker.claimed(), 20 * kBurst);
}

INSTANTIATE_TEST_SUITE_P(Loops, EveryLoop,
                         ::testing::Values(Loop{"epoll_level", LoopKind::kEpollLevel, SIZE_MAX},
                                           Loop{"epoll_level_one", LoopKind::kEpollLevel, 1},
                                           Loop{"epoll_edge", LoopKind::kEpollEdge, SIZE_MAX},
                                           Loop{"epoll_edge_one", LoopKind::kEpollEdge, 1},
                                           Loop{"poll", LoopKind::kPoll, SIZE_MAX},
                                           Loop{"poll_two", LoopKind::kPoll, 2},
                                           Loop{"select", LoopKind::kSelect, SIZE_MAX},
                                           Loop{"select_one", LoopKind::kSelect, 1}),
                         [](const ::testing::TestParamInfo<Loop>& loop) {
                           return loop.param.name;
                         });

TEST_F(MailboxTest, SharesASourceWithWorkersThatHaveARing) {
  constexpr int kConnections = 2000;
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin(), .recall = false});
  const auto join = [&](int ring_fd, uint64_t tag) {
    absl::StatusOr<Port> port = balancer_->AddWorker({.ring_fd = ring_fd, .tag = tag});
    if (port.ok()) source.Join(*port).IgnoreError();
    return port;
  };
  LoopWorker level(LoopKind::kEpollLevel, 1, *balancer_, {source});
  testing::Worker ring(join, ServeIndex);
  LoopWorker edge(LoopKind::kEpollEdge, SIZE_MAX, *balancer_, {source});
  testing::Worker another_ring(join, ServeIndex);
  const std::vector<uint64_t> served = Ask(listener, kConnections, 4);
  EXPECT_EQ(served, (std::vector<uint64_t>{level.claimed(), ring.claimed(), edge.claimed(),
                                           another_ring.claimed()}));
  EXPECT_EQ(balancer_->Stats().accepted, kConnections);
  EXPECT_GT(*std::min_element(served.begin(), served.end()), 0u);
}

TEST_F(MailboxTest, LosesNothingWhileMailboxesComeAndGo) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  LoopWorker stays(LoopKind::kEpollLevel, 1, *balancer_, {source});
  Clients clients({&listener}, 3);
  for (int i = 0; i < 50; ++i) {
    LoopWorker level(LoopKind::kPoll, 1, *balancer_, {source});
    LoopWorker edge(LoopKind::kEpollEdge, 2, *balancer_, {source});
    EXPECT_TRUE(clients.Go(5));
  }
  clients.Stop();
  EXPECT_EQ(clients.failed(), 0u);
  EXPECT_EQ(balancer_->Stats().accepted, clients.served());
}

// --- Doorbells ---------------------------------------------------------------------------------

TEST_F(MailboxTest, IsReadableFromTheOfferUntilEverythingIsClaimed) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddWorker(mailbox, AddSource(listener, {.recall = false}));
  const auto serve = [](Connection connection) { ServeIndex(0, std::move(connection)); };
  EXPECT_FALSE(Readable(mailbox));
  EXPECT_FALSE(port.Claim(serve));  // for nothing
  EXPECT_FALSE(Readable(mailbox));
  for (int round = 0; round < 3; ++round) {
    const std::vector<int> clients = Offer(listener, 5);
    ASSERT_TRUE(Eventually([&] { return Readable(mailbox); }));
    EXPECT_TRUE(port.Claim(serve, 2));
    EXPECT_TRUE(Readable(mailbox));
    EXPECT_TRUE(port.Claim(serve, 0));
    EXPECT_TRUE(Readable(mailbox));
    EXPECT_FALSE(port.Claim(serve, 100));
    EXPECT_FALSE(Readable(mailbox));
    EXPECT_FALSE(port.Claim(serve));
    EXPECT_FALSE(Readable(mailbox));
    for (const int client : clients) EXPECT_EQ(Answer(client), 0);
  }
}

TEST_F(MailboxTest, ADoorbellThatComesDuringAClaimStaysForWhatTheClaimDidNotFind) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddWorker(mailbox, AddSource(listener, {.recall = false}));
  std::vector<int> clients = Offer(listener, 1);
  for (int round = 0; round < 10; ++round) {
    ASSERT_TRUE(Readable(mailbox));
    // The next one is offered, and its doorbell is there, before this one is served.
    EXPECT_FALSE(port.Claim([&](Connection connection) {
      clients.push_back(Offer(listener, 1).at(0));
      ServeIndex(0, std::move(connection));
    }));
  }
  EXPECT_TRUE(Readable(mailbox));
  EXPECT_FALSE(port.Claim([](Connection connection) { ServeIndex(0, std::move(connection)); }));
  EXPECT_FALSE(Readable(mailbox));
  for (const int client : clients) EXPECT_EQ(Answer(client), 0);
}

TEST_F(MailboxTest, AWorkerThatNeverEmptiesItsInboxDoesNotFillItsMailbox) {
  constexpr int kClaims = 500;
  constexpr uint32_t kAhead = 4;
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddWorker(mailbox, AddSource(listener, {.recall = false}));
  std::vector<int> clients = Offer(listener, kAhead);
  // Every round rings once more, because the claim before has cleared `rung`.
  for (int claim = 0; claim < kClaims; ++claim) {
    clients.push_back(listener.Connect());
    ASSERT_TRUE(
        Eventually([&] { return balancer_->Stats().workers.at(0).unclaimed == kAhead + 1; }));
    ASSERT_TRUE(Readable(mailbox));
    ASSERT_TRUE(port.Claim([](Connection connection) { ServeIndex(0, std::move(connection)); }, 1));
    ASSERT_TRUE(Readable(mailbox));
  }
  EXPECT_GE(balancer_->Stats().workers.at(0).doorbells, uint64_t{kClaims});
  // A single claim takes away all that are left: they would not fit if they had piled up.
  EXPECT_FALSE(port.Claim([](Connection connection) { ServeIndex(0, std::move(connection)); }));
  EXPECT_FALSE(Readable(mailbox));
  for (const int client : clients) EXPECT_EQ(Answer(client), 0);
}

TEST_F(MailboxTest, TakesAwayDoorbellsThatCameForNothing) {
  constexpr int kDoorbells = 40;  // more than the ring shows at once
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddWorker(mailbox, AddSource(listener));
  io_uring bell;
  ASSERT_EQ(io_uring_queue_init(4, &bell, 0), 0);
  for (int i = 0; i < kDoorbells; ++i) {
    io_uring_prep_msg_ring(io_uring_get_sqe(&bell), RingOf(mailbox), 0, 12345, 0);
    ASSERT_EQ(io_uring_submit_and_wait(&bell, 1), 1);
    io_uring_cq_advance(&bell, 1);
  }
  io_uring_queue_exit(&bell);
  ASSERT_TRUE(Readable(mailbox));
  for (int claim = 0; claim < kDoorbells; ++claim) port.Claim([](Connection) { FAIL(); });
  EXPECT_FALSE(Readable(mailbox));
  // It still works.
  const std::vector<int> clients = Offer(listener, 1);
  EXPECT_TRUE(Eventually([&] { return Readable(mailbox); }));
  EXPECT_FALSE(port.Claim([](Connection connection) { ServeIndex(0, std::move(connection)); }));
  EXPECT_EQ(Answer(clients[0]), 0);
  EXPECT_FALSE(Readable(mailbox));
}

TEST_F(MailboxTest, WakesNoLoopWhileNothingComes) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  LoopWorker level(LoopKind::kEpollLevel, 1, *balancer_, {source});
  LoopWorker edge(LoopKind::kEpollEdge, SIZE_MAX, *balancer_, {source});
  for (int i = 0; i < 10; ++i) EXPECT_GE(AskWhoServes(listener), 0);
  // A level-triggered loop whose doorbell is not taken away would never stop waking.
  uint64_t wakes = 0;
  EXPECT_TRUE(Eventually([&] {
    const uint64_t before = std::exchange(wakes, level.wakes() + edge.wakes());
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return wakes == before && level.wakes() + edge.wakes() == wakes;
  }));
}

// --- Cost --------------------------------------------------------------------------------------

// While this is alive, a system call of the thread that armed it ends the process with SIGSYS. It
// uses syscall user dispatch (Linux 5.11), which is switched by a variable and not by a system
// call.
class NoSystemCalls {
 public:
  // False when this kernel or machine cannot.
  static bool Arm() {
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0, 0, &switch_) == 0;
  }
  static void Disarm() { prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0); }

  NoSystemCalls() { switch_ = SYSCALL_DISPATCH_FILTER_BLOCK; }
  ~NoSystemCalls() { switch_ = SYSCALL_DISPATCH_FILTER_ALLOW; }
  NoSystemCalls(const NoSystemCalls&) = delete;
  NoSystemCalls& operator=(const NoSystemCalls&) = delete;

 private:
  static inline volatile char switch_ = SYSCALL_DISPATCH_FILTER_ALLOW;  // the kernel reads it
};

TEST_F(MailboxTest, AClaimMakesNoSystemCallWhenAwake) {
  constexpr uint32_t kConnections = 8;
  // What comes of one. Without a handler, because a sanitizer's would itself make system calls.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (!NoSystemCalls::Arm()) _exit(77);
    const NoSystemCalls trap;
    syscall(SYS_getppid);
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << "no syscall user dispatch (Linux 5.11) here";
  }
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(WTERMSIG(status), SIGSYS);

  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddWorker(mailbox, AddSource(listener, {.recall = false}));
  std::array<Connection, kConnections> kept;
  ASSERT_TRUE(NoSystemCalls::Arm());
  for (const size_t connections_max : {size_t{1}, size_t{3}, SIZE_MAX}) {
    const std::vector<int> clients = Offer(listener, kConnections);
    ASSERT_TRUE(Readable(mailbox));
    size_t claimed = 0;
    const auto serve = [&](Connection connection) { kept[claimed++] = std::move(connection); };
    {
      const NoSystemCalls trap;
      while (port.Claim(serve, connections_max)) {
      }
    }
    EXPECT_EQ(claimed, kConnections);
    EXPECT_FALSE(Readable(mailbox));
    for (Connection& connection : kept) connection = Connection();
    for (const int client : clients) close(client);
  }
  NoSystemCalls::Disarm();
}

TEST_F(MailboxTest, NothingIsAllocatedForAConnection) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  LoopWorker level(LoopKind::kEpollLevel, 1, *balancer_, {source});
  LoopWorker edge(LoopKind::kEpollEdge, SIZE_MAX, *balancer_, {source});
  ASSERT_GE(AskWhoServes(listener), 0);
  ASSERT_GE(AskWhoServes(listener), 0);
  const size_t before = testing::AllocationCount();
  for (int i = 0; i < 1000; ++i) ASSERT_GE(AskWhoServes(listener), 0);
  EXPECT_EQ(testing::AllocationCount(), before);
}

// --- Life and death ----------------------------------------------------------------------------

TEST_F(MailboxTest, MayBeDestroyedInAnyOrderWithItsPortTheBalancerAndALease) {
  std::array<int, 4> order = {0, 1, 2, 3};
  do {
    const Listener listener = Listener::Tcp();
    auto balancer = Balancer::Create().value();
    Source source = balancer->AddSource(listener.fd()).value();
    std::optional<Mailbox> mailbox = Mailbox::Create().value();
    std::optional<Port> port = balancer->AddWorker(*mailbox).value();
    ASSERT_TRUE(source.Join(*port).ok());
    std::optional<Lease> lease;
    const std::array<int, 2> clients = {listener.Connect(), listener.Connect()};
    ASSERT_TRUE(Eventually([&] { return Readable(*mailbox); }));
    const auto serve = [&](Connection connection) { lease = connection.TakeLease(); };
    ASSERT_TRUE(Eventually([&] { return port->Claim(serve, 1), lease.has_value(); }));
    for (const int what : order) {
      if (what == 0) mailbox.reset();
      if (what == 1) port.reset();
      if (what == 2) balancer.reset();
      if (what == 3) lease.reset();
      // A port claims as long as it is there, whatever else is gone.
      if (port.has_value()) port->Claim([](Connection) {}, 0);
    }
    for (const int client : clients) close(client);
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(MailboxTest, GoesOnServingWhenTheMailboxIsDestroyedBeforeItsPort) {
  const Listener listener = Listener::Tcp();
  std::optional<Mailbox> mailbox = Mailbox::Create().value();
  const int fd = mailbox->fd();
  Port port = AddWorker(*mailbox, AddSource(listener));
  mailbox.reset();
  const std::vector<int> clients = Offer(listener, 1);
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&entry, 1, -1), 1);
  EXPECT_EQ(entry.revents, POLLIN);
  port.Claim([](Connection connection) { ServeIndex(0, std::move(connection)); });
  EXPECT_EQ(Answer(clients[0]), 0);
  port.Leave();
  EXPECT_EQ(poll(&entry, 1, 0), 1);
  EXPECT_EQ(entry.revents, POLLNVAL);  // closed
}

TEST_F(MailboxTest, ServesOnePortAtATimeAndTheNextOnceTheFirstHasLeft) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  const Mailbox mailbox = Mailbox::Create().value();
  Port first = AddWorker(mailbox, source);
  const absl::Status refused = balancer_->AddWorker(mailbox).status();
  EXPECT_EQ(refused.code(), kPrecondition);
  EXPECT_NE(refused.message().find("leave"), absl::string_view::npos) << refused;
  auto other = Balancer::Create().value();
  EXPECT_EQ(other->AddWorker(mailbox).status().code(), kPrecondition);
  // It leaves with a doorbell that nobody has taken away; the next one finds the mailbox quiet.
  const std::vector<int> clients = Offer(listener, 2);
  ASSERT_TRUE(Eventually([&] { return Readable(mailbox); }));
  first.Leave();
  EXPECT_FALSE(Readable(mailbox));
  Port second = other->AddWorker(mailbox).value();
  EXPECT_EQ(balancer_->AddWorker(mailbox).status().code(), kPrecondition);
  second = Port();
  Port third = AddWorker(mailbox, source);
  ASSERT_TRUE(Eventually([&] { return Readable(mailbox); }));
  int served = 0;
  const auto serve = [&](Connection connection) {
    ++served;
    ServeIndex(7, std::move(connection));
  };
  ASSERT_TRUE(Eventually([&] { return third.Claim(serve), served == 2; }));
  for (const int client : clients) EXPECT_EQ(Answer(client), 7);
}

TEST_F(MailboxTest, IsFreeAgainWhenItCouldNotBeAdded) {
  const Mailbox mailbox = Mailbox::Create().value();
  EXPECT_EQ(balancer_->AddWorker(mailbox, {.window = 0}).status().code(), kInvalid);
  balancer_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(balancer_->AddWorker(mailbox).status().code(), kPrecondition);
  auto other = Balancer::Create().value();
  EXPECT_TRUE(other->AddWorker(mailbox).ok());
}

TEST_F(MailboxTest, IsQuietAfterAShutdownOnceItHasBeenLookedAt) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddWorker(mailbox, AddSource(listener));
  const std::vector<int> clients = Offer(listener, 3);
  EXPECT_EQ(balancer_->Shutdown(absl::ZeroDuration()).refused, 3u);
  EXPECT_TRUE(Readable(mailbox));
  EXPECT_FALSE(port.Claim([](Connection) { FAIL(); }));
  EXPECT_FALSE(Readable(mailbox));
  for (const int client : clients) close(client);
}

TEST_F(MailboxTest, AForkedChildCanNeitherClaimNorTakeTheDoorbellsOfItsParent) {
  const Listener listener = Listener::Tcp();
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox unused = Mailbox::Create().value();
  Port port = AddWorker(mailbox, AddSource(listener, {.recall = false}));
  const std::vector<int> clients = Offer(listener, 1);
  ASSERT_TRUE(Eventually([&] { return Readable(mailbox); }));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    int wrong = 0;
    port.Claim([&](Connection connection) {
      wrong |= 1;
      static_cast<void>(connection.TakeFd());
    });
    port.Leave();
    if (!Readable(mailbox)) wrong |= 2;
    // Its own mailboxes are refused for the balancer, those of its parent for themselves.
    const auto blames_the_mailbox = [&](const Mailbox& added) {
      const absl::Status refused = balancer_->AddWorker(added).status();
      return refused.code() == kPrecondition &&
             absl::StrContains(refused.message(), "create a mailbox after the fork");
    };
    if (!blames_the_mailbox(mailbox)) wrong |= 4;
    if (!blames_the_mailbox(unused)) wrong |= 8;
    if (blames_the_mailbox(Mailbox::Create().value())) wrong |= 16;
    balancer_.reset();
    _exit(wrong);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  // The parent has lost nothing.
  EXPECT_TRUE(Readable(mailbox));
  EXPECT_FALSE(port.Claim([](Connection connection) { ServeIndex(3, std::move(connection)); }));
  EXPECT_FALSE(Readable(mailbox));
  EXPECT_EQ(Answer(clients[0]), 3);
}

// --- Mistakes ----------------------------------------------------------------------------------

TEST_F(MailboxTest, RefusesAnEmptyMailboxAndSaysWhy) {
  Mailbox mailbox;
  EXPECT_EQ(mailbox.fd(), -1);
  const absl::Status refused = balancer_->AddWorker(mailbox).status();
  EXPECT_EQ(refused.code(), kInvalid);
  EXPECT_NE(refused.message().find("Mailbox::Create()"), absl::string_view::npos) << refused;
  mailbox = Mailbox::Create().value();
  EXPECT_GE(mailbox.fd(), 0);
  const Mailbox moved = std::move(mailbox);
  EXPECT_TRUE(balancer_->AddWorker(moved).ok());
  EXPECT_EQ(mailbox.fd(), -1);  // NOLINT: what a moved-from mailbox says is documented
  EXPECT_EQ(balancer_->AddWorker(mailbox).status().code(), kInvalid);
}

TEST_F(MailboxTest, RefusesARingOrATagBesideTheMailbox) {
  const Mailbox mailbox = Mailbox::Create().value();
  const auto refused = [&](WorkerOptions options) {
    return balancer_->AddWorker(mailbox, options).status();
  };
  EXPECT_EQ(refused({.ring_fd = mailbox.fd()}).code(), kInvalid);
  EXPECT_EQ(refused({.tag = 1}).code(), kInvalid);
  EXPECT_NE(refused({.tag = 1}).message().find("ring_fd and tag"), absl::string_view::npos);
  EXPECT_TRUE(balancer_->AddWorker(mailbox).ok());
}

// A thread that has made a ring, or entered it to submit, is interrupted when the kernel takes that
// ring apart, within some 50 ms.
TEST_F(MailboxTest, NothingInterruptsTheThreadThatSetsUpAndEnds) {
  std::thread caller([] {
    io_uring ring;
    std::thread([&ring] { ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0); }).join();
    {
      auto balancer = Balancer::Create().value();
      const Mailbox mailbox = Mailbox::Create().value();
      Port on_mailbox = balancer->AddWorker(mailbox).value();
      Port on_ring = balancer->AddWorker({.ring_fd = ring.ring_fd}).value();
      on_ring.Leave();
      const Mailbox unused = Mailbox::Create().value();
    }
    io_uring_queue_exit(&ring);
    const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event;
    EXPECT_EQ(epoll_wait(epoll_fd, &event, 1, 150), 0);
    close(epoll_fd);
  });
  caller.join();
}

// What is set up leaves no locked memory behind that the kernel gives back late.
TEST_F(MailboxTest, SixtyFourFitAtOnceIntoOneMebibyteOfLockedMemory) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can become a user without locked memory in use";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto user = static_cast<uid_t>(1'000'000'000 + getpid());  // nobody's, with a limit
    const rlimit limit{.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    if (setresgid(user, user, user) != 0 || setresuid(user, user, user) != 0 ||
        setrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
      _exit(77);
    }
    auto balancer = Balancer::Create();
    if (!balancer.ok()) _exit(1);
    std::vector<Mailbox> mailboxes;
    std::vector<Port> ports;
    for (int i = 0; i < 64; ++i) {
      auto mailbox = Mailbox::Create();
      if (!mailbox.ok()) _exit(2);
      mailboxes.push_back(*std::move(mailbox));
      auto port = (*balancer)->AddWorker(mailboxes.back());
      if (!port.ok()) _exit(3);
      ports.push_back(*std::move(port));
    }
    _exit(0);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "this user cannot be changed here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(MailboxWithoutIoUring, SaysWhyItCannotBeMade) {
  const std::string why = testing::WhyNoIoUring();
  if (why.empty()) GTEST_SKIP() << "io_uring is there";
  const absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
  ASSERT_FALSE(mailbox.ok());
  EXPECT_NE(mailbox.status().message().find("io_uring"), absl::string_view::npos)
      << mailbox.status();
}

// --- What may be done within a claim -------------------------------------------------------------

// A worker on the test's own thread with a few connections before it, and another one who gets what
// it leaves.
class WithinAClaim : public BalancerTest {
 protected:
  void SetUp() override {
    BalancerTest::SetUp();
    if (IsSkipped()) return;
    // One at a time, or the first claim would not find all.
    source_ = AddSource(listener_, {.policy = RoundRobin(), .recall = false, .permits = false});
    port_ = balancer_->AddWorker(mailbox_).value();
    ASSERT_TRUE(source_.Join(port_).ok());
    for (uint32_t i = 1; i <= kWaiting; ++i) {
      clients_.push_back(listener_.Connect());
      ASSERT_TRUE(Eventually([&] { return balancer_->Stats().workers[0].unclaimed == i; }));
    }
    other_ = AddWorker({source_});
  }
  void TearDown() override {
    other_.reset();
    for (const int client : clients_) close(client);
  }
  bool Readable() const {
    pollfd poll_fd{.fd = mailbox_.fd(), .events = POLLIN, .revents = 0};
    return poll(&poll_fd, 1, 0) == 1;
  }
  // The one that was claimed first; the others are the other worker's.
  void OthersGetTheRest(const std::vector<Connection>& mine) {
    EXPECT_EQ(mine.size(), 1u);
    EXPECT_TRUE(Eventually([&] { return other_->claimed() == kWaiting - 1; }));
  }

  static constexpr uint32_t kWaiting = 4;
  const Listener listener_ = Listener::Tcp();
  Mailbox mailbox_ = Mailbox::Create().value_or(Mailbox());
  Source source_;
  Port port_;
  std::unique_ptr<Worker> other_;
  std::vector<int> clients_;
};

TEST_F(WithinAClaim, ThePortMayLeave) {
  std::vector<Connection> mine;
  EXPECT_FALSE(port_.Claim([&](Connection connection) {
    mine.push_back(std::move(connection));
    port_.Leave();
    EXPECT_FALSE(port_.joined());
  }));
  OthersGetTheRest(mine);
  EXPECT_FALSE(port_.Claim([](Connection) {}));
}

TEST_F(WithinAClaim, ThePortAndItsMailboxMayBeDestroyed) {
  auto port = std::make_unique<Port>(std::move(port_));
  std::vector<Connection> mine;
  EXPECT_FALSE(port->Claim([&](Connection connection) {
    mine.push_back(std::move(connection));
    port.reset();
    mailbox_ = Mailbox();
  }));
  OthersGetTheRest(mine);
}

TEST_F(WithinAClaim, ThePortMayBeAssignedTo) {
  std::vector<Connection> mine;
  EXPECT_FALSE(port_.Claim([&](Connection connection) {
    mine.push_back(std::move(connection));
    const uint32_t before = port_.worker();
    port_ = Port();
    port_ = balancer_->AddWorker(mailbox_).value();
    EXPECT_EQ(port_.worker(), before);
    EXPECT_FALSE(port_.Claim([](Connection) { ADD_FAILURE(); }));
  }));
  OthersGetTheRest(mine);
  ASSERT_TRUE(source_.Join(port_).ok());
  EXPECT_TRUE(port_.joined());
}

TEST_F(WithinAClaim, ThePortMayBeMovedAndTheClaimGoesOn) {
  std::vector<Connection> mine;
  Port moved;
  EXPECT_FALSE(port_.Claim([&](Connection connection) {
    mine.push_back(std::move(connection));
    if (port_.joined()) moved = std::move(port_);
  }));
  EXPECT_EQ(mine.size(), kWaiting);
  EXPECT_TRUE(moved.joined());
  EXPECT_FALSE(Readable());
}

TEST_F(WithinAClaim, AnotherClaimOfTheSamePortDoesNothing) {
  uint32_t served = 0;
  EXPECT_FALSE(port_.Claim([&](Connection) {
    ++served;
    EXPECT_FALSE(port_.Claim([&](Connection) { ADD_FAILURE() << "claimed within a claim"; }));
  }));
  EXPECT_EQ(served, kWaiting);
  EXPECT_FALSE(Readable());
}

TEST_F(WithinAClaim, WhatIsThrownLeavesItAndTheRestIsClaimedByTheNextOne) {
  uint32_t served = 0;
  const auto serve = [&](Connection) {
    if (++served == 1) throw std::runtime_error("cannot serve");
  };
  EXPECT_THROW(port_.Claim(serve), std::runtime_error);
  EXPECT_TRUE(Readable());
  EXPECT_EQ(balancer_->Stats().workers[0].open, kWaiting - 1);
  EXPECT_FALSE(port_.Claim(serve));
  EXPECT_EQ(served, kWaiting);
  EXPECT_FALSE(Readable());
}

TEST_F(WithinAClaim, TheBalancerMayBeDestroyed) {
  std::vector<Connection> mine;
  EXPECT_FALSE(port_.Claim([&](Connection connection) {
    mine.push_back(std::move(connection));
    balancer_.reset();
  }));
  EXPECT_EQ(mine.size(), 1u);
}

}  // namespace
}  // namespace ringmaster
