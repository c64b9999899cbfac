// Many checked connections through the real ringmaster-echo, for every policy, handoff and loop,
// and for both intakes with each policy. RINGMASTER_TEST_CONNECTIONS says how many for each;
// 100,000 take five minutes.

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "echo_server.h"
#include "ringmaster/policy.h"
#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

#ifdef RINGMASTER_TEST_SANITIZED
constexpr bool kSanitized = true;
constexpr uint32_t kConnectionsDefault = 2'000;
constexpr uint32_t kStragglers = 280;
#else
constexpr bool kSanitized = false;
constexpr uint32_t kConnectionsDefault = 20'000;
constexpr uint32_t kStragglers = 1'400;
#endif

uint32_t Connections() {
  const char* const text = std::getenv("RINGMASTER_TEST_CONNECTIONS");
  const unsigned long value = text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
  return value == 0 ? kConnectionsDefault : static_cast<uint32_t>(value);
}

// Unlike the default weights, which are equal.
constexpr std::string_view kWeighted = "weighted-round-robin:4,1,1,1";

// Policy, handoff and loop.
using Way = std::tuple<std::string_view, std::string, std::string>;

// Both intakes with each policy, handoff and loop, in half of the combinations each.
std::string IntakeOf(const std::string& handoff, const std::string& loop) {
  return (handoff == "completion") != (loop == "epoll") ? "accept" : "poll-accept";
}

// How a run came out.
struct Spread {
  std::vector<uint64_t> claimed;  // by worker
  uint64_t recalled = 0;
  uint64_t stalls = 0;
};

constexpr uint32_t kWorkers = 4;

// The worker of each connection by affinity-hash, as long as every worker has credit.
std::vector<double> SharesByAddress() {
  std::vector<Candidate> candidates;
  std::vector<uint32_t> joined;
  for (uint32_t worker = 0; worker < kWorkers; ++worker) {
    candidates.push_back({.worker = worker, .credit = 1});
    joined.push_back(worker);
  }
  const CpuTopology topology;
  const auto policy = AffinityHash();
  policy->Prepare(kWorkers);
  std::vector<double> shares(kWorkers);
  for (uint32_t number = 0; number < Connections(); ++number) {
    Arrival arrival{.peer = {.kind = Peer::Kind::kIpv4}};
    const uint32_t address = htonl(EchoSourceAddress(number));
    std::memcpy(arrival.peer.address.data(), &address, sizeof(address));
    shares[policy->Pick(arrival,
                        {.candidates = candidates, .joined = joined, .topology = &topology})] += 1;
  }
  return shares;
}

// Whether workers have turns. One that is kept from running until its window is full is owed the
// turns that it misses. They are paid when it has credit again. So shares are exact when nothing is
// owed, and the last of a flood may come while something is. Behind it come stragglers, one after
// the other: they pay, and then every worker has credit at its turn.
bool GivesTurns(std::string_view policy) {
  return policy == kWeighted || policy == "round-robin" || policy == "weighted-round-robin";
}
uint32_t Stragglers(std::string_view policy) { return GivesTurns(policy) ? kStragglers : 0; }

// How many connections each worker is promised; empty when the policy promises no such thing.
std::vector<double> PromisedShares(std::string_view policy) {
  const double all = Connections() + Stragglers(policy);
  if (policy == "affinity-hash") return SharesByAddress();
  if (policy == kWeighted) return {all * 4 / 7, all / 7, all / 7, all / 7};
  if (GivesTurns(policy)) return std::vector<double>(kWorkers, all / kWorkers);
  return {};
}

// Where the shares are uneven on purpose, the worker that gets the most must have credit nearly
// always. So the client keeps fewer connections open than a worker's window.
uint32_t Parallel(std::string_view policy) {
  return policy == "affinity-hash" || policy == kWeighted ? 16 : 64;
}

// By how much a share may miss what was promised. Turns are exact to within one, because those of
// connections that were recalled are owed, too. A sticky policy owes nothing. Others got what was
// recalled, and a stall may have made the window of the busiest worker small for a while.
double MissMax(std::string_view policy, double promised, uint64_t recalled) {
  return GivesTurns(policy) ? 1 : promised / 100 + static_cast<double>(recalled);
}

// A neighbour on the same host can keep a worker from running for so long that it counts as
// stalled, at any time. On a healthy machine that may be so in as many runs of several.
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
  EchoServer server({"--json", "--workers", std::to_string(kWorkers), "--policy",
                     std::string(policy), "--handoff", handoff, "--loop", loop, "--intake",
                     IntakeOf(handoff, loop)});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = connections,
                                           .parallel = Parallel(policy),
                                           .payload_bytes_min = 1,
                                           .payload_bytes_max = 512,
                                           .deadline = std::chrono::seconds(120)});
  EXPECT_EQ(report.echoed, connections)
      << "reset " << report.reset << ", refused " << report.refused << ", wrong " << report.wrong
      << ", timed out " << report.timed_out << ": " << report.first_problem;
  const uint32_t stragglers = Stragglers(policy);
  if (stragglers > 0) {
    EXPECT_EQ(RunEchoClient({.address = server.address(),
                             .connections = stragglers,
                             .parallel = 1,
                             .deadline = std::chrono::seconds(120)})
                  .echoed,
              stragglers);
  }

  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], connections + stragglers);
  EXPECT_EQ(result["refused"], 0);
  EXPECT_EQ(result["open"], 0);
  EXPECT_EQ(result["drained"], true);
  spread = {.recalled = result["recalled"].get<uint64_t>()};
  const double seconds = std::chrono::duration<double>(report.elapsed).count();
  std::printf("%.0f connections/s, claimed", report.echoed / seconds);
  for (const nlohmann::json& worker : result["workers"]) {
    EXPECT_EQ(worker["worker"], spread.claimed.size());
    spread.claimed.push_back(worker["claimed"].get<uint64_t>());
    spread.stalls += worker["stalls"].get<uint64_t>();
    std::printf(" %llu", static_cast<unsigned long long>(spread.claimed.back()));
  }
  std::printf(", recalled %llu, stalls %llu\n", static_cast<unsigned long long>(spread.recalled),
              static_cast<unsigned long long>(spread.stalls));
  EXPECT_EQ(std::accumulate(spread.claimed.begin(), spread.claimed.end(), uint64_t{0}),
            connections + stragglers);
}

TEST_P(EchoLoad, EveryConnectionIsServedOnceAndEchoedExactly) {
  Spread spread;
  ASSERT_NO_FATAL_FAILURE(ServeAndCheck(GetParam(), spread));
  const auto& [policy, handoff, loop] = GetParam();
  const std::vector<double> promised = PromisedShares(policy);
  if (promised.empty()) return;
  // Shares come out as promised where nobody is slow. A run in which a worker was kept from running
  // for so long that it counts as stalled says nothing about that. So there is another one. What
  // was handed over cannot be recalled; there a stall alone keeps a worker from its turns.
  const uint64_t recalled_max = Connections() / 10'000;
  const bool handed_over = handoff != "inbox";
  const auto disturbed = [&] {
    return spread.recalled > recalled_max || (handed_over && spread.stalls > 0);
  };
  for (int i = 0; i < kDisturbedRunsMax && disturbed(); ++i) {
    ASSERT_NO_FATAL_FAILURE(ServeAndCheck(GetParam(), spread));
  }
  if (disturbed() && (kSanitized || handed_over)) {
    GTEST_SKIP() << "in every run some worker was too slow: " << spread.recalled << " recalls, "
                 << spread.stalls << " stalls";
  }
  EXPECT_LE(spread.recalled, recalled_max);
  ASSERT_EQ(spread.claimed.size(), promised.size());
  for (size_t worker = 0; worker < promised.size(); ++worker) {
    EXPECT_NEAR(static_cast<double>(spread.claimed[worker]), promised[worker],
                MissMax(policy, promised[worker], spread.recalled))
        << "worker " << worker;
  }
  if (policy != "round-robin") return;
  const auto [idlest, busiest] = std::minmax_element(spread.claimed.begin(), spread.claimed.end());
  EXPECT_LE(*busiest - *idlest, 1u);
}

std::vector<std::string_view> Policies() {
  std::vector<std::string_view> policies(PolicyNames().begin(), PolicyNames().end());
  policies.push_back(kWeighted);
  return policies;
}

std::string NameOfWay(const ::testing::TestParamInfo<Way>& instance) {
  std::string name(std::get<0>(instance.param));
  name += "_by_" + std::get<1>(instance.param) + "_to_" + std::get<2>(instance.param);
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, EchoLoad,
                         ::testing::Combine(::testing::ValuesIn(Policies()),
                                            ::testing::Values("inbox", "completion"),
                                            ::testing::Values("uring", "epoll")),
                         NameOfWay);
// A file table is that of a ring.
INSTANTIATE_TEST_SUITE_P(Slots, EchoLoad,
                         ::testing::Combine(::testing::Values("round-robin", "least-loaded"),
                                            ::testing::Values("direct"),
                                            ::testing::Values("uring")),
                         NameOfWay);

}  // namespace
}  // namespace ringmaster::testing
