#include "ring/target.h"

#include <liburing.h>

#include <cerrno>

#include "ring/errors.h"

namespace ringmaster::ring {

// By entering it for nothing: the kernel looks whether it is open (EBADF), a ring (EOPNOTSUPP) and
// enabled (EBADFD), and then finds nothing to do. Anybody may, whoever's ring it is; no thread is
// noted as one of its users by that (runtime/apart.h says why it matters), and no ring of our own
// is needed. Seen on Linux 6.18; target_test asserts that the target gets no completion.
absl::Status CheckTarget(int ring_fd) {
  const int result = io_uring_enter(static_cast<unsigned>(ring_fd), 0, 0, 0, nullptr);
  if (result >= 0) return absl::OkStatus();
  const int error = result == -EOPNOTSUPP ? EBADFD : -result;
  return ErrorStatus(Operation::kDoorbell, error, ring_fd);
}

}  // namespace ringmaster::ring
