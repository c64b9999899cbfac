#include "ring/target.h"

#include <liburing.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "ring/errors.h"

namespace ringmaster::ring {
namespace {

// The kernel names the thread, or says -1.
bool IsPolled(int ring_fd) {
  std::ifstream facts(absl::StrCat("/proc/self/fdinfo/", ring_fd));
  for (std::string line; std::getline(facts, line);) {
    if (absl::StartsWith(line, "SqThread:")) return !absl::EndsWith(line, "-1");
  }
  return false;
}

}  // namespace

// Enters the ring for nothing. The kernel looks whether the descriptor is open (EBADF), a ring
// (EOPNOTSUPP) and enabled (EBADFD), and then finds nothing to do. Any thread may do that with any
// ring. The kernel does not note the thread as a user of the ring, and no ring of our own is
// needed. (The file runtime/apart.h says why the former matters.) Seen on Linux 6.18; target_test
// asserts that the target gets no completion.
absl::Status CheckTarget(int ring_fd) {
  const int result = io_uring_enter(static_cast<unsigned>(ring_fd), 0, 0, 0, nullptr);
  if (result >= 0) return absl::OkStatus();
  const int error = result == -EOPNOTSUPP ? EBADFD : -result;
  return ErrorStatus(Operation::kDoorbell, error, ring_fd);
}

absl::Status CheckLendable(int ring_fd) {
  absl::Status status = CheckTarget(ring_fd);
  if (!status.ok() || !IsPolled(ring_fd)) return status;
  return absl::InvalidArgumentError(
      absl::StrCat("the ring that is lent, descriptor ", ring_fd,
                   ", has IORING_SETUP_SQPOLL: its queue may still be full after a submit, so what "
                   "other threads wait for could be late. Lend a ring without that flag"));
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
      io_uring_prep_msg_ring(io_uring_get_sqe(&ring), doorbell.ring_fd, 0, doorbell.tag, 0);
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
