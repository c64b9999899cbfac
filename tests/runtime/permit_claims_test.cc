// What a worker does with permits that it has (runtime/permit_claims.h), on real sockets. Method:
// the test is the master. It issues permits, and no desk is open, so nothing changes meanwhile.

#include "runtime/permit_claims.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "core/inbox.h"
#include "ring/process.h"
#include "runtime/aimed_source.h"
#include "runtime/shared.h"
#include "support/server.h"

namespace ringmaster::internal {
namespace {

using ringmaster::testing::Listener;

constexpr uint32_t kSources = 3;

class PermitClaimsTest : public ::testing::Test {
 protected:
  // `capacity`: of the balancer; 0: no limit.
  void Begin(uint32_t capacity = 0) {
    ASSERT_TRUE(ring::KnowThisProcess().ok());
    balancer_ = BalancerShared::Create(1, capacity).value();
    worker_ = PortShared::Create(balancer_, core::Inbox::WordsFor(1)).value();
    channel().permits = std::make_unique<core::WorkerPermits>();
    for (uint32_t i = 0; i < kSources; ++i) {
      SourceShared& source = master().source(i);
      source.aimed = std::make_unique<AimedSource>(&master());
      ASSERT_TRUE(source.aimed->SetListener(listeners_[i].fd(), 0, balancer_->id()));
      channel().tokens[i] = i;
    }
  }
  ~PermitClaimsTest() override {
    for (const int client : clients_) close(client);
    if (worker_ != nullptr) worker_->Unref();
  }

  MasterShared& master() { return balancer_->master(0); }
  Channel& channel() { return *worker_->channels[0]; }
  core::Permits& permits(uint32_t source) { return channel().permits->of_source[source]; }
  void Issue(uint32_t source, int count = 1) {
    for (int i = 0; i < count; ++i) permits(source).Issue();
    channel().permits->pending.Set(source);
  }
  void Connect(uint32_t source, int count = 1) {
    for (int i = 0; i < count; ++i) clients_.push_back(listeners_[source].Connect());
  }
  // Which sources it accepts from.
  std::vector<uint64_t> Accept(size_t connections_max = SIZE_MAX) {
    std::vector<uint64_t> from;
    more_ = AcceptByPermits(
        *worker_, connections_max, [] {},
        [&](AcceptedByPermit accepted) {
          from.push_back(accepted.token);
          close(accepted.fd);
          if (on_serve_) on_serve_();
        });
    return from;
  }
  // Whether the master was knocked at. It waits for a place.
  bool Knocked() {
    pollfd knock{.fd = master().event_fd(), .events = POLLIN, .revents = 0};
    return poll(&knock, 1, 0) == 1;
  }

  const std::array<Listener, kSources> listeners_{Listener::Tcp(), Listener::Tcp(),
                                                  Listener::Tcp()};
  std::shared_ptr<BalancerShared> balancer_;
  PortShared* worker_ = nullptr;
  std::vector<int> clients_;
  std::function<void()> on_serve_;
  bool more_ = false;
};

TEST_F(PermitClaimsTest, APermitThatBringsSomethingKeepsItsPlaces) {
  Begin(/*capacity=*/1);
  master().source(0).gate.Limit(1);
  master().source(0).traits = kLimited;
  master().hunger().Set();
  Issue(0);
  Connect(0);
  EXPECT_EQ(Accept(), (std::vector<uint64_t>{0}));
  EXPECT_FALSE(Knocked());
  EXPECT_EQ(worker_->state.open, 1U);
  EXPECT_EQ(balancer_->gate().used(), 1U);
  EXPECT_EQ(master().source(0).gate.used(), 1U);
}

// A master that has looked for a place meanwhile is told that there is one again.
TEST_F(PermitClaimsTest, AKnockFollowsWhereNothingWaits) {
  Begin(/*capacity=*/1);
  master().hunger().Set();
  Issue(0);
  EXPECT_TRUE(Accept().empty());
  EXPECT_TRUE(Knocked());
  EXPECT_EQ(worker_->state.open, 0U);
  EXPECT_EQ(balancer_->gate().used(), 0U);
}

TEST_F(PermitClaimsTest, AKnockFollowsWhereTheSourceIsFull) {
  Begin();
  master().source(0).gate.Limit(1);
  master().source(0).traits = kLimited;
  ASSERT_TRUE(master().source(0).gate.Reserve());
  master().hunger().Set();
  Issue(0);
  Connect(0);
  EXPECT_TRUE(Accept().empty());
  EXPECT_TRUE(Knocked());
  EXPECT_EQ(worker_->state.open, 0U);
  EXPECT_EQ(master().source(0).gate.used(), 1U);
}

TEST_F(PermitClaimsTest, AKnockFollowsWhereTheBalancerIsFull) {
  Begin(/*capacity=*/1);
  master().source(0).gate.Limit(2);
  master().source(0).traits = kLimited;
  ASSERT_TRUE(balancer_->gate().Reserve());
  master().hunger().Set();
  Issue(0);
  Connect(0);
  EXPECT_TRUE(Accept().empty());
  EXPECT_TRUE(Knocked());
  EXPECT_EQ(worker_->state.open, 0U);
  EXPECT_EQ(master().source(0).gate.used(), 0U);
}

// Whoever takes one connection at a time comes to all sources, although the first always has more.
TEST_F(PermitClaimsTest, NoSourceIsAlwaysServedLast) {
  Begin();
  for (uint32_t i = 0; i < kSources; ++i) {
    Issue(i, 2);
    Connect(i, 2);
  }
  std::vector<uint64_t> from;
  for (uint32_t i = 0; i < 2 * kSources; ++i) {
    for (const uint64_t source : Accept(1)) from.push_back(source);
    EXPECT_EQ(more_, i + 1 < 2 * kSources);
  }
  EXPECT_EQ(from, (std::vector<uint64_t>{0, 1, 2, 0, 1, 2}));
}

// The permit of the first source comes when the worker has passed it, just before it says that it
// does not wait. It claims nothing anywhere, and does not keep that permit.
TEST_F(PermitClaimsTest, WhatComesWhileAllIsClaimedInVainGoesToOneThatWaits) {
  Begin();
  PortShared* const other = PortShared::Create(balancer_, core::Inbox::WordsFor(1)).value();
  Channel& theirs = *other->channels[0];
  theirs.permits = std::make_unique<core::WorkerPermits>();
  other->state.SayBusy();
  worker_->state.SayWaiting();
  const ring::OwnDescriptor sights[] = {ring::OwnDescriptor(epoll_create1(EPOLL_CLOEXEC)),
                                        ring::OwnDescriptor(epoll_create1(EPOLL_CLOEXEC))};
  const std::unique_ptr<Policy> policy = RoundRobin();
  policy->Prepare(2);
  const CpuTopology topology;
  AimedSource& aimed = *master().source(0).aimed;
  const auto open_desk = [&] {
    aimed.desk.Reserve(2);
    for (uint32_t i = 0; i < 2; ++i) {
      PortShared& at = i == 0 ? *worker_ : *other;
      aimed.desk.seats().push_back({.worker = i,
                                    .state = &at.state,
                                    .inbox = &at.channels[0]->inbox,
                                    .permits = at.channels[0]->permits.get(),
                                    .sight = sights[i].get(),
                                    .capacity = UINT32_MAX});
    }
    aimed.desk.Open({.policy = policy.get(),
                     .sights = &aimed.sights,
                     .hungry = &master().hungry_desks(),
                     .topology = &topology});
  };
  Issue(1);
  size_t connections_max = SIZE_MAX;
  AcceptByPermits(
      *worker_, connections_max,
      [&] {
        open_desk();
        EXPECT_EQ(permits(0).Read().claimable, 1U);
        worker_->state.SayBusy();
        other->state.SayWaiting();
      },
      [](AcceptedByPermit) { ADD_FAILURE(); });
  EXPECT_EQ(permits(0).Read().claimable, 0U);
  EXPECT_EQ(theirs.permits->of_source[0].Read().claimable, 1U);
  aimed.desk.Close();
  other->Unref();
}

// Whatever comes out of the callback, the worker finds the permits that are left.
TEST_F(PermitClaimsTest, ACallbackThatThrowsLosesNoPermit) {
  Begin();
  for (uint32_t i = 0; i < kSources; ++i) {
    Issue(i, 2);
    Connect(i, 2);
  }
  on_serve_ = [] { throw 17; };
  EXPECT_THROW(Accept(), int);
  EXPECT_TRUE(HasPermits(*worker_));
  on_serve_ = nullptr;
  EXPECT_EQ(Accept().size(), 2 * kSources - 1);
  EXPECT_FALSE(HasPermits(*worker_));
}

// The number of the source may be that of another listener by then.
TEST_F(PermitClaimsTest, TheListenerIsThatOfTheSourceWhateverItsNumberIs) {
  Begin();
  Issue(0, 2);
  Connect(0);
  const int number = listeners_[0].fd();
  const int kept = dup(number);
  const Listener other = Listener::Tcp();
  ASSERT_EQ(dup2(other.fd(), number), number);
  const int stranger = other.Connect();
  EXPECT_EQ(Accept(), (std::vector<uint64_t>{0}));
  Issue(0);
  EXPECT_TRUE(Accept().empty()) << "it has accepted a stranger";
  ASSERT_EQ(dup2(kept, number), number);
  close(kept);
  close(stranger);
}

TEST_F(PermitClaimsTest, ThePermitOfAThreadThatIsCancelledIsGivenUp) {
  Begin(/*capacity=*/1);
  master().hunger().Set();
  Issue(0, 2);
  std::thread([&] {
    pthread_cancel(pthread_self());
    Accept();  // accept4 is where it ends
    ADD_FAILURE() << "it goes on";
  }).join();
  EXPECT_EQ(permits(0).Read().out(), 0U);
  EXPECT_EQ(worker_->state.redeeming, 0U);
  EXPECT_EQ(worker_->state.open, 0U);
  EXPECT_TRUE(Knocked());
}

TEST_F(PermitClaimsTest, WhatIsGivenBackIsClaimedByNobody) {
  Begin();
  Issue(0, 2);
  Connect(0, 2);
  GiveBackPermits(*worker_);
  EXPECT_FALSE(HasPermits(*worker_));
  EXPECT_TRUE(Accept().empty());
}

}  // namespace
}  // namespace ringmaster::internal
