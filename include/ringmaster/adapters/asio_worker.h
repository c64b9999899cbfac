// What asio.h and boost_asio.h have in common. Include one of these.

#ifndef RINGMASTER_ADAPTERS_ASIO_WORKER_H_
#define RINGMASTER_ADAPTERS_ASIO_WORKER_H_

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/adapters/worker.h"
#include "ringmaster/balancer.h"
#include "ringmaster/port.h"

namespace ringmaster {

// A worker whose loop is an io_context. `Descriptor` is the posix::stream_descriptor that goes with
// it, and `ErrorCode` its error_code.
//
// Several threads may run the context: they are one worker then, whose handlers are called on any
// of them, one at a time. Where each thread is to be a worker, give each a context of its own.
//
// Destroy it before the context. Exceptions of the handlers come out of run(), and the worker goes
// on when the context is run again.
template <typename Context, typename Descriptor, typename ErrorCode>
class BasicAsioWorker {
 public:
  // Adds a worker to the balancer. Join sources with its port. The options are those of AddWorker
  // for a mailbox.
  static absl::StatusOr<BasicAsioWorker> Create(Context& context, Balancer& balancer,
                                                WorkerHandlers handlers,
                                                WorkerOptions options = {}) {
    auto state = std::make_shared<State>(context, std::move(handlers));
    const absl::Status opened = state->worker.Open(balancer, options);
    if (!opened.ok()) return opened;
    ErrorCode error;
    state->bell.assign(state->worker.fd(), error);
    if (error) return absl::ErrnoToStatus(error.value(), "Asio cannot watch a mailbox");
    Watch(state);
    return BasicAsioWorker(std::move(state));
  }

  BasicAsioWorker(BasicAsioWorker&&) noexcept = default;
  BasicAsioWorker& operator=(BasicAsioWorker&& other) noexcept {
    if (this != &other) {
      Leave();
      state_ = std::move(other.state_);
    }
    return *this;
  }
  // As Leave.
  ~BasicAsioWorker() { Leave(); }

  // For Source::Join, Port::ToPassOn and so on. Leave by the function below, not by the port's.
  Port& port() { return state_->worker.port(); }

  // Leaves the balancer, and lets go of the loop. Connections that were claimed stay as they are.
  // In a handler, or while no thread runs the context.
  void Leave() {
    if (state_ != nullptr) state_->Leave();
  }

  // As run() of the context, but it tells the balancer when this worker waits (Port::BeforeWait).
  // With run() itself that cannot be seen, so the balancer presumes it. For a context that one
  // thread runs. It costs a system call more each time that the loop waits. A handler that the loop
  // was woken for runs before AfterWait; if it takes long, let it call that function first.
  void Run() {
    const std::shared_ptr<State> state = state_;
    state->worker.BeginHints();
    while (!state->context.stopped()) {
      if (state->context.poll() > 0 || state->context.stopped()) continue;
      state->worker.BeforeWait();
      state->context.run_one();
      AfterWait(state, /*by_mailbox=*/false);
    }
  }

  // See Run: this worker has something to do. What it was offered meanwhile is claimed first.
  void AfterWait() { AfterWait(state_, /*by_mailbox=*/false); }

 private:
  class State {
   public:
    State(Context& of, WorkerHandlers handlers)
        : context(of), worker(std::move(handlers)), bell(of) {}
    ~State() { Leave(); }

    // The mailbox closes its descriptor, so Asio must not.
    void Leave() {
      worker.port().Leave();
      if (bell.is_open()) bell.release();
    }

    Context& context;
    internal::AdaptedWorker worker;
    Descriptor bell;
  };

  explicit BasicAsioWorker(std::shared_ptr<State> state) : state_(std::move(state)) {}

  // What waits keeps the state alive, whatever becomes of the worker meanwhile.
  static void Watch(const std::shared_ptr<State>& state) {
    state->bell.async_wait(Descriptor::wait_read, [state](const ErrorCode& error) {
      if (error || !state->bell.is_open()) return;
      // Also if a handler throws.
      class Rearm {
       public:
        ~Rearm() {
          if (state->bell.is_open()) Watch(state);
        }
        const std::shared_ptr<State>& state;
      } rearm{state};
      AfterWait(state, /*by_mailbox=*/true);
    });
  }
  static void AfterWait(const std::shared_ptr<State>& state, bool by_mailbox) {
    if (state->worker.AfterWait(by_mailbox)) return;
    state->Leave();
    state->worker.End();
  }

  std::shared_ptr<State> state_;
};

// Makes `socket` the owner of the connection's descriptor, and returns the lease. Keep that in
// front of the socket, in a struct that holds both: so the descriptor is closed before the lease is
// released. `protocol` is that of the listener, asio::ip::tcp::v4() for example. An exception of
// Asio closes the connection.
template <typename Socket>
Lease AssignTo(Socket& socket, const typename Socket::protocol_type& protocol,
               Connection connection) {
  socket.assign(protocol, connection.fd());
  static_cast<void>(connection.TakeFd());
  return connection.TakeLease();
}

}  // namespace ringmaster

#endif  // RINGMASTER_ADAPTERS_ASIO_WORKER_H_
