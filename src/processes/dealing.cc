#include "processes/dealing.h"

#include <algorithm>
#include <span>

#include "processes/desk.h"

namespace ringmaster::processes {
namespace {

const CpuTopology kNoTopology{};

}  // namespace

// --- What is known of the workers ----------------------------------------------------------------

bool Dealing::Takes(uint32_t worker) {
  const uint64_t number = kernel_.Number(worker);
  return number != 0 && !books_[worker].ruined &&
         area_.workers[worker].takes.load(std::memory_order_seq_cst) == number;
}

// Rule "counted by the kernel". Only where something was put in since nothing lay there.
uint32_t Dealing::Count(uint32_t worker) {
  Book& book = books_[worker];
  if (book.lying == 0) return 0;
  const uint32_t lying = std::min(kernel_.Lying(worker), book.lying);
  if (lying != book.lying) book.moved_at_ns = kernel_.NowNs();
  book.lying = lying;
  return lying;
}

bool Dealing::Lies() {
  bool lies = false;
  for (uint32_t i = 0; i < places_; ++i) lies |= Count(i) > 0;
  return lies;
}

void Dealing::Find() {
  found_count_ = 0;
  const int64_t late_before_ns = kernel_.NowNs() - Desk::kLateNs;
  for (uint32_t i = 0; i < places_; ++i) {
    if (!Takes(i)) continue;
    Count(i);
    const Worker& worker = area_.workers[i];
    const bool waits = worker.waits.load(std::memory_order_seq_cst) != 0;
    joined_[found_count_] = i;
    found_[found_count_++] = {
        .worker = i,
        .marked = worker.marked.load(std::memory_order_seq_cst) != 0,
        .late = !waits && worker.woke_at_ns.load(std::memory_order_relaxed) < late_before_ns,
        .waits = waits};
  }
  const auto end = found_.begin() + static_cast<ptrdiff_t>(found_count_);
  const auto all = [&](bool Found::*flag) {
    return std::all_of(found_.begin(), end, [&](const Found& found) { return found.*flag; });
  };
  // What is true of all says nothing.
  for (bool Found::*const flag : {&Found::marked, &Found::late}) {
    if (!all(flag)) continue;
    for (auto it = found_.begin(); it != end; ++it) (*it).*flag = false;
  }
}

void Dealing::AddCandidates(bool at_any_cost) {
  candidates_count_ = 0;
  const int64_t now_ns = kernel_.NowNs();
  const auto can = [&](const Found& found) {
    if (found.full) return false;
    return at_any_cost || !(found.marked || found.late || books_[found.worker].lying >= lying_max_);
  };
  const bool idle = std::any_of(
      found_.begin(), found_.begin() + static_cast<ptrdiff_t>(found_count_), [&](const Found& it) {
        return can(it) && it.waits && books_[it.worker].lying == 0 &&
               area_.workers[it.worker].open.load(std::memory_order_relaxed) == 0;
      });
  for (size_t i = 0; i < found_count_; ++i) {
    const Found& found = found_[i];
    const Book& book = books_[found.worker];
    if (!can(found) || (idle && !found.waits)) continue;
    const Worker& worker = area_.workers[found.worker];
    positions_[candidates_count_] = static_cast<uint32_t>(i);
    candidates_[candidates_count_++] = {
        .worker = found.worker,
        .open = std::min(worker.open.load(std::memory_order_seq_cst), kOpenMax) + book.lying,
        .unclaimed = book.lying,
        .credit = std::max(lying_max_, book.lying + 1) - book.lying,
        .cpu = worker.cpu.load(std::memory_order_relaxed),
        .still_ns = book.lying == 0 ? 0 : std::max<int64_t>(now_ns - book.moved_at_ns, 0),
        .activity = found.waits && book.lying == 0 ? Activity::kIdle : Activity::kClaiming};
  }
}

bool Dealing::HasRoom() {
  Find();
  AddCandidates(/*at_any_cost=*/false);
  return candidates_count_ > 0;
}

// --- Deals ---------------------------------------------------------------------------------------

// False: it is to be held. Then either the policy has set it aside, or nobody has room.
bool Dealing::DealOne(const Given& given, bool at_any_cost, bool& set_aside) {
  // Whoever fails is no candidate any more.
  while (true) {
    AddCandidates(at_any_cost);
    if (candidates_count_ == 0) return false;
    size_t picked = policy_->Pick(
        given.facts,
        {.candidates = std::span<const Candidate>(candidates_.data(), candidates_count_),
         .joined = std::span<const uint32_t>(joined_.data(), found_count_),
         .topology = &kNoTopology});
    if (picked == Policy::kNobodyNow) {
      set_aside = true;
      if (!at_any_cost) return false;
    }
    Found& found = found_[positions_[picked < candidates_count_ ? picked : 0]];
    Book& book = books_[found.worker];
    const int error = kernel_.Put(found.worker, given);
    if (error == 0) {
      if (book.lying++ == 0) book.moved_at_ns = kernel_.NowNs();
      area_.workers[found.worker].given.store(1, std::memory_order_seq_cst);
      ++counts_.given;
      return true;
    }
    if (picked != Policy::kNobodyNow) policy_->OnRecall(found.worker);
    found.full = true;
    book.ruined |= !IsLackOfRoom(error);
  }
}

void Dealing::Deal(bool at_any_cost) {
  if (held_.empty()) return;
  Find();
  // What is set aside keeps its place before those that nobody has room for.
  size_t kept = 0;
  size_t looked_at = 0;
  for (; looked_at < held_.size(); ++looked_at) {
    bool set_aside = false;
    const Given given = held_[looked_at];
    if (DealOne(given, at_any_cost, set_aside)) continue;
    if (!set_aside) break;
    held_[kept++] = given;
  }
  held_.erase(held_.begin() + static_cast<ptrdiff_t>(kept),
              held_.begin() + static_cast<ptrdiff_t>(looked_at));
}

// --- Takes back ----------------------------------------------------------------------------------

void Dealing::TakeBack(uint32_t worker) {
  Book& book = books_[worker];
  std::vector<Given> came;
  int error = 0;
  // One that is no connection is dropped. Whoever puts such things in cannot hold this up.
  for (uint32_t tries = 0; tries < 2 * kLyingMax; ++tries) {
    Given given;
    error = kernel_.Take(worker, given);
    if (error == EBADMSG) continue;
    if (error != 0) break;
    came.push_back(given);
    policy_->OnRecall(worker);
    ++counts_.taken_back;
    --counts_.given;
  }
  held_.insert(held_.begin(), came.begin(), came.end());
  // Without descriptors, the rest comes back later.
  if (error == EAGAIN || error == EPIPE) book.lying = 0;
  area_.workers[worker].given.store(0, std::memory_order_seq_cst);
}

void Dealing::OnGone(uint32_t worker) {
  if (books_[worker].lying > 0) TakeBack(worker);
  policy_->OnLeave(worker);
}

bool Dealing::IsToBeNudged(uint32_t worker) {
  return kernel_.Number(worker) != 0 && !books_[worker].ruined && !Takes(worker);
}

bool Dealing::SomebodyTakesNothing() {
  for (uint32_t i = 0; i < places_; ++i) {
    if (IsToBeNudged(i)) return true;
  }
  return false;
}

// Rule "nonsense".
void Dealing::NudgeThoseWhoTakeNothing(int64_t now_ns) {
  if (now_ns - nudged_at_ns_ < kNudgeNs) return;
  nudged_at_ns_ = now_ns;
  for (uint32_t i = 0; i < places_; ++i) {
    if (IsToBeNudged(i)) kernel_.Nudge(i);
  }
}

void Dealing::Look() {
  for (uint32_t i = 0; i < places_; ++i) {
    if (Count(i) > 0 && !Takes(i)) TakeBack(i);
  }
  Find();
  AddCandidates(/*at_any_cost=*/false);
  const int64_t now_ns = kernel_.NowNs();
  NudgeThoseWhoTakeNothing(now_ns);
  const auto somebody_else = [&](uint32_t worker) {
    return std::any_of(candidates_.begin(),
                       candidates_.begin() + static_cast<ptrdiff_t>(candidates_count_),
                       [&](const Candidate& it) { return it.worker != worker; });
  };
  for (size_t i = 0; i < found_count_; ++i) {
    const uint32_t worker = found_[i].worker;
    const Book& book = books_[worker];
    if (book.lying == 0 || now_ns - book.moved_at_ns < kStillNs || !somebody_else(worker)) continue;
    kernel_.Mark(worker);
    TakeBack(worker);
  }
  Deal();
}

}  // namespace ringmaster::processes
