// Delivery: how an arrival that a worker was picked for gets there, and what becomes of what was
// sent. A worker with an inbox is offered the arrival there (Outbox). To a worker with a tally it
// is sent as a completion of the worker's own ring (Sending).
//
// Rules:
//  * Sent is claimed, until it has failed. What is sent counts as claimed at once. What the ring
//    has not said to have failed, when it says that everything is reported, has been received. What
//    has failed is held again, in its old order.
//  * A worker that takes nothing. One that has taken nothing for recall_after gets no credit until
//    it takes something. What its tickets stand for is looked for again, if the source allows
//    recalls.
//  * Whose completion it was. Several masters may serve the same worker, who does not say whose
//    completion it has taken. So one that says it took what could not be sent to it has taken what
//    another master had sent.
//  * One ticket. Of what cannot be counted at most one ticket is unclaimed. One that comes back
//    because it could not be sent may find another, and is merged into it.

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

  // The arrival, which is the first that its source holds, goes to the worker, which has credit.
  // False: another master has taken the last place meanwhile.
  bool Deliver(WorkerIndex worker, ArrivalId id);

  // The sending of an arrival has failed, says the ring.
  void OnFailed(const Completion& completion);
  // What has failed is held again. `all_reported`: what has not is settled.
  void Settle(bool all_reported);

  // --- What the workers have taken of what was sent to them ------------------------------------

  // The oldest `count` of what was sent to the worker are taken, or of no interest any more. A
  // worker to whom tickets are sent need not say that it has accepted by them. So when all are
  // taken, and of those before none has failed, they count as a success.
  void Forget(Worker& worker, size_t count, bool taken);
  // The worker takes nothing, and what was sent to it cannot be taken back. But a ticket is no
  // connection, so somebody else can have another one; that finds nothing, or the first does.
  void GiveUpTickets(Worker& worker);

  // Whether what a source waits for was taken, or given up, since BeginLook.
  void BeginLook() { awaited_taken_ = false; }
  bool awaited_taken() const { return awaited_taken_; }

 private:
  void Send(uint32_t worker, ArrivalId id);
  void TookFromOthers(uint32_t worker);
  void ForgetUnsent(Worker& worker, Source& source);
  void MergeTicket(Source& source, ArrivalId id);
  // How the books of a worker that is sent to know an arrival of the source.
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
  if (!books_.places.Take(index, record.source)) return false;
  if (unclaimed == 0) worker.motion.BeginsToWait(books_.now_ns);
  if (worker.sending.used()) {
    Send(index, id);
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
