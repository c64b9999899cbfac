#include "core/engine.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/check.h"

namespace ringmaster::core {

Engine::Engine(const EngineConfig& config, Hunger* hunger)
    : Questions(config),
      hunger_(hunger),
      registry_(books_, {.policies = policies_,
                         .bells = bells_,
                         .delivery = delivery_,
                         .reader = reader_,
                         .recaller = recaller_,
                         .closer = closer_,
                         .mover = mover_,
                         .dealer = dealer_,
                         .asker = asker_,
                         .rota = rota_,
                         .aimer = aimer_}) {}

// --- One batch ---------------------------------------------------------------------------------

void Engine::OnBatch(std::span<const Completion> completions, int64_t now_ns, std::vector<Op>& ops,
                     bool all_reported) {
  books_.now_ns = now_ns;
  books_.more_to_do = false;
  books_.room.BeginBatch();
  closer_.BeginBatch();
  std::swap(books_.ops, ops);
  books_.ops.clear();
  books_.ops.reserve(registry_.ops_max());
  for (const Completion& completion : completions) OnCompletion(completion);
  delivery_.Settle(all_reported);
  if (hunger_->LeaseEnded()) receiver_.EndBackOffs();
  receiver_.TakeGivenBack();
  receiver_.FinishBatch();
  aimer_.TakeNote();
  if (books_.arrived > 0) moderation_.NoteArrivals(std::exchange(books_.arrived, 0), now_ns);
  ReadInboxes();
  closer_.Expire();
  if (books_.resting && std::exchange(hungry_, false)) hunger_->Clear();
  for (uint32_t round = 0; !books_.resting; ++round) {
    recaller_.RecallOverdue();
    rota_.Deal();
    books_.LetGo();
    // A policy that has set something aside wants to hear of who waits, too.
    hunger_->WantWaiter(mover_.wants_waiter() || books_.ledger.AnyAside());
    if (!waits_.Any()) {
      if (hungry_) hunger_->Clear();
      hungry_ = false;
      break;
    }
    // Raise the flag, then look once more: whoever made credit before it was up did not knock.
    if (hunger_->Set(receiver_.BackingOff())) {
      receiver_.EndBackOffs();
      books_.more_to_do = true;
    }
    hungry_ = true;
    if (!ReadInboxes()) break;
    if (round == kDealRoundsMax) {
      books_.more_to_do = true;
      break;
    }
  }
  mover_.Move();
  closer_.Refuse();
  if (books_.refusing) delivery_.GiveUpInstalls();
  if (books_.LetGo()) books_.more_to_do = true;
  aimer_.LookAfter();
  bells_.RingTouched();
  hunger_->WantWaiter(mover_.WantsWaiter() || books_.ledger.AnyAside());
  if (mover_.wants_waiter() && mover_.AnyWaiter()) books_.more_to_do = true;
  aimer_.OpenDesks();
  armer_.AskForStates();
  armer_.ArmSources();
  armer_.AskForOverflows();
  std::swap(books_.ops, ops);
}

void Engine::OnCompletion(const Completion& completion) {
  switch (completion.key.kind) {
    case OpKind::kWatch:
      if (!completion.more) armer_.WatchEnded();
      return;
    case OpKind::kDoorbell:
      return bells_.OnFailed(completion);
    case OpKind::kSend:
    case OpKind::kInstall:
      return delivery_.OnTold(completion);
    case OpKind::kPoll:
    case OpKind::kCount:
    case OpKind::kOverflows:
    case OpKind::kState:
    case OpKind::kHangUp:
    case OpKind::kAcceptEach:
    case OpKind::kAccept:
      return receiver_.OnCompletion(completion);
    case OpKind::kPollEnd:
    case OpKind::kHangUpEnd:
    case OpKind::kAcceptEnd:
    case OpKind::kLetGo:
    case OpKind::kClose:
      return;  // only failures arrive, and what was to be ended or closed is gone already
  }
}

// Takes note of what the workers have done. Returns whether anyone has credit that it did not have
// when its source was last dealt, or has taken what a source waited for.
bool Engine::ReadInboxes() {
  return reader_.ReadActive() || dealer_.AnyCanBeDealt() || recaller_.AnyCanBeRecalled();
}

void Engine::CatchUp(int64_t now_ns) {
  books_.now_ns = now_ns;
  ReadInboxes();
}

void Engine::GiveBack(uint32_t source, const GivenBack::News& news) {
  if (news.more) GiveBack(source, 0);
  if (news.nothing) GiveBack(source, EAGAIN);
  if (news.error != 0) GiveBack(source, news.error);
  if (news.redeemed) Redeemed(source);
}

// --- Waiting -------------------------------------------------------------------------------------

int64_t Engine::Gather(int64_t now_ns) const {
  // An accept completes within the turn that asks for it. While work waits for credit, whoever
  // makes some would idle until the knock is heard.
  if (books_.room.accepts() > 0 || hungry_ || books_.stopping) return 0;
  const int64_t gather_ns = moderation_.GatherNs();
  return gather_ns == 0 ? 0 : std::min(gather_ns, WaitMax(now_ns));
}

int64_t Engine::WaitMax(int64_t now_ns) const {
  const int64_t recall_after_ns = books_.config.recall_after_ns;
  // What was sent is settled by the next turn. That is waited for while stopping, and when so much
  // is unsettled that nothing more may be sent: no worker would knock then.
  const Unsettled& unsettled = books_.unsettled;
  const bool settles = books_.stopping ? !unsettled.empty() : unsettled.full();
  if (books_.more_to_do || settles) return 0;
  int64_t at = std::min({books_.ages.due_at_ns(), mover_.due_at_ns(), aimer_.due_at_ns()});
  for (const uint32_t index : books_.active) {
    const Worker& worker = books_.workers[index];
    at = std::min(at, worker.bell.due_at_ns());
    const Motion& motion = worker.motion;
    if (worker.sending.untaken() > 0 && !motion.owes_motion()) {
      at = std::min(at, After(motion.still_since_ns(), recall_after_ns));
    }
    if (books_.ledger.worker(index).unclaimed == 0) continue;  // nothing can be recalled
    const int64_t due =
        std::max(recaller_.FirstLimitAt(worker), After(motion.moved_at_ns(), recall_after_ns));
    at = std::min(at, std::max(due, worker.looks.again_ns()));
    // Looks in vain come by themselves, ever more rarely, and the first that is late enough will
    // do.
    if (!worker.looks.rarer()) at = std::min(at, worker.SilentAt());
  }
  for (const Source& source : books_.sources) {
    at = std::min(at, source.back_off.due_at_ns());
    if (books_.AsksAgain(source)) at = std::min(at, source.aside.ask_at_ns());
  }
  if (at == kWaitForever) return kWaitForever;
  return std::max<int64_t>(0, at - now_ns);
}

// --- Set-up --------------------------------------------------------------------------------------

void Engine::GoOn() {
  books_.resting = false;
  for (Source& source : books_.sources) {
    // What was counted before is of no use any more.
    if (source.tickets.UseCount()) source.intake.edges().LookAgain();
    source.aside.Change();
  }
}

void Engine::StopIntake() {
  aimer_.CloseAll();
  books_.stopping = true;
  TellWorkers();
  for (const Source& source : books_.sources) closer_.WithdrawTickets(source);
}

void Engine::RefuseAll() {
  RINGMASTER_CHECK(books_.stopping);
  books_.refusing = true;
  for (uint32_t index = 0; index < worker_slots(); ++index) {
    if (!books_.workers[index].used) continue;
    recaller_.RecallAllOf(index);
    reader_.Read(index);
  }
}

void Engine::CheckAll(bool nothing_under_way, bool ring_keeps_its_word) {
  books_.ledger.CheckAll();
  books_.places.CheckAll();
  for (uint32_t index = 0; index < worker_slots(); ++index) {
    const Worker& worker = books_.workers[index];
    if (!worker.used) continue;
    const uint32_t unclaimed = books_.Unclaimed(index);
    RINGMASTER_CHECK(worker.sending.used() || unclaimed <= worker.outbox.size() / 2);
    RINGMASTER_CHECK(worker.outbox.free() <= worker.outbox.size());
    RINGMASTER_CHECK(unclaimed == 0 || worker.active);  // WaitMax looks at its age
  }
  for (const Source& source : books_.sources) {
    const uint32_t index = source.index;
    const uint32_t under_way = source.UnderWay();
    RINGMASTER_CHECK(books_.places.promises(index) <=
                     books_.ledger.source(index).new_to_deal() + under_way);
    RINGMASTER_CHECK(books_.places.keeps(index) <= under_way);
    RINGMASTER_CHECK(books_.places.CountHasPlace(index) == source.tickets.counting());
  }
  RINGMASTER_CHECK(!ring_keeps_its_word || books_.room.accepts() <= books_.ledger.room());
  if (!nothing_under_way) return;
  // Rule "reasons" of core/waits.h.
  for (const Source& source : books_.sources) {
    const Waits::For waits = waits_.Of(source);
    // A policy that has set something aside keeps nothing else from being done, nor does what was
    // passed on.
    const bool waits_with_all =
        books_.AsideFull(source) || (waits != Waits::For::kNothing &&
                                     waits != Waits::For::kPolicy && waits != Waits::For::kOthers);
    RINGMASTER_CHECK(source.intake.arming().armed() == waits_.WantsArm(source));
    RINGMASTER_CHECK(waits_with_all || !waits_.HasWork(source));
    RINGMASTER_CHECK(waits == Waits::For::kNothing || hungry_);
  }
  for (const Worker& worker : books_.workers) {
    RINGMASTER_CHECK(waits_.Of(worker) == Waits::For::kNothing || hungry_);
  }
}

}  // namespace ringmaster::core
