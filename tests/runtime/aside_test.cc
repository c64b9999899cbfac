// Policies that pick nobody for now, on the real ring. Method: clients bind addresses of
// 127.0.0.0/16, whose third number is their tenant; the workers keep what they claim until the test
// lets it go. Nothing is recalled, because a machine that holds a worker up would make it late.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

// Each tenant has the worker with its number, and no other one.
class ByTenant final : public Policy {
 public:
  // `nobody`: how often it picked nobody.
  explicit ByTenant(std::atomic<uint64_t>* nobody = nullptr) : nobody_(nobody) {}
  std::string name() const override { return "by-tenant"; }
  FactsNeeded facts() const override { return {.peer = true}; }
  size_t Pick(const Arrival& arrival, const View& view) override {
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      if (view.candidates[i].worker == arrival.peer.address[2]) return i;
    }
    if (nobody_ != nullptr) ++*nobody_;
    return kNobodyNow;
  }

 private:
  std::atomic<uint64_t>* const nobody_;
};

// Nobody, until it is told otherwise, which the balancer does not see.
class Reluctant final : public Policy {
 public:
  explicit Reluctant(const std::atomic<bool>* willing) : willing_(willing) {}
  std::string name() const override { return "reluctant"; }
  size_t Pick(const Arrival&, const View&) override { return willing_->load() ? 0 : kNobodyNow; }

 private:
  const std::atomic<bool>* const willing_;
};

// Whoever has nothing open.
class OneAtATime final : public Policy {
 public:
  std::string name() const override { return "one-at-a-time"; }
  size_t Pick(const Arrival&, const View& view) override {
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      if (view.candidates[i].open == 0) return i;
    }
    return kNobodyNow;
  }
};

class AsideTest : public BalancerTest {
 protected:
  ~AsideTest() override {
    for (const int client : clients_) close(client);
  }

  std::unique_ptr<Worker> AddKeeper(std::vector<Source> sources, WorkerOptions options = {}) {
    return AddWorker(
        std::move(sources),
        [this](uint32_t worker, Connection connection) {
          std::lock_guard lock(mutex_);
          kept_[worker].push_back(std::move(connection));
        },
        options);
  }
  size_t Kept(uint32_t worker) {
    std::lock_guard lock(mutex_);
    return kept_[worker].size();
  }
  // Lets go of what the worker has.
  void LetGo(uint32_t worker) {
    std::vector<Connection> leaving;
    std::lock_guard lock(mutex_);
    leaving.swap(kept_[worker]);
  }
  SourceStats StatsOf(const Source& source) {
    for (const SourceStats& stats : balancer_->Stats().sources) {
      if (stats.source == source.index()) return stats;
    }
    return {};
  }
  void ConnectAs(const Listener& listener, uint32_t tenant) {
    sockaddr_in server{};
    socklen_t size = sizeof(server);
    ASSERT_EQ(getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&server), &size), 0);
    sockaddr_in own{.sin_family = AF_INET};
    own.sin_addr.s_addr = htonl(0x7f000001 + (tenant << 8));
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    clients_.push_back(fd);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof(own)), 0) << errno;
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof(server)), 0) << errno;
  }

  std::mutex mutex_;
  std::map<uint32_t, std::vector<Connection>> kept_;
  std::vector<int> clients_;
};

struct Way {
  std::string name;
  Intake intake = Intake::kPollAccept;
  Handoff handoff = Handoff::kInbox;
};
class StrictRoutingTest : public AsideTest, public ::testing::WithParamInterface<Way> {};
INSTANTIATE_TEST_SUITE_P(
    All, StrictRoutingTest,
    ::testing::Values(Way{"PollAccept", Intake::kPollAccept, Handoff::kInbox},
                      Way{"Accept", Intake::kAccept, Handoff::kInbox},
                      Way{"PollAcceptCompletion", Intake::kPollAccept, Handoff::kCompletion},
                      Way{"AcceptCompletion", Intake::kAccept, Handoff::kCompletion}),
    [](const auto& param) { return param.param.name; });

TEST_P(StrictRoutingTest, ATenantWaitsForItsWorkerAndHoldsUpNobodyElse) {
  const Listener listener = Listener::Tcp();
  std::atomic<uint64_t> nobody{0};
  Source source = AddSource(listener, {.policy = std::make_unique<ByTenant>(&nobody),
                                       .intake = GetParam().intake,
                                       .recall = false});
  const WorkerOptions options{.handoff = GetParam().handoff, .capacity = 1};
  std::unique_ptr<Worker> workers[] = {AddKeeper({source}, options), AddKeeper({source}, options)};
  ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return Kept(0) == 1; }));
  ConnectAs(listener, 0);
  // As long as there is credit for it somewhere it is accepted, and then nobody may have it.
  ASSERT_TRUE(Eventually([&] { return StatsOf(source).set_aside == 1; }));
  // It waits without being looked at all the time. Its policy is asked after a pause that begins
  // with 5 ms and doubles, and the master wakes for that alone. Stats is a call, and wakes it too.
  constexpr uint64_t kAsks = 4;
  const uint64_t wakes = balancer_->Stats().master_wakes;
  const uint64_t asked = nobody;
  ASSERT_TRUE(Eventually([&] { return nobody > asked; }));
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(Eventually([&] { return nobody >= asked + kAsks; }));
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(5 + 10));
  EXPECT_LE(balancer_->Stats().master_wakes - wakes, 3 * kAsks);
  ConnectAs(listener, 1);
  ASSERT_TRUE(Eventually([&] { return Kept(1) == 1; }));
  SourceStats stats = StatsOf(source);
  EXPECT_EQ(stats.set_aside, 1u);
  EXPECT_EQ(stats.held, 1u);
  EXPECT_EQ(stats.times_set_aside, 1u);
  EXPECT_GT(stats.oldest_set_aside, absl::ZeroDuration());
  EXPECT_EQ(Kept(0), 1u);
  LetGo(0);
  ASSERT_TRUE(Eventually([&] { return Kept(0) == 1; }));
  stats = StatsOf(source);
  EXPECT_EQ(stats.set_aside, 0u);
  EXPECT_EQ(stats.policy_faults, 0u);
  EXPECT_EQ(stats.oldest_set_aside, absl::ZeroDuration());
  EXPECT_EQ(Kept(1), 1u);
}

TEST_P(StrictRoutingTest, ManyClientsOfManyTenantsAllReachTheirOwn) {
  constexpr uint32_t kTenants = 4;
  constexpr uint32_t kClientsEach = 25;
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = std::make_unique<ByTenant>(),
                                       .intake = GetParam().intake,
                                       .hold = 16,
                                       .recall = false});
  const WorkerOptions options{.handoff = GetParam().handoff, .capacity = 2, .window = 1};
  std::vector<std::unique_ptr<Worker>> workers;
  for (uint32_t i = 0; i < kTenants; ++i) workers.push_back(AddKeeper({source}, options));
  std::vector<size_t> served(kTenants);
  for (uint32_t i = 0; i < kClientsEach; ++i) {
    for (uint32_t tenant = 0; tenant < kTenants; ++tenant) ConnectAs(listener, tenant);
  }
  ASSERT_TRUE(Eventually([&] {
    size_t all = 0;
    for (uint32_t tenant = 0; tenant < kTenants; ++tenant) {
      std::vector<Connection> leaving;
      std::unique_lock lock(mutex_);
      leaving.swap(kept_[tenant]);
      lock.unlock();
      for (const Connection& connection : leaving) {
        sockaddr_in peer{};
        socklen_t size = sizeof(peer);
        EXPECT_EQ(getpeername(connection.fd(), reinterpret_cast<sockaddr*>(&peer), &size), 0);
        EXPECT_EQ(ntohl(peer.sin_addr.s_addr) >> 8 & 0xff, tenant);
      }
      served[tenant] += leaving.size();
      all += served[tenant];
    }
    return all == kTenants * kClientsEach;
  }));
  EXPECT_EQ(served, std::vector<size_t>(kTenants, kClientsEach));
  EXPECT_EQ(StatsOf(source).policy_faults, 0u);
}

TEST_F(AsideTest, ATicketWaitsUntilALeaseEnds) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(
      listener,
      {.policy = std::make_unique<OneAtATime>(), .intake = Intake::kReadiness, .recall = false});
  const std::unique_ptr<Worker> worker = AddKeeper({source});
  ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return Kept(0) == 1; }));
  ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return StatsOf(source).set_aside == 1; }));
  LetGo(0);
  ASSERT_TRUE(Eventually([&] { return Kept(0) == 1; }));
}

TEST_F(AsideTest, WhatThePolicyGoesByBesidesIsLookedAtAgainWithoutAnythingElseHappening) {
  for (const Host host : {Host::kThread, Host::kLoop}) {
    Create({.host = host});
    std::atomic<bool> ended{false};
    std::thread loop;
    if (host == Host::kLoop) {
      loop = std::thread([&] {
        while (!ended) {
          pollfd waits{.fd = balancer_->fd(), .events = POLLIN};
          poll(&waits, 1, 1000);
          EXPECT_TRUE(balancer_->RunOnce().ok());
        }
      });
    }
    std::atomic<bool> willing{false};
    const Listener listener = Listener::Tcp();
    Source source =
        AddSource(listener, {.policy = std::make_unique<Reluctant>(&willing), .recall = false});
    std::unique_ptr<Worker> worker = AddKeeper({source});
    ConnectAs(listener, 0);
    ASSERT_TRUE(Eventually([&] { return StatsOf(source).set_aside == 1; }));
    willing = true;
    EXPECT_TRUE(Eventually([&] { return Kept(worker->index()) == 1; }));
    LetGo(worker->index());
    worker.reset();
    ended = true;
    if (loop.joinable()) {
      source.Pause().IgnoreError();  // so that it comes round
      loop.join();
    }
    balancer_.reset();
  }
}

TEST_F(AsideTest, WhatWaitsForLongIsSaidAndSoIsThatNoMoreMayBeSetAside) {
  std::atomic<bool> willing{false};
  const Listener listener = Listener::Tcp();
  Source source = AddSource(
      listener, {.policy = std::make_unique<Reluctant>(&willing), .hold = 4, .recall = false});
  std::unique_ptr<Worker> worker = AddKeeper({source});
  ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return SawEvent(Event::Kind::kSetAside); }));
  {
    std::lock_guard lock(BalancerTest::mutex_);
    ASSERT_EQ(events_.size(), 1u);
    EXPECT_NE(events_[0].text.find("policy reluctant has picked nobody for 1 arrivals"),
              std::string::npos)
        << events_[0].text;
    events_.clear();
  }
  willing = true;
  ASSERT_TRUE(Eventually([&] { return Kept(0) == 1; }));
  willing = false;
  for (int i = 0; i < 20; ++i) ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return StatsOf(source).set_aside == 4; }));
  EXPECT_TRUE(SawEvent(Event::Kind::kSetAside));
  // The rest is in the kernel's queue.
  EXPECT_GE(StatsOf(source).backlog.value_or(0), 20u - 4 - 4);
  ASSERT_TRUE(source.SetPolicy(RoundRobin()).ok());
  EXPECT_TRUE(Eventually([&] { return Kept(0) == 21; }));
  EXPECT_EQ(StatsOf(source).set_aside, 0u);
}

TEST_F(AsideTest, WhatNobodyHasTakenByTheEndOfAShutdownIsRefusedAndCounted) {
  std::atomic<bool> willing{false};
  const Listener listener = Listener::Tcp();
  Source source =
      AddSource(listener, {.policy = std::make_unique<Reluctant>(&willing), .recall = false});
  const std::unique_ptr<Worker> worker = AddKeeper({source});
  ConnectAs(listener, 0);
  ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return StatsOf(source).set_aside == 2; }));
  const ShutdownReport report = balancer_->Shutdown(absl::Milliseconds(50));
  EXPECT_EQ(report.refused, 2u);
  EXPECT_FALSE(report.drained);
  for (const int client : clients_) {
    char byte = 0;
    EXPECT_LE(read(client, &byte, 1), 0);
  }
}

TEST_F(AsideTest, ADrainServesWhatIsSetAside) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = std::make_unique<ByTenant>(), .recall = false});
  const std::unique_ptr<Worker> worker = AddKeeper({source}, {.capacity = 1});
  const std::unique_ptr<Worker> other = AddKeeper({source});
  ConnectAs(listener, 0);
  ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return Kept(0) == 1 && StatsOf(source).set_aside == 1; }));
  ASSERT_TRUE(balancer_->BeginShutdown({.drain = absl::Seconds(20)}).ok());
  LetGo(0);
  ASSERT_TRUE(Eventually([&] { return Kept(0) == 1; }));
  LetGo(0);
  ASSERT_TRUE(Eventually([&] { return balancer_->Ended().has_value(); }));
  EXPECT_TRUE(balancer_->Ended()->drained);
  EXPECT_EQ(balancer_->Ended()->refused, 0u);
}

TEST_F(AsideTest, WhatIsSetAsideOfARemovedSourceIsServedOrRefusedWithItsLastWorker) {
  std::atomic<bool> willing{false};
  const Listener listener = Listener::Tcp();
  Source source =
      AddSource(listener, {.policy = std::make_unique<Reluctant>(&willing), .recall = false});
  std::unique_ptr<Worker> worker = AddKeeper({source});
  ConnectAs(listener, 0);
  ASSERT_TRUE(Eventually([&] { return StatsOf(source).set_aside == 1; }));
  ASSERT_TRUE(source.Remove().ok());
  EXPECT_EQ(balancer_->Stats().held, 1u);
  worker.reset();
  EXPECT_TRUE(Eventually([&] { return balancer_->Stats().refused == 1; }));
  EXPECT_EQ(balancer_->Stats().held, 0u);
}

}  // namespace
}  // namespace ringmaster
