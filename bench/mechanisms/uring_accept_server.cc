#include "bench/mechanisms/uring_accept_server.h"

#include <liburing.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "bench/mechanisms/uring_worker.h"

namespace ringmaster::bench {
namespace {

class AcceptWorker : public UringWorker {
 public:
  AcceptWorker(const ServerOptions& options, uint32_t index, AcceptKind kind,
               ConnectionsAre connections)
      : UringWorker(options, index, connections),
        listen_fd_(options.listen_fd),
        kind_(kind),
        slots_(connections != ConnectionsAre::kDescriptors) {}

 private:
  static constexpr uint64_t kAccept = kOwn;
  static constexpr uint64_t kCancel = kOwn + 1;
  static constexpr uint64_t kPauseOver = kOwn + 2;

  absl::Status Begin() override {
    Arm();
    return absl::OkStatus();
  }

  void OnCompletion(const io_uring_cqe& completion) override {
    if (completion.user_data == kPauseOver) {
      timed_ = false;
      paused_ = false;
    }
    if (completion.user_data != kAccept) return;
    // A multishot accept ends on every error, and when the completion queue is full.
    if ((completion.flags & IORING_CQE_F_MORE) == 0) armed_ = false;
    serving().OnArrival();
    if (completion.res >= 0) return Take(completion.res);
    if (MeansShortage(-completion.res)) Pause();
    if (completion.res == -ECANCELED) TakeWhatWasMeantForIt();
  }

  bool OnTurnEnd() override {
    const bool may_take = !left_ && !paused_ && !serving().full();
    if (may_take && !armed_) Arm();
    if (!may_take && armed_ && !cancelled_) Cancel();
    return false;
  }

  void Leave() override {
    left_ = true;
    if (armed_ && !cancelled_) Cancel();
  }

  void OnClosed(int) override { paused_ = false; }

  void Arm() {
    armed_ = true;
    cancelled_ = false;
    io_uring_sqe* const entry = NextEntry();
    // A slot is not inherited, and the kernel refuses to be asked that it is not.
    const int flags = SOCK_NONBLOCK | (slots_ ? 0 : SOCK_CLOEXEC);
    if (kind_ == AcceptKind::kMultishot) {
      io_uring_prep_multishot_accept(entry, listen_fd_, nullptr, nullptr, flags);
    } else {
      io_uring_prep_accept(entry, listen_fd_, nullptr, nullptr, flags);
    }
    // The kernel chooses which one.
    if (slots_) entry->file_index = IORING_FILE_INDEX_ALLOC;
    io_uring_sqe_set_data64(entry, kAccept);
  }

  // What has been accepted until it takes effect comes nevertheless.
  void Cancel() {
    cancelled_ = true;
    io_uring_sqe* const entry = NextEntry();
    io_uring_prep_cancel64(entry, kAccept, 0);
    io_uring_sqe_set_data64(entry, kCancel);
  }

  // An arrival may have woken the accept just before it was cancelled, and then it wakes nobody
  // else (mechanism_test: LosesNothingWhenAWorkerLeaves). Several may have, if it was a multishot
  // one; a worker that is merely full takes no more of them than it must.
  void TakeWhatWasMeantForIt() {
    for (int i = 0; i < (left_ ? kTakesPerTurnMax : 1); ++i) {
      const int fd =
          serving().call(accept4, listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      if (const int place = Place(fd); place >= 0) Take(place);
    }
  }

  void Pause() {
    paused_ = true;
    if (timed_) return;
    timed_ = true;
    io_uring_sqe* const entry = NextEntry();
    io_uring_prep_timeout(entry, &pause_, 0, 0);
    io_uring_sqe_set_data64(entry, kPauseOver);
  }

  const int listen_fd_;
  const AcceptKind kind_;
  const bool slots_;  // it accepts into the file table
  __kernel_timespec pause_{.tv_sec = 0, .tv_nsec = kAcceptPauseNs};
  bool armed_ = false;
  bool cancelled_ = false;  // but not gone yet
  bool paused_ = false;     // out of descriptors
  bool timed_ = false;      // the end of a pause is on its way
  bool left_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> StartUringAcceptServer(const ServerOptions& options,
                                                               AcceptKind kind,
                                                               ConnectionsAre connections) {
  std::vector<std::unique_ptr<UringWorker>> workers;
  for (uint32_t i = 0; i < options.workers.size(); ++i) {
    workers.push_back(std::make_unique<AcceptWorker>(options, i, kind, connections));
  }
  auto server = std::make_unique<UringServer>();
  if (absl::Status status = server->Start(std::move(workers)); !status.ok()) return status;
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace ringmaster::bench
