#include "core/dealer.h"

#include <algorithm>
#include <iterator>
#include <span>

namespace ringmaster::core {

bool Dealer::Deal(Source& source) {
  const SourceIndex index = source.index;
  Ledger& ledger = books_.ledger;
  source.lack.BeginRound();
  if (source.aside.active() && ledger.source(index).held == 0) source.aside.End();
  if (ledger.source(index).held == 0 || !books_.Deals(source)) return false;
  candidates_.Refresh(source);
  AskAgain(source);
  const bool shares_workers = books_.config.shares_workers;
  bool any = false;
  bool noted = false;  // what the policy is shown, since it has changed
  for (ArrivalId id = NextToDeal(source); id != kNoArrival && !books_.AsideFull(source);
       id = NextToDeal(source)) {
    if (closer_.IsOver(ledger.record(id))) {  // rule "too old" of core/ages.h
      if (!closer_.CloseExpired(source, id)) break;
      continue;
    }
    if (shares_workers) candidates_.Recount(source);
    const size_t picked = Pick(source, ledger.record(id));
    if (picked == Policy::kNobodyNow) {
      if (!noted || shares_workers) {
        source.aside.Note(source.joined, candidates_.list(), books_.now_ns);
      }
      noted = true;
      ledger.SetAside(id, books_.now_ns);
      continue;
    }
    noted = false;
    if (delivery_.Deliver(candidates_.list()[picked].worker, id)) {
      candidates_.Given(picked);
      any = true;
    } else {  // another master took the last place meanwhile
      candidates_.Remove(picked);
    }
  }
  const bool full = books_.AsideFull(source);
  if (full && source.aside.Say()) books_.Emit(EventKind::kSetAside, index);
  if (full) return any;
  if (ledger.FirstHeld(index) != kNoArrival) source.lack.LackCredit();
  if (!ledger.AnyGivers() || ledger.FirstPassedOn(index, kNoGiver) == kNoArrival) return any;
  if (candidates_.empty()) source.lack.LackCredit();
  if (!source.lack.credit()) source.lack.LackOthers();
  return any;
}

// What the source holds and somebody could have: the oldest. A giver alone could not have what it
// has passed on, unless nobody else has joined.
ArrivalId Dealer::NextToDeal(const Source& source) const {
  if (candidates_.empty()) return kNoArrival;
  const Ledger& ledger = books_.ledger;
  const ArrivalId held = ledger.FirstHeld(source.index);
  if (!ledger.AnyGivers()) return held;
  const bool alone = candidates_.list().size() == 1 && source.joined.size() > 1;
  const ArrivalId passed_on =
      ledger.FirstPassedOn(source.index, alone ? candidates_.list().front().worker : kNoGiver);
  if (held == kNoArrival || passed_on == kNoArrival) return std::min(held, passed_on);
  return ledger.record(held).number < ledger.record(passed_on).number ? held : passed_on;
}

// The position of the candidate that the policy has picked.
size_t Dealer::Pick(Source& source, const ArrivalRecord& record) {
  const bool excludes = books_.Excludes(record);
  std::span<const uint32_t> joined = source.joined;
  if (excludes) {
    others_.clear();
    std::copy_if(source.joined.begin(), source.joined.end(), std::back_inserter(others_),
                 [&record](uint32_t worker) { return worker != record.giver; });
    joined = others_;
  }
  if (record.facts.request_waits && FindWaiters(excludes ? record.giver : kNoGiver)) {
    const size_t picked = policies_.Pick(source, record.facts, waiters_, joined);
    if (picked != Policy::kNobodyNow) return candidates_.PositionOf(waiters_[picked].worker);
  }
  if (!excludes) return policies_.Pick(source, record.facts, candidates_.list(), joined);
  const size_t giver_at = candidates_.Hide(record.giver);
  const size_t picked = policies_.Pick(source, record.facts, candidates_.list(), joined);
  candidates_.Show(giver_at);
  return picked != Policy::kNobodyNow && picked >= giver_at ? picked + 1 : picked;
}

// By the rule "a request waits": whether there are candidates who say that they wait.
bool Dealer::FindWaiters(uint32_t giver) {
  waiters_.clear();
  std::copy_if(candidates_.list().begin(), candidates_.list().end(), std::back_inserter(waiters_),
               [&](const Candidate& candidate) {
                 return candidate.idle() && candidate.worker != giver &&
                        books_.workers[candidate.worker].config.state->SaysItWaits();
               });
  return !waiters_.empty();
}

// Whether anybody could have what was held because only its giver had credit.
bool Dealer::OthersHaveCredit(const Source& source) const {
  return std::any_of(source.joined.begin(), source.joined.end(), [&](uint32_t worker) {
    return books_.ledger.FirstPassedOn(source.index, worker) != kNoArrival &&
           books_.Credit(worker, source) > 0;
  });
}

bool Dealer::AnyCanBeDealt() {
  for (const Source& source : books_.sources) {
    if (HasNews(source)) return true;
    if (source.lack.others() && OthersHaveCredit(source)) return true;
    if (!source.lack.credit()) continue;
    // What is held has its place already.
    if (books_.Dealable(source) == 0 && (source.lack.yields() || books_.Full(source))) {
      continue;
    }
    for (const uint32_t worker : source.joined) {
      if (books_.Credit(worker, source) > 0) return true;
    }
  }
  return false;
}

// Whether its policy might pick somebody by now.
bool Dealer::HasNews(const Source& source) {
  if (!books_.AsksAgain(source)) return false;
  candidates_.Refresh(source);
  return source.aside.HasNews(candidates_.list());
}

// Takes up what was set aside if that is so, or it is time to. The candidates are the source's.
void Dealer::AskAgain(Source& source) {
  if (!books_.AsksAgain(source)) return;
  const int64_t now_ns = books_.now_ns;
  const bool due = now_ns >= source.aside.ask_at_ns();
  if (due) {
    source.aside.PutOff(now_ns);
    const bool is_long = now_ns >= After(books_.ledger.OldestAside(source.index), kAsideLongNs);
    if (is_long && source.aside.Say()) books_.Emit(EventKind::kSetAside, source.index);
    if (candidates_.empty()) source.aside.Change();  // it is asked as soon as somebody has credit
  }
  if (candidates_.empty() || (!due && !source.aside.HasNews(candidates_.list()))) return;
  source.aside.AskAgain();
  books_.ledger.TakeUp(source.index);
}

}  // namespace ringmaster::core
