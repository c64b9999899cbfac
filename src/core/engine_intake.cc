#include "core/engine.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace ringmaster::core {

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
    if (completion.result < 0) places_.GiveBack(key.index);
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
  BackOffBell(index, -completion.result);
}

// The worker's ring cannot be reached just now.
void Engine::BackOffBell(uint32_t index, int32_t error) {
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
      BackOffBell(record.worker, failure.error);
      // It seemed to stand still only because the failure was told late, and has nothing to take.
      if (worker.motion.owes_motion() && Unclaimed(record.worker) == 0) Moved(record.worker);
    }
    if (!place_is_free) places_.ForceReserveShared();
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
  places_.GiveBack(index);
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
    places_.GiveBackShared();
    return;
  }
}

void Engine::GiveBack(uint32_t index, int32_t error) { sources_[index].tickets.GiveBack(error); }

void Engine::GiveBack(uint32_t index, const GivenBack::News& news) {
  if (news.more) GiveBack(index, 0);
  if (news.nothing) GiveBack(index, EAGAIN);
  if (news.error != 0) GiveBack(index, news.error);
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
  int64_t expires_at_ns = kWaitForever;
  if (age_max_ns > 0) {
    expires_at_ns = After(came_at_ns, age_max_ns);
    if (completion.gone || now_ns_ >= expires_at_ns) return DropAtOnce(index, completion);
  }
  if (!ledger_.HasRoom()) return TurnAway(index, completion);
  ledger_.Arrive(index, completion.result, completion.facts, came_at_ns);
  if (completion.key.kind == OpKind::kAcceptEach) places_.ForceReserve(index);
  expires_at_ns_ = std::min(expires_at_ns_, expires_at_ns);
  source.pace.Found();
  ++arrived_;
  source.back_off.Succeed();
}

// By (15).
void Engine::DropAtOnce(uint32_t index, const Completion& completion) {
  SourceState& source = sources_[index];
  ledger_.DropAtOnce(index, completion.gone);
  ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = completion.result});
  if (completion.key.kind == OpKind::kAccept) places_.GiveBack(index);
  source.pace.Found();
  ++arrived_;
  source.back_off.Succeed();
}

// By (14).
void Engine::TurnAway(uint32_t index, const Completion& completion) {
  ledger_.TurnAway(index);
  ops_.push_back({.key = SourceKey(OpKind::kClose, index), .fd = completion.result});
  if (completion.key.kind == OpKind::kAccept) places_.GiveBack(index);
  wants_room_ = true;
  if (!std::exchange(turned_away_, true)) Emit(EventKind::kTurnedAway, index, 0, 0);
}

void Engine::OnAcceptError(uint32_t index, int32_t error) {
  SourceState& source = sources_[index];
  // Of what is ended anyway nobody need hear.
  if (source.removed || (source.failed && !source.drains)) return;
  switch (AcceptErrorOf(error)) {
    case AcceptError::kNone:
      if (error != EAGAIN) return;
      // Later completions of the same batch may still set it again: they are in the order in which
      // things happened.
      source.ready = false;
      source.pace.FoundEnd();
      if (source.hung_up) source.asks_state = true;  // by (17)
      FindNothing(index);
      return;
    case AcceptError::kShortage:
      ++source.intake.errors;
      if (source.back_off.RunOut(now_ns_)) Emit(EventKind::kOutOfDescriptors, index, 0, error);
      PauseIntake(index);
      return;
    case AcceptError::kBlocks:
      ++source.intake.errors;
      if (now_ns_ >= source.blocked_until_ns) Emit(EventKind::kSourceBlocks, index, 0, error);
      source.blocked_until_ns = After(now_ns_, kDescriptorsCalmNs);
      PauseIntake(index);
      return;
    case AcceptError::kWrongFile:
      ++source.intake.errors;
      return GiveUp(index, error);
    case AcceptError::kDoubt:
      ++source.intake.errors;
      return Doubt(source, error);
    case AcceptError::kConnection:
      ++source.intake.errors;
      source.back_off.Try(now_ns_);  // by then it had all that is short in a shortage
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
    LetGo(index, ledger_.NewToDeal(index) + source.tickets.counted());
    source.pace.Learn();
  }
}

}  // namespace ringmaster::core
