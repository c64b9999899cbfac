#include "process_server.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace ringmaster::testing {

using std::chrono::milliseconds;

void ServeAsWorker(absl::StatusOr<ProcessPort> port, bool poor) {
  alarm(kProcessSecondsMax);
  if (!port.ok()) {
    std::fprintf(stderr, "%s\n", port.status().ToString().c_str());
    _exit(1);
  }
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  const auto control = [&](int op, int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    return epoll_ctl(epoll_fd, op, fd, &event) == 0;
  };
  const int sight = port->sight();
  if (!control(EPOLL_CTL_ADD, sight)) _exit(2);
  const rlimit none{.rlim_cur = 3, .rlim_max = 3};
  if (poor) setrlimit(RLIMIT_NOFILE, &none);
  std::unordered_map<int, ProcessConnection> connections;
  const auto answer = [&](int fd) {
    std::array<char, 64> bytes;
    const ssize_t size = recv(fd, bytes.data(), bytes.size(), 0);
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    if (size == 0) return false;
    const int length = std::snprintf(bytes.data(), bytes.size(), "%d %d %d\n", getpid(),
                                     port->parent_gone(), port->draining());
    return send(fd, bytes.data(), static_cast<size_t>(length), MSG_NOSIGNAL) == length;
  };
  while (true) {
    std::array<epoll_event, 64> events;
    port->BeforeWait();
    const int count = epoll_wait(epoll_fd, events.data(), static_cast<int>(events.size()), -1);
    port->AfterWait(count == 1 && events[0].data.fd == sight);
    for (int i = 0; i < count; ++i) {
      const int fd = events[static_cast<size_t>(i)].data.fd;
      if (fd != sight) {
        if (!answer(fd)) connections.erase(fd);
        continue;
      }
      port->Claim([&](ProcessConnection connection) {
        if (control(EPOLL_CTL_ADD, connection.fd())) {
          connections.insert_or_assign(connection.fd(), std::move(connection));
        }
      });
    }
    if (port->draining() && port->joined()) {
      control(EPOLL_CTL_DEL, sight);
      port->Leave();
    }
    if (!port->joined() && connections.empty()) _exit(0);
  }
}

ProcessListener::ProcessListener()
    : fd_(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
  address_.sin_family = AF_INET;
  address_.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address_);
  if (bind(fd_, reinterpret_cast<sockaddr*>(&address_), length) != 0 || listen(fd_, 4096) != 0 ||
      getsockname(fd_, reinterpret_cast<sockaddr*>(&address_), &length) != 0) {
    std::perror("a listener on 127.0.0.1");
    std::abort();
  }
}

ProcessListener::~ProcessListener() { close(fd_); }

int ProcessListener::Connect() const {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{.tv_sec = 10, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  // So that no port waits for the end of its connection.
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address_), sizeof(address_)) == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

namespace {

Answer ParseAnswer(const std::string& line) {
  Answer answer;
  int parent_gone = 0;
  int draining = 0;
  if (std::sscanf(line.c_str(), "%d %d %d", &answer.pid, &parent_gone, &draining) != 3) return {};
  answer.parent_gone = parent_gone != 0;
  answer.draining = draining != 0;
  return answer;
}

}  // namespace

Answer Ask(int fd) {
  if (send(fd, "?", 1, MSG_NOSIGNAL) != 1) return {};
  std::string line;
  for (char byte = 0; byte != '\n' && recv(fd, &byte, 1, 0) == 1;) line += byte;
  return ParseAnswer(line);
}

Answer AskOnce(const ProcessListener& listener) {
  const int fd = listener.Connect();
  if (fd < 0) return {};
  const Answer answer = Ask(fd);
  close(fd);
  return answer;
}

ClientLoad::ClientLoad(const ProcessListener& listener, int per_second)
    : listener_(listener), per_second_(per_second), epoll_fd_(epoll_create1(EPOLL_CLOEXEC)) {
  next_ = Clock::now();
}

ClientLoad::~ClientLoad() { CloseInChild(); }

void ClientLoad::CloseInChild() {
  for (const auto& [fd, begun] : begun_) close(fd);
  close(epoll_fd_);
}

std::map<pid_t, uint64_t> ClientLoad::TakeAnsweredBy() { return std::exchange(answered_by_, {}); }

void ClientLoad::Come() {
  const int fd = listener_.Connect();
  if (fd < 0) {
    ++refused_;
    return;
  }
  epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
  if (send(fd, "?", 1, MSG_NOSIGNAL) != 1 || epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) {
    ++lost_;
    close(fd);
    return;
  }
  begun_.emplace(fd, Clock::now());
}

void ClientLoad::LookAfter(int timeout_ms) {
  std::array<epoll_event, 64> events;
  const int count =
      epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<size_t>(i)].data.fd;
    std::array<char, 64> bytes{};
    const ssize_t size = recv(fd, bytes.data(), bytes.size() - 1, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    const Answer answer = size > 0 ? ParseAnswer(bytes.data()) : Answer{};
    if (answer.pid != 0) {
      ++answered_;
      ++answered_by_[answer.pid];
    } else {
      ++lost_;
    }
    longest_ =
        std::max(longest_, std::chrono::duration_cast<milliseconds>(Clock::now() - begun_[fd]));
    begun_.erase(fd);
    // A child that was just forked has a copy still.
    epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
    close(fd);
  }
}

void ClientLoad::RunUntil(Clock::time_point until) {
  next_ = std::max(next_, Clock::now() - milliseconds(100));
  while (Clock::now() < until) {
    while (next_ <= Clock::now() && begun_.size() < 1000) {
      Come();
      next_ += std::chrono::nanoseconds(1'000'000'000 / per_second_);
    }
    LookAfter(1);
  }
}

bool ClientLoad::Finish(milliseconds patience) {
  const auto until = Clock::now() + patience;
  while (!begun_.empty() && Clock::now() < until) LookAfter(10);
  return begun_.empty();
}

}  // namespace ringmaster::testing
