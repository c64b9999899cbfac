#include "core/engine.h"

#include <algorithm>

namespace ringmaster::core {

// --- Looking at the inboxes ----------------------------------------------------------------------

// Takes note of what the workers have done. Returns whether anyone has credit that it did not have
// when its source was last dealt, or has taken what a source waited for.
bool Engine::ReadInboxes() {
  taken_ = false;
  for (size_t i = 0; i < active_.size();) {
    const uint32_t index = active_[i];
    ReadInbox(index);
    WorkerState& worker = workers_[index];
    if (Quiet(index)) {
      worker.active = false;
      active_[i] = active_.back();
      active_.pop_back();
    } else {
      ++i;
    }
  }
  if (taken_) return true;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    const SourceState& source = sources_[index];
    if (HasNews(index)) return true;
    if (source.waits_for_others && OthersHaveCredit(source)) return true;
    if (!source.starved) continue;
    // What is held has its place already.
    if (Dealable(source) == 0 && (source.yields || Full(source))) continue;
    for (const uint32_t worker : source.joined) {
      if (Credit(worker, source) > 0) return true;
    }
  }
  for (const uint32_t index : active_) {
    const WorkerState& worker = workers_[index];
    if (!worker.looks.wants_taker()) continue;
    for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
      if (MayRecall(index, entry.id) == Recallable::kNow) return true;
    }
  }
  return false;
}

// Whether there is nothing to be looked at.
bool Engine::Quiet(uint32_t index) const {
  const WorkerState& worker = workers_[index];
  return Unclaimed(index) == 0 && !worker.outbox.rung() && !worker.bell.owed() &&
         !worker.outbox.unpublished();
}

bool Engine::ReadInbox(uint32_t index) {
  WorkerState& worker = workers_[index];
  if (worker.sending.used()) {
    ReadTally(index);
    return false;
  }
  bool moved = false;
  for (ArrivalId id; (id = worker.outbox.NextClaimed()) != kNoArrival;) {
    worker.motion.Took(1, now_ns_ - ledger_.record(id).offered_at_ns);
    ledger_.Claim(id);
    moved = true;
  }
  if (worker.outbox.Heard()) {
    // It has looked after everything was published. A claimed word alone does not say so: it may
    // belong to a claim that began before the doorbell that failed.
    worker.bell.Heard();
    moved = true;
  }
  if (moved) Moved(index);
  return moved;
}

// The same of a worker to whom arrivals are handed over.
void Engine::ReadTally(uint32_t index) {
  WorkerState& worker = workers_[index];
  const int64_t still_ns = StillNs(index);
  const uint32_t taken = worker.sending.NewlyTaken();
  if (taken > 0) {
    worker.motion.Took(taken, still_ns);
    ForgetSent(worker, taken, true);
    worker.bell.Works();
    Moved(index);
  } else if (!worker.motion.owes_motion() && still_ns >= config_.recall_after_ns) {
    worker.motion.OweMotion(now_ns_);  // by (8)
    ForgetTickets(worker);
    Stall(index, false);
  }
}

// What has been sent to a worker that takes nothing cannot be taken back. But a ticket is no
// connection, so somebody else can have another one; that finds nothing, or the first does.
void Engine::ForgetTickets(WorkerState& worker) {
  worker.sending.GiveUpTickets([this](uint32_t index) {
    SourceState& source = sources_[index];
    if (!source.config.recall) return false;
    source.tickets.Forget();
    MayHaveMore(source);
    source.events |= source.told;
    taken_ = true;
    return true;
  });
}

// The oldest `count` of what was sent to the worker are taken, or of no interest any more. A worker
// to whom tickets are sent need not say that it has accepted by them. So when all are taken, and of
// those before none has failed, they count as a success.
void Engine::ForgetSent(WorkerState& worker, size_t count, bool taken) {
  worker.sending.ForgetOldest(count, [&](uint32_t index) {
    SourceState& source = sources_[index];
    const bool went_well = source.tickets.Forget() && taken;
    if (source.tickets.StopAwaiting()) taken_ = true;
    if (went_well) source.back_off.Succeed();
  });
}

// How the books of a worker that is sent to know an arrival of the source.
uint32_t Engine::TicketOf(const SourceState& source, uint32_t index) {
  return source.config.readiness ? index : Sending::kNoTicket;
}

void Engine::Moved(uint32_t index) {
  WorkerState& worker = workers_[index];
  worker.looks.Moved();
  if (worker.motion.Moved(now_ns_)) Emit(EventKind::kWorkerMoves, 0, index, 0);
}

Offer Engine::OfferOf(const ArrivalRecord& record) {
  return {.source = record.source, .fd = record.fd};
}

int64_t Engine::RecallLimit(ArrivalId id) const {
  return config_.recall_after_ns << ledger_.record(id).doublings;
}

// When the first offer reaches its limit. The oldest does, unless its limit has been doubled.
int64_t Engine::FirstLimitAt(const WorkerState& worker) const {
  int64_t at_ns = kWaitForever;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    const ArrivalRecord& record = ledger_.record(entry.id);
    at_ns = std::min(at_ns, After(record.offered_at_ns, RecallLimit(entry.id)));
    if (record.doublings == 0) break;
  }
  return at_ns;
}

// Takes back what has waited too long behind a worker that does not move, if somebody else can have
// it; behind one that moves, only if somebody else is idle, and much later. Rings again where the
// doorbell seems to have been missed.
void Engine::RecallOverdue() {
  // First whose ring is tried again: it may take what is overdue at others.
  for (const uint32_t index : active_) {
    WorkerState& worker = workers_[index];
    if (worker.bell.TryAgain(now_ns_) && !worker.sending.used()) SendDoorbell(index);
  }
  for (const uint32_t index : active_) {
    const WorkerState& worker = workers_[index];
    if (ledger_.worker(index).unclaimed == 0) continue;
    const int64_t due_at_ns = std::min(FirstLimitAt(worker), SilentAt(worker));
    if (!worker.looks.wants_taker() && now_ns_ < due_at_ns) continue;
    if (worker.outbox.unpublished()) {
      more_to_do_ = true;  // by (7) it would owe motion for what this batch has offered it
    } else {
      RecallOverdueOf(index);
    }
  }
}

void Engine::RecallOverdueOf(uint32_t index) {
  WorkerState& worker = workers_[index];
  ReadAll(index);
  const int64_t moved_at_ns = worker.motion.moved_at_ns();
  const int64_t still_ns = now_ns_ - moved_at_ns;
  uint32_t recalled = 0;
  int64_t again_ns = kWaitForever;
  bool wants_taker = false;
  // Newest first, so that the oldest ends up first among what is held.
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    const int64_t limit_ns = RecallLimit(entry.id);
    ArrivalRecord& record = ledger_.record(entry.id);
    switch (MayRecall(index, entry.id)) {
      case Recallable::kNever:
        continue;
      case Recallable::kNotYet:
        again_ns = std::min(again_ns, After(std::max(record.offered_at_ns, moved_at_ns), limit_ns));
        continue;
      case Recallable::kWanted:
        wants_taker = true;
        continue;
      case Recallable::kNow:
        break;
    }
    if (!RecallAt(index, entry)) continue;
    ++recalled;
    // Behind a worker that moves it may only have been unlucky: it is not passed round for ever.
    if (still_ns < limit_ns) {
      record.doublings = std::min<uint8_t>(record.doublings + 1, kDoublingsMax);
    }
  }
  worker.outbox.SkipHoles();
  if (recalled > 0) {
    if (!worker.motion.stalled() && still_ns >= config_.recall_after_ns) Stall(index, true);
    worker.looks.Recalled();
  } else if (!worker.outbox.empty()) {
    worker.looks.InVain(now_ns_);
    if (now_ns_ >= SilentAt(worker)) Stall(index, false);  // by (19)
  }
  worker.looks.Ended(wants_taker, again_ns, now_ns_, config_.recall_after_ns);
  // It is old although the worker has consumed its doorbell: one more does no harm, and heals a
  // worker that stopped early and did not come back. After a recall, `rung` is also where motion
  // will be seen if no word is left to see it in.
  if (!worker.outbox.rung() && !worker.outbox.unpublished()) RingWorker(index);
}

// Takes note also of what was claimed out of order. A worker that leaves a source and joins it
// again while it is inside a callback can find a younger offer in the word of an older one.
void Engine::ReadAll(uint32_t index) {
  WorkerState& worker = workers_[index];
  bool moved = false;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    if (!worker.outbox.Claimed(entry)) continue;
    ledger_.Claim(entry.id);
    moved = true;
  }
  worker.outbox.SkipHoles();
  if (moved) Moved(index);
}

int64_t Engine::SilentAt(const WorkerState& worker) {
  return worker.motion.SilentAtNs(worker.looks.vain_since_ns());
}

void Engine::Stall(uint32_t index, bool recalled) {
  WorkerState& worker = workers_[index];
  worker.motion.Stall();
  const bool serving = worker.config.state->serving.load(std::memory_order_relaxed) != 0;
  Emit({.kind = EventKind::kWorkerStalled,
        .worker = index,
        .recalled = recalled,
        .serving = serving,
        .told = worker.outbox.rung() && !worker.bell.owed() && !serving});
}

Engine::Recallable Engine::MayRecall(uint32_t index, ArrivalId id) const {
  const ArrivalRecord& record = ledger_.record(id);
  const SourceState& source = sources_[record.source];
  const bool without_giver = Excludes(record) && record.giver != index;  // by (22)
  if (!source.config.recall || source.joined.size() < (without_giver ? 3 : 2)) {
    return Recallable::kNever;
  }
  const int64_t age_ns = now_ns_ - record.offered_at_ns;
  const int64_t limit_ns = RecallLimit(id);
  if (age_ns < limit_ns) return Recallable::kNotYet;
  const bool stuck = now_ns_ - workers_[index].motion.moved_at_ns() >= limit_ns;
  const bool late = age_ns >= kIdleRecallFactor * limit_ns;
  if ((stuck && TakerFor(record, index, false)) || (late && TakerFor(record, index, true))) {
    return Recallable::kNow;
  }
  return stuck ? Recallable::kWanted : Recallable::kNotYet;
}

bool Engine::RecallAt(uint32_t index, const Outbox::Entry& entry) {
  WorkerState& worker = workers_[index];
  const ArrivalRecord& record = ledger_.record(entry.id);
  if (!worker.outbox.Recall(entry, OfferOf(record))) return false;
  places_.TakeBack(index, record.source);
  ledger_.Recall(entry.id);
  worker.motion.OweMotion(now_ns_);  // by (7)
  TellPolicy(record.source, "OnRecall", [index](Policy& policy) { policy.OnRecall(index); });
  return true;
}

// Whether somebody else could take it now.
bool Engine::TakerFor(const ArrivalRecord& record, uint32_t except, bool must_be_idle) const {
  const SourceState& source = sources_[record.source];
  for (const uint32_t index : source.joined) {
    if (index == except || (index == record.giver && Excludes(record)) ||
        SlowAtWork(workers_[index]) || Credit(index, source) == 0) {
      continue;
    }
    if (!must_be_idle || Idle(workers_[index])) return true;
  }
  return false;
}

}  // namespace ringmaster::core
