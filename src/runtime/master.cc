#include "runtime/master.h"

#include <sched.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ring/errors.h"
#include "ring/uring_ring.h"
#include "runtime/master_common.h"

namespace ringmaster::internal {
namespace {

constexpr uint32_t kSubmissionEntries = 256;
constexpr uint32_t kCompletionsPerTurnMax = 512;  // what a batch brings at most

}  // namespace

int64_t MonotonicNow() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::Status CalledFromCallback() {
  return absl::FailedPreconditionError(
      "called from the event callback or from a policy: the call would wait for the master, which "
      "waits for that callback. Call from another thread, or when the callback has returned");
}

absl::Status BalancerOfParent() {
  return absl::FailedPreconditionError(
      "this balancer belongs to the process that forked this one: create a balancer after the "
      "fork, and see AfterForkInChild");
}

absl::Status BalancerEnded() {
  return absl::FailedPreconditionError("the balancer was shut down: create another one");
}

absl::StatusOr<std::unique_ptr<Master>> Master::Create(const MasterEnvironment* environment,
                                                       uint32_t index) {
  std::unique_ptr<Master> master(new Master(environment, index));
  const BalancerOptions& options = environment->options;
  // How much room is needed follows from the ring that was made, not from what was asked for. A
  // lent ring keeps back what there is no room for.
  uint32_t completion_entries = options.completion_entries;
  if (!master->rides()) {
    absl::StatusOr<std::unique_ptr<ring::UringRing>> ring = ring::UringRing::Create(
        {.submission_entries = std::min(kSubmissionEntries, options.completion_entries),
         .completion_entries = options.completion_entries,
         .pollable = master->hosted(),
         .restrict = options.restrict_ring,
         .features = environment->features,
         .owner = environment->shared->id()});
    if (!ring.ok()) return ring.status();
    completion_entries = (*ring)->completion_entries();
    master->own_ = ring->get();
    master->ring_ = *std::move(ring);
  }
  master->engine_ = std::make_unique<core::Engine>(
      core::EngineConfig{.recall_after_ns = absl::ToInt64Nanoseconds(options.recall_after),
                         .completion_entries = completion_entries,
                         .completions_max = kCompletionsPerTurnMax,
                         .watch_fd = master->shared_->event_fd(),
                         .topology = &environment->topology,
                         .gate = environment->shared->limit(),
                         .shares_workers = options.masters > 1},
      &master->shared_->hunger());
  master->completions_.reserve(kCompletionsPerTurnMax);
  if (master->hosted()) return master;
  if (absl::Status status = master->StartThread(); !status.ok()) return status;
  return master;
}

Master::Master(const MasterEnvironment* environment, uint32_t index)
    : environment_(*environment),
      options_(environment->options),
      index_(index),
      shared_(&environment->shared->master(index)),
      roster_(index, environment->shared->masters()) {
  if (hosted()) watch_ = std::make_unique<ThreadWatch>([this] { OnHostEnds(); });
}

Master::~Master() {
  watch_.reset();
  if (has_thread_ || (hosted() && engine_ != nullptr)) Close();
}

bool Master::OnMaster() const { return driver_.load(std::memory_order_relaxed) == ThisThread(); }

absl::Status Master::StartThread() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (options_.cpu >= 0) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<size_t>(options_.cpu), &cpus);
    pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
  }
  const auto run = [](void* self) -> void* {
    static_cast<Master*>(self)->Run();
    return nullptr;
  };
  // The program's signals are for its own threads to take.
  sigset_t all;
  sigfillset(&all);
  pthread_attr_setsigmask_np(&attributes, &all);
  const int error = pthread_create(&thread_, &attributes, run, this);
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    return ring::ErrorStatus(error == EINVAL && options_.cpu >= 0 ? ring::Operation::kBindThread
                                                                  : ring::Operation::kStartThread,
                             error);
  }
  has_thread_ = true;
  const std::string number = options_.masters > 1 ? absl::StrCat("-", index_) : "";
  pthread_setname_np(thread_, absl::StrCat(options_.thread_name, number).c_str());
  // The first call returns when the thread drives its ring, or with the reason why it cannot.
  absl::Status started = RunOnMaster([] { return absl::OkStatus(); });
  return started;
}

absl::Status Master::RunOnMaster(absl::FunctionRef<absl::Status()> run,
                                 absl::FunctionRef<bool()>* until) {
  // Before the lock: in a forked child it may be held for ever, in a callback by this thread.
  if (!environment_.shared->ours()) return BalancerOfParent();
  if (IsInside()) return CalledFromCallback();
  if (hosted()) {
    std::unique_lock lock(sync_->mutex);
    if (ended_) return end_status_;
    if (abandoned_) return BalancerEnded();
    // Without a host nothing is under way, so the caller is alone as long as it holds the lock.
    if (driver_ == 0) {
      const Inside within(*this);
      return RefusingExceptions(run);
    }
    if (OnMaster()) {
      lock.unlock();
      return RunOnHost(run, until);
    }
  } else if (OnMaster()) {
    return CalledFromCallback();
  }
  Call call{.run = run, .until = until};
  std::unique_lock lock(sync_->mutex);
  if (ended_) return end_status_;
  calls_.Add(call);
  shared_->Knock();
  sync_->changed.wait(lock, [&] { return call.done; });
  return call.result;
}

thread_local const Master::Inside* Master::Inside::innermost = nullptr;

Master::Inside::Inside(const Master& master)
    : master_(&master), outer_(std::exchange(innermost, this)) {}

Master::Inside::~Inside() { innermost = outer_; }

bool Master::IsInside() const {
  for (const Inside* it = Inside::innermost; it != nullptr; it = it->outer_) {
    if (&it->master_->environment_ == &environment_) return true;
  }
  return false;
}

void Master::Close() {
  if (hosted() && !OnMaster()) {
    bool ended = false;
    {
      std::unique_lock lock(sync_->mutex);
      ended = ended_;
      driver_ = ThisThread();
    }
    // The host has ended, has never come, or drives the master no more. What is under way ends with
    // the ring.
    if (!ended) {
      const Inside within(*this);
      RefuseWithoutRing();
      lent_ = nullptr;
      own_ = nullptr;
      ring_.reset();
      End(BalancerEnded());
    }
  } else {
    BeginShutdown(MonotonicNow());
    FinishShutdown();
  }
  // Nobody drives it any more. The lock is needed, because a port that leaves now looks at the
  // ring.
  const std::unique_lock lock(sync_->mutex);
  lent_ = nullptr;
  own_ = nullptr;
  ring_.reset();
  CloseRings();
}

void Master::BeginShutdown(int64_t until_ns) {
  bool abandoned = false;
  {
    const std::unique_lock lock(sync_->mutex);
    if (ended_ || abandoned_) return;
    end_asked_ns_ = std::min(end_asked_ns_.value_or(until_ns), until_ns);
    abandoned = abandoned_ = hosted() && driver_ == 0;
    if (abandoned) driver_ = ThisThread();
  }
  if (!abandoned) return shared_->Knock();
  // Nobody drives the master, and from now on nobody will.
  const Inside within(*this);
  RefuseWithoutRing();
  End(BalancerEnded());
}

ShutdownReport Master::FinishShutdown() {
  if (hosted() && OnMaster()) {
    ObeyShutdown();
    bool goes_on = !FinalReport().has_value();
    if (rides()) {
      if (goes_on) EndOnLoan();
    } else {
      while (goes_on) goes_on = Step(WaitMax(now_ns_));
    }
  }
  std::unique_lock lock(sync_->mutex);
  sync_->changed.wait(lock, [&] { return ended_; });
  if (has_thread_ && !thread_joined_) {
    thread_joined_ = true;  // once ended_ is seen, the thread takes no lock any more
    pthread_join(thread_, nullptr);
  }
  Redeemers redeemers;
  roster_.AddTo(redeemers);
  ShutdownReport report = report_;
  lock.unlock();
  redeemers.Wait();
  return report;
}

std::optional<ShutdownReport> Master::FinalReport() const {
  const std::unique_lock lock(sync_->mutex);
  return has_report_ ? std::optional(report_) : std::nullopt;
}

BalancerStats Master::Stats() {
  BalancerStats stats;
  if (IsInside()) {
    if (in_event_) {
      FillStats(stats);  // between two batches, as always
    } else {
      stats.status = CalledFromCallback();
    }
    return stats;
  }
  const absl::Status read = RunOnMaster([&] {
    FillStats(stats);
    return absl::OkStatus();
  });
  if (read.ok()) return stats;
  std::unique_lock lock(sync_->mutex);
  return ended_ ? report_.stats : stats;
}

}  // namespace ringmaster::internal
