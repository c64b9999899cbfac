// How a test reaches a loop that runs on another thread.

#ifndef RINGMASTER_TESTS_RUNTIME_ERRANDS_H_
#define RINGMASTER_TESTS_RUNTIME_ERRANDS_H_

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <utility>

#include "balancer_fixture.h"

namespace ringmaster {

// Jobs for a loop to run between two of its turns, and the request to stop. The loop watches `fd`,
// and calls OnReadable when that is readable. One thread at a time sends it on errands.
class Errands {
 public:
  Errands() = default;
  ~Errands() { close(fd_); }
  Errands(const Errands&) = delete;
  Errands& operator=(const Errands&) = delete;

  // Another thread's side. `Do` waits until the job has been run.
  void Stop() {
    stopped_ = true;
    eventfd_write(fd_, 1);
  }
  void Do(std::function<void()> job) {
    job_ = std::move(job);
    has_job_ = true;
    eventfd_write(fd_, 1);
    EXPECT_TRUE(Eventually([this] { return !has_job_; }));
  }

  // The loop's side.
  int fd() const { return fd_; }
  bool stopped() const { return stopped_; }
  void OnReadable() {
    eventfd_t value;
    eventfd_read(fd_, &value);
    if (!has_job_) return;
    job_();
    has_job_ = false;
  }

 private:
  const int fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  std::atomic<bool> stopped_{false};
  std::atomic<bool> has_job_{false};
  std::function<void()> job_;
};

}  // namespace ringmaster

#endif  // RINGMASTER_TESTS_RUNTIME_ERRANDS_H_
