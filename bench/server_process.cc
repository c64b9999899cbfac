#include "bench/server_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <new>
#include <numeric>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"

namespace ringmaster::bench {
namespace {

constexpr int kStartMsMax = 10'000;
constexpr int64_t kStopNsMax = 10 * kSecond;
constexpr int64_t kStopLookNs = kMillisecond;

// What the child answers: that its books tell how the start went, or that they are up to date.
constexpr char kReady = 1;
// What the child is asked for: to bring its books up to date.
constexpr char kLook = 2;

// The RLIMIT_NOFILE that leaves room for so many descriptors more. A new one gets the lowest number
// that is free, which must be below the limit. There may be some that are open above it.
uint32_t LimitThatLeaves(uint32_t room) {
  uint32_t limit = 0;
  for (; room > 0; ++limit) {
    if (fcntl(static_cast<int>(limit), F_GETFD) < 0) --room;
  }
  return limit;
}

// What must be so before the mechanism starts: its threads inherit it, and io_uring looks at the
// limit when an accept is armed.
absl::Status Confine(const ServerSetUp& set_up) {
  if (!set_up.cpus.empty()) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    for (const int cpu : set_up.cpus) CPU_SET(static_cast<size_t>(cpu), &cpus);
    if (sched_setaffinity(0, sizeof(cpus), &cpus) != 0) {
      return absl::ErrnoToStatus(errno, "cannot bind the server to its processors");
    }
  }
  if (set_up.descriptor_limit > 0) {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = std::min<rlim_t>(set_up.descriptor_limit, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      return absl::ErrnoToStatus(errno, "cannot limit the server's descriptors");
    }
  }
  return absl::OkStatus();
}

// What a start comes to if there are too few threads for it, which a std::thread throws.
absl::StatusOr<std::unique_ptr<Server>> StartServer(const Mechanism& mechanism,
                                                    const ServerOptions& options) {
  try {
    return mechanism.Start(options);
  } catch (const std::system_error& error) {
    return NoThread(error);
  }
}

// The life of the child.
[[noreturn]] void Serve(const Mechanism& mechanism, const ServerSetUp& set_up,
                        const ServerOptions& options, int control_fd) {
  {
    absl::StatusOr<std::unique_ptr<Server>> server(nullptr);
    if (absl::Status status = Confine(set_up); status.ok()) {
      server = StartServer(mechanism, options);
    } else {
      server = status;
    }
    if (!server.ok()) {
      const std::string text(server.status().message());
      options.books->failure_code = server.status().raw_code();
      std::memcpy(options.books->failure.data(), text.data(),
                  std::min(text.size(), options.books->failure.size() - 1));
    } else {
      options.books->descriptor_limit = LimitThatLeaves(set_up.descriptor_room);
    }
    (void)send(control_fd, &kReady, sizeof(kReady), MSG_NOSIGNAL);
    // Until the parent closes its end, on purpose or by ending.
    while (server.ok()) {
      char byte;
      const ssize_t count = read(control_fd, &byte, sizeof(byte));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) break;
      (*server)->WriteBooks();
      (void)send(control_fd, &kReady, sizeof(kReady), MSG_NOSIGNAL);
    }
  }
  // Not exit: what the parent has registered for its own end is not the child's to do.
  _exit(0);
}

// Waits for the child's answer: whether one came in time.
bool AwaitReady(int control_fd, int ms_max) {
  pollfd ready{.fd = control_fd, .events = POLLIN, .revents = 0};
  int count = 0;
  while ((count = poll(&ready, 1, ms_max)) < 0 && errno == EINTR) {
  }
  return count > 0;
}

// Of all threads of `pid`, voluntary or not.
int64_t ContextSwitches(pid_t pid) {
  int64_t sum = 0;
  std::error_code error;
  const std::string folder = absl::StrCat("/proc/", pid, "/task");
  for (auto at = std::filesystem::directory_iterator(folder, error);
       !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    std::ifstream status(at->path() / "status");
    for (std::string line; std::getline(status, line);) {
      const size_t colon = line.find("ctxt_switches:");
      if (colon == std::string::npos) continue;
      sum += std::strtoll(line.c_str() + line.find(':') + 1, nullptr, 10);
    }
  }
  return sum;
}

}  // namespace

absl::Status NoThread(const std::system_error& error) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "cannot start a thread: ", error.code().message(),
      "; raise the limit of threads with ulimit -u, or that of the control group (pids.max)"));
}

uint64_t ServerCounts::Taken() const {
  return std::accumulate(taken.begin(), taken.end(), uint64_t{0});
}

absl::StatusOr<std::unique_ptr<ServerProcess>> ServerProcess::Start(const Mechanism& mechanism,
                                                                    const ServerSetUp& set_up) {
  const std::vector<WorkerTraits>& workers = set_up.workers;
  if (workers.empty() || workers.size() > kWorkersMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("a server has 1 to ", kWorkersMax, " workers, not ", workers.size()));
  }
  absl::StatusOr<Listener> listener = Listener::Create(set_up.transport, mechanism.shares_port());
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
    Serve(mechanism, set_up,
          {.listen_fd = listener->fd(),
           .target = listener->target(),
           .workers = workers,
           .books = process->books_},
          control[1]);
  }
  const int error = errno;
  close(control[1]);
  process->control_fd_ = control[0];
  if (process->pid_ < 0) return absl::ErrnoToStatus(error, "cannot fork a server");

  if (!AwaitReady(control[0], kStartMsMax)) {
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

absl::StatusOr<ServerCounts> ServerProcess::ReadCounts() {
  char byte = kLook;
  if (control_fd_ < 0 || send(control_fd_, &byte, sizeof(byte), MSG_NOSIGNAL) != 1 ||
      !AwaitReady(control_fd_, kStartMsMax) || read(control_fd_, &byte, sizeof(byte)) != 1) {
    return absl::UnavailableError("the server does not answer: it has ended, or hangs");
  }
  constexpr auto kRelaxed = std::memory_order_relaxed;
  ServerCounts counts{.at_ns = NowNs(), .taken = TakenByWorker()};
  for (size_t i = 0; i < workers_; ++i) {
    const WorkerBooks& worker = books_->workers[i];
    counts.wakes += worker.wakes.load(kRelaxed);
    counts.empty_wakes += worker.empty_wakes.load(kRelaxed);
    counts.arrival_wakes += worker.arrival_wakes.load(kRelaxed);
    counts.system_calls += worker.system_calls.load(kRelaxed);
  }
  counts.master_wakes = books_->master.wakes.load(kRelaxed);
  counts.doorbells = books_->master.doorbells.load(kRelaxed);
  counts.system_calls += books_->master.system_calls.load(kRelaxed);
  counts.recalled = books_->recalled.load(kRelaxed);
  counts.cpu_ns = CpuNs();
  counts.context_switches = ContextSwitches(pid_);
  return counts;
}

void ServerProcess::Freeze(uint32_t worker, int64_t ns) {
  books_->orders[worker].rest_ns.store(ns, std::memory_order_relaxed);
}

void ServerProcess::TellToLeave(uint32_t worker) {
  books_->orders[worker].leaves.store(true, std::memory_order_relaxed);
}

absl::StatusOr<ServerCost> ServerProcess::Stop() {
  if (books_ != nullptr) books_->stopping.store(true, std::memory_order_relaxed);
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
