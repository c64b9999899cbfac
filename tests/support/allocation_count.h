// Counts the allocations of a test program by replacing the global operator new.

#ifndef RINGMASTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_
#define RINGMASTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_

#include <cstddef>

namespace ringmaster::testing {

// How often operator new has been called so far, on any thread.
size_t AllocationCount();

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_SUPPORT_ALLOCATION_COUNT_H_
