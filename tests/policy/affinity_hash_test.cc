// Affinity by hash. First comes what belongs to a peer and what does not. Then the shares of
// 100,000 addresses, and which of them move when workers come and go.

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "crew.h"
#include "ringmaster/policy.h"

namespace ringmaster::testing {
namespace {

constexpr uint32_t kAddresses = 100'000;

// Neighbours, as clients often are: 10.0.0.0, 10.0.0.1 …
Arrival FromIpv4(uint32_t number, uint16_t port = 40'000) {
  return {.peer = {.kind = Peer::Kind::kIpv4,
                   .port = port,
                   .address = {10, static_cast<uint8_t>(number >> 16),
                               static_cast<uint8_t>(number >> 8), static_cast<uint8_t>(number)}}};
}

Arrival FromIpv6(uint32_t number, size_t byte) {
  Arrival arrival{.peer = {.kind = Peer::Kind::kIpv6, .address = {0x20, 0x01, 0x0d, 0xb8}}};
  std::memcpy(&arrival.peer.address[byte], &number, sizeof(number));
  return arrival;
}

Arrival FromProcess(uint32_t pid, uint32_t uid, uint32_t gid) {
  Arrival arrival{.peer = {.kind = Peer::Kind::kUnix}};
  const uint32_t credentials[] = {pid, uid, gid};
  std::memcpy(arrival.peer.address.data(), credentials, sizeof(credentials));
  return arrival;
}

// The worker of each of kAddresses addresses, asked of a policy that is new.
Workers HomesOf(Crew& crew) {
  auto policy = Ready(AffinityHash(), crew);
  Workers homes;
  for (uint32_t number = 0; number < kAddresses; ++number) {
    homes.push_back(crew.Pick(*policy, FromIpv4(number)));
  }
  return homes;
}

template <typename MakeArrival>
void ExpectEvenShares(uint32_t workers, const MakeArrival& make) {
  Crew crew(workers);
  auto policy = Ready(AffinityHash(), crew);
  std::vector<uint32_t> counts(workers);
  for (uint32_t i = 0; i < kAddresses; ++i) ++counts[crew.Pick(*policy, make(i))];
  const double average = static_cast<double>(kAddresses) / workers;
  for (uint32_t worker = 0; worker < workers; ++worker) {
    EXPECT_NEAR(counts[worker], average, 4 * std::sqrt(average)) << "worker " << worker;
  }
}

TEST(AffinityHash, AsksForThePeerAndTheOthersDoNot) {
  EXPECT_TRUE(AffinityHash()->facts().peer);
  for (const std::string_view name : PolicyNames()) {
    EXPECT_EQ(PolicyByName(name).value()->facts().peer, name == "affinity-hash") << name;
  }
}

TEST(AffinityHash, ServesAnAddressByTheSameWorkerWhateverItsPortAndTheLoad) {
  Crew crew(8);
  auto policy = Ready(AffinityHash(), crew);
  const uint32_t home = crew.Pick(*policy, FromIpv4(77));
  for (uint16_t port = 1; port < 1000; ++port) {
    crew.facts(port % 8).open = port;
    crew.facts(port % 8).activity = Activity::kClaiming;
    ASSERT_EQ(crew.Pick(*policy, FromIpv4(77, port)), home);
  }
}

TEST(AffinityHash, KnowsTheClientsOfUnixSocketsByProcessUserAndGroup) {
  Crew crew(64);
  auto policy = Ready(AffinityHash(), crew);
  const uint32_t home = crew.Pick(*policy, FromProcess(1, 2, 3));
  EXPECT_EQ(crew.Pick(*policy, FromProcess(1, 2, 3)), home);
  EXPECT_NE(crew.Pick(*policy, FromProcess(2, 2, 3)), home);
  EXPECT_NE(crew.Pick(*policy, FromProcess(1, 3, 3)), home);
  EXPECT_NE(crew.Pick(*policy, FromProcess(1, 2, 4)), home);
}

TEST(AffinityHash, GivesEveryWorkerAnEvenShareOfAddresses) {
  ExpectEvenShares(8, [](uint32_t i) { return FromIpv4(i); });
}

TEST(AffinityHash, GivesEvenSharesWhicheverBytesOfAnAddressVary) {
  for (const size_t byte : {4, 8, 12}) {
    ExpectEvenShares(8, [&](uint32_t i) { return FromIpv6(i, byte); });
  }
  ExpectEvenShares(8, [](uint32_t i) { return FromIpv4(i << 8); });
  ExpectEvenShares(8, [](uint32_t i) { return FromProcess(i, 1000, 1000); });
}

TEST(AffinityHash, GivesEvenSharesToAnyNumberOfWorkers) {
  for (const uint32_t workers : {2u, 3u, 5u, 16u}) {
    ExpectEvenShares(workers, [](uint32_t i) { return FromIpv4(i); });
  }
}

TEST(AffinityHash, ALeavingWorkerOfEightMovesAnEighthAllItsOwnAndNobodyElse) {
  Crew crew(8);
  const Workers before = HomesOf(crew);
  for (uint32_t leaver = 0; leaver < 8; ++leaver) {
    crew.SetJoined(leaver, false);
    const Workers after = HomesOf(crew);
    crew.SetJoined(leaver, true);
    uint32_t moved = 0;
    for (uint32_t i = 0; i < kAddresses; ++i) {
      ASSERT_EQ(before[i] != after[i], before[i] == leaver) << "address " << i;
      moved += before[i] == leaver ? 1 : 0;
    }
    EXPECT_NEAR(100.0 * moved / kAddresses, 12.5, 1.0) << "worker " << leaver;
  }
}

TEST(AffinityHash, AJoiningWorkerAttractsItsShareAndMovesNobodyElse) {
  Crew crew(8);
  crew.SetJoined(3, false);
  const Workers before = HomesOf(crew);
  crew.SetJoined(3, true);
  const Workers after = HomesOf(crew);
  uint32_t moved = 0;
  for (uint32_t i = 0; i < kAddresses; ++i) {
    ASSERT_EQ(before[i] != after[i], after[i] == 3) << "address " << i;
    moved += after[i] == 3 ? 1 : 0;
  }
  EXPECT_NEAR(100.0 * moved / kAddresses, 12.5, 1.0);
}

// Those of a worker that lacks credit spread over all others, each in its own order, and come back.
TEST(AffinityHash, AWorkerWithoutCreditSendsItsOwnToTheNextOfEachAndShiftsNobodyElse) {
  Crew crew(8);
  const Workers before = HomesOf(crew);
  crew.facts(5).credit = 0;
  const Workers meanwhile = HomesOf(crew);
  std::vector<uint32_t> taken(8);
  for (uint32_t i = 0; i < kAddresses; ++i) {
    ASSERT_EQ(before[i] != meanwhile[i], before[i] == 5);
    if (before[i] == 5) ++taken[meanwhile[i]];
  }
  const double average = kAddresses / 8.0 / 7.0;
  for (uint32_t worker = 0; worker < 8; ++worker) {
    if (worker == 5) continue;
    EXPECT_NEAR(taken[worker], average, average * 0.1) << "worker " << worker;
  }
  crew.facts(5).credit = 1;
  EXPECT_EQ(HomesOf(crew), before);
}

TEST(AffinityHash, IsLeastLoadedWithRotationWhenThePeerIsUnknown) {
  Crew crew(4);
  auto policy = Ready(AffinityHash(), crew);
  EXPECT_EQ(crew.PickMany(*policy, 5), (Workers{0, 1, 2, 3, 0}));
  for (uint32_t worker = 0; worker < 4; ++worker) crew.facts(worker).open = 4;
  crew.facts(1).open = crew.facts(2).open = 3;
  EXPECT_EQ(crew.PickMany(*policy, 3), (Workers{1, 2, 1}));
}

}  // namespace
}  // namespace ringmaster::testing
