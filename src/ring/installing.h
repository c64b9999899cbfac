// Installing: what set-up must know before connections are installed in the file table of a
// worker's ring (Handoff::kDirect): whether this kernel can do that, and whether the ring has a
// table. How a connection is installed stands in ring/translate.h.

#ifndef RINGMASTER_SRC_RING_INSTALLING_H_
#define RINGMASTER_SRC_RING_INSTALLING_H_

#include "absl/status/status.h"

namespace ringmaster::ring {

// Tries it, with two rings of its own that are closed when this returns. So call it on a thread
// that ends then, see runtime/apart.h. Unimplemented, with the reason, where the kernel lacks it.
absl::Status TryInstalling();

// FailedPrecondition if the ring has no file table. OK if it has one, or if that cannot be told:
// the kernel tells it in /proc only, and not while somebody uses the ring.
absl::Status CheckTable(int ring_fd);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_INSTALLING_H_
