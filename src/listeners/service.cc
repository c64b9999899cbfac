// What a service manager gives and wants to hear, by the environment and a datagram. The protocols
// are systemd's (sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)).

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "listeners/inherited.h"
#include "ring/errors.h"
#include "ringmaster/listeners.h"

namespace ringmaster {
namespace {

constexpr int kFirstDescriptor = 3;  // SD_LISTEN_FDS_START
constexpr time_t kTellMaxSeconds = 1;

std::optional<std::string> Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

absl::Status NoNumber(const char* name, const std::string& value) {
  return absl::InvalidArgumentError(absl::StrCat(
      "the environment variable ", name, " is \"", value,
      "\", which is no number that systemd would set: unset it, or start this by a unit"));
}

// Whether what the variable `name` says is meant for this process, and not for a parent of it.
absl::StatusOr<bool> IsForThisProcess(const char* name) {
  const std::optional<std::string> value = Variable(name);
  if (!value.has_value()) return false;
  int64_t process = 0;
  if (!absl::SimpleAtoi(*value, &process) || process <= 0) return NoNumber(name, *value);
  return process == getpid();
}

struct Passed {
  int fd;
  std::string name;
};

// What LISTEN_FDS and its companions say, whatever the descriptors are.
absl::StatusOr<std::vector<Passed>> ReadPassed() {
  const absl::StatusOr<bool> ours = IsForThisProcess("LISTEN_PID");
  if (!ours.ok()) return ours.status();
  const std::optional<std::string> number = Variable("LISTEN_FDS");
  if (!*ours || !number.has_value()) return std::vector<Passed>();
  int count = 0;
  if (!absl::SimpleAtoi(*number, &count) || count <= 0 ||
      count > std::numeric_limits<int>::max() - kFirstDescriptor) {
    return NoNumber("LISTEN_FDS", *number);
  }
  std::vector<std::string> names;
  if (const std::optional<std::string> text = Variable("LISTEN_FDNAMES")) {
    names = absl::StrSplit(*text, ':');
    if (names.size() != static_cast<size_t>(count)) {
      return absl::InvalidArgumentError(absl::StrCat("the environment variable LISTEN_FDNAMES has ",
                                                     names.size(), " names, and LISTEN_FDS says ",
                                                     count, " descriptors: let systemd set both"));
    }
  }
  std::vector<Passed> passed;
  for (int i = 0; i < count; ++i) {
    const int fd = kFirstDescriptor + i;
    // Before the list grows on: a number that is far too large ends here.
    if (fcntl(fd, F_GETFD) < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the environment variable LISTEN_FDS says ", count, " descriptors, but ", fd,
                       " is not open: take them over before anything closes them, and only once"));
    }
    passed.push_back({fd, names.empty() ? "unknown" : names[static_cast<size_t>(i)]});
  }
  return passed;
}

absl::StatusOr<std::vector<NamedListener>> TakePassed(const std::string& name) {
  absl::StatusOr<std::vector<Passed>> passed = ReadPassed();
  if (!passed.ok()) return passed.status();
  const auto wanted = [&](const Passed& each) { return name.empty() || each.name == name; };
  for (const Passed& each : *passed) {
    if (!wanted(each)) continue;
    const std::string which = absl::StrCat("descriptor ", each.fd, " (\"", each.name,
                                           "\"), which systemd has passed on,");
    if (absl::Status status = internal::CheckInherited(each.fd, which); !status.ok()) return status;
  }
  std::vector<NamedListener> listeners;
  for (Passed& each : *passed) {
    fcntl(each.fd, F_SETFD, FD_CLOEXEC);
    if (!wanted(each)) continue;
    internal::MakeOurs(each.fd);
    listeners.emplace_back(each.fd, std::move(each.name));
  }
  return listeners;
}

// Of a message that is to go there. `size` is 0 when it is no address.
struct Receiver {
  sockaddr_un address{};
  socklen_t size = 0;
};

Receiver ReceiverAt(const std::string& where) {
  Receiver receiver;
  const bool abstract = where.starts_with('@');
  if ((!abstract && !where.starts_with('/')) || where.size() < 2 ||
      where.size() >= sizeof(receiver.address.sun_path)) {
    return receiver;
  }
  receiver.address.sun_family = AF_UNIX;
  std::copy(where.begin(), where.end(), receiver.address.sun_path);
  if (abstract) receiver.address.sun_path[0] = '\0';
  // The name of an abstract socket has no end but its length.
  receiver.size =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + where.size() + (abstract ? 0 : 1));
  return receiver;
}

std::string MessageOf(const ServiceState& state) {
  std::string text;
  if (state.ready) text += "READY=1\n";
  if (state.reloading) {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    absl::StrAppend(&text, "RELOADING=1\nMONOTONIC_USEC=",
                    int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1'000, "\n");
  }
  if (state.stopping) text += "STOPPING=1\n";
  if (state.watchdog) text += "WATCHDOG=1\n";
  if (state.main_pid != 0) absl::StrAppend(&text, "MAINPID=", state.main_pid, "\n");
  if (!state.status.empty()) absl::StrAppend(&text, "STATUS=", state.status, "\n");
  return text;
}

}  // namespace

absl::StatusOr<std::vector<NamedListener>> ListenersOfService(ServiceListenersOptions options) {
  absl::StatusOr<std::vector<NamedListener>> listeners = TakePassed(options.name);
  if (options.unset_environment) {
    for (const char* const name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"})
      unsetenv(name);
  }
  return listeners;
}

absl::Status NotifyService(const ServiceState& state) {
  const std::optional<std::string> where = Variable("NOTIFY_SOCKET");
  if (!where.has_value()) return absl::OkStatus();
  if (state.status.find('\n') != std::string::npos) {
    return absl::InvalidArgumentError(
        "the status for the service manager has more than one line: leave the line breaks away");
  }
  const Receiver receiver = ReceiverAt(*where);
  if (receiver.size == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the environment variable NOTIFY_SOCKET is \"", *where,
                     "\", which is neither a path nor an abstract name (@…) of at most ",
                     sizeof(receiver.address.sun_path) - 1, " bytes: let systemd set it"));
  }
  const std::string text = MessageOf(state);
  if (text.empty()) return absl::OkStatus();
  const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  const timeval longest{.tv_sec = kTellMaxSeconds, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &longest, sizeof(longest));
  ssize_t sent;
  do {
    sent = sendto(fd, text.data(), text.size(), MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&receiver.address), receiver.size);
  } while (sent < 0 && errno == EINTR);
  const int error = sent < 0 ? errno : 0;
  close(fd);
  if (error == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "the service manager at ", *where, " cannot be told (",
      error == EAGAIN ? "it takes no message" : std::strerror(error),
      "): see whether whoever has set NOTIFY_SOCKET still runs, and NotifyAccess= in the unit"));
}

absl::StatusOr<absl::Duration> WatchdogInterval() {
  const std::optional<std::string> value = Variable("WATCHDOG_USEC");
  if (!value.has_value()) return absl::InfiniteDuration();
  if (Variable("WATCHDOG_PID").has_value()) {
    const absl::StatusOr<bool> ours = IsForThisProcess("WATCHDOG_PID");
    if (!ours.ok()) return ours.status();
    if (!*ours) return absl::InfiniteDuration();
  }
  int64_t us = 0;
  if (!absl::SimpleAtoi(*value, &us) || us <= 0) return NoNumber("WATCHDOG_USEC", *value);
  return absl::Microseconds(us);
}

}  // namespace ringmaster
