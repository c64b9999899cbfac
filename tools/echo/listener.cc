#include "listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ringmaster::echo {
namespace {

// How many connections may wait in the kernel before they are accepted; the kernel lowers it to
// net.core.somaxconn.
constexpr int kBacklog = 4096;

// How long an address that is in use is tried, and how often.
constexpr absl::Duration kInUseMax = absl::Milliseconds(200);
constexpr absl::Duration kInUsePause = absl::Milliseconds(5);

constexpr std::string_view kUnixPrefix = "unix:";
constexpr std::string_view kUdpPrefix = "udp:";

// By what name a successor gets a listener.
constexpr std::string_view kOwnsFile = "owns-file";
constexpr std::string_view kOwnsNoFile = "listener";

struct HostAndPort {
  std::string host;
  std::string port;
};

absl::StatusOr<HostAndPort> SplitHostAndPort(const std::string& where) {
  const size_t colon = where.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on \"", where,
                     "\": there is no port in it; try --listen 127.0.0.1:7777 or unix:PATH"));
  }
  std::string host = where.substr(0, colon);
  const std::string port = where.substr(colon + 1);
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on \"", where, "\": \"", port,
                                                   "\" is not a port; it is 0 to 65535"));
  }
  if (host.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot listen on \"", where, "\": there is no host in it; try 127.0.0.1:", port,
        " for this machine alone, or 0.0.0.0:", port, " for everybody"));
  }
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (!brackets && host.find(':') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot listen on \"", where, "\": an IPv6 address needs brackets, as in [::1]:7777"));
  }
  if (brackets) host = host.substr(1, host.size() - 2);
  return HostAndPort{host, port};
}

std::string AddressText(const sockaddr_storage& address) {
  char host[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof(host));
    return absl::StrCat("[", host, "]:", ntohs(v6.sin6_port));
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
  return absl::StrCat(host, ":", ntohs(v4.sin_port));
}

// `nc` connects to an address, not to "any", so that is shown as the loopback address.
std::string TryCommand(const sockaddr_storage& address, int type) {
  const char* const command = type == SOCK_DGRAM ? "nc -u " : "nc ";
  char host[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    const bool any = IN6_IS_ADDR_UNSPECIFIED(&v6.sin6_addr);
    inet_ntop(AF_INET6, any ? &in6addr_loopback : &v6.sin6_addr, host, sizeof(host));
    return absl::StrCat(command, host, " ", ntohs(v6.sin6_port));
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  const bool any = v4.sin_addr.s_addr == htonl(INADDR_ANY);
  inet_ntop(AF_INET, &v4.sin_addr, host, sizeof(host));
  return absl::StrCat(command, any ? "127.0.0.1" : host, " ", ntohs(v4.sin_port));
}

std::string TriedFor() { return absl::StrCat(" and was for ", absl::FormatDuration(kInUseMax)); }

absl::Status InetError(const std::string& where, const std::string& port, int type, int error) {
  const std::string what = absl::StrCat("cannot listen on ", where, ": ");
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError(
          absl::StrCat(what, "the address is in use", TriedFor(), "; see by whom with ss -",
                       type == SOCK_DGRAM ? "uanp" : "tanp", " 'sport = :", port,
                       "' (TIME-WAIT, by nobody any more, ends within a minute), or let the kernel "
                       "choose a free port with port 0"));
    case EACCES:
      return absl::PermissionDeniedError(absl::StrCat(
          what,
          "permission denied, because ports below net.ipv4.ip_unprivileged_port_start (usually ",
          "1024) need CAP_NET_BIND_SERVICE; take a higher port, or grant it with ",
          "setcap cap_net_bind_service=+ep ringmaster-echo"));
    case EADDRNOTAVAIL:
      return absl::FailedPreconditionError(
          absl::StrCat(what, "no interface of this machine has that address; see: ip address"));
    case EAFNOSUPPORT:
      return absl::UnimplementedError(
          absl::StrCat(what, "this machine does not speak that protocol; IPv6 may be disabled"));
    default:
      return absl::UnknownError(absl::StrCat(what, std::strerror(error)));
  }
}

absl::Status UnixError(const std::string& path, int error) {
  const std::string what = absl::StrCat("cannot listen on unix:", path, ": ");
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError(
          absl::StrCat(what, "the address is in use", TriedFor(), ", a server answers there; see ",
                       "which with ss -lxp src '", path, "', or choose another path"));
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(
          absl::StrCat(what, "its directory does not exist; create it, or choose another path"));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(absl::StrCat(
          what, std::strerror(error), "; choose a path in a directory that you may write to"));
    case EEXIST:
      return absl::FailedPreconditionError(
          absl::StrCat(what, "there is a file of that name that is not a socket; remove it, or ",
                       "choose another path"));
    default:
      return absl::UnknownError(absl::StrCat(what, std::strerror(error)));
  }
}

// The directory of `path`, opened and locked, so that of two servers that start at the same moment
// one sees the other listening. Without the lock the second could take the first one's new socket,
// bound but not yet listening, for one that was left behind. -errno when it cannot be had.
int LockDirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "."
                                : slash == 0               ? "/"
                                                           : path.substr(0, slash);
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int result = 0;
  do {
    result = flock(fd, LOCK_EX);
  } while (result < 0 && errno == EINTR);
  if (result < 0) {
    result = -errno;
    close(fd);
    return result;
  }
  return fd;
}

// Removes a socket file that nobody listens on. Returns 0 when the path is free now, EADDRINUSE
// when a server answers there, EEXIST when it is no socket, else an errno.
int RemoveIfAbandoned(const std::string& path, const sockaddr_un& address, socklen_t size) {
  struct stat status;
  if (lstat(path.c_str(), &status) < 0) return errno == ENOENT ? 0 : errno;
  if (!S_ISSOCK(status.st_mode)) return EEXIST;
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) return errno;
  const int error =
      connect(probe, reinterpret_cast<const sockaddr*>(&address), size) == 0 ? 0 : errno;
  close(probe);
  // EAGAIN: it listens and its queue is full. EPROTOTYPE: it is a socket of another type, in use.
  if (error == 0 || error == EAGAIN || error == EPROTOTYPE) return EADDRINUSE;
  if (error != ECONNREFUSED) return error;
  return unlink(path.c_str()) == 0 ? 0 : errno;
}

}  // namespace

bool IsDatagrams(const std::string& where) { return where.starts_with(kUdpPrefix); }
bool IsUnix(const std::string& where) { return where.starts_with(kUnixPrefix); }
bool IsInherited(const std::string& where) {
  return where.starts_with("fd:") || where == "systemd" || where.starts_with("systemd:");
}

absl::StatusOr<Listener> Listener::Listen(const std::string& where) {
  for (absl::Duration tried;; tried += kInUsePause) {
    absl::StatusOr<Listener> listener = ListenOnce(where);
    if (!absl::IsAlreadyExists(listener.status()) || tried >= kInUseMax) return listener;
    absl::SleepFor(kInUsePause);
  }
}

absl::StatusOr<Listener> Listener::ListenOnce(const std::string& where) {
  if (IsUnix(where)) return ListenUnix(where.substr(kUnixPrefix.size()));
  if (IsDatagrams(where)) return ListenInet(where.substr(kUdpPrefix.size()), SOCK_DGRAM, false);
  return ListenInet(where, SOCK_STREAM, false);
}

// The first one was bound without the option, so that a server which is there already is told from
// it. The kernel asks both sockets for it when the second is bound.
absl::StatusOr<Listener> Listener::Another() const {
  if (is_unix()) {
    return absl::InvalidArgumentError(absl::StrCat("a second socket cannot listen on ", address_,
                                                   ": Unix sockets are not shared"));
  }
  const int on = 1;
  if (setsockopt(fd_, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) < 0) {
    return absl::UnknownError(
        absl::StrCat("cannot share ", address_, " (SO_REUSEPORT): ", std::strerror(errno)));
  }
  if (IsDatagrams(address_))
    return ListenInet(address_.substr(kUdpPrefix.size()), SOCK_DGRAM, true);
  return ListenInet(address_, SOCK_STREAM, true);
}

absl::StatusOr<Listener> Listener::ListenInet(const std::string& where, int type, bool shared) {
  absl::StatusOr<HostAndPort> target = SplitHostAndPort(where);
  if (!target.ok()) return target.status();

  addrinfo hints = {};
  hints.ai_socktype = type;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failure = getaddrinfo(target->host.c_str(), target->port.c_str(), &hints, &found);
  if (failure != 0) {
    return absl::NotFoundError(
        absl::StrCat("cannot listen on ", where, ": the host \"", target->host, "\" is unknown (",
                     failure == EAI_SYSTEM ? std::strerror(errno) : gai_strerror(failure),
                     "); give an address of this machine, such as 127.0.0.1"));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, &freeaddrinfo);

  // A name can have several addresses; the first that can be bound is taken.
  int error = EADDRNOTAVAIL;
  for (const addrinfo* each = found; each != nullptr; each = each->ai_next) {
    Listener listener;
    listener.fd_ = socket(each->ai_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener.fd_ < 0) {
      error = errno;
      continue;
    }
    const bool stream = type == SOCK_STREAM;
    const int on = 1;
    if (shared) setsockopt(listener.fd_, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (stream) {
      setsockopt(listener.fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
      // Accepted sockets inherit it, and an echo is never worth waiting for more to send.
      setsockopt(listener.fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    sockaddr_storage bound = {};
    socklen_t bound_size = sizeof(bound);
    if (bind(listener.fd_, each->ai_addr, each->ai_addrlen) < 0 ||
        (stream && listen(listener.fd_, kBacklog) < 0) ||
        getsockname(listener.fd_, reinterpret_cast<sockaddr*>(&bound), &bound_size) < 0) {
      error = errno;
      continue;
    }
    listener.address_ = absl::StrCat(stream ? "" : "udp:", AddressText(bound));
    listener.try_command_ = TryCommand(bound, type);
    return listener;
  }
  return InetError(where, target->port, type, error);
}

absl::StatusOr<Listener> Listener::ListenUnix(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on unix:", path, ": a path has 1 to ",
                     sizeof(address.sun_path) - 1, " bytes, this one ", path.size()));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  const int directory = LockDirectoryOf(path);
  if (directory < 0) return UnixError(path, -directory);
  const absl::Cleanup unlock = [directory] { close(directory); };
  if (const int error = RemoveIfAbandoned(path, address, size); error != 0) {
    return UnixError(path, error);
  }

  Listener listener;
  listener.fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (listener.fd_ < 0) return UnixError(path, errno);
  if (bind(listener.fd_, reinterpret_cast<const sockaddr*>(&address), size) < 0) {
    return UnixError(path, errno);
  }
  listener.OwnFile(path);
  if (listen(listener.fd_, kBacklog) < 0) return UnixError(path, errno);
  listener.NameUnix(path);
  return listener;
}

absl::StatusOr<Listener> Listener::Inherit(NamedListener inherited) {
  Listener listener;
  const bool owns_file = inherited.name() == kOwnsFile;
  listener.fd_ = inherited.TakeFd();
  sockaddr_storage bound = {};
  socklen_t bound_size = sizeof(bound);
  int type = 0;
  socklen_t type_size = sizeof(type);
  if (getsockname(listener.fd_, reinterpret_cast<sockaddr*>(&bound), &bound_size) < 0 ||
      getsockopt(listener.fd_, SOL_SOCKET, SO_TYPE, &type, &type_size) < 0) {
    return absl::UnknownError(
        absl::StrCat("an inherited socket does not say what it is: ", std::strerror(errno)));
  }
  if (bound.ss_family == AF_INET || bound.ss_family == AF_INET6) {
    listener.address_ = absl::StrCat(type == SOCK_DGRAM ? "udp:" : "", AddressText(bound));
    listener.try_command_ = TryCommand(bound, type);
    return listener;
  }
  if (bound.ss_family != AF_UNIX || type != SOCK_STREAM) {
    return absl::InvalidArgumentError(
        "an inherited socket is neither TCP, UDP nor a Unix stream socket: pass one of these");
  }
  const auto& unix_address = reinterpret_cast<const sockaddr_un&>(bound);
  const size_t size = bound_size - offsetof(sockaddr_un, sun_path);
  if (size > 0 && unix_address.sun_path[0] == '\0') {
    // An abstract name ends where its length says.
    listener.address_ = absl::StrCat("unix:@", std::string(unix_address.sun_path + 1, size - 1));
    listener.try_command_ = absl::StrCat("nc -U ", listener.address_.substr(kUnixPrefix.size()));
    return listener;
  }
  const std::string path(unix_address.sun_path, strnlen(unix_address.sun_path, size));
  listener.NameUnix(path);
  if (owns_file) listener.OwnFile(path);
  return listener;
}

OfferedListener Listener::Offered() const {
  return {.fd = fd_, .name = std::string(path_.empty() ? kOwnsNoFile : kOwnsFile)};
}

void Listener::NameUnix(const std::string& path) {
  address_ = absl::StrCat("unix:", path);
  // A bare "@…" would be an abstract name to nc, and a "-…" an option.
  const bool bare = path.starts_with('@') || path.starts_with('-');
  try_command_ = absl::StrCat("nc -U ", bare ? "./" : "", path);
}

void Listener::OwnFile(const std::string& path) {
  struct stat status = {};
  lstat(path.c_str(), &status);
  path_ = path;
  path_device_ = status.st_dev;
  path_inode_ = status.st_ino;
}

Listener::Listener(Listener&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      address_(std::move(other.address_)),
      try_command_(std::move(other.try_command_)),
      path_(std::exchange(other.path_, std::string())),
      path_device_(other.path_device_),
      path_inode_(other.path_inode_) {}

Listener::~Listener() {
  if (!path_.empty()) {
    struct stat status;
    if (lstat(path_.c_str(), &status) == 0 && status.st_dev == path_device_ &&
        status.st_ino == path_inode_) {
      unlink(path_.c_str());
    }
  }
  if (fd_ >= 0) close(fd_);
}

}  // namespace ringmaster::echo
