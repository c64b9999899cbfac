#include "bench/server_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"

namespace ringmaster::bench {
namespace {

constexpr int kStartMsMax = 10'000;
constexpr int64_t kStopNsMax = 10 * kSecond;
constexpr int64_t kStopLookNs = kMillisecond;

// What the child writes to say that its books tell how the start went.
constexpr char kStarted = 1;

// The life of the child.
[[noreturn]] void Serve(const Mechanism& mechanism, const ServerOptions& options, int control_fd) {
  {
    absl::StatusOr<std::unique_ptr<Server>> server = mechanism.Start(options);
    if (!server.ok()) {
      const std::string text(server.status().message());
      options.books->failure_code = server.status().raw_code();
      std::memcpy(options.books->failure.data(), text.data(),
                  std::min(text.size(), options.books->failure.size() - 1));
    }
    (void)send(control_fd, &kStarted, sizeof(kStarted), MSG_NOSIGNAL);
    char byte;
    // Returns when the parent closes its end, on purpose or by ending.
    while (server.ok() && read(control_fd, &byte, sizeof(byte)) < 0 && errno == EINTR) {
    }
  }
  // Not exit: what the parent has registered for its own end is not the child's to do.
  _exit(0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(
    const Mechanism& mechanism, Transport transport, const std::vector<WorkerTraits>& workers) {
  if (workers.empty() || workers.size() > kWorkersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a server has 1 to ", kWorkersMax, " workers, not ", workers.size()));
  }
  absl::StatusOr<Listener> listener = Listener::Create(transport);
  if (!listener.ok()) return listener.status();

  std::unique_ptr<ServerProcess> process(new ServerProcess);
  process->target_ = listener->target();
  process->workers_ = workers.size();
  void* memory =
      mmap(nullptr, sizeof(ServerBooks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, "cannot map shared memory");
  process->books_ = new (memory) ServerBooks;

  int control[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0) {
    return absl::ErrnoToStatus(errno, "cannot make a pair of sockets");
  }
  process->pid_ = fork();
  if (process->pid_ == 0) {
    close(control[0]);
    // Should the parent be killed while the server does not look at its control socket.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    Serve(mechanism, {.listen_fd = listener->fd(), .workers = workers, .books = process->books_},
          control[1]);
  }
  const int error = errno;
  close(control[1]);
  process->control_fd_ = control[0];
  if (process->pid_ < 0) return absl::ErrnoToStatus(error, "cannot fork a server");

  pollfd ready{.fd = control[0], .events = POLLIN, .revents = 0};
  int count = 0;
  while ((count = poll(&ready, 1, kStartMsMax)) < 0 && errno == EINTR) {
  }
  if (count == 0) {
    kill(process->pid_, SIGKILL);
    return absl::DeadlineExceededError(
        absl::StrCat(mechanism.name(), " was not ready to serve within ", kStartMsMax, " ms"));
  }
  char byte;
  if (read(control[0], &byte, sizeof(byte)) != 1) {
    return absl::InternalError(
        absl::StrCat("the server of ", mechanism.name(), " ended before it was ready"));
  }
  if (const int code = process->books_->failure_code; code != 0) {
    return absl::Status(static_cast<absl::StatusCode>(code), process->books_->failure.data());
  }
  return process;
}

ServerProcess::~ServerProcess() {
  (void)Stop();
  if (books_ != nullptr) munmap(books_, sizeof(ServerBooks));
}

std::vector<uint64_t> ServerProcess::TakenByWorker() const {
  std::vector<uint64_t> taken;
  for (size_t i = 0; i < workers_; ++i) {
    taken.push_back(books_->workers[i].taken.load(std::memory_order_relaxed));
  }
  return taken;
}

int64_t ServerProcess::CpuNs() const {
  clockid_t clock{};
  if (pid_ < 0 || clock_getcpuclockid(pid_, &clock) != 0) return 0;
  return ReadClock(clock);
}

absl::StatusOr<ServerCost> ServerProcess::Stop() {
  if (control_fd_ >= 0) close(control_fd_);
  control_fd_ = -1;
  if (pid_ < 0) return absl::FailedPreconditionError("the server has been stopped");
  const int64_t deadline_ns = NowNs() + kStopNsMax;
  bool killed = false;
  int status = 0;
  rusage usage{};
  for (;;) {
    const pid_t ended = wait4(pid_, &status, killed ? 0 : WNOHANG, &usage);
    if (ended == pid_) break;
    if (ended < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "cannot await the server");
    if (NowNs() > deadline_ns && !killed) {
      killed = true;
      kill(pid_, SIGKILL);
    }
    const timespec look{.tv_sec = 0, .tv_nsec = kStopLookNs};
    nanosleep(&look, nullptr);
  }
  pid_ = -1;
  if (killed) return absl::DeadlineExceededError("the server did not stop and was killed");
  if (WIFSIGNALED(status)) {
    return absl::InternalError(absl::StrCat("the server was ended by signal ", WTERMSIG(status),
                                            " (", sigabbrev_np(WTERMSIG(status)), ")"));
  }
  if (WEXITSTATUS(status) != 0) {
    return absl::InternalError(absl::StrCat("the server exited with ", WEXITSTATUS(status)));
  }
  const auto ns = [](const timeval& time) {
    return int64_t{time.tv_sec} * kSecond + int64_t{time.tv_usec} * kMicrosecond;
  };
  return ServerCost{.cpu_ns = ns(usage.ru_utime) + ns(usage.ru_stime),
                    .context_switches = usage.ru_nvcsw + usage.ru_nivcsw};
}

}  // namespace ringmaster::bench
