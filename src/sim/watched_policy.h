// A policy of the library, watched: what it is shown and what it answers.

#ifndef RINGMASTER_SRC_SIM_WATCHED_POLICY_H_
#define RINGMASTER_SRC_SIM_WATCHED_POLICY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ringmaster/policy.h"
#include "sim/checker.h"
#include "sim/prng.h"

namespace ringmaster::sim {

// Whether and why it picks nobody; borrows what it points to.
struct Reluctance {
  uint32_t nobody_of_8 = 0;
  bool strict = false;
  bool for_ever = false;       // also when `over`
  const bool* over = nullptr;  // it picks as any other then
  Prng* prng = nullptr;
  uint32_t source = 0;
  // Which worker has an index in the engine.
  std::function<uint32_t(uint32_t index)> worker_at = nullptr;

  bool any() const { return nobody_of_8 > 0 || strict; }
};

class WatchedPolicy final : public Policy {
 public:
  // Borrows the checker. `skips_one`: never picks the first worker that has joined, if it can.
  WatchedPolicy(std::unique_ptr<Policy> policy, Checker* checker, bool skips_one,
                Reluctance reluctance)
      : policy_(std::move(policy)),
        checker_(checker),
        skips_one_(skips_one),
        reluctance_(std::move(reluctance)) {}

  std::string name() const override { return policy_->name(); }
  // One that picks nobody knows by the port which connection that was.
  FactsNeeded facts() const override {
    FactsNeeded facts = policy_->facts();
    facts.peer |= reluctance_.any();
    return facts;
  }
  bool AnyThread() const override { return !reluctance_.any() && policy_->AnyThread(); }
  void Prepare(uint32_t worker_slots) override { policy_->Prepare(worker_slots); }

  size_t Pick(const Arrival& arrival, const View& view) override {
    ++picks_;
    if (view.candidates.size() < view.joined.size()) ++picks_without_all_;
    CheckView(view);
    if (arrival.request_waits && !std::exchange(wants_no_waiter_, false)) CheckWaiters(view);
    if (reluctance_.any()) {
      const size_t position = PickReluctantly(arrival, view);
      wants_no_waiter_ = position == kNobodyNow;
      return position;
    }
    size_t position = policy_->Pick(arrival, view);
    if (position >= view.candidates.size()) checker_->Fail("a policy picks nobody");
    if (skips_one_ && view.candidates[position].worker == view.joined.front()) {
      position = view.candidates.size() - 1;
    }
    return position;
  }

  // One that picks a certain worker for each client takes no other.
  bool MayMove(const Arrival& arrival, const Candidate& from, const Candidate& to) const override {
    if (!from.busy() || !to.idle() || from.worker == to.worker) {
      checker_->Fail("a policy is asked about a move that makes no sense");
    }
    const bool moves = !reluctance_.strict && policy_->MayMove(arrival, from, to);
    if (moves) moves_from_ = {.worker = from.worker, .at_ns = checker_->now_ns()};
    return moves;
  }

  void OnRecall(uint32_t worker) override {
    ++recalls_;
    if (moves_from_.worker == worker && moves_from_.at_ns == checker_->now_ns()) {
      checker_->OnMoving(reluctance_.source, reluctance_.worker_at(worker));
      moves_from_ = {};
    }
    policy_->OnRecall(worker);
  }
  void OnLeave(uint32_t worker) override { policy_->OnLeave(worker); }

  uint64_t picks() const { return picks_; }
  // Picks at which somebody who had joined could not be picked.
  uint64_t picks_without_all() const { return picks_without_all_; }
  uint64_t recalls() const { return recalls_; }

 private:
  size_t PickReluctantly(const Arrival& arrival, const View& view) {
    const uint32_t connection = SimKernelConnection(arrival);
    size_t position = Want(connection, arrival, view);
    const bool unwilling = reluctance_.for_ever || !*reluctance_.over;
    if (unwilling && reluctance_.prng->Chance({reluctance_.nobody_of_8, 8})) position = kNobodyNow;
    if (position != kNobodyNow) {
      checker_->OnPicked(reluctance_.source, connection,
                         reluctance_.worker_at(view.candidates[position].worker));
      return position;
    }
    shown_.clear();
    for (const Candidate& candidate : view.candidates) {
      shown_.push_back({.worker = reluctance_.worker_at(candidate.worker),
                        .open = candidate.open,
                        .busy = candidate.busy()});
    }
    checker_->OnNobody(reluctance_.source, connection, shown_);
    return kNobodyNow;
  }
  size_t Want(uint32_t connection, const Arrival& arrival, const View& view) {
    if (!reluctance_.strict || (*reluctance_.over && !reluctance_.for_ever)) {
      return policy_->Pick(arrival, view);
    }
    const size_t turn = connection == Checker::kNone ? 0 : connection % view.joined.size();
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      if (view.candidates[i].worker == view.joined[turn]) return i;
    }
    return kNobodyNow;
  }
  // As the simulated kernel tells it; Checker::kNone where it was not asked, or of a ticket.
  static uint32_t SimKernelConnection(const Arrival& arrival) {
    return arrival.peer.port == 0 ? Checker::kNone : arrival.peer.port - 1u;
  }

  void CheckView(const View& view) {
    if (view.candidates.empty() || view.topology == nullptr) {
      return checker_->Fail("a policy is asked although nobody has credit");
    }
    if (!std::is_sorted(view.joined.begin(), view.joined.end())) {
      return checker_->Fail("a policy sees the joined workers out of order");
    }
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      const Candidate& candidate = view.candidates[i];
      if (i > 0 && view.candidates[i - 1].worker >= candidate.worker) {
        checker_->Fail("a policy sees the candidates out of order");
      }
      if (!std::binary_search(view.joined.begin(), view.joined.end(), candidate.worker)) {
        checker_->Fail("a policy sees a candidate that has not joined");
      }
      if (candidate.idle() && candidate.unclaimed > 0) {
        checker_->Fail("a policy sees an idle worker that has something to do");
      }
      if (candidate.credit == 0) checker_->Fail("a policy sees a worker without credit");
      if (candidate.unclaimed > candidate.open) {
        checker_->Fail("a policy sees more unclaimed than open");
      }
      if (candidate.unclaimed == 0 && candidate.still_ns != 0) {
        checker_->Fail("a policy sees a worker stand still for which nothing waits");
      }
    }
  }

  // Those who say that they wait and have nothing to do are shown alone.
  void CheckWaiters(const View& view) {
    const auto waits = [this](const Candidate& candidate) {
      return candidate.idle() && checker_->SaysItWaits(reluctance_.worker_at(candidate.worker));
    };
    const auto waiting = std::count_if(view.candidates.begin(), view.candidates.end(), waits);
    if (waiting > 0 && waiting < std::ssize(view.candidates)) {
      checker_->Fail("a request waits, and may be given to a worker that is busy");
    }
  }

  const std::unique_ptr<Policy> policy_;
  Checker* const checker_;
  const bool skips_one_;
  const Reluctance reluctance_;
  std::vector<Checker::Shown> shown_;
  // What it was asked about last, and has agreed to, and when: before the next recall from there.
  struct MovesFrom {
    uint32_t worker = UINT32_MAX;
    int64_t at_ns = 0;
  };
  mutable MovesFrom moves_from_;
  bool wants_no_waiter_ = false;  // it has picked nobody just now
  uint64_t picks_ = 0;
  uint64_t picks_without_all_ = 0;
  uint64_t recalls_ = 0;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_WATCHED_POLICY_H_
