// Serves connections that are in the file table of a worker's ring, by the rules of serving.h. A
// slot of that table is no descriptor, so there are no system calls for it. Receiving, sending and
// closing are requests of the ring, which go out with the call that waits. So a connection costs
// fewer system calls than one that is served by its descriptor, and the figures of the two ways say
// little against each other.
//
// One receive is under way for each connection, into memory of its slot. The answer goes out of the
// same memory. A client asks again only when it has the whole answer, so the next receive cannot
// overtake the answer.

#ifndef RINGMASTER_BENCH_MECHANISMS_SLOT_SERVICE_H_
#define RINGMASTER_BENCH_MECHANISMS_SLOT_SERVICE_H_

#include <liburing.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "bench/serving.h"

namespace ringmaster::bench {

class SlotService {
 public:
  // The kernel chooses among the first slots, for what it accepts or installs. The others are for
  // descriptors that the worker registers itself.
  static constexpr uint32_t kKernelsSlots = 4096;
  static constexpr uint32_t kOwnSlots = 4096;

  // All user_data of its requests are below this.
  static constexpr uint64_t kDataEnd = uint64_t{1} << 24;

  // Borrows both. `waits_for_close`: a connection has ended when its close has completed, as
  // whoever releases a lease must know. Otherwise it has ended when the close is asked for, and a
  // turn of the loop is saved.
  SlotService(Serving& serving, io_uring& ring, bool waits_for_close);
  SlotService(const SlotService&) = delete;
  SlotService& operator=(const SlotService&) = delete;

  // Gives a ring its table. On the thread of the ring. Cause and remedy.
  static absl::Status MakeTable(io_uring& ring);

  // Puts a descriptor into a slot of the worker's own, and closes it. Returns the slot; negative if
  // none is free.
  int Register(int fd);

  // Takes the connection of a slot, and serves it from now on.
  void Take(int slot);

  // A completion of its requests. Returns the slot whose connection has ended; negative: none.
  int OnCompletion(const io_uring_cqe& completion);

  // Whether it waits for a close, which the next submission completes.
  bool closing() const { return closing_ > 0; }

  // Ends all connections, also those that come later. Call OnCompletion until it is empty.
  void End();
  bool empty() const { return open_ == 0; }

 private:
  enum class Kind : uint8_t { kReceive, kClose, kOther };
  struct Place {
    int fd = -1;  // to be registered
    bool receives = false;
    std::array<char, kReadBytesMax> memory;
  };

  static uint64_t Data(Kind kind, int slot);
  static void Mark(io_uring_sqe* entry, Kind kind, int slot);
  Place& At(int slot);
  void SubmitNow();
  void Receive(int slot, bool after_answer);
  int OnReceived(int slot, int result);
  void CancelReceive(int slot);
  int Close(int slot);
  int Ended(int slot);

  Serving& serving_;
  io_uring& ring_;
  const bool waits_for_close_;
  std::vector<std::unique_ptr<Place>> places_;  // by slot; null: not used so far
  std::vector<int> free_;                       // of its own slots
  size_t open_ = 0;
  size_t closing_ = 0;  // closes that it waits for
  bool ends_ = false;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_SLOT_SERVICE_H_
