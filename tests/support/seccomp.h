// What tests that filter system calls have in common.

#ifndef RINGMASTER_TESTS_SUPPORT_SECCOMP_H_
#define RINGMASTER_TESTS_SUPPORT_SECCOMP_H_

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace ringmaster::testing {

// What seccomp_data::arch is on this machine. 0, which no call has, on machines where nobody has
// tried.
#if defined(__x86_64__)
inline constexpr uint32_t kSeccompArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
inline constexpr uint32_t kSeccompArchitecture = AUDIT_ARCH_AARCH64;
#else
inline constexpr uint32_t kSeccompArchitecture = 0;
#endif

// Puts a filter over the calling thread and over all that it makes from now on. Filters add up, and
// none can be taken off. Returns 0 or the errno of what failed.
inline int InstallFilter(std::span<const sock_filter> filter) {
  const sock_fprog program = {.len = static_cast<unsigned short>(filter.size()),
                              .filter = const_cast<sock_filter*>(filter.data())};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) return errno;
  return 0;
}

// --- Filters that name what they forbid ----------------------------------------------------------

using SystemCalls = std::vector<int>;

inline SystemCalls operator+(SystemCalls left, const SystemCalls& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

// What the C library's allocator, locks and clocks do. The clock needs none where it is in the
// vDSO.
inline const SystemCalls kLibraryCalls = {SYS_brk,      SYS_mmap,    SYS_munmap,
                                          SYS_mprotect, SYS_madvise, SYS_clock_gettime,
                                          SYS_getcpu,   SYS_futex,   SYS_mremap};

// Says which call it was, where the thread takes signals.
inline void OnForbiddenCall(int, siginfo_t* info, void*) {
  char text[] = "forbidden system call 000\n";
  for (int digit = 0, number = info->si_syscall; digit < 3; ++digit, number /= 10) {
    text[sizeof(text) - 3 - static_cast<size_t>(digit)] = static_cast<char>('0' + number % 10);
  }
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
  _exit(1);
}

// Over the calling thread, and over all that it makes, these and those of the C library. The
// process ends with 1 at the first other one, and with 77 if there are no filters here.
inline void PermitCalls(const SystemCalls& calls) {
  struct sigaction action {};
  action.sa_sigaction = OnForbiddenCall;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSYS, &action, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGSYS);
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  std::vector<sock_filter> filter = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kSeccompArchitecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  for (const int call : calls + kLibraryCalls) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call), 0, 1));
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP));
  if (InstallFilter(filter) != 0) _exit(77);
}

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_SUPPORT_SECCOMP_H_
