#include "runtime/lifeline.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "ring/errors.h"
#include "ring/target.h"
#include "runtime/topology.h"

namespace ringmaster::internal {
namespace {

constexpr uint32_t kSubmissionEntries = 256;
constexpr uint32_t kCompletionsPerTurnMax = 512;
constexpr int kLastTurnsMax = 64;
// A host has other work, too.
constexpr int kStepsAtOnceMax = 16;
// How long a host's call waits at a time for what it has asked for.
constexpr int64_t kHostPauseNs = 1'000'000;

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::Status NoCapacityAtAll(std::string_view whose) {
  return absl::InvalidArgumentError(absl::StrCat("capacity of the ", std::string(whose),
                                                 " is 0: nothing could ever be accepted"));
}

absl::Status CheckOptions(const BalancerOptions& options) {
  if (options.thread_name.size() > 15) {
    return absl::InvalidArgumentError(absl::StrCat(
        "thread_name \"", options.thread_name, "\" is too long: the kernel keeps 15 characters"));
  }
  if (options.cpu >= CPU_SETSIZE) {
    return absl::InvalidArgumentError(absl::StrCat("cpu ", options.cpu, " does not exist"));
  }
  if (options.host == Host::kLoop && options.cpu >= 0) {
    return absl::InvalidArgumentError(
        "cpu is set, but with Host::kLoop there is no thread to bind: bind the thread of your "
        "loop");
  }
  if (options.recall_after < absl::Microseconds(100) || options.recall_after > absl::Seconds(60)) {
    return absl::InvalidArgumentError(
        absl::StrCat("recall_after is ", absl::FormatDuration(options.recall_after),
                     "; it must be from 100us, below which healthy workers are robbed, to 1min. To "
                     "do without recall, set SourceOptions::recall to false"));
  }
  if (options.capacity == 0) return NoCapacityAtAll("balancer");
  if (options.completion_entries < 64 || options.completion_entries > 65536) {
    return absl::InvalidArgumentError(absl::StrCat(
        "completion_entries is ", options.completion_entries, "; it must be from 64 to 65536"));
  }
  return absl::OkStatus();
}

absl::Status CheckWindow(uint32_t window) {
  if (window >= 1 && window <= core::Inbox::kWindowMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("window is ", window, "; it must be from 1 to ", core::Inbox::kWindowMax));
}

// As an engine takes it: 0 is no limit.
uint32_t LimitOf(uint32_t capacity) { return capacity == UINT32_MAX ? 0 : capacity; }

absl::Status CheckPolicy(const Policy& policy, bool tickets) {
  if (!tickets || core::FactBits(policy.facts()) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "policy ", policy.name(),
      " decides by facts of a connection, but the arrival of Intake::kReadiness is a ticket, given "
      "out before there is one: use Intake::kPollAccept, or another policy"));
}

absl::Status NoCapacity() {
  return absl::InvalidArgumentError("capacity is 0: such a worker could never be offered anything");
}

absl::Status CalledFromCallback() {
  return absl::FailedPreconditionError(
      "called from the event callback, which the call would wait for: call from another thread, or "
      "when the callback has returned");
}

absl::Status Ended() {
  return absl::FailedPreconditionError("the balancer was shut down: create another one");
}

}  // namespace

// --- Creation and end ----------------------------------------------------------------------------

absl::StatusOr<std::shared_ptr<Lifeline>> Lifeline::Create(BalancerOptions options) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  absl::StatusOr<ring::Features> features = ring::ProbeFeatures();
  if (!features.ok()) return features.status();
  absl::StatusOr<std::shared_ptr<MasterShared>> master = MasterShared::Create();
  if (!master.ok()) return master.status();
  std::shared_ptr<Lifeline> lifeline(new Lifeline(std::move(options)));
  lifeline->master_ = *std::move(master);
  lifeline->master_->gate().Limit(LimitOf(lifeline->options_.capacity));
  lifeline->features_ = *features;
  absl::StatusOr<std::unique_ptr<ring::UringRing>> ring = ring::UringRing::Create(
      {.submission_entries = std::min(kSubmissionEntries, lifeline->options_.completion_entries),
       .completion_entries = lifeline->options_.completion_entries,
       .pollable = lifeline->hosted(),
       .restrict = lifeline->options_.restrict_ring,
       .features = *features});
  if (!ring.ok()) return ring.status();
  lifeline->ring_ = *std::move(ring);
  lifeline->topology_ = ReadTopology();
  lifeline->engine_ = std::make_unique<core::Engine>(
      core::EngineConfig{
          .recall_after_ns = absl::ToInt64Nanoseconds(lifeline->options_.recall_after),
          .completion_entries = lifeline->options_.completion_entries,
          .watch_fd = lifeline->master_->event_fd(),
          .topology = &lifeline->topology_,
          .gate = lifeline->master_->gate().limited() ? &lifeline->master_->gate() : nullptr},
      &lifeline->master_->hunger());
  lifeline->completions_.reserve(kCompletionsPerTurnMax);
  if (lifeline->hosted()) return lifeline;
  if (absl::Status status = lifeline->StartThread(); !status.ok()) return status;
  return lifeline;
}

Lifeline::Lifeline(BalancerOptions options) : options_(std::move(options)), process_(getpid()) {}

Lifeline::~Lifeline() {
  // In a forked child there is no master's thread, and its lock may be held for ever: only the
  // copies of the descriptors are closed, by the members' destructors and here.
  if (InAnotherProcess()) {
    static_cast<void>(sync_.release());
  } else if (has_thread_ || (hosted() && engine_ != nullptr)) {
    Close();
  }
  for (const WorkerEntry& worker : workers_) {
    if (worker.shared == nullptr) continue;
    if (worker.ring_fd >= 0) close(worker.ring_fd);
    worker.shared->Unref();
  }
  for (const int ring_fd : rings_to_close_) close(ring_fd);
}

bool Lifeline::OnMaster() const {
  std::unique_lock lock(sync_->mutex);
  return (has_thread_ || host_known_) && pthread_equal(pthread_self(), thread_) != 0;
}

bool Lifeline::InAnotherProcess() const { return getpid() != process_; }

absl::Status Lifeline::StartThread() {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  if (options_.cpu >= 0) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<size_t>(options_.cpu), &cpus);
    pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
  }
  const auto run = [](void* self) -> void* {
    static_cast<Lifeline*>(self)->Run();
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
  pthread_setname_np(thread_, options_.thread_name.c_str());
  // The first call returns when the thread drives its ring, or why it cannot.
  absl::Status started = RunOnMaster([] { return absl::OkStatus(); });
  return started;
}

absl::Status Lifeline::RunOnMaster(absl::FunctionRef<absl::Status()> run,
                                   absl::FunctionRef<bool()>* until) {
  if (InAnotherProcess()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this balancer belongs to process ", process_,
                     ", which forked this one: create a balancer after the fork"));
  }
  if (hosted()) {
    std::unique_lock lock(sync_->mutex);
    if (ended_) return end_status_;
    // Before its host comes nothing is under way: whoever calls is alone, as long as it has the
    // lock.
    if (!host_known_) return run();
    if (pthread_equal(pthread_self(), thread_) != 0) {
      lock.unlock();
      return RunOnHost(run, until);
    }
  } else if (pthread_equal(pthread_self(), thread_) != 0) {
    return CalledFromCallback();
  }
  Call call{.run = run, .until = until};
  std::unique_lock lock(sync_->mutex);
  if (ended_) return end_status_;
  if (last_call_ == nullptr) {
    first_call_ = &call;
  } else {
    last_call_->next = &call;
  }
  last_call_ = &call;
  master_->Knock();
  sync_->changed.wait(lock, [&] { return call.done; });
  return call.result;
}

absl::Status Lifeline::RunOnHost(absl::FunctionRef<absl::Status()> run,
                                 absl::FunctionRef<bool()>* until) {
  if (in_step_) return CalledFromCallback();
  const absl::Status result = run();
  // What it has changed is told to the kernel at once.
  if (!Advance()) return result;
  while (result.ok() && until != nullptr && !(*until)()) {
    if (!Step(kHostPauseNs) || !Advance()) break;
  }
  return result;
}

absl::Status Lifeline::RunOnce() {
  if (!hosted()) {
    return absl::FailedPreconditionError(
        "this balancer has a thread of its own: create it with BalancerOptions::host = "
        "Host::kLoop to drive it");
  }
  if (InAnotherProcess()) return RunOnMaster([] { return absl::OkStatus(); });
  {
    std::unique_lock lock(sync_->mutex);
    if (ended_) return end_status_;
    if (!host_known_) {
      if (const int result = ring_->Enable(); result < 0) {
        return ring::ErrorStatus(ring::Operation::kEnableRing, -result);
      }
      thread_ = pthread_self();
      host_known_ = true;
      now_ns_ = Now();
      ops_ = engine_->OnBatch({}, now_ns_);
    }
    if (pthread_equal(pthread_self(), thread_) == 0) {
      return absl::FailedPreconditionError(
          "the first call of RunOnce has made another thread the host: call it from there");
    }
  }
  if (in_step_) return CalledFromCallback();
  Advance();
  return absl::OkStatus();
}

// Steps until there is nothing more to do now. False: it has ended.
bool Lifeline::Advance() {
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

void Lifeline::Close() {
  if (InAnotherProcess()) return;
  if (hosted() && !OnMaster()) {
    {
      std::unique_lock lock(sync_->mutex);
      if (ended_) return;
    }
    // Its host has ended, or never came. What is under way ends with the ring.
    RefuseWithoutRing();
    End(Ended());
    ring_.reset();
    return;
  }
  Shutdown(absl::ZeroDuration());
}

int Lifeline::fd() const { return hosted() && ring_ != nullptr ? ring_->fd() : -1; }

ShutdownReport Lifeline::Shutdown(absl::Duration drain) {
  if (InAnotherProcess()) return {};
  const int64_t drain_ns = std::max<int64_t>(0, absl::ToInt64Nanoseconds(drain));
  const int64_t now_ns = Now();
  const int64_t until_ns = drain_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + drain_ns;
  // Fails only when it has ended, or is called where it must not be.
  const absl::Status begun = RunOnMaster([&] {
    drain_until_ns_ = shutting_down_ ? std::min(drain_until_ns_, until_ns) : until_ns;
    shutting_down_ = true;
    engine_->StopIntake();
    return absl::OkStatus();
  });
  if (hosted() && begun.ok()) {
    bool driven = false;
    bool goes_on = true;
    {
      std::unique_lock lock(sync_->mutex);
      driven = host_known_;
      goes_on = !ended_;
    }
    if (!driven) {
      RefuseWithoutRing();
      End(Ended());
    } else if (OnMaster()) {
      while (goes_on) goes_on = Step(WaitMax(now_ns_));
    }
  }
  if (!begun.ok() && OnMaster()) return {};
  std::unique_lock lock(sync_->mutex);
  sync_->changed.wait(lock, [&] { return ended_; });
  if (has_thread_ && !thread_joined_) {
    thread_joined_ = true;  // the thread takes no lock any more once ended_ is seen
    pthread_join(thread_, nullptr);
  }
  return report_;
}

BalancerStats Lifeline::Stats() {
  BalancerStats stats;
  const absl::Status read = RunOnMaster([&] {
    FillStats(stats);
    return absl::OkStatus();
  });
  if (read.ok() || InAnotherProcess()) return stats;
  std::unique_lock lock(sync_->mutex);
  return ended_ ? report_.stats : stats;
}

// --- Set-up --------------------------------------------------------------------------------------

absl::StatusOr<Lifeline::SourceId> Lifeline::AddSource(int fd, SourceOptions options) {
  const bool tickets = options.intake == Intake::kReadiness;
  if (absl::Status status = tickets ? CheckPollable(fd) : CheckListener(fd); !status.ok()) {
    return status;
  }
  const bool accepts = IsListener(fd);
  const bool multishot = options.intake == Intake::kAccept;
  if (multishot && !features_.multishot_accept) {
    return absl::UnimplementedError(
        "this kernel lacks multishot accept (Linux 5.19): use Intake::kPollAccept");
  }
  if (tickets && accepts && IsBlocking(fd)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "source ", fd,
        " is a blocking listener: a worker that comes too late for a connection would wait there "
        "for the next one; make it O_NONBLOCK, or use Intake::kPollAccept"));
  }
  if (!tickets && !multishot && !features_.accept_dontwait && IsBlocking(fd)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "source ", fd,
        " is a blocking socket, and this kernel cannot be asked for an accept that "
        "does not wait (Linux 6.10): make the listener O_NONBLOCK, or use Intake::kAccept"));
  }
  if (multishot && options.hold == 0) {
    return absl::InvalidArgumentError(
        "hold is 0: a multishot accept takes at least one connection ahead of credit; use "
        "Intake::kPollAccept for exact admission");
  }
  if (options.capacity == 0) return NoCapacityAtAll("source");
  const bool ages = options.age_max < absl::InfiniteDuration();
  if (ages && tickets) {
    return absl::InvalidArgumentError(
        "age_max is set, but with Intake::kReadiness nothing is accepted before a worker claims "
        "it: leave age_max alone, or use Intake::kPollAccept");
  }
  if (ages && options.age_max < absl::Milliseconds(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("age_max is ", absl::FormatDuration(options.age_max),
                     "; it must be at least 1ms, or unset for no limit"));
  }
  if (options.policy == nullptr) options.policy = LeastLoaded();
  if (absl::Status status = CheckPolicy(*options.policy, tickets); !status.ok()) return status;
  const absl::StatusOr<FileId> file = FileIdOf(fd);
  if (!file.ok()) return file.status();
  SourceId id{};
  const absl::Status added = RunOnMaster([&]() -> absl::Status {
    if (shutting_down_) return Ended();
    for (const SourceEntry& source : sources_) {
      if (source.used && SameFile(source.file, *file)) {
        return absl::AlreadyExistsError(
            absl::StrCat("descriptor ", fd, " is that of source ", &source - sources_.data(),
                         " (descriptor ", source.fd, ") already: a source is watched once"));
      }
    }
    if (engine_->NextSource() == kSourcesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a balancer takes at most ", kSourcesMax,
                       " sources at a time: remove one, or create another balancer"));
    }
    id.serial = ++source_serial_;
    SourceShared& shared = master_->source(engine_->NextSource());
    shared.gate.Limit(LimitOf(options.capacity));
    id.index = engine_->AddSource(
        {.fd = fd,
         .multishot_accept = multishot,
         .readiness = tickets,
         .countable = tickets && IsCountable(fd),
         .hold = multishot ? options.hold : 0,
         .recall = options.recall,
         .accept_flags = (options.nonblocking ? static_cast<uint32_t>(SOCK_NONBLOCK) : 0u) |
                         (options.close_on_exec ? static_cast<uint32_t>(SOCK_CLOEXEC) : 0u),
         .gate = shared.limit(),
         .age_max_ns = ages ? absl::ToInt64Nanoseconds(options.age_max) : 0,
         .policy = std::move(options.policy)});
    if (id.index >= sources_.size()) sources_.resize(id.index + 1);
    sources_[id.index] = {
        .used = true, .serial = id.serial, .file = *file, .fd = fd, .tickets = tickets};
    shared.fd.store(fd, std::memory_order_relaxed);
    shared.traits.store((tickets ? kTickets : 0) | (accepts ? kAccepts : 0) |
                            (IsCountable(fd) ? kCountable : 0) |
                            (options.nonblocking ? kAcceptsNonBlocking : 0) |
                            (options.close_on_exec ? kAcceptsCloseOnExec : 0) |
                            (shared.gate.limited() ? kLimited : 0),
                        std::memory_order_relaxed);
    return absl::OkStatus();
  });
  if (!added.ok()) return added;
  return id;
}

absl::Status Lifeline::CheckSource(SourceId source) const {
  if (source.index < sources_.size() && sources_[source.index].used &&
      sources_[source.index].serial == source.serial) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("source ", source.index, " was removed: add it again with AddSource"));
}

absl::Status Lifeline::CheckWorker(uint32_t worker, const PortShared* shared) const {
  if (worker < workers_.size() && workers_[worker].shared == shared) return absl::OkStatus();
  return absl::InvalidArgumentError("the port belongs to no worker of this balancer");
}

absl::Status Lifeline::RemoveSource(SourceId source) {
  const auto ended = [&] { return engine_->IntakeEnded(source.index); };
  absl::FunctionRef<bool()> until = ended;
  return RunOnMaster(
      [&] {
        absl::Status known = CheckSource(source);
        if (!known.ok()) return known;
        sources_[source.index].used = false;
        engine_->RemoveSource(source.index);
        return absl::OkStatus();
      },
      &until);
}

absl::Status Lifeline::SetPolicy(SourceId source, std::unique_ptr<Policy> policy) {
  // The old one ends up in `policy` and is destroyed on the caller's thread.
  return RunOnMaster([&] {
    if (absl::Status known = CheckSource(source); !known.ok()) return known;
    const bool tickets = sources_[source.index].tickets;
    if (absl::Status fits = CheckPolicy(*policy, tickets); !fits.ok()) return fits;
    policy = engine_->SetPolicy(source.index, std::move(policy));
    return absl::OkStatus();
  });
}

absl::Status Lifeline::SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity) {
  if (capacity == 0) return NoCapacity();
  return RunOnMaster([&] {
    absl::Status known = CheckWorker(worker, shared);
    if (known.ok()) engine_->SetCapacity(worker, capacity);
    return known;
  });
}

absl::Status Lifeline::SetWindow(uint32_t worker, PortShared* shared, uint32_t window) {
  if (absl::Status status = CheckWindow(window); !status.ok()) return status;
  return RunOnMaster([&] {
    absl::Status known = CheckWorker(worker, shared);
    if (!known.ok()) return known;
    const WorkerEntry& entry = workers_[worker];
    if (entry.handoff == Handoff::kInbox && window > entry.window) {
      return absl::InvalidArgumentError(absl::StrCat(
          "window is ", window, ", but worker ", worker, " was added with ", entry.window,
          ", for which its inbox was made: add it with the largest "
          "window that it will ever have, and make it smaller then"));
    }
    engine_->SetWindow(worker, window);
    return absl::OkStatus();
  });
}

absl::Status Lifeline::CheckOnHost(const WorkerOptions& options) const {
  if (!hosted()) {
    return absl::InvalidArgumentError(
        "on_host is set, but this balancer has a thread of its own: create it with Host::kLoop, or "
        "add the worker by its ring or mailbox");
  }
  if (options.ring_fd != -1 || options.tag != 0 || options.handoff != Handoff::kInbox) {
    return absl::InvalidArgumentError(
        "a worker on the host claims after each RunOnce and is told nothing: leave ring_fd, tag "
        "and handoff alone");
  }
  return absl::OkStatus();
}

absl::StatusOr<Lifeline::NewWorker> Lifeline::AddWorker(const WorkerOptions& options) {
  if (absl::Status status = CheckWindow(options.window); !status.ok()) return status;
  if (options.capacity == 0) return NoCapacity();
  if (options.on_host) {
    if (absl::Status status = CheckOnHost(options); !status.ok()) return status;
  } else if (absl::Status status = ring::CheckTarget(options.ring_fd); !status.ok()) {
    return status;
  }
  const bool completions = options.handoff == Handoff::kCompletion;
  // Nothing is ever offered in the inbox of one to whom completions are sent.
  const uint32_t words = core::Inbox::WordsFor(completions ? 1 : options.window);
  absl::StatusOr<InboxMemory> memory = InboxMemory::Create(core::Inbox::BytesFor(words));
  if (!memory.ok()) return memory.status();
  // A duplicate, so that a number which is reused is never rung.
  const int ring_fd = options.on_host ? -1 : fcntl(options.ring_fd, F_DUPFD_CLOEXEC, 0);
  if (ring_fd < 0 && !options.on_host) {
    return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  }
  auto* shared = new PortShared(master_, *std::move(memory), words);
  uint32_t index = 0;
  const absl::Status added = RunOnMaster([&]() -> absl::Status {
    if (shutting_down_) return Ended();
    index = engine_->AddWorker({.inbox = &shared->inbox,
                                .state = &shared->state,
                                .tally = completions ? &shared->tally : nullptr,
                                .ring_fd = ring_fd,
                                .tag = options.tag,
                                .capacity = options.capacity,
                                .window_max = options.window,
                                .cpu = options.cpu});
    if (index >= workers_.size()) workers_.resize(index + 1);
    shared->Ref();
    workers_[index] = {
        .shared = shared, .ring_fd = ring_fd, .handoff = options.handoff, .window = options.window};
    return absl::OkStatus();
  });
  if (!added.ok()) {
    if (ring_fd >= 0) close(ring_fd);
    shared->Unref();
    return added;
  }
  return NewWorker{.index = index, .shared = shared};
}

void Lifeline::RemoveWorker(uint32_t worker, PortShared* shared) {
  const auto closed = [&] { return rings_to_close_.empty(); };
  absl::FunctionRef<bool()> until = closed;
  // Refused only when the master is gone, and everything with it, or in a forked child.
  const absl::Status removed = RunOnMaster(
      [&] {
        if (worker < workers_.size() && workers_[worker].shared == shared) ReleaseWorker(worker);
        return absl::OkStatus();
      },
      &until);
  removed.IgnoreError();
}

absl::Status Lifeline::Join(SourceId source, uint32_t worker, PortShared* shared, uint64_t token) {
  return RunOnMaster([&]() -> absl::Status {
    if (shutting_down_) return Ended();
    if (absl::Status known = CheckSource(source); !known.ok()) return known;
    if (absl::Status known = CheckWorker(worker, shared); !known.ok()) return known;
    if (engine_->Joined(source.index, worker)) {
      return absl::AlreadyExistsError(
          absl::StrCat("worker ", worker, " has joined source ", source.index, " already"));
    }
    if (workers_[worker].handoff == Handoff::kCompletion &&
        master_->source(source.index).gate.limited()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "source ", source.index,
          " has a capacity, which cannot be kept for connections handed over as completions: they "
          "do not say whose they are; limit the worker or the balancer, or use Handoff::kInbox"));
    }
    shared->tokens[source.index].store(token, std::memory_order_relaxed);
    engine_->Join(source.index, worker, token);
    return absl::OkStatus();
  });
}

absl::Status Lifeline::Leave(SourceId source, uint32_t worker, PortShared* shared) {
  return RunOnMaster([&]() -> absl::Status {
    if (absl::Status known = CheckSource(source); !known.ok()) return known;
    if (!CheckWorker(worker, shared).ok() || !engine_->Joined(source.index, worker)) {
      return absl::NotFoundError(
          absl::StrCat("worker ", worker, " has not joined source ", source.index));
    }
    engine_->Leave(source.index, worker);
    return absl::OkStatus();
  });
}

absl::Status Lifeline::SetPaused(SourceId source, bool paused) {
  return RunOnMaster([&] {
    absl::Status known = CheckSource(source);
    if (!known.ok()) return known;
    if (paused) {
      engine_->Pause(source.index);
    } else {
      engine_->Resume(source.index);
    }
    return known;
  });
}

absl::Status Lifeline::Again(SourceId source, int error) {
  if (InAnotherProcess()) {
    return absl::FailedPreconditionError("this balancer belongs to the process that forked");
  }
  master_->GiveBack(source.index, error);
  return absl::OkStatus();
}

// --- The master's thread -------------------------------------------------------------------------

void Lifeline::Run() {
  if (const int result = ring_->Enable(); result < 0) {
    return End(ring::ErrorStatus(ring::Operation::kEnableRing, -result));
  }
  now_ns_ = Now();
  ops_ = engine_->OnBatch({}, now_ns_);
  while (Step(WaitMax(now_ns_))) {
  }
}

// One turn of the ring and one batch. False: it has ended.
bool Lifeline::Step(int64_t wait_ns) {
  in_step_ = true;
  const bool goes_on = TurnAndBatch(wait_ns);
  in_step_ = false;
  return goes_on;
}

bool Lifeline::TurnAndBatch(int64_t wait_ns) {
  if (const int result = ring_->Turn(ops_, wait_ns, completions_); result < 0) {
    const absl::Status failed = ring::ErrorStatus(ring::Operation::kDriveRing, -result);
    if (options_.on_event) {
      options_.on_event({.kind = Event::Kind::kMasterFailed,
                         .error = -result,
                         .text = std::string(failed.message())});
    }
    RefuseWithoutRing();
    End(failed);
    return false;
  }
  ++wakes_;
  now_ns_ = Now();
  CloseRings();
  RunCalls();
  if (master_->TakeGivenBack()) TakeGivenBack();
  ops_ = engine_->OnBatch(completions_, now_ns_, ring_->AllReported());
  if (waiting_calls_ != nullptr) EndCalls();
  if (!engine_->events().empty()) {
    for (const core::EngineEvent& event : engine_->events()) Report(event);
    engine_->ClearEvents();
  }
  if (!shutting_down_ || !Drained(now_ns_)) return true;
  // The last operations close what was refused; they complete within the turn that takes them.
  int result = ring_->Turn(ops_, 0, completions_);
  for (int turns = 1; result == 0 && !ring_->AllReported() && turns < kLastTurnsMax; ++turns) {
    result = ring_->Turn({}, 0, completions_);
  }
  End(Ended());
  return false;
}

void Lifeline::TakeGivenBack() {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    const uint32_t given_back =
        master_->source(index).given_back.exchange(0, std::memory_order_acquire);
    if (given_back == 0) continue;
    engine_->Again(index, static_cast<int32_t>(given_back - 1));
  }
}

void Lifeline::RunCalls() {
  std::unique_lock lock(sync_->mutex);
  while (first_call_ != nullptr) {
    Call* call = first_call_;
    first_call_ = call->next;
    if (first_call_ == nullptr) last_call_ = nullptr;
    lock.unlock();
    call->result = call->run();
    const bool waits = call->result.ok() && call->until != nullptr && !(*call->until)();
    lock.lock();
    if (waits) {
      call->next = waiting_calls_;
      waiting_calls_ = call;
      continue;
    }
    call->done = true;
    sync_->changed.notify_all();
  }
}

// Those whose end has come meanwhile.
void Lifeline::EndCalls() {
  const std::unique_lock lock(sync_->mutex);
  for (Call** link = &waiting_calls_; *link != nullptr;) {
    Call* const call = *link;
    if (!(*call->until)()) {
      link = &call->next;
      continue;
    }
    *link = call->next;
    call->done = true;
    sync_->changed.notify_all();
  }
}

int64_t Lifeline::WaitMax(int64_t now_ns) {
  // Whoever has left waits for the kernel to take what was submitted before.
  if (!rings_to_close_.empty()) return 0;
  const int64_t wait_ns = engine_->WaitMax(now_ns);
  // Past the deadline, the ends of intake that are still to come wake it.
  if (!shutting_down_ || now_ns >= drain_until_ns_) return wait_ns;
  return std::min(wait_ns, std::max<int64_t>(0, drain_until_ns_ - now_ns));
}

// While shutting down: whether there is nothing more to wait for.
bool Lifeline::Drained(int64_t now_ns) {
  if (!engine_->IntakeEnded()) return false;
  if (now_ns >= drain_until_ns_ && !drain_ended_) {
    drain_ended_ = true;
    engine_->RefuseAll();
  }
  if (engine_->Outstanding() > 0) {
    // What is refused is closed by the next batches, which nothing else would bring about.
    if (drain_ended_) master_->Knock();
    return false;
  }
  return drain_ended_ || OpenTotal() == 0;
}

uint64_t Lifeline::OpenTotal() const {
  uint64_t open = 0;
  for (const WorkerEntry& worker : workers_) {
    if (worker.shared != nullptr) open += worker.shared->state.open.load();
  }
  return open;
}

void Lifeline::FillStats(BalancerStats& stats) {
  engine_->CatchUp(Now());
  const core::Ledger& ledger = engine_->ledger();
  stats.accepted = engine_->departed_sources().arrivals;
  stats.refused = engine_->departed_sources().refused;
  stats.dropped = engine_->departed_sources().dropped;
  for (uint32_t source = 0; source < engine_->source_slots(); ++source) {
    const core::SourceCount& count = ledger.source(source);
    stats.accepted += count.arrivals;
    stats.refused += count.refused;
    stats.dropped += count.dropped;
    stats.held += count.held;
    if (engine_->source_removed(source)) continue;
    const core::IntakeCount& intake = engine_->intake(source);
    stats.sources.push_back({.source = source,
                             .accepted = count.arrivals,
                             .claimed = count.claimed,
                             .refused = count.refused,
                             .dropped = count.dropped,
                             .held = count.held,
                             .pauses = intake.pauses,
                             .rearms = intake.arms > 0 ? intake.arms - 1 : 0,
                             .errors = intake.errors});
  }
  stats.master_wakes = wakes_;
  stats.departed = departed_;
  stats.recalled = departed_.recalled;
  for (uint32_t index = 0; index < workers_.size(); ++index) {
    if (workers_[index].shared == nullptr) continue;
    const core::WorkerCount& count = ledger.worker(index);
    stats.recalled += count.recalled;
    stats.workers.push_back(
        {.worker = index,
         .assigned = count.assigned,
         .claimed = count.claimed,
         .recalled = count.recalled,
         .doorbells = engine_->doorbells(index),
         .stalls = engine_->stalls(index),
         .unclaimed = engine_->Unclaimed(index),
         .open = engine_->open(index),
         .oldest_unclaimed = absl::Nanoseconds(engine_->OldestUnclaimedNs(index))});
  }
}

// Between two batches. As a rule the kernel has taken all that was submitted; where it has not, a
// doorbell for the worker may be among the rest, so the ring's number must not be free yet.
void Lifeline::ReleaseWorker(uint32_t index) {
  engine_->RemoveWorker(index);
  const core::WorkerCount& count = engine_->ledger().worker(index);
  departed_.assigned += count.assigned;
  departed_.claimed += count.claimed;
  departed_.recalled += count.recalled;
  departed_.doorbells += engine_->doorbells(index);
  departed_.stalls += engine_->stalls(index);
  WorkerEntry& worker = workers_[index];
  if (worker.ring_fd >= 0) rings_to_close_.push_back(worker.ring_fd);
  worker.shared->Unref();
  worker = {};
  CloseRings();
}

void Lifeline::CloseRings() {
  if (!ring_->AllReported()) return;
  for (const int ring_fd : rings_to_close_) close(ring_fd);
  rings_to_close_.clear();
}

// The ring can close nothing any more: what is held or offered is closed here.
void Lifeline::RefuseWithoutRing() {
  engine_->StopIntake();
  engine_->RefuseAll();
  while (engine_->Outstanding() > 0) {
    for (const core::Op& op : engine_->OnBatch({}, Now(), true)) {
      if (op.key.kind == core::OpKind::kClose) close(op.fd);
    }
  }
}

void Lifeline::End(absl::Status status) {
  ShutdownReport report;
  report.open = OpenTotal();
  FillStats(report.stats);
  report.refused = report.stats.refused;
  report.drained = shutting_down_ && report.open == 0 && !drain_ended_;
  std::unique_lock lock(sync_->mutex);
  report_ = std::move(report);
  end_status_ = std::move(status);
  ended_ = true;
  for (Call* call = first_call_; call != nullptr;) {
    Call* next = call->next;
    call->result = end_status_;
    call->done = true;
    call = next;
  }
  first_call_ = last_call_ = nullptr;
  for (Call* call = std::exchange(waiting_calls_, nullptr); call != nullptr;) {
    Call* next = call->next;
    call->done = true;  // there is nothing left to wait for
    call = next;
  }
  sync_->changed.notify_all();
}

void Lifeline::Report(const core::EngineEvent& event) {
  if (!options_.on_event) return;
  Event report{.source = event.source, .worker = event.worker, .error = event.error};
  const auto describe = [&](ring::Operation operation, int fd) {
    return std::string(ring::ErrorStatus(operation, event.error, fd).message());
  };
  switch (event.kind) {
    case core::EventKind::kOutOfDescriptors:
      report.kind = Event::Kind::kOutOfDescriptors;
      report.text = describe(ring::Operation::kAccept, sources_[event.source].fd);
      break;
    case core::EventKind::kAccepting:
      report.kind = Event::Kind::kAccepting;
      report.text = absl::StrCat("source ", event.source, " is accepted from again");
      break;
    case core::EventKind::kSourceFailed:
      report.kind = Event::Kind::kSourceFailed;
      report.text = describe(ring::Operation::kWatch, sources_[event.source].fd);
      break;
    case core::EventKind::kWorkerStalled:
      report.kind = Event::Kind::kWorkerStalled;
      report.text = absl::StrCat(
          "worker ", event.worker, " has not moved for ",
          absl::FormatDuration(options_.recall_after),
          workers_[event.worker].handoff == Handoff::kInbox
              ? ": what it had not claimed was recalled, and it gets nothing new until it moves"
              : ": it gets nothing new until it calls Took");
      break;
    case core::EventKind::kWorkerMoves:
      report.kind = Event::Kind::kWorkerMoves;
      report.text = absl::StrCat("worker ", event.worker, " moves again");
      break;
    case core::EventKind::kDoorbellFailed:
      report.kind = Event::Kind::kDoorbellFailed;
      report.text = describe(ring::Operation::kDoorbell, workers_[event.worker].ring_fd);
      break;
  }
  options_.on_event(report);
}

}  // namespace ringmaster::internal
