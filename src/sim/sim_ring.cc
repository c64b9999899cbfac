#include "sim/sim_ring.h"

#include <algorithm>
#include <cerrno>

#include "sim/world.h"

namespace ringmaster::sim {

using core::Completion;
using core::Op;
using core::OpKey;
using core::OpKind;

namespace {

constexpr int32_t kReadable = 1;  // POLLIN

}  // namespace

SimRing::SimRing(World* world, uint32_t sources, uint32_t completion_entries)
    : world_(world), completion_entries_(completion_entries), sources_(sources) {}

int SimRing::Turn(std::span<const Op> ops, int64_t wait_ns_max,
                  std::vector<Completion>& completions) {
  for (const Op& op : ops) Submit(op);
  if (!world_->config().defers_task_work) RunWork();
  const int64_t now_ns = world_->now_ns();
  const int64_t until_ns =
      wait_ns_max > core::kWaitForever - now_ns ? core::kWaitForever : now_ns + wait_ns_max;
  world_->Pass(world_->TurnCost());
  bool slept = false;
  while (!HasSomething() && world_->now_ns() < until_ns && world_->StepUntil(until_ns))
    slept = true;
  if (slept) world_->Pass(world_->MasterWakeCost());
  Multishot& poll = sources_[world_->prng().Below(sources_.size())].poll;
  if (poll.armed && world_->Happens(Fault::kSpuriousEdge)) PostMultishot(poll, kReadable, false);
  RunWork();
  Reap(completions);
  return 0;
}

void SimRing::OnArrival(uint32_t source) {
  SourceRing& ring = sources_[source];
  if (ring.accept.armed) Wake(ring.accept, OpKind::kAcceptEach, source);
  if (!ring.poll.armed || world_->Breaks(Breakage::kRingLosesEdge, {1, 8})) return;
  if (ring.poll.pending) {
    if (world_->Happens(Fault::kEdgeMerged)) return;
    RunWork();  // the master's task was in the kernel just then
  }
  Wake(ring.poll, OpKind::kPoll, source);
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

void SimRing::Submit(const Op& op) {
  const uint32_t source = op.key.index;
  switch (op.key.kind) {
    case OpKind::kWatch:
      Arm(watch_, op);
      if (knocked_) Wake(watch_, OpKind::kWatch, 0);
      return;
    case OpKind::kPoll:
      Arm(sources_[source].poll, op);
      if (world_->Backlog(source) > 0) PostMultishot(sources_[source].poll, kReadable, false);
      return;
    case OpKind::kPollEnd:
      return End(sources_[source].poll, OpKind::kPoll, source);
    case OpKind::kAcceptEach:
      Arm(sources_[source].accept, op);
      return AcceptEach(source);
    case OpKind::kAcceptEnd:
      return End(sources_[source].accept, OpKind::kAcceptEach, source);
    case OpKind::kAccept:
      if (op.fd != World::SourceFd(source)) world_->checker().Fail("an accept from the wrong fd");
      if (world_->config().accepts_at_reap) {
        queue_.push_back({.completion = {.key = op.key}, .accepts = true});
      } else {
        queue_.push_back({.completion = Accept(op.key)});
      }
      return;
    case OpKind::kDoorbell: {
      const int32_t result = world_->Doorbell(op);
      if (result < 0) Post(op.key, result);
      return;
    }
    case OpKind::kSend:
      return world_->checker().Fail("a connection is sent although every worker has an inbox");
    case OpKind::kClose:
      return world_->CloseRefused(op.fd);
  }
}

void SimRing::Arm(Multishot& multishot, const Op& op) {
  if (multishot.armed) world_->checker().Fail("armed twice");
  const bool watch = op.key.kind == OpKind::kWatch;
  if (op.fd != (watch ? World::kWatchFd : World::SourceFd(op.key.index))) {
    world_->checker().Fail("the wrong fd is watched");
  }
  multishot.key = op.key;
  multishot.armed = true;
  multishot.ending = false;
}

void SimRing::End(Multishot& multishot, OpKind kind, uint32_t source) {
  if (!multishot.armed) return;  // it has ended by itself, and its last completion has said so
  if (world_->Happens(Fault::kCancelLate)) {
    multishot.ending = true;
    return Wake(multishot, kind, source);
  }
  PostMultishot(multishot, -ECANCELED, true);
}

void SimRing::RunWork() {
  // Work that comes up meanwhile waits for the next run, as in the kernel.
  working_.clear();
  std::swap(working_, work_);
  for (const Work& work : working_) {
    SourceRing& ring = sources_[work.kind == OpKind::kWatch ? 0 : work.source];
    Multishot& multishot = work.kind == OpKind::kWatch  ? watch_
                           : work.kind == OpKind::kPoll ? ring.poll
                                                        : ring.accept;
    multishot.pending = false;
    if (!multishot.armed) continue;
    if (work.kind == OpKind::kAcceptEach) {
      AcceptEach(work.source);
    } else {
      PostMultishot(multishot, kReadable, false);
    }
    if (multishot.armed && multishot.ending) PostMultishot(multishot, -ECANCELED, true);
  }
}

void SimRing::AcceptEach(uint32_t source) {
  Multishot& multishot = sources_[source].accept;
  while (multishot.armed && (world_->Backlog(source) > 0 || world_->OutOfDescriptors())) {
    const Completion accepted = Accept(multishot.key);
    if (accepted.result >= 0 && world_->Breaks(Breakage::kRingLosesConnection, {1, 8})) continue;
    PostMultishot(multishot, accepted.result, accepted.result < 0, accepted.facts);
    if (accepted.result >= 0 && world_->Breaks(Breakage::kRingReportsTwice, {1, 8})) {
      Post(multishot.key, accepted.result);
    }
  }
}

Completion SimRing::Accept(const OpKey& key) {
  Completion completion{.key = key};
  completion.result = world_->AcceptOne(key.index, completion.facts);
  if ((key.facts & core::kFactIncomingCpu) == 0) completion.facts.incoming_cpu = -1;
  if ((key.facts & core::kFactPeer) == 0) completion.facts.peer = {};
  return completion;
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

void SimRing::Reap(std::vector<Completion>& completions) {
  completions.clear();
  while (!queue_.empty() && completions.size() < completions.capacity()) {
    const Queued& first = queue_.front();
    completions.push_back(first.accepts ? Accept(first.completion.key) : first.completion);
    queue_.pop_front();
  }
}

}  // namespace ringmaster::sim
