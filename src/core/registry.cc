#include "core/registry.h"

#include <algorithm>
#include <utility>

#include "core/armer.h"
#include "core/check.h"

namespace ringmaster::core {
namespace {

uint8_t FactsOf(const SourceConfig& config) {
  const uint8_t of_age = config.age_max_ns > 0 ? config.age_facts : uint8_t{0};
  return static_cast<uint8_t>(FactBits(config.policy->facts()) | of_age);
}

}  // namespace

// --- Memory --------------------------------------------------------------------------------------

// What a source needs for itself, for as many workers as there are.
void Registry::ReserveFor(Source& source) {
  Reserve(source.joined, books_.workers.size());
  source.aside.Reserve(books_.workers.size());
  if (source.config.desk != nullptr) source.config.desk->Reserve(books_.workers.size());
  parts_.policies.Prepare(source);
}

// What all sources and workers share.
void Registry::ReserveShared() {
  const size_t workers = books_.workers.size();
  const size_t sources = books_.sources.size();
  books_.unsettled.Reserve(books_.slots.size());
  Reserve(books_.active, workers);
  parts_.bells.Reserve();
  parts_.dealer.Reserve();
  parts_.mover.Reserve();
  parts_.asker.Reserve();
  parts_.rota.Reserve();
  // In one batch a worker is rung at most once in each round because something is overdue, once
  // because a doorbell is owed and once because it was offered to. A source is asked for a count,
  // one arming and one ending, the same of the watch for its end, for its state, and for no more
  // accepts than its workers have credit. Nothing is turned away or dropped at once twice, nor more
  // in all than the batch has brought.
  // What is installed has a slot, is let go of when that is told, and once more if it is untold.
  const size_t ops = 1 + books_.unsettled.ids_max() + 2 * (kRefusalsPerBatchMax + 1) +
                     3 * books_.slots.size() + books_.config.completions_max +
                     kOverflowLooksPerBatchMax + (kDealRoundsMax + 4) * workers + 6 * sources +
                     books_.room.windows();
  if (ops > ops_max_) ops_max_ = std::max(ops, 2 * ops_max_);
  Reserve(books_.events, 64 + 2 * workers + 2 * sources);
  MakeRoom();
}

void Registry::MakeRoom() {
  const uint32_t before = books_.ledger.room();
  MakeRoomFor(0, kRecordsMax);
  // What was not taken in is looked at anew.
  if (books_.room.Make() && books_.ledger.room() > before) books_.more_to_do = true;
}

void Registry::MakeRoomFor(uint64_t arrivals, uint64_t records_max) {
  Ledger& ledger = books_.ledger;
  const uint64_t needed =
      arrivals +
      books_.room.Needed(ledger.records_used(), books_.unsettled.ids_max() + books_.slots.size());
  ledger.Reserve(books_.source_slots(), books_.worker_slots(),
                 static_cast<uint32_t>(std::min(needed, records_max)));
}

// A worker's largest window was another one before.
void Registry::NoteWindow(Worker& worker, uint32_t before, uint32_t now) {
  books_.room.ChangeWindow(before, now);
  if (!worker.sending.used()) return;
  // Of tickets, where connections are installed.
  books_.unsettled.WindowsChange(static_cast<int64_t>(now) - before);
  worker.sending.Reserve(now);
}

// --- Sources -------------------------------------------------------------------------------------

void Registry::AddSource(SourceIndex index, SourceConfig config) {
  RINGMASTER_CHECK(config.policy != nullptr && config.fd >= 0 && !books_.stopping);
  RINGMASTER_CHECK(index < Offer::kSourcesMax && index <= books_.source_slots());
  if (index == books_.source_slots()) {
    books_.sources.emplace_back();
    parts_.rota.Add(index);
  } else {
    const Source& last = books_.sources[index];
    if (last.intake.accepts_each()) books_.room.RemoveEach(last.config.hold);
    const SourceCount& count = books_.ledger.source(index);
    books_.departed.arrivals += count.arrivals;
    books_.departed.passed_on += count.passed_on;
    books_.departed.claimed += count.claimed;
    books_.departed.refused += count.refused;
    books_.departed.dropped += count.dropped;
    books_.departed.gone += count.gone;
    books_.ledger.ResetSource(index);
    // What was promised to tickets that were withdrawn: no batch has let go of it yet.
    books_.places.LetGo(index, 0, 0);
    FoldPermits(index);
  }
  const Arming last = books_.sources[index].intake.arming();
  Source& source = books_.sources[index];
  source = {};
  source.index = index;
  source.serial = ++serials_;
  source.facts = FactsOf(config);
  source.intake = SourceIntake(config.intake, last);
  source.overflows = Overflows(config.tells_overflows, config.overflows);
  // What is accepted one by one asks for credit first.
  books_.places.SetSource(index, config.gate, source.intake.accepts_singly());
  if (source.intake.accepts_each()) books_.room.AddEach(config.hold);
  source.config = std::move(config);
  source.starts_with = source.config.start_workers;
  ReserveFor(source);
  ReserveShared();
}

// Another source gets the index: what was accepted by permits of the last one is kept elsewhere.
void Registry::FoldPermits(SourceIndex index) {
  const uint64_t of_departed = books_.sources[index].counts.by_permit;
  books_.departed.arrivals += of_departed;
  books_.departed.claimed += of_departed;
  for (Worker& worker : books_.workers) {
    if (!worker.used || worker.config.permits == nullptr) continue;
    Permits& permits = worker.config.permits->of_source[index];
    books_.departed.arrivals += permits.accepted();
    books_.departed.claimed += permits.accepted();
    worker.by_permit += permits.accepted();
    permits.Reset();
  }
}

uint32_t Registry::NextSource() {
  uint32_t index = 0;
  while (index < books_.source_slots() && !IsFree(books_.sources[index])) ++index;
  return index;
}

bool Registry::IsFree(Source& source) {
  const SourceCount& count = books_.ledger.source(source.index);
  if (!source.removed || !source.IntakeEnded() || count.held > 0 || count.offered > 0 ||
      source.unsettled > 0 || source.tickets.untaken() > 0 ||
      (source.config.gate != nullptr && source.config.gate->used() > 0)) {
    return false;
  }
  if (!source.drained) {
    source.drained = true;
    source.joined.clear();
    for (uint32_t worker = 0; worker < books_.worker_slots(); ++worker) {
      source.joined.push_back(worker);
    }
  }
  std::erase_if(source.joined, [this](uint32_t index) {
    const Worker& worker = books_.workers[index];
    return !worker.used || (worker.config.state->serving.load(std::memory_order_acquire) == 0 &&
                            worker.config.state->redeeming.load(std::memory_order_seq_cst) == 0);
  });
  return source.joined.empty();
}

void Registry::RemoveSource(uint32_t index) {
  Source& source = books_.sources[index];
  parts_.aimer.Close(source);
  source.removed = true;
  source.back_off = {};
  parts_.closer.WithdrawTickets(source);
}

std::unique_ptr<Policy> Registry::SetPolicy(uint32_t index, std::unique_ptr<Policy> policy) {
  RINGMASTER_CHECK(policy != nullptr);
  Source& source = books_.sources[index];
  parts_.aimer.Close(source);
  std::swap(source.config.policy, policy);
  source.facts = FactsOf(source.config);
  source.policy_fault.clear();
  source.aside.End();
  source.aside.Change();
  parts_.policies.Prepare(source);
  return policy;
}

// Rule "passed on" of core/dealer.h.
void Registry::PassOn(std::span<const PassedOn> passed_on, int64_t now_ns) {
  MakeRoomFor(passed_on.size(), UINT32_MAX);
  for (const PassedOn& it : passed_on) {
    Source& source = books_.sources[it.source];
    parts_.aimer.Close(source);
    RINGMASTER_CHECK(!source.intake.tickets() && source.intake.listens());
    const bool joined = it.giver != UINT32_MAX && source.Joined(it.giver);
    books_.ledger.PassOn(it.source, it.fd, it.facts, joined ? it.giver : kNoGiver, now_ns);
    books_.now_ns = std::max(books_.now_ns, now_ns);
    // Notes when it will be too old.
    books_.ages.IsOver(now_ns, source.config.age_max_ns, books_.now_ns);
  }
}

// --- Workers -------------------------------------------------------------------------------------

uint32_t Registry::AddWorker(const WorkerConfig& config) {
  RINGMASTER_CHECK(config.state != nullptr && config.window_max > 0);
  RINGMASTER_CHECK(config.tally != nullptr ||
                   (config.inbox != nullptr && config.inbox->size() >= 2 * config.window_max));
  std::vector<Worker>& workers = books_.workers;
  uint32_t index = config.index;
  if (index == UINT32_MAX) {
    index = 0;
    while (index < workers.size() && workers[index].used) ++index;
  }
  const bool grown = index >= workers.size();
  if (grown) parts_.aimer.CloseAll();  // policies are prepared for more workers
  if (grown) workers.resize(index + 1);
  RINGMASTER_CHECK(!workers[index].used);
  const uint32_t generation = workers[index].generation;
  Worker& worker = workers[index];
  worker = {};
  worker.config = config;
  worker.used = true;
  worker.generation = generation + 1;
  books_.places.SetWorker(index, config.state, config.capacity);
  config.state->places.store(config.capacity, std::memory_order_relaxed);
  worker.motion = Motion(config.window_max, books_.config.recall_after_ns);
  if (config.tally != nullptr) {
    worker.sending = Sending(config.tally, config.direct);
    if (config.direct) books_.slots.Provide(books_.config.slots);
  } else {
    worker.outbox = Outbox(config.inbox);
  }
  books_.room.AddWords(worker.outbox.size());
  NoteWindow(worker, 0, config.window_max);
  if (grown) {
    for (Source& source : books_.sources) ReserveFor(source);
  }
  ReserveShared();
  books_.ledger.ResetWorker(index);
  return index;
}

void Registry::RemoveWorker(uint32_t index) {
  Worker& worker = books_.workers[index];
  RINGMASTER_CHECK(worker.used);
  parts_.aimer.CloseAllOf(index);
  for (Source& source : books_.sources) {
    if (worker.config.permits == nullptr) break;
    const uint64_t accepted = worker.config.permits->of_source[source.index].accepted();
    source.counts.by_permit += accepted;
    worker.by_permit += accepted;
  }
  for (const Source& source : books_.sources) {
    if (source.Joined(index)) Leave(source.index, index);
  }
  parts_.recaller.RecallAllOf(index);
  for (const Source& source : books_.sources) books_.places.Leaves(source.index, index);
  parts_.reader.Read(index);
  RINGMASTER_CHECK(books_.ledger.worker(index).unclaimed == 0);
  std::erase(books_.active, index);
  parts_.bells.Forget(index);
  parts_.delivery.Forget(worker, SIZE_MAX, false);
  books_.slots.Leaves(worker.sending.under_way());
  books_.room.RemoveWords(worker.outbox.size());
  NoteWindow(worker, worker.motion.window_max(), 0);
  worker.active = false;
  worker.used = false;
  worker.outbox = {};
  worker.sending = {};
  worker.config = {};
  books_.places.SetWorker(index, nullptr, Places::kUnlimited);
  MakeRoom();  // what it had is held now
}

void Registry::SetCapacity(uint32_t index, uint32_t capacity) {
  parts_.aimer.CloseAllOf(index);
  Worker& worker = books_.workers[index];
  worker.config.capacity = capacity;
  worker.config.state->places.store(capacity, std::memory_order_relaxed);
  books_.places.SetCapacity(index, capacity);
}

void Registry::SetWindow(uint32_t index, uint32_t window_max) {
  Worker& worker = books_.workers[index];
  RINGMASTER_CHECK(window_max > 0);
  RINGMASTER_CHECK(worker.sending.used() || window_max <= worker.outbox.size() / 2);
  NoteWindow(worker, worker.motion.window_max(), window_max);
  worker.motion.SetWindowMax(window_max);
  ReserveShared();
}

void Registry::Join(SourceIndex index, WorkerIndex worker, uint64_t token) {
  Source& source = books_.sources[index];
  parts_.aimer.Close(source);
  RINGMASTER_CHECK(books_.workers[worker].used && !source.Joined(worker) && !source.removed);
  books_.workers[worker].sending.SetToken(index, token);
  std::vector<uint32_t>& joined = source.joined;
  joined.insert(std::upper_bound(joined.begin(), joined.end(), worker), worker);
  source.aside.Change();
  if (joined.size() >= source.starts_with) source.starts_with = 1;
  // What the others have of the source and nobody else could have, somebody else can have now.
  for (const uint32_t other : joined) books_.workers[other].looks.LookSoon();
}

void Registry::Leave(SourceIndex index, WorkerIndex worker) {
  Source& source = books_.sources[index];
  parts_.aimer.Close(source);
  std::erase(source.joined, worker);
  source.aside.Change();
  books_.ledger.ForgetGiver(index, worker);
  parts_.recaller.RecallAllOf(worker, index);
  books_.places.Leaves(index, worker);
  MakeRoom();  // what it had is held now
  parts_.policies.Tell(source, "OnLeave", [worker](Policy& policy) { policy.OnLeave(worker); });
  if (!source.intake.tickets()) return;
  source.intake.edges().MayHaveMore();
  source.intake.edges().TellAgain();
}

}  // namespace ringmaster::core
