// What a master asks of its ring beside the seam. It is the same for a ring of the library's own
// and for one that was lent.

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

  // Replaces `completions` by what has completed and was not read, as many as there is room for.
  // Any thread, when the owner makes no more calls.
  virtual void TakeRemaining(std::vector<core::Completion>& completions) = 0;

  // For a ring to whose completion queue connections come unasked, of multishot accepts. It says
  // how many of these the next turn may return, and whether more have come than the last turn could
  // return. Other rings hold no more than the master has room for.
  virtual void SetAcceptsMax(uint32_t /*accepts_max*/) {}
  virtual bool KeepsBack() const { return false; }

  // For a host: makes it come by in `wait_ns` at the latest. With kWaitForever no time makes it
  // come. A time that was asked for before may still make it come earlier, in vain. Also submits
  // everything that waits to be submitted. Returns as Turn does.
  virtual int WakeIn(int64_t wait_ns) = 0;

  // What a host watches; -1 when there is nothing to watch.
  virtual int fd() const = 0;

  // Whether a turn would find something, as far as can be told without a system call.
  virtual bool HasSomething() const = 0;
};

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_MASTER_RING_H_
