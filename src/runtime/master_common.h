// What the files of the master have in common: master.cc (creation, calls, shutdown),
// master_setup.cc (what set-up calls do), master_turns.cc (turns, and the end) and master_host.cc
// (with a host).

#ifndef RINGMASTER_SRC_RUNTIME_MASTER_COMMON_H_
#define RINGMASTER_SRC_RUNTIME_MASTER_COMMON_H_

#include <cstdint>

#include "absl/status/status.h"
#include "core/check.h"

namespace ringmaster::internal {

// How many turns a master takes at most to have the kernel take everything at the end.
inline constexpr int kLastTurnsMax = 64;
// A host's own call waits for completions this long at a time.
inline constexpr int64_t kHostPauseNs = 1'000'000;

absl::Status BalancerEnded();

// No code of the program may throw into the middle of a batch, because half of the batch would be
// done then.
template <typename Function>
auto RefusingExceptions(const Function& function) {
  try {
    return function();
  } catch (...) {
    core::Misused(
        "an exception came out of code of the program that the master had called: a policy, the "
        "event callback or a function of a RingLoan. These must not throw: catch the exception "
        "there");
  }
}

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_MASTER_COMMON_H_
