#include "core/receiver.h"

#include <algorithm>
#include <cerrno>

#include "core/accept_error.h"

namespace ringmaster::core {

// --- Completions ---------------------------------------------------------------------------------

bool Receiver::Asked(const Source& source, OpKind kind) {
  switch (kind) {
    case OpKind::kCount:
      return source.tickets.counting();
    case OpKind::kOverflows:
      return source.overflows.asking();
    case OpKind::kState:
      return source.intake.listening().asking();
    case OpKind::kHangUp:
      return source.intake.arming().watches_end();
    case OpKind::kAccept:
      return source.pace.under_way() > 0;
    default:
      return kind == source.intake.type().arms;
  }
}

void Receiver::OnCompletion(const Completion& completion) {
  const OpKey key = completion.key;
  if (key.index >= books_.sources.size()) return;
  Source& source = books_.sources[key.index];
  if (!Asked(source, key.kind)) return;
  const int32_t result = completion.result;
  switch (key.kind) {
    case OpKind::kCount:
      return OnCounted(source, result);
    case OpKind::kOverflows:
      source.overflows.Answered();
      return NoteOverflows(source, result);
    case OpKind::kState:
      return OnState(source, result);
    case OpKind::kHangUp:
      return OnHangUp(source, result);
    default:
      break;
  }
  source.overflows.Came();
  if (key.kind == OpKind::kAccept) {
    source.pace.Complete();
    books_.room.Complete();
    if (result < 0) books_.places.GiveBack(key.index);
  } else if (!completion.more) {
    source.intake.Complete(key.generation, result);
  }
  if (key.kind == OpKind::kPoll) {
    OnPolled(source, result);
  } else if (result >= 0) {
    OnAccepted(source, completion);
  } else {
    OnAcceptError(source, -result);
  }
}

// Edges that completions after this one report came after the count. A backlog that cannot be
// counted is left to a worker, who finds out why.
void Receiver::OnCounted(Source& source, int32_t result) {
  const auto backlog = result >= 0 ? static_cast<uint32_t>(result) : 1;
  source.tickets.Count(backlog);
  source.intake.edges().Clear();
  if (result == -kOtherFile) return OnAcceptError(source, kOtherFile);
  if (backlog == 0) source.back_off.Try(books_.now_ns);
}

void Receiver::OnPolled(Source& source, int32_t result) {
  if (result >= 0) return source.intake.Polled(result);
  if (result == -ENOMEM) return Fail(source, BackOff::Failure::kNoMemory, -result);
  if (result != -ECANCELED) GiveUp(source, -result);
}

void Receiver::OnHangUp(Source& source, int32_t result) {
  source.intake.arming().WatchCompletes();
  if (result == -ENOMEM) return Fail(source, BackOff::Failure::kNoMemory, -result);
  if (result == -ECANCELED) return;
  if (result < 0) return OnAcceptError(source, -result);
  source.intake.listening().WatchShows(source.intake.arming().armed());
}

void Receiver::OnState(Source& source, int32_t result) {
  const Listening::Verdict verdict = source.intake.Answer(result, source.removed);
  if (verdict.went_wrong) Fail(source, BackOff::Failure::kConnection, EINVAL);
  if (verdict.error != 0) GiveUp(source, verdict.error);
}

// --- What was accepted ---------------------------------------------------------------------------

void Receiver::OnAccepted(Source& source, const Completion& completion) {
  const int64_t now_ns = books_.now_ns;
  const int64_t age_max_ns = source.config.age_max_ns;
  const int64_t came_at_ns =
      completion.came_at_ns > 0 ? std::min(completion.came_at_ns, now_ns) : now_ns;
  int64_t expires_at_ns = kWaitForever;
  if (age_max_ns > 0) {
    expires_at_ns = After(came_at_ns, age_max_ns);
    if (completion.gone || now_ns >= expires_at_ns) return DropAtOnce(source, completion);
  }
  if (books_.ledger.room() == 0) return TurnAway(source, completion);
  books_.ledger.Arrive(source.index, completion.result, completion.facts, came_at_ns);
  if (completion.key.kind == OpKind::kAcceptEach) books_.places.ForceReserve(source.index);
  books_.ages.Note(expires_at_ns);
  source.pace.Found();
  ++books_.arrived;
  source.back_off.Succeed();
}

// Rule "too old" of core/ages.h.
void Receiver::DropAtOnce(Source& source, const Completion& completion) {
  books_.ledger.DropAtOnce(source.index, completion.gone);
  books_.ops.push_back({.key = source.Key(OpKind::kClose), .fd = completion.result});
  if (completion.key.kind == OpKind::kAccept) books_.places.GiveBack(source.index);
  source.pace.Found();
  ++books_.arrived;
  source.back_off.Succeed();
}

// The ring has brought more than it said it could.
void Receiver::TurnAway(Source& source, const Completion& completion) {
  books_.ledger.TurnAway(source.index);
  books_.ops.push_back({.key = source.Key(OpKind::kClose), .fd = completion.result});
  if (completion.key.kind == OpKind::kAccept) books_.places.GiveBack(source.index);
  if (books_.room.TurnAway()) books_.Emit(EventKind::kTurnedAway, source.index);
}

// --- What went wrong -----------------------------------------------------------------------------

void Receiver::OnAcceptError(Source& source, int32_t error) {
  // Of what is ended anyway nobody need hear.
  if (source.removed || source.intake.listening().ended()) return;
  switch (AcceptErrorOf(error)) {
    case AcceptError::kNone:
      if (error != EAGAIN) return;
      // Later completions of the same batch may still say otherwise: they are in the order in which
      // things happened.
      source.intake.edges().Clear();
      source.pace.FoundEnd();
      source.intake.listening().FindNothing();
      FindNothing(source);
      return;
    case AcceptError::kShortage:
      ++source.counts.errors;
      return Fail(source, BackOff::Failure::kShortage, error);
    case AcceptError::kBlocks:
      ++source.counts.errors;
      return Fail(source, BackOff::Failure::kBlocks, error);
    case AcceptError::kWrongFile:
      ++source.counts.errors;
      return GiveUp(source, error);
    case AcceptError::kDoubt:
      ++source.counts.errors;
      return source.intake.listening().Doubt(error);
    case AcceptError::kConnection:
      ++source.counts.errors;
      return Fail(source, BackOff::Failure::kConnection, error);
  }
}

// A connection that went wrong before it was accepted (ECONNABORTED, EPROTO, EPERM by a firewall
// rule, the network errors of accept(2)) is gone, and the next may be fine. What else could not be
// accepted is still in the backlog.
void Receiver::Fail(Source& source, BackOff::Failure failure, int32_t error) {
  source.intake.edges().MayHaveMore();
  const BackOff::Verdict verdict = source.back_off.Fail(failure, books_.now_ns);
  if (verdict.say) {
    const bool blocks = failure == BackOff::Failure::kBlocks;
    books_.Emit(blocks ? EventKind::kSourceBlocks : EventKind::kOutOfDescriptors, source.index, 0,
                error);
  }
  // An arming that is still up is ended for a pause, and counted then.
  if (verdict.pauses && source.intake.arming().idle()) ++source.counts.pauses;
}

void Receiver::FindNothing(Source& source) {
  if (source.back_off.FindNothing()) books_.Emit(EventKind::kAccepting, source.index);
}

void Receiver::GiveUp(Source& source, int32_t error) {
  if (source.removed) return;
  Listening& listening = source.intake.listening();
  if (listening.GiveUp()) books_.Emit(EventKind::kSourceFailed, source.index, 0, error);
  if (!listening.drains()) source.intake.edges().Clear();
}

// --- The end of a batch --------------------------------------------------------------------------

void Receiver::TakeGivenBack() {
  for (Source& source : books_.sources) {
    const GivenBack::News news = source.tickets.TakeNews();
    if (!source.intake.tickets() || source.removed) continue;
    // In which order these were is not known. The worst counts, so it comes last. And an edge of
    // this batch may be of what has come since, so nothing here says that there is no more.
    if (news.redeemed) source.back_off.Succeed();
    if (news.nothing) FindNothing(source);
    if (news.more) source.intake.edges().MayHaveMore();
    if (news.error == 0) continue;
    source.tickets.Fail();
    // What its number stands for is not for a worker to say.
    OnAcceptError(source, news.error == kOtherFile ? EBADF : news.error);
  }
}

void Receiver::FinishBatch() {
  for (Source& source : books_.sources) {
    if (source.back_off.EndsShortage(books_.now_ns)) {
      books_.Emit(EventKind::kAccepting, source.index);
    }
    if (source.back_off.Resume(books_.now_ns)) TryAgain(source);
    // What has found nothing needs no credit any more.
    books_.LetGo(source,
                 books_.ledger.source(source.index).new_to_deal() + source.tickets.counted());
    source.pace.Learn();
  }
}

void Receiver::NoteOverflows(Source& source, int32_t overflows) {
  const Overflows::News news = source.overflows.Note(overflows, books_.now_ns);
  source.counts.overflows += news.discarded;
  if (news.begins) books_.Emit(EventKind::kBacklogOverflow, source.index);
}

bool Receiver::BackingOff() const {
  return std::any_of(books_.sources.begin(), books_.sources.end(),
                     [](const Source& source) { return source.back_off.pauses(); });
}

void Receiver::EndBackOffs() {
  for (Source& source : books_.sources) {
    if (source.back_off.ResumeEarly()) TryAgain(source);
  }
}

void Receiver::TryAgain(Source& source) {
  source.tickets.TryAgain();
  source.pace.BeginAnew();
}

}  // namespace ringmaster::core
