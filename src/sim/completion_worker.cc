#include "sim/completion_worker.h"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "sim/world.h"

namespace ringmaster::sim {

CompletionWorker::CompletionWorker(World* world, uint32_t id, const SimWorkerConfig& config)
    : SimWorker(world, id, config), tallies_(world->masters()) {}

void CompletionWorker::Introduce(uint32_t master, core::WorkerConfig& engine, CheckedBox& checked) {
  engine.tally = &tallies_[master];
  for (core::Tally& other : tallies_) {
    if (&other != engine.tally) engine.other_tallies.push_back(&other);
  }
  engine.direct = config_.table > 0;
  checked.completions = true;
  checked.direct = engine.direct;
}

uint32_t CompletionWorker::Untaken() const {
  uint32_t untaken = 0;
  for (const core::Tally& tally : tallies_) untaken += tally.Untaken();
  return untaken;
}

void CompletionWorker::OnWake() {
  if (!dead() && !leaving() && waiting_) WakeUp();
}

void CompletionWorker::WakeUp() {
  const bool says = GivesHints() && !left();
  Go(says ? Next::kWoke : Next::kBegin, world_->WorkerWakeCost());
}

void CompletionWorker::Advance() {
  switch (next_) {
    case Next::kWoke:
      return Go(Next::kBegin, Woke());
    case Next::kBegin:
      return Begin();
    case Next::kTake:
      return Take();
    case Next::kServe:
      return Serve();
    case Next::kRedeem:
      return Redeem();
    case Next::kCallback:
      world_->OnCallbackEnd(id_, serving_);
      return Go(ticket_ != Checker::kNone ? Next::kRedeem : Next::kTake, world_->StepCost());
    case Next::kTook:
      return Took();
    case Next::kRelease:
      return ReleasePlaces();
    case Next::kKnock:
      if (!world_->Breaks(Breakage::kWorkerNeverKnocks)) KnockIfHungry();
      world_->checker().OnTookTold(id_, world_->now_ns());
      if (!std::exchange(serves_next_, false)) return Go(Next::kMore, world_->StepCost());
      return Go(ticket_ != Checker::kNone ? Next::kRedeem : Next::kServe, world_->StepCost());
    case Next::kMore:
      return More();
    case Next::kSayWaiting:
      SayWaiting();
      return Go(Next::kTellThatItWaits, world_->StepCost());
    case Next::kTellThatItWaits:
      TellThatItWaits();
      if (!ring_.empty()) return Go(Next::kWoke, world_->StepCost());
      return Wait();
  }
}

void CompletionWorker::Begin() {
  world_->Note("looks into its ring", {{"worker", id_}});
  batch_left_ = world_->Happens(Fault::kClaimStopsEarly)
                    ? static_cast<uint32_t>(world_->prng().Between(1, 3))
                    : std::numeric_limits<uint32_t>::max();
  Go(Next::kTake, world_->StepCost());
}

void CompletionWorker::Take() {
  if (ring_.empty() || batch_left_ == 0) {
    return Go(taken_ > 0 && !left() ? Next::kTook : Next::kMore, world_->StepCost());
  }
  --batch_left_;
  ++taken_;
  const Entry entry = ring_.front();
  ring_.pop_front();
  ticket_ = entry.source;
  if (ticket_ != Checker::kNone) {
    world_->Note("takes a ticket", {{"worker", id_}, {"source", ticket_}});
    world_->checker().OnTicketTaken(id_, ticket_);
    // If one ticket stands for everything that waits, the worker accepts some connections, or all
    // until nothing more is found.
    const bool drains = !world_->countable(ticket_) && world_->prng().Chance({3, 4});
    accepts_left_ = drains ? std::numeric_limits<uint32_t>::max() : 1;
    serves_next_ = config_.took_first && !left();
    return Go(serves_next_ ? Next::kTook : Next::kRedeem, world_->StepCost());
  }
  serving_ = entry.connection != Checker::kNone
                 ? world_->checker().OnTakenSlot(id_, entry.connection)
                 : world_->checker().OnTaken(id_, entry.fd);
  if (serving_ == Checker::kNone) return Go(Next::kTake, 0);
  world_->Note("takes", {{"worker", id_}, {"connection", serving_}});
  adopts_ = world_->prng().Below(8) < config_.adopts_of_8;
  serves_next_ = config_.took_first && !left();
  Go(serves_next_ ? Next::kTook : Next::kServe, world_->StepCost());
}

void CompletionWorker::Serve() {
  // Without a balancer there is nothing to count.
  const bool leased = adopts_ && !left();
  if (leased) Adopt();
  world_->Serve(id_, serving_, leased);
  Go(Next::kCallback, world_->ServiceTime());
}

void CompletionWorker::Redeem() {
  // A worker that has left has nothing more to do with its former sources.
  if (left()) return EndTicket(-EAGAIN);
  if (accepts_left_ == 0) return EndTicket(0);
  const int32_t fd = world_->AcceptFor(ticket_);
  if (fd < 0) return EndTicket(fd);
  --accepts_left_;
  world_->Reached(Milestone::kRedeemed);
  serving_ = world_->checker().OnAcceptedByWorker(id_, fd, ticket_);
  if (serving_ == Checker::kNone) return EndTicket(-EAGAIN);
  adopts_ = world_->prng().Below(8) < config_.adopts_of_8;
  Serve();
}

// `result` is the errno that ended it, or 0 when it has taken what it wanted.
void CompletionWorker::EndTicket(int32_t result) {
  const uint32_t source = std::exchange(ticket_, Checker::kNone);
  const bool says = result != -EAGAIN || world_->prng().Chance({1, 4});
  const bool waits = result == 0 && world_->MoreWaits(source);
  if (result == -EAGAIN) world_->Reached(Milestone::kTicketTooMany);
  if (!left() && (waits || (result < 0 && says && !world_->Breaks(Breakage::kTicketForgotten)))) {
    if (taken_ > 0) world_->Reached(Milestone::kGivenBackUntaken);
    world_->GiveBack(id_, source, -result);
  }
  world_->checker().OnTicketSpent(source, world_->now_ns());
  Go(Next::kTake, world_->StepCost());
}

void CompletionWorker::Adopt() {
  world_->Note("adopts", {{"worker", id_}, {"connection", serving_}});
  world_->Reached(config_.took_first ? Milestone::kAdoptedLate : Milestone::kAdopted);
  const bool has_place = std::any_of(tallies_.begin(), tallies_.end(),
                                     [](core::Tally& tally) { return tally.Lease(); });
  if (!has_place || world_->Breaks(Breakage::kAdoptTakesAnotherPlace, {1, 8})) {
    port_state_.ForceReserve();
    world_->TakePlaceAnyway();
  }
  world_->checker().OnAdopted(id_);
}

void CompletionWorker::Took() {
  if (!serves_next_ && !late_ && world_->Happens(Fault::kTookLate)) {
    late_ = true;
    return Go(Next::kBegin, world_->StallTime());
  }
  late_ = false;
  uint32_t count = std::exchange(taken_, 0);
  if (world_->Happens(Fault::kTookTooMuch)) {
    count += static_cast<uint32_t>(world_->prng().Between(1, 5));
    if (count > Untaken()) world_->Reached(Milestone::kTookClamped);
  }
  // As PortShared::Took does.
  SayRoom();
  const bool tells = !world_->Breaks(Breakage::kTookGivesNoCredit);
  for (size_t i = 0; i < tallies_.size() && count > 0; ++i) {
    const uint32_t master = next_tally_;
    next_tally_ = (next_tally_ + 1) % static_cast<uint32_t>(tallies_.size());
    core::Tally& tally = tallies_[master];
    const uint32_t said = std::min(count, tally.Untaken());
    if (tells) released_ += tally.Take(said).places;
    if (world_->Breaks(Breakage::kTookGivesCreditTwice)) tally.Take(said);
    count -= said;
    if (said == 0) continue;
    world_->Note("says took", {{"worker", id_}, {"count", said}});
    world_->checker().OnTook(id_, master, said, world_->now_ns());
  }
  Go(Next::kRelease, world_->StepCost());
}

void CompletionWorker::ReleasePlaces() {
  if (released_ > 0) {
    world_->GiveBackToGate(released_);
    port_state_.Release(std::exchange(released_, 0));
  }
  Go(Next::kKnock, world_->StepCost());
}

void CompletionWorker::More() {
  if (left() && ring_.empty()) return Wait();
  if (!left() && world_->MayLeave(id_) && world_->Happens(Fault::kWorkerLeaves)) {
    return AskToLeave();
  }
  if (!ring_.empty()) return Go(Next::kBegin, world_->StepCost());
  if (GivesHints() && !left()) return Go(Next::kSayWaiting, world_->StepCost());
  Wait();
}

void CompletionWorker::LosePlace(uint32_t master) {
  switch (tallies_[master].Unsend()) {
    case core::Tally::Unsent::kPlaceIsFree:
      break;
    case core::Tally::Unsent::kLeaseHasIt:
      return;
    case core::Tally::Unsent::kTaken:
      // It was booked for one that another master had sent, which therefore is booked there now.
      uint32_t places = 0;
      for (uint32_t other = 0; other < tallies_.size() && places == 0; ++other) {
        if (other != master) places = tallies_[other].Take(1).places;
      }
      if (places == 0) return;
      break;
  }
  world_->GiveBackToGate(1);
  port_state_.Release();
}

void CompletionWorker::KeepRing() {
  for (core::Tally& tally : tallies_) {
    world_->GiveBackToGate(tally.Take(std::numeric_limits<uint32_t>::max()).places);
  }
}

void CompletionWorker::GoOnAlone() {
  taken_ = 0;
  if (world_->Breaks(Breakage::kWorkerForgetsItsRing)) return;
  for (size_t i = 0; i < ring_.size(); ++i) world_->Reached(Milestone::kLeftWithRing);
  Go(Next::kBegin, world_->StepCost());
}

void CompletionWorker::Go(Next next, int64_t after_ns) {
  next_ = next;
  StepAfter(after_ns);
}

}  // namespace ringmaster::sim
