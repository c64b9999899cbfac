// Candidates: the workers from which a policy may pick, with what it is shown of them. The list is
// made anew for each source that is dealt, and kept up to date while that source is dealt.

#ifndef RINGMASTER_SRC_CORE_CANDIDATES_H_
#define RINGMASTER_SRC_CORE_CANDIDATES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/books.h"
#include "core/reserve.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {

class Candidates {
 public:
  explicit Candidates(const Books& books) : books_(books) {}

  // Set-up: for as many workers as there are.
  void Reserve() { core::Reserve(list_, books_.workers.size()); }

  std::span<const Candidate> list() const { return list_; }
  bool empty() const { return list_.empty(); }

  // Makes the list for the source: its workers with credit. Those that are slow at work are in it
  // only if there is nobody else, or if the source holds what was passed on. Otherwise the giver
  // might be the only candidate for that.
  void Refresh(const Source& source) {
    const bool slow_too = books_.ledger.AnyGivers() &&
                          books_.ledger.FirstPassedOn(source.index, kNoGiver) != kNoArrival;
    Add(source, slow_too);
    if (list_.empty() && !slow_too) Add(source, true);
  }
  // Where the worker stands; behind the last if it is none.
  size_t PositionOf(uint32_t worker) const {
    const auto at = std::find_if(list_.begin(), list_.end(), [worker](const Candidate& candidate) {
      return candidate.worker == worker;
    });
    return static_cast<size_t>(at - list_.begin());
  }
  // Keeps only those of whom this holds.
  template <typename Holds>
  void KeepOnly(Holds holds) {
    std::erase_if(list_, [&holds](const Candidate& candidate) { return !holds(candidate); });
  }
  // The worker as a candidate, whether it has credit or not.
  Candidate Of(const Source& source, uint32_t index) const {
    const Worker& worker = books_.workers[index];
    Candidate candidate{.worker = index,
                        .credit = books_.Credit(index, source),
                        .cpu = worker.cpu(),
                        .activity = worker.activity(),
                        .on_host = worker.config.ring_fd < 0};
    Count(source, candidate);
    return candidate;
  }

  // Counts anew what the workers have. Other masters give to the same workers in the middle of this
  // batch. If two masters filled up a worker by what it had before their batches, it would get
  // twice as much as it lacked.
  void Recount(const Source& source) {
    for (Candidate& candidate : list_) Count(source, candidate);
  }

  // The worker is no candidate until Show is called with the position that this returns.
  size_t Hide(uint32_t worker) {
    const size_t position = PositionOf(worker);
    if (position == list_.size()) return kNowhere;
    hidden_ = list_[position];
    Remove(position);
    return position;
  }
  void Show(size_t position) {
    if (position == kNowhere) return;
    list_.insert(list_.begin() + static_cast<ptrdiff_t>(position), hidden_);
  }

  // The one at the position was given an arrival.
  void Given(size_t position) {
    Candidate& candidate = list_[position];
    candidate.activity = std::max(candidate.activity, Activity::kClaiming);
    ++candidate.open;
    ++candidate.unclaimed;
    if (--candidate.credit == 0) Remove(position);
  }
  // The one at the position is no candidate any more.
  void Remove(size_t position) { list_.erase(list_.begin() + static_cast<ptrdiff_t>(position)); }

 private:
  static constexpr size_t kNowhere = SIZE_MAX;

  void Add(const Source& source, bool slow_too);
  // Counts what the worker has. A connection that has ended was claimed before, even if its worker
  // has not been seen to claim it, or has not said Took yet. So no more is unclaimed than open.
  void Count(const Source& source, Candidate& candidate) const {
    const uint32_t index = candidate.worker;
    candidate.open = books_.places.Open(index, source.index);
    candidate.unclaimed = std::min(books_.Unclaimed(index), candidate.open);
    candidate.still_ns = candidate.unclaimed > 0 ? books_.StillNs(index) : 0;
  }

  const Books& books_;
  std::vector<Candidate> list_;
  Candidate hidden_;
};

inline void Candidates::Add(const Source& source, bool slow_too) {
  list_.clear();
  for (const uint32_t index : source.joined) {
    const Worker& worker = books_.workers[index];
    if (!slow_too && worker.SlowAtWork(books_.now_ns)) continue;
    const uint32_t credit = books_.Credit(index, source);
    if (credit == 0) continue;
    list_.push_back({.worker = index,
                     .credit = credit,
                     .cpu = worker.cpu(),
                     .activity = worker.activity(),
                     .on_host = worker.config.ring_fd < 0});
    Count(source, list_.back());
  }
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_CANDIDATES_H_
