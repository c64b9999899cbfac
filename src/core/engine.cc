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
  more_to_do_ = false;
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
  ReadInboxes();
  Expire();
  if (resting_ && std::exchange(hungry_, false)) hunger_->Clear();
  for (uint32_t round = 0; !resting_; ++round) {
    RecallOverdue();
    Deal();
    LetGo();
    // By (20) a policy that has set something aside wants to hear of who waits, too.
    hunger_->WantWaiter(ledger_.AnyAside());
    if (!Starving()) {
      if (hungry_) hunger_->Clear();
      hungry_ = false;
      break;
    }
    // Raise the flag, then look once more: whoever made credit before it was up did not knock.
    if (hunger_->Set(BackingOff())) {
      EndBackOffs();
      more_to_do_ = true;
    }
    hungry_ = true;
    if (!ReadInboxes()) break;
    if (round == kDealRoundsMax) {
      more_to_do_ = true;
      break;
    }
  }
  Refuse();
  if (LetGo()) more_to_do_ = true;
  if (std::exchange(tells_, false)) TouchAll();
  RingTouched();
  AskForStates();
  ArmSources();
  AskForOverflows();
  std::swap(ops_, ops);
}

void Engine::CatchUp(int64_t now_ns) {
  now_ns_ = now_ns;
  ReadInboxes();
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
  if (more_to_do_ || settles) return 0;
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

// --- Ringing and arming --------------------------------------------------------------------------

// By (21). Whoever has been offered something in this batch is touched already.
void Engine::TouchAll() {
  for (uint32_t index = 0; index < worker_slots(); ++index) {
    const WorkerState& worker = workers_[index];
    if (worker.used && !worker.sending.used() && !worker.outbox.unpublished()) {
      touched_.push_back(index);
    }
  }
}

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
    return ledger_.HeldOfIntake(index) < source.config.hold && !source.full;
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

}  // namespace ringmaster::core
