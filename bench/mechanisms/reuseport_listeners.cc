#include "bench/mechanisms/reuseport_listeners.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/status/status.h"
#include "bench/mechanisms/listener_server.h"

namespace ringmaster::bench {
namespace {

absl::StatusOr<int> BindAlike(const Target& target) {
  const int fd = socket(target.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot make a listening socket");
  const int one = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) == 0 &&
      bind(fd, reinterpret_cast<const sockaddr*>(&target.address), target.address_size) == 0) {
    return fd;
  }
  const int error = errno;
  close(fd);
  return absl::ErrnoToStatus(error, "cannot bind several listeners to one port");
}

}  // namespace

std::string WhyNoReusePort(Transport transport) {
  if (transport == Transport::kTcp) return "";
  return "SO_REUSEPORT does not spread connections over Unix listeners; use TCP";
}

absl::StatusOr<std::vector<int>> MakeReusePortListeners(const ServerOptions& options,
                                                        size_t count) {
  std::vector<int> listeners;
  absl::Status status;
  while (status.ok() && listeners.size() < count) {
    const absl::StatusOr<int> fd = BindAlike(options.target);
    status = fd.status();
    if (fd.ok()) listeners.push_back(*fd);
  }
  // Only when the others hold the port, and before they listen, so that the group is theirs alone.
  if (status.ok()) shutdown(options.listen_fd, SHUT_RDWR);
  for (const int fd : listeners) {
    if (status.ok() && listen(fd, kBacklog) != 0) {
      status = absl::ErrnoToStatus(errno, "cannot listen");
    }
  }
  if (status.ok()) return listeners;
  for (const int fd : listeners) close(fd);
  return status;
}

absl::StatusOr<std::unique_ptr<Server>> OwnListeners::Start(const ServerOptions& options) const {
  absl::StatusOr<std::vector<int>> listeners =
      MakeReusePortListeners(options, options.workers.size());
  if (!listeners.ok()) return listeners.status();
  auto server = StartListenerServer(options, {.own_listeners = *listeners});
  if (!server.ok()) return server.status();
  if (absl::Status status = OnStart(*listeners); !status.ok()) return status;
  return server;
}

}  // namespace ringmaster::bench
