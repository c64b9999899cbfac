// Counts system calls where they are made: `call(close, fd)` is close(fd), and one more in the
// books. It costs a load and a store, the same for every mechanism.
//
// Every call that a mechanism makes for a connection goes through here. Its workers wait, accept,
// watch, serve and tell by it. So does the thread that accepts for them, if it is the benchmark's
// own. liburing's submitting and waiting functions enter the kernel once for each call as they are
// used here. What they read from shared memory is no call. Two things are not seen: what starts and
// stops a server, and what libringmaster does inside. Of that, the master's thread enters the
// kernel once for each of its wake-ups, and that number is added. It is a little too small. The
// thread enters again when a wake-up brought more than some 20 completions, and a policy that wants
// the incoming CPU costs a call for each connection. Workers call inside only to knock.

#ifndef RINGMASTER_BENCH_CALLS_H_
#define RINGMASTER_BENCH_CALLS_H_

#include "bench/books.h"

namespace ringmaster::bench {

class Calls {
 public:
  explicit Calls(ThreadBooks& books) : books_(books) {}

  // The result of `function`, errno included.
  template <typename Result, typename... Parameters, typename... Arguments>
  Result operator()(Result (*function)(Parameters...), Arguments... arguments) {
    Count(books_.system_calls);
    return function(arguments...);
  }

 private:
  ThreadBooks& books_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_CALLS_H_
