#include "bench/mechanisms/ringmaster_workers.h"

#include <liburing.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace ringmaster::bench {
namespace {

// The leases of the connections that are open, by descriptor or slot.
class Leases {
 public:
  // Takes a connection apart; returns its descriptor.
  int Keep(Connection connection) {
    const int fd = connection.TakeFd();
    Keep(fd, connection.TakeLease());
    return fd;
  }

  void Keep(int connection, Lease lease) {
    const auto place = static_cast<size_t>(connection);
    if (leases_.size() <= place) leases_.resize(place + 1);
    leases_[place] = std::move(lease);
  }

  void Release(int fd) { leases_[static_cast<size_t>(fd)].Release(); }

  // Whether others have the connection now. It may go to any source.
  bool PassOn(Source& source, int fd) {
    Lease& lease = leases_[static_cast<size_t>(fd)];
    return source.PassOn(fd, std::move(lease), {.request_waits = true}).ok();
  }

 private:
  std::vector<Lease> leases_;
};

// No worker with a file table has more connections than there are slots for.
uint32_t CapacityOf(const WorkerTraits& traits, const RingmasterName& name) {
  if (!name.has_tables()) return traits.capacity;
  constexpr uint32_t kSlots = std::min(SlotService::kKernelsSlots, SlotService::kOwnSlots);
  return std::min(traits.capacity, kSlots);
}

// What the workers of all handoffs do with a connection and its lease.
class RingmasterWorker : public UringWorker {
 public:
  RingmasterWorker(const ServerOptions& options, uint32_t index, Balancer& balancer,
                   std::vector<Source> sources, const RingmasterName& name)
      : UringWorker(
            options, index,
            name.has_tables() ? ConnectionsAre::kLeasedSlots : ConnectionsAre::kDescriptors),
        capacity_(CapacityOf(options.workers[index], name)),
        hints_(name.hints),
        passes_on_(name.passes_on()),
        balancer_(balancer),
        sources_(std::move(sources)) {}

 protected:
  absl::Status Enter(Handoff handoff, uint64_t tag, const JoinOptions& join) {
    absl::StatusOr<Port> port = balancer_.AddWorker(
        {.ring_fd = ring().ring_fd, .handoff = handoff, .tag = tag, .capacity = capacity_});
    if (!port.ok()) return port.status();
    port_ = *std::move(port);
    if (handoff == Handoff::kInbox) {
      const absl::StatusOr<int> sight = port_.WatchSight();
      if (!sight.ok()) return sight.status();
      sight_ = *sight;
    }
    return JoinAll(join);
  }

  absl::Status EnterOnHost() {
    absl::StatusOr<Port> port = balancer_.AddWorker({.on_host = true, .capacity = capacity_});
    if (!port.ok()) return port.status();
    port_ = *std::move(port);
    return JoinAll({});
  }

  void Serve(Connection connection) {
    const int place = Place(connection.TakeFd());
    if (place >= 0) ServeAt(place, connection.TakeLease());
  }
  void ServeAt(int place, Lease lease) {
    leases_.Keep(place, std::move(lease));
    Take(place);
  }

  Port& port() { return port_; }
  int sight() const { return sight_; }

  void BeforeWait() override {
    if (hints_) port_.BeforeWait();
  }
  // Whether something was offered meanwhile, if it gives hints.
  bool Woke(bool by_port) { return hints_ && port_.AfterWait(by_port); }

 private:
  absl::Status JoinAll(const JoinOptions& join) {
    absl::Status status;
    for (Source& source : sources_) status.Update(source.Join(port_, join));
    return status;
  }

  void OnClosed(int connection) override { leases_.Release(connection); }

  size_t ToPassOn(size_t ready) override { return passes_on_ ? port_.ToPassOn(ready) : 0; }
  bool PassOn(int fd) override { return leases_.PassOn(sources_.front(), fd); }

  void Leave() override { port_.Leave(); }

  const uint32_t capacity_;
  const bool hints_;
  const bool passes_on_;
  Balancer& balancer_;
  std::vector<Source> sources_;
  int sight_ = -1;
  Port port_;
  Leases leases_;
};

class InboxWorker : public RingmasterWorker {
 public:
  InboxWorker(const ServerOptions& options, uint32_t index, Balancer& balancer,
              std::vector<Source> sources, const RingmasterName& name,
              std::atomic<uint32_t>& running)
      : RingmasterWorker(options, index, balancer, std::move(sources), name), running_(running) {}

 private:
  static constexpr uint64_t kDoorbell = kOwn;
  static constexpr uint64_t kSight = kOwn | 1;

  absl::Status Begin() override {
    ++running_;
    if (absl::Status entered = Enter(Handoff::kInbox, kDoorbell, {}); !entered.ok()) return entered;
    WatchSight();
    return absl::OkStatus();
  }

  void WatchSight() {
    io_uring_sqe* const entry = NextEntry();
    io_uring_prep_poll_multishot(entry, sight(), POLLIN);
    io_uring_sqe_set_data64(entry, kSight);
  }

  void OnCompletion(const io_uring_cqe& completion) override {
    const bool of_sight = completion.user_data == kSight;
    if (of_sight && (completion.flags & IORING_CQE_F_MORE) == 0) WatchSight();
    // What the sight has said was claimed right after the wait.
    doorbell_ |= !of_sight || !std::exchange(claimed_, false);
    serving().OnArrival();
  }

  void AfterWait() override {
    claimed_ = false;
    const bool of_sight = OfSight();
    if (!Woke(of_sight)) return;
    Claim();
    claimed_ = of_sight;
  }
  // It may ask at any time whether something was offered.
  void BetweenRequests() override {
    if (Woke(/*by_port=*/false)) Claim();
  }

  // Whether the wait has brought a completion of the sight.
  bool OfSight() {
    io_uring_cqe* completions[kEventsPerTurnMax];
    const unsigned count = io_uring_peek_batch_cqe(&ring(), completions, kEventsPerTurnMax);
    return std::any_of(completions, completions + count, [](const io_uring_cqe* completion) {
      return completion->user_data == kSight;
    });
  }

  bool OnTurnEnd() override {
    if (doorbell_) Claim();
    return doorbell_;
  }

  void Claim() {
    doorbell_ = port().Claim([this](Connection connection) { Serve(std::move(connection)); },
                             kTakesPerTurnMax);
  }

  // The balancer must let go of the ring before it is closed.
  void End() override {
    port().Leave();
    --running_;
  }

  std::atomic<uint32_t>& running_;
  bool doorbell_ = false;  // there may be something to claim
  bool claimed_ = false;   // for the completion of the sight that the wait has brought
};

// The first worker, when it drives the master as well: one more descriptor of its loop, or
// completions of its ring.
class HostingWorker : public RingmasterWorker {
 public:
  HostingWorker(const ServerOptions& options, uint32_t index, Balancer& balancer,
                std::vector<Source> sources, const RingmasterName& name,
                const std::atomic<uint32_t>& others,
                std::function<void(const BalancerStats&)> write)
      : RingmasterWorker(options, index, balancer, std::move(sources), name),
        balancer_(balancer),
        rides_(name.rides()),
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
  CompletionWorker(const ServerOptions& options, uint32_t index, Balancer& balancer,
                   std::vector<Source> sources, const RingmasterName& name)
      : RingmasterWorker(options, index, balancer, std::move(sources), name),
        handoff_(name.installs() ? Handoff::kDirect : Handoff::kCompletion) {}

 private:
  static constexpr uint64_t kAccepted = kOwn;

  absl::Status Begin() override { return Enter(handoff_, kAccepted, {.token = kAccepted}); }

  void AfterWait() override { Woke(/*by_port=*/false); }

  void OnCompletion(const io_uring_cqe& completion) override {
    serving().OnArrival();
    if (handoff_ == Handoff::kDirect) {
      ServeAt(completion.res, port().AdoptSlot());
    } else {
      Serve(port().Adopt(completion.res));
    }
    ++taken_;
  }

  bool OnTurnEnd() override {
    port().Took(std::exchange(taken_, 0));
    return false;
  }

  // As above; what has been handed over by then and not been looked at is this worker's to close.
  // Slots end with the ring.
  void End() override {
    port().Leave();
    if (handoff_ == Handoff::kDirect) return;
    io_uring_get_events(&ring());
    for (io_uring_cqe* completion; io_uring_peek_cqe(&ring(), &completion) == 0;
         io_uring_cqe_seen(&ring(), completion)) {
      if (completion->user_data == kAccepted) close(completion->res);
    }
  }

  const Handoff handoff_;
  size_t taken_ = 0;  // in this turn
};

// A worker with an epoll set: its door is the mailbox. It claims one after the other, as it would
// accept them; the mailbox stays readable until nothing is left.
class MailboxWorker : public EpollWorker {
 public:
  MailboxWorker(const ServerOptions& options, uint32_t index, Mailbox mailbox, Port port,
                Source source, const RingmasterName& name)
      : EpollWorker(options, index, {.fd = mailbox.fd()}),
        hints_(name.hints),
        passes_on_(name.passes_on()),
        mailbox_(std::move(mailbox)),
        port_(std::move(port)),
        source_(std::move(source)) {}

 private:
  void BeforeWait() override {
    if (hints_) port_.BeforeWait();
  }
  bool AfterWait(bool by_door) override {
    was_last_ = false;
    return hints_ && port_.AfterWait(by_door);
  }
  bool Offered() override {
    was_last_ = false;
    return hints_ && port_.AfterWait();
  }

  int TakeNext() override {
    if (std::exchange(was_last_, false)) return -EAGAIN;
    int fd = -EAGAIN;
    const auto serve = [&](Connection connection) { fd = leases_.Keep(std::move(connection)); };
    // A ticket may find nothing to accept.
    bool more = true;
    while (more && fd < 0) more = port_.Claim(serve, 1);
    was_last_ = fd >= 0 && !more;
    return fd;
  }

  void OnClosed(int fd) override { leases_.Release(fd); }

  size_t ToPassOn(size_t ready) override { return passes_on_ ? port_.ToPassOn(ready) : 0; }
  bool PassOn(int fd) override { return leases_.PassOn(source_, fd); }

  // The balancer knows how many it may have.
  bool Full() const override { return false; }

  void Leave() override {
    CloseDoor();
    port_.Leave();
  }

  const bool hints_;
  const bool passes_on_;
  const Mailbox mailbox_;
  Port port_;
  Source source_;
  Leases leases_;
  bool was_last_ = false;  // the connection that was taken last: nothing was left then
};

}  // namespace

std::unique_ptr<UringWorker> MakeInboxWorker(const ServerOptions& options, uint32_t index,
                                             Balancer& balancer, std::vector<Source> sources,
                                             const RingmasterName& name,
                                             std::atomic<uint32_t>& running) {
  return std::make_unique<InboxWorker>(options, index, balancer, std::move(sources), name, running);
}

std::unique_ptr<UringWorker> MakeCompletionWorker(const ServerOptions& options, uint32_t index,
                                                  Balancer& balancer, std::vector<Source> sources,
                                                  const RingmasterName& name) {
  return std::make_unique<CompletionWorker>(options, index, balancer, std::move(sources), name);
}

std::unique_ptr<UringWorker> MakeHostingWorker(const ServerOptions& options, uint32_t index,
                                               Balancer& balancer, std::vector<Source> sources,
                                               const RingmasterName& name,
                                               const std::atomic<uint32_t>& others,
                                               std::function<void(const BalancerStats&)> write) {
  return std::make_unique<HostingWorker>(options, index, balancer, std::move(sources), name, others,
                                         std::move(write));
}

std::unique_ptr<EpollWorker> MakeMailboxWorker(const ServerOptions& options, uint32_t index,
                                               Mailbox mailbox, Port port, Source source,
                                               const RingmasterName& name) {
  return std::make_unique<MailboxWorker>(options, index, std::move(mailbox), std::move(port),
                                         std::move(source), name);
}

}  // namespace ringmaster::bench
