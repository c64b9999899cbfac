#include "core/engine.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <string>
#include <utility>

#include "core/check.h"

namespace ringmaster::core {

// --- Asking policies -----------------------------------------------------------------------------

// A policy cannot lose an arrival: whatever it does wrong, somebody gets that.
size_t Engine::Pick(uint32_t index, const Arrival& arrival, const View& view) {
  size_t position = 0;
  const auto ask = [&](Policy& policy) { position = policy.Pick(arrival, view); };
  TellPolicy(index, "Pick", ask);
  if (position < view.candidates.size() || position == Policy::kNobodyNow) return position;
  PolicyFailed(index, "picked position " + std::to_string(position) + " of " +
                          std::to_string(view.candidates.size()) + " candidates");
  return 0;
}

// Said once for each policy: what fails once will fail often.
void Engine::PolicyFailed(uint32_t index, const std::string& what) {
  SourceState& source = sources_[index];
  ++source.intake.policy_faults;
  if (!source.policy_fault.empty()) return;
  source.policy_fault = "policy " + source.config.policy->name() + " " + what;
  Emit(EventKind::kPolicyFailed, index, 0, 0);
}

// What it has not prepared it cannot decide with, and set-up is half done.
void Engine::Prepare(const SourceState& source) const {
  Policy& policy = *source.config.policy;
  const auto end = [&policy](const std::string& what) {
    Misused(("policy " + policy.name() + " threw " + what +
             " in Prepare, which must not throw: the balancer cannot go on without it")
                .c_str());
  };
  try {
    policy.Prepare(worker_slots());
  } catch (const std::exception& thrown) {
    end(std::string("\"") + thrown.what() + "\"");
  } catch (...) {
    end("something");
  }
}

// --- Dealing -------------------------------------------------------------------------------------

// By (16).
void Engine::Deal() {
  Ahead ahead = Ahead::kNobody;
  size_t unserved = 0;
  served_.clear();
  for (const uint32_t index : turns_) {
    SourceState& source = sources_[index];
    bool served = DealHeld(index);
    served |= AcceptMore(index, ahead);
    if (config_.gate != nullptr && source.starved) {
      ahead = std::max(ahead, WaitsForWorker(source) ? Ahead::kGetsCreditSoon : Ahead::kStarves);
    }
    if (served) {
      served_.push_back(index);
    } else {
      turns_[unserved++] = index;
    }
  }
  // Of those who were served, the first could have the most.
  const auto first = served_.empty() ? served_.end() : std::next(served_.begin());
  std::rotate_copy(served_.begin(), first, served_.end(),
                   turns_.begin() + static_cast<ptrdiff_t>(unserved));
}

// Returns whether it has offered anything.
bool Engine::DealHeld(uint32_t index) {
  SourceState& source = sources_[index];
  source.starved = false;
  source.waits_for_others = false;
  if (source.aside.active() && ledger_.source(index).held == 0) source.aside.End();
  if (ledger_.source(index).held == 0 || !Deals(source)) return false;
  Refresh(source);
  AskAgain(index);
  bool any = false;
  bool noted = false;  // what the policy is shown, since it has changed
  for (ArrivalId id = NextToDeal(source); id != kNoArrival && !AsideFull(source);
       id = NextToDeal(source)) {
    if (Expired(ledger_.record(id))) {  // by (15)
      if (!DropExpired(index, id)) break;
      continue;
    }
    if (config_.shares_workers) RefreshOpen(source);
    const size_t position = PickFor(index, ledger_.record(id));
    if (position == Policy::kNobodyNow) {
      if (!noted || config_.shares_workers) source.aside.Note(source.joined, candidates_, now_ns_);
      noted = true;
      ledger_.SetAside(id, now_ns_);
      continue;
    }
    noted = false;
    Candidate& picked = candidates_[position];
    const bool offered = OfferTo(picked.worker, id);
    picked.idle = false;
    any |= offered;
    if (offered) {
      ++picked.open;
      ++picked.unclaimed;
      --picked.credit;
    } else {  // another master took the last place meanwhile
      picked.credit = 0;
    }
    if (picked.credit == 0) {
      candidates_.erase(candidates_.begin() + static_cast<ptrdiff_t>(position));
    }
  }
  const bool full = AsideFull(source);
  if (full && source.aside.Say()) Emit(EventKind::kSetAside, index, 0, 0);
  if (full) return any;
  source.starved = ledger_.FirstHeld(index) != kNoArrival;
  if (!ledger_.AnyGivers() || ledger_.FirstPassedOn(index, kNoGiver) == kNoArrival) return any;
  source.starved |= candidates_.empty();
  source.waits_for_others = !source.starved;
  return any;
}

// What the source holds and somebody could have: the oldest. By (22) a giver alone could not have
// what it has passed on, unless nobody else has joined.
ArrivalId Engine::NextToDeal(const SourceState& source) const {
  if (candidates_.empty()) return kNoArrival;
  const ArrivalId held = ledger_.FirstHeld(source.index);
  if (!ledger_.AnyGivers()) return held;
  const bool alone = candidates_.size() == 1 && source.joined.size() > 1;
  const ArrivalId passed_on =
      ledger_.FirstPassedOn(source.index, alone ? candidates_.front().worker : kNoGiver);
  if (held == kNoArrival || passed_on == kNoArrival) return std::min(held, passed_on);
  return ledger_.record(held).number < ledger_.record(passed_on).number ? held : passed_on;
}

// By (22): whether its giver does not get it.
bool Engine::Excludes(const ArrivalRecord& record) const {
  return record.giver != kNoGiver && sources_[record.source].joined.size() > 1;
}

View Engine::ViewFor(const SourceState& source) const {
  return {.candidates = candidates_,
          .joined = source.joined,
          .topology = config_.topology != nullptr ? config_.topology : &no_topology_};
}

// The position of the candidate that the policy has picked.
size_t Engine::PickFor(uint32_t index, const ArrivalRecord& record) {
  const SourceState& source = sources_[index];
  View view = ViewFor(source);
  if (!Excludes(record)) return Pick(index, record.facts, view);
  others_.clear();
  std::copy_if(source.joined.begin(), source.joined.end(), std::back_inserter(others_),
               [&record](uint32_t worker) { return worker != record.giver; });
  view.joined = others_;
  const auto at = std::find_if(
      candidates_.begin(), candidates_.end(),
      [&record](const Candidate& candidate) { return candidate.worker == record.giver; });
  if (at == candidates_.end()) return Pick(index, record.facts, view);
  const auto giver_at = static_cast<size_t>(at - candidates_.begin());
  const Candidate giver = *at;
  candidates_.erase(at);
  view.candidates = candidates_;
  const size_t position = Pick(index, record.facts, view);
  candidates_.insert(candidates_.begin() + static_cast<ptrdiff_t>(giver_at), giver);
  return position != Policy::kNobodyNow && position >= giver_at ? position + 1 : position;
}

// What waits to be dealt and not for others than its giver, by (22).
uint64_t Engine::Dealable(const SourceState& source) const {
  const uint64_t waits =
      source.waits_for_others ? ledger_.source(source.index).with_givers : uint64_t{0};
  return ledger_.ToDeal(source.index) - waits;
}

// Whether anybody could have what by (22) was held because only its giver had credit.
bool Engine::OthersHaveCredit(const SourceState& source) const {
  return std::any_of(source.joined.begin(), source.joined.end(), [&](uint32_t worker) {
    return ledger_.FirstPassedOn(source.index, worker) != kNoArrival && Credit(worker, source) > 0;
  });
}

// --- What policies have set aside, by (20) -------------------------------------------------------

uint64_t Engine::SetAside(const SourceState& source) const {
  return ledger_.source(static_cast<uint32_t>(&source - sources_.data())).aside;
}

bool Engine::AsksAgain(const SourceState& source) const {
  return ledger_.AnyAside() && SetAside(source) > 0 && Deals(source);
}

uint32_t Engine::AsideMax(const SourceState& source) {
  return std::clamp(source.config.hold, 1u, kAsideMax);
}

bool Engine::AsideFull(const SourceState& source) const {
  return ledger_.AnyAside() && SetAside(source) >= AsideMax(source);
}

int64_t Engine::OldestAsideNs(uint32_t source) const {
  const int64_t at_ns = ledger_.OldestAside(source);
  return at_ns == kNotAside ? 0 : now_ns_ - at_ns;
}

// Whether its policy might pick somebody by now.
bool Engine::HasNews(uint32_t index) {
  SourceState& source = sources_[index];
  if (!AsksAgain(source)) return false;
  Refresh(source);
  return source.aside.HasNews(candidates_);
}

// Takes up what was set aside if that is so, or it is time to. `candidates_` are the source's.
void Engine::AskAgain(uint32_t index) {
  SourceState& source = sources_[index];
  if (!AsksAgain(source)) return;
  const bool due = now_ns_ >= source.aside.ask_at_ns();
  if (due) {
    source.aside.PutOff(now_ns_);
    const bool is_long = now_ns_ >= After(ledger_.OldestAside(index), kAsideLongNs);
    if (is_long && source.aside.Say()) Emit(EventKind::kSetAside, index, 0, 0);
    if (candidates_.empty()) source.aside.Change();  // it is asked as soon as somebody has credit
  }
  if (candidates_.empty() || (!due && !source.aside.HasNews(candidates_))) return;
  source.aside.AskAgain();
  ledger_.TakeUp(index);
}

// Returns whether it has asked for a connection, or had its turn otherwise.
bool Engine::AcceptMore(uint32_t index, Ahead ahead) {
  SourceState& source = sources_[index];
  // What a count has found while nothing may be issued is looked for again later.
  const bool held_back = source.starved || AsideFull(source) || source.back_off.pauses() ||
                         source.doubt != 0 || Shut(source);
  if (held_back && source.tickets.UseCount()) MayHaveMore(source);
  if (source.config.multishot_accept) return ArmEach(index, held_back, ahead);
  const bool may_have_more = source.ready || source.tickets.counted();
  if (!may_have_more || held_back || source.pace.under_way() > 0) return false;
  if (source.tickets.awaits_took() && !source.tickets.counted()) return false;
  if (source.config.readiness) return IssueTickets(index);
  const uint32_t asked = Admit(index, std::min(source.pace.wanted(), MayBring(source)));
  source.pace.Ask(asked);
  accepts_under_way_ += asked;
  for (uint32_t i = 0; i < asked; ++i) {
    ops_.push_back({.key = SourceKey(OpKind::kAccept, index),
                    .fd = source.config.fd,
                    .accept_flags = source.config.accept_flags,
                    .file = source.config.file});
  }
  return asked > 0;
}

// By (20): how many may be taken in, of what its policy may set aside as well.
uint32_t Engine::MayBring(const SourceState& source) const {
  const uint64_t aside = ledger_.AnyAside() ? SetAside(source) : 0;
  if (aside == 0) return UINT32_MAX;
  return AsideMax(source) - static_cast<uint32_t>(aside);
}

// A multishot accept is ended by (11) or (14), and armed again when a lease ends, or there is room
// again. Returns whether it may be armed again now.
bool Engine::ArmEach(uint32_t index, bool held_back, Ahead ahead) {
  SourceState& source = sources_[index];
  // Asked once, because a lease may end meanwhile: what is not armed must be hungry.
  const bool no_room = !HasRoomFor(0);
  const bool was_full = std::exchange(source.full, false);
  wants_room_ |= no_room && WantsArm(index);
  source.full = no_room || places_.Full(index);
  // By (16) it does not take the balancer's last places while who is before it waits for credit.
  source.yields = source.arm == Arm::kIdle &&
                  ((ahead == Ahead::kStarves && CreditOf(source) == 0) ||
                   (ahead == Ahead::kGetsCreditSoon && (was_full || CreditOf(source) == 0)));
  source.full |= source.yields;
  if (!held_back && source.full) source.starved = true;
  return was_full && !source.full && !held_back;
}

// Whether it has no credit, and it may be assumed that a worker will make some: that one has been
// offered as much as it may have, not long ago.
bool Engine::WaitsForWorker(const SourceState& source) const {
  if (CreditOf(source) > 0) return false;
  return std::any_of(source.joined.begin(), source.joined.end(), [this](uint32_t index) {
    const WorkerState& worker = workers_[index];
    return !worker.motion.owes_motion() && !worker.bell.owed() &&
           Unclaimed(index) >= worker.motion.window() && StillNs(index) < config_.recall_after_ns;
  });
}

// For how many of `wanted` something may be asked for: each has room by (14), a place by (11), and
// credit, which is kept for it by (16). If for none, the source is starved.
uint32_t Engine::Admit(uint32_t index, uint32_t wanted) {
  SourceState& source = sources_[index];
  bool any = false;
  credits_.clear();
  for (const uint32_t worker : source.joined) {
    // What it still has from before is for whoever is first in the next round.
    const uint32_t credit = Credit(worker, source);
    credits_.push_back(credit - std::min(credit, places_.Kept(index, worker)));
    any |= credits_.back() > 0;
  }
  uint32_t admitted = 0;
  while (any && admitted < wanted && HasRoomFor(admitted + 1) && places_.Reserve(index)) {
    if (!places_.Keep(index, source.joined, credits_)) {
      places_.GiveBack(index);
      break;
    }
    ++admitted;
  }
  // Even if there is a place again by now: whoever made it has not knocked.
  if (admitted == 0) {
    source.starved = true;
    wants_room_ |= any && !HasRoomFor(1);
  }
  return admitted;
}

uint64_t Engine::CreditOf(const SourceState& source) const {
  uint64_t credit = 0;
  for (const uint32_t worker : source.joined) credit += Credit(worker, source);
  return credit;
}

// By (10). Returns whether it has offered or asked for anything.
bool Engine::IssueTickets(uint32_t index) {
  SourceState& source = sources_[index];
  // A ticket that was claimed out of order is not unclaimed: its worker may have redeemed it.
  for (const uint32_t worker : source.joined) {
    if (ledger_.source(index).offered > 0 && !workers_[worker].sending.used()) {
      ReadAll(worker);
    }
  }
  const uint64_t credit = CreditOf(source);
  const uint64_t unclaimed = UnclaimedTickets(index);
  uint64_t wanted = 0;
  // A ticket that was handed over as a completion may have been redeemed before Took says so.
  const bool untaken = source.tickets.untaken() > 0;
  if (!source.config.countable) {
    source.ready = false;
    const bool ends = (source.events & ~kReadableMask & ~source.told) != 0;  // (18)
    wanted = unclaimed == 0 || (ends && !source.config.listens) ? 1 : 0;
  } else if (source.tickets.UseCount()) {
    // The backlog was read first and then, in this batch, what is unclaimed. A worker claims before
    // it accepts, so what it is about to accept is counted as waiting: a ticket too many, which
    // finds nothing, and never one too few.
    wanted = source.tickets.backlog() - std::min<uint64_t>(source.tickets.backlog(), unclaimed);
    // An error or a hang-up is for a worker to find out about.
    if (source.events != kReadableMask && unclaimed == 0) wanted = std::max<uint64_t>(wanted, 1);
  } else {
    return CountBacklog(index);
  }
  uint64_t issued = 0;
  const uint64_t allowed = std::min<uint64_t>(wanted, MayBring(source));
  while (issued < std::min(allowed, credit) && HasRoomFor(1) && places_.Reserve(index)) {
    source.told |= source.events & ~kReadableMask;
    ledger_.Arrive(index, std::exchange(source.events, kReadableMask), {}, now_ns_);
    ++issued;
    ++arrived_;
  }
  bool served = DealHeld(index);
  source.ready |= issued < wanted;
  if (issued < allowed) {
    source.starved = true;
    wants_room_ |= !HasRoomFor(1);
  } else if (AsideFull(source)) {
    return served;
  } else if (source.ready) {
    served |= CountBacklog(index);  // an edge came after the count
  } else if (untaken) {
    source.ready = true;
    source.tickets.AwaitTook();
  }
  return served;
}

// Returns whether it could. What is counted as waiting is to have a ticket, so a place and credit
// are kept for one.
bool Engine::CountBacklog(uint32_t index) {
  SourceState& source = sources_[index];
  if (source.tickets.counting() || Admit(index, 1) == 0) return false;
  source.tickets.AskCount();
  places_.LeaveToCount(index);
  ops_.push_back({.key = SourceKey(OpKind::kCount, index),
                  .fd = source.config.fd,
                  .file = source.config.file});
  return true;
}

void Engine::AskForOverflows() {
  if (stopping_ || resting_) return;
  uint32_t asked = 0;
  for (uint32_t index = 0; index < source_slots(); ++index) {
    SourceState& source = sources_[index];
    if (source.removed || !source.overflows.Due(now_ns_, source.arm == Arm::kArmed)) continue;
    if (asked++ == kOverflowLooksPerBatchMax) return;
    source.overflows.Ask(now_ns_);
    ops_.push_back({.key = SourceKey(OpKind::kOverflows, index), .fd = source.config.fd});
  }
}

void Engine::NoteOverflows(uint32_t index, int32_t overflows) {
  SourceState& source = sources_[index];
  const Overflows::News news = source.overflows.Note(overflows, now_ns_);
  source.intake.overflows += news.dropped;
  if (news.begins) Emit(EventKind::kBacklogOverflow, index, 0, 0);
}

// Held ones included.
uint64_t Engine::UnclaimedTickets(uint32_t index) const {
  const SourceCount& count = ledger_.source(index);
  return count.held + count.offered + sources_[index].tickets.untaken();
}

// Takes back what nobody has claimed; what it stands for stays with the source.
void Engine::WithdrawTickets(uint32_t index) {
  if (!sources_[index].config.readiness) return;
  for (uint32_t worker = 0; worker < worker_slots(); ++worker) {
    if (workers_[worker].used) RecallAllOf(worker, index);
  }
  DropTickets(index);
}

void Engine::DropTickets(uint32_t index) {
  ledger_.TakeUp(index);
  for (ArrivalId id = ledger_.FirstHeld(index); id != kNoArrival; id = ledger_.FirstHeld(index)) {
    ledger_.Drop(id);
    places_.GiveBack(index);
  }
}

// --- Credit and places that are kept ------------------------------------------------------------

// What it has asked for and may still bring something.
uint32_t Engine::UnderWay(const SourceState& source) {
  return source.pace.under_way() + (source.tickets.counting() ? 1 : 0);
}

// Lets go of credit, promises and places that it needs no more: of what has found nothing, and of
// what was offered to another worker, dropped or refused. `fresh`: for what has just been found,
// and is about to be dealt, it needs them still. Returns whether others may have any.
bool Engine::LetGo(uint32_t index, uint64_t fresh) {
  const SourceState& source = sources_[index];
  const uint64_t under_way = UnderWay(source);
  const uint64_t to_deal = std::max(fresh, ledger_.NewToDeal(index));
  const bool any = places_.LetGo(index, under_way + fresh, under_way + to_deal);
  if (source.tickets.counting() || fresh > 0) return any;
  return places_.TakeFromCount(index) || any;
}

bool Engine::LetGo() {
  bool any = false;
  for (uint32_t index = 0; index < source_slots(); ++index) any |= LetGo(index, 0);
  return any;
}

// --- Room in the ledger, by (14) -----------------------------------------------------------------

// What may still come of all multishot accepts when they have been told to end.
uint32_t Engine::BurstMax() const {
  return eaches_ == 0 ? 0 : 2 * config_.completions_max + config_.completion_entries + eaches_;
}

// Whether there is room for so many arrivals beside those that are under way or may come unasked.
bool Engine::HasRoomFor(uint32_t arrivals) const {
  return ledger_.room() >= uint64_t{BurstMax()} + accepts_under_way_ + arrivals;
}

uint32_t Engine::RoomForEach() const {
  return ledger_.room() - std::min(ledger_.room(), accepts_under_way_);
}

void Engine::MakeRoom() {
  const uint32_t before = ledger_.room();
  MakeRoomFor(0, kRecordsMax);
  // What was not taken in is looked at anew.
  if (wants_room_ && ledger_.room() > before) more_to_do_ = true;
  wants_room_ = false;
}

void Engine::MakeRoomFor(uint64_t arrivals, uint64_t records_max) {
  const uint64_t needed = uint64_t{ledger_.records_used()} + arrivals + accepts_under_way_ +
                          words_ + unsettled_.room() + holds_ + BurstMax();
  ledger_.Reserve(source_slots(), worker_slots(),
                  static_cast<uint32_t>(std::min(needed, records_max)));
}

}  // namespace ringmaster::core
