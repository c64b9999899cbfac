// What a worker does with its permits (core/permits.h): it accepts by them, one by one.

#ifndef RINGMASTER_SRC_RUNTIME_PERMIT_CLAIMS_H_
#define RINGMASTER_SRC_RUNTIME_PERMIT_CLAIMS_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "ringmaster/port.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// One connection that was accepted by a permit.
struct AcceptedByPermit {
  int fd = -1;
  uint64_t token = 0;
  core::Gate* gate = nullptr;  // of the source
};

// Accepts by permits of `worker`, at most `connections_max` times and no more than it had at first,
// and calls `serve` for each. No permit is claimed before the last connection was served, and the
// desk is visited before each.
// `claimed` is called when the first permit is claimed: from then on the worker may say that it
// does not wait. So the desks from which it has its other permits are visited before it serves, or
// when it has found nothing anywhere.
// Returns whether it may have more. The worker's thread; not in a forked child. After a callback in
// which the port has left, `left` must hold, and nothing more is done.
bool AcceptByPermits(PortShared& worker, size_t& connections_max, absl::FunctionRef<void()> claimed,
                     absl::FunctionRef<void(AcceptedByPermit)> serve);

// Gives all permits back that the worker has. What waits becomes ready in a sight anew.
void GiveBackPermits(PortShared& worker);

// Whether the worker has a permit. Not in a forked child: there the permits are the parent's.
bool HasPermits(const PortShared& worker);

// Whether the sight of the worker shows any source.
bool AnyShown(const PortShared& worker);

// Visits the desks from which the worker has permits: it has just said that it does not wait.
void VisitOwnDesks(PortShared& worker);

// Visits the desks that want to hear who waits. Any thread; does nothing in a forked child.
void VisitHungryDesks(BalancerShared& balancer);

// A worker that had no place, and says that it waits, has got one: knocks at masters that want a
// waiter, and visits the desks that want to hear who waits. Any thread.
void ShowWaiter(BalancerShared& balancer);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_PERMIT_CLAIMS_H_
