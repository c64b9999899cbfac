#include "core/engine.h"

#include <algorithm>

#include "core/check.h"

namespace ringmaster::core {

// --- Growing too old -----------------------------------------------------------------------------

// Drops what nobody has claimed in time; its client has given up, or will not be pleased.
void Engine::Expire() {
  // Nobody is rung while nobody drives it, and a recall may have to ring.
  if (now_ns_ < expires_at_ns_ || resting_) return;
  expires_at_ns_ = kWaitForever;
  for (const uint32_t index : active_) {
    if (!workers_[index].sending.used()) ExpireOffered(index);
  }
  for (uint32_t index = 0; index < source_slots(); ++index) {
    if (sources_[index].config.age_max_ns > 0) ExpireHeld(index);
  }
}

// Whether its time is over; otherwise notes when it will be.
bool Engine::Expired(const ArrivalRecord& record) {
  const int64_t age_max_ns = sources_[record.source].config.age_max_ns;
  if (age_max_ns == 0) return false;
  const int64_t at_ns = After(record.came_at_ns, age_max_ns);
  if (now_ns_ >= at_ns) return true;
  expires_at_ns_ = std::min(expires_at_ns_, at_ns);
  return false;
}

// Newest first, so that the oldest ends up first among what is held.
void Engine::ExpireOffered(uint32_t index) {
  // So that no claim from before is taken for motion after it.
  ReadAll(index);
  WorkerState& worker = workers_[index];
  bool recalled = false;
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    if (Expired(ledger_.record(entry.id))) recalled |= RecallAt(index, entry);
  }
  worker.outbox.SkipHoles();
  // By (7) it owes motion, which `rung` must be able to show when no word is left.
  if (recalled && !worker.outbox.rung() && !worker.outbox.unpublished()) RingWorker(index);
}

// What is held is in the order in which it came, but for what was recalled twice, or what the
// kernel's clock does not tell apart. So one that is too old may be behind one that is not. It is
// dropped when its turn comes (DealHeld).
void Engine::ExpireHeld(uint32_t index) {
  const auto expire = [this, index](auto first) {
    ArrivalId id = first();
    while (id != kNoArrival && Expired(ledger_.record(id)) && DropExpired(index, id)) id = first();
  };
  expire([this, index] { return ledger_.FirstHeld(index); });
  expire([this, index] { return ledger_.FirstAside(index); });
  for (uint32_t worker = 0; ledger_.AnyGivers() && worker < worker_slots(); ++worker) {
    expire([this, index, worker] { return ledger_.FirstOf(index, worker); });
  }
}

// Drops the first that the source holds, or has set aside. False: no more in this batch.
bool Engine::DropExpired(uint32_t index, ArrivalId id) {
  if (expired_ == kRefusalsPerBatchMax) {
    expires_at_ns_ = now_ns_;
    more_to_do_ = true;
    return false;
  }
  ++expired_;
  ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = ledger_.Drop(id)});
  places_.GiveBack(index);
  return true;
}

void Engine::Refresh(SourceState& source) {
  // By (22) somebody who is slow will do for what only a giver could have otherwise.
  const bool slow_too =
      ledger_.AnyGivers() && ledger_.FirstPassedOn(source.index, kNoGiver) != kNoArrival;
  AddCandidates(source, slow_too);
  if (candidates_.empty() && !slow_too) AddCandidates(source, true);
}

// What other masters give to the same workers in the middle of a batch. Two that both filled up the
// same worker by what it had before their batches would give it twice as much as it lacked.
void Engine::RefreshOpen(const SourceState& source) {
  for (Candidate& candidate : candidates_) CountOpen(source, candidate);
}

// What has ended was claimed, also when its worker has not been seen to, or has not said so yet.
void Engine::CountOpen(const SourceState& source, Candidate& candidate) const {
  const uint32_t index = candidate.worker;
  candidate.open = places_.Open(index, source.index);
  candidate.unclaimed = std::min(Unclaimed(index), candidate.open);
  candidate.still_ns = candidate.unclaimed > 0 ? StillNs(index) : 0;
}

// The workers with credit; those that are slow at work only if asked for.
void Engine::AddCandidates(SourceState& source, bool slow_too) {
  candidates_.clear();
  for (const uint32_t index : source.joined) {
    const WorkerState& worker = workers_[index];
    if (!slow_too && SlowAtWork(worker)) continue;
    const uint32_t credit = Credit(index, source);
    if (credit == 0) continue;
    const int32_t cpu = worker.config.cpu >= 0
                            ? worker.config.cpu
                            : worker.config.state->cpu.load(std::memory_order_relaxed);
    candidates_.push_back({.worker = index,
                           .credit = credit,
                           .cpu = cpu,
                           .idle = Idle(worker),
                           .busy = worker.config.state->Busy(),
                           .on_host = worker.config.ring_fd < 0});
    CountOpen(source, candidates_.back());
  }
}

bool Engine::Idle(const WorkerState& worker) const {
  if (!worker.outbox.empty() || worker.sending.untaken() > 0 || worker.outbox.rung() ||
      worker.outbox.unpublished() || !worker.config.state->MayWait()) {
    return false;
  }
  for (const Inbox* const inbox : worker.config.other_inboxes) {
    if (inbox->Rung()) return false;
  }
  for (const Tally* const tally : worker.config.other_tallies) {
    if (tally->Untaken() > 0) return false;
  }
  return true;
}

// How long what waits for it has waited without it moving.
int64_t Engine::StillNs(uint32_t index) const {
  return Unclaimed(index) == 0 ? 0 : workers_[index].motion.StillNs(now_ns_);
}

// Whether it has been recalled from of late and is inside a claim now. What it is offered then
// waits for a callback that may take long, too briefly for a recall perhaps and yet for the most of
// that callback, so everybody else is asked first. A hint: a wrong one costs a worse pick.
bool Engine::SlowAtWork(const WorkerState& worker) const {
  return worker.motion.slow(now_ns_) &&
         worker.config.state->serving.load(std::memory_order_relaxed) != 0;
}

// For arrivals of `source`, which may have promises; by (3), (7) and (16).
uint32_t Engine::Credit(uint32_t index, const SourceState& source) const {
  const WorkerState& worker = workers_[index];
  // What others keep is in use.
  const uint32_t kept = places_.KeptAt(index) - places_.Kept(source.index, index);
  const uint32_t unclaimed = Unclaimed(index) + kept;
  const uint32_t window = worker.motion.window();
  if (worker.motion.owes_motion() || unclaimed >= window) return 0;
  const uint32_t places = places_.At(index, source.index);
  if (places == 0) return 0;
  if (worker.sending.used()) {
    // Its ring cannot be reached, or too much is not yet known to have been received.
    if (worker.bell.owed() || unsettled_.full()) return 0;
    return std::min(window - unclaimed, places);
  }
  // Holes between the oldest unclaimed offer and the tail use up words, too.
  const uint32_t words = worker.outbox.room();
  return std::min({window - unclaimed, places, words - std::min(words, kept)});
}

bool Engine::OfferTo(uint32_t index, ArrivalId id) {
  WorkerState& worker = workers_[index];
  RINGMASTER_CHECK(Unclaimed(index) < worker.motion.window());  // (3)
  if (!places_.Take(index, ledger_.record(id).source)) return false;
  if (Unclaimed(index) == 0) worker.motion.BeginsToWait(now_ns_);
  if (worker.sending.used()) {
    SendTo(index, id);
    return true;
  }
  const bool touched = worker.outbox.unpublished();
  worker.outbox.Put(id, OfferOf(ledger_.record(id)));
  ledger_.Offer(id, index, now_ns_);
  worker.looks.Offered(After(now_ns_, RecallLimit(id)));
  if (!touched) {
    touched_.push_back(index);
    Activate(index);
  }
  return true;
}

// By (8).
void Engine::SendTo(uint32_t index, ArrivalId id) {
  WorkerState& worker = workers_[index];
  ledger_.Send(id, index, worker.generation);
  const ArrivalRecord& record = ledger_.record(id);
  SourceState& source = sources_[record.source];
  ++source.unsettled;
  worker.sending.Send(TicketOf(source, record.source));
  unsettled_.Sent(id);
  ops_.push_back({.key = {.kind = OpKind::kSend, .index = id},
                  .fd = worker.config.ring_fd,
                  .tag = worker.sending.token(record.source),
                  .sent = record.fd});
  if (source.config.readiness) source.tickets.Send();
  Activate(index);
}

// The only places that know what may be waited for, each asked wherever that matters: whether to
// raise `hungry`, what is armed, and by CheckAll whether what is left to be done waits at all.
Engine::Waits Engine::WaitsOf(const SourceState& source) const {
  if (source.starved) return Waits::kForCredit;
  if (source.back_off.pauses()) return Waits::kForDescriptors;
  if (source.tickets.awaits_took() && !Shut(source)) return Waits::kForTook;
  // Only Took says that all went well by a ticket that was handed over.
  if (source.tickets.untaken() > 0 && source.back_off.waits_for_success()) return Waits::kForTook;
  if (AsksAgain(source)) return Waits::kForPolicy;
  if (source.waits_for_others) return Waits::kForOthers;
  return Waits::kForNothing;
}

Engine::Waits Engine::WaitsOf(const WorkerState& worker) const {
  // Overdue offers that nobody could take.
  return worker.active && worker.looks.wants_taker() ? Waits::kForTaker : Waits::kForNothing;
}

// Whether there is work that waits for somebody else to move.
bool Engine::Starving() const {
  if (stopping_) return true;
  for (const SourceState& source : sources_) {
    if (WaitsOf(source) != Waits::kForNothing) return true;
  }
  for (const uint32_t index : active_) {
    if (WaitsOf(workers_[index]) != Waits::kForNothing) return true;
  }
  return false;
}

// Whether only a set-up call can make its intake go on.
bool Engine::Shut(const SourceState& source) const {
  return source.joined.empty() || source.paused || (source.failed && !source.drains) ||
         source.removed || stopping_ || resting_;
}

// Whether what it has taken in is given to workers.
bool Engine::Deals(const SourceState& source) const {
  return !source.joined.empty() && !refusing_ && !resting_ &&
         !(source.config.readiness && (stopping_ || source.removed));
}

// Whether something of the source is left to be done and not under way.
bool Engine::HasWork(uint32_t index) const {
  const SourceState& source = sources_[index];
  if (Deals(source) && Dealable(source) > 0) return true;
  if (Shut(source)) return false;
  if (source.arm != Arm::kArmed && !source.failed) return true;
  const bool looks =
      source.pace.under_way() > 0 || source.tickets.counting() || source.asking_state;
  if (source.asks_state && !looks) return true;
  return !source.config.multishot_accept && !looks && (source.ready || source.tickets.counted());
}

// Closes what nobody will ever take: all after the deadline of a shutdown, and what a removed
// source holds that no worker has joined any more.
void Engine::Refuse() {
  uint32_t refused = 0;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    if (sources_[index].config.readiness) {
      if (stopping_ || sources_[index].removed) DropTickets(index);
      continue;
    }
    if (!refusing_ && !(sources_[index].removed && sources_[index].joined.empty())) continue;
    ledger_.TakeUp(index);
    ledger_.ForgetGivers(index);
    for (ArrivalId id = ledger_.FirstHeld(index); id != kNoArrival; id = ledger_.FirstHeld(index)) {
      if (refused++ == kRefusalsPerBatchMax) {
        more_to_do_ = true;
        return;
      }
      ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = ledger_.Refuse(id)});
      places_.GiveBack(index);
    }
  }
}

}  // namespace ringmaster::core
