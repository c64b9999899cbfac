#include "bench/mechanisms/listener_server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace ringmaster::bench {
namespace {

class ListenerWorker : public EpollWorker {
 public:
  ListenerWorker(const ServerOptions& server, const ListenerServerOptions& options, uint32_t index)
      : EpollWorker(
            server, index,
            {.fd = options.own_listeners.empty() ? server.listen_fd : options.own_listeners[index],
             .events = options.events,
             .takes_max = options.takes_max,
             .readd_after = options.readd_after}),
        index_(index),
        listen_fd_(options.own_listeners.empty() ? server.listen_fd : options.own_listeners[index]),
        owned_(!options.own_listeners.empty()),
        on_closed_(options.on_closed),
        on_leave_(options.on_leave) {}
  ~ListenerWorker() override { CloseListener(); }

 private:
  int TakeNext() override {
    const int fd =
        serving().call(accept4, listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return fd >= 0 ? fd : -errno;
  }

  void OnClosed(int) override {
    if (on_closed_) on_closed_(index_);
  }

  void Leave() override {
    if (on_leave_) on_leave_(index_);
    CloseDoor();
    CloseListener();
  }

  void CloseListener() {
    if (owned_) close(listen_fd_);
    owned_ = false;
  }

  const uint32_t index_;
  const int listen_fd_;
  bool owned_;
  const std::function<void(uint32_t)> on_closed_;
  const std::function<void(uint32_t)> on_leave_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<EpollServer>> StartListenerServer(
    const ServerOptions& server, const ListenerServerOptions& options) {
  std::vector<std::unique_ptr<EpollWorker>> workers;
  for (uint32_t i = 0; i < server.workers.size(); ++i) {
    workers.push_back(std::make_unique<ListenerWorker>(server, options, i));
  }
  auto running = std::make_unique<EpollServer>();
  if (absl::Status status = running->Start(std::move(workers)); !status.ok()) return status;
  return running;
}

}  // namespace ringmaster::bench
