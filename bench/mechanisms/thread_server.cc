#include "bench/mechanisms/thread_server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

namespace ringmaster::bench {

absl::Status ThreadServer::MakeStopFd() {
  if (stop_fd_ < 0) stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (stop_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make an eventfd");
  return absl::OkStatus();
}

void ThreadServer::StopThreads() {
  // Nobody reads it, so it stays readable until all have seen it.
  if (stop_fd_ >= 0) eventfd_write(stop_fd_, 1);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  if (stop_fd_ >= 0) close(stop_fd_);
  stop_fd_ = -1;
}

}  // namespace ringmaster::bench
