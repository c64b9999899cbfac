// A mailbox's ring. A second ring rings it, as a master does, and it is looked at through every way
// in which a loop can watch a descriptor. Nothing here waits for time to pass: a message to a plain
// ring is in its queue before the sender has its answer.

#include "ring/mailbox_ring.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <unistd.h>

#include <thread>

#include "ring/features.h"
#include "support/descriptor_limit.h"

namespace ringmaster::ring {
namespace {

// Rings other rings.
class Bell {
 public:
  Bell() { EXPECT_EQ(io_uring_queue_init(4, &ring_, 0), 0); }
  ~Bell() { io_uring_queue_exit(&ring_); }
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  void Ring(int ring_fd) {
    io_uring_prep_msg_ring(io_uring_get_sqe(&ring_), ring_fd, 0, 0, 0);
    ASSERT_EQ(io_uring_submit_and_wait(&ring_, 1), 1);
    io_uring_cqe* cqe = nullptr;
    ASSERT_EQ(io_uring_peek_cqe(&ring_, &cqe), 0);
    EXPECT_EQ(cqe->res, 0);
    io_uring_cqe_seen(&ring_, cqe);
  }

 private:
  io_uring ring_;
};

class Epoll {
 public:
  Epoll(int watched_fd, uint32_t events) : fd_(epoll_create1(EPOLL_CLOEXEC)) {
    epoll_event event{.events = events, .data = {}};
    EXPECT_EQ(epoll_ctl(fd_, EPOLL_CTL_ADD, watched_fd, &event), 0);
  }
  ~Epoll() { close(fd_); }
  Epoll(const Epoll&) = delete;
  Epoll& operator=(const Epoll&) = delete;

  // Whether it reports the descriptor within that time.
  bool Reports(int wait_ms = 0) {
    epoll_event event;
    return epoll_wait(fd_, &event, 1, wait_ms) == 1;
  }

 private:
  int fd_;
};

bool PollSaysReadable(int fd) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, 0) == 1 && entry.revents == POLLIN;
}

bool SelectSaysReadable(int fd) {
  fd_set set;
  FD_ZERO(&set);
  FD_SET(fd, &set);
  timeval now{};
  return select(fd + 1, &set, nullptr, nullptr, &now) == 1;
}

class MailboxRingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const absl::StatusOr<Features> features = ProbeFeatures();
    if (!features.ok()) GTEST_SKIP() << features.status();
    ring_ = MailboxRing::Create().value();
  }

  std::unique_ptr<MailboxRing> ring_;
};

TEST_F(MailboxRingTest, IsReadableExactlyWhileADoorbellWaits) {
  Epoll level(ring_->fd(), EPOLLIN);
  Bell bell;
  const auto readable = [&](bool expected) {
    EXPECT_EQ(level.Reports(), expected);
    EXPECT_EQ(PollSaysReadable(ring_->fd()), expected);
    EXPECT_EQ(SelectSaysReadable(ring_->fd()), expected);
  };
  readable(false);
  EXPECT_EQ(ring_->Waiting(), 0u);
  bell.Ring(ring_->fd());
  bell.Ring(ring_->fd());
  readable(true);
  EXPECT_EQ(ring_->Waiting(), 2u);
  readable(true);  // counting takes nothing
  ring_->Consume(1);
  readable(true);
  EXPECT_EQ(ring_->Waiting(), 1u);
  ring_->Consume(0);
  readable(true);
  ring_->Consume(1);
  readable(false);
  EXPECT_EQ(ring_->Waiting(), 0u);
}

TEST_F(MailboxRingTest, GivesAnEdgeForEachDoorbellAlsoWhileEarlierOnesWait) {
  Epoll edge(ring_->fd(), EPOLLIN | EPOLLET);
  Bell bell;
  EXPECT_FALSE(edge.Reports());
  for (int i = 0; i < 3; ++i) {
    bell.Ring(ring_->fd());
    EXPECT_TRUE(edge.Reports());
    EXPECT_FALSE(edge.Reports());
  }
  EXPECT_EQ(ring_->Waiting(), 3u);
}

TEST_F(MailboxRingTest, WakesALoopThatSleeps) {
  for (const uint32_t events : {uint32_t{EPOLLIN}, uint32_t{EPOLLIN} | EPOLLET}) {
    Epoll epoll(ring_->fd(), events);
    // Whether the thread sleeps already is a matter of chance; it must report in either case.
    std::thread sleeper([&] { EXPECT_TRUE(epoll.Reports(-1)); });
    Bell bell;
    bell.Ring(ring_->fd());
    sleeper.join();
    ring_->Consume(ring_->Waiting());
  }
}

TEST_F(MailboxRingTest, LosesNothingWhenItsQueueOverflows) {
  constexpr uint32_t kDoorbells = 5 * MailboxRing::kEntries + 3;
  Bell bell;
  for (uint32_t i = 0; i < kDoorbells; ++i) bell.Ring(ring_->fd());
  uint32_t consumed = 0;
  while (PollSaysReadable(ring_->fd())) {
    const uint32_t waiting = ring_->Waiting();
    ASSERT_GE(waiting, 1u);
    ASSERT_LE(waiting, MailboxRing::kEntries);
    // One at first, so that what was kept back comes into a queue that is not empty.
    const uint32_t count = consumed == 0 ? 1 : waiting;
    ring_->Consume(count);
    consumed += count;
  }
  EXPECT_EQ(consumed, kDoorbells);
  EXPECT_EQ(ring_->Waiting(), 0u);
}

TEST_F(MailboxRingTest, MayBeReadByAnotherThreadThanTheOneThatMadeIt) {
  Bell bell;
  for (uint32_t i = 0; i < 2 * MailboxRing::kEntries; ++i) bell.Ring(ring_->fd());
  std::thread([&] {
    ring_->Consume(ring_->Waiting());
    EXPECT_EQ(ring_->Waiting(), MailboxRing::kEntries);
    ring_->Consume(MailboxRing::kEntries);
  }).join();
  EXPECT_EQ(ring_->Waiting(), 0u);
}

// Why the ring is a plain one: the same doorbell in one with DEFER_TASKRUN.
TEST_F(MailboxRingTest, ShowsADoorbellWithoutASystemCallUnlikeOneThatDefers) {
  io_uring deferring;
  if (io_uring_queue_init(1, &deferring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)) {
    GTEST_SKIP() << "this kernel has no DEFER_TASKRUN (Linux 6.1)";
  }
  Bell bell;
  bell.Ring(deferring.ring_fd);
  bell.Ring(ring_->fd());
  EXPECT_EQ(io_uring_cq_ready(&deferring), 0u);
  EXPECT_EQ(ring_->Waiting(), 1u);
  io_uring_queue_exit(&deferring);
}

TEST_F(MailboxRingTest, IsClosedOnExec) { EXPECT_NE(fcntl(ring_->fd(), F_GETFD) & FD_CLOEXEC, 0); }

TEST_F(MailboxRingTest, SaysWhyItCannotBeMadeAndLeavesNothingOpen) {
  const int next_fd = NextDescriptor();
  absl::Status refused;
  {
    const DescriptorLimit none(next_fd);
    refused = MailboxRing::Create().status();
  }
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("RLIMIT_NOFILE"), absl::string_view::npos) << refused;
  EXPECT_EQ(NextDescriptor(), next_fd);
}

}  // namespace
}  // namespace ringmaster::ring
