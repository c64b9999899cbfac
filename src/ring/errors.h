// Turns an errno into a status that a reader can act on. It says what was tried, the likely cause
// and how it is known, and the remedy.
//
// `DescribeError` is a pure function of the operation, the errno and a few facts about the process.
// So every text can be tested. `ReadErrorFacts` reads those facts. Both may be called from any
// thread. They allocate and are for set-up and for events, never for the path of a connection.

#ifndef RINGMASTER_SRC_RING_ERRORS_H_
#define RINGMASTER_SRC_RING_ERRORS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace ringmaster::ring {

// What was tried.
enum class Operation : uint8_t {
  kCreateRing,      // io_uring_setup and the memory of the ring
  kRestrictRing,    // restricting a ring to the operations that are used
  kEnableRing,      // enabling a ring that was created disabled
  kDriveRing,       // a turn of the master's ring
  kDoorbell,        // ringing a worker's ring; `fd` is the worker's ring
  kWatch,           // watching a source; `fd` is the source
  kAccept,          // accepting from a source; `fd` is the source
  kMakeDescriptor,  // eventfd, dup and the like
  kStartThread,     // starting the master's thread
  kBindThread,      // binding it to a CPU
};

// A soft or hard limit that is not set.
inline constexpr uint64_t kUnlimited = UINT64_MAX;

// What is known about the process and the machine. The defaults mean "not known".
struct ErrorFacts {
  int fd = -1;                    // the descriptor that the operation was about
  std::string fd_target;          // what it is, as /proc/self/fd shows it: "anon_inode:[io_uring]"
  int io_uring_disabled = -1;     // the sysctl kernel.io_uring_disabled
  int seccomp = -1;               // 0: no filter, 1: strict, 2: a filter is active
  uint64_t descriptors_used = 0;  // how many this process has open; 0: not known
  uint64_t descriptors_max = 0;   // RLIMIT_NOFILE, soft
  uint64_t locked_memory_bytes = 0;  // RLIMIT_MEMLOCK, soft
  uint64_t processes_max = 0;        // RLIMIT_NPROC, soft: threads of this user
  std::string kernel_release;        // as uname says it
};

// Reads the facts; what cannot be read stays "not known". `fd` may be closed or -1.
ErrorFacts ReadErrorFacts(int fd = -1);

// `error` is a positive errno. Never returns OK.
absl::Status DescribeError(Operation operation, int error, const ErrorFacts& facts);

// Both in one: reads the facts and describes the error.
absl::Status ErrorStatus(Operation operation, int error, int fd = -1);

// --- For files of this folder that know causes of their own --------------------------------------

// Cause and remedy, without what was tried.
struct Cause {
  absl::StatusCode code = absl::StatusCode::kInternal;
  std::string text;
};

// "this kernel", with its release if that is known.
std::string KernelText(const ErrorFacts& facts);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_ERRORS_H_
