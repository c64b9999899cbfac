// Area: what processes that share listeners share, in one piece of memory. A *worker* is an epoll
// set of a process; a *source* is a listener; a *sight* is an epoll set that stands in a worker's
// own set in the place of the listener. Who may accept is decided by permits (core/permits.h),
// which a desk issues (processes/desk.h).
//
// Everything here is a number of its own, read and written atomically. Any process may write
// anything, because it may be broken, hostile, or killed between two steps. So whoever reads an
// index or a count from here checks it before use. Then nonsense costs balance, and never memory of
// another process.
//
// One of the few places where atomics live.

#ifndef RINGMASTER_SRC_PROCESSES_AREA_H_
#define RINGMASTER_SRC_PROCESSES_AREA_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/permits.h"
#include "ringmaster/policy.h"

namespace ringmaster::processes {

inline constexpr uint32_t kWorkersMax = 64;
inline constexpr uint32_t kSightsMax = 64;
inline constexpr uint32_t kSourcesMax = 16;
inline constexpr uint32_t kNone = UINT32_MAX;
inline constexpr size_t kPolicyWords = Policy::kMemoryWords + kWorkersMax;
// Connections that a worker has open, as another process has written it. More is nonsense.
inline constexpr uint32_t kOpenMax = 1 << 24;

// What a worker has of one source.
struct Pair {
  core::Permits permits;
  // Holder of the desk: the sight may show the source. A worker that was woken by its sight and has
  // no permit sets it, so that the next holder takes the source out (core/desk.h, rule "sights").
  std::atomic<uint32_t> shown{0};
  // Worker: which sight stands in its set for this source; kNone: none, it watches the listener
  // itself or not at all. Keeper: when the worker is gone.
  std::atomic<uint32_t> sight{kNone};
  // Worker: its process has the listener open, whether it watches it now or not. When no worker
  // has it any more, the keeper lets go of it, too, so that clients are refused as they should be.
  std::atomic<uint32_t> has{0};
};

struct alignas(64) Worker {
  // Whose it is: the process, and a number that is another one for the next owner. 0: nobody's.
  std::atomic<uint64_t> owner{0};
  std::atomic<uint32_t> open{0};       // connections that it has accepted and not closed
  std::atomic<uint32_t> waits{0};      // it waits for events, or is about to
  std::atomic<int64_t> woke_at_ns{0};  // when it last ceased to wait (Kernel::NowNs)
  // The keeper: it has permits and does not move. Cleared by the worker as soon as it moves.
  std::atomic<uint32_t> marked{0};
  std::atomic<int32_t> cpu{-1};  // where it last accepted
  std::atomic<uint64_t> accepted{0};
  // Worker: the number of the chute from which it takes what its parent gives (processes/chute.h);
  // 0: it takes nothing. And of `accepted`, how many it has taken there.
  std::atomic<uint64_t> takes{0};
  std::atomic<uint64_t> taken{0};
  // Parent: something lies in the chute. Worker: it looks now.
  std::atomic<uint32_t> given{0};
  std::array<Pair, kSourcesMax> of_source;

  void Moved() {
    if (marked.load(std::memory_order_seq_cst) != 0) marked.store(0, std::memory_order_seq_cst);
  }
};

// Who holds the desk of a source (rule "named"). One word: the holder, a note that somebody was
// here meanwhile, and a number that is another one each time, so that a holder notices that it was
// deposed.
class NamedWord {
 public:
  static constexpr uint32_t kKeeper = 255;
  static constexpr uint32_t HolderOf(uint64_t word) { return static_cast<uint32_t>(word & 0xff); }

  // Gets the desk for `me` (from 1 to 255): what it holds is in `held`. If somebody else has it:
  // leaves a note; false then.
  bool TryHold(uint32_t me, uint64_t& held) {
    uint64_t word = word_.load(std::memory_order_seq_cst);
    while (true) {
      const bool is_free = HolderOf(word) == 0;
      const uint64_t next = is_free ? Next(word, me) : word | kNote;
      if (!word_.compare_exchange_weak(word, next, std::memory_order_seq_cst)) continue;
      held = next;
      return is_free;
    }
  }
  // Holder. Whether it still is.
  bool Holds(uint64_t held) const {
    return (word_.load(std::memory_order_seq_cst) & ~kNote) == held;
  }
  // Holder. Lets go; false: there was a note, and it goes on. True also if it was deposed.
  bool Leave(uint64_t held) {
    uint64_t word = held;
    if (word_.compare_exchange_strong(word, held & ~kHolder, std::memory_order_seq_cst))
      return true;
    while ((word & ~kNote) == held) {
      if (word_.compare_exchange_weak(word, held, std::memory_order_seq_cst)) return false;
    }
    return true;
  }

  // Keeper. The word, to see whether it changes; and deposing whoever holds it by that word.
  uint64_t Read() const { return word_.load(std::memory_order_seq_cst); }
  bool Depose(uint64_t word, uint64_t& held) {
    while (true) {
      const uint64_t next = Next(word, kKeeper);
      uint64_t now = word;
      if (word_.compare_exchange_strong(now, next, std::memory_order_seq_cst)) {
        held = next;
        return true;
      }
      if ((now & ~kNote) != (word & ~kNote)) return false;
      word = now;
    }
  }

 private:
  static constexpr uint64_t kHolder = 0xff;
  static constexpr uint64_t kNote = 0x100;
  static constexpr uint32_t kTermShift = 16;

  static uint64_t Next(uint64_t word, uint32_t me) {
    return ((word >> kTermShift) + 1) << kTermShift | (me & kHolder);
  }

  std::atomic<uint64_t> word_{0};
};

// What becomes of the connections of a source.
enum class Mode : uint32_t {
  kFree,   // no source has the index
  kPlain,  // the kernel decides: fewer than two workers so far, or there is nothing to decide
  kAimed,  // permits decide
  kLeft,   // the kernel decides from now on, because something here could not go on
};

struct alignas(64) Source {
  NamedWord word;
  std::atomic<Mode> mode{Mode::kFree};
  // The desk wants to hear who waits next (core/desk.h, rule "hungry"), or only of one that has no
  // connection.
  static constexpr uint32_t kHungry = 1;
  static constexpr uint32_t kHungryForIdle = 2;
  std::atomic<uint32_t> hungry{0};
  // Something may be half done: the next look renews (processes/desk.h).
  std::atomic<uint32_t> torn{0};
  std::atomic<uint64_t> cookie{0};  // SO_COOKIE of the listener
  std::atomic<uint64_t> joined{0};  // a bit for each worker that watches it
  // The holder's: what the policy remembers (Policy::Save).
  std::array<std::atomic<uint64_t>, kPolicyWords> memory{};

  // Worker, which has said that it waits. Whether it is to visit the desk.
  bool TakeHungry(uint32_t open) {
    const uint32_t hunger = hungry.load(std::memory_order_seq_cst);
    if (hunger == 0 || (hunger == kHungryForIdle && open > 0)) return false;
    return hungry.exchange(0, std::memory_order_seq_cst) != 0;
  }

  bool Joined(uint32_t worker) const {
    return (joined.load(std::memory_order_seq_cst) >> worker & 1) != 0;
  }
};

struct Area {
  static constexpr uint64_t kMagic = 0x32'6165'7261'6d72;  // and the layout's number

  uint64_t magic = kMagic;
  // A bit for each sight that stands in some worker's set.
  std::atomic<uint64_t> sights{0};
  std::array<Worker, kWorkersMax> workers;
  std::array<Source, kSourcesMax> sources;
};

static_assert(std::atomic<uint64_t>::is_always_lock_free &&
              std::atomic<uint32_t>::is_always_lock_free);

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_AREA_H_
