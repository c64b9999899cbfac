// Outbox: the master's half of one worker's inbox. It remembers which arrival stands at which
// position, because an inbox gives back no payload that the master would believe.
//
// Positions count up and never begin anew. Everything below the head has been claimed or recalled.
// From head to tail, each position has an arrival or is a hole: a recall has taken its offer back,
// or the worker has claimed it out of order. The only scan over the positions, and the only place
// that turns one into an index, are here.
//
// The worker sees an offer when it is published, together with all others of the same batch. `rung`
// is what the master knows of the flag of that name in the inbox. It is set when the master rings,
// and cleared when the master has seen that the worker has begun a claim since.
//
// Owned and called by one engine. Only the constructor allocates.

#ifndef RINGMASTER_SRC_CORE_OUTBOX_H_
#define RINGMASTER_SRC_CORE_OUTBOX_H_

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/inbox.h"
#include "core/ledger.h"

namespace ringmaster::core {

class Outbox {
 public:
  // An arrival that the worker has not been seen to claim, and its position.
  struct Entry {
    uint64_t position = 0;
    ArrivalId id = kNoArrival;
  };
  template <int kStep>
  class Walk;

  // Of a worker without an inbox: it is always empty.
  Outbox() = default;
  // Borrows `inbox`, which is empty.
  explicit Outbox(Inbox* inbox)
      : inbox_(inbox), mask_(inbox->size() - 1), slots_(inbox->size(), kNoArrival) {}

  // How many words the inbox has, and how many of them are free. Those of holes between head and
  // tail are not free.
  size_t size() const { return slots_.size(); }
  uint32_t free() const { return static_cast<uint32_t>(slots_.size() - (tail_ - head_)); }
  // Whether nothing stands between head and tail.
  bool empty() const { return head_ == tail_; }

  // --- Offering --------------------------------------------------------------------------------

  // Offers an arrival; a word is free.
  void Put(ArrivalId id, Offer offer) {
    ArrivalId& slot = Slot(tail_);
    RINGMASTER_CHECK(slot == kNoArrival);
    slot = id;
    inbox_->Write(tail_++, offer);
  }
  // Whether the worker cannot see all of it yet.
  bool unpublished() const { return published_ != tail_; }
  void Publish() {
    inbox_->Publish(tail_);
    published_ = tail_;
  }

  // Returns whether a doorbell is due.
  bool Ring() {
    rung_ = true;
    return inbox_->Ring();
  }
  // Whether the master has rung, and has not seen the worker begin a claim since.
  bool rung() const { return rung_; }

  // --- Reading ---------------------------------------------------------------------------------

  // The oldest arrival, if the worker has claimed it; then it is here no more. kNoArrival: the
  // worker has not claimed it, or there is none.
  ArrivalId NextClaimed() {
    if (!SkipHoles() || !inbox_->Empty(head_)) return kNoArrival;
    return std::exchange(Slot(head_++), kNoArrival);
  }
  // Whether the worker has claimed this one, perhaps out of order. Then it is a hole.
  bool Claimed(const Entry& entry) {
    if (!inbox_->Empty(entry.position)) return false;
    Slot(entry.position) = kNoArrival;
    return true;
  }
  // Whether the worker has begun a claim since the master has rung. True once for each ring.
  bool Heard() {
    if (!rung_ || inbox_->Rung()) return false;
    rung_ = false;
    return true;
  }

  // Takes an offer back, which leaves a hole. False: the worker has claimed it, which the next
  // reading finds out.
  bool Recall(const Entry& entry, Offer offer) {
    if (!inbox_->Recall(entry.position, offer)) return false;
    Slot(entry.position) = kNoArrival;
    return true;
  }

  // Raises the head to the oldest arrival. Returns whether there is one.
  bool SkipHoles() {
    while (head_ != tail_ && Slot(head_) == kNoArrival) ++head_;
    return head_ != tail_;
  }

  // All entries as a range. While it is walked, only the current entry may be claimed or recalled;
  // SkipHoles waits until afterwards.
  Walk<1> oldest_first() const;
  Walk<-1> newest_first() const;

 private:
  ArrivalId& Slot(uint64_t position) { return slots_[position & mask_]; }
  ArrivalId At(uint64_t position) const { return slots_[position & mask_]; }

  Inbox* inbox_ = nullptr;
  uint64_t mask_ = 0;  // one less than there are positions, which is a power of two
  uint64_t head_ = 0;
  uint64_t tail_ = 0;
  uint64_t published_ = 0;        // the tail that the worker may see
  std::vector<ArrivalId> slots_;  // by position; kNoArrival: a hole, or free
  bool rung_ = false;
};

// One direction, as a range that is its own iterator. `kStep` is 1 or -1.
template <int kStep>
class Outbox::Walk {
 public:
  struct End {};

  explicit Walk(const Outbox& outbox)
      : outbox_(outbox), next_(kStep > 0 ? outbox.head_ : outbox.tail_) {
    ++*this;
  }

  Walk begin() const { return *this; }
  End end() const { return {}; }

  Entry operator*() const { return entry_; }
  bool operator!=(End) const { return entry_.id != kNoArrival; }
  Walk& operator++() {
    const uint64_t end = kStep > 0 ? outbox_.tail_ : outbox_.head_;
    entry_.id = kNoArrival;
    while (entry_.id == kNoArrival && next_ != end) {
      entry_.position = kStep > 0 ? next_++ : --next_;
      entry_.id = outbox_.At(entry_.position);
    }
    return *this;
  }

 private:
  const Outbox& outbox_;
  uint64_t next_;
  Entry entry_;
};

inline Outbox::Walk<1> Outbox::oldest_first() const { return Walk<1>(*this); }
inline Outbox::Walk<-1> Outbox::newest_first() const { return Walk<-1>(*this); }

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_OUTBOX_H_
