// A thread for one function, for set-up.
//
// When an io_uring is closed, the kernel takes it apart 5 to 50 ms later. It does so by a task work
// of every thread that has made the ring or has submitted to it. That interrupts the call in which
// such a thread waits by then: epoll_wait answers EINTR, a blocking write ends short (Linux 6.18).
// A thread that has ended has no task works. So the library makes no ring on a thread of its
// caller.

#ifndef RINGMASTER_SRC_RUNTIME_APART_H_
#define RINGMASTER_SRC_RUNTIME_APART_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ringmaster::internal {

// Runs `work` on a thread of its own, which has ended when this returns. The thread blocks all
// signals. Returns what `work` returns, or why there is no thread.
absl::Status RunApart(absl::FunctionRef<absl::Status()> work);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_APART_H_
