#include "sim/sim_ring.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include "sim/world.h"

namespace ringmaster::sim {

using core::Completion;
using core::Op;
using core::OpKey;
using core::OpKind;

namespace {

constexpr int32_t kReadable = 0x1;  // POLLIN
constexpr int32_t kHungUp = 0x10;   // POLLHUP
constexpr int32_t kEnded = 0x2000;  // POLLRDHUP

bool SameArming(const OpKey& armed, const OpKey& ended) {
  return armed.index == ended.index && armed.generation == ended.generation &&
         armed.facts == ended.facts;
}

}  // namespace

void SimRing::Enter(std::span<const Op> ops) {
  submissions_.insert(submissions_.end(), ops.begin(), ops.end());
  // Operations that are left go with the next turn, unless there is nothing to return: then the
  // ring tries again at once.
  const bool partly = submissions_.size() > 1 && world_->Happens(Fault::kSubmitPartly);
  if (partly) Take(world_->prng().Below(submissions_.size()));
  if (!partly || queue_.empty()) Take(submissions_.size());
  if (!world_->config().defers_task_work) RunWork();
}

void SimRing::Leave(std::vector<Completion>& completions, uint32_t accepts_max) {
  MakeSpuriousEdge();
  RunWork();
  Reap(completions, accepts_max);
}

void SimRing::Take(size_t count) {
  for (; count > 0; --count) {
    const Op op = submissions_.front();
    submissions_.pop_front();
    Submit(op);
  }
}

std::vector<Op> SimRing::Lose() {
  std::vector<Op> pending(submissions_.begin(), submissions_.end());
  submissions_.clear();
  work_.clear();
  watch_ = {};
  for (SourceRing& source : sources_) source = {};
  return pending;
}

void SimRing::MakeSpuriousEdge() {
  const auto source = static_cast<uint32_t>(world_->prng().Below(sources_.size()));
  Multishot& poll = sources_[source].poll;
  if (poll.armed && world_->Happens(Fault::kSpuriousEdge)) PostMultishot(poll, kReadable, false);
}

void SimRing::OnArrival(uint32_t source) {
  SourceRing& ring = sources_[source];
  if (ring.accept.armed) Wake(ring.accept, OpKind::kAcceptEach, source);
  if (!ring.poll.armed || world_->Breaks(Breakage::kRingLosesEdge, {1, 8})) return;
  if (ring.poll.pending) {
    if (world_->Happens(Fault::kEdgeMerged)) return;
    RunWork();  // the master's thread was in the kernel just then
  }
  Wake(ring.poll, OpKind::kPoll, source);
}

void SimRing::OnShutDown(uint32_t source) {
  SourceRing& ring = sources_[source];
  if (ring.accept.armed) Wake(ring.accept, OpKind::kAcceptEach, source);
  if (ring.poll.armed) Wake(ring.poll, OpKind::kPoll, source);
  if (ring.hang_up.armed) Wake(ring.hang_up, OpKind::kHangUp, source);
}

void SimRing::OnKnock() {
  knocked_ = true;
  if (watch_.armed) Wake(watch_, OpKind::kWatch, 0);
}

void SimRing::Wake(Multishot& multishot, OpKind kind, uint32_t source) {
  if (multishot.pending) return;
  multishot.pending = true;
  work_.push_back({.kind = kind, .source = source});
  if (!world_->config().defers_task_work) RunWork();
}

// The source whose listener an operation names; kNobody after a failure.
uint32_t SimRing::SourceOf(const Op& op) const {
  const uint32_t source = world_->kernel().SourceOf(op.fd);
  if (source != SimKernel::kNobody && world_->MasterOf(source) == master_ &&
      world_->IndexOf(source) == op.key.index) {
    return source;
  }
  world_->checker().Fail("an operation names a listener that is not its source's");
  return SimKernel::kNobody;
}

void SimRing::Submit(const Op& op) {
  switch (op.key.kind) {
    case OpKind::kWatch:
      if (op.fd != World::kWatchFd) world_->checker().Fail("the wrong fd is watched");
      Arm(watch_, op);
      if (watch_.armed && knocked_) Wake(watch_, OpKind::kWatch, 0);
      return;
    case OpKind::kCount: {
      const uint32_t source = SourceOf(op);
      return source == SimKernel::kNobody ? void() : Post(op.key, Count(source));
    }
    case OpKind::kOverflows: {
      const uint32_t source = SourceOf(op);
      return source == SimKernel::kNobody ? void() : Post(op.key, Overflows(source));
    }
    case OpKind::kState: {
      const uint32_t source = SourceOf(op);
      return source == SimKernel::kNobody ? void() : Post(op.key, State(source));
    }
    case OpKind::kPollEnd:
      return End(op, OpKind::kPoll);
    case OpKind::kHangUpEnd:
      return End(op, OpKind::kHangUp);
    case OpKind::kAcceptEnd:
      return End(op, OpKind::kAcceptEach);
    case OpKind::kDoorbell: {
      const int32_t result = world_->Doorbell(master_, op);
      if (result < 0) Post(op.key, result);
      return;
    }
    case OpKind::kSend:
      return Send(op);
    case OpKind::kInstall:
      return world_->StartInstall(master_, op);
    case OpKind::kLetGo:
      return world_->LetGo(master_, op);
    case OpKind::kClose:
      return world_->CloseRefused(op.fd);
    case OpKind::kPoll:
    case OpKind::kHangUp:
    case OpKind::kAcceptEach:
    case OpKind::kAccept:
      break;
  }
  const uint32_t source = SourceOf(op);
  if (source == SimKernel::kNobody) return;
  if (op.key.kind == OpKind::kPoll) {
    Multishot& poll = sources_[source].poll;
    Arm(poll, op);
    if (poll.armed && PollMask(source) != 0) PostMultishot(poll, PollMask(source), false);
  } else if (op.key.kind == OpKind::kHangUp) {
    Multishot& hang_up = sources_[source].hang_up;
    Arm(hang_up, op);
    if (hang_up.armed && HungUp(source)) PostMultishot(hang_up, kHungUp | kEnded, true);
  } else if (op.key.kind == OpKind::kAcceptEach) {
    Arm(sources_[source].accept, op);
    AcceptEach(source);
  } else if (world_->config().accepts_at_reap) {
    queue_.push_back({.completion = {.key = op.key}, .source = source, .accepts = true});
  } else {
    queue_.push_back({.completion = Accept(op.key, source), .source = source});
  }
}

int32_t SimRing::Count(uint32_t source) {
  auto count = static_cast<int32_t>(world_->kernel().Backlog(source));
  if (count > 0 && world_->Breaks(Breakage::kRingCountsTooFew)) --count;
  world_->checker().OnCounted(source, static_cast<uint32_t>(count));
  return count;
}

int32_t SimRing::Overflows(uint32_t source) {
  world_->checker().OnAskedForOverflows(source);
  return world_->breaks(Breakage::kRingHidesOverflows) ? 0 : world_->kernel().Overflows(source);
}

int32_t SimRing::State(uint32_t source) {
  if (world_->breaks(Breakage::kSocketNeverListens)) return 0;
  if (!world_->kernel().shut(source)) return core::kListens;
  if (!world_->kernel().local(source)) return 0;
  return world_->breaks(Breakage::kSocketDeniesItsEnd) ? core::kListens : core::kEnds;
}

bool SimRing::HungUp(uint32_t source) const {
  return world_->kernel().shut(source) && !world_->breaks(Breakage::kRingHidesTheHangUp);
}

void SimRing::Send(const Op& op) {
  const uint32_t worker = world_->kernel().WorkerOf(op.fd);
  const int32_t result = world_->Send(op);
  if (result >= 0 || world_->Breaks(Breakage::kRingHidesSendFailure)) return;
  queue_.push_back({.completion = {.key = op.key, .result = result},
                    .unsent_fd = op.sent,
                    .unsent_to = worker,
                    .unsent_ticket_of = world_->TicketOf(op)});
}

void SimRing::OnInstallDone(const Op& op, int32_t result, uint32_t worker) {
  if (result >= 0 && world_->Breaks(Breakage::kRingHidesInstalled, {1, 8})) return;
  queue_.push_back({.completion = {.key = op.key, .result = result},
                    .unsent_fd = result < 0 ? op.sent : -1,
                    .unsent_to = worker});
}

void SimRing::Arm(Multishot& multishot, const Op& op) {
  if (multishot.armed) world_->checker().Fail("armed twice");
  multishot.key = op.key;
  multishot.ending = false;
  multishot.armed = !world_->Happens(Fault::kArmFails);
  if (!multishot.armed) Post(op.key, -ENOMEM);
}

void SimRing::End(const Op& op, OpKind kind) {
  for (uint32_t source = 0; source < sources_.size(); ++source) {
    SourceRing& ring = sources_[source];
    Multishot& multishot = kind == OpKind::kPoll     ? ring.poll
                           : kind == OpKind::kHangUp ? ring.hang_up
                                                     : ring.accept;
    if (!multishot.armed || !SameArming(multishot.key, op.key)) continue;
    if (world_->Happens(Fault::kCancelLate)) {
      multishot.ending = true;
      return Wake(multishot, kind, source);
    }
    PostMultishot(multishot, -ECANCELED, true);
    multishot.armed = world_->removed(source) && world_->breaks(Breakage::kRingKeepsArmed);
    return;
  }
  // It has ended by itself, and its last completion has said so.
}

int32_t SimRing::PollMask(uint32_t source) const {
  const SimKernel& kernel = world_->kernel();
  if (!kernel.shut(source)) return kernel.Backlog(source) > 0 ? kReadable : 0;
  if (!HungUp(source)) return kReadable;
  return kernel.local(source) ? kReadable | kHungUp | kEnded : kReadable | kHungUp;
}

void SimRing::RunWork() {
  // Work that comes up meanwhile waits for the next run, as in the kernel.
  working_.clear();
  std::swap(working_, work_);
  for (const Work& work : working_) {
    const bool watch = work.kind == OpKind::kWatch;
    SourceRing& ring = sources_[work.source];
    Multishot& multishot = watch                          ? watch_
                           : work.kind == OpKind::kPoll   ? ring.poll
                           : work.kind == OpKind::kHangUp ? ring.hang_up
                                                          : ring.accept;
    multishot.pending = false;
    if (!multishot.armed) continue;
    if (work.kind == OpKind::kAcceptEach) {
      AcceptEach(work.source);
    } else if (work.kind == OpKind::kHangUp) {
      if (HungUp(work.source)) PostMultishot(multishot, kHungUp | kEnded, true);
    } else {
      PostMultishot(multishot, watch ? kReadable : kReadable | PollMask(work.source), false);
    }
    if (multishot.armed && multishot.ending) PostMultishot(multishot, -ECANCELED, true);
  }
}

void SimRing::AcceptEach(uint32_t source) {
  Multishot& multishot = sources_[source].accept;
  const SimKernel& kernel = world_->kernel();
  // A Unix listener that was shut down does not tell those who wait for a connection.
  const bool refuses = kernel.shut(source) && !kernel.local(source);
  while (multishot.armed && (kernel.Backlog(source) > 0 || kernel.OutOfDescriptors() || refuses)) {
    const Completion accepted = Accept(multishot.key, source);
    if (accepted.result >= 0 && world_->Breaks(Breakage::kRingLosesConnection, {1, 8})) continue;
    PostMultishot(multishot, accepted.result, accepted.result < 0, accepted.facts);
    if (accepted.result >= 0 && world_->Breaks(Breakage::kRingReportsTwice, {1, 8})) {
      Post(multishot.key, accepted.result);
    }
  }
}

Completion SimRing::Accept(const OpKey& key, uint32_t source) {
  Completion completion{.key = key};
  completion.result = world_->kernel().Accept(source, completion.facts);
  if ((key.facts & core::kFactIncomingCpu) == 0) completion.facts.incoming_cpu = -1;
  if ((key.facts & core::kFactPeer) == 0) completion.facts.peer = {};
  return completion;
}

void SimRing::ReadFacts(Completion& completion) {
  const OpKey& key = completion.key;
  const bool accepts = key.kind == OpKind::kAccept || key.kind == OpKind::kAcceptEach;
  if (!accepts || completion.result < 0) return;
  const uint32_t connection = world_->kernel().ConnectionOf(completion.result);
  if (connection == SimKernel::kNobody) return;
  const bool came = (key.facts & core::kFactCame) != 0;
  if (came) completion.came_at_ns = world_->kernel().CameAt(connection);
  const bool hung_up = world_->kernel().HasHungUp(connection);
  completion.gone = hung_up && (came || (key.facts & core::kFactGone) != 0);
  world_->checker().OnLookedAt(connection, completion.came_at_ns, hung_up);
}

void SimRing::Post(const OpKey& key, int32_t result) {
  queue_.push_back({.completion = {.key = key, .result = result}});
}

// Returns whether the operation goes on.
bool SimRing::PostMultishot(Multishot& multishot, int32_t result, bool last, const Arrival& facts) {
  const bool full = queue_.size() >= completion_entries_;
  if (full && !last) world_->Reached(Milestone::kFullCq);
  const bool goes_on = !last && !full;
  const bool says_more = goes_on || (full && !last && world_->Breaks(Breakage::kRingHidesTheEnd));
  queue_.push_back(
      {.completion = {.key = multishot.key, .result = result, .more = says_more, .facts = facts}});
  multishot.armed = goes_on;
  return goes_on;
}

void SimRing::Reap(std::vector<Completion>& completions, uint32_t accepts_max) {
  completions.clear();
  if (world_->breaks(Breakage::kRingKeepsNothingBack)) accepts_max = UINT32_MAX;
  if (world_->config().keeps_back) {
    std::erase_if(queue_, [this](const Queued& queued) {
      if (queued.completion.key.kind != OpKind::kAcceptEach) return false;
      kept_.push_back(queued.completion);
      ReadFacts(kept_.back());
      return true;
    });
  }
  while (!queue_.empty() && completions.size() < completions.capacity()) {
    const Queued& first = queue_.front();
    completions.push_back(first.accepts ? Accept(first.completion.key, first.source)
                                        : first.completion);
    ReadFacts(completions.back());
    if (first.unsent_fd >= 0) {
      world_->OnSendFailureTold(master_, first.unsent_fd, first.unsent_to, first.unsent_ticket_of);
    }
    queue_.pop_front();
  }
  for (; !kept_.empty() && completions.size() < completions.capacity(); kept_.pop_front()) {
    const bool connection = kept_.front().result >= 0;
    if (connection && accepts_max == 0) return world_->Reached(Milestone::kKeptBack);
    if (connection) --accepts_max;
    completions.push_back(kept_.front());
  }
}

}  // namespace ringmaster::sim
