// Every worker's ring has one accept on the one listener and asks for the next when it has been
// answered. Each new request goes to the end of the listener's queue. So the kernel takes turns of
// itself, and a worker that is busy has not asked. It is the strongest rival for plain evenness,
// without anything that balances.
//
// What its real-world counterparts do: io_uring servers written before multishot accept (Linux
// 5.19), and tokio-uring's accept. A connection costs one request more than with a multishot
// accept, but no system call more, because it is submitted by the call that waits. A worker has one
// connection on its way to it at most, which waits if the worker does not look. Which of the
// waiting workers is next cannot be chosen.

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/uring_accept_server.h"
#include "bench/mechanisms/uring_worker.h"

namespace ringmaster::bench {
namespace {

class UringOneshotEach : public Mechanism {
 public:
  std::string name() const override { return "uring-oneshot-each"; }
  std::string summary() const override {
    return "each worker's ring has one accept on the listener, armed again after each connection";
  }
  std::string WhyNot(Transport) const override { return WhyNoWorkerRings(); }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartUringAcceptServer(options, AcceptKind::kOneShot, ConnectionsAre::kDescriptors);
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeUringOneshotEach() { return std::make_unique<UringOneshotEach>(); }

}  // namespace ringmaster::bench
