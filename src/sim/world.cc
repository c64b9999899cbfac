#include "sim/world.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

namespace ringmaster::sim {

using core::Completion;
using core::Op;
using core::OpKind;

namespace {

constexpr int64_t kMicrosecond = 1'000;
constexpr int64_t kMillisecond = 1'000'000;
// Virtual time within which everything that has arrived must be served once the faults are over.
constexpr int64_t kDrainNsMax = 60'000 * kMillisecond;
constexpr uint64_t kBatchesMax = 100'000;
constexpr uint64_t kEventsMax = 400'000;
// Wake-ups without anything to do, once everything is served: retries and back-offs come to an end.
constexpr uint32_t kQuietBatchesMax = 100;
constexpr int64_t kMasterSlowNsMax = 5 * kMillisecond;

std::unique_ptr<Policy> MakePolicy(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kRoundRobin:
      return RoundRobin();
    case PolicyKind::kLifo:
      return Exclusive(WakeOrder::kLifo);
    case PolicyKind::kFifo:
      return Exclusive(WakeOrder::kFifo);
    case PolicyKind::kAffinityCpu:
      return AffinityCpu();
    case PolicyKind::kLeastLoaded:
      return LeastLoaded();
  }
  return LeastLoaded();
}

int64_t Patience(const SimConfig& config) {
  const int64_t slow_ns = config.faults[Fault::kMasterSlow].n > 0 ? 2 * kMasterSlowNsMax : 0;
  // A turn may bring as little as one completion, so a look may take as many turns as those.
  return 80 * config.turn_ns_max + config.wake_ns_max + slow_ns + 10 * kMicrosecond;
}

}  // namespace

World::World(const SimConfig& config, Breakage breakage, Trace* trace)
    : config_(config),
      breakage_(breakage),
      trace_(trace),
      prng_(config.seed ^ 0x5eed),
      checker_({.recall_after_ns = config.recall_after_ns,
                .patience_ns = Patience(config),
                .backs_off =
                    config.faults[Fault::kEmfile].n > 0 || config.faults[Fault::kAcceptError].n > 0,
                .doorbells_are_prompt = config.faults[Fault::kDoorbellFails].n == 0 &&
                                        config.faults[Fault::kDoorbellLate].n == 0},
               trace),
      backlogs_(config.sources.size()),
      arrivals_left_(config.workload.arrivals),
      descriptors_max_(config.descriptors_max),
      engine_({.recall_after_ns = config.recall_after_ns,
               .completion_entries = config.completion_entries,
               .watch_fd = kWatchFd},
              &hunger_),
      ring_(this, static_cast<uint32_t>(config.sources.size()), config.completion_entries),
      worker_configs_(config.workers),
      sources_(config.sources.size()) {}

// --- Time and chance -----------------------------------------------------------------------------

void World::Schedule(int64_t after_ns, Happening what, uint32_t a, uint32_t b) {
  events_.push_back({.at_ns = now_ns_ + after_ns, .order = order_++, .what = what, .a = a, .b = b});
  std::push_heap(events_.begin(), events_.end(), Later());
}

bool World::StepUntil(int64_t until_ns) {
  if (events_.empty() || events_.front().at_ns > until_ns || checker_.failed()) {
    if (until_ns != core::kWaitForever) now_ns_ = std::max(now_ns_, until_ns);
    return false;
  }
  std::pop_heap(events_.begin(), events_.end(), Later());
  const Event event = events_.back();
  events_.pop_back();
  now_ns_ = event.at_ns;
  if (++counters_.events > kEventsMax) checker_.Fail("too many events: something goes round");
  Do(event);
  return true;
}

void World::Pass(int64_t ns) {
  const int64_t until_ns = now_ns_ + ns;
  while (now_ns_ < until_ns && StepUntil(until_ns)) {
  }
}

bool World::Happens(Fault fault) {
  if (phase_ != Phase::kTraffic || !prng_.Chance(config_.faults[fault])) return false;
  ++counters_.faults[static_cast<size_t>(fault)];
  return true;
}

bool World::Breaks(Breakage breakage, Ratio how_often) {
  return breakage == breakage_ && prng_.Chance(how_often);
}

int64_t World::MasterWakeCost() {
  const int64_t slow_ns =
      Happens(Fault::kMasterSlow) ? prng_.Between(0, kMasterSlowNsMax) : int64_t{0};
  return prng_.Between(0, config_.wake_ns_max) + slow_ns;
}

int64_t World::StallTime() { return prng_.Between(0, 20 * config_.recall_after_ns); }

int64_t World::ServiceTime(uint32_t connection) {
  if (connection == Checker::kNone) return 0;
  const int64_t service_ns = prng_.Exponential(config_.workload.service_ns_mean);
  return Happens(Fault::kWorkerSlow) ? 100 * service_ns : service_ns;
}

void World::Do(const Event& event) {
  switch (event.what) {
    case Happening::kArrival:
      MakeMischief();
      Arrive(static_cast<uint32_t>(prng_.Below(sources_.size())));
      if (prng_.Chance(config_.workload.burst)) {
        const auto source = static_cast<uint32_t>(prng_.Below(sources_.size()));
        for (uint64_t i = prng_.Below(config_.workload.burst_max); i > 0; --i) Arrive(source);
      }
      return ScheduleArrival();
    case Happening::kStep:
      return workers_[event.a]->Step();
    case Happening::kDoorbell:
      Note("doorbell", event.a);
      return workers_[event.a]->OnDoorbell();
    case Happening::kClose:
      return CloseConnection(event.a, event.b);
    case Happening::kRelease:
      if (Breaks(Breakage::kLeaseForgotten, {1, 8})) return;
      Note("releases", event.a, event.b);
      workers_[event.a]->Release();
      checker_.OnReleased(event.a, now_ns_);
      return Schedule(StepCost(), Happening::kReleaseKnock, event.a);
    case Happening::kReleaseKnock:
      return workers_[event.a]->KnockAfterRelease();
    case Happening::kJoin:
      return Ask({.kind = CallKind::kAddWorker, .worker = event.a});
    case Happening::kJoinSource:
      return Ask({.kind = CallKind::kJoin, .source = event.a, .worker = event.b});
    case Happening::kResume:
      return Ask({.kind = CallKind::kResume, .source = event.a});
    case Happening::kTrafficEnds:
      return EndTraffic();
    case Happening::kDeadline:
      return Ask({.kind = CallKind::kRefuseAll});
  }
}

void World::ScheduleArrival() {
  if (arrivals_left_ > 0) {
    Schedule(prng_.Exponential(config_.workload.gap_ns_mean), Happening::kArrival);
  } else {
    Schedule(prng_.Between(0, 3 * config_.recall_after_ns), Happening::kTrafficEnds);
  }
}

void World::Arrive(uint32_t source) {
  if (arrivals_left_ == 0) return;
  --arrivals_left_;
  const uint32_t connection = checker_.OnArrival(source);
  connections_.push_back({.source = source, .facts = DrawFacts()});
  backlogs_[source].push_back(connection);
  Note("arrives", connection, source);
  ring_.OnArrival(source);
}

// A few clients, each on a CPU of its own; sometimes the kernel does not know.
Arrival World::DrawFacts() {
  Arrival facts;
  if (!prng_.Chance({1, 8})) facts.incoming_cpu = static_cast<int32_t>(prng_.Below(4));
  if (prng_.Chance({1, 8})) return facts;
  facts.peer.kind = Peer::Kind::kIpv4;
  facts.peer.address[3] = static_cast<uint8_t>(prng_.Below(16));
  return facts;
}

// What somebody else may do to a source at any time.
void World::MakeMischief() {
  const auto source = static_cast<uint32_t>(prng_.Below(sources_.size()));
  if (Happens(Fault::kSourcePauses)) {
    Ask({.kind = CallKind::kPause, .source = source});
    Schedule(prng_.Between(0, 10 * kMillisecond), Happening::kResume, source);
  }
  const std::vector<uint32_t>& joined = sources_[source].joined;
  if (!joined.empty() && Happens(Fault::kWorkerLeavesSource)) {
    const uint32_t worker = joined[prng_.Below(joined.size())];
    Ask({.kind = CallKind::kLeave, .source = source, .worker = worker});
    Schedule(prng_.Between(0, 10 * kMillisecond), Happening::kJoinSource, source, worker);
  }
}

bool World::Live(uint32_t worker) const {
  const SimWorker& it = *workers_[worker];
  return !it.dead() && !it.gone() && !it.leaving();
}

// Faults end. What they have taken away for good, the only live worker of a source, say, is
// replaced.
void World::EndTraffic() {
  Note("traffic-ends");
  phase_ = config_.shuts_down ? Phase::kShutdown : Phase::kDrain;
  traffic_ended_ns_ = now_ns_;
  descriptors_max_ = INT32_MAX;
  bool abandoned = false;
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Ask({.kind = CallKind::kResume, .source = index});
    const std::vector<uint32_t>& joined = sources_[index].joined;
    abandoned |= std::none_of(joined.begin(), joined.end(),
                              [this](uint32_t worker) { return Live(worker); });
  }
  if (config_.shuts_down) {
    Ask({.kind = CallKind::kStopIntake});
    return Schedule(config_.shutdown_drain_ns, Happening::kDeadline);
  }
  if (!abandoned) return;
  worker_configs_.push_back({.window = 4, .sources = UINT64_MAX});
  Ask({.kind = CallKind::kAddWorker, .worker = static_cast<uint32_t>(worker_configs_.size() - 1)});
}

// --- The kernel ----------------------------------------------------------------------------------

int32_t World::AcceptOne(uint32_t source, Arrival& facts) {
  if (OutOfDescriptors()) {
    ++counters_.faults[static_cast<size_t>(Fault::kEmfile)];
    return -EMFILE;
  }
  std::deque<uint32_t>& backlog = backlogs_[source];
  if (backlog.empty()) return -EAGAIN;
  const uint32_t connection = backlog.front();
  backlog.pop_front();
  if (Happens(Fault::kAcceptError)) {
    Note("aborted", connection);
    checker_.OnAborted(connection);
    return -ECONNABORTED;
  }
  const auto free = std::find(fds_.begin(), fds_.end(), false);
  const auto fd = static_cast<int32_t>(free - fds_.begin());
  if (free == fds_.end()) {
    fds_.push_back(true);
  } else {
    *free = true;
  }
  ++fds_open_;
  connections_[connection].fd = fd;
  facts = connections_[connection].facts;
  checker_.OnAccepted(connection, fd);
  Note("accepted", connection, fd);
  return fd;
}

int32_t World::Doorbell(const Op& op) {
  const auto id = static_cast<uint32_t>(op.fd - RingFd(0));
  if (id >= workers_.size() || workers_[id]->gone() || op.tag != Tag(id)) {
    checker_.Fail("a doorbell for a ring that is not a worker's");
    return -EBADF;
  }
  if (doorbell_failed_[id]) Reached(Milestone::kDoorbellRepeated);
  doorbell_failed_[id] = Happens(Fault::kDoorbellFails);
  if (doorbell_failed_[id]) return prng_.Chance({1, 2}) ? -EBADFD : -ENOMEM;
  if (Breaks(Breakage::kRingLosesDoorbell, {1, 8})) return 0;
  const bool late = Happens(Fault::kDoorbellLate);
  Schedule(late ? prng_.Between(0, 30 * kMillisecond) : 50, Happening::kDoorbell, id);
  return 0;
}

void World::CloseRefused(int32_t fd) {
  Note("refused", fd);
  checker_.OnRefused(fd);
  if (checker_.failed()) return;
  Reached(Milestone::kRefused);
  fds_[static_cast<size_t>(fd)] = false;
  --fds_open_;
}

// --- The workers ---------------------------------------------------------------------------------

void World::ScheduleStep(uint32_t worker, int64_t after_ns) {
  Schedule(after_ns, Happening::kStep, worker);
}

uint32_t World::Serve(uint32_t worker, uint64_t word) {
  const uint32_t connection = checker_.OnClaimed(worker, word, now_ns_);
  if (connection == Checker::kNone) return connection;
  Note("claims", worker, connection);
  if (Breaks(Breakage::kWorkerDropsOffer, {1, 8})) return Checker::kNone;
  checker_.OnServed(worker, connection);
  if (Breaks(Breakage::kWorkerServesTwice, {1, 8})) checker_.OnServed(worker, connection);
  const int64_t lease_ns = prng_.Exponential(config_.workload.lease_ns_mean);
  connections_[connection].closes_in_callback = lease_ns == 0 || prng_.Chance({1, 8});
  if (!connections_[connection].closes_in_callback) {
    Schedule(lease_ns, Happening::kClose, worker, connection);
  }
  return connection;
}

void World::OnCallbackEnd(uint32_t worker, uint32_t connection) {
  if (connections_[connection].closes_in_callback) CloseConnection(worker, connection);
}

void World::CloseConnection(uint32_t worker, uint32_t connection) {
  Note("closes", worker, connection);
  checker_.OnClosed(connection);
  fds_[static_cast<size_t>(connections_[connection].fd)] = false;
  --fds_open_;
  Schedule(StepCost(), Happening::kRelease, worker, connection);
}

void World::Knock(uint32_t worker) {
  Note("knocks", worker);
  Reached(Milestone::kKnock);
  ring_.OnKnock();
}

void World::AskToLeave(uint32_t worker) {
  Ask({.kind = CallKind::kRemoveWorker, .worker = worker});
}

// --- The master ----------------------------------------------------------------------------------

void World::Ask(const Call& call) {
  calls_.push_back(call);
  ring_.OnKnock();
}

void World::RunCalls() {
  calls_running_.clear();
  std::swap(calls_running_, calls_);
  for (const Call& call : calls_running_) Run(call);
}

void World::Run(const Call& call) {
  Note("call", static_cast<int64_t>(call.kind), call.source, call.worker);
  switch (call.kind) {
    case CallKind::kAddWorker: {
      const auto id = static_cast<uint32_t>(workers_.size());
      const SimWorkerConfig config = worker_configs_[call.worker];
      workers_.push_back(std::make_unique<SimWorker>(this, id, config));
      doorbell_failed_.push_back(false);
      SimWorker& worker = *workers_.back();
      checker_.AddWorker({.words = worker.words(),
                          .words_count = worker.inbox().size(),
                          .window = config.window,
                          .capacity = config.capacity});
      checker_.OnIdle(id, now_ns_);
      const uint32_t slots = engine_.worker_slots();
      worker.engine_index = engine_.AddWorker({.inbox = &worker.inbox(),
                                               .state = &worker.port_state(),
                                               .ring_fd = RingFd(id),
                                               .tag = Tag(id),
                                               .capacity = config.capacity,
                                               .window_max = config.window,
                                               .cpu = config.cpu});
      if (worker.engine_index < slots) Reached(Milestone::kIndexReused);
      for (uint32_t source = 0; source < sources_.size(); ++source) {
        if ((config.sources >> source & 1) != 0) JoinSource(source, id);
      }
      // One comes at once, as a proof that the ring can be told.
      return Schedule(WorkerWakeCost(), Happening::kDoorbell, id);
    }
    case CallKind::kRemoveWorker: {
      SimWorker& worker = *workers_[call.worker];
      engine_.RemoveWorker(worker.engine_index);
      worker.OnLeft();
      checker_.OnLeft(call.worker, now_ns_);
      for (Source& source : sources_) {
        if (std::erase(source.joined, call.worker) > 0) source.steady = false;
      }
      if (phase_ != Phase::kTraffic || prng_.Chance({1, 4})) return;
      worker_configs_.push_back(worker.config());
      return Schedule(prng_.Between(0, 10 * kMillisecond), Happening::kJoin,
                      static_cast<uint32_t>(worker_configs_.size() - 1));
    }
    case CallKind::kJoin:
      return JoinSource(call.source, call.worker);
    case CallKind::kLeave:
      if (std::erase(sources_[call.source].joined, call.worker) == 0) return;
      sources_[call.source].steady = false;
      engine_.Leave(call.source, workers_[call.worker]->engine_index);
      return checker_.OnLeftSource(call.source, call.worker, now_ns_);
    case CallKind::kPause:
      sources_[call.source].paused = true;
      checker_.OnPaused(call.source, true);
      return engine_.Pause(call.source);
    case CallKind::kResume:
      sources_[call.source].paused = false;
      checker_.OnPaused(call.source, false);
      return engine_.Resume(call.source);
    case CallKind::kStopIntake:
      stopped_ = true;
      checker_.OnStopIntake();
      return engine_.StopIntake();
    case CallKind::kRefuseAll:
      engine_.RefuseAll();
      return checker_.OnRefuseAll(now_ns_);
  }
}

void World::JoinSource(uint32_t index, uint32_t worker) {
  Source& source = sources_[index];
  const bool joined =
      std::find(source.joined.begin(), source.joined.end(), worker) != source.joined.end();
  if (joined || workers_[worker]->gone()) return;
  if (source.policy->picks() > 0) source.steady = false;
  source.joined.push_back(worker);
  engine_.Join(index, workers_[worker]->engine_index);
  checker_.OnJoined(index, worker, now_ns_);
}

void World::SetUp() {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const SimSourceConfig& config = config_.sources[index];
    auto policy = std::make_unique<WatchedPolicy>(MakePolicy(config.policy), &checker_,
                                                  breakage_ == Breakage::kPolicySkipsOneWorker);
    sources_[index].policy = policy.get();
    checker_.AddSource(config.recall);
    engine_.AddSource({.fd = SourceFd(index),
                       .multishot_accept = config.multishot_accept,
                       .hold = config.hold,
                       .recall = config.recall,
                       .policy = std::move(policy)});
  }
  for (uint32_t index = 0; index < config_.workers.size(); ++index) {
    const int64_t at_ns = config_.workers[index].joins_at_ns;
    if (at_ns > 0) {
      ++counters_.faults[static_cast<size_t>(Fault::kWorkerJoinsLate)];
      Schedule(at_ns, Happening::kJoin, index);
    } else {
      Run({.kind = CallKind::kAddWorker, .worker = index});
    }
  }
  if (config_.completion_entries <= 12) {
    ++counters_.faults[static_cast<size_t>(Fault::kCqSmall)];
  }
  ScheduleArrival();
}

void World::Run() {
  SetUp();
  std::vector<Completion> completions;
  completions.reserve(config_.completions_max);
  while (phase_ != Phase::kOver && !checker_.failed()) {
    Batch(completions);
    if (!checker_.failed()) LookForTheEnd();
  }
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    const Checker::Counts& counts = checker_.counts(source);
    counters_.milestones[static_cast<size_t>(Milestone::kRecall)] += counts.recalled;
    counters_.milestones[static_cast<size_t>(Milestone::kLeaveWithOffers)] += counts.left;
  }
  counters_.milestones[static_cast<size_t>(Milestone::kServed)] += checker_.served();
}

void World::Batch(std::vector<Completion>& completions) {
  if (ring_.Turn(ops_, wait_ns_, completions) != 0) checker_.Fail("the simulated ring fails");
  for (const Completion& completion : completions) {
    const OpKind kind = completion.key.kind;
    Note("completes", static_cast<int64_t>(kind), completion.result, completion.more);
    if ((kind == OpKind::kAccept || kind == OpKind::kAcceptEach) && completion.result >= 0) {
      checker_.OnReported(completion.key.index, completion.result);
    }
  }
  checker_.BeforeBatch(now_ns_);
  RunCalls();
  if (checker_.failed()) return;
  ops_ = engine_.OnBatch(completions, now_ns_);
  if (++counters_.batches > kBatchesMax) checker_.Fail("too many batches: the master spins");
  checker_.AfterBatch(now_ns_);
  NoteOps();
  NoteEvents();
  if (checker_.failed()) return;
  CompareBooks();
  CountStates();
  engine_.CheckAll(false);
  wait_ns_ = engine_.WaitMax(now_ns_);
  if (breakage_ == Breakage::kMasterNeverLooksAtAge && wait_ns_ > 0) wait_ns_ = core::kWaitForever;
  Note("waits", wait_ns_);
}

void World::NoteOps() {
  for (const Op& op : ops_) {
    Note("submits", static_cast<int64_t>(op.key.kind), op.key.index, op.fd);
    const uint32_t index = op.key.index;
    const bool takes_in = op.key.kind == OpKind::kPoll || op.key.kind == OpKind::kAccept ||
                          op.key.kind == OpKind::kAcceptEach;
    if (takes_in && (sources_[index].paused || sources_[index].joined.empty() || stopped_)) {
      checker_.Fail("a source is taken in that is paused, stopped or without workers");
    }
    if (op.key.kind == OpKind::kPollEnd && !sources_[index].paused) Reached(Milestone::kPollEnded);
    if (op.key.kind == OpKind::kAcceptEnd && !sources_[index].paused &&
        checker_.counts(index).held >= config_.sources[index].hold) {
      Reached(Milestone::kHoldLimit);
    }
  }
}

void World::NoteEvents() {
  for (const core::EngineEvent& event : engine_.events()) {
    Note("event", static_cast<int64_t>(event.kind), event.source, event.worker);
    switch (event.kind) {
      case core::EventKind::kOutOfDescriptors:
        Reached(Milestone::kBackOff);
        break;
      case core::EventKind::kWorkerStalled:
        Reached(Milestone::kStallReported);
        for (const std::unique_ptr<SimWorker>& worker : workers_) {
          if (worker->dead() && worker->engine_index == event.worker) {
            Reached(Milestone::kRecallFromDead);
          }
        }
        break;
      case core::EventKind::kWorkerMoves:
        Reached(Milestone::kMotionReported);
        break;
      case core::EventKind::kSourceFailed:
        checker_.Fail("a source was given up although nothing is wrong with it");
        break;
      case core::EventKind::kAccepting:
      case core::EventKind::kDoorbellFailed:
        break;
    }
  }
  engine_.ClearEvents();
}

// The engine's books against the checker's. The engine may not yet know of a claim.
void World::CompareBooks() {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const core::SourceCount& books = engine_.ledger().source(index);
    const Checker::Counts& counts = checker_.counts(index);
    // What the engine refused in this batch is closed by the next turn.
    const auto closing =
        static_cast<uint64_t>(std::count_if(ops_.begin(), ops_.end(), [index](const Op& op) {
          return op.key.kind == OpKind::kClose && op.key.index == index;
        }));
    if (books.arrivals != counts.reported || books.held + closing != counts.held ||
        books.refused != counts.refused + closing || books.claimed > counts.claimed ||
        books.offered < counts.offered) {
      checker_.Fail("the engine's books differ from what has happened");
    }
  }
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    const uint32_t open = workers_[id]->port_state().open;
    if (open != checker_.unclaimed(id) + checker_.leased(id)) {
      checker_.Fail("worker " + std::to_string(id) + " has another number of connections open (" +
                    std::to_string(checker_.unclaimed(id) + checker_.leased(id)) +
                    ") than its state says (" + std::to_string(open) + ")");
    }
  }
}

void World::CountStates() {
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (workers_[id]->gone()) continue;
    const SimWorkerConfig& config = workers_[id]->config();
    if (checker_.unclaimed(id) + checker_.leased(id) == config.capacity) {
      Reached(Milestone::kCapacity);
    }
    if (engine_.window(workers_[id]->engine_index) < config.window) {
      Reached(Milestone::kWindowShrunk);
    }
  }
}

// --- The end -------------------------------------------------------------------------------------

bool World::AtRest() const {
  return events_.empty() && !ring_.HasSomething() && ops_.empty() && calls_.empty() &&
         wait_ns_ != 0;
}

// Whether the master has a reason to wake although nothing happens any more: offers that a dead
// worker has and nobody may recall grow old for ever.
bool World::ExcusedWake() const {
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (workers_[id]->dead() && checker_.unclaimed(id) > 0) return true;
  }
  return false;
}

void World::LookForTheEnd() {
  if (phase_ == Phase::kTraffic) {
    if (AtRest() && wait_ns_ == core::kWaitForever) checker_.Fail("the world has come to a halt");
    return;
  }
  if (phase_ == Phase::kShutdown && engine_.IntakeEnded() && engine_.Outstanding() == 0 &&
      ops_.empty()) {
    checker_.AtShutdown();
    Reached(Milestone::kShutDown);
    phase_ = Phase::kOver;
    return;
  }
  if (now_ns_ - traffic_ended_ns_ > kDrainNsMax) checker_.Fail("the end takes too long");
  if (!AtRest()) return;
  if (wait_ns_ != core::kWaitForever && ++quiet_batches_ < kQuietBatchesMax) return;
  if (phase_ == Phase::kShutdown) return checker_.Fail("the shutdown does not end");
  if (wait_ns_ != core::kWaitForever && !ExcusedWake()) {
    checker_.Fail("the master wakes again and again although nothing is left to do");
  }
  FinishDrain();
}

void World::FinishDrain() {
  phase_ = Phase::kOver;
  std::vector<bool> may_hold;
  for (const std::unique_ptr<SimWorker>& worker : workers_) may_hold.push_back(worker->dead());
  checker_.AtRest(may_hold);
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const bool multishot = config_.sources[index].multishot_accept;
    const bool armed = multishot ? ring_.accepted_from(index) : ring_.polled(index);
    if (!armed || !engine_.armed(index)) checker_.Fail("a source is not armed at rest");
  }
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (Live(id) && workers_[id]->inbox().Rung()) {
      checker_.Fail("worker " + std::to_string(id) + " waits although it has been rung");
    }
  }
  if (checker_.failed()) return;
  engine_.CheckAll(true);
  CheckRounds();
  Reached(Milestone::kDrained);
}

void World::CheckRounds() {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const Source& source = sources_[index];
    const bool alive = std::all_of(source.joined.begin(), source.joined.end(),
                                   [this](uint32_t worker) { return Live(worker); });
    if (config_.sources[index].policy != PolicyKind::kRoundRobin || !source.steady || !alive) {
      continue;
    }
    // Every pick at which somebody had no credit, and every recall, may leave one turn unpaid.
    checker_.RoundIsEven(index, source.joined,
                         1 + source.policy->picks_without_all() + source.policy->recalls());
  }
}

}  // namespace ringmaster::sim
