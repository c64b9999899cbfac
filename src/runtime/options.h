// What may be asked for. Every option that has limits is checked here, before anything is done, in
// words that say what is wrong, why, and what to do. Pure: nothing but the options is looked at.

#ifndef RINGMASTER_SRC_RUNTIME_OPTIONS_H_
#define RINGMASTER_SRC_RUNTIME_OPTIONS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "ringmaster/balancer.h"

namespace ringmaster::internal {

absl::Status CheckOptions(const BalancerOptions& options);
// For one of so many masters.
absl::Status CheckOptions(const SourceOptions& options, uint32_t masters);
// For a balancer with that host. Its ring is another matter.
absl::Status CheckOptions(const WorkerOptions& options, Host host);
// The same of a ring that is lent.
absl::Status CheckLoan(const RingLoan& loan);

// What Port::SetCapacity and Port::SetWindow may be asked for.
absl::Status CheckCapacity(uint32_t capacity);
absl::Status CheckWindow(uint32_t window);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_OPTIONS_H_
