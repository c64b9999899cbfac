// A worker of the echo server: a thread with a loop of its own that sends back what it receives.
// Which loop is a matter of taste: one on io_uring (uring_loop.cc) or one on epoll (epoll_loop.cc).

#ifndef RINGMASTER_TOOLS_ECHO_WORKER_H_
#define RINGMASTER_TOOLS_ECHO_WORKER_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/balancer.h"
#include "ringmaster/port.h"

namespace ringmaster::echo {

// What a worker's loop is built on.
enum class LoopKind : uint8_t { kUring, kEpoll };

// Tells all workers at once to look at their ports, or to close what is open and to end. It costs
// one descriptor, however many workers there are. Every loop polls the same eventfd, which nobody
// reads, and an eventfd wakes its pollers at every write.
class Control {
 public:
  static absl::StatusOr<std::unique_ptr<Control>> Create();
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  // From any thread. Wakes all workers.
  void Wake();
  void End();

  // From any thread.
  bool ended() const { return ended_.load(std::memory_order_acquire); }

  int fd() const { return fd_; }

 private:
  explicit Control(int fd) : fd_(fd) {}

  const int fd_;
  std::atomic<bool> ended_ = false;  // Release in End, acquire in ended.
};

struct WorkerSetup {
  Balancer* balancer = nullptr;
  std::span<Source> sources;  // one for each master
  const Control* control = nullptr;
  LoopKind loop = LoopKind::kUring;
  Handoff handoff = Handoff::kInbox;
  // Multishot receive, by the loop on io_uring. Off for Unix sockets. There some kernels lose the
  // end of the stream when it follows the last data at once (liburing issue 1549), and a client
  // would wait for ever.
  bool multishot = true;
  // This worker drives the balancer as well (Host::kLoop or kRing), and needs no doorbell itself.
  bool hosts = false;
  // The sources are datagram sockets: what comes are tickets, and no connections.
  bool datagrams = false;
  uint32_t connections_max = 0;
  // Called on a worker's thread: when it has passed on what it was to pass on, and when it has
  // left.
  std::function<void(uint32_t worker, uint32_t connections)> on_passed_on = nullptr;
  std::function<void(uint32_t worker)> on_left = nullptr;
};

// What a worker's thread and the main thread tell each other.
struct WorkerShared {
  std::atomic<uint64_t> bytes_echoed = 0;  // A statistic, tied to nothing else: relaxed.
  // What the worker is asked to do; it looks when the control has woken it, which is an order of
  // its own: relaxed.
  std::atomic<bool> leave = false;      // pass on what is idle, then the rest, and end
  std::atomic<bool> share_out = false;  // pass on what is idle and above its share; it clears this
};

// Owns the thread. Everything that `setup` points to must outlive it.
class Worker {
 public:
  // Starts the thread and returns when it has joined the sources, or failed to.
  static absl::StatusOr<std::unique_ptr<Worker>> Start(const WorkerSetup& setup);

  // Waits.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Waits for the thread, which ends when the control says so, or when the worker has left.
  void Wait();

  // Asks the worker to leave while the others go on, or to pass on what it has above an equal
  // share. What it passes on are connections that are idle, or will be; their clients do not
  // notice. It does so once the control wakes it. A worker that hosts the balancer cannot leave.
  void Leave() { shared_.leave.store(true, std::memory_order_relaxed); }
  void ShareOut() { shared_.share_out.store(true, std::memory_order_relaxed); }

  // Index in the balancer's statistics.
  uint32_t index() const { return index_; }

  // How much it has sent back; final after Wait.
  uint64_t bytes_echoed() const { return shared_.bytes_echoed.load(std::memory_order_relaxed); }

 private:
  Worker() = default;

  uint32_t index_ = 0;
  WorkerShared shared_;
  std::thread thread_;
};

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_WORKER_H_
