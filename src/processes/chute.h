// Chute: a socket through which a parent gives connections to one of its workers. It is a pair of
// connected Unix sockets that keeps messages apart. The parent has both ends, and the worker a copy
// of the end where they come out.
//
// The queue is the kernel's, so nobody's word is needed for what lies there: each connection comes
// out once, to the worker or to the parent, whichever asks first. So a parent takes back what a
// worker that is dead, stopped or out of descriptors has not taken, and needs no copies of what it
// has given.
//
// A worker that means harm has one end. It cannot send by it, and nothing waits for it here. It can
// ruin the chute: shut it down, or put a filter on it that drops what is given. Then the worker
// gets nothing more, and the parent makes another chute for whoever has the place next.
//
// tests/model/chutes.pml is the model. Any thread.

#ifndef RINGMASTER_SRC_PROCESSES_CHUTE_H_
#define RINGMASTER_SRC_PROCESSES_CHUTE_H_

#include <cstddef>
#include <cstdint>

#include "ringmaster/policy.h"

namespace ringmaster::processes {

// So many may lie in one chute. More would not let the kernel say that there is room again
// (WatchRoom in handing.h).
inline constexpr uint32_t kLyingMax = 64;

// One connection that is given. What the parent knows of it travels with it, and comes back with
// it.
struct Given {
  int fd = -1;
  uint64_t token = 0;
  Arrival facts;
};

struct ChuteEnds {
  int in = -1;   // the parent's
  int out = -1;  // the worker's and the parent's
};

// Both are close-on-exec and non-blocking. Returns 0 or an errno.
int MakeChute(ChuteEnds& ends);

// Returns 0; what IsLackOfRoom says; or an errno that says that the chute is ruined. `given` stays
// the caller's.
int PutIn(int in, const Given& given);
bool IsLackOfRoom(int error);
// Puts in something that is no connection (EBADMSG), if there is room.
void Nudge(int in);

// Returns 0, and `given` is the caller's: close-on-exec; EAGAIN when nothing lies there; EMFILE or
// ENOMEM when this process has no descriptor for it, and it lies there still; EPIPE when nothing
// can come any more; EBADMSG when what came was no connection.
int TakeOut(int out, Given& given);

// How many lie there.
uint32_t LyingIn(int out);

// Whether it is as it was made, so that somebody else can have it. What can be put right, is.
bool IsSound(int out);

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_CHUTE_H_
