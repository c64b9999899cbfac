// Between our words and the kernel's: how an operation becomes an entry of a submission queue, and
// what an entry of a completion queue says. For a ring of the library's own and for one that is
// lent to it.

#ifndef RINGMASTER_SRC_RING_TRANSLATE_H_
#define RINGMASTER_SRC_RING_TRANSLATE_H_

#include <liburing.h>

#include <cstdint>
#include <optional>
#include <span>

#include "core/op.h"
#include "ring/features.h"

namespace ringmaster::ring {

// The ring whose entries they are.
struct Dialect {
  Features features;
  int ring_fd = -1;
  uint64_t mark = 0;  // of user_data: what tells the library's entries from others, above kKeyBits
};

// user_data, from the highest bit: mark 8, kind 4, facts 4, generation 16, index 32.
inline constexpr int kKeyBits = 56;
inline constexpr uint64_t kKeyMask = (uint64_t{1} << kKeyBits) - 1;
// The keys of a timeout and of a marker; no operation has them.
inline constexpr uint64_t kWakeUpKey = kKeyMask;
inline constexpr uint64_t kMarkerKey = kKeyMask - 1;

uint64_t Encode(const core::OpKey& key);
core::OpKind KindOf(uint64_t user_data);

// Any operation that does not answer at once. Sets every field that matters, flags included.
void Prepare(const core::Op& op, const Dialect& dialect, io_uring_sqe* sqe);

// Ends what was prepared under `key`, the timeouts and the watch included. Completes only on
// failure, under the key of a marker.
void PrepareEnd(uint64_t key, const Dialect& dialect, io_uring_sqe* sqe);

// Ends at once, on a ring that the calling thread may submit to, what was prepared under `key`; no
// entry of its queue is needed. 0 or -errno: EINVAL before Linux 6.0, ETIME when it has been told
// to end and is not done.
int EndNow(uint64_t key, const Dialect& dialect);

// The key of what an operation is to end; null when it is to end nothing.
std::optional<uint64_t> KeyOfEnded(core::OpKey key);

// A timeout at `at_ns` of NowNs, under the key of one. The kernel reads `at` when it takes the
// entry.
void PrepareWakeUp(int64_t at_ns, __kernel_timespec& at, const Dialect& dialect, io_uring_sqe* sqe);

// CLOCK_MONOTONIC.
int64_t NowNs();

// Of an entry that an operation has made. False when it is of no interest. Does what had to wait
// until the completion is read: an accept on kernels that cannot be told not to wait, and the facts
// of a connection.
bool Translate(const io_uring_cqe& cqe, const Dialect& dialect, core::Completion& completion);

// Closes the connections that these have accepted, which nobody will serve.
void CloseAccepted(std::span<const core::Completion> completions);

// Operations that need no entry of a queue: a question to the kernel, which answers it.
bool AnswersAtOnce(core::OpKind kind);
core::Completion Answer(const core::Op& op);

// The kernel's queue of a listening TCP socket.
struct Backlog {
  int32_t length = 0;  // connections that wait to be accepted, or -errno
  uint32_t limit = 0;  // it is full when there are more
};
Backlog BacklogOf(int fd);

// How many connections the kernel has dropped at a listening TCP socket, mostly because its queue
// was full, cut to core::kOverflowsMask; or -errno. A client that tries again counts again.
int32_t OverflowsOf(int fd);

// What core::OpKind::kState completes with.
int32_t StateOf(int fd);

// Which file the number stands for, as Op::file has it: of a socket the kernel's cookie, which no
// other socket ever has (SO_COOKIE, Linux 4.12); 0, and errno says why, when it cannot be told.
uint64_t FileOf(int fd);

// Whether operations name a number that stands for another file by now; what is closed the kernel
// refuses itself. One system call for all that follow one another on the same number.
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

// Makes the kernel close the connection in the background whatever SO_LINGER says, which it
// inherits from its listener: a close would wait for the client, for as long as that says, and
// everything with it. One that resets the connection does not wait and stays as it is.
void EndLinger(int fd);

// The same, and closes it.
void CloseConnection(int fd);

}  // namespace ringmaster::ring

#endif  // RINGMASTER_SRC_RING_TRANSLATE_H_
