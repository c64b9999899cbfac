#include "runtime/master.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/turn.h"
#include "ring/errors.h"
#include "ring/translate.h"
#include "ring/uring_ring.h"
#include "runtime/event_text.h"
#include "runtime/statistics.h"

namespace ringmaster::internal {
namespace {

constexpr uint32_t kSubmissionEntries = 256;
constexpr uint32_t kCompletionsPerTurnMax = 512;  // what a batch brings at most
constexpr int kLastTurnsMax = 64;
// How many of these turns, the first ones, do not wait.
constexpr int kPromptTurns = 4;
// How often the thread's CPU time is read, which is a system call.
constexpr int64_t kTurnsToMeasure = 256;
// How many steps one RunOnce does at most, because a host has other work, too.
constexpr int kStepsAtOnceMax = 16;
// A host's own call waits for completions this long at a time.
constexpr int64_t kHostPauseNs = 1'000'000;

absl::Status CheckPolicy(const Policy& policy, bool tickets) {
  if (!tickets || core::FactBits(policy.facts()) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "policy ", policy.name(),
      " decides by facts of a connection, but with Intake::kReadiness a ticket is dealt before a "
      "worker accepts the connection: use Intake::kPollAccept, or another policy"));
}

// No code of the program may throw into the middle of a batch, because half of the batch would be
// done then.
template <typename Function>
auto RefusingExceptions(const Function& function) {
  try {
    return function();
  } catch (...) {
    core::Misused(
        "an exception came out of code of the program that the master had called: a policy, the "
        "event callback or a function of a RingLoan. These must not throw: catch the exception "
        "there");
  }
}

absl::Status Ended() {
  return absl::FailedPreconditionError("the balancer was shut down: create another one");
}

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

// --- Creation and end ----------------------------------------------------------------------------

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
  if (IsInside()) return CalledFromCallback();  // before the lock, which this thread may hold
  if (hosted()) {
    std::unique_lock lock(sync_->mutex);
    if (ended_) return end_status_;
    if (abandoned_) return Ended();
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

absl::Status Master::RunOnHost(absl::FunctionRef<absl::Status()> run,
                               absl::FunctionRef<bool()>* until) {
  Call call{.run = run, .until = until};
  {
    const std::unique_lock lock(sync_->mutex);
    if (ended_) return end_status_;
    calls_.Add(call);
  }
  // What the call changes is told to the kernel at once.
  bool goes_on = Advance();
  while (goes_on && !rides() && !call.done) goes_on = Step(kHostPauseNs) && Advance();
  if (call.done) return call.result;
  calls_.Forget(call);
  return call.result.ok() ? HandOverLoan() : call.result;
}

// Submits what is pending. Afterwards nothing refers to a descriptor by its number any more. The
// ends of operations are reported to the loop, which cannot be waited for on its own thread.
absl::Status Master::HandOverLoan() {
  for (int turns = 0; turns < kLastTurnsMax && lent_->HoldsBack(); ++turns) {
    if (!Step(0)) return absl::OkStatus();
  }
  const int result = lent_->Submit();
  if (result >= 0 && !lent_->HoldsBack()) return absl::OkStatus();
  return absl::UnavailableError(
      "it is done, but the queue of the ring that was lent is full: keep the descriptor open until "
      "the loop has submitted");
}

thread_local const Master::Inside* Master::Inside::innermost = nullptr;

Master::Inside::Inside(const Master& master)
    : master_(&master), outer_(std::exchange(innermost, this)) {}

Master::Inside::~Inside() { innermost = outer_; }

bool Master::IsInside() const {
  for (const Inside* it = Inside::innermost; it != nullptr; it = it->outer_) {
    if (it->master_ == this) return true;
  }
  return false;
}

absl::Status Master::RunOnce() {
  if (!hosted()) {
    return absl::FailedPreconditionError(
        "this balancer has a thread of its own: create it with BalancerOptions::host = "
        "Host::kLoop or Host::kRing to drive it");
  }
  if (IsInside()) return CalledFromCallback();
  bool first = false;
  {
    std::unique_lock lock(sync_->mutex);
    // A thread that has heard that the host is gone may go on: it waits here until that is
    // complete.
    if (!OnMaster()) sync_->changed.wait(lock, [this] { return !host_ends_ || ended_; });
    if (abandoned_) return Ended();
    if (ended_) {
      // Completions that come late must not keep the descriptor readable.
      if (OnMaster() && !rides()) ring_->Turn({}, 0, completions_);
      return end_status_;
    }
    if (driver_ == 0) {
      if (absl::Status status = BecomeHost(); !status.ok()) return status;
      first = true;
    }
    if (!OnMaster()) {
      return absl::FailedPreconditionError(
          "another thread is the host, because it has called RunOnce before: call RunOnce from "
          "that thread, or from this one when that thread has ended");
    }
  }
  // A loop that lends its ring calls this in every turn of its own, whatever the turn was about.
  if (!rides() || first || lent_->HasSomething()) Advance();
  return absl::OkStatus();
}

// With the lock, and while nobody drives it.
absl::Status Master::BecomeHost() {
  if (ring_ == nullptr) {
    return absl::FailedPreconditionError(
        old_loans_.empty()
            ? "there is no ring to drive: lend it that of your loop by Balancer::Lend first"
            : "the thread of the loop whose ring was lent has ended, and the loan with it: lend "
              "the ring of the loop that goes on by Balancer::Lend first");
  }
  const Inside within(*this);
  if (const int result = ring_->Enable(); result < 0) {
    const absl::Status failed = ring::ErrorStatus(ring::Operation::kEnableRing, -result);
    if (!rides()) return failed;
    RetireLoan();
    return absl::Status(failed.code(),
                        absl::StrCat(failed.message(),
                                     "; this loan has ended: lend a ring that the calling thread "
                                     "may submit to"));
  }
  watch_->WatchThisThread();
  engine_->GoOn();
  now_ns_ = MonotonicNow();
  driver_ = ThisThread();
  return absl::OkStatus();
}

// The last callback of the host may have taken long, and so may the next one.
void Master::ComeBy() {
  if (ring_ != nullptr && !rides() && !IsInside() && ring_->HasSomething()) RunOnce().IgnoreError();
}

// Steps until there is nothing more to do now, or it has done enough for once. False: the master
// has ended.
bool Master::Advance() {
  for (int steps = 0; steps < kStepsAtOnceMax; ++steps) {
    if (!Step(0)) return false;
    if (ops_.empty() && WaitMax(now_ns_) > 0) {
      ring_->WakeIn(WaitMax(now_ns_));
      return true;
    }
  }
  ring_->WakeIn(0);  // the host has other work, too
  return true;
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
      End(Ended());
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

// A thread that ends runs this when it destroys its thread_local objects, so it is one of the last
// things that the thread does. No lock is held while the ring is asked, so calls of other threads
// may still come, and are answered.
void Master::OnHostEnds() {
  {
    const std::unique_lock lock(sync_->mutex);
    if (ended_ || !OnMaster()) return;
  }
  const Inside within(*this);
  RefusingExceptions([this] { LetHostGo(); });
}

void Master::LetHostGo() {
  {
    const std::unique_lock lock(sync_->mutex);
    host_ends_ = true;
  }
  engine_->Rest();
  if (rides()) {
    RetireLoan();
  } else if (!ComeToRest()) {
    return;  // it has ended
  }
  CloseRings();
  bool said = false;
  while (true) {
    RunCalls();
    calls_.EndDue();
    if (shutting_down_) {
      RefuseWithoutRing();
      return End(Ended());
    }
    // The event comes before other threads run their own calls, because its callback may ask for
    // statistics, or make a port leave.
    if (!std::exchange(said, true)) {
      SayHostGone();
      continue;
    }
    const std::unique_lock lock(sync_->mutex);
    if (calls_.waiting() || end_asked_ns_.has_value()) continue;
    driver_ = 0;
    host_ends_ = false;
    sync_->changed.notify_all();
    return;
  }
}

void Master::SayHostGone() {
  CallBack(
      {.kind = Event::Kind::kHostGone,
       .text = absl::StrCat("the thread of the host has ended: nothing is accepted until another "
                            "thread calls Balancer::RunOnce",
                            rides() ? ", after it has lent its ring by Balancer::Lend" : "",
                            "; shut the balancer down before its host ends if none shall follow")});
}

// Host::kLoop: ends all that is armed, so that nothing is left for a thread that exists no more.
// False: the master has ended.
bool Master::ComeToRest() {
  for (int turns = 0; turns < kLastTurnsMax; ++turns) {
    if (!TurnAndBatch(turns < kPromptTurns ? 0 : kHostPauseNs)) return false;
    if (engine_->AtRest() && ops_.empty() && ring_->AllReported()) break;
  }
  own_->LetGo();
  return true;
}

// Host::kRing: the loop's memory of the ring may be gone, and must not be touched. What the ring
// has not taken has failed. What it has taken will be reported to the loop, if there still is one,
// and is of no use any more. If the ring is still open, what is armed in it is ended. Otherwise a
// multishot accept would go on to be woken for clients, each time instead of somebody who serves
// them, as long as the ring is open.
void Master::RetireLoan() {
  std::vector<core::Op> pending = lent_->Retire();
  pending.insert(pending.end(), ops_.begin(), ops_.end());
  ops_.clear();
  std::vector<core::Op> ends = pending;
  do {
    TakeRemaining();
    BatchWithoutRing(/*all_reported=*/false, &ends);
  } while (!completions_.empty());
  lent_->EndArmed(ends);
  std::vector<core::Completion> failed;
  for (const core::Op& op : pending) {
    if (op.key.kind == core::OpKind::kClose) ring::CloseConnection(op.fd);
    if (op.key.kind != core::OpKind::kDoorbell && op.key.kind != core::OpKind::kSend) continue;
    failed.push_back({.key = op.key, .result = -ECANCELED});
  }
  engine_->ForgetRing();
  std::swap(completions_, failed);
  BatchWithoutRing(/*all_reported=*/true);
  std::swap(completions_, failed);
  old_loans_.emplace_back(lent_);
  static_cast<void>(ring_.release());
  lent_ = nullptr;
}

absl::Status Master::Lend(RingLoan loan) {
  if (IsInside()) return CalledFromCallback();
  std::unique_lock lock(sync_->mutex);
  if (!OnMaster()) sync_->changed.wait(lock, [this] { return !host_ends_ || ended_; });
  if (ended_) return end_status_;
  if (ring_ != nullptr) {
    return absl::FailedPreconditionError(
        "a ring was lent before: the balancer uses that ring until the thread that drives it has "
        "ended. Lend another one then");
  }
  ring::Loan taken{.ring_fd = loan.ring_fd,
                   .get_sqe = std::move(loan.get_sqe),
                   .submit = std::move(loan.submit),
                   .user_data_mask = loan.user_data_mask,
                   .user_data_value = loan.user_data_value};
  for (const auto& old : old_loans_) {
    if (!old->Resembles(taken)) continue;
    return absl::InvalidArgumentError(
        "the loan's user_data_value cannot be told from that of an earlier loan, whose entries may "
        "still come: take another value of the mask's bits");
  }
  auto lent = std::make_unique<ring::LentRing>(std::move(taken), environment_.features,
                                               options_.completion_entries);
  lent_ = lent.get();
  ring_ = std::move(lent);
  const Inside within(*this);
  lent_->AskForOwner();
  return absl::OkStatus();
}

bool Master::OnCompletion(const io_uring_cqe& cqe) {
  // After the end, a port that leaves looks at the same things from another thread.
  std::unique_lock lock(sync_->mutex, std::defer_lock);
  if (loan_ended_) lock.lock();
  if (lent_ != nullptr && lent_->Take(cqe)) {
    if (loan_ended_) {
      lent_->CloseArrived();
      CloseRings();
    }
    return true;
  }
  return std::any_of(old_loans_.begin(), old_loans_.end(),
                     [&](const auto& old) { return old->Take(cqe); });
}

// On the thread of the host, which cannot wait until what is under way has ended. The ends are
// asked for, and what is accepted until then is closed when it comes (OnCompletion).
void Master::EndOnLoan() {
  drain_until_ns_ = 0;
  drain_ended_ = true;
  RefuseAll();
  for (int turns = 0; turns < kLastTurnsMax && engine_->Outstanding() > 0; ++turns) {
    if (!Step(0)) return;
  }
  ring_->Turn(ops_, 0, completions_);
  ops_.clear();
  // Connections that came with the last turn came too late.
  ring::CloseAccepted(completions_);
  EndDriven(Ended());
}

int Master::fd() const { return hosted() && own_ != nullptr ? own_->fd() : -1; }

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
  End(Ended());
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

// --- Set-up --------------------------------------------------------------------------------------

absl::StatusOr<Master::SourceId> Master::AddSource(const NewSource& source, SourceOptions options) {
  if (options.policy == nullptr) options.policy = LeastLoaded();
  if (absl::Status status = CheckPolicy(*options.policy, source.tickets); !status.ok()) {
    return status;
  }
  SourceId id{};
  const absl::Status added = RunOnMaster([&]() -> absl::Status {
    if (shutting_down_) return Ended();
    const int32_t overflows = source.countable ? ring::OverflowsOf(source.fd) : -1;
    // Asked only once, because workers may make a lower index free at any time.
    id.index = engine_->NextSource();
    if (id.index == kSourcesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a master takes at most ", kSourcesMax,
                       " sources at a time: remove one, or have more masters"));
    }
    SourceShared& shared = shared_->source(id.index);
    shared.gate.Limit(LimitOf(options.capacity));
    engine_->AddSource(
        id.index,
        {.fd = source.fd,
         .file = source.file,
         .multishot_accept = source.multishot,
         .readiness = source.tickets,
         .countable = source.tickets && source.countable,
         .listens = source.accepts,
         // When its listener is shut down, the multishot accept of a TCP listener completes with
         // EINVAL; that of a Unix listener never completes.
         .hides_end = source.multishot && !source.countable,
         .tells_overflows = overflows >= 0,
         .overflows = std::max(overflows, 0),
         .hold = options.hold,
         .recall = options.recall,
         .accept_flags = (options.nonblocking ? static_cast<uint32_t>(SOCK_NONBLOCK) : 0u) |
                         (options.close_on_exec ? static_cast<uint32_t>(SOCK_CLOEXEC) : 0u),
         .gate = shared.limit(),
         .age_max_ns = options.age_max < absl::InfiniteDuration()
                           ? absl::ToInt64Nanoseconds(options.age_max)
                           : 0,
         .age_facts = source.countable ? core::kFactCame : core::kFactGone,
         .policy = std::move(options.policy)});
    id.serial = engine_->source_serial(id.index);
    roster_.AddSource(id.index, {.used = true,
                                 .serial = id.serial,
                                 .fd = source.fd,
                                 .tickets = source.tickets,
                                 .tells_backlog = source.countable,
                                 .tells_overflows = overflows >= 0});
    shared.fd.store(source.fd, std::memory_order_relaxed);
    shared.traits.store((source.tickets ? kGivesTickets : 0) | (source.accepts ? kAccepts : 0) |
                            (source.countable ? kCountable : 0) |
                            (options.nonblocking ? kAcceptsNonBlocking : 0) |
                            (options.close_on_exec ? kAcceptsCloseOnExec : 0) |
                            (shared.gate.limited() ? kLimited : 0),
                        std::memory_order_relaxed);
    shared.identity.Set(id.serial);
    return absl::OkStatus();
  });
  if (!added.ok()) return added;
  return id;
}

absl::Status Master::GiveBack(SourceId source, int error) {
  if (shared_->GiveBack(source.index, source.serial, error)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("source ", roster_.PublicIndex(source.index),
                                                    " was removed, or its balancer was shut down"));
}

absl::Status Master::RemoveSource(SourceId source) {
  const auto ended = [&] { return engine_->IntakeEnded(source.index); };
  absl::FunctionRef<bool()> until = ended;
  Redeemers redeemers;
  const absl::Status removed = RunOnMaster(
      [&] {
        absl::Status known = roster_.Check(source);
        if (!known.ok()) return known;
        roster_.RemoveSource(source.index);
        shared_->source(source.index).identity.Set(0);
        roster_.AddTo(redeemers);
        engine_->RemoveSource(source.index);
        return absl::OkStatus();
      },
      &until);
  redeemers.Wait();
  return removed;
}

absl::Status Master::SetPolicy(SourceId source, std::unique_ptr<Policy> policy) {
  // The old policy ends up in `policy`, and is destroyed on the caller's thread.
  return RunOnMaster([&] {
    if (absl::Status known = roster_.Check(source); !known.ok()) return known;
    const bool tickets = roster_.source(source.index).tickets;
    if (absl::Status fits = CheckPolicy(*policy, tickets); !fits.ok()) return fits;
    policy = engine_->SetPolicy(source.index, std::move(policy));
    return absl::OkStatus();
  });
}

absl::Status Master::SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity) {
  return RunOnMaster([&] {
    absl::Status known = roster_.Check(worker, shared);
    if (known.ok()) engine_->SetCapacity(worker, capacity);
    return known;
  });
}

absl::Status Master::SetWindow(uint32_t worker, PortShared* shared, uint32_t window) {
  return RunOnMaster([&] {
    absl::Status known = roster_.Check(worker, shared);
    if (!known.ok()) return known;
    const WorkerEntry& entry = roster_.worker(worker);
    if (entry.handoff == Handoff::kInbox && window > entry.window) {
      return absl::InvalidArgumentError(absl::StrCat(
          "window is ", window, ", but worker ", worker, " was added with ", entry.window,
          ", and its inbox has room for that many: add the worker with the largest window that it "
          "will ever have, then make the window smaller"));
    }
    engine_->SetWindow(worker, window);
    return absl::OkStatus();
  });
}

absl::Status Master::AddWorker(uint32_t worker, const WorkerOptions& options, PortShared* shared) {
  // The master rings a duplicate, so that it never rings a number which is another file's by then.
  ring::OwnDescriptor ring_fd(options.on_host ? -1 : fcntl(options.ring_fd, F_DUPFD_CLOEXEC, 0),
                              environment_.shared->id());
  if (ring_fd.get() < 0 && !options.on_host) {
    return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  }
  Channel& channel = *shared->channels[index_];
  core::WorkerConfig config{
      .inbox = &channel.inbox,
      .state = &shared->state,
      .tally = options.handoff == Handoff::kCompletion ? &channel.tally : nullptr,
      .ring_fd = ring_fd.get(),
      .tag = options.tag,
      .capacity = options.capacity,
      .window_max = options.window,
      .cpu = options.cpu,
      .index = worker};
  for (const auto& other : shared->channels) {
    if (other.get() == &channel) continue;
    config.other_inboxes.push_back(&other->inbox);
    config.other_tallies.push_back(&other->tally);
  }
  const absl::Status added = RunOnMaster([&]() -> absl::Status {
    if (shutting_down_) return Ended();
    engine_->AddWorker(config);
    roster_.AddWorker(worker, {.shared = shared,
                               .ring_fd = std::move(ring_fd),
                               .handoff = options.handoff,
                               .window = options.window});
    return absl::OkStatus();
  });
  return added;
}

void Master::RemoveWorker(uint32_t worker, PortShared* shared) {
  const auto closed = [&] { return !roster_.rings_to_close(); };
  absl::FunctionRef<bool()> until = closed;
  const absl::Status removed = RunOnMaster(
      [&] {
        if (roster_.Has(worker, shared)) ReleaseWorker(worker);
        return absl::OkStatus();
      },
      &until);
  if (removed.ok()) return;
  // The master has ended meanwhile, or had ended before.
  const std::unique_lock lock(sync_->mutex);
  if (!ended_ || !roster_.Has(worker, shared)) return;
  roster_.Forget(worker);
  CloseRings();
}

void Master::RemoveWorkerSoon(uint32_t worker, PortShared* shared) {
  if (departures_.Add(worker, shared)) return shared_->Knock();
  RemoveWorker(worker, shared);
}

absl::Status Master::Join(SourceId source, uint32_t worker, PortShared* shared, uint64_t token) {
  return RunOnMaster([&]() -> absl::Status {
    if (shutting_down_) return Ended();
    if (absl::Status known = roster_.Check(source); !known.ok()) return known;
    if (absl::Status known = roster_.Check(worker, shared); !known.ok()) return known;
    if (engine_->Joined(source.index, worker)) {
      return absl::AlreadyExistsError(absl::StrCat("worker ", worker, " has joined source ",
                                                   roster_.PublicIndex(source.index), " already"));
    }
    if (roster_.worker(worker).handoff == Handoff::kCompletion &&
        shared_->source(source.index).gate.limited()) {
      return absl::InvalidArgumentError(
          absl::StrCat("source ", roster_.PublicIndex(source.index),
                       " has a capacity, which cannot be kept with Handoff::kCompletion, because a "
                       "connection that comes as a completion does not say which source it is of; "
                       "limit the worker or the balancer, or use Handoff::kInbox"));
    }
    shared->channels[index_]->tokens[source.index].store(token, std::memory_order_relaxed);
    engine_->Join(source.index, worker, token);
    return absl::OkStatus();
  });
}

absl::Status Master::Leave(SourceId source, uint32_t worker, PortShared* shared) {
  return RunOnMaster([&]() -> absl::Status {
    if (absl::Status known = roster_.Check(source); !known.ok()) return known;
    if (!roster_.Check(worker, shared).ok() || !engine_->Joined(source.index, worker)) {
      return absl::NotFoundError(absl::StrCat("worker ", worker, " has not joined source ",
                                              roster_.PublicIndex(source.index)));
    }
    engine_->Leave(source.index, worker);
    return absl::OkStatus();
  });
}

absl::Status Master::SetPaused(SourceId source, bool paused) {
  return RunOnMaster([&] {
    absl::Status known = roster_.Check(source);
    if (!known.ok()) return known;
    if (paused) {
      engine_->Pause(source.index);
    } else {
      engine_->Resume(source.index);
    }
    return known;
  });
}

// --- The master's thread -------------------------------------------------------------------------

void Master::Run() {
  driver_ = ThisThread();
  if (const int result = ring_->Enable(); result < 0) {
    return End(ring::ErrorStatus(ring::Operation::kEnableRing, -result));
  }
  now_ns_ = MonotonicNow();
  engine_->OnBatch({}, now_ns_, ops_);
  int64_t wait_ns = 0;
  do {
    wait_ns = WaitMax(now_ns_);
  } while (Step({wait_ns, std::min(wait_ns, engine_->Gather(now_ns_))}));
}

struct Master::TurnHost {
  bool AllReported() const { return master.ring_->AllReported(); }
  bool KeepsBack() const { return master.KeepsBack(); }
  bool LeaversWait() const { return master.roster_.rings_to_close(); }
  void LetGoOfRings() const { master.CloseRings(); }
  bool RunCalls() const {
    master.RunCalls();
    return true;
  }
  bool AnythingGivenBack() const { return master.shared_->TakeGivenBack(); }
  core::GivenBack& given_back(uint32_t source) const {
    return master.shared_->source(source).given_back;
  }
  void TellOthers() const { master.environment_.shared->KnockOthersIfHungry(master.shared_); }

  Master& master;
};

// One turn of the ring and one batch. False: the master has ended.
bool Master::Step(core::Wait wait) {
  const Inside within(*this);
  return RefusingExceptions([&] { return TurnAndBatch(wait); });
}

bool Master::TurnAndBatch(core::Wait wait) {
  if (lent_ != nullptr) lent_->SetAcceptsMax(engine_->RoomForEach());
  if (const int result = ring_->Turn(ops_, wait, completions_); result < 0) {
    const absl::Status failed = ring::ErrorStatus(ring::Operation::kDriveRing, -result);
    CallBack({.kind = Event::Kind::kMasterFailed,
              .error = -result,
              .text = std::string(failed.message())});
    RefuseWithoutRing(completions_);
    if (!hosted()) ring_.reset();  // so it watches nothing any more
    EndDriven(failed);
    return false;
  }
  ++wakes_;
  now_ns_ = MonotonicNow();
  // Only a thread of the master's own spends all its time on turns, so only there does the CPU time
  // tell what a turn costs.
  if (!hosted() && wakes_ % kTurnsToMeasure == 0) MeasureTurns();
  TurnHost host{*this};
  core::TakeTurn(*engine_, host, completions_, now_ns_, ops_);
  calls_.EndDue();
  // A copy of each: the callback is not ours, and what it asks for may move the others.
  for (size_t i = 0; options_.on_event && i < engine_->events().size(); ++i) {
    const core::EngineEvent event = engine_->events()[i];
    CallBack(DescribeEvent(event, options_, *engine_, roster_));
  }
  engine_->ClearEvents();
  if (!shutting_down_) return true;
  if (!intake_ended_said_ && SourcesReleased()) SayIntakeEnded();
  if (!Drained(now_ns_) || !(intake_ended_said_ || drain_ended_)) return true;
  // The last operations close what was refused. They complete within the turn that submits them.
  int result = ring_->Turn(ops_, 0, completions_);
  for (int turns = 1; result == 0 && !ring_->AllReported() && turns < kLastTurnsMax; ++turns) {
    result = ring_->Turn({}, 0, completions_);
  }
  EndDriven(Ended());
  return false;
}

void Master::MeasureTurns() {
  timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return;
  const int64_t cpu_ns = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  engine_->SetTurnCost((cpu_ns - std::exchange(cpu_ns_, cpu_ns)) / kTurnsToMeasure);
}

void Master::RunCalls() {
  ObeyShutdown();
  for (const Departures::Departure& it : departures_.Take(/*last=*/false)) {
    if (roster_.Has(it.worker, it.shared)) ReleaseWorker(it.worker);
  }
  calls_.Run();
}

// Does what BeginShutdown has asked for.
void Master::ObeyShutdown() {
  std::optional<int64_t> until_ns;
  {
    const std::unique_lock lock(sync_->mutex);
    until_ns = std::exchange(end_asked_ns_, std::nullopt);
  }
  if (!until_ns.has_value()) return;
  drain_until_ns_ = shutting_down_ ? std::min(drain_until_ns_, *until_ns) : *until_ns;
  if (!std::exchange(shutting_down_, true)) engine_->StopIntake();
}

// While shutting down: whether neither the master nor a ticket refers to a source's descriptor.
bool Master::SourcesReleased() const { return engine_->IntakeEnded() && !roster_.TicketsOut(); }

void Master::SayIntakeEnded() {
  if (std::exchange(intake_ended_said_, true)) return;
  environment_.intake_ended();
}

int64_t Master::WaitMax(int64_t now_ns) {
  TurnHost host{*this};
  const int64_t wait_ns = core::WaitAfterTurn(*engine_, host, now_ns);
  // After the deadline, the master is woken by the ends of intake that are still to come.
  if (!shutting_down_ || now_ns >= drain_until_ns_) return wait_ns;
  return std::min(wait_ns, std::max<int64_t>(0, drain_until_ns_ - now_ns));
}

// While shutting down: whether there is nothing more to wait for. After the deadline it refuses
// what is left.
bool Master::Drained(int64_t now_ns) {
  if (!engine_->IntakeEnded()) return false;
  if (now_ns >= drain_until_ns_ && !drain_ended_) {
    drain_ended_ = true;
    RefuseAll();
  }
  if (engine_->Outstanding() > 0) {
    // The next batches close what is refused. Nothing else would bring these batches about.
    if (drain_ended_) shared_->Knock();
    return false;
  }
  return drain_ended_ || roster_.Open() == 0;
}

void Master::FillStats(BalancerStats& stats) {
  engine_->CatchUp(MonotonicNow());
  internal::FillStats(*engine_, roster_, stats);
  stats.master_wakes = wakes_;
}

// Between two batches. As a rule the kernel has taken everything that was submitted. If it has not,
// a doorbell for the worker may be among the rest, so the duplicate of its ring must stay open.
void Master::ReleaseWorker(uint32_t index) {
  engine_->RemoveWorker(index);
  roster_.Release(index, *engine_);
  CloseRings();
}

void Master::CloseRings() {
  if (ring_ == nullptr || ring_->AllReported()) roster_.CloseRings();
}

// Nobody is rung any more. The rings are let go of, for two reasons: a worker's ring would go on
// with what it has under way as long as there is a duplicate, and the master's own ring keeps what
// it watches.
void Master::LetGoOfRings() {
  if (!hosted()) {
    own_ = nullptr;
    ring_.reset();
  }
  roster_.CloseAllRingsSoon();
  CloseRings();
}

// Closes what nobody has claimed. The report counts this separately from what was refused before.
void Master::RefuseAll() {
  if (!refused_before_) refused_before_ = RefusedBy(*engine_);
  engine_->RefuseAll();
}

// Closes here what is held or offered, because the ring cannot close it any more.
void Master::RefuseWithoutRing(std::vector<core::Completion> reported) {
  engine_->StopIntake();
  engine_->Rest();
  // Reported completions are read before anything is refused.
  std::swap(completions_, reported);
  if (!completions_.empty()) BatchWithoutRing(/*all_reported=*/false);
  std::swap(completions_, reported);
  do {
    TakeRemaining();
    BatchWithoutRing(/*all_reported=*/completions_.empty());
  } while (!completions_.empty());
  drain_ended_ |= engine_->Outstanding() > 0;
  RefuseAll();
  while (engine_->Outstanding() > 0) BatchWithoutRing(/*all_reported=*/true);
}

// Reads what the ring has reported and nobody has read.
void Master::TakeRemaining() {
  completions_.clear();
  if (engine_->RoomForEach() == 0) engine_->MakeRoom();
  if (lent_ != nullptr) lent_->SetAcceptsMax(engine_->RoomForEach());
  if (ring_ != nullptr) ring_->TakeRemaining(completions_);
}

// A batch with `completions_` while the ring cannot be asked for anything. The operations that it
// would be asked for are added to `not_done`.
void Master::BatchWithoutRing(bool all_reported, std::vector<core::Op>* not_done) {
  engine_->OnBatch(completions_, MonotonicNow(), ops_, all_reported);
  if (engine_->WantsRoom()) engine_->MakeRoom();
  for (const core::Op& op : ops_) {
    if (op.key.kind == core::OpKind::kClose) ring::CloseConnection(op.fd);
  }
  if (not_done != nullptr) not_done->insert(not_done->end(), ops_.begin(), ops_.end());
  ops_.clear();
}

// Ends the master on the thread that drives it.
void Master::EndDriven(absl::Status status) {
  if (lent_ != nullptr) {
    lent_->End();
    lent_->CloseArrived();
    loan_ended_ = true;
  }
  End(std::move(status));
}

void Master::End(absl::Status status) {
  // The callbacks below are inside the master, also when nobody drives it.
  const Inside within(*this);
  // Tickets that come from now on are late.
  for (uint32_t source = 0; source < roster_.source_slots(); ++source) {
    shared_->source(source).identity.Set(0);
  }
  SayIntakeEnded();
  // The places that it had are free.
  environment_.shared->KnockOthersIfHungry(shared_);
  LetGoOfRings();
  ShutdownReport report;
  report.open = roster_.Open();
  FillStats(report.stats);
  if (refused_before_) report.refused = report.stats.refused - *refused_before_;
  report.drained = shutting_down_ && report.open == 0 && !drain_ended_;
  std::unique_lock lock(sync_->mutex);
  report_ = std::move(report);
  has_report_ = true;
  lock.unlock();
  environment_.ended();
  lock.lock();
  end_status_ = std::move(status);
  ended_ = true;
  for (const Departures::Departure& it : departures_.Take(/*last=*/true)) {
    if (roster_.Has(it.worker, it.shared)) roster_.Forget(it.worker);
  }
  calls_.EndAll(end_status_);
}

void Master::CallBack(const Event& event) {
  if (!options_.on_event) return;
  in_event_ = true;
  try {
    options_.on_event(event);
  } catch (const std::exception& thrown) {
    core::Misused(absl::StrCat("the event callback threw \"", thrown.what(),
                               "\". It must not throw, because it is called on the master's "
                               "thread, where nobody could catch it: catch it in the callback")
                      .c_str());
  } catch (...) {
    core::Misused(
        "the event callback threw something. It must not throw, because it is called on the "
        "master's thread, where nobody could catch it: catch it in the callback");
  }
  in_event_ = false;
}

}  // namespace ringmaster::internal
