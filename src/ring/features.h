// What the running kernel can do for a master, found out by asking and trying, never from a version
// string. Probing takes well under a millisecond, leaves no descriptor behind and uses no network.
// The trial source is a Unix socket without a name of its own.

#ifndef RINGMASTER_SRC_RING_FEATURES_H_
#define RINGMASTER_SRC_RING_FEATURES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ringmaster::ring {

// In io_uring_params::features. The oldest liburing that is supported has no name for it.
inline constexpr uint32_t kFeatureMinWait = 1 << 15;

// In the ioprio of an accept: answer EAGAIN instead of waiting. The oldest liburing that is
// supported has no name for it.
inline constexpr uint16_t kAcceptDontWait = 1 << 1;

// A feature whose field is false is missing from the running kernel, or was switched off by whoever
// passes this struct on.
struct Features {
  // Without these there is no balancer.
  bool accept = false;          // IORING_OP_ACCEPT, Linux 5.5
  bool cancel = false;          // ASYNC_CANCEL, POLL_ADD and CLOSE, Linux 5.6
  bool multishot_poll = false;  // Linux 5.13
  bool msg_ring = false;        // IORING_OP_MSG_RING that completes only on failure, Linux 5.18

  // Without one of these the balancer does the same in another way, or offers less.
  bool multishot_accept = false;  // Linux 5.19
  bool accept_dontwait = false;   // Linux 6.10
  bool submit_all = false;        // IORING_SETUP_SUBMIT_ALL, Linux 5.18
  bool coop_taskrun = false;      // IORING_SETUP_COOP_TASKRUN and TASKRUN_FLAG, Linux 5.19
  bool single_issuer = false;     // IORING_SETUP_SINGLE_ISSUER, Linux 6.0
  bool defer_taskrun = false;     // IORING_SETUP_DEFER_TASKRUN, Linux 6.1
  bool min_wait = false;          // IORING_FEAT_MIN_TIMEOUT, Linux 6.12

  // A tick of the kernel's clock. The kernel counts in ticks where times need not be exact.
  int64_t tick_ns = 0;
};

// Probes the running kernel. An error says why io_uring cannot be used at all, or which feature
// that a balancer needs is missing. May be called from any thread.
absl::StatusOr<Features> ProbeFeatures();

// OK when everything that a balancer needs is there; otherwise Unimplemented, saying what is
// missing, since which kernel it exists, and what to do. Pure; `kernel_release` is for the text.
absl::Status CheckFeatures(const Features& features, const std::string& kernel_release);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_FEATURES_H_
