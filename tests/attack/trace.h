// What was called, kept in memory that is shared with the process that watches the world. So that
// one can print the last calls of a world that crashed or hangs.

#ifndef RINGMASTER_TESTS_ATTACK_TRACE_H_
#define RINGMASTER_TESTS_ATTACK_TRACE_H_

#include <cstddef>
#include <cstdint>

namespace ringmaster::attack {

// Set-up, before the first world and before any fork.
void PrepareTrace(bool print_all);
// A new world begins: what was kept is forgotten.
void BeginTrace(uint64_t seed);
// The world that runs, also for the process that watches.
uint64_t TracedSeed();
// How many worlds have begun; changes while the child makes progress.
uint64_t TracedWorlds();
// How many connections were accepted by permits, in all worlds.
void TraceByPermit(uint64_t count);
uint64_t TracedByPermit();
// Prints the last lines to stderr.
void PrintLastCalls(size_t lines_max);

// How the calling thread is called in the trace, at most 11 characters.
void NameThread(const char* name);
const char* ThreadName();

// A call of the library. The line is there before the call, so one that never returns is seen.
class Call {
 public:
  [[gnu::format(printf, 2, 3)]] explicit Call(const char* format, ...);
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  // What it answered.
  [[gnu::format(printf, 2, 3)]] void Returns(const char* format, ...);
  // It did nothing that is worth a line.
  void Forget();
  const char* line() const;

 private:
  size_t index_;
};

// Something else that is good to know.
[[gnu::format(printf, 1, 2)]] void Note(const char* format, ...);

// The world is not as it should be. Says why and aborts.
[[noreturn, gnu::format(printf, 1, 2)]] void Fail(const char* format, ...);

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_TRACE_H_
