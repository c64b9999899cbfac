#include "processes/epoll_kernel.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace ringmaster::processes {
namespace {

int Control(int set, int op, int fd, uint32_t events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  return static_cast<int>(syscall(SYS_epoll_ctl, set, op, fd, &event));
}

// What is ready there; negative: an error.
int Poll(int fd) {
  pollfd ready{.fd = fd, .events = POLLIN | POLLRDHUP, .revents = 0};
  const timespec now{};
  const long polled = syscall(SYS_ppoll, &ready, 1, &now, nullptr, 0);
  return polled < 0 ? -1 : ready.revents;
}

}  // namespace

bool EpollKernel::Show(uint32_t sight, bool asleep) {
  const int set = descriptors_.sights[sight];
  const uint32_t events = asleep ? 0u : uint32_t{EPOLLIN};
  if (Control(set, EPOLL_CTL_ADD, listener_, events) == 0) return true;
  if (errno != EEXIST) return false;
  // Taken out first, because only what is added is looked at whatever was found before.
  Hide(sight);
  return Control(set, EPOLL_CTL_ADD, listener_, events) == 0 || errno == EEXIST;
}

void EpollKernel::Wake(uint32_t sight) {
  Control(descriptors_.sights[sight], EPOLL_CTL_MOD, listener_, EPOLLIN);
}

void EpollKernel::Hide(uint32_t sight) {
  Control(descriptors_.sights[sight], EPOLL_CTL_DEL, listener_, 0);
}

// Of a listener on TCP these 32 bytes say how many wait. Of others, whether one does.
int EpollKernel::Waiting() {
  tcp_info info{};
  socklen_t length = offsetof(tcp_info, tcpi_lost);
  if (getsockopt(listener_, IPPROTO_TCP, TCP_INFO, &info, &length) == 0) {
    return static_cast<int>(info.tcpi_unacked);
  }
  if (errno != EOPNOTSUPP && errno != ENOPROTOOPT) return -1;
  const int ready = Poll(listener_);
  if (ready < 0 && errno != EINTR) return -1;
  return ready > 0 && (ready & POLLRDHUP) == 0 ? 1 : 0;
}

bool EpollKernel::HasEnded() const {
  const int ready = Poll(listener_);
  return ready > 0 && (ready & (POLLRDHUP | POLLHUP)) != 0;
}

void EpollKernel::HideFromAll() {
  for (uint32_t sight = 0; sight < kSightsMax; ++sight) {
    if (descriptors_.sights[sight] >= 0) Hide(sight);
  }
}

int64_t EpollKernel::NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace ringmaster::processes
