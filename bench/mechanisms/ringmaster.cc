// The library under test, through its public headers alone: one balancer, one source, and for each
// worker a ring of its own whose loop has one branch more than it would have anyway, the
// doorbell's.

#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/serving.h"
#include "ringmaster/balancer.h"
#include "ringmaster/policy.h"
#include "ringmaster/port.h"

namespace ringmaster::bench {
namespace {

// user_data on a worker's ring: a connection's is its descriptor, which never is as large as these.
constexpr uint64_t kDoorbell = uint64_t{1} << 32;
constexpr uint64_t kStop = kDoorbell + 1;

constexpr uint32_t kSubmissionEntries = 256;
constexpr uint32_t kCompletionEntries = 4096;

class Worker {
 public:
  Worker(const ServerOptions& options, uint32_t index)
      : index_(index), serving_(options.workers[index], options.books->workers[index]) {}
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The worker's thread. Says by `ready` whether it takes part. Closes its ring when it ends.
  void Run(Balancer& balancer, Source source, int stop_fd, std::promise<absl::Status> ready) {
    NameWorkerThread(index_);
    // The ring is made by the thread that uses it, as DEFER_TASKRUN asks.
    io_uring_params params{};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                   IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
    params.cq_entries = kCompletionEntries;
    const int result = io_uring_queue_init_params(kSubmissionEntries, &ring_, &params);
    if (result < 0) {
      ready.set_value(absl::ErrnoToStatus(
          -result,
          "cannot make a worker's io_uring with SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1); the "
          "limit of locked memory or of descriptors may be too low: ulimit -l, ulimit -n"));
      return;
    }
    absl::Status status = Join(balancer, source);
    const bool joined = status.ok();
    if (joined) Watch(stop_fd, kStop);
    ready.set_value(std::move(status));
    if (joined) Loop();
    // The balancer must let go of the ring before it is closed, and requests on connections end
    // with the ring, so the connections go last.
    port_.Leave();
    io_uring_queue_exit(&ring_);
    connections_.clear();
    serving_.OnEnd();
  }

 private:
  absl::Status Join(Balancer& balancer, Source source) {
    absl::StatusOr<Port> port = balancer.AddWorker({.ring_fd = ring_.ring_fd, .tag = kDoorbell});
    if (!port.ok()) return port.status();
    port_ = *std::move(port);
    return source.Join(port_);
  }

  void Loop() {
    bool stop = false;
    bool offers_left = false;
    while (!stop) {
      // Submits the polls of new connections and waits, in one call. A negative result is EINTR or
      // passes as soon as completions are taken.
      if (offers_left) {
        io_uring_submit_and_get_events(&ring_);
      } else {
        io_uring_submit_and_wait(&ring_, 1);
      }
      bool doorbell = offers_left;
      io_uring_cqe* completions[kEventsPerTurnMax];
      const unsigned count = io_uring_peek_batch_cqe(&ring_, completions, kEventsPerTurnMax);
      for (unsigned i = 0; i < count; ++i) {
        const uint64_t data = completions[i]->user_data;
        if (data == kDoorbell) {
          doorbell = true;
        } else if (data == kStop) {
          stop = true;
        } else {
          Serve(static_cast<size_t>(data));
        }
      }
      io_uring_cq_advance(&ring_, count);
      if (!doorbell) continue;
      offers_left = port_.Claim([this](Connection connection) { Take(std::move(connection)); },
                                kTakesPerTurnMax);
    }
  }

  void Take(Connection connection) {
    serving_.OnTaken();
    if (Serving::OnReadable(connection.fd()) == Serving::Next::kClose) return;
    const auto fd = static_cast<size_t>(connection.fd());
    if (connections_.size() <= fd) connections_.resize(fd + 1);
    connections_[fd] = std::move(connection);
    Watch(static_cast<int>(fd), fd);
  }

  void Serve(size_t fd) {
    if (Serving::OnReadable(static_cast<int>(fd)) == Serving::Next::kClose) {
      connections_[fd] = Connection();  // closes, then releases the lease
    } else {
      Watch(static_cast<int>(fd), fd);
    }
  }

  void Watch(int fd, uint64_t data) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    while (sqe == nullptr) {
      io_uring_submit(&ring_);
      sqe = io_uring_get_sqe(&ring_);
    }
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    io_uring_sqe_set_data64(sqe, data);
  }

  const uint32_t index_;
  Serving serving_;
  io_uring ring_{};
  Port port_;
  std::vector<Connection> connections_;  // by descriptor
};

class RingmasterServer : public Server {
 public:
  explicit RingmasterServer(ServerBooks* books) : books_(books) {}
  RingmasterServer(const RingmasterServer&) = delete;
  RingmasterServer& operator=(const RingmasterServer&) = delete;
  ~RingmasterServer() override {
    if (balancer_ != nullptr) WriteBooks(balancer_->Shutdown(absl::ZeroDuration()).stats);
    // Nobody reads it, so it stays readable until all have seen it.
    if (stop_fd_ >= 0) eventfd_write(stop_fd_, 1);
    for (std::thread& thread : threads_) thread.join();
    if (stop_fd_ >= 0) close(stop_fd_);
  }

  absl::Status Start(const ServerOptions& options, std::unique_ptr<Policy> policy) {
    stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd_ < 0) return absl::ErrnoToStatus(errno, "cannot make an eventfd");
    absl::StatusOr<std::unique_ptr<Balancer>> balancer = Balancer::Create();
    if (!balancer.ok()) return balancer.status();
    balancer_ = *std::move(balancer);
    absl::StatusOr<Source> source =
        balancer_->AddSource(options.listen_fd, {.policy = std::move(policy)});
    if (!source.ok()) return source.status();
    for (uint32_t i = 0; i < options.workers.size(); ++i) {
      workers_.push_back(std::make_unique<Worker>(options, i));
      std::promise<absl::Status> ready;
      std::future<absl::Status> joined = ready.get_future();
      threads_.emplace_back(&Worker::Run, workers_.back().get(), std::ref(*balancer_), *source,
                            stop_fd_, std::move(ready));
      // One after the other, so that the balancer counts the workers as we do.
      if (absl::Status status = joined.get(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  void WriteBooks(const BalancerStats& stats) {
    books_->recalled = static_cast<int64_t>(stats.recalled);
    books_->master_wakes = static_cast<int64_t>(stats.master_wakes);
    books_->doorbells = 0;
    for (const WorkerStats& worker : stats.workers) {
      books_->doorbells += static_cast<int64_t>(worker.doorbells);
    }
  }

  ServerBooks* const books_;
  int stop_fd_ = -1;
  std::unique_ptr<Balancer> balancer_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
};

class Ringmaster : public Mechanism {
 public:
  explicit Ringmaster(std::string policy) : policy_(std::move(policy)) {}

  std::string name() const override { return absl::StrCat("ringmaster:", policy_); }
  std::string summary() const override {
    return absl::StrCat("one ring accepts, the policy ", policy_, " picks the worker's ring");
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(policy_);
    if (!policy.ok()) return policy.status();
    auto server = std::make_unique<RingmasterServer>(options.books);
    if (absl::Status status = server->Start(options, *std::move(policy)); !status.ok()) {
      return status;
    }
    return std::unique_ptr<Server>(std::move(server));
  }

 private:
  const std::string policy_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Mechanism>> MakeRingmaster(std::string_view policy) {
  if (absl::StatusOr<std::unique_ptr<Policy>> made = PolicyByName(policy); !made.ok()) {
    return made.status();
  }
  return std::make_unique<Ringmaster>(std::string(policy));
}

}  // namespace ringmaster::bench
