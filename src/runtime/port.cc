#include "ringmaster/port.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <utility>

#include "core/claim.h"
#include "core/inbox.h"
#include "core/op.h"
#include "ring/errors.h"
#include "ring/translate.h"
#include "runtime/balancer_impl.h"
#include "runtime/mailbox_shared.h"
#include "runtime/permit_claims.h"
#include "runtime/redeeming.h"
#include "runtime/refusals.h"
#include "runtime/shared.h"

namespace ringmaster {

namespace {

void NoteCpu(core::PortState& state) {
  if (const int cpu = sched_getcpu(); cpu != state.cpu.load(std::memory_order_relaxed)) {
    state.cpu.store(cpu, std::memory_order_relaxed);
  }
}

// One claim, while it lasts. If a callback throws, the port is as after a claim that has stopped
// early, and a mailbox stays readable.
class Claiming {
 public:
  explicit Claiming(internal::PortShared& shared) : shared_(shared) {}
  ~Claiming() {
    if (shared_.claimer.under_way()) {
      shared_.claimer.End();
      shared_.balancer->KnockIfHungry();
      internal::VisitHungryDesks(*shared_.balancer);
    }
    if (shared_.left_in_claim) shared_.Unref();  // the holder was the port, which has left
  }
  Claiming(const Claiming&) = delete;
  Claiming& operator=(const Claiming&) = delete;

  // From now on the worker does not wait. Does nothing the second time.
  void Start() {
    if (shared_.claimer.under_way()) return;
    shared_.claimer.Start(shared_.on_host);
    if (shared_.state.SaysItWaits()) shared_.state.SayBusy();
  }
  // The same, for what it was offered.
  void StartOffers() {
    const bool said_it_waits = !shared_.claimer.under_way() && shared_.state.SaysItWaits();
    Start();
    // Rule "busy" of core/desk.h: it may have got a permit since it looked for any.
    if (said_it_waits && internal::HasPermits(shared_)) internal::VisitOwnDesks(shared_);
  }
  void End() {
    shared_.claimer.End();
    if (shared_.claimer.KnocksAtEnd()) shared_.balancer->KnockIfHungry();
    // A worker that gives hints does not wait yet.
    if (!shared_.state.Hints()) internal::VisitHungryDesks(*shared_.balancer);
  }

 private:
  internal::PortShared& shared_;
};

void Redeem(Ticket ticket, uint32_t traits, absl::FunctionRef<void(Connection)> serve,
            absl::FunctionRef<void(Ticket)>* redeem) {
  if (redeem != nullptr) return (*redeem)(std::move(ticket));
  if ((traits & internal::kAccepts) == 0) return ticket.Again();
  Connection connection = ticket.Accept();
  if (connection.fd() >= 0) serve(std::move(connection));
}

// Whether a connection waits for the worker's permits.
bool SightShows(const internal::PortShared& shared) {
  const int fd = shared.mailbox != nullptr ? shared.mailbox->fd() : shared.sight.get();
  pollfd sight{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&sight, 1, 0) == 1;
}

absl::Status NotJoined() {
  return absl::FailedPreconditionError(
      "the port has left or was never added: see Balancer::AddWorker");
}

}  // namespace

void Lease::Release() {
  internal::PortShared* shared = std::exchange(shared_, nullptr);
  if (shared == nullptr) return;
  const bool wanted = shared->ReleasePlace(gate_);
  shared->balancer->KnockAfterLease();
  if (wanted) internal::ShowWaiter(*shared->balancer);
  shared->Unref();
}

Connection& Connection::operator=(Connection&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    token_ = other.token_;
    lease_ = std::move(other.lease_);
  }
  return *this;
}

Connection::~Connection() {
  if (fd_ >= 0) close(fd_);
}

Port::Port(Port&& other) noexcept
    : shared_(std::exchange(other.shared_, nullptr)),
      balancer_(std::move(other.balancer_)),
      worker_(other.worker_) {}

Port& Port::operator=(Port&& other) noexcept {
  if (this != &other) {
    Leave();
    shared_ = std::exchange(other.shared_, nullptr);
    balancer_ = std::move(other.balancer_);
    worker_ = other.worker_;
  }
  return *this;
}

Port::~Port() { Leave(); }

Ticket::Ticket(internal::PortShared* shared, internal::Channel& channel, uint32_t source,
               uint32_t traits, uint32_t events)
    : shared_(shared),
      master_(channel.master),
      source_(source),
      traits_(traits),
      events_(events),
      fd_(master_->source(source).fd.load(std::memory_order_relaxed)),
      gate_(master_->source(source).limit()),
      serial_(master_->source(source).identity.serial()),
      token_(channel.tokens[source].load(std::memory_order_relaxed)) {
  shared_->tickets.fetch_add(1, std::memory_order_relaxed);
}

Ticket::Ticket(Ticket&& other) noexcept
    : shared_(std::exchange(other.shared_, nullptr)),
      master_(other.master_),
      has_place_(other.has_place_),
      gave_up_(other.gave_up_),
      source_(other.source_),
      traits_(other.traits_),
      events_(other.events_),
      fd_(other.fd_),
      gate_(other.gate_),
      serial_(other.serial_),
      token_(other.token_) {}

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  std::swap(shared_, other.shared_);
  std::swap(master_, other.master_);
  std::swap(has_place_, other.has_place_);
  std::swap(gave_up_, other.gave_up_);
  source_ = other.source_;
  traits_ = other.traits_;
  events_ = other.events_;
  fd_ = other.fd_;
  std::swap(gate_, other.gate_);
  serial_ = other.serial_;
  token_ = other.token_;
  return *this;
}

Ticket::~Ticket() {
  if (shared_ == nullptr) return;
  // A worker that uses the descriptor without Accept, and gives no reason by Again, has had no
  // trouble.
  if (has_place_ && !gave_up_) master_->SayRedeemed(source_, serial_);
  const bool wanted = has_place_ && shared_->ReleasePlace(gate_);
  shared_->tickets.fetch_sub(1, std::memory_order_seq_cst);
  // Not as after a lease, because a ticket has no descriptor of its own.
  shared_->balancer->KnockIfHungry();
  if (wanted) internal::ShowWaiter(*shared_->balancer);
  shared_->Unref();
}

void Ticket::Again(int error) const {
  if (shared_ == nullptr) return;
  gave_up_ |= error != 0;
  master_->GiveBack(source_, serial_, error);
}

Connection Ticket::Accept() {
  if (shared_ == nullptr || !shared_->balancer->ours()) return {};
  const internal::Redeeming redeeming(shared_->state);
  if (!master_->source(source_).identity.Is(serial_)) return {};  // it is late
  // The source was non-blocking when it was added. But O_NONBLOCK belongs to the open file, and
  // another process may share that and change it.
  if ((fcntl(fd_, F_GETFL) & O_NONBLOCK) == 0) {
    Again(core::kWouldWait);
    return {};
  }
  while (true) {
    const int fd = accept4(fd_, nullptr, nullptr,
                           ((traits_ & internal::kAcceptsNonBlocking) != 0 ? SOCK_NONBLOCK : 0) |
                               ((traits_ & internal::kAcceptsCloseOnExec) != 0 ? SOCK_CLOEXEC : 0));
    if (fd >= 0) {
      // If the source's connections cannot be counted, one ticket stands for all of them.
      pollfd more{.fd = fd_, .events = POLLIN, .revents = 0};
      if ((traits_ & internal::kCountable) == 0 && poll(&more, 1, 0) == 1) Again();
      master_->SayRedeemed(source_, serial_);
      if (!std::exchange(has_place_, false)) {
        shared_->TakePlace();
        if (gate_ != nullptr) gate_->ForceReserve();
      }
      shared_->Ref();
      return Connection(fd, token_, Lease(shared_, gate_));
    }
    switch (errno) {
      case EAGAIN:
        if (master_->source(source_).given_back.Asked()) Again(EAGAIN);
        return {};
      case EINTR:
        continue;
      default:
        Again(errno);
        return {};
    }
  }
}

bool Port::Claim(absl::FunctionRef<void(Connection)> serve, size_t connections_max) {
  return ClaimEach(serve, nullptr, connections_max);
}

bool Port::Claim(absl::FunctionRef<void(Connection)> serve, absl::FunctionRef<void(Ticket)> redeem,
                 size_t arrivals_max) {
  return ClaimEach(serve, &redeem, arrivals_max);
}

bool Port::ClaimEach(absl::FunctionRef<void(Connection)> serve,
                     absl::FunctionRef<void(Ticket)>* redeem, size_t arrivals_max) {
  if (shared_ == nullptr || shared_->claimer.under_way()) return false;
  internal::PortShared& shared = *shared_;
  if (shared.relief.measuring()) shared.relief.Interrupt(ring::NowNs());
  Claiming claiming(shared);
  // A callback may make this port leave, or move or destroy it. So nothing is asked of `this`
  // afterwards.
  const std::shared_ptr<internal::BalancerImpl> driven = shared.on_host ? balancer_ : nullptr;
  bool more = false;
  bool idle = true;  // nothing was found so far
  const auto accept_by_permits = [&] {
    if (!internal::HasPermits(shared)) return;
    more = internal::AcceptByPermits(
        shared, arrivals_max,
        [&] {
          idle = false;
          claiming.Start();
        },
        [&](internal::AcceptedByPermit accepted) {
          shared.Ref();
          serve(Connection(accepted.fd, accepted.token, Lease(&shared, accepted.gate)));
        });
  };
  // In turn, where there is a limit: neither offers nor permits have to wait for ever.
  const bool offers_first = std::exchange(shared.offers_first, false);
  if (!offers_first) accept_by_permits();
  if (shared.left_in_claim) return false;
  claiming.StartOffers();
  NoteCpu(shared.state);
  // Doorbells are counted before Begin and consumed at the end; runtime/mailbox_shared.h says why.
  internal::MailboxShared* const mailbox = shared.mailbox.get();
  const uint32_t doorbells = mailbox == nullptr ? 0 : mailbox->Count();
  core::Claimer& claimer = shared.claimer;
  while (!claimer.all_begun()) claimer.BeginNext();
  for (; arrivals_max > 0; --arrivals_max) {
    if (driven != nullptr && claimer.MasterIsDue()) driven->first_master().ComeBy();
    const core::Claimer::Taken taken = claimer.Take();
    if (taken.word == 0) break;
    idle = false;
    internal::Channel& channel = *shared.channels[taken.inbox];
    const core::Offer offer = core::Offer::FromWord(taken.word);
    internal::SourceShared& source = channel.master->source(offer.source);
    shared.Ref();
    const uint32_t traits = source.traits.load(std::memory_order_relaxed);
    if ((traits & internal::kGivesTickets) != 0) {
      Redeem(Ticket(&shared, channel, offer.source, traits, static_cast<uint32_t>(offer.fd)),
             traits, serve, redeem);
    } else {
      const uint64_t token = channel.tokens[offer.source].load(std::memory_order_relaxed);
      core::Gate* const gate = (traits & internal::kLimited) != 0 ? source.limit() : nullptr;
      serve(Connection(offer.fd, token, Lease(&shared, gate)));
    }
    if (shared.left_in_claim) return false;
  }
  if (offers_first && arrivals_max > 0) {
    accept_by_permits();
    if (shared.left_in_claim) return false;
  } else if (offers_first) {
    more = internal::HasPermits(shared);
  }
  const bool left = claimer.Left() || claimer.OfferedToItself();
  shared.offers_first = left && arrivals_max == 0 && !offers_first;
  if (mailbox != nullptr) {
    mailbox->Consume(doorbells, left);
    if (idle && doorbells == 0 && arrivals_max > 0 && internal::AnyShown(shared)) {
      mailbox->Empty();
      // A permit may have been issued just before, and what waits for it shows no more.
      internal::GiveBackPermits(shared);
    }
  }
  claiming.End();
  return left || more;
}

void Port::Took(size_t count) {
  if (shared_ == nullptr || !shared_->Took(count)) return;
  NoteCpu(shared_->state);
  shared_->balancer->KnockIfHungry();
}

Connection Port::Adopt(int fd, uint64_t token) { return Connection(fd, token, AdoptSlot()); }

Lease Port::AdoptSlot() {
  if (shared_ == nullptr) return {};
  const bool has_place = std::any_of(shared_->channels.begin(), shared_->channels.end(),
                                     [](const auto& channel) { return channel->tally.Lease(); });
  if (!has_place) shared_->TakePlace();
  shared_->Ref();
  return Lease(shared_, nullptr);
}

// A worker on the host drives the master while it is awake, so it is never seen waiting.
void Port::BeforeWait() {
  if (shared_ == nullptr || shared_->on_host) return;
  if (shared_->relief.measuring()) shared_->relief.End(ring::NowNs());
  shared_->state.SayWaiting();
  // Whoever wanted it has something for it, which is not to stand behind what others pass on.
  if (shared_->balancer->KnockIfWaiterWanted()) shared_->state.SpeakFor(ring::NowNs());
  internal::VisitHungryDesks(*shared_->balancer);
}

bool Port::AfterWait(bool by_port) {
  if (shared_ == nullptr || shared_->on_host) return false;
  if (internal::HasPermits(*shared_)) {
    // Whoever was woken by a permit claims that first, and says then that it does not wait any
    // more. Otherwise somebody at the desk might give the permit to another worker, and wake that.
    if (by_port || SightShows(*shared_)) return true;
    shared_->state.SayBusy();
    internal::VisitOwnDesks(*shared_);
  } else {
    shared_->state.SayBusy();
    // It may have got one just before.
    if (internal::HasPermits(*shared_)) internal::VisitOwnDesks(*shared_);
  }
  return std::any_of(shared_->channels.begin(), shared_->channels.end(),
                     [](const auto& channel) { return channel->inbox.Rung(); });
}

uint32_t Port::Surplus() const {
  if (shared_ == nullptr || !shared_->balancer->ours()) return 0;
  return shared_->balancer->colleagues().SurplusOf(*shared_);
}

// One that gives no hints, as the host, never says that it has done all that was ready. A look at
// the clock is not worth it for a single one, unless that ends the measurement of another.
size_t Port::ToPassOn(size_t ready) {
  if (shared_ == nullptr || (ready < 2 && !shared_->relief.measuring())) return 0;
  internal::PortShared& shared = *shared_;
  if (!shared.state.Busy() || ready == 0 || !shared.balancer->ours()) return 0;
  const int64_t now_ns = ring::NowNs();
  const size_t late = shared.relief.Begin(ready, now_ns);
  if (late == 0 || shared.balancer->draining()) return 0;
  const size_t count = shared.balancer->colleagues().SpeakForWaiters(shared, late, now_ns);
  shared.relief.PassedOn(count);
  return count;
}

absl::StatusOr<int> Port::WatchSight() {
  if (shared_ == nullptr) return NotJoined();
  if (shared_->on_host) {
    return absl::FailedPreconditionError(
        "a worker on the host needs no sight: it is awake whenever its master is");
  }
  if (!shared_->balancer->ours()) return internal::BalancerOfParent();
  if (shared_->sighted) return shared_->mailbox ? shared_->mailbox->fd() : shared_->sight.get();
  if (shared_->mailbox != nullptr) {
    const int fd = shared_->mailbox->fd();
    absl::Status set = balancer_->SetSight(worker_, shared_, fd);
    if (!set.ok()) return set;
    shared_->sighted = true;
    return fd;
  }
  ring::OwnDescriptor sight(epoll_create1(EPOLL_CLOEXEC), shared_->balancer->id());
  if (sight.get() < 0) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  if (absl::Status set = balancer_->SetSight(worker_, shared_, sight.get()); !set.ok()) return set;
  shared_->sight = std::move(sight);
  shared_->sighted = true;
  return shared_->sight.get();
}

absl::Status Port::SetCapacity(uint32_t capacity) {
  if (shared_ == nullptr) return NotJoined();
  return balancer_->SetCapacity(worker_, shared_, capacity);
}

absl::Status Port::SetWindow(uint32_t window) {
  if (shared_ == nullptr) return NotJoined();
  return balancer_->SetWindow(worker_, shared_, window);
}

bool Port::draining() const { return shared_ == nullptr || shared_->balancer->draining(); }

bool Port::ended() const { return shared_ == nullptr || shared_->balancer->ended(); }

void Port::Leave() {
  internal::PortShared* const shared = std::exchange(shared_, nullptr);
  if (shared == nullptr) return;
  const std::shared_ptr<internal::BalancerImpl> balancer = std::move(balancer_);
  balancer->RemoveWorker(worker_, shared);
  if (const auto mailbox = std::move(shared->mailbox)) mailbox->Vacate();
  // If the port leaves within a claim of its own, the claim lets go of `shared` at its end.
  shared->left_in_claim = shared->claimer.under_way();
  if (!shared->left_in_claim) shared->Unref();
}

}  // namespace ringmaster
