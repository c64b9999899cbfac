#include "c/callbacks.h"

#include <utility>

namespace ringmaster::c {
namespace {

thread_local const InCallback* innermost = nullptr;  // of this thread

}  // namespace

InCallback::InCallback(const void* caller)
    : caller_(caller), outer_(std::exchange(innermost, this)) {}

InCallback::~InCallback() { innermost = outer_; }

bool InCallback::Of(const void* caller) {
  for (const InCallback* it = innermost; it != nullptr; it = it->outer_) {
    if (it->caller_ == caller) return true;
  }
  return false;
}

}  // namespace ringmaster::c
