// A policy of the library, watched: what it is shown and what it answers.

#ifndef RINGMASTER_SRC_SIM_WATCHED_POLICY_H_
#define RINGMASTER_SRC_SIM_WATCHED_POLICY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "ringmaster/policy.h"
#include "sim/checker.h"

namespace ringmaster::sim {

class WatchedPolicy final : public Policy {
 public:
  // Borrows the checker. `skips_one`: never picks the first worker that has joined, if it can.
  WatchedPolicy(std::unique_ptr<Policy> policy, Checker* checker, bool skips_one)
      : policy_(std::move(policy)), checker_(checker), skips_one_(skips_one) {}

  std::string name() const override { return policy_->name(); }
  FactsNeeded facts() const override { return policy_->facts(); }
  void Prepare(uint32_t worker_slots) override { policy_->Prepare(worker_slots); }

  size_t Pick(const Arrival& arrival, const View& view) override {
    ++picks_;
    if (view.candidates.size() < view.joined.size()) ++picks_without_all_;
    CheckView(view);
    size_t position = policy_->Pick(arrival, view);
    if (position >= view.candidates.size()) checker_->Fail("a policy picks nobody");
    if (skips_one_ && view.candidates[position].worker == view.joined.front()) {
      position = view.candidates.size() - 1;
    }
    return position;
  }

  void OnRecall(uint32_t worker) override {
    ++recalls_;
    policy_->OnRecall(worker);
  }
  void OnLeave(uint32_t worker) override { policy_->OnLeave(worker); }

  uint64_t picks() const { return picks_; }
  // Picks at which somebody who had joined could not be picked.
  uint64_t picks_without_all() const { return picks_without_all_; }
  uint64_t recalls() const { return recalls_; }

 private:
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
      if (candidate.credit == 0) checker_->Fail("a policy sees a worker without credit");
      if (candidate.unclaimed > candidate.open) {
        checker_->Fail("a policy sees more unclaimed than open");
      }
      if (candidate.unclaimed == 0 && candidate.still_ns != 0) {
        checker_->Fail("a policy sees a worker stand still for which nothing waits");
      }
    }
  }

  const std::unique_ptr<Policy> policy_;
  Checker* const checker_;
  const bool skips_one_;
  uint64_t picks_ = 0;
  uint64_t picks_without_all_ = 0;
  uint64_t recalls_ = 0;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_WATCHED_POLICY_H_
