#include "runtime/descriptor.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "ring/errors.h"
#include "ring/translate.h"

namespace ringmaster::internal {
namespace {

static_assert(KindOf(Intake::kPollAccept) == core::IntakeKind::kPollAccept &&
              KindOf(Intake::kAccept) == core::IntakeKind::kAccept &&
              KindOf(Intake::kReadiness) == core::IntakeKind::kReadiness);

int SocketOption(int fd, int option) {
  int value = 0;
  socklen_t size = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : 0;
}

}  // namespace

absl::Status CheckListener(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("source ", fd, " is not an open descriptor: pass a listening socket"));
  }
  if (!S_ISSOCK(status.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("source ", fd, " is not a socket: pass a listening socket"));
  }
  int listening = 0;
  socklen_t size = sizeof(listening);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || listening == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "source ", fd, " is a socket that does not listen: call listen() before AddSource"));
  }
  return absl::OkStatus();
}

absl::Status CheckPollable(int fd) {
  // This comes first, because the epoll set below might get the number.
  if (fcntl(fd, F_GETFD) < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("source ", fd, " is not an open descriptor: pass one that can be polled"));
  }
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd < 0) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  epoll_event event{};
  const int error = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
  close(epoll_fd);
  switch (error) {
    case 0:
      return absl::OkStatus();
    case EPERM:
      return absl::InvalidArgumentError(absl::StrCat(
          "source ", fd,
          " cannot be polled: a regular file or a directory is always ready, so there is nothing "
          "to wait for; read it, or watch it by an inotify descriptor"));
    default:
      return ring::ErrorStatus(ring::Operation::kWatch, error, fd);
  }
}

bool IsListener(int fd) { return SocketOption(fd, SO_ACCEPTCONN) != 0; }

bool IsCountable(int fd) { return IsListener(fd) && SocketOption(fd, SO_PROTOCOL) == IPPROTO_TCP; }

bool IsBlocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0; }

absl::StatusOr<FileId> FileIdOf(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return ring::ErrorStatus(ring::Operation::kWatch, errno, fd);
  return FileId{.fd = fd,
                .device = status.st_dev,
                .inode = status.st_ino,
                .own_inode = S_ISSOCK(status.st_mode) || S_ISFIFO(status.st_mode)};
}

bool SameFile(const FileId& left, const FileId& right) {
  if (left.device != right.device || left.inode != right.inode) return false;
  if (left.own_inode || left.fd == right.fd) return true;
  // 0: the same. Where the kernel does not tell, two numbers are two files.
  const long process = getpid();
  return syscall(SYS_kcmp, process, process, KCMP_FILE, left.fd, right.fd) == 0;
}

absl::StatusOr<NewSource> Examine(int fd, Intake intake, bool limited,
                                  const ring::Features& features) {
  // What comes unasked cannot ask for a place before it comes, so where places are limited, the
  // master accepts one by one.
  core::IntakeKind kind = KindOf(intake);
  if (core::TypeOf(kind).accepts_each && limited) kind = core::IntakeKind::kPollAccept;
  const core::IntakeType& type = core::TypeOf(kind);
  if (absl::Status status = type.tickets ? CheckPollable(fd) : CheckListener(fd); !status.ok()) {
    return status;
  }
  const bool accepts = IsListener(fd);
  if (type.accepts_each && !features.multishot_accept) {
    return absl::UnimplementedError(
        "this kernel lacks multishot accept (Linux 5.19): use Intake::kPollAccept");
  }
  if (type.tickets && accepts && IsBlocking(fd)) {
    return absl::FailedPreconditionError(
        absl::StrCat("source ", fd,
                     " is a blocking listener: a worker that comes too late for a connection would "
                     "wait for the next one; make it O_NONBLOCK, or use Intake::kPollAccept"));
  }
  if (type.accepts_singly && !features.accept_dontwait && IsBlocking(fd)) {
    return absl::FailedPreconditionError(
        absl::StrCat("source ", fd,
                     " is a blocking socket, and this kernel cannot accept from it without waiting "
                     "(Linux 6.10 can): make the listener O_NONBLOCK, or use Intake::kAccept and "
                     "no capacity"));
  }
  return NewSource{.fd = fd,
                   .file = ring::FileOf(fd),
                   .intake = kind,
                   .accepts = accepts,
                   .countable = IsCountable(fd)};
}

}  // namespace ringmaster::internal
