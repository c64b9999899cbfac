#include "ring/doorbell.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace ringmaster::ring {
namespace {

// What the kernel calls an io_uring among the targets of /proc/self/fd.
constexpr std::string_view kIoUringTarget = "anon_inode:[io_uring]";

}  // namespace

void PrepareDoorbell(const Doorbell& doorbell, io_uring_sqe* sqe) {
  io_uring_prep_msg_ring(sqe, doorbell.ring_fd, 0, doorbell.tag, 0);
  sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
}

bool DoorbellCause(int error, const ErrorFacts& facts, Cause* cause) {
  switch (error) {
    case EBADF:
      *cause = {absl::StatusCode::kInvalidArgument,
                "it is not open. Pass the ring's own descriptor (io_uring::ring_fd, not "
                "enter_ring_fd), and keep the ring until its port has left"};
      return true;
    case EBADFD:
      // Linux answers the same to a ring that is still disabled and to a file that is no ring.
      if (facts.fd_target == kIoUringTarget) {
        *cause = {absl::StatusCode::kFailedPrecondition,
                  "the ring is still disabled (IORING_SETUP_R_DISABLED). Enable it first, with "
                  "io_uring_enable_rings on the thread that will use it"};
      } else {
        *cause = {absl::StatusCode::kInvalidArgument,
                  "it is not an io_uring. Pass the descriptor of the worker's ring "
                  "(io_uring::ring_fd)"};
      }
      return true;
    case EINVAL:
    case EOPNOTSUPP:
      *cause = {absl::StatusCode::kUnimplemented,
                absl::StrCat(KernelText(facts),
                             " cannot send messages between rings (IORING_OP_MSG_RING, since Linux "
                             "5.18). Run a later kernel")};
      return true;
    case EOWNERDEAD:
      *cause = {absl::StatusCode::kFailedPrecondition,
                "the thread that owned the ring has ended. Let the port leave and add the worker "
                "again with a new ring"};
      return true;
    case EOVERFLOW:
      *cause = {absl::StatusCode::kResourceExhausted,
                "the ring's completion queue is full and the kernel has no memory to keep more. "
                "Let the worker reap its completions"};
      return true;
    default:
      return false;
  }
}

// Enters the ring for nothing. The kernel looks whether the descriptor is open (EBADF), a ring
// (EOPNOTSUPP) and enabled (EBADFD), and then finds nothing to do. Any thread may do that with any
// ring. The kernel does not note the thread as a user of the ring, and no ring of our own is
// needed. (The file runtime/apart.h says why the former matters.) Seen on Linux 6.18; doorbell_test
// asserts that the target gets no completion.
absl::Status CheckTarget(int ring_fd) {
  const int result = io_uring_enter(static_cast<unsigned>(ring_fd), 0, 0, 0, nullptr);
  if (result >= 0) return absl::OkStatus();
  const int error = result == -EOPNOTSUPP ? EBADFD : -result;
  return ErrorStatus(Operation::kDoorbell, error, ring_fd);
}

absl::Status RingAll(std::span<const Doorbell> doorbells) {
  constexpr unsigned kAtOnce = 64;
  io_uring ring;
  if (const int result = io_uring_queue_init(kAtOnce, &ring, 0); result < 0) {
    return ErrorStatus(Operation::kCreateRing, -result);
  }
  while (!doorbells.empty()) {
    const size_t count = std::min<size_t>(doorbells.size(), kAtOnce);
    for (const Doorbell& doorbell : doorbells.first(count)) {
      io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
      PrepareDoorbell(doorbell, sqe);
      sqe->flags = 0;  // each completes, so that they can be waited for
    }
    int result = -EINTR;
    while (result == -EINTR) result = io_uring_submit_and_wait(&ring, static_cast<unsigned>(count));
    io_uring_cq_advance(&ring, io_uring_cq_ready(&ring));
    doorbells = doorbells.subspan(count);
  }
  io_uring_queue_exit(&ring);
  return absl::OkStatus();
}

}  // namespace ringmaster::ring
