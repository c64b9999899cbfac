#include "sim/sim_kernel.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "sim/world.h"

namespace ringmaster::sim {

int32_t Numbers::Open(uint32_t owner) {
  const auto free = std::find(owners_.begin(), owners_.end(), kNobody);
  const auto number = static_cast<int32_t>(free - owners_.begin());
  if (free == owners_.end()) {
    owners_.push_back(owner);
  } else {
    *free = owner;
  }
  ++open_count_;
  return first_ + number;
}

void Numbers::Close(int32_t number) {
  owners_[static_cast<size_t>(number - first_)] = kNobody;
  --open_count_;
}

uint32_t Numbers::OwnerOf(int32_t number) const {
  const int32_t position = number - first_;
  if (position < 0 || static_cast<size_t>(position) >= owners_.size()) return kNobody;
  return owners_[static_cast<size_t>(position)];
}

int32_t SimKernel::Listen(uint32_t source, uint32_t backlog_max, bool local) {
  const int32_t fd = listener_numbers_.Open(source);
  listeners_.push_back({.fd = fd, .open = true, .local = local, .backlog_max = backlog_max});
  return fd;
}

void SimKernel::CloseListener(uint32_t source) {
  Listener& listener = listeners_[source];
  listener.open = false;
  listener_numbers_.Close(listener.fd);
  ResetBacklog(source);
}

void SimKernel::ShutDown(uint32_t source) {
  listeners_[source].shut = true;
  if (!listeners_[source].local) ResetBacklog(source);
}

void SimKernel::ResetBacklog(uint32_t source) {
  std::deque<uint32_t>& backlog = listeners_[source].backlog;
  for (const uint32_t connection : backlog) {
    world_->Note("resets", {{"connection", connection}});
    world_->Reached(Milestone::kBacklogReset);
    world_->checker().OnReset(connection);
  }
  backlog.clear();
}

uint32_t SimKernel::Arrive(uint32_t source) {
  Listener& listener = listeners_[source];
  if (listener.backlog.size() >= listener.backlog_max) {
    ++listener.overflows;
    world_->Note("overflows", {{"source", source}});
    world_->Reached(Milestone::kBacklogFull);
    world_->checker().OnOverflow(source, world_->now_ns());
    return kNobody;
  }
  const uint32_t connection = world_->checker().OnArrival(source, world_->now_ns());
  connections_.push_back({.came_at_ns = world_->now_ns(), .facts = DrawFacts()});
  // By which a watched policy knows it; 0: unknown. No policy of the library looks at it.
  connections_.back().facts.peer.port = static_cast<uint16_t>(connections_.size());
  listener.backlog.push_back(connection);
  world_->Note("arrives", {{"connection", connection}, {"source", source}});
  return connection;
}

void SimKernel::HangUp(uint32_t connection) {
  world_->Note("hangs up", {{"connection", connection}});
  connections_[connection].hung_up = true;
}

int64_t SimKernel::CameAt(uint32_t connection) const {
  const int64_t tick_ns = std::max<int64_t>(world_->config().tick_ns, 1);
  const int64_t came_at_ns = connections_[connection].came_at_ns;
  const int64_t ticks = world_->now_ns() / tick_ns - came_at_ns / tick_ns;
  if (world_->config().tick_ns == 0) return came_at_ns;
  return world_->now_ns() - std::max<int64_t>(ticks - 1, 0) * tick_ns;
}

// A few clients, each on a CPU of its own; sometimes the kernel does not know.
Arrival SimKernel::DrawFacts() {
  Prng& prng = world_->prng();
  Arrival facts;
  if (!prng.Chance({1, 8})) facts.incoming_cpu = static_cast<int32_t>(prng.Below(4));
  if (prng.Chance({1, 8})) return facts;
  facts.peer.kind = Peer::Kind::kIpv4;
  facts.peer.address[3] = static_cast<uint8_t>(prng.Below(16));
  return facts;
}

int32_t SimKernel::Accept(uint32_t source, Arrival& facts) {
  Prng& prng = world_->prng();
  if (OutOfDescriptors()) {
    world_->CountStrike(Fault::kEmfile);
    return prng.Chance({3, 4}) ? -EMFILE
                               : -prng.OneOf(std::array<int32_t, 3>{ENFILE, ENOBUFS, ENOMEM});
  }
  Listener& listener = listeners_[source];
  if (listener.shut && !listener.local) return -EINVAL;
  if (listener.backlog.empty()) return -EAGAIN;
  const uint32_t connection = listener.backlog.front();
  listener.backlog.pop_front();
  if (world_->Happens(Fault::kAcceptError)) {
    world_->Note("aborts", {{"connection", connection}});
    world_->checker().OnReset(connection);
    return -prng.OneOf(std::array<int32_t, 4>{ECONNABORTED, EPROTO, EPERM, ENETDOWN});
  }
  if (!listener.shut && world_->Happens(Fault::kAcceptDoubtful)) {
    world_->Note("aborts", {{"connection", connection}});
    world_->checker().OnReset(connection);
    return -prng.OneOf(std::array<int32_t, 4>{EINVAL, EOPNOTSUPP, EBADF, ENOTSOCK});
  }
  const int32_t fd = connection_numbers_.Open(connection);
  connections_[connection].fd = fd;
  facts = connections_[connection].facts;
  world_->checker().OnAccepted(connection, fd, world_->now_ns());
  world_->Note("accepts", {{"connection", connection}, {"fd", fd}});
  return fd;
}

}  // namespace ringmaster::sim
