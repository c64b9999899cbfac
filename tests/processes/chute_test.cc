// Chutes with the kernel's sockets: what comes out, what comes back, and what somebody who has the
// other copy of the end can ruin.

#include "processes/chute.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "worker_processes_fixture.h"

namespace ringmaster::processes {
namespace {

using ringmaster::testing::OpenDescriptors;

class ChuteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(MakeChute(ends_), 0);
    ASSERT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
    before_ = OpenDescriptors();
  }
  void TearDown() override {
    EXPECT_EQ(OpenDescriptors(), before_);
    for (const int fd : {ends_.in, ends_.out, pipe_[0], pipe_[1]}) close(fd);
  }
  int Put(uint64_t token = 0) { return PutIn(ends_.in, {.fd = pipe_[1], .token = token}); }
  // The token of what comes out.
  uint64_t Take() {
    Given given;
    EXPECT_EQ(TakeOut(ends_.out, given), 0);
    EXPECT_EQ(fcntl(given.fd, F_GETFD), FD_CLOEXEC);
    close(given.fd);
    return given.token;
  }
  int TakeError() {
    Given given;
    return TakeOut(ends_.out, given);
  }

  ChuteEnds ends_;
  int pipe_[2];
  size_t before_ = 0;
};

TEST_F(ChuteTest, EachComesOutOnceWithWhatIsKnownOfIt) {
  Given given{.fd = pipe_[1], .token = 7, .facts = {.incoming_cpu = 3}};
  given.facts.peer.address[15] = 9;
  ASSERT_EQ(PutIn(ends_.in, given), 0);
  ASSERT_EQ(Put(8), 0);
  EXPECT_EQ(LyingIn(ends_.out), 2u);
  Given came;
  ASSERT_EQ(TakeOut(ends_.out, came), 0);
  EXPECT_EQ(came.token, 7u);
  EXPECT_EQ(came.facts.incoming_cpu, 3);
  EXPECT_EQ(came.facts.peer.address, given.facts.peer.address);
  EXPECT_EQ(write(came.fd, "a", 1), 1);
  close(came.fd);
  char byte = 0;
  EXPECT_EQ(read(pipe_[0], &byte, 1), 1);
  EXPECT_EQ(Take(), 8u);
  EXPECT_EQ(TakeError(), EAGAIN);
}

TEST_F(ChuteTest, SoManyFitAndTheKernelSaysEachTimeThatThereIsRoom) {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  for (uint32_t i = 0; i < kLyingMax; ++i) ASSERT_EQ(Put(i), 0) << i;
  EXPECT_EQ(LyingIn(ends_.out), kLyingMax);
  epoll_event event{.events = EPOLLOUT | EPOLLET, .data = {}};
  ASSERT_EQ(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ends_.in, &event), 0);
  // It is said at once, so nobody who has made room just before is missed.
  EXPECT_EQ(epoll_wait(epoll_fd, &event, 1, 0), 1);
  EXPECT_EQ(epoll_wait(epoll_fd, &event, 1, 0), 0);
  for (uint32_t i = 0; i < kLyingMax; ++i) {
    EXPECT_EQ(Take(), i);
    EXPECT_EQ(epoll_wait(epoll_fd, &event, 1, 0), 1) << i;
  }
  close(epoll_fd);
}

TEST_F(ChuteTest, AFullOneIsLackOfRoom) {
  int error = 0;
  int fitted = 0;
  for (; error == 0; ++fitted) error = Put();
  EXPECT_TRUE(IsLackOfRoom(error)) << error;
  for (; LyingIn(ends_.out) > 0; --fitted) Take();
  EXPECT_EQ(fitted, 1);
  EXPECT_EQ(Put(), 0);
  Take();
}

TEST_F(ChuteTest, WithoutADescriptorItLiesThereStill) {
  ASSERT_EQ(Put(5), 0);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_EQ(TakeError(), EMFILE);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(LyingIn(ends_.out), 1u);
  EXPECT_EQ(Take(), 5u);
}

TEST_F(ChuteTest, ANudgeIsNoConnection) {
  Nudge(ends_.in);
  ASSERT_EQ(Put(6), 0);
  EXPECT_EQ(TakeError(), EBADMSG);
  EXPECT_EQ(Take(), 6u);
}

TEST_F(ChuteTest, WhatLiesThereComesOutAfterTheEnd) {
  ASSERT_EQ(Put(6), 0);
  close(std::exchange(ends_.in, dup(pipe_[0])));
  EXPECT_EQ(Take(), 6u);
  EXPECT_EQ(TakeError(), EPIPE);
}

// --- Ruined --------------------------------------------------------------------------------------

TEST_F(ChuteTest, AWorkerCannotSendByIt) {
  EXPECT_EQ(send(ends_.out, "a", 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_TRUE(IsSound(ends_.out));
}

TEST_F(ChuteTest, ShutDownItGivesBackWhatLiesThere) {
  ASSERT_EQ(Put(3), 0);
  ASSERT_EQ(shutdown(ends_.out, SHUT_RD), 0);
  EXPECT_EQ(Put(), EPIPE);
  EXPECT_FALSE(IsLackOfRoom(EPIPE));
  EXPECT_FALSE(IsSound(ends_.out));
  EXPECT_EQ(Take(), 3u);
}

TEST_F(ChuteTest, AFilterThatDropsEverythingIsSeen) {
  EXPECT_TRUE(IsSound(ends_.out));
  sock_filter drop[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  const sock_fprog program{.len = 1, .filter = drop};
  ASSERT_EQ(setsockopt(ends_.out, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)), 0);
  EXPECT_FALSE(IsSound(ends_.out));
}

// The kernel adds what was asked for to each message, and may open a descriptor for it.
TEST_F(ChuteTest, WhatSomebodyHasAskedTheKernelForIsClosedOrPutRight) {
  const int on = 1;
  const int off = 0;
  ASSERT_EQ(setsockopt(ends_.out, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
  setsockopt(ends_.out, SOL_SOCKET, 76 /* SO_PASSPIDFD */, &on, sizeof(on));
  setsockopt(ends_.out, SOL_SOCKET, SO_PASSSEC, &on, sizeof(on));
  setsockopt(ends_.out, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on));
  ASSERT_EQ(Put(4), 0);
  EXPECT_EQ(Take(), 4u);
  const bool can_refuse =
      setsockopt(ends_.out, SOL_SOCKET, 83 /* SO_PASSRIGHTS */, &off, sizeof(off)) == 0;
  EXPECT_TRUE(IsSound(ends_.out));
  if (can_refuse) {
    ASSERT_EQ(Put(5), 0);
    EXPECT_EQ(Take(), 5u);
  }
}

}  // namespace
}  // namespace ringmaster::processes
