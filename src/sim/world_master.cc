#include <algorithm>
#include <string>
#include <utility>

#include "sim/world.h"

namespace ringmaster::sim {

using core::Completion;
using core::Op;
using core::OpKind;

namespace {

constexpr uint64_t kBatchesMax = 100'000;
constexpr int64_t kMillisecond = 1'000'000;

std::string_view NameOf(OpKind kind) {
  switch (kind) {
    case OpKind::kWatch:
      return "watch";
    case OpKind::kPoll:
      return "poll";
    case OpKind::kCount:
      return "count";
    case OpKind::kPollEnd:
      return "poll-end";
    case OpKind::kAccept:
      return "accept";
    case OpKind::kAcceptEach:
      return "accept-each";
    case OpKind::kAcceptEnd:
      return "accept-end";
    case OpKind::kDoorbell:
      return "doorbell";
    case OpKind::kSend:
      return "send";
    case OpKind::kClose:
      return "close";
  }
  return "";
}

std::string_view NameOf(core::EventKind kind) {
  switch (kind) {
    case core::EventKind::kOutOfDescriptors:
      return "event: out of descriptors";
    case core::EventKind::kAccepting:
      return "event: accepting";
    case core::EventKind::kSourceFailed:
      return "event: source failed";
    case core::EventKind::kWorkerStalled:
      return "event: worker stalled";
    case core::EventKind::kWorkerMoves:
      return "event: worker moves";
    case core::EventKind::kDoorbellFailed:
      return "event: doorbell failed";
  }
  return "";
}

}  // namespace

// --- Its batches ---------------------------------------------------------------------------------

void World::SetUp() {
  for (const SimSourceConfig& config : config_.sources) AddSource(config);
  for (uint32_t index = 0; index < config_.workers.size(); ++index) {
    const int64_t at_ns = config_.workers[index].joins_at_ns;
    if (at_ns > 0) {
      CountStrike(Fault::kWorkerJoinsLate);
      Schedule(at_ns, Happening::kJoin, index);
    } else {
      AddWorker(config_.workers[index]);
    }
  }
  if (config_.completion_entries <= 12) CountStrike(Fault::kCqSmall);
  ScheduleArrival();
}

void World::Batch(std::vector<Completion>& completions) {
  if (ring_.Turn(ops_, wait_ns_, completions) != 0) checker_.Fail("the simulated ring fails");
  checker_.OnBatchBegins(now_ns_);
  TakeIn(completions);
  checker_.BeforeBatch(now_ns_);
  switched_ = false;
  RunCalls();
  FinishLeaves();
  for (const GivenBack& it : given_back_) {
    if (by_index_[sources_[it.source].index] == it.source) {
      engine_->Again(sources_[it.source].index, it.error);
    }
  }
  given_back_.clear();
  if (checker_.failed()) return;
  if (switched_ && Breaks(Breakage::kSwitchDropsArrival)) {
    std::erase_if(completions, [](const Completion& completion) {
      return completion.key.kind == OpKind::kAcceptEach && completion.result >= 0 &&
             completion.more;
    });
  }
  const bool all_reported = ring_.AllReported();
  if (!all_reported && !handed_.empty()) Reached(Milestone::kReportedLate);
  ops_ = engine_->OnBatch(completions, now_ns_, all_reported);
  if (++counters_.batches > kBatchesMax) checker_.Fail("too many batches: the master spins");
  handed_.clear();
  closed_.clear();
  for (const Op& op : ops_) {
    if (op.key.kind == OpKind::kClose) closed_.push_back(op.fd);
    if (op.key.kind != OpKind::kSend) continue;
    handed_.push_back({.worker = kernel_.WorkerOf(op.fd), .fd = op.sent});
  }
  checker_.AfterBatch(handed_, closed_, all_reported, now_ns_);
  NoteOps();
  NoteEvents();
  CloseRemoved();
  if (checker_.failed()) return;
  CompareBooks();
  CountStates();
  engine_->CheckAll(false);
  wait_ns_ = engine_->WaitMax(now_ns_);
  if (breaks(Breakage::kMasterNeverLooksAtAge) && wait_ns_ > 0) wait_ns_ = core::kWaitForever;
  // Whoever leaves waits until all that was submitted has been taken.
  if (!leaving_.empty()) wait_ns_ = 0;
  Note("waits", {{"for_ns", wait_ns_ == core::kWaitForever ? -1 : wait_ns_}});
}

void World::TakeIn(const std::vector<Completion>& completions) {
  for (const Completion& completion : completions) {
    const OpKind kind = completion.key.kind;
    Note(NameOf(kind), {{"completes", completion.result},
                        {"index", completion.key.index},
                        {"more", completion.more}});
    if ((kind == OpKind::kAccept || kind == OpKind::kAcceptEach) && completion.result >= 0) {
      checker_.OnReported(by_index_[completion.key.index], completion.result);
    }
  }
}

void World::NoteOps() {
  for (const Op& op : ops_) {
    Note(NameOf(op.key.kind), {{"submitted for fd", op.fd}, {"index", op.key.index}});
    const OpKind kind = op.key.kind;
    if (kind == OpKind::kWatch || kind == OpKind::kDoorbell || kind == OpKind::kSend) continue;
    const uint32_t index = by_index_[op.key.index];
    const Source& source = sources_[index];
    if (kind == OpKind::kClose) {
      if (refusing_) Reached(Milestone::kRefused);
      if (!refusing_ && source.removed) Reached(Milestone::kRefusedOfRemoved);
      continue;
    }
    const bool ends = kind == OpKind::kPollEnd || kind == OpKind::kAcceptEnd;
    const bool wanted = !source.paused && !source.removed && !source.given_up && !stopped_ &&
                        !source.joined.empty();
    if (!ends && !wanted) {
      checker_.Fail("a source is taken in that is paused, removed, stopped or without workers");
    }
    if (!ends || !wanted) continue;
    if (kind == OpKind::kPollEnd) Reached(Milestone::kPollEnded);
    if (kind == OpKind::kPollEnd) continue;
    if (checker_.counts(index).held >= source.config.hold) Reached(Milestone::kHoldLimit);
    if (core::FactBits(source.policy->facts()) != op.key.facts) Reached(Milestone::kArmedForFacts);
  }
}

void World::NoteEvents() {
  for (const core::EngineEvent& event : engine_->events()) {
    Note(NameOf(event.kind), {{"source", event.source}, {"worker", event.worker}});
    switch (event.kind) {
      case core::EventKind::kOutOfDescriptors:
        Reached(Milestone::kBackOff);
        break;
      case core::EventKind::kWorkerStalled:
        Reached(Milestone::kStallReported);
        for (const WorkerEntry& entry : workers_) {
          if (!entry.in_books || entry.worker->engine_index != event.worker) continue;
          if (entry.receiver != nullptr) {
            Reached(Milestone::kStallOfReceiver);
          } else if (entry.worker->dead()) {
            Reached(Milestone::kRecallFromDead);
          }
        }
        break;
      case core::EventKind::kWorkerMoves:
        Reached(Milestone::kMotionReported);
        break;
      case core::EventKind::kSourceFailed: {
        const uint32_t index = by_index_[event.source];
        if (!kernel_.shut(index)) {
          checker_.Fail("a source was given up although nothing is wrong with it");
        }
        Reached(Milestone::kSourceGivenUp);
        sources_[index].given_up = true;
        checker_.OnSourceGivenUp(index);
        break;
      }
      case core::EventKind::kAccepting:
      case core::EventKind::kDoorbellFailed:
        break;
    }
  }
  engine_->ClearEvents();
}

// The engine's books against the checker's. The engine may not yet know of a claim.
void World::CompareBooks() {
  for (const uint32_t index : by_index_) {
    const core::SourceCount& books = engine_->ledger().source(sources_[index].index);
    const Checker::Counts& counts = checker_.counts(index);
    if (sources_[index].config.readiness) {
      // Tickets: how many were issued is the engine's own affair.
      if (books.offered < counts.offered) checker_.Fail("the engine forgets tickets");
      continue;
    }
    if (books.dropped != counts.dropped || books.arrivals != counts.reported ||
        books.held != counts.held || books.refused != counts.refused ||
        books.claimed > counts.claimed || books.offered < counts.offered) {
      checker_.Fail("the engine's books differ from what has happened");
    }
  }
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (!workers_[id].in_books) continue;
    const uint32_t open = worker(id).port_state().open;
    const uint32_t expected = checker_.open(id) + worker(id).places_in_hand();
    if (open != expected) {
      checker_.Fail("worker " + std::to_string(id) + " has another number of connections open (" +
                    std::to_string(expected) + ") than its state says (" + std::to_string(open) +
                    ")");
    }
  }
}

void World::CountStates() {
  for (const Source& source : sources_) {
    if (source.gate != nullptr && source.gate->Full()) Reached(Milestone::kSourceFull);
  }
  if (gate_.limited() && gate_.Full()) Reached(Milestone::kBalancerFull);
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    const WorkerEntry& entry = workers_[id];
    if (!entry.in_books) continue;
    if (checker_.open(id) == entry.capacity) Reached(Milestone::kCapacity);
    if (engine_->window(entry.worker->engine_index) < entry.window) {
      Reached(Milestone::kWindowShrunk);
    }
    if (entry.receiver != nullptr && checker_.unclaimed(id) == entry.window) {
      Reached(Milestone::kWindowFull);
    }
  }
}

// --- What others ask of it -----------------------------------------------------------------------

void World::Ask(const Call& call) {
  calls_.push_back(call);
  ring_.OnKnock();
}

void World::RunCalls() {
  calls_running_.clear();
  std::swap(calls_running_, calls_);
  for (const Call& call : calls_running_) {
    if (!checker_.failed()) Run(call);
  }
}

// Refuses what the runtime refuses: what concerns a source or a worker that is gone, and everything
// new once the balancer shuts down.
void World::Run(const Call& call) {
  const bool source_gone = call.source < sources_.size() && sources_[call.source].removed;
  const bool worker_gone = call.worker < workers_.size() && !workers_[call.worker].in_books;
  switch (call.kind) {
    case CallKind::kAddWorker:
      if (!stopped_) AddWorker(worker_configs_[call.worker]);
      return;
    case CallKind::kRemoveWorker:
      if (!worker_gone) RemoveWorker(call.worker);
      return;
    case CallKind::kJoin:
      if (!stopped_ && !source_gone && !worker_gone) JoinSource(call.source, call.worker);
      return;
    case CallKind::kLeave:
      if (!source_gone && !worker_gone) LeaveSource(call.source, call.worker);
      return;
    case CallKind::kSetCapacity:
      if (!worker_gone) SetLimits(call.worker, workers_[call.worker].window, call.value);
      return;
    case CallKind::kSetWindow:
      if (!worker_gone) SetLimits(call.worker, call.value, workers_[call.worker].capacity);
      return;
    case CallKind::kAddSource:
      if (!stopped_) AddSource(DrawSource(prng_));
      return;
    case CallKind::kRemoveSource:
      if (!source_gone) RemoveSource(call.source);
      return;
    case CallKind::kSetPolicy:
      if (!source_gone) SetPolicy(call.source, DrawPolicyName(prng_));
      return;
    case CallKind::kPause:
    case CallKind::kResume:
      if (!source_gone) SetPaused(call.source, call.kind == CallKind::kPause);
      return;
    case CallKind::kReplace:
      return Replace();
    case CallKind::kStopIntake:
      return StopIntake();
    case CallKind::kRefuseAll:
      Note("refuses all");
      refusing_ = true;
      engine_->RefuseAll();
      return checker_.OnRefuseAll(now_ns_);
  }
}

void World::AddWorker(const SimWorkerConfig& config) {
  const auto id = static_cast<uint32_t>(workers_.size());
  WorkerEntry& entry = workers_.emplace_back();
  entry.window = config.window;
  entry.capacity = config.capacity;
  if (config.completions) {
    auto receiver = std::make_unique<CompletionWorker>(this, id, config);
    entry.receiver = receiver.get();
    entry.worker = std::move(receiver);
  } else {
    entry.worker = std::make_unique<InboxWorker>(this, id, config);
  }
  SimWorker& worker = *entry.worker;
  worker.ring_fd = kernel_.OpenRing(id);
  if (worker.ring_fd <= ring_fd_max_) Reached(Milestone::kRingNumberReused);
  ring_fd_max_ = std::max(ring_fd_max_, worker.ring_fd);
  core::WorkerConfig for_engine{.state = &worker.port_state(),
                                .ring_fd = worker.ring_fd,
                                .tag = Tag(id),
                                .capacity = config.capacity,
                                .window_max = config.window,
                                .cpu = config.cpu};
  CheckedWorker for_checker{.window = config.window, .capacity = config.capacity};
  worker.Introduce(for_engine, for_checker);
  checker_.AddWorker(for_checker);
  checker_.OnIdle(id, now_ns_);
  const uint32_t slots = engine_->worker_slots();
  worker.engine_index = engine_->AddWorker(for_engine);
  if (worker.engine_index < slots) Reached(Milestone::kIndexReused);
  Note("adds", {{"worker", id}, {"index", worker.engine_index}, {"ring_fd", worker.ring_fd}});
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    if ((config.sources >> (source % 8) & 1) != 0) JoinSource(source, id);
  }
  // One comes at once, as a proof that the ring can be told.
  Schedule(WorkerWakeCost(), Happening::kWake, id);
}

void World::RemoveWorker(uint32_t id) {
  Note("removes", {{"worker", id}});
  engine_->RemoveWorker(worker(id).engine_index);
  workers_[id].in_books = false;
  checker_.OnLeft(id, now_ns_);
  leaving_.push_back(id);
  for (Source& source : sources_) {
    if (std::erase(source.joined, id) > 0) source.steady = false;
  }
  if (phase_ != Phase::kTraffic || prng_.Chance({1, 4})) return;
  worker_configs_.push_back(worker(id).config());
  Schedule(prng_.Between(0, 10 * kMillisecond), Happening::kJoin,
           static_cast<uint32_t>(worker_configs_.size() - 1));
}

// The balancer's number of the ring is closed, and the worker told that its ring is its own, when
// nothing that was submitted can use that number any more.
void World::FinishLeaves() {
  if (!ring_.AllReported() && !breaks(Breakage::kMasterClosesRingTooEarly)) return;
  for (const uint32_t id : leaving_) {
    Note("lets go", {{"worker", id}});
    kernel_.CloseRing(worker(id).ring_fd);
    if (workers_[id].receiver != nullptr) {
      workers_[id].receiver->KeepRing();
      if (hunger_.TakeKnock()) Knock(id);
    }
    worker(id).OnLeft();
  }
  leaving_.clear();
}

void World::AddSource(SimSourceConfig config) {
  // Who dies keeps its places for ever.
  if (config_.faults[Fault::kWorkerDies].n > 0) config.capacity = 0;
  const auto id = static_cast<uint32_t>(sources_.size());
  const int32_t fd = kernel_.Listen(id);
  ring_.OnListen();
  std::unique_ptr<WatchedPolicy> policy = MakePolicy(config.policy);
  WatchedPolicy* const watched = policy.get();
  std::unique_ptr<core::Gate> gate;
  if (config.capacity > 0) {
    gate = std::make_unique<core::Gate>();
    gate->Limit(config.capacity);
  }
  const uint32_t index = engine_->AddSource({.fd = fd,
                                             .multishot_accept = config.multishot_accept,
                                             .readiness = config.readiness,
                                             .countable = config.countable,
                                             .hold = config.hold,
                                             .recall = config.recall,
                                             .gate = gate.get(),
                                             .age_max_ns = config.age_max_ns,
                                             .policy = std::move(policy)});
  checker_.AddSource({.recall = config.recall,
                      .tickets = config.readiness,
                      .countable = config.countable,
                      .exact = !config.multishot_accept,
                      .capacity = config.capacity,
                      .age_max_ns = config.age_max_ns},
                     index);
  if (index < by_index_.size()) {
    Reached(Milestone::kSourceIndexReused);
    by_index_[index] = id;
  } else {
    const bool removed = std::any_of(by_index_.begin(), by_index_.end(),
                                     [this](uint32_t source) { return sources_[source].removed; });
    if (removed) Reached(Milestone::kSourceIndexKept);
    by_index_.push_back(id);
  }
  sources_.push_back(
      {.index = index, .fd = fd, .config = config, .gate = std::move(gate), .policy = watched});
  Note("adds", {{"source", id}, {"index", index}, {"fd", fd}});
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    if ((this->worker(worker).config().sources >> (id % 8) & 1) != 0) JoinSource(id, worker);
  }
}

void World::RemoveSource(uint32_t index) {
  Note("removes", {{"source", index}});
  Source& source = sources_[index];
  if (!source.joined.empty()) Reached(Milestone::kSourceRemoved);
  source.removed = true;
  engine_->RemoveSource(source.index);
  checker_.OnSourceRemoved(index, now_ns_);
  CloseRemoved();
}

// Whoever removed a source may close its listener once its intake has ended.
void World::CloseRemoved() {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Source& source = sources_[index];
    if (!source.removed || source.closed || !engine_->IntakeEnded(source.index)) continue;
    Note("closes listener", {{"source", index}, {"fd", source.fd}});
    if (ring_.polled(index) || ring_.accepted_from(index)) {
      checker_.Fail("a removed source is let go while it is armed");
    }
    source.closed = true;
    kernel_.CloseListener(index);
  }
}

std::unique_ptr<WatchedPolicy> World::MakePolicy(std::string_view name) {
  absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(name);
  if (!policy.ok()) checker_.Fail("there is no policy " + std::string(name));
  return std::make_unique<WatchedPolicy>(policy.ok() ? *std::move(policy) : LeastLoaded(),
                                         &checker_, breaks(Breakage::kPolicySkipsOneWorker));
}

void World::SetPolicy(uint32_t index, std::string_view name) {
  Note("switches policy", {{"source", index}});
  Note(name);
  Source& source = sources_[index];
  if (checker_.counts(index).held > 0) Reached(Milestone::kPolicySwitched);
  std::unique_ptr<WatchedPolicy> policy = MakePolicy(name);
  WatchedPolicy* const watched = policy.get();
  const std::unique_ptr<Policy> old = engine_->SetPolicy(source.index, std::move(policy));
  if (old.get() != source.policy) checker_.Fail("a switch returns another policy than the old one");
  source.policy = watched;
  source.steady = false;
  switched_ = true;
}

void World::SetPaused(uint32_t index, bool paused) {
  Note(paused ? "pauses" : "resumes", {{"source", index}});
  sources_[index].paused = paused;
  checker_.OnPaused(index, paused);
  if (paused) {
    engine_->Pause(sources_[index].index);
  } else {
    engine_->Resume(sources_[index].index);
  }
}

void World::SetLimits(uint32_t id, uint32_t window, uint32_t capacity) {
  Note("limits", {{"worker", id}, {"window", window}, {"capacity", capacity}});
  WorkerEntry& entry = workers_[id];
  if (window < checker_.unclaimed(id) || capacity < checker_.open(id)) {
    Reached(Milestone::kLimitBelow);
  }
  const uint32_t index = entry.worker->engine_index;
  if (window != std::exchange(entry.window, window)) engine_->SetWindow(index, window);
  if (capacity != std::exchange(entry.capacity, capacity)) engine_->SetCapacity(index, capacity);
  checker_.OnLimits(id, window, capacity, now_ns_);
}

void World::JoinSource(uint32_t index, uint32_t id) {
  Source& source = sources_[index];
  const bool joined =
      std::find(source.joined.begin(), source.joined.end(), id) != source.joined.end();
  if (joined || source.removed || !workers_[id].in_books) return;
  // The runtime refuses the first; tickets as completions are not simulated.
  const bool receives = workers_[id].receiver != nullptr;
  if (receives && (source.config.capacity > 0 || source.config.readiness)) return;
  if (source.policy->picks() > 0) source.steady = false;
  source.joined.push_back(id);
  worker(id).SetToken(source.index, Token(id, index));
  engine_->Join(source.index, worker(id).engine_index, Token(id, index));
  checker_.OnJoined(index, id, now_ns_);
}

void World::LeaveSource(uint32_t index, uint32_t id) {
  Source& source = sources_[index];
  if (std::erase(source.joined, id) == 0) return;
  Note("leaves", {{"worker", id}, {"source", index}});
  source.steady = false;
  engine_->Leave(source.index, worker(id).engine_index);
  checker_.OnLeftSource(index, id, now_ns_);
}

// What faults have taken away for good, the only live worker of a source, say, is replaced. Nobody
// joins a source that is removed, so its dead are buried.
void World::Replace() {
  bool abandoned = false;
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    if (!Abandoned(index)) continue;
    abandoned |= !sources_[index].removed;
    if (!sources_[index].removed) continue;
    const std::vector<uint32_t> dead = sources_[index].joined;
    for (const uint32_t id : dead) RemoveWorker(id);
  }
  if (abandoned) AddWorker({.window = 4});
}

void World::StopIntake() {
  Note("stops intake");
  const bool removing = std::any_of(sources_.begin(), sources_.end(), [](const Source& source) {
    return source.removed && !source.closed;
  });
  if (removing) Reached(Milestone::kStoppedWithRemoved);
  stopped_ = true;
  engine_->StopIntake();
  checker_.OnStopIntake(now_ns_);
}

}  // namespace ringmaster::sim
