// Why a call is refused, whichever call it is.

#ifndef RINGMASTER_SRC_RUNTIME_REFUSALS_H_
#define RINGMASTER_SRC_RUNTIME_REFUSALS_H_

#include "absl/status/status.h"

namespace ringmaster::internal {

absl::Status BalancerEnded();
// Called in a forked child.
absl::Status BalancerOfParent();
// Called inside a master, see runtime/inside.h.
absl::Status CalledFromCallback();

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_REFUSALS_H_
