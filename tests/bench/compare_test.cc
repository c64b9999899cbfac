// Makes plans from options, without running them.

#include "bench/compare.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "bench/clock.h"
#include "bench/mechanism.h"
#include "bench/workload.h"

namespace ringmaster::bench {
namespace {

using StringList = std::vector<std::string>;

bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(MechanismsOf, SpellsOutSets) {
  EXPECT_EQ(MechanismsOf("all"), MechanismNames());
  const StringList rivals = MechanismsOf("rivals");
  const StringList ours = MechanismsOf("ringmaster");
  EXPECT_EQ(rivals.size() + ours.size(), MechanismNames().size());
  EXPECT_NE(std::find(rivals.begin(), rivals.end(), "epoll-exclusive"), rivals.end());
  for (const std::string& name : ours) EXPECT_TRUE(name.starts_with("ringmaster:")) << name;
}

// They serve in another way, so a comparison of everything leaves them out.
TEST(MechanismsOf, HasASetOfThoseThatServeFromFileTables) {
  EXPECT_EQ(MechanismsOf("direct"), DirectMechanismNames());
  for (const std::string& name : MechanismsOf("direct,all")) {
    const bool direct = !MakeMechanism(name).value()->takes_descriptors();
    const StringList all = MechanismNames();
    EXPECT_NE(direct, std::find(all.begin(), all.end(), name) != all.end()) << name;
  }
}

TEST(MechanismsOf, NamesEachOnce) {
  EXPECT_EQ(MechanismsOf("epoll-exclusive,reuseport,epoll-exclusive"),
            (StringList{"epoll-exclusive", "reuseport"}));
  EXPECT_EQ(MechanismsOf("all,epoll-exclusive").size(), MechanismNames().size());
  EXPECT_TRUE(MechanismsOf("").empty());
  EXPECT_TRUE(MechanismsOf(",").empty());
}

TEST(MechanismsOf, LeavesTheParametersOfAPolicyTogether) {
  EXPECT_EQ(MechanismsOf("ringmaster:weighted-round-robin:4,1,1/accept,reuseport"),
            (StringList{"ringmaster:weighted-round-robin:4,1,1/accept", "reuseport"}));
}

TEST(WorkloadsOf, SpellsOutAll) {
  EXPECT_EQ(WorkloadsOf("all"), WorkloadNames());
  EXPECT_EQ(WorkloadsOf("light,saturated,light"), (StringList{"light", "saturated"}));
}

TEST(WorkloadsOf, DoNotMindSpacesAroundCommas) {
  EXPECT_EQ(WorkloadsOf(" light , saturated"), (StringList{"light", "saturated"}));
  EXPECT_EQ(MechanismsOf("reuseport, ringmaster:weighted-round-robin:4, 1 ,epoll-exclusive "),
            (StringList{"reuseport", "ringmaster:weighted-round-robin:4,1", "epoll-exclusive"}));
}

TEST(ComparisonPlan, SaysWhichWorkloadsDoNotLookAtTheRate) {
  const CompareOptions options{.workloads = "bursts,paced,saturated,emfile", .rate = 500};
  EXPECT_TRUE(Contains(RateNote(PlanOf(options, 1).value()), "bursts, saturated, emfile:"));
  EXPECT_EQ(RateNote(PlanOf({.workloads = "paced,close-one"}, 1).value()), "");
}

TEST(ComparisonPlan, HasEveryMechanismNineRepetitionsAndAQuarterOfAnHour) {
  const Plan plan = PlanOf({}, 1).value();
  EXPECT_EQ(plan.mechanisms.size(), MechanismNames().size());
  ASSERT_EQ(plan.workloads.size(), 3u);
  EXPECT_EQ(plan.workloads[0]->name(), "saturated");
  EXPECT_EQ(plan.workloads[1]->name(), "light");
  EXPECT_EQ(plan.workloads[2]->name(), "slow-worker");
  EXPECT_EQ(plan.repetitions, 9u);
  EXPECT_EQ(plan.transport, Transport::kTcp);
  EXPECT_LE(plan.ExpectedNs(), 15 * 60 * kSecond);
  EXPECT_GE(plan.duration_ns, kSecond);
}

TEST(ComparisonPlan, MeasuresFewerMechanismsLonger) {
  const Plan few = PlanOf({.mechanisms = "epoll-exclusive"}, 1).value();
  EXPECT_EQ(few.duration_ns, 2 * kSecond);
}

TEST(ComparisonPlan, IsShortWhenItIsQuick) {
  const Plan plan = PlanOf({.quick = true}, 1).value();
  EXPECT_EQ(plan.repetitions, 3u);
  EXPECT_LT(plan.duration_ns, kSecond);
  EXPECT_EQ(PlanOf({.repetitions = 5, .quick = true}, 1).value().repetitions, 5u);
}

TEST(ComparisonPlan, KeepsToWhatIsAskedFor) {
  const Plan plan = PlanOf({.workloads = "slow-worker",
                            .mechanisms = "epoll-exclusive",
                            .transport = "unix",
                            .workers = 2,
                            .repetitions = 11,
                            .seconds = 0.7,
                            .rate = 123,
                            .pin = true},
                           42)
                        .value();
  EXPECT_EQ(plan.transport, Transport::kUnix);
  EXPECT_TRUE(plan.pin);
  EXPECT_EQ(plan.workers, 2u);
  EXPECT_EQ(plan.repetitions, 11u);
  EXPECT_EQ(plan.duration_ns, 700 * kMillisecond);
  EXPECT_EQ(plan.seed, 42u);
  EXPECT_TRUE(Contains(plan.workloads[0]->description(), "123"));
}

TEST(ComparisonHeader, NamesTheWindowsThatAreLonger) {
  CompareOptions options{.workloads = "light,frozen-worker,emfile",
                         .mechanisms = "epoll-exclusive",
                         .repetitions = 5,
                         .seconds = 1};
  EXPECT_EQ(HeaderOf(PlanOf(options, 42).value()),
            "1 mechanisms, 3 workloads, 5 repetitions of 1.0 s, seed 42: about 0:41.\n"
            "Longer windows, because they need them: frozen-worker 2.0 s, emfile 4.0 s.\n");
  options.seconds = 4;
  EXPECT_FALSE(Contains(HeaderOf(PlanOf(options, 42).value()), "Longer"));
}

TEST(ComparisonPlan, TellsTheWorkloadsWhoseClientsStayWhatIsAskedFor) {
  CompareOptions options{.workloads = "stay", .mechanisms = "epoll-exclusive"};
  options.hogs = 2;
  options.service = "spin";
  options.stay = {.connections = 8, .opening_us = 0, .service_us = 200, .think_us = 4000};
  const Plan plan = PlanOf(options, 1).value();
  EXPECT_EQ(plan.hogs, 2u);
  EXPECT_EQ(plan.workloads[0]->Work(1, 1), 200u);
  const Setting setting{.warm_up_ns = 0, .window_ns = kSecond, .workers = 4};
  EXPECT_EQ(std::get<StayingClients>(plan.workloads[0]->Load(setting, 1)).clients, 8u);
}

TEST(ComparisonPlan, RefusesClientsThatCouldNotStay) {
  const auto message = [](const CompareOptions& options) {
    return std::string(PlanOf(options, 1).status().message());
  };
  EXPECT_TRUE(Contains(message({.stay = {.connections = 0}}), "--connections must be from 1 to"));
  EXPECT_TRUE(Contains(message({.stay = {.connections = 1'000'000}}), "not 1000000"));
  EXPECT_TRUE(
      Contains(message({.stay = {.opening_us = 60'000'001}}), "--opening-us must be at most"));
  EXPECT_TRUE(
      Contains(message({.stay = {.service_us = 60'000'001}}), "--service-us must be at most"));
  EXPECT_TRUE(Contains(message({.stay = {.think_us = 60'000'001}}), "--think-us must be at most"));
  EXPECT_TRUE(
      Contains(message({.stay = {.think_us = 0, .open_loop = true}}), "needs a --think-us"));
  EXPECT_TRUE(Contains(message({.service = "work"}), "sleep or spin, not \"work\""));
  EXPECT_TRUE(Contains(message({.hogs = 257}), "--hogs must be at most 256"));
}

TEST(ComparisonPlan, RefusesARateThatNobodyCouldStart) {
  for (const double rate : {0.0, -1.0, 1'000'001.0, 1e300, HUGE_VAL, std::nan("")}) {
    const absl::Status status =
        PlanOf({.workloads = "paced", .mechanisms = "epoll-exclusive", .rate = rate}, 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << rate;
    EXPECT_TRUE(Contains(std::string(status.message()), "at most 1000000")) << status;
  }
}

TEST(ComparisonPlan, RefusesARateThatStartsNothingInAWindow) {
  CompareOptions options{.workloads = "light,paced", .seconds = 0.5, .rate = 1.9};
  EXPECT_TRUE(Contains(std::string(PlanOf(options, 1).status().message()), "paced would start"));
  options.rate = 2;
  EXPECT_TRUE(PlanOf(options, 1).ok());
  // Its window is longer.
  options.workloads = "frozen-worker";
  options.rate = 0.5;
  EXPECT_TRUE(PlanOf(options, 1).ok());
  // Of no matter to those that do not look at it.
  options.workloads = "light,bursts";
  EXPECT_TRUE(PlanOf(options, 1).ok());
}

TEST(ComparisonPlan, SaysWhatMayHaveBeenMeant) {
  EXPECT_TRUE(Contains(std::string(PlanOf({.workloads = "satruated"}, 1).status().message()),
                       "did you mean saturated?"));
  EXPECT_TRUE(Contains(std::string(PlanOf({.mechanisms = "epoll-exclusiv"}, 1).status().message()),
                       "did you mean epoll-exclusive?"));
}

TEST(ComparisonList, HasALineForEverythingAndSaysWhatCannotRunHere) {
  class Unable : public Mechanism {
   public:
    std::string name() const override { return "unable"; }
    std::string summary() const override { return "does nothing"; }
    std::string WhyNot(Transport) const override { return "no privilege"; }
    absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions&) const override {
      return absl::UnimplementedError("unable was started");
    }
  };
  Plan plan = PlanOf({.workloads = "all"}, 1).value();
  plan.mechanisms.push_back(std::make_unique<Unable>());
  const std::string list = ListOf(plan);
  for (const auto& mechanism : plan.mechanisms) {
    EXPECT_TRUE(Contains(list, mechanism->name())) << list;
    EXPECT_TRUE(Contains(list, mechanism->summary())) << list;
  }
  for (const auto& workload : plan.workloads) EXPECT_TRUE(Contains(list, workload->name())) << list;
  EXPECT_TRUE(Contains(list, "cannot run here: no privilege")) << list;
}

}  // namespace
}  // namespace ringmaster::bench
