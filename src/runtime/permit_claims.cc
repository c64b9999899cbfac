#include "runtime/permit_claims.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "core/permit_claim.h"
#include "runtime/aimed_source.h"
#include "runtime/inside.h"

namespace ringmaster::internal {
namespace {

// One claim. A thread that is cancelled within accept4 leaves nothing behind.
class Claim : public core::PermitClaim {
 public:
  Claim(PortShared& worker, core::Permits& permits)
      : PermitClaim(&worker.state, &permits), worker_(worker) {}
  ~Claim() {
    if (Abandon()) worker_.balancer->KnockIfHungry();
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

 private:
  PortShared& worker_;
};

// A connection, or a negative errno. Never waits: O_NONBLOCK belongs to the open file, and another
// process may share that and change it.
int AcceptOne(int listener, uint32_t traits) {
  if ((fcntl(listener, F_GETFL) & O_NONBLOCK) == 0) return -core::kWouldWait;
  while (true) {
    const int fd = accept4(listener, nullptr, nullptr,
                           ((traits & kAcceptsNonBlocking) != 0 ? SOCK_NONBLOCK : 0) |
                               ((traits & kAcceptsCloseOnExec) != 0 ? SOCK_CLOEXEC : 0));
    if (fd >= 0) return fd;
    // That client has gone; the next one may be there.
    if (errno != EINTR && errno != ECONNABORTED) return -errno;
  }
}

enum class Outcome : uint8_t { kNoPermit, kAccepted, kNothing };

Outcome AcceptByOne(PortShared& worker, Channel& channel, uint32_t index,
                    absl::FunctionRef<void()> claimed, AcceptedByPermit& accepted) {
  using Next = core::PermitClaim::Next;
  const Inside within(*worker.balancer);  // its policy may be asked
  Claim claim(worker, channel.permits->of_source[index]);
  SourceShared& source = channel.master->source(index);
  Outcome outcome = Outcome::kNoPermit;
  uint32_t traits = 0;
  while (true) {
    switch (claim.next()) {
      case Next::kStart:
        claimed();
        outcome = Outcome::kNothing;
        traits = source.traits.load(std::memory_order_relaxed);
        accepted.gate = (traits & kLimited) != 0 ? source.limit() : nullptr;
        claim.Started(&source.aimed->desk, accepted.gate, worker.balancer->limit());
        break;
      case Next::kAccept:
        accepted.fd = AcceptOne(source.aimed->sights.Listener(), traits);
        if (accepted.fd >= 0) {
          outcome = Outcome::kAccepted;
          accepted.token = channel.tokens[index].load(std::memory_order_relaxed);
        }
        claim.Accepted(std::max(-accepted.fd, 0));
        break;
      case Next::kKnock:
        worker.balancer->KnockIfHungry();
        claim.Knocked();
        break;
      case Next::kOver:
        return outcome;
      default:
        claim.Advance();
    }
  }
}

// Visits the desks from which the worker has permits, but for one.
void VisitDesks(PortShared& worker, const Channel* but_at, uint32_t but) {
  const Inside within(*worker.balancer);
  for (const auto& channel : worker.channels) {
    if (channel->permits == nullptr) continue;
    channel->permits->pending.ForEach([&](uint32_t index) {
      if (channel.get() == but_at && index == but) return;
      if (channel->permits->of_source[index].Read().claimable == 0) return;
      channel->master->source(index).aimed->desk.Visit();
    });
  }
}

}  // namespace

bool AcceptByPermits(PortShared& worker, size_t& connections_max, absl::FunctionRef<void()> claimed,
                     absl::FunctionRef<void(AcceptedByPermit)> serve) {
  bool more = false;
  bool claimed_any = false;
  bool has_visited = false;  // the desks of its other permits, since it says that it does not wait
  const size_t channels = worker.channels.size();
  for (size_t i = 0; i < channels; ++i) {
    // In turn, so that no master is always served last.
    Channel& channel = *worker.channels[worker.next_permits];
    worker.next_permits = worker.next_permits + 1 == channels ? 0 : worker.next_permits + 1;
    if (channel.permits == nullptr) continue;
    core::SourceSet& pending = channel.permits->pending;
    const auto accept = [&](uint32_t index) {
      const core::Permits& permits = channel.permits->of_source[index];
      // No more than there are now: those that are issued meanwhile wait until other sources, and
      // the rest of the worker's loop, have had their turn.
      uint32_t left = permits.Read().claimable;
      for (; left > 0 && connections_max > 0 && !worker.left_in_claim; --left) {
        AcceptedByPermit accepted;
        const Outcome outcome = AcceptByOne(worker, channel, index, claimed, accepted);
        claimed_any |= outcome != Outcome::kNoPermit;
        if (outcome != Outcome::kAccepted) {
          // It does not try again. A permit that is issued anew makes the sight ready if anything
          // waits.
          left = 0;
          break;
        }
        --connections_max;
        channel.next_source = (index + 1) % kSourcesMax;
        // Not before it has accepted: what waits may be for a permit that it comes to next.
        if (!std::exchange(has_visited, true)) VisitDesks(worker, &channel, index);
        serve(accepted);
      }
      if (permits.Read().claimable == 0) pending.Remove(index);
      if (permits.Read().claimable > 0) pending.Set(index);
      more |= left > 0 && permits.Read().claimable > 0;
    };
    pending.ForEach(accept, channel.next_source);
  }
  // It may have got a permit of a source that it had passed, just before it claimed the first.
  if (claimed_any && !has_visited && !worker.left_in_claim) VisitOwnDesks(worker);
  return more;
}

bool HasPermits(const PortShared& worker) {
  if (!worker.balancer->ours()) return false;
  bool any = false;
  for (const auto& channel : worker.channels) {
    if (channel->permits == nullptr) continue;
    channel->permits->pending.ForEach(
        [&](uint32_t index) { any |= channel->permits->of_source[index].Read().claimable > 0; });
  }
  return any;
}

bool AnyShown(const PortShared& worker) {
  return std::any_of(worker.channels.begin(), worker.channels.end(), [](const auto& channel) {
    return channel->permits != nullptr &&
           channel->permits->shown.load(std::memory_order_relaxed) > 0;
  });
}

void GiveBackPermits(PortShared& worker) {
  if (!worker.balancer->ours()) return;
  const Inside within(*worker.balancer);
  for (const auto& channel : worker.channels) {
    if (channel->permits == nullptr) continue;
    channel->permits->pending.ForEach([&](uint32_t index) {
      if (!channel->permits->of_source[index].GiveBack()) return;
      channel->master->source(index).aimed->desk.Visit();
    });
  }
}

void VisitOwnDesks(PortShared& worker) { VisitDesks(worker, nullptr, 0); }

void VisitHungryDesks(BalancerShared& balancer) {
  if (!balancer.ours()) return;
  const Inside within(balancer);
  for (uint32_t i = 0; i < balancer.masters(); ++i) {
    MasterShared& master = balancer.master(i);
    master.hungry_desks().Take([&](uint32_t index) {
      // A desk that is closed has nothing to do.
      if (master.source(index).aimed != nullptr) master.source(index).aimed->desk.Visit();
    });
  }
}

void ShowWaiter(BalancerShared& balancer) {
  balancer.KnockIfWaiterWanted();
  VisitHungryDesks(balancer);
}

}  // namespace ringmaster::internal
