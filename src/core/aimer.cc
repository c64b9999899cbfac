#include "core/aimer.h"

#include <algorithm>

namespace ringmaster::core {

bool Aimer::MayAim(const Source& source) const {
  const SourceConfig& config = source.config;
  if (config.desk == nullptr || source.facts != 0 || !config.policy->AnyThread() ||
      config.age_max_ns > 0 || books_.Shut(source) || source.back_off.pauses() ||
      !source.policy_fault.empty()) {
    return false;
  }
  const SourceCount& count = books_.ledger.source(source.index);
  if (count.held > 0 || source.UnderWay() > 0 || source.intake.edges().ready() ||
      source.lack.credit() || source.intake.listening().failed() ||
      source.intake.listening().doubted() || source.unsettled > 0) {
    return false;
  }
  bool place = false;
  for (const uint32_t index : source.joined) {
    const WorkerConfig& worker = books_.workers[index].config;
    if (worker.sight < 0 || !worker.state->Hints()) return false;
    place |= worker.state->open.load(std::memory_order_relaxed) < worker.capacity;
  }
  return place && !books_.places.Full(source.index);
}

// Whether nobody could have a permit because of a doorbell that is on its way: rule "marks".
bool Aimer::AllRung(const Source& source) const {
  return std::all_of(source.joined.begin(), source.joined.end(),
                     [this](uint32_t worker) { return books_.workers[worker].outbox.rung(); });
}

void Aimer::TakeNote() {
  for (Source& source : books_.sources) {
    if (!source.aim.open()) continue;
    // The engine finds out about an end.
    if (source.config.desk->closed() || source.intake.edges().ends()) {
      policies_.TakeDesk(source);
    } else if (source.intake.edges().ready()) {
      source.intake.edges().Clear();
      source.aim.Wake(books_.now_ns, books_.config.recall_after_ns);
    }
  }
}

void Aimer::CloseAll() {
  for (Source& source : books_.sources) policies_.TakeDesk(source);
}

void Aimer::CloseAllOf(uint32_t worker) {
  for (Source& source : books_.sources) {
    if (source.Joined(worker)) policies_.TakeDesk(source);
  }
}

void Aimer::LookAfter() {
  for (Source& source : books_.sources) {
    if (books_.now_ns < source.aim.look_at_ns()) continue;
    Desk& desk = *source.config.desk;
    if (source.config.sights->Gone()) {
      policies_.TakeDesk(source);  // the engine finds out, and gives the source up
      books_.more_to_do = true;
      continue;
    }
    // Where the kernel does not say, something may wait.
    const int waiting = desk.Waiting();
    if (!source.aim.Look(waiting < 0 ? 1 : static_cast<uint32_t>(waiting), desk.Accepted(),
                         books_.now_ns, books_.config.recall_after_ns)) {
      continue;
    }
    // Rule "marks" of core/desk.h.
    if (source.config.recall) desk.ForEachOut([this](uint32_t worker) { bells_.Ring(worker); });
    desk.Visit();
  }
}

void Aimer::OpenDesks() {
  due_at_ns_ = kWaitForever;
  for (Source& source : books_.sources) {
    if (!source.aim.open()) {
      if (!MayAim(source)) continue;
      if (books_.now_ns < source.aim.deal_until_ns()) {
        due_at_ns_ = std::min(due_at_ns_, source.aim.deal_until_ns());
        continue;
      }
      if (AllRung(source)) {
        due_at_ns_ = std::min(due_at_ns_, source.aim.Retry(books_.now_ns));
        continue;
      }
      Open(source);
    }
    due_at_ns_ = std::min(due_at_ns_, source.aim.look_at_ns());
  }
}

void Aimer::Open(Source& source) {
  Desk& desk = *source.config.desk;
  desk.seats().clear();
  for (const uint32_t index : source.joined) {
    const WorkerConfig& worker = books_.workers[index].config;
    desk.seats().push_back({.worker = index,
                            .state = worker.state,
                            .inbox = worker.inbox,
                            .permits = worker.permits,
                            .sight = worker.sight,
                            .capacity = worker.capacity,
                            .cpu = worker.cpu});
  }
  source.aim.Open(books_.now_ns, books_.config.recall_after_ns);
  const CpuTopology* const topology = books_.config.topology;
  desk.Open({.source = source.index,
             .policy = source.config.policy.get(),
             .sights = source.config.sights,
             .hungry = source.config.hungry,
             .gate = source.config.gate,
             .all = books_.config.gate,
             .topology = topology != nullptr ? topology : &no_topology_});
}

}  // namespace ringmaster::core
