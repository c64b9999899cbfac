// The library under test, through its public headers alone. There is one balancer with one source,
// or with one for each of several masters. The loops of its workers have one branch more than they
// would have anyway: the doorbell's, or that of a completion that carries a connection. With the
// handoff mailbox the workers have an epoll set instead of a ring, as those of most rivals do. With
// three other handoffs they serve from the file tables of their rings, see ringmaster_name.h.

#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/epoll_worker.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/reuseport_listeners.h"
#include "bench/mechanisms/ringmaster_name.h"
#include "bench/mechanisms/ringmaster_workers.h"
#include "bench/mechanisms/uring_worker.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/policy.h"
#include "ringmaster/port.h"

namespace ringmaster::bench {
namespace {

// What a worker calls for each connection that it accepts by a permit: fcntl, accept4, getsockopt,
// and epoll_ctl twice.
constexpr uint64_t kCallsByPermit = 5;

// The balancer of a server with its sources, and its side of the books.
class MeasuredBalancer {
 public:
  explicit MeasuredBalancer(ServerBooks* books) : books_(*books) {}
  MeasuredBalancer(const MeasuredBalancer&) = delete;
  MeasuredBalancer& operator=(const MeasuredBalancer&) = delete;
  ~MeasuredBalancer() {
    for (const int listener : listeners_) close(listener);
  }

  absl::Status Start(const ServerOptions& options, const RingmasterName& name) {
    rides_ = name.rides();
    const Host host = rides_ ? Host::kRing : name.hosted() ? Host::kLoop : Host::kThread;
    absl::StatusOr<std::unique_ptr<Balancer>> balancer =
        Balancer::Create({.host = host, .masters = name.masters()});
    if (!balancer.ok()) return balancer.status();
    balancer_ = *std::move(balancer);
    sends_connections_ = name.hands_over();
    workers_accept_ = name.intake == Intake::kReadiness;
    books_.has_master = true;
    if (name.masters() > 1) {
      absl::StatusOr<std::vector<int>> listeners = MakeReusePortListeners(options, name.masters());
      if (!listeners.ok()) return listeners.status();
      listeners_ = *std::move(listeners);
    }
    for (uint32_t i = 0; i < name.masters(); ++i) {
      absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(name.policy);
      if (!policy.ok()) return policy.status();
      absl::StatusOr<Source> source = balancer_->AddSource(
          listeners_.empty() ? options.listen_fd : listeners_[i],
          {.policy = *std::move(policy), .intake = name.intake, .permits = !name.dealt});
      if (!source.ok()) return source.status();
      sources_.push_back(*std::move(source));
    }
    return absl::OkStatus();
  }

  Balancer& balancer() { return *balancer_; }
  const std::vector<Source>& sources() const { return sources_; }

  // Ends the balancer, if it has begun.
  void Shutdown() {
    if (balancer_ != nullptr) Write(balancer_->Shutdown(absl::ZeroDuration()).stats);
  }

  // Asking wakes the master once.
  void WriteBooks() { Write(balancer_->Stats()); }

  void Write(const BalancerStats& stats) {
    // A connection that is handed over as a completion is a message of its own, and needs no other.
    const auto messages = [this](const WorkerStats& worker) {
      return worker.doorbells + (sends_connections_ ? worker.claimed : 0);
    };
    uint64_t doorbells = messages(stats.departed);
    for (const WorkerStats& worker : stats.workers) doorbells += messages(worker);
    books_.master.doorbells = doorbells;
    // Of a master that a worker hosts, these are its looks; its wake-ups are that worker's.
    books_.master.wakes = stats.master_wakes;
    // See calls.h; one that rides has none but those that its worker counts. A worker that redeems
    // a ticket accepts by a system call of its own.
    uint64_t claimed = stats.departed.claimed;
    uint64_t by_permit = stats.departed.by_permit;
    for (const WorkerStats& worker : stats.workers) {
      claimed += worker.claimed;
      by_permit += worker.by_permit;
    }
    books_.master.system_calls = (rides_ ? 0 : stats.master_wakes) +
                                 (workers_accept_ ? claimed : 0) + kCallsByPermit * by_permit;
    books_.recalled = static_cast<int64_t>(stats.recalled);
  }

 private:
  ServerBooks& books_;
  std::vector<int> listeners_;  // one for each of several masters
  std::unique_ptr<Balancer> balancer_;
  std::vector<Source> sources_;
  bool sends_connections_ = false;  // rather than doorbells
  bool workers_accept_ = false;
  bool rides_ = false;
};

// Workers with rings.
class RingmasterServer : public UringServer {
 public:
  explicit RingmasterServer(ServerBooks* books) : measured_(books) {}
  ~RingmasterServer() override {
    // A host shuts it down itself.
    if (!hosted_) measured_.Shutdown();
    Stop();
  }

  absl::Status Start(const ServerOptions& options, const RingmasterName& name) {
    hosted_ = name.hosted();
    if (absl::Status status = measured_.Start(options, name); !status.ok()) return status;
    Balancer& balancer = measured_.balancer();
    const std::vector<Source>& sources = measured_.sources();
    std::vector<std::unique_ptr<UringWorker>> workers;
    for (uint32_t i = 0; i < options.workers.size(); ++i) {
      if (hosted_ && i == 0) {
        workers.push_back(
            MakeHostingWorker(options, i, balancer, sources, name, others_,
                              [this](const BalancerStats& stats) { measured_.Write(stats); }));
      } else if (name.hands_over()) {
        workers.push_back(MakeCompletionWorker(options, i, balancer, sources, name));
      } else {
        workers.push_back(MakeInboxWorker(options, i, balancer, sources, name, others_));
      }
    }
    return UringServer::Start(std::move(workers));
  }

  void WriteBooks() override { measured_.WriteBooks(); }

 private:
  MeasuredBalancer measured_;
  bool hosted_ = false;
  std::atomic<uint32_t> others_{0};  // workers that are not the host
};

// Workers with epoll sets.
class MailboxServer : public EpollServer {
 public:
  explicit MailboxServer(ServerBooks* books) : measured_(books) {}
  ~MailboxServer() override {
    measured_.Shutdown();
    Stop();
  }

  absl::Status Start(const ServerOptions& options, const RingmasterName& name) {
    if (absl::Status status = measured_.Start(options, name); !status.ok()) return status;
    std::vector<std::unique_ptr<EpollWorker>> workers;
    for (uint32_t i = 0; i < options.workers.size(); ++i) {
      absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
      if (!mailbox.ok()) return mailbox.status();
      absl::StatusOr<Port> port =
          measured_.balancer().AddWorker(*mailbox, {.capacity = options.workers[i].capacity});
      if (!port.ok()) return port.status();
      for (Source source : measured_.sources()) {
        if (absl::Status status = source.Join(*port); !status.ok()) return status;
      }
      workers.push_back(MakeMailboxWorker(options, i, *std::move(mailbox), *std::move(port),
                                          measured_.sources().front(), name));
    }
    return EpollServer::Start(std::move(workers));
  }

  void WriteBooks() override { measured_.WriteBooks(); }

 private:
  MeasuredBalancer measured_;
};

template <typename AnyServer>
absl::StatusOr<std::unique_ptr<Server>> StartServer(const ServerOptions& options,
                                                    const RingmasterName& name) {
  auto server = std::make_unique<AnyServer>(options.books);
  if (absl::Status status = server->Start(options, name); !status.ok()) return status;
  return std::unique_ptr<Server>(std::move(server));
}

class Ringmaster : public Mechanism {
 public:
  explicit Ringmaster(RingmasterName name) : name_(std::move(name)) {}

  std::string name() const override { return absl::StrCat("ringmaster:", name_.text()); }
  std::string summary() const override {
    return absl::StrCat("one ring accepts, the policy ", name_.policy, " picks the worker's ring",
                        name_.installs()     ? " and installs the connection in its file table"
                        : name_.has_tables() ? ", whose worker registers the connection there"
                                             : "");
  }
  bool shares_port() const override { return name_.masters() > 1; }
  bool takes_descriptors() const override { return !name_.has_tables(); }
  std::string WhyNot(Transport transport) const override {
    if (name_.masters() > 1) {
      if (std::string why = WhyNoReusePort(transport); !why.empty()) return why;
    }
    // Created and gone before anything is forked.
    const absl::StatusOr<std::unique_ptr<Balancer>> balancer = Balancer::Create();
    if (!balancer.ok()) return std::string(balancer.status().message());
    if (!name_.has_tables()) return WhyNoWorkerRings();
    return WhyNoWorkerTables([&](const io_uring& ring) {
      if (!name_.installs()) return absl::OkStatus();
      return (*balancer)
          ->AddWorker({.ring_fd = ring.ring_fd, .handoff = Handoff::kDirect})
          .status();
    });
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    if (name_.has_mailboxes()) return StartServer<MailboxServer>(options, name_);
    return StartServer<RingmasterServer>(options, name_);
  }

 private:
  const RingmasterName name_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Mechanism>> MakeRingmaster(std::string_view variant) {
  absl::StatusOr<RingmasterName> name = ParseRingmasterName(variant);
  if (!name.ok()) return name.status();
  return std::make_unique<Ringmaster>(*std::move(name));
}

}  // namespace ringmaster::bench
