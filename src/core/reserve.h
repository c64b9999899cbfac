// Memory that is allocated at set-up, so that the accept path never allocates.

#ifndef RINGMASTER_SRC_CORE_RESERVE_H_
#define RINGMASTER_SRC_CORE_RESERVE_H_

#include <algorithm>
#include <cstddef>
#include <vector>

namespace ringmaster::core {

// Allocates for `count` elements, and for at least twice as many as before, so that many small
// steps stay cheap.
template <typename T>
void Reserve(std::vector<T>& vector, size_t count) {
  if (count > vector.capacity()) vector.reserve(std::max(count, 2 * vector.capacity()));
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_RESERVE_H_
