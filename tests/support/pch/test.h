// What every test includes, compiled once for each suite. So no file notices an include that it
// lacks any later than it would without this.

#ifndef RINGMASTER_TESTS_SUPPORT_PCH_TEST_H_
#define RINGMASTER_TESTS_SUPPORT_PCH_TEST_H_

#include <gtest/gtest.h>

#endif  // RINGMASTER_TESTS_SUPPORT_PCH_TEST_H_
