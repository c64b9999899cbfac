// A server whose threads stop together, when a descriptor becomes readable.

#ifndef RINGMASTER_BENCH_MECHANISMS_THREAD_SERVER_H_
#define RINGMASTER_BENCH_MECHANISMS_THREAD_SERVER_H_

#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "bench/mechanism.h"

namespace ringmaster::bench {

class ThreadServer : public Server {
 public:
  ThreadServer() = default;
  ThreadServer(const ThreadServer&) = delete;
  ThreadServer& operator=(const ThreadServer&) = delete;

 protected:
  // Makes the descriptor that the threads watch, if there is none yet.
  absl::Status MakeStopFd();
  int stop_fd() const { return stop_fd_; }

  std::vector<std::thread>& threads() { return threads_; }

  // Tells all threads to end, and joins them. Call it before what they use is destroyed.
  void StopThreads();

 private:
  int stop_fd_ = -1;
  std::vector<std::thread> threads_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_THREAD_SERVER_H_
