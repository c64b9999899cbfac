// A parent with workers for tests of WorkerProcesses, and what such tests ask of this process.

#ifndef RINGMASTER_TESTS_PROCESSES_WORKER_PROCESSES_FIXTURE_H_
#define RINGMASTER_TESTS_PROCESSES_WORKER_PROCESSES_FIXTURE_H_

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "process_server.h"
#include "ringmaster/processes.h"

namespace ringmaster::testing {

using std::chrono::milliseconds;

// A bound, no estimate.
inline constexpr std::chrono::seconds kSoon(30);

// How long the long ones last: RINGMASTER_TEST_SECONDS.
inline milliseconds LongTime() {
  const char* const seconds = std::getenv("RINGMASTER_TEST_SECONDS");
  return milliseconds(seconds == nullptr ? 3'000 : 1'000 * std::atoi(seconds));
}

// Until `what` is so.
inline bool Becomes(const std::function<bool()>& what) {
  for (const auto until = std::chrono::steady_clock::now() + kSoon;
       std::chrono::steady_clock::now() < until;) {
    if (what()) return true;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return what();
}

inline size_t OpenDescriptors() {
  return static_cast<size_t>(
      std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

inline size_t ResidentKilobytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    size_t kilobytes = 0;
    if (word == "VmRSS:" && status >> kilobytes) return kilobytes;
  }
  return 0;
}

// The exit status, or 128 and the signal.
inline int Collect(pid_t pid) {
  int status = -1;
  if (waitpid(pid, &status, 0) != pid) return -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

class WorkerProcessesTest : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const pid_t pid : std::exchange(pids_, {})) {
      kill(pid, SIGKILL);
      Collect(pid);
    }
    for (const int fd : clients_) close(fd);
  }

  // With given_max the parent accepts, and gives what it has accepted.
  void Create(WorkerProcessesOptions options = {}) {
    const bool gives = options.given_max > 0;
    auto workers = WorkerProcesses::Create(std::move(options));
    ASSERT_TRUE(workers.ok()) << workers.status();
    workers_ = *std::move(workers);
    const absl::Status added = gives ? workers_->AcceptAndGive(listener_.fd(), 7)
                                     : workers_->AddListener(listener_.fd(), 7);
    ASSERT_TRUE(added.ok()) << added;
  }
  // What a child does that is forked from here; it never returns.
  pid_t Fork(const std::function<void()>& child) {
    const pid_t pid = fork();
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      alarm(kProcessSecondsMax);
      child();
      _exit(0);
    }
    pids_.push_back(pid);
    return pid;
  }
  pid_t StartWorker(ClientLoad* load = nullptr) {
    return Fork([this, load] {
      close(listener_.fd());
      if (load != nullptr) load->CloseInChild();
      ServeAsWorker(workers_->Join());
    });
  }
  // Until so many have joined and are known.
  bool HaveJoined(size_t count) {
    return Becomes([&] { return Living().size() == count; });
  }
  std::map<pid_t, WorkerProcessStats> Living() const {
    std::map<pid_t, WorkerProcessStats> living;
    for (const WorkerProcessStats& worker : workers_->Stats().workers) {
      if (worker.lives) living[worker.pid] = worker;
    }
    return living;
  }
  uint32_t MostOpen() const {
    uint32_t open = 0;
    for (const auto& [pid, worker] : Living()) open = std::max(open, worker.open);
    return open;
  }
  void StartWorkers(int count) {
    for (int i = 0; i < count; ++i) StartWorker();
    ASSERT_TRUE(HaveJoined(static_cast<size_t>(count)));
  }
  void Kill(pid_t pid) {
    kill(pid, SIGKILL);
    EXPECT_EQ(Collect(pid), 128 + SIGKILL);
    std::erase(pids_, pid);
  }
  // The first worker has no descriptors left, whether it was given a connection by then or not.
  void ExpectThatOthersServeForAWorkerWithoutDescriptors() {
    const pid_t poor = Fork([&] { ServeAsWorker(workers_->Join(), /*poor=*/true); });
    ASSERT_TRUE(HaveJoined(1));
    const int waits = listener_.Connect();
    ASSERT_EQ(send(waits, "?", 1, MSG_NOSIGNAL), 1);
    StartWorker();
    ASSERT_TRUE(HaveJoined(2));
    for (int i = 0; i < 20; ++i) {
      const pid_t pid = AskOnce(listener_).pid;
      EXPECT_NE(pid, 0);
      EXPECT_NE(pid, poor);
    }
    char byte = 0;
    EXPECT_EQ(recv(waits, &byte, 1, 0), 1);
    close(waits);
  }
  // How many of so many new connections, which stay, each worker has, the most first.
  std::vector<int> Spread(int count) {
    std::map<pid_t, int> by_worker;
    for (int i = 0; i < count; ++i) {
      const int fd = listener_.Connect();
      EXPECT_GE(fd, 0);
      clients_.push_back(fd);
      const pid_t pid = Ask(fd).pid;
      EXPECT_NE(pid, 0) << i;
      ++by_worker[pid];
    }
    std::vector<int> counts;
    for (const auto& [pid, connections] : by_worker) counts.push_back(connections);
    std::sort(counts.rbegin(), counts.rend());
    return counts;
  }
  void LetGo() {
    for (const int fd : std::exchange(clients_, {})) close(fd);
    ASSERT_TRUE(Becomes([&] {
      const auto living = Living();
      return std::all_of(living.begin(), living.end(),
                         [](const auto& it) { return it.second.open == 0; });
    }));
  }
  // Where the machine is so busy that a worker gets no CPU for milliseconds, it loses a turn. And
  // what somebody has written over may be put right after a second only. So it is tried again.
  void ExpectEven(int workers, int each) {
    std::vector<int> counts;
    const auto until = std::chrono::steady_clock::now() + kSoon;
    while (std::chrono::steady_clock::now() < until) {
      counts = Spread(workers * each);
      if (static_cast<int>(counts.size()) == workers && counts.front() - counts.back() <= 1) return;
      LetGo();
      if (HasFatalFailure()) return;
    }
    ADD_FAILURE() << ::testing::PrintToString(counts);
  }
  // What a hostile worker has left behind is put right while connections come to four workers.
  void ExpectPutRight() {
    EXPECT_TRUE(Becomes([&] {
      EXPECT_NE(AskOnce(listener_).pid, 0);
      return MostOpen() <= 1;
    }));
    ExpectEven(4, 4);
  }

  ProcessListener listener_;
  std::unique_ptr<WorkerProcesses> workers_;
  std::vector<pid_t> pids_;
  std::vector<int> clients_;
};

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_PROCESSES_WORKER_PROCESSES_FIXTURE_H_
