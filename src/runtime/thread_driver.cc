#include "runtime/thread_driver.h"

#include <sched.h>
#include <signal.h>
#include <time.h>

#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ring/errors.h"
#include "runtime/refusals.h"
#include "runtime/thread_watch.h"

namespace ringmaster::internal {
namespace {

// How often the thread's CPU time is read, which is a system call.
constexpr int64_t kTurnsToMeasure = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<Driver>> ThreadDriver::Create(const MasterEnvironment& environment,
                                                             uint32_t index) {
  absl::StatusOr<std::unique_ptr<ring::UringRing>> ring = MakeRing(environment, /*pollable=*/false);
  if (!ring.ok()) return ring.status();
  return std::unique_ptr<Driver>(new ThreadDriver(environment, index, *std::move(ring)));
}

ThreadDriver::ThreadDriver(const MasterEnvironment& environment, uint32_t index,
                           std::unique_ptr<ring::UringRing> ring)
    : Driver(environment, index, SizeOf(*ring)), index_(index), ring_(std::move(ring)) {
  turns_.UseRing(ring_.get());
}

absl::Status ThreadDriver::Start() {
  const BalancerOptions& options = environment_.options;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (options.cpu >= 0) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<size_t>(options.cpu), &cpus);
    pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
  }
  const auto run = [](void* self) -> void* {
    static_cast<ThreadDriver*>(self)->Drive();
    return nullptr;
  };
  // The program's signals are for its own threads to take.
  sigset_t all;
  sigfillset(&all);
  pthread_attr_setsigmask_np(&attributes, &all);
  const int error = pthread_create(&handle_, &attributes, run, this);
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    return ring::ErrorStatus(error == EINVAL && options.cpu >= 0 ? ring::Operation::kBindThread
                                                                 : ring::Operation::kStartThread,
                             error);
  }
  const std::string number = options.masters > 1 ? absl::StrCat("-", index_) : "";
  pthread_setname_np(handle_, absl::StrCat(options.thread_name, number).c_str());
  // The first call returns when the thread drives its ring, or with the reason why it cannot.
  const auto nothing = [] { return absl::OkStatus(); };
  Call first{.run = nothing};
  absl::Status started = Run(first);
  if (!started.ok()) WaitForEnd();
  return started;
}

void ThreadDriver::Drive() {
  thread_ = ThisThread();
  if (const int result = ring_->Enable(); result < 0) {
    return End(ring::ErrorStatus(ring::Operation::kEnableRing, -result));
  }
  turns_.Begin();
  for (int64_t turns = 1; Step(turns_.NextWait()); ++turns) {
    if (turns % kTurnsToMeasure == 0) MeasureTurns();
  }
}

// The thread spends all its time on turns, so its CPU time tells what a turn costs.
void ThreadDriver::MeasureTurns() {
  timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return;
  const int64_t cpu_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  turns_.engine().SetTurnCost((cpu_ns - std::exchange(cpu_ns_, cpu_ns)) / kTurnsToMeasure);
}

absl::Status ThreadDriver::Run(Call& call) {
  if (OnThisThread()) return CalledFromCallback();
  std::unique_lock lock(turns_.lock().mutex);
  return turns_.end().ended() ? turns_.end().why() : Queue(lock, call);
}

void ThreadDriver::BeginShutdown(int64_t until_ns) {
  {
    const std::lock_guard lock(turns_.lock().mutex);
    if (turns_.end().ended()) return;
    turns_.end().Ask(until_ns);
  }
  turns_.shared().Knock();
}

void ThreadDriver::WaitForEnd() {
  std::unique_lock lock(turns_.lock().mutex);
  turns_.lock().changed.wait(lock, [this] { return turns_.end().ended(); });
  // Once it has ended, the thread takes no lock any more.
  if (!std::exchange(joined_, true)) pthread_join(handle_, nullptr);
}

}  // namespace ringmaster::internal
