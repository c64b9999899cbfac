// What a worker publishes besides its inboxes, and the flag by which a master asks to be woken.
// Shared by the worker, its leases (any thread) and all masters. With core/inbox.h the only place
// where atomics live.

#ifndef RINGMASTER_SRC_CORE_PORT_STATE_H_
#define RINGMASTER_SRC_CORE_PORT_STATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ringmaster::core {

// Cache lines that different sides write are kept apart. A constant, because the standard's own may
// differ between compiler flags and this layout is shared by differently compiled code.
inline constexpr size_t kCacheLine = 64;

// One for each worker.
struct PortState {
  // Connections that the worker serves or has been offered. A master reserves before it offers
  // (Reserve), a recall gives the reservation back, a lease does so at the end. Sequentially
  // consistent, because the release is one half of the hungry dance: a lease lowers `open` and then
  // reads Hunger; the master raises Hunger and then reads `open`.
  alignas(kCacheLine) std::atomic<uint32_t> open{0};

  // Written by the worker alone; hints: a wrong one costs a worse pick, never a lost or doubled
  // connection. `serving` is cleared with release, because a master that finds it clear, after an
  // offer was taken, may conclude that nothing is looked up for that offer any more.
  alignas(kCacheLine) std::atomic<uint32_t> serving{0};  // 1 while Claim runs its callbacks
  std::atomic<int32_t> cpu{-1};                          // where it last claimed

  // Master: takes one place below `capacity`. False, and nothing taken, when there is none.
  bool Reserve(uint32_t capacity) {
    if (open.fetch_add(1, std::memory_order_seq_cst) < capacity) return true;
    open.fetch_sub(1, std::memory_order_seq_cst);
    return false;
  }
  // Worker: takes one place whatever the capacity, for a connection that it has already.
  void Take() { open.fetch_add(1, std::memory_order_seq_cst); }
  // Master (recall), worker or lease (end): gives places back.
  void Release(uint32_t count = 1) { open.fetch_sub(count, std::memory_order_seq_cst); }
};

// One for each master and worker to whom connections are handed as completions of its own ring: how
// many were handed over, and how many of these the worker says that it has taken out of its ring.
// The difference is what fills up its window.
class Tally {
 public:
  // Master. One more, before it is handed over; one less, because that failed. Release: a worker
  // that has seen the completion finds it counted.
  void Send() { sent_.store(sent_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
  void Unsend() {
    sent_.store(sent_.load(std::memory_order_relaxed) - 1, std::memory_order_release);
  }

  // Worker. Handed over and not taken.
  uint64_t Untaken() const {
    const uint64_t sent = sent_.load(std::memory_order_acquire);
    const uint64_t taken = taken_.load(std::memory_order_relaxed);
    return sent > taken ? sent - taken : 0;
  }
  // Worker. Makes credit, and is the first half of the hungry dance (see Hunger).
  void Take(uint64_t count) { taken_.fetch_add(count, std::memory_order_seq_cst); }

  // Master.
  uint64_t Taken() const { return taken_.load(std::memory_order_seq_cst); }

 private:
  alignas(kCacheLine) std::atomic<uint64_t> sent_{0};   // written by the master
  alignas(kCacheLine) std::atomic<uint64_t> taken_{0};  // written by the worker
};

// One for each master: "there is work and no credit; whoever makes some, knock".
//
// The dance: the master sets the flag and then looks once more for credit; a worker makes credit
// (claims, clears `rung`, takes what was handed over, releases a lease) and then reads the flag.
// All four accesses are sequentially consistent, so at least one side sees the other: either the
// master's second look finds the credit, or the worker finds the flag and knocks. With anything
// weaker both may read the old value (store buffering) and the work waits for ever.
class Hunger {
 public:
  // Master.
  void Set() { hungry_.store(1, std::memory_order_seq_cst); }
  void Clear() { hungry_.store(0, std::memory_order_seq_cst); }

  // Worker or lease, after it has made credit. True for exactly one caller, who knocks.
  bool TakeKnock() {
    return hungry_.load(std::memory_order_seq_cst) != 0 &&
           hungry_.exchange(0, std::memory_order_seq_cst) != 0;
  }

 private:
  alignas(kCacheLine) std::atomic<uint32_t> hungry_{0};
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_PORT_STATE_H_
