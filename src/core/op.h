// Our words for what a ring is asked to do and what it answers. The kernel's own (SQE, CQE,
// opcodes, flags) stay behind the seam in core/ring.h.

#ifndef RINGMASTER_SRC_CORE_OP_H_
#define RINGMASTER_SRC_CORE_OP_H_

#include <cerrno>
#include <cstdint>

#include "ringmaster/policy.h"

namespace ringmaster::core {

enum class OpKind : uint8_t {
  kWatch,       // multishot poll on the master's own eventfd: knocks and calls
  kPoll,        // multishot poll on a source; completes once for any number of arrivals
  kPollEnd,     // ends the kPoll of the same key
  kCount,       // completes at once: how many connections wait in the backlog of a listener
  kOverflows,   // completes at once: how many the kernel has discarded because that was full
  kState,       // completes at once: kListens, kEnds, or 0 for what is no listener
  kAccept,      // accepts one connection if there is one: never waits, EAGAIN if there is none
  kAcceptEach,  // multishot accept: one completion for each connection
  kAcceptEnd,   // ends the kAcceptEach of the same key
  kHangUp,      // poll on a source for nothing but its end; completes once
  kHangUpEnd,   // ends the kHangUp of the same key
  kDoorbell,    // tells a worker's ring that its inbox is not empty; completes only on failure
  kSend,        // hands a connection to a worker's ring as a completion; completes only on failure
  kInstall,     // puts a connection into the file table of a worker's ring, which a completion of
                // that ring tells; always completes, perhaps many turns later
  kLetGo,       // closes what the master has of a connection that was to be installed; completes
                // only on failure
  kClose,       // closes a connection that nobody serves; completes only on failure
};

// What a source's operations may fail with beside the errors of the kernel: its number is another
// file's by now, or whoever accepts from it would wait, because it is blocking.
inline constexpr int32_t kOtherFile = ESTALE;
inline constexpr int32_t kWouldWait = EDEADLK;

// The poll mask of what is readable, or has a connection to accept; and of a socket to which
// nothing more will come. What else a mask may have says that something has gone wrong, or ended.
inline constexpr int32_t kReadableMask = 1;
inline constexpr int32_t kEndedMask = 0x2000;

// What a kInstall fails with, and what that means:
//  * kNoSlot: the worker's file table has no free slot. Nothing has happened.
//  * kUntold: the connection is in the table, but the kernel had no memory to say so. The worker
//    does not know the slot, and nobody can take it out again.
//  * Anything else: the ring could not be reached, or the kernel lacks memory. Nothing has
//  happened.
inline constexpr int32_t kNoSlot = ENFILE;
inline constexpr int32_t kUntold = EOVERFLOW;

// kState: connections may come; none come any more, but what has come can be accepted.
inline constexpr int32_t kListens = 1;
inline constexpr int32_t kEnds = 2;

// kOverflows: the count is cut to these bits, so it begins anew after 2^31.
inline constexpr int32_t kOverflowsMask = 0x7fffffff;

// What to read from an accepted connection before it is reported.
inline constexpr uint8_t kFactIncomingCpu = 1 << 0;
inline constexpr uint8_t kFactPeer = 1 << 1;
inline constexpr uint8_t kFactCame = 1 << 2;  // Completion::came_at_ns and gone
inline constexpr uint8_t kFactGone = 1 << 3;  // gone alone, where the former is not known

// The kFact bits of what a policy declares.
inline uint8_t FactBits(const FactsNeeded& needed) {
  return static_cast<uint8_t>((needed.incoming_cpu ? kFactIncomingCpu : 0) |
                              (needed.peer ? kFactPeer : 0));
}

// Names an operation in its completions. A source or worker that is armed or created anew has a
// new generation, so that what its predecessor left in flight is told apart. 16 bits are enough. A
// source is armed again only after the last completion of what was armed before, and its index is
// used again only when nothing of it is under way. Of a worker only the failure of a doorbell can
// come late; taken for another one's, it rings once more. What must never be confused (who was sent
// a connection) stands in the ledger, with 32 bits.
struct OpKey {
  OpKind kind = OpKind::kWatch;
  uint8_t facts = 0;  // kAccept, kAcceptEach: a set of kFact bits
  uint16_t generation = 0;
  uint32_t index = 0;  // of the source or worker; kSend, kInstall, kLetGo: of the arrival
};

struct Op {
  OpKey key;
  int32_t fd = -1;            // what is watched, accepted from, rung, sent to or closed; kLetGo: -1
                              // if the connection stays open
  uint32_t accept_flags = 0;  // kAccept, kAcceptEach: SOCK_NONBLOCK and SOCK_CLOEXEC
  uint64_t tag = 0;           // kDoorbell, kSend, kInstall: the user_data that the worker sees
  int32_t sent = -1;          // kSend: the res that the worker sees, a descriptor or a poll mask;
                              // kInstall: the descriptor
  int32_t slot = -1;          // kInstall, kLetGo: of the master's own file table, see core/slots.h
  bool hang_up = false;       // kLetGo: ends the connection, whoever else has it (kUntold)
  // Of what uses the number of a source: which file that must be, as the ring numbers files; 0: it
  // cannot be told. Otherwise the operation fails with kOtherFile.
  uint64_t file = 0;
};

struct Completion {
  OpKey key;
  int32_t result = 0;  // a file descriptor, a poll mask, a count, 0, or -errno
  bool more = false;   // a multishot operation goes on; false on anything else
  bool gone = false;   // of an accepted connection: its client has hung up and asks for nothing
  // Of an accepted connection: when its client came. Never too early, and up to two ticks of the
  // kernel's clock too late; 0: unknown.
  int64_t came_at_ns = 0;
  Arrival facts;  // of an accepted connection: those that were asked for and are known
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_OP_H_
