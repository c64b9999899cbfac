// What most files of the echo server and of the examples include, compiled once for each. A file
// still includes what it needs: only builds with a sanitizer have this.

#ifndef RINGMASTER_TOOLS_PCH_HEADERS_H_
#define RINGMASTER_TOOLS_PCH_HEADERS_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "ringmaster/balancer.h"

#endif  // RINGMASTER_TOOLS_PCH_HEADERS_H_
