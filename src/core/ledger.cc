#include "core/ledger.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace ringmaster::core {

void Ledger::Reserve(uint32_t sources, uint32_t workers, uint32_t records) {
  if (sources > sources_.size()) sources_.resize(sources);
  if (workers > workers_.size()) workers_.resize(workers);
  held_.Reserve(sources, static_cast<uint32_t>(workers_.size()));
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

ArrivalId Ledger::PassOn(uint32_t source, int32_t fd, Arrival facts, uint32_t giver,
                         int64_t now_ns) {
  const ArrivalId id = TakeRecord();
  ArrivalRecord& record = records_[id];
  SourceCount& count = sources_[source];
  record = {.where = Where::kHeld,
            .passed_on = true,
            .source = SourceIndex(source),
            .fd = fd,
            .facts = facts,
            .giver = giver,
            .number = count.arrivals + count.passed_on++,
            .came_at_ns = now_ns,
            .next = kNoArrival};
  held_.Append(id);
  ++count.held;
  ++count.passed_on_to_deal;
  if (giver != kNoGiver) {
    ++count.with_givers;
    ++givers_;
  }
  return id;
}

void Ledger::ForgetGiver(SourceIndex source, WorkerIndex giver) {
  if (givers_ == 0) return;
  sources_[source].with_givers -= held_.Merge(source, giver);
  for (ArrivalRecord& record : records_) {
    if (record.where != Where::kFree && record.source == source && record.giver == giver) {
      Forget(record);
    }
  }
}

void Ledger::ForgetGivers(SourceIndex source) {
  if (givers_ == 0) return;
  for (uint32_t giver = 0; giver < workers_.size(); ++giver) {
    sources_[source].with_givers -= held_.Merge(source, giver);
  }
  for (ArrivalRecord& record : records_) {
    if (record.where != Where::kFree && record.source == source) Forget(record);
  }
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
  held_.Append(id);
}

void Ledger::TakeUp(uint32_t source) {
  if (sources_[source].aside == 0) return;
  held_.TakeUp(source, [this](const ArrivalRecord& record) { CountPassedOn(record); });
  aside_ -= std::exchange(sources_[source].aside, 0);
}

// It waits to be dealt again.
void Ledger::CountPassedOn(const ArrivalRecord& record) {
  SourceCount& count = sources_[record.source];
  if (record.passed_on) ++count.passed_on_to_deal;
  if (record.giver != kNoGiver) ++count.with_givers;
}

void Ledger::Recall(ArrivalId id) {
  ArrivalRecord& record = records_[id];
  RINGMASTER_CHECK(record.where == Where::kOffered);
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
  record.where = Where::kSent;
  record.aside_at_ns = kNotAside;
  record.worker = worker;
  record.worker_generation = worker_generation;
  ++sources_[record.source].claimed;
  WorkerCount& count = workers_[worker];
  ++count.assigned;
  ++count.claimed;
}

void Ledger::Unsend(ArrivalId id, bool worker_left, Place place) {
  ArrivalRecord& record = records_[id];
  RINGMASTER_CHECK(record.where == Where::kSent);
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
  if (place == Place::kFirst) return PushHeldFirst(id);
  record.where = Where::kHeld;
  CountPassedOn(record);
  held_.Put(id);
}

void Ledger::Settle(ArrivalId id) {
  RINGMASTER_CHECK(records_[id].where == Where::kSent);
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
  record.where = Where::kHeld;
  CountPassedOn(record);
  held_.PushFirst(id);
}

void Ledger::CheckAll() const {
  uint64_t aside_of_all = 0;
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    const SourceCount& count = sources_[source];
    RINGMASTER_CHECK(count.arrivals + count.passed_on ==
                     count.held + count.offered + count.claimed + count.refused + count.dropped);
    RINGMASTER_CHECK(count.gone <= count.dropped);
    const Held::Sizes sizes = held_.Check(SourceIndex(source));
    const uint64_t to_deal = sizes.waiting + sizes.with_givers;
    RINGMASTER_CHECK(sizes.with_givers == count.with_givers);
    RINGMASTER_CHECK(sizes.aside + to_deal == count.held && sizes.aside == count.aside);
    RINGMASTER_CHECK(count.passed_on_to_deal <= to_deal);
    aside_of_all += sizes.aside;
  }
  RINGMASTER_CHECK(aside_of_all == aside_);
  std::vector<uint32_t> unclaimed(workers_.size());
  std::vector<uint64_t> passed_on(sources_.size());
  uint32_t used = 0;
  uint64_t givers = 0;
  for (const ArrivalRecord& record : records_) {
    if (record.where != Where::kFree) ++used;
    if (record.where == Where::kOffered) ++unclaimed[record.worker];
    if (record.giver != kNoGiver) ++givers;
    if (record.where == Where::kHeld && record.passed_on && !record.aside) {
      ++passed_on[record.source];
    }
    RINGMASTER_CHECK(record.passed_on || record.giver == kNoGiver);
  }
  RINGMASTER_CHECK(used == records_used_ && used <= room_max_ && givers == givers_);
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    RINGMASTER_CHECK(passed_on[source] == sources_[source].passed_on_to_deal);
  }
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    const WorkerCount& count = workers_[worker];
    RINGMASTER_CHECK(count.unclaimed == unclaimed[worker]);
    RINGMASTER_CHECK(count.assigned ==
                     count.claimed + count.recalled + count.moved + count.unclaimed);
  }
}

}  // namespace ringmaster::core
