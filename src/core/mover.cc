#include "core/mover.h"

namespace ringmaster::core {

void Mover::Move() {
  if (books_.now_ns < due_at_ns_ && !wants_waiter_) return;
  for (const uint32_t index : books_.active) {
    if (MayHaveToMove(index)) MoveFrom(index);
  }
}

// The oldest come first, each to somebody who waits.
void Mover::MoveFrom(uint32_t index) {
  Worker& worker = books_.workers[index];
  reader_.ReadAll(index);
  bool moved = false;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    ArrivalRecord& record = books_.ledger.record(entry.id);
    if (!DueNow(index, record) || closer_.IsOver(record)) continue;
    if (!FindWaiters(index, record) || !recaller_.TakeBack(index, entry)) continue;
    books_.ledger.CountAsMoved(index);
    record.moved = moved = true;
    worker.motion.Relieve();
    Redeal(books_.sources[record.source], entry.id);
  }
  worker.outbox.SkipHoles();
  if (moved && worker.outbox.empty()) worker.looks.Moved();
}

// Finds those who wait and may have what lies with the worker. False: there is nobody.
bool Mover::FindWaiters(uint32_t index, const ArrivalRecord& record) {
  Source& source = books_.sources[record.source];
  const auto waits = [&](uint32_t worker) {
    return worker != index && books_.workers[worker].config.state->SaysItWaits();
  };
  if (std::none_of(source.joined.begin(), source.joined.end(), waits)) return false;
  waiters_.Refresh(source);
  const Candidate from = waiters_.Of(source, index);
  waiters_.KeepOnly([&](const Candidate& to) {
    bool moves = to.idle() && waits(to.worker);
    if (!moves) return false;
    policies_.Tell(source, "MayMove",
                   [&](Policy& policy) { moves = policy.MayMove(record.facts, from, to); });
    return moves;
  });
  return !waiters_.empty();
}

// Deals what was taken back to one of those who wait. It is the first that its source holds.
void Mover::Redeal(Source& source, ArrivalId id) {
  const size_t picked =
      policies_.Pick(source, books_.ledger.record(id).facts, waiters_.list(), source.joined);
  if (picked == Policy::kNobodyNow) {
    source.aside.Note(source.joined, waiters_.list(), books_.now_ns);
    books_.ledger.SetAside(id, books_.now_ns);
  }
  // Otherwise another master has taken the last place meanwhile.
  if (picked == Policy::kNobodyNow || !delivery_.Deliver(waiters_.list()[picked].worker, id)) {
    books_.more_to_do = true;
  }
}

bool Mover::WantsWaiter() {
  due_at_ns_ = kWaitForever;
  wants_waiter_ = false;
  if (books_.resting || books_.refusing) return false;
  for (const uint32_t index : books_.active) wants_waiter_ |= IsDue(index);
  return wants_waiter_;
}

// Whether something that lies with the worker is due; notes when more of it is.
bool Mover::IsDue(uint32_t index) {
  const uint32_t unclaimed = books_.ledger.worker(index).unclaimed;
  if (unclaimed == 0) return false;
  const Worker& worker = books_.workers[index];
  const bool busy = worker.config.state->Busy();
  // One that waits comes to the first of several soon, and to the others behind that.
  if (!busy && (unclaimed < 2 || !worker.config.state->SaysItWaits())) return false;
  bool due = false;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    const ArrivalRecord& record = books_.ledger.record(entry.id);
    if (!Movable(record)) continue;
    const int64_t at_ns = DueAt(index, record);
    if (books_.now_ns < at_ns) {
      due_at_ns_ = std::min(due_at_ns_, at_ns);
      break;
    }
    due = busy;
  }
  return due;
}

bool Mover::AnyWaiter() {
  for (const uint32_t index : books_.active) {
    if (!MayHaveToMove(index)) continue;
    for (const Outbox::Entry entry : books_.workers[index].outbox.oldest_first()) {
      const ArrivalRecord& record = books_.ledger.record(entry.id);
      if (DueNow(index, record) && FindWaiters(index, record)) return true;
    }
  }
  return false;
}

}  // namespace ringmaster::core
