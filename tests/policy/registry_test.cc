// Policies by name. Every known name makes the policy that says so of itself. Everything else is
// refused in words that lead to the right one.

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

// The text with which `name` is refused; empty when it is not.
std::string Refusal(std::string_view name) {
  const auto policy = PolicyByName(name);
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument) << name;
  return std::string(policy.status().message());
}

TEST(PolicyByName, MakesEveryKnownPolicyUnderItsOwnName) {
  EXPECT_FALSE(PolicyNames().empty());
  for (const std::string_view name : PolicyNames()) {
    const auto policy = PolicyByName(name);
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_EQ((*policy)->name(), name);
  }
}

TEST(PolicyByName, TakesTheNamesThatPoliciesGiveThemselves) {
  std::vector<std::unique_ptr<Policy>> policies;
  policies.push_back(RoundRobin());
  policies.push_back(Exclusive(WakeOrder::kLifo));
  policies.push_back(Exclusive(WakeOrder::kFifo));
  policies.push_back(AffinityCpu());
  policies.push_back(AffinityCpu({.slack = 0}));
  policies.push_back(AffinityCpu({.slack = 4294967295}));
  policies.push_back(LeastLoaded());
  policies.push_back(WeightedRoundRobin().value());
  policies.push_back(WeightedRoundRobin({.weights = {4, 1, 1000}}).value());
  policies.push_back(AffinityHash());
  policies.push_back(LeastLoaded({.rotate_ties = false}));
  policies.push_back(TwoChoices());
  policies.push_back(TwoChoices({.seed = UINT64_MAX}));
  policies.push_back(Hermes());
  policies.push_back(Hermes({.still_ms_max = 0}));
  std::vector<std::string> names;
  for (const auto& policy : policies) {
    names.push_back(policy->name());
    const auto again = PolicyByName(names.back());
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ((*again)->name(), names.back());
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"round-robin", "exclusive", "exclusive-fifo", "affinity-cpu",
                                      "affinity-cpu:0", "affinity-cpu:4294967295", "least-loaded",
                                      "weighted-round-robin", "weighted-round-robin:4,1,1000",
                                      "affinity-hash", "least-loaded:first", "two-choices",
                                      "two-choices:18446744073709551615", "hermes", "hermes:0"}));
}

TEST(PolicyByName, LeavesOutAParameterThatIsTheDefault) {
  for (const std::string_view name : {"affinity-cpu:5", "two-choices:0", "hermes:5"}) {
    const auto policy = PolicyByName(name);
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_EQ((*policy)->name(), name.substr(0, name.find(':')));
  }
}

TEST(PolicyByName, ListsTheKnownNamesWhenItKnowsNone) {
  for (const std::string_view wrong : {"", "wibble", "round", ":5", "choices"}) {
    const std::string text = Refusal(wrong);
    for (const std::string_view name : PolicyNames()) EXPECT_TRUE(Contains(text, name));
    EXPECT_FALSE(Contains(text, "did you mean")) << text;
  }
  EXPECT_EQ(
      Refusal("wibble"),
      "There is no policy \"wibble\". Known are round-robin, weighted-round-robin, exclusive, "
      "exclusive-fifo, affinity-cpu, affinity-hash, least-loaded, two-choices, hermes; some "
      "take parameters, as in weighted-round-robin:4,1,1 and affinity-cpu:8.");
}

TEST(PolicyByName, SuggestsTheNameThatWasProbablyMeant) {
  const struct {
    std::string_view wrong, meant;
  } kSlips[] = {
      {"round-robbin", "round-robin"},
      {"round_robin", "round-robin"},
      {"RoundRobin", "round-robin"},
      {"ROUND-ROBIN", "round-robin"},
      {"exclusve", "exclusive"},
      {"exclusive-lifo", "exclusive"},
      {"exclusivefifo", "exclusive-fifo"},
      {"affinity", "affinity-cpu"},
      {"cpu-affinity", ""},
      {"exclusive-any", ""},
      {"affinity-cpus:3", "affinity-cpu"},
      {"least-load", "least-loaded"},
      {"leastconn", "least-loaded"},
      {"least_conn", "least-loaded"},
      {"wrr", "weighted-round-robin"},
      {"weighted-roundrobin:2,1", "weighted-round-robin"},
      {"p2c", "two-choices"},
      {"power_of_two", "two-choices"},
      {"two-choice", "two-choices"},
      {"ip_hash", "affinity-hash"},
      {"source-hash", "affinity-hash"},
      {"sticky", "affinity-hash"},
      {"Hermes", "hermes"},
  };
  for (const auto& slip : kSlips) {
    const std::string text = Refusal(slip.wrong);
    if (slip.meant.empty()) {
      EXPECT_FALSE(Contains(text, "did you mean")) << text;
    } else {
      EXPECT_TRUE(Contains(text, "did you mean \"" + std::string(slip.meant) + "\"?")) << text;
    }
  }
}

TEST(PolicyByName, RefusesParametersThatAreNotWholeNumbers) {
  const struct {
    std::string_view policy, what, too_large;
  } kParameters[] = {
      {"affinity-cpu", "slack", "4294967296"},
      {"two-choices", "seed", "18446744073709551616"},
      {"hermes", "milliseconds", "4294967296"},
      {"weighted-round-robin", "weights", "4294967296"},
  };
  for (const auto& [policy, what, too_large] : kParameters) {
    for (const std::string_view parameter :
         {"", "x", "-1", "+1", " 1", "1 ", "1.5", "0x10", "1:2", "1,", ",1", "1,,1"}) {
      const std::string text = Refusal(std::string(policy) + ":" + std::string(parameter));
      EXPECT_TRUE(Contains(text, what)) << text;
      EXPECT_TRUE(Contains(text, "\"" + std::string(parameter) + "\"")) << text;
    }
    EXPECT_TRUE(Contains(Refusal(std::string(policy) + ":" + std::string(too_large)), what));
  }
}

TEST(PolicyByName, RefusesAWeightOutOfRangeAndSaysWhose) {
  EXPECT_EQ(
      Refusal("weighted-round-robin:4,0,1"),
      "The weights of policy weighted-round-robin must be from 1 to 1000; that of worker 1 is "
      "0. A worker that is to get nothing should not join the source.");
  EXPECT_EQ(
      Refusal("weighted-round-robin:1001"),
      "The weights of policy weighted-round-robin must be from 1 to 1000; that of worker 0 is "
      "1001.");
}

TEST(PolicyByName, RefusesAParameterWhereThereIsNone) {
  EXPECT_EQ(Refusal("round-robin:3"),
            "Policy round-robin takes no parameter, but was given \"3\".");
  EXPECT_TRUE(Contains(Refusal("exclusive:"), "takes no parameter"));
  EXPECT_EQ(
      Refusal("least-loaded:fist"),
      "The parameter of policy least-loaded says which of equals gets the connection; it must "
      "be \"first\", or be left out, and then they take turns; it is \"fist\".");
  EXPECT_TRUE(Contains(Refusal("affinity-hash:1"), "takes no parameter"));
}

TEST(PolicyByName, ShowsStrangeInputHarmlesslyAndAnswersLongInput) {
  EXPECT_TRUE(Contains(Refusal("a\n\x1b[31m"), "\"a\\n\\033[31m\""));
  EXPECT_FALSE(Contains(Refusal(std::string(100'000, 'r')), "did you mean"));
}

}  // namespace
}  // namespace ringmaster::testing
