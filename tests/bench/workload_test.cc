// The workloads by themselves: what the clients would do, and what would happen to the workers.
// What is made of what was counted is tested with counts that are made up.

#include "bench/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ringmaster::bench {
namespace {

constexpr Setting kSetting{
    .warm_up_ns = 250 * kMillisecond, .window_ns = 4 * kSecond, .workers = 4};

OpenLoop OpenLoadOf(const Workload& workload, uint64_t seed = 1) {
  return std::get<OpenLoop>(workload.Load(kSetting, seed));
}

ClosedLoop ClosedLoadOf(const Workload& workload) {
  return std::get<ClosedLoop>(workload.Load(kSetting, 1));
}

RunResult Evaluated(const Workload& workload, std::vector<Answer> answers,
                    std::vector<uint64_t> open_max = {}) {
  LoadResult load;
  load.answers = std::move(answers);
  RunResult run;
  workload.Evaluate({.setting = kSetting, .load = load, .open_max = std::move(open_max)}, run);
  return run;
}

TEST(MakeWorkload, MakesEveryOneByItsName) {
  for (const std::string& name : WorkloadNames()) {
    const auto workload = MakeWorkload(name).value();
    EXPECT_EQ(workload->name(), name);
    EXPECT_FALSE(workload->title().empty());
    EXPECT_FALSE(workload->description().empty());
    EXPECT_EQ(workload->Workers(3).size(), 3u);
    const Load load = workload->Load(kSetting, 1);
    const auto* const staying = std::get_if<StayingClients>(&load);
    EXPECT_EQ(workload->open_loop(),
              staying != nullptr ? staying->open_loop : std::holds_alternative<OpenLoop>(load));
  }
  const absl::Status status = MakeWorkload("nonsense").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("slow-worker-closed"), std::string::npos) << status;
}

TEST(MakeWorkload, FollowsTheSameScheduleForTheSameSeed) {
  for (const std::string& name : WorkloadNames()) {
    const auto workload = MakeWorkload(name).value();
    if (!workload->open_loop()) continue;
    const OpenLoop load = OpenLoadOf(*workload);
    EXPECT_EQ(load.starts_ns, OpenLoadOf(*workload).starts_ns) << name;
    EXPECT_FALSE(load.starts_ns.empty()) << name;
    EXPECT_TRUE(std::is_sorted(load.starts_ns.begin(), load.starts_ns.end())) << name;
    EXPECT_LT(load.starts_ns.back(), kSetting.TotalNs()) << name;
  }
}

TEST(MakeWorkload, LetsNothingHappenOutsideTheWindowOrToAWorkerThatIsNotThere) {
  for (const std::string& name : WorkloadNames()) {
    const auto workload = MakeWorkload(name).value();
    int64_t before_ns = 0;
    for (const Incident& incident : workload->Incidents(workload->WindowNsMin())) {
      EXPECT_GE(incident.at_ns, before_ns) << name;
      EXPECT_LE(incident.at_ns + incident.freeze_ns, workload->WindowNsMin()) << name;
      EXPECT_EQ(incident.worker, 0u) << name;
      before_ns = incident.at_ns;
    }
  }
}

TEST(MakeWorkload, TakesTheRateOfAnOpenLoop) {
  for (const char* name : {"slow-worker", "frozen-worker", "paced", "skewed", "close-one"}) {
    const auto workload = MakeWorkload(name, {.rate = 500}).value();
    const auto load = std::get<OpenLoop>(
        workload->Load({.warm_up_ns = 0, .window_ns = 10 * kSecond, .workers = 2}, 1));
    EXPECT_NEAR(static_cast<double>(load.starts_ns.size()), 5000, 500) << name;
    EXPECT_NE(workload->description().find("500 connections"), std::string::npos) << name;
  }
}

TEST(Saturated, Has64ClientsThatDoNotPause) {
  const ClosedLoop load = ClosedLoadOf(*MakeWorkload("saturated").value());
  EXPECT_EQ(load.clients, 64u);
  EXPECT_EQ(load.think_ns, 0);
  EXPECT_EQ(load.hold_ns, 0);
}

TEST(Light, HasFourClientsThatThinkForAMillisecond) {
  const ClosedLoop load = ClosedLoadOf(*MakeWorkload("light").value());
  EXPECT_EQ(load.clients, 4u);
  EXPECT_EQ(load.think_ns, kMillisecond);
}

TEST(LightOnce, HasTheSameClientsAndWorkersThatHangUp) {
  const auto workload = MakeWorkload("light-once").value();
  const ClosedLoop load = ClosedLoadOf(*workload);
  EXPECT_EQ(load.clients, 4u);
  EXPECT_EQ(load.think_ns, kMillisecond);
  for (const WorkerTraits& worker : workload->Workers(3)) EXPECT_TRUE(worker.hangs_up);
  for (const WorkerTraits& worker : MakeWorkload("light").value()->Workers(3)) {
    EXPECT_FALSE(worker.hangs_up);
  }
}

TEST(SlowWorker, HasOneWorkerThatSleepsWithEveryConnection) {
  for (const char* name : {"slow-worker", "slow-worker-closed"}) {
    const std::vector<WorkerTraits> workers = MakeWorkload(name).value()->Workers(3);
    EXPECT_EQ(workers[0].delay_ns, 20 * kMillisecond);
    EXPECT_EQ(workers[1].delay_ns, 0);
    EXPECT_EQ(workers[2].delay_ns, 0);
  }
  EXPECT_EQ(ClosedLoadOf(*MakeWorkload("slow-worker-closed").value()).clients, 16u);
}

StayingClients StayingLoadOf(const Workload& workload) {
  return std::get<StayingClients>(workload.Load(kSetting, 5));
}

TEST(Stay, Has64ClientsWhoseRequestsWaitForAMillisecond) {
  for (const char* name : {"stay", "stay-unequal", "mixed"}) {
    const auto workload = MakeWorkload(name).value();
    EXPECT_EQ(workload->question(), Question::kStaying);
    EXPECT_TRUE(workload->holds_connections());
    const StayingClients load = StayingLoadOf(*workload);
    EXPECT_EQ(load.clients, 64u);
    EXPECT_EQ(load.opening_ns, 3 * kMillisecond);
    EXPECT_EQ(load.think_ns, 20 * kMillisecond);
    EXPECT_EQ(load.seed, 5u);
    EXPECT_FALSE(load.open_loop);
    // All have come, and have asked, when the window begins.
    EXPECT_GE(workload->WarmUpNsMin(), 64 * 3 * kMillisecond + 5 * load.think_ns);
    for (const WorkerTraits& worker : workload->Workers(3)) {
      EXPECT_EQ(worker.request_ns, kMillisecond);
    }
    EXPECT_EQ(workload->Work(1, 1), 0u);
  }
  EXPECT_FALSE(StayingLoadOf(*MakeWorkload("stay").value()).unequal);
  EXPECT_TRUE(StayingLoadOf(*MakeWorkload("stay-unequal").value()).unequal);
  EXPECT_GT(StayingLoadOf(*MakeWorkload("stay-unequal").value()).stay_ns, 0);
}

TEST(Stay, TakesWhatIsAskedFor) {
  const auto workload = MakeWorkload("stay", {.stay = {.connections = 10,
                                                       .opening_us = 0,
                                                       .service = Service::kSpin,
                                                       .service_us = 300,
                                                       .think_us = 5000,
                                                       .open_loop = true}})
                            .value();
  const StayingClients load = StayingLoadOf(*workload);
  EXPECT_EQ(load.clients, 10u);
  EXPECT_EQ(load.opening_ns, 0);
  EXPECT_EQ(load.think_ns, 5 * kMillisecond);
  EXPECT_TRUE(load.open_loop);
  EXPECT_TRUE(workload->open_loop());
  EXPECT_EQ(workload->Work(1, 1), 300u);
  for (const WorkerTraits& worker : workload->Workers(2)) EXPECT_EQ(worker.request_ns, 0);
  EXPECT_NE(workload->description().find("all at once"), std::string::npos);
  EXPECT_NE(workload->description().find("0.3 ms of computing"), std::string::npos);
}

TEST(Stay, SharesAreThoseOfTheConnectionsThatThereAreAtTheEnd) {
  const auto workload = MakeWorkload("stay").value();
  LoadResult load;
  load.staying = true;
  load.samples.resize(2);
  load.samples[0].at_ns = -kSecond;
  load.samples[0].connections = {8, 0, 0, 0};
  load.samples[1].at_ns = kSecond / 2;
  load.samples[1].connections = {4, 2, 1, 1};
  RunResult run;
  run.shares = {1};  // of the few that came within the window
  workload->Evaluate({.setting = kSetting, .load = load, .open_max = {}}, run);
  EXPECT_EQ(run.shares, (std::vector<double>{0.5, 0.25, 0.125, 0.125}));
  EXPECT_DOUBLE_EQ(*run.figures.max_over_mean, 2);
  ASSERT_EQ(run.over_time.size(), 2u);
  EXPECT_DOUBLE_EQ(run.over_time[0].seconds, -1);
  EXPECT_EQ(run.over_time[1].by_worker, (std::vector<uint32_t>{4, 2, 1, 1}));
}

TEST(Mixed, Has200NewcomersPerSecondUnlessToldOtherwise) {
  const StayingClients load = StayingLoadOf(*MakeWorkload("mixed").value());
  ASSERT_TRUE(load.newcomers.has_value());
  EXPECT_NEAR(static_cast<double>(load.newcomers->starts_ns.size()),
              200 * static_cast<double>(kSetting.TotalNs()) / kSecond, 120);
  const auto rare = MakeWorkload("mixed", {.rate = 10}).value();
  EXPECT_LT(StayingLoadOf(*rare).newcomers->starts_ns.size(), 80u);
  EXPECT_EQ(rare->rate(), 10);
}

TEST(FrozenWorker, FreezesOneWorkerForASecondWithinTheWindow) {
  const auto workload = MakeWorkload("frozen-worker").value();
  const std::vector<Incident> incidents = workload->Incidents(workload->WindowNsMin());
  ASSERT_EQ(incidents.size(), 1u);
  EXPECT_EQ(incidents[0].freeze_ns, kSecond);
  EXPECT_FALSE(incidents[0].leaves);
}

TEST(CloseOne, LetsAWorkerLeaveWhileItIsFrozen) {
  const auto workload = MakeWorkload("close-one").value();
  const std::vector<Incident> incidents = workload->Incidents(workload->WindowNsMin());
  ASSERT_EQ(incidents.size(), 2u);
  EXPECT_TRUE(incidents[1].leaves);
  EXPECT_LT(incidents[1].at_ns, incidents[0].at_ns + incidents[0].freeze_ns);
}

TEST(Bursts, BeginAtOnceAndPauseInBetween) {
  std::map<int64_t, size_t> bursts;
  for (const int64_t start_ns : OpenLoadOf(*MakeWorkload("bursts").value()).starts_ns) {
    ++bursts[start_ns];
  }
  EXPECT_EQ(bursts.size(), 85u);
  int64_t expected_ns = 0;
  for (const auto& [start_ns, size] : bursts) {
    EXPECT_EQ(start_ns, expected_ns);
    EXPECT_EQ(size, 100u);
    expected_ns += 50 * kMillisecond;
  }
}

TEST(Skewed, DrawsWorkWithALongTailFromTheNumber) {
  const auto workload = MakeWorkload("skewed").value();
  constexpr int kConnections = 100'000;
  double sum = 0;
  int long_ones = 0;
  for (uint64_t number = 0; number < kConnections; ++number) {
    const uint32_t work = workload->Work(number, 1);
    EXPECT_EQ(work, workload->Work(number, 1));
    EXPECT_GE(work, 20u);
    EXPECT_LE(work, 20'000u);
    sum += work;
    if (work > 900) ++long_ones;
  }
  // The standard deviation of the distribution is some 420, that of the mean 1.3.
  EXPECT_NEAR(sum / kConnections, 90, 7);
  EXPECT_NEAR(static_cast<double>(long_ones) / kConnections, 0.01, 0.002);
  EXPECT_NE(workload->Work(1, 1), workload->Work(1, 2));
}

TEST(Skewed, IsTheOnlyOneThatAsksForWork) {
  for (const std::string& name : WorkloadNames()) {
    if (name == "skewed") continue;
    EXPECT_EQ(MakeWorkload(name).value()->Work(7, 1), 0u) << name;
  }
}

TEST(FewLong, OpensAllConnectionsOfATrialBeforeTheFirstIsClosed) {
  for (const uint32_t count : {2u, 3u, 17u}) {
    const OpenLoop load = OpenLoadOf(*MakeWorkload("few-long-" + std::to_string(count)).value());
    ASSERT_EQ(load.starts_ns.size() % count, 0u);
    int64_t ended_ns = -1;
    for (size_t first = 0; first < load.starts_ns.size(); first += count) {
      EXPECT_GT(load.starts_ns[first], ended_ns) << "trials are apart";
      const int64_t last_ns = load.starts_ns[first + count - 1];
      EXPECT_LT(last_ns, load.starts_ns[first] + load.hold_ns);
      ended_ns = last_ns + load.hold_ns;
      // The window holds whole trials only.
      EXPECT_EQ(load.starts_ns[first] >= kSetting.warm_up_ns, last_ns >= kSetting.warm_up_ns);
    }
  }
}

TEST(FewLong, CallsAWorkerIdleIfAnotherHasTwo) {
  const auto workload = MakeWorkload("few-long-2").value();
  // Trials 5 and 6: two on worker 1, then one each on workers 0 and 3.
  EXPECT_EQ(Evaluated(*workload, {{.number = 10, .worker = 1},
                                  {.number = 11, .worker = 1},
                                  {.number = 12, .worker = 0},
                                  {.number = 13, .worker = 3}})
                .figures.idle_worker_share,
            0.5);
  EXPECT_FALSE(Evaluated(*workload, {}).figures.idle_worker_share.has_value());
  // 17 on three workers of four.
  std::vector<Answer> answers;
  for (uint64_t i = 0; i < 17; ++i) {
    answers.push_back({.number = i, .worker = static_cast<int32_t>(i % 3)});
  }
  const auto many = MakeWorkload("few-long-17").value();
  EXPECT_EQ(Evaluated(*many, answers).figures.idle_worker_share, 1);
  answers[0].worker = 3;
  EXPECT_EQ(Evaluated(*many, answers).figures.idle_worker_share, 0);
}

TEST(Order, TellsTheSequenceOfWorkers) {
  const auto workload = MakeWorkload("order").value();
  EXPECT_EQ(ClosedLoadOf(*workload).clients, 1u);
  const RunResult run = Evaluated(
      *workload, {{.number = 8, .worker = 2}, {.number = 9, .worker = 0}, {.number = 10}});
  EXPECT_EQ(run.order, (std::vector<uint32_t>{2, 0}));
}

TEST(Emfile, OffersMoreThanTheServerHasDescriptorsForWhenTheWindowBegins) {
  const auto workload = MakeWorkload("emfile").value();
  const OpenLoop load = OpenLoadOf(*workload);
  EXPECT_GT(load.starts_ns.size(), workload->Descriptors().value());
  EXPECT_GE(load.starts_ns.front(), kSetting.warm_up_ns);
  EXPECT_LT(load.starts_ns.back() + load.hold_ns, kSetting.warm_up_ns + workload->WindowNsMin());
}

// The first client is answered after 1 ms and stays for three seconds.
TEST(Emfile, MeasuresFromTheMomentAtWhichADescriptorIsFree) {
  const auto workload = MakeWorkload("emfile").value();
  constexpr int64_t kFreeNs = 3001 * kMillisecond;
  const std::vector<Answer> answers = {{.number = 0, .latency_ns = kMillisecond},
                                       {.number = 0, .latency_ns = kFreeNs + 9 * kMillisecond},
                                       {.number = 0, .latency_ns = kFreeNs + 4 * kMillisecond}};
  EXPECT_EQ(Evaluated(*workload, answers).figures.resume_ms, 4);
  EXPECT_FALSE(Evaluated(*workload, {answers[0]}).figures.resume_ms.has_value());
}

TEST(Flood, HasTenTimesAsManyClientsAsTheWorkersMayServe) {
  const auto workload = MakeWorkload("flood").value();
  uint32_t capacity = 0;
  for (const WorkerTraits& worker : workload->Workers(kSetting.workers)) {
    capacity += worker.capacity;
  }
  EXPECT_EQ(ClosedLoadOf(*workload).clients, 10 * capacity);
  EXPECT_GT(ClosedLoadOf(*workload).hold_ns, 0);
}

TEST(Flood, CountsWhatWasOpenBeyondTheCap) {
  const auto workload = MakeWorkload("flood").value();
  EXPECT_EQ(Evaluated(*workload, {}, {8, 8, 3, 8}).figures.over_cap, 0);
  EXPECT_EQ(Evaluated(*workload, {}, {10, 8, 3, 9}).figures.over_cap, 3);
}

}  // namespace
}  // namespace ringmaster::bench
