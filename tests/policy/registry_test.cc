// Policies by name: every known name makes the policy that says so of itself, everything else is
// refused in words that lead to the right one.

#include <gtest/gtest.h>

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
  std::vector<std::string> names;
  for (const auto& policy : policies) {
    names.push_back(policy->name());
    const auto again = PolicyByName(names.back());
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ((*again)->name(), names.back());
  }
  EXPECT_EQ(names, (std::vector<std::string>{"round-robin", "exclusive", "exclusive-fifo",
                                             "affinity-cpu", "affinity-cpu:0",
                                             "affinity-cpu:4294967295", "least-loaded"}));
}

TEST(PolicyByName, LeavesOutAParameterThatIsTheDefault) {
  const auto policy = PolicyByName("affinity-cpu:5");
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ((*policy)->name(), "affinity-cpu");
}

TEST(PolicyByName, ListsTheKnownNamesWhenItKnowsNone) {
  for (const std::string_view wrong : {"", "wibble", "round", ":5", "p2c"}) {
    const std::string text = Refusal(wrong);
    for (const std::string_view name : PolicyNames()) EXPECT_TRUE(Contains(text, name));
    EXPECT_FALSE(Contains(text, "did you mean")) << text;
  }
  EXPECT_EQ(Refusal("wibble"),
            "There is no policy \"wibble\". Known are round-robin, exclusive, exclusive-fifo, "
            "affinity-cpu, least-loaded; affinity-cpu takes a parameter, as in affinity-cpu:8.");
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
  for (const std::string_view parameter :
       {"", "x", "-1", "+1", " 1", "1 ", "1.5", "0x10", "4294967296", "1:2"}) {
    const std::string text = Refusal("affinity-cpu:" + std::string(parameter));
    EXPECT_TRUE(Contains(text, "slack")) << text;
    EXPECT_TRUE(Contains(text, "\"" + std::string(parameter) + "\"")) << text;
  }
}

TEST(PolicyByName, RefusesAParameterWhereThereIsNone) {
  EXPECT_EQ(Refusal("round-robin:3"),
            "Policy round-robin takes no parameter, but was given \"3\".");
  EXPECT_TRUE(Contains(Refusal("exclusive:"), "takes no parameter"));
}

TEST(PolicyByName, ShowsStrangeInputHarmlesslyAndAnswersLongInput) {
  EXPECT_TRUE(Contains(Refusal("a\n\x1b[31m"), "\"a\\n\\033[31m\""));
  EXPECT_FALSE(Contains(Refusal(std::string(100'000, 'r')), "did you mean"));
}

}  // namespace
}  // namespace ringmaster::testing
