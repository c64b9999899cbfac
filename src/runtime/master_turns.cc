#include "runtime/master.h"

#include <time.h>

#include <algorithm>
#include <exception>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "core/turn.h"
#include "ring/errors.h"
#include "ring/translate.h"
#include "runtime/event_text.h"
#include "runtime/master_common.h"
#include "runtime/statistics.h"

namespace ringmaster::internal {
namespace {

// How often the thread's CPU time is read, which is a system call.
constexpr int64_t kTurnsToMeasure = 256;

}  // namespace

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
  std::span<const core::PassedOn> PassedOn() const { return {}; }
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
  // The last operations close what was refused.
  LastTurns();
  TellEnd();
  EndDriven(BalancerEnded());
  return false;
}

// Hands over `ops_`, which complete within the turn that submits them. Connections that come with
// these turns come too late.
void Master::LastTurns() {
  for (int turns = 0; turns < kLastTurnsMax; ++turns) {
    const int result = ring_->Turn(ops_, 0, completions_);
    ops_.clear();
    ring::CloseAccepted(completions_);
    if (result != 0 || ring_->AllReported()) return;
  }
}

// Rings all workers once more, because the master ends. That fails where a worker's ring was never
// enabled, or the kernel is out of memory; then nobody tries again.
void Master::TellEnd() {
  CountEnd();
  engine_->TellWorkers();
  engine_->OnBatch({}, now_ns_, ops_, ring_->AllReported());
  LastTurns();
}

void Master::CountEnd() {
  if (!std::exchange(end_counted_, true)) environment_.shared->CountEnded();
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
  if (std::exchange(shutting_down_, true)) return;
  environment_.shared->BeginDrain();
  engine_->StopIntake();
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
  CountEnd();
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
