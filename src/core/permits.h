// Permits: leave to accept one connection, given to a worker before the connection comes. The
// kernel wakes whoever has one, so the master has no part in it. The words that a desk
// (core/desk.h) and a worker share stand here; with core/inbox.h and core/port_state.h they are the
// only atomics.
//
//   holder of the desk                         worker
//   ------------------                         ------
//   Issue: claimable += 1, then Pending::Set   for each source of Pending:
//   Withdraw: claimable = 0                    Claim: claimable -= 1, redeeming += 1
//                                              accept
//   TakeGivenBack                              Finish: redeeming -= 1; or GiveUp: claimable = 0,
//                                              too, and then given_back += what went back
//
// Claim and Withdraw are read-modify-writes of one word, so exactly one of them gets a permit. What
// is redeeming is a state of its own: the connection still waits in the backlog then, and without
// that state the holder would issue another permit for it.
//
// All accesses are sequentially consistent: each is one half of a dance that core/desk.h explains.
//
// Threads: the holder's functions by the holder, the worker's by the worker.

#ifndef RINGMASTER_SRC_CORE_PERMITS_H_
#define RINGMASTER_SRC_CORE_PERMITS_H_

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ringmaster::core {

// The permits of one worker for one source.
class Permits {
 public:
  struct Count {
    uint32_t claimable = 0;
    uint32_t redeeming = 0;  // by these the worker is about to accept
    uint32_t out() const { return claimable + redeeming; }
  };

  // Worker. Gets one; false when there is none.
  bool Claim() {
    uint32_t word = word_.load(std::memory_order_seq_cst);
    while ((word & kMask) != 0) {
      if (word_.compare_exchange_weak(word, word - kOneClaimable + kOneRedeeming,
                                      std::memory_order_seq_cst)) {
        return true;
      }
    }
    return false;
  }
  // Worker. It has accepted.
  void Finish() { word_.fetch_sub(kOneRedeeming, std::memory_order_seq_cst); }
  // Worker. It has found nothing, or no place: what else it has goes back with this one.
  void GiveUp() {
    uint32_t word = word_.load(std::memory_order_seq_cst);
    while (!word_.compare_exchange_weak(word, (word & ~kMask) - kOneRedeeming,
                                        std::memory_order_seq_cst)) {
    }
    given_back_.fetch_add(1 + (word & kMask), std::memory_order_seq_cst);
  }
  // Worker. It gives back what it can claim, and visits the desk if that was anything.
  bool GiveBack() {
    const uint32_t count = Withdraw();
    if (count > 0) given_back_.fetch_add(count, std::memory_order_seq_cst);
    return count > 0;
  }

  // Holder.
  void Issue() { word_.fetch_add(kOneClaimable, std::memory_order_seq_cst); }
  // Holder. Takes back what can be claimed, and returns how many.
  uint32_t Withdraw() {
    if (Read().claimable == 0) return 0;
    return word_.fetch_and(~kMask, std::memory_order_seq_cst) & kMask;
  }

  // Whoever repairs, when the worker is gone: there are none of it, whatever it was about to do.
  void Clear() {
    word_.store(0, std::memory_order_seq_cst);
    given_back_.store(0, std::memory_order_seq_cst);
  }

  // Holder. How many the worker has given up or back since the last call: its policy is told of
  // each.
  uint32_t TakeGivenBack() {
    return given_back_.load(std::memory_order_seq_cst) == 0
               ? 0
               : given_back_.exchange(0, std::memory_order_seq_cst);
  }

  // Any thread.
  Count Read() const {
    const uint32_t word = word_.load(std::memory_order_seq_cst);
    return {.claimable = word & kMask, .redeeming = word >> kShift};
  }

  // Worker: connections that it has accepted. One writer.
  void CountAccepted() {
    accepted_.store(accepted_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  // Any thread.
  uint64_t accepted() const { return accepted_.load(std::memory_order_relaxed); }
  // While nobody has a permit: another source has the index now, and counts from 0.
  void Reset() {
    accepted_.store(0, std::memory_order_relaxed);
    given_back_.store(0, std::memory_order_relaxed);
  }

 private:
  static constexpr uint32_t kShift = 16;
  static constexpr uint32_t kMask = 0xffff;
  static constexpr uint32_t kOneClaimable = 1;
  static constexpr uint32_t kOneRedeeming = 1u << kShift;

  std::atomic<uint32_t> word_{0};
  std::atomic<uint32_t> given_back_{0};
  std::atomic<uint64_t> accepted_{0};
};

// A set of indexes that some threads add to and others take out of. Whoever takes an index finds
// what was done before it was set. It may also find nothing, because the index was set for
// something that was taken back since.
template <uint32_t size>
class IndexSet {
 public:
  // Any thread.
  void Set(uint32_t index) {
    words_[index / kBits].fetch_or(Bit(index), std::memory_order_seq_cst);
    summary_.fetch_or(uint64_t{1} << (index / kBits), std::memory_order_seq_cst);
  }
  // Any thread. False only if all that was set before has been taken.
  bool Any() const { return summary_.load(std::memory_order_seq_cst) != 0; }

  // Any thread. Calls `each` for every index, from `first` on, then for those below; takes none.
  template <typename Each>
  void ForEach(Each each, uint32_t first = 0) const {
    const uint64_t summary = summary_.load(std::memory_order_seq_cst);
    const uint32_t first_word = first / kBits;
    const uint64_t words_below = (uint64_t{1} << first_word) - 1;
    const uint64_t bits_below = Bit(first) - 1;
    ForEachOf(summary & ~words_below, first_word, ~bits_below, each);
    if (first == 0) return;
    ForEachOf(summary & (words_below << 1 | 1), first_word, bits_below, each);
  }

  // Any thread. Takes this one. What it was set for may be there still; then it must be set again.
  void Remove(uint32_t index) {
    words_[index / kBits].fetch_and(~Bit(index), std::memory_order_seq_cst);
  }
  // Any thread. Takes all, and calls `each` for every index of them.
  template <typename Each>
  void Take(Each each) {
    if (!Any()) return;
    uint64_t summary = summary_.exchange(0, std::memory_order_seq_cst);
    for (; summary != 0; summary &= summary - 1) {
      const auto at = static_cast<uint32_t>(std::countr_zero(summary));
      uint64_t word = words_[at].exchange(0, std::memory_order_seq_cst);
      for (; word != 0; word &= word - 1) {
        each(at * kBits + static_cast<uint32_t>(std::countr_zero(word)));
      }
    }
  }

 private:
  static constexpr uint32_t kBits = 64;
  static_assert(size <= kBits * kBits);
  static uint64_t Bit(uint32_t index) { return uint64_t{1} << (index % kBits); }

  // Of the word `partly` only what `mask` has.
  template <typename Each>
  void ForEachOf(uint64_t words, uint32_t partly, uint64_t mask, Each& each) const {
    for (; words != 0; words &= words - 1) {
      const auto at = static_cast<uint32_t>(std::countr_zero(words));
      uint64_t word = words_[at].load(std::memory_order_seq_cst);
      if (at == partly) word &= mask;
      for (; word != 0; word &= word - 1) {
        each(at * kBits + static_cast<uint32_t>(std::countr_zero(word)));
      }
    }
  }

  std::atomic<uint64_t> summary_{0};
  std::array<std::atomic<uint64_t>, (size + kBits - 1) / kBits> words_{};
};

// Who holds a desk. Sequentially consistent; so whoever holds it sees what those before have done.
class DeskWord {
 public:
  // Any thread. Gets the desk. If somebody else holds it: leaves a note, so that the holder looks
  // again and sees what this thread has done. False then, and if the master has it or wants it.
  bool TryHold() {
    State state = state_.load(std::memory_order_seq_cst);
    while (state != State::kWanted && state != State::kMasters) {
      const State next = state == State::kFree ? State::kHeld : State::kNoted;
      if (state_.compare_exchange_weak(state, next, std::memory_order_seq_cst)) {
        return next == State::kHeld;
      }
    }
    return false;
  }
  // Holder. Lets go, unless there is a note: then it holds on, and there is none any more. If the
  // master wants it, it is the master's.
  bool Leave() {
    State state = State::kHeld;
    if (state_.compare_exchange_strong(state, State::kFree, std::memory_order_seq_cst)) return true;
    if (state == State::kNoted &&
        state_.compare_exchange_strong(state, State::kHeld, std::memory_order_seq_cst)) {
      return false;
    }
    GiveToMaster();
    return true;
  }
  // Holder. From now on the master has it.
  void GiveToMaster() { state_.store(State::kMasters, std::memory_order_seq_cst); }

  // Master. It has the desk if this is true; otherwise it gets it when the holder leaves.
  bool Want() {
    State state = state_.load(std::memory_order_seq_cst);
    while (state != State::kWanted && state != State::kMasters) {
      const State next = state == State::kFree ? State::kMasters : State::kWanted;
      if (state_.compare_exchange_weak(state, next, std::memory_order_seq_cst)) state = next;
    }
    return state == State::kMasters;
  }
  // Master, which has it: holds it as anybody might from now on.
  void Open() { state_.store(State::kHeld, std::memory_order_seq_cst); }
  // Any thread.
  bool is_masters() const { return state_.load(std::memory_order_seq_cst) == State::kMasters; }

  // Holder, before it leaves: it will wake sights afterwards (core/desk.h, rule "wakes"). Then,
  // when it has.
  void AddWaker() { wakers_.fetch_add(1, std::memory_order_seq_cst); }
  void RemoveWaker() { wakers_.fetch_sub(1, std::memory_order_seq_cst); }
  // Master, which has it: whether somebody is still to wake sights. Nobody new comes.
  bool HasWakers() const { return wakers_.load(std::memory_order_seq_cst) > 0; }

  // Any thread: an errno for the holder. Holder: the last one, or 0.
  void SayTrouble(int error) { trouble_.store(error, std::memory_order_seq_cst); }
  int TakeTrouble() {
    return trouble_.load(std::memory_order_seq_cst) == 0
               ? 0
               : trouble_.exchange(0, std::memory_order_seq_cst);
  }

 private:
  enum class State : uint32_t {
    kFree,
    kHeld,
    kNoted,   // held, and somebody has left a note
    kWanted,  // held, and the master wants it
    kMasters,
  };

  std::atomic<State> state_{State::kMasters};
  std::atomic<uint32_t> wakers_{0};
  std::atomic<int> trouble_{0};
};

// So many sources of one master a worker may have permits for.
inline constexpr uint32_t kAimedSourcesMax = 1024;
using SourceSet = IndexSet<kAimedSourcesMax>;

// What a worker has from one master, by the source's index there.
struct WorkerPermits {
  // Sources for which it may have permits, so that it need not look at each.
  SourceSet pending;
  // How many sources its sight shows. Written by holders of their desks.
  std::atomic<uint32_t> shown{0};
  std::array<Permits, kAimedSourcesMax> of_source;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_PERMITS_H_
