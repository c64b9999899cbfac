#include "core/ledger.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace ringmaster::core {

void Ledger::Reserve(uint32_t sources, uint32_t workers, uint32_t records) {
  if (sources > sources_.size()) {
    sources_.resize(sources);
    queues_.resize(sources);
    asides_.resize(sources);
  }
  if (workers > workers_.size()) workers_.resize(workers);
  if (records <= room_max_) return;
  room_max_ = records;
  // Twice as much each time, so that many small steps stay cheap.
  if (records > records_.capacity()) {
    records_.reserve(std::max<size_t>(records, 2 * records_.capacity()));
  }
}

void Ledger::ResetWorker(uint32_t worker) {
  RINGMASTER_CHECK(workers_[worker].unclaimed == 0);
  workers_[worker] = {};
}

void Ledger::ResetSource(uint32_t source) {
  RINGMASTER_CHECK(sources_[source].held == 0 && sources_[source].offered == 0);
  sources_[source] = {};
}

int64_t Ledger::OldestAside(uint32_t source) const {
  int64_t oldest_ns = kNotAside;
  for (ArrivalId id = asides_[source].first; id != kNoArrival; id = records_[id].next) {
    const int64_t at_ns = records_[id].aside_at_ns;
    if (oldest_ns == kNotAside || at_ns < oldest_ns) oldest_ns = at_ns;
  }
  return oldest_ns;
}

void Ledger::SetAside(ArrivalId id, int64_t now_ns) {
  ArrivalRecord& record = records_[PopHeld(id)];
  record.aside = true;
  SourceCount& count = sources_[record.source];
  if (record.aside_at_ns == kNotAside) {
    record.aside_at_ns = now_ns;
    ++count.aside_ever;
  }
  ++count.held;
  ++count.aside;
  ++aside_;
  Append(asides_[record.source], id);
}

// What is recalled comes first whatever its number, so both queues are nearly sorted, and the one
// that waits is walked only as far as what was set aside is older.
void Ledger::TakeUp(uint32_t source) {
  if (sources_[source].aside == 0) return;
  Queue& queue = queues_[source];
  ArrivalId before = kNoArrival;
  for (ArrivalId id = asides_[source].first; id != kNoArrival;) {
    ArrivalRecord& record = records_[id];
    const ArrivalId next_aside = record.next;
    ArrivalId next = before == kNoArrival ? queue.first : records_[before].next;
    while (next != kNoArrival && records_[next].number < record.number) {
      before = next;
      next = records_[next].next;
    }
    (before == kNoArrival ? queue.first : records_[before].next) = id;
    record.next = next;
    record.aside = false;
    if (next == kNoArrival) queue.last = id;
    before = id;
    id = next_aside;
  }
  asides_[source] = {};
  aside_ -= std::exchange(sources_[source].aside, 0);
}

void Ledger::Recall(ArrivalId id) {
  ArrivalRecord& record = records_[id];
  RINGMASTER_CHECK(record.place == Place::kOffered);
  SourceCount& source = sources_[record.source];
  RINGMASTER_CHECK(source.offered > 0);
  --source.offered;
  ++source.held;
  WorkerCount& count = workers_[record.worker];
  RINGMASTER_CHECK(count.unclaimed > 0);
  --count.unclaimed;
  ++count.recalled;
  PushHeldFirst(id);
}

void Ledger::Send(ArrivalId id, uint32_t worker, uint32_t worker_generation) {
  ArrivalRecord& record = records_[PopHeld(id)];
  record.place = Place::kSent;
  record.aside_at_ns = kNotAside;
  record.worker = worker;
  record.worker_generation = worker_generation;
  ++sources_[record.source].claimed;
  WorkerCount& count = workers_[worker];
  ++count.assigned;
  ++count.claimed;
}

void Ledger::Unsend(ArrivalId id, bool worker_left) {
  const ArrivalRecord& record = records_[id];
  RINGMASTER_CHECK(record.place == Place::kSent);
  SourceCount& source = sources_[record.source];
  RINGMASTER_CHECK(source.claimed > 0);
  --source.claimed;
  ++source.held;
  if (!worker_left) {
    WorkerCount& count = workers_[record.worker];
    RINGMASTER_CHECK(count.claimed > 0);
    --count.claimed;
    ++count.recalled;
  }
  PushHeldFirst(id);
}

void Ledger::Settle(ArrivalId id) {
  RINGMASTER_CHECK(records_[id].place == Place::kSent);
  Free(id);
}

int32_t Ledger::Refuse(ArrivalId id) {
  const ArrivalRecord& record = records_[PopHeld(id)];
  ++sources_[record.source].refused;
  const int32_t fd = record.fd;
  Free(id);
  return fd;
}

int32_t Ledger::Drop(ArrivalId id) {
  const ArrivalRecord& record = records_[PopHeld(id)];
  ++sources_[record.source].dropped;
  const int32_t fd = record.fd;
  Free(id);
  return fd;
}

void Ledger::PushHeldFirst(ArrivalId id) {
  ArrivalRecord& record = records_[id];
  record.place = Place::kHeld;
  Queue& queue = queues_[record.source];
  record.next = queue.first;
  queue.first = id;
  if (queue.last == kNoArrival) queue.last = id;
}

void Ledger::CheckAll() const {
  uint64_t aside_of_all = 0;
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    const SourceCount& count = sources_[source];
    RINGMASTER_CHECK(count.arrivals == count.held + count.offered + count.claimed + count.refused +
                                           count.dropped);  // (1)
    RINGMASTER_CHECK(count.gone <= count.dropped);
    uint64_t held = 0;
    uint64_t aside = 0;
    for (const bool set_aside : {false, true}) {
      const Queue& queue = set_aside ? asides_[source] : queues_[source];
      for (ArrivalId id = queue.first; id != kNoArrival; id = records_[id].next) {
        const ArrivalRecord& record = records_[id];
        RINGMASTER_CHECK(record.place == Place::kHeld && record.source == source);  // (6)
        RINGMASTER_CHECK(record.aside == set_aside);
        RINGMASTER_CHECK(record.next != kNoArrival || queue.last == id);
        ++held;
        aside += set_aside ? 1 : 0;
      }
    }
    RINGMASTER_CHECK(held == count.held && aside == count.aside);
    aside_of_all += aside;
  }
  RINGMASTER_CHECK(aside_of_all == aside_);
  std::vector<uint32_t> unclaimed(workers_.size());
  uint32_t used = 0;
  for (const ArrivalRecord& record : records_) {
    if (record.place != Place::kFree) ++used;
    if (record.place == Place::kOffered) ++unclaimed[record.worker];
  }
  RINGMASTER_CHECK(used == records_used_ && used <= room_max_);
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    const WorkerCount& count = workers_[worker];
    RINGMASTER_CHECK(count.unclaimed == unclaimed[worker]);
    RINGMASTER_CHECK(count.assigned == count.claimed + count.recalled + count.unclaimed);  // (2)
  }
}

}  // namespace ringmaster::core
