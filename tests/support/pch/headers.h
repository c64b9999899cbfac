// What most tests include, compiled once for each suite. A file still includes what it needs: only
// builds with a sanitizer have this.

#ifndef RINGMASTER_TESTS_SUPPORT_PCH_HEADERS_H_
#define RINGMASTER_TESTS_SUPPORT_PCH_HEADERS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "ringmaster/balancer.h"

#endif  // RINGMASTER_TESTS_SUPPORT_PCH_HEADERS_H_
