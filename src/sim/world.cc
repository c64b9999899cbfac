#include "sim/world.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

namespace ringmaster::sim {

using core::Completion;
using core::Op;

namespace {

constexpr int64_t kMicrosecond = 1'000;
constexpr int64_t kMillisecond = 1'000'000;
// Virtual time within which everything that has arrived must be served once the faults are over.
constexpr int64_t kDrainNsMax = 60'000 * kMillisecond;
constexpr uint64_t kEventsMax = 400'000;
constexpr int64_t kMasterSlowNsMax = 5 * kMillisecond;
constexpr size_t kSourcesMax = 40;
// Wake-ups without anything to do, once everything is served: retries and back-offs come to an end.
constexpr uint32_t kQuietBatchesMax = 100;
// So often one connection is passed on, and once less.
constexpr uint32_t kTimesPassedOnMax = 16;

bool Planned(const SimConfig& config, std::initializer_list<Fault> faults) {
  return std::any_of(faults.begin(), faults.end(),
                     [&config](Fault fault) { return config.faults[fault].n > 0; });
}

int64_t TurnCostNs(const SimConfig& config) {
  return std::max(core::kTurnCostNs, config.turn_ns_max);
}

int64_t Patience(const SimConfig& config) {
  const int64_t slow_ns = Planned(config, {Fault::kMasterSlow}) ? 2 * kMasterSlowNsMax : 0;
  const int64_t gather_ns = std::min(core::kGatherTurns * TurnCostNs(config), core::kGatherNsMax);
  // A turn may bring as little as one completion, so a look may take as many turns as there are
  // completions.
  return 80 * config.turn_ns_max + config.wake_ns_max + slow_ns + gather_ns + 10 * kMicrosecond;
}

bool IsShortage(int32_t error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

// Whether it looks as if there were no listener.
bool DeniesListening(int32_t error) {
  return error == EINVAL || error == EOPNOTSUPP || error == EBADF || error == ENOTSOCK;
}

}  // namespace

World::World(const SimConfig& config, Breakage breakage, Trace* trace)
    : config_(config),
      breakage_(breakage),
      trace_(trace),
      prng_(config.course),
      checker_(
          {.masters = config.masters,
           .host = config.hosted ? 0 : UINT32_MAX,
           .recall_after_ns = config.recall_after_ns,
           .capacity = config.capacity,
           .patience_ns = Patience(config),
           .tick_ns = config.tick_ns,
           .backs_off =
               config.descriptors_max < INT32_MAX ||
               Planned(config, {Fault::kAcceptError, Fault::kArmFails, Fault::kAcceptDoubtful}),
           .turns_away = config.entries_told > 0 && !config.keeps_back,
           .doorbells_are_prompt = !Planned(config, {Fault::kDoorbellFails, Fault::kDoorbellLate})},
          trace),
      arrivals_left_(config.workload.arrivals),
      kernel_(this, config.descriptors_max),
      worker_configs_(config.workers) {
  gate_.Limit(config.capacity);
  for (uint32_t index = 0; index < config.masters; ++index) {
    SimMaster& master = masters_.emplace_back(this, index, config.completion_entries);
    master.engine.emplace(core::EngineConfig{.recall_after_ns = config.recall_after_ns,
                                             .completion_entries = config.entries_told > 0
                                                                       ? config.entries_told
                                                                       : config.completion_entries,
                                             .completions_max = config.completions_max,
                                             .slots = config.slots,
                                             .watch_fd = kWatchFd,
                                             .gate = config.capacity > 0 ? &gate_ : nullptr,
                                             .shares_workers = config.masters > 1},
                          &master.hunger);
    master.engine->SetTurnCost(TurnCostNs(config));
    master.completions.reserve(config.completions_max);
  }
}

// --- Time and chance -----------------------------------------------------------------------------

void World::Schedule(int64_t after_ns, Happening what, uint32_t a, uint32_t b) {
  events_.push_back({.at_ns = now_ns_ + after_ns, .order = order_++, .what = what, .a = a, .b = b});
  std::push_heap(events_.begin(), events_.end(), Later());
}

// The next of what happens.
void World::DoNext() {
  std::pop_heap(events_.begin(), events_.end(), Later());
  const Event event = events_.back();
  events_.pop_back();
  now_ns_ = std::max(now_ns_, event.at_ns);
  if (++counters_.events > kEventsMax) checker_.Fail("too many events: something goes round");
  Do(event);
}

// The next event, or what a master does next, whichever comes first.
void World::Advance() {
  SimMaster* first = &masters_.front();
  for (SimMaster& master : masters_) {
    if (master.at_ns < first->at_ns) first = &master;
  }
  if (!events_.empty() && events_.front().at_ns <= first->at_ns) {
    DoNext();
  } else {
    now_ns_ = std::max(now_ns_, first->at_ns);
    Act(*first);
  }
  WakeMasters();
}

bool World::Happens(Fault fault) {
  if (phase_ != Phase::kTraffic || !prng_.Chance(config_.faults[fault])) return false;
  if (counters_.strikes == config_.strikes_max) return false;
  ++counters_.strikes;
  CountStrike(fault);
  Note("fault",
       {{kFaultNames[static_cast<size_t>(fault)], static_cast<int64_t>(counters_.strikes)}});
  return true;
}

int64_t World::MasterWakeCost() {
  const int64_t slow_ns =
      Happens(Fault::kMasterSlow) ? prng_.Between(0, kMasterSlowNsMax) : int64_t{0};
  return prng_.Between(0, config_.wake_ns_max) + slow_ns;
}

int64_t World::ServiceTime() {
  const int64_t service_ns = prng_.Exponential(config_.workload.service_ns_mean);
  return Happens(Fault::kWorkerSlow) ? 100 * service_ns : service_ns;
}

void World::Do(const Event& event) {
  switch (event.what) {
    case Happening::kArrival:
      MakeMischief();
      Arrive();
      return ScheduleArrival();
    case Happening::kStep:
      return worker(event.a).Step();
    case Happening::kInstall:
      return DoInstall(event.a);
    case Happening::kSayRoom:
      worker(event.a).SayRoom();
      return Schedule(StepCost(), Happening::kPassOnKnock, event.a);
    case Happening::kWake:
      Note("wakes", {{"worker", event.a}});
      return worker(event.a).OnWake();
    case Happening::kOwnWork:
      return worker(event.a).OnOwnWork();
    case Happening::kClose:
      // It may have been passed on meanwhile.
      if (connections_[event.a].served && connections_[event.a].times == event.b) {
        EndConnection(event.a);
      }
      return;
    case Happening::kRelease:
      if (Breaks(Breakage::kLeaseForgotten, {1, 8})) return;
      Note("releases", {{"worker", event.a}, {"source", event.b}});
      ScheduleVisits(ReleasePlace(event.a, event.b), event.a);
      checker_.OnReleased(event.a, event.b, now_ns_);
      return Schedule(StepCost(), Happening::kReleaseKnock, event.a);
    case Happening::kReleaseKnock:
      return worker(event.a).KnockAfterRelease();
    case Happening::kPassOnPlace:
      if (Breaks(Breakage::kPassedOnKeepsItsPlace)) return;
      ScheduleVisits(worker(event.a).Release(), event.a);
      checker_.OnPassedOnPlace(event.a, now_ns_);
      return Schedule(StepCost(), Happening::kPassOnKnock, event.a);
    case Happening::kPassOnKnock:
      return worker(event.a).KnockAfterTicket();
    case Happening::kVisitDesks:
      checker_.OnFreedPlaceShown(event.a);
      return ShowWaiter();
    case Happening::kHangUp:
      return kernel_.HangUp(event.a);
    case Happening::kRedeem:
      return RedeemKept(event.a, event.b);
    case Happening::kJoin:
      return Ask({.kind = CallKind::kAddWorker, .worker = event.a});
    case Happening::kJoinSource:
      return Ask({.kind = CallKind::kJoin, .source = event.a, .worker = event.b});
    case Happening::kAddSource:
      if (phase_ == Phase::kTraffic) {
        AskSomehow(static_cast<uint32_t>(prng_.Below(masters())), {.kind = CallKind::kAddSource});
      }
      return;
    case Happening::kResume:
      return Ask({.kind = CallKind::kResume, .source = event.a});
    case Happening::kHostEnds:
      return EndHost();
    case Happening::kHostFollows:
      return FollowHost();
    case Happening::kTrafficEnds:
      return EndTraffic();
    case Happening::kDeadline:
      for (uint32_t master = 0; master < masters(); ++master) {
        AskSomehow(master, {.kind = CallKind::kRefuseAll});
      }
      return;
  }
}

// --- Traffic, and what others do to the balancer -------------------------------------------------

void World::ScheduleArrival() {
  if (arrivals_left_ > 0) {
    Schedule(prng_.Exponential(config_.workload.gap_ns_mean), Happening::kArrival);
  } else {
    Schedule(prng_.Between(0, 3 * config_.recall_after_ns), Happening::kTrafficEnds);
  }
}

void World::Arrive() {
  const uint32_t flood = config_.workload.flood_of_16;
  const bool first = flood > 0 && prng_.Below(16) < flood;
  ArriveAt(first ? 0 : static_cast<uint32_t>(prng_.Below(sources_.size())));
  if (!prng_.Chance(config_.workload.burst)) return;
  const auto source = static_cast<uint32_t>(prng_.Below(sources_.size()));
  for (uint64_t i = prng_.Below(config_.workload.burst_max); i > 0; --i) ArriveAt(source);
}

// If nobody listens any more, the kernel refuses the client.
void World::ArriveAt(uint32_t source) {
  if (arrivals_left_ == 0) return;
  --arrivals_left_;
  if (!kernel_.is_open(source) || kernel_.shut(source)) return;
  const uint32_t connection = kernel_.Arrive(source);
  if (connection == SimKernel::kNobody) return;
  if (!checker_.started(source) && !sources_[source].joined.empty()) {
    Reached(Milestone::kStartWaited);
  }
  if (Happens(Fault::kClientHangsUp)) {
    Schedule(prng_.Between(0, 10 * kMillisecond), Happening::kHangUp, connection);
  }
  MasterAt(sources_[source]).ring.OnArrival(source);
  WakeSights(source);
}

// What another thread may do at any time.
void World::MakeMischief() {
  const auto source = static_cast<uint32_t>(prng_.Below(sources_.size()));
  if (!sources_[source].removed) ChangeSource(source);
  if (!workers_.empty() && Happens(Fault::kLimitsChanged)) ChangeLimits();
  if (!workers_.empty() && Happens(Fault::kWorkerLeaves)) {
    LeaveIfIdle(static_cast<uint32_t>(prng_.Below(workers_.size())));
  }
  if (MayDesert() && Happens(Fault::kHostEnds)) DesertMaster();
}

void World::ChangeSource(uint32_t source) {
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
  if (Happens(Fault::kPolicySwitched)) Ask({.kind = CallKind::kSetPolicy, .source = source});
  // Changes that take something away for good must not come at once, or there would be nothing left
  // to test.
  if (!kernel_.shut(source) && prng_.Chance({1, 16}) && Happens(Fault::kSourceShutDown)) {
    Note("shuts down", {{"source", source}});
    kernel_.ShutDown(source);
    MasterAt(sources_[source]).ring.OnShutDown(source);
    WakeSights(source);
  }
  if (sources_.size() < kSourcesMax && prng_.Chance({1, 4}) && Happens(Fault::kSourceRemoved)) {
    Ask({.kind = CallKind::kRemoveSource, .source = source});
    if (!prng_.Chance({1, 4})) {
      Schedule(prng_.Between(0, 10 * kMillisecond), Happening::kAddSource);
    }
  }
}

void World::ChangeLimits() {
  const auto id = static_cast<uint32_t>(prng_.Below(workers_.size()));
  const auto ask_all = [&](CallKind kind, uint32_t value) {
    for (uint32_t master = 0; master < masters(); ++master) {
      AskSomehow(master, {.kind = kind, .worker = id, .value = value});
    }
  };
  if (prng_.Chance({1, 2})) {
    return ask_all(CallKind::kSetCapacity,
                   prng_.OneOf(std::array<uint32_t, 5>{1, 2, 4, 16, UINT32_MAX}));
  }
  // An inbox has room for the window with which it was made.
  const uint32_t window_max =
      worker(id).config().window * (workers_[id].receiver != nullptr ? 2 : 1);
  ask_all(CallKind::kSetWindow, static_cast<uint32_t>(prng_.Between(1, window_max)));
}

void World::LeaveIfIdle(uint32_t id) {
  if (MayLeave(id)) worker(id).LeaveIfIdle();
}

bool World::Live(uint32_t id) const {
  return !worker(id).dead() && !worker(id).left() && !worker(id).leaving();
}

bool World::Abandoned(uint32_t source) const {
  const std::vector<uint32_t>& joined = sources_[source].joined;
  const auto live =
      std::count_if(joined.begin(), joined.end(), [this](uint32_t id) { return Live(id); });
  // What one has passed on waits for somebody else who has joined, dead or not.
  return live < (config_.faults[Fault::kPassedOn].n > 0 ? 2 : 1);
}

// Faults end.
void World::EndTraffic() {
  Note("traffic ends");
  EndHost();
  FollowHost();
  phase_ = config_.shuts_down ? Phase::kShutdown : Phase::kDrain;
  traffic_ended_ns_ = now_ns_;
  willing_ = true;
  kernel_.SetDescriptorsMax(INT32_MAX);
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Ask({.kind = CallKind::kResume, .source = index});
  }
  if (config_.shuts_down) {
    for (uint32_t master = 0; master < masters(); ++master) {
      AskSomehow(master, {.kind = CallKind::kStopIntake});
    }
    return Schedule(config_.shutdown_drain_ns, Happening::kDeadline);
  }
  for (uint32_t master = 0; master < masters(); ++master) {
    AskAt(master, {.kind = CallKind::kReplace});
  }
}

// --- For the ring --------------------------------------------------------------------------------

int32_t World::Doorbell(uint32_t master, const Op& op) {
  const uint32_t id = kernel_.WorkerOf(op.fd);
  if (id == SimKernel::kNobody || op.tag != Tag(id) || worker(id).ring_fds[master] != op.fd) {
    checker_.Fail("a doorbell for a ring that is not a worker's");
    return -EBADF;
  }
  WorkerEntry& entry = workers_[id];
  if (entry.doorbell_failed) Reached(Milestone::kDoorbellRepeated);
  PermitUser* const permits = worker(id).permits();
  if (permits != nullptr && permits->Has() && checker_.unclaimed(id, master) == 0) {
    Reached(Milestone::kMarked);
  }
  entry.doorbell_failed = Happens(Fault::kDoorbellFails);
  if (entry.doorbell_failed) return prng_.Chance({1, 2}) ? -EBADFD : -ENOMEM;
  if (Breaks(Breakage::kRingLosesDoorbell, {1, 8})) return 0;
  const bool late = Happens(Fault::kDoorbellLate);
  Schedule(late ? prng_.Between(0, 30 * kMillisecond) : 50, Happening::kWake, id);
  return 0;
}

int32_t World::Send(const Op& op) {
  const uint32_t id = kernel_.WorkerOf(op.fd);
  if (id == SimKernel::kNobody || WorkerOfToken(op.tag) != id || workers_[id].receiver == nullptr) {
    checker_.Fail("a connection is sent to a ring that is not its worker's");
    return -EBADF;
  }
  const uint32_t ticket_of = TicketOf(op);
  const bool ticket = ticket_of != Checker::kNone;
  if (Happens(Fault::kSendFails)) {
    if (!ticket) checker_.OnSendFailed(op.sent);
    // It may have failed because the worker is about to leave.
    if (Happens(Fault::kWorkerLeaves)) LeaveIfIdle(id);
    return -prng_.OneOf(std::array<int32_t, 3>{EBADFD, ENOMEM, EOWNERDEAD});
  }
  if (Breaks(Breakage::kRingLosesSend, {1, 8})) return 0;
  if (ticket) {
    Reached(Milestone::kTicketSent);
    checker_.OnTicketReceived(id, ticket_of);
    workers_[id].receiver->OnTicketSent(ticket_of);
  } else {
    checker_.OnReceived(id, op.sent, SourceOfToken(op.tag));
    if (Breaks(Breakage::kRingSendsTwice, {1, 8})) {
      checker_.OnReceived(id, op.sent, SourceOfToken(op.tag));
    }
    workers_[id].receiver->OnSent(op.sent);
  }
  const bool late = Happens(Fault::kDoorbellLate);
  Schedule(late ? prng_.Between(0, 30 * kMillisecond) : 50, Happening::kWake, id);
  return 0;
}

// Into a ring that defers its task work, or is busy, it comes later.
void World::StartInstall(uint32_t master, const Op& op) {
  const uint32_t connection = kernel_.ConnectionOf(op.sent);
  std::vector<int32_t>& slots = masters_[master].slots_used;
  if (connection == SimKernel::kNobody) return checker_.Fail("what is to be installed is not open");
  if (std::find(slots.begin(), slots.end(), op.slot) != slots.end()) {
    return checker_.Fail("a slot is used for two connections");
  }
  slots.push_back(op.slot);
  installs_.push_back({.op = op, .master = master, .connection = connection});
  const auto install = static_cast<uint32_t>(installs_.size() - 1);
  if (prng_.Chance({1, 2})) return DoInstall(install);
  const bool late = Happens(Fault::kDoorbellLate);
  Schedule(prng_.Between(0, late ? 30 * kMillisecond : 100'000), Happening::kInstall, install);
}

void World::DoInstall(uint32_t index) {
  Installing& install = installs_[index];
  if (std::exchange(install.done, true) || checker_.failed()) return;
  const uint32_t id = kernel_.WorkerOf(install.op.fd);
  if (id == SimKernel::kNobody || WorkerOfToken(install.op.tag) != id ||
      workers_[id].receiver == nullptr) {
    return checker_.Fail("a connection is installed in a ring that is not its worker's");
  }
  if (!workers_[id].at[install.master].in_books) Reached(Milestone::kInstalledForLeaver);
  const int32_t result = Install(install.op, install.connection, id);
  masters_[install.master].ring.OnInstallDone(install.op, result, id);
}

// Returns the slot, or -errno.
int32_t World::Install(const Op& op, uint32_t connection, uint32_t id) {
  CompletionWorker& receiver = *workers_[id].receiver;
  const bool fails = Happens(Fault::kSendFails);
  const bool full = receiver.table_full();
  if (fails || full) {
    const bool untold = !full && receiver.may_lose_slot() && prng_.Chance({1, 4});
    if (untold) receiver.LoseSlot();
    if (untold) Reached(Milestone::kUntold);
    if (full) Reached(Milestone::kTableFull);
    checker_.OnInstallFailed(connection, untold);
    if (fails && Happens(Fault::kWorkerLeaves)) LeaveIfIdle(id);
    if (untold) return -core::kUntold;
    return full ? -core::kNoSlot : -prng_.OneOf(std::array<int32_t, 3>{EBADFD, ENOMEM, EOWNERDEAD});
  }
  Reached(Milestone::kInstalled);
  Note("installs", {{"worker", id}, {"connection", connection}});
  checker_.OnInstalled(id, connection, SourceOfToken(op.tag));
  receiver.OnInstalled(connection);
  Schedule(50, Happening::kWake, id);
  return 0;
}

// What is still under way then was given up.
void World::LetGo(uint32_t master, const Op& op) {
  if (op.slot >= 0) std::erase(masters_[master].slots_used, op.slot);
  if (op.fd < 0) return;
  const uint32_t connection = kernel_.ConnectionOf(op.fd);
  for (uint32_t index = 0; index < installs_.size(); ++index) {
    if (installs_[index].connection == connection) DoInstall(index);
  }
  Note("lets go", {{"fd", op.fd}});
  if (checker_.failed()) return;
  const uint32_t id = checker_.worker_of(connection);
  if (checker_.OnLetGo(op.fd, op.hang_up)) workers_[id].receiver->LosePlace(master);
  if (!checker_.failed()) kernel_.CloseConnection(op.fd);
}

void World::OnSendFailureTold(uint32_t master, int32_t fd, uint32_t worker, uint32_t ticket_of) {
  if (checker_.failed()) return;
  // It was given up meanwhile.
  if (masters_[master].refusing && kernel_.ConnectionOf(fd) == SimKernel::kNobody) return;
  if (!workers_[worker].at[master].in_books) Reached(Milestone::kFailedAfterLeaving);
  if (ticket_of == Checker::kNone) {
    checker_.OnSendFailureTold(fd, now_ns_);
  } else {
    checker_.OnTicketFailureTold(worker, ticket_of, now_ns_);
  }
}

uint32_t World::TicketOf(const Op& op) const {
  const uint32_t source = SourceOfToken(op.tag);
  return source < sources_.size() && sources_[source].config.readiness ? source : Checker::kNone;
}

void World::CloseRefused(int32_t fd) {
  Note("closes refused", {{"fd", fd}});
  checker_.OnRefusedClosed(fd);
  if (!checker_.failed()) kernel_.CloseConnection(fd);
}

// --- For the workers -----------------------------------------------------------------------------

void World::ScheduleStep(uint32_t worker, int64_t after_ns) {
  Schedule(after_ns, Happening::kStep, worker);
}

void World::ScheduleOwnWork(uint32_t id) {
  if (phase_ != Phase::kTraffic || prng_.Below(8) >= worker(id).config().works_of_8) return;
  Schedule(prng_.Exponential(2 * config_.workload.gap_ns_mean), Happening::kOwnWork, id);
}

void World::Serve(uint32_t worker, uint32_t connection, bool leased) {
  checker_.OnServed(worker, connection);
  if (Breaks(Breakage::kWorkerServesTwice, {1, 8})) checker_.OnServed(worker, connection);
  const int64_t lease_ns = prng_.Exponential(config_.workload.lease_ns_mean);
  if (connections_.size() <= connection) connections_.resize(connection + 1);
  Connection& it = connections_[connection];
  it = {.worker = worker,
        .source = checker_.source_of(connection),
        .leased = leased,
        .direct = checker_.installed(connection),
        .closes_in_callback = lease_ns == 0 || prng_.Chance({1, 8}),
        .in_callback = true,
        .served = true,
        .times = it.times + 1};
  if (!it.closes_in_callback) Schedule(lease_ns, Happening::kClose, connection, it.times);
}

void World::OnCallbackEnd(uint32_t worker, uint32_t connection) {
  Connection& it = connections_[connection];
  if (!it.served || it.worker != worker) return;  // it was passed on meanwhile
  it.in_callback = false;
  if (it.closes_in_callback) EndConnection(connection);
}

// Its worker closes it, or passes it on.
void World::EndConnection(uint32_t connection) {
  if (MayPassOn(connections_[connection]) && Happens(Fault::kPassedOn)) {
    PassOn(connection);
  } else {
    CloseConnection(connection);
  }
}

// As the runtime refuses it: of a source that deals tickets or was removed, of a balancer that
// shuts down, and when nobody else has joined.
bool World::MayPassOn(const Connection& connection) const {
  const Source& source = sources_[connection.source];
  return connection.leased && running_ && connection.times < kTimesPassedOnMax &&
         !connection.direct && !source.config.readiness && !source.removed &&
         !masters_[source.master].stopped &&
         std::any_of(source.joined.begin(), source.joined.end(),
                     [&](uint32_t id) { return id != connection.worker; });
}

void World::PassOn(uint32_t connection) {
  Connection& it = connections_[connection];
  it.served = false;
  Source& source = sources_[it.source];
  source.steady = false;
  Note("passes on", {{"worker", it.worker}, {"connection", connection}});
  Reached(Milestone::kPassedOn);
  checker_.OnPassedOn(connection, now_ns_);
  SimMaster& master = MasterAt(source);
  const FactsNeeded needed = source.policy->facts();
  Arrival facts;
  if (needed.incoming_cpu) facts.incoming_cpu = kernel_.FactsOf(connection).incoming_cpu;
  if (needed.peer) facts.peer = kernel_.FactsOf(connection).peer;
  facts.request_waits = connection % 2 == 0;
  const bool first = master.passed_on.empty();
  if (!Breaks(Breakage::kPassedOnForgotten, {1, 8})) {
    master.passed_on.push_back({.source = source.index,
                                .giver = it.worker,
                                .fd = kernel_.FdOf(connection),
                                .facts = facts});
  }
  if (first && !Breaks(Breakage::kPassedOnWakesNobody)) master.ring.OnKnock();
  Schedule(StepCost(), Happening::kPassOnPlace, it.worker);
}

void World::PassAllOn(uint32_t id) {
  for (uint32_t connection = 0; connection < connections_.size(); ++connection) {
    const Connection& it = connections_[connection];
    if (it.worker != id || !it.served || it.in_callback || !MayPassOn(it)) continue;
    Reached(Milestone::kPassedOnByLeaver);
    PassOn(connection);
  }
}

void World::CloseConnection(uint32_t connection) {
  Connection& it = connections_[connection];
  it.served = false;
  Note("closes", {{"worker", it.worker}, {"connection", connection}});
  checker_.OnClosed(connection);
  if (it.direct) {
    workers_[it.worker].receiver->CloseSlot();
    // A lease says that by its end.
    if (!it.leased) Schedule(StepCost(), Happening::kSayRoom, it.worker);
  } else {
    kernel_.CloseConnection(kernel_.FdOf(connection));
  }
  if (!running_) Reached(Milestone::kOutlived);
  if (it.leased) Schedule(StepCost(), Happening::kRelease, it.worker, it.source);
}

bool World::MoreWaits(uint32_t source) const {
  return !sources_[source].config.countable && kernel_.Backlog(source) > 0;
}

void World::GiveBack(uint32_t worker, uint32_t source, int32_t error) {
  Note("gives back", {{"worker", worker}, {"source", source}, {"error", error}});
  Source& of = sources_[source];
  if (error != 0 && error != EAGAIN) ++of.errors_said;
  SimMaster& master = masters_[of.master];
  AtIndex& at = master.at_index[of.index];
  if (!at.identity.Is(of.serial)) Reached(Milestone::kTicketLate);
  const bool reused = at.identity.serial() > of.serial;
  if (reused) Reached(Milestone::kTicketOfReused);
  if (at.identity.Is(of.serial)) {
    of.says_short |= IsShortage(error) && !of.is_short;
    of.says_graver |= DeniesListening(error);
  }
  const bool hides = Breaks(Breakage::kTicketHidesShortage) && IsShortage(error);
  const bool confused = reused && Breaks(Breakage::kTicketWithoutSerial);
  if (!hides) at.given_back.Say(confused ? at.identity.serial() : of.serial, error);
  master.given_back = true;
  master.ring.OnKnock();
}

void World::TellResult(uint32_t worker, uint32_t source, int32_t error) {
  const Source& of = sources_[source];
  AtIndex& at = masters_[of.master].at_index[of.index];
  if (!at.identity.Is(of.serial) || !at.given_back.Asked()) return;
  if (Breaks(Breakage::kTicketTellsNothing)) return;
  Reached(Milestone::kSuccessTold);
  if (error != 0) return GiveBack(worker, source, error);
  at.given_back.SayRedeemed(of.serial);
  masters_[of.master].given_back = true;
  masters_[of.master].ring.OnKnock();
}

int32_t World::AcceptFor(uint32_t source) {
  const Source& of = sources_[source];
  const bool late = !IdentityOf(of).Is(of.serial);
  if (late) Reached(Milestone::kTicketLate);
  if (IdentityOf(of).serial() > of.serial) Reached(Milestone::kTicketOfReused);
  if (late && !Breaks(Breakage::kTicketUsesItsNumber)) return -EAGAIN;
  const uint32_t owner = kernel_.SourceOf(of.fd);
  Arrival facts;
  return owner == SimKernel::kNobody ? -EBADF : kernel_.Accept(owner, facts);
}

void World::KeepTicket(uint32_t worker, uint32_t source) {
  Note("keeps a ticket", {{"worker", worker}, {"source", source}});
  // Often so long that the source is removed and another one added meanwhile.
  const int64_t more_ns = prng_.Chance({1, 2}) ? prng_.Between(0, 30 * kMillisecond) : 0;
  Schedule(StallTime() + more_ns, Happening::kRedeem, worker, source);
}

// The ticket is redeemed by another thread than the one that claims, perhaps after the worker has
// left.
void World::RedeemKept(uint32_t id, uint32_t source) {
  if (worker(id).dead()) return;
  Note("redeems", {{"worker", id}, {"source", source}});
  const Source& of = sources_[source];
  const bool late = !IdentityOf(of).Is(of.serial);
  const int32_t fd = AcceptFor(source);
  if (fd >= 0) {
    Reached(Milestone::kRedeemed);
    const uint32_t connection = checker_.OnRedeemed(id, fd, source, now_ns_);
    if (MoreWaits(source)) GiveBack(id, source, 0);
    TellResult(id, source, 0);
    if (connection == Checker::kNone) return;
    Serve(id, connection, /*leased=*/true);
    return OnCallbackEnd(id, connection);
  }
  // Some workers use the descriptor by themselves, and say what has come of it.
  const bool says = fd != -EAGAIN || (late && prng_.Chance({1, 2}));
  if (says) GiveBack(id, source, late ? EBADF : -fd);
  if (fd == -EAGAIN) TellResult(id, source, EAGAIN);
  ScheduleVisits(ReleasePlace(id, source), id);
  checker_.OnTicketDone(id, source, now_ns_);
  worker(id).KnockAfterTicket();
}

// If `wanted`, whoever has given the place back visits hungry desks next.
void World::ScheduleVisits(bool wanted, uint32_t id) {
  if (!wanted) return;
  checker_.OnFreedPlace(id);
  Schedule(StepCost(), Happening::kVisitDesks, id);
}

// Returns what PortState::Release says.
bool World::ReleasePlace(uint32_t id, uint32_t source) {
  const bool wanted = worker(id).Release();
  core::Gate* const gate = sources_[source].gate.get();
  if (gate != nullptr && !Breaks(Breakage::kGateForgotten, {1, 8})) gate->GiveBack();
  if (gate != nullptr && Breaks(Breakage::kGateReleasedTwice, {1, 8})) gate->GiveBack();
  GiveBackToGate(1);
  return wanted;
}

void World::Knock(uint32_t master, uint32_t worker) {
  Note("knocks", {{"master", master}, {"worker", worker}});
  Reached(Milestone::kKnock);
  masters_[master].ring.OnKnock();
}

void World::HostComesRound() {
  if (!running_) return;
  SimMaster& master = masters_.front();
  if (master.due_ns >= 0 && !master.deserted) master.at_ns = now_ns_;
}

void World::HostComesBy() {
  SimMaster& master = masters_.front();
  const bool time_is_up = now_ns_ >= master.until_ns;  // a completion, too
  if (!running_ || master.deserted || (!master.ring.HasSomething() && !time_is_up)) return;
  Reached(Milestone::kCameBy);
  RunOnce(master);
}

// Without a balancer, leaving is a matter of the worker alone.
void World::AskToLeave(uint32_t id) {
  if (!running_) return worker(id).OnLeft();
  if (Happens(Fault::kPassedOn)) PassAllOn(id);
  AskSomehow(0, {.kind = CallKind::kRemoveWorker, .worker = id});
  if (Hosts(id)) HostComesRound();  // it drives the master until it has left
}

// --- The end -------------------------------------------------------------------------------------

void World::Run() {
  SetUp();
  while (phase_ != Phase::kOver && !checker_.failed()) {
    Advance();
    if (!checker_.failed()) LookForTheEnd();
  }
  if (!checker_.failed()) Outlive();
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    const Checker::Counts& counts = checker_.counts(source);
    const auto add = [this](Milestone milestone, uint64_t count) {
      counters_.milestones[static_cast<size_t>(milestone)] += count;
    };
    add(Milestone::kRecall, counts.recalled);
    add(Milestone::kMoved, counts.moved);
    add(Milestone::kPassedOnRecalled, counts.passed_on_recalled);
    add(Milestone::kLeaveWithOffers, counts.left);
    add(Milestone::kDropped, counts.dropped - counts.gone);
    add(Milestone::kTooOldAtOnce, counts.too_old_at_once);
    add(Milestone::kGone, counts.gone);
    add(Milestone::kTicketWithdrawn, counts.withdrawn);
    add(Milestone::kSetAside, counts.nobody);
    add(Milestone::kHandedOver, counts.handed_over);
    add(Milestone::kHandedOverAgain, counts.handed_over_again);
  }
  counters_.milestones[static_cast<size_t>(Milestone::kServed)] += checker_.served();
}

bool World::Asleep() const {
  return std::all_of(masters_.begin(), masters_.end(), [](const SimMaster& master) {
    return master.doing == Doing::kSleep && !master.ring.HasSomething();
  });
}

bool World::AtRest() const {
  return events_.empty() && Asleep() &&
         std::all_of(masters_.begin(), masters_.end(), [](const SimMaster& master) {
           return master.ops.empty() && master.calls.empty() && !master.given_back &&
                  master.leaving.empty() && master.passed_on.empty();
         });
}

// Whether the master has a reason to wake although nothing happens any more. Offers that a dead
// worker has and nobody may recall grow old for ever.
bool World::ExcusedWake() const {
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (worker(id).dead() && checker_.unclaimed(id) > 0) return true;
  }
  return false;
}

void World::LookForTheEnd() {
  const bool for_ever = std::all_of(masters_.begin(), masters_.end(), [](const SimMaster& master) {
    return master.at_ns == core::kWaitForever;
  });
  if (phase_ == Phase::kTraffic) {
    if (AtRest() && for_ever) checker_.Fail("the world has come to a halt");
    return;
  }
  if (phase_ == Phase::kShutdown &&
      std::all_of(masters_.begin(), masters_.end(), [](const SimMaster& master) {
        return master.engine->IntakeEnded() && master.engine->Outstanding() == 0 &&
               master.ops.empty() && master.ring.AllReported() && master.leaving.empty() &&
               master.calls.empty() && master.passed_on.empty();
      })) {
    checker_.AtShutdown();
    Reached(Milestone::kShutDown);
    phase_ = Phase::kOver;
    return;
  }
  if (now_ns_ - traffic_ended_ns_ > kDrainNsMax) checker_.Fail("the end takes too long");
  if (!AtRest()) return;
  // A master that sleeps for a time has a retry or a back-off to do. These come to an end.
  const bool quiet = std::any_of(masters_.begin(), masters_.end(), [](const SimMaster& master) {
    return master.quiet_batches >= kQuietBatchesMax;
  });
  if (!for_ever && !quiet) return;
  if (phase_ == Phase::kShutdown) return checker_.Fail("the shutdown does not end");
  if (!for_ever && !ExcusedWake()) {
    checker_.Fail("a master wakes again and again although nothing is left to do");
  }
  FinishDrain();
}

std::vector<bool> World::Dead() const {
  std::vector<bool> dead;
  for (const WorkerEntry& entry : workers_) dead.push_back(entry.worker->dead());
  return dead;
}

void World::FinishDrain() {
  phase_ = Phase::kOver;
  checker_.AtRest(Dead());
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const Source& source = sources_[index];
    const SimMaster& master = MasterAt(source);
    const bool armed = master.ring.accepted_from(index) || master.ring.polled(index);
    const bool should = !source.removed && !kernel_.shut(index);
    if (armed != should)
      checker_.Fail(armed ? "a source is armed that nobody serves"
                          : "a source is not armed at rest");
    if (master.by_index[source.index] == index && master.engine->armed(source.index) != armed) {
      checker_.Fail("the engine takes a source for armed that is not, or the reverse");
    }
    const bool told = checker_.claimed_tickets(index) + checker_.counts(index).offered +
                          checker_.untaken_tickets(index) >
                      0;
    if (source.is_short && should && !told) {
      checker_.Fail("the end of a shortage is never reported");
    }
    const bool waits = std::any_of(source.redeemers.begin(), source.redeemers.end(),
                                   [this](uint32_t id) { return worker(id).dead(); });
    if (source.removed && !source.closed && !waits) {
      checker_.Fail("a removed source is never let go");
    }
  }
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (!worker(id).dead() && worker(id).Oversleeps()) {
      checker_.Fail("worker " + std::to_string(id) + " waits although it has been rung");
    }
  }
  CheckPlacesAtRest();
  CheckDesksAtRest();
  if (checker_.failed()) return;
  for (SimMaster& master : masters_) master.engine->CheckAll(true, keeps_its_word());
  CheckRounds();
  Reached(Milestone::kDrained);
}

// A worker that has died keeps its places; otherwise nothing has a place any more.
void World::CheckPlacesAtRest() {
  const std::vector<bool> dead = Dead();
  if (std::find(dead.begin(), dead.end(), true) != dead.end()) return;
  const auto check = [this](const core::Gate& gate, const std::string& whose) {
    if (gate.used() == 0) return;
    checker_.Fail(std::to_string(gate.used()) + " places of " + whose + " are taken at rest");
  };
  check(gate_, "the balancer");
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    if (sources_[index].gate == nullptr) continue;
    check(*sources_[index].gate, "source " + std::to_string(index));
  }
}

void World::CheckRounds() {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const Source& source = sources_[index];
    if (source.removed || source.config.policy != "round-robin" || !source.steady ||
        source.config.readiness || source.config.nobody_of_8 > 0 || source.config.strict) {
      continue;
    }
    const bool alive = std::all_of(source.joined.begin(), source.joined.end(),
                                   [this](uint32_t id) { return Live(id); });
    if (!alive) continue;
    // A place that another master has reserved costs a turn that nobody counts.
    const bool limited =
        std::any_of(source.joined.begin(), source.joined.end(),
                    [this](uint32_t id) { return worker(id).config().capacity != UINT32_MAX; });
    if (limited && masters() > 1) continue;
    // Every pick at which somebody had no credit, and every recall, may leave one turn unpaid.
    checker_.RoundIsEven(index, source.joined,
                         1 + source.policy->picks_without_all() + source.policy->recalls() +
                             (source.config.aimed ? 1 : 0));
  }
}

// The engine is destroyed while workers are in callbacks and connections are open: they end as if
// nothing had happened.
void World::Outlive() {
  running_ = false;
  for (SimMaster& master : masters_) {
    // The runtime stops the intake before every end.
    if (HasDesks()) master.engine->StopIntake();
    CheckDesks(master);
    master.engine.reset();
    master.ops.clear();
    master.calls.clear();
    for (AtIndex& at : master.at_index) at.identity.Set(0);
  }
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (worker(id).leaving()) worker(id).OnLeft();
  }
  while (!events_.empty() && !checker_.failed()) DoNext();
  checker_.AfterTheEnd(Dead());
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    // A doorbell that is still owed is rung by a master that ends. Here none has an end of its own.
    if (InAllBooks(id) && Live(id) && !workers_[id].doorbell_failed && checker_.NotTold(id)) {
      checker_.Fail("worker " + std::to_string(id) + " was not told that the intake has stopped");
    }
    const uint32_t open = worker(id).port_state().open;
    if (InAllBooks(id) && Live(id) && open != 0) {
      checker_.Fail("worker " + std::to_string(id) + " has " + std::to_string(open) +
                    " connections open after everything has ended");
    }
  }
}

}  // namespace ringmaster::sim
