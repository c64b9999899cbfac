// Every worker blocks in accept on the one listener. It serves the connection that it gets to its
// end, by blocking calls as well, and comes back for the next. The kernel wakes the thread that has
// waited longest, so an idle server takes turns. A worker that is slow is not in accept and gets
// nothing.
//
// What its real-world counterparts do: Apache's prefork children and those of php-fpm serve one
// connection at a time like this. So does unicorn, which waits by epoll or select first. Nothing is
// quieter or fairer, as long as there are as many threads as connections. A connection that stays
// open occupies its worker. So such servers stand behind a proxy that keeps idle connections away
// from them. Workloads that hold connections open are therefore not asked of it.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <ctime>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "bench/clock.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/serving.h"

namespace ringmaster::bench {
namespace {

class Worker {
 public:
  Worker(const ServerOptions& options, uint32_t index, const std::atomic<bool>& stop)
      : listen_fd_(options.listen_fd), index_(index), stop_(stop), serving_(options, index) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The worker's thread.
  void Run() {
    NameWorkerThread(index_);
    while (!stop_ && !serving_.leaves()) {
      const int fd = serving_.call(accept4, listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
      const int error = errno;
      serving_.OnWake();
      serving_.OnArrival();
      if (fd >= 0) serving_.OnTaken();
      serving_.OnTurnEnd();
      if (fd >= 0) {
        Serve(fd);
      } else if (MeansShortage(error)) {
        const timespec pause{.tv_sec = 0, .tv_nsec = kAcceptPauseNs};
        nanosleep(&pause, nullptr);
      }
    }
    stop_.wait(false);  // one that has left is still there
    serving_.OnEnd();
  }

  // Ends the connection that is being served, from another thread, after `stop` was set.
  void Interrupt() {
    if (const int fd = fd_; fd >= 0) shutdown(fd, SHUT_RDWR);
  }

 private:
  void Serve(int fd) {
    // Either this thread sees `stop_`, or who has set it sees the descriptor. Should the descriptor
    // be another connection's by then, that one is to end as well.
    fd_ = fd;
    Serving::Next next = Serving::Next::kWait;
    while (!stop_ && next == Serving::Next::kWait) {
      // The wait is within: recv blocks.
      serving_.OnWake();
      next = serving_.OnReadable(fd);
      serving_.OnTurnEnd();
    }
    fd_ = -1;
    serving_.Close(fd);
  }

  const int listen_fd_;
  const uint32_t index_;
  const std::atomic<bool>& stop_;
  Serving serving_;
  std::atomic<int> fd_{-1};
};

class BlockingServer : public Server {
 public:
  explicit BlockingServer(int listen_fd) : listen_fd_(listen_fd) {}
  BlockingServer(const BlockingServer&) = delete;
  BlockingServer& operator=(const BlockingServer&) = delete;
  ~BlockingServer() override {
    stop_ = true;
    stop_.notify_all();
    // Who waits in accept gets EINVAL.
    shutdown(listen_fd_, SHUT_RDWR);
    for (const auto& worker : workers_) worker->Interrupt();
    for (std::thread& thread : threads_) thread.join();
  }

  absl::Status Start(const ServerOptions& options) {
    const int flags = fcntl(listen_fd_, F_GETFL);
    if (flags < 0 || fcntl(listen_fd_, F_SETFL, flags & ~O_NONBLOCK) != 0) {
      return absl::ErrnoToStatus(errno, "cannot make the listener blocking");
    }
    for (uint32_t i = 0; i < options.workers.size(); ++i) {
      workers_.push_back(std::make_unique<Worker>(options, i, stop_));
      threads_.emplace_back(&Worker::Run, workers_.back().get());
    }
    return absl::OkStatus();
  }

 private:
  const int listen_fd_;
  std::atomic<bool> stop_{false};
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
};

class BlockingAccept : public Mechanism {
 public:
  std::string name() const override { return "blocking-accept"; }
  std::string summary() const override {
    return "each worker blocks in accept and serves one connection at a time";
  }
  bool serves_one_at_a_time() const override { return true; }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    auto server = std::make_unique<BlockingServer>(options.listen_fd);
    if (absl::Status status = server->Start(options); !status.ok()) return status;
    return std::unique_ptr<Server>(std::move(server));
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeBlockingAccept() { return std::make_unique<BlockingAccept>(); }

}  // namespace ringmaster::bench
