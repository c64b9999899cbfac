// A thread of the program drives the master, by Balancer::RunOnce. This is what Host::kLoop and
// Host::kRing have in common.
//
// Nobody drives the master before the first RunOnce, and after the host's thread has ended. Then
// nothing of it is armed or under way, and each caller runs its own call at once. The next thread
// that calls RunOnce becomes the host.

#ifndef RINGMASTER_SRC_RUNTIME_HOST_DRIVER_H_
#define RINGMASTER_SRC_RUNTIME_HOST_DRIVER_H_

#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "ring/master_ring.h"
#include "runtime/driver.h"
#include "runtime/thread_watch.h"

namespace ringmaster::internal {

// A host that waits for the end of something waits for completions this long at a time.
inline constexpr int64_t kHostPauseNs = 1'000'000;

class HostDriver : public Driver {
 public:
  absl::Status Run(Call& call) final;
  void BeginShutdown(int64_t until_ns) final;
  void WaitForEnd() final;
  bool EndAlone() final;
  absl::Status RunOnce() final;

 protected:
  HostDriver(const MasterEnvironment& environment, uint32_t index, RingSize size);

  // Steps until there is nothing more to do now, or it has done enough for once. Waits for nothing.
  // False: the master has ended.
  bool Advance();
  // Waits until a host that is ending has let go of the master, and until an end is complete that
  // another thread brings about without a host. Fails if the master has ended. With the lock.
  absl::Status AwaitHostGone(std::unique_lock<std::mutex>& lock);

  // --- What depends on whose ring it is. All of these on the host's thread.
  // -----------------------

  // The ring, while there is a host.
  virtual ring::MasterRing& ring() = 0;
  // A call of the host's own was added and one Advance made, which returned `goes_on`. Returns the
  // call's result when it is done, or as much of it as can be done here.
  virtual absl::Status FinishCall(Call& call, bool goes_on) = 0;
  // The end was asked for and begun: brings it about.
  virtual void DriveToEnd() = 0;
  // The calling thread is to become the host: makes the ring its own, or says why it cannot. With
  // the lock.
  virtual absl::Status EnableRing() = 0;
  // Whether RunOnce has something to do, after the first one.
  virtual bool HasWork() const = 0;
  // RunOnce after the end; by the host, or by a thread that would have become it. With the lock.
  virtual void ReapAfterEnd(bool /*host*/) {}
  // The host ends, and the engine rests: ends what is armed, so that nothing is left for a thread
  // that exists no more. False: the master has ended.
  virtual bool ComeToRest() = 0;
  // What the next host has to do first: a part of a sentence, beginning with a comma, or nothing.
  virtual const char* NextHostFirst() const { return ""; }

 private:
  absl::Status RunHere(Call& call);
  absl::Status BecomeHost();
  // Called on the thread of the host when that ends.
  void OnHostEnds();
  void LetHostGo();
  void SayHostGone();

  // Guarded by the lock.
  bool host_ends_ = false;  // the host's thread is ending, and lets go of the master
  bool abandoned_ = false;  // it was shut down while there was no host
  ThreadWatch watch_;       // of hosts
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_HOST_DRIVER_H_
