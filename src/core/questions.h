// Questions: what an engine can be asked about its sources and workers. No question changes
// anything. The counts are those of the last batch, or of the last CatchUp.

#ifndef RINGMASTER_SRC_CORE_QUESTIONS_H_
#define RINGMASTER_SRC_CORE_QUESTIONS_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "core/books.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

class Questions {
 public:
  const Ledger& ledger() const { return books_.ledger; }
  // Indexes are below these; not all are in use.
  uint32_t source_slots() const { return books_.source_slots(); }
  uint32_t worker_slots() const { return books_.worker_slots(); }

  // --- Workers ---------------------------------------------------------------------------------

  bool worker_used(uint32_t worker) const { return of_worker(worker).used; }
  uint64_t doorbells(uint32_t worker) const { return of_worker(worker).bell.doorbells(); }
  uint64_t stalls(uint32_t worker) const { return of_worker(worker).motion.stalls(); }
  // How often something did not fit into the worker's file table.
  uint64_t table_fulls(uint32_t worker) const { return of_worker(worker).sending.fulls(); }
  uint32_t open(uint32_t worker) const {
    const Worker& of = of_worker(worker);
    return of.used ? of.config.state->open.load(std::memory_order_relaxed) : 0;
  }
  // Connections that workers have accepted by permits, by source and by worker. All are read once,
  // because workers go on meanwhile.
  struct PermitCounts {
    std::vector<uint64_t> of_source;
    std::vector<uint64_t> of_worker;
  };
  PermitCounts CountPermits() const {
    PermitCounts counts;
    for (const Source& source : books_.sources) {
      counts.of_source.push_back(source.counts.by_permit);
    }
    for (const Worker& worker : books_.workers) {
      uint64_t& count = counts.of_worker.emplace_back(worker.by_permit);
      if (!worker.used || worker.config.permits == nullptr) continue;
      for (uint32_t source = 0; source < source_slots(); ++source) {
        const uint64_t accepted = worker.config.permits->of_source[source].accepted();
        counts.of_source[source] += accepted;
        count += accepted;
      }
    }
    return counts;
  }
  // Connections that the worker has accepted by permits.
  uint64_t ByPermit(uint32_t worker) const {
    const Worker& of = of_worker(worker);
    uint64_t count = of.by_permit;
    if (!of.used || of.config.permits == nullptr) return count;
    for (uint32_t source = 0; source < source_slots(); ++source) {
      count += of.config.permits->of_source[source].accepted();
    }
    return count;
  }
  // How many arrivals the worker has unclaimed; of one with a tally, the untaken ones.
  uint32_t Unclaimed(uint32_t worker) const { return books_.Unclaimed(worker); }
  // How old the oldest of these is. Of a worker with a tally: for how long it has taken nothing.
  int64_t OldestUnclaimedNs(uint32_t worker) const {
    const Worker& of = of_worker(worker);
    if (of.sending.used()) return books_.StillNs(worker);
    int64_t oldest_ns = 0;
    for (const Outbox::Entry entry : of.outbox.oldest_first()) {
      const int64_t offered_at_ns = books_.ledger.record(entry.id).offered_at_ns;
      oldest_ns = std::max(oldest_ns, books_.now_ns - offered_at_ns);
    }
    return oldest_ns;
  }

  // --- Sources ---------------------------------------------------------------------------------

  bool Joined(SourceIndex source, WorkerIndex worker) const {
    return of_source(source).Joined(worker);
  }
  bool source_removed(uint32_t source) const { return of_source(source).removed; }
  // Tells the source from all others that have had its index: never 0, never used again.
  uint64_t source_serial(uint32_t source) const { return of_source(source).serial; }
  const IntakeCount& intake(uint32_t source) const { return of_source(source).counts; }
  // Connections that workers have accepted by permits of the source.
  uint64_t ByPermitOf(uint32_t source) const {
    uint64_t count = of_source(source).counts.by_permit;
    for (const Worker& worker : books_.workers) {
      if (!worker.used || worker.config.permits == nullptr) continue;
      count += worker.config.permits->of_source[source].accepted();
    }
    return count;
  }
  // Whether it is aimed now.
  bool aimed(uint32_t source) const { return of_source(source).aim.open(); }
  const Policy& policy(uint32_t source) const { return *of_source(source).config.policy; }
  // The facts that it needs, as kFact bits.
  uint8_t FactsOfPolicy(uint32_t source) const { return FactBits(policy(source).facts()); }
  // The first thing that the source's policy did and must not do, as a sentence; empty: there is
  // none.
  const std::string& policy_fault(uint32_t source) const { return of_source(source).policy_fault; }
  // Whether it has work that nobody has credit for.
  bool starved(uint32_t source) const { return of_source(source).lack.credit(); }
  // For how long the one has been set aside that has been so for the longest time; and how many may
  // be set aside.
  int64_t OldestAsideNs(uint32_t source) const {
    const int64_t at_ns = books_.ledger.OldestAside(source);
    return at_ns == kNotAside ? 0 : books_.now_ns - at_ns;
  }
  uint32_t AsideMax(uint32_t source) const { return of_source(source).AsideMax(); }
  // Whether a success with a ticket would change the books of the source.
  bool WaitsForSuccess(uint32_t source) const {
    const Source& of = of_source(source);
    return of.intake.tickets() && of.back_off.waits_for_success();
  }
  // Whether nothing is armed or under way at the source.
  bool IntakeEnded(uint32_t source) const { return of_source(source).IntakeEnded(); }

  // What those sources have counted whose indexes have been used again.
  const SourceCount& departed_sources() const { return books_.departed; }

  // --- All together ----------------------------------------------------------------------------

  // What has happened since the last call of Engine::ClearEvents.
  std::span<const EngineEvent> events() const { return books_.events; }
  // Whether nothing is armed or under way any more, at a master that rests.
  bool AtRest() const {
    return books_.unsettled.empty() && books_.slots.under_way() == 0 && AllDisarmed();
  }
  // The same after StopIntake.
  bool IntakeEnded() const { return books_.stopping && AllDisarmed(); }
  // Held, offered, or sent and not known to have been received.
  uint64_t Outstanding() const {
    uint64_t outstanding = books_.unsettled.size() + books_.slots.under_way();
    for (const Source& source : books_.sources) {
      const SourceCount& count = books_.ledger.source(source.index);
      outstanding += count.held + count.offered;
    }
    return outstanding;
  }
  // Of the ring's file table, see core/slots.h; 0: nothing can be installed.
  uint32_t slots() const { return books_.config.slots; }
  // Whether something is being installed at a worker that has left.
  bool InstallsAtLeavers() const { return books_.slots.leavers_wait(); }
  // How many connections were not installed after all at workers that had left meanwhile.
  uint64_t failed_at_leavers() const { return books_.slots.failed_at_leavers(); }
  // How many connections of multishot accepts the next batch may bring; more would find no room.
  // For a ring that can keep back what it has.
  uint32_t RoomForEach() const {
    return books_.ledger.room() - std::min(books_.ledger.room(), books_.room.accepts());
  }
  // Whether something was not taken in for want of room in the ledger.
  bool WantsRoom() const { return books_.room.wanted(); }

  // --- For tests and the simulator -------------------------------------------------------------

  uint32_t window(uint32_t worker) const { return of_worker(worker).motion.window(); }
  bool armed(uint32_t source) const { return !of_source(source).intake.arming().idle(); }
  bool ready(uint32_t source) const { return of_source(source).intake.edges().ready(); }
  bool waits_for_others(uint32_t source) const { return of_source(source).lack.others(); }
  // Places that the engine has reserved at a worker and not used.
  uint32_t promised(uint32_t worker) const {
    uint32_t promised = 0;
    for (const Source& source : books_.sources) {
      promised += books_.places.Promised(source.index, worker);
    }
    return promised;
  }

 protected:
  explicit Questions(const EngineConfig& config) : books_(config) {}

  Books books_;

 private:
  const Source& of_source(uint32_t index) const { return books_.sources[index]; }
  const Worker& of_worker(uint32_t index) const { return books_.workers[index]; }
  bool AllDisarmed() const {
    return books_.room.accepts() == 0 &&
           std::all_of(books_.sources.begin(), books_.sources.end(),
                       [](const Source& source) { return source.Disarmed(); });
  }
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_QUESTIONS_H_
