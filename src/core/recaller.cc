#include "core/recaller.h"

#include <algorithm>

namespace ringmaster::core {

// The oldest does first, unless its limit has been doubled.
int64_t Recaller::FirstLimitAt(const Worker& worker) const {
  int64_t at_ns = kWaitForever;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    const ArrivalRecord& record = books_.ledger.record(entry.id);
    at_ns = std::min(at_ns, After(record.offered_at_ns, books_.RecallLimit(entry.id)));
    if (record.doublings == 0) break;
  }
  return at_ns;
}

void Recaller::RecallOverdue() {
  // First whose ring is tried again: it may take what is overdue at others.
  bells_.TryAgain();
  for (const uint32_t index : books_.active) {
    const Worker& worker = books_.workers[index];
    if (books_.ledger.worker(index).unclaimed == 0) continue;
    const int64_t due_at_ns = std::min(FirstLimitAt(worker), worker.SilentAt());
    if (!worker.looks.wants_taker() && books_.now_ns < due_at_ns) continue;
    if (worker.outbox.unpublished()) {
      books_.more_to_do = true;  // it would owe motion for what this batch has offered it
    } else {
      RecallOverdueOf(index);
    }
  }
}

void Recaller::RecallOverdueOf(uint32_t index) {
  const int64_t now_ns = books_.now_ns;
  const int64_t recall_after_ns = books_.config.recall_after_ns;
  Worker& worker = books_.workers[index];
  reader_.ReadAll(index);
  const int64_t moved_at_ns = worker.motion.moved_at_ns();
  const int64_t still_ns = now_ns - moved_at_ns;
  uint32_t recalled = 0;
  int64_t again_ns = kWaitForever;
  bool wants_taker = false;
  // Newest first, so that the oldest ends up first among what is held.
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    const int64_t limit_ns = books_.RecallLimit(entry.id);
    ArrivalRecord& record = books_.ledger.record(entry.id);
    switch (MayRecall(index, entry.id)) {
      case Recallable::kNever:
        continue;
      case Recallable::kNotYet:
        again_ns = std::min(again_ns, After(std::max(record.offered_at_ns, moved_at_ns), limit_ns));
        continue;
      case Recallable::kNoTaker:
        wants_taker = true;
        continue;
      case Recallable::kNow:
        break;
    }
    if (!Recall(index, entry)) continue;
    ++recalled;
    // Behind a worker that moves it may only have been unlucky: it is not passed round for ever.
    if (still_ns < limit_ns) {
      record.doublings = std::min<uint8_t>(record.doublings + 1, kDoublingsMax);
    }
  }
  worker.outbox.SkipHoles();
  if (recalled > 0) {
    if (!worker.motion.stalled() && still_ns >= recall_after_ns) reader_.Stall(index, true);
    worker.looks.Recalled();
  } else if (!worker.outbox.empty()) {
    worker.looks.InVain(now_ns);
    if (now_ns >= worker.SilentAt()) reader_.Stall(index, false);
  }
  worker.looks.Ended(wants_taker, again_ns, now_ns, recall_after_ns);
  // It is old although the worker has consumed its doorbell: one more does no harm, and heals a
  // worker that stopped early and did not come back.
  if (!worker.outbox.rung() && !worker.outbox.unpublished()) bells_.Ring(index);
}

bool Recaller::AnyCanBeRecalled() const {
  for (const uint32_t index : books_.active) {
    const Worker& worker = books_.workers[index];
    if (!worker.looks.wants_taker()) continue;
    for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
      if (MayRecall(index, entry.id) == Recallable::kNow) return true;
    }
  }
  return false;
}

Recaller::Recallable Recaller::MayRecall(uint32_t index, ArrivalId id) const {
  const ArrivalRecord& record = books_.ledger.record(id);
  const Source& source = books_.sources[record.source];
  // Rule "passed on" of core/dealer.h.
  const bool without_giver = books_.Excludes(record) && record.giver != index;
  if (!source.config.recall || source.joined.size() < (without_giver ? 3 : 2)) {
    return Recallable::kNever;
  }
  const int64_t age_ns = books_.now_ns - record.offered_at_ns;
  const int64_t limit_ns = books_.RecallLimit(id);
  if (age_ns < limit_ns) return Recallable::kNotYet;
  const bool stuck = books_.now_ns - books_.workers[index].motion.moved_at_ns() >= limit_ns;
  const bool late = age_ns >= kIdleRecallFactor * limit_ns;
  if ((stuck && TakerFor(record, index, false)) || (late && TakerFor(record, index, true))) {
    return Recallable::kNow;
  }
  return stuck ? Recallable::kNoTaker : Recallable::kNotYet;
}

bool Recaller::TakerFor(const ArrivalRecord& record, uint32_t except, bool must_be_idle) const {
  const Source& source = books_.sources[record.source];
  for (const uint32_t index : source.joined) {
    const Worker& worker = books_.workers[index];
    if (index == except || (index == record.giver && books_.Excludes(record)) ||
        worker.SlowAtWork(books_.now_ns) || books_.Credit(index, source) == 0) {
      continue;
    }
    if (!must_be_idle || worker.activity() == Activity::kIdle) return true;
  }
  return false;
}

bool Recaller::Recall(uint32_t index, const Outbox::Entry& entry) {
  if (!TakeBack(index, entry)) return false;
  books_.workers[index].motion.OweMotion(books_.now_ns);
  return true;
}

bool Recaller::TakeBack(uint32_t index, const Outbox::Entry& entry) {
  Worker& worker = books_.workers[index];
  const ArrivalRecord& record = books_.ledger.record(entry.id);
  Source& source = books_.sources[record.source];
  if (!worker.outbox.Recall(entry, OfferOf(record))) return false;
  books_.places.TakeBack(index, record.source);
  books_.ledger.Recall(entry.id);
  policies_.Tell(source, "OnRecall", [index](Policy& policy) { policy.OnRecall(index); });
  return true;
}

// Newest first, so that the oldest ends up first among what is held.
void Recaller::RecallAllOf(WorkerIndex index, SourceIndex source) {
  Worker& worker = books_.workers[index];
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    const ArrivalRecord& record = books_.ledger.record(entry.id);
    if (source != kEverySource && record.source != source) continue;
    if (!worker.outbox.Recall(entry, OfferOf(record))) continue;
    books_.places.TakeBack(index, record.source);
    books_.sources[record.source].intake.edges().MayHaveMore();
    books_.ledger.Recall(entry.id);
  }
  worker.outbox.SkipHoles();
}

}  // namespace ringmaster::core
