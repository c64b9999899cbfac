// The seam over io_uring: a master's ring.
//
// Threads: `Create` may run on any thread, as the ring is created disabled; `Enable` makes the
// calling thread its owner, and from then on `Turn` belongs to that thread alone. A pollable ring
// may get another owner when the first has let go. The destructor and TakeRemaining may run on any
// thread once the owner makes no more calls.
//
// The ring owns its descriptor and its queues. It borrows every descriptor in an operation: one
// that is watched or accepted from must stay open until the operation's last completion has come.
// An accepted connection belongs to who reads its completion. Destruction ends what is still in
// flight and reads nothing any more, so end the accepts and read their last completions first, lest
// a connection be accepted and forgotten.
//
// fork: a child does not have the queues, so nothing may be called there. Destruction only closes
// the child's copy of the descriptor, unless ring/process.h has done so before.
//
// What is done here rather than in the engine, because only the kernel's ways ask for it:
//  * A doorbell, a send and a close complete only on failure; so do the ends of a poll and of an
//    accept, and those drop the failure that says that there was nothing to end any more. What
//    counts is the last completion of what was ended: `more` is false, and the result is ECANCELED.
//  * A kCount is a system call of its own, made when the operation is submitted: its completion is
//    returned by the same turn, which then does not wait.
//  * A number that stands for another file than the operation says is not used: the operation
//    fails, in its place. It is looked at once for all operations on it that are submitted
//    together.
//  * A close does not wait for the client, see EndLinger.
//  * A kAccept never waits. Where the kernel cannot be told so (before Linux 6.10), the source must
//    be non-blocking, and the accept happens by a system call at the moment at which its completion
//    is read. That keeps the order that matters: a kPoll edge for a connection which an accept did
//    not find is reported after that accept.

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
  // How many operations cross in one system call; more are passed in several. 1 to 32768.
  uint32_t submission_entries = 256;
  // How many completions fit. When they do not, a multishot operation ends, and its last completion
  // says so. At least `submission_entries`, at most 65536.
  uint32_t completion_entries = 4096;
  // The ring's descriptor becomes readable when there is something to reap, for a host that waits
  // elsewhere; it is readable also before the first Enable and after LetGo, because an owner is
  // wanted. Costs DEFER_TASKRUN, with which it never would be, and SINGLE_ISSUER, because a host
  // may end and be followed by another.
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
  // Of a pollable ring, by its owner, who makes no more calls: ends the watch and the timeouts, and
  // leaves the descriptor readable for the owner that follows.
  void LetGo();

  // Submits `ops`, waits and reaps as core/ring.h says. A signal does not end the waiting. When the
  // kernel lacks memory it tries again for some seconds, then answers EAGAIN or EBUSY.
  int Turn(std::span<const core::Op> ops, core::Wait wait,
           std::vector<core::Completion>& completions) override;

  bool AllReported() const override { return all_reported_; }

  // What is armed goes on. So a connection that comes at this very moment may be accepted and, with
  // the ring, forgotten.
  void TakeRemaining(std::vector<core::Completion>& completions) override;

  // Of a pollable ring: makes its descriptor readable.
  int WakeIn(int64_t wait_ns) override;

  int fd() const override { return ring_.ring_fd; }

  // Entries of the completion queue that is there: the kernel makes a power of two of what was
  // asked for.
  uint32_t completion_entries() const { return ring_.cq.ring_entries; }

  bool HasSomething() const override { return io_uring_cq_ready(&ring_) > 0 || HoldsBack(); }

  // For tests: the ring itself, to prepare what no Op asks for.
  io_uring* raw() { return &ring_; }

 private:
  UringRing(const io_uring& ring, const UringRingOptions& options);

  // Puts all of `ops` into the submission queue; crosses whenever that is full.
  int Queue(std::span<const core::Op> ops, std::vector<core::Completion>& completions);

  // Crosses and reaps; again while the kernel lacks memory and reaping gives it none back.
  int Cross(core::Wait wait, std::vector<core::Completion>& completions);
  // One system call: submits what is queued and waits. 0 also when time is up or a signal came.
  int Enter(core::Wait wait);
  // Reaps what the kernel holds back until it is entered, while there is room.
  int Drain(std::vector<core::Completion>& completions);

  // How many operations the kernel has not taken yet.
  uint32_t Unsubmitted() const;
  // Whether the kernel holds back completions until it is entered.
  bool HoldsBack() const;

  void AskForOwner();

  // Moves what is in the completion queue while there is room. Returns how many were taken from
  // the queue, those of no interest included.
  uint32_t Reap(std::vector<core::Completion>& completions);
  io_uring ring_;
  const uint64_t process_ = ThisProcess();
  OwnDescriptor descriptor_;  // of ring_
  const Dialect dialect_;
  bool enabled_ = false;
  bool asks_for_owner_ = false;
  bool all_reported_ = true;
  int64_t wakes_at_ns_ = core::kWaitForever;  // the first timeout that is under way
  std::vector<core::Completion> answers_;     // to questions, for which there was no room
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_URING_RING_H_
