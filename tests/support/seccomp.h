// What tests that filter system calls have in common.

#ifndef RINGMASTER_TESTS_SUPPORT_SECCOMP_H_
#define RINGMASTER_TESTS_SUPPORT_SECCOMP_H_

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cerrno>
#include <cstdint>
#include <span>

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

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_SUPPORT_SECCOMP_H_
