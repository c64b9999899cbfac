// The inbox: a bounded queue from one master to one worker whose entries either side can take. The
// heart of the library; the protocol stands here once and nowhere else.
//
// A word is zero or an offer. Only the master writes an offer, only into a word that is zero. Both
// sides take with one atomic operation: the worker claims by exchange(0), the master recalls by
// compare_exchange(offer, 0). Who gets the offer owns it. There is no generation and no further
// state: a word that has become zero is the acknowledgement, and the master's own ledger says what
// was in it; it never believes a payload that it reads back.
//
//   master                                     worker
//   ------                                     ------
//   Write: word = offer (was zero)             Begin: rung.exchange(0), then read tail
//   Publish: tail += n                         Claim: word.exchange(0), cursor to tail, one by one
//   Ring: rung.exchange(1); was 0: doorbell    (end)  Hunger::HearKnock: see core/claim.h
//   Recall: word.compare_exchange(offer, 0)
//   Empty, Rung: looks
//
// Why nothing is lost.
// (1) Ring happens after Publish, Begin reads tail after its exchange. Both exchanges are on one
//     variable, so one comes first. Ring first: Begin's exchange reads what Ring (or a later Ring)
//     wrote and synchronizes with it, so Begin sees the tail and the words. Begin first: Ring gets
//     0 back and a doorbell is owed, which leads to another Begin.
// (2) Begin must be an exchange. A plain store of zero may stay in the store buffer while the look
//     that follows is done: Ring then gets 1 from memory, sends no doorbell, the look saw nothing,
//     and the offer waits for ever.
// (3) Claim and recall are read-modify-writes of the same word, so exactly one of them gets it.
// (4) The worker claims by position in ascending order, so the offers that it has not claimed are a
//     suffix of what was written, apart from holes that recalls have left. A word is written again
//     only when it is zero; a cursor more than one lap behind therefore has nothing to find in what
//     it skips. A cursor that stands on holes may find an offer of the next lap in one of them,
//     before its turn; that is a claim like any other, and the master notices it when its look gets
//     there.
//
// Memory orders: the word is stored with release, so that whoever empties it sees what was set up
// before it, also by (4) ahead of the tail that publishes it. Empty and Rung are sequentially
// consistent loads, because they are the master's second look in the hungry dance (see Hunger), as
// the worker's exchanges are its first half. Ring is so, too: it is one half of the dance of those
// who say that they are busy (see PortState). A recall is acquire-release on success, relaxed on
// failure, because then only Empty is asked. No fences: the thread sanitizer does not understand
// them.
//
// Threads: the master's functions by the master, the worker's by the worker, Rung by either; each
// side is one thread at a time.

#ifndef RINGMASTER_SRC_CORE_INBOX_H_
#define RINGMASTER_SRC_CORE_INBOX_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <new>

#include "core/port_state.h"

namespace ringmaster::core {

// An offer as it stands in a word: never zero.
struct Offer {
  uint32_t source = 0;  // below kSourcesMax
  int32_t fd = -1;      // non-negative

  static constexpr uint64_t kPresent = uint64_t{1} << 63;
  static constexpr uint32_t kSourcesMax = 1u << 16;

  uint64_t word() const { return kPresent | (uint64_t{source} << 32) | static_cast<uint32_t>(fd); }
  static Offer FromWord(uint64_t word) {
    return {.source = static_cast<uint32_t>((word & ~kPresent) >> 32),
            .fd = static_cast<int32_t>(static_cast<uint32_t>(word))};
  }
};

class Inbox {
 public:
  static constexpr uint32_t kWindowMax = 1024;

  // Words for a window of up to `window_max`: twice as many, so that holes do not use up the room.
  static constexpr uint32_t WordsFor(uint32_t window_max) { return std::bit_ceil(2 * window_max); }

  // Bytes of storage that an inbox with so many words needs.
  static constexpr size_t BytesFor(uint32_t words) {
    return sizeof(Header) + size_t{words} * sizeof(std::atomic<uint64_t>);
  }

  // Borrows `storage`: BytesFor(words) zeroed bytes, aligned to a cache line; `words` is a power of
  // two. If the storage is wiped to zeros (which is what becomes of it in a forked child), the
  // inbox is empty for the worker.
  Inbox(void* storage, uint32_t words)
      : header_(new (storage) Header()),
        words_(reinterpret_cast<std::atomic<uint64_t>*>(static_cast<std::byte*>(storage) +
                                                        sizeof(Header))),
        size_(words) {
    for (uint32_t i = 0; i < words; ++i) new (&words_[i]) std::atomic<uint64_t>(0);
  }
  Inbox(const Inbox&) = delete;
  Inbox& operator=(const Inbox&) = delete;

  uint32_t size() const { return size_; }

  // Master. Puts an offer at `position`, whose word is zero and which is the next one after the
  // position written last. Not visible to the worker before Publish.
  void Write(uint64_t position, Offer offer) {
    Word(position).store(offer.word(), std::memory_order_release);
  }

  // Master. Everything below `tail` may be claimed. Pairs with the acquire in Begin.
  void Publish(uint64_t tail) { header_->tail.store(tail, std::memory_order_release); }

  // Master. Returns whether the worker must be told by a doorbell. See (1).
  bool Ring() { return header_->rung.exchange(1, std::memory_order_seq_cst) == 0; }

  // Either. Whether the doorbell has been rung and the worker has not begun a claim since.
  bool Rung() const { return header_->rung.load(std::memory_order_seq_cst) != 0; }

  // Master. Whether the word at `position` is zero: the offer there was claimed or recalled.
  bool Empty(uint64_t position) const {
    return Word(position).load(std::memory_order_seq_cst) == 0;
  }

  // Master. Gets back the offer at `position`; false when the worker was faster.
  bool Recall(uint64_t position, Offer offer) {
    uint64_t expected = offer.word();
    return Word(position).compare_exchange_strong(expected, 0, std::memory_order_acq_rel,
                                                  std::memory_order_relaxed);
  }

  // Worker. Starts a claim: everything published before is found by it, everything published later
  // rings again. See (1) and (2). Returns whether it was rung.
  bool Begin() {
    const bool was_rung = header_->rung.exchange(0, std::memory_order_seq_cst) != 0;
    header_->claim_end = header_->tail.load(std::memory_order_acquire);
    if (header_->claim_end - header_->cursor > size_)
      header_->cursor = header_->claim_end - size_;  // by (4)
    return was_rung;
  }

  // Worker. Claims the next offer of this claim; zero when there is none left.
  uint64_t Claim() {
    while (header_->cursor != header_->claim_end) {
      const uint64_t word = Word(header_->cursor++).exchange(0, std::memory_order_seq_cst);
      if (word != 0) return word;  // a zero is a hole that a recall left
    }
    return 0;
  }

  // Worker. Whether this claim stopped before its end; then no doorbell announces the rest.
  bool Left() const { return header_->cursor != header_->claim_end; }

 private:
  struct Header {
    alignas(kCacheLine) std::atomic<uint64_t> tail{0};  // written by the master
    alignas(kCacheLine) std::atomic<uint32_t> rung{0};  // written by both
    alignas(kCacheLine) uint64_t cursor = 0;            // the worker's own: next to be claimed
    uint64_t claim_end = 0;                             // the worker's own: tail as Begin saw it
  };
  static_assert(sizeof(Header) % kCacheLine == 0);
  static_assert(sizeof(std::atomic<uint64_t>) == sizeof(uint64_t));

  std::atomic<uint64_t>& Word(uint64_t position) const { return words_[position & (size_ - 1)]; }

  Header* header_;
  std::atomic<uint64_t>* words_;
  uint32_t size_;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_INBOX_H_
