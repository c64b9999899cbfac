#include "ring/target.h"

#include <liburing.h>

#include <cerrno>
#include <cstring>

#include "ring/errors.h"

namespace ringmaster::ring {
namespace {

constexpr uint64_t kSendDescriptor = 1;  // IORING_MSG_SEND_FD
constexpr uint32_t kAnySlot = ~0u;       // IORING_FILE_INDEX_ALLOC

// A request to pass a descriptor out of an empty slot. The kernel looks at the target first (EBADFD
// when it is no ring or still disabled) and finds the empty slot then (EBADF), so nothing is ever
// sent. Seen on Linux 6.18; target_test asserts that the target gets no completion.
int PassNothingTo(int ring_fd) {
  io_uring ring;
  if (const int result = io_uring_queue_init(2, &ring, 0); result < 0) return result;
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  std::memset(sqe, 0, sizeof(*sqe));
  sqe->opcode = IORING_OP_MSG_RING;
  sqe->fd = ring_fd;
  sqe->addr = kSendDescriptor;
  sqe->file_index = kAnySlot;
  int result = io_uring_submit_and_wait(&ring, 1);
  io_uring_cqe* cqe = nullptr;
  if (result >= 0) result = io_uring_peek_cqe(&ring, &cqe);
  if (result == 0) result = cqe->res;
  io_uring_queue_exit(&ring);
  return result;
}

}  // namespace

absl::Status CheckTarget(int ring_fd) {
  const ErrorFacts facts = ReadErrorFacts(ring_fd);
  if (ring_fd < 0 || facts.fd_target.empty()) {
    return DescribeError(Operation::kDoorbell, EBADF, facts);
  }
  const int result = PassNothingTo(ring_fd);
  // EINVAL: a kernel before 6.0, which cannot pass descriptors but can ring.
  if (result == -EBADF || result == -EINVAL) return absl::OkStatus();
  if (result == -EBADFD) return DescribeError(Operation::kDoorbell, EBADFD, facts);
  return DescribeError(Operation::kCreateRing, -result, facts);
}

}  // namespace ringmaster::ring
