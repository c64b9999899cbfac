// Checks options. Every option that has limits is checked here, before anything is done. The texts
// say what is wrong, why, and what to do. Pure: it looks at nothing but the options.

#ifndef RINGMASTER_SRC_RUNTIME_OPTIONS_H_
#define RINGMASTER_SRC_RUNTIME_OPTIONS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "ringmaster/balancer.h"

namespace ringmaster::internal {

absl::Status CheckOptions(const BalancerOptions& options);
// For a balancer with so many masters.
absl::Status CheckOptions(const SourceOptions& options, uint32_t masters);
// For a balancer with that host. The worker's ring is checked elsewhere (ring/doorbell.h).
absl::Status CheckOptions(const WorkerOptions& options, Host host);
// The same for a ring that is lent.
absl::Status CheckLoan(const RingLoan& loan);

// For Port::SetCapacity and Port::SetWindow.
absl::Status CheckCapacity(uint32_t capacity);
absl::Status CheckWindow(uint32_t window);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_OPTIONS_H_
