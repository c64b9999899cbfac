// Counts the allocations of a test program by replacing the global operator new. Under clang's
// thread sanitizer it uses that one's hook, which counts malloc as well.

#ifndef RINGMASTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_
#define RINGMASTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_

#include <cstddef>

namespace ringmaster::testing {

// How often memory has been allocated so far, on any thread.
size_t AllocationCount();

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_
