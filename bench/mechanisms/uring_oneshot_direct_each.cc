// Every worker's ring has one accept on the one listener, which puts each connection
// into the ring's file table (IORING_FILE_INDEX_ALLOC, Linux 5.19). It is uring-oneshot-each for
// workers that live on such tables: nobody hands anything over, and there is never a descriptor.
//
// What its real-world counterparts do: the kernel takes turns of itself, so it is the strongest
// rival for plain evenness. Which of the waiting workers is next cannot be chosen.

#include <memory>
#include <string>

#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/uring_accept_server.h"
#include "bench/mechanisms/uring_worker.h"

namespace ringmaster::bench {
namespace {

class UringOneshotDirectEach : public Mechanism {
 public:
  std::string name() const override { return "uring-oneshot-direct-each"; }
  std::string summary() const override {
    return "each worker's ring has one accept into its file table, armed again after each "
           "connection";
  }
  bool takes_descriptors() const override { return false; }
  std::string WhyNot(Transport) const override { return WhyNoWorkerTables(); }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    return StartUringAcceptServer(options, AcceptKind::kOneShot, ConnectionsAre::kSlots);
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeUringOneshotDirectEach() {
  return std::make_unique<UringOneshotDirectEach>();
}

}  // namespace ringmaster::bench
