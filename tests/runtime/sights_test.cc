// What the kernel does when a desk shows a source in a sight: whoever watches the sight is told
// each time that something waits, also where it has not looked since the last time.

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <vector>

#include "runtime/aimed_source.h"
#include "support/server.h"

namespace ringmaster::internal {
namespace {

using testing::Listener;

class SightsTest : public ::testing::Test {
 protected:
  SightsTest() {
    // Edge-triggered, as a multishot poll of a ring is.
    epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.fd = sight_}};
    EXPECT_EQ(epoll_ctl(watcher_, EPOLL_CTL_ADD, sight_, &event), 0);
    sights_.SetListener(listener_.fd(), /*file=*/0, listener_.fd());
  }
  ~SightsTest() override {
    for (const int client : clients_) close(client);
    close(watcher_);
    close(sight_);
  }
  void Connect() { clients_.push_back(listener_.Connect()); }
  bool Told() {
    epoll_event event;
    return epoll_wait(watcher_, &event, 1, 0) == 1;
  }

  const Listener listener_ = Listener::Tcp();
  const int sight_ = epoll_create1(EPOLL_CLOEXEC);
  const int watcher_ = epoll_create1(EPOLL_CLOEXEC);
  EpollSights sights_{nullptr};
  std::vector<int> clients_;
};

TEST_F(SightsTest, WhatComesIsTold) {
  EXPECT_EQ(sights_.Show(sight_, /*again=*/false), 0);
  EXPECT_FALSE(Told());
  Connect();
  EXPECT_TRUE(Told());
  EXPECT_EQ(sights_.Waiting(), 1);
}

TEST_F(SightsTest, WhatWaitsIsToldWhenItIsShown) {
  Connect();
  EXPECT_FALSE(Told());
  EXPECT_EQ(sights_.Show(sight_, /*again=*/false), 0);
  EXPECT_TRUE(Told());
  EXPECT_FALSE(Told());
}

// The sight is not read in between: its watcher does not do that.
TEST_F(SightsTest, WhatWaitsIsToldEachTimeItIsShown) {
  Connect();
  EXPECT_EQ(sights_.Show(sight_, /*again=*/false), 0);
  EXPECT_TRUE(Told());
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sights_.Show(sight_, /*again=*/true), 0);
    EXPECT_TRUE(Told());
    EXPECT_FALSE(Told());
  }
}

TEST_F(SightsTest, WhatIsShownAsleepIsToldWhenItIsWoken) {
  Connect();
  for (const bool again : {false, true}) {
    EXPECT_EQ(sights_.ShowAsleep(sight_, again), 0);
    EXPECT_FALSE(Told());
    Connect();
    EXPECT_FALSE(Told());
    sights_.Wake(sight_, sights_.Listener());
    EXPECT_TRUE(Told());
    EXPECT_FALSE(Told());
  }
}

TEST_F(SightsTest, WhatIsWokenBeforeItComesIsToldThen) {
  EXPECT_EQ(sights_.ShowAsleep(sight_, /*again=*/false), 0);
  sights_.Wake(sight_, sights_.Listener());
  EXPECT_FALSE(Told());
  Connect();
  EXPECT_TRUE(Told());
}

TEST_F(SightsTest, WhatWasHiddenBeforeItIsWokenIsNotTold) {
  Connect();
  EXPECT_EQ(sights_.ShowAsleep(sight_, /*again=*/false), 0);
  sights_.Hide(sight_);
  sights_.Wake(sight_, sights_.Listener());
  EXPECT_FALSE(Told());
  EXPECT_EQ(sights_.Show(sight_, /*again=*/false), 0);
  EXPECT_TRUE(Told());
}

TEST_F(SightsTest, WhatIsHiddenIsNotTold) {
  EXPECT_EQ(sights_.Show(sight_, /*again=*/false), 0);
  sights_.Hide(sight_);
  Connect();
  EXPECT_FALSE(Told());
  EXPECT_EQ(sights_.Show(sight_, /*again=*/false), 0);
  EXPECT_TRUE(Told());
}

}  // namespace
}  // namespace ringmaster::internal
