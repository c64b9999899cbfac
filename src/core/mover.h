// Mover: moves offers from workers that are busy to workers that wait. (An offer *is moved* by the
// master. A worker *moves* when it claims, see core/motion.h. The two are not the same thing.)
//
// Rule "moved". A worker may say whether it waits or is busy (PortState::hint). An offer that lies
// with a worker that says that it is busy is taken back, without waiting for recall_after, for
// another one that says that it waits and has nothing unclaimed. This is done only where the policy
// would have taken either (Policy::MayMove).
//  * The offer must have lain for kMoveAfterNs, and its worker must not have moved for that long: a
//    worker that goes on claiming comes to the offer soon.
//  * An arrival is moved once at most, so it does not go to and fro. What was passed on is not
//    moved.
//  * This is no stall: the worker owes no motion, and keeps its window. A policy that deals turns
//    owes the worker one, because it hears of a recall. The worker gets that turn when it waits, or
//    has claimed something. Until then it is a candidate only if there is nobody else.
//  * If nobody waits, the master asks to hear of the next worker that does (Hunger::WantWaiter),
//    and then looks once more who waits.
//  * A connection may end at a worker that waits already. That may make a place there, or let the
//    policy prefer it. Nothing is moved because of that before the next batch, and so the offer may
//    lie until it is recalled after recall_after, as it would without hints. This takes a lease
//    that another thread ends. A worker that ends its leases itself is busy meanwhile, and the
//    master hears of it when it waits again. To hear of the others, too, would cost a knock for
//    each lease that ends while something lies with a busy worker.
//  * Who is busy is looked at after all workers have been rung. A worker that says that it woke
//    looks whether it was rung, and claims first if so. Hence either the worker finds what it was
//    offered, or the master finds the worker busy. tests/model/waits.pml checks this, and the flag.

#ifndef RINGMASTER_SRC_CORE_MOVER_H_
#define RINGMASTER_SRC_CORE_MOVER_H_

#include <algorithm>
#include <cstdint>

#include "core/books.h"
#include "core/candidates.h"
#include "core/closer.h"
#include "core/deadline.h"
#include "core/delivery.h"
#include "core/policy_calls.h"
#include "core/reader.h"
#include "core/recaller.h"

namespace ringmaster::core {

// So long an offer lies at least before it is moved; or recall_after, if that is shorter.
inline constexpr int64_t kMoveAfterNs = 100'000;

class Mover {
 public:
  Mover(Books& books, PolicyCalls& policies, Reader& reader, Recaller& recaller, Closer& closer,
        Delivery& delivery)
      : books_(books),
        policies_(policies),
        reader_(reader),
        recaller_(recaller),
        closer_(closer),
        delivery_(delivery),
        waiters_(books) {}

  // Set-up: for as many workers as there are.
  void Reserve() { waiters_.Reserve(); }

  // Moves what is due.
  void Move();

  // After all workers were rung: whether something is due, so that the master wants to hear of a
  // worker that waits. Notes when more is due.
  bool WantsWaiter();
  bool wants_waiter() const { return wants_waiter_; }
  // After the flag was raised: whether what is due could go to a worker that waits by now.
  bool AnyWaiter();

  // When the next offer is due; kWaitForever: there is none, or it waits for a worker.
  int64_t due_at_ns() const { return due_at_ns_; }

 private:
  void MoveFrom(uint32_t worker);
  void Redeal(Source& source, ArrivalId id);
  bool FindWaiters(uint32_t worker, const ArrivalRecord& record);
  bool IsDue(uint32_t worker);
  bool Movable(const ArrivalRecord& record) const {
    const Source& source = books_.sources[record.source];
    return !record.moved && record.giver == kNoGiver && source.config.recall &&
           source.joined.size() > 1 && books_.Deals(source);
  }
  int64_t DueAt(uint32_t worker, const ArrivalRecord& record) const {
    const int64_t moved_at_ns = books_.workers[worker].motion.moved_at_ns();
    return After(std::max(record.offered_at_ns, moved_at_ns),
                 std::min(kMoveAfterNs, books_.config.recall_after_ns));
  }
  bool DueNow(uint32_t worker, const ArrivalRecord& record) const {
    return Movable(record) && books_.now_ns >= DueAt(worker, record);
  }
  bool MayHaveToMove(uint32_t worker) const {
    return books_.ledger.worker(worker).unclaimed > 0 &&
           !books_.workers[worker].outbox.unpublished() &&
           books_.workers[worker].config.state->Busy();
  }

  Books& books_;
  PolicyCalls& policies_;
  Reader& reader_;
  Recaller& recaller_;
  Closer& closer_;
  Delivery& delivery_;
  Candidates waiters_;
  int64_t due_at_ns_ = kWaitForever;
  bool wants_waiter_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_MOVER_H_
