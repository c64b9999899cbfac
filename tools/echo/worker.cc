#include "worker.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <future>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "loop.h"

namespace ringmaster::echo {

absl::Status SetUpError(const char* what, int error) {
  std::string text = absl::StrCat("cannot ", what, " for a worker: ", std::strerror(error));
  switch (error) {
    case EMFILE:
      absl::StrAppend(&text, "; raise the limit of descriptors: ulimit -n 65536");
      break;
    case ENOMEM:
      absl::StrAppend(&text, "; raise the limit of locked memory (ulimit -l unlimited), ",
                      "or take fewer --workers");
      break;
    case EINVAL:
    case ENOSYS:
      absl::StrAppend(&text, "; this kernel is too old, Linux 6.1 or later is needed");
      break;
    default:
      break;
  }
  return absl::FailedPreconditionError(text);
}

absl::StatusOr<std::unique_ptr<Control>> Control::Create() {
  const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (fd < 0) return SetUpError("create an eventfd", errno);
  return std::unique_ptr<Control>(new Control(fd));
}

Control::~Control() { close(fd_); }

void Control::Wake() {
  // The counter would have to be written 2^64 times before this could fail.
  eventfd_write(fd_, 1);
}

void Control::End() {
  ended_.store(true, std::memory_order_release);
  Wake();
}

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(const WorkerSetup& setup) {
  std::unique_ptr<Worker> worker(new Worker);
  std::promise<absl::StatusOr<uint32_t>> started;
  std::future<absl::StatusOr<uint32_t>> index = started.get_future();
  try {
    worker->thread_ = std::thread([setup, &started, &shared = worker->shared_] {
      std::unique_ptr<Loop> loop = setup.loop == LoopKind::kUring ? MakeUringLoop(setup, shared)
                                                                  : MakeEpollLoop(setup, shared);
      const absl::StatusOr<uint32_t> joined = loop->SetUp();
      started.set_value(joined);
      if (!joined.ok()) return;
      loop->Run();
      loop.reset();
      if (shared.leave.load(std::memory_order_relaxed)) setup.on_left(*joined);
    });
  } catch (const std::system_error& error) {
    return SetUpError("start a thread", error.code().value());
  }
  absl::StatusOr<uint32_t> joined = index.get();
  if (!joined.ok()) return joined.status();
  worker->index_ = *joined;
  return worker;
}

Worker::~Worker() { Wait(); }

void Worker::Wait() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace ringmaster::echo
