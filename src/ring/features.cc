#include "ring/features.h"

#include <liburing.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "ring/errors.h"

namespace ringmaster::ring {
namespace {

constexpr unsigned kTrialEntries = 8;

// Every trial answers at once, by succeeding or by failing. The limit is for a kernel that does
// neither.
constexpr int64_t kTrialWaitNsMax = 100'000'000;

// How many opcodes are asked about; the last that is used is IORING_OP_MSG_RING, 40.
constexpr unsigned kOpcodesAsked = 64;

// The trials, by the user_data of their completions.
enum Trial : uint64_t { kTrialPoll, kTrialDontWait, kTrialMessage, kTrialAcceptEach, kTrials };

// What a message of the trial carries, to see that it arrives whole.
constexpr int32_t kTrialPayload = 77;

class ScopedFd {
 public:
  explicit ScopedFd(int fd) : fd_(fd) {}
  ScopedFd(const ScopedFd&) = delete;
  ScopedFd& operator=(const ScopedFd&) = delete;
  ~ScopedFd() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }

 private:
  int fd_;
};

// The ring on which things are tried, with the best set-up flags that the kernel takes.
class TrialRing {
 public:
  TrialRing() = default;
  TrialRing(const TrialRing&) = delete;
  TrialRing& operator=(const TrialRing&) = delete;
  ~TrialRing() {
    if (open_) io_uring_queue_exit(&ring_);
  }

  // Returns 0 or a positive errno.
  int Open(Features& features) {
    struct Rung {
      unsigned flags;
      bool submit_all, coop_taskrun, single_issuer, defer_taskrun;
    };
    // In the order of their appearance, the latest first: a kernel that has one has those below.
    // DEFER_TASKRUN excludes COOP_TASKRUN, though not the kernel's knowledge of it.
    constexpr unsigned kSingle = IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER;
    constexpr unsigned kCoop = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    constexpr std::array<Rung, 5> kLadder = {{
        {kSingle | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, true, true, true, true},
        {kSingle | kCoop, true, true, true, false},
        {IORING_SETUP_SUBMIT_ALL | kCoop, true, true, false, false},
        {IORING_SETUP_SUBMIT_ALL, true, false, false, false},
        {0, false, false, false, false},
    }};
    int error = EINVAL;
    for (const Rung& rung : kLadder) {
      io_uring_params params{};
      params.flags = rung.flags;
      error = -io_uring_queue_init_params(kTrialEntries, &ring_, &params);
      if (error == EINVAL) continue;
      if (error != 0) return error;
      open_ = true;
      features.submit_all = rung.submit_all;
      features.coop_taskrun = rung.coop_taskrun;
      features.single_issuer = rung.single_issuer;
      features.defer_taskrun = rung.defer_taskrun;
      features.min_wait = (params.features & kFeatureMinWait) != 0;
      return 0;
    }
    return error;
  }

  // Returns 0 or a positive errno.
  int AskOpcodes(Features& features) {
    alignas(io_uring_probe)
        std::array<std::byte, sizeof(io_uring_probe) + kOpcodesAsked * sizeof(io_uring_probe_op)>
            memory{};
    auto* probe = reinterpret_cast<io_uring_probe*>(memory.data());
    if (const int result = io_uring_register_probe(&ring_, probe, kOpcodesAsked); result < 0) {
      return -result;
    }
    const auto knows = [probe](int op) { return io_uring_opcode_supported(probe, op) != 0; };
    features.accept = knows(IORING_OP_ACCEPT);
    features.cancel =
        knows(IORING_OP_ASYNC_CANCEL) && knows(IORING_OP_POLL_ADD) && knows(IORING_OP_CLOSE);
    features.msg_ring = knows(IORING_OP_MSG_RING);
    return 0;
  }

  int fd() const { return ring_.ring_fd; }

  io_uring_sqe* Next(Trial trial) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    std::memset(sqe, 0, sizeof(*sqe));
    sqe->user_data = trial;
    return sqe;
  }

  // Submits what is prepared and keeps the first answer to each trial, until `trial` is answered.
  // False when it is not answered in time.
  bool Try(Trial trial) {
    io_uring_submit_and_get_events(&ring_);
    __kernel_timespec timeout{.tv_sec = 0, .tv_nsec = kTrialWaitNsMax};
    io_uring_cqe* cqe = nullptr;
    while (!answers_[trial].seen) {
      if (io_uring_wait_cqe_timeout(&ring_, &cqe, &timeout) != 0) return false;
      if (cqe->user_data < kTrials && !answers_[cqe->user_data].seen) {
        answers_[cqe->user_data] = {true, cqe->res, (cqe->flags & IORING_CQE_F_MORE) != 0};
      }
      io_uring_cqe_seen(&ring_, cqe);
    }
    return true;
  }

  int32_t result(Trial trial) const { return answers_[trial].result; }
  bool more(Trial trial) const { return answers_[trial].more; }

 private:
  struct Answer {
    bool seen = false;
    int32_t result = 0;
    bool more = false;
  };

  io_uring ring_{};
  bool open_ = false;
  std::array<Answer, kTrials> answers_{};
};

// Binds to a name that the kernel invents, so that nothing appears in the file system.
bool ListenOn(int fd, sockaddr_un* address, socklen_t* length) {
  address->sun_family = AF_UNIX;
  *length = sizeof(*address);
  auto* generic = reinterpret_cast<sockaddr*>(address);
  return bind(fd, generic, sizeof(sa_family_t)) == 0 && listen(fd, 1) == 0 &&
         getsockname(fd, generic, length) == 0;
}

absl::Status TryOperations(TrialRing& ring, Features& features) {
  ScopedFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ScopedFd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  socklen_t length = 0;
  if (listener.get() < 0 || client.get() < 0 || !ListenOn(listener.get(), &address, &length)) {
    return ErrorStatus(Operation::kMakeDescriptor, errno);
  }

  // Nothing to accept yet.
  if (features.accept) {
    io_uring_sqe* sqe = ring.Next(kTrialDontWait);
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->fd = listener.get();
    sqe->ioprio = kAcceptDontWait;
    features.accept_dontwait = ring.Try(kTrialDontWait) && ring.result(kTrialDontWait) == -EAGAIN;
  }

  // To itself; success of the sending is not to be reported.
  if (features.msg_ring) {
    io_uring_sqe* sqe = ring.Next(kTrialMessage);
    sqe->opcode = IORING_OP_MSG_RING;
    sqe->flags = IOSQE_CQE_SKIP_SUCCESS;
    sqe->fd = ring.fd();
    sqe->len = kTrialPayload;
    sqe->off = kTrialMessage;
    features.msg_ring = ring.Try(kTrialMessage) && ring.result(kTrialMessage) == kTrialPayload;
  }

  // Something to accept, for the two that remain.
  if (connect(client.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) {
    return ErrorStatus(Operation::kMakeDescriptor, errno);
  }
  if (features.cancel) {
    io_uring_sqe* sqe = ring.Next(kTrialPoll);
    io_uring_prep_poll_multishot(sqe, listener.get(), POLLIN);
    sqe->user_data = kTrialPoll;
    features.multishot_poll = ring.Try(kTrialPoll) && ring.more(kTrialPoll);
  }
  if (features.accept) {
    io_uring_sqe* sqe = ring.Next(kTrialAcceptEach);
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->fd = listener.get();
    sqe->ioprio = IORING_ACCEPT_MULTISHOT;
    sqe->accept_flags = SOCK_CLOEXEC;
    features.multishot_accept = ring.Try(kTrialAcceptEach) && ring.more(kTrialAcceptEach);
    const int accepted = ring.result(kTrialAcceptEach);
    if (accepted > 0) close(accepted);
    // Otherwise the answer says nothing about the feature.
    if (accepted == -EMFILE || accepted == -ENFILE) {
      return ErrorStatus(Operation::kMakeDescriptor, -accepted);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Features> ProbeFeatures() {
  Features features;
  TrialRing ring;
  if (const int error = ring.Open(features); error != 0) {
    return ErrorStatus(Operation::kCreateRing, error);
  }
  if (const int error = ring.AskOpcodes(features); error != 0) {
    return ErrorStatus(Operation::kCreateRing, error);
  }
  if (absl::Status status = TryOperations(ring, features); !status.ok()) return status;
  timespec tick{};
  clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
  features.tick_ns = tick.tv_nsec;
  utsname system{};
  uname(&system);
  if (absl::Status status = CheckFeatures(features, system.release); !status.ok()) return status;
  return features;
}

absl::Status CheckFeatures(const Features& features, const std::string& kernel_release) {
  struct Need {
    bool there;
    const char* what;
  };
  const std::array<Need, 4> needs = {{
      {features.accept, "accept (IORING_OP_ACCEPT, since Linux 5.5)"},
      {features.cancel, "cancelling and closing (IORING_OP_CLOSE, since Linux 5.6)"},
      {features.multishot_poll, "multishot poll (IORING_POLL_ADD_MULTI, since Linux 5.13)"},
      {features.msg_ring, "messages between rings (IORING_OP_MSG_RING, since Linux 5.18)"},
  }};
  std::string missing;
  for (const Need& need : needs) {
    if (!need.there) absl::StrAppend(&missing, missing.empty() ? "" : ", ", need.what);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("the io_uring of this kernel (", kernel_release, ") lacks ", missing,
                   ". Run Linux 6.1 or later; 6.12 or later is recommended"));
}

}  // namespace ringmaster::ring
