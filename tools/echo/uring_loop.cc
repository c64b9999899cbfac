// A worker's loop on io_uring.
//
// There is one thread, one ring, and at most one completion queue to look at. Everything arrives as
// completions, told apart by their user_data. They are the doorbell of the balancer or the
// connections themselves, the server's control, and the traffic of every connection. Connections
// are received with multishot receive into a pool of provided buffers that all connections of the
// worker share.
//
// With --handoff direct the connections are in the file table of the ring, and every request names
// a slot. Also what is a system call elsewhere, to hang up and to close, is a request then.
//
// What a client can cost:
//   * A received buffer is copied and given back at once. So clients that do not read their echo
//     cannot use up the pool that the others receive with.
//   * A connection that does not take its echo may exceed kUnsentBytesMax by what arrives before
//     its receive has ended. That is at most the pool (kBuffers * kBufferBytes) once.
//   * A connection that has nothing to send keeps a few kilobytes, see connection_table.h.

#include <liburing.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
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

namespace ringmaster::echo {
namespace {

// A turn looks at this many completions. Each asks for at most two operations and each claim for
// one. So a submission queue that is empty before the turn has room for all that the turn adds.
constexpr uint32_t kCompletionsPerTurnMax = 128;
constexpr uint32_t kSubmissionEntries = 512;
constexpr uint32_t kReceivesEndedPerTurnMax = 128;
static_assert(2 * kCompletionsPerTurnMax + 2 * kClaimsPerTurnMax + kReceivesEndedPerTurnMax + 3 <=
              kSubmissionEntries);

// A full completion queue would only cost a detour through the kernel's overflow list.
constexpr uint32_t kCompletionEntries = 4096;

// Of the file table, at most.
constexpr uint32_t kSlotsMax = 16'384;

constexpr uint32_t kBuffers = 256;  // a power of two, as buffer rings demand
constexpr uint32_t kBufferBytes = 4096;
constexpr uint16_t kBufferGroup = 0;

// What a completion is about. The index of the connection is the lower half of the user_data. No
// generation is needed, because an entry of the table is free only when nothing is in flight.
enum class Kind : uint8_t {
  kDoorbell,
  kSight,
  kAccepted,
  kControl,
  kReceive,
  kSend,
  kReceiveEnd,
  kHangUp,
  kClose
};

constexpr uint64_t UserData(Kind kind, uint32_t index = 0) {
  return uint64_t{static_cast<uint8_t>(kind)} << 32 | index;
}

// The buffers that the kernel receives into: a ring of descriptions, shared with the kernel, and
// the memory that they describe. Registered with a ring, it must outlive it.
class BufferPool {
 public:
  BufferPool() = default;
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  ~BufferPool() {
    if (memory_ != MAP_FAILED) munmap(memory_, kBytes);
  }

  // Returns 0 or -errno.
  int Register(io_uring& ring) {
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) return -errno;
    io_uring_buf_reg request = {};
    request.ring_addr = reinterpret_cast<uintptr_t>(memory_);
    request.ring_entries = kBuffers;
    request.bgid = kBufferGroup;
    if (const int result = io_uring_register_buf_ring(&ring, &request, 0); result < 0) {
      return result;
    }
    io_uring_buf_ring_init(descriptions());
    for (uint32_t i = 0; i < kBuffers; ++i) Return(static_cast<uint16_t>(i));
    return 0;
  }

  const char* data(uint16_t buffer) const {
    return static_cast<const char*>(memory_) + kDescriptionBytes + size_t{buffer} * kBufferBytes;
  }

  void Return(uint16_t buffer) {
    io_uring_buf_ring_add(descriptions(), const_cast<char*>(data(buffer)), kBufferBytes, buffer,
                          io_uring_buf_ring_mask(kBuffers), 0);
    io_uring_buf_ring_advance(descriptions(), 1);
  }

 private:
  static constexpr size_t kDescriptionBytes = sizeof(io_uring_buf) * kBuffers;
  static constexpr size_t kBytes = kDescriptionBytes + size_t{kBuffers} * kBufferBytes;

  io_uring_buf_ring* descriptions() { return static_cast<io_uring_buf_ring*>(memory_); }

  void* memory_ = MAP_FAILED;
};

class UringLoop final : public Loop {
 public:
  UringLoop(const WorkerSetup& setup, WorkerShared& shared) : setup_(setup), shared_(shared) {}
  ~UringLoop() override {
    // The ring goes last: until the port has left, the balancer may ring it.
    port_.Leave();
    if (!ring_created_) return;
    CloseWhatIsLeft();
    io_uring_queue_exit(&ring_);
  }
  UringLoop(const UringLoop&) = delete;
  UringLoop& operator=(const UringLoop&) = delete;

  absl::StatusOr<uint32_t> SetUp() override;
  void Run() override;

 private:
  int CreateRing();
  void Claim();
  void Turn(bool wait);
  void Handle(const io_uring_cqe& completion);
  bool SightIsReady();
  absl::Status AddSight();
  void WatchSight();
  void WatchControl();
  void ObeyControl();
  int Submit(bool wait);
  absl::Status LendRing();
  void DriveMaster();
  void Take(Connection taken);
  void Take(int fd, Lease lease);
  void Redeem(Ticket ticket);
  void CloseWhatIsLeft();
  void OnReceived(uint32_t index, int result, uint32_t flags);
  void OnSent(uint32_t index, int result);
  void Continue(uint32_t index);
  void StartReceive(uint32_t index);
  void EndReceive(uint32_t index);
  void StartSend(uint32_t index);
  void Fail(EchoConnection& connection);
  void HangUp(const EchoConnection& connection, int how);
  void Free(uint32_t index);
  io_uring_sqe* NextRequest();
  bool direct() const { return setup_.handoff == Handoff::kDirect; }
  absl::Status RegisterSlots(uint32_t& capacity);
  void Leave();
  bool serves() const;
  void EndReceivesOfMoving();
  bool PassOn(uint32_t index);

  const WorkerSetup setup_;
  WorkerShared& shared_;
  BufferPool pool_;
  io_uring ring_ = {};
  bool ring_created_ = false;
  bool multishot_ = false;
  bool claim_due_ = false;
  bool ended_ = false;  // as the control says
  bool leaving_ = false;
  uint32_t passed_on_ = 0;  // of those that are to be passed on
  bool quiet_ = false;      // the last turn has waited for nothing
  size_t taken_ = 0;        // connections handed over in this turn
  int sight_ = -1;          // the port's; -1: it has none
  Port port_;
  ConnectionTable connections_;
};

absl::StatusOr<uint32_t> UringLoop::SetUp() {
  if (const int result = CreateRing(); result < 0) {
    return SetUpError("create an io_uring", -result);
  }
  if (const int result = pool_.Register(ring_); result < 0) {
    return SetUpError("register receive buffers", -result);
  }
  WorkerOptions options = {.ring_fd = ring_.ring_fd,
                           .handoff = setup_.handoff,
                           .tag = UserData(Kind::kDoorbell),
                           .capacity = setup_.connections_max};
  if (setup_.hosts) {
    options = {.on_host = true, .capacity = setup_.connections_max};
    if (absl::Status lent = LendRing(); !lent.ok()) return lent;
  }
  if (direct()) {
    if (absl::Status registered = RegisterSlots(options.capacity); !registered.ok()) {
      return registered;
    }
  }
  absl::StatusOr<Port> port = setup_.balancer->AddWorker(options);
  if (!port.ok()) return port.status();
  port_ = *std::move(port);
  if (absl::Status watched = AddSight(); !watched.ok()) return watched;
  const JoinOptions join = {.token = UserData(Kind::kAccepted)};
  for (Source& source : setup_.sources) {
    if (absl::Status joined = source.Join(port_, join); !joined.ok()) return joined;
  }
  WatchControl();
  return port_.worker();
}

// Asks for the quickest kind of ring that the kernel has: completions gathered by this thread alone
// (Linux 6.1), else without interrupting it (5.19).
int UringLoop::CreateRing() {
  constexpr unsigned kAlways = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL;
  constexpr unsigned kBest = kAlways | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  int result = -EINVAL;
  for (const unsigned flags : {kBest, kAlways | IORING_SETUP_COOP_TASKRUN}) {
    io_uring_params params = {};
    params.flags = flags;
    params.cq_entries = kCompletionEntries;
    result = io_uring_queue_init_params(kSubmissionEntries, &ring_, &params);
    if (result == -EINVAL) continue;
    ring_created_ = result == 0;
    // Multishot receive came with Linux 6.0: a kernel that knows the flags of 6.1 has it.
    multishot_ = setup_.multishot && flags == kBest;
    break;
  }
  return result;
}

// Its connections are never more than its slots. liburing raises the limit of descriptors, if need
// be and it may.
absl::Status UringLoop::RegisterSlots(uint32_t& capacity) {
  capacity = std::min(capacity, kSlotsMax);
  const int result = io_uring_register_files_sparse(&ring_, capacity);
  return result < 0 ? SetUpError("register a file table", -result) : absl::OkStatus();
}

void UringLoop::Run() {
  if (setup_.hosts) DriveMaster();
  while (serves()) {
    if (claim_due_ && !ended_) Claim();
    Turn(/*wait=*/!claim_due_ || ended_);
    if (!port_.draining() || ended_) continue;
    connections_.HangUpOnIdle(/*also_new=*/quiet_, [this](const EchoConnection& connection) {
      HangUp(connection, SHUT_RD);
    });
  }
}

// Whoever leaves looks at what is in its ring: it may be a connection that was handed over before.
bool UringLoop::serves() const {
  if (connections_.size() > 0) return true;
  return !ended_ && (!leaving_ || io_uring_cq_ready(&ring_) > 0);
}

void UringLoop::Claim() {
  claim_due_ = port_.Claim([this](Connection taken) { Take(std::move(taken)); },
                           [this](Ticket ticket) { Redeem(std::move(ticket)); }, kClaimsPerTurnMax);
}

// The master's operations travel with this loop's own. Its user_data begin where no Kind does.
absl::Status UringLoop::LendRing() {
  return setup_.balancer->Lend({.ring_fd = ring_.ring_fd,
                                .get_sqe = [this] { return io_uring_get_sqe(&ring_); },
                                .submit = [this] { return io_uring_submit(&ring_); },
                                .user_data_mask = uint64_t{0xff} << 56,
                                .user_data_value = uint64_t{0x80} << 56});
}

// What it offers to this worker is claimed next, without a doorbell.
void UringLoop::DriveMaster() {
  setup_.balancer->RunOnce().IgnoreError();  // fails when it was shut down
  claim_due_ = true;
}

// While it drains it does not wait for longer than kQuietMs: -ETIME says that it was so long.
int UringLoop::Submit(bool wait) {
  if (!wait || !port_.draining()) return io_uring_submit_and_wait(&ring_, wait ? 1 : 0);
  __kernel_timespec patience = {.tv_sec = 0, .tv_nsec = kQuietMs * 1'000'000};
  io_uring_cqe* first = nullptr;
  return io_uring_submit_and_wait_timeout(&ring_, &first, 1, &patience, nullptr);
}

// Submits what has been asked for and handles what has completed, of which there is something when
// it was told to wait.
void UringLoop::Turn(bool wait) {
  if (wait) port_.BeforeWait();
  const int submitted = Submit(wait);
  const bool offered = wait && port_.AfterWait(SightIsReady());
  quiet_ = submitted == -ETIME;
  if (submitted < 0 && submitted != -ETIME && submitted != -EINTR && submitted != -EAGAIN &&
      submitted != -EBUSY) {
    std::fprintf(stderr, "ringmaster-echo: worker %u: its io_uring is unusable: %s\n",
                 port_.worker(), std::strerror(-submitted));
    std::_Exit(1);
  }
  // Short of memory the kernel takes a part only; the rest goes first, or there would be no room.
  if (io_uring_sq_ready(&ring_) > 0) return;
  // New connections do not stand behind what those that are there have sent.
  if (offered && !ended_) Claim();

  std::array<io_uring_cqe*, kCompletionsPerTurnMax> completions;
  const unsigned count =
      io_uring_peek_batch_cqe(&ring_, completions.data(), kCompletionsPerTurnMax);
  bool master_due = false;
  for (unsigned i = 0; i < count; ++i) {
    if (setup_.hosts && setup_.balancer->OnCompletion(*completions[i])) {
      master_due = true;
    } else {
      Handle(*completions[i]);
    }
  }
  io_uring_cq_advance(&ring_, count);
  if (master_due) DriveMaster();
  port_.Took(std::exchange(taken_, 0));
  if (connections_.moving() > 0) EndReceivesOfMoving();
  if (connections_.moving() == 0 && passed_on_ > 0) {
    setup_.on_passed_on(port_.worker(), std::exchange(passed_on_, 0));
  }
}

void UringLoop::Handle(const io_uring_cqe& completion) {
  const auto index = static_cast<uint32_t>(completion.user_data);
  switch (static_cast<Kind>(completion.user_data >> 32)) {
    case Kind::kSight:
      if ((completion.flags & IORING_CQE_F_MORE) == 0) WatchSight();
      [[fallthrough]];
    case Kind::kDoorbell:
      claim_due_ = true;
      break;
    case Kind::kAccepted:
      if (direct()) {
        Take(completion.res, port_.AdoptSlot());
      } else {
        Take(port_.Adopt(completion.res));
      }
      ++taken_;
      break;
    case Kind::kHangUp:
      break;
    case Kind::kClose:
      connections_.FreeClosed(index);
      break;
    case Kind::kControl:
      if ((completion.flags & IORING_CQE_F_MORE) == 0) WatchControl();
      ObeyControl();
      break;
    case Kind::kReceive:
      OnReceived(index, completion.res, completion.flags);
      break;
    case Kind::kSend:
      OnSent(index, completion.res);
      break;
    case Kind::kReceiveEnd:
      // The receive itself completes too, unless it was missed while it was busy: then it is asked
      // again with what it delivers next. Harmless when another connection has the entry by now.
      if (completion.res < 0) connections_[index].receive_ending = false;
      break;
  }
}

// Whether a completion of the sight is among those that the wait has brought.
bool UringLoop::SightIsReady() {
  std::array<io_uring_cqe*, kCompletionsPerTurnMax> completions;
  const unsigned count =
      io_uring_peek_batch_cqe(&ring_, completions.data(), kCompletionsPerTurnMax);
  return std::any_of(completions.begin(), completions.begin() + count,
                     [](const io_uring_cqe* completion) {
                       return completion->user_data == UserData(Kind::kSight);
                     });
}

// For the host there is none, and what is handed over needs none.
absl::Status UringLoop::AddSight() {
  if (setup_.hosts || setup_.handoff != Handoff::kInbox) return absl::OkStatus();
  const absl::StatusOr<int> sight = port_.WatchSight();
  if (!sight.ok()) return sight.status();
  sight_ = *sight;
  WatchSight();
  return absl::OkStatus();
}

void UringLoop::WatchSight() {
  io_uring_sqe* const request = io_uring_get_sqe(&ring_);
  io_uring_prep_poll_multishot(request, sight_, POLLIN);
  request->user_data = UserData(Kind::kSight);
}

void UringLoop::WatchControl() {
  io_uring_sqe* const request = io_uring_get_sqe(&ring_);
  io_uring_prep_poll_multishot(request, setup_.control->fd(), POLLIN);
  request->user_data = UserData(Kind::kControl);
}

void UringLoop::ObeyControl() {
  if (!leaving_ && shared_.leave.load(std::memory_order_relaxed)) Leave();
  // A slot is no descriptor that another worker could have.
  if (shared_.share_out.exchange(false, std::memory_order_relaxed) && !direct()) {
    connections_.PassOnIdle(port_.Surplus());
  }
  if (ended_ || !setup_.control->ended()) return;
  ended_ = true;
  for (uint32_t index = 0; index < connections_.index_end(); ++index) {
    if (connections_[index].fd < 0) continue;
    Fail(connections_[index]);
    Continue(index);
  }
}

// Of a datagram socket there is nothing to accept.
void UringLoop::Redeem(Ticket ticket) {
  if (setup_.datagrams) return EchoDatagrams(ticket, shared_.bytes_echoed);
  if (Connection taken = ticket.Accept(); taken.fd() >= 0) Take(std::move(taken));
}

void UringLoop::Take(Connection taken) {
  const int fd = taken.TakeFd();
  Take(fd, taken.TakeLease());
}

void UringLoop::Take(int fd, Lease lease) {
  const uint32_t index = connections_.Allocate(fd, std::move(lease));
  if (ended_) return Free(index);
  if (leaving_ && !direct()) connections_.PassOn(index);
  Continue(index);
}

// What was handed over and not looked at any more is this worker's to close. Slots end with the
// ring.
void UringLoop::CloseWhatIsLeft() {
  if (direct()) return;
  io_uring_get_events(&ring_);
  for (io_uring_cqe* completion; io_uring_peek_cqe(&ring_, &completion) == 0;
       io_uring_cqe_seen(&ring_, completion)) {
    if (completion->user_data == UserData(Kind::kAccepted)) close(completion->res);
  }
}

void UringLoop::OnReceived(uint32_t index, int result, uint32_t flags) {
  EchoConnection& connection = connections_[index];
  if ((flags & IORING_CQE_F_MORE) == 0) {
    connection.receiving = false;
    connection.receive_ending = false;
  }
  if ((flags & IORING_CQE_F_BUFFER) != 0) {
    const auto buffer = static_cast<uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT);
    if (result > 0 && !connection.failed) {
      const char* const data = pool_.data(buffer);
      connection.following.insert(connection.following.end(), data, data + result);
      connection.NoteReceived(data, static_cast<size_t>(result));
    }
    pool_.Return(buffer);
  }
  switch (result) {
    case 0:
      connection.end_of_stream = true;
      break;
    case -ENOBUFS:    // Every buffer is back before the next receive is submitted.
    case -ECANCELED:  // As asked.
    case -EAGAIN:
    case -EINTR:
      break;
    default:
      if (result < 0) Fail(connection);
      break;
  }
  Continue(index);
}

void UringLoop::OnSent(uint32_t index, int result) {
  EchoConnection& connection = connections_[index];
  connection.sending = false;
  if (result > 0) {
    connection.sent += static_cast<size_t>(result);
    shared_.bytes_echoed.fetch_add(static_cast<uint64_t>(result), std::memory_order_relaxed);
    if (connection.sent == connection.outgoing.size()) {
      EmptyAndTrim(connection.outgoing);
      connection.sent = 0;
    }
  } else if (result != -EAGAIN && result != -EINTR) {
    Fail(connection);
  }
  Continue(index);
}

// Starts whatever the connection can do now, after anything that may have changed that.
void UringLoop::Continue(uint32_t index) {
  EchoConnection& connection = connections_[index];
  if (connection.failed) {
    if (!connection.receiving && !connection.sending) Free(index);
    return;
  }
  if (connection.moving && connection.idle() && !connection.receiving && PassOn(index)) return;
  if (!connection.sending && connection.unsent() > 0) StartSend(index);
  if (connection.end_of_stream) {
    if (connection.unsent() == 0) Free(index);
  } else if (!connection.receiving) {
    if (connection.unsent() <= kUnsentBytesMax / 2) StartReceive(index);
  } else if (connection.unsent() > kUnsentBytesMax && !connection.receive_ending) {
    EndReceive(index);
  }
}

void UringLoop::StartReceive(uint32_t index) {
  EchoConnection& connection = connections_[index];
  io_uring_sqe* const request = io_uring_get_sqe(&ring_);
  if (multishot_) {
    io_uring_prep_recv_multishot(request, connection.fd, nullptr, 0, 0);
  } else {
    io_uring_prep_recv(request, connection.fd, nullptr, kBufferBytes, 0);
  }
  request->flags |= IOSQE_BUFFER_SELECT | (direct() ? IOSQE_FIXED_FILE : 0u);
  request->buf_group = kBufferGroup;
  request->user_data = UserData(Kind::kReceive, index);
  connection.receiving = true;
}

void UringLoop::EndReceive(uint32_t index) {
  io_uring_sqe* const request = io_uring_get_sqe(&ring_);
  io_uring_prep_cancel64(request, UserData(Kind::kReceive, index), 0);
  request->user_data = UserData(Kind::kReceiveEnd, index);
  connections_[index].receive_ending = true;
}

void UringLoop::StartSend(uint32_t index) {
  EchoConnection& connection = connections_[index];
  if (connection.outgoing.empty()) connection.outgoing.swap(connection.following);
  io_uring_sqe* const request = io_uring_get_sqe(&ring_);
  io_uring_prep_send(request, connection.fd, connection.outgoing.data() + connection.sent,
                     connection.outgoing.size() - connection.sent, MSG_NOSIGNAL);
  if (direct()) request->flags |= IOSQE_FIXED_FILE;
  request->user_data = UserData(Kind::kSend, index);
  connection.sending = true;
}

// Ends the connection without further ado. What is in flight completes because of the shutdown.
void UringLoop::Fail(EchoConnection& connection) {
  if (std::exchange(connection.failed, true)) return;
  HangUp(connection, SHUT_RDWR);
}

void UringLoop::HangUp(const EchoConnection& connection, int how) {
  if (!direct()) {
    shutdown(connection.fd, how);
    return;
  }
  io_uring_sqe* const request = NextRequest();
  io_uring_prep_shutdown(request, connection.fd, how);
  request->flags |= IOSQE_FIXED_FILE;
  request->user_data = UserData(Kind::kHangUp);
}

// Nothing of it is in flight. A slot is closed by a request, and its entry is free after that.
void UringLoop::Free(uint32_t index) {
  if (!direct()) return connections_.Free(index);
  EchoConnection& connection = connections_[index];
  connection.failed = true;
  if (std::exchange(connection.closing, true)) return;
  io_uring_sqe* const request = NextRequest();
  io_uring_prep_close_direct(request, static_cast<unsigned>(connection.fd));
  request->user_data = UserData(Kind::kClose, index);
}

// For requests that a turn may ask for beside those that it has room for: when it hangs up on many.
io_uring_sqe* UringLoop::NextRequest() {
  io_uring_sqe* request = io_uring_get_sqe(&ring_);
  for (; request == nullptr; request = io_uring_get_sqe(&ring_)) io_uring_submit(&ring_);
  return request;
}

// Nothing new comes from now on. What was handed over before is in the ring, and goes on with the
// others.
void UringLoop::Leave() {
  leaving_ = true;
  for (Source& source : setup_.sources) source.Leave(port_).IgnoreError();  // it may have ended
  io_uring_get_events(&ring_);
  for (uint32_t index = 0; !direct() && index < connections_.index_end(); ++index) {
    if (connections_[index].fd >= 0) connections_.PassOn(index);
  }
}

// Of those that are idle; some, because the submission queue has room for so many. They are passed
// on when their receives have completed. So what a receive has brought meanwhile is answered first.
void UringLoop::EndReceivesOfMoving() {
  uint32_t left = kReceivesEndedPerTurnMax;
  for (uint32_t index = 0; index < connections_.index_end() && left > 0; ++index) {
    const EchoConnection& connection = connections_[index];
    if (connection.fd < 0 || !connection.moving || !connection.idle()) continue;
    if (!connection.receiving || connection.receive_ending) continue;
    EndReceive(index);
    --left;
  }
}

// Everything that was read has been answered, nothing is in flight, and what has not been read
// travels with the socket. False: it cannot be passed on, and goes on here.
bool UringLoop::PassOn(uint32_t index) {
  EchoConnection& connection = connections_[index];
  if (!SourceFor(setup_, connection.fd).PassOn(connection.fd, std::move(connection.lease)).ok()) {
    connections_.KeepAll();
    return false;
  }
  connections_.Forget(index);
  ++passed_on_;
  return true;
}

}  // namespace

std::unique_ptr<Loop> MakeUringLoop(const WorkerSetup& setup, WorkerShared& shared) {
  return std::make_unique<UringLoop>(setup, shared);
}

}  // namespace ringmaster::echo
