// Workers whose loops know nothing of io_uring: they watch a mailbox's descriptor with epoll
// (level- and edge-triggered), poll or select, and claim when it is readable. On the real ring,
// with real clients.

#include "ringmaster/mailbox.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

enum class Watching { kLevel, kEdge, kPoll, kSelect };

// Whether `fd` is readable now.
bool Readable(int fd) {
  pollfd watched{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&watched, 1, 0) == 1;
}

// A worker thread with a mailbox.
class MailWorker {
 public:
  MailWorker(Balancer& balancer, std::vector<Source> sources, Watching watching,
             size_t claims_max = SIZE_MAX)
      : mailbox_(Mailbox::Create().value()),
        port_(balancer.AddWorker(mailbox_).value()),
        watching_(watching),
        claims_max_(claims_max),
        stop_fd_(eventfd(0, EFD_CLOEXEC)) {
    for (Source& source : sources) EXPECT_TRUE(source.Join(port_).ok());
    thread_ = std::thread([this] { Run(); });
  }
  ~MailWorker() {
    eventfd_write(stop_fd_, 1);
    thread_.join();
    close(stop_fd_);
  }
  MailWorker(const MailWorker&) = delete;
  MailWorker& operator=(const MailWorker&) = delete;

  uint64_t served() const { return served_; }

 private:
  void Run() {
    const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (const int fd : {mailbox_.fd(), stop_fd_}) {
      const bool edge = watching_ == Watching::kEdge && fd == mailbox_.fd();
      epoll_event event{.events = EPOLLIN | (edge ? EPOLLET : 0u), .data = {.fd = fd}};
      epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
    while (true) {
      const auto [mail, stop] = Wait(epoll_fd);
      if (mail) {
        // Level-triggered, what is left need not be remembered.
        while (Claim() && watching_ == Watching::kEdge) {
        }
      }
      if (stop) break;
    }
    close(epoll_fd);
    port_.Leave();
  }

  bool Claim() {
    return port_.Claim(
        [this](Connection connection) {
          ++served_;
          testing::ServeIndex(port_.worker(), std::move(connection));
        },
        claims_max_);
  }

  // Which of the mailbox and the stop are readable.
  std::pair<bool, bool> Wait(int epoll_fd) {
    if (watching_ == Watching::kPoll) {
      std::array<pollfd, 2> watched = {{{.fd = mailbox_.fd(), .events = POLLIN, .revents = 0},
                                        {.fd = stop_fd_, .events = POLLIN, .revents = 0}}};
      poll(watched.data(), 2, -1);
      return {watched[0].revents != 0, watched[1].revents != 0};
    }
    if (watching_ == Watching::kSelect) {
      fd_set watched;
      FD_ZERO(&watched);
      FD_SET(mailbox_.fd(), &watched);
      FD_SET(stop_fd_, &watched);
      select(std::max(mailbox_.fd(), stop_fd_) + 1, &watched, nullptr, nullptr, nullptr);
      return {FD_ISSET(mailbox_.fd(), &watched), FD_ISSET(stop_fd_, &watched)};
    }
    std::array<epoll_event, 2> events;
    const int count = epoll_wait(epoll_fd, events.data(), 2, -1);
    std::pair<bool, bool> ready{false, false};
    for (int i = 0; i < count; ++i) {
      const bool stop = events[static_cast<size_t>(i)].data.fd == stop_fd_;
      (stop ? ready.second : ready.first) = true;
    }
    return ready;
  }

  Mailbox mailbox_;
  Port port_;
  const Watching watching_;
  const size_t claims_max_;
  const int stop_fd_;
  std::atomic<uint64_t> served_{0};
  std::thread thread_;
};

class MailboxTest : public BalancerTest {
 protected:
  // Ten connections that nobody has claimed.
  std::vector<int> OfferTen(const testing::Listener& listener, const Mailbox& mailbox) {
    std::vector<int> clients;
    for (int i = 0; i < 10; ++i) clients.push_back(listener.Connect());
    EXPECT_TRUE(Eventually(
        [&] { return balancer_->Stats().workers[0].unclaimed == 10 && Readable(mailbox.fd()); }));
    return clients;
  }
};

class EveryLoop : public MailboxTest,
                  public ::testing::WithParamInterface<std::pair<Watching, size_t>> {};

TEST_P(EveryLoop, ServesEveryConnectionOnce) {
  constexpr int kClients = 4;
  constexpr int kConnectionsPerClient = 500;
  const testing::Listener listener = testing::Listener::Tcp();
  Source source = AddSource(listener, {.policy = RoundRobin()});
  const auto [watching, claims_max] = GetParam();
  MailWorker first(*balancer_, {source}, watching, claims_max);
  MailWorker second(*balancer_, {source}, watching, claims_max);
  auto other = AddWorker({source});  // one with a ring beside them
  std::atomic<int> failed{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&] {
      for (int i = 0; i < kConnectionsPerClient; ++i) failed += AskWhoServes(listener) < 0;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed, 0);
  EXPECT_EQ(first.served() + second.served() + other->claimed(), kClients * kConnectionsPerClient);
  EXPECT_GT(first.served(), 0u);
  EXPECT_GT(second.served(), 0u);
}

std::string NameOfLoop(const ::testing::TestParamInfo<std::pair<Watching, size_t>>& instance) {
  constexpr std::array<const char*, 4> kNames = {"level", "edge", "poll", "select"};
  const auto [watching, claims_max] = instance.param;
  return std::string(kNames[static_cast<size_t>(watching)]) +
         (claims_max == SIZE_MAX ? "_all" : "_few_at_a_time");
}

INSTANTIATE_TEST_SUITE_P(
    Loops, EveryLoop,
    ::testing::Values(std::pair(Watching::kLevel, SIZE_MAX), std::pair(Watching::kLevel, 1),
                      std::pair(Watching::kEdge, SIZE_MAX), std::pair(Watching::kEdge, 1),
                      std::pair(Watching::kPoll, 2), std::pair(Watching::kSelect, 2)),
    NameOfLoop);

TEST_F(MailboxTest, StaysReadableUntilEverythingIsClaimedAndIsQuietThen) {
  const testing::Listener listener = testing::Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  const Mailbox mailbox = Mailbox::Create().value();
  EXPECT_FALSE(Readable(mailbox.fd()));
  Port port = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(port).ok());
  const std::vector<int> clients = OfferTen(listener, mailbox);
  std::vector<Connection> open;
  for (int i = 0; i < 9; ++i) {
    EXPECT_TRUE(
        port.Claim([&](Connection connection) { open.push_back(std::move(connection)); }, 1));
    EXPECT_TRUE(Readable(mailbox.fd()));
  }
  EXPECT_FALSE(
      port.Claim([&](Connection connection) { open.push_back(std::move(connection)); }, 1));
  EXPECT_EQ(open.size(), 10u);
  EXPECT_FALSE(Readable(mailbox.fd()));
  for (const int client : clients) close(client);
}

// A worker that never empties its inbox is told again and again; its queue must not fill up.
TEST_F(MailboxTest, KeepsOneDoorbellHoweverOftenAClaimStopsEarly) {
  const testing::Listener listener = testing::Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox, {.window = 1024}).value();
  ASSERT_TRUE(source.Join(port).ok());
  std::vector<int> clients = OfferTen(listener, mailbox);
  uint64_t served = 0;
  const auto serve = [&](Connection) { ++served; };
  for (uint64_t i = 0; i < 200; ++i) {
    EXPECT_TRUE(port.Claim(serve, 1));
    clients.push_back(listener.Connect());
    ASSERT_TRUE(Eventually([&] { return balancer_->Stats().accepted == 11 + i; }));
  }
  EXPECT_GE(balancer_->Stats().workers[0].doorbells, 200u);  // far more than its queue has room for
  EXPECT_TRUE(Readable(mailbox.fd()));
  EXPECT_FALSE(port.Claim(serve));
  EXPECT_EQ(served, 210u);
  EXPECT_FALSE(Readable(mailbox.fd()));
  for (const int client : clients) close(client);
}

// How many system calls this thread has been kept from making, and the last one.
thread_local volatile int trapped_calls = 0;
thread_local volatile int trapped_call = -1;

void OnTrap(int, siginfo_t* info, void*) {
  trapped_calls = trapped_calls + 1;
  trapped_call = info->si_syscall;
}

// From now on every system call of this thread but those that a thread needs to end is trapped. The
// vDSO, which tells the CPU and the time, makes none.
bool TrapSystemCalls() {
  struct sigaction action {};
  action.sa_sigaction = OnTrap;
  action.sa_flags = SA_SIGINFO;
  if (sigaction(SIGSYS, &action, nullptr) != 0) return false;
  constexpr std::array kAllowed = {SYS_exit,           SYS_madvise,      SYS_munmap,
                                   SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_futex};
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (size_t i = 0; i < kAllowed.size(); ++i) {
    const auto to_allow = static_cast<uint8_t>(kAllowed.size() - i);
    program.push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(kAllowed[i]), to_allow, 0));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{.len = static_cast<unsigned short>(program.size()),
                          .filter = program.data()};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST_F(MailboxTest, ClaimMakesNoSystemCall) {
#ifdef RINGMASTER_TEST_SANITIZED
  GTEST_SKIP() << "a sanitizer makes system calls of its own";
#endif
  const testing::Listener listener = testing::Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(port).ok());
  const std::vector<int> clients = OfferTen(listener, mailbox);
  std::array<int, 10> fds{};
  std::array<Lease, 10> leases;
  size_t served = 0;
  int calls = -1;
  int call = -1;
  int noticed = 0;
  std::thread worker([&] {
    const auto serve = [&](Connection connection) {
      fds[served] = connection.TakeFd();
      leases[served++] = connection.TakeLease();
    };
    if (!TrapSystemCalls()) return;
    for (int i = 0; i < 4; ++i) port.Claim(serve, 2);
    port.Claim(serve);
    calls = trapped_calls;
    call = trapped_call;
    getppid();  // guards the above: a call is noticed
    noticed = trapped_calls - calls;
  });
  worker.join();
  EXPECT_EQ(served, 10u);
  EXPECT_EQ(calls, 0) << "system call " << call;
  EXPECT_EQ(noticed, 1);
  EXPECT_FALSE(Readable(mailbox.fd()));
  for (const int fd : fds) close(fd);
  for (const int client : clients) close(client);
}

TEST_F(MailboxTest, ServesOnePortAtATime) {
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  EXPECT_EQ(balancer_->AddWorker(mailbox).status().code(), absl::StatusCode::kFailedPrecondition);
  port.Leave();
  EXPECT_TRUE(balancer_->AddWorker(mailbox).ok());
}

TEST_F(MailboxTest, RefusesWhatAMailboxHasNoUseFor) {
  const Mailbox mailbox = Mailbox::Create().value();
  for (const WorkerOptions& options :
       {WorkerOptions{.ring_fd = 5}, WorkerOptions{.tag = 5},
        WorkerOptions{.handoff = Handoff::kCompletion}, WorkerOptions{.window = 0}}) {
    EXPECT_EQ(balancer_->AddWorker(mailbox, options).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(balancer_->AddWorker(mailbox).ok());  // it has not been taken meanwhile
  Mailbox moved = Mailbox::Create().value();
  const Mailbox to = std::move(moved);
  EXPECT_EQ(moved.fd(), -1);
  EXPECT_EQ(balancer_->AddWorker(moved).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(balancer_->AddWorker(Mailbox()).status().code(), absl::StatusCode::kInvalidArgument);
}

// A loop that goes on watching after its port has left must not spin.
TEST_F(MailboxTest, IsQuietOnceItsPortHasLeft) {
  const testing::Listener listener = testing::Listener::Tcp();
  Source source = AddSource(listener);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(port).ok());
  const std::vector<int> clients = OfferTen(listener, mailbox);
  port.Leave();
  EXPECT_FALSE(Readable(mailbox.fd()));
  auto heir = AddWorker({source});
  for (const int client : clients) {
    char byte = 0;
    EXPECT_EQ(read(client, &byte, 1), 1);
    close(client);
  }
}

TEST_F(MailboxTest, MailboxPortLeaseAndBalancerMayEndInAnyOrder) {
  const testing::Listener listener = testing::Listener::Tcp();
  std::array<int, 4> order = {0, 1, 2, 3};
  do {
    Create({});
    Source source = AddSource(listener);
    auto mailbox = std::make_unique<Mailbox>(Mailbox::Create().value());
    auto port = std::make_unique<Port>(balancer_->AddWorker(*mailbox).value());
    ASSERT_TRUE(source.Join(*port).ok());
    const int client = listener.Connect();
    auto connection = std::make_unique<Connection>();
    ASSERT_TRUE(Eventually([&] {
      port->Claim([&](Connection claimed) { *connection = std::move(claimed); });
      return connection->fd() >= 0;
    }));
    for (const int end : order) {
      if (end == 0) mailbox.reset();
      if (end == 1) port.reset();
      if (end == 2) connection.reset();
      if (end == 3) balancer_.reset();
    }
    close(client);
  } while (std::next_permutation(order.begin(), order.end()));
}

// The memory of the ring is shared with a forked child, which must not take the parent's doorbells.
TEST_F(MailboxTest, AForkedChildTakesNoDoorbell) {
  const testing::Listener listener = testing::Listener::Tcp();
  Source source = AddSource(listener, {.recall = false});
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer_->AddWorker(mailbox).value();
  ASSERT_TRUE(source.Join(port).ok());
  const std::vector<int> clients = OfferTen(listener, mailbox);
  const pid_t child = fork();
  if (child == 0) {
    const bool left = port.Claim([](Connection) { _exit(1); });
    _exit(left ? 2 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(Readable(mailbox.fd()));
  int served = 0;
  port.Claim([&](Connection) { ++served; });
  EXPECT_EQ(served, 10);
  EXPECT_FALSE(Readable(mailbox.fd()));
  for (const int client : clients) close(client);
}

}  // namespace
}  // namespace ringmaster
