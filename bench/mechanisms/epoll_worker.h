// A worker whose loop is an epoll set, as those of nginx, HAProxy, memcached or libuv are, for the
// mechanisms in which one is. What they have in common is how connections are served. Where they
// come from, the *door*, is each mechanism's own. It is a listener that is shared in some way, or
// the eventfd of a queue that another thread fills.
//
// It is written as a careful server would have it. It is level-triggered, and takes at most
// kTakesPerTurnMax connections for each wake-up. It uses accept4 with its flags instead of fcntl,
// and closes descriptors without removing them from the set first. A worker that has as many
// connections as it may have, or that has run out of descriptors, takes its door out of the set. So
// it neither spins nor keeps others from the door. It puts the door back when one of its
// connections ends. Out of descriptors it does so also after kAcceptPauseNs, because others may
// have freed some.

#ifndef RINGMASTER_BENCH_MECHANISMS_EPOLL_WORKER_H_
#define RINGMASTER_BENCH_MECHANISMS_EPOLL_WORKER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/thread_server.h"
#include "bench/serving.h"

namespace ringmaster::bench {

class EpollWorker {
 public:
  EpollWorker(const EpollWorker&) = delete;
  EpollWorker& operator=(const EpollWorker&) = delete;
  virtual ~EpollWorker();

  // Before the thread starts. `stop_fd` becomes readable when the server stops.
  absl::Status Prepare(int stop_fd);

  // The worker's thread.
  void Run();

 protected:
  struct Door {
    int fd = -1;
    uint32_t events = 0;               // besides EPOLLIN
    int takes_max = kTakesPerTurnMax;  // for each wake-up
    // After so many wake-ups that took something it is taken out of the set and put back. That puts
    // it at the end of the kernel's queue of those who wait. 0: never.
    uint32_t readd_after = 0;
  };

  // The door is borrowed.
  EpollWorker(const ServerOptions& options, uint32_t index, const Door& door);

  // A connection that is non-blocking, or -errno: -EAGAIN when there is none.
  virtual int TakeNext() = 0;

  // Around the call in which it waits. Whether there is something to take, which goes before
  // whatever else has woken it. `by_door`: the door was ready.
  virtual void BeforeWait() {}
  virtual bool AfterWait(bool /*by_door*/) { return false; }

  // Between two requests of a turn: the same.
  virtual bool Offered() { return false; }

  // Called before it begins with one of `ready` connections that have something to do: how many of
  // them are better passed on to other workers. Then `PassOn` does so with each, which is in the
  // set no more, and returns whether somebody else has it now.
  virtual size_t ToPassOn(size_t /*ready*/) { return 0; }
  virtual bool PassOn(int /*fd*/) { return false; }

  // Told to take no more: by default it takes the door out of its set.
  virtual void Leave() { CloseDoor(); }

  // Called when the descriptor of a connection has been closed.
  virtual void OnClosed(int /*fd*/) {}

  // Whether it must not take more now.
  virtual bool Full() const { return serving_.full(); }

  // Takes the door out of the set, for now.
  void CloseDoor();

  Serving& serving() { return serving_; }

 private:
  // What a turn ends with: the door as it must be, and leaving when that has been asked for.
  void Settle();
  bool OpenDoor();
  int TimeoutMs() const;
  void TakeAll();
  void Readd();
  void Take(int fd);
  bool Watch(int fd);
  size_t PassOnSome(std::span<const int> ready);
  void Close(int fd);

  const uint32_t index_;
  const Door door_;
  Serving serving_;
  int stop_fd_ = -1;
  int epoll_fd_ = -1;
  bool door_open_ = false;
  bool left_ = false;
  int64_t resume_ns_ = 0;      // not before this; 0: at any time
  uint64_t taking_wakes_ = 0;  // wake-ups that took something, for Door::readd_after
  std::vector<bool> open_;     // by descriptor
};

class EpollServer : public ThreadServer {
 public:
  ~EpollServer() override { Stop(); }

  // Starts the workers in their order.
  absl::Status Start(std::vector<std::unique_ptr<EpollWorker>> workers);

 protected:
  // Ends and joins all threads, also those that were added.
  void Stop();

 private:
  std::vector<std::unique_ptr<EpollWorker>> workers_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_EPOLL_WORKER_H_
