// What most files here include, compiled once. A file still includes what it needs: only builds
// with a sanitizer have this.

#ifndef RINGMASTER_TESTS_TOOLS_PCH_HEADERS_H_
#define RINGMASTER_TESTS_TOOLS_PCH_HEADERS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#endif  // RINGMASTER_TESTS_TOOLS_PCH_HEADERS_H_
