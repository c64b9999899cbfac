// What the mechanisms with a listener for each worker, or for each master, have in common:
// SO_REUSEPORT (Linux 3.9).

#ifndef RINGMASTER_BENCH_MECHANISMS_REUSEPORT_LISTENERS_H_
#define RINGMASTER_BENCH_MECHANISMS_REUSEPORT_LISTENERS_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/mechanism.h"
#include "bench/target.h"

namespace ringmaster::bench {

// Why there are no such listeners over `transport`; empty if there are.
std::string WhyNoReusePort(Transport transport);

// So many listeners at the server's address, in an order which is that of the kernel's group. The
// server's own stops listening: it would get a share. The caller closes them.
absl::StatusOr<std::vector<int>> MakeReusePortListeners(const ServerOptions& options, size_t count);

// A mechanism whose workers have a listener each.
class OwnListeners : public Mechanism {
 public:
  std::string WhyNot(Transport transport) const override { return WhyNoReusePort(transport); }
  bool shares_port() const override { return true; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override;

 private:
  // The server has begun, and its workers own the listeners, which stand in the order of the group.
  virtual absl::Status OnStart(const std::vector<int>& /*listeners*/) const {
    return absl::OkStatus();
  }
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_REUSEPORT_LISTENERS_H_
