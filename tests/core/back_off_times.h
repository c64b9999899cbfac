// How long a source pauses, for tests of what the engine does with a pause. They ask the books, so
// another back-off changes none of them.

#ifndef RINGMASTER_TESTS_CORE_BACK_OFF_TIMES_H_
#define RINGMASTER_TESTS_CORE_BACK_OFF_TIMES_H_

#include <cstdint>

#include "core/back_off.h"

namespace ringmaster::core {

// A source that does nothing but fail, as often as Next is called.
class Pauses {
 public:
  // How long it pauses after its next shortage.
  int64_t Next() {
    books_.ResumeEarly();
    books_.Fail(BackOff::Failure::kShortage, 0);
    return books_.due_at_ns();
  }

 private:
  BackOff books_;
};

inline int64_t FirstPauseNs() { return Pauses().Next(); }

// After how many connections in a row that went wrong it pauses.
inline uint32_t ErrorsUntilPause() {
  BackOff books;
  uint32_t errors = 1;
  while (!books.Fail(BackOff::Failure::kConnection, 0).pauses) ++errors;
  return errors;
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_TESTS_CORE_BACK_OFF_TIMES_H_
