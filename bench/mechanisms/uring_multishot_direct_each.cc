// Every worker's ring has a multishot accept on the one listener, which puts each connection
// into the ring's file table (IORING_FILE_INDEX_ALLOC, Linux 5.19). It is uring-multishot-each for
// workers that live on such tables: nobody hands anything over, and there is never a descriptor.
//
// What its real-world counterparts do: this is the cheapest way to accept that there is, and one
// worker gets nearly everything. If its table is full, the kernel accepts and closes.

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/uring_accept_server.h"
#include "bench/mechanisms/uring_worker.h"

namespace ringmaster::bench {
namespace {

class UringMultishotDirectEach : public Mechanism {
 public:
  std::string name() const override { return "uring-multishot-direct-each"; }
  std::string summary() const override {
    return "each worker's ring has a multishot accept into its file table";
  }
  bool takes_descriptors() const override { return false; }
  std::string WhyNot(Transport) const override { return WhyNoWorkerTables(); }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartUringAcceptServer(options, AcceptKind::kMultishot, ConnectionsAre::kSlots);
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeUringMultishotDirectEach() {
  return std::make_unique<UringMultishotDirectEach>();
}

}  // namespace ringmaster::bench
