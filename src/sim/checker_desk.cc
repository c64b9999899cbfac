// What the checker hears of permits, and how it judges sources that are aimed.

#include <algorithm>
#include <string>

#include "sim/checker.h"

namespace ringmaster::sim {

void Checker::OnPermitPlace(uint32_t index, bool taken, int64_t now_ns) {
  Worker& worker = workers_[index];
  worker.credit_since_ns = now_ns;
  if (taken) {
    ++worker.leased;
  } else if (worker.leased == 0) {
    Fail("a place is given back that nobody had");
  } else {
    --worker.leased;
  }
}

void Checker::OnPermitClaimed(uint32_t worker, uint32_t source) {
  ++sources_[source].on_the_way;
  if (!Joins(source, worker)) {
    Fail("worker " + std::to_string(worker) + " claims a permit of a source that it has left");
  }
}

uint32_t Checker::OnAcceptedByPermit(uint32_t index, int32_t fd, uint32_t source) {
  const uint32_t connection = OnAcceptedByWorker(index, fd, source);
  if (connection != kNone) ++sources_[source].claimed[index];
  return connection;
}

void Checker::OnPermitGivenUp(uint32_t source) { --sources_[source].on_the_way; }

void Checker::OnPermitFinished(uint32_t source) {
  --sources_[source].on_the_way;
  ++sources_[source].counts.by_permit;
}

void Checker::CheckCall(uint32_t master, int64_t called_at_ns, int64_t due_ns) {
  const int64_t since_ns = std::max(called_at_ns, masters_[master].last_batch_ns);
  if (due_ns - since_ns > options_.patience_ns) {
    Fail("a holder has closed a desk, and the master was not woken");
  }
}

// A connection must not wait for longer than the master needs to find out that whoever has the
// permits does not move: two looks for each of them.
void Checker::CheckDesk(uint32_t index, const std::vector<bool>& able, int64_t aimed_since_ns,
                        int64_t now_ns) {
  const Source& source = sources_[index];
  if (source.queued.empty() || !source.facts.recall || source.facts.capacity > 0 ||
      options_.capacity > 0) {
    return;
  }
  int64_t credit_ns = -1;
  int64_t workers = 0;
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    if (!Joins(index, worker)) continue;
    ++workers;
    const int64_t since_ns = able[worker] ? CreditSinceOf(index, worker, now_ns) : -1;
    if (since_ns >= 0 && (credit_ns < 0 || since_ns < credit_ns)) credit_ns = since_ns;
  }
  if (credit_ns < 0) return;
  const int64_t since_ns =
      std::max({credit_ns, source.queued.front(), source.accepted_at_ns, aimed_since_ns});
  const int64_t bound_ns = (2 + workers) * options_.recall_after_ns + options_.patience_ns;
  if (now_ns - since_ns > bound_ns) {
    Fail("a connection of source " + std::to_string(index) +
         ", which is aimed, waits although a worker waits that has a place");
  }
}

}  // namespace ringmaster::sim
