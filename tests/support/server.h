// A small server on the library for tests: worker threads with their own io_uring loops. What is
// done with a connection is the test's choice. By default the worker writes its index as one byte
// and closes, so that a client sees who served it.

#ifndef RINGMASTER_TESTS_SUPPORT_SERVER_H_
#define RINGMASTER_TESTS_SUPPORT_SERVER_H_

#include <liburing.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ringmaster/balancer.h"

namespace ringmaster::testing {

// Why this process cannot use io_uring; empty when it can. For GTEST_SKIP.
std::string WhyNoIoUring();

// A listening socket, closed at the end.
class Listener {
 public:
  // TCP on 127.0.0.1 with a port that the kernel chooses.
  static Listener Tcp(int backlog = 4096);
  // A Unix socket with an abstract name that the kernel chooses.
  static Listener Unix(int backlog = 4096);
  Listener(Listener&& other) noexcept;
  ~Listener();

  int fd() const { return fd_; }
  // A connected blocking client socket, or -errno.
  int Connect() const;
  // A non-blocking client socket that goes on connecting by itself, if it is let; or -errno.
  int ConnectWithoutWaiting() const;

 private:
  int Connect(int flags) const;
  explicit Listener(int fd) : fd_(fd) {}
  int fd_;
};

// An io_uring loop on a thread of its own. It claims when the doorbell arrives. It adopts and takes
// what is handed to it as a completion under a token from kTokens on, until it is stopped.
class Worker {
 public:
  static constexpr uint64_t kTokens = 1'000'000;

  using Serve = std::function<void(uint32_t worker, Connection connection)>;

  // Called on the worker's thread once the ring is there: AddWorker and Join.
  using SetUp = std::function<absl::StatusOr<Port>(int ring_fd, uint64_t tag)>;

  Worker(SetUp set_up, Serve serve);
  // Stops, which leaves the balancer, and joins the thread.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void Stop();
  // Ends the thread without leaving, as a thread that dies; the port is kept until destruction.
  void Die();
  // Ends the current wait, so that the loop claims although nothing was offered.
  void Poke();
  // The port, for calls that another thread may make.
  Port& port() { return port_; }

  uint32_t index() const { return index_; }
  // Connections claimed and doorbells received.
  uint64_t claimed() const { return claimed_.load(); }
  uint64_t wakes() const { return wakes_.load(); }

 private:
  void Run(const SetUp& set_up);
  void ServeWhatIsLeft(const std::function<void(Connection)>& serve);
  void Send(uint64_t tag);

  Serve serve_;
  io_uring ring_;
  Port port_;
  std::vector<std::pair<int, uint64_t>> handed_;  // descriptors and tokens of one turn
  uint32_t index_ = 0;
  std::atomic<bool> ready_{false};
  std::atomic<uint64_t> claimed_{0};
  std::atomic<uint64_t> wakes_{0};
  // What a thread did before it told this one happens before this one hears of it. A ring's
  // completion orders the two, but the thread sanitizer does not see through the kernel. So this
  // does it, too.
  std::atomic<uint64_t> told_{0};
  bool stopped_ = false;
  std::thread thread_;
};

// Writes `worker` as one byte and closes.
void ServeIndex(uint32_t worker, Connection connection);

// Connects, reads to the end and closes. The index that ServeIndex wrote, or -errno; -EPIPE when
// the connection ended without a byte.
int AskWhoServes(const Listener& listener);

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_SUPPORT_SERVER_H_
