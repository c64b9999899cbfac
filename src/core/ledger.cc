#include "core/ledger.h"

#include <algorithm>

#include "core/check.h"

namespace ringmaster::core {

void Ledger::Reserve(uint32_t sources, uint32_t workers, uint32_t records) {
  if (sources > sources_.size()) {
    sources_.resize(sources);
    queues_.resize(sources);
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

ArrivalId Ledger::Arrive(uint32_t source, int32_t fd, Arrival facts, int64_t came_at_ns) {
  RINGMASTER_CHECK(HasRoom());
  // One that was used before, as long as there is one: no more memory is touched than was needed.
  if (free_ == kNoArrival) {
    free_ = static_cast<ArrivalId>(records_.size());
    records_.emplace_back();
  }
  const ArrivalId id = free_;
  ArrivalRecord& record = records_[id];
  free_ = record.next;
  ++records_used_;
  SourceCount& count = sources_[source];
  record = {.place = Place::kHeld,
            .source = source,
            .fd = fd,
            .facts = facts,
            .number = count.arrivals++,
            .came_at_ns = came_at_ns,
            .next = kNoArrival};
  Queue& queue = queues_[source];
  if (queue.last == kNoArrival) {
    queue.first = id;
  } else {
    records_[queue.last].next = id;
  }
  queue.last = id;
  ++count.held;
  return id;
}

void Ledger::Offer(ArrivalId id, uint32_t worker, int64_t now_ns) {
  ArrivalRecord& record = records_[PopHeld(id)];
  record.place = Place::kOffered;
  record.worker = worker;
  record.offered_at_ns = now_ns;
  ++sources_[record.source].offered;
  WorkerCount& count = workers_[worker];
  ++count.assigned;
  ++count.unclaimed;
}

void Ledger::Claim(ArrivalId id) {
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

ArrivalId Ledger::PopHeld(ArrivalId id) {
  ArrivalRecord& record = records_[id];
  Queue& queue = queues_[record.source];
  RINGMASTER_CHECK(record.place == Place::kHeld && queue.first == id);
  queue.first = record.next;
  if (queue.first == kNoArrival) queue.last = kNoArrival;
  record.next = kNoArrival;
  --sources_[record.source].held;
  return id;
}

void Ledger::PushHeldFirst(ArrivalId id) {
  ArrivalRecord& record = records_[id];
  record.place = Place::kHeld;
  Queue& queue = queues_[record.source];
  record.next = queue.first;
  queue.first = id;
  if (queue.last == kNoArrival) queue.last = id;
}

void Ledger::Free(ArrivalId id) {
  records_[id] = {.next = free_};
  free_ = id;
  --records_used_;
}

void Ledger::CheckAll() const {
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    const SourceCount& count = sources_[source];
    RINGMASTER_CHECK(count.arrivals == count.held + count.offered + count.claimed + count.refused +
                                           count.dropped);  // (1)
    RINGMASTER_CHECK(count.gone <= count.dropped);
    uint64_t held = 0;
    for (ArrivalId id = queues_[source].first; id != kNoArrival; id = records_[id].next) {
      RINGMASTER_CHECK(records_[id].place == Place::kHeld && records_[id].source == source);  // (6)
      ++held;
    }
    RINGMASTER_CHECK(held == count.held);
  }
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
