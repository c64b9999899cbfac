// Translates between our words and the kernel's. It says how an operation becomes an entry of a
// submission queue, and what an entry of a completion queue says. A ring of the library's own and a
// lent one share this.

#ifndef RINGMASTER_SRC_RING_TRANSLATE_H_
#define RINGMASTER_SRC_RING_TRANSLATE_H_

#include <liburing.h>

#include <cstdint>
#include <optional>
#include <span>

#include "core/op.h"
#include "ring/features.h"

namespace ringmaster::ring {

// The ring that the entries belong to, and what its kernel can do.
struct Dialect {
  Features features;
  int ring_fd = -1;
  // Bits of user_data above kKeyBits, which tell the library's entries from others.
  uint64_t mark = 0;
};

// user_data, from the highest bit: mark 8, kind 4, facts 4, generation 16, index 32.
inline constexpr int kKeyBits = 56;
inline constexpr uint64_t kKeyMask = (uint64_t{1} << kKeyBits) - 1;
// The keys of a timeout and of a marker; no operation has them.
inline constexpr uint64_t kWakeUpKey = kKeyMask;
inline constexpr uint64_t kMarkerKey = kKeyMask - 1;

uint64_t Encode(const core::OpKey& key);
core::OpKind KindOf(uint64_t user_data);

// For any operation but those that answer at once (AnswersAtOnce). Sets every field that matters,
// flags included.
void Prepare(const core::Op& op, const Dialect& dialect, io_uring_sqe* sqe);

// kInstall and kLetGo with a slot: an entry to be submitted right before that of the operation. It
// puts what is to be installed into the slot of the ring's own file table, or clears the slot.
// `file` is of the caller's, and the kernel reads it when it takes the entry: the descriptor, or
// -1. If it fails, the operation fails, too.
bool HasSlot(const core::Op& op);
void PrepareSlot(const core::Op& op, const int32_t* file, const Dialect& dialect,
                 io_uring_sqe* sqe);

// Ends what was prepared under `key`; a timeout or the watch, too. Completes only on failure, under
// the key of a marker.
void PrepareEnd(uint64_t key, const Dialect& dialect, io_uring_sqe* sqe);

// Ends at once what was prepared under `key`, without an entry of the ring's queue. The calling
// thread must be allowed to submit to that ring. Returns 0 or -errno: EINVAL before Linux 6.0;
// ETIME when the operation has been told to end and has not ended yet.
int EndNow(uint64_t key, const Dialect& dialect);

// If the operation is to end another one: the key of that other one. Otherwise null.
std::optional<uint64_t> KeyOfEnded(core::OpKey key);

// A timeout at `at_ns` on the clock of NowNs, under kWakeUpKey. The kernel reads `at` when it takes
// the entry.
void PrepareWakeUp(int64_t at_ns, __kernel_timespec& at, const Dialect& dialect, io_uring_sqe* sqe);

// CLOCK_MONOTONIC.
int64_t NowNs();

// The facts of a connection that a policy needs, as core::kFact bits. Any thread.
Arrival FactsOf(int fd, uint8_t facts);

// Translates a completion of an operation. Returns false when the completion is of no interest.
// Also does what had to wait until the completion is read. That is an accept on kernels that cannot
// be told not to wait, and reading the facts of a connection.
bool Translate(const io_uring_cqe& cqe, const Dialect& dialect, core::Completion& completion);

// Closes the connections that these completions carry, because nobody will serve them.
void CloseAccepted(std::span<const core::Completion> completions);

// Whether an operation needs no entry of a queue, because it is a question that a system call
// answers; and that answer.
bool AnswersAtOnce(core::OpKind kind);
core::Completion Answer(const core::Op& op);

// The kernel's queue of a listening TCP socket.
struct Backlog {
  int32_t length = 0;  // how many connections wait to be accepted, or -errno
  uint32_t limit = 0;  // it is full when there are more
};
Backlog BacklogOf(int fd);

// How many connections the kernel has discarded at a listening TCP socket, mostly because its queue
// was full. The number is cut to core::kOverflowsMask. Or -errno. A client that tries again counts
// again.
int32_t OverflowsOf(int fd);

// What core::OpKind::kState completes with.
int32_t StateOf(int fd);

// Which file the number stands for, in the sense of Op::file. For a socket it is the kernel's
// cookie, which no other socket ever has (SO_COOKIE, Linux 4.12). 0 when it cannot be told; then
// errno says why.
uint64_t FileOf(int fd);

// Tells whether an operation names a number that stands for another file by now. (The kernel itself
// refuses a number that is closed.) Makes one system call for all operations in a row that name the
// same number.
class FileCheck {
 public:
  bool Fails(const core::Op& op) {
    if (op.file == 0) return false;
    if (op.fd != fd_) {
      fd_ = op.fd;
      fails_ = FileOf(op.fd) != op.file && errno != EBADF;
    }
    return fails_;
  }

 private:
  int fd_ = -1;
  bool fails_ = false;
};

// Makes the kernel close the connection in the background. A connection inherits SO_LINGER from its
// listener. With it, a close would wait for the client for as long as that says, and the master
// would wait with it. A SO_LINGER that resets the connection does not wait, and is left as it is.
void EndLinger(int fd);

// Calls EndLinger, and closes the connection.
void CloseConnection(int fd);

// Does what a kLetGo does with the descriptor, where there is no ring to do it.
void LetGoOf(const core::Op& op);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_TRANSLATE_H_
