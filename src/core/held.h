// Held: what sources hold, and in which order. Each source has one queue of what waits to be dealt,
// one of what is set aside, and for each worker, as a giver, one of what that worker has passed on.
// A record says by `aside` and `giver` in which queue it is. The queues are linked through the
// records, which are the ledger's, so only new sources and workers need memory.
//
// What is taken back goes to the front of its queue, whatever its number. So all queues are nearly
// sorted by number. To put a record at its place by number, a queue is walked only as far as its
// records are older.

#ifndef RINGMASTER_SRC_CORE_HELD_H_
#define RINGMASTER_SRC_CORE_HELD_H_

#include <cstdint>
#include <vector>

#include "core/arrival.h"
#include "core/check.h"

namespace ringmaster::core {

class Held {
 public:
  // Borrows the records.
  explicit Held(std::vector<ArrivalRecord>& records) : records_(records) {}
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

  // Set-up: for so many sources and workers. Only grows.
  void Reserve(uint32_t sources, uint32_t workers);

  // The first of each queue; kNoArrival: it is empty.
  ArrivalId First(uint32_t source) const { return waiting_[source].first; }
  ArrivalId FirstAside(uint32_t source) const { return asides_[source].first; }
  ArrivalId FirstOf(SourceIndex source, WorkerIndex giver) const {
    return passed_on_[source][giver].first;
  }
  // The oldest of what has a giver other than `except` (kNoGiver: of all).
  ArrivalId FirstPassedOn(SourceIndex source, WorkerIndex except) const;
  // Since when the one is set aside that has been so for the longest time; kNotAside: there is
  // none.
  int64_t OldestAside(uint32_t source) const;

  // Puts a record at the end of its queue, or at the beginning; or takes it from the beginning.
  void Append(ArrivalId id) {
    Queue& queue = QueueOf(records_[id]);
    (queue.last == kNoArrival ? queue.first : records_[queue.last].next) = id;
    queue.last = id;
  }
  void PushFirst(ArrivalId id) {
    ArrivalRecord& record = records_[id];
    Queue& queue = QueueOf(record);
    record.next = queue.first;
    queue.first = id;
    if (queue.last == kNoArrival) queue.last = id;
  }
  // Puts a record into its queue by number.
  void Put(ArrivalId id) { PutByNumber(QueueOf(records_[id]), id, kNoArrival); }
  void PopFirst(ArrivalId id) {
    ArrivalRecord& record = records_[id];
    Queue& queue = QueueOf(record);
    RINGMASTER_CHECK(record.where == Where::kHeld && queue.first == id);
    queue.first = record.next;
    if (queue.first == kNoArrival) queue.last = kNoArrival;
    record.next = kNoArrival;
  }

  // Puts what is set aside back among what waits to be dealt, by number. Calls `taken_up` with each
  // record.
  template <typename TakenUp>
  void TakeUp(uint32_t source, TakenUp taken_up);
  // Puts what a giver has passed on among what waits to be dealt, by number. Returns how many there
  // were. Their records still say who the giver is; the caller changes that.
  uint32_t Merge(SourceIndex source, WorkerIndex giver);

  // Asserts what the rules say of the source's queues; returns how many records each kind has.
  struct Sizes {
    uint64_t waiting = 0;
    uint64_t aside = 0;
    uint64_t with_givers = 0;
  };
  Sizes Check(SourceIndex source) const;

 private:
  struct Queue {
    ArrivalId first = kNoArrival;
    ArrivalId last = kNoArrival;
  };

  Queue& QueueOf(const ArrivalRecord& record) {
    if (record.aside) return asides_[record.source];
    return record.giver == kNoGiver ? waiting_[record.source]
                                    : passed_on_[record.source][record.giver];
  }
  ArrivalId PutByNumber(Queue& queue, ArrivalId id, ArrivalId before);
  uint64_t Check(const Queue& queue, uint32_t source, bool aside, uint32_t giver) const;

  std::vector<ArrivalRecord>& records_;
  std::vector<Queue> waiting_;                 // by source
  std::vector<Queue> asides_;                  // by source
  std::vector<std::vector<Queue>> passed_on_;  // by source and giver
};

template <typename TakenUp>
void Held::TakeUp(uint32_t source, TakenUp taken_up) {
  ArrivalId before = kNoArrival;
  for (ArrivalId id = asides_[source].first; id != kNoArrival;) {
    ArrivalRecord& record = records_[id];
    const ArrivalId next = record.next;
    record.aside = false;
    taken_up(record);
    const bool waits = record.giver == kNoGiver;
    const ArrivalId put = PutByNumber(QueueOf(record), id, waits ? before : kNoArrival);
    if (waits) before = put;
    id = next;
  }
  asides_[source] = {};
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_HELD_H_
