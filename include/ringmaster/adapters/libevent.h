// Workers with libevent (Debian: libevent-dev).
//
//   auto worker = ringmaster::LibeventWorker::Create(base, balancer, handlers).value();
//   if (auto joined = source.Join(worker.port()); !joined.ok()) …
//   event_base_dispatch(base);
//
// In handlers.serve keep the connection beside its bufferevent, which does not own the descriptor.
// When the client is gone, free the bufferevent, and then destroy the connection:
//
//   client->events = bufferevent_socket_new(base, connection.fd(), 0);  // no BEV_OPT_CLOSE_ON_FREE
//   client->connection = std::move(connection);
//
// From libevent 2.2 on the worker gives hints (Port::BeforeWait). Before that version the loop
// cannot be seen, so the balancer presumes who waits.

#ifndef RINGMASTER_ADAPTERS_LIBEVENT_H_
#define RINGMASTER_ADAPTERS_LIBEVENT_H_

#include <event2/event.h>
#if LIBEVENT_VERSION_NUMBER >= 0x02020000
#include <event2/watch.h>
#endif
#include <sys/time.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/adapters/worker.h"
#include "ringmaster/balancer.h"
#include "ringmaster/port.h"

namespace ringmaster {

// A worker whose loop is an event_base. The handlers must not throw. Destroy it before the base.
class LibeventWorker {
 public:
  // Adds a worker to the balancer. Join sources with its port. The options are those of AddWorker
  // for a mailbox.
  static absl::StatusOr<LibeventWorker> Create(event_base* base, Balancer& balancer,
                                               WorkerHandlers handlers,
                                               WorkerOptions options = {}) {
    auto state = std::make_shared<State>(base, std::move(handlers));
    const absl::Status opened = state->worker.Open(balancer, options);
    if (!opened.ok()) return opened;
    const auto on_bell = [](evutil_socket_t, short, void* self) {
      AfterWait(*static_cast<State*>(self), /*by_mailbox=*/true);
    };
    state->bell = event_new(base, state->worker.fd(), EV_READ | EV_PERSIST, on_bell, state.get());
    if (state->bell == nullptr || event_add(state->bell, nullptr) != 0) {
      state->Leave();
      return absl::InternalError("libevent cannot watch a mailbox: its log says why");
    }
#if LIBEVENT_VERSION_NUMBER >= 0x02020000
    const auto before_wait = [](evwatch*, const evwatch_prepare_cb_info* info, void* self) {
      timeval timeout = {};
      const bool waits = evwatch_prepare_get_timeout(info, &timeout) == 0 || timeout.tv_sec != 0 ||
                         timeout.tv_usec != 0;
      if (waits) static_cast<State*>(self)->worker.BeforeWait();
    };
    const auto after_wait = [](evwatch*, const evwatch_check_cb_info*, void* self) {
      AfterWait(*static_cast<State*>(self), /*by_mailbox=*/false);
    };
    state->worker.BeginHints();
    state->before = evwatch_prepare_new(base, before_wait, state.get());
    state->after = evwatch_check_new(base, after_wait, state.get());
#endif
    return LibeventWorker(std::move(state));
  }

  LibeventWorker(LibeventWorker&&) noexcept = default;
  LibeventWorker& operator=(LibeventWorker&& other) noexcept {
    if (this != &other) {
      Leave();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  // As Leave.
  ~LibeventWorker() { Leave(); }

  // For Source::Join, Port::ToPassOn and so on. Leave by the function below, not by the port's.
  Port& port() { return state_->worker.port(); }

  // Leaves the balancer, and takes the mailbox out of the loop. Connections that were claimed stay
  // as they are. On the loop's thread.
  void Leave() {
    if (state_ != nullptr) state_->Leave();
  }

 private:
  struct State : std::enable_shared_from_this<State> {
    State(event_base* of, WorkerHandlers handlers) : base(of), worker(std::move(handlers)) {}

    void Leave() {
      worker.port().Leave();
      if (bell != nullptr) event_free(std::exchange(bell, nullptr));
#if LIBEVENT_VERSION_NUMBER >= 0x02020000
      if (before == nullptr) return;
      evwatch_free(std::exchange(before, nullptr));
      // The other one may be what calls this, and libevent looks at it afterwards.
      kept = this->shared_from_this();
      const auto free = [](evutil_socket_t, short, void* self) {
        const std::shared_ptr<State> state = std::move(static_cast<State*>(self)->kept);
        evwatch_free(state->after);
      };
      const timeval at_once = {};
      event_base_once(base, -1, EV_TIMEOUT, free, this, &at_once);
#endif
    }

    event_base* base;
    internal::AdaptedWorker worker;
    event* bell = nullptr;
#if LIBEVENT_VERSION_NUMBER >= 0x02020000
    evwatch* before = nullptr;
    evwatch* after = nullptr;
    std::shared_ptr<State> kept;
#endif
  };

  explicit LibeventWorker(std::shared_ptr<State> state) : state_(std::move(state)) {}

  static void AfterWait(State& state, bool by_mailbox) {
    const std::shared_ptr<State> kept = state.shared_from_this();  // a handler may destroy it
    if (state.worker.AfterWait(by_mailbox)) return;
    state.Leave();
    state.worker.End();
  }

  std::shared_ptr<State> state_;
};

}  // namespace ringmaster

#endif  // RINGMASTER_ADAPTERS_LIBEVENT_H_
