#include "core/delivery.h"

namespace ringmaster::core {

void Delivery::Send(uint32_t index, ArrivalId id) {
  Worker& worker = books_.workers[index];
  books_.ledger.Send(id, index, worker.generation);
  const ArrivalRecord& record = books_.ledger.record(id);
  Source& source = books_.sources[record.source];
  ++source.unsettled;
  worker.sending.Send(TicketOf(source));
  books_.unsettled.Sent(id);
  books_.ops.push_back({.key = {.kind = OpKind::kSend, .index = id},
                        .fd = worker.config.ring_fd,
                        .tag = worker.sending.token(record.source),
                        .sent = record.fd});
  if (source.intake.tickets()) source.tickets.Send();
  books_.Activate(index);
}

void Delivery::Install(uint32_t index, ArrivalId id) {
  Worker& worker = books_.workers[index];
  books_.ledger.Send(id, index, worker.generation);
  ArrivalRecord& record = books_.ledger.record(id);
  record.slot = books_.slots.Take(id);
  record.rooms = worker.config.state->Rooms();
  ++books_.sources[record.source].unsettled;
  worker.sending.Send(Sending::kNoTicket);
  worker.sending.Install();
  books_.ops.push_back({.key = {.kind = OpKind::kInstall, .index = id},
                        .fd = worker.config.ring_fd,
                        .tag = worker.sending.token(record.source),
                        .sent = record.fd,
                        .slot = record.slot});
  books_.Activate(index);
}

void Delivery::OnTold(const Completion& completion) {
  const ArrivalId id = completion.key.index;
  if (!books_.ledger.IsAt(id, Where::kSent)) return;
  const bool installs = completion.key.kind == OpKind::kInstall;
  if (installs != (books_.ledger.record(id).slot >= 0)) return;  // nobody has asked for that
  if (completion.result < 0) return books_.unsettled.Failed(id, -completion.result);
  if (installs) Installed(id);
}

void Delivery::Installed(ArrivalId id) {
  LetGo(id, /*closes=*/true);
  --books_.sources[books_.ledger.record(id).source].unsettled;
  books_.ledger.Settle(id);
}

// The kernel has said what became of it. `closes`: it is the worker's now, and ours is closed.
void Delivery::LetGo(ArrivalId id, bool closes) {
  ArrivalRecord& record = books_.ledger.record(id);
  books_.ops.push_back({.key = {.kind = OpKind::kLetGo, .index = id},
                        .fd = closes ? record.fd : -1,
                        .slot = record.slot});
  books_.slots.Put(record.slot);
  record.slot = -1;
  Worker& worker = books_.workers[record.worker];
  const bool left = !worker.used || worker.generation != record.worker_generation;
  left ? books_.slots.ToldOfLeaver(closes) : worker.sending.Told();
}

// By the rule "in the table and not known". It has just come back, so it is the first of its queue.
void Delivery::DropUntold(const Source& source, ArrivalId id) {
  books_.ops.push_back({.key = {.kind = OpKind::kLetGo, .index = id},
                        .fd = books_.ledger.Drop(id),
                        .hang_up = true});
  books_.places.GiveBack(source.index);
}

void Delivery::GiveUpInstalls() {
  for (uint32_t slot = 0; books_.slots.under_way() > 0 && slot < books_.slots.size(); ++slot) {
    if (books_.slots.in(slot) != kNoArrival) Installed(books_.slots.in(slot));
  }
}

void Delivery::Settle(bool all_reported) {
  Unsettled& unsettled = books_.unsettled;
  // The youngest first, so that the oldest ends up first among what is held.
  for (Unsettled::Failure failure; unsettled.NextFailure(failure);) {
    const ArrivalId id = failure.id;
    if (!books_.ledger.IsAt(id, Where::kSent)) continue;  // said twice
    const ArrivalRecord& record = books_.ledger.record(id);
    Source& source = books_.sources[record.source];
    Worker& worker = books_.workers[record.worker];
    const bool left = !worker.used || worker.generation != record.worker_generation;
    const bool installs = record.slot >= 0;
    const bool untold = installs && failure.error == kUntold;
    if (installs) LetGo(id, /*closes=*/false);
    // Otherwise the worker gives back, or has given back, the place that the arrival had.
    bool place_is_free = false;
    if (!left) {
      switch (worker.sending.Unsend()) {
        case Tally::Unsent::kTaken:
          TookFromOthers(record.worker);
          break;
        case Tally::Unsent::kLeaseHasIt:
          ForgetUnsent(worker, source);
          break;
        case Tally::Unsent::kPlaceIsFree:
          ForgetUnsent(worker, source);
          books_.places.TakeBack(record.worker, record.source);
          place_is_free = true;
          break;
      }
      policies_.Tell(source, "OnRecall", [&](Policy& policy) { policy.OnRecall(record.worker); });
      if (installs && failure.error == kNoSlot) {
        worker.sending.FindFull(record.rooms);
        if (worker.sending.fulls() == 1) books_.Emit(EventKind::kTableFull, 0, record.worker);
      } else {
        bells_.Owe(record.worker, failure.error);
      }
      // It seemed to stand still only because the failure was told late, and has nothing to take.
      if (worker.motion.owes_motion() && books_.Unclaimed(record.worker) == 0) {
        books_.Moved(record.worker);
      }
    }
    if (!place_is_free) books_.places.ForceReserveShared();
    if (!installs) unsettled.Forget(id);
    --source.unsettled;
    // Notes when it will be too old: nobody looked while it was on its way.
    books_.ages.IsOver(record.came_at_ns, source.config.age_max_ns, books_.now_ns);
    // What is installed is told in any order, and in any batch. What is sent beside it must fit in.
    const bool by_number = books_.slots.size() > 0 && !untold;
    books_.ledger.Unsend(id, left, by_number ? Ledger::Place::kByNumber : Ledger::Place::kFirst);
    untold ? DropUntold(source, id) : MergeTicket(source, id);
  }
  if (!all_reported) return;
  unsettled.SettleAll([this](ArrivalId id) {
    --books_.sources[books_.ledger.record(id).source].unsettled;
    books_.ledger.Settle(id);
  });
}

void Delivery::MergeTicket(Source& source, ArrivalId id) {
  if (!source.intake.tickets() || source.config.countable || books_.PendingTickets(source) < 2) {
    return;
  }
  source.intake.edges().Untell(books_.ledger.Drop(id));
  books_.places.GiveBack(source.index);
  // An untaken ticket may have been redeemed before. Or it is this one, which its worker has said
  // to have taken, because Took says how many, and never which.
  if (source.tickets.untaken() > 0) source.intake.edges().AwaitTook();
}

// One of this source was not sent, the newest: which of several does not matter. If there is none
// any more, it was counted for one behind it that was taken meanwhile, and the oldest is that one.
void Delivery::ForgetUnsent(Worker& worker, Source& source) {
  if (!worker.sending.ForgetNewest(TicketOf(source))) return Forget(worker, 1, true);
  if (source.intake.tickets()) source.tickets.Forget();
}

void Delivery::TookFromOthers(uint32_t index) {
  for (Tally* const tally : books_.workers[index].config.other_tallies) {
    const Tally::Took took = tally->Take(1);
    if (took.count == 0) continue;
    books_.places.NoteFreed();
    if (took.places == 0) return;
    books_.places.Release(index);
    books_.places.GiveBackShared();
    return;
  }
}

void Delivery::GiveUpTickets(Worker& worker) {
  worker.sending.GiveUpTickets([this](uint32_t index) {
    Source& source = books_.sources[index];
    if (!source.config.recall) return false;
    source.tickets.Forget();
    source.intake.edges().MayHaveMore();
    source.intake.edges().TellAgain();
    awaited_taken_ = true;
    return true;
  });
}

void Delivery::Forget(Worker& worker, size_t count, bool taken) {
  worker.sending.ForgetOldest(count, [&](uint32_t index) {
    Source& source = books_.sources[index];
    const bool went_well = source.tickets.Forget() && taken;
    if (source.intake.edges().StopAwaiting()) awaited_taken_ = true;
    if (went_well) source.back_off.Succeed();
  });
}

}  // namespace ringmaster::core
