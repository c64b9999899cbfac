#include "runtime/host_driver.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/inside.h"
#include "runtime/refusals.h"

namespace ringmaster::internal {
namespace {

// How many steps one RunOnce does at most, because a host has other work, too.
constexpr int kStepsAtOnceMax = 16;

}  // namespace

HostDriver::HostDriver(const MasterEnvironment& environment, uint32_t index, RingSize size)
    : Driver(environment, index, size), watch_([this] { OnHostEnds(); }) {}

// --- Calls ---------------------------------------------------------------------------------------

absl::Status HostDriver::Run(Call& call) {
  std::unique_lock lock(turns_.lock().mutex);
  if (turns_.end().ended()) return turns_.end().why();
  if (abandoned_) return BalancerEnded();
  // Without a host nothing is under way, so the caller is alone as long as it holds the lock.
  if (thread_ == 0) {
    const Inside within(environment_);
    return RefusingExceptions(call.run);
  }
  if (!OnThisThread()) return Queue(lock, call);
  lock.unlock();
  return RunHere(call);
}

// On the thread of the host, where nobody else would run the call. It runs as part of a step, like
// the calls of other threads. So nothing is set up while operations of the last batch are still
// pending here; those name descriptors by their numbers.
absl::Status HostDriver::RunHere(Call& call) {
  {
    const std::lock_guard lock(turns_.lock().mutex);
    if (turns_.end().ended()) return turns_.end().why();
    turns_.calls().Add(call);
  }
  // What the call changes is told to the kernel at once.
  const bool goes_on = Advance();
  return FinishCall(call, goes_on);
}

// --- Turns ---------------------------------------------------------------------------------------

absl::Status HostDriver::RunOnce() {
  bool first = false;
  {
    std::unique_lock lock(turns_.lock().mutex);
    if (absl::Status ended = AwaitHostGone(lock); !ended.ok()) {
      if (turns_.end().ended()) ReapAfterEnd(OnThisThread());
      return ended;
    }
    if (thread_ == 0) {
      if (absl::Status status = BecomeHost(); !status.ok()) return status;
      first = true;
    }
    if (!OnThisThread()) {
      return absl::FailedPreconditionError(
          "another thread is the host, because it has called RunOnce before: call RunOnce from "
          "that thread, or from this one when that thread has ended");
    }
  }
  if (first || HasWork()) Advance();
  return absl::OkStatus();
}

// With the lock, and while nobody drives it.
absl::Status HostDriver::BecomeHost() {
  const Inside within(environment_);
  if (absl::Status status = EnableRing(); !status.ok()) return status;
  watch_.WatchThisThread();
  turns_.GoOn();
  thread_ = ThisThread();
  return absl::OkStatus();
}

bool HostDriver::Advance() {
  for (int steps = 0; steps < kStepsAtOnceMax; ++steps) {
    if (!Step(0)) return false;
    if (turns_.pending()) continue;
    if (const int64_t wait_ns = turns_.WaitMax(); wait_ns > 0) {
      ring().WakeIn(wait_ns);
      return true;
    }
  }
  ring().WakeIn(0);  // the host has other work, too
  return true;
}

// --- The host goes -------------------------------------------------------------------------------

// A thread that has heard that the host is gone may go on: it waits here until that is complete. So
// does a thread that comes while another one shuts the balancer down without a host. Both use what
// the next host would use, and a loop that would have become the host is told nothing more: it
// finds its ports ended when it returns from here.
absl::Status HostDriver::AwaitHostGone(std::unique_lock<std::mutex>& lock) {
  if (!OnThisThread()) {
    turns_.lock().changed.wait(
        lock, [this] { return (!host_ends_ && !abandoned_) || turns_.end().ended(); });
  }
  if (turns_.end().ended()) return turns_.end().why();
  return abandoned_ ? BalancerEnded() : absl::OkStatus();
}

// A thread that ends runs this when it destroys its thread_local objects, so it is one of the last
// things that the thread does. No lock is held while the ring is asked, so calls of other threads
// may still come, and are answered.
void HostDriver::OnHostEnds() {
  {
    const std::lock_guard lock(turns_.lock().mutex);
    if (turns_.end().ended() || !OnThisThread()) return;
    host_ends_ = true;
  }
  const Inside within(environment_);
  RefusingExceptions([this] { LetHostGo(); });
}

void HostDriver::LetHostGo() {
  turns_.engine().Rest();
  if (!ComeToRest()) return;
  turns_.CloseRings();
  bool said = false;
  while (true) {
    turns_.RunCalls();
    turns_.calls().EndDue();
    if (turns_.end().begun()) return EndWithoutRing();
    // The event comes before other threads run their own calls, because its callback may ask for
    // statistics, or make a port leave.
    if (!std::exchange(said, true)) {
      SayHostGone();
      continue;
    }
    const std::lock_guard lock(turns_.lock().mutex);
    if (turns_.calls().waiting() || turns_.end().asked()) continue;
    thread_ = 0;
    host_ends_ = false;
    turns_.lock().changed.notify_all();
    return;
  }
}

void HostDriver::SayHostGone() {
  turns_.events().Call(
      {.kind = Event::Kind::kHostGone,
       .text = absl::StrCat("the thread of the host has ended: nothing is accepted until another "
                            "thread calls Balancer::RunOnce",
                            NextHostFirst(),
                            "; shut the balancer down before its host ends if none shall follow")});
}

// --- The end -------------------------------------------------------------------------------------

void HostDriver::BeginShutdown(int64_t until_ns) {
  bool abandoned = false;
  {
    const std::lock_guard lock(turns_.lock().mutex);
    if (turns_.end().ended() || abandoned_) return;
    turns_.end().Ask(until_ns);
    abandoned = abandoned_ = thread_ == 0;
    if (abandoned) thread_ = ThisThread();
  }
  if (!abandoned) return turns_.shared().Knock();
  // Nobody drives the master, and from now on nobody will.
  EndWithoutRing();
}

void HostDriver::WaitForEnd() {
  std::unique_lock lock(turns_.lock().mutex);
  if (OnThisThread() && !turns_.end().report().has_value()) {
    lock.unlock();
    turns_.Obey();
    DriveToEnd();
    lock.lock();
  }
  turns_.lock().changed.wait(lock, [this] { return turns_.end().ended(); });
}

bool HostDriver::EndAlone() {
  if (OnThisThread()) return false;
  {
    const std::lock_guard lock(turns_.lock().mutex);
    if (turns_.end().ended()) return true;
    thread_ = ThisThread();
  }
  // The host has ended, has never come, or drives the master no more. What is under way ends with
  // the ring.
  const Inside within(environment_);
  turns_.RefuseWithoutRing();
  DropRing();
  turns_.End(BalancerEnded());
  return true;
}

}  // namespace ringmaster::internal
