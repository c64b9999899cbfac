// The rival: every worker has an epoll set of its own with the one listener in it, registered with
// EPOLLEXCLUSIVE, so that an arrival wakes one worker that waits instead of all (Linux 4.5).
//
// Written as a careful server would have it: level-triggered, a bounded number of accepts until
// EAGAIN for each wake-up, accept4 with its flags instead of fcntl, descriptors closed without
// removing them from the set first.
//
// nginx differs in two points. It accepts one connection for each event unless `multi_accept` is
// on; under load that costs an epoll_wait for each connection and spreads little better. And it
// takes the listener out of the set and puts it in again, after every sixteenth connection by
// default, to get to the end of the kernel's queue, because the kernel asks the worker that was
// registered first, first. That evens out the shares in the long run, at two system calls each
// time; it knows nothing of load, and a worker that sleeps keeps what it has accepted.

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/serving.h"

namespace ringmaster::bench {
namespace {

class Worker {
 public:
  Worker(const ServerOptions& options, uint32_t index)
      : listen_fd_(options.listen_fd),
        index_(index),
        serving_(options.workers[index], options.books->workers[index]) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker() {
    if (epoll_fd_ >= 0) close(epoll_fd_);
  }

  // `stop_fd` becomes readable when the server stops.
  absl::Status Prepare(int stop_fd) {
    stop_fd_ = stop_fd;
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make an epoll set");
    epoll_event event{.events = EPOLLIN, .data = {.fd = stop_fd_}};
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, stop_fd_, &event) != 0) {
      return absl::ErrnoToStatus(errno, "cannot watch an eventfd");
    }
    event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data = {.fd = listen_fd_}};
    if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, listen_fd_, &event) != 0) {
      return absl::ErrnoToStatus(errno, "cannot watch the listener with EPOLLEXCLUSIVE");
    }
    return absl::OkStatus();
  }

  // The worker's thread.
  void Run() {
    NameWorkerThread(index_);
    epoll_event events[kEventsPerTurnMax];
    for (bool stop = false; !stop;) {
      const int count = epoll_wait(epoll_fd_, events, kEventsPerTurnMax, -1);
      for (int i = 0; i < count; ++i) {
        const int fd = events[i].data.fd;
        if (fd == stop_fd_) {
          stop = true;
        } else if (fd == listen_fd_) {
          Accept();
        } else if (Serving::OnReadable(fd) == Serving::Next::kClose) {
          Close(fd);
        }
      }
    }
    for (size_t fd = 0; fd < open_.size(); ++fd) {
      if (open_[fd]) Close(static_cast<int>(fd));
    }
    serving_.OnEnd();
  }

 private:
  void Accept() {
    for (int i = 0; i < kTakesPerTurnMax; ++i) {
      const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      // EAGAIN: a colleague was faster, or this was the last. After an error of the connection
      // (ECONNABORTED) or of the process (EMFILE), level triggering comes back to it.
      if (fd < 0) return;
      serving_.OnTaken();
      if (Serving::OnReadable(fd) == Serving::Next::kClose) {
        close(fd);
        continue;
      }
      epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
      if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        continue;
      }
      if (open_.size() <= static_cast<size_t>(fd)) open_.resize(static_cast<size_t>(fd) + 1);
      open_[static_cast<size_t>(fd)] = true;
    }
  }

  void Close(int fd) {
    open_[static_cast<size_t>(fd)] = false;
    close(fd);
  }

  const int listen_fd_;
  const uint32_t index_;
  Serving serving_;
  int stop_fd_ = -1;
  int epoll_fd_ = -1;
  std::vector<bool> open_;  // by descriptor
};

class EpollExclusiveServer : public Server {
 public:
  EpollExclusiveServer() = default;
  EpollExclusiveServer(const EpollExclusiveServer&) = delete;
  EpollExclusiveServer& operator=(const EpollExclusiveServer&) = delete;
  ~EpollExclusiveServer() override {
    // Nobody reads it, so it stays readable until all have seen it.
    if (stop_fd_ >= 0) eventfd_write(stop_fd_, 1);
    for (std::thread& thread : threads_) thread.join();
    workers_.clear();
    if (stop_fd_ >= 0) close(stop_fd_);
  }

  absl::Status Start(const ServerOptions& options) {
    stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make an eventfd");
    for (uint32_t i = 0; i < options.workers.size(); ++i) {
      workers_.push_back(std::make_unique<Worker>(options, i));
      // In the workers' order, which is that in which the kernel asks them.
      if (absl::Status status = workers_.back()->Prepare(stop_fd_); !status.ok()) return status;
    }
    for (const auto& worker : workers_) threads_.emplace_back(&Worker::Run, worker.get());
    return absl::OkStatus();
  }

 private:
  int stop_fd_ = -1;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
};

class EpollExclusive : public Mechanism {
 public:
  std::string name() const override { return "epoll-exclusive"; }
  std::string summary() const override {
    return "each worker waits for the listener in its own epoll set, with EPOLLEXCLUSIVE";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    auto server = std::make_unique<EpollExclusiveServer>();
    if (absl::Status status = server->Start(options); !status.ok()) return status;
    return std::unique_ptr<Server>(std::move(server));
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEpollExclusive() { return std::make_unique<EpollExclusive>(); }

}  // namespace ringmaster::bench
