#include "runtime/refusals.h"

namespace ringmaster::internal {

absl::Status BalancerEnded() {
  return absl::FailedPreconditionError("the balancer was shut down: create another one");
}

absl::Status BalancerOfParent() {
  return absl::FailedPreconditionError(
      "this balancer belongs to the process that forked this one: create a balancer after the "
      "fork, and see AfterForkInChild");
}

absl::Status CalledFromCallback() {
  return absl::FailedPreconditionError(
      "called from the event callback or from a policy: the call would wait for the master, which "
      "waits for that callback. Call from another thread, or when the callback has returned");
}

}  // namespace ringmaster::internal
