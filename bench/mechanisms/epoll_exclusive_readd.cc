// As epoll-exclusive-one, but a worker takes the listener out of its set and puts it in again. It
// does so after the first and then every sixteenth event that brought it a connection. The kernel
// asks who was registered first, first; whoever has had sixteen goes to the end of its queue.
//
// What its real-world counterparts do: nginx as it is shipped since 1.21.6, with `accept_mutex off`
// and `multi_accept off`. The sixteen are hard-coded there, and an event counts, not a connection.
// One that finds nothing does not, and neither does `multi_accept on`, which accepts until there is
// nothing. When it has nearly as many connections as it may have, nginx does it at every event.
// That is left out here. It evens out the shares in the long run, at two system calls each time. It
// knows nothing of load, and a worker that sleeps keeps what it has accepted.

#include <sys/epoll.h>

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/listener_server.h"
#include "bench/mechanisms/mechanisms.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kReaddAfter = 16;

class EpollExclusiveReadd : public Mechanism {
 public:
  std::string name() const override { return "epoll-exclusive-readd"; }
  std::string summary() const override {
    return "as epoll-exclusive-one, but the listener is added anew after every 16, as nginx does";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartListenerServer(
        options, {.events = EPOLLEXCLUSIVE, .takes_max = 1, .readd_after = kReaddAfter});
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEpollExclusiveReadd() {
  return std::make_unique<EpollExclusiveReadd>();
}

}  // namespace ringmaster::bench
