// What a worker does with a connection, the same for every mechanism: read the request, write it
// back, close when the client has closed.
//
// Every worker uses the same system calls on the connection, recv, send and close, and tries to
// read at once when it takes one, because the request is often there already. Only how a worker
// *waits* is its loop's own: a level-triggered epoll registration, or a one-shot poll on its ring.
// Reading through the ring too would save the ringmaster workers further system calls, but then the
// figures would compare two ways of serving besides two ways of spreading. What the ring's way of
// waiting saves is one epoll_ctl for each connection, because its poll is submitted by the same
// call that waits.

#ifndef RINGMASTER_BENCH_SERVING_H_
#define RINGMASTER_BENCH_SERVING_H_

#include <cstdint>

#include "bench/books.h"
#include "bench/mechanism.h"

namespace ringmaster::bench {

// How many connections a worker takes before it looks at those that it has: the same for all.
inline constexpr int kTakesPerTurnMax = 64;

// Events that a worker handles before it takes new connections.
inline constexpr int kEventsPerTurnMax = 256;

class Serving {
 public:
  enum class Next : uint8_t { kWait, kClose };

  Serving(const WorkerTraits& traits, WorkerBooks& books) : traits_(traits), books_(books) {}

  // Call first with every connection that the worker takes, then `OnReadable`. Sleeps as long as
  // the workload has this worker sleep: here, with the connection in its hands, so that a mechanism
  // shows what it does with the connections behind it.
  void OnTaken();

  // Reads and answers. Says whether to wait until `fd` is readable, or to close it.
  static Next OnReadable(int fd);

  // Call last, on the worker's thread.
  void OnEnd();

 private:
  const WorkerTraits traits_;
  WorkerBooks& books_;
};

// Names the calling thread as `top -H` shows it.
void NameWorkerThread(uint32_t worker);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_SERVING_H_
