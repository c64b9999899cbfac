#include "listeners/words.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace ringmaster::internal {
namespace {

constexpr size_t kFdsMax = kHandOverListenersMax;
constexpr size_t kTextMax = kFdsMax * (kNameBytesMax + 1);

// The number at the end is the version of the protocol.
constexpr std::array<char, 8> kMark = {'R', 'M', 'H', 'A', 'N', 'D', '0', '1'};

// As it travels: between two processes of one machine.
struct Packed {
  std::array<char, 8> mark;
  uint32_t say;
  uint32_t number;
  int64_t process;
  uint64_t device;
  uint64_t inode;
};
static_assert(sizeof(Packed) == 40);

// Everything that has come along becomes owned, whoever is content with it.
void TakeDescriptors(msghdr& message, std::vector<NamedListener>& fds) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(fd), sizeof(fd));
      fds.emplace_back(fd);
    }
  }
}

}  // namespace

int SendWord(int fd, const Word& word, std::string_view text, std::span<const int> fds) {
  Packed packed = {.mark = kMark,
                   .say = static_cast<uint32_t>(word.say),
                   .number = word.number,
                   .process = word.process,
                   .device = word.device,
                   .inode = word.inode};
  std::array<iovec, 2> parts = {
      {{.iov_base = &packed, .iov_len = sizeof(packed)},
       {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()}}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kFdsMax * sizeof(int))> control{};
  if (fds.size() > kFdsMax) return E2BIG;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent;
  do {
    sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent < 0 ? errno : 0;
}

int HearWord(int fd, bool takes_fds, Heard& heard) {
  heard = {};
  Packed packed{};
  std::string text(takes_fds ? kTextMax : 0, '\0');
  std::array<iovec, 2> parts = {{{.iov_base = &packed, .iov_len = sizeof(packed)},
                                 {.iov_base = text.data(), .iov_len = text.size()}}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kFdsMax * sizeof(int))> control{};
  if (takes_fds) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  ssize_t size;
  // ECONNRESET is said once: the other side has closed before it has read everything. What it has
  // said before is still there.
  do {
    size = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (size < 0 && (errno == EINTR || errno == ECONNRESET));
  if (size < 0) return errno;
  TakeDescriptors(message, heard.fds);
  // A message of no bytes looks like the end, and nobody sends one.
  const int error = size == 0                                            ? EPIPE
                    : (message.msg_flags & MSG_CTRUNC) != 0 && takes_fds ? EMFILE
                    : (message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)) != 0 ||
                            static_cast<size_t>(size) < sizeof(packed) || packed.mark != kMark
                        ? EBADMSG
                        : 0;
  if (error != 0) {
    heard.fds.clear();
    return error;
  }
  text.resize(static_cast<size_t>(size) - sizeof(packed));
  heard.text = std::move(text);
  heard.word = {.say = static_cast<Say>(packed.say),
                .number = packed.number,
                .process = packed.process,
                .device = packed.device,
                .inode = packed.inode};
  return 0;
}

// Each name ends with a byte of 0.
std::string JoinNames(std::span<const OfferedListener> listeners) {
  std::string text;
  for (const OfferedListener& listener : listeners) {
    text += listener.name;
    text += '\0';
  }
  return text;
}

bool SplitNames(std::string_view text, size_t count, std::vector<std::string>& names) {
  for (size_t end; (end = text.find('\0')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    names.emplace_back(text.substr(0, end));
  }
  return text.empty() && names.size() == count;
}

}  // namespace ringmaster::internal
