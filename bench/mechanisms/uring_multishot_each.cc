// Every worker's ring has a multishot accept on the one listener (Linux 5.19), the obvious way to
// write a server with io_uring.
//
// What its real-world counterparts do: many io_uring servers start like this, and then find one
// worker at work. An accept waits in the listener's queue as an exclusive waiter. A multishot one
// stays there, at its place, and the first in the queue is asked first. So the ring that was armed
// first gets nearly everything, as long as its worker takes what is completed. There is no limit
// but the completion queue. Those who know take a listener for each worker (see reuseport) or one
// that accepts for all.

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/uring_accept_server.h"
#include "bench/mechanisms/uring_worker.h"

namespace ringmaster::bench {
namespace {

class UringMultishotEach : public Mechanism {
 public:
  std::string name() const override { return "uring-multishot-each"; }
  std::string summary() const override {
    return "each worker's ring has a multishot accept on the listener";
  }
  std::string WhyNot(Transport) const override { return WhyNoWorkerRings(); }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartUringAcceptServer(options, AcceptKind::kMultishot, ConnectionsAre::kDescriptors);
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeUringMultishotEach() {
  return std::make_unique<UringMultishotEach>();
}

}  // namespace ringmaster::bench
