// Host::kThread: a thread of the master's own drives it, with a ring of its own. The thread does
// nothing else.

#ifndef RINGMASTER_SRC_RUNTIME_THREAD_DRIVER_H_
#define RINGMASTER_SRC_RUNTIME_THREAD_DRIVER_H_

#include <pthread.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ring/uring_ring.h"
#include "runtime/driver.h"

namespace ringmaster::internal {

class ThreadDriver final : public Driver {
 public:
  static absl::StatusOr<std::unique_ptr<Driver>> Create(const MasterEnvironment& environment,
                                                        uint32_t index);

  absl::Status Start() override;
  absl::Status Run(Call& call) override;
  void BeginShutdown(int64_t until_ns) override;
  void WaitForEnd() override;

 private:
  ThreadDriver(const MasterEnvironment& environment, uint32_t index,
               std::unique_ptr<ring::UringRing> ring);

  void Drive();
  void MeasureTurns();
  void LetGoOfRing() override { DropRing(); }  // so it watches nothing any more
  void DestroyRing() override { ring_.reset(); }

  const uint32_t index_;
  std::unique_ptr<ring::UringRing> ring_;
  pthread_t handle_{};
  bool joined_ = false;  // guarded by the lock
  int64_t cpu_ns_ = 0;   // of the thread, when it was last read
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_THREAD_DRIVER_H_
