#include "core/check.h"

#include <cstdio>
#include <cstdlib>

namespace ringmaster::core {

void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "ringmaster: broken invariant: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

void Misused(const char* sentence) {
  std::fprintf(stderr, "ringmaster: %s\n", sentence);
  std::abort();
}

}  // namespace ringmaster::core
