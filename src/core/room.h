// Room: for how many arrivals the ledger has free records, and how many may still come.
//
// Rule "room for whatever may arrive". A batch makes no room. A single accept is asked for, and a
// ticket issued, only if there is room for it. A multishot accept cannot ask first. So it is armed
// only while there is room for the largest burst: all that may still come of all multishot accepts
// together once they are told to end (BurstMax). These are:
//  * up to completions_max, in the batch that finds too little room,
//  * as many again, in the turn that submits the end, before it does so,
//  * what fills up the completion queue by then, and on its overflow list at most the last
//    completion of each multishot accept.
// Nothing else may use the room for the burst. So what is true of it at the end of a batch is still
// true in the next.
//
// Between two batches room is made, if need be (Needed): for what is there, for all that workers
// can be offered or sent, for every `hold`, and for a burst. A ring that brings more than it said
// it could is not trusted: what there is no room for is closed and reported.
//
// A value class: pure, owned and called by one engine, never allocates.

#ifndef RINGMASTER_SRC_CORE_ROOM_H_
#define RINGMASTER_SRC_CORE_ROOM_H_

#include <cstdint>

namespace ringmaster::core {

// Records of arrivals, of all sources together. Each is a descriptor of the process, and fs.nr_open
// allows no more than so many unless somebody raises it; then the intake pauses here.
inline constexpr uint32_t kRecordsMax = 1 << 20;

class Room {
 public:
  // Of the ring: how many completions its queue has, and how many one batch may bring.
  Room(uint32_t completion_entries, uint32_t completions_max)
      : completion_entries_(completion_entries), completions_max_(completions_max) {}

  // --- Set-up ----------------------------------------------------------------------------------

  // A source with a multishot accept comes or goes. It may hold so many.
  void AddEach(uint32_t hold) {
    ++eaches_;
    holds_ += hold;
  }
  void RemoveEach(uint32_t hold) {
    --eaches_;
    holds_ -= hold;
  }
  // The inbox of a worker, with so many words, comes or goes.
  void AddWords(uint64_t words) { words_ += words; }
  void RemoveWords(uint64_t words) { words_ -= words; }
  // A worker's largest window was another one before.
  void ChangeWindow(uint64_t before, uint64_t now) { windows_ += now - before; }
  uint64_t windows() const { return windows_; }

  // --- Accepts under way -----------------------------------------------------------------------

  void Ask(uint32_t accepts) { accepts_ += accepts; }
  void Complete(uint32_t accepts = 1) { accepts_ -= accepts; }
  uint32_t accepts() const { return accepts_; }

  // --- Is there room ---------------------------------------------------------------------------

  // What may still come of all multishot accepts when they have been told to end.
  uint32_t BurstMax() const {
    return eaches_ == 0 ? 0 : 2 * completions_max_ + completion_entries_ + eaches_;
  }
  // Whether `free` records are enough for that many arrivals, beside those that are under way or
  // may come unasked.
  bool IsFor(uint32_t arrivals, uint32_t free) const {
    return free >= uint64_t{BurstMax()} + accepts_ + arrivals;
  }
  // How many records there should be, if `used` are in use and `sent_max` arrivals may be sent.
  uint64_t Needed(uint32_t used, uint64_t sent_max) const {
    return uint64_t{used} + accepts_ + words_ + sent_max + holds_ + BurstMax();
  }

  // --- What was not taken in for want of it ----------------------------------------------------

  void BeginBatch() { wanted_ = turned_away_ = false; }
  void Want() { wanted_ = true; }
  bool wanted() const { return wanted_; }
  // Room was made. Returns whether it was wanted.
  bool Make() {
    const bool wanted = wanted_;
    wanted_ = false;
    return wanted;
  }
  // An arrival is turned away. Returns whether it is the first of the batch, which is to be said.
  bool TurnAway() {
    wanted_ = true;
    const bool first = !turned_away_;
    turned_away_ = true;
    return first;
  }

 private:
  uint32_t completion_entries_;
  uint32_t completions_max_;
  // Beside what may be sent: the words of all inboxes, the windows of all workers; of multishot
  // accepts, how many there are and what they may hold.
  uint64_t words_ = 0;
  uint64_t windows_ = 0;
  uint64_t holds_ = 0;
  uint32_t eaches_ = 0;
  uint32_t accepts_ = 0;  // single ones that are under way
  bool wanted_ = false;
  bool turned_away_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_ROOM_H_
