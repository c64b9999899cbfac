#include "bench/mechanisms/uring_worker.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "bench/mechanisms/submission.h"

namespace ringmaster::bench {
namespace {

constexpr uint32_t kSubmissionEntries = 256;
constexpr uint32_t kCompletionEntries = 4096;

absl::Status MakeRing(io_uring& ring) {
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_CQSIZE;
  params.cq_entries = kCompletionEntries;
  const int result = io_uring_queue_init_params(kSubmissionEntries, &ring, &params);
  if (result == 0) return absl::OkStatus();
  const char* const name = strerrorname_np(-result);
  if (result == -EPERM || result == -ENOSYS) {
    return absl::UnavailableError(absl::StrCat(
        "io_uring_setup answers ", name,
        ": io_uring is switched off here, by the sysctl kernel.io_uring_disabled or by the seccomp "
        "profile of a container"));
  }
  return absl::UnavailableError(absl::StrCat(
      "io_uring_setup answers ", name,
      " for a worker's ring with SINGLE_ISSUER and DEFER_TASKRUN (Linux 6.1). If the kernel is new "
      "enough, raise the limit of locked memory (ulimit -l) or of descriptors (ulimit -n)"));
}

}  // namespace

UringWorker::UringWorker(const ServerOptions& options, uint32_t index, ConnectionsAre connections)
    : index_(index), serving_(options, index) {
  if (connections == ConnectionsAre::kDescriptors) return;
  const bool leased = connections == ConnectionsAre::kLeasedSlots;
  slots_ = std::make_unique<SlotService>(serving_, ring_, /*waits_for_close=*/leased);
}

void UringWorker::Run(int stop_fd, std::promise<absl::Status> ready) {
  NameWorkerThread(index_);
  // The ring is made by the thread that uses it, as DEFER_TASKRUN asks.
  absl::Status status = MakeRing(ring_);
  if (!status.ok()) return ready.set_value(std::move(status));
  if (slots_) status = SlotService::MakeTable(ring_);
  if (!status.ok()) {
    io_uring_queue_exit(&ring_);
    return ready.set_value(std::move(status));
  }
  status = Begin();
  const bool begun = status.ok();
  if (begun) Watch(stop_fd, kStop);
  // What has been prepared so far waits at the kernel before anybody connects.
  io_uring_submit(&ring_);
  ready.set_value(std::move(status));
  if (begun) Loop();
  End();
  // Requests on connections end with the ring, so the connections go last.
  io_uring_queue_exit(&ring_);
  for (size_t fd = 0; fd < open_.size(); ++fd) {
    if (open_[fd]) Close(static_cast<int>(fd));
  }
  serving_.OnEnd();
}

void UringWorker::Loop() {
  bool stop = false;
  bool more = false;
  while (!Ended(stop)) {
    // Submits what is new and waits, in one call. A negative result is EINTR or passes as soon as
    // completions are taken.
    if (more || (slots_ && slots_->closing())) {
      serving_.call(io_uring_submit_and_get_events, &ring_);
    } else {
      BeforeWait();
      serving_.call(io_uring_submit_and_wait, &ring_, 1u);
      serving_.OnWake();
      AfterWait();
    }
    io_uring_cqe* completions[kEventsPerTurnMax];
    const unsigned count = io_uring_peek_batch_cqe(&ring_, completions, kEventsPerTurnMax);
    std::array<int, kEventsPerTurnMax> ready;  // connections
    size_t ready_end = 0;
    for (unsigned i = 0; i < count && !slots_; ++i) {
      if (const uint64_t data = completions[i]->user_data; data < kStop) {
        ready[ready_end++] = static_cast<int>(data);
      }
    }
    size_t ready_begin = 0;
    bool served = false;  // a slot
    for (unsigned i = 0; i < count; ++i) {
      const uint64_t data = completions[i]->user_data;
      if (data == kStop) {
        stop = true;
      } else if (data >= kOwn) {
        OnCompletion(*completions[i]);
      } else if (slots_) {
        if (std::exchange(served, true)) BetweenRequests();
        OnSlotCompletion(*completions[i]);
      } else if (ready_begin < ready_end) {  // otherwise it was passed on
        ready_end -= PassOnSome(std::span(ready).subspan(ready_begin, ready_end - ready_begin));
        if (ready_begin > 0) BetweenRequests();
        const int fd = ready[ready_begin++];
        if (serving_.OnReadable(fd) == Serving::Next::kClose) {
          Close(fd);
        } else {
          Watch(fd, data);
        }
      }
    }
    io_uring_cq_advance(&ring_, count);
    more = OnTurnEnd();
    serving_.OnTurnEnd();
    if (!left_ && serving_.leaves()) {
      left_ = true;
      Leave();
    }
  }
}

// Descriptors can be closed when the ring is gone. Slots have requests under way, into memory, so
// they are closed before, and nothing new must come meanwhile.
bool UringWorker::Ended(bool stop) {
  if (!stop || !slots_) return stop;
  if (!std::exchange(left_, true)) Leave();
  slots_->End();
  return slots_->empty();
}

void UringWorker::OnSlotCompletion(const io_uring_cqe& completion) {
  if (const int slot = slots_->OnCompletion(completion); slot >= 0) OnClosed(slot);
}

// Of those that are ready the last ones. Their polls are one-shot and over, so nothing is under way
// with them. Returns how many somebody else has now.
size_t UringWorker::PassOnSome(std::span<const int> ready) {
  const size_t count = ToPassOn(ready.size());
  for (size_t passed_on = 0; passed_on < count; ++passed_on) {
    const int fd = ready[ready.size() - 1 - passed_on];
    if (!PassOn(fd)) return passed_on;
    open_[static_cast<size_t>(fd)] = false;
    serving_.OnPassedOn();
  }
  return count;
}

int UringWorker::Place(int fd) {
  if (!slots_) return fd;
  const int slot = slots_->Register(fd);
  if (slot < 0) serving_.call(close, fd);
  return slot;
}

void UringWorker::Take(int connection) {
  if (slots_) return slots_->Take(connection);
  serving_.OnTaken();
  const auto place = static_cast<size_t>(connection);
  if (open_.size() <= place) open_.resize(place + 1);
  open_[place] = true;
  if (serving_.OnReadable(connection) == Serving::Next::kClose) return Close(connection);
  Watch(connection, place);
}

void UringWorker::Close(int fd) {
  open_[static_cast<size_t>(fd)] = false;
  serving_.Close(fd);
  OnClosed(fd);
}

void UringWorker::Watch(int fd, uint64_t data) {
  io_uring_sqe* const entry = NextEntry();
  io_uring_prep_poll_add(entry, fd, POLLIN);
  io_uring_sqe_set_data64(entry, data);
}

io_uring_sqe* UringWorker::NextEntry() { return bench::NextEntry(ring_, serving_.call); }

std::string WhyNoWorkerRings() {
  io_uring ring{};
  const absl::Status status = MakeRing(ring);
  if (status.ok()) io_uring_queue_exit(&ring);
  return std::string(status.message());
}

std::string WhyNoWorkerTables(const std::function<absl::Status(const io_uring& ring)>& also) {
  io_uring ring{};
  absl::Status status = MakeRing(ring);
  if (!status.ok()) return std::string(status.message());
  status = SlotService::MakeTable(ring);
  if (status.ok() && also) status = also(ring);
  io_uring_queue_exit(&ring);
  return std::string(status.message());
}

absl::Status UringServer::Start(std::vector<std::unique_ptr<UringWorker>> workers) {
  if (absl::Status status = MakeStopFd(); !status.ok()) return status;
  workers_ = std::move(workers);
  for (const auto& worker : workers_) {
    std::promise<absl::Status> ready;
    std::future<absl::Status> begun = ready.get_future();
    threads().emplace_back(&UringWorker::Run, worker.get(), stop_fd(), std::move(ready));
    if (absl::Status status = begun.get(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void UringServer::Stop() {
  StopThreads();
  workers_.clear();
}

}  // namespace ringmaster::bench
