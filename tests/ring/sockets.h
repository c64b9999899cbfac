// Listeners, clients and completions for the tests of the ring layer. Loopback only.

#ifndef RINGMASTER_TESTS_RING_SOCKETS_H_
#define RINGMASTER_TESTS_RING_SOCKETS_H_

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "support/descriptor_limit.h"

namespace ringmaster::ring {

// Owns a descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    Close();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  ~Fd() { Close(); }

  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_ = -1;
};

inline bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

// A listener at an address that the kernel chooses, and clients of it.
class Listener {
 public:
  explicit Listener(int family, int flags = SOCK_NONBLOCK)
      : family_(family), fd_(socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0)) {
    socklen_t bind_length = 0;
    if (family == AF_UNIX) {
      address_.unix_.sun_family = AF_UNIX;
      bind_length = sizeof(sa_family_t);
    } else {
      address_.inet.sin_family = AF_INET;
      address_.inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      bind_length = sizeof(address_.inet);
    }
    ok_ = bind(fd_.get(), &address_.generic, bind_length) == 0 && listen(fd_.get(), 512) == 0 &&
          getsockname(fd_.get(), &address_.generic, &length_) == 0;
  }

  bool ok() const { return ok_; }
  int fd() const { return fd_.get(); }

  // A connected client, or one without a descriptor when connecting failed.
  Fd Connect() const {
    Fd client(socket(family_, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(client.get(), &address_.generic, length_) != 0) client.Close();
    return client;
  }
  // One that connects by itself, if it is let.
  Fd ConnectWithoutWaiting() const {
    Fd client(socket(family_, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (connect(client.get(), &address_.generic, length_) != 0 && errno != EINPROGRESS) {
      client.Close();
    }
    return client;
  }

 private:
  union Address {
    sockaddr generic;
    sockaddr_in inet;
    sockaddr_un unix_;
  };
  int family_;
  Fd fd_;
  Address address_{};
  socklen_t length_ = sizeof(Address);
  bool ok_ = false;
};

// While it lives this process can open no further descriptor.
class NoDescriptorsLeft : public DescriptorLimit {
 public:
  NoDescriptorsLeft() : DescriptorLimit(NextDescriptor()) {}
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_TESTS_RING_SOCKETS_H_
