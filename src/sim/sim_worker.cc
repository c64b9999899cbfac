#include "sim/sim_worker.h"

#include <utility>

#include "sim/world.h"

namespace ringmaster::sim {

SimWorker::SimWorker(World* world, uint32_t id, const SimWorkerConfig& config)
    : world_(world), id_(id), config_(config), tokens_(world->masters()) {
  if (GivesHints()) port_state_.SayWaiting();
}

void SimWorker::Step() {
  if (dead_) return;
  // With a host the whole balancer would die.
  if (world_->prng().Chance({1, 16}) && !world_->Hosts(id_) &&
      world_->Happens(Fault::kWorkerDies)) {
    world_->Note("dies", {{"worker", id_}});
    dead_ = true;
    return;
  }
  if (world_->Happens(Fault::kWorkerStalls)) {
    const int64_t stall_ns = world_->StallTime();
    world_->Note("stalls", {{"worker", id_}, {"for_ns", stall_ns}});
    return StepAfter(stall_ns);
  }
  Advance();
}

void SimWorker::OnOwnWork() {
  if (!waiting_ || dead_ || leaving_ || left_) return;
  has_own_work_ = true;
  WakeUp();
}

void SimWorker::LeaveIfIdle() {
  if (!waiting_ || dead_ || leaving_ || left_) return;
  world_->checker().OnBusy(id_);
  waiting_ = false;
  AskToLeave();
}

void SimWorker::OnLeft() {
  left_ = true;
  leaving_ = false;
  if (!dead_) GoOnAlone();
}

void SimWorker::SetToken(uint32_t master, uint32_t index, uint64_t token) {
  std::vector<uint64_t>& tokens = tokens_[master];
  if (tokens.size() <= index) tokens.resize(index + 1);
  tokens[index] = token;
}

void SimWorker::SayRoom() {
  if (config_.table > 0 && !world_->Breaks(Breakage::kWorkerHidesRoom)) port_state_.SayRoom();
}

bool SimWorker::Release() {
  SayRoom();
  const bool wanted = port_state_.Release();
  if (world_->Breaks(Breakage::kLeaseReleasesTwice, {1, 8})) port_state_.Release();
  return wanted;
}

void SimWorker::KnockAfterRelease() {
  if (world_->Breaks(Breakage::kLeaseNeverKnocks)) return;
  for (uint32_t master = 0; master < world_->masters(); ++master) {
    if (world_->hunger(master).HearKnockOfLease()) world_->Knock(master, id_);
  }
}

void SimWorker::KnockAfterTicket() {
  if (!world_->Breaks(Breakage::kWorkerNeverKnocks)) KnockIfHungry();
}

void SimWorker::StepAfter(int64_t after_ns) {
  if (waiting_) world_->checker().OnBusy(id_);
  waiting_ = false;
  world_->ScheduleStep(id_, after_ns);
}

void SimWorker::Wait() {
  waiting_ = true;
  if (!left_) world_->checker().OnIdle(id_, world_->now_ns());
  if (world_->Hosts(id_)) world_->HostComesRound();
  if (GivesHints() && !left_) world_->ScheduleOwnWork(id_);
}

void SimWorker::AskToLeave() {
  leaving_ = true;
  world_->AskToLeave(id_);
}

void SimWorker::KnockIfHungry() {
  for (uint32_t master = 0; master < world_->masters(); ++master) {
    if (world_->hunger(master).HearKnock()) world_->Knock(master, id_);
  }
}

bool SimWorker::GivesHints() const { return config_.hints && !world_->Hosts(id_); }

void SimWorker::SayWaiting() {
  world_->Note("is about to wait", {{"worker", id_}});
  port_state_.SayWaiting();
  world_->checker().OnHint(id_, /*waiting=*/true, world_->now_ns());
}

void SimWorker::TellThatItWaits() {
  if (world_->Breaks(Breakage::kWorkerHidesThatItWaits)) return;
  for (uint32_t master = 0; master < world_->masters(); ++master) {
    if (!world_->hunger(master).HearKnockOfWaiter()) continue;
    world_->Reached(Milestone::kWaiterWanted);
    world_->Knock(master, id_);
  }
}

int64_t SimWorker::Woke() {
  SayBusy();
  return WorkFirst();
}

void SimWorker::SayBusy() {
  port_state_.SayBusy();
  world_->checker().OnHint(id_, /*waiting=*/false, world_->now_ns());
}

int64_t SimWorker::WorkFirst() {
  const bool works = world_->prng().Below(8) < config_.works_of_8;
  // What it was offered by then goes first.
  const bool offered = WasOffered() && !world_->Breaks(Breakage::kWorkerWorksFirst);
  if ((!std::exchange(has_own_work_, false) && !works) || offered) return world_->StepCost();
  world_->Note("is busy", {{"worker", id_}});
  world_->Reached(Milestone::kBusyFirst);
  return world_->ServiceTime();
}

}  // namespace ringmaster::sim
