// Workers with libuv (Debian: libuv1-dev).
//
//   auto worker = ringmaster::UvWorker::Create(&loop, balancer, handlers).value();
//   if (auto joined = source.Join(worker.port()); !joined.ok()) …
//   uv_run(&loop, UV_RUN_DEFAULT);
//
// In handlers.serve a handle takes the connection over:
//
//   uv_tcp_init(&loop, client);  // a uv_pipe_t for a Unix listener
//   auto lease = ringmaster::UvOpen(client, std::move(connection));
//
// The worker gives hints (Port::BeforeWait): in a prepare handle, and where its own callback runs.
// A check handle is too late for callbacks that run before it. One that may take long should call
// worker.AfterWait() first.

#ifndef RINGMASTER_ADAPTERS_LIBUV_H_
#define RINGMASTER_ADAPTERS_LIBUV_H_

#include <uv.h>

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/adapters/worker.h"
#include "ringmaster/balancer.h"
#include "ringmaster/port.h"

namespace ringmaster {

// A worker whose loop is a uv_loop_t. The handlers must not throw. When it has left, or the
// balancer has ended, its handles are closed in the loop's next turn, so run the loop until it
// ends. They are not yours to close: a program that closes all handles of a loop (uv_walk) lets it
// leave before.
class UvWorker {
 public:
  // Adds a worker to the balancer. Join sources with its port. The options are those of AddWorker
  // for a mailbox.
  static absl::StatusOr<UvWorker> Create(uv_loop_t* loop, Balancer& balancer,
                                         WorkerHandlers handlers, WorkerOptions options = {}) {
    auto state = std::make_shared<State>(std::move(handlers));
    const absl::Status opened = state->worker.Open(balancer, options);
    if (!opened.ok()) return opened;
    if (const int error = uv_poll_init(loop, &state->bell, state->worker.fd()); error != 0) {
      return absl::ErrnoToStatus(-error, "libuv cannot watch a mailbox");
    }
    uv_prepare_init(loop, &state->before);
    uv_check_init(loop, &state->after);
    state->bell.data = state->before.data = state->after.data = state.get();
    state->self = state;
    uv_poll_start(&state->bell, UV_READABLE, [](uv_poll_t* bell, int, int) {
      AfterWait(*static_cast<State*>(bell->data), /*by_mailbox=*/true);
    });
    uv_prepare_start(&state->before, [](uv_prepare_t* before) {
      // Also if the wait is short: what uv_backend_timeout says is 0 whenever a handle is new.
      static_cast<State*>(before->data)->worker.BeforeWait();
    });
    uv_check_start(&state->after, [](uv_check_t* after) {
      AfterWait(*static_cast<State*>(after->data), /*by_mailbox=*/false);
    });
    state->worker.BeginHints();
    // The mailbox keeps the loop alive, these alone do not.
    uv_unref(reinterpret_cast<uv_handle_t*>(&state->before));
    uv_unref(reinterpret_cast<uv_handle_t*>(&state->after));
    return UvWorker(std::move(state));
  }

  UvWorker(UvWorker&&) noexcept = default;
  UvWorker& operator=(UvWorker&& other) noexcept {
    if (this != &other) {
      Leave();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  // As Leave.
  ~UvWorker() { Leave(); }

  // For Source::Join, Port::ToPassOn and so on. Leave by the function below, not by the port's.
  Port& port() { return state_->worker.port(); }

  // Leaves the balancer, and closes its handles. Connections that were claimed stay as they are. On
  // the loop's thread.
  void Leave() {
    if (state_ != nullptr) state_->Leave();
  }

  // A hint: this worker has something to do. What it was offered meanwhile is claimed first.
  void AfterWait() { AfterWait(*state_, /*by_mailbox=*/false); }

 private:
  class State {
   public:
    explicit State(WorkerHandlers handlers) : worker(std::move(handlers)) {}

    void Leave() {
      worker.port().Leave();
      for (uv_handle_t* handle :
           {reinterpret_cast<uv_handle_t*>(&bell), reinterpret_cast<uv_handle_t*>(&before),
            reinterpret_cast<uv_handle_t*>(&after)}) {
        if (self == nullptr || uv_is_closing(handle)) continue;
        uv_close(handle, [](uv_handle_t* closed) {
          auto* const state = static_cast<State*>(closed->data);
          if (--state->handles == 0) state->self.reset();
        });
      }
    }

    internal::AdaptedWorker worker;
    uv_poll_t bell = {};
    uv_prepare_t before = {};
    uv_check_t after = {};
    int handles = 3;              // that libuv knows
    std::shared_ptr<State> self;  // until it knows none of them any more
  };

  explicit UvWorker(std::shared_ptr<State> state) : state_(std::move(state)) {}

  static void AfterWait(State& state, bool by_mailbox) {
    // A handler may destroy the worker; the handles keep the state beyond this turn.
    if (state.worker.AfterWait(by_mailbox)) return;
    state.Leave();
    state.worker.End();
  }

  std::shared_ptr<State> state_;
};

// Makes a handle the owner of the connection's descriptor, and returns the lease: release it in the
// callback of uv_close. An error of libuv closes the connection; the handle is still to be closed.
inline absl::StatusOr<Lease> UvOpen(uv_tcp_t* handle, Connection connection) {
  if (const int error = uv_tcp_open(handle, connection.fd()); error != 0) {
    return absl::ErrnoToStatus(-error, "uv_tcp_open");
  }
  static_cast<void>(connection.TakeFd());
  return connection.TakeLease();
}
inline absl::StatusOr<Lease> UvOpen(uv_pipe_t* handle, Connection connection) {
  if (const int error = uv_pipe_open(handle, connection.fd()); error != 0) {
    return absl::ErrnoToStatus(-error, "uv_pipe_open");
  }
  static_cast<void>(connection.TakeFd());
  return connection.TakeLease();
}

}  // namespace ringmaster

#endif  // RINGMASTER_ADAPTERS_LIBUV_H_
