// What ports and leases touch: blocks that own what they need and live until their last holder lets
// go, so that a lease can be released after its port and its balancer are gone.

#ifndef RINGMASTER_SRC_RUNTIME_SHARED_H_
#define RINGMASTER_SRC_RUNTIME_SHARED_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/claim.h"
#include "core/inbox.h"
#include "core/port_state.h"
#include "ring/process.h"

namespace ringmaster::internal {

// How many sources a master can have at a time: a token table of that size is kept for each worker,
// so that claiming needs no lock.
inline constexpr uint32_t kSourcesMax = 1024;

// A capacity as gates take it: 0 is no limit.
inline uint32_t LimitOf(uint32_t capacity) { return capacity == UINT32_MAX ? 0 : capacity; }

// What a worker must know of a source, by its index at its master. Written when the source is
// added, before the first offer of it; published to workers by the inbox's tail, hence relaxed.
struct SourceShared {
  std::atomic<int> fd{-1};
  std::atomic<uint32_t> traits{0};  // a set of the bits below
  // Set when the source is added, cleared when it is removed and when the balancer ends.
  core::SourceIdentity identity;
  core::GivenBack given_back;
  core::Gate gate;

  core::Gate* limit() { return gate.limited() ? &gate : nullptr; }
};
inline constexpr uint32_t kTickets = 1 << 0;             // its arrivals are tickets
inline constexpr uint32_t kAccepts = 1 << 1;             // a listening stream socket
inline constexpr uint32_t kCountable = 1 << 2;           // whose backlog can be counted
inline constexpr uint32_t kAcceptsNonBlocking = 1 << 3;  // what is accepted becomes non-blocking
inline constexpr uint32_t kAcceptsCloseOnExec = 1 << 4;  // and close-on-exec
inline constexpr uint32_t kLimited = 1 << 5;             // its `gate` is

// A master as those who make credit see it: the flag that asks for a knock, and where to knock.
class MasterShared {
 public:
  // `owner` as ring::OwnDescriptor takes it.
  static absl::StatusOr<std::unique_ptr<MasterShared>> Create(uint64_t owner);
  explicit MasterShared(ring::OwnDescriptor event_fd) : event_fd_(std::move(event_fd)) {}
  MasterShared(const MasterShared&) = delete;
  MasterShared& operator=(const MasterShared&) = delete;

  core::Hunger& hunger() { return hunger_; }
  int event_fd() const { return event_fd_.get(); }

  // Wakes the master; nobody in a forked child. Any thread.
  void Knock();

  SourceShared& source(uint32_t index) { return sources_[index]; }

  // A ticket of the source comes back, with the errno of what went wrong or 0. Nothing happens when
  // that source has gone, whoever has its index now; then the answer is false. Any thread.
  bool GiveBack(uint32_t index, uint64_t serial, int error);
  // Something was accepted by a ticket of the source: said only if the master has asked for it.
  void SayRedeemed(uint32_t index, uint64_t serial);
  // Master. Whether any has come back since the last call.
  bool TakeGivenBack() {
    return given_back_.load(std::memory_order_relaxed) != 0 &&
           given_back_.exchange(0, std::memory_order_acquire) != 0;
  }
  // After credit was made, or after a lease has ended: wakes the master if it asked for it. Any
  // thread.
  void KnockIfHungry() {
    if (hunger_.TakeKnock()) Knock();
  }
  void KnockAfterLease() {
    if (hunger_.TakeKnockOfLease()) Knock();
  }

 private:
  core::Hunger hunger_;
  const ring::OwnDescriptor event_fd_;
  const uint64_t process_ = ring::ThisProcess();
  std::atomic<uint32_t> given_back_{0};
  std::array<SourceShared, kSourcesMax> sources_;
};

// The indexes of workers: a worker has the same at every master. An index is used again when the
// last who has the worker in its books has let go of it, see PortShared::LeaveBooks.
class WorkerIndexes {
 public:
  // The lowest that is free.
  uint32_t Take();
  void GiveBack(uint32_t index);

 private:
  std::mutex mutex_;
  std::vector<bool> used_;  // guarded by mutex_
};

// The masters of a balancer, and what they share.
class BalancerShared {
 public:
  // `capacity`: see core::Gate::Limit.
  static absl::StatusOr<std::shared_ptr<BalancerShared>> Create(uint32_t masters,
                                                                uint32_t capacity);
  BalancerShared(uint64_t id, std::vector<std::unique_ptr<MasterShared>> masters)
      : id_(id), masters_(std::move(masters)) {}

  // Of the balancer: the owner of its descriptors.
  uint64_t id() const { return id_; }
  // Whether this is the process that has made it.
  bool ours() const { return ring::ThisProcess() == process_; }

  uint32_t masters() const { return static_cast<uint32_t>(masters_.size()); }
  MasterShared& master(uint32_t index) { return *masters_[index]; }
  core::Gate& gate() { return gate_; }
  core::Gate* limit() { return gate_.limited() ? &gate_ : nullptr; }
  WorkerIndexes& worker_indexes() { return worker_indexes_; }

  // Any thread: as the functions of MasterShared, for whoever waits.
  void KnockIfHungry() {
    for (const auto& master : masters_) master->KnockIfHungry();
  }
  void KnockAfterLease() {
    for (const auto& master : masters_) master->KnockAfterLease();
  }
  // A master has given back places that the others may wait for.
  void KnockOthersIfHungry(const MasterShared* but) {
    for (const auto& master : masters_) {
      if (master.get() != but) master->KnockIfHungry();
    }
  }

 private:
  const uint64_t id_;
  const uint64_t process_ = ring::ThisProcess();
  const std::vector<std::unique_ptr<MasterShared>> masters_;
  core::Gate gate_;  // of all sources together
  WorkerIndexes worker_indexes_;
};

// Zeroed memory that a forked child finds zeroed again: its copy of an inbox is empty, so it cannot
// claim what the parent's worker claims as well.
class InboxMemory {
 public:
  static absl::StatusOr<InboxMemory> Create(size_t bytes);
  InboxMemory(InboxMemory&& other) noexcept;
  InboxMemory& operator=(InboxMemory&&) = delete;
  ~InboxMemory();
  void* data() const { return data_; }

 private:
  InboxMemory(void* data, size_t bytes) : data_(data), bytes_(bytes) {}
  void* data_;
  size_t bytes_;
};

class MailboxShared;

// A worker as one of the masters sees it.
struct Channel {
  Channel(MasterShared* master_shared, InboxMemory inbox_memory, uint32_t words)
      : master(master_shared), memory(std::move(inbox_memory)), inbox(memory.data(), words) {}

  MasterShared* const master;
  const InboxMemory memory;
  core::Inbox inbox;
  core::Tally tally;  // Handoff::kCompletion
  // The worker's own value for each source, by its index at the master. Written by Join, before the
  // master makes the first offer of that source; published to the worker by the inbox's tail, hence
  // relaxed. Atomic because a worker that leaves a source and joins it again may be looking it up
  // for an older offer.
  std::array<std::atomic<uint64_t>, kSourcesMax> tokens{};
};

// A worker as its port, its leases and the masters see it. Counts its holders itself: a lease is
// one pointer, and taking one costs one relaxed increment.
struct PortShared {
  // Inboxes of so many words. With one holder.
  static absl::StatusOr<PortShared*> Create(std::shared_ptr<BalancerShared> balancer,
                                            uint32_t words);

  void Ref() { holders.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    // Release: what this holder did happens before the destruction; acquire: the last one sees it.
    if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  // Who has it in its books under this index: every master, and whoever adds or removes it. When
  // the last has left them, the index is free.
  void EnterBooks() { books.fetch_add(1, std::memory_order_relaxed); }
  void LeaveBooks(uint32_t index) {
    // As Unref: the next worker of this index comes after all that was done for this one.
    if (books.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      balancer->worker_indexes().GiveBack(index);
    }
  }

  // For a connection that is there already.
  void TakePlace() {
    state.Take();
    if (core::Gate* const all = balancer->limit(); all != nullptr) all->Force();
  }
  void ReleasePlace(core::Gate* of_source) {
    state.Release();
    if (of_source != nullptr) of_source->Leave();
    if (core::Gate* const all = balancer->limit(); all != nullptr) all->Leave();
  }

  // Port: up to `count` of what was handed over have been taken out of the ring. Which master had
  // sent them does not show, and does not matter: no more is taken from a tally than it has, and
  // together they have what is in the ring. False when there was none.
  bool Took(size_t count);
  // A master that has it in its books no more: what that one has handed over is the worker's own.
  void KeepRing(uint32_t master);
  // After a source was removed: until none of its tickets is being redeemed any more. Each takes no
  // longer than an accept that does not wait.
  void WaitForRedeemers() const;

  core::PortState state;
  std::atomic<uint32_t> holders{1};
  // Tickets that exist. One that ends is the first half of the hungry dance, as the end of a lease.
  std::atomic<uint32_t> tickets{0};
  std::atomic<uint32_t> books{0};
  const std::shared_ptr<BalancerShared> balancer;
  const std::vector<std::unique_ptr<Channel>> channels;  // by master
  // The port's own: its claims; the channel whose tally comes next, so that no master is always
  // served last; and, until it leaves, what its doorbells come to: null when that is the worker's
  // ring.
  core::Claimer claimer;
  uint32_t next_tally = 0;
  std::shared_ptr<MailboxShared> mailbox;
  bool on_host = false;
  bool left_in_claim = false;  // the port has left within a claim of its own

 private:
  PortShared(std::shared_ptr<BalancerShared> balancer_shared,
             std::vector<std::unique_ptr<Channel>> its_channels)
      : balancer(std::move(balancer_shared)),
        channels(std::move(its_channels)),
        claimer(&state, InboxesOf(channels)) {}

  static std::vector<core::Inbox*> InboxesOf(
      const std::vector<std::unique_ptr<Channel>>& channels) {
    std::vector<core::Inbox*> inboxes;
    for (const auto& channel : channels) inboxes.push_back(&channel->inbox);
    return inboxes;
  }
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_SHARED_H_
