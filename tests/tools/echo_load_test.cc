// Many checked connections through the real ringmaster-echo, for every policy, handoff and loop,
// and for both intakes with each policy. RINGMASTER_TEST_CONNECTIONS says how many for each.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <tuple>

#include "echo_server.h"
#include "ringmaster/policy.h"
#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

#ifdef RINGMASTER_TEST_SANITIZED
constexpr bool kSanitized = true;
constexpr uint32_t kConnectionsDefault = 2'000;
#else
constexpr bool kSanitized = false;
constexpr uint32_t kConnectionsDefault = 100'000;
#endif

uint32_t Connections() {
  const char* const text = std::getenv("RINGMASTER_TEST_CONNECTIONS");
  const unsigned long value = text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
  return value == 0 ? kConnectionsDefault : static_cast<uint32_t>(value);
}

// Policy, handoff and loop.
using Way = std::tuple<std::string_view, std::string, std::string>;

// Both intakes with each policy, handoff and loop, in half of the combinations each.
std::string IntakeOf(const std::string& handoff, const std::string& loop) {
  return (handoff == "completion") != (loop == "epoll") ? "accept" : "poll-accept";
}

// How evenly a run came out.
struct Spread {
  uint64_t busiest_less_idlest = 0;
  uint64_t recalled = 0;
};

// In how many runs of several a healthy machine may keep a worker from running for so long that it
// counts as stalled: a neighbour on the same host can do that at any time.
constexpr int kDisturbedRunsMax = 4;

class EchoLoad : public ::testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (const std::string reason = WhyNoIoUringHere(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

void ServeAndCheck(const Way& way, Spread& spread) {
  const uint32_t connections = Connections();
  const auto& [policy, handoff, loop] = way;
  EchoServer server({"--json", "--workers", "4", "--policy", std::string(policy), "--handoff",
                     handoff, "--loop", loop, "--intake", IntakeOf(handoff, loop)});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = connections,
                                           .parallel = 64,
                                           .payload_bytes_min = 1,
                                           .payload_bytes_max = 512,
                                           .deadline = std::chrono::seconds(120)});
  EXPECT_EQ(report.echoed, connections)
      << "reset " << report.reset << ", refused " << report.refused << ", wrong " << report.wrong
      << ", timed out " << report.timed_out << ": " << report.first_problem;

  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], connections);
  EXPECT_EQ(result["refused"], 0);
  EXPECT_EQ(result["open"], 0);
  EXPECT_EQ(result["drained"], true);
  uint64_t claimed = 0;
  uint64_t busiest = 0;
  uint64_t idlest = UINT64_MAX;
  for (const nlohmann::json& worker : result["workers"]) {
    const auto count = worker["claimed"].get<uint64_t>();
    claimed += count;
    busiest = std::max(busiest, count);
    idlest = std::min(idlest, count);
  }
  EXPECT_EQ(claimed, connections);
  const auto recalled = result["recalled"].get<uint64_t>();
  const double seconds = std::chrono::duration<double>(report.elapsed).count();
  std::printf("%.0f connections/s, busiest - idlest = %llu, recalled = %llu\n",
              report.echoed / seconds, static_cast<unsigned long long>(busiest - idlest),
              static_cast<unsigned long long>(recalled));

  spread = {.busiest_less_idlest = busiest - idlest, .recalled = recalled};
}

TEST_P(EchoLoad, EveryConnectionIsServedOnceAndEchoedExactly) {
  Spread spread;
  ASSERT_NO_FATAL_FAILURE(ServeAndCheck(GetParam(), spread));
  if (std::get<0>(GetParam()) != "round-robin") return;
  // Turns come out even where nobody is slow. A run in which a worker was kept from running for so
  // long that it counts as stalled says nothing about that, so there is another one.
  const uint64_t recalled_max = Connections() / 10'000;
  for (int i = 0; i < kDisturbedRunsMax && spread.recalled > recalled_max; ++i) {
    ASSERT_NO_FATAL_FAILURE(ServeAndCheck(GetParam(), spread));
  }
  if (kSanitized && spread.recalled > recalled_max) {
    GTEST_SKIP() << "under a sanitizer workers are slow: " << spread.recalled << " recalls";
  }
  EXPECT_LE(spread.recalled, recalled_max);
  EXPECT_LE(spread.busiest_less_idlest, 1 + spread.recalled);
}

INSTANTIATE_TEST_SUITE_P(All, EchoLoad,
                         ::testing::Combine(::testing::ValuesIn(PolicyNames().begin(),
                                                                PolicyNames().end()),
                                            ::testing::Values("inbox", "completion"),
                                            ::testing::Values("uring", "epoll")),
                         [](const auto& instance) {
                           std::string name(std::get<0>(instance.param));
                           name += "_by_" + std::get<1>(instance.param) + "_to_" +
                                   std::get<2>(instance.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace ringmaster::testing
