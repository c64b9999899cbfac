#include "core/desk.h"

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "core/check.h"

namespace ringmaster::core {

// As many as one look wakes. If it looks again and again, the holder wakes the others itself.
struct Desk::Wakes {
  std::array<int, kWidthMax> sights;
  size_t count = 0;

  bool full() const { return count == sights.size(); }
};

void Desk::Visit() {
  if (word_.TryHold()) Work();
}

void Desk::Work() {
  Wakes wakes;
  Sights* const sights = config_.sights;
  const int listener = sights->Listener();
  bool is_waker = false;
  do {
    Looked looked = Look(wakes);
    for (int looks = 1; looked == Looked::kAgain; ++looks) {
      // Who waits changes all the time. A look that has nothing new to say is followed by others:
      // of whoever has changed it.
      if (looks == static_cast<int>(2 * seats_.size() + 4)) break;
      looked = Look(wakes);
    }
    if (looked == Looked::kClosed) wakes.count = 0;
    if (!is_waker && wakes.count > 0) {
      is_waker = true;
      word_.AddWaker();
    }
    if (looked == Looked::kClosed) break;
  } while (!word_.Leave());
  // Rule "wakes". The desk may be anybody's from here on.
  for (size_t i = 0; i < wakes.count; ++i) sights->Wake(wakes.sights[i], listener);
  if (is_waker) word_.RemoveWaker();
}

// --- The master's side ---------------------------------------------------------------------------

void Desk::Reserve(size_t seats) {
  if (seats_.capacity() >= seats) return;
  seats_.reserve(seats);
  books_.reserve(seats);
  found_.reserve(seats);
  candidates_.reserve(seats);
  positions_.reserve(seats);
  joined_.reserve(seats);
}

void Desk::Open(const Config& config) {
  RINGMASTER_CHECK(closed() && !seats_.empty());
  config_ = config;
  books_.assign(seats_.size(), Book{});
  joined_.clear();
  for (const Seat& seat : seats_) joined_.push_back(seat.worker);
  closed_for_ = Closed::kNot;
  error_ = 0;
  policy_fault_.clear();
  word_.TakeTrouble();
  word_.Open();
  Work();
}

void Desk::Close() {
  while (!word_.Want()) config_.sights->Yield();
  while (word_.HasWakers()) config_.sights->Yield();
  if (closed_for_ != Closed::kNot) return;  // its holder was faster
  closed_for_ = Closed::kByMaster;
  WithdrawAll();
}

uint64_t Desk::Accepted() const {
  uint64_t accepted = 0;
  for (const Seat& seat : seats_) accepted += PermitsOf(seat).accepted();
  return accepted;
}

// --- The holder's side ---------------------------------------------------------------------------

void Desk::TellRecalled(size_t seat, uint32_t count) {
  for (; count > 0; --count) {
    try {
      config_.policy->OnRecall(seats_[seat].worker);
    } catch (...) {
      policy_fault_ = "policy " + config_.policy->name() + " threw something in OnRecall";
    }
  }
}

void Desk::WithdrawAll() {
  for (size_t i = 0; i < seats_.size(); ++i) {
    Permits& permits = PermitsOf(seats_[i]);
    TellRecalled(i, permits.Withdraw() + permits.TakeGivenBack());
    HideFrom(i);
  }
}

void Desk::GiveToMaster(Closed why) {
  closed_for_ = why;
  WithdrawAll();
  Sights* const sights = config_.sights;
  word_.GiveToMaster();
  sights->CallMaster();
}

bool Desk::NoPlaceAtGates() const {
  return (config_.gate != nullptr && config_.gate->Full()) ||
         (config_.all != nullptr && config_.all->Full());
}

void Desk::FindSeats() {
  found_.clear();
  for (const Seat& seat : seats_) {
    Found found;
    found.marked = seat.inbox->Rung();
    found.permits = PermitsOf(seat).Read();
    found.may =
        !found.marked &&
        seat.state->open.load(std::memory_order_seq_cst) + found.permits.claimable < seat.capacity;
    found.waits = seat.state->Awaits();
    found_.push_back(found);
  }
}

// Rules "order" and "astray".
void Desk::TakeBackAstray() {
  for (size_t i = 0; i < seats_.size(); ++i) {
    Found& found = found_[i];
    TellRecalled(i, PermitsOf(seats_[i]).TakeGivenBack());
    if (found.permits.claimable == 0) continue;
    const bool has_place =
        seats_[i].state->open.load(std::memory_order_seq_cst) < seats_[i].capacity;
    bool astray = found.marked || !has_place;
    if (!astray && !found.waits) {
      astray = std::any_of(found_.begin(), found_.end(), [](const Found& other) {
        return other.may && other.waits && other.permits.out() == 0;
      });
    }
    if (!astray) continue;
    TellRecalled(i, PermitsOf(seats_[i]).Withdraw());
    found.permits = PermitsOf(seats_[i]).Read();
  }
}

Activity Desk::ActivityOf(const PortState& state, const Found& found) {
  if (state.Busy()) return Activity::kBusy;
  return found.waits && found.permits.out() == 0 ? Activity::kIdle : Activity::kClaiming;
}

void Desk::AddCandidates(bool waiters_only) {
  candidates_.clear();
  positions_.clear();
  for (size_t i = 0; i < seats_.size(); ++i) {
    const Found& found = found_[i];
    if (!found.may || (waiters_only && !(found.waits && found.permits.out() == 0))) continue;
    const Seat& seat = seats_[i];
    const uint32_t open =
        seat.state->open.load(std::memory_order_relaxed) + found.permits.claimable;
    candidates_.push_back(
        {.worker = seat.worker,
         .open = open,
         .unclaimed = found.permits.claimable,
         .credit = seat.capacity - std::min(seat.capacity - 1, open),
         .cpu = seat.cpu >= 0 ? seat.cpu : seat.state->cpu.load(std::memory_order_relaxed),
         .activity = ActivityOf(*seat.state, found)});
    positions_.push_back(static_cast<uint32_t>(i));
  }
}

size_t Desk::AskPolicy() {
  const View view{.candidates = candidates_, .joined = joined_, .topology = config_.topology};
  try {
    const size_t picked = config_.policy->Pick({}, view);
    if (picked < candidates_.size()) return picked;
    if (picked != Policy::kNobodyNow) {
      policy_fault_ = "policy " + config_.policy->name() + " picked position " +
                      std::to_string(picked) + " of " + std::to_string(candidates_.size()) +
                      " candidates";
    }
  } catch (const std::exception& thrown) {
    policy_fault_ = "policy " + config_.policy->name() + " threw \"" + thrown.what() + "\" in Pick";
  } catch (...) {
    policy_fault_ = "policy " + config_.policy->name() + " threw something in Pick";
  }
  return candidates_.size();
}

void Desk::HideFrom(size_t at) {
  if (!std::exchange(books_[at].shown, false)) return;
  config_.sights->Hide(seats_[at].sight);
  seats_[at].permits->shown.fetch_sub(1, std::memory_order_relaxed);
}

void Desk::HideUnused() {
  for (size_t i = 0; i < seats_.size(); ++i) {
    if (PermitsOf(seats_[i]).Read().claimable == 0) HideFrom(i);
  }
}

// Returns 0, or an errno. The count of what is shown rises first: a worker that is woken at once
// must find that something is shown, or its loop would spin until the holder runs again.
int Desk::ShowTo(size_t at, bool something_waits, Wakes& wakes) {
  const Seat& seat = seats_[at];
  const bool again = std::exchange(books_[at].shown, true);
  if (!again) seat.permits->shown.fetch_add(1, std::memory_order_relaxed);
  const bool asleep = something_waits && !wakes.full();
  const int error = asleep ? config_.sights->ShowAsleep(seat.sight, again)
                           : config_.sights->Show(seat.sight, again);
  if (error == 0 && asleep) wakes.sights[wakes.count++] = seat.sight;
  if (error != 0 && !again) {
    books_[at].shown = false;
    seat.permits->shown.fetch_sub(1, std::memory_order_relaxed);
  }
  return error;
}

Desk::Looked Desk::Look(Wakes& wakes) {
  if (const int error = word_.TakeTrouble(); error != 0) {
    error_ = error;
    GiveToMaster(Closed::kTrouble);
    return Looked::kClosed;
  }
  FindSeats();
  TakeBackAstray();
  if (!policy_fault_.empty()) {
    GiveToMaster(Closed::kPolicy);
    return Looked::kClosed;
  }
  uint32_t out = 0;
  for (const Found& found : found_) {
    out += found.permits.claimable + (found.marked ? 0 : found.permits.redeeming);
  }
  const int waiting = config_.sights->Waiting();
  if (waiting < 0) {
    GiveToMaster(Closed::kUncounted);
    return Looked::kClosed;
  }
  const uint32_t width = std::min(kWidth * static_cast<uint32_t>(seats_.size()), kWidthMax);
  uint32_t wanted = static_cast<uint32_t>(waiting);
  if (wanted > width) {
    GiveToMaster(Closed::kFull);
    return Looked::kClosed;
  }
  wanted = wanted == 0 && out == 0 ? 1 : wanted - std::min(wanted, out);
  // Before the next sight is shown: the kernel checks less where a listener stands in one set only.
  HideUnused();
  bool again = false;
  bool hungry = false;
  for (; wanted > 0; --wanted) {
    AddCandidates(/*waiters_only=*/true);
    const bool to_waiter = !candidates_.empty();
    if (!to_waiter) AddCandidates(/*waiters_only=*/false);
    if (candidates_.empty() || NoPlaceAtGates()) {
      if (out > 0) break;  // whoever has a permit visits
      GiveToMaster(Closed::kNoPlace);
      return Looked::kClosed;
    }
    const size_t picked = AskPolicy();
    if (picked == candidates_.size()) {
      GiveToMaster(Closed::kPolicy);
      return Looked::kClosed;
    }
    const size_t at = positions_[picked];
    const Seat& seat = seats_[at];
    // Rule "how".
    PermitsOf(seat).Issue();
    seat.permits->pending.Set(config_.source);
    if (const int error = ShowTo(at, waiting > 0, wakes); error != 0) {
      error_ = error;
      GiveToMaster(Closed::kTrouble);
      return Looked::kClosed;
    }
    again |= to_waiter && !seat.state->Awaits();
    hungry |= !to_waiter;
    ++out;
    ++found_[at].permits.claimable;
    found_[at].may =
        seat.state->open.load(std::memory_order_seq_cst) + found_[at].permits.claimable <
        seat.capacity;
  }
  for (size_t i = 0; i < seats_.size() && !hungry; ++i) {
    hungry = found_[i].permits.claimable > 0 && !found_[i].waits;
  }
  if (again) return Looked::kAgain;
  if (!hungry) return Looked::kDone;
  // Rule "hungry": whoever began to wait just before the flag was up has not read it.
  config_.hungry->Set(config_.source);
  FindSeats();
  const bool stays = std::none_of(found_.begin(), found_.end(), [](const Found& found) {
    return found.may && found.waits && found.permits.out() == 0;
  });
  return stays ? Looked::kDone : Looked::kAgain;
}

}  // namespace ringmaster::core
