// What the adapters for event loops have in common: a worker whose loop watches a mailbox. Include
// the adapter of your loop: asio.h, boost_asio.h, libuv.h or libevent.h. For a loop of your own on
// io_uring there is coroutine.h.
//
// The adapters are headers alone, for C++17 and later. They use the public interface and nothing
// else, so a loop that has no adapter can do the same.
//
// Threads: an adapter belongs to the thread that runs the loop, as a port does. It may be made
// before that thread starts. It may outlive the balancer.

#ifndef RINGMASTER_ADAPTERS_WORKER_H_
#define RINGMASTER_ADAPTERS_WORKER_H_

#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/port.h"

namespace ringmaster {

// What a worker does, in callbacks of its loop. All of them may make the worker leave, and destroy
// the adapter.
struct WorkerHandlers {
  // The worker has claimed a connection. It owns the descriptor and the lease; its destruction
  // closes the one and then releases the other. Where the loop has a socket type that owns
  // descriptors, each adapter says how both are handed on.
  std::function<void(Connection)> serve = nullptr;

  // A shutdown has begun (Port::draining), and what this worker was offered is claimed: close
  // connections that are idle, and each of the others when its request is done. Called again if the
  // worker has claimed more since.
  std::function<void()> drain = nullptr;

  // The balancer has ended (Port::ended), and nothing comes any more: close what is left. Called
  // once. The loop does not watch the mailbox any more, so it ends when it has nothing else to do.
  // Not called for a worker that has left.
  std::function<void()> end = nullptr;
};

namespace internal {

// A mailbox, its port, and what is done when the one is readable.
class AdaptedWorker {
 public:
  explicit AdaptedWorker(WorkerHandlers handlers) : handlers_(std::move(handlers)) {}

  absl::Status Open(Balancer& balancer, const WorkerOptions& options) {
    absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
    if (!mailbox.ok()) return mailbox.status();
    absl::StatusOr<Port> port = balancer.AddWorker(*mailbox, options);
    if (!port.ok()) return port.status();
    mailbox_ = *std::move(mailbox);
    port_ = *std::move(port);
    return absl::OkStatus();
  }

  int fd() const { return mailbox_.fd(); }
  Port& port() { return port_; }

  // From now on it is known whether this worker waits: not yet.
  void BeginHints() {
    port_.BeforeWait();
    static_cast<void>(port_.AfterWait());
  }
  // The hints. Each may be called at any time; only the first one of its kind does something.
  void BeforeWait() {
    if (std::exchange(waits_, true)) return;
    port_.BeforeWait();
  }
  // `by_mailbox`: the wait has said that the mailbox is readable. Returns false when nothing comes
  // any more. Then the adapter lets go of the loop, and calls End.
  bool AfterWait(bool by_mailbox) {
    const bool offered = std::exchange(waits_, false) && port_.AfterWait(by_mailbox);
    return !(offered || by_mailbox) || Claim();
  }
  void End() {
    if (std::exchange(ended_, false) && handlers_.end) handlers_.end();
  }

 private:
  bool Claim() {
    bool claimed = false;
    port_.Claim([&](Connection connection) {
      claimed = true;
      if (handlers_.serve) handlers_.serve(std::move(connection));
    });
    // Everything is true of a port that has left, too.
    if (port_.joined() && port_.draining() && (!std::exchange(drains_, true) || claimed)) {
      if (handlers_.drain) handlers_.drain();
    }
    ended_ = port_.joined() && port_.ended();
    return port_.joined() && !ended_;
  }

  WorkerHandlers handlers_;
  Mailbox mailbox_;
  Port port_;
  bool waits_ = false;
  bool drains_ = false;
  bool ended_ = false;
};

}  // namespace internal
}  // namespace ringmaster

#endif  // RINGMASTER_ADAPTERS_WORKER_H_
