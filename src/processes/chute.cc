#include "processes/chute.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <type_traits>

namespace ringmaster::processes {
namespace {

struct Message {
  uint64_t token = 0;
  Arrival facts;
};
static_assert(std::is_trivially_copyable_v<Message>);

// The kernel says that there is room when a quarter of this is free of what lies there. A message
// of one descriptor takes less than 1.5 KiB of it.
constexpr int kBytes = 4 * 1536 * kLyingMax / 2;  // the kernel doubles it

// Of Linux 6.5 and 6.16, which the C library's headers may not have.
constexpr int kPassPidfd = 76;
constexpr int kScmPidfd = 4;
constexpr int kPassRights = 83;

bool Set(int fd, int option, int value) {
  return setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)) == 0;
}

// The one descriptor that a message should bring. Whoever has the other copy of the end may have
// asked the kernel for more in each message. All that is none of ours is closed.
int DescriptorOf(msghdr& message) {
  int found = -1;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_len < CMSG_LEN(sizeof(int))) continue;
    if (header->cmsg_type != SCM_RIGHTS && header->cmsg_type != kScmPidfd) continue;
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    if (header->cmsg_type == SCM_RIGHTS && found < 0) {
      found = fd;
    } else if (fd >= 0) {
      close(fd);
    }
  }
  return found;
}

}  // namespace

int MakeChute(ChuteEnds& ends) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
    return errno;
  }
  // One way only: a worker sends nothing.
  shutdown(pair[0], SHUT_RD);
  Set(pair[0], SO_SNDBUF, kBytes);
  ends = {.in = pair[0], .out = pair[1]};
  return 0;
}

int PutIn(int in, const Given& given) {
  Message content{.token = given.token, .facts = given.facts};
  iovec part{.iov_base = &content, .iov_len = sizeof(content)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &given.fd, sizeof(given.fd));
  ssize_t sent;
  do {
    sent = sendmsg(in, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? errno : 0;
}

void Nudge(int in) {
  const Message content{};
  [[maybe_unused]] const ssize_t sent =
      send(in, &content, sizeof(content), MSG_NOSIGNAL | MSG_DONTWAIT);
}

// ETOOMANYREFS: so many descriptors of this user are on their way already (RLIMIT_NOFILE).
bool IsLackOfRoom(int error) {
  return error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

int TakeOut(int out, Given& given) {
  // A descriptor that cannot be had while it is taken out would be closed by the kernel.
  const int spare = fcntl(out, F_DUPFD_CLOEXEC, 0);
  if (spare < 0) return errno == EINVAL ? EMFILE : errno;  // EINVAL: the limit is 0
  close(spare);
  Message content;
  iovec part{.iov_base = &content, .iov_len = sizeof(content)};
  alignas(cmsghdr) std::array<char, 1024> control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t size;
  do {
    size = recvmsg(out, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size < 0 && (errno == EINTR || errno == ECONNRESET));
  if (size < 0) return errno;
  const int fd = DescriptorOf(message);
  if (size == 0 && fd < 0) return EPIPE;
  if (fd < 0 || size != sizeof(content)) {
    if (fd >= 0) close(fd);
    return EBADMSG;
  }
  given = {.fd = fd, .token = content.token, .facts = content.facts};
  return 0;
}

uint32_t LyingIn(int out) {
  int bytes = 0;
  return ioctl(out, FIONREAD, &bytes) == 0 ? static_cast<uint32_t>(bytes) / sizeof(Message) : 0;
}

bool IsSound(int out) {
  pollfd ended{.fd = out, .events = POLLRDHUP, .revents = 0};
  if (poll(&ended, 1, 0) != 0) return false;
  // 0: there is no filter. One that is no list of instructions makes it fail.
  socklen_t instructions = 0;
  if (getsockopt(out, SOL_SOCKET, SO_GET_FILTER, nullptr, &instructions) != 0 ||
      instructions != 0) {
    return false;
  }
  Set(out, kPassPidfd, 0);
  Set(out, kPassRights, 1);
  return Set(out, SO_PASSCRED, 0);
}

}  // namespace ringmaster::processes
