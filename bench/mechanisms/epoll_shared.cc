// The herd. Every worker has an epoll set of its own with the one listener in it, and nothing says
// that one of them is enough. So an arrival wakes every worker that waits. One of them gets the
// connection, the others find nothing and go back to sleep. Most of them do so within epoll_wait,
// which looks again before it returns. So what the herd costs shows as context switches, not as
// wake-ups that the worker could count.
//
// What its real-world counterparts do: nginx before 1.11.3 without `accept_mutex`, and libuv
// servers whose workers inherit one listener, behave so. So does any set of processes that each add
// an inherited listener to epoll. It was the way of all before EPOLLEXCLUSIVE (Linux 4.5). Its cost
// grows with the number of workers that wait. Under full load, when nobody does, there is none. The
// remedy of nginx was a lock that one worker at a time held while it accepted. It is off by default
// since.

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/listener_server.h"
#include "bench/mechanisms/mechanisms.h"

namespace ringmaster::bench {
namespace {

class EpollShared : public Mechanism {
 public:
  std::string name() const override { return "epoll-shared"; }
  std::string summary() const override {
    return "each worker waits for the listener in its own epoll set; an arrival wakes all that "
           "wait";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartListenerServer(options, {});
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEpollShared() { return std::make_unique<EpollShared>(); }

}  // namespace ringmaster::bench
