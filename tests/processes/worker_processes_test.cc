// WorkerProcesses with real processes: workers are forked or exec'ed, killed, stopped and replaced
// while clients come. Method: workers answer with their process, so clients see who serves them,
// and count what becomes of them. RINGMASTER_TEST_SECONDS says how long the long ones last.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
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

TEST_F(WorkerProcessesTest, EachWorkerGetsEquallyManyAndTheParentCounts) {
  for (const char* const policy : {"least-loaded", "round-robin"}) {
    Create({.policy = policy});
    StartWorkers(4);
    if (HasFatalFailure()) return;
    ExpectEven(4, 8);
    uint32_t open = 0;
    for (const auto& [pid, worker] : Living()) open += worker.open;
    EXPECT_EQ(open, clients_.size());
    LetGo();
    for (const pid_t pid : std::exchange(pids_, {})) {
      kill(pid, SIGKILL);
      Collect(pid);
    }
  }
}

TEST_F(WorkerProcessesTest, AConnectionBringsTheTokenOfItsListener) {
  Create();
  const ProcessListener second;
  ASSERT_TRUE(workers_->AddListener(second.fd(), 8).ok());
  Fork([&] {
    close(second.fd());
    auto port = workers_->Join();
    if (!port.ok()) _exit(1);
    while (true) {
      port->BeforeWait();
      pollfd sight{.fd = port->sight(), .events = POLLIN, .revents = 0};
      poll(&sight, 1, -1);
      port->AfterWait(true);
      port->Claim([](ProcessConnection connection) {
        const char token = static_cast<char>('0' + connection.token());
        static_cast<void>(send(connection.fd(), &token, 1, MSG_NOSIGNAL));
      });
    }
  });
  for (int i = 0; i < 4; ++i) {
    const std::pair<const ProcessListener*, char> asked[] = {{&listener_, '7'}, {&second, '8'}};
    for (const auto& [listener, token] : asked) {
      const int fd = listener->Connect();
      char got = 0;
      EXPECT_EQ(recv(fd, &got, 1, 0), 1);
      EXPECT_EQ(got, token);
      close(fd);
    }
  }
}

TEST_F(WorkerProcessesTest, AListenerThatIsAddedLaterIsServedByWorkersThatStartLater) {
  Create();
  StartWorkers(1);
  const ProcessListener second;
  ASSERT_TRUE(workers_->AddListener(second.fd()).ok());
  const pid_t late = Fork([&] {
    close(second.fd());
    ServeAsWorker(workers_->Join());
  });
  ASSERT_TRUE(HaveJoined(2));
  for (int i = 0; i < 10; ++i) EXPECT_EQ(AskOnce(second).pid, late);
  // Both serve the first one. A worker that does not run for a while gets nothing meanwhile.
  std::set<pid_t> seen;
  EXPECT_TRUE(Becomes([&] {
    seen.insert(AskOnce(listener_).pid);
    return seen == std::set<pid_t>(pids_.begin(), pids_.end());
  }));
}

// One is killed every 100 ms and replaced, while 2,000 clients come in a second.
TEST_F(WorkerProcessesTest, KilledOneAfterTheOtherTheyLoseOnlyWhatTheyHadOpen) {
  Create();
  StartWorkers(4);
  if (HasFatalFailure()) return;
  ClientLoad load(listener_, 2'000);
  load.RunUntil(Clock::now() + milliseconds(200));
  EXPECT_TRUE(load.Finish(kSoon));
  load.TakeAnsweredBy();
  const size_t descriptors = OpenDescriptors();
  const size_t kilobytes = ResidentKilobytes();
  SplitMix random(1);
  uint64_t killed = 0;
  uint64_t after = 0;         // answered from 50 ms after a worker was replaced on
  uint64_t by_newcomers = 0;  // of these, by the new one
  Clock::duration longest_join{};
  const auto until = Clock::now() + LongTime();
  while (Clock::now() < until) {
    Kill(pids_[random.Next() % pids_.size()]);
    ++killed;
    const pid_t newcomer = StartWorker(&load);
    const auto forked = Clock::now();
    while (!Living().contains(newcomer) && Clock::now() < forked + kSoon) {
      load.RunUntil(Clock::now() + milliseconds(1));
    }
    const auto replaced = Clock::now();
    longest_join = std::max(longest_join, replaced - forked);
    load.RunUntil(replaced + milliseconds(50));
    load.TakeAnsweredBy();
    load.RunUntil(replaced + milliseconds(100));
    for (const auto& [pid, answered] : load.TakeAnsweredBy()) {
      after += answered;
      if (pid == newcomer) by_newcomers += answered;
    }
  }
  EXPECT_TRUE(load.Finish(kSoon)) << load.waiting() << " wait";
  ASSERT_TRUE(Becomes([&] { return workers_->Stats().gone == killed; }))
      << workers_->Stats().gone << " of " << killed;
  ASSERT_TRUE(HaveJoined(4));
  const WorkerProcessesStats stats = workers_->Stats();
  const double share = static_cast<double>(by_newcomers) / static_cast<double>(after);
  std::printf(
      "%llu killed; %llu answered, %llu lost of %llu that the killed had open, %llu refused; the "
      "longest waited %lld ms; a newcomer joined after %.1f ms at most, and had %.1f %% from 50 ms "
      "on (25 is even); descriptors %zu -> %zu, resident kB %zu -> %zu\n",
      static_cast<unsigned long long>(killed), static_cast<unsigned long long>(load.answered()),
      static_cast<unsigned long long>(load.lost()),
      static_cast<unsigned long long>(stats.gone_open),
      static_cast<unsigned long long>(load.refused()),
      static_cast<long long>(load.longest().count()),
      std::chrono::duration<double, std::milli>(longest_join).count(), 100 * share, descriptors,
      OpenDescriptors(), kilobytes, ResidentKilobytes());
  EXPECT_EQ(load.refused(), 0u);
  EXPECT_LE(load.lost(), stats.gone_open);
  EXPECT_GT(share, 0.1);
  EXPECT_EQ(OpenDescriptors(), descriptors);
  EXPECT_LT(ResidentKilobytes(), kilobytes + 4'096);
}

TEST_F(WorkerProcessesTest, APlaceIsFreeAgainWhenItsWorkerHasDied) {
  Create({.workers_max = 1});
  for (int i = 0; i < 20; ++i) {
    const pid_t worker = StartWorker();
    ASSERT_EQ(AskOnce(listener_).pid, worker) << i;
    Kill(worker);
  }
}

TEST_F(WorkerProcessesTest, ALoopOfTheParentsOwnDrivesTheKeeper) {
  Create({.workers_max = 2, .own_thread = false});
  std::vector<pid_t> workers = {StartWorker(), StartWorker()};
  std::set<pid_t> seen;
  // Readable as long as there is something to do, and not for ever.
  const auto drive = [&](milliseconds time) {
    int turns = 0;
    for (const auto until = Clock::now() + time; Clock::now() < until; ++turns) {
      pollfd keeper{.fd = workers_->fd(), .events = POLLIN, .revents = 0};
      if (poll(&keeper, 1, 1) == 1) workers_->RunOnce();
    }
    return turns;
  };
  ASSERT_TRUE(Becomes([&] {
    workers_->RunOnce();
    return Living().size() == 2;
  }));
  for (int i = 0; i < 10; ++i) {
    const pid_t killed = workers[static_cast<size_t>(i) % 2];
    Kill(killed);
    workers[static_cast<size_t>(i) % 2] = StartWorker();
    EXPECT_TRUE(Becomes([&] {
      drive(milliseconds(1));
      return Living().contains(workers[static_cast<size_t>(i) % 2]);
    }));
    const int fd = listener_.Connect();
    ASSERT_EQ(send(fd, "?", 1, MSG_NOSIGNAL), 1);
    pollfd answered{.fd = fd, .events = POLLIN, .revents = 0};
    EXPECT_TRUE(Becomes([&] {
      drive(milliseconds(1));
      return poll(&answered, 1, 0) == 1;
    }));
    close(fd);
  }
}

TEST_F(WorkerProcessesTest, WhoeverStopsLosesItsTurn) {
  Create();
  StartWorkers(3);
  if (HasFatalFailure()) return;
  const pid_t stopped = AskOnce(listener_).pid;
  ASSERT_NE(stopped, 0);
  kill(stopped, SIGSTOP);
  for (int i = 0; i < 60; ++i) {
    const pid_t pid = AskOnce(listener_).pid;
    EXPECT_NE(pid, 0) << i;
    EXPECT_NE(pid, stopped) << i;
  }
  kill(stopped, SIGCONT);
  std::set<pid_t> seen;
  EXPECT_TRUE(Becomes([&] { return seen.insert(AskOnce(listener_).pid), seen.contains(stopped); }));
}

// --- exec ----------------------------------------------------------------------------------------

class ExecTest : public WorkerProcessesTest {
 protected:
  void SetUp() override {
    const char* const path = std::getenv("RINGMASTER_PROCESS_WORKER");
    if (path == nullptr) GTEST_SKIP() << "the suite says where the worker is";
    path_ = path;
  }
  pid_t StartByExec(bool keeps = true) {
    std::string variable = workers_->Variable();
    return Fork([&] {
      if (keeps) workers_->KeepAcrossExec();
      char* const arguments[] = {path_.data(), nullptr};
      char* const environment[] = {variable.data(), nullptr};
      execve(path_.c_str(), arguments, environment);
      _exit(127);
    });
  }
  std::string path_;
};

TEST_F(ExecTest, ExecedAndForkedWorkersShareEvenly) {
  Create();
  for (int i = 0; i < 2; ++i) StartByExec();
  for (int i = 0; i < 2; ++i) StartWorker();
  ASSERT_TRUE(HaveJoined(4));
  ExpectEven(4, 8);
  // And they are replaced in the same way.
  for (int i = 0; i < 4; ++i) {
    Kill(pids_[0]);
    StartByExec();
    ASSERT_TRUE(HaveJoined(4));
    for (int asked = 0; asked < 8; ++asked) EXPECT_NE(AskOnce(listener_).pid, 0);
  }
}

TEST_F(ExecTest, WhatWasClosedByExecIsNamed) {
  Create();
  EXPECT_EQ(Collect(StartByExec(/*keeps=*/false)), 1);
  pids_.clear();
  setenv("RINGMASTER_PROCESSES", workers_->Variable().c_str() + sizeof("RINGMASTER_PROCESSES"), 1);
  Fork([&] {
    for (const int fd : workers_->Descriptors()) close(fd);
    const absl::Status status = ProcessPort::Inherit().status();
    _exit(absl::IsFailedPrecondition(status) &&
                  std::string(status.message()).find("KeepAcrossExec") != std::string::npos
              ? 0
              : 1);
  });
  EXPECT_EQ(Collect(std::exchange(pids_, {})[0]), 0);
  for (const char* const nonsense : {"", "1", "1,2,3", "x", "1,,", "99999999999999999999999"}) {
    setenv("RINGMASTER_PROCESSES", nonsense, 1);
    const absl::Status status = ProcessPort::Inherit().status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << nonsense << ": " << status;
  }
  unsetenv("RINGMASTER_PROCESSES");
  const absl::Status status = ProcessPort::Inherit().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_NE(status.message().find("Variable()"), std::string::npos) << status;
}

// --- Ends ----------------------------------------------------------------------------------------

TEST_F(WorkerProcessesTest, AtTheEndWorkersAreToldAndTheListenerIsGivenBack) {
  Create();
  StartWorkers(3);
  if (HasFatalFailure()) return;
  Spread(9);
  workers_->BeginShutdown();
  // Whoever comes now is not accepted by anybody but who has the listener.
  ASSERT_TRUE(Becomes([&] { return Ask(clients_[0]).draining && Ask(clients_[8]).draining; }));
  const int late = listener_.Connect();
  ASSERT_GE(late, 0);
  const int accepted = accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC);
  EXPECT_GE(accepted, 0) << strerror(errno);
  close(accepted);
  close(late);
  EXPECT_FALSE(workers_->AddListener(listener_.fd()).ok());
  for (const int fd : clients_) EXPECT_TRUE(Ask(fd).pid != 0);
  for (const int fd : std::exchange(clients_, {})) close(fd);
  for (const pid_t pid : std::exchange(pids_, {})) EXPECT_EQ(Collect(pid), 0);
  EXPECT_TRUE(Becomes([&] { return workers_->Stats().gone == 3; }));
  EXPECT_EQ(workers_->Stats().gone_open, 0u);
  EXPECT_EQ(workers_->Stats().gone_accepted, 9u);
}

TEST_F(WorkerProcessesTest, DestroyingTheGroupEndsItToo) {
  const size_t descriptors = OpenDescriptors();
  Create();
  StartWorkers(3);
  if (HasFatalFailure()) return;
  workers_.reset();
  EXPECT_EQ(OpenDescriptors(), descriptors);
  for (const pid_t pid : std::exchange(pids_, {})) EXPECT_EQ(Collect(pid), 0);
}

// They serve on, and the kernel decides between them.
TEST_F(WorkerProcessesTest, IfTheParentIsKilledTheWorkersServeOn) {
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = Fork([&] {
    Create();
    for (int i = 0; i < 3; ++i) {
      const pid_t worker = fork();
      if (worker == 0) ServeAsWorker(workers_->Join());
      if (write(ends[1], &worker, sizeof(worker)) != sizeof(worker)) _exit(1);
    }
    HaveJoined(3);
    const pid_t done = 0;
    if (write(ends[1], &done, sizeof(done)) != sizeof(done)) _exit(1);
    pause();
  });
  std::set<pid_t> workers;
  for (pid_t pid = 1; pid != 0;) {
    ASSERT_EQ(read(ends[0], &pid, sizeof(pid)), static_cast<ssize_t>(sizeof(pid)));
    if (pid != 0) workers.insert(pid);
  }
  for (const int end : ends) close(end);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(workers.contains(AskOnce(listener_).pid));
  Kill(parent);
  for (const pid_t pid : workers) pids_.push_back(pid);
  // Also while all but one do nothing, and after some have died.
  std::set<pid_t> left = workers;
  for (const pid_t pid : workers) {
    for (int i = 0; i < 20; ++i) {
      const Answer answer = AskOnce(listener_);
      EXPECT_TRUE(left.contains(answer.pid)) << i;
    }
    EXPECT_TRUE(Becomes([&] { return AskOnce(listener_).parent_gone; }));
    if (left.size() == 1) break;
    Kill(pid);
    left.erase(pid);
  }
}

// --- Misuse --------------------------------------------------------------------------------------

void ExpectSays(const absl::Status& status, absl::StatusCode code, const std::string& part) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_NE(status.message().find(part), std::string::npos) << status;
}

TEST_F(WorkerProcessesTest, WhatCannotBeIsNamed) {
  ExpectSays(WorkerProcesses::Create({.policy = "affinity-cpu"}).status(),
             absl::StatusCode::kInvalidArgument, "take round-robin, least-loaded");
  ExpectSays(WorkerProcesses::Create({.policy = "fairest"}).status(),
             absl::StatusCode::kInvalidArgument, "least-loaded");
  for (const uint32_t workers_max : {0u, 65u}) {
    ExpectSays(WorkerProcesses::Create({.workers_max = workers_max}).status(),
               absl::StatusCode::kInvalidArgument, "from 1 to 64");
  }
  ExpectSays(WorkerProcesses::Create({.thread_name = "longer than it may"}).status(),
             absl::StatusCode::kInvalidArgument, "15 characters");
  Create();
  ExpectSays(workers_->AddListener(listener_.fd()), absl::StatusCode::kAlreadyExists, "before");
  ExpectSays(workers_->AddListener(-1), absl::StatusCode::kInvalidArgument, "no open descriptor");
  const int plain = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  ExpectSays(workers_->AddListener(plain), absl::StatusCode::kInvalidArgument, "no listener");
  ASSERT_EQ(listen(plain, 1), 0);
  ASSERT_EQ(fcntl(plain, F_SETFL, 0), 0);
  ExpectSays(workers_->AddListener(plain), absl::StatusCode::kInvalidArgument, "O_NONBLOCK");
  close(plain);
  ExpectSays(workers_->Join().status(), absl::StatusCode::kFailedPrecondition, "after fork");
}

TEST_F(WorkerProcessesTest, WhatAChildCannotDoIsNamed) {
  Create({.workers_max = 1});
  auto empty = WorkerProcesses::Create();
  ASSERT_TRUE(empty.ok());
  Fork([&] {
    // What fails here, the child says by its exit status.
    ExpectSays((*empty)->Join().status(), absl::StatusCode::kFailedPrecondition, "AddListener");
    ExpectSays(workers_->AddListener(listener_.fd()), absl::StatusCode::kFailedPrecondition,
               "in the parent");
    auto port = workers_->Join();
    EXPECT_TRUE(port.ok()) << port.status();
    ExpectSays(workers_->Join().status(), absl::StatusCode::kFailedPrecondition, "joins once");
    // One more than there may be.
    const pid_t second = fork();
    if (second == 0) {
      EXPECT_TRUE(port->draining());
      EXPECT_FALSE(port->Claim([](ProcessConnection) {}));
      ExpectSays(workers_->Join().status(), absl::StatusCode::kResourceExhausted, "workers_max");
      _exit(::testing::Test::HasFailure());
    }
    EXPECT_EQ(Collect(second), 0);
    port->Leave();
    EXPECT_EQ(port->sight(), -1);
    EXPECT_TRUE(port->draining());
    ExpectSays(workers_->Join().status(), absl::StatusCode::kFailedPrecondition, "joins once");
    workers_.reset();
    _exit(::testing::Test::HasFailure());
  });
  EXPECT_EQ(Collect(std::exchange(pids_, {})[0]), 0);
  workers_->BeginShutdown();
  Fork([&] {
    ExpectSays(workers_->Join().status(), absl::StatusCode::kFailedPrecondition, "BeginShutdown");
    _exit(::testing::Test::HasFailure());
  });
  EXPECT_EQ(Collect(std::exchange(pids_, {})[0]), 0);
}

// A worker without descriptors stands back, and what waits goes to others, or waits for it.
TEST_F(WorkerProcessesTest, AWorkerWithoutDescriptorsLeavesItToOthers) {
  Create();
  ExpectThatOthersServeForAWorkerWithoutDescriptors();
}

}  // namespace
}  // namespace ringmaster::testing
