#include "bench/mechanisms/epoll_worker.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "bench/clock.h"

namespace ringmaster::bench {

EpollWorker::EpollWorker(const ServerOptions& options, uint32_t index, const Door& door)
    : index_(index), door_(door), serving_(options, index) {}

EpollWorker::~EpollWorker() {
  if (epoll_fd_ >= 0) close(epoll_fd_);
}

absl::Status EpollWorker::Prepare(int stop_fd) {
  stop_fd_ = stop_fd;
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make an epoll set");
  epoll_event event{.events = EPOLLIN, .data = {.fd = stop_fd_}};
  if (epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, stop_fd_, &event) != 0) {
    return absl::ErrnoToStatus(errno, "cannot watch an eventfd");
  }
  if (!OpenDoor()) return absl::ErrnoToStatus(errno, "cannot watch what connections come from");
  return absl::OkStatus();
}

void EpollWorker::Run() {
  NameWorkerThread(index_);
  epoll_event events[kEventsPerTurnMax];
  for (bool stop = false; !stop;) {
    BeforeWait();
    const int count = serving_.call(epoll_wait, epoll_fd_, events, kEventsPerTurnMax, TimeoutMs());
    const bool by_door =
        std::any_of(events, events + std::max(count, 0),
                    [this](const epoll_event& event) { return event.data.fd == door_.fd; });
    const bool takes = AfterWait(by_door);
    serving_.OnWake();
    if (takes) TakeAll();
    std::array<int, kEventsPerTurnMax> ready;  // connections
    size_t ready_end = 0;
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd != stop_fd_ && fd != door_.fd) ready[ready_end++] = fd;
    }
    size_t ready_begin = 0;
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd == stop_fd_) {
        stop = true;
      } else if (events[i].data.fd == door_.fd) {
        serving_.OnArrival();
        if (!takes) TakeAll();
      } else if (ready_begin < ready_end) {  // otherwise it was passed on
        ready_end -= PassOnSome(std::span(ready).subspan(ready_begin, ready_end - ready_begin));
        if (ready_begin > 0 && Offered()) TakeAll();
        const int fd = ready[ready_begin++];
        if (serving_.OnReadable(fd) == Serving::Next::kClose) Close(fd);
      }
    }
    serving_.OnTurnEnd();
    Settle();
  }
  for (size_t fd = 0; fd < open_.size(); ++fd) {
    if (open_[fd]) Close(static_cast<int>(fd));
  }
  serving_.OnEnd();
}

void EpollWorker::TakeAll() {
  for (int i = 0; i < door_.takes_max && !Full(); ++i) {
    const int fd = TakeNext();
    if (fd >= 0) {
      Take(fd);
      continue;
    }
    // -EAGAIN: a colleague was faster, or this was the last. After an error of the connection
    // (ECONNABORTED) level triggering comes back to the next.
    if (MeansShortage(-fd)) {
      resume_ns_ = NowNs() + kAcceptPauseNs;
      CloseDoor();
    }
    return;
  }
  Readd();
}

void EpollWorker::Readd() {
  if (door_.readd_after == 0 || !door_open_) return;
  if (taking_wakes_++ % door_.readd_after != 0) return;
  CloseDoor();
  OpenDoor();  // without memory for it, Settle tries again
}

void EpollWorker::Take(int fd) {
  serving_.OnTaken();
  if (open_.size() <= static_cast<size_t>(fd)) open_.resize(static_cast<size_t>(fd) + 1);
  open_[static_cast<size_t>(fd)] = true;
  if (serving_.OnReadable(fd) == Serving::Next::kClose) return Close(fd);
  if (!Watch(fd)) Close(fd);
}

bool EpollWorker::Watch(int fd) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  return serving_.call(epoll_ctl, epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0;
}

// Of those that are ready the last ones. Returns how many somebody else has now.
size_t EpollWorker::PassOnSome(std::span<const int> ready) {
  const size_t count = ToPassOn(ready.size());
  for (size_t passed_on = 0; passed_on < count; ++passed_on) {
    const int fd = ready[ready.size() - 1 - passed_on];
    epoll_event ignored{};
    serving_.call(epoll_ctl, epoll_fd_, EPOLL_CTL_DEL, fd, &ignored);
    if (PassOn(fd)) {
      open_[static_cast<size_t>(fd)] = false;
      serving_.OnPassedOn();
      continue;
    }
    if (!Watch(fd)) Close(fd);
    return passed_on;
  }
  return count;
}

void EpollWorker::Close(int fd) {
  open_[static_cast<size_t>(fd)] = false;
  serving_.Close(fd);
  resume_ns_ = 0;
  OnClosed(fd);
}

void EpollWorker::Settle() {
  if (left_) return;
  if (serving_.leaves()) {
    left_ = true;
    return Leave();
  }
  if (Full()) return CloseDoor();
  if (door_open_ || (resume_ns_ != 0 && NowNs() < resume_ns_)) return;
  resume_ns_ = 0;
  // Without memory for it: a moment later.
  if (!OpenDoor()) resume_ns_ = NowNs() + kAcceptPauseNs;
}

bool EpollWorker::OpenDoor() {
  epoll_event event{.events = EPOLLIN | door_.events, .data = {.fd = door_.fd}};
  door_open_ = serving_.call(epoll_ctl, epoll_fd_, EPOLL_CTL_ADD, door_.fd, &event) == 0;
  return door_open_;
}

void EpollWorker::CloseDoor() {
  if (!door_open_) return;
  door_open_ = false;
  epoll_event ignored{};
  serving_.call(epoll_ctl, epoll_fd_, EPOLL_CTL_DEL, door_.fd, &ignored);
}

int EpollWorker::TimeoutMs() const {
  if (resume_ns_ == 0 || left_) return -1;
  const int64_t rest_ns = std::max<int64_t>(resume_ns_ - NowNs(), 0);
  return static_cast<int>((rest_ns + kMillisecond - 1) / kMillisecond);
}

absl::Status EpollServer::Start(std::vector<std::unique_ptr<EpollWorker>> workers) {
  if (absl::Status status = MakeStopFd(); !status.ok()) return status;
  workers_ = std::move(workers);
  // In the workers' order, which is that in which the kernel asks them.
  for (const auto& worker : workers_) {
    if (absl::Status status = worker->Prepare(stop_fd()); !status.ok()) return status;
  }
  for (const auto& worker : workers_) threads().emplace_back(&EpollWorker::Run, worker.get());
  return absl::OkStatus();
}

void EpollServer::Stop() {
  StopThreads();
  workers_.clear();
}

}  // namespace ringmaster::bench
