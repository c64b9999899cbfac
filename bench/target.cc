#include "bench/target.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/status/status.h"

namespace ringmaster::bench {
std::string_view TransportName(Transport transport) {
  return transport == Transport::kTcp ? "tcp" : "unix";
}

absl::StatusOr<Listener> Listener::Create(Transport transport, bool shares_port) {
  Target target{.transport = transport};
  if (transport == Transport::kTcp) {
    auto* address = reinterpret_cast<sockaddr_in*>(&target.address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.address_size = sizeof(*address);
  } else {
    // Binding an address that is nothing but a family makes the kernel choose an abstract one.
    target.address.ss_family = AF_UNIX;
    target.address_size = sizeof(sa_family_t);
  }
  const int fd = socket(target.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot make a listening socket");
  Listener listener(fd, target);
  const int one = 1;
  if (shares_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0) {
    return absl::ErrnoToStatus(errno, "cannot share a port");
  }
  if (bind(fd, reinterpret_cast<const sockaddr*>(&target.address), target.address_size) != 0) {
    return absl::ErrnoToStatus(errno, "cannot bind a listening socket");
  }
  if (listen(fd, kBacklog) != 0) return absl::ErrnoToStatus(errno, "cannot listen");
  listener.target_.address_size = sizeof(listener.target_.address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&listener.target_.address),
                  &listener.target_.address_size) != 0) {
    return absl::ErrnoToStatus(errno, "cannot read the address of a listening socket");
  }
  return listener;
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), target_(other.target_) {}

Listener::~Listener() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace ringmaster::bench
