#include <algorithm>
#include <cerrno>
#include <span>
#include <string>
#include <utility>

#include "core/turn.h"
#include "sim/world.h"

namespace ringmaster::sim {

using core::Completion;
using core::Op;
using core::OpKind;

namespace {

constexpr uint64_t kBatchesMax = 100'000;
constexpr int64_t kMillisecond = 1'000'000;
constexpr uint32_t kTurnsToRestMax = 1'000;

std::string_view NameOf(OpKind kind) {
  switch (kind) {
    case OpKind::kWatch:
      return "watch";
    case OpKind::kPoll:
      return "poll";
    case OpKind::kCount:
      return "count";
    case OpKind::kOverflows:
      return "overflows";
    case OpKind::kState:
      return "state";
    case OpKind::kPollEnd:
      return "poll-end";
    case OpKind::kHangUp:
      return "hang-up";
    case OpKind::kHangUpEnd:
      return "hang-up-end";
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
    case OpKind::kInstall:
      return "install";
    case OpKind::kLetGo:
      return "let-go";
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
    case core::EventKind::kSourceBlocks:
      return "event: source blocks";
    case core::EventKind::kTurnedAway:
      return "event: turned away";
    case core::EventKind::kBacklogOverflow:
      return "event: backlog overflow";
    case core::EventKind::kPolicyFailed:
      return "event: policy failed";
    case core::EventKind::kTableFull:
      return "event: table full";
    case core::EventKind::kSetAside:
      return "event: set aside";
  }
  return "";
}

// Whether the policy would take anybody who waits.
bool MovesToAnybody(std::string_view policy) {
  return policy.starts_with("round-robin") || policy.starts_with("weighted") ||
         policy.starts_with("exclusive");
}

}  // namespace

// --- Turns and batches ---------------------------------------------------------------------------

void World::SetUp() {
  for (const SimSourceConfig& config : config_.sources) AddSource(config);
  for (uint32_t index = 0; index < config_.workers.size(); ++index) {
    const int64_t at_ns = config_.workers[index].joins_at_ns;
    if (at_ns > 0) {
      CountStrike(Fault::kWorkerJoinsLate);
      Schedule(at_ns, Happening::kJoin, index);
    } else {
      const uint32_t id = AddWorker(config_.workers[index]);
      for (SimMaster& master : masters_) Introduce(master, id);
      JoinAll(id);
    }
  }
  if (config_.completion_entries <= 12) CountStrike(Fault::kCqSmall);
  ScheduleArrival();
  running_ = true;
  for (SimMaster& master : masters_) Enter(master);
}

// A master begins a turn.
void World::Enter(SimMaster& master) {
  // If completions are there already, the master does not wait.
  if (master.ring.HasSomething()) master.gather_ns = 0;
  master.ring.Enter(master.ops);
  master.ops.clear();
  SleepIn(master);
}

void World::SleepIn(SimMaster& master) {
  master.until_ns = core::After(now_ns_, master.wait_ns);
  master.gathers_until_ns = now_ns_ + master.gather_ns;
  master.doing = Doing::kTurn;
  master.at_ns = now_ns_ + TurnCost();
}

// Its time has come.
void World::Act(SimMaster& master) {
  if (config_.hosted && !worker(0).drives()) {
    if (master.due_ns < 0) master.due_ns = now_ns_;
    master.at_ns = core::kWaitForever;
    return Reached(Milestone::kHostBusy);
  }
  const auto wake = [&] {
    master.doing = Doing::kWake;
    master.at_ns = now_ns_ + MasterWakeCost();
  };
  switch (master.doing) {
    case Doing::kTurn:
      if (now_ns_ < master.gathers_until_ns) {
        Reached(Milestone::kGathered);
        master.at_ns = master.gathers_until_ns;
        return;
      }
      if (!master.ring.HasSomething() && now_ns_ < master.until_ns) {
        master.doing = Doing::kSleep;
        master.at_ns = master.until_ns;
        return;
      }
      if (prng_.Chance({1, 16})) return wake();
      break;
    case Doing::kSleep:
      if (phase_ != Phase::kTraffic && AtRest() && !LooksAfterDesks(master)) {
        ++master.quiet_batches;
      }
      return wake();
    case Doing::kWake:
      break;
  }
  RunOnce(master);
}

void World::RunOnce(SimMaster& master) {
  if (config_.hosted) return RunHosted(master);
  Batch(master);
  if (!checker_.failed()) Enter(master);
}

// A host goes on until there is nothing more to do now, as Balancer::RunOnce does, and then claims.
// It has other work, too. So after some steps it stops, although operations of the last batch are
// still pending: the next turn hands them over.
void World::RunHosted(SimMaster& master) {
  if (master.due_ns >= 0) checker_.OnHostReturns(now_ns_);
  master.busy = true;
  bool more = true;
  for (uint32_t steps = 0; more && steps < config_.host_steps_max; ++steps) {
    master.ring.Enter(master.ops);
    master.ops.clear();
    Batch(master);
    master.due_ns = -1;
    if (checker_.failed()) return;
    more = !master.ops.empty() || master.wait_ns == 0;
  }
  if (more) {
    if (!master.ops.empty()) Reached(Milestone::kOpsPending);
    master.wait_ns = 0;
  }
  master.busy = false;
  SleepIn(master);
  worker(0).OnDriven();
}

// Wakes a master that sleeps although something has arrived in its ring.
void World::WakeMasters() {
  for (SimMaster& master : masters_) {
    if (master.doing != Doing::kSleep || !master.ring.HasSomething()) continue;
    master.doing = Doing::kWake;
    master.at_ns = now_ns_ + MasterWakeCost();
  }
}

bool World::MayDesert() const {
  const SimMaster& master = masters_.front();
  return config_.hosted && running_ && !master.deserted && !master.busy && worker(0).drives();
}

// The host has left its loop, and its thread ends some time later.
void World::DesertMaster() {
  SimMaster& master = masters_.front();
  Note("the host leaves its loop");
  master.deserted = true;
  if (master.due_ns < 0) master.due_ns = now_ns_;
  master.doing = Doing::kTurn;
  master.at_ns = core::kWaitForever;
  Schedule(prng_.Chance({1, 2}) ? 0 : prng_.Between(0, 20 * kMillisecond), Happening::kHostEnds);
}

// The host's thread ends. Either what is armed is ended and what is under way comes in. Or nothing
// can be asked of the host's ring any more, which may be gone, too.
void World::EndHost() {
  SimMaster& master = masters_.front();
  if (!master.deserted || master.resting) return;
  Note("the host ends");
  Reached(Milestone::kCameToRest);
  master.resting = true;
  checker_.OnRest(master.index, true);
  master.engine->Rest();
  if (prng_.Chance({1, 2})) {
    LoseRing(master);
  } else {
    ComeToRest(master);
  }
  Schedule(prng_.Between(0, 30 * kMillisecond), Happening::kHostFollows);
}

void World::ComeToRest(SimMaster& master) {
  master.busy = true;
  const auto comes = [&master] {
    return master.engine->AtRest() && master.ops.empty() && master.ring.AllReported();
  };
  for (uint32_t turns = 0; turns == 0 || !comes(); ++turns) {
    master.ring.Enter(master.ops);
    master.ops.clear();
    Batch(master);
    if (turns == kTurnsToRestMax) checker_.Fail("a master does not come to rest");
    if (checker_.failed()) return;
  }
  master.busy = false;
}

// Does what the runtime does when a loan ends.
void World::LoseRing(SimMaster& master) {
  Reached(Milestone::kRingLost);
  std::vector<Op> pending = master.ring.Lose();
  pending.insert(pending.end(), master.ops.begin(), master.ops.end());
  master.ops.clear();
  do {
    if (master.engine->RoomForEach() == 0) master.engine->MakeRoom();
    master.ring.TakeRemaining(master.completions, master.engine->RoomForEach());
    BatchAtRest(master, /*all_reported=*/false);
  } while (!checker_.failed() && !master.completions.empty());
  master.completions.clear();
  for (const Op& op : pending) {
    if (op.key.kind == OpKind::kClose) CloseRefused(op.fd);
    if (op.key.kind != OpKind::kDoorbell && op.key.kind != OpKind::kSend) continue;
    master.completions.push_back({.key = op.key, .result = -ECANCELED});
    if (op.key.kind == OpKind::kDoorbell) {
      const uint32_t id = kernel_.WorkerOf(op.fd);
      if (id != SimKernel::kNobody) workers_[id].doorbell_failed = true;
      continue;
    }
    const uint32_t ticket_of = TicketOf(op);
    if (ticket_of == Checker::kNone) checker_.OnSendFailed(op.sent);
    // The worker may have left, and its ring's number be gone.
    OnSendFailureTold(master.index, op.sent, WorkerOfToken(op.tag), ticket_of);
  }
  master.engine->ForgetRing();
  BatchAtRest(master, /*all_reported=*/true);
}

// Nobody drives the master, so nothing can be asked of its ring: not even to close something.
void World::BatchAtRest(SimMaster& master, bool all_reported) {
  if (checker_.failed()) return;
  TakeBatch(master, all_reported);
  for (const Op& op : master.ops) {
    const bool ends = op.key.kind == OpKind::kPollEnd || op.key.kind == OpKind::kHangUpEnd ||
                      op.key.kind == OpKind::kAcceptEnd;
    if (op.key.kind == OpKind::kClose) {
      CloseRefused(op.fd);
    } else if (all_reported || !ends) {  // what was armed is forgotten with the ring
      checker_.Fail("a master at rest asks its ring for something");
    }
  }
  master.ops.clear();
}

// Another thread drives the master from now on.
void World::FollowHost() {
  SimMaster& master = masters_.front();
  if (!std::exchange(master.resting, false)) return;
  master.deserted = false;
  Note("a host follows");
  checker_.OnRest(master.index, false);
  master.engine->GoOn();
  master.doing = Doing::kWake;
  master.at_ns = now_ns_;
}

void World::Batch(SimMaster& master) {
  master.in_batch = true;
  master.ring.Leave(master.completions, master.engine->RoomForEach());
  TakeBatch(master, master.ring.AllReported());
  master.in_batch = false;
}

struct World::TurnCaller {
  bool AllReported() const { return all_reported; }
  bool KeepsBack() const { return master.ring.KeepsBack(); }
  bool LeaversWait() const {
    return !master.leaving.empty() && !master.engine->InstallsAtLeavers();
  }
  void LetGoOfRings() const { world.FinishLeaves(master); }
  // In a world in which something is wrong already, nothing more happens.
  bool RunCalls() const {
    world.RunCalls(master);
    world.DropWhatSwitched(master);
    return !world.checker_.failed();
  }
  std::span<const core::PassedOn> PassedOn() const { return world.TakePassedOn(master); }
  bool AnythingGivenBack() const { return std::exchange(master.given_back, false); }
  core::GivenBack& given_back(uint32_t source) const { return master.at_index[source].given_back; }
  // This comes after the checker has seen what the batch has done.
  void TellOthers() { places_freed = true; }
  void TellOfWaiter() { waiter_got_place = true; }

  World& world;
  SimMaster& master;
  const bool all_reported;
  bool places_freed = false;
  bool waiter_got_place = false;
};

// Whoever has passed something on may have left meanwhile, and another worker have its index.
std::span<const core::PassedOn> World::TakePassedOn(SimMaster& master) {
  master.passed_on_now.clear();
  for (const PassedOn& it : master.passed_on) {
    const bool known =
        workers_[it.giver].at[master.index].in_books && !breaks(Breakage::kMasterForgetsGivers);
    const uint32_t giver = known ? worker(it.giver).engine_index : UINT32_MAX;
    master.passed_on_now.push_back(
        {.source = it.source, .fd = it.fd, .giver = giver, .facts = it.facts});
    checker_.OnTakenIn(it.fd);
    Note("takes in", {{"fd", it.fd}});
    if (master.passed_on_now.size() > 1) Reached(Milestone::kPassedOnTogether);
  }
  master.passed_on.clear();
  return checker_.failed() ? std::span<const core::PassedOn>() : master.passed_on_now;
}

void World::TakeInPassedOn(SimMaster& master) {
  const std::span<const core::PassedOn> passed_on = TakePassedOn(master);
  if (!passed_on.empty()) master.engine->PassOn(passed_on, now_ns_);
}

// When the switch of a policy is broken on purpose, it loses what comes in the same batch.
void World::DropWhatSwitched(SimMaster& master) {
  if (!master.switched || !Breaks(Breakage::kSwitchDropsArrival)) return;
  std::erase_if(master.completions, [](const Completion& completion) {
    return completion.key.kind == OpKind::kAcceptEach && completion.result >= 0 && completion.more;
  });
}

void World::TakeBatch(SimMaster& master, bool all_reported) {
  checker_.OnBatchBegins(now_ns_);
  TakeIn(master);
  Misread(master);
  CheckCalls(master);
  checker_.BeforeBatch(master.index, master.due_ns >= 0 ? master.due_ns : now_ns_);
  TurnCaller caller{*this, master, all_reported};
  if (!all_reported && !master.handed.empty()) Reached(Milestone::kReportedLate);
  const bool room = core::TakeTurn(*master.engine, caller, master.completions, now_ns_, master.ops);
  if (checker_.failed()) return;
  if (room) Reached(Milestone::kRoomMade);
  if (++counters_.batches > kBatchesMax) checker_.Fail("too many batches: a master spins");
  master.handed.clear();
  master.closed.clear();
  for (const Op& op : master.ops) {
    if (op.key.kind == OpKind::kClose || op.hang_up) master.closed.push_back(op.fd);
    if (op.key.kind == OpKind::kAccept || op.key.kind == OpKind::kCount) {
      checker_.OnAsked(master.by_index[op.key.index]);
    }
    if (op.key.kind != OpKind::kSend && op.key.kind != OpKind::kInstall) continue;
    master.handed.push_back(
        {.worker = kernel_.WorkerOf(op.fd), .fd = op.sent, .ticket_of = TicketOf(op)});
  }
  if (breaks(Breakage::kMasterForgetsTook) &&
      master.engine->WaitsOnlyFor(core::Waits::For::kTook)) {
    master.hunger.Clear();
  }
  const bool forgets = breaks(Breakage::kMasterForgetsAside) &&
                       master.engine->WaitsOnlyFor(core::Waits::For::kPolicy);
  if (forgets) master.hunger.Clear();
  if (breaks(Breakage::kMasterForgetsOthers) &&
      master.engine->WaitsOnlyFor(core::Waits::For::kOthers)) {
    master.hunger.Clear();
  }
  NotePromises();
  if (caller.places_freed) TellOthers(master);
  if (caller.waiter_got_place) ShowWaiter();
  NoteDesks(master);
  checker_.AfterBatch(master.index, master.handed, master.closed, all_reported, now_ns_);
  NoteOps(master);
  NoteEvents(master);
  CheckShortages(master);
  checker_.CheckStalls(master.index, now_ns_);
  CloseRemoved(master);
  if (checker_.failed()) return;
  CompareBooks(master);
  CheckDesks(master);
  if (checker_.failed()) return;
  CountStates(master);
  master.engine->CheckAll(false, keeps_its_word());
  master.wait_ns = core::WaitAfterTurn(*master.engine, caller, now_ns_);
  // Where sources are aimed it has more to look at than ages.
  if (breaks(Breakage::kMasterNeverLooksAtAge) && !HasDesks() && master.wait_ns > 0) {
    master.wait_ns = core::kWaitForever;
  }
  if (forgets && master.wait_ns > 0) master.wait_ns = core::kWaitForever;
  if (breaks(Breakage::kMasterNeverLooksAtDesk) && LooksAfterDesks(master) && master.wait_ns > 0) {
    master.wait_ns = core::kWaitForever;
  }
  // The master does not decide when its host sleeps.
  master.gather_ns = config_.hosted ? 0 : std::min(master.wait_ns, master.engine->Gather(now_ns_));
  Note("waits", {{"master", master.index},
                 {"for_ns", master.wait_ns == core::kWaitForever ? -1 : master.wait_ns}});
}

void World::NotePromises() {
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    uint32_t promised = 0;
    for (const SimMaster& each : masters_) {
      if (workers_[id].at[each.index].in_books) {
        promised += each.engine->promised(worker(id).engine_index);
      }
    }
    checker_.OnPromised(id, promised, now_ns_);
  }
}

// Tells the other masters that this one has given back places, which they may wait for.
void World::TellOthers(const SimMaster& master) {
  if (Breaks(Breakage::kMasterTellsNobody)) return;
  for (SimMaster& other : masters_) {
    if (other.index == master.index || !other.hunger.HearKnock()) continue;
    Note("tells", {{"master", other.index}});
    Reached(Milestone::kMasterTold);
    other.ring.OnKnock();
  }
}

// A worker that had no place, and says that it waits, has got one.
void World::ShowWaiter() {
  if (Breaks(Breakage::kFreedPlaceStaysHidden)) return;
  for (SimMaster& each : masters_) {
    if (!each.hunger.HearKnockOfWaiter()) continue;
    Note("shows a waiter", {{"master", each.index}});
    Reached(Milestone::kWaiterWanted);
    each.ring.OnKnock();
  }
  VisitHungryDesks();
}

void World::TakeIn(const SimMaster& master) {
  for (const Completion& completion : master.completions) {
    const OpKind kind = completion.key.kind;
    Note(NameOf(kind), {{"completes", completion.result},
                        {"index", completion.key.index},
                        {"more", completion.more}});
    if ((kind == OpKind::kAccept || kind == OpKind::kAcceptEach) && completion.result >= 0) {
      checker_.OnReported(master.by_index[completion.key.index], completion.result);
    }
    if (kind == OpKind::kAccept || kind == OpKind::kCount) {
      checker_.OnAnswered(master.by_index[completion.key.index], completion.result > 0);
    }
    if (kind == OpKind::kPoll && completion.result >= 0) {
      if (master.engine->aimed(completion.key.index)) Reached(Milestone::kQuietDesk);
      checker_.OnEdge(master.by_index[completion.key.index]);
    }
  }
}

// Changes the completions as a master that is broken on purpose reads them.
void World::Misread(SimMaster& master) {
  for (Completion& completion : master.completions) {
    if (breaks(Breakage::kMasterOverlooksHangUps)) completion.gone = false;
    if (completion.came_at_ns == 0) continue;
    if (breaks(Breakage::kMasterCountsFromAccept)) completion.came_at_ns = 0;
    if (breaks(Breakage::kMasterCountsTooMuch)) completion.came_at_ns -= kMillisecond;
  }
}

void World::NoteOps(const SimMaster& master) {
  for (const Op& op : master.ops) {
    Note(NameOf(op.key.kind), {{"submitted for fd", op.fd}, {"index", op.key.index}});
    const OpKind kind = op.key.kind;
    if (kind == OpKind::kWatch || kind == OpKind::kDoorbell || kind == OpKind::kSend) continue;
    if (kind == OpKind::kInstall || kind == OpKind::kLetGo) continue;
    const uint32_t index = master.by_index[op.key.index];
    const Source& source = sources_[index];
    if (kind == OpKind::kClose) {
      if (master.refusing) Reached(Milestone::kRefused);
      if (!master.refusing && source.removed) Reached(Milestone::kRefusedOfRemoved);
      continue;
    }
    if (kind == OpKind::kOverflows) {
      if (source.removed || master.stopped) checker_.Fail("a source is asked that is let go");
      continue;
    }
    const bool ends =
        kind == OpKind::kPollEnd || kind == OpKind::kAcceptEnd || kind == OpKind::kHangUpEnd;
    const bool wanted = checker_.started(index) && !source.paused && !source.removed &&
                        !master.stopped && (!source.given_up || kind == OpKind::kState) &&
                        !source.joined.empty();
    if (!ends && !wanted) {
      checker_.Fail(checker_.started(index)
                        ? "a source is taken in that is paused, removed, stopped or without workers"
                        : "a source is taken in that waits for workers");
    }
    if (!ends || !wanted) continue;
    if (kind == OpKind::kPollEnd) Reached(Milestone::kPollEnded);
    if (kind != OpKind::kAcceptEnd) continue;
    if (checker_.counts(index).held >= source.config.hold) Reached(Milestone::kHoldLimit);
    constexpr uint8_t kOfPolicies = core::kFactIncomingCpu | core::kFactPeer;
    if (core::FactBits(source.policy->facts()) != (op.key.facts & kOfPolicies)) {
      Reached(Milestone::kArmedForFacts);
    }
  }
}

void World::NoteEvents(SimMaster& master) {
  for (const core::EngineEvent& event : master.engine->events()) {
    Note(NameOf(event.kind), {{"source", event.source}, {"worker", event.worker}});
    switch (event.kind) {
      case core::EventKind::kOutOfDescriptors:
        Reached(Milestone::kBackOff);
        OnShortage(master, event.source, true);
        break;
      case core::EventKind::kAccepting:
        Reached(Milestone::kShortageEnded);
        OnShortage(master, event.source, false);
        break;
      case core::EventKind::kWorkerStalled:
        if (breaks(Breakage::kMasterHidesStalls)) break;
        Reached(Milestone::kStallReported);
        for (const WorkerEntry& entry : workers_) {
          if (!entry.at[master.index].in_books || entry.worker->engine_index != event.worker) {
            continue;
          }
          checker_.OnStallSaid(entry.worker->id(), master.index, true);
          if (event.recalled) {
            Reached(Milestone::kStallRelieved);
          } else if (entry.receiver == nullptr) {
            Reached(event.serving ? Milestone::kStallInClaim : Milestone::kStallInSilence);
          }
          if (entry.receiver != nullptr) {
            Reached(Milestone::kStallOfReceiver);
          } else if (entry.worker->dead()) {
            Reached(Milestone::kRecallFromDead);
          }
        }
        break;
      case core::EventKind::kWorkerMoves:
        Reached(Milestone::kMotionReported);
        for (const WorkerEntry& entry : workers_) {
          if (entry.at[master.index].in_books && entry.worker->engine_index == event.worker) {
            checker_.OnStallSaid(entry.worker->id(), master.index, false);
          }
        }
        break;
      case core::EventKind::kSourceFailed: {
        const uint32_t index = master.by_index[event.source];
        if (!kernel_.shut(index)) {
          checker_.Fail("a source was given up although nothing is wrong with it");
        }
        if (sources_[index].given_up) checker_.Fail("a source is given up a second time");
        Reached(Milestone::kSourceGivenUp);
        if (kernel_.local(index)) Reached(Milestone::kLocalGivenUp);
        if (kernel_.Backlog(index) > 0) Reached(Milestone::kGivenUpWithBacklog);
        sources_[index].given_up = true;
        checker_.OnSourceGivenUp(index);
        break;
      }
      case core::EventKind::kTurnedAway:
        Reached(Milestone::kTurnedAway);
        if (keeps_its_word()) {
          checker_.Fail("a connection is turned away although the ring keeps its word");
        }
        break;
      case core::EventKind::kBacklogOverflow:
        Reached(Milestone::kOverflowReported);
        checker_.OnOverflowReported(master.by_index[event.source]);
        break;
      case core::EventKind::kPolicyFailed:
        checker_.Fail(master.engine->policy_fault(event.source));
        break;
      case core::EventKind::kSetAside:
        Reached(Milestone::kSetAsideSaid);
        break;
      case core::EventKind::kTableFull:
      case core::EventKind::kSourceBlocks:
      case core::EventKind::kDoorbellFailed:
        break;
    }
  }
  master.engine->ClearEvents();
}

// Each episode begins, and ends before the next one begins.
void World::OnShortage(const SimMaster& master, uint32_t index, bool begins) {
  bool& is_short = sources_[master.by_index[index]].is_short;
  if (is_short == begins) {
    checker_.Fail(begins ? "a shortage begins that has begun before"
                         : "a shortage ends that has not begun");
  }
  is_short = begins;
  if (begins) sources_[master.by_index[index]].says_short = false;
}

void World::CheckShortages(const SimMaster& master) {
  for (const uint32_t index : master.by_index) {
    Source& source = sources_[index];
    const bool hidden = std::exchange(source.says_short, false);
    // The engine asks about the graver error first, and nobody hears of what is let go.
    const bool graver = std::exchange(source.says_graver, false);
    if (!hidden || graver || source.removed || source.given_up || master.stopped) continue;
    checker_.Fail("a worker ran out of descriptors, and nobody was told");
  }
}

// Compares the engine's books with the checker's. The engine may not know of a claim yet.
void World::CompareBooks(const SimMaster& master) {
  for (const uint32_t index : master.by_index) {
    const core::SourceCount& books = master.engine->ledger().source(sources_[index].index);
    const Checker::Counts& counts = checker_.counts(index);
    if (sources_[index].config.readiness) {
      // Tickets: how many were issued is the engine's own affair.
      if (books.offered < counts.offered) checker_.Fail("the engine forgets tickets");
      if (master.engine->intake(sources_[index].index).errors > sources_[index].errors_said &&
          master.by_index[sources_[index].index] == index) {
        checker_.Fail("a source has an error that none of its tickets has said");
      }
      continue;
    }
    const bool by_index = master.by_index[sources_[index].index] == index;
    if (by_index && master.engine->ByPermitOf(sources_[index].index) != counts.by_permit) {
      checker_.Fail("the engine miscounts what was accepted by permits");
    }
    // A connection that is too old when it would be refused anyway may be dropped or refused.
    const bool refuses = master.refusing || sources_[index].removed;
    if (books.aside > checker_.aside(index)) {
      checker_.Fail("the engine has set aside what its policy has picked somebody for");
    }
    if (books.aside >= std::clamp(sources_[index].config.hold, 1u, 1024u)) {
      Reached(Milestone::kAsideFull);
    }
    if (books.dropped + books.refused != counts.dropped + counts.refused ||
        (!refuses && books.dropped != counts.dropped) || books.arrivals != counts.reported ||
        books.passed_on != counts.passed_on || books.gone != counts.gone ||
        books.held != counts.held || books.claimed > counts.claimed ||
        books.offered < counts.offered) {
      checker_.Fail("the engine's books differ from what has happened");
    }
  }
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (!InAllBooks(id)) continue;
    const uint32_t open = worker(id).port_state().open;
    uint32_t expected = checker_.open(id) + worker(id).places_in_hand();
    for (const SimMaster& each : masters_)
      expected += each.engine->promised(worker(id).engine_index);
    if (open != expected) {
      checker_.Fail("worker " + std::to_string(id) + " has another number of connections open (" +
                    std::to_string(expected) + ") than its state says (" + std::to_string(open) +
                    ")");
    }
  }
}

void World::CountStates(const SimMaster& master) {
  for (const uint32_t source : master.by_index) {
    if (master.engine->waits_for_others(sources_[source].index)) {
      Reached(Milestone::kWaitsForOthers);
    }
  }
  for (const Source& source : sources_) {
    if (source.gate != nullptr && source.gate->Full()) Reached(Milestone::kSourceFull);
  }
  if (gate_.limited() && gate_.Full()) Reached(Milestone::kBalancerFull);
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    const WorkerEntry& entry = workers_[id];
    const AtMaster& at = entry.at[master.index];
    if (!at.in_books) continue;
    if (checker_.open(id) == at.capacity) Reached(Milestone::kCapacity);
    if (master.engine->promised(entry.worker->engine_index) > 0) Reached(Milestone::kPromised);
    if (master.engine->window(entry.worker->engine_index) < at.window) {
      Reached(Milestone::kWindowShrunk);
    }
    if (entry.receiver != nullptr && checker_.unclaimed(id, master.index) == at.window) {
      Reached(Milestone::kWindowFull);
    }
  }
}

// --- What others ask of it -----------------------------------------------------------------------

// A call about a source is for its master. A new worker comes to the first master first.
void World::Ask(const Call& call) {
  const bool of_source = call.kind != CallKind::kAddWorker;
  AskSomehow(of_source ? sources_[call.source].master : 0, call);
}

// With a host, some of the calls are the host's own, at a moment when it is neither in a turn nor
// in a claim. Such a call is done in the middle of a turn, as a call of another thread is.
void World::AskSomehow(uint32_t master, const Call& call) {
  SimMaster& at = masters_[master];
  if (!config_.hosted || !running_ || at.busy || at.deserted || !worker(0).drives() ||
      !prng_.Chance({1, 2})) {
    return AskAt(master, call);
  }
  Reached(Milestone::kHostCalled);
  if (!at.ops.empty()) Reached(Milestone::kCalledMeanwhile);
  Note("calls", {{"what is pending", static_cast<int64_t>(at.ops.size())}});
  if (breaks(Breakage::kHostCallsBetweenTurns)) {
    Run(at, call);
  } else {
    at.calls.push_back(call);
  }
  if (!checker_.failed()) RunHosted(at);
}

void World::AskAt(uint32_t master, const Call& call) {
  SimMaster& at = masters_[master];
  at.calls.push_back(call);
  at.ring.OnKnock();
  // If nobody drives the master, the caller does it alone, and the next batch sees to what follows.
  if (!at.resting || at.busy) return;
  Reached(Milestone::kCalledAtRest);
  checker_.OnBatchBegins(now_ns_);
  RunCalls(at);
}

void World::RunCalls(SimMaster& master) {
  master.calls_running.clear();
  std::swap(master.calls_running, master.calls);
  for (const Call& call : master.calls_running) {
    if (!checker_.failed()) Run(master, call);
  }
}

// Refuses what the runtime refuses: what concerns a source or a worker that is gone, and everything
// new once the balancer shuts down.
void World::Run(SimMaster& master, const Call& call) {
  const bool source_gone = call.source < sources_.size() && sources_[call.source].removed;
  const bool worker_gone =
      call.worker < workers_.size() && !workers_[call.worker].at[master.index].in_books;
  switch (call.kind) {
    case CallKind::kAddWorker:
      if (!master.stopped) Introduce(master, AddWorker(worker_configs_[call.worker]));
      return;
    case CallKind::kIntroduce:
      if (!master.stopped) Introduce(master, call.worker);
      return;
    case CallKind::kRemoveWorker:
      if (worker_gone) return;
      RemoveWorker(master, call.worker);
      return FinishLeaves(master);
    case CallKind::kJoin:
      if (!master.stopped && !source_gone && !worker_gone) JoinSource(call.source, call.worker);
      return;
    case CallKind::kLeave:
      if (!source_gone && !worker_gone) LeaveSource(call.source, call.worker);
      return;
    case CallKind::kSetCapacity:
      if (worker_gone) return;
      return SetLimits(master, call.worker, workers_[call.worker].at[master.index].window,
                       call.value);
    case CallKind::kSetWindow:
      if (worker_gone) return;
      return SetLimits(master, call.worker, call.value,
                       workers_[call.worker].at[master.index].capacity);
    case CallKind::kAddSource: {
      SimSourceConfig config = DrawSource(prng_);
      config.master = master.index;
      // This is not drawn, so that the worlds in seeds.txt stay as they were.
      config.local = !config.countable && sources_.size() % 2 == 1;
      config.nobody_of_8 = config_.sources[0].nobody_of_8;
      config.strict = config_.sources[0].strict;
      if (config_.sources[0].aimed) {
        MakeAimable(prng_, config);
        config.recall |= config_.faults[Fault::kWorkerDies].n > 0;
      }
      if (master.stopped) return;
      // What was passed on of a source that is removed by now is taken in before its index is free.
      TakeInPassedOn(master);
      AddSource(config);
      return;
    }
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
      return Replace(master);
    case CallKind::kStopIntake:
      return StopIntake(master);
    case CallKind::kRefuseAll:
      Note("refuses all", {{"master", master.index}});
      master.refusing = true;
      master.engine->RefuseAll();
      return checker_.OnRefuseAll(master.index, now_ns_);
  }
}

// The lowest index that no engine has in use.
uint32_t World::FreeIndex() const {
  for (uint32_t index = 0;; ++index) {
    const bool used = std::any_of(workers_.begin(), workers_.end(), [&](const WorkerEntry& entry) {
      return entry.worker->engine_index == index &&
             std::any_of(entry.at.begin(), entry.at.end(),
                         [](const AtMaster& at) { return at.in_books; });
    });
    if (!used) return index;
  }
}

bool World::InAllBooks(uint32_t id) const {
  const std::vector<AtMaster>& at = workers_[id].at;
  return std::all_of(at.begin(), at.end(), [](const AtMaster& it) { return it.in_books; });
}

// No master knows the worker yet.
uint32_t World::AddWorker(const SimWorkerConfig& config) {
  const auto id = static_cast<uint32_t>(workers_.size());
  const uint32_t index = FreeIndex();
  WorkerEntry& entry = workers_.emplace_back();
  entry.at.resize(masters(), {.window = config.window, .capacity = config.capacity});
  if (config.completions) {
    auto receiver = std::make_unique<CompletionWorker>(this, id, config);
    entry.receiver = receiver.get();
    entry.worker = std::move(receiver);
  } else {
    entry.worker = std::make_unique<InboxWorker>(this, id, config);
  }
  SimWorker& worker = *entry.worker;
  worker.engine_index = index;
  std::vector<CheckedBox> boxes;
  for (uint32_t master = 0; master < masters() && worker.permits() != nullptr; ++master) {
    entry.sights.push_back(kernel_.OpenSight(id));
  }
  for (uint32_t master = 0; master < masters(); ++master) {
    worker.ring_fds.push_back(kernel_.OpenRing(id));
    if (worker.ring_fds.back() <= ring_fd_max_) Reached(Milestone::kRingNumberReused);
    ring_fd_max_ = std::max(ring_fd_max_, worker.ring_fds.back());
    core::WorkerConfig unused;
    boxes.push_back({.window = config.window, .capacity = config.capacity});
    worker.Introduce(master, unused, boxes.back());
  }
  checker_.AddWorker(boxes);
  checker_.OnIdle(id, now_ns_);
  if (worker.GivesHints()) checker_.OnHint(id, /*waiting=*/true, now_ns_);
  Note("adds", {{"worker", id}, {"index", index}});
  return id;
}

// Introduces the worker to one master after the other, as the runtime does. Then the worker joins.
void World::Introduce(SimMaster& master, uint32_t id) {
  SimWorker& worker = this->worker(id);
  AtMaster& at = workers_[id].at[master.index];
  core::WorkerConfig config{.state = &worker.port_state(),
                            .ring_fd = Hosts(id) ? -1 : worker.ring_fds[master.index],
                            .tag = Tag(id),
                            .capacity = at.capacity,
                            .window_max = at.window,
                            .cpu = worker.config().cpu,
                            .index = worker.engine_index};
  if (PermitUser* const permits = worker.permits(); permits != nullptr) {
    config.sight = workers_[id].sights[master.index];
    config.permits = &permits->of(master.index);
  }
  CheckedBox known;
  worker.Introduce(master.index, config, known);
  const uint32_t slots = master.engine->worker_slots();
  if (master.engine->AddWorker(config) < slots) Reached(Milestone::kIndexReused);
  at.in_books = true;
  Note("introduces",
       {{"master", master.index}, {"worker", id}, {"ring_fd", worker.ring_fds[master.index]}});
  if (!running_) return;  // set-up goes on by itself
  if (master.index + 1 < masters()) {
    AskAt(master.index + 1, {.kind = CallKind::kIntroduce, .worker = id});
  } else {
    JoinAll(id);
  }
}

void World::JoinAll(uint32_t id) {
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    if ((worker(id).config().sources >> (source % 8) & 1) == 0) continue;
    if (masters() == 1 || !running_) {
      JoinSource(source, id);
    } else {
      Ask({.kind = CallKind::kJoin, .source = source, .worker = id});
    }
  }
  // One doorbell comes at once, as a proof that the ring can be rung.
  Schedule(WorkerWakeCost(), Happening::kWake, id);
}

void World::RemoveWorker(SimMaster& master, uint32_t id) {
  Note("removes", {{"master", master.index}, {"worker", id}});
  master.engine->RemoveWorker(worker(id).engine_index);
  workers_[id].at[master.index].in_books = false;
  checker_.OnLeft(id, master.index, now_ns_);
  master.leaving.push_back(id);
  for (Source& source : sources_) {
    if (source.master == master.index && std::erase(source.joined, id) > 0) source.steady = false;
  }
  if (master.index > 0 || phase_ != Phase::kTraffic || prng_.Chance({1, 4})) return;
  worker_configs_.push_back(worker(id).config());
  Schedule(prng_.Between(0, 10 * kMillisecond), Happening::kJoin,
           static_cast<uint32_t>(worker_configs_.size() - 1));
}

// A master closes its number of the worker's ring when nothing that was submitted can use it any
// more. Then the next master does so. After the last, the worker is told that its ring is its own.
void World::FinishLeaves(SimMaster& master) {
  if (!master.ring.AllReported() && !breaks(Breakage::kMasterClosesRingTooEarly)) return;
  if (master.engine->InstallsAtLeavers() && !breaks(Breakage::kLeaverDoesNotWait)) return;
  for (const uint32_t id : master.leaving) {
    Note("lets go", {{"master", master.index}, {"worker", id}});
    kernel_.CloseRing(worker(id).ring_fds[master.index]);
    if (worker(id).permits() != nullptr) kernel_.CloseSight(workers_[id].sights[master.index]);
    if (master.index + 1 < masters()) {
      AskAt(master.index + 1, {.kind = CallKind::kRemoveWorker, .worker = id});
      continue;
    }
    if (workers_[id].receiver != nullptr) {
      workers_[id].receiver->KeepRing();
      for (SimMaster& each : masters_) {
        if (each.hunger.HearKnock()) Knock(each.index, id);
      }
    }
    worker(id).OnLeft();
  }
  master.leaving.clear();
}

void World::AddSource(SimSourceConfig config) {
  // A worker that dies keeps its places for ever.
  if (config_.faults[Fault::kWorkerDies].n > 0) config.capacity = 0;
  const auto id = static_cast<uint32_t>(sources_.size());
  const int32_t fd = kernel_.Listen(id, config.backlog_max, config.local);
  for (SimMaster& master : masters_) master.ring.OnListen();
  SimMaster& master = masters_[config.master % masters()];
  std::unique_ptr<WatchedPolicy> policy = MakePolicy(config.policy, id, config);
  WatchedPolicy* const watched = policy.get();
  std::unique_ptr<core::Gate> gate;
  if (config.capacity > 0) {
    gate = std::make_unique<core::Gate>();
    gate->Limit(config.capacity);
  }
  const uint32_t next = master.engine->NextSource();
  if (next == master.at_index.size()) master.at_index.emplace_back();
  SimDesk* const desk = config.aimed ? PrepareDesk(master, next, id) : nullptr;
  const uint32_t index = master.engine->AddSource(
      next, {.fd = fd,
             .intake = {.kind = config.readiness          ? core::IntakeKind::kReadiness
                                : config.multishot_accept ? core::IntakeKind::kAccept
                                                          : core::IntakeKind::kPollAccept,
                        .hides_end = config.local && config.multishot_accept},
             .countable = config.countable,
             .tells_overflows = true,
             .hold = (breaks(Breakage::kMasterAsksTooMuch) ? 4 : 1) * config.hold,
             .recall = config.recall,
             .start_workers = breaks(Breakage::kSourceStartsEarly)  ? 1
                              : breaks(Breakage::kSourceStartsLate) ? config.start_workers + 1
                                                                    : config.start_workers,
             .gate = gate.get(),
             .age_max_ns = config.age_max_ns,
             .age_facts = config.tells_age ? core::kFactCame : core::kFactGone,
             .policy = std::move(policy),
             .desk = desk != nullptr ? &desk->desk : nullptr,
             .sights = desk != nullptr ? &desk->sights : nullptr,
             .hungry = &master.hungry_desks});
  checker_.AddSource({.master = master.index,
                      .recall = config.recall,
                      .tickets = config.readiness,
                      .countable = config.countable,
                      .exact = !config.multishot_accept,
                      .capacity = config.capacity,
                      .age_max_ns = config.age_max_ns,
                      .tells_age = config.tells_age,
                      .reluctant = config.nobody_of_8 > 0 || config.strict,
                      .moves = MovesToAnybody(config.policy),
                      .aside_max = std::clamp(config.hold, 1u, 1024u),
                      .start_workers = config.start_workers},
                     index);
  std::vector<uint32_t>& by_index = master.by_index;
  if (index < by_index.size()) {
    Reached(Milestone::kSourceIndexReused);
    by_index[index] = id;
  } else {
    const bool removed = std::any_of(by_index.begin(), by_index.end(),
                                     [this](uint32_t source) { return sources_[source].removed; });
    if (removed) Reached(Milestone::kSourceIndexKept);
    by_index.push_back(id);
  }
  sources_.push_back({.master = master.index,
                      .index = index,
                      .serial = master.engine->source_serial(index),
                      .fd = fd,
                      .config = config,
                      .gate = std::move(gate),
                      .policy = watched});
  IdentityOf(sources_.back()).Set(sources_.back().serial);
  Note("adds", {{"source", id}, {"master", master.index}, {"index", index}, {"fd", fd}});
  for (uint32_t worker = 0; worker < workers_.size(); ++worker) {
    if ((this->worker(worker).config().sources >> (id % 8) & 1) != 0) JoinSource(id, worker);
  }
}

void World::RemoveSource(uint32_t index) {
  Note("removes", {{"source", index}});
  Source& source = sources_[index];
  if (!source.joined.empty()) Reached(Milestone::kSourceRemoved);
  source.removed = true;
  IdentityOf(source).Set(0);
  MasterAt(source).engine->RemoveSource(source.index);
  // Not before the engine has let go of the source: until then workers may begin to redeem.
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    if (worker(id).permits() == nullptr || worker(id).port_state().redeeming == 0) continue;
    source.redeemers.push_back(id);
    Reached(Milestone::kRemovedWhileRedeemed);
  }
  checker_.OnSourceRemoved(index, now_ns_);
  CloseRemoved(MasterAt(source));
}

// The thread that removed a source may close its listener once the intake has ended.
void World::CloseRemoved(const SimMaster& master) {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Source& source = sources_[index];
    if (source.master != master.index || !source.removed || source.closed ||
        !master.engine->IntakeEnded(source.index) || !source.redeemers.empty()) {
      continue;
    }
    Note("closes listener", {{"source", index}, {"fd", source.fd}});
    if (master.ring.polled(index) || master.ring.accepted_from(index) ||
        master.ring.end_watched(index)) {
      checker_.Fail("a removed source is let go while it is armed");
    }
    source.closed = true;
    kernel_.CloseListener(index);
  }
}

std::unique_ptr<WatchedPolicy> World::MakePolicy(std::string_view name, uint32_t source,
                                                 const SimSourceConfig& config) {
  absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(name);
  if (!policy.ok()) checker_.Fail("there is no policy " + std::string(name));
  // At its own master, which alone asks it.
  const auto worker_at = [this, master = config.master % masters()](uint32_t index) {
    for (const WorkerEntry& entry : workers_) {
      if (entry.at[master].in_books && entry.worker->engine_index == index) {
        return entry.worker->id();
      }
    }
    return Checker::kNone;
  };
  return std::make_unique<WatchedPolicy>(policy.ok() ? *std::move(policy) : LeastLoaded(),
                                         &checker_, breaks(Breakage::kPolicySkipsOneWorker),
                                         Reluctance{.nobody_of_8 = config.nobody_of_8,
                                                    .strict = config.strict,
                                                    .for_ever = breaks(Breakage::kPolicyNeverPicks),
                                                    .over = &willing_,
                                                    .prng = &prng_,
                                                    .source = source,
                                                    .worker_at = worker_at});
}

void World::SetPolicy(uint32_t index, std::string_view name) {
  Note("switches policy", {{"source", index}});
  Note(name);
  Source& source = sources_[index];
  if (checker_.counts(index).held > 0) Reached(Milestone::kPolicySwitched);
  std::unique_ptr<WatchedPolicy> policy = MakePolicy(name, index, source.config);
  WatchedPolicy* const watched = policy.get();
  const std::unique_ptr<Policy> old =
      MasterAt(source).engine->SetPolicy(source.index, std::move(policy));
  if (old.get() != source.policy) checker_.Fail("a switch returns another policy than the old one");
  source.policy = watched;
  source.steady = false;
  checker_.OnPolicySwitched(index, MovesToAnybody(name), now_ns_);
  MasterAt(source).switched = true;
}

void World::SetPaused(uint32_t index, bool paused) {
  Note(paused ? "pauses" : "resumes", {{"source", index}});
  sources_[index].paused = paused;
  checker_.OnPaused(index, paused);
  core::Engine& engine = *MasterAt(sources_[index]).engine;
  if (paused) {
    engine.Pause(sources_[index].index);
  } else {
    engine.Resume(sources_[index].index);
  }
}

void World::SetLimits(SimMaster& master, uint32_t id, uint32_t window, uint32_t capacity) {
  Note("limits", {{"worker", id}, {"window", window}, {"capacity", capacity}});
  AtMaster& at = workers_[id].at[master.index];
  if (window < checker_.unclaimed(id, master.index) || capacity < checker_.open(id)) {
    Reached(Milestone::kLimitBelow);
  }
  const uint32_t index = worker(id).engine_index;
  if (window != std::exchange(at.window, window)) master.engine->SetWindow(index, window);
  if (capacity != std::exchange(at.capacity, capacity)) {
    master.engine->SetCapacity(index, capacity);
  }
  checker_.OnLimits(id, master.index, window, capacity, now_ns_);
}

void World::JoinSource(uint32_t index, uint32_t id) {
  Source& source = sources_[index];
  const bool joined =
      std::find(source.joined.begin(), source.joined.end(), id) != source.joined.end();
  if (joined || source.removed || !workers_[id].at[source.master].in_books) return;
  // As the runtime refuses it.
  if (workers_[id].receiver != nullptr && source.config.capacity > 0) return;
  if (source.policy->picks() > 0) source.steady = false;
  source.joined.push_back(id);
  worker(id).SetToken(source.master, source.index, Token(id, index));
  MasterAt(source).engine->Join(core::SourceIndex(source.index), worker(id).engine_index,
                                Token(id, index));
  const bool started = checker_.started(index);
  checker_.OnJoined(index, id, now_ns_);
  if (!started && checker_.started(index) && source.config.start_workers > 1) {
    Reached(Milestone::kStartedByWorkers);
  }
}

void World::LeaveSource(uint32_t index, uint32_t id) {
  Source& source = sources_[index];
  if (std::erase(source.joined, id) == 0) return;
  Note("leaves", {{"worker", id}, {"source", index}});
  source.steady = false;
  MasterAt(source).engine->Leave(core::SourceIndex(source.index), worker(id).engine_index);
  checker_.OnLeftSource(index, id, now_ns_);
}

// Replaces what faults have taken away for good, for instance the only live worker of a source. No
// worker joins a source that is removed, so dead workers of such a source are removed, too.
void World::Replace(const SimMaster& master) {
  bool abandoned = false;
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const Source& source = sources_[index];
    if (source.master != master.index || !Abandoned(index)) continue;
    abandoned |= !source.removed;
    if (!source.removed) continue;
    for (const uint32_t id : source.joined) {
      if (!Live(id)) AskAt(0, {.kind = CallKind::kRemoveWorker, .worker = id});
    }
  }
  if (!abandoned) return;
  worker_configs_.push_back({.window = 4});
  AskAt(0, {.kind = CallKind::kAddWorker,
            .worker = static_cast<uint32_t>(worker_configs_.size() - 1)});
}

void World::StopIntake(SimMaster& master) {
  Note("stops intake", {{"master", master.index}});
  const bool removing = std::any_of(sources_.begin(), sources_.end(), [&](const Source& source) {
    return source.master == master.index && source.removed && !source.closed;
  });
  if (removing) Reached(Milestone::kStoppedWithRemoved);
  master.stopped = true;
  master.engine->StopIntake();
  checker_.OnStopIntake(master.index, now_ns_);
}

}  // namespace ringmaster::sim
