// What the kernel does when a connection is installed in the file table of another ring
// (IORING_MSG_SEND_FD), by way of the operations that the engine asks for. The master's ring is the
// library's own, restricted; the worker's is plain, or defers its task work.

#include "ring/installing.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "core/op.h"
#include "ring/features.h"
#include "ring/uring_ring.h"
#include "sockets.h"

namespace ringmaster::ring {
namespace {

using core::Completion;
using core::Op;
using core::OpKind;

constexpr uint64_t kTag = 99;

struct Target {
  const char* name;
  unsigned flags;
};
constexpr unsigned kDeferring = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;

class InstallingTest : public testing::TestWithParam<Target> {
 protected:
  void SetUp() override {
    const absl::StatusOr<Features> features = ProbeFeatures();
    if (!features.ok()) GTEST_SKIP() << features.status();
    if (const absl::Status works = TryInstalling(); !works.ok()) GTEST_SKIP() << works;
    auto ring = UringRing::Create({.completion_entries = 1024, .features = *features});
    ASSERT_TRUE(ring.ok()) << ring.status();
    master_ = *std::move(ring);
    ASSERT_EQ(master_->Enable(), 0);
    completions_.reserve(1024);
    ASSERT_EQ(io_uring_queue_init(64, &worker_, GetParam().flags), 0);
    made_ = true;
  }
  void TearDown() override {
    if (made_) io_uring_queue_exit(&worker_);
  }

  bool deferring() const { return GetParam().flags != 0; }
  void Register(unsigned slots) { ASSERT_EQ(io_uring_register_files_sparse(&worker_, slots), 0); }

  Op Install(int fd, int32_t slot, uint32_t id = 0) const {
    return {.key = {.kind = OpKind::kInstall, .index = id},
            .fd = worker_.ring_fd,
            .tag = kTag,
            .sent = fd,
            .slot = slot};
  }
  static Op LetGo(int fd, int32_t slot) {
    return {.key = {.kind = OpKind::kLetGo}, .fd = fd, .slot = slot};
  }
  // Submits these, lets the worker enter its ring, and returns as many completions.
  std::vector<Completion> Turn(std::vector<Op> ops, size_t expected) {
    std::vector<Completion> all;
    for (bool first = true; first || all.size() < expected; first = false) {
      EXPECT_EQ(master_->Turn(first ? ops : std::vector<Op>(), 0, completions_), 0);
      all.insert(all.end(), completions_.begin(), completions_.end());
      io_uring_get_events(&worker_);
    }
    return all;
  }
  // The result of one.
  int32_t Result(const Op& op) { return Turn({op}, 1).at(0).result; }

  // The slots that the worker has been told of since the last call.
  std::vector<int> Told() {
    std::vector<int> slots;
    io_uring_get_events(&worker_);
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&worker_, &cqe) == 0) {
      EXPECT_EQ(cqe->user_data, kTag);
      slots.push_back(cqe->res);
      io_uring_cqe_seen(&worker_, cqe);
    }
    return slots;
  }
  int CloseSlot(int slot) {
    io_uring_sqe* const sqe = io_uring_get_sqe(&worker_);
    io_uring_prep_close_direct(sqe, static_cast<unsigned>(slot));
    io_uring_cqe* cqe = nullptr;
    EXPECT_EQ(io_uring_submit_and_wait(&worker_, 1), 1);
    EXPECT_EQ(io_uring_peek_cqe(&worker_, &cqe), 0);
    const int result = cqe->res;
    io_uring_cqe_seen(&worker_, cqe);
    return result;
  }

  // Both ends of a connection.
  static std::pair<Fd, Fd> Connection() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    return {Fd(ends[0]), Fd(ends[1])};
  }
  static bool AtEnd(const Fd& end) {
    char byte;
    return recv(end.get(), &byte, 1, MSG_DONTWAIT) == 0;
  }

  std::unique_ptr<UringRing> master_;
  std::vector<Completion> completions_;
  io_uring worker_{};
  bool made_ = false;
};

INSTANTIATE_TEST_SUITE_P(Rings, InstallingTest,
                         testing::Values(Target{"Plain", 0}, Target{"Deferring", kDeferring}),
                         [](const auto& test) { return test.param.name; });

TEST_P(InstallingTest, TheConnectionEndsWhenBothHaveClosedIt) {
  Register(4);
  auto [client, server] = Connection();
  EXPECT_EQ(Result(Install(server.get(), 3)), 0);
  EXPECT_EQ(Told(), (std::vector<int>{0}));
  Turn({LetGo(server.Release(), 3)}, 0);
  EXPECT_FALSE(AtEnd(client));
  EXPECT_EQ(CloseSlot(0), 0);
  EXPECT_TRUE(AtEnd(client));
}

// The slot of the master's own table counts, too.
TEST_P(InstallingTest, ASlotThatIsNotClearedKeepsTheConnection) {
  Register(4);
  auto [client, server] = Connection();
  EXPECT_EQ(Result(Install(server.get(), 3)), 0);
  server.Close();
  EXPECT_EQ(CloseSlot(Told().at(0)), 0);
  EXPECT_FALSE(AtEnd(client));
  Turn({LetGo(-1, 3)}, 0);
  EXPECT_TRUE(AtEnd(client));
}

TEST_P(InstallingTest, AFullTableIsAnErrorAndNothingHappens) {
  Register(1);
  auto [first, first_server] = Connection();
  auto [second, second_server] = Connection();
  EXPECT_EQ(Result(Install(first_server.get(), 0)), 0);
  EXPECT_EQ(Result(Install(second_server.get(), 1)), -core::kNoSlot);
  EXPECT_EQ(Told(), (std::vector<int>{0}));
  Turn({LetGo(-1, 1)}, 0);
  EXPECT_FALSE(AtEnd(second));
  EXPECT_EQ(CloseSlot(0), 0);
  EXPECT_EQ(Result(Install(second_server.get(), 1)), 0);
  EXPECT_EQ(Told(), (std::vector<int>{0}));
}

TEST_P(InstallingTest, ARingWithoutATableAnswersAsOneThatIsFull) {
  auto [client, server] = Connection();
  EXPECT_EQ(CheckTable(worker_.ring_fd).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Result(Install(server.get(), 0)), -core::kNoSlot);
  Register(1);
  EXPECT_TRUE(CheckTable(worker_.ring_fd).ok());
}

TEST_P(InstallingTest, AClearedSlotIsUsedAgainInTheSameTurn) {
  Register(8);
  std::vector<std::pair<Fd, Fd>> connections;
  for (int i = 0; i < 3; ++i) connections.push_back(Connection());
  EXPECT_EQ(Result(Install(connections[0].second.get(), 0)), 0);
  EXPECT_EQ(
      Turn({LetGo(connections[0].second.Release(), 0), Install(connections[1].second.get(), 0, 1),
            LetGo(-1, 0), Install(connections[2].second.get(), 0, 2)},
           2)
          .size(),
      2u);
  Turn({LetGo(-1, 0)}, 0);
  for (size_t i = 1; i < 3; ++i) connections[i].second.Close();
  // Each is what was sent: when its slot is closed, its own client sees the end.
  const std::vector<int> slots = Told();
  ASSERT_EQ(slots.size(), 3u);
  for (const int slot : slots) EXPECT_EQ(CloseSlot(slot), 0);
  for (const auto& [client, server] : connections) EXPECT_TRUE(AtEnd(client));
}

// What the slot had before must never be installed instead.
TEST_P(InstallingTest, WhatIsNoFileIsNotInstalled) {
  Register(4);
  auto [client, server] = Connection();
  EXPECT_EQ(Result(Install(server.get(), 0)), 0);
  EXPECT_EQ(Told().size(), 1u);
  const int closed = dup(server.get());
  close(closed);
  EXPECT_EQ(Result(Install(closed, 0)), -EBADF);
  EXPECT_TRUE(Told().empty());
}

TEST_P(InstallingTest, ARingThatIsDisabledOrNoneSaysSo) {
  auto [client, server] = Connection();
  Op op = Install(server.get(), 0);
  op.fd = server.get();
  EXPECT_EQ(Result(op), -EBADFD);
  io_uring disabled{};
  ASSERT_EQ(io_uring_queue_init(4, &disabled, IORING_SETUP_R_DISABLED), 0);
  op.fd = disabled.ring_fd;
  EXPECT_EQ(Result(op), -EBADFD);
  io_uring_queue_exit(&disabled);
}

// Into a plain ring the connection is installed, and nobody will ever find it there.
TEST_P(InstallingTest, ARingWhoseOwnerHasEndedSaysSoIfItDefers) {
  io_uring orphan{};
  std::thread([&] {
    ASSERT_EQ(io_uring_queue_init(4, &orphan, GetParam().flags), 0);
    ASSERT_EQ(io_uring_register_files_sparse(&orphan, 1), 0);
  }).join();
  auto [client, server] = Connection();
  Op op = Install(server.get(), 0);
  op.fd = orphan.ring_fd;
  EXPECT_EQ(Result(op), deferring() ? -EOWNERDEAD : 0);
  io_uring_queue_exit(&orphan);
}

TEST_P(InstallingTest, LettingGoLeavesTheOptionsOfTheConnectionAlone) {
  const Listener listener(AF_INET);
  const linger lingers{.l_onoff = 1, .l_linger = 100};
  ASSERT_EQ(setsockopt(listener.fd(), SOL_SOCKET, SO_LINGER, &lingers, sizeof(lingers)), 0);
  for (const bool hang_up : {false, true}) {
    const Fd client = listener.Connect();
    Fd server(accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK));
    const Fd copy(dup(server.get()));
    Op op = LetGo(server.get(), -1);
    op.hang_up = hang_up;
    Turn({op}, 0);
    linger found{};
    socklen_t length = sizeof(found);
    ASSERT_EQ(getsockopt(copy.get(), SOL_SOCKET, SO_LINGER, &found, &length), 0);
    EXPECT_EQ(found.l_onoff, hang_up ? 0 : 1);
    EXPECT_EQ(AtEnd(client), hang_up);
    server.Release();
  }
}

// The last close of a connection with SO_LINGER waits for the client: not on the master's thread.
TEST_P(InstallingTest, LettingGoDoesNotWaitForTheClient) {
  const Listener listener(AF_INET);
  const linger lingers{.l_onoff = 1, .l_linger = 10'000};
  ASSERT_EQ(setsockopt(listener.fd(), SOL_SOCKET, SO_LINGER, &lingers, sizeof(lingers)), 0);
  Fd client = listener.Connect();
  Fd server(accept4(listener.fd(), nullptr, nullptr, SOCK_NONBLOCK));
  // More than fits into the client's queue.
  const std::vector<char> bytes(1 << 20);
  while (send(server.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0) {
  }
  Turn({LetGo(server.Release(), -1)}, 0);
  client.Close();  // ends the kernel's wait
}

TEST(Installing, HasFewerSlotsWhereFewDescriptorsAreAllowed) {
  const absl::StatusOr<Features> features = ProbeFeatures();
  if (!features.ok()) GTEST_SKIP() << features.status();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const auto slots = [&](rlim_t limit) {
    const rlimit low{.rlim_cur = limit, .rlim_max = before.rlim_max};
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    const auto ring = UringRing::Create({.completion_entries = 1024, .features = *features});
    rlimit after{};
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &after), 0);
    EXPECT_EQ(after.rlim_cur, limit);  // which is nobody else's business
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    return ring.ok() ? (*ring)->slots() : 0;
  };
  EXPECT_EQ(slots(1024), 256u);
  EXPECT_EQ(slots(100), 64u);
  EXPECT_EQ(slots(15), 0u);
}

}  // namespace
}  // namespace ringmaster::ring
