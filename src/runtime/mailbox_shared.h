// The ring behind a mailbox, shared by the mailbox and the port that it serves, and how a claim
// consumes its doorbells.
//
// On the port of a mailbox, a claim does
//
//  counted = Count()         doorbells that are in the ring now
//  Begin, Claim …            as core/inbox.h says, for the inbox of each master
//  Consume(counted, left)    consumes these and no others; one fewer when offers are left
//
// Which doorbell belongs to an offer? The Ring that follows its Publish either sends one (it got 0
// back), or finds that one was sent before (it got 1 back); then it is the last one before. (A
// doorbell that could not be sent is owed, and will come.) The claim: until a worker has claimed
// the offer, its doorbell is in the ring, or still to come. Why:
// (1) Begin finds what was rung before it (inbox.h (1)). What is rung later has a doorbell that is
//   sent later. A doorbell that was counted came before Begin. So this claim, or one before it, has
//   found everything that it announces. If the count came after Begin, it might include a doorbell
//   whose offers Begin did not find.
// (2) A doorbell that was not counted is not consumed, because the queue is first in, first out. At
//   worst its offers have been found nevertheless, and it causes a claim that finds nothing.
// (3) What Begin does not find is rung after Begin (inbox.h (1)). The first Ring after Begin gets 0
//   back and sends a doorbell. That doorbell was not counted, see (2).
// (4) A claim that stops early leaves offers that it has found. Then one of the doorbells that were
//   counted stays. If none was counted, nothing had asked for this claim. The doorbell of the
//   offers that are left cannot have been consumed: the claim that counted it either claimed all
//   its offers, or left one doorbell in the ring, and this claim would have counted that. So the
//   doorbell is still to come.
// (5) A doorbell may come late, twice or for nothing, or be rung again for an old offer. Then there
//   is one more to count; nothing else depends on how many there are.
// (6) Doorbells do not pile up. A claim leaves at most one of those that it has counted, and from
//   one Begin to the next only one Ring gets 0 back. So a claim counts three at most: one that was
//   left, one that came between the last count and its Begin, and one that came after that Begin.
//   One more may come before these three are consumed. Only somebody else who holds the descriptor
//   could make the queue overflow.
// (7) With several masters, all this holds for the doorbells and the inbox of each master. A
//   doorbell that was counted came before the Begin of its inbox, and one that stays too many does
//   no harm. A claim counts at most one that was left, and two for each master; the queue has room
//   for three of each.
//
// So a level-triggered loop, which sleeps only while the ring is empty, need not know whether
// offers are left. An edge-triggered loop is told of each doorbell when it comes into the ring, and
// is not told again of the one that (4) leaves there: it must claim until nothing is left.
// tests/model/inbox.pml checks both kinds of loop, and that each of these rules is needed.

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

// Threads: any thread may call Occupy. The other functions are for the port that has the mailbox,
// one thread at a time.
class MailboxShared {
 public:
  static absl::StatusOr<std::shared_ptr<MailboxShared>> Create();
  MailboxShared(std::unique_ptr<ring::MailboxRing> ring, ring::OwnDescriptor sight)
      : ring_(std::move(ring)), sight_(std::move(sight)) {}

  // What the loop watches: an epoll set that has the ring. It is the sight of the worker, too.
  int fd() const { return sight_.get(); }
  // What doorbells are sent to.
  int ring_fd() const { return ring_->fd(); }

  // A port gets the mailbox. FailedPrecondition while another port has it, and in a forked child.
  absl::Status Occupy();
  // Notes the balancer of the port: when that closes its descriptors in a forked child, it closes
  // the ring's, too.
  void SetBalancer(uint64_t id) {
    ring_->SetOwner(id);
    sight_.SetOwner(id);
  }
  // The port has left, and no doorbell will come any more. Consumes what is there, and lets another
  // port have the mailbox.
  void Vacate();

  // Before Begin: how many doorbells are in the ring, see above. 0 in a forked child, because they
  // are the parent's.
  uint32_t Count() { return ours() ? ring_->Waiting() : 0; }

  // After a claim that has found nothing at all: a source that is shown has connections, and this
  // worker has no permit for it any more, or not yet. Whoever holds the desk will hide the source,
  // or issue a permit and show it anew. Until then a loop that is level-triggered would spin. A
  // permit that was issued just before this must be given back afterwards.
  void Empty();

  // After the last claim of an offer.
  void Consume(uint32_t counted, bool left) {
    if (counted > 0) ring_->Consume(left ? counted - 1 : counted);
  }

 private:
  bool ours() const { return ring::ThisProcess() == process_; }

  const std::unique_ptr<ring::MailboxRing> ring_;
  ring::OwnDescriptor sight_;
  const uint64_t process_ = ring::ThisProcess();
  std::atomic<bool> occupied_{false};
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_MAILBOX_SHARED_H_
