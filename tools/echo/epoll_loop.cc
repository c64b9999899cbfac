// A worker's loop on epoll, level-triggered, as an application has it that knows nothing of
// io_uring. What the balancer has for it is one more readable descriptor. By default that is a
// mailbox, whose doorbell stays readable until everything is claimed. So nothing has to be
// remembered from one turn to the next. With Handoff::kCompletion it is a small ring of its own,
// whose completions carry the connections themselves.
//
// What a client can cost is bounded. A connection that does not take its echo is not read from any
// more once kUnsentBytesMax wait for it. It may exceed that by one read.

#include <liburing.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "connection_table.h"
#include "datagrams.h"
#include "loop.h"
#include "ringmaster/mailbox.h"

namespace ringmaster::echo {
namespace {

constexpr int kEventsPerTurnMax = 128;
constexpr size_t kReadBytesMax = 16 * 1024;
constexpr uint64_t kAccepted = 1;  // the token of what is handed over
constexpr unsigned kCompletionEntries = 256;

// What an event is about. The index of the connection is the lower half of its data.
enum class Kind : uint8_t { kMail, kMaster, kControl, kConnection };

constexpr uint64_t EventData(Kind kind, uint32_t index = 0) {
  return uint64_t{static_cast<uint8_t>(kind)} << 32 | index;
}

// Whether the mailbox is among what a wait has brought.
bool HasMail(const epoll_event* events, int count) {
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == EventData(Kind::kMail)) return true;
  }
  return false;
}

class EpollLoop final : public Loop {
 public:
  EpollLoop(const WorkerSetup& setup, WorkerShared& shared) : setup_(setup), shared_(shared) {}
  ~EpollLoop() override {
    // The ring goes last: until the port has left, the balancer may send to it.
    port_.Leave();
    if (ring_created_) {
      ReceiveHandedOver([](int fd) { close(fd); });
      io_uring_queue_exit(&ring_);
    }
    if (epoll_fd_ >= 0) close(epoll_fd_);
  }
  EpollLoop(const EpollLoop&) = delete;
  EpollLoop& operator=(const EpollLoop&) = delete;

  absl::StatusOr<uint32_t> SetUp() override;
  void Run() override;

 private:
  absl::Status AddPort();
  int Watch(int fd, uint64_t data, uint32_t events);
  template <typename Receive>
  size_t ReceiveHandedOver(Receive receive);
  void OnMail();
  bool Claim();
  void DriveMaster();
  void Take(Connection taken);
  void Redeem(Ticket ticket);
  void OnReady(uint32_t index);
  bool Read(EchoConnection& connection);
  bool SendWaiting(EchoConnection& connection);
  bool Continue(uint32_t index);
  void ObeyControl();
  void Leave();
  void PassOnMoving();
  bool PassOn(EchoConnection& connection, uint32_t index);

  const WorkerSetup setup_;
  WorkerShared& shared_;
  int epoll_fd_ = -1;
  Mailbox mailbox_;     // Handoff::kInbox
  io_uring ring_ = {};  // Handoff::kCompletion
  bool ring_created_ = false;
  bool ended_ = false;  // as the control says
  bool leaving_ = false;
  uint32_t passed_on_ = 0;  // of those that are to be passed on
  Port port_;
  ConnectionTable connections_;
};

absl::StatusOr<uint32_t> EpollLoop::SetUp() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd_ < 0) return SetUpError("create an epoll set", errno);
  if (absl::Status added = AddPort(); !added.ok()) return added;
  if (const int error = Watch(setup_.control->fd(), EventData(Kind::kControl), EPOLLIN | EPOLLET)) {
    return SetUpError("watch the control", error);
  }
  for (Source& source : setup_.sources) {
    if (absl::Status joined = source.Join(port_, {.token = kAccepted}); !joined.ok()) return joined;
  }
  return port_.worker();
}

absl::Status EpollLoop::AddPort() {
  WorkerOptions options = {.handoff = setup_.handoff, .capacity = setup_.connections_max};
  int mail_fd = -1;
  absl::StatusOr<Port> port;
  if (setup_.hosts) {
    port = setup_.balancer->AddWorker({.on_host = true, .capacity = setup_.connections_max});
    if (!port.ok()) return port.status();
    port_ = *std::move(port);
    return absl::OkStatus();
  }
  if (setup_.handoff == Handoff::kInbox) {
    absl::StatusOr<Mailbox> mailbox = Mailbox::Create();
    if (!mailbox.ok()) return mailbox.status();
    mailbox_ = *std::move(mailbox);
    mail_fd = mailbox_.fd();
    port = setup_.balancer->AddWorker(mailbox_, options);
  } else {
    // A plain ring: epoll is not told of what is sent to one with DEFER_TASKRUN.
    io_uring_params params = {};
    params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = kCompletionEntries;
    if (const int result = io_uring_queue_init_params(1, &ring_, &params); result < 0) {
      return SetUpError("create an io_uring", -result);
    }
    ring_created_ = true;
    mail_fd = options.ring_fd = ring_.ring_fd;
    port = setup_.balancer->AddWorker(options);
  }
  if (!port.ok()) return port.status();
  port_ = *std::move(port);
  if (const int error = Watch(mail_fd, EventData(Kind::kMail), EPOLLIN)) {
    return SetUpError("watch the mailbox", error);
  }
  return absl::OkStatus();
}

// Returns 0 or errno.
int EpollLoop::Watch(int fd, uint64_t data, uint32_t events) {
  epoll_event event = {.events = events, .data = {.u64 = data}};
  return epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

void EpollLoop::Run() {
  if (setup_.hosts) {
    DriveMaster();
    if (const int error = Watch(setup_.balancer->fd(), EventData(Kind::kMaster), EPOLLIN)) {
      std::fprintf(stderr, "ringmaster-echo: the balancer cannot be watched: %s\n",
                   std::strerror(error));
      std::_Exit(1);
    }
  }
  std::array<epoll_event, kEventsPerTurnMax> events;
  while ((!ended_ && !leaving_) || connections_.size() > 0) {
    port_.BeforeWait();
    const int count = epoll_wait(epoll_fd_, events.data(), kEventsPerTurnMax,
                                 port_.draining() && !ended_ ? kQuietMs : -1);
    const bool offered = port_.AfterWait(HasMail(events.data(), count));
    if (count < 0 && errno != EINTR) {
      std::fprintf(stderr, "ringmaster-echo: worker %u: its epoll set is unusable: %s\n",
                   port_.worker(), std::strerror(errno));
      std::_Exit(1);
    }
    // New connections do not stand behind what those that are there have sent.
    if (offered) Claim();
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      switch (static_cast<Kind>(event.data.u64 >> 32)) {
        case Kind::kMail:
          OnMail();
          break;
        case Kind::kMaster:
          DriveMaster();
          break;
        case Kind::kControl:
          ObeyControl();
          break;
        case Kind::kConnection:
          OnReady(static_cast<uint32_t>(event.data.u64));
          break;
      }
    }
    if (port_.draining() && !ended_) connections_.HangUpOnIdle(/*also_new=*/count == 0);
    if (connections_.moving() > 0) PassOnMoving();
    if (connections_.moving() == 0 && passed_on_ > 0) {
      setup_.on_passed_on(port_.worker(), std::exchange(passed_on_, 0));
    }
  }
}

// Calls `receive` with every descriptor that was handed over, a bounded number at a time: the ring
// stays readable while there are more. Returns how many there were.
template <typename Receive>
size_t EpollLoop::ReceiveHandedOver(Receive receive) {
  size_t count = 0;
  for (io_uring_cqe* completion;
       count < kClaimsPerTurnMax && io_uring_peek_cqe(&ring_, &completion) == 0;
       io_uring_cqe_seen(&ring_, completion), ++count) {
    receive(completion->res);
  }
  return count;
}

bool EpollLoop::Claim() {
  return port_.Claim([this](Connection taken) { Take(std::move(taken)); },
                     [this](Ticket ticket) { Redeem(std::move(ticket)); }, kClaimsPerTurnMax);
}

// Nothing announces what it offers to this worker, so that is claimed to the end.
void EpollLoop::DriveMaster() {
  setup_.balancer->RunOnce().IgnoreError();  // fails when it was shut down
  while (Claim()) {
  }
}

void EpollLoop::OnMail() {
  if (setup_.handoff == Handoff::kInbox) {
    Claim();
  } else {
    port_.Took(ReceiveHandedOver([this](int fd) { Take(port_.Adopt(fd)); }));
  }
}

// Of a datagram socket there is nothing to accept.
void EpollLoop::Redeem(Ticket ticket) {
  if (setup_.datagrams) return EchoDatagrams(ticket, shared_.bytes_echoed);
  if (Connection taken = ticket.Accept(); taken.fd() >= 0) Take(std::move(taken));
}

void EpollLoop::Take(Connection taken) {
  if (ended_) return;  // closes it
  const int fd = taken.TakeFd();
  const uint32_t index = connections_.Allocate(fd, taken.TakeLease());
  EchoConnection& connection = connections_[index];
  connection.receiving = true;
  // What the client sent with its connection is most likely there.
  const bool open = Read(connection) && Continue(index);
  if (!open ||
      Watch(fd, EventData(Kind::kConnection, index),
            (connection.receiving ? EPOLLIN : 0u) | (connection.sending ? EPOLLOUT : 0u))) {
    connection.receiving = connection.sending = false;
    connections_.Free(index);
  }
}

void EpollLoop::OnReady(uint32_t index) {
  EchoConnection& connection = connections_[index];
  // An event of the same turn may have closed it. In between nothing is accepted that could have
  // its index, except by mail of the same turn. Then the event is about that and harmless.
  if (connection.fd < 0) return;
  const bool receiving = connection.receiving;
  const bool sending = connection.sending;
  // An error shows in what is tried then, and one of the two is always waited for.
  bool open = !sending || SendWaiting(connection);
  if (open && receiving) open = Read(connection);
  open = open && Continue(index);
  if (!open) {
    connection.receiving = connection.sending = false;
    return connections_.Free(index);
  }
  if (receiving == connection.receiving && sending == connection.sending) return;
  epoll_event event = {
      .events = (connection.receiving ? EPOLLIN : 0u) | (connection.sending ? EPOLLOUT : 0u),
      .data = {.u64 = EventData(Kind::kConnection, index)}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, connection.fd, &event);
}

// Reads once and sends what it can of that. False when the connection has failed.
bool EpollLoop::Read(EchoConnection& connection) {
  std::array<char, kReadBytesMax> buffer;
  const ssize_t count = recv(connection.fd, buffer.data(), buffer.size(), 0);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) {
    connection.end_of_stream = true;
    return true;
  }
  const auto size = static_cast<size_t>(count);
  connection.NoteReceived(buffer.data(), size);
  size_t sent = 0;
  if (connection.unsent() == 0) {
    const ssize_t result = send(connection.fd, buffer.data(), size, MSG_NOSIGNAL);
    if (result < 0 && errno != EAGAIN && errno != EINTR) return false;
    sent = result > 0 ? static_cast<size_t>(result) : 0;
    shared_.bytes_echoed.fetch_add(sent, std::memory_order_relaxed);
  }
  connection.outgoing.insert(connection.outgoing.end(), buffer.data() + sent, buffer.data() + size);
  return true;
}

// False when the connection has failed.
bool EpollLoop::SendWaiting(EchoConnection& connection) {
  const ssize_t result = send(connection.fd, connection.outgoing.data() + connection.sent,
                              connection.unsent(), MSG_NOSIGNAL);
  if (result < 0) return errno == EAGAIN || errno == EINTR;
  connection.sent += static_cast<size_t>(result);
  shared_.bytes_echoed.fetch_add(static_cast<uint64_t>(result), std::memory_order_relaxed);
  if (connection.unsent() == 0) {
    EmptyAndTrim(connection.outgoing);
    connection.sent = 0;
  }
  return true;
}

// Decides what the connection waits for next. False when it is at its end.
bool EpollLoop::Continue(uint32_t index) {
  EchoConnection& connection = connections_[index];
  const size_t unsent = connection.unsent();
  connection.sending = unsent > 0;
  if (connection.end_of_stream) {
    connection.receiving = false;
  } else if (connection.receiving ? unsent > kUnsentBytesMax : unsent <= kUnsentBytesMax / 2) {
    connection.receiving = !connection.receiving;
  }
  return !connection.end_of_stream || unsent > 0;
}

void EpollLoop::ObeyControl() {
  if (!leaving_ && shared_.leave.load(std::memory_order_relaxed)) Leave();
  if (shared_.share_out.exchange(false, std::memory_order_relaxed)) {
    connections_.PassOnIdle(port_.Surplus());
  }
  if (ended_ || !setup_.control->ended()) return;
  ended_ = true;
  for (uint32_t index = 0; index < connections_.index_end(); ++index) {
    EchoConnection& connection = connections_[index];
    if (connection.fd < 0) continue;
    connection.receiving = connection.sending = false;
    connections_.Free(index);
  }
}

// Nothing new comes from now on. What was handed over before is in the ring: it goes on with the
// others.
void EpollLoop::Leave() {
  leaving_ = true;
  for (Source& source : setup_.sources) source.Leave(port_).IgnoreError();  // it may have ended
  if (ring_created_) {
    while (const size_t taken = ReceiveHandedOver([this](int fd) { Take(port_.Adopt(fd)); })) {
      port_.Took(taken);
    }
  }
  for (uint32_t index = 0; index < connections_.index_end(); ++index) {
    if (connections_[index].fd >= 0) connections_.PassOn(index);
  }
}

// Those that are idle by now.
void EpollLoop::PassOnMoving() {
  for (uint32_t index = 0; index < connections_.index_end(); ++index) {
    EchoConnection& connection = connections_[index];
    if (connection.fd < 0 || !connection.moving || !connection.idle()) continue;
    if (!PassOn(connection, index)) return connections_.KeepAll();
    ++passed_on_;
  }
}

// Everything that was read has been answered, and what has not been read travels with the socket.
// False: it cannot be passed on, and goes on here.
bool EpollLoop::PassOn(EchoConnection& connection, uint32_t index) {
  // Before, because it may be closed at any time once it is another worker's.
  epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, connection.fd, nullptr);
  if (SourceFor(setup_, connection.fd).PassOn(connection.fd, std::move(connection.lease)).ok()) {
    connection.receiving = false;
    connections_.Forget(index);
    return true;
  }
  if (Watch(connection.fd, EventData(Kind::kConnection, index), EPOLLIN) != 0) {
    connection.receiving = false;
    connections_.Free(index);
  }
  return false;
}

}  // namespace

std::unique_ptr<Loop> MakeEpollLoop(const WorkerSetup& setup, WorkerShared& shared) {
  return std::make_unique<EpollLoop>(setup, shared);
}

}  // namespace ringmaster::echo
