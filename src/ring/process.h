// What belongs to this process and not to one that was forked from it: which process this is, and
// the descriptors that a forked child inherits and has no use for.
//
// Threads: everything from any thread. There are no locks, so that a child, in which a lock may be
// held for ever, can call all of it.

#ifndef RINGMASTER_SRC_RING_PROCESS_H_
#define RINGMASTER_SRC_RING_PROCESS_H_

#include <atomic>
#include <cstdint>

#include "absl/status/status.h"

namespace ringmaster::ring {

// Set-up: from now on ThisProcess is not 0. Fails for lack of memory only.
absl::Status KnowThisProcess();

// A number that no other process has, nor has had, as far as it is a child or a parent of this one;
// 0 before KnowThisProcess, and so in a child that was just forked. Not the process's own number,
// which is used again, and is 1 in more than one namespace. One load from memory that the kernel
// wipes in a child; no system call.
uint64_t ThisProcess();

// A number that was not given out before in this process.
uint64_t NewNumber();

// Owns a descriptor that a forked child must be able to close whoever else has this object there.
// So its number stands in a table, and who closes takes it out of there.
class OwnDescriptor {
 public:
  OwnDescriptor() = default;  // owns nothing
  // Takes the descriptor. `owner` is for CloseDescriptorsOf; 0: none. A negative one is none.
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

// In a forked child: closes the copies of what that owner had in the parent.
void CloseDescriptorsOf(uint64_t owner);
// In a forked child: closes all copies of what the parent had. Elsewhere there are none.
// Async-signal-safe.
void CloseDescriptorsOfOtherProcesses();

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_PROCESS_H_
