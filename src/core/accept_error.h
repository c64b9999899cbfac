// What the errno of an accept says of its source. The same for all intakes, whoever has accepted.

#ifndef RINGMASTER_SRC_CORE_ACCEPT_ERROR_H_
#define RINGMASTER_SRC_CORE_ACCEPT_ERROR_H_

#include <cerrno>
#include <cstdint>

#include "core/op.h"

namespace ringmaster::core {

// The gravest last. Where the order of several is not known, the gravest counts: a shortage that a
// bad connection hid would be met without a pause, and a source that has gone would be asked again.
enum class AcceptError : uint8_t {
  kNone,        // nothing went wrong: nothing was there, or the accept was ended
  kConnection,  // of one connection, that is gone; the next may be fine
  kShortage,    // of descriptors or memory
  kBlocks,      // whoever accepts would wait
  kDoubt,       // as if there were no listener
  kWrongFile,   // its number is another file's
};

inline AcceptError AcceptErrorOf(int32_t error) {
  switch (error) {
    case 0:
    case EAGAIN:
    case ECANCELED:
      return AcceptError::kNone;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOBUFS:
      return AcceptError::kShortage;
    case kWouldWait:
      return AcceptError::kBlocks;
    case EINVAL:
    case EBADF:
    case ENOTSOCK:
    case EOPNOTSUPP:
      return AcceptError::kDoubt;
    case kOtherFile:
      return AcceptError::kWrongFile;
    default:
      return AcceptError::kConnection;
  }
}

// The graver of two errors, the first if they are equally grave; 0 is none.
inline int32_t Graver(int32_t first, int32_t second) {
  return AcceptErrorOf(second) > AcceptErrorOf(first) || first == 0 ? second : first;
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ACCEPT_ERROR_H_
