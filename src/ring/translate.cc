#include "ring/translate.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>

#include "ring/doorbell.h"

namespace ringmaster::ring {
namespace {

using core::Completion;
using core::Op;
using core::OpKey;
using core::OpKind;

static_assert(core::kReadableMask == POLLIN && core::kEndedMask == POLLRDHUP);

// The `res` of a message to oneself has the source, and in the highest bits the flags for what is
// accepted from it. Descriptors stay below these bits: fs.nr_open is 2^30 at most, and 2^20 by
// default.
constexpr uint32_t kMessageNonBlock = 1u << 30;
constexpr uint32_t kMessageCloseOnExec = 1u << 29;

// A key has four bits for its kind. A new kind stands before kClose.
static_assert(static_cast<int>(core::OpKind::kClose) < 16);

// In the `addr` of a message: it carries a file. Not every liburing that is supported names it.
constexpr uint64_t kSendFile = 1;

OpKey Decode(uint64_t user_data) {
  return {.kind = static_cast<OpKind>(user_data >> 52 & 0xf),
          .facts = static_cast<uint8_t>(user_data >> 48 & 0xf),
          .generation = static_cast<uint16_t>(user_data >> 32),
          .index = static_cast<uint32_t>(user_data)};
}

uint64_t UserData(const OpKey& key, const Dialect& dialect) { return dialect.mark | Encode(key); }

// The source was non-blocking when it was added. But O_NONBLOCK belongs to the open file, and
// another process may share that and change it.
bool WouldWait(int source) {
  if ((fcntl(source, F_GETFL) & O_NONBLOCK) != 0) return false;
  int listens = 0;
  socklen_t length = sizeof(listens);
  // An accept from a socket that does not listen fails at once, so it would not wait.
  return getsockopt(source, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) == 0 && listens != 0;
}

// Does the accept that PrepareAccept has put off.
int32_t AcceptNow(uint32_t message) {
  const int source = static_cast<int>(message & ~(kMessageNonBlock | kMessageCloseOnExec));
  const int flags = ((message & kMessageNonBlock) != 0 ? SOCK_NONBLOCK : 0) |
                    ((message & kMessageCloseOnExec) != 0 ? SOCK_CLOEXEC : 0);
  if (WouldWait(source)) return -core::kWouldWait;
  const int fd = accept4(source, nullptr, nullptr, flags);
  return fd >= 0 ? fd : -errno;
}

int32_t IncomingCpu(int fd) {
  int cpu = -1;
  socklen_t length = sizeof(cpu);
  return getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &length) == 0 && cpu >= 0 ? cpu : -1;
}

// Bytes of an object, one after the other.
template <typename T>
void Append(Peer& peer, size_t& size, const T& value) {
  std::memcpy(peer.address.data() + size, &value, sizeof(value));
  size += sizeof(value);
}

Peer UnixPeer(int fd) {
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) return {};
  Peer peer{.kind = Peer::Kind::kUnix};
  size_t size = 0;
  Append(peer, size, credentials.pid);
  Append(peer, size, credentials.uid);
  Append(peer, size, credentials.gid);
  return peer;
}

// Unknown when the connection is gone already (ENOTCONN).
Peer PeerOf(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0) return {};
  Peer peer;
  size_t size = 0;
  switch (address.ss_family) {
    case AF_INET: {
      sockaddr_in ipv4;
      std::memcpy(&ipv4, &address, sizeof(ipv4));
      peer = {.kind = Peer::Kind::kIpv4, .port = ntohs(ipv4.sin_port)};
      Append(peer, size, ipv4.sin_addr);
      return peer;
    }
    case AF_INET6: {
      sockaddr_in6 ipv6;
      std::memcpy(&ipv6, &address, sizeof(ipv6));
      peer = {.kind = Peer::Kind::kIpv6, .port = ntohs(ipv6.sin6_port)};
      if (IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr)) {
        peer.kind = Peer::Kind::kIpv4;
        std::memcpy(peer.address.data(), &ipv6.sin6_addr.s6_addr[12], 4);
      } else {
        Append(peer, size, ipv6.sin6_addr);
      }
      return peer;
    }
    case AF_UNIX:
      return UnixPeer(fd);
    default:
      return {};
  }
}

// Whether the client has hung up and left nothing to read. A client that has sent a request and
// closed its side waits for the answer.
bool LeftNothing(int fd) {
  char byte;
  const ssize_t size = recv(fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT);
  return size == 0 || (size < 0 && errno != EAGAIN && errno != EOPNOTSUPP);
}

// Reads when the client came, of a connection on which this side has sent nothing yet. The kernel
// tells for how long nothing has been sent, and counts that from the end of the handshake
// (uring_ring_test: TellsWhenAClientCame). It counts in ticks, and may be one tick ahead of the
// time that has passed, so one tick is taken off.
void ReadCame(int fd, const Dialect& dialect, Completion& completion) {
  constexpr int64_t kNsPerMillisecond = 1'000'000;
  tcp_info info{};
  socklen_t length = offsetof(tcp_info, tcpi_last_ack_sent);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return;
  const int64_t waited_ns = info.tcpi_last_data_sent * kNsPerMillisecond;
  const int64_t tick_ns = std::max<int64_t>(dialect.features.tick_ns, 1);
  completion.came_at_ns = NowNs() - std::max<int64_t>(waited_ns / tick_ns - 1, 0) * tick_ns;
  completion.gone = info.tcpi_state == TCP_CLOSE ||  // by a reset
                    (info.tcpi_state == TCP_CLOSE_WAIT && LeftNothing(fd));
}

bool HasGone(int fd) {
  pollfd entry{.fd = fd, .events = POLLIN | POLLRDHUP, .revents = 0};
  if (poll(&entry, 1, 0) <= 0) return false;
  return (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0 && LeftNothing(fd);
}

// Reads the facts that were asked for, of a connection that has just been accepted.
void ReadFacts(const Dialect& dialect, Completion& completion) {
  const int fd = completion.result;
  const uint8_t facts = completion.key.facts;
  completion.facts = FactsOf(fd, facts);
  if ((facts & core::kFactCame) != 0) ReadCame(fd, dialect, completion);
  if ((facts & core::kFactGone) != 0) completion.gone = HasGone(fd);
}

void PrepareAccept(const Op& op, const Dialect& dialect, io_uring_sqe* sqe) {
  if (dialect.features.accept_dontwait) {
    io_uring_prep_accept(sqe, op.fd, nullptr, nullptr, static_cast<int>(op.accept_flags));
    sqe->ioprio = kAcceptDontWait;
    sqe->flags = 0;
  } else {
    // Without that flag an accept waits even on a non-blocking socket (seen on Linux 6.18). It
    // cannot simply be cancelled after a moment: then it may be reported behind the edge of a
    // connection that it has not seen. So the ring sends the source to itself, and Translate
    // accepts when it reads the message (uring_ring_test: LosesNoEdgeBesideAcceptsThatFindNothing).
    const uint32_t message = static_cast<uint32_t>(op.fd) |
                             ((op.accept_flags & SOCK_NONBLOCK) != 0 ? kMessageNonBlock : 0) |
                             ((op.accept_flags & SOCK_CLOEXEC) != 0 ? kMessageCloseOnExec : 0);
    io_uring_prep_msg_ring(sqe, dialect.ring_fd, message, UserData(op.key, dialect), 0);
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
  }
  sqe->user_data = UserData(op.key, dialect);
}

void PrepareInstall(const Op& op, io_uring_sqe* sqe) {
  io_uring_prep_rw(IORING_OP_MSG_RING, sqe, op.fd, nullptr, 0, op.tag);
  sqe->addr = kSendFile;
  sqe->addr3 = static_cast<uint64_t>(op.slot);
  sqe->file_index = IORING_FILE_INDEX_ALLOC;
}

bool Lingers(int fd) {
  linger option{};
  socklen_t length = sizeof(option);
  return getsockopt(fd, SOL_SOCKET, SO_LINGER, &option, &length) == 0 && option.l_onoff != 0 &&
         option.l_linger != 0;
}

// The worker has the connection. So its SO_LINGER is left as it is; but if the worker has closed it
// already, this close waits for the client, and the master must not.
unsigned PrepareLetGo(const Op& op, io_uring_sqe* sqe) {
  if (op.hang_up) {
    shutdown(op.fd, SHUT_RDWR);
    EndLinger(op.fd);
  }
  io_uring_prep_close(sqe, op.fd);
  return IOSQE_CQE_SKIP_SUCCESS | (Lingers(op.fd) ? IOSQE_ASYNC : 0u);
}

}  // namespace

Arrival FactsOf(int fd, uint8_t facts) {
  Arrival arrival;
  if ((facts & core::kFactIncomingCpu) != 0) arrival.incoming_cpu = IncomingCpu(fd);
  if ((facts & core::kFactPeer) != 0) arrival.peer = PeerOf(fd);
  return arrival;
}

uint64_t Encode(const OpKey& key) {
  return uint64_t{static_cast<uint8_t>(key.kind)} << 52 | uint64_t{key.facts} << 48 |
         uint64_t{key.generation} << 32 | key.index;
}

OpKind KindOf(uint64_t user_data) { return Decode(user_data).kind; }

void Prepare(const Op& op, const Dialect& dialect, io_uring_sqe* sqe) {
  unsigned flags = 0;
  switch (op.key.kind) {
    case OpKind::kWatch:
    case OpKind::kPoll:
      io_uring_prep_poll_multishot(sqe, op.fd, POLLIN);
      break;
    case OpKind::kCount:
    case OpKind::kOverflows:
    case OpKind::kState:
      return;  // these answer at once, without an entry
    case OpKind::kHangUp:
      // A poll tells POLLHUP and POLLERR whatever it asks for.
      io_uring_prep_poll_add(sqe, op.fd, POLLRDHUP);
      break;
    case OpKind::kHangUpEnd:
    case OpKind::kPollEnd:
    case OpKind::kAcceptEnd:
      // Not POLL_REMOVE: if an edge of the poll is under way, that leaves the poll armed
      // (uring_ring_test: EndsAPollWhoseEdgeIsUnderWay).
      io_uring_prep_cancel64(sqe, dialect.mark | *KeyOfEnded(op.key), 0);
      flags = IOSQE_CQE_SKIP_SUCCESS;
      break;
    case OpKind::kAccept:
      PrepareAccept(op, dialect, sqe);
      return;
    case OpKind::kAcceptEach:
      io_uring_prep_multishot_accept(sqe, op.fd, nullptr, nullptr,
                                     static_cast<int>(op.accept_flags));
      break;
    case OpKind::kDoorbell:
      PrepareDoorbell({.ring_fd = op.fd, .tag = op.tag}, sqe);
      sqe->user_data = UserData(op.key, dialect);
      return;
    case OpKind::kSend:
      io_uring_prep_msg_ring(sqe, op.fd, static_cast<unsigned>(op.sent), op.tag, 0);
      flags = IOSQE_CQE_SKIP_SUCCESS;
      break;
    case OpKind::kInstall:
      PrepareInstall(op, sqe);
      break;
    case OpKind::kLetGo:
      flags = PrepareLetGo(op, sqe);
      break;
    case OpKind::kClose:
      EndLinger(op.fd);
      io_uring_prep_close(sqe, op.fd);
      flags = IOSQE_CQE_SKIP_SUCCESS;
      break;
  }
  sqe->flags = static_cast<uint8_t>(flags);
  sqe->user_data = UserData(op.key, dialect);
}

bool HasSlot(const Op& op) {
  return op.slot >= 0 && (op.key.kind == OpKind::kInstall || op.key.kind == OpKind::kLetGo);
}

void PrepareSlot(const Op& op, const int32_t* file, const Dialect& dialect, io_uring_sqe* sqe) {
  io_uring_prep_rw(IORING_OP_FILES_UPDATE, sqe, -1, file, 1, static_cast<uint64_t>(op.slot));
  sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = dialect.mark | kMarkerKey;
  if (op.key.kind != OpKind::kInstall) return;
  // What the slot had before must not be installed instead. If this entry fails, the kernel drops
  // the one that follows, and tells this one's failure alone (installing_test:
  // WhatIsNoFileIsNotInstalled). So it is told under the key of the operation.
  sqe->flags |= IOSQE_IO_LINK;
  sqe->user_data = UserData(op.key, dialect);
}

void PrepareEnd(uint64_t key, const Dialect& dialect, io_uring_sqe* sqe) {
  io_uring_prep_cancel64(sqe, dialect.mark | key, IORING_ASYNC_CANCEL_ALL);
  sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = dialect.mark | kMarkerKey;
}

int EndNow(uint64_t key, const Dialect& dialect) {
  io_uring_sync_cancel_reg what{};
  what.addr = dialect.mark | key;
  what.fd = -1;
  what.flags = IORING_ASYNC_CANCEL_ALL;
  // If the kernel is in the middle of such a request, the call waits for it no longer than this.
  // None of ours takes long.
  what.timeout = {.tv_sec = 0, .tv_nsec = 1'000'000};
  const int result = io_uring_register(static_cast<unsigned>(dialect.ring_fd),
                                       IORING_REGISTER_SYNC_CANCEL, &what, 1);
  return result == -ENOENT ? 0 : std::min(result, 0);
}

std::optional<uint64_t> KeyOfEnded(OpKey key) {
  switch (key.kind) {
    case OpKind::kPollEnd:
      key.kind = OpKind::kPoll;
      return Encode(key);
    case OpKind::kHangUpEnd:
      key.kind = OpKind::kHangUp;
      return Encode(key);
    case OpKind::kAcceptEnd:
      key.kind = OpKind::kAcceptEach;
      return Encode(key);
    default:
      return std::nullopt;
  }
}

void PrepareWakeUp(int64_t at_ns, __kernel_timespec& at, const Dialect& dialect,
                   io_uring_sqe* sqe) {
  constexpr int64_t kNsPerSecond = 1'000'000'000;
  at = {.tv_sec = at_ns / kNsPerSecond, .tv_nsec = at_ns % kNsPerSecond};
  io_uring_prep_timeout(sqe, &at, 0, IORING_TIMEOUT_ABS);
  sqe->flags = 0;
  sqe->user_data = dialect.mark | kWakeUpKey;
}

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

bool Translate(const io_uring_cqe& cqe, const Dialect& dialect, Completion& completion) {
  if ((cqe.user_data & kKeyMask) >= kMarkerKey) return false;
  completion = {.key = Decode(cqe.user_data),
                .result = cqe.res,
                .more = (cqe.flags & IORING_CQE_F_MORE) != 0};
  switch (completion.key.kind) {
    case OpKind::kPollEnd:
    case OpKind::kHangUpEnd:
    case OpKind::kAcceptEnd:
      return cqe.res < 0 && cqe.res != -ENOENT && cqe.res != -EALREADY;
    case OpKind::kAccept:
      if (!dialect.features.accept_dontwait && cqe.res >= 0) {
        completion.result = AcceptNow(static_cast<uint32_t>(cqe.res));
      }
      [[fallthrough]];
    case OpKind::kAcceptEach:
      if (completion.result >= 0) ReadFacts(dialect, completion);
      return true;
    case OpKind::kWatch:
    case OpKind::kPoll:
    case OpKind::kCount:
    case OpKind::kOverflows:
    case OpKind::kState:
    case OpKind::kHangUp:
    case OpKind::kDoorbell:
    case OpKind::kSend:
    case OpKind::kInstall:
    case OpKind::kLetGo:
    case OpKind::kClose:
      return true;
  }
  // No operation of ours has such a completion.
  return false;
}

bool AnswersAtOnce(OpKind kind) {
  return kind == OpKind::kCount || kind == OpKind::kOverflows || kind == OpKind::kState;
}

Completion Answer(const Op& op) {
  switch (op.key.kind) {
    case OpKind::kCount:
      return {.key = op.key, .result = BacklogOf(op.fd).length};
    case OpKind::kState:
      return {.key = op.key, .result = StateOf(op.fd)};
    default:
      return {.key = op.key, .result = OverflowsOf(op.fd)};
  }
}

void CloseAccepted(std::span<const Completion> completions) {
  for (const Completion& completion : completions) {
    const OpKind kind = completion.key.kind;
    const bool accepts = kind == OpKind::kAccept || kind == OpKind::kAcceptEach;
    if (accepts && completion.result >= 0) CloseConnection(completion.result);
  }
}

// The first 32 bytes suffice. For a listener these two fields mean something else than their names
// say.
Backlog BacklogOf(int fd) {
  tcp_info info{};
  socklen_t length = offsetof(tcp_info, tcpi_lost);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return {.length = -errno};
  return {.length = static_cast<int32_t>(info.tcpi_unacked), .limit = info.tcpi_sacked};
}

int32_t StateOf(int fd) {
  int listens = 0;
  socklen_t length = sizeof(listens);
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0) {
    return errno == ENOTSOCK ? 0 : -errno;
  }
  if (listens == 0) return 0;
  // A Unix socket that was shut down says that it listens, and refuses its clients. It answers
  // EAGAIN to an accept when it has no more of those that came before (Linux 6.18).
  pollfd end{.fd = fd, .events = POLLRDHUP, .revents = 0};
  const bool ended = poll(&end, 1, 0) == 1 && (end.revents & (POLLRDHUP | POLLHUP)) != 0;
  return ended ? core::kEnds : core::kListens;
}

// Each connection that a listener drops counts as a drop of its socket (uring_ring_test:
// TellsHowManyAFullQueueHasDropped).
int32_t OverflowsOf(int fd) {
  uint32_t info[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof(info);
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &length) != 0) return -errno;
  if (length <= SK_MEMINFO_DROPS * sizeof(info[0])) return -EOPNOTSUPP;
  return static_cast<int32_t>(info[SK_MEMINFO_DROPS] & core::kOverflowsMask);
}

uint64_t FileOf(int fd) {
  errno = 0;
  uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0 ? cookie : 0;
}

void EndLinger(int fd) {
  linger option{};
  socklen_t length = sizeof(option);
  if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &option, &length) != 0) return;
  if (option.l_onoff == 0 || option.l_linger == 0) return;
  option = {};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, sizeof(option));
}

void CloseConnection(int fd) {
  EndLinger(fd);
  close(fd);
}

void LetGoOf(const Op& op) {
  if (op.fd < 0) return;
  if (op.hang_up) shutdown(op.fd, SHUT_RDWR);
  close(op.fd);
}

}  // namespace ringmaster::ring
