// What most files of bench include, compiled once. A file still includes what it needs: only builds
// with a sanitizer have this.

#ifndef RINGMASTER_BENCH_PCH_HEADERS_H_
#define RINGMASTER_BENCH_PCH_HEADERS_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#endif  // RINGMASTER_BENCH_PCH_HEADERS_H_
