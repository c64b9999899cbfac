// Method: the test is the loop that lends its ring. It hands over completions made by hand and
// looks at what the turns return; the kernel is not asked, but for what it has armed.

#include "ring/lent_ring.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "core/op.h"
#include "ring/features.h"
#include "ring/translate.h"
#include "sockets.h"

namespace ringmaster::ring {
namespace {

using core::Completion;
using core::OpKind;

constexpr uint64_t kMark = uint64_t{0x5a} << 56;

class LentRingTest : public testing::Test {
 protected:
  LentRingTest() { completions_.reserve(8); }

  void HandOver(OpKind kind, int32_t result, uint32_t flags = IORING_CQE_F_MORE) {
    const io_uring_cqe cqe{
        .user_data = kMark | Encode({.kind = kind, .index = 0}), .res = result, .flags = flags};
    EXPECT_TRUE(ring_.Take(cqe));
  }
  std::vector<int32_t> Turn(uint32_t accepts_max) {
    ring_.SetAcceptsMax(accepts_max);
    EXPECT_EQ(ring_.Turn({}, 0, completions_), 0);
    std::vector<int32_t> results;
    for (const Completion& completion : completions_) results.push_back(completion.result);
    return results;
  }

  LentRing ring_{{.ring_fd = -1,
                  .get_sqe = [] { return nullptr; },
                  .submit = [] { return 0; },
                  .user_data_mask = uint64_t{0xff} << 56,
                  .user_data_value = kMark},
                 {.accept_dontwait = true},
                 4};
  std::vector<Completion> completions_;
};

using Results = std::vector<int32_t>;

TEST_F(LentRingTest, KeepsBackTheConnectionsThatThereIsNoRoomForAndWhatFollowsThem) {
  for (int32_t fd = 1000; fd < 1005; ++fd) HandOver(OpKind::kAcceptEach, fd);
  HandOver(OpKind::kAcceptEach, -ECANCELED, 0);
  HandOver(OpKind::kSend, -EBADFD);
  EXPECT_EQ(Turn(0), Results{-EBADFD});  // nothing waits behind connections but their own end
  EXPECT_TRUE(ring_.KeepsBack());
  EXPECT_TRUE(ring_.HasSomething());
  EXPECT_TRUE(ring_.AllReported());
  EXPECT_EQ(Turn(3), (Results{1000, 1001, 1002}));
  EXPECT_EQ(Turn(0), Results{});
  EXPECT_EQ(Turn(2), (Results{1003, 1004, -ECANCELED}));
  EXPECT_FALSE(ring_.KeepsBack());
  EXPECT_FALSE(ring_.HasSomething());
}

TEST_F(LentRingTest, ReturnsAnyNumberThatTheLoopHandsOver) {
  for (int32_t fd = 1000; fd < 1020; ++fd) HandOver(OpKind::kAcceptEach, fd);
  for (int32_t fd = 1000; fd < 1020;) {
    for (const int32_t result : Turn(UINT32_MAX)) EXPECT_EQ(result, fd++);
    EXPECT_LE(completions_.size(), completions_.capacity());
    ASSERT_FALSE(completions_.empty());
  }
}

TEST_F(LentRingTest, UsesNoNumberThatIsAnotherFilesByNow) {
  const int socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  for (const OpKind kind : {OpKind::kPoll, OpKind::kAcceptEach, OpKind::kAccept, OpKind::kCount,
                            OpKind::kState, OpKind::kHangUp}) {
    const core::Op op{.key = {.kind = kind}, .fd = socket_fd, .file = FileOf(socket_fd) + 1};
    ASSERT_EQ(ring_.Turn({&op, 1}, 0, completions_), 0);
    ASSERT_EQ(completions_.size(), 1u);
    EXPECT_EQ(completions_[0].key.kind, kind);
    EXPECT_EQ(completions_[0].result, -core::kOtherFile);
  }
  close(socket_fd);
}

TEST_F(LentRingTest, ClosesWhatItHasKeptBackWhenItEnds) {
  const int kept = eventfd(0, EFD_CLOEXEC);
  const int arrived = eventfd(0, EFD_CLOEXEC);
  HandOver(OpKind::kAcceptEach, kept);
  EXPECT_EQ(Turn(0), Results{});
  HandOver(OpKind::kAccept, arrived, 0);
  ring_.CloseArrived();
  EXPECT_EQ(close(kept), -1);
  EXPECT_EQ(close(arrived), -1);
}

// A ring in which an accept is armed under the mark.
struct ArmedRing {
  explicit ArmedRing(unsigned flags = 0) {
    EXPECT_EQ(io_uring_queue_init(4, &ring, flags), 0);
    io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
    Prepare({.key = kArmed, .fd = listener.fd()}, {.mark = kMark}, sqe);
    EXPECT_EQ(io_uring_submit(&ring), 1);
  }
  ArmedRing(const ArmedRing&) = delete;
  ArmedRing& operator=(const ArmedRing&) = delete;
  ~ArmedRing() { io_uring_queue_exit(&ring); }

  LentRing Lend() {
    return {{.ring_fd = ring.ring_fd,
             .get_sqe = [] { return nullptr; },
             .submit = [] { return 0; },
             .user_data_mask = uint64_t{0xff} << 56,
             .user_data_value = kMark},
            {},
            4};
  }
  // What has completed there; 0: nothing.
  int32_t Result() {
    io_uring_cqe* cqe = nullptr;
    return io_uring_peek_cqe(&ring, &cqe) == 0 ? cqe->res : 0;
  }

  static constexpr core::OpKey kArmed = {.kind = OpKind::kAcceptEach, .generation = 3, .index = 7};
  const Listener listener{AF_UNIX};
  io_uring ring{};
};

class AbandonedRing : public testing::Test {
 protected:
  void SetUp() override {
    const absl::StatusOr<Features> features = ProbeFeatures();
    if (!features.ok()) GTEST_SKIP() << features.status().ToString();
    if (!features->single_issuer) GTEST_SKIP() << "no IORING_REGISTER_SYNC_CANCEL before Linux 6.0";
  }
  static void End(LentRing& lent) {
    core::Op end{.key = ArmedRing::kArmed};
    end.key.kind = OpKind::kAcceptEnd;
    lent.Retire();
    lent.EndArmed({&end, 1});
  }
};

TEST_F(AbandonedRing, IsLeftWithNothingArmed) {
  ArmedRing armed;
  LentRing lent = armed.Lend();
  EXPECT_EQ(armed.Result(), 0);
  End(lent);
  EXPECT_EQ(armed.Result(), -ECANCELED);
}

// A deferring ring has not looked at what woke it.
TEST_F(AbandonedRing, TakesNobodyWhoCameToIt) {
  ArmedRing armed(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  LentRing lent = armed.Lend();
  const Fd client = armed.listener.Connect();
  End(lent);
  EXPECT_EQ(armed.Result(), -ECANCELED);
  EXPECT_TRUE(IsOpen(Fd(accept(armed.listener.fd(), nullptr, nullptr)).get()));
}

TEST_F(AbandonedRing, IsNotMistakenForAnotherThatHasItsNumber) {
  ArmedRing armed;
  ArmedRing other;
  LentRing lent = armed.Lend();
  const int number = armed.ring.ring_fd;
  const int kept = fcntl(number, F_DUPFD_CLOEXEC, 0);
  ASSERT_EQ(dup3(other.ring.ring_fd, number, O_CLOEXEC), number);
  End(lent);
  EXPECT_EQ(other.Result(), 0);
  ASSERT_EQ(dup3(kept, number, O_CLOEXEC), number);
  close(kept);
  EXPECT_EQ(armed.Result(), 0);
}

TEST(LendableTest, OnlyARingThatItsLoopSubmitsToCanBeLent) {
  const absl::StatusOr<Features> features = ProbeFeatures();
  if (!features.ok()) GTEST_SKIP() << features.status();
  for (const unsigned flags : {0u, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN}) {
    io_uring ring;
    ASSERT_EQ(io_uring_queue_init(4, &ring, flags), 0);
    EXPECT_TRUE(CheckLendable(ring.ring_fd).ok()) << CheckLendable(ring.ring_fd);
    io_uring_queue_exit(&ring);
  }
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(4, &ring, IORING_SETUP_SQPOLL), 0);
  const absl::Status polled = CheckLendable(ring.ring_fd);
  EXPECT_EQ(polled.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(polled.message().find("SQPOLL"), absl::string_view::npos) << polled;
  io_uring_queue_exit(&ring);
}

}  // namespace
}  // namespace ringmaster::ring
