// The seam over io_uring: a master's ring.
//
// Threads: any thread may call `Create`, because the ring is created disabled. `Enable` makes the
// calling thread its owner. From then on, `Turn` belongs to that thread alone. A pollable ring may
// get another owner when the first has let go. Any thread may call the destructor and TakeRemaining
// once the owner makes no more calls.
//
// The ring owns its descriptor and its queues. It borrows every descriptor in an operation: a
// descriptor that is watched or accepted from must stay open until the operation's last completion
// has come. An accepted connection belongs to whoever reads its completion. Destruction ends what
// is still in flight, and reads nothing more. So end the accepts first, and read their last
// completions. Otherwise a connection may be accepted and forgotten.
//
// fork: a child does not have the queues, so nothing may be called there. In a child, destruction
// only closes the child's copy of the descriptor, unless ring/process.h has done so before.
//
// What is done here rather than in the engine, because only the kernel's ways ask for it:
//  * A doorbell, a send and a close complete only on failure. So do the operations that end a poll
//    or an accept. Their failure is dropped if it only says that there was nothing to end any more.
//    What counts is the last completion of the operation that was ended: `more` is false, and the
//    result is ECANCELED.
//  * A kCount is a system call of its own, made when the operation is submitted. The same turn
//    returns its completion, and then does not wait.
//  * If a number stands for another file than the operation says, it is not used, and the operation
//    fails, in its place. All operations on the same number that are submitted together cost one
//    look.
//  * A kInstall is two entries: one puts the connection into a slot of this ring's file table, the
//    other one, which depends on it, installs it from there. A kLetGo clears the slot again.
//  * A close does not wait for the client, see EndLinger.
//  * A kAccept never waits. Before Linux 6.10 the kernel cannot be told so. There the source must
//    be non-blocking, and the accept is a system call at the moment at which its completion is
//    read. That keeps the order that matters: if an accept did not find a connection, the kPoll
//    edge of that connection is reported after the accept.

#ifndef RINGMASTER_SRC_RING_URING_RING_H_
#define RINGMASTER_SRC_RING_URING_RING_H_

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/op.h"
#include "core/ring.h"
#include "ring/features.h"
#include "ring/master_ring.h"
#include "ring/process.h"
#include "ring/translate.h"

namespace ringmaster::ring {

struct UringRingOptions {
  // How many operations one system call submits; more operations take several calls. 1 to 32768.
  uint32_t submission_entries = 256;
  // How many completions fit into the queue. When it is full, a multishot operation ends, and its
  // last completion says so. At least `submission_entries`, at most 65536.
  uint32_t completion_entries = 4096;
  // For a host that waits elsewhere: the ring's descriptor becomes readable when there is something
  // to reap. It is also readable before the first Enable and after LetGo, because the ring needs an
  // owner then. Such a ring does without DEFER_TASKRUN, with which it would never be readable. It
  // does without SINGLE_ISSUER, because another host may follow one that has ended.
  bool pollable = false;
  // Refuses, in the kernel, every operation that is not among those of core/op.h.
  bool restrict = true;
  Features features;
  uint64_t owner = 0;  // of the descriptor, for CloseDescriptorsOf
};

class UringRing final : public MasterRing {
 public:
  // The errors are those of ring/errors.h; they leave nothing open.
  static absl::StatusOr<std::unique_ptr<UringRing>> Create(const UringRingOptions& options);

  ~UringRing() override;
  UringRing(const UringRing&) = delete;
  UringRing& operator=(const UringRing&) = delete;

  // `Turn` answers EBADFD before the first one. A pollable ring may get another owner.
  int Enable() override;
  // For a pollable ring. Its owner makes this call last: it ends the watch and the timeouts, and
  // leaves the descriptor readable for the next owner.
  void LetGo();

  // Submits `ops`, waits and reaps as core/ring.h says. A signal does not end the waiting. When the
  // kernel lacks memory it tries again for some seconds, then answers EAGAIN or EBUSY.
  int Turn(std::span<const core::Op> ops, core::Wait wait,
           std::vector<core::Completion>& completions) override;

  bool AllReported() const override { return all_reported_; }

  // What is armed stays armed. So a connection that comes at this very moment may be accepted, and
  // forgotten when the ring is destroyed. The descriptor of a pollable ring is readable from now
  // on, until StopAsking: whoever waits for it to become the owner is to find that it is too late.
  void TakeRemaining(std::vector<core::Completion>& completions) override;

  // The descriptor is not readable any more because no owner is there. When nobody makes another
  // call, or by the owner.
  void StopAsking();

  // For a pollable ring: makes its descriptor readable at that time.
  int WakeIn(int64_t wait_ns) override;

  int fd() const override { return ring_.ring_fd; }

  // Entries of the completion queue that is there: the kernel makes a power of two of what was
  // asked for.
  uint32_t completion_entries() const { return ring_.cq.ring_entries; }

  // Slots of its file table, for kInstall; 0: it has none. The kernel allows no more than the
  // process may have descriptors.
  uint32_t slots() const { return static_cast<uint32_t>(slot_files_.size()); }

  bool HasSomething() const override { return io_uring_cq_ready(&ring_) > 0 || HoldsBack(); }

  // For tests: the ring itself, to prepare what no Op asks for.
  io_uring* raw() { return &ring_; }

 private:
  UringRing(const io_uring& ring, const UringRingOptions& options);

  // Puts all of `ops` into the submission queue; calls Cross whenever that is full.
  int Queue(std::span<const core::Op> ops, std::vector<core::Completion>& completions);

  // Enters the kernel and reaps. Repeats that while the kernel lacks memory and reaping gives it
  // none back.
  int Cross(core::Wait wait, std::vector<core::Completion>& completions);
  // One system call: submits what is queued, and waits. Returns 0 also when time is up or a signal
  // came.
  int Enter(core::Wait wait);
  // Reaps what the kernel holds back until it is entered, while there is room.
  int Drain(std::vector<core::Completion>& completions);

  // How many operations the kernel has not taken yet.
  uint32_t Unsubmitted() const;
  // Whether the kernel holds back completions until it is entered.
  bool HoldsBack() const;

  void AskForOwner();

  void RegisterSlots();

  // Moves what is in the completion queue while there is room. Returns how many entries it has
  // removed from the queue, those of no interest included.
  uint32_t Reap(std::vector<core::Completion>& completions);
  io_uring ring_;
  const uint64_t process_ = ThisProcess();
  OwnDescriptor descriptor_;  // of ring_
  const Dialect dialect_;
  bool pollable_ = false;
  bool enabled_ = false;
  bool asks_for_owner_ = false;
  bool all_reported_ = true;
  int64_t wakes_at_ns_ = core::kWaitForever;  // the first timeout that is under way
  std::vector<core::Completion> answers_;     // that there was no room for
  std::vector<int32_t> slot_files_;           // by slot; read by the kernel
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_URING_RING_H_
