#include "sim/sim_worker.h"

#include <limits>

#include "sim/world.h"

namespace ringmaster::sim {

SimWorker::SimWorker(World* world, uint32_t id, const SimWorkerConfig& config)
    : world_(world),
      id_(id),
      config_(config),
      storage_(Allocate(core::Inbox::WordsFor(config.window))),
      inbox_(storage_.get(), core::Inbox::WordsFor(config.window)) {}

std::byte* SimWorker::Allocate(uint32_t words) {
  const size_t bytes = core::Inbox::BytesFor(words);
  auto* storage =
      static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{core::kCacheLine}));
  for (size_t i = 0; i < bytes; ++i) storage[i] = std::byte{0};
  return storage;
}

void SimWorker::OnDoorbell() {
  if (state_ == State::kGone || state_ == State::kDead) return;
  ++doorbells_;
  if (state_ != State::kWaiting) return;
  world_->checker().OnBusy(id_);
  Go(State::kBegin, world_->WorkerWakeCost());
}

void SimWorker::Step() {
  if (state_ == State::kDead || state_ == State::kGone) return;
  if (world_->Happens(Fault::kWorkerDies)) {
    world_->Note("dies", id_);
    state_ = State::kDead;
    world_->checker().OnBusy(id_);
    return;
  }
  if (world_->Happens(Fault::kWorkerStalls)) {
    return world_->ScheduleStep(id_, world_->StallTime());
  }
  switch (state_) {
    case State::kBegin:
      return Begin();
    case State::kTake:
      return Take();
    case State::kCallback:
      return EndCallback();
    case State::kEnd:
      port_state_.serving = 0;
      return Go(State::kKnock, world_->StepCost());
    case State::kKnock:
      if (!world_->Breaks(Breakage::kWorkerNeverKnocks)) KnockIfHungry();
      return Go(State::kNext, world_->StepCost());
    case State::kNext:
      return Next();
    case State::kWaiting:
    case State::kLeaving:
    case State::kGone:
    case State::kDead:
      return;
  }
}

void SimWorker::Begin() {
  if (doorbells_ > 0) --doorbells_;
  bounded_ = world_->Happens(Fault::kClaimStopsEarly);
  connections_left_ = bounded_ ? static_cast<uint32_t>(world_->prng().Between(1, 3))
                               : std::numeric_limits<uint32_t>::max();
  claimed_any_ = false;
  port_state_.serving = 1;
  const bool was_rung = inbox_.Rung();
  inbox_.Begin();
  if (world_->Breaks(Breakage::kWorkerKeepsRung)) {
    inbox_.Ring();
  } else if (was_rung) {
    world_->checker().OnMoved(id_, world_->now_ns());
  }
  world_->Note("begins", id_);
  Go(State::kTake, world_->StepCost());
}

void SimWorker::Take() {
  const uint64_t word = connections_left_ > 0 ? inbox_.Take() : 0;
  if (word == 0) {
    if (!claimed_any_) world_->Reached(Milestone::kEmptyClaim);
    return Go(State::kEnd, world_->StepCost());
  }
  claimed_any_ = true;
  --connections_left_;
  serving_ = world_->Serve(id_, word);
  Go(State::kCallback, world_->ServiceTime(serving_));
}

void SimWorker::EndCallback() {
  if (serving_ != Checker::kNone) world_->OnCallbackEnd(id_, serving_);
  Go(State::kTake, world_->StepCost());
}

void SimWorker::KnockIfHungry() {
  if (world_->hunger().TakeKnock()) world_->Knock(id_);
}

void SimWorker::Next() {
  const bool left = inbox_.Left();
  if (left && !(bounded_ && world_->Happens(Fault::kClaimForgets))) {
    return Go(State::kBegin, world_->StepCost());
  }
  if (world_->Happens(Fault::kWorkerLeaves)) {
    state_ = State::kLeaving;
    return world_->AskToLeave(id_);
  }
  if (doorbells_ > 0) return Go(State::kBegin, world_->StepCost());
  state_ = State::kWaiting;
  world_->checker().OnIdle(id_, world_->now_ns());
}

void SimWorker::Release() {
  port_state_.Release();
  if (world_->Breaks(Breakage::kLeaseReleasesTwice, {1, 8})) port_state_.Release();
}

void SimWorker::KnockAfterRelease() {
  if (!world_->Breaks(Breakage::kLeaseNeverKnocks)) KnockIfHungry();
}

void SimWorker::Go(State state, int64_t after_ns) {
  state_ = state;
  world_->ScheduleStep(id_, after_ns);
}

}  // namespace ringmaster::sim
