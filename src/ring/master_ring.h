// What a master asks of its ring beside the seam: whether it is the library's own or lent to it
// makes no difference to who drives it.

#ifndef RINGMASTER_SRC_RING_MASTER_RING_H_
#define RINGMASTER_SRC_RING_MASTER_RING_H_

#include <cstdint>
#include <vector>

#include "core/ring.h"

namespace ringmaster::ring {

class MasterRing : public core::Ring {
 public:
  // Makes the calling thread the owner. Returns 0 or -errno.
  virtual int Enable() = 0;

  // When its owner makes no more calls, on any thread: replaces `completions` by what has completed
  // and was not read, as many as there is room for.
  virtual void TakeRemaining(std::vector<core::Completion>& completions) = 0;

  // For a host: makes it come by in `wait_ns` at the latest; kWaitForever: not for the sake of
  // time. One that was asked for before may still come, earlier and in vain. Hands everything to
  // the kernel that waits for it. Returns as Turn does.
  virtual int WakeIn(int64_t wait_ns) = 0;

  // What a host watches; -1 when there is nothing to watch.
  virtual int fd() const = 0;

  // Whether a turn would find something, as far as can be told without a system call.
  virtual bool HasSomething() const = 0;
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_MASTER_RING_H_
