// Method: each option at its edges and one step beyond them. What is refused must be named.

#include "runtime/options.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <climits>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "ringmaster/balancer.h"

namespace ringmaster::internal {
namespace {

void Refused(const absl::Status& status, const std::string& words) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << words;
  EXPECT_NE(status.message().find(words), std::string::npos) << status;
}

TEST(Options, TakesTheDefaults) {
  EXPECT_TRUE(CheckOptions(BalancerOptions{}).ok());
  EXPECT_TRUE(CheckOptions(SourceOptions{}, 1).ok());
  EXPECT_TRUE(CheckOptions(WorkerOptions{}, Host::kThread).ok());
}

TEST(Options, BoundsTheBalancer) {
  EXPECT_TRUE(CheckOptions(BalancerOptions{.masters = 16}).ok());
  Refused(CheckOptions(BalancerOptions{.masters = 0}), "masters is 0");
  Refused(CheckOptions(BalancerOptions{.masters = 17}), "masters is 17");
  Refused(CheckOptions(BalancerOptions{.masters = UINT32_MAX}), "masters is 4294967295");
  Refused(CheckOptions(BalancerOptions{.host = Host::kLoop, .masters = 2}), "single master");
  Refused(CheckOptions(BalancerOptions{.host = static_cast<Host>(3)}), "host is 3");
  Refused(CheckOptions(BalancerOptions{.thread_name = "sixteen letters!"}), "too long");
  Refused(CheckOptions(BalancerOptions{.masters = 2, .thread_name = "fifteen letters"}),
          "too long");
  Refused(CheckOptions(BalancerOptions{.cpu = -2}), "cpu -2");
  Refused(CheckOptions(BalancerOptions{.cpu = CPU_SETSIZE}), "does not exist");
  Refused(CheckOptions(BalancerOptions{.cpu = INT_MAX}), "does not exist");
  Refused(CheckOptions(BalancerOptions{.host = Host::kRing, .cpu = 0}), "no thread to bind");
  for (const absl::Duration recall_after :
       {absl::Microseconds(99), absl::ZeroDuration(), -absl::InfiniteDuration(),
        absl::InfiniteDuration(), absl::Seconds(60) + absl::Nanoseconds(1)}) {
    Refused(CheckOptions(BalancerOptions{.recall_after = recall_after}), "recall_after is");
  }
  EXPECT_TRUE(CheckOptions(BalancerOptions{.recall_after = absl::Microseconds(100)}).ok());
  EXPECT_TRUE(CheckOptions(BalancerOptions{.recall_after = absl::Seconds(60)}).ok());
  Refused(CheckOptions(BalancerOptions{.capacity = 0}), "capacity of the balancer");
  EXPECT_TRUE(CheckOptions(BalancerOptions{.capacity = UINT32_MAX - 1}).ok());
  Refused(CheckOptions(BalancerOptions{.completion_entries = 63}), "completion_entries is 63");
  Refused(CheckOptions(BalancerOptions{.completion_entries = 65537}),
          "completion_entries is 65537");
}

TEST(Options, BoundsASource) {
  const auto check = [](SourceOptions options) { return CheckOptions(options, 2); };
  Refused(check({.master = -2}), "master is -2");
  Refused(check({.master = 2}), "has 2 masters");
  EXPECT_TRUE(check({.master = 1}).ok());
  Refused(check({.intake = static_cast<Intake>(3)}), "intake is 3");
  Refused(check({.intake = Intake::kAccept, .hold = 0}), "hold is 0");
  Refused(check({.intake = Intake::kAccept, .hold = (1 << 20) + 1}), "hold is 1048577");
  Refused(check({.intake = Intake::kAccept, .hold = UINT32_MAX}), "fs.nr_open");
  EXPECT_TRUE(check({.intake = Intake::kAccept, .hold = 1 << 20}).ok());
  EXPECT_TRUE(check({.hold = UINT32_MAX}).ok());  // of no meaning for this intake
  Refused(check({.start_workers = 0}), "start_workers is 0");
  EXPECT_TRUE(check({.start_workers = 64}).ok());
  Refused(check({.capacity = 0}), "capacity of the source");
  for (const absl::Duration age_max : {absl::ZeroDuration(), absl::Microseconds(999),
                                       absl::Seconds(-1), -absl::InfiniteDuration()}) {
    Refused(check({.age_max = age_max}), "age_max is");
  }
  EXPECT_TRUE(check({.age_max = absl::Milliseconds(1)}).ok());
  EXPECT_TRUE(check({.age_max = absl::Hours(24 * 365 * 300)}).ok());
  Refused(check({.intake = Intake::kReadiness, .age_max = absl::Seconds(1)}), "kReadiness");
}

TEST(Options, BoundsAWorker) {
  const auto check = [](WorkerOptions options) { return CheckOptions(options, Host::kLoop); };
  Refused(check({.handoff = static_cast<Handoff>(3)}), "handoff is 3");
  Refused(check({.capacity = 0}), "capacity is 0");
  EXPECT_TRUE(check({.capacity = UINT32_MAX - 1}).ok());
  for (const uint32_t window : {0u, 1025u, UINT32_MAX}) {
    Refused(check({.window = window}), "window is");
  }
  EXPECT_TRUE(check({.window = 1024}).ok());
  Refused(check({.cpu = -2}), "cpu -2");
  Refused(check({.cpu = INT_MAX}), "does not exist");
  EXPECT_TRUE(check({.on_host = true}).ok());
  Refused(check({.on_host = true, .ring_fd = 3}), "on the host");
  Refused(check({.on_host = true, .tag = 3}), "on the host");
  Refused(CheckOptions(WorkerOptions{.on_host = true}, Host::kThread), "thread of its own");
}

TEST(Options, BoundsALoan) {
  constexpr uint64_t kHighest = uint64_t{0xff} << 56;
  const auto check = [](uint64_t mask, uint64_t value) {
    return CheckLoan({.ring_fd = 3,
                      .get_sqe = [] { return nullptr; },
                      .submit = [] { return 0; },
                      .user_data_mask = mask,
                      .user_data_value = value});
  };
  EXPECT_TRUE(check(kHighest, kHighest).ok());
  EXPECT_TRUE(check(kHighest, 0).ok());
  Refused(check(0, 0), "user_data_mask");
  Refused(check(UINT64_MAX, 0), "user_data_mask");
  Refused(check(uint64_t{1} << 63, kHighest), "user_data_value");
  Refused(CheckLoan({.user_data_mask = kHighest}), "lacks get_sqe");
}

}  // namespace
}  // namespace ringmaster::internal
