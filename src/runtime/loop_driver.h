// Host::kLoop: a loop of the program drives the master, whose ring it watches among other things.

#ifndef RINGMASTER_SRC_RUNTIME_LOOP_DRIVER_H_
#define RINGMASTER_SRC_RUNTIME_LOOP_DRIVER_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ring/uring_ring.h"
#include "runtime/host_driver.h"

namespace ringmaster::internal {

class LoopDriver final : public HostDriver {
 public:
  static absl::StatusOr<std::unique_ptr<Driver>> Create(const MasterEnvironment& environment,
                                                        uint32_t index);

  void ComeBy() override;
  int fd() const override { return ring_ == nullptr ? -1 : ring_->fd(); }

 private:
  LoopDriver(const MasterEnvironment& environment, uint32_t index,
             std::unique_ptr<ring::UringRing> ring);

  ring::MasterRing& ring() override { return *ring_; }
  absl::Status FinishCall(Call& call, bool goes_on) override;
  void DriveToEnd() override;
  absl::Status EnableRing() override;
  bool HasWork() const override { return true; }
  void ReapAfterEnd(bool host) override;
  bool ComeToRest() override;
  void LetGoOfRing() override {}
  void DestroyRing() override { ring_.reset(); }

  std::unique_ptr<ring::UringRing> ring_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_LOOP_DRIVER_H_
