#include "sim/inbox_worker.h"

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "sim/world.h"

namespace ringmaster::sim {

InboxWorker::InboxWorker(World* world, uint32_t id, const SimWorkerConfig& config)
    : SimWorker(world, id, config) {
  for (uint32_t master = 0; master < world->masters(); ++master) {
    boxes_.push_back(std::make_unique<MemoryInbox>(config.window));
  }
  std::vector<core::Inbox*> inboxes;
  for (const auto& box : boxes_) inboxes.push_back(&box->inbox);
  if (config.sight) permits_.emplace(world, id, &port_state_, inboxes);
  claimer_.emplace(&port_state_, std::move(inboxes));
}

void InboxWorker::Introduce(uint32_t master, core::WorkerConfig& engine, CheckedBox& checked) {
  MemoryInbox& box = *boxes_[master];
  engine.inbox = &box.inbox;
  for (const auto& other : boxes_) {
    if (other.get() != &box) engine.other_inboxes.push_back(&other->inbox);
  }
  checked.words = box.storage.data() + core::Inbox::BytesFor(0);
  checked.words_count = box.inbox.size();
}

bool InboxWorker::WasOffered() const {
  return std::any_of(boxes_.begin(), boxes_.end(),
                     [](const auto& box) { return box->inbox.Rung(); });
}

bool InboxWorker::Oversleeps() const { return waiting_ && WasOffered(); }

void InboxWorker::OnWake() {
  if (dead() || leaving() || left()) return;
  ++doorbells_;
  if (waiting_) WakeUp();
}

int64_t InboxWorker::WakeCost() const { return world_->WorkerWakeCost(); }

void InboxWorker::OnDriven() {
  if (!dead() && !leaving() && !left() && waiting_) Go(Next::kBegin, world_->StepCost());
}

void InboxWorker::Advance() {
  switch (next_) {
    case Next::kWoke:
      if (!permits_.has_value()) return Go(Next::kBegin, Woke());
      return Wake();
    case Next::kLookAtSight:
      // What it was woken for goes first, and until then it says that it waits.
      if (permits_->SightShows()) return Go(Next::kBegin, world_->StepCost());
      world_->Reached(Milestone::kWokenWithPermit);
      return Go(Next::kSayBusy, world_->StepCost());
    case Next::kSayBusy:
      SayBusy();
      return Go(Next::kLookAgain, world_->StepCost());
    case Next::kLookAgain:
      permits_->ListOwn();
      return Go(Next::kVisitOwn, 0);
    case Next::kVisitOwn:
      if (permits_->VisitNext()) return Go(Next::kVisitOwn, world_->StepCost());
      return Go(Next::kBegin, WorkFirst());
    case Next::kLookBeforeOffers:
      permits_->ListOwn();
      return Go(Next::kVisitBeforeOffers, 0);
    case Next::kVisitBeforeOffers:
      if (permits_->VisitNext()) return Go(Next::kVisitBeforeOffers, world_->StepCost());
      return BeginOne();
    case Next::kPermits:
      return AcceptByPermit();
    case Next::kPermitCallback:
      world_->OnCallbackEnd(id_, permits_->connection());
      return Go(Next::kPermits, world_->StepCost());
    case Next::kBeginClaim:
      return BeginClaim();
    case Next::kEmpty:
      permits_->sight().Empty();
      return Go(Next::kLookForMore, world_->StepCost());
    case Next::kLookForMore:
      permits_->GiveBack();
      return Go(Next::kVisitAfter, 0);
    case Next::kVisitAfter:
      if (permits_->VisitNext()) return Go(Next::kVisitAfter, world_->StepCost());
      return Go(Next::kEnd, world_->StepCost());
    case Next::kVisitHungry:
      if (permits_->VisitNext()) return Go(Next::kVisitHungry, world_->StepCost());
      if (doorbells_ > 0 || SightWakes()) return Go(Next::kWoke, world_->StepCost());
      return Wait();
    case Next::kBegin:
      return Begin();
    case Next::kBeginOne:
      return BeginOne();
    case Next::kTake:
      return Take();
    case Next::kLookUp:
      return LookUp();
    case Next::kAccept:
      return Accept();
    case Next::kCallback:
      return EndCallback();
    case Next::kEnd:
      return End();
    case Next::kKnock:
      if (claimer_->KnocksAtEnd() && !world_->Breaks(Breakage::kWorkerNeverKnocks)) {
        KnockIfHungry();
      }
      return Go(Next::kMore, world_->StepCost());
    case Next::kMore:
      return More();
    case Next::kSayWaiting:
      SayWaiting();
      return Go(Next::kTellThatItWaits, world_->StepCost());
    case Next::kTellThatItWaits:
      TellThatItWaits();
      if (permits_.has_value()) {
        permits_->ListHungry();
        return Go(Next::kVisitHungry, world_->StepCost());
      }
      if (doorbells_ > 0) return Go(Next::kWoke, world_->StepCost());
      return Wait();
  }
}

// A loop that is edge-triggered is woken by what happens to its sight, any other by what that
// shows.
bool InboxWorker::SightWakes() {
  return config().level ? permits_->SightShows() : permits_->sight().TakeEdge();
}

void InboxWorker::OnSight() {
  if (dead() || leaving() || left() || !waiting_) return;
  permits_->sight().TakeEdge();
  WakeUp();
}

// In the middle of a batch the checker does not know yet what was offered, and to whom.
bool InboxWorker::MayStepInBatch() const {
  switch (next_) {
    case Next::kWoke:
    case Next::kLookAtSight:
    case Next::kSayBusy:
    case Next::kLookAgain:
    case Next::kVisitOwn:
    case Next::kPermits:
    case Next::kSayWaiting:
      return permits_.has_value();
    default:
      return false;
  }
}

// It has woken. What has happened to its sight until now, it has seen.
void InboxWorker::Wake() {
  permits_->sight().TakeEdge();
  forgot_ = false;
  const bool has = permits_->Has();
  Go(has ? Next::kLookAtSight : Next::kSayBusy, world_->StepCost());
}

void InboxWorker::Begin() {
  bounded_ = world_->Happens(Fault::kClaimStopsEarly);
  connections_left_ = bounded_ ? static_cast<uint32_t>(world_->prng().Between(1, 3))
                               : std::numeric_limits<uint32_t>::max();
  more_permits_ = claimed_by_permit_ = false;
  if (!permits_.has_value() || !permits_->Has()) return BeginClaim();
  permits_->Begin();
  AcceptByPermit();
}

void InboxWorker::AcceptByPermit() {
  switch (permits_->Step(connections_left_)) {
    case PermitUser::Did::kStep:
      return Go(Next::kPermits, world_->StepCost());
    case PermitUser::Did::kStarted:
      claimed_by_permit_ = true;
      StartClaim();
      return Go(Next::kPermits, world_->StepCost());
    case PermitUser::Did::kServes:
      world_->Serve(id_, permits_->connection(), /*leased=*/true);
      return Go(Next::kPermitCallback, world_->ServiceTime());
    case PermitUser::Did::kOver:
      more_permits_ = permits_->more();
      return Go(Next::kBeginClaim, world_->StepCost());
  }
}

// From now on the worker does not wait.
void InboxWorker::StartClaim() {
  if (claimer_->under_way()) return;
  claimer_->Start(world_->Hosts(id_));
  if (permits_.has_value() && port_state_.SaysItWaits()) SayBusy();
}

void InboxWorker::BeginClaim() {
  had_doorbells_ = doorbells_ > 0;
  if (had_doorbells_) --doorbells_;
  const bool said_it_waits = !claimer_->under_way() && port_state_.SaysItWaits();
  StartClaim();
  begun_ = 0;
  world_->Note("begins", {{"worker", id_}});
  if (permits_.has_value() && said_it_waits) {
    return Go(Next::kLookBeforeOffers, world_->StepCost());
  }
  BeginOne();
}

void InboxWorker::BeginOne() {
  const uint32_t master = begun_++;
  const bool was_rung = claimer_->BeginNext();
  world_->checker().OnBegun(id_, master);
  if (world_->Breaks(Breakage::kWorkerKeepsRung)) {
    boxes_[master]->inbox.Ring();
  } else if (was_rung) {
    world_->checker().OnMoved(id_, master, world_->now_ns());
  }
  if (!claimer_->all_begun()) return Go(Next::kBeginOne, world_->StepCost());
  claimer_->SetTurn(static_cast<uint32_t>(world_->prng().Below(boxes_.size())));
  Go(Next::kTake, world_->StepCost());
}

void InboxWorker::Take() {
  if (claimer_->MasterIsDue()) world_->HostComesBy();
  const core::Claimer::Taken taken =
      connections_left_ > 0 ? claimer_->Take() : core::Claimer::Taken();
  from_ = taken.inbox;
  word_ = taken.word;
  if (word_ == 0) {
    return EndOfOffers();
  }
  --connections_left_;
  ticket_ = world_->checker().IsTicket(from_, word_);
  if (ticket_) {
    source_ = world_->checker().OnTicketClaimed(id_, from_, word_, world_->now_ns());
    world_->Note("claims a ticket", {{"worker", id_}, {"source", source_}});
    return Go(source_ == Checker::kNone ? Next::kTake : Next::kLookUp, world_->StepCost());
  }
  serving_ = world_->checker().OnClaimed(id_, from_, word_, world_->now_ns());
  world_->Note("claims", {{"worker", id_}, {"connection", serving_}});
  Go(Next::kLookUp, world_->StepCost());
}

// A worker with a mailbox empties its sight if it was woken by that for nothing. Otherwise a loop
// that is level-triggered would go round.
void InboxWorker::EndOfOffers() {
  const bool idle = !claimer_->took();
  if (idle) world_->Reached(Milestone::kEmptyClaim);
  if (!idle || !config().level || claimed_by_permit_ || had_doorbells_ || !permits_->AnyShown()) {
    return Go(Next::kEnd, world_->StepCost());
  }
  Go(Next::kEmpty, world_->StepCost());
}

void InboxWorker::LookUp() {
  if (!ticket_ && serving_ == Checker::kNone) return Go(Next::kTake, 0);
  uint64_t token = tokens_[from_][core::Offer::FromWord(word_).source];
  if (world_->Breaks(Breakage::kWorkerLooksUpNeighbour, {1, 8})) ++token;
  if (ticket_) {
    world_->checker().OnTicketLookedUp(source_, World::SourceOfToken(token));
    if (world_->Happens(Fault::kTicketKept)) {
      world_->KeepTicket(id_, source_);
      return Go(Next::kTake, world_->StepCost());
    }
    return Go(Next::kAccept, world_->StepCost());
  }
  world_->checker().OnLookedUp(serving_, World::SourceOfToken(token));
  if (world_->Breaks(Breakage::kWorkerDropsOffer, {1, 8})) {
    serving_ = Checker::kNone;
    return Go(Next::kCallback, 0);
  }
  world_->Serve(id_, serving_, /*leased=*/true);
  Go(Next::kCallback, world_->ServiceTime());
}

// Does what Ticket::Accept does.
void InboxWorker::Accept() {
  const int32_t fd = world_->AcceptFor(source_);
  if (fd >= 0) {
    world_->Reached(Milestone::kRedeemed);
    serving_ = world_->checker().OnRedeemed(id_, fd, source_, world_->now_ns());
    if (world_->MoreWaits(source_)) world_->GiveBack(id_, source_, 0);
    world_->TellResult(id_, source_, 0);
    if (serving_ == Checker::kNone) return Go(Next::kTake, 0);
    world_->Serve(id_, serving_, /*leased=*/true);
    return Go(Next::kCallback, world_->ServiceTime());
  }
  serving_ = Checker::kNone;
  if (fd == -EAGAIN) world_->TellResult(id_, source_, EAGAIN);
  world_->Reached(fd == -EAGAIN ? Milestone::kTicketTooMany : Milestone::kTicketGivenBack);
  if (fd != -EAGAIN && !world_->Breaks(Breakage::kTicketForgotten)) {
    world_->GiveBack(id_, source_, -fd);
  }
  // In one step, the ticket's place is given back, and masters that wait for a place are told.
  world_->ReleasePlace(id_, source_);
  world_->checker().OnTicketDone(id_, source_, world_->now_ns());
  if (!world_->Breaks(Breakage::kWorkerNeverKnocks)) KnockIfHungry();
  Go(Next::kTake, world_->StepCost());
}

void InboxWorker::EndCallback() {
  if (serving_ != Checker::kNone) world_->OnCallbackEnd(id_, serving_);
  Go(Next::kTake, world_->StepCost());
}

void InboxWorker::End() {
  claimer_->End();
  Go(Next::kKnock, world_->StepCost());
}

void InboxWorker::More() {
  bool left = claimer_->Left();
  if (claimer_->OfferedToItself() && !world_->Breaks(Breakage::kHostForgetsItself)) {
    world_->Reached(Milestone::kOfferedToItself);
    left = true;
  }
  if (left || more_permits_) {
    forgot_ = bounded_ && world_->Happens(Fault::kClaimForgets);
    if (!forgot_) return Go(Next::kBegin, world_->StepCost());
  }
  if (world_->MayLeave(id_) && world_->Happens(Fault::kWorkerLeaves)) return AskToLeave();
  if (doorbells_ > 0) return Go(Next::kBegin, world_->StepCost());
  if (GivesHints()) return Go(Next::kSayWaiting, world_->StepCost());
  Wait();
}

void InboxWorker::Go(Next next, int64_t after_ns) {
  next_ = next;
  StepAfter(after_ns);
}

}  // namespace ringmaster::sim
