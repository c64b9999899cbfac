// How calls of the C interface end: with 0 or more, or with a negative errno and a text that the
// thread keeps for ringmaster_last_error.

#ifndef RINGMASTER_SRC_C_RESULT_H_
#define RINGMASTER_SRC_C_RESULT_H_

#include <cxxabi.h>

#include <cstdint>
#include <exception>
#include <initializer_list>
#include <new>

#include "absl/status/status.h"

namespace ringmaster::c {

// What a status becomes, as the header's list of results says; 0 for OK.
int ErrnoOf(absl::StatusCode code);

// Keep the text and return the negative errno. None of them allocates or throws.
int Failed(const absl::Status& why);
int Null(const char* argument);
int NoMemory();
int Threw(const char* what);

// 0, or as Failed.
inline int ResultOf(const absl::Status& status) { return status.ok() ? 0 : Failed(status); }
inline int ResultOf(int result) { return result; }
inline int64_t ResultOf(int64_t result) { return result; }

// Calls `function`, which returns a status, or a number that is the result already. No exception
// comes out of it. The end of a thread (pthread_exit, pthread_cancel) does, because it cannot be
// stopped.
template <typename Function>
auto Do(const Function& function) -> decltype(ResultOf(function())) {
  try {
    return ResultOf(function());
  } catch (const std::bad_alloc&) {
    return NoMemory();
  } catch (abi::__forced_unwind&) {
    throw;
  } catch (const std::exception& thrown) {
    return Threw(thrown.what());
  } catch (...) {
    return Threw("something that is no std::exception");
  }
}

// An argument that must not be null.
struct Needed {
  template <typename Pointee>
  Needed(const char* its_name, Pointee* pointer) : name(its_name), is_there(pointer != nullptr) {}
  const char* name;
  bool is_there;
};

// The same, if all of them are there.
template <typename Function>
auto Do(std::initializer_list<Needed> needed, const Function& function) {
  for (const Needed& argument : needed) {
    if (!argument.is_there) return decltype(Do(function)){Null(argument.name)};
  }
  return Do(function);
}

}  // namespace ringmaster::c

#endif  // RINGMASTER_SRC_C_RESULT_H_
