// Whether a ring can be rung, on real rings of every kind; that question must not send anything.
// And what arrives when it is rung.

#include "ring/doorbell.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

#include "ring/features.h"

namespace ringmaster::ring {
namespace {

class DoorbellTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const absl::StatusOr<Features> features = ProbeFeatures();
    if (!features.ok()) GTEST_SKIP() << features.status();
  }
};

TEST_F(DoorbellTest, AcceptsAnEnabledRingOfAnyKindAndSendsItNothing) {
  for (const unsigned flags : {0u, IORING_SETUP_COOP_TASKRUN, IORING_SETUP_SINGLE_ISSUER,
                               IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN}) {
    for (const bool has_table : {false, true}) {
      io_uring ring;
      ASSERT_EQ(io_uring_queue_init(4, &ring, flags), 0);
      if (has_table) {
        ASSERT_EQ(io_uring_register_files_sparse(&ring, 4), 0);
      }
      EXPECT_TRUE(CheckTarget(ring.ring_fd).ok()) << CheckTarget(ring.ring_fd);
      io_uring_get_events(&ring);
      EXPECT_EQ(io_uring_cq_ready(&ring), 0u);
      io_uring_queue_exit(&ring);
    }
  }
}

TEST_F(DoorbellTest, RefusesARingThatIsStillDisabled) {
  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(4, &ring, IORING_SETUP_R_DISABLED), 0);
  EXPECT_EQ(CheckTarget(ring.ring_fd).code(), absl::StatusCode::kFailedPrecondition);
  io_uring_queue_exit(&ring);
}

TEST_F(DoorbellTest, RefusesWhatIsNoRing) {
  const int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(CheckTarget(file).code(), absl::StatusCode::kInvalidArgument);
  close(file);
  EXPECT_EQ(CheckTarget(file).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(CheckTarget(-1).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DoorbellTest, AllAreRungButThoseThatCannotBe) {
  std::vector<io_uring> rings(70);
  std::vector<Doorbell> doorbells = {{.ring_fd = -1, .tag = 1}};
  for (io_uring& ring : rings) {
    ASSERT_EQ(io_uring_queue_init(4, &ring, 0), 0);
    doorbells.push_back({.ring_fd = ring.ring_fd, .tag = 100 + doorbells.size()});
  }
  EXPECT_TRUE(RingAll(doorbells).ok());
  uint64_t tag = 101;
  for (io_uring& ring : rings) {
    io_uring_cqe* completion;
    ASSERT_EQ(io_uring_peek_cqe(&ring, &completion), 0);
    EXPECT_EQ(completion->user_data, tag++);
    EXPECT_EQ(completion->res, 0);
    EXPECT_EQ(io_uring_cq_ready(&ring), 1u);
    io_uring_queue_exit(&ring);
  }
}

}  // namespace
}  // namespace ringmaster::ring
