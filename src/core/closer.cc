#include "core/closer.h"

namespace ringmaster::core {

void Closer::Expire() {
  // Nobody is rung while nobody drives it, and a recall may have to ring.
  if (books_.resting || !books_.ages.LookNow(books_.now_ns)) return;
  for (const uint32_t index : books_.active) {
    if (!books_.workers[index].sending.used()) ExpireOffered(index);
  }
  for (const Source& source : books_.sources) {
    if (source.config.age_max_ns > 0) ExpireHeld(source);
  }
}

// Newest first, so that the oldest ends up first among what is held.
void Closer::ExpireOffered(uint32_t index) {
  // So that no claim from before is taken for motion after it.
  reader_.ReadAll(index);
  Worker& worker = books_.workers[index];
  bool recalled = false;
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    if (IsOver(books_.ledger.record(entry.id))) recalled |= recaller_.Recall(index, entry);
  }
  worker.outbox.SkipHoles();
  // It owes motion now, which `rung` must be able to show when no word is left.
  if (recalled && !worker.outbox.rung() && !worker.outbox.unpublished()) bells_.Ring(index);
}

// What is held is in the order in which it came, but for what was recalled twice, or what the
// kernel's clock does not tell apart. So one that is too old may be behind one that is not. It is
// closed when its turn comes (Dealer).
void Closer::ExpireHeld(const Source& source) {
  const Ledger& ledger = books_.ledger;
  const SourceIndex index = source.index;
  const auto expire = [&](auto first) {
    ArrivalId id = first();
    while (id != kNoArrival && IsOver(ledger.record(id)) && CloseExpired(source, id)) id = first();
  };
  expire([&] { return ledger.FirstHeld(index); });
  expire([&] { return ledger.FirstAside(index); });
  for (uint32_t worker = 0; ledger.AnyGivers() && worker < books_.worker_slots(); ++worker) {
    expire([&] { return ledger.FirstOf(index, worker); });
  }
}

bool Closer::CloseExpired(const Source& source, ArrivalId id) {
  if (expired_ == kRefusalsPerBatchMax) {
    books_.ages.Note(books_.now_ns);
    books_.more_to_do = true;
    return false;
  }
  ++expired_;
  books_.ops.push_back({.key = source.Key(OpKind::kClose), .fd = books_.ledger.Drop(id)});
  books_.places.GiveBack(source.index);
  return true;
}

void Closer::Refuse() {
  Ledger& ledger = books_.ledger;
  uint32_t refused = 0;
  for (const Source& source : books_.sources) {
    const SourceIndex index = source.index;
    if (source.intake.tickets()) {
      if (books_.stopping || source.removed) WithdrawHeld(source);
      continue;
    }
    if (!books_.refusing && !(source.removed && source.joined.empty())) continue;
    ledger.TakeUp(index);
    ledger.ForgetGivers(index);
    for (ArrivalId id = ledger.FirstHeld(index); id != kNoArrival; id = ledger.FirstHeld(index)) {
      if (refused++ == kRefusalsPerBatchMax) {
        books_.more_to_do = true;
        return;
      }
      books_.ops.push_back({.key = source.Key(OpKind::kClose), .fd = ledger.Refuse(id)});
      books_.places.GiveBack(index);
    }
  }
}

void Closer::WithdrawTickets(const Source& source) {
  if (!source.intake.tickets()) return;
  for (uint32_t worker = 0; worker < books_.worker_slots(); ++worker) {
    if (books_.workers[worker].used) recaller_.RecallAllOf(worker, source.index);
  }
  WithdrawHeld(source);
}

void Closer::WithdrawHeld(const Source& source) {
  const SourceIndex index = source.index;
  Ledger& ledger = books_.ledger;
  ledger.TakeUp(index);
  for (ArrivalId id = ledger.FirstHeld(index); id != kNoArrival; id = ledger.FirstHeld(index)) {
    ledger.Drop(id);
    books_.places.GiveBack(index);
  }
}

}  // namespace ringmaster::core
