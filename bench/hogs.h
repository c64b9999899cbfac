// Other work for the machine: processes that compute all the time, because real machines are
// shared.

#ifndef RINGMASTER_BENCH_HOGS_H_
#define RINGMASTER_BENCH_HOGS_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace ringmaster::bench {

inline constexpr uint32_t kHogsMax = 256;

class Hogs {
 public:
  // Starts `count` processes. Call it while the calling process has one thread. They end with this
  // object, and with the calling process however that ends.
  static absl::StatusOr<Hogs> Start(uint32_t count);

  Hogs(Hogs&& other) noexcept;
  Hogs& operator=(Hogs&&) = delete;
  ~Hogs();

 private:
  Hogs() = default;

  std::vector<pid_t> pids_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_HOGS_H_
