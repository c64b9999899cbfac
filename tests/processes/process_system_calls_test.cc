// What a server with worker processes that gives up its privileges must still permit:
// src/SYSTEM_CALLS.md, by role. Method: a child process is the parent of such a server and drives
// the keeper itself, so that a filter can be put over that role; a worker puts one over itself once
// it has joined. The first other system call ends the process. Clients are a process of their own.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>
#include <utility>
#include <vector>

#include "process_server.h"
#include "ringmaster/processes.h"
#include "support/seccomp.h"

namespace ringmaster::testing {
namespace {

using Calls = SystemCalls;

// As in src/SYSTEM_CALLS.md.
const Calls kKeeper = {SYS_poll,       SYS_epoll_wait, SYS_epoll_ctl,       SYS_read,
                       SYS_write,      SYS_close,      SYS_timerfd_settime, SYS_pidfd_open,
                       SYS_getsockopt, SYS_ppoll,      SYS_getpid};
const Calls kGiving = {SYS_accept4,    SYS_fcntl,    SYS_sendmsg,    SYS_sendto,
                       SYS_recvmsg,    SYS_ioctl,    SYS_setsockopt, SYS_getpeername,
                       SYS_socketpair, SYS_shutdown, SYS_dup3};
const Calls kWorker = {SYS_accept4, SYS_getsockopt, SYS_epoll_ctl, SYS_epoll_wait,
                       SYS_ppoll,   SYS_poll,       SYS_write,     SYS_close,
                       SYS_fcntl,   SYS_recvmsg,    SYS_getpid};
const Calls kEnd = {SYS_write, SYS_close,  SYS_epoll_ctl,  SYS_ioctl,  SYS_timerfd_settime,
                    SYS_fcntl, SYS_getpid, SYS_getsockopt, SYS_sendmsg};
const Calls kSetUp = {
    SYS_memfd_create,   SYS_ftruncate,      SYS_fcntl,        SYS_getrandom,  SYS_eventfd2,
    SYS_pidfd_open,     SYS_epoll_create1,  SYS_epoll_ctl,    SYS_epoll_wait, SYS_poll,
    SYS_timerfd_create, SYS_fstat,          SYS_newfstatat,   SYS_getsockopt, SYS_timerfd_settime,
    SYS_socketpair,     SYS_shutdown,       SYS_setsockopt,   SYS_getpid,     SYS_write,
    SYS_close,          SYS_clone3,         SYS_clone,        SYS_rseq,       SYS_set_robust_list,
    SYS_prctl,          SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_openat,     SYS_exit};
// What the test does itself.
const Calls kTest = {SYS_exit_group, SYS_poll,           SYS_write,        SYS_read,
                     SYS_exit,       SYS_wait4,          SYS_kill,         SYS_recvfrom,
                     SYS_sendto,     SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_prctl};
const Calls kFork = {SYS_clone, SYS_set_robust_list, SYS_gettid,      SYS_alarm,
                     SYS_prctl, SYS_seccomp,         SYS_rt_sigaction};

constexpr unsigned kSecondsMax = 30;

[[noreturn]] void Serve(WorkerProcesses& workers, bool confine) {
  auto port = workers.Join();
  if (!port.ok()) _exit(2);
  if (confine) PermitCalls(kWorker + kTest);
  while (!port->draining()) {
    port->BeforeWait();
    pollfd sight{.fd = port->sight(), .events = POLLIN, .revents = 0};
    poll(&sight, 1, -1);
    port->AfterWait();
    port->Claim([](ProcessConnection connection) {
      [[maybe_unused]] const ssize_t answered = send(connection.fd(), "a", 1, MSG_NOSIGNAL);
    });
  }
  port->Leave();
  _exit(0);
}

[[noreturn]] void Ask(const ProcessListener& first, const ProcessListener& second) {
  alarm(kSecondsMax);
  for (int i = 0;; ++i) {
    const int fd = (i % 2 == 0 ? first : second).Connect();
    char byte;
    if (fd < 0 || read(fd, &byte, 1) < 0) _exit(0);
    close(fd);
  }
}

// `confine`: each role by its own filter; otherwise everything under all of them, and the keeper
// has its thread.
[[noreturn]] void Live(bool confine) {
  const ProcessListener by_permit;
  const ProcessListener given;
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) _exit(2);
  const pid_t clients = fork();
  if (clients == 0) Ask(by_permit, given);
  alarm(kSecondsMax);
  if (!confine) PermitCalls(kSetUp + kKeeper + kGiving + kWorker + kEnd + kTest + kFork);
  auto workers = WorkerProcesses::Create(
      {.own_thread = !confine, .given_max = 4, .give_policy = AffinityHash()});
  if (!workers.ok()) _exit(3);
  if (!(*workers)->AddListener(by_permit.fd()).ok() ||
      !(*workers)->AcceptAndGive(given.fd()).ok()) {
    _exit(4);
  }
  std::vector<pid_t> pids;
  for (int i = 0; i < 2; ++i) {
    pids.push_back(fork());
    if (pids.back() == 0) {
      alarm(kSecondsMax);
      Serve(**workers, confine);
    }
  }
  if (confine) PermitCalls(kKeeper + kGiving + kEnd + kTest);
  const auto drive_until = [&](const auto& is_so) {
    while (!is_so((*workers)->Stats())) {
      pollfd keeper{.fd = (*workers)->fd(), .events = POLLIN, .revents = 0};
      if (confine && poll(&keeper, 1, 10) == 1) (*workers)->RunOnce();
      if (!confine) poll(nullptr, 0, 1);
    }
  };
  const auto served = [](const WorkerProcessesStats& stats) {
    uint64_t accepted = 0;
    for (const WorkerProcessStats& worker : stats.workers) accepted += worker.accepted;
    return accepted;
  };
  if (!(*workers)->Give(pair[1]).ok()) _exit(5);
  drive_until([&](const auto& stats) { return served(stats) >= 50 && stats.given >= 20; });
  // One is stopped, what it was given comes back, and then it dies.
  kill(pids[0], SIGSTOP);
  drive_until([](const auto& stats) { return stats.taken_back > 0 || stats.given > 2'000; });
  kill(pids[0], SIGKILL);
  drive_until([](const auto& stats) { return stats.gone == 1; });
  kill(clients, SIGKILL);
  if (confine) PermitCalls(kEnd + kKeeper + kGiving + kTest);
  (*workers)->BeginShutdown();
  drive_until([](const auto& stats) { return stats.gone == 2; });
  if (confine) PermitCalls(kEnd + kTest);
  workers->reset();
  int status = -1;
  if (waitpid(pids[1], &status, 0) != pids[1] || status != 0) _exit(6);
  char byte = 0;
  if (recv(pair[0], &byte, 1, MSG_DONTWAIT) != 1) _exit(7);
  _exit(0);
}

void ExpectALife(bool confine) {
  if (kSeccompArchitecture == 0) GTEST_SKIP() << "not written for this architecture";
#ifdef RINGMASTER_TEST_SANITIZED
  GTEST_SKIP() << "a sanitizer makes system calls of its own";
#endif
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    Live(confine);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no seccomp filters here";
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(ProcessSystemCalls, EachRoleMakesNoOthersThanThoseListed) { ExpectALife(true); }
TEST(ProcessSystemCalls, AWholeLifeMakesNoOthersThanThoseListed) { ExpectALife(false); }

}  // namespace
}  // namespace ringmaster::testing
