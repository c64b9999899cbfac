// This is a file of its own, because GCC 12 warns of a mismatched pair where it sees both the
// replaced operators and their use.

#include "support/allocation_count.h"

#include <atomic>
#include <cstdlib>
#include <new>

// clang's thread sanitizer defines the operators itself, and tells of every allocation instead.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RINGMASTER_TOLD_OF_ALLOCATIONS
#include <sanitizer/allocator_interface.h>
#endif
#endif

namespace {
std::atomic<size_t> allocations{0};  // relaxed: a count, ordered with nothing
}  // namespace

#ifdef RINGMASTER_TOLD_OF_ALLOCATIONS

namespace {
[[maybe_unused]] const int installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, size_t) { allocations.fetch_add(1, std::memory_order_relaxed); },
    [](const volatile void*) {});
}  // namespace

#else

void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size != 0 ? size : 1)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

#endif

namespace ringmaster::testing {

size_t AllocationCount() { return allocations.load(std::memory_order_relaxed); }

}  // namespace ringmaster::testing
