// The ledger: where each arrival is. It has a record for every arrival that is held or offered, or
// that was sent and may still fail, and the counts that must add up. It is pure bookkeeping on the
// master's thread. All sources share the memory for records, which only Reserve allocates; a part
// of it that no record has used yet is not touched.
//
// Rules:
//  * Conserved, per source: arrivals + passed on = held + offered + claimed + refused + dropped.
//  * Conserved, per worker, cumulative: assigned = claimed + recalled + moved + unclaimed.
//  * Numbers. Each source numbers what arrives and what is passed on, densely from 0. A recall
//    keeps the number.
//  * In one hand. An arrival is either held by its source or offered to one worker. One that was
//    sent to a worker's ring counts as claimed at once. Its record stays until it is known that the
//    sending has not failed.
//  * Set aside. What is held either waits to be dealt, or is set aside because its policy has
//    picked nobody. When it is taken up again, it waits to be dealt, in the order of its number.
//  * Passed on. What a worker has passed on is held in a queue of that worker, its giver, until the
//    giver leaves the source. So it holds up nothing that the giver may have.

#ifndef RINGMASTER_SRC_CORE_LEDGER_H_
#define RINGMASTER_SRC_CORE_LEDGER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "core/arrival.h"
#include "core/check.h"
#include "core/held.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

struct SourceCount {
  uint64_t arrivals = 0;
  uint64_t passed_on = 0;
  uint64_t held = 0;
  uint64_t aside = 0;       // of these, set aside
  uint64_t aside_ever = 0;  // how often an arrival was, not counting when that was asked about anew
  uint64_t passed_on_to_deal = 0;  // of what is held and not set aside, passed on
  uint64_t with_givers = 0;        // of these, in the queues of givers
  uint64_t offered = 0;
  uint64_t claimed = 0;
  uint64_t refused = 0;
  uint64_t dropped = 0;
  uint64_t gone = 0;  // of these, whose clients had hung up before they were accepted

  // How many are held and not set aside.
  uint64_t to_deal() const { return held - aside; }
  // Without what was passed on and is not set aside: how many of these, and how many are held.
  uint64_t new_to_deal() const { return to_deal() - passed_on_to_deal; }
  uint64_t held_of_intake() const { return held - passed_on_to_deal; }
};

struct WorkerCount {
  uint64_t assigned = 0;
  uint64_t claimed = 0;
  uint64_t recalled = 0;
  uint64_t moved = 0;  // taken back from it because it was busy and somebody else waited
  uint32_t unclaimed = 0;
};

class Ledger {
 public:
  // Set-up: allocates for that many sources, workers and records. Only grows.
  void Reserve(uint32_t sources, uint32_t workers, uint32_t records);

  // Set-up: a worker slot is used anew; its counts start from zero. Nothing is offered to it.
  void ResetWorker(uint32_t worker);

  // Set-up: a source slot is used anew; its counts start from zero. Nothing of it is held, offered
  // or sent.
  void ResetSource(uint32_t source);

  // How many more arrivals there is room for, and how many records there are.
  uint32_t room() const { return room_max_ - records_used_; }
  uint32_t records_used() const { return records_used_; }

  // An arrival for which there is no room: it counts as an arrival and as refused, and leaves no
  // record.
  void TurnAway(uint32_t source) {
    ++sources_[source].arrivals;
    ++sources_[source].refused;
  }

  // An arrival that is too old or gone when it comes: it counts as an arrival and as dropped, and
  // leaves no record.
  void DropAtOnce(uint32_t source, bool gone) {
    ++sources_[source].arrivals;
    ++sources_[source].dropped;
    sources_[source].gone += gone ? 1 : 0;
  }

  // A new arrival, held at the end of its source's queue. Its age counts from `came_at_ns`.
  ArrivalId Arrive(uint32_t source, int32_t fd, Arrival facts, int64_t came_at_ns = 0);

  // A connection that a worker has claimed and passed on. It is held at the end of the giver's
  // queue, or of the source's when there is no giver (kNoGiver). Its age counts from `now_ns`.
  ArrivalId PassOn(uint32_t source, int32_t fd, Arrival facts, uint32_t giver, int64_t now_ns);

  // A connection that is passed on and closed at once: it counts as passed on and as refused, and
  // leaves no record.
  void RefuseAtOnce(uint32_t source) {
    ++sources_[source].passed_on;
    ++sources_[source].refused;
  }

  // The first of what a source holds that waits to be dealt and has no giver; kNoArrival: there is
  // none.
  ArrivalId FirstHeld(uint32_t source) const { return held_.First(source); }
  // The oldest of what has a giver other than `except` (kNoGiver: of all).
  ArrivalId FirstPassedOn(SourceIndex source, WorkerIndex except) const {
    return held_.FirstPassedOn(source, except);
  }
  // The first of what this giver has passed on.
  ArrivalId FirstOf(SourceIndex source, WorkerIndex giver) const {
    return held_.FirstOf(source, giver);
  }
  // Whether anything in the ledger has a giver: hardly ever, so this is asked first.
  bool AnyGivers() const { return givers_ > 0; }
  // What `giver` has passed on of the source has no giver any more, wherever it is.
  void ForgetGiver(SourceIndex source, WorkerIndex giver);
  // The same of all givers.
  void ForgetGivers(SourceIndex source);

  // The first of what a source has set aside. And since when the one is set aside that has been so
  // for the longest time; kNotAside: there is none.
  ArrivalId FirstAside(uint32_t source) const { return held_.FirstAside(source); }
  int64_t OldestAside(uint32_t source) const { return held_.OldestAside(source); }

  // Whether any source has set anything aside: hardly ever, so this is asked first.
  bool AnyAside() const { return aside_ > 0; }

  // SetAside: this one, which is the first that waits to be dealt. TakeUp: all that are set aside
  // wait to be dealt again.
  void SetAside(ArrivalId id, int64_t now_ns);
  void TakeUp(uint32_t source);

  // The first of a queue of what its source holds is offered to `worker`.
  void Offer(ArrivalId id, uint32_t worker, int64_t now_ns);

  // The worker has claimed it; the record is gone.
  void Claim(ArrivalId id);

  // It was taken back and is held again, before everything else in its queue.
  void Recall(ArrivalId id);
  // What was recalled last from the worker goes to one that waits.
  void CountAsMoved(uint32_t worker) {
    --workers_[worker].recalled;
    ++workers_[worker].moved;
  }

  // The first of a queue of what its source holds is sent to the ring of `worker`.
  void Send(ArrivalId id, uint32_t worker, uint32_t worker_generation);

  // Sending failed: it is held again, before everything else in its queue, or by its number. The
  // worker's counts are corrected unless it has left since.
  enum class Place : uint8_t { kFirst, kByNumber };
  void Unsend(ArrivalId id, bool worker_left, Place place = Place::kFirst);

  // Sending has not failed; the record is gone.
  void Settle(ArrivalId id);

  // The first of a queue of what its source holds, or the first that is set aside, is closed
  // unserved; the record is gone. Returns its fd.
  int32_t Refuse(ArrivalId id);

  // The same, and it counts as dropped.
  int32_t Drop(ArrivalId id);

  ArrivalRecord& record(ArrivalId id) { return records_[id]; }
  const ArrivalRecord& record(ArrivalId id) const { return records_[id]; }
  // Whether `id` is that of a record, and the arrival is there. Any number may be asked about.
  bool IsAt(ArrivalId id, Where where) const {
    return id < records_.size() && records_[id].where == where;
  }
  const SourceCount& source(uint32_t source) const { return sources_[source]; }
  const WorkerCount& worker(uint32_t worker) const { return workers_[worker]; }

  // Checks what is conserved, and that queues and counts agree; walks everything, for tests and
  // shutdown.
  void CheckAll() const;

 private:
  ArrivalId TakeRecord();
  ArrivalId PopHeld(ArrivalId id);
  void CountPassedOn(const ArrivalRecord& record);
  void Forget(ArrivalRecord& record);
  void PushHeldFirst(ArrivalId id);
  void Free(ArrivalId id);

  std::vector<ArrivalRecord> records_;  // as many as were ever used at once
  Held held_{records_};
  std::vector<SourceCount> sources_;
  std::vector<WorkerCount> workers_;
  ArrivalId free_ = kNoArrival;
  uint32_t room_max_ = 0;
  uint32_t records_used_ = 0;
  uint64_t aside_ = 0;   // of all sources
  uint64_t givers_ = 0;  // records that have one, wherever they are
};

// --- What every arrival passes through -----------------------------------------------------------

inline ArrivalId Ledger::PopHeld(ArrivalId id) {
  held_.PopFirst(id);
  ArrivalRecord& record = records_[id];
  SourceCount& count = sources_[record.source];
  --count.held;
  if (record.aside) {
    record.aside = false;
    --count.aside;
    --aside_;
  } else if (record.passed_on) {
    --count.passed_on_to_deal;
    if (record.giver != kNoGiver) --count.with_givers;
  }
  return id;
}

inline void Ledger::Forget(ArrivalRecord& record) {
  if (std::exchange(record.giver, kNoGiver) != kNoGiver) --givers_;
}

inline void Ledger::Free(ArrivalId id) {
  ArrivalRecord& record = records_[id];
  Forget(record);
  record.where = Where::kFree;  // Arrive writes the rest anew
  record.next = free_;
  free_ = id;
  --records_used_;
}

inline ArrivalId Ledger::TakeRecord() {
  RINGMASTER_CHECK(room() > 0);
  // One that was used before, as long as there is one: no more memory is touched than was needed.
  if (free_ == kNoArrival) {
    free_ = static_cast<ArrivalId>(records_.size());
    records_.emplace_back();
  }
  const ArrivalId id = free_;
  free_ = records_[id].next;
  ++records_used_;
  return id;
}

inline ArrivalId Ledger::Arrive(uint32_t source, int32_t fd, Arrival facts, int64_t came_at_ns) {
  const ArrivalId id = TakeRecord();
  ArrivalRecord& record = records_[id];
  SourceCount& count = sources_[source];
  record = {.where = Where::kHeld,
            .source = SourceIndex(source),
            .fd = fd,
            .facts = facts,
            .number = count.arrivals++ + count.passed_on,
            .came_at_ns = came_at_ns,
            .next = kNoArrival};
  held_.Append(id);
  ++count.held;
  return id;
}

inline void Ledger::Offer(ArrivalId id, uint32_t worker, int64_t now_ns) {
  ArrivalRecord& record = records_[PopHeld(id)];
  record.where = Where::kOffered;
  record.aside_at_ns = kNotAside;
  record.worker = worker;
  record.offered_at_ns = now_ns;
  ++sources_[record.source].offered;
  WorkerCount& count = workers_[worker];
  ++count.assigned;
  ++count.unclaimed;
}

inline void Ledger::Claim(ArrivalId id) {
  const ArrivalRecord& record = records_[id];
  RINGMASTER_CHECK(record.where == Where::kOffered);
  SourceCount& source = sources_[record.source];
  RINGMASTER_CHECK(source.offered > 0);
  --source.offered;
  ++source.claimed;
  WorkerCount& count = workers_[record.worker];
  RINGMASTER_CHECK(count.unclaimed > 0);
  --count.unclaimed;
  ++count.claimed;
  Free(id);
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_LEDGER_H_
