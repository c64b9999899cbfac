#include "processes/desk.h"

#include <algorithm>
#include <bit>
#include <span>

namespace ringmaster::processes {
namespace {

// A look that finds something changed is followed by another, but not for ever: whoever has changed
// it visits.
constexpr int kLooksMax = 8;
constexpr int kVisitsMax = 8;
// Whoever leaves notes without end, or writes over the word, does not hold the holder for ever. So
// many looks for notes take longer than any rush; whoever comes to wait next looks instead.
constexpr int kNotesMax = 1'000;

const CpuTopology kNoTopology{};

}  // namespace

bool Desk::Visit() {
  // Somebody who deposes this thread again and again has more to do than it.
  for (int tries = 0; tries < kVisitsMax; ++tries) {
    if (source_.mode.load(std::memory_order_seq_cst) != Mode::kAimed) return true;
    if (!source_.word.TryHold(me_, held_)) return true;
    switch (Work()) {
      case Looked::kTrouble:
        return false;
      case Looked::kDeposed:
        source_.torn.store(1, std::memory_order_seq_cst);
        continue;
      case Looked::kDone:
      case Looked::kAgain:
        return true;
    }
  }
  return true;
}

bool Desk::Repair() {
  source_.torn.store(1, std::memory_order_seq_cst);
  if (source_.mode.load(std::memory_order_seq_cst) != Mode::kAimed) return true;
  // Where the word changes all the time, somebody moves, and finds it torn.
  if (!source_.word.Depose(source_.word.Read(), held_)) return Visit();
  const Looked looked = Work();
  if (looked == Looked::kDeposed) source_.torn.store(1, std::memory_order_seq_cst);
  return looked != Looked::kTrouble;
}

void Desk::Abandon() {
  source_.mode.store(Mode::kLeft, std::memory_order_seq_cst);
  // Nobody begins to hold it any more.
  for (int tries = 0; tries < kNotesMax; ++tries) {
    if (source_.word.Depose(source_.word.Read(), held_)) break;
  }
  Find();
  GiveUp();
}

Desk::Looked Desk::Work() {
  Wakes wakes;
  int notes = 0;
  LoadMemory();
  do {
    Looked looked = Look(wakes);
    for (int looks = 1; looked == Looked::kAgain && looks < kLooksMax; ++looks)
      looked = Look(wakes);
    if (looked == Looked::kDeposed || !source_.word.Holds(held_)) return Looked::kDeposed;
    if (looked == Looked::kTrouble) {
      GiveUp();
      return looked;
    }
    SaveMemory();
    if (++notes == kNotesMax) {
      source_.hungry.store(1, std::memory_order_seq_cst);
      LeaveDespiteNotes();
      break;
    }
  } while (!source_.word.Leave(held_));
  // After the desk was left, because whoever is woken may run in the place of this thread.
  for (size_t i = 0; i < wakes.count; ++i) kernel_.Wake(wakes.sights[i]);
  return Looked::kDone;
}

// Rule "renew".
void Desk::Renew() {
  for (Worker& worker : area_.workers) worker.of_source[index_].permits.Withdraw();
  kernel_.HideFromAll();
  for (Worker& worker : area_.workers) {
    worker.of_source[index_].shown.store(0, std::memory_order_seq_cst);
  }
  policy_.Load(std::array<uint64_t, kPolicyWords>{});
}

// Every sight shows the source from now on, so that each worker is woken, and finds that it may
// accept as it would without us.
void Desk::GiveUp() {
  source_.mode.store(Mode::kLeft, std::memory_order_seq_cst);
  for (size_t i = 0; i < found_count_; ++i) {
    const uint32_t sight = PairOf(found_[i].worker).sight.load(std::memory_order_seq_cst);
    if (sight < kSightsMax) kernel_.Show(sight, /*asleep=*/false);
  }
  LeaveDespiteNotes();
}

void Desk::LeaveDespiteNotes() {
  for (int tries = 0; tries < kNotesMax && !source_.word.Leave(held_); ++tries) continue;
}

void Desk::LoadMemory() {
  std::array<uint64_t, kPolicyWords> words;
  for (size_t i = 0; i < words.size(); ++i) {
    words[i] = source_.memory[i].load(std::memory_order_relaxed);
  }
  policy_.Load(words);
}

void Desk::SaveMemory() {
  std::array<uint64_t, kPolicyWords> words{};
  policy_.Save(words);
  for (size_t i = 0; i < words.size(); ++i) {
    source_.memory[i].store(words[i], std::memory_order_relaxed);
  }
}

void Desk::Find() {
  found_count_ = 0;
  const int64_t late_before_ns = kernel_.NowNs() - kLateNs;
  uint64_t joined = source_.joined.load(std::memory_order_seq_cst);
  for (; joined != 0; joined &= joined - 1) {
    const auto i = static_cast<uint32_t>(std::countr_zero(joined));
    if (PairOf(i).sight.load(std::memory_order_seq_cst) >= kSightsMax) continue;
    const Worker& worker = area_.workers[i];
    const bool waits = worker.waits.load(std::memory_order_seq_cst) != 0;
    joined_[found_count_] = i;
    found_[found_count_++] = {
        .worker = i,
        .open = std::min(worker.open.load(std::memory_order_seq_cst), kOpenMax),
        .permits = PairOf(i).permits.Read(),
        .marked = worker.marked.load(std::memory_order_seq_cst) != 0,
        .really_marked = worker.marked.load(std::memory_order_seq_cst) != 0,
        .waits = waits,
        .late = !waits && worker.woke_at_ns.load(std::memory_order_relaxed) < late_before_ns};
  }
  const auto end = found_.begin() + found_count_;
  const bool all_marked =
      std::all_of(found_.begin(), end, [](const Found& found) { return found.marked; });
  if (!all_marked) return;
  for (auto it = found_.begin(); it != end; ++it) it->marked = false;
}

template <typename Is>
bool Desk::Anybody(Is is) const {
  return std::any_of(found_.begin(), found_.begin() + found_count_, is);
}

// Rules "late" and "idle".
bool Desk::Yields(const Found& found) const {
  return (found.late && Anybody(IsFree)) || (!found.waits && Anybody(IsIdle));
}

void Desk::TakeBack(size_t at) {
  Found& found = found_[at];
  uint32_t count = PairOf(found.worker).permits.Withdraw();
  for (count = std::min(count, kWidthMax); count > 0; --count) policy_.OnRecall(found.worker);
  found.permits = PairOf(found.worker).permits.Read();
}

// Rules "order" and "astray".
void Desk::TakeBackAstray() {
  for (size_t i = 0; i < found_count_; ++i) {
    const Found& found = found_[i];
    uint32_t given_back = PairOf(found.worker).permits.TakeGivenBack();
    for (given_back = std::min(given_back, kWidthMax); given_back > 0; --given_back) {
      policy_.OnRecall(found.worker);
    }
    if (found.permits.claimable == 0 || !source_.word.Holds(held_)) continue;
    if (found.marked || Yields(found)) TakeBack(i);
  }
}

void Desk::AddCandidates(bool late_ones) {
  candidates_count_ = 0;
  const bool idle = Anybody(IsIdle);
  for (size_t i = 0; i < found_count_; ++i) {
    const Found& found = found_[i];
    if (found.marked || (found.late && !late_ones) || (idle && !found.waits)) continue;
    const uint32_t open = found.open + found.permits.claimable;
    positions_[candidates_count_] = static_cast<uint32_t>(i);
    candidates_[candidates_count_++] = {
        .worker = found.worker,
        .open = open,
        .unclaimed = found.permits.claimable,
        .credit = UINT32_MAX - open,
        .cpu = area_.workers[found.worker].cpu.load(std::memory_order_relaxed),
        .activity = IsFree(found) ? Activity::kIdle : Activity::kClaiming};
  }
}

// Sights of workers without a permit do not show the source, but for marked ones. False: deposed.
bool Desk::ShowWhatIsNeeded(bool something_waits) {
  for (size_t i = 0; i < found_count_; ++i) {
    Pair& pair = PairOf(found_[i].worker);
    const bool shows = pair.shown.load(std::memory_order_seq_cst) != 0;
    const bool rings = found_[i].really_marked && something_waits;
    if (shows == rings || pair.permits.Read().claimable > 0) continue;
    if (!source_.word.Holds(held_)) return false;
    pair.shown.store(rings, std::memory_order_seq_cst);
    const uint32_t sight = pair.sight.load(std::memory_order_seq_cst) % kSightsMax;
    if (rings) {
      kernel_.Show(sight, /*asleep=*/false);
    } else {
      kernel_.Hide(sight);
    }
  }
  return true;
}

Desk::Looked Desk::Look(Wakes& wakes) {
  if (source_.torn.load(std::memory_order_seq_cst) != 0 &&
      source_.torn.exchange(0, std::memory_order_seq_cst) != 0) {
    Renew();
  }
  Find();
  if (found_count_ == 0) {
    // Whoever comes first is to look.
    source_.hungry.store(1, std::memory_order_seq_cst);
    Find();
    if (found_count_ == 0) return Looked::kDone;
  }
  TakeBackAstray();
  uint32_t out = 0;
  for (size_t i = 0; i < found_count_; ++i) {
    if (found_[i].marked) continue;  // what it could claim was taken back, the rest does not count
    out += std::min(found_[i].permits.claimable, kWidthMax) +
           std::min(found_[i].permits.redeeming, kWidthMax);
  }
  const int waiting = kernel_.Waiting();
  if (waiting < 0) return Looked::kTrouble;
  const uint32_t width = std::min(kWidth * static_cast<uint32_t>(found_count_), kWidthMax);
  uint32_t wanted = std::min(static_cast<uint32_t>(waiting), width);
  wanted = wanted == 0 && out == 0 ? 1 : wanted - std::min(wanted, out);
  // Before the next sight is shown: the kernel checks less where a listener stands in one set only.
  if (!ShowWhatIsNeeded(waiting > 0)) return Looked::kDeposed;
  for (; wanted > 0; --wanted) {
    AddCandidates(/*late_ones=*/false);
    if (candidates_count_ == 0) AddCandidates(/*late_ones=*/true);
    const std::span<const Candidate> candidates(candidates_.data(), candidates_count_);
    const size_t picked =
        policy_.Pick({}, {.candidates = candidates,
                          .joined = std::span<const uint32_t>(joined_.data(), found_count_),
                          .topology = &kNoTopology});
    Found& found = found_[positions_[picked < candidates_count_ ? picked : 0]];
    Pair& pair = PairOf(found.worker);
    if (!source_.word.Holds(held_)) return Looked::kDeposed;
    pair.permits.Issue();
    ++found.permits.claimable;
    found.gets_more = true;
  }
  // Rule "how" of core/desk.h: first the permit, then the sight. Once for each worker, however many
  // it gets.
  for (size_t i = 0; i < found_count_; ++i) {
    if (!found_[i].gets_more) continue;
    Pair& pair = PairOf(found_[i].worker);
    pair.shown.store(1, std::memory_order_seq_cst);
    const uint32_t sight = pair.sight.load(std::memory_order_seq_cst) % kSightsMax;
    const bool asleep = waiting > 0 && wakes.count < wakes.sights.size();
    if (!source_.word.Holds(held_)) return Looked::kDeposed;
    if (!kernel_.Show(sight, asleep)) return Looked::kTrouble;
    if (asleep) wakes.sights[wakes.count++] = sight;
  }
  // It may stay there for long, or while another one has nothing to do.
  const auto stays_at_late = [](const Found& it) { return it.permits.claimable > 0 && it.late; };
  const auto stays_at_busy = [](const Found& it) { return it.permits.claimable > 0 && !it.waits; };
  if (!Anybody(stays_at_busy)) return Looked::kDone;
  // Rule "hungry" of core/desk.h: whoever began to wait just before it was raised has not read it.
  source_.hungry.store(Anybody(stays_at_late) ? Source::kHungry : Source::kHungryForIdle,
                       std::memory_order_seq_cst);
  Find();
  const auto is_to_yield = [&](const Found& it) { return it.permits.claimable > 0 && Yields(it); };
  return Anybody(is_to_yield) ? Looked::kAgain : Looked::kDone;
}

}  // namespace ringmaster::processes
