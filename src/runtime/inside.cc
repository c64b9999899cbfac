#include "runtime/inside.h"

#include <utility>

#include "runtime/environment.h"
#include "runtime/shared.h"

namespace ringmaster::internal {
namespace {

thread_local const Inside* innermost = nullptr;  // of this thread

}  // namespace

Inside::Inside(const MasterEnvironment& environment) : Inside(*environment.shared) {}

Inside::Inside(const BalancerShared& balancer)
    : balancer_(&balancer), outer_(std::exchange(innermost, this)) {}

Inside::~Inside() { innermost = outer_; }

bool Inside::Is(const MasterEnvironment& environment) {
  for (const Inside* it = innermost; it != nullptr; it = it->outer_) {
    if (it->balancer_ == environment.shared.get()) return true;
  }
  return false;
}

}  // namespace ringmaster::internal
