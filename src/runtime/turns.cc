#include "runtime/turns.h"

#include <algorithm>
#include <span>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "core/turn.h"
#include "ring/doorbell.h"
#include "ring/errors.h"
#include "ring/translate.h"
#include "runtime/apart.h"
#include "runtime/event_text.h"
#include "runtime/inside.h"
#include "runtime/permit_claims.h"
#include "runtime/refusals.h"
#include "runtime/statistics.h"

namespace ringmaster::internal {
namespace {

constexpr uint32_t kCompletionsPerTurnMax = 512;  // what a batch brings at most

}  // namespace

Turns::Turns(const MasterEnvironment& environment, uint32_t index, RingSize size)
    : environment_(environment),
      shared_(environment.shared->master(index)),
      engine_({.recall_after_ns = absl::ToInt64Nanoseconds(environment.options.recall_after),
               .completion_entries = size.completion_entries,
               .completions_max = kCompletionsPerTurnMax,
               .slots = size.slots,
               .watch_fd = shared_.event_fd(),
               .topology = &environment.topology,
               .gate = environment.shared->limit(),
               .shares_workers = environment.options.masters > 1},
              &shared_.hunger()),
      roster_(index, environment.shared->masters()),
      events_(&environment.options.on_event),
      end_(&lock_, environment) {
  completions_.reserve(kCompletionsPerTurnMax);
}

void Turns::Begin() {
  now_ns_ = ring::NowNs();
  engine_.OnBatch({}, now_ns_, ops_);
}

void Turns::GoOn() {
  engine_.GoOn();
  now_ns_ = ring::NowNs();
}

struct Turns::TurnCaller {
  bool AllReported() const { return turns.ring_->AllReported(); }
  bool KeepsBack() const { return turns.ring_->KeepsBack(); }
  bool LeaversWait() const {
    return turns.roster_.rings_to_close() && !turns.engine_.InstallsAtLeavers();
  }
  void LetGoOfRings() const { turns.CloseRings(); }
  bool RunCalls() const {
    turns.RunCalls();
    return true;
  }
  std::span<const core::PassedOn> PassedOn() const { return turns.TakePassedOn(); }
  bool AnythingGivenBack() const { return turns.shared_.TakeGivenBack(); }
  core::GivenBack& given_back(uint32_t source) const {
    return turns.shared_.source(source).given_back;
  }
  void TellOthers() const { turns.environment_.shared->KnockOthersIfHungry(&turns.shared_); }
  void TellOfWaiter() const { ShowWaiter(*turns.environment_.shared); }

  Turns& turns;
};

bool Turns::Take(core::Wait wait, absl::Status& why) {
  ring_->SetAcceptsMax(engine_.RoomForEach());
  if (const int result = ring_->Turn(ops_, wait, completions_); result < 0) {
    why = ring::ErrorStatus(ring::Operation::kDriveRing, -result);
    events_.Call(
        {.kind = Event::Kind::kMasterFailed, .error = -result, .text = std::string(why.message())});
    RefuseWithoutRing(completions_);
    return false;
  }
  ++turns_;
  now_ns_ = ring::NowNs();
  TurnCaller caller{*this};
  core::TakeTurn(engine_, caller, completions_, now_ns_, ops_);
  calls_.EndDue();
  // A copy of each: the callback is not ours, and what it asks for may move the others.
  for (size_t i = 0; events_.wanted() && i < engine_.events().size(); ++i) {
    const core::EngineEvent event = engine_.events()[i];
    events_.Call(DescribeEvent(event, environment_.options, engine_, roster_));
  }
  engine_.ClearEvents();
  if (!end_.begun()) return true;
  // When neither the master nor a ticket refers to a source's descriptor any more.
  if (!end_.intake_ended_said() && engine_.IntakeEnded() && !roster_.TicketsOut()) {
    LetGoOfListeners();
    end_.SayIntakeEnded();
  }
  if (!Drained() || !(end_.intake_ended_said() || end_.given_up())) return true;
  TakeLast();
  why = BalancerEnded();
  return false;
}

core::Wait Turns::NextWait() {
  const int64_t wait_ns = WaitMax();
  return {wait_ns, std::min(wait_ns, engine_.Gather(now_ns_))};
}

int64_t Turns::WaitMax() {
  TurnCaller caller{*this};
  return end_.Limit(core::WaitAfterTurn(engine_, caller, now_ns_), now_ns_);
}

bool Turns::AtRest() const { return engine_.AtRest() && ops_.empty() && ring_->AllReported(); }

void Turns::RunCalls() {
  Obey();
  for (const Departures::Departure& it : departures_.Take(/*last=*/false)) {
    if (roster_.Has(it.worker, it.shared)) ReleaseWorker(it.worker);
  }
  calls_.Run();
}

void Turns::Obey() {
  if (end_.Obey()) engine_.StopIntake();
}

// While shutting down: whether there is nothing more to wait for. After the deadline it refuses
// what is left.
bool Turns::Drained() {
  if (!engine_.IntakeEnded()) return false;
  if (end_.Due(now_ns_) && !end_.given_up()) {
    end_.GiveUp();
    RefuseAll();
  }
  if (engine_.Outstanding() > 0) {
    // The next batches close what is refused. Nothing else would bring these batches about.
    if (end_.given_up()) shared_.Knock();
    return false;
  }
  if (end_.given_up()) return true;
  // In this order: what is passed on is there before its worker has one open connection less.
  return roster_.Open() == 0 && shared_.passing_on().empty();
}

void Turns::FillStats(BalancerStats& stats) {
  engine_.CatchUp(ring::NowNs());
  internal::FillStats(engine_, roster_, stats);
  stats.master_wakes = turns_;
}

void Turns::ReleaseWorker(uint32_t worker) {
  engine_.RemoveWorker(worker);
  for (uint32_t source = 0; source < engine_.source_slots(); ++source) NoteJoined(source);
  roster_.Release(worker, engine_);
  CloseRings();
}

// What is being installed at one of them makes a completion, which brings another turn about.
void Turns::CloseRings() {
  if (ring_ == nullptr || (ring_->AllReported() && !engine_.InstallsAtLeavers())) {
    roster_.CloseRings();
  }
}

std::span<const core::PassedOn> Turns::TakePassedOn() {
  passed_on_.clear();
  passing_on_.clear();
  if (!shared_.passing_on().Take(passing_on_)) return {};
  for (const PassingOn::Item& item : passing_on_) {
    // Whoever has left is in no books any more.
    const std::vector<WorkerEntry>& workers = roster_.workers();
    const auto giver =
        std::find_if(workers.begin(), workers.end(),
                     [&item](const WorkerEntry& entry) { return entry.shared == item.giver; });
    const auto index = static_cast<uint32_t>(giver - workers.begin());
    passed_on_.push_back({.source = item.source,
                          .fd = item.fd,
                          .giver = giver == workers.end() ? UINT32_MAX : index,
                          .facts = item.facts});
    item.giver->Unref();
  }
  return passed_on_;
}

void Turns::TakeInPassedOn() {
  const std::span<const core::PassedOn> passed_on = TakePassedOn();
  if (!passed_on.empty()) engine_.PassOn(passed_on, ring::NowNs());
}

// What comes too late to be dealt. No source takes more.
void Turns::RefusePassedOn() {
  const std::span<const core::PassedOn> passed_on = TakePassedOn();
  if (passed_on.empty()) return;
  end_.Refuse(RefusedBy(engine_));
  end_.GiveUp();
  for (const core::PassedOn& it : passed_on) {
    ring::CloseConnection(it.fd);
    engine_.RefuseAtOnce(it.source);
  }
}

// Our duplicates of those that permits were for. There are no permits any more. Whoever redeems one
// still is waited for, which takes no longer than an accept: what it accepts is counted then.
void Turns::LetGoOfListeners() {
  Redeemers redeemers;
  roster_.AddTo(redeemers);
  redeemers.Wait();
  for (uint32_t source = 0; source < roster_.source_slots(); ++source) {
    AimedSource* const aimed = shared_.source(source).aimed.get();
    if (aimed != nullptr) aimed->listener.Close();
  }
}

void Turns::NoteJoined(uint32_t source) {
  uintptr_t joined = SourceShared::kNobody;
  for (uint32_t worker = 0; worker < roster_.workers().size(); ++worker) {
    const PortShared* const shared = roster_.worker(worker).shared;
    if (shared == nullptr || !engine_.worker_used(worker) ||
        !engine_.Joined(core::SourceIndex(source), worker)) {
      continue;
    }
    joined = joined == SourceShared::kNobody ? reinterpret_cast<uintptr_t>(shared)
                                             : SourceShared::kSeveral;
  }
  shared_.source(source).joined.store(joined, std::memory_order_relaxed);
}

void Turns::RefuseAll() {
  end_.Refuse(RefusedBy(engine_));
  engine_.RefuseAll();
}

void Turns::RefuseNow() {
  end_.GiveUpNow();
  RefuseAll();
}

// The last operations close what was refused. Then all workers are rung once more, because the
// master ends. That fails where a worker's ring was never enabled, or the kernel is out of memory;
// then nobody tries again.
void Turns::TakeLast() {
  SubmitLast();
  end_.Count();
  engine_.TellWorkers();
  engine_.OnBatch({}, now_ns_, ops_, ring_->AllReported());
  SubmitLast();
  workers_told_ = true;
}

// The same where there is no ring, or nobody who may drive it.
void Turns::TellWorkersApart() {
  std::vector<ring::Doorbell> doorbells;
  for (const WorkerEntry& worker : roster_.workers()) {
    if (worker.shared == nullptr || worker.handoff != Handoff::kInbox) continue;
    if (worker.ring_fd.get() < 0) continue;  // it drives the master
    doorbells.push_back({.ring_fd = worker.ring_fd.get(), .tag = worker.tag});
  }
  if (doorbells.empty()) return;
  // Without a thread or a ring there is no other way.
  RunApart([&] { return ring::RingAll(doorbells); }).IgnoreError();
}

// Submits `ops_`, which complete within the turn that submits them. Connections that come with
// these turns come too late.
void Turns::SubmitLast() {
  for (int turns = 0; turns < kLastTurnsMax; ++turns) {
    const int result = ring_->Turn(ops_, 0, completions_);
    ops_.clear();
    ring::CloseAccepted(completions_);
    if (result != 0 || ring_->AllReported()) return;
  }
}

// Closes here what is held or offered, because the ring cannot close it any more.
void Turns::RefuseWithoutRing(std::vector<core::Completion> reported) {
  engine_.StopIntake();
  engine_.Rest();
  // Reported completions are read before anything is refused.
  std::swap(completions_, reported);
  if (!completions_.empty()) BatchWithoutRing(/*all_reported=*/false);
  std::swap(completions_, reported);
  do {
    TakeRemaining();
    BatchWithoutRing(/*all_reported=*/completions_.empty());
  } while (!completions_.empty());
  if (engine_.Outstanding() > 0) end_.GiveUp();
  RefuseAll();
  while (engine_.Outstanding() > 0) BatchWithoutRing(/*all_reported=*/true);
}

std::vector<core::Op> Turns::TakePending() {
  std::vector<core::Op> pending = ops_;
  ops_.clear();
  return pending;
}

void Turns::ReadWithoutRing(std::vector<core::Op>& not_done) {
  do {
    TakeRemaining();
    BatchWithoutRing(/*all_reported=*/false, &not_done);
  } while (!completions_.empty());
}

void Turns::ForgetRing(std::vector<core::Completion> failed) {
  engine_.ForgetRing();
  std::swap(completions_, failed);
  BatchWithoutRing(/*all_reported=*/true);
  std::swap(completions_, failed);
}

// Reads what the ring has reported and nobody has read.
void Turns::TakeRemaining() {
  completions_.clear();
  if (engine_.RoomForEach() == 0) engine_.MakeRoom();
  if (ring_ == nullptr) return;
  ring_->SetAcceptsMax(engine_.RoomForEach());
  ring_->TakeRemaining(completions_);
}

void Turns::BatchWithoutRing(bool all_reported, std::vector<core::Op>* not_done) {
  engine_.OnBatch(completions_, ring::NowNs(), ops_, all_reported);
  if (engine_.WantsRoom()) engine_.MakeRoom();
  for (const core::Op& op : ops_) {
    if (op.key.kind == core::OpKind::kClose) ring::CloseConnection(op.fd);
    if (op.key.kind == core::OpKind::kLetGo) ring::LetGoOf(op);
  }
  if (not_done != nullptr) not_done->insert(not_done->end(), ops_.begin(), ops_.end());
  ops_.clear();
}

void Turns::End(absl::Status why) {
  // The callbacks below are inside the master, also when nobody drives it.
  const Inside within(environment_);
  // Tickets that come from now on are late.
  for (uint32_t source = 0; source < roster_.source_slots(); ++source) {
    shared_.source(source).identity.Set(0);
  }
  RefusePassedOn();
  LetGoOfListeners();
  end_.SayIntakeEnded();
  end_.Count();
  if (!workers_told_) TellWorkersApart();
  // The places that it had are free.
  environment_.shared->KnockOthersIfHungry(&shared_);
  // Nobody is rung any more. The duplicates are let go of, because a worker's ring would go on with
  // what it has under way as long as there is one.
  roster_.CloseAllRingsSoon();
  CloseRings();
  ShutdownReport report;
  report.open = roster_.Open();
  FillStats(report.stats);
  end_.Report(std::move(report));
  const std::lock_guard lock(lock_.mutex);
  end_.Complete(why);
  for (const Departures::Departure& it : departures_.Take(/*last=*/true)) {
    if (roster_.Has(it.worker, it.shared)) roster_.Forget(it.worker);
  }
  calls_.EndAll(why);
}

}  // namespace ringmaster::internal
