// The books of an engine: what its parts share. Where each arrival is, who there is, what the batch
// has brought about so far, and the questions that several parts ask about all of that together.
//
// Everything with rules of its own is a part with a header of its own. What stands here as a plain
// field is a fact of this batch or of the set-up, with the one who changes it beside it.
//
// Owned by one engine, and handed to its parts. Pure; the accept path never allocates.

#ifndef RINGMASTER_SRC_CORE_BOOKS_H_
#define RINGMASTER_SRC_CORE_BOOKS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/ages.h"
#include "core/engine_config.h"
#include "core/ledger.h"
#include "core/op.h"
#include "core/places.h"
#include "core/room.h"
#include "core/sending.h"
#include "core/slots.h"
#include "core/source.h"
#include "core/worker.h"

namespace ringmaster::core {

// The offer that stands in an inbox for an arrival.
inline Offer OfferOf(const ArrivalRecord& record) {
  return {.source = record.source, .fd = record.fd};
}

struct Books {
  explicit Books(const EngineConfig& engine_config)
      : config(engine_config),
        places(config.gate),
        room(config.completion_entries, config.completions_max) {}

  const EngineConfig config;

  // --- Where everything is ---------------------------------------------------------------------
  Ledger ledger;
  Places places;
  Room room;
  Unsettled unsettled;
  Slots slots;
  Ages ages;
  std::vector<Source> sources;  // by index; an index may be between two sources
  std::vector<Worker> workers;  // by index; `used` says whether there is one
  // Workers with something unclaimed or unpublished, rung, or owed a doorbell.
  std::vector<uint32_t> active;

  // --- This batch ------------------------------------------------------------------------------
  int64_t now_ns = 0;
  std::vector<Op> ops;  // the caller's; empty between two batches
  std::vector<EngineEvent> events;
  uint32_t arrived = 0;     // in this batch
  bool more_to_do = false;  // there is more to do than one batch takes

  // --- Set-up ----------------------------------------------------------------------------------
  bool stopping = false;  // no intake any more
  bool resting = false;   // nobody drives the master
  bool refusing = false;  // after the deadline of a shutdown

  SourceCount departed;  // what sources have counted whose indexes were used again

  uint32_t source_slots() const { return static_cast<uint32_t>(sources.size()); }
  uint32_t worker_slots() const { return static_cast<uint32_t>(workers.size()); }

  // --- What happens ----------------------------------------------------------------------------

  void Emit(const EngineEvent& event) {
    // Bounded: what does not fit is not worth an allocation on this path.
    if (events.size() < events.capacity()) events.push_back(event);
  }
  void Emit(EventKind kind, uint32_t source, uint32_t worker = 0, int32_t error = 0) {
    Emit({.kind = kind, .source = source, .worker = worker, .error = error});
  }
  // The worker is to be looked at in each batch.
  void Activate(uint32_t index) {
    Worker& worker = workers[index];
    if (worker.active) return;
    worker.active = true;
    active.push_back(index);
  }
  // The worker has moved.
  void Moved(uint32_t index) {
    Worker& worker = workers[index];
    worker.looks.Moved();
    if (worker.motion.Moved(now_ns)) Emit(EventKind::kWorkerMoves, 0, index);
  }

  // --- Sources ---------------------------------------------------------------------------------

  // Whether nothing is taken in from the source until a set-up call changes that.
  bool Shut(const Source& source) const {
    return source.joined.size() < source.starts_with || source.paused ||
           source.intake.listening().ended() || source.removed || stopping || resting;
  }
  // Whether what the source holds is dealt.
  bool Deals(const Source& source) const {
    return !source.joined.empty() && !refusing && !resting &&
           !(source.intake.tickets() && (stopping || source.removed));
  }
  // Pending tickets: held, offered, or handed over and untaken.
  uint64_t PendingTickets(const Source& source) const {
    const SourceCount& count = ledger.source(source.index);
    return count.held + count.offered + source.tickets.untaken();
  }

  // By the rule "passed on" of core/dealer.h: whether the arrival has a giver, and that one does
  // not get it.
  bool Excludes(const ArrivalRecord& record) const {
    return record.giver != kNoGiver && sources[record.source].joined.size() > 1;
  }

  // How many arrivals the source holds that wait to be dealt. Those are left out for which only
  // their givers have credit.
  uint64_t Dealable(const Source& source) const {
    const uint64_t waits =
        source.lack.others() ? ledger.source(source.index).with_givers : uint64_t{0};
    return ledger.source(source.index).to_deal() - waits;
  }

  // By the rule "set aside" of core/aside.h: how many the source has set aside; whether its policy
  // is asked about them again; and whether they are as many as may be.
  uint64_t AsideOf(const Source& source) const {
    return ledger.AnyAside() ? ledger.source(source.index).aside : 0;
  }
  bool AsksAgain(const Source& source) const { return AsideOf(source) > 0 && Deals(source); }
  bool AsideFull(const Source& source) const {
    return ledger.AnyAside() && AsideOf(source) >= source.AsideMax();
  }
  // How many more may be taken in, if the policy of the source may set all of them aside. There is
  // no limit before anything is set aside.
  uint32_t MayBring(const Source& source) const {
    const uint64_t aside = AsideOf(source);
    return aside == 0 ? UINT32_MAX : source.AsideMax() - static_cast<uint32_t>(aside);
  }

  // --- Room and places -------------------------------------------------------------------------

  // Whether there is room for so many arrivals beside those that may come in any case.
  bool HasRoomFor(uint32_t arrivals) const { return room.IsFor(arrivals, ledger.room()); }
  // Whether there is no place at the gates, or no room, for one more.
  bool Full(const Source& source) const { return places.Full(source.index) || !HasRoomFor(1); }
  // Lets go of kept credit, of promises, and of the place of a count, as far as the source needs
  // them no more: because an ask has found nothing, or because what it has found was offered to
  // another worker, dropped or refused. `fresh`: so many have just been found and are about to be
  // dealt, and what is kept and promised for these stays. Returns whether others may have got
  // anything by that.
  bool LetGo(const Source& source, uint64_t fresh) {
    const uint64_t under_way = source.UnderWay();
    const uint64_t to_deal = std::max(fresh, ledger.source(source.index).new_to_deal());
    const bool any = places.LetGo(source.index, under_way + fresh, under_way + to_deal);
    if (source.tickets.counting() || fresh > 0) return any;
    return places.TakeFromCount(source.index) || any;
  }
  bool LetGo() {
    bool any = false;
    for (const Source& source : sources) any |= LetGo(source, 0);
    return any;
  }

  // The limit of an offer: when it is older, it is overdue.
  int64_t RecallLimit(ArrivalId id) const {
    return config.recall_after_ns << ledger.record(id).doublings;
  }

  // --- Workers ---------------------------------------------------------------------------------

  // How many arrivals the worker has unclaimed. Of a worker with a tally these are the untaken
  // ones.
  uint32_t Unclaimed(uint32_t index) const {
    const Worker& worker = workers[index];
    return worker.sending.used() ? worker.sending.untaken() : ledger.worker(index).unclaimed;
  }
  // Whether arrivals of the source are installed in the worker's file table. A ticket is no file.
  static bool Installs(const Worker& worker, const Source& source) {
    return worker.sending.direct() && !source.intake.tickets();
  }
  // How long the worker has not moved although it has something unclaimed.
  int64_t StillNs(uint32_t index) const {
    return Unclaimed(index) == 0 ? 0 : workers[index].motion.StillNs(now_ns);
  }

  // Rule "credit". A worker is offered an arrival only if unclaimed < window and open < capacity
  // hold at the moment of the offer. A worker that owes motion has no credit. Credit that other
  // sources keep (core/places.h) is not to be had. Returns how much credit the worker has for
  // arrivals of `source`.
  uint32_t Credit(WorkerIndex index, const Source& source) const {
    const Worker& worker = workers[index];
    const uint32_t kept = places.KeptAt(index) - places.Kept(source.index, index);
    const uint32_t unclaimed = Unclaimed(index) + kept;
    const uint32_t window = worker.motion.window();
    if (worker.motion.owes_motion() || unclaimed >= window) return 0;
    const uint32_t free = places.At(index, source.index);
    if (free == 0) return 0;
    if (worker.sending.used()) {
      // The ring of the worker cannot be reached, or too much that was sent may still fail.
      if (worker.bell.owed()) return 0;
      if (Installs(worker, source)) {
        // Rule "full table" of core/sending.h.
        if (worker.sending.Full(worker.config.state->Rooms())) return 0;
        return std::min({window - unclaimed, free, slots.free()});
      }
      return unsettled.full() ? 0 : std::min(window - unclaimed, free);
    }
    // Holes between the oldest unclaimed offer and the tail use up words, too.
    const uint32_t words = worker.outbox.free();
    return std::min({window - unclaimed, free, words - std::min(words, kept)});
  }
  uint64_t Credit(const Source& source) const {
    uint64_t credit = 0;
    for (const uint32_t worker : source.joined) credit += Credit(worker, source);
    return credit;
  }
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_BOOKS_H_
