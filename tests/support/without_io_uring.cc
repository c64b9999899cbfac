// Runs a command to which the kernel looks as if it had no io_uring, or did not permit it:
//
//   without_io_uring EPERM|ENOSYS COMMAND [ARGUMENT…]
//
// EPERM is what a container's seccomp profile and kernel.io_uring_disabled answer, ENOSYS what a
// kernel built without io_uring does. Works by a seccomp filter of its own, which every descendant
// of the command inherits and none can take off. Ends with the command's exit status; with 77
// (skipped) when this kernel or machine cannot filter, with 2 for a wrong command line.

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "support/seccomp.h"

namespace {

constexpr int kSkipped = 77;
constexpr int kWrongUsage = 2;
constexpr int kCannotRun = 127;

// The three system calls have one number each, the same on every architecture that has them.
static_assert(SYS_io_uring_enter == SYS_io_uring_setup + 1);
static_assert(SYS_io_uring_register == SYS_io_uring_setup + 2);

// Returns 0 or the errno of what failed.
int Forbid(int error) {
  const sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ringmaster::testing::kSeccompArchitecture, 0,
               4),  // a foreign ABI: allow
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_io_uring_setup, 0, 2),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_io_uring_register, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (static_cast<uint32_t>(error) & 0xffff)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  return ringmaster::testing::InstallFilter(filter);
}

// Whether the filter works: then the call fails before the kernel looks at its argument.
bool Refused(int error) { return syscall(SYS_io_uring_setup, 1, nullptr) == -1 && errno == error; }

}  // namespace

int main(int argc, char** argv) {
  int error = 0;
  if (argc >= 3 && std::strcmp(argv[1], "EPERM") == 0) error = EPERM;
  if (argc >= 3 && std::strcmp(argv[1], "ENOSYS") == 0) error = ENOSYS;
  if (error == 0) {
    std::fprintf(stderr, "usage: %s EPERM|ENOSYS COMMAND [ARGUMENT...]\n", argv[0]);
    return kWrongUsage;
  }
  if (ringmaster::testing::kSeccompArchitecture == 0) {
    std::fprintf(stderr, "%s: skipped: not written for this architecture\n", argv[0]);
    return kSkipped;
  }
  const int failure = Forbid(error);
  if (failure != 0) {
    std::fprintf(stderr, "%s: skipped: cannot install a seccomp filter: %s\n", argv[0],
                 std::strerror(failure));
    return kSkipped;
  }
  if (!Refused(error)) {
    std::fprintf(stderr, "%s: skipped: the seccomp filter has no effect here\n", argv[0]);
    return kSkipped;
  }
  execvp(argv[2], argv + 2);
  std::fprintf(stderr, "%s: cannot run %s: %s\n", argv[0], argv[2], std::strerror(errno));
  return kCannotRun;
}
