#include "listeners/meeting_place.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "ring/errors.h"

namespace ringmaster::internal {
namespace {

constexpr int kBacklog = 16;
constexpr absl::Duration kLockMax = absl::Seconds(1);
constexpr absl::Duration kLockPause = absl::Milliseconds(5);

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

const sockaddr* Plain(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

absl::Status PathError(const std::string& path, int error) {
  const std::string what = absl::StrCat("cannot serve the hand-over at ", path, ": ");
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError(
          absl::StrCat(what,
                       "a process serves it already. Take over from that one, by TakeOver, "
                       "or choose another path"));
    case EEXIST:
      return absl::FailedPreconditionError(
          absl::StrCat(what,
                       "there is a file of that name that is not a socket. Remove it, or "
                       "choose another path"));
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(
          absl::StrCat(what, "its directory does not exist. Create it, or choose another path"));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(absl::StrCat(
          what, std::strerror(error), ". Choose a path in a directory that you may write to"));
    case EWOULDBLOCK:
      return absl::UnavailableError(
          absl::StrCat(what, "its directory has been locked for ", absl::FormatDuration(kLockMax),
                       " (flock). See by whom in /proc/locks, or choose another path"));
    default:
      return absl::UnknownError(absl::StrCat(what, std::strerror(error)));
  }
}

// The directory of `path`, opened and locked, or -errno. Of two processes that start at the same
// moment, one sees the other listening then, and does not take a socket that is bound and does not
// listen yet for one that was left behind.
int LockDirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "."
                                : slash == 0               ? "/"
                                                           : path.substr(0, slash);
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  for (absl::Duration waited; flock(fd, LOCK_EX | LOCK_NB) != 0; waited += kLockPause) {
    if (errno != EINTR && (errno != EWOULDBLOCK || waited >= kLockMax)) {
      const int error = errno;
      close(fd);
      return -error;
    }
    absl::SleepFor(kLockPause);
  }
  return fd;
}

// Removes a socket that nobody listens on. Returns 0 when the path is free now, EADDRINUSE when
// somebody answers there, EEXIST when it is no socket, else an errno.
int RemoveIfAbandoned(const std::string& path) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) return errno == ENOENT ? 0 : errno;
  if (!S_ISSOCK(status.st_mode)) return EEXIST;
  const int probe = Meet(path);
  if (probe >= 0) close(probe);
  // EAGAIN: its queue is full. EPROTOTYPE: it is a socket of another type, in use.
  if (probe >= 0 || probe == -EAGAIN || probe == -EPROTOTYPE) return EADDRINUSE;
  if (probe != -ECONNREFUSED) return -probe;
  return unlink(path.c_str()) == 0 ? 0 : errno;
}

}  // namespace

bool MeetingPlace::IsThere() const {
  struct stat status;
  return lstat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode) && status.st_dev == device &&
         status.st_ino == inode;
}

void MeetingPlace::Remove() const {
  if (IsThere()) unlink(path.c_str());
}

absl::Status CheckPath(const std::string& path) {
  constexpr size_t kMax = sizeof(sockaddr_un::sun_path) - 1;
  if (!path.empty() && path.size() <= kMax && path.find('\0') == std::string::npos) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("the path of a hand-over has 1 to ", kMax,
                                                 " bytes, and \"", path, "\" has ", path.size(),
                                                 ": choose a shorter one, in /run for instance"));
}

absl::StatusOr<MeetingPlace> OpenMeetingPlace(const std::string& path) {
  if (absl::Status status = CheckPath(path); !status.ok()) return status;
  const int directory = LockDirectoryOf(path);
  if (directory < 0) return PathError(path, -directory);
  const auto open_it = [&]() -> absl::StatusOr<MeetingPlace> {
    if (const int error = RemoveIfAbandoned(path); error != 0) return PathError(path, error);
    MeetingPlace place;
    place.path = path;
    place.socket =
        ring::OwnDescriptor(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int fd = place.socket.get();
    if (fd < 0) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
    // Of a socket that is not bound yet: the file gets that mode.
    fchmod(fd, S_IRUSR | S_IWUSR);
    const sockaddr_un address = AddressOf(path);
    if (bind(fd, Plain(address), sizeof(address)) != 0) return PathError(path, errno);
    struct stat status {};
    if (lstat(path.c_str(), &status) != 0) return PathError(path, errno);
    place.device = status.st_dev;
    place.inode = status.st_ino;
    if (listen(fd, kBacklog) != 0) {
      const int error = errno;
      place.Remove();
      return PathError(path, error);
    }
    return place;
  };
  absl::StatusOr<MeetingPlace> place = open_it();
  close(directory);
  return place;
}

int Meet(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  const sockaddr_un address = AddressOf(path);
  int result;
  do {
    result = connect(fd, Plain(address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

Other OtherEndOf(int fd) {
  ucred credentials{};
  socklen_t size = sizeof(credentials);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return {};
  return {.user = credentials.uid, .process = credentials.pid};
}

}  // namespace ringmaster::internal
