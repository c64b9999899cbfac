#include "core/engine.h"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <string>
#include <utility>

#include "core/check.h"

namespace ringmaster::core {

Engine::Engine(const EngineConfig& config, Hunger* hunger)
    : config_(config), hunger_(hunger), places_(config.gate) {
  ReserveShared();
}

// --- One batch ---------------------------------------------------------------------------------

void Engine::OnBatch(std::span<const Completion> completions, int64_t now_ns, std::vector<Op>& ops,
                     bool all_reported) {
  now_ns_ = now_ns;
  again_ = false;
  wants_room_ = false;
  turned_away_ = false;
  expired_ = 0;
  std::swap(ops_, ops);
  ops_.clear();
  ops_.reserve(ops_max_);
  for (const Completion& completion : completions) OnCompletion(completion);
  Settle(all_reported);
  if (hunger_->LeaseEnded()) EndBackOffs();
  TakeAgain();
  FinishAccepts();
  if (arrived_ > 0) moderation_.NoteArrivals(std::exchange(arrived_, 0), now_ns_);
  Look();
  Expire();
  if (resting_ && std::exchange(hungry_, false)) hunger_->Clear();
  for (uint32_t round = 0; !resting_; ++round) {
    RecallOverdue();
    Deal();
    LetGo();
    if (!Starving()) {
      if (hungry_) hunger_->Clear();
      hungry_ = false;
      break;
    }
    // Raise the flag, then look once more: whoever made credit before it was up did not knock.
    if (hunger_->Set(BackingOff())) {
      EndBackOffs();
      again_ = true;
    }
    hungry_ = true;
    if (!Look()) break;
    if (round == kDealRoundsMax) {
      again_ = true;
      break;
    }
  }
  Refuse();
  if (LetGo()) again_ = true;
  RingTouched();
  AskForStates();
  ArmSources();
  AskForOverflows();
  std::swap(ops_, ops);
}

void Engine::CatchUp(int64_t now_ns) {
  now_ns_ = now_ns;
  Look();
}

int64_t Engine::Gather(int64_t now_ns) const {
  // An accept completes within the turn that asks for it. While work waits for credit, whoever
  // makes some would idle until the knock is heard.
  if (accepts_under_way_ > 0 || hungry_ || stopping_) return 0;
  const int64_t gather_ns = moderation_.GatherNs();
  return gather_ns == 0 ? 0 : std::min(gather_ns, WaitMax(now_ns));
}

int64_t Engine::WaitMax(int64_t now_ns) const {
  // What was sent is settled by the next turn. That is waited for while stopping, and when so much
  // is unsettled that nothing more may be sent: no worker would knock then.
  const bool settles = stopping_ ? !unsettled_.empty() : unsettled_.full();
  if (again_ || settles) return 0;
  int64_t at = kWaitForever;
  for (const uint32_t index : active_) {
    const WorkerState& worker = workers_[index];
    at = std::min(at, worker.bell.due_at_ns());
    const Motion& motion = worker.motion;
    if (worker.sending.untaken() > 0 && !motion.owes_motion()) {
      at = std::min(at, After(motion.still_since_ns(), config_.recall_after_ns));  // by (8)
    }
    if (ledger_.worker(index).unclaimed == 0) continue;  // by (8) nothing else can be recalled
    const int64_t due =
        std::max(FirstLimitAt(worker), After(motion.moved_at_ns(), config_.recall_after_ns));
    at = std::min(at, std::max(due, worker.looks.again_ns()));
    // Looks in vain come by themselves, ever more rarely, and the first that is late enough will
    // do.
    if (!worker.looks.rarer()) at = std::min(at, SilentAt(worker));
  }
  at = std::min(at, expires_at_ns_);
  for (const SourceState& source : sources_) {
    if (source.back_off.pauses()) at = std::min(at, source.back_off.retry_at_ns());
    at = std::min(at, source.back_off.calm_at_ns());
    if (AsksAgain(source)) at = std::min(at, source.aside.ask_at_ns());  // by (20)
  }
  if (at == kWaitForever) return kWaitForever;
  return std::max<int64_t>(0, at - now_ns);
}

// --- Completions ---------------------------------------------------------------------------------

void Engine::OnCompletion(const Completion& completion) {
  const OpKey key = completion.key;
  switch (key.kind) {
    case OpKind::kWatch:
      if (!completion.more) watching_ = false;
      return;
    case OpKind::kDoorbell:
      return OnDoorbellFailed(completion);
    case OpKind::kSend:
      if (completion.result >= 0 || !ledger_.IsAt(key.index, Place::kSent)) return;
      unsettled_.Failed(key.index, -completion.result);
      return;
    case OpKind::kPoll:
    case OpKind::kCount:
    case OpKind::kOverflows:
    case OpKind::kState:
    case OpKind::kHangUp:
    case OpKind::kAcceptEach:
    case OpKind::kAccept:
      break;
    case OpKind::kPollEnd:
    case OpKind::kHangUpEnd:
    case OpKind::kAcceptEnd:
    case OpKind::kClose:
      return;  // only failures arrive, and what was to be ended or closed is gone already
  }
  // Whoever holds a ring can put anything into it, so what nobody has asked for is not believed. A
  // descriptor in it may be anybody's, and stays open.
  if (key.index >= sources_.size()) return;
  SourceState& source = sources_[key.index];
  const bool asked = key.kind == OpKind::kCount        ? source.tickets.counting()
                     : key.kind == OpKind::kOverflows  ? source.overflows.asking()
                     : key.kind == OpKind::kState      ? source.asking_state
                     : key.kind == OpKind::kHangUp     ? source.watches_end
                     : key.kind == OpKind::kAccept     ? source.pace.under_way() > 0
                     : key.kind == OpKind::kAcceptEach ? source.config.multishot_accept
                                                       : !source.config.multishot_accept;
  if (!asked) return;
  if (key.kind == OpKind::kCount) {
    const auto backlog = completion.result >= 0 ? static_cast<uint32_t>(completion.result) : 1;
    source.tickets.Count(backlog);
    // Edges that completions after this one report came after the count. One that cannot be taken
    // is left to a worker, who finds out why.
    source.ready = false;
    if (completion.result == -kOtherFile) return OnAcceptError(key.index, kOtherFile);
    if (backlog == 0) source.back_off.Try(now_ns_);
    return;
  }
  if (key.kind == OpKind::kOverflows) {
    source.overflows.Answered();
    NoteOverflows(key.index, completion.result);
    return;
  }
  if (key.kind == OpKind::kState) return OnState(key.index, completion.result);
  if (key.kind == OpKind::kHangUp) return OnHangUp(key.index, completion.result);
  source.overflows.Came();
  if (key.kind == OpKind::kAccept) {
    source.pace.Complete();
    --accepts_under_way_;
    if (completion.result < 0) places_.Leave(key.index);
  } else if (!completion.more && key.generation == source.generation) {
    source.arm = Arm::kIdle;
    if (source.config.multishot_accept) OnEachEnded(source, completion.result);
  }
  if (key.kind == OpKind::kPoll) {
    if (completion.result >= 0) {
      OnPolled(key.index, completion.result);
    } else if (completion.result == -ENOMEM) {
      PauseIntake(key.index);  // it could not be armed now
    } else if (completion.result != -ECANCELED) {
      GiveUp(key.index, -completion.result);
    }
    return;
  }
  if (completion.result >= 0) {
    OnAccepted(key.index, completion);
  } else {
    OnAcceptError(key.index, -completion.result);
  }
}

void Engine::OnDoorbellFailed(const Completion& completion) {
  const uint32_t index = completion.key.index;
  if (index >= workers_.size() || completion.result >= 0) return;
  WorkerState& worker = workers_[index];
  if (!worker.used || static_cast<uint16_t>(worker.generation) != completion.key.generation) return;
  if (!worker.outbox.rung()) return;  // it has looked without having been told
  PauseBell(index, -completion.result);
}

// The worker's ring cannot be reached just now.
void Engine::PauseBell(uint32_t index, int32_t error) {
  if (workers_[index].bell.Fail(now_ns_)) Emit(EventKind::kDoorbellFailed, 0, index, error);
  Activate(index);
}

// By (8): what was sent and has not failed has been received.
void Engine::Settle(bool all_reported) {
  // The youngest first, so that the oldest ends up first among what is held.
  for (Unsettled::Failure failure; unsettled_.NextFailure(failure);) {
    const ArrivalId id = failure.id;
    if (!ledger_.IsAt(id, Place::kSent)) continue;  // said twice
    const ArrivalRecord& record = ledger_.record(id);
    WorkerState& worker = workers_[record.worker];
    const bool left = !worker.used || worker.generation != record.worker_generation;
    // Otherwise the worker gives back, or has given back, the place that the arrival had.
    bool place_is_free = false;
    if (!left) {
      switch (worker.sending.Unsend()) {
        case Tally::Unsent::kTaken:
          TookFromOthers(record.worker);
          break;
        case Tally::Unsent::kLeaseHasIt:
          ForgetUnsent(worker, record.source);
          break;
        case Tally::Unsent::kPlaceIsFree:
          ForgetUnsent(worker, record.source);
          places_.TakeBack(record.worker, record.source);
          place_is_free = true;
          break;
      }
      TellPolicy(record.source, "OnRecall",
                 [&](Policy& policy) { policy.OnRecall(record.worker); });
      PauseBell(record.worker, failure.error);
      // It seemed to stand still only because the failure was told late, and has nothing to take.
      if (worker.motion.owes_motion() && Unclaimed(record.worker) == 0) Moved(record.worker);
    }
    if (!place_is_free) places_.ForceShared();
    unsettled_.Forget(id);
    --sources_[record.source].unsettled;
    Expired(record);  // notes when it will be: nobody looked while it was on its way
    ledger_.Unsend(id, left);
    MergeTicket(record.source, id);
  }
  if (!all_reported) return;
  unsettled_.SettleAll([this](ArrivalId id) {
    --sources_[ledger_.record(id).source].unsettled;
    ledger_.Settle(id);
  });
}

// By (10): of what cannot be counted at most one ticket is unclaimed. One that comes back because
// it could not be sent may find another, when its worker had left or had been given up meanwhile.
void Engine::MergeTicket(uint32_t index, ArrivalId id) {
  SourceState& source = sources_[index];
  if (!source.config.readiness || source.config.countable || UnclaimedTickets(index) < 2) return;
  source.events |= ledger_.Drop(id);
  places_.Leave(index);
}

// One of this source was not sent, the newest: which of several does not matter. If there is none
// any more, it was counted for one behind it that was taken meanwhile, and the oldest is that one.
void Engine::ForgetUnsent(WorkerState& worker, uint32_t index) {
  SourceState& source = sources_[index];
  if (!worker.sending.ForgetNewest(TicketOf(source, index))) return ForgetSent(worker, 1, true);
  if (source.config.readiness) source.tickets.Forget();
}

// By (12).
void Engine::TookFromOthers(uint32_t index) {
  for (Tally* const tally : workers_[index].config.other_tallies) {
    const Tally::Took took = tally->Take(1);
    if (took.count == 0) continue;
    places_.NoteFreed();
    if (took.places == 0) return;
    places_.Release(index);
    places_.LeaveShared();
    return;
  }
}

void Engine::Again(uint32_t index, int32_t error) { sources_[index].tickets.GiveBack(error); }

void Engine::Again(uint32_t index, const GivenBack::News& news) {
  if (news.more) Again(index, 0);
  if (news.nothing) Again(index, EAGAIN);
  if (news.error != 0) Again(index, news.error);
  if (news.redeemed) Redeemed(index);
}

void Engine::Redeemed(uint32_t index) { sources_[index].tickets.Redeem(); }

bool Engine::WaitsForSuccess(uint32_t index) const {
  return sources_[index].config.readiness && sources_[index].back_off.waits_for_success();
}

// What workers have given back. After the ends of leases, which end older back-offs.
void Engine::TakeAgain() {
  for (uint32_t index = 0; index < source_slots(); ++index) {
    SourceState& source = sources_[index];
    const GivenBack::News news = source.tickets.TakeNews();
    if (!source.config.readiness || source.removed) continue;
    // In which order these were is not known. The worst counts, so it comes last. And an edge of
    // this batch may be of what has come since, so nothing here takes `ready` back.
    if (news.redeemed) source.back_off.Succeed();
    if (news.nothing) FindNothing(index);
    if (news.more) MayHaveMore(source);
    if (news.error == 0) continue;
    source.tickets.Fail();
    // What its number stands for is not for a worker to say.
    OnAcceptError(index, news.error == kOtherFile ? EBADF : news.error);
  }
}

void Engine::FindNothing(uint32_t index) {
  if (sources_[index].back_off.FindNothing()) Emit(EventKind::kAccepting, index, 0, 0);
}

void Engine::MayHaveMore(SourceState& source) {
  source.ready = true;
  source.tickets.StopAwaiting();
}

void Engine::OnAccepted(uint32_t index, const Completion& completion) {
  SourceState& source = sources_[index];
  const int64_t age_max_ns = source.config.age_max_ns;
  const int64_t came_at_ns =
      completion.came_at_ns > 0 ? std::min(completion.came_at_ns, now_ns_) : now_ns_;
  const bool too_late = completion.gone || now_ns_ >= After(came_at_ns, age_max_ns);
  if (age_max_ns > 0 && too_late) return DropAtOnce(index, completion);
  if (!ledger_.HasRoom()) return TurnAway(index, completion);
  ledger_.Arrive(index, completion.result, completion.facts, came_at_ns);
  if (completion.key.kind == OpKind::kAcceptEach) places_.Force(index);
  if (age_max_ns > 0) expires_at_ns_ = std::min(expires_at_ns_, After(came_at_ns, age_max_ns));
  source.pace.Found();
  ++arrived_;
  source.back_off.Succeed();
}

// By (15).
void Engine::DropAtOnce(uint32_t index, const Completion& completion) {
  SourceState& source = sources_[index];
  ledger_.DropAtOnce(index, completion.gone);
  ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = completion.result});
  if (completion.key.kind == OpKind::kAccept) places_.Leave(index);
  source.pace.Found();
  ++arrived_;
  source.back_off.Succeed();
}

// By (14).
void Engine::TurnAway(uint32_t index, const Completion& completion) {
  ledger_.TurnAway(index);
  ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = completion.result});
  if (completion.key.kind == OpKind::kAccept) places_.Leave(index);
  wants_room_ = true;
  if (!std::exchange(turned_away_, true)) Emit(EventKind::kTurnedAway, index, 0, 0);
}

void Engine::OnAcceptError(uint32_t index, int32_t error) {
  SourceState& source = sources_[index];
  // Of what is ended anyway nobody need hear.
  if (source.removed || (source.failed && !source.drains)) return;
  switch (error) {
    case EAGAIN:
      // Later completions of the same batch may still set it again: they are in the order in which
      // things happened.
      source.ready = false;
      source.pace.FoundEnd();
      if (source.hung_up) source.asks_state = true;  // by (17)
      FindNothing(index);
      return;
    case ECANCELED:
      return;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
      ++source.intake.errors;
      if (source.back_off.RunOut(now_ns_)) Emit(EventKind::kOutOfDescriptors, index, 0, error);
      PauseIntake(index);
      return;
    case kWouldWait:
      ++source.intake.errors;
      if (now_ns_ >= source.blocked_until_ns) Emit(EventKind::kSourceBlocks, index, 0, error);
      source.blocked_until_ns = After(now_ns_, kDescriptorsCalmNs);
      PauseIntake(index);
      return;
    case kOtherFile:
      ++source.intake.errors;
      return GiveUp(index, error);
    case EINVAL:
    case EBADF:
    case ENOTSOCK:
    case EOPNOTSUPP:
      ++source.intake.errors;
      return Doubt(source, error);
    default:
      ++source.intake.errors;
      return OnConnectionError(index);
  }
}

// The connection went wrong before it was accepted (ECONNABORTED, EPROTO, EPERM by a firewall rule,
// the network errors of accept(2)): that one is gone, the next may be fine. Unless nothing but
// errors comes: then it must not spin.
void Engine::OnConnectionError(uint32_t index) {
  SourceState& source = sources_[index];
  MayHaveMore(source);
  if (source.back_off.Fail()) PauseIntake(index);
}

// A mask, POLLHUP and POLLERR included.
void Engine::OnPolled(uint32_t index, int32_t mask) {
  SourceState& source = sources_[index];
  const int32_t ends = mask & ~kReadableMask;
  const bool armed_anew = std::exchange(source.armed_anew, false);
  if (source.config.listens) {
    // Of a polled source the accept that finds nothing more asks. The ticket is issued nevertheless
    // where nothing else takes out what may be left.
    source.hung_up |= ends != 0;
    source.asks_state |= source.hung_up && source.config.readiness;
  } else {
    // By (18). What was told is what lasts; an edge without it shows that it does not.
    source.told &= mask;
    const bool news = (ends & ~source.told) != 0 ||
                      ((mask & kReadableMask) != 0 && (source.told & kEndedMask) == 0);
    if (ends != 0 && !news && armed_anew) return;
  }
  MayHaveMore(source);
  source.events |= mask;
}

// --- Whether it is a listener still, by (17) -----------------------------------------------------

void Engine::Doubt(SourceState& source, int32_t error) {
  source.doubt = error;
  source.asks_state = true;
}

void Engine::OnHangUp(uint32_t index, int32_t result) {
  SourceState& source = sources_[index];
  source.watches_end = false;
  source.ends_watch = false;
  if (result == -ENOMEM) return PauseIntake(index);  // it could not be armed now
  if (result == -ECANCELED) return;
  if (result < 0) return OnAcceptError(index, -result);
  // Otherwise it shows anew when both are armed again.
  source.hung_up = source.arm == Arm::kArmed;
}

// A multishot accept that was told to end because of a hang-up, and did, had nothing left to take.
// One that had ended by itself, or because of a connection, may have: it is armed again, and its
// end shows anew.
void Engine::OnEachEnded(SourceState& source, int32_t result) {
  if (!source.hung_up) return;
  source.hung_up = result == -ECANCELED;
  source.asks_state |= source.hung_up;
}

void Engine::AskForStates() {
  for (uint32_t index = 0; index < source_slots(); ++index) {
    SourceState& source = sources_[index];
    if (!source.asks_state || source.asking_state || Shut(source)) continue;
    source.asks_state = false;
    source.asking_state = true;
    ops_.push_back({.key = SourceKey(OpKind::kState, index),
                    .fd = source.config.fd,
                    .file = source.config.file});
  }
}

void Engine::OnState(uint32_t index, int32_t result) {
  SourceState& source = sources_[index];
  source.asking_state = false;
  const int32_t doubt = std::exchange(source.doubt, 0);
  // What was doubted after the question is asked about next. Without a doubt of its own that
  // question would be about the end alone, while there may be something left to accept.
  if (source.asks_state) source.doubt = doubt;
  const bool hung_up = std::exchange(source.hung_up, false);
  if (source.removed || (source.failed && doubt == 0)) return;
  if (result == kListens || (result >= 0 && !source.config.listens)) {
    if (doubt != 0) OnConnectionError(index);
    return;
  }
  // Of what cannot be counted workers take what is left, as long as their tickets bring more.
  source.drains = result == kEnds && source.config.readiness && !source.failed;
  if (result == kEnds && doubt != 0 && !source.failed) {
    OnConnectionError(index);
    // The accept that finds nothing more asks again; a multishot accept is told by its poll.
    source.hung_up = !source.config.multishot_accept;
    if (!source.config.readiness) return;
  }
  GiveUp(index, result < 0 ? -result : hung_up || doubt == 0 ? EINVAL : doubt);
}

void Engine::GiveUp(uint32_t index, int32_t error) {
  SourceState& source = sources_[index];
  if (source.removed) return;
  if (!source.failed) Emit(EventKind::kSourceFailed, index, 0, error);
  source.failed = true;
  source.ready &= source.drains;
}

void Engine::PauseIntake(uint32_t index) {
  SourceState& source = sources_[index];
  MayHaveMore(source);  // what could not be accepted is still in the backlog
  if (!source.back_off.Pause(now_ns_)) return;
  // An arming that is still up is ended for it, and counted then.
  if (source.arm == Arm::kIdle) ++source.intake.pauses;
}

bool Engine::BackingOff() const {
  return std::any_of(sources_.begin(), sources_.end(),
                     [](const SourceState& source) { return source.back_off.pauses(); });
}

void Engine::EndBackOffs() {
  for (SourceState& source : sources_) EndBackOff(source);
}

void Engine::EndBackOff(SourceState& source) {
  if (!source.back_off.pauses()) return;
  source.back_off.Resume();
  source.tickets.TryAgain();
  source.pace.BeginAnew();
}

// Learns from the accepts of the last batch how many to try in the next.
void Engine::FinishAccepts() {
  for (uint32_t index = 0; index < source_slots(); ++index) {
    SourceState& source = sources_[index];
    if (source.back_off.EndsShortage(now_ns_)) Emit(EventKind::kAccepting, index, 0, 0);
    if (now_ns_ >= source.back_off.retry_at_ns()) EndBackOff(source);
    // What has found nothing needs no credit any more.
    LetGo(index, ledger_.ToDeal(index) + source.tickets.counted());
    source.pace.Learn();
  }
}

// --- Looking at the inboxes ----------------------------------------------------------------------

// Takes note of what the workers have done. Returns whether anyone has credit that it did not have
// when its source was last dealt, or has taken what a source waited for.
bool Engine::Look() {
  taken_ = false;
  for (size_t i = 0; i < active_.size();) {
    const uint32_t index = active_[i];
    Reap(index);
    WorkerState& worker = workers_[index];
    if (Quiet(index)) {
      worker.active = false;
      active_[i] = active_.back();
      active_.pop_back();
    } else {
      ++i;
    }
  }
  if (taken_) return true;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    const SourceState& source = sources_[index];
    if (HasNews(index)) return true;
    if (!source.starved) continue;
    // What is held has its place already.
    if (ledger_.ToDeal(index) == 0 && (source.yields || Full(source))) continue;
    for (const uint32_t worker : source.joined) {
      if (Credit(worker, source) > 0) return true;
    }
  }
  for (const uint32_t index : active_) {
    const WorkerState& worker = workers_[index];
    if (!worker.looks.wants_taker()) continue;
    for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
      if (MayRecall(index, entry.id) == Recallable::kNow) return true;
    }
  }
  return false;
}

// Whether there is nothing to be looked at.
bool Engine::Quiet(uint32_t index) const {
  const WorkerState& worker = workers_[index];
  return Unclaimed(index) == 0 && !worker.outbox.rung() && !worker.bell.owed() &&
         !worker.outbox.unpublished();
}

bool Engine::Reap(uint32_t index) {
  WorkerState& worker = workers_[index];
  if (worker.sending.used()) {
    ReapTally(index);
    return false;
  }
  bool moved = false;
  for (ArrivalId id; (id = worker.outbox.NextClaimed()) != kNoArrival;) {
    worker.motion.Took(1, now_ns_ - ledger_.record(id).offered_at_ns);
    ledger_.Claim(id);
    moved = true;
  }
  if (worker.outbox.Heard()) {
    // It has looked after everything was published. A claimed word alone does not say so: it may
    // belong to a claim that began before the doorbell that failed.
    worker.bell.Heard();
    moved = true;
  }
  if (moved) Moved(index);
  return moved;
}

// The same of a worker to whom arrivals are handed over.
void Engine::ReapTally(uint32_t index) {
  WorkerState& worker = workers_[index];
  const int64_t still_ns = Still(index);
  const uint32_t taken = worker.sending.NewlyTaken();
  if (taken > 0) {
    worker.motion.Took(taken, still_ns);
    ForgetSent(worker, taken, true);
    worker.bell.Works();
    Moved(index);
  } else if (!worker.motion.owes_motion() && still_ns >= config_.recall_after_ns) {
    worker.motion.OweMotion(now_ns_);  // by (8)
    ForgetTickets(worker);
    Stall(index, false);
  }
}

// What has been sent to a worker that takes nothing cannot be taken back. But a ticket is no
// connection, so somebody else can have another one; that finds nothing, or the first does.
void Engine::ForgetTickets(WorkerState& worker) {
  worker.sending.GiveUpTickets([this](uint32_t index) {
    SourceState& source = sources_[index];
    if (!source.config.recall) return false;
    source.tickets.Forget();
    MayHaveMore(source);
    source.events |= source.told;
    taken_ = true;
    return true;
  });
}

// The oldest `count` of what was sent to the worker are taken, or of no interest any more. A worker
// to whom tickets are sent need not say that it has accepted by them. So when all are taken, and of
// those before none has failed, they count as a success.
void Engine::ForgetSent(WorkerState& worker, size_t count, bool taken) {
  worker.sending.ForgetOldest(count, [&](uint32_t index) {
    SourceState& source = sources_[index];
    const bool went_well = source.tickets.Forget() && taken;
    if (source.tickets.StopAwaiting()) taken_ = true;
    if (went_well) source.back_off.Succeed();
  });
}

// How the books of a worker that is sent to know an arrival of the source.
uint32_t Engine::TicketOf(const SourceState& source, uint32_t index) {
  return source.config.readiness ? index : Sending::kNoTicket;
}

void Engine::Moved(uint32_t index) {
  WorkerState& worker = workers_[index];
  worker.looks.Moved();
  if (worker.motion.Moved(now_ns_)) Emit(EventKind::kWorkerMoves, 0, index, 0);
}

Offer Engine::OfferOf(const ArrivalRecord& record) {
  return {.source = record.source, .fd = record.fd};
}

int64_t Engine::RecallLimit(ArrivalId id) const {
  return config_.recall_after_ns << ledger_.record(id).doublings;
}

// When the first offer reaches its limit. The oldest does, unless its limit has been doubled.
int64_t Engine::FirstLimitAt(const WorkerState& worker) const {
  int64_t at_ns = kWaitForever;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    const ArrivalRecord& record = ledger_.record(entry.id);
    at_ns = std::min(at_ns, After(record.offered_at_ns, RecallLimit(entry.id)));
    if (record.doublings == 0) break;
  }
  return at_ns;
}

// Takes back what has waited too long behind a worker that does not move, if somebody else can have
// it; behind one that moves, only if somebody else is idle, and much later. Rings again where the
// doorbell seems to have been missed.
void Engine::RecallOverdue() {
  // First whose ring is tried again: it may take what is overdue at others.
  for (const uint32_t index : active_) {
    WorkerState& worker = workers_[index];
    if (worker.bell.TryAgain(now_ns_) && !worker.sending.used()) SendDoorbell(index);
  }
  for (const uint32_t index : active_) {
    const WorkerState& worker = workers_[index];
    if (ledger_.worker(index).unclaimed == 0) continue;
    const int64_t due_at_ns = std::min(FirstLimitAt(worker), SilentAt(worker));
    if (!worker.looks.wants_taker() && now_ns_ < due_at_ns) continue;
    if (worker.outbox.unpublished()) {
      again_ = true;  // by (7) it would owe motion for what this batch has offered it
    } else {
      RecallOverdueOf(index);
    }
  }
}

void Engine::RecallOverdueOf(uint32_t index) {
  WorkerState& worker = workers_[index];
  ReapAll(index);
  const int64_t moved_at_ns = worker.motion.moved_at_ns();
  const int64_t still_ns = now_ns_ - moved_at_ns;
  uint32_t recalled = 0;
  int64_t again_ns = kWaitForever;
  bool wants_taker = false;
  // Newest first, so that the oldest ends up first among what is held.
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    const int64_t limit_ns = RecallLimit(entry.id);
    ArrivalRecord& record = ledger_.record(entry.id);
    switch (MayRecall(index, entry.id)) {
      case Recallable::kNever:
        continue;
      case Recallable::kNotYet:
        again_ns = std::min(again_ns, After(std::max(record.offered_at_ns, moved_at_ns), limit_ns));
        continue;
      case Recallable::kWanted:
        wants_taker = true;
        continue;
      case Recallable::kNow:
        break;
    }
    if (!RecallAt(index, entry)) continue;
    ++recalled;
    // Behind a worker that moves it may only have been unlucky: it is not passed round for ever.
    if (still_ns < limit_ns) {
      record.doublings = std::min<uint8_t>(record.doublings + 1, kDoublingsMax);
    }
  }
  worker.outbox.SkipHoles();
  if (recalled > 0) {
    if (!worker.motion.stalled() && still_ns >= config_.recall_after_ns) Stall(index, true);
    worker.looks.Recalled();
  } else if (!worker.outbox.empty()) {
    worker.looks.InVain(now_ns_);
    if (now_ns_ >= SilentAt(worker)) Stall(index, false);  // by (19)
  }
  worker.looks.Ended(wants_taker, again_ns, now_ns_, config_.recall_after_ns);
  // It is old although the worker has consumed its doorbell: one more does no harm, and heals a
  // worker that stopped early and did not come back. After a recall, `rung` is also where motion
  // will be seen if no word is left to see it in.
  if (!worker.outbox.rung() && !worker.outbox.unpublished()) RingWorker(index);
}

// Takes note also of what was claimed out of order. A worker that leaves a source and joins it
// again while it is inside a callback can find a younger offer in the word of an older one.
void Engine::ReapAll(uint32_t index) {
  WorkerState& worker = workers_[index];
  bool moved = false;
  for (const Outbox::Entry entry : worker.outbox.oldest_first()) {
    if (!worker.outbox.Claimed(entry)) continue;
    ledger_.Claim(entry.id);
    moved = true;
  }
  worker.outbox.SkipHoles();
  if (moved) Moved(index);
}

int64_t Engine::SilentAt(const WorkerState& worker) {
  return worker.motion.SilentAtNs(worker.looks.vain_since_ns());
}

void Engine::Stall(uint32_t index, bool recalled) {
  WorkerState& worker = workers_[index];
  worker.motion.Stall();
  const bool serving = worker.config.state->serving.load(std::memory_order_relaxed) != 0;
  Emit({.kind = EventKind::kWorkerStalled,
        .worker = index,
        .recalled = recalled,
        .serving = serving,
        .told = worker.outbox.rung() && !worker.bell.owed() && !serving});
}

Engine::Recallable Engine::MayRecall(uint32_t index, ArrivalId id) const {
  const ArrivalRecord& record = ledger_.record(id);
  const SourceState& source = sources_[record.source];
  if (!source.config.recall || source.joined.size() < 2) return Recallable::kNever;
  const int64_t age_ns = now_ns_ - record.offered_at_ns;
  const int64_t limit_ns = RecallLimit(id);
  if (age_ns < limit_ns) return Recallable::kNotYet;
  const bool stuck = now_ns_ - workers_[index].motion.moved_at_ns() >= limit_ns;
  const bool late = age_ns >= kIdleRecallFactor * limit_ns;
  if ((stuck && TakerFor(record.source, index, false)) ||
      (late && TakerFor(record.source, index, true))) {
    return Recallable::kNow;
  }
  return stuck ? Recallable::kWanted : Recallable::kNotYet;
}

bool Engine::RecallAt(uint32_t index, const Outbox::Entry& entry) {
  WorkerState& worker = workers_[index];
  const ArrivalRecord& record = ledger_.record(entry.id);
  if (!worker.outbox.Recall(entry, OfferOf(record))) return false;
  places_.TakeBack(index, record.source);
  ledger_.Recall(entry.id);
  worker.motion.OweMotion(now_ns_);  // by (7)
  TellPolicy(record.source, "OnRecall", [index](Policy& policy) { policy.OnRecall(index); });
  return true;
}

// Whether somebody else could take an arrival of `source` now.
bool Engine::TakerFor(uint32_t source, uint32_t except, bool must_be_idle) const {
  for (const uint32_t index : sources_[source].joined) {
    if (index == except || SlowAtWork(workers_[index]) || Credit(index, sources_[source]) == 0) {
      continue;
    }
    if (!must_be_idle || Idle(workers_[index])) return true;
  }
  return false;
}

// --- Asking policies -----------------------------------------------------------------------------

// A policy cannot lose an arrival: whatever it does wrong, somebody gets that.
size_t Engine::Pick(uint32_t index, const Arrival& arrival, const View& view) {
  size_t position = 0;
  const auto ask = [&](Policy& policy) { position = policy.Pick(arrival, view); };
  TellPolicy(index, "Pick", ask);
  if (position < view.candidates.size() || position == Policy::kNobodyNow) return position;
  PolicyFailed(index, "picked position " + std::to_string(position) + " of " +
                          std::to_string(view.candidates.size()) + " candidates");
  return 0;
}

template <typename Tell>
void Engine::TellPolicy(uint32_t index, const char* function, Tell tell) {
  try {
    tell(*sources_[index].config.policy);
  } catch (const std::exception& thrown) {
    PolicyFailed(index, std::string("threw \"") + thrown.what() + "\" in " + function);
  } catch (...) {
    PolicyFailed(index, std::string("threw something in ") + function);
  }
}

// Said once for each policy: what fails once will fail often.
void Engine::PolicyFailed(uint32_t index, const std::string& what) {
  SourceState& source = sources_[index];
  ++source.intake.policy_faults;
  if (!source.policy_fault.empty()) return;
  source.policy_fault = "policy " + source.config.policy->name() + " " + what;
  Emit(EventKind::kPolicyFailed, index, 0, 0);
}

// What it has not prepared it cannot decide with, and set-up is half done.
void Engine::Prepare(const SourceState& source) const {
  Policy& policy = *source.config.policy;
  const auto end = [&policy](const std::string& what) {
    Misused(("policy " + policy.name() + " threw " + what +
             " in Prepare, which must not throw: the balancer cannot go on without it")
                .c_str());
  };
  try {
    policy.Prepare(worker_slots());
  } catch (const std::exception& thrown) {
    end(std::string("\"") + thrown.what() + "\"");
  } catch (...) {
    end("something");
  }
}

// --- Dealing -------------------------------------------------------------------------------------

// By (16).
void Engine::Deal() {
  Ahead ahead = Ahead::kNobody;
  size_t unserved = 0;
  served_.clear();
  for (const uint32_t index : turns_) {
    SourceState& source = sources_[index];
    bool served = DealHeld(index);
    served |= AcceptMore(index, ahead);
    if (config_.gate != nullptr && source.starved) {
      ahead = std::max(ahead, WaitsForWorker(source) ? Ahead::kGetsCreditSoon : Ahead::kStarves);
    }
    if (served) {
      served_.push_back(index);
    } else {
      turns_[unserved++] = index;
    }
  }
  // Of those who were served, the first could have the most.
  const auto first = served_.empty() ? served_.end() : std::next(served_.begin());
  std::rotate_copy(served_.begin(), first, served_.end(),
                   turns_.begin() + static_cast<ptrdiff_t>(unserved));
}

// Returns whether it has offered anything.
bool Engine::DealHeld(uint32_t index) {
  SourceState& source = sources_[index];
  source.starved = false;
  if (source.aside.active() && ledger_.source(index).held == 0) source.aside.End();
  if (ledger_.source(index).held == 0 || !Deals(source)) return false;
  Refresh(source);
  AskAgain(index);
  bool any = false;
  bool noted = false;  // what the policy is shown, since it has changed
  for (ArrivalId id = ledger_.FirstHeld(index);
       id != kNoArrival && !candidates_.empty() && !AsideFull(source);
       id = ledger_.FirstHeld(index)) {
    if (Expired(ledger_.record(id))) {  // by (15)
      if (!DropExpired(index, id)) break;
      continue;
    }
    if (config_.shares_workers) RefreshOpen(source);
    const View view{.candidates = candidates_,
                    .joined = source.joined,
                    .topology = config_.topology != nullptr ? config_.topology : &no_topology_};
    const size_t position = Pick(index, ledger_.record(id).facts, view);
    if (position == Policy::kNobodyNow) {
      if (!noted || config_.shares_workers) source.aside.Note(source.joined, candidates_, now_ns_);
      noted = true;
      ledger_.SetAside(id, now_ns_);
      continue;
    }
    noted = false;
    Candidate& picked = candidates_[position];
    const bool offered = OfferTo(picked.worker, id);
    picked.idle = false;
    any |= offered;
    if (offered) {
      ++picked.open;
      ++picked.unclaimed;
      --picked.credit;
    } else {  // another master took the last place meanwhile
      picked.credit = 0;
    }
    if (picked.credit == 0) {
      candidates_.erase(candidates_.begin() + static_cast<ptrdiff_t>(position));
    }
  }
  const bool full = AsideFull(source);
  if (full && source.aside.Say()) Emit(EventKind::kSetAside, index, 0, 0);
  source.starved = !full && ledger_.FirstHeld(index) != kNoArrival;
  return any;
}

// --- What policies have set aside, by (20) -------------------------------------------------------

uint64_t Engine::SetAside(const SourceState& source) const {
  return ledger_.source(static_cast<uint32_t>(&source - sources_.data())).aside;
}

bool Engine::AsksAgain(const SourceState& source) const {
  return ledger_.AnyAside() && SetAside(source) > 0 && Deals(source);
}

uint32_t Engine::AsideMax(const SourceState& source) {
  return std::clamp(source.config.hold, 1u, kAsideMax);
}

bool Engine::AsideFull(const SourceState& source) const {
  return ledger_.AnyAside() && SetAside(source) >= AsideMax(source);
}

int64_t Engine::OldestAsideNs(uint32_t source) const {
  const int64_t at_ns = ledger_.OldestAside(source);
  return at_ns == kNotAside ? 0 : now_ns_ - at_ns;
}

// Whether its policy might pick somebody by now.
bool Engine::HasNews(uint32_t index) {
  SourceState& source = sources_[index];
  if (!AsksAgain(source)) return false;
  Refresh(source);
  return source.aside.HasNews(candidates_);
}

// Takes up what was set aside if that is so, or it is time to. `candidates_` are the source's.
void Engine::AskAgain(uint32_t index) {
  SourceState& source = sources_[index];
  if (!AsksAgain(source)) return;
  const bool due = now_ns_ >= source.aside.ask_at_ns();
  if (due) {
    source.aside.PutOff(now_ns_);
    const bool is_long = now_ns_ >= After(ledger_.OldestAside(index), kAsideLongNs);
    if (is_long && source.aside.Say()) Emit(EventKind::kSetAside, index, 0, 0);
  }
  if (candidates_.empty() || (!due && !source.aside.HasNews(candidates_))) return;
  source.aside.AskAgain();
  ledger_.TakeUp(index);
}

// Returns whether it has asked for a connection, or had its turn otherwise.
bool Engine::AcceptMore(uint32_t index, Ahead ahead) {
  SourceState& source = sources_[index];
  // What a count has found while nothing may be issued is looked for again later.
  const bool held_back = source.starved || AsideFull(source) || source.back_off.pauses() ||
                         source.doubt != 0 || Shut(source);
  if (held_back && source.tickets.UseCount()) MayHaveMore(source);
  if (source.config.multishot_accept) return ArmEach(index, held_back, ahead);
  const bool may_have_more = source.ready || source.tickets.counted();
  if (!may_have_more || held_back || source.pace.under_way() > 0) return false;
  if (source.tickets.awaits_took() && !source.tickets.counted()) return false;
  if (source.config.readiness) return IssueTickets(index);
  const uint32_t asked = Admit(index, std::min(source.pace.wanted(), MayBring(source)));
  source.pace.Ask(asked);
  accepts_under_way_ += asked;
  for (uint32_t i = 0; i < asked; ++i) {
    ops_.push_back({.key = SourceKey(OpKind::kAccept, index),
                    .fd = source.config.fd,
                    .accept_flags = source.config.accept_flags,
                    .file = source.config.file});
  }
  return asked > 0;
}

// By (20): how many may be taken in, of what its policy may set aside as well.
uint32_t Engine::MayBring(const SourceState& source) const {
  const uint64_t aside = ledger_.AnyAside() ? SetAside(source) : 0;
  if (aside == 0) return UINT32_MAX;
  return AsideMax(source) - static_cast<uint32_t>(aside);
}

// A multishot accept is ended by (11) or (14), and armed again when a lease ends, or there is room
// again. Returns whether it may be armed again now.
bool Engine::ArmEach(uint32_t index, bool held_back, Ahead ahead) {
  SourceState& source = sources_[index];
  // Asked once, because a lease may end meanwhile: what is not armed must be hungry.
  const bool no_room = !HasRoomFor(0);
  const bool was_full = std::exchange(source.full, false);
  wants_room_ |= no_room && WantsArm(index);
  source.full = no_room || places_.Full(index);
  // By (16) it does not take the balancer's last places while who is before it waits for credit.
  source.yields = source.arm == Arm::kIdle &&
                  ((ahead == Ahead::kStarves && CreditOf(source) == 0) ||
                   (ahead == Ahead::kGetsCreditSoon && (was_full || CreditOf(source) == 0)));
  source.full |= source.yields;
  if (!held_back && source.full) source.starved = true;
  return was_full && !source.full && !held_back;
}

// Whether it has no credit, and it may be assumed that a worker will make some: that one has been
// offered as much as it may have, not long ago.
bool Engine::WaitsForWorker(const SourceState& source) const {
  if (CreditOf(source) > 0) return false;
  return std::any_of(source.joined.begin(), source.joined.end(), [this](uint32_t index) {
    const WorkerState& worker = workers_[index];
    return !worker.motion.owes_motion() && !worker.bell.owed() &&
           Unclaimed(index) >= worker.motion.window() && Still(index) < config_.recall_after_ns;
  });
}

// For how many of `wanted` something may be asked for: each has room by (14), a place by (11), and
// credit, which is kept for it by (16). If for none, the source is starved.
uint32_t Engine::Admit(uint32_t index, uint32_t wanted) {
  SourceState& source = sources_[index];
  bool any = false;
  credits_.clear();
  for (const uint32_t worker : source.joined) {
    // What it still has from before is for whoever is first in the next round.
    const uint32_t credit = Credit(worker, source);
    credits_.push_back(credit - std::min(credit, places_.Kept(index, worker)));
    any |= credits_.back() > 0;
  }
  uint32_t admitted = 0;
  while (any && admitted < wanted && HasRoomFor(admitted + 1) && places_.Enter(index)) {
    if (!places_.Keep(index, source.joined, credits_)) {
      places_.Leave(index);
      break;
    }
    ++admitted;
  }
  // Even if there is a place again by now: whoever made it has not knocked.
  if (admitted == 0) {
    source.starved = true;
    wants_room_ |= any && !HasRoomFor(1);
  }
  return admitted;
}

uint64_t Engine::CreditOf(const SourceState& source) const {
  uint64_t credit = 0;
  for (const uint32_t worker : source.joined) credit += Credit(worker, source);
  return credit;
}

// By (10). Returns whether it has offered or asked for anything.
bool Engine::IssueTickets(uint32_t index) {
  SourceState& source = sources_[index];
  // A ticket that was claimed out of order is not unclaimed: its worker may have redeemed it.
  for (const uint32_t worker : source.joined) {
    if (ledger_.source(index).offered > 0 && !workers_[worker].sending.used()) {
      ReapAll(worker);
    }
  }
  const uint64_t credit = CreditOf(source);
  const uint64_t unclaimed = UnclaimedTickets(index);
  uint64_t wanted = 0;
  // A ticket that was handed over as a completion may have been redeemed before Took says so.
  const bool untaken = source.tickets.untaken() > 0;
  if (!source.config.countable) {
    source.ready = false;
    const bool ends = (source.events & ~kReadableMask & ~source.told) != 0;  // (18)
    wanted = unclaimed == 0 || (ends && !source.config.listens) ? 1 : 0;
  } else if (source.tickets.UseCount()) {
    // The backlog was read first and then, in this batch, what is unclaimed. A worker claims before
    // it accepts, so what it is about to accept is counted as waiting: a ticket too many, which
    // finds nothing, and never one too few.
    wanted = source.tickets.backlog() - std::min<uint64_t>(source.tickets.backlog(), unclaimed);
    // An error or a hang-up is for a worker to find out about.
    if (source.events != kReadableMask && unclaimed == 0) wanted = std::max<uint64_t>(wanted, 1);
  } else {
    return CountBacklog(index);
  }
  uint64_t issued = 0;
  const uint64_t allowed = std::min<uint64_t>(wanted, MayBring(source));
  while (issued < std::min(allowed, credit) && HasRoomFor(1) && places_.Enter(index)) {
    source.told |= source.events & ~kReadableMask;
    ledger_.Arrive(index, std::exchange(source.events, kReadableMask), {}, now_ns_);
    ++issued;
    ++arrived_;
  }
  bool served = DealHeld(index);
  source.ready |= issued < wanted;
  if (issued < allowed) {
    source.starved = true;
    wants_room_ |= !HasRoomFor(1);
  } else if (AsideFull(source)) {
    return served;
  } else if (source.ready) {
    served |= CountBacklog(index);  // an edge came after the count
  } else if (untaken) {
    source.ready = true;
    source.tickets.AwaitTook();
  }
  return served;
}

// Returns whether it could. What is counted as waiting is to have a ticket, so a place and credit
// are kept for one.
bool Engine::CountBacklog(uint32_t index) {
  SourceState& source = sources_[index];
  if (source.tickets.counting() || Admit(index, 1) == 0) return false;
  source.tickets.AskCount();
  places_.LeaveToCount(index);
  ops_.push_back({.key = SourceKey(OpKind::kCount, index),
                  .fd = source.config.fd,
                  .file = source.config.file});
  return true;
}

void Engine::AskForOverflows() {
  if (stopping_ || resting_) return;
  uint32_t asked = 0;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    SourceState& source = sources_[index];
    if (source.removed || !source.overflows.Due(now_ns_, source.arm == Arm::kArmed)) continue;
    if (asked++ == kOverflowLooksPerBatchMax) return;
    source.overflows.Ask(now_ns_);
    ops_.push_back({.key = SourceKey(OpKind::kOverflows, index), .fd = source.config.fd});
  }
}

void Engine::NoteOverflows(uint32_t index, int32_t overflows) {
  SourceState& source = sources_[index];
  const Overflows::News news = source.overflows.Note(overflows, now_ns_);
  source.intake.overflows += news.dropped;
  if (news.begins) Emit(EventKind::kBacklogOverflow, index, 0, 0);
}

// Held ones included.
uint64_t Engine::UnclaimedTickets(uint32_t index) const {
  const SourceCount& count = ledger_.source(index);
  return count.held + count.offered + sources_[index].tickets.untaken();
}

// Takes back what nobody has claimed; what it stands for stays with the source.
void Engine::WithdrawTickets(uint32_t index) {
  if (!sources_[index].config.readiness) return;
  for (uint32_t worker = 0; worker < worker_slots(); ++worker) {
    if (workers_[worker].used) RecallAllOf(worker, index);
  }
  DropTickets(index);
}

void Engine::DropTickets(uint32_t index) {
  ledger_.TakeUp(index);
  for (ArrivalId id = ledger_.FirstHeld(index); id != kNoArrival; id = ledger_.FirstHeld(index)) {
    ledger_.Drop(id);
    places_.Leave(index);
  }
}

// --- Credit and places that are kept ------------------------------------------------------------

// What it has asked for and may still bring something.
uint32_t Engine::UnderWay(const SourceState& source) {
  return source.pace.under_way() + (source.tickets.counting() ? 1 : 0);
}

// Lets go of credit, promises and places that it needs no more: of what has found nothing, and of
// what was offered to another worker, dropped or refused. `fresh`: for what has just been found,
// and is about to be dealt, it needs them still. Returns whether others may have any.
bool Engine::LetGo(uint32_t index, uint64_t fresh) {
  const SourceState& source = sources_[index];
  const uint64_t under_way = UnderWay(source);
  const uint64_t to_deal = std::max(fresh, ledger_.ToDeal(index));
  const bool any = places_.LetGo(index, under_way + fresh, under_way + to_deal);
  if (source.tickets.counting() || fresh > 0) return any;
  return places_.TakeFromCount(index) || any;
}

bool Engine::LetGo() {
  bool any = false;
  for (uint32_t index = 0; index < source_slots(); ++index) any |= LetGo(index, 0);
  return any;
}

// --- Room in the ledger, by (14) -----------------------------------------------------------------

// What may still come of all multishot accepts when they have been told to end.
uint32_t Engine::BurstMax() const {
  return eaches_ == 0 ? 0 : 2 * config_.completions_max + config_.completion_entries + eaches_;
}

// Whether there is room for so many arrivals beside those that are under way or may come unasked.
bool Engine::HasRoomFor(uint32_t arrivals) const {
  return ledger_.room() >= uint64_t{BurstMax()} + accepts_under_way_ + arrivals;
}

uint32_t Engine::RoomForEach() const {
  return ledger_.room() - std::min(ledger_.room(), accepts_under_way_);
}

void Engine::MakeRoom() {
  const uint64_t needed = uint64_t{ledger_.records_used()} + accepts_under_way_ + words_ +
                          unsettled_.room() + holds_ + BurstMax();
  const uint32_t before = ledger_.room();
  ledger_.Reserve(source_slots(), worker_slots(),
                  static_cast<uint32_t>(std::min<uint64_t>(needed, kRecordsMax)));
  // What was not taken in is looked at anew.
  if (wants_room_ && ledger_.room() > before) again_ = true;
  wants_room_ = false;
}

// --- Growing too old -----------------------------------------------------------------------------

// Drops what nobody has claimed in time; its client has given up, or will not be pleased.
void Engine::Expire() {
  // Nobody is rung while nobody drives it, and a recall may have to ring.
  if (now_ns_ < expires_at_ns_ || resting_) return;
  expires_at_ns_ = kWaitForever;
  for (const uint32_t index : active_) {
    if (!workers_[index].sending.used()) ExpireOffered(index);
  }
  for (uint32_t index = 0; index < source_slots(); ++index) {
    if (sources_[index].config.age_max_ns > 0) ExpireHeld(index);
  }
}

// Whether its time is over; otherwise notes when it will be.
bool Engine::Expired(const ArrivalRecord& record) {
  const int64_t age_max_ns = sources_[record.source].config.age_max_ns;
  if (age_max_ns == 0) return false;
  const int64_t at_ns = After(record.came_at_ns, age_max_ns);
  if (now_ns_ >= at_ns) return true;
  expires_at_ns_ = std::min(expires_at_ns_, at_ns);
  return false;
}

// Newest first, so that the oldest ends up first among what is held.
void Engine::ExpireOffered(uint32_t index) {
  // So that no claim from before is taken for motion after it.
  ReapAll(index);
  WorkerState& worker = workers_[index];
  bool recalled = false;
  for (const Outbox::Entry entry : worker.outbox.newest_first()) {
    if (Expired(ledger_.record(entry.id))) recalled |= RecallAt(index, entry);
  }
  worker.outbox.SkipHoles();
  // By (7) it owes motion, which `rung` must be able to show when no word is left.
  if (recalled && !worker.outbox.rung() && !worker.outbox.unpublished()) RingWorker(index);
}

// What is held is in the order in which it came, but for what was recalled twice, or what the
// kernel's clock does not tell apart. So one that is too old may be behind one that is not. It is
// dropped when its turn comes (DealHeld).
void Engine::ExpireHeld(uint32_t index) {
  ArrivalId id = ledger_.FirstHeld(index);
  while (id != kNoArrival && Expired(ledger_.record(id)) && DropExpired(index, id)) {
    id = ledger_.FirstHeld(index);
  }
  id = ledger_.FirstAside(index);
  while (id != kNoArrival && Expired(ledger_.record(id)) && DropExpired(index, id)) {
    id = ledger_.FirstAside(index);
  }
}

// Drops the first that the source holds, or has set aside. False: no more in this batch.
bool Engine::DropExpired(uint32_t index, ArrivalId id) {
  if (expired_ == kRefusalsPerBatchMax) {
    expires_at_ns_ = now_ns_;
    again_ = true;
    return false;
  }
  ++expired_;
  ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = ledger_.Drop(id)});
  places_.Leave(index);
  return true;
}

void Engine::Refresh(SourceState& source) {
  AddCandidates(source, false);
  if (candidates_.empty()) AddCandidates(source, true);
}

// What other masters give to the same workers in the middle of a batch. Two that both filled up the
// same worker by what it had before their batches would give it twice as much as it lacked.
void Engine::RefreshOpen(const SourceState& source) {
  for (Candidate& candidate : candidates_) CountOpen(source, candidate);
}

// What has ended was claimed, also when its worker has not been seen to, or has not said so yet.
void Engine::CountOpen(const SourceState& source, Candidate& candidate) const {
  const uint32_t index = candidate.worker;
  candidate.open = places_.Open(index, source.index);
  candidate.unclaimed = std::min(Unclaimed(index), candidate.open);
  candidate.still_ns = candidate.unclaimed > 0 ? Still(index) : 0;
}

// The workers with credit; those that are slow at work only if asked for.
void Engine::AddCandidates(SourceState& source, bool slow_too) {
  candidates_.clear();
  for (const uint32_t index : source.joined) {
    const WorkerState& worker = workers_[index];
    if (!slow_too && SlowAtWork(worker)) continue;
    const uint32_t credit = Credit(index, source);
    if (credit == 0) continue;
    const int32_t cpu = worker.config.cpu >= 0
                            ? worker.config.cpu
                            : worker.config.state->cpu.load(std::memory_order_relaxed);
    candidates_.push_back({.worker = index,
                           .credit = credit,
                           .cpu = cpu,
                           .idle = Idle(worker),
                           .on_host = worker.config.ring_fd < 0});
    CountOpen(source, candidates_.back());
  }
}

bool Engine::Idle(const WorkerState& worker) const {
  if (!worker.outbox.empty() || worker.sending.untaken() > 0 || worker.outbox.rung() ||
      worker.outbox.unpublished() ||
      worker.config.state->serving.load(std::memory_order_relaxed) != 0) {
    return false;
  }
  for (const Inbox* const inbox : worker.config.other_inboxes) {
    if (inbox->Rung()) return false;
  }
  for (const Tally* const tally : worker.config.other_tallies) {
    if (tally->Untaken() > 0) return false;
  }
  return true;
}

// How long what waits for it has waited without it moving.
int64_t Engine::Still(uint32_t index) const {
  return Unclaimed(index) == 0 ? 0 : workers_[index].motion.StillNs(now_ns_);
}

// Whether it has been recalled from of late and is inside a claim now. What it is offered then
// waits for a callback that may take long, too briefly for a recall perhaps and yet for the most of
// that callback, so everybody else is asked first. A hint: a wrong one costs a worse pick.
bool Engine::SlowAtWork(const WorkerState& worker) const {
  return worker.motion.slow(now_ns_) &&
         worker.config.state->serving.load(std::memory_order_relaxed) != 0;
}

// For arrivals of `source`, which may have promises; by (3), (7) and (16).
uint32_t Engine::Credit(uint32_t index, const SourceState& source) const {
  const WorkerState& worker = workers_[index];
  // What others keep is in use.
  const uint32_t kept = places_.KeptAt(index) - places_.Kept(source.index, index);
  const uint32_t unclaimed = Unclaimed(index) + kept;
  const uint32_t window = worker.motion.window();
  if (worker.motion.owes_motion() || unclaimed >= window) return 0;
  const uint32_t places = places_.At(index, source.index);
  if (places == 0) return 0;
  if (worker.sending.used()) {
    // Its ring cannot be reached, or too much is not yet known to have been received.
    if (worker.bell.owed() || unsettled_.full()) return 0;
    return std::min(window - unclaimed, places);
  }
  // Holes between the oldest unclaimed offer and the tail use up words, too.
  const uint32_t words = worker.outbox.room();
  return std::min({window - unclaimed, places, words - std::min(words, kept)});
}

bool Engine::OfferTo(uint32_t index, ArrivalId id) {
  WorkerState& worker = workers_[index];
  RINGMASTER_CHECK(Unclaimed(index) < worker.motion.window());  // (3)
  if (!places_.Take(index, ledger_.record(id).source)) return false;
  if (Unclaimed(index) == 0) worker.motion.BeginsToWait(now_ns_);
  if (worker.sending.used()) {
    SendTo(index, id);
    return true;
  }
  const bool touched = worker.outbox.unpublished();
  worker.outbox.Put(id, OfferOf(ledger_.record(id)));
  ledger_.Offer(id, index, now_ns_);
  worker.looks.Offered(After(now_ns_, RecallLimit(id)));
  if (!touched) {
    touched_.push_back(index);
    Activate(index);
  }
  return true;
}

// By (8).
void Engine::SendTo(uint32_t index, ArrivalId id) {
  WorkerState& worker = workers_[index];
  ledger_.Send(id, index, worker.generation);
  const ArrivalRecord& record = ledger_.record(id);
  SourceState& source = sources_[record.source];
  ++source.unsettled;
  worker.sending.Send(TicketOf(source, record.source));
  unsettled_.Sent(id);
  ops_.push_back({.key = {.kind = OpKind::kSend, .index = id},
                  .fd = worker.config.ring_fd,
                  .tag = worker.sending.token(record.source),
                  .sent = record.fd});
  if (source.config.readiness) source.tickets.Send();
  Activate(index);
}

// The only places that know what may be waited for, each asked wherever that matters: whether to
// raise `hungry`, what is armed, and by CheckAll whether what is left to be done waits at all.
Engine::Waits Engine::WaitsOf(const SourceState& source) const {
  if (source.starved) return Waits::kForCredit;
  if (source.back_off.pauses()) return Waits::kForDescriptors;
  if (source.tickets.awaits_took() && !Shut(source)) return Waits::kForTook;
  // Only Took says that all went well by a ticket that was handed over.
  if (source.tickets.untaken() > 0 && source.back_off.waits_for_success()) return Waits::kForTook;
  if (AsksAgain(source)) return Waits::kForPolicy;
  return Waits::kForNothing;
}

Engine::Waits Engine::WaitsOf(const WorkerState& worker) const {
  // Overdue offers that nobody could take.
  return worker.active && worker.looks.wants_taker() ? Waits::kForTaker : Waits::kForNothing;
}

// Whether there is work that waits for somebody else to move.
bool Engine::Starving() const {
  if (stopping_) return true;
  for (const SourceState& source : sources_) {
    if (WaitsOf(source) != Waits::kForNothing) return true;
  }
  for (const uint32_t index : active_) {
    if (WaitsOf(workers_[index]) != Waits::kForNothing) return true;
  }
  return false;
}

// Whether only a set-up call can make its intake go on.
bool Engine::Shut(const SourceState& source) const {
  return source.joined.empty() || source.paused || (source.failed && !source.drains) ||
         source.removed || stopping_ || resting_;
}

// Whether what it has taken in is given to workers.
bool Engine::Deals(const SourceState& source) const {
  return !source.joined.empty() && !refusing_ && !resting_ &&
         !(source.config.readiness && (stopping_ || source.removed));
}

// Whether something of the source is left to be done and not under way.
bool Engine::HasWork(uint32_t index) const {
  const SourceState& source = sources_[index];
  if (Deals(source) && ledger_.ToDeal(index) > 0) return true;
  if (Shut(source)) return false;
  if (source.arm != Arm::kArmed && !source.failed) return true;
  const bool looks =
      source.pace.under_way() > 0 || source.tickets.counting() || source.asking_state;
  if (source.asks_state && !looks) return true;
  return !source.config.multishot_accept && !looks && (source.ready || source.tickets.counted());
}

// Closes what nobody will ever take: all after the deadline of a shutdown, and what a removed
// source holds that no worker has joined any more.
void Engine::Refuse() {
  uint32_t refused = 0;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    if (sources_[index].config.readiness) {
      if (stopping_ || sources_[index].removed) DropTickets(index);
      continue;
    }
    if (!refusing_ && !(sources_[index].removed && sources_[index].joined.empty())) continue;
    ledger_.TakeUp(index);
    for (ArrivalId id = ledger_.FirstHeld(index); id != kNoArrival; id = ledger_.FirstHeld(index)) {
      if (refused++ == kRefusalsPerBatchMax) {
        again_ = true;
        return;
      }
      ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = ledger_.Refuse(id)});
      places_.Leave(index);
    }
  }
}

// --- Ringing and arming --------------------------------------------------------------------------

void Engine::RingTouched() {
  for (const uint32_t index : touched_) {
    workers_[index].outbox.Publish();
    RingWorker(index);
  }
  touched_.clear();
}

void Engine::RingWorker(uint32_t index) {
  WorkerState& worker = workers_[index];
  const bool due = worker.outbox.Ring();
  Activate(index);
  if (due && worker.config.ring_fd >= 0) SendDoorbell(index);
}

void Engine::SendDoorbell(uint32_t index) {
  WorkerState& worker = workers_[index];
  worker.bell.Ring();
  ops_.push_back({.key = {.kind = OpKind::kDoorbell,
                          .generation = static_cast<uint16_t>(worker.generation),
                          .index = index},
                  .fd = worker.config.ring_fd,
                  .tag = worker.config.tag});
}

// By (5).
bool Engine::WantsArm(uint32_t index) const {
  const SourceState& source = sources_[index];
  if (Shut(source) || source.failed || source.back_off.pauses()) return false;
  // Armed anew when the policy needs other facts of what is accepted.
  if (source.arm == Arm::kArmed && source.config.multishot_accept &&
      source.armed_key.facts != source.facts) {
    return false;
  }
  if (source.config.multishot_accept) {
    if (source.hung_up || (source.arm == Arm::kIdle && source.doubt != 0)) return false;
    return ledger_.source(index).held < source.config.hold && !source.full;
  }
  return !(source.ready && (WaitsOf(source) == Waits::kForCredit || AsideFull(source)));
}

void Engine::ArmSources() {
  if (!watching_ && !resting_ && config_.watch_fd >= 0) {
    watching_ = true;
    ops_.push_back({.key = {.kind = OpKind::kWatch}, .fd = config_.watch_fd});
  }
  for (uint32_t index = 0; index < source_slots(); ++index) {
    SourceState& source = sources_[index];
    const bool wants = WantsArm(index);
    const bool multishot = source.config.multishot_accept;
    if (wants && source.arm == Arm::kIdle) {
      ++source.generation;
      ++source.intake.arms;
      source.arm = Arm::kArmed;
      source.armed_anew = true;
      if (multishot) source.back_off.Try(now_ns_);
      source.armed_key = SourceKey(multishot ? OpKind::kAcceptEach : OpKind::kPoll, index);
      ops_.push_back({.key = source.armed_key,
                      .fd = source.config.fd,
                      .accept_flags = source.config.accept_flags,
                      .file = source.config.file});
    } else if (!wants && source.arm == Arm::kArmed) {
      source.arm = Arm::kEnding;
      ++source.intake.pauses;
      OpKey key = source.armed_key;
      key.kind = multishot ? OpKind::kAcceptEnd : OpKind::kPollEnd;
      ops_.push_back({.key = key, .fd = source.config.fd});
    }
    WatchEnd(index);
  }
}

// By (17): behind the accept, so that this takes first what had come before the end.
void Engine::WatchEnd(uint32_t index) {
  SourceState& source = sources_[index];
  const bool wants = source.config.hides_end && source.arm == Arm::kArmed && !source.hung_up;
  if (wants && !source.watches_end) {
    source.watches_end = true;
    source.end_key = SourceKey(OpKind::kHangUp, index);
    ops_.push_back({.key = source.end_key, .fd = source.config.fd, .file = source.config.file});
  } else if (source.arm != Arm::kArmed && source.watches_end && !source.ends_watch) {
    source.ends_watch = true;
    OpKey key = source.end_key;
    key.kind = OpKind::kHangUpEnd;
    ops_.push_back({.key = key, .fd = source.config.fd});
  }
}

OpKey Engine::SourceKey(OpKind kind, uint32_t index) const {
  const SourceState& source = sources_[index];
  return {.kind = kind, .facts = source.facts, .generation = source.generation, .index = index};
}

void Engine::Activate(uint32_t index) {
  WorkerState& worker = workers_[index];
  if (worker.active) return;
  worker.active = true;
  active_.push_back(index);
}

void Engine::Emit(EventKind kind, uint32_t source, uint32_t worker, int32_t error) {
  Emit({.kind = kind, .source = source, .worker = worker, .error = error});
}

void Engine::Emit(const EngineEvent& event) {
  // Bounded: what does not fit is not worth an allocation on this path.
  if (events_.size() == events_.capacity()) return;
  events_.push_back(event);
}

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
  while (index < sources_.size() && !SlotIsFree(index)) ++index;
  return index;
}

// By (9). A worker that has claimed an offer of the source looks its token up before its callback
// ends, and uses the books of the source while it redeems a ticket. So one that is found to do
// neither, after all offers were taken, does not look any more: later it finds that its ticket is
// late.
bool Engine::SlotIsFree(uint32_t index) {
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
  Reap(index);
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
      places_.Leave(index);
    }
  }
  LetGo();
}

void Engine::StopIntake() {
  stopping_ = true;
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
    Reap(index);
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
  if (worker.sending.used()) return Still(index);
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
    RINGMASTER_CHECK(places_.promises(index) <= ledger_.ToDeal(index) + UnderWay(source));  // (13)
    RINGMASTER_CHECK(places_.keeps(index) <= UnderWay(source));                             // (16)
    RINGMASTER_CHECK(places_.CountHasPlace(index) == source.tickets.counting());            // (16)
  }
  RINGMASTER_CHECK(!ring_keeps_its_word || accepts_under_way_ <= ledger_.room());  // (14)
  if (!at_rest) return;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    const SourceState& source = sources_[index];
    const Waits waits = WaitsOf(source);
    // A policy that has set something aside keeps nothing else from being done.
    const bool waits_with_all =
        AsideFull(source) || (waits != Waits::kForNothing && waits != Waits::kForPolicy);
    RINGMASTER_CHECK((source.arm == Arm::kArmed) == WantsArm(index));  // (5)
    RINGMASTER_CHECK(waits_with_all || !HasWork(index));               // (5)
    RINGMASTER_CHECK(waits == Waits::kForNothing || hungry_);          // (5)
  }
  for (const WorkerState& worker : workers_) {
    RINGMASTER_CHECK(WaitsOf(worker) == Waits::kForNothing || hungry_);  // (5)
  }
}

}  // namespace ringmaster::core
