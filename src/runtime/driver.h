// How a master is driven: by which thread, and with whose ring.
//
// There is one driver for each Host, in a file of its own: thread_driver, loop_driver and
// ring_driver. What drivers by a thread of the program have in common stands in host_driver. For
// another host, write another one, and make it in Driver::Create.

#ifndef RINGMASTER_SRC_RUNTIME_DRIVER_H_
#define RINGMASTER_SRC_RUNTIME_DRIVER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/ring.h"
#include "ring/uring_ring.h"
#include "ringmaster/balancer.h"
#include "runtime/calls.h"
#include "runtime/environment.h"
#include "runtime/turns.h"

namespace ringmaster::internal {

// Threads: any thread may call the public functions, but not in a forked child. None of them may be
// called inside a master of the balancer (runtime/inside.h), except BeginShutdown and OnCompletion.
class Driver {
 public:
  // For the master with this index, by the host that the options name. Nothing drives it yet.
  static absl::StatusOr<std::unique_ptr<Driver>> Create(const MasterEnvironment& environment,
                                                        uint32_t index);
  virtual ~Driver() = default;
  Driver(const Driver&) = delete;
  Driver& operator=(const Driver&) = delete;

  // The turns that it takes. Their parts say which thread may use them.
  Turns& turns() { return turns_; }

  // Begins to drive, unless a host has to come first. On an error it need not be ended.
  virtual absl::Status Start() { return absl::OkStatus(); }

  // Has the call run between two batches, and waits until it is done. FailedPrecondition after the
  // end.
  virtual absl::Status Run(Call& call) = 0;

  // Asks for the end, see MasterEnd::Ask. Does not wait.
  virtual void BeginShutdown(int64_t until_ns) = 0;
  // Waits for the end that was asked for.
  virtual void WaitForEnd() = 0;
  // If the thread that would have to drive has gone, or never came, ends the master on the calling
  // thread. Returns false if the end is to be asked for instead.
  virtual bool EndAlone() { return false; }
  // After the end, when nobody drives any more. Any number of times.
  void CloseRing();

  // --- For hosts: as the functions of Balancer with the same names. ------------------------------

  virtual absl::Status RunOnce();
  // On the host's thread, in the middle of its own work: does what RunOnce does, if there is
  // something to do.
  virtual void ComeBy() {}
  virtual absl::Status Lend(RingLoan loan);
  virtual bool OnCompletion(const io_uring_cqe& /*cqe*/) { return false; }
  virtual int fd() const { return -1; }

 protected:
  Driver(const MasterEnvironment& environment, uint32_t index, RingSize size)
      : environment_(environment), turns_(environment, index, size) {}
  static RingSize SizeOf(const ring::UringRing& ring) {
    return {.completion_entries = ring.completion_entries(), .slots = ring.slots()};
  }

  // A ring of the master's own. A pollable one is for a host, which watches it.
  static absl::StatusOr<std::unique_ptr<ring::UringRing>> MakeRing(
      const MasterEnvironment& environment, bool pollable);

  // Whether the calling thread drives the master. Takes no lock.
  bool OnThisThread() const;
  // Leaves the call to the thread that drives, and waits for it. With the lock.
  absl::Status Queue(std::unique_lock<std::mutex>& lock, Call& call);
  // Takes one turn on this thread, which drives. False: the master has ended.
  bool Step(core::Wait wait);
  // Ends the master on the thread that drives it.
  void End(absl::Status why);
  // The same while nobody drives, or will: what is under way ends with the ring.
  void EndWithoutRing();

  // Called on the thread that drives when the master ends there, before anybody hears of it:
  // nothing is asked of the ring afterwards.
  virtual void LetGoOfRing() = 0;
  // Nothing watches any more, and nothing is under way. The turns know no ring from now on.
  void DropRing();
  virtual void DestroyRing() = 0;

  const MasterEnvironment& environment_;
  Turns turns_;
  // The thread that drives the master, as ThisThread numbers it; 0: nobody does. A thread that
  // finds its own number here has written it itself, hence relaxed.
  std::atomic<uint64_t> thread_{0};
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_DRIVER_H_
