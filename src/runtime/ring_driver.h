// Host::kRing: a loop of the program drives the master on its own io_uring, which it lends. The
// loop reaps, so nothing can be waited for on its thread.

#ifndef RINGMASTER_SRC_RUNTIME_RING_DRIVER_H_
#define RINGMASTER_SRC_RUNTIME_RING_DRIVER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ring/lent_ring.h"
#include "runtime/host_driver.h"

namespace ringmaster::internal {

class RingDriver final : public HostDriver {
 public:
  static absl::StatusOr<std::unique_ptr<Driver>> Create(const MasterEnvironment& environment,
                                                        uint32_t index);

  absl::Status Lend(RingLoan loan) override;
  bool OnCompletion(const io_uring_cqe& cqe) override;

 private:
  RingDriver(const MasterEnvironment& environment, uint32_t index);

  ring::MasterRing& ring() override { return *lent_; }
  absl::Status FinishCall(Call& call, bool goes_on) override;
  void DriveToEnd() override;
  absl::Status EnableRing() override;
  // A loop that lends its ring calls RunOnce in every turn of its own, whatever the turn was about.
  bool HasWork() const override { return lent_->HasSomething(); }
  bool ComeToRest() override;
  const char* NextHostFirst() const override {
    return ", after it has lent its ring by Balancer::Lend";
  }
  void LetGoOfRing() override;
  void DestroyRing() override { lent_.reset(); }

  absl::Status HandOver();
  void RetireLoan();

  std::unique_ptr<ring::LentRing> lent_;                    // null until a ring is lent
  std::vector<std::unique_ptr<ring::LentRing>> old_loans_;  // of hosts that have ended
  bool loan_ended_ = false;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_RING_DRIVER_H_
