// The ring of a mailbox on the real kernel: what another ring sends to it makes its descriptor
// readable, also for epoll, and counting and consuming needs no entry into the kernel.

#include "ring/mailbox_ring.h"

#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>

#include <memory>

#include "ring/features.h"
#include "sockets.h"

namespace ringmaster::ring {
namespace {

class MailboxRingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto features = ProbeFeatures(); !features.ok()) {
      GTEST_SKIP() << features.status().message();
    }
    mailbox_ = MailboxRing::Create().value();
    ASSERT_EQ(io_uring_queue_init(8, &sender_, 0), 0);
    made_ = true;
  }
  void TearDown() override {
    if (made_) io_uring_queue_exit(&sender_);
  }

  void Ring() {
    io_uring_prep_msg_ring(io_uring_get_sqe(&sender_), mailbox_->fd(), 0, 0, 0);
    ASSERT_EQ(io_uring_submit_and_wait(&sender_, 1), 1);
    io_uring_cqe* cqe = nullptr;
    ASSERT_EQ(io_uring_peek_cqe(&sender_, &cqe), 0);
    EXPECT_EQ(cqe->res, 0);
    io_uring_cqe_seen(&sender_, cqe);
  }
  bool Readable() const {
    pollfd watched{.fd = mailbox_->fd(), .events = POLLIN, .revents = 0};
    return poll(&watched, 1, 0) == 1;
  }

  std::shared_ptr<MailboxRing> mailbox_;
  io_uring sender_{};
  bool made_ = false;
};

TEST_F(MailboxRingTest, WakesEpollForEachDoorbellUnderBothTriggers) {
  for (const uint32_t trigger : {uint32_t{EPOLLIN}, uint32_t{EPOLLIN | EPOLLET}}) {
    const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{.events = trigger, .data = {.fd = mailbox_->fd()}};
    ASSERT_EQ(epoll_ctl(epoll.get(), EPOLL_CTL_ADD, mailbox_->fd(), &event), 0);
    EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 0), 0);
    for (int i = 0; i < 3; ++i) {
      Ring();
      EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 1000), 1);
      EXPECT_EQ(mailbox_->Count(), 1u);
      mailbox_->Consume(1);
      EXPECT_EQ(epoll_wait(epoll.get(), &event, 1, 0), 0);
    }
  }
}

TEST_F(MailboxRingTest, IsReadableWhileADoorbellIsLeft) {
  EXPECT_FALSE(Readable());
  Ring();
  Ring();
  EXPECT_EQ(mailbox_->Count(), 2u);
  mailbox_->Consume(1);
  EXPECT_TRUE(Readable());
  mailbox_->Consume(1);
  EXPECT_FALSE(Readable());
  EXPECT_EQ(mailbox_->Count(), 0u);
}

TEST_F(MailboxRingTest, FindsWhatDidNotFitIntoItsQueue) {
  for (int i = 0; i < 100; ++i) Ring();
  int found = 0;
  for (uint32_t count = mailbox_->Count(); count > 0; count = mailbox_->Count()) {
    mailbox_->Consume(count);
    found += static_cast<int>(count);
  }
  EXPECT_EQ(found, 100);
  EXPECT_FALSE(Readable());
}

TEST_F(MailboxRingTest, IsOccupiedByOneAtATime) {
  EXPECT_TRUE(mailbox_->Occupy());
  EXPECT_FALSE(mailbox_->Occupy());
  mailbox_->Vacate();
  EXPECT_TRUE(mailbox_->Occupy());
}

}  // namespace
}  // namespace ringmaster::ring
