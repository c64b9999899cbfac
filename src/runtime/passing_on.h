// Connections on their way from workers to the master that is to deal them anew, see
// Source::PassOn.
//
// Whoever adds the first wakes the master, which takes all that have come by then. So a thousand
// that are passed on together wake it once, and not each of them. There is nothing here that could
// be missed: all stands under one mutex, and whoever finds the queue empty knocks after having
// added something.
//
// A source that has gone takes no more: its identity (core::SourceIdentity) is asked under the
// mutex. The master clears it before it takes what is there for the last time, so nothing is added
// for a source after that, nor for the next source of its index.

#ifndef RINGMASTER_SRC_RUNTIME_PASSING_ON_H_
#define RINGMASTER_SRC_RUNTIME_PASSING_ON_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "core/port_state.h"
#include "ringmaster/policy.h"

namespace ringmaster::internal {

struct PortShared;

class PassingOn {
 public:
  struct Item {
    uint32_t source = 0;  // its index at the master
    int fd = -1;
    Arrival facts;
    PortShared* giver = nullptr;  // held
  };

  // Any thread. The item and what it holds stay the caller's if its source has gone.
  enum class Added : uint8_t {
    kSourceGone,
    kFirst,  // the caller knocks
    kFollows,
  };
  Added Add(const core::SourceIdentity& source, uint64_t serial, const Item& item);

  // Master. Moves all items into `items`, which is empty. Returns whether there were any.
  bool Take(std::vector<Item>& items);
  bool empty() const { return waiting_.load(std::memory_order_seq_cst) == 0; }

 private:
  std::mutex mutex_;
  std::vector<Item> items_;           // guarded by mutex_
  std::atomic<uint32_t> waiting_{0};  // how many these are; written with mutex_
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_PASSING_ON_H_
