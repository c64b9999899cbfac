// What a loop says of its wait (Port::Woken) when its worker has a permit, on the real ring.
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
  for (const Port::Woken woken : {Port::Woken::kByPort, Port::Woken::kUnknown}) {
    const size_t worker = Come();
    ASSERT_NE(worker, kNobody);
    EXPECT_TRUE(loops_[worker].port.AfterWait(woken));
    Serve(worker);
    ExpectAnswers({client_});
    loops_[worker].port.BeforeWait();
  }
}

// Without a permit, too: nothing is there for it.
TEST_F(WokenTest, WhoeverWasWokenByOthersNeedNotClaim) {
  const size_t worker = Come();
  ASSERT_NE(worker, kNobody);
  const size_t other = 1 - worker;
  EXPECT_FALSE(loops_[other].port.AfterWait(Port::Woken::kByOthers));
  loops_[other].port.BeforeWait();
  EXPECT_FALSE(loops_[worker].port.AfterWait(Port::Woken::kByOthers));
  // The permit has gone to the one that waits, who is woken.
  pollfd entry{.fd = loops_[other].mailbox.fd(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(poll(&entry, 1, 10'000), 1);
  EXPECT_TRUE(loops_[other].port.AfterWait(Port::Woken::kByPort));
  Serve(other);
  ExpectAnswers({client_});
}

}  // namespace
}  // namespace ringmaster
