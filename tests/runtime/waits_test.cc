// Workers that say when they wait, on the real ring. Method: the test itself is the workers, whose
// mailboxes it polls, so it decides what each of them has said when a client comes.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "support/server.h"

namespace ringmaster {
namespace {

// Whoever is idle, and else nobody.
class IdleOnly final : public Policy {
 public:
  explicit IdleOnly(std::atomic<int>* asked) : asked_(asked) {}
  std::string name() const override { return "idle-only"; }
  size_t Pick(const Arrival&, const View& view) override {
    ++*asked_;
    for (size_t i = 0; i < view.candidates.size(); ++i) {
      if (view.candidates[i].idle()) return i;
    }
    return kNobodyNow;
  }

 private:
  std::atomic<int>* const asked_;
};

class WaitsTest : public BalancerTest {
 protected:
  struct Loop {
    Mailbox mailbox;
    Port port;
  };

  // All connections are dealt: this is about the master's decisions.
  Source AddSource(const Listener& listener, SourceOptions options = {}) {
    options.permits = false;
    return BalancerTest::AddSource(listener, std::move(options));
  }
  Loop AddLoop(std::vector<Source> sources) {
    Loop loop{.mailbox = Mailbox::Create().value()};
    loop.port = balancer_->AddWorker(loop.mailbox).value();
    for (Source& source : sources) EXPECT_TRUE(source.Join(loop.port).ok());
    return loop;
  }
  // Waits until something is there for the worker, which has said so, and serves it. Returns how
  // much it was.
  static size_t WaitAndServe(Loop& loop) {
    pollfd entry{.fd = loop.mailbox.fd(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&entry, 1, 10'000), 1);
    loop.port.AfterWait();
    size_t served = 0;
    loop.port.Claim([&](Connection connection) {
      ++served;
      ServeIndex(loop.port.worker(), std::move(connection));
    });
    return served;
  }
};

TEST_F(WaitsTest, AConnectionGoesToAWorkerThatWaitsNotToOneThatIsBusy) {
  const Listener listener = Listener::Tcp();
  const Source source = AddSource(listener, {.policy = LeastLoaded()});
  Loop busy = AddLoop({source});
  Loop waits = AddLoop({source});
  busy.port.AfterWait();
  for (int i = 0; i < 20; ++i) {
    waits.port.BeforeWait();
    const int client = listener.Connect();
    EXPECT_EQ(WaitAndServe(waits), 1u);
    ExpectAnswers({client});
  }
  EXPECT_FALSE(busy.port.Claim([](Connection) { ADD_FAILURE(); }));
}

TEST_F(WaitsTest, AWorkerThatIsAboutToWaitIsAskedForWhatNobodyIdleCouldHave) {
  std::atomic<int> asked{0};
  const Listener listener = Listener::Tcp();
  const Source source = AddSource(listener, {.policy = std::make_unique<IdleOnly>(&asked)});
  Loop one = AddLoop({source});
  Loop other = AddLoop({source});
  one.port.AfterWait();
  for (int i = 0; i < 20; ++i) {
    other.port.AfterWait();
    const int before = asked;
    const int client = listener.Connect();
    ASSERT_TRUE(Eventually([&] { return asked > before; }));
    other.port.BeforeWait();
    EXPECT_EQ(WaitAndServe(other), 1u);
    ExpectAnswers({client});
  }
}

// It turned out to be busy when nobody waited: whoever waits first gets what lies with it, long
// before recall_after.
TEST_F(WaitsTest, WhatLiesWithABusyWorkerGoesToTheFirstThatWaits) {
  Create({.recall_after = absl::Seconds(60)});
  const Listener listener = Listener::Tcp();
  const Source source = AddSource(listener, {.policy = RoundRobin()});
  Loop busy = AddLoop({source});
  Loop waits = AddLoop({source});
  busy.port.AfterWait();
  for (int i = 0; i < 20; ++i) {
    waits.port.AfterWait();
    // Both are busy, and have something by turns.
    const std::vector<int> clients = {listener.Connect(), listener.Connect()};
    size_t served = 0;
    while (served < clients.size()) {
      waits.port.BeforeWait();
      served += WaitAndServe(waits);
    }
    EXPECT_EQ(served, clients.size());
    ExpectAnswers(clients);
    // It has claimed, and so it is a candidate again although it is busy.
    EXPECT_FALSE(busy.port.Claim([](Connection) { ADD_FAILURE(); }));
  }
  const BalancerStats stats = balancer_->Stats();
  // From then on the busy one gets nothing: it was relieved, and has not waited since.
  EXPECT_GE(stats.moved, 1u);
  EXPECT_FALSE(SawEvent(Event::Kind::kWorkerStalled));
}

TEST_F(WaitsTest, AWorkerThatWokeHearsWhetherItWasOfferedSomething) {
  const Listener listener = Listener::Tcp();
  const Source source = AddSource(listener);
  Loop loop = AddLoop({source});
  loop.port.BeforeWait();
  const int client = listener.Connect();
  pollfd entry{.fd = loop.mailbox.fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&entry, 1, 10'000), 1);
  EXPECT_TRUE(loop.port.AfterWait());
  loop.port.Claim([](Connection connection) { ServeIndex(0, std::move(connection)); });
  loop.port.BeforeWait();
  EXPECT_FALSE(loop.port.AfterWait());
  ExpectAnswers({client});
}

// The time of each is measured, and is a millisecond at least: who would come second waits too
// long.
TEST_F(WaitsTest, AWorkerIsToldToPassOnAsManyAsOthersWait) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = LeastLoaded()});
  Loop busy = AddLoop({source});
  Loop waits = AddLoop({source});
  Loop also_waits = AddLoop({source});
  const Loop silent = AddLoop({source});  // without hints: nobody knows
  const auto work = [&] {                 // two of them
    busy.port.AfterWait();
    EXPECT_EQ(busy.port.ToPassOn(2), 0u);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    busy.port.BeforeWait();
  };
  work();
  busy.port.AfterWait();
  EXPECT_EQ(busy.port.ToPassOn(10), 0u);  // nobody has said that it waits
  also_waits.port.AfterWait();
  EXPECT_EQ(busy.port.ToPassOn(10), 0u);  // and this is busy
  waits.port.BeforeWait();
  also_waits.port.BeforeWait();
  EXPECT_EQ(busy.port.ToPassOn(0), 0u);
  EXPECT_EQ(busy.port.ToPassOn(1), 0u);
  EXPECT_EQ(busy.port.ToPassOn(2), 1u);
  // The other one; or both, if it took so long to get here that the first is not spoken for now.
  EXPECT_GE(busy.port.ToPassOn(10), 1u);
  also_waits.port.AfterWait();
  waits.port.AfterWait();
  EXPECT_EQ(busy.port.ToPassOn(10), 0u);
}

TEST_F(WaitsTest, AWorkerWithoutHintsIsToldToPassOnNothing) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener);
  Loop silent = AddLoop({source});
  Loop waits = AddLoop({source});
  waits.port.BeforeWait();
  for (size_t ready = 3; ready > 0; --ready) {
    EXPECT_EQ(silent.port.ToPassOn(ready), 0u);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  Port none;
  EXPECT_EQ(none.ToPassOn(10), 0u);
}

// It has more connections than the others, and gets the request all the same.
TEST_F(WaitsTest, APassedOnRequestGoesToAWorkerThatWaits) {
  const Listener listener = Listener::Tcp();
  Source source = AddSource(listener, {.policy = LeastLoaded()});
  Loop busy = AddLoop({source});
  const int client = listener.Connect();
  Connection connection;
  ASSERT_TRUE(Eventually([&] {
    busy.port.Claim([&](Connection claimed) { connection = std::move(claimed); });
    return connection.fd() >= 0;
  }));
  Loop also_busy = AddLoop({source});
  Loop waits = AddLoop({source});
  std::vector<Connection> others;
  for (int i = 0; i < 3; ++i) others.push_back(waits.port.Adopt(eventfd(0, EFD_CLOEXEC)));
  busy.port.AfterWait();
  also_busy.port.AfterWait();
  waits.port.BeforeWait();
  ASSERT_TRUE(source.PassOn(std::move(connection), {.request_waits = true}).ok());
  EXPECT_EQ(WaitAndServe(waits), 1u);
  ExpectAnswers({client});
}

TEST_F(WaitsTest, HintsOfAPortThatHasLeftDoNothing) {
  const Listener listener = Listener::Tcp();
  const Source source = AddSource(listener);
  Loop loop = AddLoop({source});
  Port moved = std::move(loop.port);
  loop.port.BeforeWait();
  loop.port.AfterWait();
  moved.BeforeWait();
  moved.Leave();
  moved.BeforeWait();
  moved.AfterWait();
  EXPECT_EQ(moved.ToPassOn(10), 0u);
  Loop outlives = AddLoop({source});
  balancer_.reset();
  outlives.port.BeforeWait();
  outlives.port.AfterWait();
}

}  // namespace
}  // namespace ringmaster
