// What a server that gives up its privileges must still permit: src/SYSTEM_CALLS.md, by role.
// Method: a child process puts a filter over each role, which ends it at the first other system
// call. The master's thread gets it from within its policy, a worker's thread before its first
// claim, and the main thread before the end. Clients are a process of their own, forked before.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "support/seccomp.h"
#include "support/server.h"

namespace ringmaster {
namespace {

using testing::Listener;

using testing::operator+;
using Calls = testing::SystemCalls;

// As in src/SYSTEM_CALLS.md.
const Calls kMaster = {SYS_io_uring_enter, SYS_getsockopt, SYS_setsockopt, SYS_getpeername,
                       SYS_write,          SYS_close,      SYS_accept4,    SYS_fcntl,
                       SYS_poll,           SYS_recvfrom,   SYS_exit,       SYS_rt_sigprocmask};
const Calls kWorker = {SYS_write, SYS_close, SYS_fcntl, SYS_accept4, SYS_poll, SYS_io_uring_enter};
// What one that has permits does besides.
const Calls kPermitHolder = {SYS_getsockopt, SYS_epoll_ctl, SYS_epoll_wait, SYS_sched_yield};
const Calls kEnd = {SYS_write, SYS_close};
const Calls kSetUp = {SYS_io_uring_setup,
                      SYS_io_uring_enter,
                      SYS_io_uring_register,
                      SYS_clone3,
                      SYS_rt_sigaction,
                      SYS_clone,
                      SYS_set_robust_list,
                      SYS_rseq,
                      SYS_sched_setaffinity,
                      SYS_sched_getaffinity,
                      SYS_rt_sigprocmask,
                      SYS_exit,
                      SYS_prctl,
                      SYS_eventfd2,
                      SYS_socket,
                      SYS_bind,
                      SYS_listen,
                      SYS_connect,
                      SYS_getsockname,
                      SYS_getsockopt,
                      SYS_fcntl,
                      SYS_newfstatat,
                      SYS_fstat,
                      SYS_epoll_create1,
                      SYS_epoll_ctl,
                      SYS_kcmp,
                      SYS_uname,
                      SYS_getpid,
                      SYS_clock_getres,
                      SYS_openat,
                      SYS_read,
                      SYS_write,
                      SYS_close,
                      SYS_getdents64,
                      SYS_lseek,
                      SYS_readlink,
                      SYS_prlimit64};
// What the test does itself.
const Calls kTest = {SYS_exit_group, SYS_poll, SYS_write, SYS_read, SYS_exit, SYS_rt_sigprocmask};

void Permit(const Calls& calls) { testing::PermitCalls(calls + kTest); }

// Puts the filter over the master's thread.
class ConfiningPolicy final : public Policy {
 public:
  std::string name() const override { return "confining"; }
  FactsNeeded facts() const override { return {.incoming_cpu = true, .peer = true}; }
  size_t Pick(const Arrival&, const View&) override {
    if (!std::exchange(confined_, true)) Permit(kMaster);
    return 0;
  }

 private:
  bool confined_ = false;
};

// One client after the other, each of which waits for its answer, until nobody listens. A byte in
// `go` lets one come.
void StartClients(const Listener& listener, const int* go) {
  if (fork() != 0) return;
  close(go[1]);
  char byte;
  while (read(go[0], &byte, 1) == 1) {
    const int client = listener.Connect();
    if (client >= 0 && read(client, &byte, 1) < 0) _exit(1);
    close(client);
  }
  _exit(0);
}

// A client that has hung up before it is accepted.
void MeetOneWhoHasGone(Source& source, const Listener& listener) {
  if (!source.Pause().ok()) _exit(7);
  close(listener.Connect());
  if (!source.Resume().ok()) _exit(8);
}

enum class Kind { kDealt, kTickets, kPermits };

// A whole life. `confine`: each role by its own filter; otherwise everything under all of them.
void Live(Kind kind, bool confine) {
  const bool tickets = kind == Kind::kTickets;
  const bool permits = kind == Kind::kPermits;
  const Listener listener = Listener::Tcp();
  int go[2];
  if (pipe2(go, O_CLOEXEC) != 0) _exit(2);
  StartClients(listener, go);
  if (!confine) Permit(kSetUp + kMaster + kWorker + kPermitHolder + kEnd);
  auto balancer = Balancer::Create().value();
  SourceOptions options{.intake = tickets ? Intake::kReadiness : Intake::kPollAccept};
  if (kind == Kind::kDealt && confine) options.policy = std::make_unique<ConfiningPolicy>();
  if (kind == Kind::kDealt) options.age_max = absl::Seconds(60);
  Source source = balancer->AddSource(listener.fd(), std::move(options)).value();
  const Listener local = Listener::Unix();
  Source other = balancer->AddSource(local.fd(), {.age_max = absl::Seconds(60)}).value();
  Mailbox mailbox = Mailbox::Create().value();
  Port port = balancer->AddWorker(mailbox).value();
  if (!source.Join(port).ok() || !other.Join(port).ok()) _exit(3);
  std::atomic<bool> enough{false};
  std::atomic<bool> no_more{false};  // the worker has seen that
  std::atomic<bool> stop{false};
  std::atomic<int> announced{0};
  std::atomic<int> served{0};
  std::thread worker([&] {
    if (confine) Permit(permits ? kWorker + kPermitHolder : kWorker);
    while (!stop) {
      if (enough) {
        no_more = true;
      } else if (announced == served) {
        ++announced;
        [[maybe_unused]] const ssize_t written = write(go[1], "g", 1);
      }
      pollfd entry{.fd = mailbox.fd(), .events = POLLIN, .revents = 0};
      if (permits) port.BeforeWait();
      poll(&entry, 1, 10);
      if (permits) port.AfterWait();
      port.Claim([&](Connection connection) {
        [[maybe_unused]] const ssize_t answered = write(connection.fd(), "a", 1);
        ++served;
      });
    }
  });
  // It takes some until the source is aimed.
  const auto by_permit = [&] { return balancer->Stats().workers.at(0).by_permit; };
  while (served < 20 || (permits && by_permit() == 0)) poll(nullptr, 0, 1);
  enough = true;
  while (!no_more || served < announced) poll(nullptr, 0, 1);
  MeetOneWhoHasGone(other, local);
  if (kind == Kind::kDealt) MeetOneWhoHasGone(source, listener);
  while (balancer->Stats().gone < (kind == Kind::kDealt ? 2 : 1)) poll(nullptr, 0, 1);
  stop = true;
  worker.join();
  if (confine) Permit(kEnd);
  const BalancerStats stats = balancer->Stats();
  if (stats.accepted < static_cast<uint64_t>(served)) _exit(4);
  if (permits != (stats.workers.at(0).by_permit > 0)) _exit(9);
  if (!source.Remove().ok()) _exit(5);
  if (!balancer->Shutdown(absl::Seconds(10)).drained) _exit(6);
  port.Leave();
  mailbox = Mailbox();
  balancer.reset();
  close(go[1]);
  _exit(0);
}

void ExpectALife(Kind kind, bool confine) {
  if (testing::kSeccompArchitecture == 0) GTEST_SKIP() << "not written for this architecture";
#ifdef RINGMASTER_TEST_SANITIZED
  GTEST_SKIP() << "a sanitizer makes system calls of its own";
#endif
  if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) Live(kind, confine);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) GTEST_SKIP() << "no seccomp filters here";
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(SystemCalls, EachRoleMakesNoOthersThanThoseListed) { ExpectALife(Kind::kDealt, true); }
TEST(SystemCalls, AWorkerThatHasPermitsMakesNoOthersThanThoseListed) {
  ExpectALife(Kind::kPermits, true);
}
TEST(SystemCalls, AWorkerThatRedeemsTicketsMakesNoOthersThanThoseListed) {
  ExpectALife(Kind::kTickets, true);
}
TEST(SystemCalls, AWholeLifeMakesNoOthersThanThoseListed) { ExpectALife(Kind::kDealt, false); }

}  // namespace
}  // namespace ringmaster
