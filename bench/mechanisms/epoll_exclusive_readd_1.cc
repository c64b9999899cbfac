// As epoll-exclusive-readd, but after every event that brought a connection: whoever has taken one
// goes to the end of the kernel's queue. The strongest of those that leave the choice to the kernel
// where an even spread is all that is wanted. It costs two system calls for each connection, and
// knows as little of load as the others.

#include <sys/epoll.h>

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/listener_server.h"
#include "bench/mechanisms/mechanisms.h"

namespace ringmaster::bench {
namespace {

class EpollExclusiveReadd1 : public Mechanism {
 public:
  std::string name() const override { return "epoll-exclusive-readd-1"; }
  std::string summary() const override {
    return "as epoll-exclusive-readd, but the listener is added anew after every connection";
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartListenerServer(options,
                               {.events = EPOLLEXCLUSIVE, .takes_max = 1, .readd_after = 1});
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeEpollExclusiveReadd1() {
  return std::make_unique<EpollExclusiveReadd1>();
}

}  // namespace ringmaster::bench
