// Code of the program that a balancer calls: policies, the event callback, the functions of a loan,
// the callbacks of a shutdown. Whatever that code asks of the same balancer is refused, because it
// would be done in the middle of something, or would wait for the master that waits for the code.

#ifndef RINGMASTER_SRC_RUNTIME_INSIDE_H_
#define RINGMASTER_SRC_RUNTIME_INSIDE_H_

#include "core/check.h"

namespace ringmaster::internal {

struct MasterEnvironment;
class BalancerShared;

// While this object lives, the calling thread is inside a master of the balancer: in a step, or in
// a call that changes the master. Or it is a worker's, at a desk, whose policy it may ask.
class Inside {
 public:
  explicit Inside(const MasterEnvironment& environment);
  explicit Inside(const BalancerShared& balancer);
  ~Inside();
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  // Whether the calling thread is inside that balancer. Takes no lock.
  static bool Is(const MasterEnvironment& environment);

 private:
  const BalancerShared* const balancer_;
  const Inside* const outer_;
};

// No code of the program may throw into the middle of a batch, because half of the batch would be
// done then.
template <typename Function>
auto RefusingExceptions(const Function& function) {
  try {
    return function();
  } catch (...) {
    core::Misused(
        "an exception came out of code of the program that the master had called: a policy, the "
        "event callback or a function of a RingLoan. These must not throw: catch the exception "
        "there");
  }
}

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_INSIDE_H_
