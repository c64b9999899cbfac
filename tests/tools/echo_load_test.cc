// Many checked connections through the real ringmaster-echo, for every policy and intake.
// RINGMASTER_TEST_CONNECTIONS says how many for each.

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
constexpr uint32_t kConnectionsDefault = 20'000;
#endif

uint32_t Connections() {
  const char* const text = std::getenv("RINGMASTER_TEST_CONNECTIONS");
  const unsigned long value = text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
  return value == 0 ? kConnectionsDefault : static_cast<uint32_t>(value);
}

using PolicyAndIntake = std::tuple<std::string_view, std::string>;

class EchoLoad : public ::testing::TestWithParam<PolicyAndIntake> {
 protected:
  void SetUp() override {
    if (const std::string reason = WhyNoIoUringHere(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_P(EchoLoad, EveryConnectionIsServedOnceAndEchoedExactly) {
  const auto& [policy, intake] = GetParam();
  const uint32_t connections = Connections();
  EchoServer server(
      {"--json", "--workers", "4", "--policy", std::string(policy), "--intake", intake});
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

  // Turns come out even as long as no worker is kept from its turn for so long that it counts as
  // stalled, which a sanitizer, unlike a healthy run, brings about.
  if (policy == "round-robin" && !kSanitized) {
    EXPECT_LE(busiest - idlest, 1 + recalled);
    EXPECT_LE(recalled, connections / 10'000);
  }
}

INSTANTIATE_TEST_SUITE_P(All, EchoLoad,
                         ::testing::Combine(::testing::ValuesIn(PolicyNames().begin(),
                                                                PolicyNames().end()),
                                            ::testing::Values("poll-accept", "accept")),
                         [](const auto& instance) {
                           std::string name(std::get<0>(instance.param));
                           name += "_by_" + std::get<1>(instance.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace ringmaster::testing
