// Every worker has an epoll set of its own with the one listener in it, registered with
// EPOLLEXCLUSIVE (Linux 4.5). So an arrival wakes one worker that waits instead of all. A worker
// that is woken accepts until there is nothing more, up to kTakesPerTurnMax.
//
// What its real-world counterparts do: nginx with `multi_accept on`, which is not its default;
// EPOLLEXCLUSIVE is, where the kernel has it. As it is shipped it accepts one connection for each
// event and goes to the end of the kernel's queue now and then. It does so because the kernel asks
// the worker first that was registered first. That is epoll-exclusive-readd. With `multi_accept on`
// an event ends with an accept that finds nothing. nginx does not count such an event, so it stays
// in its place as this does. It knows nothing of load, and a worker that sleeps keeps what it has
// accepted.

#include <sys/epoll.h>

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/listener_server.h"
#include "bench/mechanisms/mechanisms.h"

namespace ringmaster::bench {
namespace {

class EpollExclusive : public Mechanism {
 public:
  std::string name() const override { return "epoll-exclusive"; }
  std::string summary() const override {
    return "each worker waits for the listener in its own epoll set, with EPOLLEXCLUSIVE";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartListenerServer(options, {.events = EPOLLEXCLUSIVE});
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEpollExclusive() { return std::make_unique<EpollExclusive>(); }

}  // namespace ringmaster::bench
