// What a loop says of its wait when its worker has a permit (Port::AfterWait), on the real ring.
// Method: the test itself is both workers, whose mailboxes it polls.

#include <gtest/gtest.h>
#include <poll.h>

#include <array>
#include <cstddef>
#include <utility>

#include "balancer_fixture.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "support/server.h"

namespace ringmaster {
namespace {

class WokenTest : public BalancerTest {
 protected:
  static constexpr size_t kNobody = 2;

  // Two workers that wait. The source is aimed when this returns: one has served by a permit.
  void SetUp() override {
    BalancerTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    Source source = AddSource(listener_, {.policy = RoundRobin()});
    for (Loop& loop : loops_) {
      loop.mailbox = Mailbox::Create().value();
      loop.port = balancer_->AddWorker(loop.mailbox).value();
      loop.port.BeforeWait();
      ASSERT_TRUE(source.Join(loop.port).ok());
    }
    const auto by_permit = [&] {
      const BalancerStats stats = balancer_->Stats();
      return stats.workers.at(0).by_permit + stats.workers.at(1).by_permit;
    };
    for (int i = 0; i < 1'000 && by_permit() == 0; ++i) {
      const int client = listener_.Connect();
      const size_t woken = WhoIsWoken();
      ASSERT_NE(woken, kNobody);
      loops_[woken].port.AfterWait();
      Serve(woken);
      ExpectAnswers({client});
      loops_[woken].port.BeforeWait();
    }
    ASSERT_GT(by_permit(), 0u);
  }
  void TearDown() override {
    for (Loop& loop : loops_) loop.port.Leave();
    balancer_.reset();
  }

  // The first one whose mailbox is ready.
  size_t WhoIsWoken() {
    std::array<pollfd, 2> entries;
    for (size_t i = 0; i < 2; ++i) {
      entries[i] = {.fd = loops_[i].mailbox.fd(), .events = POLLIN, .revents = 0};
    }
    if (poll(entries.data(), entries.size(), 10'000) <= 0) return kNobody;
    return entries[0].revents != 0 ? 0 : 1;
  }
  void Serve(size_t worker) {
    loops_[worker].port.Claim([&](Connection connection) {
      ServeIndex(static_cast<uint32_t>(worker), std::move(connection));
    });
  }
  // A client comes, and one of them is woken for it. Returns who.
  size_t Come() {
    client_ = listener_.Connect();
    return WhoIsWoken();
  }

  struct Loop {
    Mailbox mailbox;
    Port port;
  };
  Listener listener_ = Listener::Tcp();
  std::array<Loop, 2> loops_;
  int client_ = -1;
};

TEST_F(WokenTest, WhoeverWasWokenByItsPortIsToClaim) {
  for (const bool by_port : {true, false}) {
    const size_t worker = Come();
    ASSERT_NE(worker, kNobody);
    EXPECT_TRUE(loops_[worker].port.AfterWait(by_port));
    Serve(worker);
    ExpectAnswers({client_});
    loops_[worker].port.BeforeWait();
  }
}

// One that was woken by something else, while nothing waits for it.
TEST_F(WokenTest, WhoeverWasWokenByOthersNeedNotClaim) {
  const size_t worker = Come();
  ASSERT_NE(worker, kNobody);
  const size_t other = 1 - worker;
  EXPECT_FALSE(loops_[other].port.AfterWait());
  loops_[other].port.BeforeWait();
  EXPECT_TRUE(loops_[worker].port.AfterWait());
  Serve(worker);
  ExpectAnswers({client_});
  // The next permit stands at the other one, which is woken by something else: nothing waits yet.
  EXPECT_FALSE(loops_[other].port.AfterWait());
  loops_[worker].port.BeforeWait();
  EXPECT_EQ(Come(), worker) << "the permit has gone to the one that waits";
  EXPECT_TRUE(loops_[worker].port.AfterWait(/*by_port=*/true));
  Serve(worker);
  ExpectAnswers({client_});
}

}  // namespace
}  // namespace ringmaster
