// Policies of an application's own. One is that of policy.h word for word. One remembers something
// of each worker and learns of recalls and leaves. One gives each client to one worker.

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

class FillFirst final : public ringmaster::Policy {
 public:
  explicit FillFirst(uint32_t open_max) : open_max_(open_max) {}
  std::string name() const override { return "fill-first"; }
  size_t Pick(const ringmaster::Arrival&, const ringmaster::View& view) override {
    for (size_t i = 0; i < view.candidates.size(); ++i)
      if (view.candidates[i].open < open_max_) return i;
    return view.candidates.size() - 1;  // all are full; any position is right
  }

 private:
  const uint32_t open_max_;
};

namespace ringmaster::testing {
namespace {

// Prefers the worker that it had to take the fewest offers back from, the lowest index of several.
class MostReliable final : public Policy {
 public:
  std::string name() const override { return "most-reliable"; }

  void Prepare(uint32_t worker_slots) override {
    if (worker_slots > recalls_.size()) recalls_.resize(worker_slots);
  }

  size_t Pick(const Arrival&, const View& view) override {
    size_t best = 0;
    for (size_t i = 1; i < view.candidates.size(); ++i) {
      if (recalls_[view.candidates[i].worker] < recalls_[view.candidates[best].worker]) best = i;
    }
    return best;
  }

  void OnRecall(uint32_t worker) override { ++recalls_[worker]; }
  void OnLeave(uint32_t worker) override { recalls_[worker] = 0; }

 private:
  std::vector<uint32_t> recalls_;  // by index
};

// Each tenant, by the network that its clients come from, has a worker that serves nobody else.
class ByTenant final : public Policy {
 public:
  std::string name() const override { return "by-tenant"; }
  FactsNeeded facts() const override { return {.peer = true}; }
  size_t Pick(const Arrival& arrival, const View& view) override {
    for (size_t i = 0; i < view.candidates.size(); ++i)
      if (view.candidates[i].worker == WorkerFor(arrival.peer)) return i;
    return kNobodyNow;
  }

 private:
  static uint32_t WorkerFor(const Peer& peer) { return peer.address[2]; }
};

TEST(OwnPolicy, PicksNobodyWhileTheOnlyWorkerThatMayHaveTheArrivalLacksCredit) {
  Crew crew(3);
  auto policy = Ready(std::make_unique<ByTenant>(), crew);
  const Arrival of_first{.peer = {.kind = Peer::Kind::kIpv4, .address = {10, 0, 0, 7}}};
  const Arrival of_second{.peer = {.kind = Peer::Kind::kIpv4, .address = {10, 0, 1, 7}}};
  EXPECT_EQ(crew.Pick(*policy, of_second), 1u);
  crew.OnlyCreditFor({0, 2});
  EXPECT_EQ(policy->Pick(of_second, crew.MakeView()), Policy::kNobodyNow);
  EXPECT_EQ(crew.Pick(*policy, of_first), 0u);
  crew.CreditForAll();
  EXPECT_EQ(crew.Pick(*policy, of_second), 1u);
  crew.SetJoined(1, false);
  EXPECT_EQ(policy->Pick(of_second, crew.MakeView()), Policy::kNobodyNow);
}

TEST(OwnPolicy, OfTheHeaderFillsTheFirstWorkerBeforeItWakesTheSecond) {
  Crew crew(3);
  auto policy = Ready(std::make_unique<FillFirst>(2), crew);
  Workers picks;
  for (int i = 0; i < 7; ++i) {
    picks.push_back(crew.Pick(*policy));
    ++crew.facts(picks.back()).open;
  }
  EXPECT_EQ(picks, (Workers{0, 0, 1, 1, 2, 2, 2}));
  crew.facts(1).open = 0;
  EXPECT_EQ(crew.Pick(*policy), 1u);
}

TEST(OwnPolicy, ThatRemembersWorkersGoesByTheirIndexesAndForgetsThoseThatLeave) {
  Crew crew(3);
  auto policy = Ready(std::make_unique<MostReliable>(), crew);
  policy->OnRecall(0);
  EXPECT_EQ(crew.Pick(*policy), 1u);
  crew.SetJoined(1, false);  // positions shift, indexes do not
  EXPECT_EQ(crew.Pick(*policy), 2u);
  policy->OnRecall(2);
  policy->OnRecall(2);
  EXPECT_EQ(crew.Pick(*policy), 0u);
  policy->OnLeave(2);  // another worker takes over the index
  EXPECT_EQ(crew.Pick(*policy), 2u);
}

}  // namespace
}  // namespace ringmaster::testing
