// As epoll-exclusive, but a worker that is woken accepts one connection. Then it looks at what it
// serves, and at the listener again, by another epoll_wait.
//
// What its real-world counterparts do: nginx 1.11.3 to 1.21.5 with `multi_accept off`, its default
// (what came later is epoll-exclusive-readd). unicorn and pitchfork, whose worker has one request
// at a time, besides ask for one event at a time. So they do not hold what they cannot serve. It
// saves the accept that finds nothing when connections come singly, and costs an epoll_wait for
// each connection when they do not.

#include <sys/epoll.h>

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/listener_server.h"
#include "bench/mechanisms/mechanisms.h"

namespace ringmaster::bench {
namespace {

class EpollExclusiveOne : public Mechanism {
 public:
  std::string name() const override { return "epoll-exclusive-one"; }
  std::string summary() const override {
    return "as epoll-exclusive, but one accept for each wake-up";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartListenerServer(options, {.events = EPOLLEXCLUSIVE, .takes_max = 1});
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEpollExclusiveOne() { return std::make_unique<EpollExclusiveOne>(); }

}  // namespace ringmaster::bench
