// What ports and leases touch. Each block owns what it needs, and lives until its last holder lets
// go. So a lease can be released after its port and its balancer are gone.

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
#include "core/permits.h"
#include "core/port_state.h"
#include "core/relief.h"
#include "ring/process.h"
#include "runtime/aimed_source.h"
#include "runtime/passing_on.h"

namespace ringmaster::internal {

// How many sources a master can have at a time. Each worker has a table of so many tokens, so that
// claiming needs no lock.
inline constexpr uint32_t kSourcesMax = 1024;
static_assert(kSourcesMax <= core::kAimedSourcesMax);

// A capacity as gates take it: 0 is no limit.
inline uint32_t LimitOf(uint32_t capacity) { return capacity == UINT32_MAX ? 0 : capacity; }

// What a worker must know of a source, by the source's index at its master. It is written when the
// source is added, before the first offer of the source. The inbox's tail publishes it to workers,
// hence relaxed.
struct SourceShared {
  std::atomic<int> fd{-1};
  std::atomic<uint32_t> traits{0};  // a set of the bits below
  // Set when the source is added, cleared when it is removed and when the balancer ends.
  core::SourceIdentity identity;
  core::GivenBack given_back;
  core::Gate gate;
  // For what is passed on: the facts that the policy needs, as core::kFact bits; and who has
  // joined: the worker if it is the only one, or one of the values below. Hints: facts may be
  // unknown, and the master knows who has joined.
  std::atomic<uint8_t> facts{0};
  std::atomic<uintptr_t> joined{kNobody};

  // Null until a source of this index may be aimed. Written before any worker gets a permit, by
  // which it finds this.
  std::unique_ptr<AimedSource> aimed;

  static constexpr uintptr_t kNobody = 0;
  static constexpr uintptr_t kSeveral = 1;

  core::Gate* limit() { return gate.limited() ? &gate : nullptr; }
};
inline constexpr uint32_t kGivesTickets = 1 << 0;        // its arrivals are tickets
inline constexpr uint32_t kAccepts = 1 << 1;             // a listening stream socket
inline constexpr uint32_t kCountable = 1 << 2;           // whose backlog can be counted
inline constexpr uint32_t kAcceptsNonBlocking = 1 << 3;  // what is accepted becomes non-blocking
inline constexpr uint32_t kAcceptsCloseOnExec = 1 << 4;  // and close-on-exec
inline constexpr uint32_t kLimited = 1 << 5;             // its `gate` is

// A master as workers and leases see it: the flag that asks for a knock, and where to knock.
class MasterShared {
 public:
  // `owner` as ring::OwnDescriptor takes it.
  static absl::StatusOr<std::unique_ptr<MasterShared>> Create(uint64_t owner);
  explicit MasterShared(ring::OwnDescriptor event_fd) : event_fd_(std::move(event_fd)) {}
  MasterShared(const MasterShared&) = delete;
  MasterShared& operator=(const MasterShared&) = delete;

  core::Hunger& hunger() { return hunger_; }
  int event_fd() const { return event_fd_.get(); }

  // Wakes the master. Does nothing in a forked child. Any thread.
  void Knock();

  SourceShared& source(uint32_t index) { return sources_[index]; }
  PassingOn& passing_on() { return passing_on_; }
  // Desks that want to hear of a worker that waits.
  core::SourceSet& hungry_desks() { return hungry_desks_; }

  // A ticket of the source is given back, with the errno of what went wrong or 0. Returns false,
  // and does nothing, when that source was removed, whichever source has its index now. Any thread.
  bool GiveBack(uint32_t index, uint64_t serial, int error);
  // Something was accepted by a ticket of the source. This is passed on only if the master has
  // asked for it.
  void SayRedeemed(uint32_t index, uint64_t serial);
  // Master. Whether any ticket was given back since the last call.
  bool TakeGivenBack() {
    return given_back_.load(std::memory_order_relaxed) != 0 &&
           given_back_.exchange(0, std::memory_order_acquire) != 0;
  }
  // These wake the master if it has asked for it: the first after somebody has made credit, the
  // second after a lease has ended, the third after a worker has said that it waits. Any thread.
  void KnockIfHungry() {
    if (hunger_.HearKnock()) Knock();
  }
  void KnockAfterLease() {
    if (hunger_.HearKnockOfLease()) Knock();
  }
  bool KnockIfWaiterWanted() {
    const bool wanted = hunger_.HearKnockOfWaiter();
    if (wanted) Knock();
    return wanted;
  }

 private:
  core::Hunger hunger_;
  const ring::OwnDescriptor event_fd_;
  const uint64_t process_ = ring::ThisProcess();
  std::atomic<uint32_t> given_back_{0};
  PassingOn passing_on_;
  core::SourceSet hungry_desks_;
  std::array<SourceShared, kSourcesMax> sources_;
};

// The indexes of workers. A worker has the same index at every master. The index is used again when
// nobody has the worker in its books any more, see PortShared::LeaveBooks.
class WorkerIndexes {
 public:
  // The lowest that is free.
  uint32_t Allocate();
  void Free(uint32_t index);

 private:
  std::mutex mutex_;
  std::vector<bool> used_;  // guarded by mutex_
};

struct PortShared;

// The workers of a balancer, for whoever compares itself with the others. Any thread.
class Colleagues {
 public:
  // Borrows the worker until it is removed.
  void Add(PortShared* worker);
  void Remove(const PortShared* worker);
  // How many more connections than an equal share of all the worker has open, which was added.
  uint32_t SurplusOf(const PortShared& worker) const;
  // How many others say that they wait, have nothing before them, and are not spoken for; `count`
  // at most. They are spoken for from now on.
  size_t SpeakForWaiters(const PortShared& worker, size_t count, int64_t now_ns);

 private:
  mutable std::mutex mutex_;
  std::vector<PortShared*> workers_;  // guarded by mutex_
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
  Colleagues& colleagues() { return colleagues_; }

  // What ports ask about the end. A master says each before it rings the workers because of it: a
  // claim that begins after the doorbell finds it written, by (1) of core/inbox.h. Once the last
  // master has said it, all have ended, so the doorbell of that one tells the worker so.
  void BeginDrain() { draining_.store(true, std::memory_order_release); }
  void CountEnded() { masters_ended_.fetch_add(1, std::memory_order_acq_rel); }
  // Any thread. A forked child receives nothing, as after the end.
  bool draining() const { return draining_.load(std::memory_order_acquire) || ended(); }
  bool ended() const {
    return masters_ended_.load(std::memory_order_acquire) == masters() || !ours();
  }

  // Any thread: as the functions of MasterShared, for all masters.
  void KnockIfHungry() {
    for (const auto& master : masters_) master->KnockIfHungry();
  }
  void KnockAfterLease() {
    for (const auto& master : masters_) master->KnockAfterLease();
  }
  bool KnockIfWaiterWanted() {
    bool wanted = false;
    for (const auto& master : masters_) wanted |= master->KnockIfWaiterWanted();
    return wanted;
  }
  // Called after a master has given back places that the others may wait for.
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
  Colleagues colleagues_;
  std::atomic<bool> draining_{false};
  std::atomic<uint32_t> masters_ended_{0};
};

// Zeroed memory that the kernel zeroes again in a forked child. So the child's copy of an inbox is
// empty, and the child cannot claim what the parent's worker claims as well.
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
  core::Tally tally;  // Handoff::kCompletion and kDirect
  // If the worker watches a sight. Written before it gets a permit.
  std::unique_ptr<core::WorkerPermits> permits;
  // The worker's: the source whose permits come next, so that none is always served last.
  uint32_t next_source = 0;
  // The worker's own value for each source, by the source's index at the master. Join writes it,
  // before the master makes the first offer of that source. The inbox's tail publishes it to the
  // worker, hence relaxed. It is atomic, because a worker that leaves a source and joins it again
  // may be reading it for an older offer.
  std::array<std::atomic<uint64_t>, kSourcesMax> tokens{};
};

// A worker as its port, its leases and the masters see it. It counts its holders itself, so that a
// lease is one pointer, and making one costs one relaxed increment.
struct PortShared {
  // Its inboxes have so many words. It has one holder at first.
  static absl::StatusOr<PortShared*> Create(std::shared_ptr<BalancerShared> balancer,
                                            uint32_t words);

  void Ref() { holders.fetch_add(1, std::memory_order_relaxed); }
  void Unref() {
    // Release: what this holder did happens before the destruction; acquire: the last one sees it.
    if (holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  // These count who has the worker in its books under this index: every master, and whoever adds or
  // removes the worker. When nobody has it any more, the index is free.
  void EnterBooks() { books.fetch_add(1, std::memory_order_relaxed); }
  void LeaveBooks(uint32_t index) {
    // Memory order as in Unref: the next worker of this index comes after everything that was done
    // for this one.
    if (books.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      balancer->worker_indexes().Free(index);
    }
  }

  // Counts a connection that is there already, whatever the limits.
  void TakePlace() {
    state.ForceReserve();
    if (core::Gate* const all = balancer->limit(); all != nullptr) all->ForceReserve();
  }
  // Returns what PortState::Release says.
  bool ReleasePlace(core::Gate* of_source) {
    if (direct) state.SayRoom();
    const bool wanted = state.Release();
    if (of_source != nullptr) of_source->GiveBack();
    if (core::Gate* const all = balancer->limit(); all != nullptr) all->GiveBack();
    return wanted;
  }

  // Port: the worker has taken up to `count` of what was handed over out of its ring. Which master
  // had sent them does not show. It does not matter either: no more is booked at a tally than it
  // has, and together the tallies have what is in the ring. Returns whether that may help a master:
  // something was untaken, or there may be room in the worker's file table.
  bool Took(size_t count);
  // Whether something is before the worker that it has not come to.
  bool WasOffered() const;
  // For a master that has the worker in its books no more: what that master has handed over belongs
  // to the worker.
  void KeepRing(uint32_t master);
  // After a source was removed: waits until none of its tickets is being redeemed any more.
  // Redeeming one takes no longer than an accept that does not wait.
  void WaitForRedeemers() const;

  core::PortState state;
  std::atomic<uint32_t> holders{1};
  // How many tickets exist. The end of a ticket is the first half of the hungry dance, as the end
  // of a lease is.
  std::atomic<uint32_t> tickets{0};
  std::atomic<uint32_t> books{0};
  const std::shared_ptr<BalancerShared> balancer;
  const std::vector<std::unique_ptr<Channel>> channels;  // by master
  // What belongs to the port alone: its claims; what it should pass on; the channel whose tally
  // comes next, so that no master is always served last; and, until the port leaves, the mailbox
  // that its doorbells come to (null when that is the worker's ring).
  core::Claimer claimer;
  core::Relief relief;
  uint32_t next_tally = 0;
  size_t next_permits = 0;  // the channel whose permits come next, for the same reason
  std::shared_ptr<MailboxShared> mailbox;
  // The sight of a worker with a ring, once it watches that. A mailbox has one of its own.
  ring::OwnDescriptor sight;
  bool sighted = false;       // it watches one
  bool offers_first = false;  // the last claim had to stop before it came to offers
  bool on_host = false;
  bool direct = false;         // Handoff::kDirect
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
