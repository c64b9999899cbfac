// The only place where the library ends the process: a broken invariant of its own. Never for what
// the kernel did or what a caller asked for; those are values to handle.

#ifndef RINGMASTER_SRC_CORE_CHECK_H_
#define RINGMASTER_SRC_CORE_CHECK_H_

namespace ringmaster::core {

// Writes what was broken and where to stderr and aborts.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

// The same for the program's own code that did what makes going on impossible: an exception out of
// a policy, in the middle of a batch. `sentence` says what and what to do.
[[noreturn]] void Misused(const char* sentence);

}  // namespace ringmaster::core

// Stays on in release builds: a wrong ledger must not serve a connection twice.
#define RINGMASTER_CHECK(condition)                  \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::ringmaster::core::CheckFailed(#condition, __FILE__, __LINE__))

#endif  // RINGMASTER_SRC_CORE_CHECK_H_
