// What a descriptor is: whether a balancer can watch it, and whether two of them are the same.

#ifndef RINGMASTER_SRC_RUNTIME_DESCRIPTOR_H_
#define RINGMASTER_SRC_RUNTIME_DESCRIPTOR_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/intake.h"
#include "ring/features.h"
#include "ringmaster/balancer.h"

namespace ringmaster::internal {

// InvalidArgument unless `fd` is a listening socket.
absl::Status CheckListener(int fd);

// InvalidArgument unless poll(2) can wait for `fd`.
absl::Status CheckPollable(int fd);

// Whether `fd` is a listening socket.
bool IsListener(int fd);

// Whether the kernel tells how many connections wait in the backlog of the listener `fd`.
bool IsCountable(int fd);

bool IsBlocking(int fd);

// Tells whether two descriptors are the same source of events.
struct FileId {
  int fd = -1;
  dev_t device = 0;
  ino_t inode = 0;
  bool own_inode = false;  // as a socket or a pipe has: nothing else has this inode
};
absl::StatusOr<FileId> FileIdOf(int fd);
// Both are about the same descriptor number: whether it stands for another file now. Files that
// share their inode with strangers cannot be told apart.
inline bool IsOther(const FileId& before, const FileId& now) {
  return before.device != now.device || before.inode != now.inode;
}
// Whether two open descriptors are the same source of events. Devices, eventfds and timers share
// their inode with strangers. Two of these are the same only if the kernel says that they are the
// same open file.
bool SameFile(const FileId& left, const FileId& right);

// The two are in the same order. One that was cast to Intake and is none has no kind.
constexpr core::IntakeKind KindOf(Intake intake) { return static_cast<core::IntakeKind>(intake); }
inline bool Exists(Intake intake) {
  return static_cast<size_t>(intake) < std::size(core::kIntakes);
}

// A source as the runtime has examined it.
struct NewSource {
  int fd = -1;
  uint64_t file = 0;  // see core::Op
  core::IntakeKind intake = core::IntakeKind::kPollAccept;
  bool accepts = false;  // a listening stream socket
  bool countable = false;

  const core::IntakeType& type() const { return core::TypeOf(intake); }
};

// Whether and how a balancer can watch `fd` with that intake. `limited`: by a capacity, of the
// source or of the balancer. Borrows `fd`. Any thread; waits for nothing.
absl::StatusOr<NewSource> Examine(int fd, Intake intake, bool limited,
                                  const ring::Features& features);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_DESCRIPTOR_H_
