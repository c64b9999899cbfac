#include "bench/hogs.h"

#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <utility>

#include "absl/status/status.h"
#include "bench/request.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kUnits = 1000;

[[noreturn]] void Spin(pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have ended before that was asked for.
  while (getppid() == parent) Compute(kUnits);
  _exit(0);
}

}  // namespace

absl::StatusOr<Hogs> Hogs::Start(uint32_t count) {
  Hogs hogs;
  const pid_t parent = getpid();
  for (uint32_t i = 0; i < count; ++i) {
    const pid_t pid = fork();
    if (pid == 0) Spin(parent);
    if (pid < 0) return absl::ErrnoToStatus(errno, "cannot start a process that is busy");
    hogs.pids_.push_back(pid);
  }
  return hogs;
}

Hogs::Hogs(Hogs&& other) noexcept : pids_(std::exchange(other.pids_, {})) {}

Hogs::~Hogs() {
  for (const pid_t pid : pids_) kill(pid, SIGKILL);
  for (const pid_t pid : pids_) {
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

}  // namespace ringmaster::bench
