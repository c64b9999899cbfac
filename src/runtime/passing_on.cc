#include "runtime/passing_on.h"

#include <utility>

namespace ringmaster::internal {

PassingOn::Added PassingOn::Add(const core::SourceIdentity& source, uint64_t serial,
                                const Item& item) {
  const std::lock_guard lock(mutex_);
  if (!source.Is(serial)) return Added::kSourceGone;
  const bool first = items_.empty();
  items_.push_back(item);
  waiting_.store(static_cast<uint32_t>(items_.size()), std::memory_order_seq_cst);
  return first ? Added::kFirst : Added::kFollows;
}

bool PassingOn::Take(std::vector<Item>& items) {
  if (empty()) return false;
  const std::lock_guard lock(mutex_);
  std::swap(items_, items);
  waiting_.store(0, std::memory_order_seq_cst);
  return true;
}

}  // namespace ringmaster::internal
