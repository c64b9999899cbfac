// Sockets and processes for the tests of listeners.

#ifndef RINGMASTER_TESTS_LISTENERS_SOCKETS_H_
#define RINGMASTER_TESTS_LISTENERS_SOCKETS_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <system_error>
#include <utility>

namespace ringmaster::testing {

// A bound on what a test may wait for, never an estimate.
inline constexpr int kSoonMs = 20'000;

// A descriptor, closed at the end.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.Release()) {}
  Fd& operator=(Fd&& other) noexcept {
    Close();
    fd_ = other.Release();
    return *this;
  }
  ~Fd() { Close(); }

  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

// Bound to 127.0.0.1 and a port that the kernel chooses; a stream socket listens.
inline Fd Bound(int type = SOCK_STREAM, int backlog = 512) {
  Fd fd(socket(AF_INET, type, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(listen(fd.get(), backlog), 0);
  }
  return fd;
}

// A client that is connected to the listener.
inline Fd ConnectTo(int listener) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  Fd fd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size), 0);
  return fd;
}

// Whether both stand for the same socket.
inline bool SameSocket(int left, int right) {
  struct stat a {};
  struct stat b {};
  return fstat(left, &a) == 0 && fstat(right, &b) == 0 && a.st_ino == b.st_ino;
}

inline bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }
inline bool IsCloseOnExec(int fd) { return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0; }
inline bool IsNonBlocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0; }

// How many descriptors this process has.
inline long OpenDescriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
}

// A directory that is removed with what is in it.
class Scratch {
 public:
  Scratch() {
    path_ = (std::filesystem::temp_directory_path() / "listeners-XXXXXX").string();
    EXPECT_NE(mkdtemp(path_.data()), nullptr);
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Runs `body` in a forked child; its result is the exit status.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(fork()) {
    if (pid_ == 0) _exit(body());
  }
  ~Child() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int signal) const { kill(pid_, signal); }
  // The exit status, or 128 and the signal. Waits.
  int Wait() {
    int status = 0;
    if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_;
};

// Whether it is readable, or has ended, within kSoonMs.
inline bool BecomesReadable(int fd) {
  pollfd waits{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&waits, 1, kSoonMs) == 1;
}

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_LISTENERS_SOCKETS_H_
