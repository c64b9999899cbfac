#include "ring/installing.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/op.h"
#include "ring/errors.h"
#include "ring/translate.h"

namespace ringmaster::ring {
namespace {

constexpr unsigned kEntries = 4;
constexpr int64_t kAnswerNsMax = 100'000'000;  // for a kernel that never answers
constexpr uint64_t kTag = 7;

// A ring with a file table of one slot.
class TrialRing {
 public:
  TrialRing() = default;
  TrialRing(const TrialRing&) = delete;
  TrialRing& operator=(const TrialRing&) = delete;
  ~TrialRing() {
    if (open_) io_uring_queue_exit(&ring_);
  }

  absl::Status Open() {
    if (const int result = io_uring_queue_init(kEntries, &ring_, 0); result < 0) {
      return ErrorStatus(Operation::kCreateRing, -result);
    }
    open_ = true;
    io_uring_rsrc_register table{};
    table.nr = 1;
    table.flags = IORING_RSRC_REGISTER_SPARSE;
    has_table_ =
        io_uring_register(ring_.ring_fd, IORING_REGISTER_FILES2, &table, sizeof(table)) == 0;
    return absl::OkStatus();
  }
  bool has_table() const { return has_table_; }
  io_uring* get() { return &ring_; }

  // The next completion; false: there is none in time.
  bool Next(io_uring_cqe& completion) {
    __kernel_timespec timeout{.tv_sec = 0, .tv_nsec = kAnswerNsMax};
    io_uring_cqe* cqe = nullptr;
    if (io_uring_wait_cqe_timeout(&ring_, &cqe, &timeout) != 0) return false;
    completion = *cqe;
    io_uring_cqe_seen(&ring_, cqe);
    return true;
  }

 private:
  io_uring ring_{};
  bool open_ = false;
  bool has_table_ = false;
};

// What the kernel answers when `fd` is to be installed in `target` from `source`.
int32_t Install(TrialRing& source, TrialRing& target, int32_t fd) {
  const core::Op op{.key = {.kind = core::OpKind::kInstall},
                    .fd = target.get()->ring_fd,
                    .tag = kTag,
                    .sent = fd,
                    .slot = 0};
  PrepareSlot(op, &fd, {}, io_uring_get_sqe(source.get()));
  Prepare(op, {}, io_uring_get_sqe(source.get()));
  io_uring_submit(source.get());
  io_uring_cqe answer{};
  while (source.Next(answer)) {
    if (answer.user_data == Encode(op.key)) return answer.res;
  }
  return -ETIME;
}

}  // namespace

// The second one does not fit. A kernel that takes it has put it somewhere else than was asked for.
absl::Status TryInstalling() {
  TrialRing source;
  TrialRing target;
  if (absl::Status status = source.Open(); !status.ok()) return status;
  if (absl::Status status = target.Open(); !status.ok()) return status;
  const int fd = eventfd(0, EFD_CLOEXEC);
  if (fd < 0) return ErrorStatus(Operation::kMakeDescriptor, errno);
  io_uring_cqe told{};
  const bool works = source.has_table() && target.has_table() && Install(source, target, fd) == 0 &&
                     target.Next(told) && told.user_data == kTag && told.res == 0 &&
                     Install(source, target, fd) == -core::kNoSlot;
  close(fd);
  if (works) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrCat(
      KernelText(ReadErrorFacts()),
      " cannot install descriptors in the file table of another ring (IORING_MSG_SEND_FD with "
      "IORING_FILE_INDEX_ALLOC), or the limit of descriptors allows no file table. Run a later "
      "kernel, raise RLIMIT_NOFILE, or use Handoff::kCompletion"));
}

absl::Status CheckTable(int ring_fd) {
  std::ifstream facts(absl::StrCat("/proc/self/fdinfo/", ring_fd));
  for (std::string line; std::getline(facts, line);) {
    if (!absl::StartsWith(line, "UserFiles:")) continue;
    if (!absl::EndsWith(line, "\t0")) break;
    return absl::FailedPreconditionError(
        absl::StrCat("the ring of the worker, descriptor ", ring_fd,
                     ", has no file table, so with Handoff::kDirect there is no place for its "
                     "connections: register one first, for instance with "
                     "io_uring_register_files_sparse"));
  }
  return absl::OkStatus();
}

}  // namespace ringmaster::ring
