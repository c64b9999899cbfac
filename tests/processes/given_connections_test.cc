// Connections that a parent gives to worker processes, with real processes. Method: workers answer
// with their process, so clients see who serves them, and count what becomes of them.
// RINGMASTER_TEST_SECONDS says how long the long ones last.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "process_server.h"
#include "ringmaster/processes.h"
#include "support/split_mix.h"
#include "worker_processes_fixture.h"

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;

int OptionOf(int fd, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

// How many descriptors of this process are so.
size_t CountDescriptors(const std::function<bool(int)>& what) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    if (what(std::atoi(entry.path().filename().c_str()))) ++count;
  }
  return count;
}

bool IsConnection(int fd) {
  sockaddr_in peer{};
  socklen_t length = sizeof(peer);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) == 0 &&
         peer.sin_family == AF_INET;
}

class GivenConnectionsTest : public WorkerProcessesTest {
 protected:
  // As what the parent has accepted itself: the client's end, and the one to give.
  std::pair<int, int> Pair() {
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const timeval patience{.tv_sec = 10, .tv_usec = 0};
    setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    clients_.push_back(pair[0]);
    return {pair[0], pair[1]};
  }
  // Gives one, and asks. Not waiting for the answer is the caller's choice.
  int GiveOne(uint64_t token = 0) {
    const auto [client, given] = Pair();
    const absl::Status status = workers_->Give(given, token);
    EXPECT_TRUE(status.ok()) << status;
    return client;
  }
  uint64_t Unclaimed() const {
    uint64_t unclaimed = workers_->Stats().held;
    for (const WorkerProcessStats& worker : workers_->Stats().workers)
      unclaimed += worker.unclaimed;
    return unclaimed;
  }
};

TEST_F(GivenConnectionsTest, EachWorkerGetsEquallyManyAndTheParentCounts) {
  for (const char* const policy : {"least-loaded", "round-robin"}) {
    Create({.policy = policy, .given_max = 8});
    StartWorkers(4);
    if (HasFatalFailure()) return;
    ExpectEven(4, 8);
    uint64_t given = 0;
    for (const auto& [pid, worker] : Living()) {
      EXPECT_EQ(worker.given, worker.accepted);
      given += worker.given;
    }
    EXPECT_EQ(given, workers_->Stats().given);
    EXPECT_EQ(Unclaimed(), 0u);
    LetGo();
    for (const pid_t pid : std::exchange(pids_, {})) {
      kill(pid, SIGKILL);
      Collect(pid);
    }
  }
}

TEST_F(GivenConnectionsTest, AWorkerHasNeitherTheListenerNorWhatIsForOthers) {
  Create({.given_max = 8});
  // Some lie with places, and some are held.
  for (int i = 0; i < 3; ++i) clients_.push_back(listener_.Connect());
  GiveOne();
  Fork([&] {
    close(listener_.fd());
    for (const int fd : clients_) close(fd);
    const auto port = workers_->Join();
    EXPECT_TRUE(port.ok()) << port.status();
    EXPECT_EQ(CountDescriptors([](int fd) { return OptionOf(fd, SO_ACCEPTCONN) == 1; }), 0u);
    EXPECT_EQ(CountDescriptors([](int fd) { return OptionOf(fd, SO_TYPE) == SOCK_SEQPACKET; }), 1u);
    EXPECT_EQ(CountDescriptors([](int fd) { return OptionOf(fd, SO_TYPE) == SOCK_STREAM; }), 0u);
    _exit(::testing::Test::HasFailure());
  });
  EXPECT_EQ(Collect(std::exchange(pids_, {})[0]), 0);
}

TEST_F(GivenConnectionsTest, WhatIsGivenBringsItsTokenAndListenersGoOnBesides) {
  WorkerProcessesOptions options{.given_max = 4};
  auto workers = WorkerProcesses::Create(std::move(options));
  ASSERT_TRUE(workers.ok()) << workers.status();
  workers_ = *std::move(workers);
  ASSERT_TRUE(workers_->AddListener(listener_.fd(), 1).ok());
  const ProcessListener second;
  ASSERT_TRUE(workers_->AcceptAndGive(second.fd(), 2).ok());
  Fork([&] {
    auto port = workers_->Join();
    if (!port.ok()) _exit(1);
    while (true) {
      port->BeforeWait();
      pollfd sight{.fd = port->sight(), .events = POLLIN, .revents = 0};
      poll(&sight, 1, -1);
      port->AfterWait(true);
      // One at a time: neither kind may keep the other waiting.
      port->Claim(
          [](ProcessConnection connection) {
            EXPECT_NE(fcntl(connection.fd(), F_GETFL) & O_NONBLOCK, 0);
            EXPECT_NE(fcntl(connection.fd(), F_GETFD) & FD_CLOEXEC, 0);
            const char token = static_cast<char>('0' + connection.token());
            static_cast<void>(send(connection.fd(), &token, 1, MSG_NOSIGNAL));
          },
          1);
    }
  });
  for (int i = 0; i < 4; ++i) {
    std::vector<std::pair<int, char>> asked;
    for (int each = 0; each < 3; ++each) {
      asked.emplace_back(listener_.Connect(), '1');
      asked.emplace_back(second.Connect(), '2');
      asked.emplace_back(GiveOne(3), '3');
    }
    for (const auto& [fd, token] : asked) {
      char got = 0;
      EXPECT_EQ(recv(fd, &got, 1, 0), 1) << strerror(errno);
      EXPECT_EQ(got, token);
    }
    for (const auto& [fd, token] : asked) {
      if (token != '3') close(fd);
    }
  }
}

// By the first byte of the peer's address; nobody else will do.
class ByPeer final : public Policy {
 public:
  std::string name() const override { return "by-peer"; }
  FactsNeeded facts() const override { return {.peer = true}; }
  size_t Pick(const Arrival& arrival, const View& view) override {
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      if (view.candidates[i].worker == arrival.peer.address[0]) return i;
    }
    return kNobodyNow;
  }
};

TEST_F(GivenConnectionsTest, APolicySeesWhoConnectsOrWhatTheParentKnowsBetter) {
  Create({.workers_max = 4, .given_max = 4, .give_policy = std::make_unique<ByPeer>()});
  std::vector<pid_t> by_place;
  for (size_t i = 0; i < 3; ++i) {
    by_place.push_back(StartWorker());
    ASSERT_TRUE(HaveJoined(i + 1));
  }
  for (int i = 0; i < 9; ++i) {
    const auto [client, given] = Pair();
    Arrival facts;
    facts.peer.address[0] = static_cast<uint8_t>(i % 3);
    ASSERT_TRUE(workers_->Give(given, 0, facts).ok());
    EXPECT_EQ(Ask(client).pid, by_place[static_cast<size_t>(i) % 3]);
  }
  // 127.0.0.1 belongs to nobody here.
  clients_.push_back(listener_.Connect());
  EXPECT_TRUE(Becomes([&] { return workers_->Stats().held == 1; }));
}

TEST_F(GivenConnectionsTest, WhatNobodyHasRoomForIsHeldAndTheRestWaitsInTheBacklog) {
  Create({.given_max = 2, .held_max = 3});
  std::vector<int> asked;
  for (int i = 0; i < 3; ++i) asked.push_back(GiveOne());
  const auto [client, given] = Pair();
  const absl::Status full = workers_->Give(given);
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_EQ(fcntl(given, F_GETFD), FD_CLOEXEC);
  close(given);
  for (int i = 0; i < 20; ++i) {
    asked.push_back(listener_.Connect());
    clients_.push_back(asked.back());
  }
  EXPECT_EQ(workers_->Stats().held, 3u);
  for (const int fd : asked) ASSERT_EQ(send(fd, "?", 1, MSG_NOSIGNAL), 1);
  StartWorker();
  for (const int fd : asked) {
    char byte = 0;
    EXPECT_EQ(recv(fd, &byte, 1, 0), 1) << strerror(errno);
  }
  EXPECT_EQ(Unclaimed(), 0u);
}

// One is killed every 100 ms and replaced, while 2,000 clients come in a second.
TEST_F(GivenConnectionsTest, KilledOneAfterTheOtherTheyLoseOnlyWhatTheyHadClaimed) {
  Create({.given_max = 8});
  StartWorkers(4);
  if (HasFatalFailure()) return;
  ClientLoad load(listener_, 2'000);
  load.RunUntil(Clock::now() + milliseconds(200));
  EXPECT_TRUE(load.Finish(kSoon));
  const size_t descriptors = OpenDescriptors();
  const size_t kilobytes = ResidentKilobytes();
  SplitMix random(1);
  uint64_t killed = 0;
  const auto until = Clock::now() + LongTime();
  while (Clock::now() < until) {
    Kill(pids_[random.Next() % pids_.size()]);
    ++killed;
    // One that is killed before it has joined does not count as gone.
    const pid_t newcomer = StartWorker(&load);
    const auto forked = Clock::now();
    while (!Living().contains(newcomer) && Clock::now() < forked + kSoon) {
      load.RunUntil(Clock::now() + milliseconds(1));
    }
    load.RunUntil(Clock::now() + milliseconds(100));
  }
  EXPECT_TRUE(load.Finish(kSoon)) << load.waiting() << " wait";
  ASSERT_TRUE(Becomes([&] { return workers_->Stats().gone == killed; }))
      << workers_->Stats().gone << " of " << killed;
  ASSERT_TRUE(HaveJoined(4));
  EXPECT_TRUE(Becomes([&] { return OpenDescriptors() <= descriptors; }))
      << descriptors << " -> " << OpenDescriptors();
  const WorkerProcessesStats stats = workers_->Stats();
  std::printf(
      "%llu killed; %llu answered, %llu lost of %llu that the killed had claimed, %llu refused; "
      "%llu came back from the dead; the longest waited %lld ms; resident kB %zu -> %zu\n",
      static_cast<unsigned long long>(killed), static_cast<unsigned long long>(load.answered()),
      static_cast<unsigned long long>(load.lost()),
      static_cast<unsigned long long>(stats.gone_open),
      static_cast<unsigned long long>(load.refused()),
      static_cast<unsigned long long>(stats.taken_back),
      static_cast<long long>(load.longest().count()), kilobytes, ResidentKilobytes());
  EXPECT_EQ(load.refused(), 0u);
  EXPECT_LE(load.lost(), stats.gone_open);
  EXPECT_EQ(Unclaimed(), 0u);
  EXPECT_LT(ResidentKilobytes(), kilobytes + 4'096);
}

TEST_F(GivenConnectionsTest, WhatTheDeadHadNotClaimedIsServedByOthers) {
  Create({.given_max = 8});
  const pid_t dies = StartWorker();
  ASSERT_TRUE(HaveJoined(1));
  kill(dies, SIGSTOP);
  std::vector<int> asked;
  for (int i = 0; i < 12; ++i) asked.push_back(GiveOne());
  EXPECT_EQ(workers_->Stats().held, 4u);
  for (const int fd : asked) ASSERT_EQ(send(fd, "?", 1, MSG_NOSIGNAL), 1);
  Kill(dies);
  EXPECT_TRUE(Becomes([&] { return workers_->Stats().taken_back == 8; }));
  const pid_t heir = StartWorker();
  for (const int fd : asked) EXPECT_EQ(Ask(fd).pid, heir);
}

TEST_F(GivenConnectionsTest, WhoeverStopsLosesWhatItHasNotClaimed) {
  Create({.given_max = 8});
  StartWorkers(3);
  if (HasFatalFailure()) return;
  const pid_t stopped = pids_[0];
  kill(stopped, SIGSTOP);
  for (int i = 0; i < 60; ++i) {
    const pid_t pid = AskOnce(listener_).pid;
    EXPECT_NE(pid, 0) << i;
    EXPECT_NE(pid, stopped) << i;
  }
  EXPECT_GT(workers_->Stats().taken_back, 0u);
  kill(stopped, SIGCONT);
  std::set<pid_t> seen;
  EXPECT_TRUE(Becomes([&] { return seen.insert(AskOnce(listener_).pid), seen.contains(stopped); }));
}

TEST_F(GivenConnectionsTest, AWorkerWithoutDescriptorsLosesNothing) {
  Create({.given_max = 8});
  ExpectThatOthersServeForAWorkerWithoutDescriptors();
}

// A worker alone that had none comes back when it has some again, though nobody else wakes it:
// whether it found that out by a connection or before one came.
TEST_F(GivenConnectionsTest, AWorkerThatHasDescriptorsAgainIsAskedAgain) {
  for (const bool before_one_came : {false, true}) {
    Create({.given_max = 8});
    int ready[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC), 0);
    const pid_t poor = Fork([&] {
      auto port = workers_->Join();
      const rlimit some{.rlim_cur = 1024, .rlim_max = 1024};
      const rlimit none{.rlim_cur = 3, .rlim_max = 1024};
      if (!port.ok() || setrlimit(RLIMIT_NOFILE, &none) != 0) _exit(1);
      const auto serve = [](ProcessConnection connection) {
        static_cast<void>(send(connection.fd(), "a", 1, MSG_NOSIGNAL));
      };
      if (before_one_came) port->Claim(serve);
      if (write(ready[1], "r", 1) != 1) _exit(1);
      while (true) {
        port->BeforeWait();
        pollfd sight{.fd = port->sight(), .events = POLLIN, .revents = 0};
        poll(&sight, 1, -1);
        port->AfterWait(true);
        port->Claim(serve);
        setrlimit(RLIMIT_NOFILE, &some);
      }
    });
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    for (const int end : ready) close(end);
    const int waits = listener_.Connect();
    EXPECT_EQ(recv(waits, &byte, 1, 0), 1) << strerror(errno);
    close(waits);
    Kill(poor);
  }
}

TEST_F(GivenConnectionsTest, ALoopOfTheParentsOwnDrivesTheKeeper) {
  Create({.own_thread = false, .given_max = 8});
  StartWorker();
  StartWorker();
  ASSERT_TRUE(Becomes([&] {
    workers_->RunOnce();
    return Living().size() == 2;
  }));
  std::set<pid_t> seen;
  for (int i = 0; i < 20; ++i) {
    const int fd = listener_.Connect();
    ASSERT_EQ(send(fd, "?", 1, MSG_NOSIGNAL), 1);
    pollfd answered{.fd = fd, .events = POLLIN, .revents = 0};
    EXPECT_TRUE(Becomes([&] {
      pollfd keeper{.fd = workers_->fd(), .events = POLLIN, .revents = 0};
      if (poll(&keeper, 1, 1) == 1) workers_->RunOnce();
      return poll(&answered, 1, 0) == 1;
    }));
    close(fd);
  }
  // Quiet again: nothing to do, and no look after look.
  int turns = 0;
  for (const auto until = Clock::now() + milliseconds(300); Clock::now() < until;) {
    pollfd keeper{.fd = workers_->fd(), .events = POLLIN, .revents = 0};
    if (poll(&keeper, 1, 50) == 1) workers_->RunOnce(), ++turns;
  }
  EXPECT_LT(turns, 20);
}

// A child has no copy of a connection that the keeper's thread had just accepted or given.
TEST_F(GivenConnectionsTest, AForkInTheMiddleLeavesNothingBehind) {
  Create({.given_max = 8});
  StartWorkers(2);
  if (HasFatalFailure()) return;
  Fork([&] {
    ClientLoad load(listener_, 20'000);
    load.RunUntil(Clock::now() + std::chrono::seconds(60));
  });
  ASSERT_TRUE(Becomes([&] { return workers_->Stats().given > 100; }));
  for (int i = 0; i < 150; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      static_cast<void>(workers_->Join().ok());
      _exit(CountDescriptors(IsConnection) == 0 ? 0 : 1);
    }
    EXPECT_EQ(Collect(child), 0) << i;
  }
  EXPECT_GT(workers_->Stats().given, 200u);
}

// --- exec ----------------------------------------------------------------------------------------

TEST_F(GivenConnectionsTest, ExecedAndForkedWorkersShareEvenly) {
  const char* const path = std::getenv("RINGMASTER_PROCESS_WORKER");
  if (path == nullptr) GTEST_SKIP() << "the suite says where the worker is";
  Create({.given_max = 8});
  std::string variable = workers_->Variable();
  for (int i = 0; i < 2; ++i) {
    Fork([&] {
      workers_->KeepAcrossExec();
      char* const arguments[] = {const_cast<char*>(path), nullptr};
      char* const environment[] = {variable.data(), nullptr};
      execve(path, arguments, environment);
      _exit(127);
    });
  }
  for (int i = 0; i < 2; ++i) StartWorker();
  ASSERT_TRUE(HaveJoined(4));
  ExpectEven(4, 8);
  for (int i = 0; i < 3; ++i) {
    Kill(pids_[0]);
    EXPECT_NE(AskOnce(listener_).pid, 0);
  }
}

// --- Ends ----------------------------------------------------------------------------------------

TEST_F(GivenConnectionsTest, WhatWasGivenBeforeTheEndIsServed) {
  Create({.given_max = 2});
  StartWorkers(2);
  if (HasFatalFailure()) return;
  for (const pid_t pid : pids_) kill(pid, SIGSTOP);
  std::vector<int> asked;
  for (int i = 0; i < 10; ++i) asked.push_back(GiveOne());
  for (const int fd : asked) ASSERT_EQ(send(fd, "?", 1, MSG_NOSIGNAL), 1);
  workers_->BeginShutdown();
  const auto [client, given] = Pair();
  EXPECT_TRUE(absl::IsFailedPrecondition(workers_->Give(given)));
  EXPECT_TRUE(absl::IsFailedPrecondition(workers_->AcceptAndGive(listener_.fd())));
  close(given);
  // What one of them has is left to the other, which has been told nothing yet.
  Kill(pids_[0]);
  kill(pids_[0], SIGCONT);
  for (const int fd : asked) EXPECT_NE(Ask(fd).pid, 0);
  for (const int fd : std::exchange(clients_, {})) close(fd);
  EXPECT_EQ(Collect(std::exchange(pids_, {})[0]), 0);
}

TEST_F(GivenConnectionsTest, IfTheGroupIsDestroyedOrTheParentDiesWhatLiesWithWorkersIsServed) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  for (const bool dies : {false, true}) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const auto [client, given] = Pair();
    const pid_t parent = Fork([&, given = given] {
      // Nobody drives the keeper after the worker has joined: it would take back in time what lies
      // with one that is stopped.
      Create({.own_thread = false, .given_max = 2});
      const pid_t worker = fork();
      if (worker == 0) {
        alarm(kProcessSecondsMax);
        close(given);
        ServeAsWorker(workers_->Join());
      }
      Becomes([&] {
        workers_->RunOnce();
        return Living().size() == 1;
      });
      kill(worker, SIGSTOP);
      if (!workers_->Give(given).ok()) _exit(1);
      if (!dies) workers_.reset();
      if (write(ends[1], &worker, sizeof(worker)) != sizeof(worker)) _exit(1);
      pause();
    });
    close(given);
    pid_t worker = 0;
    ASSERT_EQ(read(ends[0], &worker, sizeof(worker)), static_cast<ssize_t>(sizeof(worker)));
    if (dies) Kill(parent);
    pids_.push_back(worker);
    ASSERT_EQ(send(client, "?", 1, MSG_NOSIGNAL), 1);
    kill(worker, SIGCONT);
    EXPECT_EQ(Ask(client).pid, worker);
    for (const int end : ends) close(end);
    for (const int fd : std::exchange(clients_, {})) close(fd);
    if (!dies) Kill(parent);
  }
}

TEST_F(GivenConnectionsTest, DestroyingTheGroupClosesEverything) {
  const size_t descriptors = OpenDescriptors();
  Create({.given_max = 2});
  const int held = GiveOne();
  workers_.reset();
  char byte = 0;
  EXPECT_EQ(recv(held, &byte, 1, 0), 0);
  for (const int fd : std::exchange(clients_, {})) close(fd);
  EXPECT_EQ(OpenDescriptors(), descriptors);
}

TEST_F(GivenConnectionsTest, WhatCannotBeIsNamed) {
  EXPECT_TRUE(absl::IsInvalidArgument(WorkerProcesses::Create({.given_max = 65}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      WorkerProcesses::Create({.give_policy = std::make_unique<ByPeer>()}).status()));
  Create();
  EXPECT_TRUE(absl::IsFailedPrecondition(workers_->Give(listener_.fd())));
  EXPECT_TRUE(absl::IsFailedPrecondition(workers_->AcceptAndGive(listener_.fd())));
  Create({.given_max = 1});
  EXPECT_TRUE(absl::IsInvalidArgument(workers_->Give(-1)));
  EXPECT_TRUE(absl::IsInvalidArgument(workers_->AcceptAndGive(-1)));
  Fork([&] {
    EXPECT_TRUE(absl::IsFailedPrecondition(workers_->Give(listener_.fd())));
    _exit(::testing::Test::HasFailure());
  });
  EXPECT_EQ(Collect(std::exchange(pids_, {})[0]), 0);
}

}  // namespace
}  // namespace ringmaster::testing
