// The only place where the library ends the process: for a broken invariant of its own, and for a
// caller's mistake that no answer could reach, because going on would use what is gone. Everything
// else that a caller or the kernel does is a value to handle.

#ifndef RINGMASTER_SRC_CORE_CHECK_H_
#define RINGMASTER_SRC_CORE_CHECK_H_

namespace ringmaster::core {

// Writes what was broken and where to stderr and aborts.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

// Writes "ringmaster: " and the sentence, which names the mistake and the remedy, to stderr and
// aborts.
[[noreturn]] void Misused(const char* sentence);

}  // namespace ringmaster::core

// Stays on in release builds: a wrong ledger must not serve a connection twice.
#define RINGMASTER_CHECK(condition)                  \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::ringmaster::core::CheckFailed(#condition, __FILE__, __LINE__))

#endif  // RINGMASTER_SRC_CORE_CHECK_H_
