// The library under test, through its public headers alone: one balancer, one source (or one for
// each of several masters), and for each worker a ring of its own whose loop has one branch more
// than it would have anyway: the doorbell's, or that of a completion that carries a connection.
// With the handoff mailbox the workers have an epoll set instead, as those of most rivals do.
//
// A name says all of it, POLICY/INTAKE/HANDOFF/HOST; what is left out at the end is the library's
// default.

#include <liburing.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/epoll_worker.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/reuseport_listeners.h"
#include "bench/mechanisms/uring_worker.h"
#include "ringmaster/balancer.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/policy.h"
#include "ringmaster/port.h"

namespace ringmaster::bench {
namespace {

// The words of a name after the policy, the default first. A handoff or a host that the library
// learns is added here and to the servers below; a handoff has a worker of its own.
struct IntakeName {
  std::string_view name;
  Intake intake;
};
constexpr IntakeName kIntakes[] = {{"poll-accept", Intake::kPollAccept},
                                   {"accept", Intake::kAccept},
                                   {"readiness", Intake::kReadiness}};
constexpr std::string_view kInbox = "inbox";
constexpr std::string_view kCompletion = "completion";
constexpr std::string_view kMailbox = "mailbox";
constexpr std::string_view kHandoffs[] = {kInbox, kCompletion, kMailbox};
// As the library's Host has them. Several masters are "thread-2" and "thread-4", each with a
// listener of its own.
constexpr std::string_view kThread = "thread";
// The first worker: by a descriptor that its loop watches, or on its own ring.
constexpr std::string_view kLoop = "loop";
constexpr std::string_view kRing = "ring";
constexpr std::string_view kHosts[] = {kThread, "thread-2", "thread-4", kLoop, kRing};
// What they were called once.
constexpr std::pair<std::string_view, std::string_view> kFormerHosts[] = {
    {"dedicated", kThread},
    {"dedicated-2", "thread-2"},
    {"dedicated-4", "thread-4"},
    {"worker", kLoop}};

struct Variant {
  std::string policy;
  IntakeName intake = kIntakes[0];
  std::string_view handoff = kHandoffs[0];
  std::string_view host = kHosts[0];

  bool hosted() const { return host == kLoop || host == kRing; }
  uint32_t masters() const {
    const bool several = host.starts_with(kThread) && host.size() > kThread.size();
    return several ? static_cast<uint32_t>(host.back() - '0') : 1;
  }
  std::string name() const {
    return absl::StrCat(policy, "/", std::string(intake.name), "/", std::string(handoff), "/",
                        std::string(host));
  }
};

absl::Status Unknown(std::string_view what, std::string_view word,
                     const std::vector<std::string>& known) {
  return absl::InvalidArgumentError(absl::StrCat(
      "ringmaster has no ", std::string(what), " \"", std::string(word), "\" here; known are: ",
      absl::StrJoin(known, ", "), " (a name is ringmaster:POLICY/INTAKE/HANDOFF/HOST)"));
}

absl::StatusOr<std::string_view> OneOf(std::span<const std::string_view> known,
                                       std::string_view what, std::string_view word) {
  for (const std::string_view candidate : known) {
    if (candidate == word) return candidate;
  }
  return Unknown(what, word, std::vector<std::string>(known.begin(), known.end()));
}

absl::StatusOr<Variant> ParseVariant(std::string_view name) {
  const std::vector<std::string> words = absl::StrSplit(std::string(name), '/');
  if (words.size() > 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"ringmaster:", std::string(name),
                     "\" has more parts than ringmaster:POLICY/INTAKE/HANDOFF/HOST"));
  }
  const absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(words[0]);
  if (!policy.ok()) return policy.status();
  Variant variant{.policy = (*policy)->name()};
  if (words.size() > 1) {
    std::vector<std::string> known;
    bool found = false;
    for (const IntakeName& intake : kIntakes) {
      known.emplace_back(intake.name);
      if (intake.name != words[1]) continue;
      variant.intake = intake;
      found = true;
    }
    if (!found) return Unknown("intake", words[1], known);
  }
  if (words.size() > 2) {
    const absl::StatusOr<std::string_view> handoff = OneOf(kHandoffs, "handoff", words[2]);
    if (!handoff.ok()) return handoff.status();
    variant.handoff = *handoff;
  }
  if (words.size() > 3) {
    for (const auto& [former, name_now] : kFormerHosts) {
      if (words[3] != former) continue;
      return absl::InvalidArgumentError(absl::StrCat("ringmaster: the host ", words[3],
                                                     " is called ", std::string(name_now), " now"));
    }
    const absl::StatusOr<std::string_view> host = OneOf(kHosts, "host", words[3]);
    if (!host.ok()) return host.status();
    variant.host = *host;
  }
  if (variant.hosted() && variant.handoff == kCompletion) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ringmaster:", variant.name(), ": the host claims, and so do the other workers here; take ",
        "the handoff inbox, or the host thread"));
  }
  if (variant.hosted() && variant.handoff == kMailbox) {
    return absl::InvalidArgumentError(
        absl::StrCat("ringmaster:", variant.name(), ": the host has a ring here, and all workers ",
                     "are alike; take the handoff inbox, or the host thread"));
  }
  if (variant.intake.intake == Intake::kReadiness) {
    const FactsNeeded facts = (*policy)->facts();
    if (facts.incoming_cpu || facts.peer) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ringmaster:", variant.name(), ": the policy decides by facts of a connection, and a ",
          "ticket has none; take the intake poll-accept, or another policy"));
    }
    if (variant.handoff == kCompletion) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ringmaster:", variant.name(), ": the workers here redeem tickets out of their inboxes; ",
          "take the handoff inbox, or the intake poll-accept"));
    }
  }
  return variant;
}

// What the workers of both handoffs do with a connection and its lease.
class RingmasterWorker : public UringWorker {
 public:
  RingmasterWorker(const ServerOptions& options, uint32_t index, Balancer& balancer,
                   std::vector<Source> sources)
      : UringWorker(options, index),
        capacity_(options.workers[index].capacity),
        balancer_(balancer),
        sources_(std::move(sources)) {}

 protected:
  absl::Status Enter(Handoff handoff, uint64_t tag, const JoinOptions& join) {
    absl::StatusOr<Port> port = balancer_.AddWorker(
        {.ring_fd = ring().ring_fd, .handoff = handoff, .tag = tag, .capacity = capacity_});
    if (!port.ok()) return port.status();
    port_ = *std::move(port);
    return JoinAll(join);
  }

  absl::Status EnterOnHost() {
    absl::StatusOr<Port> port = balancer_.AddWorker({.on_host = true, .capacity = capacity_});
    if (!port.ok()) return port.status();
    port_ = *std::move(port);
    return JoinAll({});
  }

  void Serve(Connection connection) {
    const int fd = connection.TakeFd();
    const auto place = static_cast<size_t>(fd);
    if (leases_.size() <= place) leases_.resize(place + 1);
    leases_[place] = connection.TakeLease();
    Take(fd);
  }

  Port& port() { return port_; }

 private:
  absl::Status JoinAll(const JoinOptions& join) {
    absl::Status status;
    for (Source& source : sources_) status.Update(source.Join(port_, join));
    return status;
  }

  void OnClosed(int fd) override { leases_[static_cast<size_t>(fd)].Release(); }

  void Leave() override { port_.Leave(); }

  const uint32_t capacity_;
  Balancer& balancer_;
  std::vector<Source> sources_;
  Port port_;
  std::vector<Lease> leases_;  // by descriptor
};

class InboxWorker : public RingmasterWorker {
 public:
  // One of `running` from its beginning until it needs the master no more.
  InboxWorker(const ServerOptions& options, uint32_t index, Balancer& balancer,
              std::vector<Source> sources, std::atomic<uint32_t>& running)
      : RingmasterWorker(options, index, balancer, std::move(sources)), running_(running) {}

 private:
  static constexpr uint64_t kDoorbell = kOwn;

  absl::Status Begin() override {
    ++running_;
    return Enter(Handoff::kInbox, kDoorbell, {});
  }

  void OnCompletion(const io_uring_cqe&) override {
    doorbell_ = true;
    serving().OnArrival();
  }

  bool OnTurnEnd() override {
    if (!doorbell_) return false;
    doorbell_ = port().Claim([this](Connection connection) { Serve(std::move(connection)); },
                             kTakesPerTurnMax);
    return doorbell_;
  }

  // The balancer must let go of the ring before it is closed.
  void End() override {
    port().Leave();
    --running_;
  }

  std::atomic<uint32_t>& running_;
  bool doorbell_ = false;  // there may be something to claim
};

// The first worker, when it drives the master as well: one more descriptor of its loop, or
// completions of its ring.
class HostingWorker : public RingmasterWorker {
 public:
  // `others` still need the master; `write` gets the last of its counts.
  HostingWorker(const ServerOptions& options, uint32_t index, Balancer& balancer,
                std::vector<Source> sources, bool rides, const std::atomic<uint32_t>& others,
                std::function<void(const BalancerStats&)> write)
      : RingmasterWorker(options, index, balancer, std::move(sources)),
        balancer_(balancer),
        rides_(rides),
        others_(others),
        write_(std::move(write)) {}

 private:
  static constexpr uint64_t kMaster = kOwn;
  static constexpr uint64_t kRiding = uint64_t{0x80} << 56;

  absl::Status Begin() override {
    absl::Status entered = EnterOnHost();
    if (!entered.ok()) return entered;
    if (absl::Status lent = LendRing(); !lent.ok()) return lent;
    if (absl::Status driven = balancer_.RunOnce(); !driven.ok()) return driven;
    WatchMaster();
    return absl::OkStatus();
  }

  void OnCompletion(const io_uring_cqe& completion) override {
    ready_ = true;
    if (rides_) balancer_.OnCompletion(completion);
  }

  bool OnTurnEnd() override {
    if (std::exchange(ready_, false)) {
      balancer_.RunOnce().IgnoreError();
      WatchMaster();  // the poll of a ring is one-shot
      more_ = true;
    }
    if (!more_) return false;
    // On its own ring one at a time, so that the loop comes round to the master between two.
    more_ = port().Claim(
        [this](Connection connection) {
          serving().OnArrival();
          Serve(std::move(connection));
        },
        rides_ ? 1 : kTakesPerTurnMax);
    return more_;
  }

  void End() override {
    while (others_ > 0) {
      WaitForMaster();
      balancer_.RunOnce().IgnoreError();
    }
    port().Leave();
    write_(balancer_.Shutdown(absl::ZeroDuration()).stats);
  }

  absl::Status LendRing() {
    if (!rides_) return absl::OkStatus();
    return balancer_.Lend({.ring_fd = ring().ring_fd,
                           .get_sqe = [this] { return io_uring_get_sqe(&ring()); },
                           .submit = [this] { return serving().call(io_uring_submit, &ring()); },
                           .user_data_mask = uint64_t{0xff} << 56,
                           .user_data_value = kRiding});
  }

  // For a moment, outside of the loop.
  void WaitForMaster() {
    if (!rides_) {
      pollfd master{.fd = balancer_.fd(), .events = POLLIN, .revents = 0};
      poll(&master, 1, 1);
      return;
    }
    io_uring_cqe* completion;
    __kernel_timespec moment{.tv_sec = 0, .tv_nsec = 1'000'000};
    io_uring_submit(&ring());
    if (io_uring_wait_cqe_timeout(&ring(), &completion, &moment) != 0) return;
    balancer_.OnCompletion(*completion);
    io_uring_cqe_seen(&ring(), completion);
  }

  void WatchMaster() {
    if (rides_) return;
    io_uring_sqe* const entry = NextEntry();
    io_uring_prep_poll_add(entry, balancer_.fd(), POLLIN);
    io_uring_sqe_set_data64(entry, kMaster);
  }

  Balancer& balancer_;
  const bool rides_;
  const std::atomic<uint32_t>& others_;
  const std::function<void(const BalancerStats&)> write_;
  bool ready_ = false;  // the master has something to do
  bool more_ = false;   // there may be something to claim
};

class CompletionWorker : public RingmasterWorker {
 public:
  using RingmasterWorker::RingmasterWorker;

 private:
  static constexpr uint64_t kAccepted = kOwn;

  absl::Status Begin() override {
    return Enter(Handoff::kCompletion, kAccepted, {.token = kAccepted});
  }

  void OnCompletion(const io_uring_cqe& completion) override {
    serving().OnArrival();
    Serve(port().Adopt(completion.res));
    ++taken_;
  }

  bool OnTurnEnd() override {
    port().Took(std::exchange(taken_, 0));
    return false;
  }

  // As above; what has been handed over by then and not been looked at is this worker's to close.
  void End() override {
    port().Leave();
    io_uring_get_events(&ring());
    for (io_uring_cqe* completion; io_uring_peek_cqe(&ring(), &completion) == 0;
         io_uring_cqe_seen(&ring(), completion)) {
      if (completion->user_data == kAccepted) close(completion->res);
    }
  }

  size_t taken_ = 0;  // in this turn
};

// One worker of MailboxServer: its door is the mailbox. It claims one after the other, as it would
// accept them; the mailbox stays readable until nothing is left.
class MailboxWorker : public EpollWorker {
 public:
  MailboxWorker(const ServerOptions& options, uint32_t index, Mailbox mailbox, Port port)
      : EpollWorker(options, index, {.fd = mailbox.fd()}),
        mailbox_(std::move(mailbox)),
        port_(std::move(port)) {}

 private:
  int TakeNext() override {
    int fd = -EAGAIN;
    const auto serve = [&](Connection connection) {
      fd = connection.TakeFd();
      const auto place = static_cast<size_t>(fd);
      if (leases_.size() <= place) leases_.resize(place + 1);
      leases_[place] = connection.TakeLease();
    };
    // A ticket may find nothing to accept.
    while (port_.Claim(serve, 1) && fd < 0) continue;
    return fd;
  }

  void OnClosed(int fd) override { leases_[static_cast<size_t>(fd)].Release(); }

  // The balancer knows how many it may have.
  bool Full() const override { return false; }

  void Leave() override {
    CloseDoor();
    port_.Leave();
  }

  const Mailbox mailbox_;
  Port port_;
  std::vector<Lease> leases_;  // by descriptor
};

// The balancer of a server with its sources, and its side of the books.
class Master {
 public:
  explicit Master(ServerBooks* books) : books_(*books) {}
  Master(const Master&) = delete;
  Master& operator=(const Master&) = delete;
  ~Master() {
    for (const int listener : listeners_) close(listener);
  }

  absl::Status Start(const ServerOptions& options, const Variant& variant) {
    rides_ = variant.host == kRing;
    const Host host = rides_ ? Host::kRing : variant.hosted() ? Host::kLoop : Host::kThread;
    absl::StatusOr<std::unique_ptr<Balancer>> balancer =
        Balancer::Create({.host = host, .masters = variant.masters()});
    if (!balancer.ok()) return balancer.status();
    balancer_ = *std::move(balancer);
    sends_connections_ = variant.handoff == kCompletion;
    workers_accept_ = variant.intake.intake == Intake::kReadiness;
    books_.has_master = true;
    if (variant.masters() > 1) {
      absl::StatusOr<std::vector<int>> listeners =
          MakeReusePortListeners(options, variant.masters());
      if (!listeners.ok()) return listeners.status();
      listeners_ = *std::move(listeners);
    }
    for (uint32_t i = 0; i < variant.masters(); ++i) {
      absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(variant.policy);
      if (!policy.ok()) return policy.status();
      absl::StatusOr<Source> source =
          balancer_->AddSource(listeners_.empty() ? options.listen_fd : listeners_[i],
                               {.policy = *std::move(policy), .intake = variant.intake.intake});
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
    for (const WorkerStats& worker : stats.workers) claimed += worker.claimed;
    books_.master.system_calls =
        (rides_ ? 0 : stats.master_wakes) + (workers_accept_ ? claimed : 0);
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
  explicit RingmasterServer(ServerBooks* books) : master_(books) {}
  ~RingmasterServer() override {
    // A host shuts it down itself.
    if (!hosted_) master_.Shutdown();
    Stop();
  }

  absl::Status Start(const ServerOptions& options, const Variant& variant) {
    hosted_ = variant.hosted();
    if (absl::Status status = master_.Start(options, variant); !status.ok()) return status;
    Balancer& balancer = master_.balancer();
    const std::vector<Source>& sources = master_.sources();
    std::vector<std::unique_ptr<UringWorker>> workers;
    for (uint32_t i = 0; i < options.workers.size(); ++i) {
      if (hosted_ && i == 0) {
        workers.push_back(std::make_unique<HostingWorker>(
            options, i, balancer, sources, variant.host == kRing, others_,
            [this](const BalancerStats& stats) { master_.Write(stats); }));
      } else if (variant.handoff == kCompletion) {
        workers.push_back(std::make_unique<CompletionWorker>(options, i, balancer, sources));
      } else {
        workers.push_back(std::make_unique<InboxWorker>(options, i, balancer, sources, others_));
      }
    }
    return UringServer::Start(std::move(workers));
  }

  void WriteBooks() override { master_.WriteBooks(); }

 private:
  Master master_;
  bool hosted_ = false;
  std::atomic<uint32_t> others_{0};  // workers that are not the host
};

// Workers with epoll sets.
class MailboxServer : public EpollServer {
 public:
  explicit MailboxServer(ServerBooks* books) : master_(books) {}
  ~MailboxServer() override {
    master_.Shutdown();
    Stop();
  }

  absl::Status Start(const ServerOptions& options, const Variant& variant) {
    if (absl::Status status = master_.Start(options, variant); !status.ok()) return status;
    std::vector<std::unique_ptr<EpollWorker>> workers;
    for (uint32_t i = 0; i < options.workers.size(); ++i) {
      absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
      if (!mailbox.ok()) return mailbox.status();
      absl::StatusOr<Port> port =
          master_.balancer().AddWorker(*mailbox, {.capacity = options.workers[i].capacity});
      if (!port.ok()) return port.status();
      for (Source source : master_.sources()) {
        if (absl::Status status = source.Join(*port); !status.ok()) return status;
      }
      workers.push_back(
          std::make_unique<MailboxWorker>(options, i, *std::move(mailbox), *std::move(port)));
    }
    return EpollServer::Start(std::move(workers));
  }

  void WriteBooks() override { master_.WriteBooks(); }

 private:
  Master master_;
};

template <typename AnyServer>
absl::StatusOr<std::unique_ptr<Server>> StartServer(const ServerOptions& options,
                                                    const Variant& variant) {
  auto server = std::make_unique<AnyServer>(options.books);
  if (absl::Status status = server->Start(options, variant); !status.ok()) return status;
  return std::unique_ptr<Server>(std::move(server));
}

class Ringmaster : public Mechanism {
 public:
  explicit Ringmaster(Variant variant) : variant_(std::move(variant)) {}

  std::string name() const override { return absl::StrCat("ringmaster:", variant_.name()); }
  std::string summary() const override {
    return absl::StrCat("one ring accepts, the policy ", variant_.policy,
                        " picks the worker's ring");
  }
  bool shares_port() const override { return variant_.masters() > 1; }
  std::string WhyNot(Transport transport) const override {
    if (variant_.masters() > 1) {
      if (std::string why = WhyNoReusePort(transport); !why.empty()) return why;
    }
    // Created and gone before anything is forked.
    const absl::Status status = Balancer::Create().status();
    return status.ok() ? WhyNoWorkerRings() : std::string(status.message());
  }
  absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const override {
    if (variant_.handoff == kMailbox) return StartServer<MailboxServer>(options, variant_);
    return StartServer<RingmasterServer>(options, variant_);
  }

 private:
  const Variant variant_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Mechanism>> MakeRingmaster(std::string_view variant) {
  absl::StatusOr<Variant> parsed = ParseVariant(variant);
  if (!parsed.ok()) return parsed.status();
  return std::make_unique<Ringmaster>(*std::move(parsed));
}

}  // namespace ringmaster::bench
