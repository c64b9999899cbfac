// The ledger: where each arrival is. One record for every arrival that is held or offered, and the
// counts that must add up. Pure bookkeeping on the master's thread. All sources share one room for
// records, which only Reserve allocates; memory that no record has used yet is not touched.
//
// Conservation:
// (1) per source: arrivals + passed on = held + offered + claimed + refused + dropped.
// (2) per worker, cumulative: assigned = claimed + recalled + unclaimed.
// (4) each source numbers densely from 0 what arrives and what is passed on; a recall keeps the
//     number.
// (20) what is held waits to be dealt, or is set aside, because its policy has picked nobody. Taken
//     up again, it takes its place among what waits by its number.
// (6) an arrival is in one place: held by its source or offered to one worker. One that was sent to
//     a worker's ring counts as claimed at once; its record stays until it is known that the
//     sending has not failed.
// (22) what a worker has passed on is held in the queue of that worker, its giver, until the giver
//     leaves the source. So it holds up nothing that the giver may have.
// ((3) and (5) concern credit and armed sources: see engine.h.)

#ifndef RINGMASTER_SRC_CORE_LEDGER_H_
#define RINGMASTER_SRC_CORE_LEDGER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "core/check.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

using ArrivalId = uint32_t;
inline constexpr ArrivalId kNoArrival = UINT32_MAX;
inline constexpr int64_t kNotAside = -1;
inline constexpr uint32_t kNoGiver = UINT32_MAX;

enum class Place : uint8_t { kFree, kHeld, kOffered, kSent };

struct ArrivalRecord {
  Place place = Place::kFree;
  uint8_t doublings = 0;  // how often its recall limit has been doubled
  bool aside = false;     // kHeld: it is set aside
  bool passed_on = false;
  uint32_t source = 0;
  uint32_t worker = 0;             // kOffered, kSent: to whom
  uint32_t worker_generation = 0;  // kSent: which of those that have had the index
  int32_t fd = -1;                 // of a ticket: the poll mask
  Arrival facts;
  uint32_t giver = kNoGiver;  // who has passed it on, as long as that has joined its source
  uint64_t number = 0;        // within its source, by (4)
  int64_t came_at_ns = 0;
  int64_t offered_at_ns = 0;        // kOffered
  int64_t aside_at_ns = kNotAside;  // when it was first set aside, since it was last offered
  ArrivalId next = kNoArrival;
};

struct SourceCount {
  uint64_t arrivals = 0;
  uint64_t passed_on = 0;
  uint64_t held = 0;
  uint64_t aside = 0;       // of these, set aside, by (20)
  uint64_t aside_ever = 0;  // how often an arrival was, not counting when that was asked about anew
  uint64_t passed_on_to_deal = 0;  // of what is held and not set aside, passed on
  uint64_t with_givers = 0;        // of these, in the queues of givers, by (22)
  uint64_t offered = 0;
  uint64_t claimed = 0;
  uint64_t refused = 0;
  uint64_t dropped = 0;
  uint64_t gone = 0;  // of these, whose clients had hung up before they were accepted
};

struct WorkerCount {
  uint64_t assigned = 0;
  uint64_t claimed = 0;
  uint64_t recalled = 0;
  uint32_t unclaimed = 0;
};

class Ledger {
 public:
  // Set-up: room for that many sources, workers and records. Only grows.
  void Reserve(uint32_t sources, uint32_t workers, uint32_t records);

  // Set-up: a worker slot is used anew; its counts start from zero. Nothing is offered to it.
  void ResetWorker(uint32_t worker);

  // Set-up: a source slot is used anew; its counts start from zero. Nothing of it is held, offered
  // or sent.
  void ResetSource(uint32_t source);

  // How many more arrivals there is room for, and how many records there are.
  uint32_t room() const { return room_max_ - records_used_; }
  uint32_t records_used() const { return records_used_; }
  bool HasRoom() const { return room() > 0; }

  // One that there is no room for: it counts as an arrival and as refused, and leaves no record.
  void TurnAway(uint32_t source) {
    ++sources_[source].arrivals;
    ++sources_[source].refused;
  }

  // One that is given up at once: it counts as an arrival and as dropped, and leaves no record.
  void DropAtOnce(uint32_t source, bool gone) {
    ++sources_[source].arrivals;
    ++sources_[source].dropped;
    sources_[source].gone += gone ? 1 : 0;
  }

  // A new arrival, held at the end of its source's queue. Its age counts from `came_at_ns`.
  ArrivalId Arrive(uint32_t source, int32_t fd, Arrival facts, int64_t came_at_ns = 0);

  // What a worker has claimed of a source and passed on: held at the end of the giver's queue, or
  // of the source's when there is no giver (kNoGiver). Its age counts from `now_ns`.
  ArrivalId PassOn(uint32_t source, int32_t fd, Arrival facts, uint32_t giver, int64_t now_ns);

  // The same of what is closed at once: it counts as passed on and as refused, and leaves no
  // record.
  void RefuseAtOnce(uint32_t source) {
    ++sources_[source].passed_on;
    ++sources_[source].refused;
  }

  // The first of what a source holds and has not set aside; kNoArrival when there is nothing. By
  // (22) what has a giver is in other queues.
  ArrivalId FirstHeld(uint32_t source) const { return queues_[source].first; }
  // By (22) the oldest of what has a giver other than `except` (kNoGiver: of all).
  ArrivalId FirstPassedOn(uint32_t source, uint32_t except) const;
  // The first of what this giver has passed on.
  ArrivalId FirstOf(uint32_t source, uint32_t giver) const {
    return passed_on_[source][giver].first;
  }
  // Whether anything in the ledger has a giver: hardly ever, so this is asked first.
  bool AnyGivers() const { return givers_ > 0; }
  // Without what was passed on and is not set aside: how many are held, and how many are to be
  // dealt.
  uint64_t HeldOfIntake(uint32_t source) const {
    return sources_[source].held - sources_[source].passed_on_to_deal;
  }
  uint64_t NewToDeal(uint32_t source) const {
    return ToDeal(source) - sources_[source].passed_on_to_deal;
  }
  // By (22): what `giver` has passed on of the source has no giver any more, wherever it is.
  void ForgetGiver(uint32_t source, uint32_t giver);
  // The same of all givers.
  void ForgetGivers(uint32_t source);

  // By (20), the same of what it has set aside; and when the one that has been so for the longest
  // time was: kNotAside when there is none.
  ArrivalId FirstAside(uint32_t source) const { return asides_[source].first; }
  int64_t OldestAside(uint32_t source) const;

  // Whether any source has set anything aside: hardly ever, so this is asked first.
  bool AnyAside() const { return aside_ > 0; }

  // How many a source holds and has not set aside.
  uint64_t ToDeal(uint32_t source) const { return sources_[source].held - sources_[source].aside; }

  // By (20): the first held arrival of its source is set aside; all that are wait to be dealt.
  void SetAside(ArrivalId id, int64_t now_ns);
  void TakeUp(uint32_t source);

  // The first of a queue of what its source holds is offered to `worker`.
  void Offer(ArrivalId id, uint32_t worker, int64_t now_ns);

  // The worker has taken it; the record is gone.
  void Claim(ArrivalId id);

  // It was taken back and is held again, before everything else in its queue.
  void Recall(ArrivalId id);

  // The first of a queue of what its source holds is sent to the ring of `worker`.
  void Send(ArrivalId id, uint32_t worker, uint32_t worker_generation);

  // Sending failed: it is held again, before everything else in its queue. The worker's counts are
  // corrected unless it has left since.
  void Unsend(ArrivalId id, bool worker_left);

  // Sending has not failed; the record is gone.
  void Settle(ArrivalId id);

  // The first of a queue of what its source holds, or the first that is set aside, is closed
  // unserved; the record is gone. Returns its fd.
  int32_t Refuse(ArrivalId id);

  // The same, given up.
  int32_t Drop(ArrivalId id);

  ArrivalRecord& record(ArrivalId id) { return records_[id]; }
  const ArrivalRecord& record(ArrivalId id) const { return records_[id]; }
  // Whether `id` is that of a record which is at `place`; any number may be asked about.
  bool IsAt(ArrivalId id, Place place) const {
    return id < records_.size() && records_[id].place == place;
  }
  const SourceCount& source(uint32_t source) const { return sources_[source]; }
  const WorkerCount& worker(uint32_t worker) const { return workers_[worker]; }

  // Checks (1), (2) and that queues and counts agree; walks everything, for tests and shutdown.
  void CheckAll() const;

 private:
  struct Queue {
    ArrivalId first = kNoArrival;
    ArrivalId last = kNoArrival;
  };

  ArrivalId TakeRecord();
  Queue& QueueOf(const ArrivalRecord& record) {
    return record.giver == kNoGiver ? queues_[record.source]
                                    : passed_on_[record.source][record.giver];
  }
  ArrivalId PopHeld(ArrivalId id);
  void Append(Queue& queue, ArrivalId id);
  ArrivalId PutByNumber(Queue& queue, ArrivalId id, ArrivalId before);
  void CountPassedOn(const ArrivalRecord& record);
  void Merge(uint32_t source, uint32_t giver);
  void Forget(ArrivalRecord& record);
  uint64_t CheckQueue(const Queue& queue, uint32_t source, bool aside, uint32_t giver) const;
  void PushHeldFirst(ArrivalId id);
  void Free(ArrivalId id);

  std::vector<ArrivalRecord> records_;         // as many as were ever used at once
  std::vector<Queue> queues_;                  // what each source holds
  std::vector<Queue> asides_;                  // but for what it has set aside
  std::vector<std::vector<Queue>> passed_on_;  // and what has a giver, by (22)
  std::vector<SourceCount> sources_;
  std::vector<WorkerCount> workers_;
  ArrivalId free_ = kNoArrival;
  uint32_t room_max_ = 0;
  uint32_t records_used_ = 0;
  uint64_t aside_ = 0;   // of all sources
  uint64_t givers_ = 0;  // records that have one, wherever they are
};

// --- What every arrival passes through -----------------------------------------------------------

inline void Ledger::Append(Queue& queue, ArrivalId id) {
  (queue.last == kNoArrival ? queue.first : records_[queue.last].next) = id;
  queue.last = id;
}

inline ArrivalId Ledger::PopHeld(ArrivalId id) {
  ArrivalRecord& record = records_[id];
  Queue& queue = record.aside ? asides_[record.source] : QueueOf(record);
  RINGMASTER_CHECK(record.place == Place::kHeld && queue.first == id);
  queue.first = record.next;
  if (queue.first == kNoArrival) queue.last = kNoArrival;
  record.next = kNoArrival;
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
  record.place = Place::kFree;  // Arrive writes the rest anew
  record.next = free_;
  free_ = id;
  --records_used_;
}

inline ArrivalId Ledger::TakeRecord() {
  RINGMASTER_CHECK(HasRoom());
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
  record = {.place = Place::kHeld,
            .source = source,
            .fd = fd,
            .facts = facts,
            .number = count.arrivals++ + count.passed_on,
            .came_at_ns = came_at_ns,
            .next = kNoArrival};
  Append(queues_[source], id);
  ++count.held;
  return id;
}

inline void Ledger::Offer(ArrivalId id, uint32_t worker, int64_t now_ns) {
  ArrivalRecord& record = records_[PopHeld(id)];
  record.place = Place::kOffered;
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
  RINGMASTER_CHECK(record.place == Place::kOffered);
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
