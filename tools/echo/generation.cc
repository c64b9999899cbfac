#include "generation.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringmaster::echo {
namespace {

constexpr std::string_view kFd = "fd:";
constexpr std::string_view kSystemd = "systemd";

absl::StatusOr<std::vector<NamedListener>> InheritByNumber(const std::string& where) {
  const std::string number = where.substr(kFd.size());
  int fd = -1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), fd);
  if (error != std::errc() || end != number.data() + number.size() || fd < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on \"", where, "\": \"", number,
                     "\" is not the number of a descriptor; try fd:3"));
  }
  absl::StatusOr<NamedListener> listener = InheritListener(fd);
  if (!listener.ok()) return listener.status();
  std::vector<NamedListener> listeners;
  listeners.push_back(*std::move(listener));
  return listeners;
}

absl::StatusOr<std::vector<NamedListener>> InheritFromSystemd(const std::string& where) {
  const std::string name = where == kSystemd ? "" : where.substr(kSystemd.size() + 1);
  absl::StatusOr<std::vector<NamedListener>> listeners = ListenersOfService({.name = name});
  if (!listeners.ok() || !listeners->empty()) return listeners;
  return absl::NotFoundError(
      absl::StrCat("cannot listen on ", where, ": systemd has passed on no listener",
                   name.empty() ? "" : absl::StrCat(" of the name \"", name, "\""),
                   "; start this by a socket unit",
                   name.empty() ? "" : absl::StrCat(" with FileDescriptorName=", name),
                   ", or choose another address"));
}

absl::StatusOr<std::vector<Listener>> AdoptAll(std::vector<NamedListener> inherited) {
  std::vector<Listener> listeners;
  for (NamedListener& each : inherited) {
    // The names that systemd gives say nothing of files: those are systemd's.
    absl::StatusOr<Listener> listener = Listener::Inherit(std::move(each));
    if (!listener.ok()) return listener.status();
    listeners.push_back(*std::move(listener));
  }
  return listeners;
}

absl::StatusOr<std::vector<Listener>> Listen(const std::string& where) {
  if (IsInherited(where)) {
    absl::StatusOr<std::vector<NamedListener>> inherited =
        where.starts_with(kFd) ? InheritByNumber(where) : InheritFromSystemd(where);
    if (!inherited.ok()) return inherited.status();
    for (NamedListener& each : *inherited) each = NamedListener(each.TakeFd());
    return AdoptAll(*std::move(inherited));
  }
  absl::StatusOr<Listener> listener = Listener::Listen(where);
  if (!listener.ok()) return listener.status();
  std::vector<Listener> listeners;
  listeners.push_back(*std::move(listener));
  return listeners;
}

// What the listeners are is known only now, if they are inherited.
absl::Status ChooseIntake(const std::vector<Listener>& listeners, Options& options) {
  const auto datagrams = std::ranges::count_if(listeners, &Listener::is_datagrams);
  if (datagrams == 0) return absl::OkStatus();
  if (datagrams < std::ssize(listeners)) {
    return absl::InvalidArgumentError(
        "some of the inherited sockets are datagram sockets, and some are not: this server serves "
        "one kind at a time; choose one by --listen systemd:NAME");
  }
  if (!options.intake_given) options.intake = Intake::kReadiness;
  if (options.intake == Intake::kReadiness && options.handoff == Handoff::kInbox) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "from an inherited datagram socket nothing can be accepted: leave --intake and --handoff "
      "away");
}

}  // namespace

absl::StatusOr<Opened> OpenListeners(Options& options) {
  Opened opened;
  absl::StatusOr<std::vector<Listener>> listeners = std::vector<Listener>();
  bool alone = true;
  if (!options.hand_over.empty()) {
    absl::StatusOr<TakenOver> taken = TakeOver(options.hand_over);
    alone = absl::IsNotFound(taken.status());
    if (!alone && !taken.ok()) return taken.status();
    if (!alone) {
      opened.predecessor = *std::move(taken);
      listeners = AdoptAll(std::exchange(opened.predecessor.listeners(), {}));
    }
  }
  if (alone) listeners = Listen(options.listen);
  if (!listeners.ok()) return listeners.status();
  opened.listeners = *std::move(listeners);
  if (absl::Status status = ChooseIntake(opened.listeners, options); !status.ok()) return status;
  while (opened.listeners.size() < options.masters) {
    absl::StatusOr<Listener> another = opened.listeners[0].Another();
    if (!another.ok()) return another.status();
    opened.listeners.push_back(*std::move(another));
  }
  return opened;
}

// Twice as often as it is wanted.
std::optional<absl::Duration> Service::PingEvery() {
  const absl::StatusOr<absl::Duration> interval = WatchdogInterval();
  if (!interval.ok()) {
    std::fprintf(stderr, "ringmaster-echo: %s\n", std::string(interval.status().message()).c_str());
    return std::nullopt;
  }
  if (*interval == absl::InfiniteDuration()) return std::nullopt;
  return std::max(*interval / 2, absl::Milliseconds(1));
}

void Service::Ready(const std::string& status, bool took_over) {
  Tell({.ready = true, .main_pid = took_over ? getpid() : 0, .status = status});
}

void Service::Stopping() { Tell({.stopping = true}); }

void Service::HandedOver(pid_t successor) { Tell({.main_pid = successor}); }

void Service::Ping(const Balancer& balancer) {
  if (balancer.Stats().status.ok()) Tell({.watchdog = true});
}

void Service::Tell(const ServiceState& state) {
  const absl::Status told = NotifyService(state);
  if (told.ok() || std::exchange(complained_, true)) return;
  std::fprintf(stderr, "ringmaster-echo: %s\n", std::string(told.message()).c_str());
}

}  // namespace ringmaster::echo
