#include "runtime/permit_claims.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "runtime/aimed_source.h"
#include "runtime/redeeming.h"

namespace ringmaster::internal {
namespace {

// Places for one connection: of the worker, of the source, of the balancer. Without Keep they are
// given back.
class Places {
 public:
  Places(PortShared& worker, core::Gate* of_source) : worker_(worker), of_source_(of_source) {
    core::Gate* const all = worker.balancer->limit();
    const uint32_t capacity = worker.state.places.load(std::memory_order_relaxed);
    if (!worker.state.Reserve(capacity)) return;
    if (of_source != nullptr && !of_source->Reserve()) {
      worker.state.Release();
      worker.balancer->KnockIfHungry();
      return;
    }
    if (all != nullptr && !all->Reserve()) {
      worker.state.Release();
      if (of_source != nullptr) of_source->GiveBack();
      worker.balancer->KnockIfHungry();
      return;
    }
    reserved_ = true;
  }
  // A master may have looked for a place while this had it, and wait for one now.
  ~Places() {
    if (!reserved_) return;
    worker_.ReleasePlace(of_source_);
    worker_.balancer->KnockIfHungry();
  }
  Places(const Places&) = delete;
  Places& operator=(const Places&) = delete;

  bool reserved() const { return reserved_; }
  void Keep() { reserved_ = false; }

 private:
  PortShared& worker_;
  core::Gate* const of_source_;
  bool reserved_ = false;
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
  core::Permits& permits = channel.permits->of_source[index];
  if (permits.Read().claimable == 0) return Outcome::kNoPermit;
  const Redeeming redeeming(worker.state);
  if (!permits.Claim()) return Outcome::kNoPermit;
  claimed();
  SourceShared& source = channel.master->source(index);
  core::Desk& desk = source.aimed->desk;
  const uint32_t traits = source.traits.load(std::memory_order_relaxed);
  core::Gate* const gate = (traits & kLimited) != 0 ? source.limit() : nullptr;
  int result = -EAGAIN;
  {
    Places places(worker, gate);
    if (places.reserved()) {
      result = AcceptOne(source.fd.load(std::memory_order_relaxed), traits);
      if (result >= 0) places.Keep();
    }
  }
  if (result >= 0) {
    permits.CountAccepted();
    permits.Finish();
    desk.Visit();
    accepted = {
        .fd = result, .token = channel.tokens[index].load(std::memory_order_relaxed), .gate = gate};
    return Outcome::kAccepted;
  }
  permits.GiveUp();
  if (result == -EAGAIN) {
    desk.Visit();
  } else {
    desk.VisitInTrouble(-result);
  }
  return Outcome::kNothing;
}

}  // namespace

bool AcceptByPermits(PortShared& worker, size_t& connections_max, absl::FunctionRef<void()> claimed,
                     absl::FunctionRef<void(AcceptedByPermit)> serve) {
  bool more = false;
  const size_t channels = worker.channels.size();
  for (size_t i = 0; i < channels; ++i) {
    // In turn, so that no master is always served last.
    Channel& channel = *worker.channels[worker.next_permits];
    worker.next_permits = worker.next_permits + 1 == channels ? 0 : worker.next_permits + 1;
    if (channel.permits == nullptr) continue;
    core::SourceSet& pending = channel.permits->pending;
    pending.Take([&](uint32_t index) {
      const core::Permits& permits = channel.permits->of_source[index];
      // No more than there are now: those that are issued meanwhile wait until other sources, and
      // the rest of the worker's loop, have had their turn.
      uint32_t left = permits.Read().claimable;
      for (; left > 0 && connections_max > 0 && !worker.left_in_claim; --left) {
        AcceptedByPermit accepted;
        const Outcome outcome = AcceptByOne(worker, channel, index, claimed, accepted);
        if (outcome != Outcome::kAccepted) {
          // It does not try again. A permit that is issued anew makes the sight ready if anything
          // waits.
          left = 0;
          break;
        }
        --connections_max;
        serve(accepted);
      }
      if (permits.Read().claimable > 0) pending.Set(index);
      more |= left > 0 && permits.Read().claimable > 0;
    });
  }
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

void VisitOwnDesks(PortShared& worker) {
  for (const auto& channel : worker.channels) {
    if (channel->permits == nullptr) continue;
    channel->permits->pending.ForEach([&](uint32_t index) {
      if (channel->permits->of_source[index].Read().claimable == 0) return;
      channel->master->source(index).aimed->desk.Visit();
    });
  }
}

void VisitHungryDesks(BalancerShared& balancer) {
  if (!balancer.ours()) return;
  for (uint32_t i = 0; i < balancer.masters(); ++i) {
    MasterShared& master = balancer.master(i);
    master.hungry_desks().Take([&](uint32_t index) {
      // A desk that is closed has nothing to do.
      if (master.source(index).aimed != nullptr) master.source(index).aimed->desk.Visit();
    });
  }
}

}  // namespace ringmaster::internal
