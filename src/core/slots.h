// Slots: the file table of the master's own ring, through which connections get into the tables of
// workers (Handoff::kDirect). Linux installs in another ring only what stands in a table of the
// ring that asks for it. So a connection takes a slot here when it is to be installed, and has it
// until the kernel has said what became of that.
//
// Rules:
//  * One slot, one connection. A slot is free again when the kLetGo that clears it is among the
//    operations. A later kInstall of the same batch may use it, because operations are in order.
//  * What is under way cannot be taken back, nor cancelled. The kernel installs it on the worker's
//    own thread if that ring defers its task work, and otherwise at once, or on a thread of its own
//    if the ring was busy. So it may last. Meanwhile the connection stays open here as well.
//  * Whoever leaves waits for what is under way to it (leavers_wait). Then everything that comes
//    into its table has come before it has left.
//  * At the end nobody waits. What is still under way when everything is refused counts as
//    installed, and what the master has of it is closed.
//
// Pure; owned and called by one engine. Only Provide allocates.

#ifndef RINGMASTER_SRC_CORE_SLOTS_H_
#define RINGMASTER_SRC_CORE_SLOTS_H_

#include <cstdint>
#include <vector>

#include "core/arrival.h"
#include "core/check.h"

namespace ringmaster::core {

class Slots {
 public:
  // Set-up: the table has so many. Does nothing the second time.
  void Provide(uint32_t count) {
    if (!arrivals_.empty()) return;
    arrivals_.resize(count, kNoArrival);
    for (uint32_t slot = count; slot > 0; --slot) free_.push_back(static_cast<int32_t>(slot - 1));
  }
  uint32_t size() const { return static_cast<uint32_t>(arrivals_.size()); }
  uint32_t free() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t under_way() const { return size() - free(); }

  // The arrival is to be installed. There is a free slot.
  int32_t Take(ArrivalId id) {
    RINGMASTER_CHECK(!free_.empty());
    const int32_t slot = free_.back();
    free_.pop_back();
    arrivals_[static_cast<uint32_t>(slot)] = id;
    return slot;
  }
  void Put(int32_t slot) {
    RINGMASTER_CHECK(arrivals_[static_cast<uint32_t>(slot)] != kNoArrival);
    arrivals_[static_cast<uint32_t>(slot)] = kNoArrival;
    free_.push_back(slot);
  }
  // What is in it; kNoArrival: nothing.
  ArrivalId in(uint32_t slot) const { return arrivals_[slot]; }

  // A worker leaves to which so many are under way; and one of these has been told of.
  void Leaves(uint32_t count) { to_leavers_ += count; }
  void ToldOfLeaver(bool installed) {
    --to_leavers_;
    failed_at_leavers_ += installed ? 0 : 1;
  }
  bool leavers_wait() const { return to_leavers_ > 0; }
  // How many of these have failed, of all. The last counts of those workers have them as claimed.
  uint64_t failed_at_leavers() const { return failed_at_leavers_; }

 private:
  std::vector<ArrivalId> arrivals_;  // by slot
  std::vector<int32_t> free_;
  uint32_t to_leavers_ = 0;
  uint64_t failed_at_leavers_ = 0;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_SLOTS_H_
