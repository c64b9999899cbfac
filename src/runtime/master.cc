#include "runtime/master.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ring/errors.h"
#include "ring/translate.h"
#include "runtime/inside.h"
#include "runtime/permit_claims.h"
#include "runtime/refusals.h"

namespace ringmaster::internal {
namespace {

absl::Status CheckPolicy(const Policy& policy, bool tickets) {
  if (!tickets || core::FactBits(policy.facts()) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "policy ", policy.name(),
      " decides by facts of a connection, but with this intake a ticket is dealt before a worker "
      "accepts the connection: use Intake::kPollAccept, or another policy"));
}

absl::Status NoSlots() {
  return absl::FailedPreconditionError(
      "the master's ring has no file table, by which connections get into the worker's "
      "(Handoff::kDirect): the limit of descriptors was below 16 when the balancer was created. "
      "Raise RLIMIT_NOFILE before, or use Handoff::kCompletion");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Master>> Master::Create(const MasterEnvironment& environment,
                                                       uint32_t index) {
  absl::StatusOr<std::unique_ptr<Driver>> driver = Driver::Create(environment, index);
  if (!driver.ok()) return driver.status();
  if (absl::Status status = (*driver)->Start(); !status.ok()) return status;
  return std::unique_ptr<Master>(new Master(environment, index, *std::move(driver)));
}

Master::Master(const MasterEnvironment& environment, uint32_t index, std::unique_ptr<Driver> driver)
    : environment_(environment),
      index_(index),
      driver_(std::move(driver)),
      turns_(driver_->turns()),
      shared_(turns_.shared()),
      engine_(turns_.engine()),
      roster_(turns_.roster()) {}

Master::~Master() { Close(); }

bool Master::IsInside() const { return Inside::Is(environment_); }

absl::Status Master::CheckCaller() const {
  // First, because in a forked child a lock may be held for ever.
  if (!ours()) return BalancerOfParent();
  return IsInside() ? CalledFromCallback() : absl::OkStatus();
}

absl::Status Master::Run(absl::FunctionRef<absl::Status()> run, absl::FunctionRef<bool()>* until) {
  if (absl::Status status = CheckCaller(); !status.ok()) return status;
  Call call{.run = run, .until = until};
  return driver_->Run(call);
}

// --- Sources -------------------------------------------------------------------------------------

absl::StatusOr<SourceKey> Master::AddSource(const NewSource& source, SourceOptions options) {
  if (options.policy == nullptr) options.policy = LeastLoaded();
  if (absl::Status status = CheckPolicy(*options.policy, source.type().tickets); !status.ok()) {
    return status;
  }
  SourceKey id{};
  const absl::Status added = Run([&]() -> absl::Status {
    if (turns_.end().begun()) return BalancerEnded();
    const int32_t overflows = source.countable ? ring::OverflowsOf(source.fd) : -1;
    // What was passed on of a source that is removed by now comes before its index is free.
    turns_.TakeInPassedOn();
    // Asked only once, because workers may make a lower index free at any time.
    id.index = engine_.NextSource();
    if (id.index == kSourcesMax) {
      return absl::ResourceExhaustedError(
          absl::StrCat("a master takes at most ", kSourcesMax,
                       " sources at a time: remove one, or have more masters"));
    }
    SourceShared& shared = shared_.source(id.index);
    shared.gate.Limit(LimitOf(options.capacity));
    // With a host the master is awake when its worker is, so a connection takes no way through
    // another thread.
    bool may_be_aimed =
        options.permits && source.accepts && source.countable && source.type().accepts_singly &&
        environment_.options.host == Host::kThread && (fcntl(source.fd, F_GETFL) & O_NONBLOCK) != 0;
    if (may_be_aimed && shared.aimed == nullptr) {
      shared.aimed = std::make_unique<AimedSource>(&shared_);
    }
    may_be_aimed = may_be_aimed &&
                   shared.aimed->SetListener(source.fd, source.file, environment_.shared->id());
    engine_.AddSource(
        id.index,
        {.fd = source.fd,
         .file = source.file,
         .intake = {.kind = source.intake,
                    .listens = source.accepts,
                    // When its listener is shut down, the multishot accept of a TCP listener
                    // completes with EINVAL; that of a Unix listener never completes.
                    .hides_end = source.type().accepts_each && !source.countable},
         .countable = source.type().tickets && source.countable,
         .tells_overflows = overflows >= 0,
         .overflows = std::max(overflows, 0),
         .hold = options.hold,
         .recall = options.recall,
         .start_workers = options.start_workers,
         .accept_flags = (options.nonblocking ? static_cast<uint32_t>(SOCK_NONBLOCK) : 0u) |
                         (options.close_on_exec ? static_cast<uint32_t>(SOCK_CLOEXEC) : 0u),
         .gate = shared.limit(),
         .age_max_ns = options.age_max < absl::InfiniteDuration()
                           ? absl::ToInt64Nanoseconds(options.age_max)
                           : 0,
         .age_facts = source.countable ? core::kFactCame : core::kFactGone,
         .policy = std::move(options.policy),
         .desk = may_be_aimed ? &shared.aimed->desk : nullptr,
         .sights = may_be_aimed ? &shared.aimed->sights : nullptr,
         .hungry = &shared_.hungry_desks()});
    id.serial = engine_.source_serial(id.index);
    roster_.AddSource(id.index, {.used = true,
                                 .serial = id.serial,
                                 .fd = source.fd,
                                 .tickets = source.type().tickets,
                                 .tells_backlog = source.countable,
                                 .tells_overflows = overflows >= 0,
                                 .may_be_aimed = may_be_aimed});
    shared.fd.store(source.fd, std::memory_order_relaxed);
    shared.traits.store((source.type().tickets ? kGivesTickets : 0) |
                            (source.accepts ? kAccepts : 0) | (source.countable ? kCountable : 0) |
                            (options.nonblocking ? kAcceptsNonBlocking : 0) |
                            (options.close_on_exec ? kAcceptsCloseOnExec : 0) |
                            (shared.gate.limited() ? kLimited : 0),
                        std::memory_order_relaxed);
    shared.facts.store(engine_.FactsOfPolicy(id.index), std::memory_order_relaxed);
    turns_.NoteJoined(id.index);
    shared.identity.Set(id.serial);
    return absl::OkStatus();
  });
  if (!added.ok()) return added;
  return id;
}

absl::Status Master::GiveBack(SourceKey source, int error) {
  if (!ours()) return BalancerOfParent();
  if (shared_.GiveBack(source.index, source.serial, error)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("source ", roster_.PublicIndex(source.index),
                                                    " was removed, or its balancer was shut down"));
}

absl::Status Master::PassOn(SourceKey source, int fd, PortShared* giver, core::Gate* of_source,
                            PassOnOptions options) {
  if (!ours()) return BalancerOfParent();
  if (giver->balancer != environment_.shared) {
    return absl::InvalidArgumentError(
        "the connection counts as open at a worker of another balancer than the source's");
  }
  SourceShared& shared = shared_.source(source.index);
  const auto gone = [&] {
    return absl::FailedPreconditionError(
        absl::StrCat("source ", roster_.PublicIndex(source.index),
                     " was removed, or its balancer was shut down: keep the connection"));
  };
  if (!shared.identity.Is(source.serial)) return gone();
  if ((shared.traits.load(std::memory_order_relaxed) & kGivesTickets) != 0) {
    return absl::InvalidArgumentError(
        "by the intake of the source its balancer deals tickets and no connections: use "
        "Intake::kPollAccept for a source whose connections are to be passed on");
  }
  if (giver->balancer->draining()) {
    return absl::FailedPreconditionError(
        "the balancer is shutting down, and nobody is to begin with a connection any more: close "
        "it when its request is done");
  }
  const uintptr_t joined = shared.joined.load(std::memory_order_relaxed);
  if (joined == SourceShared::kNobody || joined == reinterpret_cast<uintptr_t>(giver)) {
    return absl::FailedPreconditionError(
        absl::StrCat("no other worker has joined source ", roster_.PublicIndex(source.index),
                     ", so there is nobody to pass the connection on to: keep it"));
  }
  // It has a place of the source that its lease was made for, which need not be this one.
  core::Gate* const limit = shared.limit();
  if (limit != of_source && limit != nullptr) limit->ForceReserve();
  Arrival facts = ring::FactsOf(fd, shared.facts.load(std::memory_order_relaxed));
  facts.request_waits = options.request_waits;
  giver->Ref();  // the item's
  const PassingOn::Added added =
      shared_.passing_on().Add(shared.identity, source.serial,
                               {.source = source.index, .fd = fd, .facts = facts, .giver = giver});
  if (added == PassingOn::Added::kSourceGone) {
    if (limit != of_source && limit != nullptr) limit->GiveBack();
    environment_.shared->KnockIfHungry();
    giver->Unref();
    return gone();
  }
  if (added == PassingOn::Added::kFirst) shared_.Knock();
  // Last, so that it is in the books of the one or of the other at any time.
  if (limit != of_source && of_source != nullptr) of_source->GiveBack();
  const bool wanted = giver->state.Release();
  environment_.shared->KnockIfHungry();
  if (wanted) ShowWaiter(*environment_.shared);
  return absl::OkStatus();
}

absl::Status Master::RemoveSource(SourceKey source) {
  const auto ended = [&] { return engine_.IntakeEnded(source.index); };
  absl::FunctionRef<bool()> until = ended;
  Redeemers redeemers;
  ring::OwnDescriptor listener;
  const absl::Status removed = Run(
      [&] {
        absl::Status known = roster_.Check(source);
        if (!known.ok()) return known;
        roster_.RemoveSource(source.index);
        shared_.source(source.index).identity.Set(0);
        roster_.AddTo(redeemers);
        engine_.RemoveSource(source.index);
        AimedSource* const aimed = shared_.source(source.index).aimed.get();
        if (aimed != nullptr) listener = std::move(aimed->listener);
        return absl::OkStatus();
      },
      &until);
  redeemers.Wait();
  listener.Close();
  return removed;
}

absl::Status Master::SetPolicy(SourceKey source, std::unique_ptr<Policy> policy) {
  // The old policy ends up in `policy`, and is destroyed on the caller's thread.
  return Run([&] {
    if (absl::Status known = roster_.Check(source); !known.ok()) return known;
    const bool tickets = roster_.source(source.index).tickets;
    if (absl::Status fits = CheckPolicy(*policy, tickets); !fits.ok()) return fits;
    policy = engine_.SetPolicy(source.index, std::move(policy));
    shared_.source(source.index)
        .facts.store(engine_.FactsOfPolicy(source.index), std::memory_order_relaxed);
    return absl::OkStatus();
  });
}

absl::Status Master::SetCapacity(uint32_t worker, PortShared* shared, uint32_t capacity) {
  return Run([&] {
    absl::Status known = roster_.Check(worker, shared);
    if (known.ok()) engine_.SetCapacity(worker, capacity);
    return known;
  });
}

absl::Status Master::SetSight(uint32_t worker, PortShared* shared, int sight) {
  // A duplicate, for the same reason as that of a ring.
  ring::OwnDescriptor own(fcntl(sight, F_DUPFD_CLOEXEC, 0), environment_.shared->id());
  if (own.get() < 0) return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  return Run([&] {
    absl::Status known = roster_.Check(worker, shared);
    if (!known.ok()) return known;
    if (roster_.worker(worker).handoff != Handoff::kInbox) {
      return absl::FailedPreconditionError(
          absl::StrCat("connections are handed over to worker ", worker,
                       " as completions, and what its sight shows would have to be claimed: add it "
                       "with Handoff::kInbox"));
    }
    Channel& channel = *shared->channels[index_];
    if (channel.permits == nullptr) channel.permits = std::make_unique<core::WorkerPermits>();
    engine_.SetSight(worker, own.get(), channel.permits.get());
    roster_.SetSight(worker, std::move(own));
    return absl::OkStatus();
  });
}

void Master::ForgetSight(uint32_t worker, PortShared* shared) {
  // If the master has ended, nobody uses it.
  Run([&] {
    if (absl::Status known = roster_.Check(worker, shared); !known.ok()) return known;
    engine_.SetSight(worker, -1, shared->channels[index_]->permits.get());
    roster_.SetSight(worker, {});
    return absl::OkStatus();
  }).IgnoreError();
}

absl::Status Master::SetWindow(uint32_t worker, PortShared* shared, uint32_t window) {
  return Run([&] {
    absl::Status known = roster_.Check(worker, shared);
    if (!known.ok()) return known;
    const WorkerEntry& entry = roster_.worker(worker);
    if (entry.handoff == Handoff::kInbox && window > entry.window) {
      return absl::InvalidArgumentError(absl::StrCat(
          "window is ", window, ", but worker ", worker, " was added with ", entry.window,
          ", and its inbox has room for that many: add the worker with the largest window that it "
          "will ever have, then make the window smaller"));
    }
    engine_.SetWindow(worker, window);
    return absl::OkStatus();
  });
}

// --- Workers -------------------------------------------------------------------------------------

absl::Status Master::AddWorker(uint32_t worker, const WorkerOptions& options, PortShared* shared) {
  // The master rings a duplicate, so that it never rings a number which is another file's by then.
  ring::OwnDescriptor ring_fd(options.on_host ? -1 : fcntl(options.ring_fd, F_DUPFD_CLOEXEC, 0),
                              environment_.shared->id());
  if (ring_fd.get() < 0 && !options.on_host) {
    return ring::ErrorStatus(ring::Operation::kMakeDescriptor, errno);
  }
  Channel& channel = *shared->channels[index_];
  core::WorkerConfig config{.inbox = &channel.inbox,
                            .state = &shared->state,
                            .tally = options.handoff == Handoff::kInbox ? nullptr : &channel.tally,
                            .direct = options.handoff == Handoff::kDirect,
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
  const absl::Status added = Run([&]() -> absl::Status {
    if (turns_.end().begun()) return BalancerEnded();
    if (config.direct && engine_.slots() == 0) return NoSlots();
    engine_.AddWorker(config);
    roster_.AddWorker(worker, {.shared = shared,
                               .ring_fd = std::move(ring_fd),
                               .handoff = options.handoff,
                               .window = options.window,
                               .tag = options.tag});
    return absl::OkStatus();
  });
  return added;
}

void Master::RemoveWorker(uint32_t worker, PortShared* shared) {
  const auto closed = [&] { return !roster_.rings_to_close(); };
  absl::FunctionRef<bool()> until = closed;
  const absl::Status removed = Run(
      [&] {
        if (roster_.Has(worker, shared)) turns_.ReleaseWorker(worker);
        return absl::OkStatus();
      },
      &until);
  if (removed.ok()) return;
  // The master has ended meanwhile, or had ended before.
  const std::lock_guard lock(turns_.lock().mutex);
  if (!turns_.end().ended() || !roster_.Has(worker, shared)) return;
  roster_.Forget(worker);
  turns_.CloseRings();
}

void Master::RemoveWorkerSoon(uint32_t worker, PortShared* shared) {
  if (turns_.departures().Add(worker, shared)) return shared_.Knock();
  RemoveWorker(worker, shared);
}

absl::Status Master::Join(SourceKey source, uint32_t worker, PortShared* shared, uint64_t token) {
  return Run([&]() -> absl::Status {
    if (turns_.end().begun()) return BalancerEnded();
    if (absl::Status known = roster_.Check(source); !known.ok()) return known;
    if (absl::Status known = roster_.Check(worker, shared); !known.ok()) return known;
    if (engine_.Joined(core::SourceIndex(source.index), worker)) {
      return absl::AlreadyExistsError(absl::StrCat("worker ", worker, " has joined source ",
                                                   roster_.PublicIndex(source.index), " already"));
    }
    if (roster_.worker(worker).handoff != Handoff::kInbox &&
        shared_.source(source.index).gate.limited()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "source ", roster_.PublicIndex(source.index),
          " has a capacity, which cannot be kept with Handoff::kCompletion and kDirect, "
          "because a connection that comes as a completion does not say which source it is of; "
          "limit the worker or the balancer, or use Handoff::kInbox"));
    }
    shared->channels[index_]->tokens[source.index].store(token, std::memory_order_relaxed);
    engine_.Join(core::SourceIndex(source.index), worker, token);
    turns_.NoteJoined(source.index);
    return absl::OkStatus();
  });
}

absl::Status Master::Leave(SourceKey source, uint32_t worker, PortShared* shared) {
  return Run([&]() -> absl::Status {
    if (absl::Status known = roster_.Check(source); !known.ok()) return known;
    if (!roster_.Check(worker, shared).ok() ||
        !engine_.Joined(core::SourceIndex(source.index), worker)) {
      return absl::NotFoundError(absl::StrCat("worker ", worker, " has not joined source ",
                                              roster_.PublicIndex(source.index)));
    }
    engine_.Leave(core::SourceIndex(source.index), worker);
    turns_.NoteJoined(source.index);
    return absl::OkStatus();
  });
}

absl::Status Master::SetPaused(SourceKey source, bool paused) {
  return Run([&] {
    absl::Status known = roster_.Check(source);
    if (!known.ok()) return known;
    if (paused) {
      engine_.Pause(source.index);
    } else {
      engine_.Resume(source.index);
    }
    return known;
  });
}

// --- Hosts ---------------------------------------------------------------------------------------

absl::Status Master::RunOnce() {
  absl::Status status = CheckCaller();
  return status.ok() ? driver_->RunOnce() : status;
}

void Master::ComeBy() {
  if (ours() && !IsInside()) driver_->ComeBy();
}

absl::Status Master::Lend(RingLoan loan) {
  absl::Status status = CheckCaller();
  return status.ok() ? driver_->Lend(std::move(loan)) : status;
}

// --- The end, and statistics ---------------------------------------------------------------------

ShutdownReport Master::FinishShutdown() {
  driver_->WaitForEnd();
  Redeemers redeemers;
  std::unique_lock lock(turns_.lock().mutex);
  roster_.AddTo(redeemers);
  ShutdownReport report = *turns_.end().report();
  lock.unlock();
  redeemers.Wait();
  return report;
}

std::optional<ShutdownReport> Master::FinalReport() const {
  const std::lock_guard lock(turns_.lock().mutex);
  return turns_.end().report();
}

void Master::Close() {
  if (!driver_->EndAlone()) {
    BeginShutdown(ring::NowNs());
    FinishShutdown();
  }
  driver_->CloseRing();
}

BalancerStats Master::Stats() {
  BalancerStats stats;
  if (IsInside()) {
    if (turns_.events().running()) {
      turns_.FillStats(stats);  // between two batches, as always
    } else {
      stats.status = CalledFromCallback();
    }
    return stats;
  }
  const absl::Status read = Run([&] {
    turns_.FillStats(stats);
    return absl::OkStatus();
  });
  if (read.ok()) return stats;
  const std::optional<ShutdownReport> report = FinalReport();
  return report.has_value() ? report->stats : stats;
}

}  // namespace ringmaster::internal
