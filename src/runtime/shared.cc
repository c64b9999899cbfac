#include "runtime/shared.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "ring/errors.h"

namespace ringmaster::internal {

absl::StatusOr<std::unique_ptr<MasterShared>> MasterShared::Create(uint64_t owner) {
  const int event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (event_fd < 0) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  return std::make_unique<MasterShared>(ring::OwnDescriptor(event_fd, owner));
}

void MasterShared::Knock() {
  if (ring::ThisProcess() != process_) return;  // it would wake the parent's master
  const uint64_t one = 1;
  // Nobody reads the counter, because only its edges matter. It would take 2^64 knocks to fill it.
  [[maybe_unused]] const ssize_t written = write(event_fd_.get(), &one, sizeof(one));
}

bool MasterShared::GiveBack(uint32_t index, uint64_t serial, int error) {
  // This check only avoids waking the master for nothing. If the source is removed right after it,
  // the master finds that out.
  if (!sources_[index].identity.Is(serial)) return false;
  // Completions and system calls say an errno as a negative number. There is no errno beyond that
  // range.
  if (error < 0) error = error < -core::GivenBack::kErrorMax ? EIO : -error;
  if (error > core::GivenBack::kErrorMax) error = EIO;
  // Both with release: a master that sees the second finds the first.
  core::GivenBack& given_back = sources_[index].given_back;
  given_back.Say(serial, error);
  if (error == 0 && given_back.Asked()) given_back.SayRedeemed(serial);
  given_back_.store(1, std::memory_order_release);
  Knock();
  return true;
}

void MasterShared::SayRedeemed(uint32_t index, uint64_t serial) {
  core::GivenBack& given_back = sources_[index].given_back;
  if (!sources_[index].identity.Is(serial) || !given_back.Asked()) return;
  given_back.SayRedeemed(serial);
  given_back_.store(1, std::memory_order_release);
  Knock();
}

uint32_t WorkerIndexes::Allocate() {
  const std::lock_guard lock(mutex_);
  const auto free = std::find(used_.begin(), used_.end(), false);
  const auto index = static_cast<uint32_t>(free - used_.begin());
  if (free == used_.end()) used_.push_back(false);
  used_[index] = true;
  return index;
}

void WorkerIndexes::Free(uint32_t index) {
  const std::lock_guard lock(mutex_);
  used_[index] = false;
}

void Colleagues::Add(PortShared* worker) {
  const std::lock_guard lock(mutex_);
  workers_.push_back(worker);
}

void Colleagues::Remove(const PortShared* worker) {
  const std::lock_guard lock(mutex_);
  std::erase(workers_, worker);
}

uint32_t Colleagues::SurplusOf(const PortShared& worker) const {
  const std::lock_guard lock(mutex_);
  if (workers_.empty()) return 0;
  uint64_t all = 0;
  for (const PortShared* const each : workers_) {
    all += each->state.open.load(std::memory_order_relaxed);
  }
  const uint64_t share = (all + workers_.size() - 1) / workers_.size();
  const uint64_t open = worker.state.open.load(std::memory_order_relaxed);
  return static_cast<uint32_t>(open - std::min(open, share));
}

size_t Colleagues::SpeakForWaiters(const PortShared& worker, size_t count, int64_t now_ns) {
  const std::lock_guard lock(mutex_);
  size_t found = 0;
  for (PortShared* const each : workers_) {
    if (found == count) break;
    if (each != &worker && !each->WasOffered() && each->state.SpeakFor(now_ns)) ++found;
  }
  return found;
}

absl::StatusOr<std::shared_ptr<BalancerShared>> BalancerShared::Create(uint32_t masters,
                                                                       uint32_t capacity) {
  const uint64_t id = ring::NewNumber();
  std::vector<std::unique_ptr<MasterShared>> created;
  for (uint32_t i = 0; i < masters; ++i) {
    absl::StatusOr<std::unique_ptr<MasterShared>> master = MasterShared::Create(id);
    if (!master.ok()) return master.status();
    created.push_back(*std::move(master));
  }
  auto shared = std::make_shared<BalancerShared>(id, std::move(created));
  shared->gate_.Limit(capacity);
  return shared;
}

absl::StatusOr<PortShared*> PortShared::Create(std::shared_ptr<BalancerShared> balancer,
                                               uint32_t words) {
  std::vector<std::unique_ptr<Channel>> channels;
  for (uint32_t i = 0; i < balancer->masters(); ++i) {
    absl::StatusOr<InboxMemory> memory = InboxMemory::Create(core::Inbox::BytesFor(words));
    if (!memory.ok()) return memory.status();
    channels.push_back(std::make_unique<Channel>(&balancer->master(i), *std::move(memory), words));
  }
  return new PortShared(std::move(balancer), std::move(channels));
}

bool PortShared::Took(size_t count) {
  if (direct) state.SayRoom();
  size_t left = count;
  uint32_t places = 0;
  for (size_t i = 0; i < channels.size() && left > 0; ++i) {
    const core::Tally::Took took = channels[next_tally]->tally.Take(left);
    next_tally = next_tally + 1 == channels.size() ? 0 : next_tally + 1;
    left -= took.count;
    places += took.places;
  }
  if (places > 0) {
    state.Release(places);
    if (core::Gate* const all = balancer->limit(); all != nullptr) all->GiveBack(places);
  }
  return direct || left < count;
}

bool PortShared::WasOffered() const {
  return std::any_of(channels.begin(), channels.end(), [](const auto& channel) {
    return channel->inbox.Rung() || channel->tally.Untaken() > 0;
  });
}

void PortShared::KeepRing(uint32_t master) {
  const core::Tally::Took took = channels[master]->tally.Take(std::numeric_limits<size_t>::max());
  if (took.places == 0) return;
  state.Release(took.places);
  if (core::Gate* const all = balancer->limit(); all != nullptr) all->GiveBack(took.places);
  balancer->KnockIfHungry();
}

void PortShared::WaitForRedeemers() const {
  while (state.redeeming.load(std::memory_order_seq_cst) != 0) sched_yield();
}

absl::StatusOr<InboxMemory> InboxMemory::Create(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  if (madvise(data, bytes, MADV_WIPEONFORK) != 0) {
    const int error = errno;
    munmap(data, bytes);
    return ring::ErrorStatus(ring::Operation::kMakeDescriptor, error);
  }
  return InboxMemory(data, bytes);
}

InboxMemory::InboxMemory(InboxMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

InboxMemory::~InboxMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace ringmaster::internal
