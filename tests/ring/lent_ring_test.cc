// Method: the test is the loop that lends its ring. It hands over completions made by hand and
// looks at what the turns return; the kernel is not asked.

#include "ring/lent_ring.h"

#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "core/op.h"
#include "ring/translate.h"

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

}  // namespace
}  // namespace ringmaster::ring
