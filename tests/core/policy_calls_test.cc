// Policies that do what they must not. Method: as in engine_fixture.h.

#include "core/policy_calls.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine_fixture.h"
#include "ringmaster/policy.h"

namespace ringmaster::core {
namespace {

using PolicyCallsTest = EngineTest;

// Answers and throws as the test says.
struct Mood {
  size_t position = 0;
  bool throws = false;
};
class MoodyPolicy final : public Policy {
 public:
  explicit MoodyPolicy(Mood* mood) : mood_(mood) {}
  std::string name() const override { return "moody"; }
  size_t Pick(const ringmaster::Arrival&, const View&) override {
    if (mood_->throws) throw std::runtime_error("not today");
    return mood_->position;
  }
  void OnRecall(uint32_t) override {
    if (mood_->throws) throw 1;
  }
  void OnLeave(uint32_t worker) override { OnRecall(worker); }

 private:
  Mood* const mood_;
};

TEST_F(PolicyCallsTest, APickBeyondTheCandidatesIsTakenForTheFirstAndReportedOnce) {
  Mood mood{.position = 2};
  AddSource({}, std::make_unique<MoodyPolicy>(&mood));
  AddWorker();
  AddWorker();
  Batch();
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 1u);
  EXPECT_EQ(engine_.policy_fault(0), "policy moody picked position 2 of 2 candidates");
  EXPECT_EQ(engine_.intake(0).policy_faults, 2u);
  engine_.ClearEvents();
  Batch({Arrival(12)});
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 0u);
  // Another one is another one.
  engine_.SetPolicy(0, std::make_unique<MoodyPolicy>(&mood));
  EXPECT_EQ(engine_.policy_fault(0), "");
  Batch({Arrival(13)});
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 1u);
}

TEST_F(PolicyCallsTest, WhatAPolicyThrowsCostsNoArrival) {
  Mood mood{.throws = true};
  AddSource({}, std::make_unique<MoodyPolicy>(&mood));
  AddWorker();
  AddWorker();
  Batch();
  Batch({Arrival(10)});
  EXPECT_EQ(engine_.policy_fault(0), "policy moody threw \"not today\" in Pick");
  EXPECT_EQ(CountEvents(EventKind::kPolicyFailed), 1u);
  now_ns_ += kRecallAfter;
  Batch();  // a recall, of which it is told, and another pick
  engine_.Leave(SourceIndex(0), 1);
  Batch();
  EXPECT_EQ(Claim(0).size(), 0u);  // after the recall it is to move first
  Batch({Knock()});
  EXPECT_EQ(Claim(0), std::vector<int32_t>{10});
  EXPECT_EQ(engine_.intake(0).policy_faults, 5u);
}

}  // namespace
}  // namespace ringmaster::core
