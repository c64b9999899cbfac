// What a worker's thread does, once for each kind of loop. Made, used and destroyed on that thread.

#ifndef RINGMASTER_TOOLS_ECHO_LOOP_H_
#define RINGMASTER_TOOLS_ECHO_LOOP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker.h"

namespace ringmaster::echo {

// A connection with more than this not yet sent is not received from until half of it has gone.
inline constexpr size_t kUnsentBytesMax = size_t{256} * 1024;

// How many connections are claimed before the traffic of the open ones is looked at again.
inline constexpr size_t kClaimsPerTurnMax = 16;

// While the server drains, a worker that has had nothing to do for so long hangs up also on clients
// that have not asked yet. It is longer than a request is on its way, on most networks.
inline constexpr int kQuietMs = 50;

class Loop {
 public:
  virtual ~Loop() = default;

  // Joins the source. Returns the worker's index.
  virtual absl::StatusOr<uint32_t> SetUp() = 0;

  // Returns when the control has ended, or the worker was asked to leave, and every connection is
  // closed or another worker's.
  virtual void Run() = 0;
};

// Both borrow `shared`.
std::unique_ptr<Loop> MakeUringLoop(const WorkerSetup& setup, WorkerShared& shared);
std::unique_ptr<Loop> MakeEpollLoop(const WorkerSetup& setup, WorkerShared& shared);

// To which of the sources a connection is passed on. Every worker has joined all of them, so it
// only matters that each master gets its share.
inline Source& SourceFor(const WorkerSetup& setup, int fd) {
  return setup.sources[static_cast<size_t>(fd) % setup.sources.size()];
}

// Why a loop could not be set up, with the remedy where one is known.
absl::Status SetUpError(const char* what, int error);

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_LOOP_H_
