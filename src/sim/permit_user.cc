#include "sim/permit_user.h"

#include <algorithm>
#include <cerrno>

#include "sim/world.h"

namespace ringmaster::sim {

using Next = core::PermitClaim::Next;

PermitUser::PermitUser(World* world, uint32_t id, core::PortState* state,
                       std::vector<core::Inbox*> inboxes)
    : world_(world), id_(id), state_(state), inboxes_(std::move(inboxes)) {
  for (uint32_t master = 0; master < world->masters(); ++master) {
    permits_.push_back(std::make_unique<core::WorkerPermits>());
  }
}

void PermitUser::Abandon() {
  if (claim_.has_value()) claim_->Abandon();
  claim_.reset();
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
  if (world_->Breaks(Breakage::kDeskHidesThatItIsBusy)) return;
  for (uint32_t master = 0; master < permits_.size(); ++master) {
    permits_[master]->pending.ForEach([&](uint32_t index) {
      if (PermitsOf({master, index}).Read().claimable > 0) visits_.push_back({master, index});
    });
  }
}

void PermitUser::GiveBack() {
  ListOwn();
  for (const Place place : visits_) PermitsOf(place).Withdraw();
  visits_own_ = false;
}

void PermitUser::ListHungry() {
  visits_.clear();
  visits_own_ = false;
  if (world_->Breaks(Breakage::kDeskHidesThatItWaits)) return;
  for (uint32_t master = 0; master < permits_.size(); ++master) {
    world_->hungry_desks(master).Take([&](uint32_t index) { visits_.push_back({master, index}); });
  }
  if (!visits_.empty()) world_->Reached(Milestone::kHungryDesk);
}

bool PermitUser::VisitNext() {
  if (visits_.empty()) return false;
  const Place place = visits_.back();
  visits_.pop_back();
  if (visits_own_ && PermitsOf(place).Read().claimable == 0) return true;
  if (!world_->MayVisit(place.master, place.index)) return true;
  world_->NoteVisit(id_, place.master, place.index);
  world_->DeskAt(place.master, place.index)->Visit();
  return true;
}

bool PermitUser::Visits(uint32_t master, uint32_t index) const {
  const auto here = [&](Place place) { return place.master == master && place.index == index; };
  // Until it has accepted, it comes to each.
  return (walks_ && !is_busy_) || (claim_.has_value() && here(at_)) ||
         std::any_of(visits_.begin(), visits_.end(), here);
}

// --- Accepting -----------------------------------------------------------------------------------

void PermitUser::Begin() {
  masters_done_ = 0;
  places_.clear();
  walks_ = true;
  at_any_ = is_busy_ = claimed_ = accepted_ = false;
  more_ = false;
}

// The next source of which it may have permits.
bool PermitUser::NextPlace() {
  while (places_.empty()) {
    if (masters_done_ == permits_.size()) return false;
    ++masters_done_;
    const uint32_t master = next_master_;
    next_master_ = master + 1 == permits_.size() ? 0 : master + 1;
    permits_[master]->pending.ForEach([&](uint32_t index) { places_.push_back({master, index}); });
  }
  at_ = places_.back();
  places_.pop_back();
  at_any_ = true;
  // No more than there are now.
  left_ = PermitsOf(at_).Read().claimable;
  return true;
}

PermitUser::Did PermitUser::Step(uint32_t& connections_left) {
  if (VisitNext()) return Did::kStep;
  if (std::exchange(accepted_, false)) return Did::kServes;
  if (claim_.has_value()) return StepOfClaim(connections_left);
  if (at_any_ && left_ > 0 && connections_left > 0) {
    claim_.emplace(state_, &PermitsOf(at_));
    return StepOfClaim(connections_left);
  }
  if (std::exchange(at_any_, false)) {
    core::SourceSet& pending = permits_[at_.master]->pending;
    if (PermitsOf(at_).Read().claimable == 0) pending.Remove(at_.index);
    const bool has = PermitsOf(at_).Read().claimable > 0;
    if (has) pending.Set(at_.index);
    more_ |= left_ > 0 && has;
    return Did::kStep;
  }
  if (NextPlace()) return Did::kStep;
  if (claimed_ && !std::exchange(is_busy_, true)) {
    ListOwn();
    return Did::kStep;
  }
  walks_ = false;
  return Did::kOver;
}

// Tells the checker if the step has taken a place of the worker or given one back.
void PermitUser::NoteReserved() {
  const uint32_t open = state_->open.load(std::memory_order_seq_cst);
  if (open == open_) return;
  world_->checker().OnPermitPlace(id_, open > open_, world_->now_ns());
}

// One that takes no place finds one whatever the capacities.
void PermitUser::Reserve() {
  const bool breaks = world_->breaks(Breakage::kPermitWithoutPlace);
  const uint32_t places = state_->places;
  if (breaks) state_->places = UINT32_MAX;
  claim_->Advance();
  state_->places = places;
}

void PermitUser::ForceGates() {
  if (world_->GateOf(source_) != nullptr) world_->GateOf(source_)->ForceReserve();
  if (world_->gate() != nullptr) world_->gate()->ForceReserve();
}

// What a claim that is broken on purpose has said too early.
void PermitUser::CountRedeeming() {
  if (!world_->breaks(Breakage::kPermitCountsNot)) return;
  const uint32_t others = PermitsOf(at_).Withdraw();
  PermitsOf(at_).Issue();
  PermitsOf(at_).Claim();
  for (uint32_t i = 0; i < others; ++i) PermitsOf(at_).Issue();
}

PermitUser::Did PermitUser::StepOfClaim(uint32_t& connections_left) {
  open_ = state_->open.load(std::memory_order_seq_cst);
  switch (claim_->next()) {
    case Next::kStart: {
      const bool breaks = world_->breaks(Breakage::kPermitWithoutPlace);
      claim_->Started(world_->DeskAt(at_.master, at_.index),
                      breaks ? nullptr : world_->GateOf(source_),
                      breaks ? nullptr : world_->gate());
      return Did::kStarted;
    }
    case Next::kAccept: {
      const int32_t fd = world_->AcceptByPermit(source_);
      trouble_ = fd < 0 && fd != -EAGAIN;
      if (fd >= 0 && world_->breaks(Breakage::kPermitWithoutPlace)) ForceGates();
      if (fd >= 0) connection_ = world_->checker().OnAcceptedByPermit(id_, fd, source_);
      world_->Reached(fd >= 0 ? Milestone::kByPermit : Milestone::kPermitForNothing);
      const bool hides = trouble_ && world_->Breaks(Breakage::kPermitHidesTrouble);
      claim_->Accepted(hides ? EAGAIN : std::max(-fd, 0));
      return Did::kStep;
    }
    case Next::kKnock:
      world_->KnockForPlace(id_);
      claim_->Knocked();
      return Did::kStep;
    case Next::kGiveUp:
      redeems_ = false;
      CountRedeeming();
      world_->checker().OnPermitGivenUp(source_);
      claim_->Advance();
      return Did::kStep;
    case Next::kFinish:
      redeems_ = false;
      CountRedeeming();
      claim_->Advance();
      world_->checker().OnPermitFinished(source_);
      return Did::kStep;
    case Next::kVisit:
      if (!world_->MayVisit(at_.master, at_.index) ||
          world_->Breaks(Breakage::kPermitNeverVisits)) {
        claim_->Abandon();
        return Did::kStep;
      }
      world_->NoteVisit(id_, at_.master, at_.index);
      claim_->Advance();
      if (trouble_) world_->OnTroubleSaid(source_);
      return Did::kStep;
    case Next::kReserve:
      Reserve();
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
      redeems_ = claimed_ = true;
      trouble_ = false;
      if (world_->breaks(Breakage::kPermitCountsNot)) PermitsOf(at_).Finish();
      if (world_->breaks(Breakage::kPermitUnmarked)) --state_->redeeming;
      return Did::kStep;
    case Next::kEnd:
      if (world_->breaks(Breakage::kPermitUnmarked)) ++state_->redeeming;
      claim_->Advance();
      return Did::kStep;
    case Next::kOver:
      break;
  }
  const bool accepted = claim_->accepted();
  claim_.reset();
  // Not before it has accepted: what waits may be for a permit that it comes to next.
  if (accepted && !std::exchange(is_busy_, true)) {
    ListOwn();
    std::erase_if(visits_, [this](Place place) {
      return place.master == at_.master && place.index == at_.index;
    });
  }
  world_->OnRedeemsNoMore(id_);
  if (!accepted) {
    // It does not try again.
    left_ = 0;
    return Did::kStep;
  }
  --left_;
  --connections_left;
  accepted_ = connection_ != Checker::kNone;
  return Did::kStep;
}

}  // namespace ringmaster::sim
