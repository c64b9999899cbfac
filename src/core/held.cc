#include "core/held.h"

namespace ringmaster::core {

void Held::Reserve(uint32_t sources, uint32_t workers) {
  if (sources > waiting_.size()) {
    waiting_.resize(sources);
    asides_.resize(sources);
    passed_on_.resize(sources);
  }
  for (std::vector<Queue>& by_giver : passed_on_) {
    if (workers > by_giver.size()) by_giver.resize(workers);
  }
}

ArrivalId Held::FirstPassedOn(SourceIndex source, WorkerIndex except) const {
  ArrivalId oldest = kNoArrival;
  for (uint32_t giver = 0; giver < passed_on_[source].size(); ++giver) {
    const ArrivalId first = passed_on_[source][giver].first;
    if (first == kNoArrival || giver == except) continue;
    if (oldest == kNoArrival || records_[first].number < records_[oldest].number) oldest = first;
  }
  return oldest;
}

int64_t Held::OldestAside(uint32_t source) const {
  int64_t oldest_ns = kNotAside;
  for (ArrivalId id = asides_[source].first; id != kNoArrival; id = records_[id].next) {
    const int64_t at_ns = records_[id].aside_at_ns;
    if (oldest_ns == kNotAside || at_ns < oldest_ns) oldest_ns = at_ns;
  }
  return oldest_ns;
}

uint32_t Held::Merge(SourceIndex source, WorkerIndex giver) {
  uint32_t merged = 0;
  ArrivalId before = kNoArrival;
  for (ArrivalId id = passed_on_[source][giver].first; id != kNoArrival; ++merged) {
    const ArrivalId next = records_[id].next;
    before = PutByNumber(waiting_[source], id, before);
    id = next;
  }
  passed_on_[source][giver] = {};
  return merged;
}

// Puts it before the first with a larger number behind `before`, which is in the queue, or
// kNoArrival. Returns it.
ArrivalId Held::PutByNumber(Queue& queue, ArrivalId id, ArrivalId before) {
  ArrivalRecord& record = records_[id];
  ArrivalId next = before == kNoArrival ? queue.first : records_[before].next;
  while (next != kNoArrival && records_[next].number < record.number) {
    before = next;
    next = records_[next].next;
  }
  (before == kNoArrival ? queue.first : records_[before].next) = id;
  record.next = next;
  if (next == kNoArrival) queue.last = id;
  return id;
}

Held::Sizes Held::Check(SourceIndex source) const {
  Sizes sizes = {.waiting = Check(waiting_[source], source, false, kNoGiver),
                 .aside = Check(asides_[source], source, true, kNoGiver)};
  for (uint32_t giver = 0; giver < passed_on_[source].size(); ++giver) {
    sizes.with_givers += Check(passed_on_[source][giver], source, false, giver);
  }
  return sizes;
}

// How many a queue has. `giver` is that of all of them; of what is set aside, each has its own.
uint64_t Held::Check(const Queue& queue, uint32_t source, bool aside, uint32_t giver) const {
  uint64_t held = 0;
  for (ArrivalId id = queue.first; id != kNoArrival; id = records_[id].next) {
    const ArrivalRecord& record = records_[id];
    RINGMASTER_CHECK(record.where == Where::kHeld && record.source == source);
    RINGMASTER_CHECK(record.aside == aside);
    RINGMASTER_CHECK(aside || record.giver == giver);
    RINGMASTER_CHECK(record.next != kNoArrival || queue.last == id);
    ++held;
  }
  return held;
}

}  // namespace ringmaster::core
