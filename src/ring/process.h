// What belongs to this process and not to a child that was forked from it. That is the number of
// this process, and the descriptors that a child inherits and has no use for.
//
// Threads: any thread may call everything. There are no locks, because in a child a lock may be
// held for ever.

#ifndef RINGMASTER_SRC_RING_PROCESS_H_
#define RINGMASTER_SRC_RING_PROCESS_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"

namespace ringmaster::ring {

// Set-up: from now on ThisProcess is not 0. Fails for lack of memory only.
absl::Status KnowThisProcess();

// A number that no parent and no child of this process has, or has had. It is 0 before
// KnowThisProcess, and therefore in a child that was just forked. It is not the process id, because
// that is used again, and is 1 in more than one namespace. Costs one load from memory that the
// kernel wipes in a child; no system call.
uint64_t ThisProcess();

// A number that this process has not given out before.
uint64_t NewNumber();

// Owns a descriptor that a forked child must be able to close, whatever the parent's threads were
// doing with this object. So the descriptor's number stands in a table, and whoever closes it takes
// it out of the table.
class OwnDescriptor {
 public:
  OwnDescriptor() = default;  // owns nothing
  // Owns `fd` from now on; owns nothing if `fd` is negative. `owner` is for CloseDescriptorsOf; 0:
  // no owner.
  explicit OwnDescriptor(int fd, uint64_t owner = 0);
  OwnDescriptor(OwnDescriptor&& other) noexcept;
  OwnDescriptor& operator=(OwnDescriptor&& other) noexcept;
  ~OwnDescriptor() { Close(); }

  // -1 when it owns nothing, or when it was closed in this child.
  int get() const;
  void SetOwner(uint64_t owner);
  void Close();
  // Hands it to the caller, who closes it; -1 when it owns nothing.
  int Release();

 private:
  friend void CloseDescriptorsOf(uint64_t owner);
  friend void CloseDescriptorsOfOtherProcesses();
  struct Slot;
  struct Chunk;
  template <typename Wanted>
  static void CloseWhere(Wanted wanted);
  static Slot& TakeSlot();

  Slot* slot_ = nullptr;
};

// In a forked child: closes the copies of the descriptors that this owner has in the parent.
void CloseDescriptorsOf(uint64_t owner);
// In a forked child: closes the copies of all descriptors that the parent has in the table.
// Elsewhere it does nothing. Async-signal-safe.
void CloseDescriptorsOfOtherProcesses();

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_PROCESS_H_
