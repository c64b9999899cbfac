#include "runtime/balancer_impl.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "core/check.h"
#include "core/deadline.h"
#include "ring/doorbell.h"
#include "ring/errors.h"
#include "ring/features.h"
#include "ring/installing.h"
#include "ring/process.h"
#include "ring/translate.h"
#include "runtime/apart.h"
#include "runtime/descriptor.h"
#include "runtime/options.h"
#include "runtime/refusals.h"
#include "runtime/statistics.h"
#include "runtime/topology.h"

namespace ringmaster::internal {
namespace {

// What a forked child must not destroy. It stays reachable, so that it is no leak.
void Forget(std::shared_ptr<void> what) {
  struct Forgotten {
    std::shared_ptr<void> what;
    Forgotten* next;
  };
  static std::atomic<Forgotten*> first{nullptr};
  auto* const it = new Forgotten{std::move(what), first.load(std::memory_order_relaxed)};
  while (!first.compare_exchange_weak(it->next, it, std::memory_order_relaxed)) {
  }
}

// Handlers cannot be taken back, so one serves all balancers that ask for it.
absl::Status CloseAfterForks() {
  static std::atomic<bool> done{false};
  if (done.exchange(true)) return absl::OkStatus();
  const int error = pthread_atfork(nullptr, nullptr, AfterForkInChild);
  if (error == 0) return absl::OkStatus();
  done = false;
  return ring::ErrorStatus(ring::Operation::kMakeDescriptor, error);
}

}  // namespace

absl::StatusOr<std::shared_ptr<BalancerImpl>> BalancerImpl::Create(BalancerOptions options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  // This comes first, because every object that is made from now on notes its process.
  if (absl::Status status = ring::KnowThisProcess(); !status.ok()) return status;
  if (options.close_after_fork) {
    if (absl::Status status = CloseAfterForks(); !status.ok()) return status;
  }
  absl::StatusOr<ring::Features> features = ring::ProbeFeatures();
  if (!features.ok()) return features.status();
  std::shared_ptr<BalancerImpl> balancer(new BalancerImpl(std::move(options)));
  MasterEnvironment& environment = balancer->environment_;
  environment.features = *features;
  environment.topology = ReadTopology();
  absl::StatusOr<std::shared_ptr<BalancerShared>> shared =
      BalancerShared::Create(environment.options.masters, LimitOf(environment.options.capacity));
  if (!shared.ok()) return shared.status();
  environment.shared = *std::move(shared);
  balancer->files_ = std::make_unique<WatchedFiles>(environment.options.masters);
  balancer->ending_ = std::make_unique<Ending>(environment.options.masters);
  for (uint32_t index = 0; index < environment.options.masters; ++index) {
    absl::StatusOr<std::unique_ptr<Master>> master = Master::Create(environment, index);
    if (!master.ok()) return master.status();
    balancer->masters_.push_back(*std::move(master));
  }
  return balancer;
}

BalancerImpl::BalancerImpl(BalancerOptions options) {
  environment_.options = std::move(options);
  environment_.intake_ended = [this] { ending_->IntakeEnded([this] { files_->RemoveAll(); }); };
  environment_.ended = [this] { ending_->MasterEnded([this] { return *Ended(); }); };
  if (environment_.options.masters == 1 || !environment_.options.on_event) return;
  environment_.options.on_event =
      [this, report = std::move(environment_.options.on_event)](const Event& event) {
        const std::lock_guard lock(event_mutex_);
        report(event);
      };
}

BalancerImpl::~BalancerImpl() {
  if (environment_.shared == nullptr || ours()) return;
  LetGoInChild();
  for (std::unique_ptr<Master>& master : masters_) Forget(std::move(master));
  Forget(std::move(files_));
  Forget(std::move(ending_));
  Forget(environment_.shared);
}

void BalancerImpl::LetGoInChild() { ring::CloseDescriptorsOf(environment_.shared->id()); }

absl::Status BalancerImpl::WithEach(absl::FunctionRef<absl::Status(Master&)> call) {
  for (const auto& master : masters_) {
    if (absl::Status status = call(*master); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// --- The end -------------------------------------------------------------------------------------

void BalancerImpl::Close() {
  if (!ours()) return LetGoInChild();
  if (InCallback()) {
    core::Misused(
        "a Balancer is destroyed inside a callback of its own (on_event, or a function of a "
        "policy). The destruction would wait for that callback: destroy the Balancer on another "
        "thread, or when the callback has returned");
  }
  if (masters_.size() > 1) {
    Shutdown({});
    return;
  }
  masters_[0]->Close();
}

absl::Status BalancerImpl::BeginShutdown(ShutdownOptions options) {
  if (!ours()) return BalancerOfParent();
  ending_->Note(options, [this] { return *Ended(); });
  const int64_t drain_ns = std::max<int64_t>(0, absl::ToInt64Nanoseconds(options.drain));
  const int64_t until_ns = core::After(ring::NowNs(), drain_ns);
  for (const auto& master : masters_) master->BeginShutdown(until_ns);
  return absl::OkStatus();
}

std::optional<ShutdownReport> BalancerImpl::Ended() const {
  if (!ours()) return std::nullopt;
  std::optional<ShutdownReport> report = masters_[0]->FinalReport();
  for (size_t i = 1; i < masters_.size() && report.has_value(); ++i) {
    const std::optional<ShutdownReport> other = masters_[i]->FinalReport();
    if (!other.has_value()) return std::nullopt;
    Add(*report, *other);
  }
  return report;
}

ShutdownReport BalancerImpl::Shutdown(ShutdownOptions options) {
  if (!ours()) return {.status = BalancerOfParent()};
  if (InCallback()) return {.status = CalledFromCallback()};
  if (absl::Status status = BeginShutdown(std::move(options)); !status.ok()) {
    return {.status = status};
  }
  // All masters have been asked to end; now each is waited for.
  ShutdownReport report = masters_[0]->FinishShutdown();
  for (size_t i = 1; i < masters_.size(); ++i) Add(report, masters_[i]->FinishShutdown());
  return report;
}

BalancerStats BalancerImpl::Stats() {
  if (!ours()) return {.status = BalancerOfParent()};
  // A single master answers in its event callback. One of several would have to ask the others,
  // which may be waiting for their turn to call back.
  if (masters_.size() > 1 && InCallback()) return {.status = CalledFromCallback()};
  BalancerStats stats = masters_[0]->Stats();
  for (size_t i = 1; i < masters_.size(); ++i) Add(stats, masters_[i]->Stats());
  return stats;
}

// --- Sources -------------------------------------------------------------------------------------

absl::StatusOr<BalancerImpl::AddedSource> BalancerImpl::AddSource(int fd, SourceOptions options) {
  if (!ours()) return BalancerOfParent();
  if (absl::Status status = CheckOptions(options, environment_.options.masters); !status.ok()) {
    return status;
  }
  const bool limited =
      LimitOf(options.capacity) != 0 || LimitOf(environment_.options.capacity) != 0;
  const absl::StatusOr<NewSource> source =
      Examine(fd, options.intake, limited, environment_.features);
  if (!source.ok()) return source.status();
  const absl::StatusOr<WatchedFiles::Entered> entered = files_->Enter(fd, options.master);
  if (!entered.ok()) return entered.status();
  Master& master = *masters_[entered->master];
  const absl::StatusOr<SourceKey> added = master.AddSource(*source, std::move(options));
  if (!added.ok()) {
    files_->Remove(entered->number);
    return added.status();
  }
  files_->Confirm(entered->number, master.PublicIndex(*added));
  return AddedSource{.master = &master, .key = *added, .number = entered->number};
}

absl::Status BalancerImpl::RemoveSource(const AddedSource& source) {
  absl::Status removed = source.master->RemoveSource(source.key);
  if (removed.ok()) files_->Remove(source.number);
  return removed;
}

absl::Status BalancerImpl::CheckOpen(uint64_t number) {
  return ours() ? files_->CheckOpen(number) : BalancerOfParent();
}

// --- Workers -------------------------------------------------------------------------------------

absl::StatusOr<BalancerImpl::AddedWorker> BalancerImpl::AddWorker(const WorkerOptions& options) {
  if (!ours()) return BalancerOfParent();
  if (absl::Status status = CheckOptions(options, environment_.options.host); !status.ok()) {
    return status;
  }
  if (!options.on_host) {
    if (absl::Status status = ring::CheckTarget(options.ring_fd); !status.ok()) return status;
  }
  if (options.handoff == Handoff::kDirect) {
    if (absl::Status status = ring::CheckTable(options.ring_fd); !status.ok()) return status;
    if (absl::Status status = RunApart(ring::TryInstalling); !status.ok()) return status;
  }
  // A worker to whom completions are sent is never offered anything in an inbox.
  const bool completions = options.handoff != Handoff::kInbox;
  const absl::StatusOr<PortShared*> shared = PortShared::Create(
      environment_.shared, core::Inbox::WordsFor(completions ? 1 : options.window));
  if (!shared.ok()) return shared.status();
  (*shared)->on_host = options.on_host;
  (*shared)->direct = options.handoff == Handoff::kDirect;
  const uint32_t index = environment_.shared->worker_indexes().Allocate();
  (*shared)->EnterBooks();
  for (size_t i = 0; i < masters_.size(); ++i) {
    const absl::Status added = masters_[i]->AddWorker(index, options, *shared);
    if (added.ok()) continue;
    RemoveWorkerFrom(i, index, *shared);
    (*shared)->Unref();
    return added;
  }
  environment_.shared->colleagues().Add(*shared);
  // The index stays in use for the masters, and for the caller, who will remove the worker.
  return AddedWorker{.index = index, .shared = *shared};
}

void BalancerImpl::RemoveWorker(uint32_t worker, PortShared* shared) {
  if (!ours()) return;
  environment_.shared->colleagues().Remove(shared);
  RemoveWorkerFrom(masters_.size(), worker, shared);
}

// Removes the worker from the first `masters` of the masters.
void BalancerImpl::RemoveWorkerFrom(size_t masters, uint32_t worker, PortShared* shared) {
  // In a callback of one master, nobody may wait for another master, which may be waiting for its
  // turn to call back.
  const bool in_callback = InCallback();
  for (size_t i = 0; i < masters; ++i) {
    if (in_callback) {
      masters_[i]->RemoveWorkerSoon(worker, shared);
    } else {
      masters_[i]->RemoveWorker(worker, shared);
    }
  }
  shared->LeaveBooks(worker);
}

absl::Status BalancerImpl::SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity) {
  if (absl::Status status = CheckCapacity(capacity); !status.ok()) return status;
  return WithEach([&](Master& master) { return master.SetCapacity(worker, shared, capacity); });
}

absl::Status BalancerImpl::SetSight(uint32_t worker, PortShared* shared, int sight) {
  const absl::Status set =
      WithEach([&](Master& master) { return master.SetSight(worker, shared, sight); });
  // Nobody watches a sight that not all masters have.
  for (const auto& master : masters_) {
    if (!set.ok()) master->ForgetSight(worker, shared);
  }
  return set;
}

absl::Status BalancerImpl::SetWindow(uint32_t worker, PortShared* shared, uint32_t window) {
  if (absl::Status status = CheckWindow(window); !status.ok()) return status;
  return WithEach([&](Master& master) { return master.SetWindow(worker, shared, window); });
}

}  // namespace ringmaster::internal
