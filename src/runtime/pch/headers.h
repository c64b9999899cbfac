// What most files of the library, and of the simulator, include, compiled once for each. A file
// still includes what it needs: only builds with a sanitizer have this.

#ifndef RINGMASTER_SRC_RUNTIME_PCH_HEADERS_H_
#define RINGMASTER_SRC_RUNTIME_PCH_HEADERS_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "core/engine.h"

#endif  // RINGMASTER_SRC_RUNTIME_PCH_HEADERS_H_
