// Delivery: how an arrival gets to the worker that was picked for it, and what becomes of what was
// sent. A worker with an inbox is offered the arrival there (Outbox). To a worker with a tally the
// arrival is sent, as a completion of the worker's own ring (Sending). A connection may be
// installed in the file table of that ring instead (kInstall, core/slots.h); that is a way of
// sending, too.
//
// Rules:
//  * Sent is claimed, until it has failed. What is sent counts as claimed at once. If the ring says
//    later that the sending has failed, the arrival is held again, at its old place in the order.
//    When the ring says that everything is reported, all that has not failed has been received. Of
//    what is installed the ring says one by one what became of it.
//  * In the table and not known. If the kernel has installed a connection and cannot say so
//    (kUntold), the worker can never serve it, and another one must not: its client would see no
//    end as long as the first worker's table has it. So the connection is ended, and counts as
//    dropped.
//  * A worker that takes nothing. One that has taken nothing for recall_after gets no credit until
//    it takes something. Its untaken tickets are given up: somebody else gets one, if the source
//    allows recalls.
//  * Whose completion it was. Several masters may send to the same worker, which does not say whose
//    completion it has taken. So it may say that it has taken what could not be sent to it. Then
//    what it took was another master's.
//  * One ticket. A source that cannot be counted has at most one pending ticket. A ticket that
//    could not be sent is held again, and may find that another one is pending. Then it is merged
//    into that.

#ifndef RINGMASTER_SRC_CORE_DELIVERY_H_
#define RINGMASTER_SRC_CORE_DELIVERY_H_

#include <cstddef>
#include <cstdint>

#include "core/bells.h"
#include "core/books.h"
#include "core/check.h"
#include "core/policy_calls.h"

namespace ringmaster::core {

class Delivery {
 public:
  Delivery(Books& books, PolicyCalls& policies, Bells& bells)
      : books_(books), policies_(policies), bells_(bells) {}

  // Offers or sends the arrival to the worker. The arrival is the first that its source holds, and
  // the worker has credit. False: another master has taken the worker's last place meanwhile, or
  // another worker the last slot.
  bool Deliver(WorkerIndex worker, ArrivalId id);

  // The ring says that the sending of an arrival has failed; or of one that was to be installed,
  // what became of it.
  void OnTold(const Completion& completion);
  // All completions of the batch were said. What has failed is held again. `all_reported`: what was
  // sent and has not failed is settled.
  void Settle(bool all_reported);
  // Everything is refused: what is under way counts as installed.
  void GiveUpInstalls();

  // --- What the workers have taken of what was sent to them ------------------------------------

  // The oldest `count` of what was sent to the worker are taken, or are of no interest any more. A
  // worker to which tickets are sent need not say that it has accepted by them. So when all are
  // taken, and none has failed meanwhile, they count as a success.
  void Forget(Worker& worker, size_t count, bool taken);
  // By the rule "a worker that takes nothing": gives up the worker's untaken tickets, which cannot
  // be taken back. A ticket is no connection, so somebody else can have another one. One of the two
  // then finds nothing.
  void GiveUpTickets(Worker& worker);

  // Whether a source has waited for tickets that were taken, or given up, since BeginRead.
  void BeginRead() { awaited_taken_ = false; }
  bool awaited_taken() const { return awaited_taken_; }

 private:
  void Send(uint32_t worker, ArrivalId id);
  void Install(uint32_t worker, ArrivalId id);
  void Installed(ArrivalId id);
  void LetGo(ArrivalId id, bool closes);
  void DropUntold(const Source& source, ArrivalId id);
  void TookFromOthers(uint32_t worker);
  void ForgetUnsent(Worker& worker, Source& source);
  void MergeTicket(Source& source, ArrivalId id);
  // How Sending knows an arrival of the source.
  static uint32_t TicketOf(const Source& source) {
    return source.intake.tickets() ? source.index : Sending::kNoTicket;
  }

  Books& books_;
  PolicyCalls& policies_;
  Bells& bells_;
  bool awaited_taken_ = false;
};

// Inline, because every arrival passes through it.
inline bool Delivery::Deliver(WorkerIndex index, ArrivalId id) {
  Worker& worker = books_.workers[index];
  const uint32_t unclaimed = books_.Unclaimed(index);
  RINGMASTER_CHECK(unclaimed < worker.motion.window());  // rule "credit" of core/books.h
  const ArrivalRecord& record = books_.ledger.record(id);
  const bool installs = books_.Installs(worker, books_.sources[record.source]);
  if (installs && books_.slots.free() == 0) return false;
  if (!books_.places.Take(index, record.source)) return false;
  if (unclaimed == 0) worker.motion.BeginsToWait(books_.now_ns);
  if (worker.sending.used()) {
    installs ? Install(index, id) : Send(index, id);
    return true;
  }
  const bool touched = worker.outbox.unpublished();
  worker.outbox.Put(id, OfferOf(record));
  books_.ledger.Offer(id, index, books_.now_ns);
  worker.looks.Offered(After(books_.now_ns, books_.RecallLimit(id)));
  if (!touched) bells_.Touch(index);
  return true;
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_DELIVERY_H_
