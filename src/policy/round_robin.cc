// Round-robin: every worker in turn, by index.
//
// What it decides. The rotation goes over all workers that have joined, not over those that have
// credit just now, so a worker's place in it never shifts. A turn that finds its worker without
// credit is owed to that worker, and so is a turn whose offer was recalled. A candidate that is
// owed turns is served before the rotation goes on; when there are several, they take turns. Who
// waits does not matter, because turns are exact.
//
// Invariants, for workers that have joined all the while:
// (1) turns = assigned + owed + forgiven - recalled, for each worker.
// (2) The turns of any two workers differ by at most 1.
// Hence with all debts paid, and nothing forgiven, the offers that were not recalled differ by at
// most 1. A turn is forgiven only when its worker is owed kTurnsOwedMax already. A worker that
// comes back after a long stall must not shut the others out for as long as it was away.
//
// Source. Jason Baron's EPOLLROUNDROBIN and EPOLL_ROTATE patches (LKML, February 2015); HAProxy's
// `tune.listener.multi-queue fair`, memcached and Netty rotate as well. That turns are owed is the
// idea of deficit round-robin (Shreedhar and Varghese, 1995), applied to whole connections.
//
// Cost. A comparison of `joined` with the last one seen, and two binary searches. While turns are
// owed, also a scan that stops at the first candidate that is owed one.
//
// When not to use it. When connections differ much in cost or workers in speed: turns are even,
// load is not. A slow worker gets its share until its credit ends. Use least-loaded then. But
// clients that look for a certain worker by trying again rely on turns (ScyllaDB #29687).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "policy/first_from.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

// How many turns a worker may be owed at most.
constexpr uint16_t kTurnsOwedMax = 1024;

class RoundRobinPolicy final : public Policy {
 public:
  std::string name() const override { return "round-robin"; }

  void Prepare(uint32_t worker_slots) override {
    if (worker_slots <= workers_.size()) return;
    workers_.resize(worker_slots);
    joined_.reserve(worker_slots);
  }

  bool AnyThread() const override { return true; }

  size_t Pick(const Arrival&, const View& view) override {
    if (!std::equal(joined_.begin(), joined_.end(), view.joined.begin(), view.joined.end())) {
      NoteJoined(view.joined);
    }
    if (owed_total_ > 0) {
      const size_t position = FindOwed(view.candidates);
      if (position < view.candidates.size()) return PayTurn(view.candidates, position);
    }
    return TakeTurn(view);
  }

  // The turn is owed then.
  bool MayMove(const Arrival&, const Candidate&, const Candidate&) const override { return true; }

  void OnRecall(uint32_t worker) override {
    if (worker < workers_.size() && workers_[worker].joined) Owe(worker);
  }

  void OnLeave(uint32_t worker) override {
    if (worker < workers_.size()) Forget(worker);
  }

  bool Save(Span<uint64_t> words) const override {
    words[0] = uint64_t{next_} | uint64_t{next_owed_} << 32;
    for (size_t i = 0; i < workers_.size(); ++i) {
      words[kMemoryWords + i] = workers_[i].owed | (workers_[i].joined ? kJoined : 0);
    }
    return true;
  }
  bool Load(Span<const uint64_t> words) override {
    next_ = static_cast<uint32_t>(words[0]);
    next_owed_ = static_cast<uint32_t>(words[0] >> 32);
    joined_.clear();
    owed_total_ = 0;
    for (size_t i = 0; i < workers_.size(); ++i) {
      const uint64_t word = words[kMemoryWords + i];
      Worker& worker = workers_[i];
      worker.joined = (word & kJoined) != 0;
      worker.owed = worker.joined
                        ? static_cast<uint16_t>(std::min<uint64_t>(word & kOwed, kTurnsOwedMax))
                        : 0;
      owed_total_ += worker.owed;
      if (worker.joined) joined_.push_back(static_cast<uint32_t>(i));
    }
    return true;
  }

 private:
  struct Worker {
    uint16_t owed = 0;  // turns
    bool joined = false;
  };
  static constexpr uint64_t kOwed = 0xffff;
  static constexpr uint64_t kJoined = 1 << 16;

  // A worker that has left is owed nothing, so that the next worker with its index starts afresh.
  void Forget(uint32_t worker) {
    owed_total_ -= workers_[worker].owed;
    workers_[worker].owed = 0;
  }

  void NoteJoined(std::span<const uint32_t> joined) {
    for (const uint32_t worker : joined_) workers_[worker].joined = false;
    for (const uint32_t worker : joined) workers_[worker].joined = true;
    for (const uint32_t worker : joined_) {
      if (!workers_[worker].joined) Forget(worker);
    }
    joined_.assign(joined.begin(), joined.end());
  }

  void Owe(uint32_t worker) {
    if (workers_[worker].owed == kTurnsOwedMax) return;
    ++workers_[worker].owed;
    ++owed_total_;
  }

  // Position of the next candidate that is owed a turn, or the number of candidates.
  size_t FindOwed(std::span<const Candidate> candidates) const {
    const auto is_owed = [this](const Candidate& candidate) {
      return workers_[candidate.worker].owed > 0;
    };
    const auto begin = candidates.begin();
    const auto middle = begin + static_cast<ptrdiff_t>(TurnFrom(candidates, next_owed_));
    auto it = std::find_if(middle, candidates.end(), is_owed);
    if (it == candidates.end()) {
      it = std::find_if(begin, middle, is_owed);
      if (it == middle) return candidates.size();
    }
    return static_cast<size_t>(it - begin);
  }

  size_t PayTurn(std::span<const Candidate> candidates, size_t position) {
    const uint32_t worker = candidates[position].worker;
    --workers_[worker].owed;
    --owed_total_;
    next_owed_ = worker + 1;
    return position;
  }

  // The rotation goes on to the next candidate; every worker that it passes is owed its turn.
  size_t TakeTurn(const View& view) {
    const size_t position = TurnFrom(view.candidates, next_);
    const uint32_t chosen = view.candidates[position].worker;
    const size_t count = view.joined.size();
    size_t turn = static_cast<size_t>(
        std::lower_bound(view.joined.begin(), view.joined.end(), next_) - view.joined.begin());
    for (size_t passed = 0; passed < count; ++passed, ++turn) {
      if (turn >= count) turn = 0;
      if (view.joined[turn] == chosen) break;
      Owe(view.joined[turn]);
    }
    next_ = chosen + 1;
    return position;
  }

  std::vector<Worker> workers_;   // by index
  std::vector<uint32_t> joined_;  // as last seen
  uint64_t owed_total_ = 0;
  uint32_t next_ = 0;       // whose turn it is, or the next joined worker above it
  uint32_t next_owed_ = 0;  // the same among those that are owed turns
};

}  // namespace

std::unique_ptr<Policy> RoundRobin() { return std::make_unique<RoundRobinPolicy>(); }

}  // namespace ringmaster
