// Sources that are aimed: what the kernel does for their desks, who else goes on while somebody
// holds one, and what must be true of desks, permits and sights whenever nobody is in the middle of
// a visit.

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "sim/world.h"

namespace ringmaster::sim {

namespace {

// While whoever holds a desk is slow: for how long others go on, unless it stalls, and how many
// things they do.
constexpr int64_t kMeanwhileNsMax = 50'000;
constexpr uint64_t kMeanwhileMax = 8;
// So many visits may be under way at a time.
constexpr size_t kHeldMax = 2;

}  // namespace

int SimSights::Show(int sight, bool again) {
  return world_->Show(source_, sight, again, /*asleep=*/false);
}
int SimSights::ShowAsleep(int sight, bool again) {
  return world_->Show(source_, sight, again, /*asleep=*/true);
}
int SimSights::Listener() const { return world_->ListenerOf(source_); }
void SimSights::Wake(int sight, int listener) { world_->Wake(sight, listener); }
void SimSights::Hide(int sight) { world_->Hide(source_, sight); }
int SimSights::Waiting() { return world_->WaitingAt(source_); }
void SimSights::CallMaster() { world_->CallMaster(source_); }
// Nobody else can go on from here: masters have no batch while a desk is held.
void SimSights::Yield() { world_->checker().Fail("a master waits for a desk that nobody holds"); }

// A worker that has died, or with whom the world ends, may be in the middle of a claim.
World::~World() {
  for (const WorkerEntry& entry : workers_) {
    if (PermitUser* const permits = entry.worker->permits(); permits != nullptr) permits->Abandon();
  }
}

// --- What the kernel does for a desk -------------------------------------------------------------

// The number of the listener may be another socket's by now.
bool World::IsOwnListener(uint32_t source) {
  const bool own = kernel_.SourceOf(sources_[source].fd) == source;
  if (!own) checker_.Fail("a desk uses the number of a listener that was closed");
  return own;
}

uint32_t World::WorkerOfSight(int sight) {
  const uint32_t id = kernel_.WorkerOfSight(sight);
  if (id == SimKernel::kNobody) checker_.Fail("a desk uses the number of a sight that was closed");
  return id;
}

// One that stands there is taken out and added again. So it may be gone when this fails.
int World::Show(uint32_t source, int sight, bool again, bool asleep) {
  GoOnMeanwhile(source);
  const uint32_t id = WorkerOfSight(sight);
  if (id == SimKernel::kNobody || !IsOwnListener(source)) return EBADF;
  SimSight& shown = worker(id).permits()->sight();
  if (shown.Shows(source) != again) checker_.Fail("a desk does not know what a sight shows");
  Note("shows", {{"source", source}, {"worker", id}, {"again", again}, {"asleep", asleep}});
  CheckPermitsOut(source);
  if (again) shown.Remove(source);
  sources_[source].show_failed = Happens(Fault::kSightFails);
  if (sources_[source].show_failed) return prng_.Chance({1, 2}) ? ENOMEM : ENOSPC;
  shown.Add(source, asleep);
  if (!asleep) LookAt(source, id);
  GoOnMeanwhile(source);
  return 0;
}

int World::ListenerOf(uint32_t source) const { return sources_[source].fd; }

// Whoever does this holds the desk no more, so others may have gone on. They may have hidden the
// source. The master closes no descriptor before this is over.
void World::Wake(int sight, int listener) {
  GoOnMeanwhile(SimKernel::kNobody);
  const uint32_t id = WorkerOfSight(sight);
  const uint32_t source = kernel_.SourceOf(listener);
  if (id == SimKernel::kNobody) return;
  if (source == SimKernel::kNobody) {
    return checker_.Fail("a desk uses the number of a listener that was closed");
  }
  SimSight& shown = worker(id).permits()->sight();
  Note("wakes", {{"source", source}, {"worker", id}});
  if (!shown.Shows(source)) return Reached(Milestone::kHiddenBeforeWoken);
  if (shown.IsAwake(source) || breaks(Breakage::kSightSleepsOn)) return;
  shown.Add(source, /*asleep=*/false);
  if (!breaks(Breakage::kSightWokenBlindly)) LookAt(source, id);
}

// The kernel looks whether it is readable, for a sight that shows it from now on.
void World::LookAt(uint32_t source, uint32_t id) {
  if (!Readable(source)) return;
  worker(id).permits()->sight().SetReady(source);
  worker(id).OnSight();
}

void World::Hide(uint32_t source, int sight) {
  GoOnMeanwhile(source);
  const uint32_t id = WorkerOfSight(sight);
  if (id == SimKernel::kNobody || !IsOwnListener(source)) return;
  SimSight& shown = worker(id).permits()->sight();
  if (!shown.Shows(source) && !sources_[source].show_failed) {
    checker_.Fail("a desk hides what a sight does not show");
  }
  Note("hides", {{"source", source}, {"worker", id}});
  if (shown.Shows(source) && !breaks(Breakage::kSightStays)) shown.Remove(source);
  core::Permits& permits = PermitsOf(id, source);
  const bool closes = DeskOf(sources_[source])->desk.closed_for() != core::Desk::Closed::kNot;
  if (closes && Breaks(Breakage::kPermitStays)) permits.Issue();
  GoOnMeanwhile(source);
}

int World::WaitingAt(uint32_t source) {
  GoOnMeanwhile(source);
  if (!IsOwnListener(source)) return -EBADF;
  if (Happens(Fault::kUncounted)) return -EOPNOTSUPP;
  const auto waiting = static_cast<int>(kernel_.Backlog(source));
  sources_[source].counted = static_cast<uint32_t>(waiting);
  Note("counts", {{"source", source}, {"waiting", waiting}});
  GoOnMeanwhile(source);
  return waiting;
}

void World::CallMaster(uint32_t source) {
  Source& it = sources_[source];
  const core::Desk& desk = DeskOf(it)->desk;
  Note("calls the master", {{"source", source}, {"why", static_cast<int64_t>(desk.closed_for())}});
  switch (desk.closed_for()) {
    case core::Desk::Closed::kFull:
      Reached(Milestone::kDeskFull);
      break;
    case core::Desk::Closed::kNoPlace:
      Reached(Milestone::kDeskWithoutPlace);
      break;
    case core::Desk::Closed::kTrouble:
      Reached(Milestone::kDeskInTrouble);
      break;
    case core::Desk::Closed::kUncounted:
      Reached(Milestone::kDeskUncounted);
      break;
    case core::Desk::Closed::kNot:
    case core::Desk::Closed::kByMaster:
    case core::Desk::Closed::kPolicy:
      checker_.Fail("a holder closes a desk for no reason");
      break;
  }
  it.called_at_ns = now_ns_;
  if (!Breaks(Breakage::kDeskCallsNobody)) MasterAt(it).ring.OnKnock();
}

// A connection has come, or nothing will any more: every sight that shows the source is ready.
void World::WakeSights(uint32_t source) {
  if (!sources_[source].config.aimed) return;
  for (const WorkerEntry& entry : workers_) {
    PermitUser* const permits = entry.worker->permits();
    if (permits == nullptr || !permits->sight().IsAwake(source)) continue;
    permits->sight().SetReady(source);
    entry.worker->OnSight();
  }
}

// --- While somebody holds a desk -----------------------------------------------------------------

bool World::InBatch() const {
  return std::any_of(masters_.begin(), masters_.end(),
                     [](const SimMaster& master) { return master.in_batch; });
}

// What may happen while somebody holds a desk. In the middle of a batch the checker does not know
// yet what was offered, so nobody begins a claim of offers then.
bool World::MayGoOn(const Event& event) const {
  switch (event.what) {
    case Happening::kArrival:
    case Happening::kWake:
    case Happening::kOwnWork:
    case Happening::kHangUp:
    case Happening::kRelease:
    case Happening::kReleaseKnock:
    case Happening::kVisitDesks:
      return true;
    case Happening::kStep:
      return !InBatch() || worker(event.a).MayStepInBatch();
    case Happening::kClose:
    case Happening::kPassOnPlace:
    case Happening::kPassOnKnock:
      return !InBatch();
    default:
      return false;
  }
}

// Others go on until the holder does. What they would do soon, they do now; or time passes, until a
// master would have to wait for the holder. In a batch no time passes, because the master's own
// slowness is held against it.
void World::GoOnMeanwhile(uint32_t source) {
  if (meanwhile_.size() >= kHeldMax || checker_.failed() || !Happens(Fault::kMeanwhile)) return;
  const bool in_batch = InBatch();
  const bool at_once = in_batch || prng_.Chance({1, 2});
  const int64_t for_ns = prng_.Chance({1, 8}) ? StallTime() : prng_.Between(0, kMeanwhileNsMax);
  const int64_t until_ns = now_ns_ + for_ns;
  meanwhile_.push_back(source);
  for (uint64_t left = 1 + prng_.Below(kMeanwhileMax); left > 0 && !checker_.failed(); --left) {
    int64_t end_ns = until_ns;
    for (const SimMaster& master : masters_) {
      if (!at_once) end_ns = std::min(end_ns, master.at_ns - 1);
    }
    auto next = events_.end();
    for (auto it = events_.begin(); it != events_.end(); ++it) {
      if (it->at_ns > end_ns || !MayGoOn(*it)) continue;
      if (next == events_.end() || Later()(*next, *it)) next = it;
    }
    if (next == events_.end()) break;
    const Event event = *next;
    events_.erase(next);
    std::make_heap(events_.begin(), events_.end(), Later());
    if (!at_once) now_ns_ = std::max(now_ns_, event.at_ns);
    ++counters_.events;
    Note("meanwhile", {{"source", source}});
    if (in_batch) checker_.OnMeanwhile();
    Do(event);
    WakeMasters();
  }
  meanwhile_.pop_back();
}

// --- For workers that have permits ---------------------------------------------------------------

int32_t World::AcceptByPermit(uint32_t source) {
  if (!IsOwnListener(source)) return -EBADF;
  Arrival facts;
  while (true) {
    const int32_t fd = kernel_.Accept(source, facts);
    // That client has gone; the next one may be there.
    if (fd != -ECONNABORTED) return fd;
  }
}

void World::KnockForPlace(uint32_t id) {
  for (SimMaster& master : masters_) {
    if (master.hunger.HearKnock()) Knock(master.index, id);
  }
}

bool World::MayVisit(uint32_t master, uint32_t index) {
  return !breaks(Breakage::kVisitorLeavesNoNote) || !IsHeld(SourceAt(master, index));
}

bool World::IsHeld(uint32_t source) const {
  return std::find(meanwhile_.begin(), meanwhile_.end(), source) != meanwhile_.end();
}

void World::OnTroubleSaid(uint32_t source) {
  // Whoever holds it closes it.
  if (IsHeld(source) || DeskOf(sources_[source])->desk.closed()) return;
  checker_.Fail("a worker could not accept by a permit, and the master does not get the desk");
}

void World::NoteVisit(uint32_t id, uint32_t master, uint32_t index) {
  const uint32_t source = SourceAt(master, index);
  Note("visits", {{"worker", id}, {"source", source}});
  if (IsHeld(source)) Reached(Milestone::kNoted);
}

void World::VisitHungryDesks() {
  for (SimMaster& master : masters_) {
    master.hungry_desks.Take([&](uint32_t index) {
      if (!MayVisit(master.index, index)) return;
      const uint32_t source = SourceAt(master.index, index);
      Note("visits for a freed place", {{"source", source}});
      Reached(Milestone::kFreedPlaceShown);
      if (IsHeld(source)) Reached(Milestone::kNoted);
      DeskAt(master.index, index)->Visit();
    });
  }
}

void World::OnRedeemsNoMore(uint32_t id) {
  if (worker(id).port_state().redeeming != 0) return;
  bool any = false;
  for (Source& source : sources_) any |= std::erase(source.redeemers, id) > 0;
  if (!any || !running_) return;
  for (const SimMaster& master : masters_) {
    if (!master.in_batch) CloseRemoved(master);
  }
}

// --- What is checked -----------------------------------------------------------------------------

bool World::HasDesks() const {
  return std::any_of(sources_.begin(), sources_.end(),
                     [](const Source& source) { return source.config.aimed; });
}

// Whether the master looks after its desks, as it does until nothing has come for long.
bool World::LooksAfterDesks(const SimMaster& master) const {
  return std::any_of(sources_.begin(), sources_.end(), [&](const Source& source) {
    return source.master == master.index && source.aimed_since_ns >= 0 &&
           !master.engine->armed(source.index);
  });
}

// The desk for a source that is about to be added at that index.
SimDesk* World::PrepareDesk(SimMaster& master, uint32_t index, uint32_t source) {
  std::unique_ptr<SimDesk>& desk = master.at_index[index].desk;
  if (desk == nullptr) desk = std::make_unique<SimDesk>(this);
  desk->sights.SetSource(source);
  return desk.get();
}

// Before a batch: whether the master was woken when a holder closed a desk.
void World::CheckCalls(const SimMaster& master) {
  for (Source& source : sources_) {
    if (source.master != master.index) continue;
    const int64_t called_at_ns = std::exchange(source.called_at_ns, -1);
    if (called_at_ns >= 0) checker_.CheckCall(master.index, called_at_ns, now_ns_);
  }
}

// After a batch, before the checker looks.
void World::NoteDesks(const SimMaster& master) {
  for (uint32_t index = 0; index < sources_.size(); ++index) {
    Source& source = sources_[index];
    if (source.master != master.index || !source.config.aimed) continue;
    const bool by_index = master.by_index[source.index] == index;
    const bool aimed = by_index && master.engine->aimed(source.index);
    if (!aimed) {
      source.aimed_since_ns = -1;
    } else if (source.aimed_since_ns < 0) {
      Reached(Milestone::kAimed);
      source.aimed_since_ns = now_ns_;
    }
    checker_.OnAimed(index, aimed);
  }
}

// Nobody holds a desk of this master.
void World::CheckDesks(SimMaster& master) {
  for (uint32_t index = 0; index < sources_.size() && !checker_.failed(); ++index) {
    const Source& source = sources_[index];
    if (source.master != master.index || !source.config.aimed ||
        master.by_index[source.index] != index) {
      continue;
    }
    const core::Desk& desk = DeskOf(source)->desk;
    CheckPermitsOf(index, desk);
    if (!desk.closed() && !checker_.failed()) CheckWaiters(index);
  }
}

void World::CheckPermitsOf(uint32_t index, const core::Desk& desk) {
  const Source& source = sources_[index];
  for (uint32_t id = 0; id < workers_.size(); ++id) {
    PermitUser* const permits = worker(id).permits();
    if (permits == nullptr) continue;
    const uint32_t claimable = permits->of(source.master).of_source[source.index].Read().claimable;
    const bool shown = permits->sight().Shows(index);
    const bool joined =
        std::find(source.joined.begin(), source.joined.end(), id) != source.joined.end();
    if (claimable > 0 && (desk.closed() || !joined)) {
      return checker_.Fail(
          "worker " + std::to_string(id) +
          (joined ? " has a permit of a desk that is closed" : " has a permit, and has left"));
    }
    if (shown && (desk.closed() || !joined)) {
      return checker_.Fail(
          "the sight of worker " + std::to_string(id) +
          (joined ? " shows a source whose desk is closed" : " shows a source that it has left"));
    }
    if (claimable > 0 && !shown) {
      return checker_.Fail("worker " + std::to_string(id) +
                           " has a permit, and its sight does not show the source");
    }
    if (claimable > 0 && kernel_.Backlog(index) > 0 && worker(id).SleepsSoundly()) {
      return checker_.Fail("worker " + std::to_string(id) +
                           " sleeps although it has a permit and something waits");
    }
  }
}

// Where permits are, and whether something waits for too long.
void World::CheckWaiters(uint32_t index) {
  const Source& source = sources_[index];
  std::vector<bool> able(workers_.size(), false);
  bool visits = false;
  for (const uint32_t id : source.joined) {
    const SimWorker& it = worker(id);
    able[id] = it.SleepsSoundly() && !it.Oversleeps();
    visits |= it.ChangesMind();
  }
  // Also a worker that has not joined the source: it visits every desk that is hungry.
  for (const WorkerEntry& entry : workers_) {
    const PermitUser* const permits = entry.worker->permits();
    visits |= permits != nullptr && permits->Visits(source.master, source.index);
  }
  checker_.CheckDesk(index, able, source.aimed_since_ns, now_ns_);
  if (visits || checker_.failed()) return;
  // Rules "astray" and "hungry" of core/desk.h.
  const auto permits_of = [&](uint32_t id) { return PermitsOf(id, index).Read(); };
  const bool astray = std::any_of(source.joined.begin(), source.joined.end(), [&](uint32_t id) {
    return permits_of(id).claimable > 0 && !worker(id).port_state().Awaits();
  });
  if (!astray) return;
  for (const uint32_t id : source.joined) {
    if (!able[id] || permits_of(id).out() > 0 || !checker_.WaitsWithAPlace(index, id, now_ns_)) {
      continue;
    }
    return checker_.Fail("a permit lies with a worker that is busy, although worker " +
                         std::to_string(id) + " waits");
  }
}

core::Permits& World::PermitsOf(uint32_t id, uint32_t source) {
  const Source& of = sources_[source];
  return worker(id).permits()->of(of.master).of_source[of.index];
}

// A permit has just been issued. Rule "how many" of core/desk.h.
void World::CheckPermitsOut(uint32_t index) {
  const Source& source = sources_[index];
  uint32_t out = 0;
  for (const uint32_t id : source.joined) {
    // Whether it was marked when the holder looked is not known.
    if (worker(id).permits()->IsMarked(source.master)) return;
    out += PermitsOf(id, index).Read().claimable;
    out += worker(id).permits()->Redeems(source.master, source.index) ? 1 : 0;
  }
  if (out > std::max(source.counted, 1u)) {
    checker_.Fail("more permits are out than connections wait");
  }
}

void World::CheckDesksAtRest() {
  for (uint32_t index = 0; index < sources_.size() && !checker_.failed(); ++index) {
    const Source& source = sources_[index];
    if (!source.config.aimed || source.removed || kernel_.shut(index) || source.joined.empty()) {
      continue;
    }
    const bool able = std::all_of(source.joined.begin(), source.joined.end(), [this](uint32_t id) {
      return worker(id).permits() != nullptr && worker(id).SleepsSoundly();
    });
    if (!able) continue;
    const bool may = checker_.started(index) && source.policy->AnyThread() &&
                     core::FactBits(source.policy->facts()) == 0;
    const bool aimed = source.aimed_since_ns >= 0;
    // Nobody wakes the master for this when a place is given back.
    const bool limited = source.gate != nullptr || gate_.limited() ||
                         std::any_of(source.joined.begin(), source.joined.end(), [&](uint32_t id) {
                           return workers_[id].at[source.master].capacity != UINT32_MAX;
                         });
    if (aimed && !may) return checker_.Fail("a source is aimed at rest");
    if (!aimed && may && !limited) return checker_.Fail("a source is not aimed at rest");
    if (!aimed) continue;
    uint32_t out = 0;
    for (const uint32_t id : source.joined) {
      const uint32_t here = PermitsOf(id, index).Read().out();
      out += here;
      if (worker(id).permits()->sight().Shows(index) != (here > 0)) {
        return checker_.Fail("a sight shows a source at rest, and its worker has no permit");
      }
    }
    if (out != 1) checker_.Fail(std::to_string(out) + " permits are out at rest");
  }
}

}  // namespace ringmaster::sim
