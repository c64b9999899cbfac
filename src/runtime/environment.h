// What is the same for all masters of a balancer.

#ifndef RINGMASTER_SRC_RUNTIME_ENVIRONMENT_H_
#define RINGMASTER_SRC_RUNTIME_ENVIRONMENT_H_

#include <functional>
#include <memory>

#include "ring/features.h"
#include "ringmaster/balancer.h"
#include "ringmaster/policy.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// Outlives the masters.
struct MasterEnvironment {
  BalancerOptions options;
  ring::Features features;
  CpuTopology topology;
  std::shared_ptr<BalancerShared> shared;
  // Each master calls each of these once, on the thread that drives it; when nobody drives it, on
  // the thread that closes it. The first says that the master refers to no source any more, the
  // second that it has ended and its report is there.
  std::function<void()> intake_ended;
  std::function<void()> ended;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_ENVIRONMENT_H_
