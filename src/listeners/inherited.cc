#include "listeners/inherited.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ringmaster/listeners.h"

namespace ringmaster {
namespace internal {
namespace {

// The option's value; -errno if there is none.
int OptionOf(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -errno;
}

bool IsBound(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return false;
  switch (address.ss_family) {
    case AF_INET:
      return reinterpret_cast<const sockaddr_in&>(address).sin_port != 0;
    case AF_INET6:
      return reinterpret_cast<const sockaddr_in6&>(address).sin6_port != 0;
    default:
      return size > offsetof(sockaddr_un, sun_path);
  }
}

bool IsConnected(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

}  // namespace

absl::Status CheckInherited(int fd, const std::string& which) {
  const int type = OptionOf(fd, SO_TYPE);
  if (type == -EBADF) {
    return absl::InvalidArgumentError(
        absl::StrCat(which,
                     " is not open: whoever starts this process must let it inherit the "
                     "listener under that number, without close-on-exec"));
  }
  if (type < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(which, " is not a socket: pass the number of a listening socket"));
  }
  if (OptionOf(fd, SO_ACCEPTCONN) > 0) return absl::OkStatus();
  if (type == SOCK_DGRAM) {
    if (IsBound(fd)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(which, " is a datagram socket without an address: call bind() first"));
  }
  if (IsConnected(fd)) {
    return absl::InvalidArgumentError(
        absl::StrCat(which,
                     " is a connection, not a listener: a server is given the listener "
                     "itself; in a socket unit of systemd set Accept=no"));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      which, " is a socket that does not listen: call listen() before it is passed on"));
}

void MakeOurs(int fd) {
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  const int flags = fcntl(fd, F_GETFL);
  if ((flags & O_NONBLOCK) == 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

}  // namespace internal

NamedListener& NamedListener::operator=(NamedListener&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    name_ = std::move(other.name_);
  }
  return *this;
}

NamedListener::~NamedListener() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<NamedListener> InheritListener(int fd, std::string name) {
  absl::Status status = internal::CheckInherited(fd, absl::StrCat("descriptor ", fd));
  if (!status.ok()) return status;
  internal::MakeOurs(fd);
  return NamedListener(fd, std::move(name));
}

}  // namespace ringmaster
