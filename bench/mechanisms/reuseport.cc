// Every worker has a listener of its own, all bound to the same port (SO_REUSEPORT). When the first
// packet of a connection comes, the kernel picks one by a hash of addresses and ports.
//
// What its real-world counterparts do: nginx with `listen … reuseport`, HAProxy with `shards
// by-thread`, Envoy's listener for each thread, glommio's for each core, gRPC's. The cheapest way
// there is, and the one that scales: no queue is shared. But the choice is made before anything is
// accepted and cannot be undone. It knows nothing of load, so a worker that is stuck keeps its
// part. Few connections fall as chance will have it. When a listener is closed, what waits in its
// queue is reset. A worker that leaves closes its listener here. That is what happens when a
// process that has its own ends, or when nginx gets fewer workers. On a reload with as many
// workers, nginx's master keeps the listeners, and the new workers inherit them with their queues.
// It closes without accepting what has queued up: accepting first would make the gap smaller, not
// close it. (The kernel can move the queue to another listener, if net.ipv4.tcp_migrate_req is 1;
// it is 0 unless an administrator has set it.)

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/reuseport_listeners.h"

namespace ringmaster::bench {
namespace {

class ReusePort : public OwnListeners {
 public:
  std::string name() const override { return "reuseport"; }
  std::string summary() const override {
    return "each worker has a listener on the same port (SO_REUSEPORT); the kernel picks by a hash";
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeReusePort() { return std::make_unique<ReusePort>(); }

}  // namespace ringmaster::bench
