// The ring behind a mailbox, shared by the mailbox and the port that it serves, and how a claim
// consumes its doorbells.
//
// On the port of a mailbox, a claim does
//
//   counted = Count()         doorbells that are in the ring now
//   Begin, Take …             as core/inbox.h says, for the inbox of each master
//   Consume(counted, left)    these and no others; one fewer when offers are left in any inbox
//
// The doorbell of an offer is that of the Ring which follows its Publish or, where that got 1 back,
// of the last one before it that got 0. (One that failed to be sent is owed, and will come.) Why it
// is in the ring, or still to come, until a claim has taken the offer:
// (1) What was rung before Begin is found by it (inbox.h (1)); what is rung later has a doorbell
//     that is sent later. One that was counted came before Begin, so all that it announces has been
//     found by this claim or by one before it. Were the count taken after Begin, it might include
//     one whose offers Begin did not find.
// (2) A doorbell that was not counted is not consumed: the queue is first in, first out, so what is
//     consumed are those that were counted. At worst its offers have been found nevertheless, and
//     it causes a claim that finds nothing.
// (3) What Begin does not find is rung after Begin (inbox.h (1)). The first Ring after Begin gets 0
//     back and sends a doorbell, which is one of (2).
// (4) Found and not taken, when a claim stops early: of the doorbells that were counted one stays.
//     If none was counted, the claim was one that nothing asked for. The doorbell of these offers
//     cannot have been consumed: whoever counted it either took them all, or left one in the ring,
//     where it would have been counted. So it is still to come.
// (5) One that comes late, twice or for nothing, and one that is rung again for an old offer, is
//     one more to be counted; nothing else depends on how many there are.
// (6) They do not pile up. A claim leaves at most one of those that it has counted, and from one
//     Begin to the next a single Ring gets 0 back. So a claim counts three at most: one that was
//     left, one that came between the last count and its Begin, one that came after that Begin. One
//     more may come before the three are consumed. Only who else holds the descriptor could make
//     the queue overflow.
// (7) With several masters each of these holds for the doorbells and the inbox of each: one that
//     was counted came before the Begin of its inbox, and one too many that stays does no harm. A
//     claim counts at most one that was left and two for each master, and the queue has room for
//     three of each.
//
// So a level-triggered loop, which sleeps only while the ring is empty, need not know whether
// offers are left. An edge-triggered one is told of each doorbell when it has come into the ring,
// and not again of the one that (4) leaves there: it claims until nothing is left.
// tests/model/inbox.pml checks both, and that each of these rules is needed.

#ifndef RINGMASTER_SRC_RUNTIME_MAILBOX_SHARED_H_
#define RINGMASTER_SRC_RUNTIME_MAILBOX_SHARED_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ring/mailbox_ring.h"
#include "ring/process.h"

namespace ringmaster::internal {

// Threads: Take on any thread; the others by who has taken it, one thread at a time.
class MailboxShared {
 public:
  static absl::StatusOr<std::shared_ptr<MailboxShared>> Create();
  explicit MailboxShared(std::unique_ptr<ring::MailboxRing> ring) : ring_(std::move(ring)) {}

  int fd() const { return ring_->fd(); }

  // Takes it for a port. FailedPrecondition while another one has it, and in a forked child.
  absl::Status Take();
  // The balancer that the port belongs to, which lets go of the ring in a forked child.
  void SetBalancer(uint64_t id) { ring_->SetOwner(id); }
  // The port has left, and no doorbell will come any more: gives it back, quiet.
  void GiveBack();

  // Before Begin: how many doorbells are in the ring. See above; none in a forked child, where they
  // are the parent's.
  uint32_t Count() { return ours() ? ring_->Waiting() : 0; }

  // After the last Take.
  void Consume(uint32_t counted, bool left) {
    if (counted > 0) ring_->Consume(left ? counted - 1 : counted);
  }

 private:
  bool ours() const { return ring::ThisProcess() == process_; }

  const std::unique_ptr<ring::MailboxRing> ring_;
  const uint64_t process_ = ring::ThisProcess();
  std::atomic<bool> taken_{false};
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_MAILBOX_SHARED_H_
