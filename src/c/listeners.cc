#include "ringmaster/listeners.h"

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "c/callbacks.h"
#include "c/result.h"
#include "c/structs.h"
#include "ringmaster/ringmaster.h"

struct ringmaster_listeners {
  std::vector<ringmaster::NamedListener> listeners;
  ringmaster::TakenOver taken_over;  // without the listeners
  int predecessor = 0;
};

struct ringmaster_hand_over {
  std::unique_ptr<ringmaster::HandOver> hand_over;
};

namespace ringmaster::c {
namespace {

ringmaster_service_listeners_options DefaultServiceListenersOptions() {
  ringmaster_service_listeners_options options{};
  options.struct_size = sizeof(options);
  options.unset_environment = ServiceListenersOptions().unset_environment;
  return options;
}

ringmaster_hand_over_options DefaultHandOverOptions() {
  ringmaster_hand_over_options options{};
  options.struct_size = sizeof(options);
  options.start_max_ns = NsOf(HandOverOptions().start_max);
  return options;
}

// `hand_over` will be the handle.
absl::StatusOr<HandOverOptions> Translate(const ringmaster_hand_over_options* given,
                                          const ringmaster_hand_over* hand_over) {
  ringmaster_hand_over_options from = DefaultHandOverOptions();
  absl::Status status = Read("ringmaster_hand_over_options", given, &from);
  if (status.ok() && from.start_max_ns <= 0) {
    status = absl::InvalidArgumentError(
        "start_max_ns is not positive: it is how long a successor may take until it serves");
  }
  if (!status.ok()) return status;
  HandOverOptions options{.start_max = DurationOf(from.start_max_ns)};
  void* const context = from.context;
  if (from.on_handed_over != nullptr) {
    options.on_handed_over = [hand_over, context, told = from.on_handed_over](pid_t successor) {
      const InCallback in_callback(hand_over);
      told(context, successor);
    };
  }
  if (from.on_predecessor_ended != nullptr) {
    options.on_predecessor_ended = [hand_over, context, told = from.on_predecessor_ended] {
      const InCallback in_callback(hand_over);
      told(context);
    };
  }
  if (from.on_failed != nullptr) {
    options.on_failed = [hand_over, context, told = from.on_failed](const absl::Status& why) {
      const std::string text(why.message());
      const InCallback in_callback(hand_over);
      told(context, -ErrnoOf(why.code()), text.c_str());
    };
  }
  return options;
}

absl::Status CheckPosition(const ringmaster_listeners& listeners, size_t position) {
  if (position < listeners.listeners.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("position is ", position, ", but there are ",
                                                 listeners.listeners.size(),
                                                 " listeners, numbered from 0"));
}

int DescriptorOr(int fd) {
  if (fd >= 0) return fd;
  return Failed(absl::FailedPreconditionError(
      "this listener was taken out before (ringmaster_listeners_take_fd)"));
}

}  // namespace
}  // namespace ringmaster::c

using ringmaster::c::Do;

int ringmaster_inherit_listener(int fd) {
  return Do([&]() -> absl::Status {
    absl::StatusOr<ringmaster::NamedListener> inherited = ringmaster::InheritListener(fd);
    if (!inherited.ok()) return inherited.status();
    (void)inherited->TakeFd();  // the same number, the caller's as before
    return absl::OkStatus();
  });
}

int ringmaster_service_listeners_options_init(ringmaster_service_listeners_options* options,
                                              size_t struct_size) {
  return Do({{"options", options}}, [&] {
    return ringmaster::c::Write("ringmaster_service_listeners_options",
                                ringmaster::c::DefaultServiceListenersOptions(), struct_size,
                                options);
  });
}

int ringmaster_listeners_of_service(const ringmaster_service_listeners_options* options,
                                    ringmaster_listeners** listeners) {
  return Do({{"listeners", listeners}}, [&]() -> absl::Status {
    ringmaster_service_listeners_options from = ringmaster::c::DefaultServiceListenersOptions();
    absl::Status status =
        ringmaster::c::Read("ringmaster_service_listeners_options", options, &from);
    status.Update(ringmaster::c::CheckYesOrNo({{"unset_environment", from.unset_environment}}));
    status.Update(ringmaster::c::CheckReserved(from.reserved));
    if (!status.ok()) return status;
    auto handle = std::make_unique<ringmaster_listeners>();
    absl::StatusOr<std::vector<ringmaster::NamedListener>> found =
        ringmaster::ListenersOfService({.name = from.name == nullptr ? "" : from.name,
                                        .unset_environment = from.unset_environment != 0});
    if (!found.ok()) return found.status();
    handle->listeners = *std::move(found);
    *listeners = handle.release();
    return absl::OkStatus();
  });
}

int ringmaster_take_over(const char* path, int64_t answer_max_ns,
                         ringmaster_listeners** listeners) {
  return Do({{"path", path}, {"listeners", listeners}}, [&]() -> absl::Status {
    if (answer_max_ns <= 0) {
      return absl::InvalidArgumentError(
          "answer_max_ns is not positive: it is how long the predecessor may take to answer, "
          "RINGMASTER_ANSWER_MAX_NS as a rule");
    }
    auto handle = std::make_unique<ringmaster_listeners>();
    absl::StatusOr<ringmaster::TakenOver> taken_over =
        ringmaster::TakeOver(path, {.answer_max = ringmaster::c::DurationOf(answer_max_ns)});
    if (!taken_over.ok()) return taken_over.status();
    handle->listeners = std::move(taken_over->listeners());
    handle->predecessor = taken_over->predecessor();
    handle->taken_over = *std::move(taken_over);
    *listeners = handle.release();
    return absl::OkStatus();
  });
}

int64_t ringmaster_listeners_count(const ringmaster_listeners* listeners) {
  return Do({{"listeners", listeners}},
            [&] { return static_cast<int64_t>(listeners->listeners.size()); });
}

int ringmaster_listeners_fd(const ringmaster_listeners* listeners, size_t position) {
  return Do({{"listeners", listeners}}, [&] {
    const absl::Status status = ringmaster::c::CheckPosition(*listeners, position);
    if (!status.ok()) return ringmaster::c::Failed(status);
    return ringmaster::c::DescriptorOr(listeners->listeners[position].fd());
  });
}

const char* ringmaster_listeners_name(const ringmaster_listeners* listeners, size_t position) {
  if (listeners == nullptr || position >= listeners->listeners.size()) return nullptr;
  return listeners->listeners[position].name().c_str();
}

int ringmaster_listeners_take_fd(ringmaster_listeners* listeners, size_t position) {
  return Do({{"listeners", listeners}}, [&] {
    const absl::Status status = ringmaster::c::CheckPosition(*listeners, position);
    if (!status.ok()) return ringmaster::c::Failed(status);
    return ringmaster::c::DescriptorOr(listeners->listeners[position].TakeFd());
  });
}

int ringmaster_listeners_predecessor(const ringmaster_listeners* listeners) {
  return Do({{"listeners", listeners}}, [&] { return listeners->predecessor; });
}

int ringmaster_listeners_free(ringmaster_listeners* listeners) {
  return Do([&] {
    delete listeners;
    return 0;
  });
}

int ringmaster_hand_over_options_init(ringmaster_hand_over_options* options, size_t struct_size) {
  return Do({{"options", options}}, [&] {
    return ringmaster::c::Write("ringmaster_hand_over_options",
                                ringmaster::c::DefaultHandOverOptions(), struct_size, options);
  });
}

int ringmaster_hand_over_serve(const char* path, const ringmaster_offered_listener* offered,
                               size_t count, const ringmaster_hand_over_options* options,
                               ringmaster_listeners* predecessor,
                               ringmaster_hand_over** hand_over) {
  return Do(
      {{"path", path}, {"offered", offered}, {"hand_over", hand_over}}, [&]() -> absl::Status {
        auto handle = std::make_unique<ringmaster_hand_over>();
        absl::StatusOr<ringmaster::HandOverOptions> translated =
            ringmaster::c::Translate(options, handle.get());
        if (!translated.ok()) return translated.status();
        if (count > ringmaster::kHandOverListenersMax) {
          return absl::ResourceExhaustedError(absl::StrCat(
              "count is ", count, ", but at most ", ringmaster::kHandOverListenersMax,
              " listeners can be handed over: listen on fewer addresses, or let several processes "
              "share them"));
        }
        std::vector<ringmaster::OfferedListener> listeners;
        for (size_t i = 0; i < count; ++i) {
          listeners.push_back(
              {.fd = offered[i].fd, .name = offered[i].name == nullptr ? "" : offered[i].name});
        }
        absl::StatusOr<std::unique_ptr<ringmaster::HandOver>> served = ringmaster::HandOver::Serve(
            path, std::move(listeners), *std::move(translated),
            predecessor == nullptr ? ringmaster::TakenOver() : std::move(predecessor->taken_over));
        if (!served.ok()) return served.status();
        handle->hand_over = *std::move(served);
        *hand_over = handle.release();
        return absl::OkStatus();
      });
}

int ringmaster_hand_over_stop(ringmaster_hand_over* hand_over) {
  return Do({{"hand_over", hand_over}}, [&] { return hand_over->hand_over->Stop() ? 1 : 0; });
}

int ringmaster_hand_over_free(ringmaster_hand_over* hand_over) {
  return Do([&]() -> absl::Status {
    if (hand_over != nullptr && ringmaster::c::InCallback::Of(hand_over)) {
      return absl::FailedPreconditionError(
          "a callback of this hand-over cannot free it: its thread would wait for itself. Call "
          "ringmaster_hand_over_stop here, and free it on another thread");
    }
    delete hand_over;
    return absl::OkStatus();
  });
}

int ringmaster_service_state_init(ringmaster_service_state* state, size_t struct_size) {
  return Do({{"state", state}}, [&] {
    return ringmaster::c::Write("ringmaster_service_state", ringmaster_service_state{}, struct_size,
                                state);
  });
}

int ringmaster_notify_service(const ringmaster_service_state* state) {
  return Do({{"state", state}}, [&]() -> absl::Status {
    ringmaster_service_state from{};
    absl::Status status = ringmaster::c::Read("ringmaster_service_state", state, &from);
    status.Update(ringmaster::c::CheckYesOrNo({{"ready", from.ready},
                                               {"reloading", from.reloading},
                                               {"stopping", from.stopping},
                                               {"watchdog", from.watchdog}}));
    status.Update(ringmaster::c::CheckReserved(from.reserved));
    if (!status.ok()) return status;
    return ringmaster::NotifyService({.ready = from.ready != 0,
                                      .reloading = from.reloading != 0,
                                      .stopping = from.stopping != 0,
                                      .watchdog = from.watchdog != 0,
                                      .main_pid = from.main_pid,
                                      .status = from.status == nullptr ? "" : from.status});
  });
}

int ringmaster_watchdog_interval(int64_t* interval_ns) {
  return Do({{"interval_ns", interval_ns}}, [&]() -> absl::Status {
    const absl::StatusOr<absl::Duration> interval = ringmaster::WatchdogInterval();
    if (!interval.ok()) return interval.status();
    *interval_ns = ringmaster::c::NsOf(*interval);
    return absl::OkStatus();
  });
}
