#include "attack/things.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "attack/trace.h"

namespace ringmaster::attack {
namespace {

// A bound socket with an address that the kernel chooses, or -1.
int BoundSocket(int family, int type, Address& address) {
  const int fd = socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  auto* generic = reinterpret_cast<sockaddr*>(&address.storage);
  generic->sa_family = static_cast<sa_family_t>(family);
  socklen_t size = sizeof(sa_family_t);
  if (family == AF_INET) {
    // An address of this process alone. The port of a listener that is gone may be another
    // program's soon, and clients still come to it.
    reinterpret_cast<sockaddr_in*>(generic)->sin_addr.s_addr =
        htonl(0x7f800000 | (static_cast<uint32_t>(getpid()) & 0x3fffff));
    size = sizeof(sockaddr_in);
  }
  address.size = sizeof(address.storage);
  if (bind(fd, generic, size) == 0 && getsockname(fd, generic, &address.size) == 0) return fd;
  close(fd);
  return -1;
}

}  // namespace

OwnRings& Rings() {
  static OwnRings rings;
  return rings;
}

std::unique_ptr<Ring> Ring::Make(unsigned entries, unsigned flags) {
  const std::shared_lock lock(Rings().lock);
  std::unique_ptr<Ring> ring(new Ring());
  const int error = io_uring_queue_init(entries, &ring->ring_, flags);
  if (error == 0) {
    Rings().is_ring[ring->ring_.ring_fd].store(true);
    return ring;
  }
  if (error != -EMFILE && error != -ENOMEM) Fail("io_uring_queue_init: %s", strerror(-error));
  ring->ring_.ring_fd = -1;
  return nullptr;
}

Ring::~Ring() {
  if (ring_.ring_fd < 0) return;
  const std::shared_lock lock(Rings().lock);
  Rings().is_ring[ring_.ring_fd].store(false);
  io_uring_queue_exit(&ring_);
}

bool Ring::Poll(int fd, uint64_t tag) {
  io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
  if (entry == nullptr) return false;
  io_uring_prep_poll_multishot(entry, fd, POLLIN);
  io_uring_sqe_set_data64(entry, tag);
  return true;
}

void Ring::Turn(uint32_t wait_us, std::vector<io_uring_cqe>& cqes) {
  __kernel_timespec wait = {.tv_sec = 0, .tv_nsec = static_cast<long long>(wait_us) * 1000};
  io_uring_cqe* first = nullptr;
  io_uring_submit_and_wait_timeout(&ring_, &first, 1, &wait, nullptr);
  Collect(false, cqes);
}

void Ring::Collect(bool enter, std::vector<io_uring_cqe>& cqes) {
  do {
    if (enter) io_uring_get_events(&ring_);
    unsigned head = 0;
    unsigned count = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++count;
      cqes.push_back(*cqe);
    }
    io_uring_cq_advance(&ring_, count);
    enter = enter && count > 0;
  } while (enter);
}

bool Ring::RegisterSlots(unsigned slots) {
  has_slots_ = has_slots_ || io_uring_register_files_sparse(&ring_, slots) == 0;
  return has_slots_;
}

int Ring::FdOfSlot(int slot, bool close_on_exec, std::vector<io_uring_cqe>& cqes) {
  constexpr uint8_t kFixedFdInstall = 54;  // IORING_OP_FIXED_FD_INSTALL, Linux 6.8
  int fd = -EMFILE;
  // Another thread gives descriptors back before long.
  for (int tries = 0; fd == -EMFILE && tries < 20'000; ++tries) {
    if (tries > 0) usleep(1000);
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    io_uring_prep_nop(entry);
    entry->opcode = kFixedFdInstall;
    entry->fd = slot;
    entry->flags = IOSQE_FIXED_FILE;
    entry->rw_flags = close_on_exec ? 0 : 1;  // IORING_FIXED_FD_NO_CLOEXEC
    fd = Ask(cqes);
  }
  if (fd < 0) Fail("a slot cannot be made a descriptor: %s", strerror(-fd));
  io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
  io_uring_prep_close_direct(entry, static_cast<unsigned>(slot));
  if (const int closed = Ask(cqes); closed != 0)
    Fail("a slot is not closed: %s", strerror(-closed));
  return fd;
}

int Ring::Ask(std::vector<io_uring_cqe>& cqes) {
  ring_.sq.sqes[(ring_.sq.sqe_tail - 1) & ring_.sq.ring_mask].user_data = kAskBit;
  while (true) {
    io_uring_submit_and_wait(&ring_, 1);
    std::vector<io_uring_cqe> some;
    Collect(false, some);
    const auto answer = std::find_if(
        some.begin(), some.end(), [](const io_uring_cqe& cqe) { return cqe.user_data == kAskBit; });
    const bool answered = answer != some.end();
    const int result = answered ? answer->res : 0;
    if (answered) some.erase(answer);
    cqes.insert(cqes.end(), some.begin(), some.end());
    if (answered) return result;
  }
}

File::~File() { close(fd_); }

Watched OpenWatched(FileKind kind, int backlog) {
  Watched watched = {.kind = kind};
  int fds[2] = {-1, -1};
  switch (kind) {
    case FileKind::kTcp:
    case FileKind::kUnix:
      fds[0] =
          BoundSocket(kind == FileKind::kTcp ? AF_INET : AF_UNIX, SOCK_STREAM, watched.address);
      if (fds[0] >= 0 && listen(fds[0], backlog) != 0) Fail("listen: %s", strerror(errno));
      break;
    case FileKind::kEventfd:
      fds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
      break;
    case FileKind::kPipe:
      if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) fds[0] = -1;
      break;
    case FileKind::kDatagrams:
      fds[0] = BoundSocket(AF_INET, SOCK_DGRAM, watched.address);
      break;
  }
  if (fds[0] >= 0) watched.file = std::make_shared<File>(fds[0]);
  if (fds[1] >= 0) watched.writer = std::make_shared<File>(fds[1]);
  return watched;
}

void Excite(const Watched& watched) {
  if (watched.file == nullptr) return;
  const uint64_t one = 1;
  const int fd = (watched.writer != nullptr ? watched.writer : watched.file)->fd();
  if (watched.kind == FileKind::kDatagrams) {
    sendto(fd, &one, sizeof(one), MSG_DONTWAIT,
           reinterpret_cast<const sockaddr*>(&watched.address.storage), watched.address.size);
  } else if (!IsListener(watched.kind) && write(fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
    Fail("cannot write to a pipe or eventfd: %s", strerror(errno));
  }
}

}  // namespace ringmaster::attack
