// What a worker does with a connection, the same for every mechanism. It reads the request,
// computes what that asks for, writes it back, and counts. It closes when the client has closed, or
// at once where the workload says so.
//
// Every worker uses the same system calls on the connection: recv, send and close. It tries to read
// at once when it takes one, because the request is often there already. Only how a worker *waits*
// is its loop's own: a level-triggered epoll registration, a one-shot poll on its ring, or the recv
// itself. Reading through the ring too would save the ringmaster workers further system calls. But
// then the figures would compare two ways of serving besides two ways of spreading. What the ring's
// way of waiting saves is one epoll_ctl for each connection, because its poll is submitted by the
// same call that waits.
//
// Workers that live on the file tables of their rings are the exception, because a slot has no
// system calls (slot_service.h). They are to be compared with each other.

#ifndef RINGMASTER_BENCH_SERVING_H_
#define RINGMASTER_BENCH_SERVING_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "bench/books.h"
#include "bench/calls.h"
#include "bench/clock.h"
#include "bench/mechanism.h"

namespace ringmaster::bench {

// How many connections a worker takes before it looks at those that it has: the same for all.
inline constexpr int kTakesPerTurnMax = 64;

// Events that a worker handles before it takes new connections.
inline constexpr int kEventsPerTurnMax = 256;

// How long a server without descriptors lets the listener alone, if none of the worker's own
// connections ends before. HAProxy does the same; nginx waits five times as long, folly ten times.
inline constexpr int64_t kAcceptPauseNs = 100 * kMillisecond;

// The most that a worker receives at once; a request is far smaller.
inline constexpr size_t kReadBytesMax = 4096;

// Whether an error of accept says that the process or the system has run out of something. Then the
// next try would fail the same way.
bool MeansShortage(int error);

class Serving {
 public:
  enum class Next : uint8_t { kWait, kClose };

  // For worker `index` of the server.
  Serving(const ServerOptions& options, uint32_t index);

  // Makes and counts the system calls of this worker.
  Calls call;

  // The turns of a worker's loop. After each return from the call in which it waits:
  void OnWake();
  // … if what woke it was, or was also, that there may be a connection to take:
  void OnArrival() { arrival_ = true; }
  // … and when all that the wake-up brought has been handled.
  void OnTurnEnd();

  // Call first with every connection that the worker takes, then `OnReadable`. Sleeps as long as
  // the workload has this worker sleep. It does so here, with the connection in its hands, so that
  // a mechanism shows what it does with the connections behind it.
  void OnTaken();

  // Reads, computes and answers. Says whether to wait until `fd` is readable, or to `Close` it.
  Next OnReadable(int fd);

  void Close(int fd);
  // Instead of Close: another worker has the connection now.
  void OnPassedOn();

  // The same in parts, for workers that receive, send and close by requests of their rings. Answer
  // makes the answer of what was received, in its place; nothing received is the end. It says
  // whether to wait for more or to close, when that is sent.
  Next Answer(std::span<char> received);
  void OnClosed() { --open_; }
  // Whether OnTaken will sleep, and whether Answer will sleep or compute. What has been asked of
  // the ring goes out before that, or it would wait for what comes after it.
  bool rests() const;
  bool TakesTime(std::span<const char> received) const;

  // Whether the worker has as many connections as it may have.
  bool full() const { return open_ >= traits_.capacity; }

  // Whether it has been told to take no more of them: look at the end of a turn.
  bool leaves() const { return orders_.leaves.load(std::memory_order_relaxed); }

  // Call last, on the worker's thread.
  void OnEnd();

 private:
  const uint32_t index_;
  const WorkerTraits traits_;
  WorkerBooks& books_;
  WorkerOrders& orders_;
  const std::atomic<bool>& stopping_;
  uint32_t open_ = 0;
  bool arrival_ = false;  // of this turn
  bool busy_ = false;     // this turn has done something
};

// Names the calling thread as `top -H` shows it.
void NameWorkerThread(uint32_t worker);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_SERVING_H_
