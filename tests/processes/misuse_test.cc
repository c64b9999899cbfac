// WorkerProcesses used in odd orders and wrongly: what is refused is refused in words, and leaves
// everything as it was. Method: as in worker_processes_test.cc. What fails in a child, the child
// says by its exit status.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "process_server.h"
#include "ringmaster/processes.h"
#include "worker_processes_fixture.h"

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;

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

}  // namespace
}  // namespace ringmaster::testing
