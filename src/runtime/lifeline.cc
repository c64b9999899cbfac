#include "runtime/lifeline.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/deadline.h"
#include "ring/errors.h"
#include "ring/features.h"
#include "ring/process.h"
#include "ring/target.h"
#include "ring/translate.h"
#include "runtime/options.h"
#include "runtime/topology.h"

namespace ringmaster::internal {
namespace {

absl::Status OfTheParent() {
  return absl::FailedPreconditionError(
      "this balancer belongs to the process that forked this one: create a balancer after the "
      "fork, and see AfterForkInChild");
}

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

absl::Status WasClosed(int fd) { return ring::ErrorStatus(ring::Operation::kWatch, ESTALE, fd); }

// These add up what several masters have counted.
void Add(WorkerStats& sum, const WorkerStats& more) {
  sum.assigned += more.assigned;
  sum.claimed += more.claimed;
  sum.recalled += more.recalled;
  sum.doorbells += more.doorbells;
  sum.stalls += more.stalls;
  sum.unclaimed += more.unclaimed;
  // The masters share `open`, but read it one after the other.
  sum.open = std::max(more.open, sum.unclaimed);
  sum.oldest_unclaimed = std::max(sum.oldest_unclaimed, more.oldest_unclaimed);
}

void Add(BalancerStats& sum, const BalancerStats& more) {
  sum.accepted += more.accepted;
  sum.refused += more.refused;
  sum.dropped += more.dropped;
  sum.gone += more.gone;
  sum.recalled += more.recalled;
  sum.held += more.held;
  sum.master_wakes += more.master_wakes;
  sum.sources.insert(sum.sources.end(), more.sources.begin(), more.sources.end());
  std::sort(
      sum.sources.begin(), sum.sources.end(),
      [](const SourceStats& left, const SourceStats& right) { return left.source < right.source; });
  for (const WorkerStats& worker : more.workers) {
    const auto at = std::lower_bound(sum.workers.begin(), sum.workers.end(), worker,
                                     [](const WorkerStats& left, const WorkerStats& right) {
                                       return left.worker < right.worker;
                                     });
    if (at == sum.workers.end() || at->worker != worker.worker) {
      sum.workers.insert(at, worker);
    } else {
      Add(*at, worker);
    }
  }
  Add(sum.departed, more.departed);
}

void Add(ShutdownReport& sum, const ShutdownReport& more) {
  sum.drained = sum.drained && more.drained;
  sum.refused += more.refused;
  // A master that had drained before another master's last connections were claimed saw none open.
  sum.open = std::max(sum.open, more.open);
  Add(sum.stats, more.stats);
}

}  // namespace

// --- Creation and end ----------------------------------------------------------------------------

absl::StatusOr<std::shared_ptr<Lifeline>> Lifeline::Create(BalancerOptions options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  // This comes first, because every object that is made from now on notes its process.
  if (absl::Status status = ring::KnowThisProcess(); !status.ok()) return status;
  if (options.close_after_fork) {
    if (absl::Status status = CloseAfterForks(); !status.ok()) return status;
  }
  absl::StatusOr<ring::Features> features = ring::ProbeFeatures();
  if (!features.ok()) return features.status();
  std::shared_ptr<Lifeline> lifeline(new Lifeline(std::move(options)));
  MasterEnvironment& environment = lifeline->environment_;
  environment.features = *features;
  environment.topology = ReadTopology();
  absl::StatusOr<std::shared_ptr<BalancerShared>> shared =
      BalancerShared::Create(environment.options.masters, LimitOf(environment.options.capacity));
  if (!shared.ok()) return shared.status();
  environment.shared = *std::move(shared);
  for (uint32_t index = 0; index < environment.options.masters; ++index) {
    absl::StatusOr<std::unique_ptr<Master>> master = Master::Create(&environment, index);
    if (!master.ok()) return master.status();
    lifeline->masters_.push_back(*std::move(master));
  }
  return lifeline;
}

Lifeline::Lifeline(BalancerOptions options) {
  environment_.options = std::move(options);
  environment_.intake_ended = [this] { OnIntakeEnded(); };
  environment_.ended = [this] { OnEnded(); };
  intakes_ = running_ = environment_.options.masters;
  if (environment_.options.masters == 1 || !environment_.options.on_event) return;
  environment_.options.on_event =
      [this, report = std::move(environment_.options.on_event)](const Event& event) {
        const std::lock_guard lock(event_mutex_);
        report(event);
      };
}

Lifeline::~Lifeline() {
  if (!InAnotherProcess()) return;
  LetGoInChild();
  for (std::unique_ptr<Master>& master : masters_) Forget(std::move(master));
  Forget(std::move(books_));
  Forget(std::make_shared<decltype(on_intake_ended_)>(std::move(on_intake_ended_)));
  Forget(std::make_shared<decltype(on_ended_)>(std::move(on_ended_)));
  Forget(environment_.shared);
}

void Lifeline::LetGoInChild() { ring::CloseDescriptorsOf(environment_.shared->id()); }

bool Lifeline::InCallback() const {
  return std::any_of(masters_.begin(), masters_.end(),
                     [](const auto& master) { return master->IsInside(); });
}

bool Lifeline::InAnotherProcess() const { return ring::ThisProcess() != process_; }

absl::Status Lifeline::CheckCaller() const {
  // First, because in a forked child a lock may be held for ever.
  if (InAnotherProcess()) return OfTheParent();
  if (masters_.size() == 1) return absl::OkStatus();
  return InCallback() ? CalledFromCallback() : absl::OkStatus();
}

void Lifeline::Close() {
  if (InAnotherProcess()) return LetGoInChild();
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

absl::Status Lifeline::BeginShutdown(ShutdownOptions options) {
  if (InAnotherProcess()) return OfTheParent();
  // The two are noted one after the other. If both were noted at once, and the intake had ended
  // already, the end could be told before the end of the intake, which is told here.
  bool intake_ended = false;
  {
    const std::lock_guard lock(ending_mutex_);
    intake_ended = intakes_ == 0;
    if (options.on_intake_ended && !intake_ended) {
      on_intake_ended_.push_back(std::move(options.on_intake_ended));
    }
  }
  if (options.on_intake_ended && intake_ended) options.on_intake_ended();
  bool ended = false;
  {
    const std::lock_guard lock(ending_mutex_);
    ended = running_ == 0;
    if (options.on_ended && !ended) on_ended_.push_back(std::move(options.on_ended));
  }
  if (options.on_ended && ended) options.on_ended(*Ended());
  const int64_t drain_ns = std::max<int64_t>(0, absl::ToInt64Nanoseconds(options.drain));
  const int64_t until_ns = core::After(MonotonicNow(), drain_ns);
  for (const auto& master : masters_) master->BeginShutdown(until_ns);
  return absl::OkStatus();
}

void Lifeline::OnIntakeEnded() {
  std::vector<std::function<void()>> tell;
  {
    const std::lock_guard lock(ending_mutex_);
    if (--intakes_ > 0) return;
    tell = std::move(on_intake_ended_);
  }
  for (const auto& call : tell) call();
}

void Lifeline::OnEnded() {
  std::vector<std::function<void(const ShutdownReport&)>> tell;
  {
    const std::lock_guard lock(ending_mutex_);
    if (--running_ > 0) return;
    tell = std::move(on_ended_);
  }
  if (tell.empty()) return;
  const ShutdownReport report = *Ended();
  for (const auto& call : tell) call(report);
}

std::optional<ShutdownReport> Lifeline::Ended() const {
  if (InAnotherProcess()) return std::nullopt;
  std::optional<ShutdownReport> report = masters_[0]->FinalReport();
  for (size_t i = 1; i < masters_.size() && report.has_value(); ++i) {
    const std::optional<ShutdownReport> other = masters_[i]->FinalReport();
    if (!other.has_value()) return std::nullopt;
    Add(*report, *other);
  }
  return report;
}

ShutdownReport Lifeline::Shutdown(ShutdownOptions options) {
  if (absl::Status status = CheckCaller(); !status.ok()) return {.status = status};
  if (InCallback()) return {.status = CalledFromCallback()};
  if (absl::Status status = BeginShutdown(std::move(options)); !status.ok()) {
    return {.status = status};
  }
  // All masters have been asked to end; now each is waited for.
  ShutdownReport report = masters_[0]->FinishShutdown();
  for (size_t i = 1; i < masters_.size(); ++i) Add(report, masters_[i]->FinishShutdown());
  return report;
}

BalancerStats Lifeline::Stats() {
  if (absl::Status status = CheckCaller(); !status.ok()) return {.status = status};
  BalancerStats stats = masters_[0]->Stats();
  for (size_t i = 1; i < masters_.size(); ++i) Add(stats, masters_[i]->Stats());
  return stats;
}

absl::Status Lifeline::RunOnce() {
  return InAnotherProcess() ? OfTheParent() : masters_[0]->RunOnce();
}

absl::Status Lifeline::Lend(RingLoan loan) {
  if (InAnotherProcess()) return OfTheParent();
  if (environment_.options.host != Host::kRing) {
    return absl::FailedPreconditionError(
        "a ring is lent, but this balancer does not use one: create it with Host::kRing");
  }
  if (absl::Status status = CheckLoan(loan); !status.ok()) return status;
  if (absl::Status status = ring::CheckLendable(loan.ring_fd); !status.ok()) return status;
  return masters_[0]->Lend(std::move(loan));
}

// --- Sources -------------------------------------------------------------------------------------

absl::StatusOr<NewSource> Lifeline::Examine(int fd, const SourceOptions& options) const {
  if (absl::Status status = CheckOptions(options, static_cast<uint32_t>(masters_.size()));
      !status.ok()) {
    return status;
  }
  const bool tickets = options.intake == Intake::kReadiness;
  if (absl::Status status = tickets ? CheckPollable(fd) : CheckListener(fd); !status.ok()) {
    return status;
  }
  const bool accepts = IsListener(fd);
  // A multishot accept cannot ask for a place before it accepts, so where places are limited there
  // is none.
  const bool limited =
      LimitOf(options.capacity) != 0 || LimitOf(environment_.options.capacity) != 0;
  const bool multishot = options.intake == Intake::kAccept && !limited;
  if (multishot && !environment_.features.multishot_accept) {
    return absl::UnimplementedError(
        "this kernel lacks multishot accept (Linux 5.19): use Intake::kPollAccept");
  }
  if (tickets && accepts && IsBlocking(fd)) {
    return absl::FailedPreconditionError(
        absl::StrCat("source ", fd,
                     " is a blocking listener: a worker that comes too late for a connection would "
                     "wait for the next one; make it O_NONBLOCK, or use Intake::kPollAccept"));
  }
  if (!tickets && !multishot && !environment_.features.accept_dontwait && IsBlocking(fd)) {
    return absl::FailedPreconditionError(
        absl::StrCat("source ", fd,
                     " is a blocking socket, and this kernel cannot accept from it without waiting "
                     "(Linux 6.10 can): make the listener O_NONBLOCK, or use Intake::kAccept and "
                     "no capacity"));
  }
  return NewSource{.fd = fd,
                   .file = ring::FileOf(fd),
                   .tickets = tickets,
                   .multishot = multishot,
                   .accepts = accepts,
                   .countable = IsCountable(fd)};
}

// A source stands in the books from before it is added until it has been removed, so that nobody
// adds it a second time meanwhile. An entry is known by a number of its own, because its
// descriptor's number may be that of another source by the time it is removed.
absl::StatusOr<Lifeline::Entered> Lifeline::EnterSource(int fd, int master) {
  const absl::StatusOr<FileId> file = FileIdOf(fd);
  if (!file.ok()) return file.status();
  const std::lock_guard lock(books_->mutex);
  std::vector<uint32_t> sources(masters_.size());
  for (const SourceEntry& source : books_->sources) {
    ++sources[source.master];
    if (source.file.fd == fd && IsOther(source.file, *file)) return WasClosed(source.file.fd);
    if (!SameFile(source.file, *file)) continue;
    return absl::AlreadyExistsError(absl::StrCat(
        "descriptor ", fd, " is that of ",
        source.added ? absl::StrCat("source ", source.id.index) : "a source", " (descriptor ",
        source.file.fd, ") already: a file is watched only once; use that source"));
  }
  const auto fewest = std::min_element(sources.begin(), sources.end()) - sources.begin();
  const auto chosen = static_cast<uint32_t>(master >= 0 ? master : fewest);
  const uint64_t number = ++books_->sources_entered;
  books_->sources.push_back({.number = number, .file = *file, .master = chosen});
  return Entered{.number = number, .master = chosen};
}

absl::StatusOr<Lifeline::SourceId> Lifeline::AddSource(int fd, SourceOptions options) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  const absl::StatusOr<NewSource> source = Examine(fd, options);
  if (!source.ok()) return source.status();
  const absl::StatusOr<Entered> entered = EnterSource(fd, options.master);
  if (!entered.ok()) return entered.status();
  const uint32_t master = entered->master;
  const absl::StatusOr<Master::SourceId> added =
      masters_[master]->AddSource(*source, std::move(options));
  const std::lock_guard lock(books_->mutex);
  const auto entry = std::find_if(
      books_->sources.begin(), books_->sources.end(),
      [&](const SourceEntry& candidate) { return candidate.number == entered->number; });
  if (!added.ok()) {
    books_->sources.erase(entry);
    return added.status();
  }
  entry->added = true;
  entry->id = {.index = added->index * static_cast<uint32_t>(masters_.size()) + master,
               .serial = added->serial};
  return entry->id;
}

absl::Status Lifeline::RemoveSource(SourceId source) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  if (absl::Status status = MasterOf(source).RemoveSource(InMaster(source)); !status.ok()) {
    return status;
  }
  const std::lock_guard lock(books_->mutex);
  std::erase_if(books_->sources, [source](const SourceEntry& entry) {
    return entry.added && entry.id.index == source.index && entry.id.serial == source.serial;
  });
  return absl::OkStatus();
}

absl::Status Lifeline::SetPaused(SourceId source, bool paused) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  return MasterOf(source).SetPaused(InMaster(source), paused);
}

absl::Status Lifeline::SetPolicy(SourceId source, std::unique_ptr<Policy> policy) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  return MasterOf(source).SetPolicy(InMaster(source), std::move(policy));
}

absl::Status Lifeline::Again(SourceId source, int error) {
  if (InAnotherProcess()) return OfTheParent();
  return MasterOf(source).GiveBack(InMaster(source), error);
}

// Whether the source's number still stands for what was added.
absl::Status Lifeline::CheckOpen(SourceId source) {
  if (InAnotherProcess()) return absl::OkStatus();
  const std::lock_guard lock(books_->mutex);
  for (const SourceEntry& entry : books_->sources) {
    if (!entry.added || entry.id.index != source.index || entry.id.serial != source.serial)
      continue;
    const absl::StatusOr<FileId> now = FileIdOf(entry.file.fd);
    return !now.ok() || IsOther(entry.file, *now) ? WasClosed(entry.file.fd) : absl::OkStatus();
  }
  return absl::OkStatus();  // not in the books: its master says what has become of it
}

// --- Workers -------------------------------------------------------------------------------------

absl::StatusOr<Lifeline::NewWorker> Lifeline::AddWorker(const WorkerOptions& options) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  if (absl::Status status = CheckOptions(options, environment_.options.host); !status.ok()) {
    return status;
  }
  if (!options.on_host) {
    if (absl::Status status = ring::CheckTarget(options.ring_fd); !status.ok()) return status;
  }
  // A worker to whom completions are sent is never offered anything in an inbox.
  const bool completions = options.handoff == Handoff::kCompletion;
  const absl::StatusOr<PortShared*> shared = PortShared::Create(
      environment_.shared, core::Inbox::WordsFor(completions ? 1 : options.window));
  if (!shared.ok()) return shared.status();
  (*shared)->on_host = options.on_host;
  const uint32_t index = environment_.shared->worker_indexes().Allocate();
  (*shared)->EnterBooks();
  for (size_t i = 0; i < masters_.size(); ++i) {
    const absl::Status added = masters_[i]->AddWorker(index, options, *shared);
    if (added.ok()) continue;
    RemoveWorkerFrom(i, index, *shared);
    (*shared)->Unref();
    return added;
  }
  // The index stays in use for the masters, and for the caller, who will remove the worker.
  return NewWorker{.index = index, .shared = *shared};
}

void Lifeline::RemoveWorker(uint32_t worker, PortShared* shared) {
  if (InAnotherProcess()) return;
  RemoveWorkerFrom(masters_.size(), worker, shared);
}

// Removes the worker from the first `masters` of the masters.
void Lifeline::RemoveWorkerFrom(size_t masters, uint32_t worker, PortShared* shared) {
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

absl::Status Lifeline::SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  if (absl::Status status = CheckCapacity(capacity); !status.ok()) return status;
  for (const auto& master : masters_) {
    if (absl::Status status = master->SetCapacity(worker, shared, capacity); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Lifeline::SetWindow(uint32_t worker, PortShared* shared, uint32_t window) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  if (absl::Status status = CheckWindow(window); !status.ok()) return status;
  for (const auto& master : masters_) {
    if (absl::Status status = master->SetWindow(worker, shared, window); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Lifeline::Join(SourceId source, uint32_t worker, PortShared* shared, uint64_t token) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  if (absl::Status status = CheckOpen(source); !status.ok()) return status;
  return MasterOf(source).Join(InMaster(source), worker, shared, token);
}

absl::Status Lifeline::Leave(SourceId source, uint32_t worker, PortShared* shared) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  return MasterOf(source).Leave(InMaster(source), worker, shared);
}

}  // namespace ringmaster::internal
