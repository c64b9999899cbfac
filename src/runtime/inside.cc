#include "runtime/inside.h"

#include <utility>

namespace ringmaster::internal {
namespace {

thread_local const Inside* innermost = nullptr;  // of this thread

}  // namespace

Inside::Inside(const MasterEnvironment& environment)
    : environment_(&environment), outer_(std::exchange(innermost, this)) {}

Inside::~Inside() { innermost = outer_; }

bool Inside::Is(const MasterEnvironment& environment) {
  for (const Inside* it = innermost; it != nullptr; it = it->outer_) {
    if (it->environment_ == &environment) return true;
  }
  return false;
}

}  // namespace ringmaster::internal
