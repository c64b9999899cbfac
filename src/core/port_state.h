// What a worker publishes besides its inboxes, and the flags by which a master asks to be woken.
// Shared by the worker, its leases (any thread) and all masters. With core/inbox.h the only place
// where atomics live.

#ifndef RINGMASTER_SRC_CORE_PORT_STATE_H_
#define RINGMASTER_SRC_CORE_PORT_STATE_H_

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "core/accept_error.h"

namespace ringmaster::core {

// Cache lines that different sides write are kept apart. A constant, because the standard's own may
// differ between compiler flags and this layout is shared by differently compiled code.
inline constexpr size_t kCacheLine = 64;

// Counts one more below `limit`. False, and nothing counted, when that is reached. Never above it
// for a moment and back: another master might find no place because of that moment, and nobody
// would knock at its end.
inline bool CountBelow(uint32_t limit, std::atomic<uint32_t>& count) {
  uint32_t now = count.load(std::memory_order_seq_cst);
  while (now < limit) {
    if (count.compare_exchange_weak(now, now + 1, std::memory_order_seq_cst)) return true;
  }
  return false;
}

// What a worker has said of its loop, if it gives hints (Port::BeforeWait).
enum class Hint : uint32_t {
  kNone,     // nothing: it may wait whenever it is in no claim
  kBusy,     // it woke, and has not come back to its wait
  kWaiting,  // it waits, or is about to
};

// One for each worker. It is one cache line: whoever holds a desk, or deals, reads most of it of
// each worker; and what changes it is nearly always the worker itself.
struct PortState {
  // Connections that the worker serves or has been offered. A master reserves before it offers
  // (Reserve), a recall gives the reservation back, a lease does so at the end. Sequentially
  // consistent, because the release is one half of the hungry dance: a lease lowers `open` and then
  // reads Hunger; the master raises Hunger and then reads `open`.
  alignas(kCacheLine) std::atomic<uint32_t> open{0};

  // Written by the worker alone; hints: a wrong one costs a worse pick, never a lost or doubled
  // connection.
  std::atomic<uint32_t> serving{0};  // 1 while Claim runs its callbacks
  std::atomic<int32_t> cpu{-1};      // where it last claimed
  std::atomic<Hint> hint{Hint::kNone};
  // How many it may have open at once.
  std::atomic<uint32_t> places{UINT32_MAX};
  // How many of its tickets are being redeemed at this moment, by any thread: see SourceIdentity.
  std::atomic<uint32_t> redeeming{0};
  // Handoff::kDirect: how often the worker has said that there may be room in its file table, which
  // is when it takes something, and when a lease ends. A master to which the kernel says that the
  // table is full compares it with what it was before: see core/sending.h. Sequentially consistent,
  // because saying so is one half of the hungry dance.
  std::atomic<uint32_t> rooms{0};
  // Until when it counts as spoken for. Written by other workers of the balancer, under a mutex.
  std::atomic<int64_t> spoken_for_until_ns{0};

  // Worker, around each claim. The end is sequentially consistent: a master that finds `serving`
  // clear, after an offer was claimed, concludes that nothing is looked up for that offer any more;
  // and one that is shutting down may wait for it, and is knocked at afterwards.
  void StartServing() { serving.store(1, std::memory_order_relaxed); }
  void EndServing() { serving.store(0, std::memory_order_seq_cst); }

  // Worker, around its wait. Both are sequentially consistent, because each is the first half of a
  // dance. A worker says that it waits, and then reads the flag of a master that wants to know; see
  // Hunger. It says that it is busy, and then looks whether it was rung; a master rings, and then
  // looks who is busy. So the worker finds what it was offered, or the master finds it busy.
  void SayWaiting() { hint.store(Hint::kWaiting, std::memory_order_seq_cst); }
  void SayBusy() { hint.store(Hint::kBusy, std::memory_order_seq_cst); }
  // Master. Whether it has said that it is busy, or that it waits.
  bool Busy() const { return hint.load(std::memory_order_seq_cst) == Hint::kBusy; }
  bool Hints() const { return hint.load(std::memory_order_relaxed) != Hint::kNone; }
  bool SaysItWaits() const { return hint.load(std::memory_order_seq_cst) == Hint::kWaiting; }
  // Whether a permit may wait for it: it says that it waits, also where it has woken and has not
  // claimed yet; or it gives no hints, and is in no claim.
  bool Awaits() const {
    const Hint says = hint.load(std::memory_order_seq_cst);
    return says == Hint::kWaiting ||
           (says == Hint::kNone && serving.load(std::memory_order_seq_cst) == 0);
  }

  void SayRoom() { rooms.fetch_add(1, std::memory_order_seq_cst); }
  uint32_t Rooms() const { return rooms.load(std::memory_order_seq_cst); }

  // Another worker, which is about to pass something on to one that waits; one at a time. Whether
  // this one waits, and nobody has spoken for it of late. After kSpokenForNs it has got what it was
  // meant to get, and is busy; or it was not picked, and still waits.
  static constexpr int64_t kSpokenForNs = 500'000;
  bool SpeakFor(int64_t now_ns) {
    if (!SaysItWaits() || now_ns < spoken_for_until_ns.load(std::memory_order_relaxed)) {
      return false;
    }
    spoken_for_until_ns.store(now_ns + kSpokenForNs, std::memory_order_relaxed);
    return true;
  }

  // Master: reserves one place below `capacity`. False, and nothing reserved, when there is none.
  bool Reserve(uint32_t capacity) { return CountBelow(capacity, open); }
  // Worker: reserves one place whatever the capacity, for a connection that it has already.
  void ForceReserve() { open.fetch_add(1, std::memory_order_seq_cst); }
  // Master (recall), worker or lease (end): gives places back. Returns whether the worker had none
  // before and says that it waits. Then masters that want a waiter are knocked at (Hunger), and
  // hungry desks are visited (core/desk.h).
  bool Release(uint32_t count = 1) {
    const uint32_t before = open.fetch_sub(count, std::memory_order_seq_cst);
    return before >= places.load(std::memory_order_relaxed) && SaysItWaits();
  }
};

// How many connections may be open at once, of one source or of a whole balancer: from before they
// are accepted, or from when their ticket is issued, to the end of their lease. Exact, because a
// place is reserved before the accept is asked for; the balancer's is shared by its masters. All
// are sequentially consistent for the same reason as PortState::open.
class Gate {
 public:
  // Set-up. 0: there is no limit, and nothing is counted.
  void Limit(uint32_t limit) { limit_ = limit; }
  bool limited() const { return limit_ != 0; }

  // Master: reserves one place. False, and nothing reserved, when there is none.
  bool Reserve() { return CountBelow(limit_, used_); }
  // Either side: reserves one whatever the limit, for a connection that is there already.
  void ForceReserve() { used_.fetch_add(1, std::memory_order_seq_cst); }
  // Either side: gives places back.
  void GiveBack(uint32_t count = 1) { used_.fetch_sub(count, std::memory_order_seq_cst); }
  bool Full() const { return used_.load(std::memory_order_seq_cst) >= limit_; }
  uint32_t used() const { return used_.load(std::memory_order_acquire); }

 private:
  alignas(kCacheLine) std::atomic<uint32_t> used_{0};
  uint32_t limit_ = 0;
};

// Which source has an index now. An index is used again, a serial never: it goes with a ticket and
// a handle, and is asked for wherever one of them is used. So what comes late does not reach the
// next source of the same index.
//
// Whoever redeems a ticket raises PortState::redeeming, asks whether the source is still there,
// uses its descriptor, and lowers it again. Whoever removes the source clears the serial and then
// waits until nobody redeems. All four accesses are sequentially consistent, so at least one side
// sees the other: after the removal nobody uses a number that may be another file by then.
class SourceIdentity {
 public:
  // Master. Before the first ticket of the source; 0: no source has the index.
  void Set(uint64_t serial) { serial_.store(serial, std::memory_order_seq_cst); }
  // Any thread.
  uint64_t serial() const { return serial_.load(std::memory_order_seq_cst); }
  bool Is(uint64_t serial) const { return serial != 0 && this->serial() == serial; }

 private:
  std::atomic<uint64_t> serial_{0};
};

// What workers have said by the tickets of one source index, and the master has not heard yet. It
// carries the serial of the source, so that a late ticket is told apart. Several workers may speak
// between two looks of the master, which hears of each kind of news once: in which order they came
// is lost, but no kind is.
class GivenBack {
 public:
  static constexpr int32_t kErrorMax = 4095;  // the kernel's largest errno

  struct News {
    bool more = false;      // there may be more: somebody else may have a look
    bool redeemed = false;  // something was accepted
    bool nothing = false;   // nothing was found (EAGAIN)
    int32_t error = 0;      // the gravest errno of what went wrong, or 0
  };

  // Any thread. A ticket of the source comes back, with the errno of what went wrong or 0. Release:
  // the master that hears of it sees what was done before. One of a source that has gone does not
  // replace what is known of the present one.
  void Say(uint64_t serial, int32_t error) {
    if (error == EAGAIN) return Add(serial, kNothing);
    const bool is_errno = error > 0 && error <= kErrorMax;
    Add(serial, is_errno ? static_cast<uint64_t>(error) : kMore);
  }
  // Any thread. Something was accepted. The master has nothing to do because of that, unless it has
  // asked.
  void SayRedeemed(uint64_t serial) { Add(serial, kRedeemed); }

  // Master. It wants to hear when something is accepted, or nothing is found: once.
  void Ask() { asked_.store(1, std::memory_order_relaxed); }
  // Any thread, after either of these. True for one caller, who says so and wakes the master.
  // Relaxed: whoever misses it leaves it to the next.
  bool Asked() {
    return asked_.load(std::memory_order_relaxed) != 0 &&
           asked_.exchange(0, std::memory_order_relaxed) != 0;
  }

  // Master. What was said of this source since the last call.
  News Hear(uint64_t serial) {
    if (word_.load(std::memory_order_relaxed) == 0) return {};
    const uint64_t word = word_.exchange(0, std::memory_order_acquire);
    if (word >> kSerialShift != serial) return {};
    return {.more = (word & kMore) != 0,
            .redeemed = (word & kRedeemed) != 0,
            .nothing = (word & kNothing) != 0,
            .error = ErrorOf(word)};
  }

 private:
  static constexpr uint32_t kSerialShift = 16;
  static constexpr uint64_t kErrorMask = 0xfff;
  static constexpr uint64_t kMore = 1 << 12;
  static constexpr uint64_t kRedeemed = 1 << 13;
  static constexpr uint64_t kNothing = 1 << 14;

  static int32_t ErrorOf(uint64_t word) { return static_cast<int32_t>(word & kErrorMask); }

  void Add(uint64_t serial, uint64_t news) {
    uint64_t before = word_.load(std::memory_order_relaxed);
    while (before >> kSerialShift <= serial) {
      uint64_t word = serial << kSerialShift | news;
      if (before >> kSerialShift == serial) {
        const int32_t error = Graver(ErrorOf(before), ErrorOf(news));
        word = ((word | before) & ~kErrorMask) | static_cast<uint64_t>(error);
      }
      if (word_.compare_exchange_weak(before, word, std::memory_order_release,
                                      std::memory_order_relaxed)) {
        return;
      }
    }
  }

  std::atomic<uint64_t> word_{0};
  std::atomic<uint32_t> asked_{0};
};

// The tally of one master and one worker to which arrivals are handed over as completions of its
// own ring. It counts three things:
//  * how many were handed over and are untaken: they fill up the worker's window;
//  * how many of these have a lease already, with which they share a place (see PortState::open);
//  * how many were ever taken.
// All three are in one word, because both sides must agree on who gives a place back. A worker may
// say that it took what is only on its way, or make a lease of a connection that came by another
// way, just when the handing over fails.
class Tally {
 public:
  // Master. One more, before it is handed over. Release: a worker that has seen the completion
  // finds it counted.
  void Send() { word_.fetch_add(kOneUntaken, std::memory_order_release); }

  // Master. One less, because handing over failed.
  enum class Unsent : uint8_t {
    kPlaceIsFree,  // the master releases its place
    kLeaseHasIt,   // a lease has the place and releases it
    kTaken,        // the worker has said that it took it: it counts as handed over and taken
  };
  Unsent Unsend() {
    uint64_t word = word_.load(std::memory_order_acquire);
    while (true) {
      const uint64_t untaken = word & kFieldMask;
      if (untaken == 0) return Unsent::kTaken;
      const bool leased = (word >> kLeasedShift & kFieldMask) == untaken;
      const uint64_t less = kOneUntaken + (leased ? kOneLeased : 0);
      if (word_.compare_exchange_weak(word, word - less, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
        return leased ? Unsent::kLeaseHasIt : Unsent::kPlaceIsFree;
      }
    }
  }

  // Worker. A lease gets the place of one that is handed over and not taken. False when every such
  // place has a lease; then the lease takes a place of its own.
  bool Lease() {
    uint64_t word = word_.load(std::memory_order_acquire);
    do {
      if ((word >> kLeasedShift & kFieldMask) >= (word & kFieldMask)) return false;
    } while (!word_.compare_exchange_weak(word, word + kOneLeased, std::memory_order_acq_rel,
                                          std::memory_order_acquire));
    return true;
  }

  // Worker. Takes up to `count` of what was handed over. Makes credit, and is the first half of the
  // hungry dance (see Hunger); the places that no lease has must be released before the second.
  struct Took {
    uint32_t count = 0;
    uint32_t places = 0;  // to be released
  };
  Took Take(size_t count) {
    uint64_t word = word_.load(std::memory_order_acquire);
    while (true) {
      const uint64_t taken = count < (word & kFieldMask) ? count : word & kFieldMask;
      if (taken == 0) return {};
      const uint64_t leases = word >> kLeasedShift & kFieldMask;
      const uint64_t leased = taken < leases ? taken : leases;
      const uint64_t changed =
          word - taken * kOneUntaken - leased * kOneLeased + (taken << kTakenShift);
      if (word_.compare_exchange_weak(word, changed, std::memory_order_seq_cst,
                                      std::memory_order_acquire)) {
        return {.count = static_cast<uint32_t>(taken),
                .places = static_cast<uint32_t>(taken - leased)};
      }
    }
  }

  // Handed over and not taken.
  uint32_t Untaken() const {
    return static_cast<uint32_t>(word_.load(std::memory_order_acquire) & kFieldMask);
  }
  // Master. How many were ever taken; begins anew after 2^32.
  uint32_t Taken() const {
    return static_cast<uint32_t>(word_.load(std::memory_order_seq_cst) >> kTakenShift);
  }

 private:
  // A window, and so what is untaken, is far below 2^16; what is taken overflows out of the word.
  static constexpr uint64_t kFieldMask = 0xffff;
  static constexpr uint32_t kLeasedShift = 16;
  static constexpr uint32_t kTakenShift = 32;
  static constexpr uint64_t kOneUntaken = 1;
  static constexpr uint64_t kOneLeased = uint64_t{1} << kLeasedShift;

  alignas(kCacheLine) std::atomic<uint64_t> word_{0};
};

// The flags by which one master asks to be woken. The first says that there is work and no credit:
// whoever makes some knocks. The second says that there is work and no descriptor. Only the end of
// a connection can change that, so only a lease answers it.
//
// The dance: the master sets the flag and then looks once more for credit; a worker makes credit
// (claims, clears `rung`, takes what was handed over, releases a lease) and then reads the flag.
// All four accesses are sequentially consistent, so at least one side sees the other: either the
// master's second look finds the credit, or the worker finds the flag and knocks. With anything
// weaker both may read the old value (store buffering), and the work waits for ever.
//
// The third flag says that somebody who waits may have something: it is for workers that give
// hints. It is a flag of its own, because a worker comes to its wait far more often than it makes
// credit, and must not knock each time while credit is short. The dance is the same: the worker
// says that it waits (PortState::SayWaiting) and then reads the flag; the master raises the flag
// and then looks once more who waits.
class Hunger {
 public:
  // Master. `descriptors`: these are short, too. Returns whether it had said so before and a lease
  // has ended since; LeaseEnded returns the same, once.
  bool Set(bool descriptors = false) {
    const uint32_t before =
        wants_.exchange(kCredit | (descriptors ? kDescriptor : 0), std::memory_order_seq_cst);
    return std::exchange(short_, descriptors) && (before & kDescriptor) == 0;
  }
  bool LeaseEnded() {
    if (!short_ || (wants_.load(std::memory_order_seq_cst) & kDescriptor) != 0) return false;
    short_ = false;
    return true;
  }
  void Clear() {
    wants_.store(0, std::memory_order_seq_cst);
    short_ = false;
  }

  // Worker, after it has made credit. True for exactly one caller, who knocks.
  bool HearKnock() {
    return (wants_.load(std::memory_order_seq_cst) & kCredit) != 0 &&
           (wants_.fetch_and(~kCredit, std::memory_order_seq_cst) & kCredit) != 0;
  }
  // The same of a lease that has ended, and most likely its descriptor before it.
  bool HearKnockOfLease() {
    return wants_.load(std::memory_order_seq_cst) != 0 &&
           wants_.exchange(0, std::memory_order_seq_cst) != 0;
  }

  // Master. It wants to hear of the next worker that waits, or not any more.
  void WantWaiter(bool wants) {
    if (wants || waiter_.load(std::memory_order_relaxed)) {
      waiter_.store(wants, std::memory_order_seq_cst);
    }
  }
  // Worker, after it has said that it waits. True for exactly one caller, who knocks.
  bool HearKnockOfWaiter() {
    return waiter_.load(std::memory_order_seq_cst) &&
           waiter_.exchange(false, std::memory_order_seq_cst);
  }

 private:
  static constexpr uint32_t kCredit = 1;
  static constexpr uint32_t kDescriptor = 2;

  alignas(kCacheLine) std::atomic<uint32_t> wants_{0};
  std::atomic<bool> waiter_{false};
  bool short_ = false;  // of descriptors, as the master last said
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_PORT_STATE_H_
