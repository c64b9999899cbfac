#include "core/reader.h"

namespace ringmaster::core {

bool Reader::ReadActive() {
  delivery_.BeginRead();
  std::vector<uint32_t>& active = books_.active;
  for (size_t i = 0; i < active.size();) {
    const uint32_t index = active[i];
    Read(index);
    if (Quiet(index)) {
      books_.workers[index].active = false;
      active[i] = active.back();
      active.pop_back();
    } else {
      ++i;
    }
  }
  return delivery_.awaited_taken();
}

void Reader::Read(uint32_t index) {
  Worker& worker = books_.workers[index];
  if (worker.sending.used()) return ReadTally(index);
  bool moved = false;
  for (ArrivalId id; (id = worker.outbox.NextClaimed()) != kNoArrival;) {
    worker.motion.Took(1, books_.now_ns - books_.ledger.record(id).offered_at_ns);
    books_.ledger.Claim(id);
    moved = true;
  }
  if (worker.outbox.Heard()) {
    // It has looked after everything was published. A claimed word alone does not say so: it may
    // belong to a claim that began before the doorbell that failed.
    worker.bell.Heard();
    moved = true;
  }
  if (moved) books_.Moved(index);
}

// The same of a worker to whom arrivals are handed over.
void Reader::ReadTally(uint32_t index) {
  Worker& worker = books_.workers[index];
  const int64_t still_ns = books_.StillNs(index);
  const uint32_t taken = worker.sending.NewlyTaken();
  if (taken > 0) {
    worker.motion.Took(taken, still_ns);
    delivery_.Forget(worker, taken, true);
    worker.bell.Works();
    books_.Moved(index);
  } else if (!worker.motion.owes_motion() && still_ns >= books_.config.recall_after_ns) {
    // Rule "a worker that takes nothing" of core/delivery.h.
    worker.motion.OweMotion(books_.now_ns);
    delivery_.GiveUpTickets(worker);
    Stall(index, false);
  }
}

void Reader::ReadAll(uint32_t index) {
  Worker& worker = books_.workers[index];
  bool moved = false;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    if (!worker.outbox.Claimed(entry)) continue;
    books_.ledger.Claim(entry.id);
    moved = true;
  }
  worker.outbox.SkipHoles();
  if (moved) books_.Moved(index);
}

void Reader::Stall(uint32_t index, bool recalled) {
  Worker& worker = books_.workers[index];
  worker.motion.Stall();
  const bool serving = worker.Serving();
  books_.Emit({.kind = EventKind::kWorkerStalled,
               .worker = index,
               .recalled = recalled,
               .serving = serving,
               .told = worker.outbox.rung() && !worker.bell.owed() && !serving});
}

}  // namespace ringmaster::core
