#include "core/engine.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "core/check.h"

namespace ringmaster::core {

// --- Set-up --------------------------------------------------------------------------------------

// What a source needs for itself, for as many workers as there are.
void Engine::ReserveFor(SourceState& source) {
  Reserve(source.joined, workers_.size());
  source.aside.Reserve(workers_.size());
  Prepare(source);
}

// What all sources and workers share.
void Engine::ReserveShared() {
  unsettled_.Reserve();
  Reserve(active_, workers_.size());
  Reserve(touched_, workers_.size());
  Reserve(candidates_, workers_.size());
  Reserve(credits_, workers_.size());
  Reserve(others_, workers_.size());
  Reserve(turns_, sources_.size());
  Reserve(served_, sources_.size());
  // In one batch a worker is rung at most once in each round because something is overdue, once
  // because a doorbell is owed and once because it was offered to. A source is asked for a count,
  // one arming and one ending, the same of the watch for its end, for its state, and for no more
  // accepts than its workers have credit. Nothing is turned away or dropped at once twice, nor more
  // in all than the batch has brought.
  const size_t ops = 1 + unsettled_.room() + 2 * (kRefusalsPerBatchMax + 1) +
                     config_.completions_max + kOverflowLooksPerBatchMax +
                     (kDealRoundsMax + 4) * workers_.size() + 6 * sources_.size() + windows_;
  if (ops > ops_max_) ops_max_ = std::max(ops, 2 * ops_max_);
  Reserve(events_, 64 + 2 * workers_.size() + 2 * sources_.size());
  MakeRoom();
}

// A worker's largest window was another one before.
void Engine::NoteWindow(WorkerState& worker, uint32_t before, uint64_t now) {
  windows_ += now - before;
  if (!worker.sending.used()) return;
  unsettled_.WindowsChange(static_cast<int64_t>(now) - before);
  worker.sending.Reserve(now);
}

uint32_t Engine::AddSource(uint32_t index, SourceConfig config) {
  RINGMASTER_CHECK(config.policy != nullptr && config.fd >= 0 && !stopping_);
  RINGMASTER_CHECK(index < Offer::kSourcesMax && index <= sources_.size());
  if (index == sources_.size()) {
    sources_.emplace_back();
    turns_.push_back(index);
  } else {
    if (const SourceConfig& last = sources_[index].config; last.multishot_accept) {
      --eaches_;
      holds_ -= last.hold;
    }
    const SourceCount& count = ledger_.source(index);
    departed_sources_.arrivals += count.arrivals;
    departed_sources_.passed_on += count.passed_on;
    departed_sources_.claimed += count.claimed;
    departed_sources_.refused += count.refused;
    departed_sources_.dropped += count.dropped;
    departed_sources_.gone += count.gone;
    ledger_.ResetSource(index);
  }
  const uint16_t generation = sources_[index].generation;
  sources_[index] = {};
  SourceState& source = sources_[index];
  source.index = index;
  source.generation = generation;
  source.serial = ++serials_;
  source.config = std::move(config);
  source.facts = FactsOf(source);
  source.overflows = Overflows(source.config.tells_overflows, source.config.overflows);
  // What is accepted one by one asks for credit first.
  const bool promises = !source.config.multishot_accept && !source.config.readiness;
  places_.SetSource(index, source.config.gate, promises);
  if (source.config.multishot_accept) {
    ++eaches_;
    holds_ += source.config.hold;
  }
  ReserveFor(source);
  ReserveShared();
  return index;
}

uint32_t Engine::NextSource() {
  uint32_t index = 0;
  while (index < sources_.size() && !FreeIndex(index)) ++index;
  return index;
}

// By (9). A worker that has claimed an offer of the source looks its token up before its callback
// ends, and uses the books of the source while it redeems a ticket. So one that is found to do
// neither, after all offers were taken, does not look any more: later it finds that its ticket is
// late.
bool Engine::FreeIndex(uint32_t index) {
  SourceState& source = sources_[index];
  const SourceCount& count = ledger_.source(index);
  if (!source.removed || !IntakeEnded(index) || count.held > 0 || count.offered > 0 ||
      source.unsettled > 0 || source.tickets.untaken() > 0 ||
      (source.config.gate != nullptr && source.config.gate->used() > 0)) {
    return false;
  }
  if (!source.drained) {
    source.drained = true;
    source.joined.clear();
    for (uint32_t worker = 0; worker < worker_slots(); ++worker) source.joined.push_back(worker);
  }
  std::erase_if(source.joined, [this](uint32_t worker) {
    const WorkerState& state = workers_[worker];
    return !state.used || (state.config.state->serving.load(std::memory_order_acquire) == 0 &&
                           state.config.state->redeeming.load(std::memory_order_seq_cst) == 0);
  });
  return source.joined.empty();
}

void Engine::RemoveSource(uint32_t source) {
  sources_[source].removed = true;
  sources_[source].back_off = {};
  WithdrawTickets(source);
}

bool Engine::IntakeEnded(uint32_t source) const {
  const SourceState& state = sources_[source];
  return Disarmed(state) && state.pace.under_way() == 0;
}

uint8_t Engine::FactsOf(const SourceState& source) {
  const uint8_t of_age = source.config.age_max_ns > 0 ? source.config.age_facts : uint8_t{0};
  return static_cast<uint8_t>(FactBits(source.config.policy->facts()) | of_age);
}

std::unique_ptr<Policy> Engine::SetPolicy(uint32_t index, std::unique_ptr<Policy> policy) {
  RINGMASTER_CHECK(policy != nullptr);
  SourceState& source = sources_[index];
  std::swap(source.config.policy, policy);
  source.facts = FactsOf(source);
  source.policy_fault.clear();
  source.aside.End();
  source.aside.Change();
  Prepare(source);
  return policy;
}

void Engine::SetCapacity(uint32_t worker, uint32_t capacity) {
  places_.SetCapacity(worker, capacity);
}

void Engine::SetWindow(uint32_t index, uint32_t window_max) {
  WorkerState& worker = workers_[index];
  RINGMASTER_CHECK(window_max > 0);
  RINGMASTER_CHECK(worker.sending.used() || window_max <= worker.outbox.size() / 2);
  NoteWindow(worker, worker.motion.window_max(), window_max);
  worker.motion.SetWindowMax(window_max);
  ReserveShared();
}

uint32_t Engine::AddWorker(const WorkerConfig& config) {
  RINGMASTER_CHECK(config.state != nullptr && config.window_max > 0);
  RINGMASTER_CHECK(config.tally != nullptr ||
                   (config.inbox != nullptr && config.inbox->size() >= 2 * config.window_max));
  uint32_t index = config.index;
  if (index == UINT32_MAX) {
    index = 0;
    while (index < workers_.size() && workers_[index].used) ++index;
  }
  const bool grown = index >= workers_.size();
  if (grown) workers_.resize(index + 1);
  RINGMASTER_CHECK(!workers_[index].used);
  const uint32_t generation = workers_[index].generation;
  workers_[index] = {};
  WorkerState& worker = workers_[index];
  worker.config = config;
  worker.used = true;
  worker.generation = generation + 1;
  places_.SetWorker(index, config.state, config.capacity);
  worker.motion = Motion(config.window_max, config_.recall_after_ns);
  if (config.tally != nullptr) {
    worker.sending = Sending(config.tally);
  } else {
    worker.outbox = Outbox(config.inbox);
  }
  words_ += worker.outbox.size();
  NoteWindow(worker, 0, config.window_max);
  if (grown) {
    for (SourceState& source : sources_) ReserveFor(source);
  }
  ReserveShared();
  ledger_.ResetWorker(index);
  return index;
}

void Engine::RemoveWorker(uint32_t index) {
  WorkerState& worker = workers_[index];
  RINGMASTER_CHECK(worker.used);
  for (uint32_t source = 0; source < source_slots(); ++source) {
    if (Joined(source, index)) Leave(source, index);
  }
  RecallAllOf(index, UINT32_MAX);
  for (uint32_t source = 0; source < source_slots(); ++source) places_.Leaves(source, index);
  ReadInbox(index);
  RINGMASTER_CHECK(ledger_.worker(index).unclaimed == 0);
  std::erase(active_, index);
  std::erase(touched_, index);
  ForgetSent(worker, SIZE_MAX, false);
  words_ -= worker.outbox.size();
  NoteWindow(worker, worker.motion.window_max(), 0);
  worker.active = false;
  worker.used = false;
  worker.outbox = {};
  worker.sending = {};
  worker.config = {};
  places_.SetWorker(index, nullptr, Places::kUnlimited);
  MakeRoom();  // what it had is held now
}

bool Engine::Joined(uint32_t source, uint32_t worker) const {
  const std::vector<uint32_t>& joined = sources_[source].joined;
  return std::binary_search(joined.begin(), joined.end(), worker);
}

void Engine::Join(uint32_t source, uint32_t worker, uint64_t token) {
  RINGMASTER_CHECK(workers_[worker].used && !Joined(source, worker) && !sources_[source].removed);
  workers_[worker].sending.SetToken(source, token);
  std::vector<uint32_t>& joined = sources_[source].joined;
  joined.insert(std::upper_bound(joined.begin(), joined.end(), worker), worker);
  sources_[source].aside.Change();
}

void Engine::Leave(uint32_t source, uint32_t worker) {
  std::erase(sources_[source].joined, worker);
  sources_[source].aside.Change();
  ledger_.ForgetGiver(source, worker);
  RecallAllOf(worker, source);
  places_.Leaves(source, worker);
  MakeRoom();  // what it had is held now
  TellPolicy(source, "OnLeave", [worker](Policy& policy) { policy.OnLeave(worker); });
  // It may have claimed a ticket that it does not redeem any more.
  if (!sources_[source].config.readiness) return;
  MayHaveMore(sources_[source]);
  sources_[source].events |= sources_[source].told;
}

// Recalls what `worker` has not claimed of `source`, or of every source (UINT32_MAX); newest first,
// so that the oldest ends up first among what is held.
void Engine::RecallAllOf(uint32_t index, uint32_t source) {
  WorkerState& worker = workers_[index];
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    const ArrivalRecord& record = ledger_.record(entry.id);
    if (source != UINT32_MAX && record.source != source) continue;
    if (!worker.outbox.Recall(entry, OfferOf(record))) continue;
    places_.TakeBack(index, record.source);
    MayHaveMore(sources_[record.source]);
    ledger_.Recall(entry.id);
  }
  worker.outbox.SkipHoles();
}

void Engine::PassOn(std::span<const PassedOn> passed_on, int64_t now_ns) {
  MakeRoomFor(passed_on.size(), UINT32_MAX);
  for (const PassedOn& it : passed_on) {
    const SourceState& source = sources_[it.source];
    RINGMASTER_CHECK(!source.config.readiness && source.config.listens);
    const bool joined = it.giver != UINT32_MAX && Joined(it.source, it.giver);
    const ArrivalId id =
        ledger_.PassOn(it.source, it.fd, it.facts, joined ? it.giver : kNoGiver, now_ns);
    now_ns_ = std::max(now_ns_, now_ns);
    Expired(ledger_.record(id));  // notes when it will be
  }
}

void Engine::RefuseAtOnce(uint32_t source) {
  ledger_.RefuseAtOnce(source);
  places_.GiveBack(source);
}

void Engine::Pause(uint32_t source) { sources_[source].paused = true; }
void Engine::Resume(uint32_t source) { sources_[source].paused = false; }
void Engine::Rest() { resting_ = true; }

void Engine::GoOn() {
  resting_ = false;
  // What was counted before is of no use any more.
  for (SourceState& source : sources_) source.ready |= source.tickets.UseCount();
  for (SourceState& source : sources_) source.aside.Change();
}

// Nothing of it is armed or asked for, but for single accepts.
bool Engine::Disarmed(const SourceState& source) {
  return source.arm == Arm::kIdle && !source.tickets.counting() && !source.overflows.asking() &&
         !source.asking_state && !source.watches_end;
}

bool Engine::AtRest() const {
  return accepts_under_way_ == 0 && unsettled_.empty() &&
         std::all_of(sources_.begin(), sources_.end(), Disarmed);
}

void Engine::ForgetRing() {
  watching_ = false;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    SourceState& source = sources_[index];
    source.arm = Arm::kIdle;
    source.watches_end = false;
    source.ends_watch = false;
    source.asks_state |= std::exchange(source.asking_state, false);
    if (source.config.multishot_accept && source.doubt == 0) {
      source.hung_up = source.asks_state = false;  // it shows anew
    }
    source.ready |= source.tickets.ForgetCount();
    source.overflows.Answered();
    for (uint32_t asked = source.pace.Forget(); asked > 0; --asked) {
      --accepts_under_way_;
      places_.GiveBack(index);
    }
  }
  LetGo();
}

void Engine::StopIntake() {
  stopping_ = true;
  TellWorkers();
  for (uint32_t index = 0; index < source_slots(); ++index) WithdrawTickets(index);
}

bool Engine::IntakeEnded() const {
  return stopping_ && accepts_under_way_ == 0 &&
         std::all_of(sources_.begin(), sources_.end(), Disarmed);
}

void Engine::RefuseAll() {
  RINGMASTER_CHECK(stopping_);
  refusing_ = true;
  for (uint32_t index = 0; index < worker_slots(); ++index) {
    if (!workers_[index].used) continue;
    RecallAllOf(index, UINT32_MAX);
    ReadInbox(index);
  }
}

uint64_t Engine::Outstanding() const {
  uint64_t outstanding = unsettled_.size();
  for (uint32_t index = 0; index < source_slots(); ++index) {
    outstanding += ledger_.source(index).held + ledger_.source(index).offered;
  }
  return outstanding;
}

uint32_t Engine::open(uint32_t worker) const {
  const WorkerState& state = workers_[worker];
  return state.used ? state.config.state->open.load(std::memory_order_relaxed) : 0;
}

uint32_t Engine::Unclaimed(uint32_t index) const {
  const WorkerState& worker = workers_[index];
  return worker.sending.used() ? worker.sending.untaken() : ledger_.worker(index).unclaimed;
}

int64_t Engine::OldestUnclaimedNs(uint32_t index) const {
  const WorkerState& worker = workers_[index];
  if (worker.sending.used()) return StillNs(index);
  int64_t oldest_ns = 0;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    oldest_ns = std::max(oldest_ns, now_ns_ - ledger_.record(entry.id).offered_at_ns);
  }
  return oldest_ns;
}

uint32_t Engine::promised(uint32_t worker) const {
  uint32_t promised = 0;
  for (uint32_t source = 0; source < source_slots(); ++source) {
    promised += places_.Promised(source, worker);
  }
  return promised;
}

bool Engine::waits_alone(Waits what) const {
  const auto waits_for_more = [this, what](const auto& state) {
    const Waits waits = WaitsOf(state);
    return waits != Waits::kForNothing && waits != what;
  };
  return hungry_ && !stopping_ && std::none_of(sources_.begin(), sources_.end(), waits_for_more) &&
         std::none_of(workers_.begin(), workers_.end(), waits_for_more);
}

void Engine::CheckAll(bool at_rest, bool ring_keeps_its_word) {
  ledger_.CheckAll();
  places_.CheckAll();
  for (uint32_t index = 0; index < worker_slots(); ++index) {
    const WorkerState& worker = workers_[index];
    if (!worker.used) continue;
    const uint32_t unclaimed = Unclaimed(index);
    RINGMASTER_CHECK(worker.sending.used() || unclaimed <= worker.outbox.size() / 2);  // (3)
    RINGMASTER_CHECK(worker.outbox.room() <= worker.outbox.size());
    RINGMASTER_CHECK(unclaimed == 0 || worker.active);  // (5): WaitMax looks at its age
  }
  for (uint32_t index = 0; index < source_slots(); ++index) {
    const SourceState& source = sources_[index];
    RINGMASTER_CHECK(places_.promises(index) <=
                     ledger_.NewToDeal(index) + UnderWay(source));                // (13)
    RINGMASTER_CHECK(places_.keeps(index) <= UnderWay(source));                   // (16)
    RINGMASTER_CHECK(places_.CountHasPlace(index) == source.tickets.counting());  // (16)
  }
  RINGMASTER_CHECK(!ring_keeps_its_word || accepts_under_way_ <= ledger_.room());  // (14)
  if (!at_rest) return;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    const SourceState& source = sources_[index];
    const Waits waits = WaitsOf(source);
    // A policy that has set something aside keeps nothing else from being done, nor does what was
    // passed on.
    const bool waits_with_all =
        AsideFull(source) ||
        (waits != Waits::kForNothing && waits != Waits::kForPolicy && waits != Waits::kForOthers);
    RINGMASTER_CHECK((source.arm == Arm::kArmed) == WantsArm(index));  // (5)
    RINGMASTER_CHECK(waits_with_all || !HasWork(index));               // (5)
    RINGMASTER_CHECK(waits == Waits::kForNothing || hungry_);          // (5)
  }
  for (const WorkerState& worker : workers_) {
    RINGMASTER_CHECK(WaitsOf(worker) == Waits::kForNothing || hungry_);  // (5)
  }
}

}  // namespace ringmaster::core
