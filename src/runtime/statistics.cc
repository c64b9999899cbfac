#include "runtime/statistics.h"

#include <algorithm>
#include <cstdint>

#include "absl/time/time.h"
#include "ring/translate.h"

namespace ringmaster::internal {
namespace {

// Asks the kernel about the source's queue, and notes how many connections it has discarded.
void FillBacklog(uint32_t index, core::Engine& engine, const Roster& roster, SourceStats& stats) {
  const SourceEntry& source = roster.source(index);
  if (source.tells_backlog) {
    const ring::Backlog backlog = ring::BacklogOf(source.fd);
    if (backlog.length >= 0) {
      stats.backlog = static_cast<uint32_t>(backlog.length);
      stats.backlog_limit = backlog.limit;
    }
  }
  if (!source.tells_overflows) return;
  engine.NoteOverflows(index, ring::OverflowsOf(source.fd));
  stats.backlog_overflows = engine.intake(index).overflows;
}

void Add(WorkerStats& sum, const WorkerStats& more) {
  sum.assigned += more.assigned;
  sum.claimed += more.claimed;
  sum.by_permit += more.by_permit;
  sum.recalled += more.recalled;
  sum.moved += more.moved;
  sum.doorbells += more.doorbells;
  sum.stalls += more.stalls;
  sum.table_full += more.table_full;
  sum.unclaimed += more.unclaimed;
  // The masters share `open`, but read it one after the other.
  sum.open = std::max(more.open, sum.unclaimed);
  sum.oldest_unclaimed = std::max(sum.oldest_unclaimed, more.oldest_unclaimed);
}

}  // namespace

uint64_t RefusedBy(const core::Engine& engine) {
  uint64_t refused = engine.departed_sources().refused;
  for (uint32_t source = 0; source < engine.source_slots(); ++source) {
    refused += engine.ledger().source(source).refused;
  }
  return refused;
}

void FillStats(core::Engine& engine, const Roster& roster, BalancerStats& stats) {
  const core::Ledger& ledger = engine.ledger();
  stats.accepted = engine.departed_sources().arrivals;
  stats.passed_on = engine.departed_sources().passed_on;
  stats.refused = RefusedBy(engine);
  stats.dropped = engine.departed_sources().dropped;
  stats.gone = engine.departed_sources().gone;
  const core::Engine::PermitCounts permits = engine.CountPermits();
  for (uint32_t source = 0; source < engine.source_slots(); ++source) {
    const core::SourceCount& count = ledger.source(source);
    const uint64_t by_permit = permits.of_source[source];
    stats.accepted += count.arrivals + by_permit;
    stats.passed_on += count.passed_on;
    stats.dropped += count.dropped;
    stats.gone += count.gone;
    stats.held += count.held;
    if (engine.source_removed(source)) continue;
    const core::IntakeCount& intake = engine.intake(source);
    SourceStats& entry = stats.sources.emplace_back();
    entry = {.source = roster.PublicIndex(source),
             .accepted = count.arrivals + by_permit,
             .passed_on = count.passed_on,
             .claimed = count.claimed + by_permit,
             .refused = count.refused,
             .dropped = count.dropped,
             .gone = count.gone,
             .held = count.held,
             .set_aside = count.aside,
             .oldest_set_aside = absl::Nanoseconds(engine.OldestAsideNs(source)),
             .times_set_aside = count.aside_ever,
             .pauses = intake.pauses,
             .rearms = intake.arms > 0 ? intake.arms - 1 : 0,
             .errors = intake.errors,
             .aimed = engine.aimed(source),
             .policy_faults = intake.policy_faults};
    FillBacklog(source, engine, roster, entry);
  }
  stats.departed = roster.departed();
  stats.departed.claimed -= engine.failed_at_leavers();
  stats.departed.recalled += engine.failed_at_leavers();
  stats.recalled = stats.departed.recalled;
  stats.moved = stats.departed.moved;
  for (uint32_t index = 0; index < roster.workers().size(); ++index) {
    const WorkerEntry& worker = roster.worker(index);
    if (worker.shared == nullptr) continue;
    const core::WorkerCount& count = ledger.worker(index);
    const uint32_t open = engine.open(index);
    uint32_t unclaimed = engine.Unclaimed(index);
    // A connection that has ended was taken, even if the worker has not said so yet.
    if (worker.handoff != Handoff::kInbox) unclaimed = std::min(unclaimed, open);
    stats.recalled += count.recalled;
    stats.moved += count.moved;
    const uint64_t by_permit = permits.of_worker[index];
    stats.workers.push_back(
        {.worker = index,
         .assigned = count.assigned + by_permit,
         .claimed = count.claimed + by_permit,
         .by_permit = by_permit,
         .recalled = count.recalled,
         .moved = count.moved,
         .doorbells = engine.doorbells(index),
         .stalls = engine.stalls(index),
         .table_full = engine.table_fulls(index),
         .unclaimed = unclaimed,
         // What was unclaimed when the inbox was looked at may have ended since.
         .open = std::max(open, unclaimed),
         .oldest_unclaimed = absl::Nanoseconds(engine.OldestUnclaimedNs(index))});
  }
}

void Add(BalancerStats& sum, const BalancerStats& more) {
  sum.accepted += more.accepted;
  sum.passed_on += more.passed_on;
  sum.refused += more.refused;
  sum.dropped += more.dropped;
  sum.gone += more.gone;
  sum.recalled += more.recalled;
  sum.moved += more.moved;
  sum.held += more.held;
  sum.master_wakes += more.master_wakes;
  sum.sources.insert(sum.sources.end(), more.sources.begin(), more.sources.end());
  std::sort(
      sum.sources.begin(), sum.sources.end(),
      [](const SourceStats& left, const SourceStats& right) { return left.source < right.source; });
  for (const WorkerStats& worker : more.workers) {
    const auto at = std::lower_bound(sum.workers.begin(), sum.workers.end(), worker,
                                     [](const WorkerStats& left, const WorkerStats& right) {
                                       return left.worker < right.worker;
                                     });
    if (at == sum.workers.end() || at->worker != worker.worker) {
      sum.workers.insert(at, worker);
    } else {
      Add(*at, worker);
    }
  }
  Add(sum.departed, more.departed);
}

void Add(ShutdownReport& sum, const ShutdownReport& more) {
  sum.drained = sum.drained && more.drained;
  sum.refused += more.refused;
  // A master that had drained before another master's last connections were claimed saw none open.
  sum.open = std::max(sum.open, more.open);
  Add(sum.stats, more.stats);
}

}  // namespace ringmaster::internal
