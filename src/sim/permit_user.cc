#include "sim/permit_user.h"

#include <algorithm>
#include <cerrno>

#include "sim/world.h"

namespace ringmaster::sim {

using Next = core::PermitClaim::Next;

PermitUser::PermitUser(World* world, uint32_t id, core::PortState* state)
    : world_(world), id_(id), state_(state) {
  for (uint32_t master = 0; master < world->masters(); ++master) {
    permits_.push_back(std::make_unique<core::WorkerPermits>());
  }
}

// A worker that has died may be in the middle of a claim.
PermitUser::~PermitUser() {
  if (claim_.has_value()) claim_->Abandon();
}

core::Permits& PermitUser::PermitsOf(Place place) const {
  return permits_[place.master]->of_source[place.index];
}

bool PermitUser::Has() const {
  bool any = false;
  for (const auto& permits : permits_) {
    permits->pending.ForEach(
        [&](uint32_t index) { any |= permits->of_source[index].Read().claimable > 0; });
  }
  return any;
}

bool PermitUser::SightShows() {
  return sight_.IsReadable([this](uint32_t source) { return world_->Readable(source); });
}

bool PermitUser::AnyShown() const {
  return std::any_of(permits_.begin(), permits_.end(), [](const auto& permits) {
    return permits->shown.load(std::memory_order_relaxed) > 0;
  });
}

// --- Visits --------------------------------------------------------------------------------------

void PermitUser::ListOwn() {
  visits_.clear();
  visits_own_ = true;
  for (uint32_t master = 0; master < permits_.size(); ++master) {
    permits_[master]->pending.ForEach([&](uint32_t index) {
      if (PermitsOf({master, index}).Read().claimable > 0) visits_.push_back({master, index});
    });
  }
}

void PermitUser::ListHungry() {
  visits_.clear();
  visits_own_ = false;
  for (uint32_t master = 0; master < permits_.size(); ++master) {
    world_->hungry_desks(master).Take([&](uint32_t index) { visits_.push_back({master, index}); });
  }
}

bool PermitUser::VisitNext() {
  if (visits_.empty()) return false;
  const Place place = visits_.back();
  visits_.pop_back();
  if (visits_own_ && PermitsOf(place).Read().claimable == 0) return true;
  if (!visits_own_) world_->Reached(Milestone::kHungryDesk);
  if (!world_->MayVisit(place.master, place.index)) return true;
  world_->NoteVisit(id_, place.master, place.index);
  world_->DeskAt(place.master, place.index)->Visit();
  return true;
}

bool PermitUser::Visits(uint32_t master, uint32_t index) const {
  const auto here = [&](Place place) { return place.master == master && place.index == index; };
  return (claim_.has_value() && here(at_)) || std::any_of(visits_.begin(), visits_.end(), here);
}

// --- Accepting -----------------------------------------------------------------------------------

void PermitUser::Begin() {
  masters_done_ = 0;
  places_.clear();
  at_any_ = false;
  more_ = false;
}

// The next source of which it may have permits.
bool PermitUser::NextPlace() {
  while (places_.empty()) {
    if (masters_done_++ == permits_.size()) return false;
    const uint32_t master = next_master_;
    next_master_ = master + 1 == permits_.size() ? 0 : master + 1;
    permits_[master]->pending.Take([&](uint32_t index) { places_.push_back({master, index}); });
  }
  at_ = places_.back();
  places_.pop_back();
  at_any_ = true;
  // No more than there are now.
  left_ = PermitsOf(at_).Read().claimable;
  return true;
}

PermitUser::Did PermitUser::Step(uint32_t& connections_left) {
  if (claim_.has_value()) return StepOfClaim(connections_left);
  if (at_any_ && left_ > 0 && connections_left > 0) {
    claim_.emplace(state_, &PermitsOf(at_));
    return StepOfClaim(connections_left);
  }
  if (std::exchange(at_any_, false)) {
    const bool has = PermitsOf(at_).Read().claimable > 0;
    if (has) permits_[at_.master]->pending.Set(at_.index);
    more_ |= left_ > 0 && has;
    return Did::kStep;
  }
  return NextPlace() ? Did::kStep : Did::kOver;
}

// Tells the checker if the step has taken a place of the worker or given one back.
void PermitUser::NoteReserved() {
  const uint32_t open = state_->open.load(std::memory_order_seq_cst);
  if (open == open_) return;
  world_->checker().OnPermitPlace(id_, open > open_, world_->now_ns());
}

PermitUser::Did PermitUser::StepOfClaim(uint32_t& connections_left) {
  open_ = state_->open.load(std::memory_order_seq_cst);
  switch (claim_->next()) {
    case Next::kStart: {
      core::Gate* const of_source = world_->GateOf(source_);
      core::Gate* const of_all = world_->gate();
      claim_->Started(world_->DeskAt(at_.master, at_.index), of_source, of_all);
      return Did::kStarted;
    }
    case Next::kAccept: {
      const int32_t fd = world_->AcceptByPermit(source_);
      if (fd >= 0) connection_ = world_->checker().OnAcceptedByPermit(id_, fd, source_);
      world_->Reached(fd >= 0 ? Milestone::kByPermit : Milestone::kPermitForNothing);
      claim_->Accepted(std::max(-fd, 0));
      return Did::kStep;
    }
    case Next::kKnock:
      world_->KnockForPlace(id_);
      claim_->Knocked();
      return Did::kStep;
    case Next::kGiveUp:
      world_->checker().OnPermitGivenUp(source_, 1 + PermitsOf(at_).Read().claimable);
      claim_->Advance();
      return Did::kStep;
    case Next::kFinish:
      claim_->Advance();
      world_->checker().OnPermitFinished(source_);
      return Did::kStep;
    case Next::kVisit:
      if (!world_->MayVisit(at_.master, at_.index)) {
        claim_->Abandon();
        return Did::kStep;
      }
      world_->NoteVisit(id_, at_.master, at_.index);
      claim_->Advance();
      return Did::kStep;
    case Next::kReserve:
      claim_->Advance();
      NoteReserved();
      if (claim_->next() != Next::kReserve && claim_->next() != Next::kAccept) {
        world_->Reached(Milestone::kPermitWithoutPlace);
      }
      return Did::kStep;
    case Next::kGiveBack:
      claim_->Advance();
      NoteReserved();
      return Did::kStep;
    case Next::kClaim:
      claim_->Advance();
      if (claim_->next() != Next::kStart) return Did::kStep;
      source_ = world_->SourceAt(at_.master, at_.index);
      world_->Note("claims a permit", {{"worker", id_}, {"source", source_}});
      world_->checker().OnPermitClaimed(id_, source_);
      return Did::kStep;
    case Next::kEnd:
      claim_->Advance();
      return Did::kStep;
    case Next::kOver:
      break;
  }
  const bool accepted = claim_->accepted();
  claim_.reset();
  world_->OnRedeemsNoMore(id_);
  if (!accepted) {
    // It does not try again.
    left_ = 0;
    return Did::kStep;
  }
  --left_;
  --connections_left;
  return connection_ == Checker::kNone ? Did::kStep : Did::kServes;
}

}  // namespace ringmaster::sim
