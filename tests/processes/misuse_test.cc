// WorkerProcesses used in odd orders and wrongly: what is refused is refused in words, and leaves
// everything as it was. Method: as in worker_processes_test.cc. What fails in a child, the child
// says by its exit status.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "process_server.h"
#include "ringmaster/processes.h"
#include "support/seccomp.h"
#include "worker_processes_fixture.h"

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kName[] = "RINGMASTER_PROCESSES";

void ExpectSays(const absl::Status& status, const std::string& part) {
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_NE(status.message().find(part), std::string::npos) << status;
}

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

bool ReadableWithin(int fd, int timeout_ms) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&one, 1, timeout_ms) == 1;
}

class MisuseTest : public WorkerProcessesTest {
 protected:
  // In a child, which must not fail.
  void InChild(const std::function<void()>& what) {
    const pid_t pid = Fork([&] {
      what();
      _exit(::testing::Test::HasFailure());
    });
    EXPECT_EQ(Collect(pid), 0);
    std::erase(pids_, pid);
  }
  void SetVariable() { setenv(kName, workers_->Variable().c_str() + sizeof(kName), 1); }
  // A worker that greets its clients, and writes a byte each time that it has been woken.
  void AnswerAndTell(int told) {
    auto port = workers_->Join();
    if (!port.ok()) _exit(1);
    while (true) {
      port->BeforeWait();
      ReadableWithin(port->sight(), -1);
      port->AfterWait(true);
      port->Claim([](ProcessConnection connection) {
        static_cast<void>(send(connection.fd(), "!", 1, MSG_NOSIGNAL));
      });
      static_cast<void>(write(told, "", 1));
    }
  }
  // The next connection, of a client that waits already.
  static ProcessConnection ClaimOne(ProcessPort& port) {
    ProcessConnection claimed;
    for (const auto until = Clock::now() + kSoon; claimed.fd() < 0 && Clock::now() < until;) {
      port.BeforeWait();
      ReadableWithin(port.sight(), 1'000);
      port.AfterWait();
      port.Claim([&](ProcessConnection connection) { claimed = std::move(connection); }, 1);
    }
    return claimed;
  }
};

// --- Inherit and Join where they make no sense ---------------------------------------------------

TEST_F(MisuseTest, InheritInTheParentIsRefusedAndLeavesItAsItWas) {
  Create();
  SetVariable();
  ExpectSays(ProcessPort::Inherit().status(), "in the parent");
  for (const int fd : workers_->Descriptors()) EXPECT_TRUE(IsOpen(fd)) << fd;
  StartWorkers(2);
  EXPECT_NE(AskOnce(listener_).pid, 0);
}

TEST_F(MisuseTest, InheritInAWorkerIsRefusedAndLeavesItAsItWas) {
  Create();
  SetVariable();
  const int client = listener_.Connect();
  InChild([&] {
    auto port = workers_->Join();
    ASSERT_TRUE(port.ok()) << port.status();
    ExpectSays(ProcessPort::Inherit().status(), "joined before");
    EXPECT_TRUE(IsOpen(port->sight()));
    EXPECT_GE(ClaimOne(*port).fd(), 0);
  });
  close(client);
}

TEST_F(MisuseTest, InheritThatFindsNoPlaceMayBeTriedAgain) {
  Create({.workers_max = 1});
  SetVariable();
  const pid_t first = StartWorker();
  ASSERT_TRUE(HaveJoined(1));
  std::array<int, 2> refused{};
  std::array<int, 2> again{};
  ASSERT_EQ(pipe(refused.data()), 0);
  ASSERT_EQ(pipe(again.data()), 0);
  char byte = 0;
  const pid_t second = Fork([&] {
    EXPECT_EQ(ProcessPort::Inherit().status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(write(refused[1], "", 1), 1);
    EXPECT_EQ(read(again[0], &byte, 1), 1);
    const auto port = ProcessPort::Inherit();
    EXPECT_TRUE(port.ok()) << port.status();
    _exit(::testing::Test::HasFailure());
  });
  EXPECT_EQ(read(refused[0], &byte, 1), 1);
  Kill(first);
  EXPECT_EQ(write(again[1], "", 1), 1);
  EXPECT_EQ(Collect(second), 0);
  std::erase(pids_, second);
  for (const int fd : {refused[0], refused[1], again[0], again[1]}) close(fd);
}

TEST_F(MisuseTest, AForkedChildOfAWorkerHasAnEmptyPort) {
  Create();
  const int client = listener_.Connect();
  InChild([&] {
    auto port = workers_->Join();
    ASSERT_TRUE(port.ok()) << port.status();
    ProcessConnection connection = ClaimOne(*port);
    const pid_t child = fork();
    if (child == 0) {
      EXPECT_FALSE(port->joined());
      EXPECT_EQ(port->sight(), -1);
      EXPECT_TRUE(port->draining());
      EXPECT_FALSE(port->parent_gone());
      port->BeforeWait();
      EXPECT_FALSE(port->AfterWait(true));
      connection = {};
      *port = {};
      _exit(::testing::Test::HasFailure());
    }
    EXPECT_EQ(Collect(child), 0);
    EXPECT_TRUE(port->joined());
    EXPECT_TRUE(IsOpen(port->sight()));
    EXPECT_TRUE(IsOpen(connection.fd()));
    port->Leave();
    // Its descriptors are closed in whoever is forked from now on.
    const pid_t late = fork();
    if (late == 0) {
      ExpectSays(workers_->Join().status(), "closed");
      _exit(::testing::Test::HasFailure());
    }
    EXPECT_EQ(Collect(late), 0);
  });
  close(client);
}

TEST_F(MisuseTest, WhoeverIsForkedFromAWorkerThatIsGivenConnectionsDoesNotJoin) {
  Create({.workers_max = 2, .given_max = 1});
  InChild([&] {
    const auto port = workers_->Join();
    ASSERT_TRUE(port.ok()) << port.status();
    const pid_t child = fork();
    if (child == 0) {
      ExpectSays(workers_->Join().status(), "forked from a worker");
      _exit(::testing::Test::HasFailure());
    }
    EXPECT_EQ(Collect(child), 0);
  });
}

// A child that closes what it does not know (a daemon's habit), or has something else there now.
TEST_F(MisuseTest, DescriptorsThatAreSomethingElseNowAreNamed) {
  Create({.workers_max = 2});
  SetVariable();
  std::array<int, 2> other{};
  ASSERT_EQ(pipe2(other.data(), O_NONBLOCK), 0);
  for (const int fd : workers_->Descriptors()) {
    InChild([&] {
      close(fd);
      ExpectSays(workers_->Join().status(), "descriptor " + std::to_string(fd));
      ExpectSays(ProcessPort::Inherit().status(), "descriptor " + std::to_string(fd));
    });
    // Both ends: one is never readable, and into the other one something could be written.
    for (const int end : other) {
      InChild([&] {
        dup2(end, fd);
        ExpectSays(workers_->Join().status(), "descriptor " + std::to_string(fd));
        ExpectSays(ProcessPort::Inherit().status(), "descriptor " + std::to_string(fd));
      });
    }
  }
  EXPECT_FALSE(ReadableWithin(other[0], 0));
  for (const int end : other) close(end);
}

TEST_F(MisuseTest, AVariableThatIsDamagedIsRefused) {
  Create({.workers_max = 2});
  const std::string value = workers_->Variable().substr(sizeof(kName));
  InChild([&] {
    std::vector<std::string> damaged;
    for (size_t i = 0; i < value.size(); ++i) {
      for (const char now : {'0', '9', ',', '-', 'x', ' '}) {
        if (value[i] == now) continue;
        damaged.push_back(value);
        damaged.back()[i] = now;
      }
      damaged.push_back(value.substr(0, i));
      damaged.push_back(value.substr(i + 1));
      damaged.push_back(value.substr(0, i) + value.substr(i + 1));
    }
    for (const char* const more : {"0", ",", ",0", " "}) damaged.push_back(value + more);
    for (const std::string& it : damaged) {
      setenv(kName, it.c_str(), 1);
      const absl::Status status = ProcessPort::Inherit().status();
      ASSERT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << it << ": " << status;
    }
    setenv(kName, value.c_str(), 1);
    EXPECT_TRUE(ProcessPort::Inherit().ok());
  });
}

TEST_F(MisuseTest, AVariableOfAfterTheEndIsRefusedAsSuch) {
  Create();
  workers_->BeginShutdown();
  SetVariable();
  InChild([&] { ExpectSays(ProcessPort::Inherit().status(), "BeginShutdown"); });
}

// --- Listeners -----------------------------------------------------------------------------------

TEST_F(MisuseTest, NoMoreThanSixteenListenersAreTaken) {
  Create();
  std::vector<std::unique_ptr<ProcessListener>> more;
  for (int i = 1; i < 16; ++i) {
    more.push_back(std::make_unique<ProcessListener>());
    EXPECT_TRUE(workers_->AddListener(more.back()->fd()).ok());
  }
  const size_t descriptors = OpenDescriptors();
  const ProcessListener last;
  const absl::Status status = workers_->AddListener(last.fd());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(OpenDescriptors(), descriptors + 1);
  StartWorkers(2);
  for (const auto& listener : more) EXPECT_NE(AskOnce(*listener).pid, 0);
}

TEST_F(MisuseTest, WhatIsNoStreamListenerIsRefused) {
  Create();
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    const int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const sockaddr_un anywhere{.sun_family = AF_UNIX, .sun_path = {}};
    bind(fd, reinterpret_cast<const sockaddr*>(&anywhere), sizeof(sa_family_t));
    static_cast<void>(listen(fd, 1));
    EXPECT_EQ(workers_->AddListener(fd).code(), absl::StatusCode::kInvalidArgument);
    close(fd);
  }
}

// A worker that was forked before a listener was added cannot accept from it, so it must not be
// woken by it either.
TEST_F(MisuseTest, WhoeverDoesNotHaveAListenerIsNotWokenByIt) {
  Create();
  const ProcessListener second;
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  Fork([&] { AnswerAndTell(ends[1]); });
  ASSERT_TRUE(HaveJoined(1));
  ASSERT_TRUE(workers_->AddListener(second.fd()).ok());
  const int client = second.Connect();
  // Longer than after which the keeper shows everything to everybody.
  std::this_thread::sleep_for(milliseconds(300));
  // It serves the other one as before.
  const int served = listener_.Connect();
  char byte = 0;
  EXPECT_EQ(recv(served, &byte, 1, 0), 1);
  std::array<char, 4096> woken{};
  EXPECT_LT(read(ends[0], woken.data(), woken.size()), 20);
  for (const int fd : {client, served, ends[0], ends[1]}) close(fd);
}

// Somebody who has it calls shutdown(2), which is how some programs stop. A Unix listener is
// readable for ever then, and says that nobody waits.
TEST_F(MisuseTest, AListenerThatWasShutDownWakesNobody) {
  Create({.workers_max = 2, .own_thread = false});
  const int unix_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  auto* const at = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(unix_fd, at, sizeof(sa_family_t)), 0);
  ASSERT_EQ(getsockname(unix_fd, at, &length), 0);
  ASSERT_EQ(listen(unix_fd, 16), 0);
  ASSERT_TRUE(workers_->AddListener(unix_fd).ok());
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe2(ends.data(), O_NONBLOCK), 0);
  for (int i = 0; i < 2; ++i) {
    Fork([&] { AnswerAndTell(ends[1]); });
  }
  int turns = 0;
  const auto drive = [&](milliseconds time) {
    turns = 0;
    for (const auto until = Clock::now() + time; Clock::now() < until;) {
      if (!ReadableWithin(workers_->fd(), 1)) continue;
      workers_->RunOnce();
      ++turns;
    }
  };
  ASSERT_TRUE(Becomes([&] { return workers_->RunOnce(), Living().size() == 2; }));
  // Both serve.
  const int by_unix = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(connect(by_unix, at, length), 0);
  const int by_tcp = listener_.Connect();
  for (const int fd : {by_unix, by_tcp}) {
    EXPECT_TRUE(Becomes([&] { return drive(milliseconds(1)), ReadableWithin(fd, 0); }));
  }
  for (const int fd : {unix_fd, listener_.fd()}) ASSERT_EQ(shutdown(fd, SHUT_RDWR), 0);
  // Until the keeper has no more to look after.
  drive(milliseconds(1'200));
  std::vector<char> woken(1 << 16);
  while (read(ends[0], woken.data(), woken.size()) > 0) continue;
  drive(milliseconds(300));
  EXPECT_LT(turns, 10);
  EXPECT_LT(read(ends[0], woken.data(), woken.size()), 10);
  for (const int fd : {unix_fd, by_unix, by_tcp, ends[0], ends[1]}) close(fd);
}

// --- Descriptors that are missing ----------------------------------------------------------------

TEST_F(MisuseTest, WithTooFewDescriptorsNothingIsLeftOpen) {
  const size_t descriptors = OpenDescriptors();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const int highest = dup(0);
  close(highest);
  int refused = 0;
  for (int more = 0; workers_ == nullptr && more < 100; ++more) {
    const rlimit few{.rlim_cur = static_cast<rlim_t>(highest + more), .rlim_max = before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    auto workers = WorkerProcesses::Create({.workers_max = 2});
    absl::Status status = workers.status();
    if (workers.ok()) status = (*workers)->AddListener(listener_.fd());
    if (status.ok()) workers_ = *std::move(workers);
    workers = absl::UnknownError("");
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    if (status.ok()) break;
    EXPECT_NE(status.message().find("ulimit -n"), std::string::npos) << status;
    EXPECT_EQ(OpenDescriptors(), descriptors) << status;
    ++refused;
  }
  EXPECT_GE(refused, 9);
  ASSERT_NE(workers_, nullptr);
  StartWorkers(2);
  EXPECT_NE(AskOnce(listener_).pid, 0);
}

// --- Ports and leases ----------------------------------------------------------------------------

TEST_F(MisuseTest, WhatServeDoesToThePortIsAllowed) {
  Create();
  std::vector<int> clients;
  for (int i = 0; i < 8; ++i) clients.push_back(listener_.Connect());
  InChild([&] {
    auto joined = workers_->Join();
    ASSERT_TRUE(joined.ok()) << joined.status();
    ProcessPort port = *std::move(joined);
    port.BeforeWait();
    // It throws, and goes on.
    ASSERT_TRUE(ReadableWithin(port.sight(), 10'000));
    EXPECT_THROW(port.Claim([](ProcessConnection) { throw std::runtime_error("no"); }),
                 std::runtime_error);
    // It claims and waits within.
    EXPECT_GE(ClaimOne(port).fd(), 0);
    port.Claim(
        [&](ProcessConnection) {
          EXPECT_FALSE(port.Claim([](ProcessConnection) { ADD_FAILURE(); }));
          EXPECT_FALSE(port.AfterWait());
          port.BeforeWait();
        },
        1);
    // It moves the port, and to itself.
    ProcessPort moved;
    for (bool done = false; !done;) {
      port.BeforeWait();
      ReadableWithin(port.sight(), 1'000);
      port.Claim([&](ProcessConnection) { moved = std::move(port), done = true; }, 1);
    }
    ProcessPort& same = moved;
    moved = std::move(same);
    EXPECT_FALSE(port.joined());
    EXPECT_EQ(port.sight(), -1);
    ASSERT_TRUE(moved.joined());
    // It destroys the port.
    auto last = std::make_unique<ProcessPort>(std::move(moved));
    ProcessLease kept;
    while (last != nullptr) {
      last->BeforeWait();
      ReadableWithin(last->sight(), 1'000);
      EXPECT_FALSE(last->Claim([&](ProcessConnection connection) {
        kept = connection.TakeLease();
        last.reset();
      }));
    }
    EXPECT_TRUE(kept.held());
    workers_.reset();
    kept.Release();
    EXPECT_FALSE(kept.held());
    kept.Release();
  });
  for (const int fd : clients) close(fd);
  EXPECT_TRUE(Becomes([&] { return workers_->Stats().gone == 1; }));
  EXPECT_EQ(workers_->Stats().gone_open, 0u);
}

// Threads release at once, also after the port has left.
TEST_F(MisuseTest, LeasesThatThreadsReleaseAtOnceAreAllCounted) {
  // Whose child may start threads, with ThreadSanitizer too, has none itself.
  Create({.own_thread = false});
  for (int round = 0; round < 5; ++round) {
    std::vector<int> clients;
    for (int i = 0; i < 200; ++i) clients.push_back(listener_.Connect());
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe(ends.data()), 0);
    const pid_t worker = Fork([&] {
      auto port = workers_->Join();
      if (!port.ok()) _exit(1);
      std::vector<ProcessConnection> connections;
      while (connections.size() < clients.size()) connections.push_back(ClaimOne(*port));
      port->Leave();
      std::vector<std::thread> threads;
      std::atomic<int> ready{0};
      for (size_t i = 0; i < 4; ++i) {
        threads.emplace_back([&, i] {
          ++ready;
          while (ready.load() != 4) continue;
          for (size_t at = i; at < connections.size(); at += 4) {
            connections[at].TakeLease().Release();
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
      static_cast<void>(write(ends[1], "", 1));
      pause();
    });
    char byte = 0;
    close(ends[1]);
    EXPECT_EQ(read(ends[0], &byte, 1), 1);
    close(ends[0]);
    EXPECT_TRUE(Becomes([&] { return workers_->RunOnce(), Living().contains(worker); }));
    EXPECT_EQ(Living()[worker].open, 0u);
    EXPECT_EQ(Living()[worker].accepted, clients.size());
    Kill(worker);
    for (const int fd : clients) close(fd);
    EXPECT_TRUE(Becomes([&] { return workers_->RunOnce(), Living().empty(); }));
  }
}

// --- The parent's death --------------------------------------------------------------------------

// A worker that has a permit for whoever comes next is woken by something else.
TEST_F(MisuseTest, AnIdleWorkerHearsThatTheParentHasDied) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  const pid_t parent = Fork([&] {
    Create();
    const pid_t worker = fork();
    if (worker == 0) {
      alarm(kProcessSecondsMax);
      auto port = workers_->Join();
      const pid_t self = getpid();
      if (!port.ok() || write(ends[1], &self, sizeof(self)) != sizeof(self)) _exit(1);
      for (int wakes = 0; wakes < 50; ++wakes) {
        port->BeforeWait();
        ReadableWithin(port->sight(), -1);
        port->AfterWait(true);
        port->Claim([](ProcessConnection) {});
        if (port->parent_gone()) _exit(0);
      }
      _exit(2);
    }
    pause();
  });
  pid_t worker = 0;
  ASSERT_EQ(read(ends[0], &worker, sizeof(worker)), static_cast<ssize_t>(sizeof(worker)));
  Kill(parent);
  EXPECT_EQ(Collect(worker), 0);
  for (const int fd : ends) close(fd);
}

// --- What the keeper cannot watch ----------------------------------------------------------------

// A user may watch only so many descriptors. The worker of whom nobody would hear lives all the
// same.
TEST_F(MisuseTest, AWorkerThatCannotBeWatchedIsNotTakenForDead) {
  const pid_t parent = Fork([this] {
    Create({.own_thread = false});
    int ends[2];
    if (pipe(ends) != 0) _exit(1);
    char byte = 0;
    const pid_t worker = fork();
    if (worker == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const auto port = workers_->Join();
      if (!port.ok() || write(ends[1], "j", 1) != 1) _exit(1);
      pause();
    }
    if (read(ends[0], &byte, 1) != 1) _exit(1);
    // From now on epoll_ctl adds nothing.
    const sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_ctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, EPOLL_CTL_ADD, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSPC),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (InstallFilter(filter) != 0) _exit(77);
    // It looks at once, and again after a while.
    for (int i = 0; i < 3; ++i) {
      if (!ReadableWithin(workers_->fd(), kProcessSecondsMax * 1000)) _exit(2);
      workers_->RunOnce();
      if (workers_->Stats().gone != 0) _exit(3);
    }
    _exit(0);
  });
  const int status = Collect(parent);
  std::erase(pids_, parent);
  if (status == 77) GTEST_SKIP() << "system calls cannot be filtered here";
  EXPECT_EQ(status, 0);
}

// --- Threads of the parent -----------------------------------------------------------------------

TEST_F(MisuseTest, ThreadsOfTheParentMayCallEverythingAtOnce) {
  Create();
  std::vector<std::unique_ptr<ProcessListener>> more;
  for (int i = 1; i < 16; ++i) more.push_back(std::make_unique<ProcessListener>());
  std::atomic<bool> end{false};
  std::thread asks([&] {
    while (!end.load()) {
      EXPECT_FALSE(workers_->Variable().empty());
      EXPECT_GE(workers_->Descriptors().size(), 20u);
      workers_->Stats();
    }
  });
  for (const auto& listener : more) {
    EXPECT_TRUE(workers_->AddListener(listener->fd()).ok());
    std::this_thread::yield();
  }
  workers_->BeginShutdown();
  end.store(true);
  asks.join();
}

}  // namespace
}  // namespace ringmaster::testing
