// What follows the attack: everything is mended and must be served; then the balancer ends.

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "attack/calls.h"
#include "attack/checks.h"
#include "attack/world.h"

namespace ringmaster::attack {
namespace {

constexpr double kServedWithin = 10;  // seconds
constexpr auto kGone = absl::StatusCode::kFailedPrecondition;

// Whether everybody may expect to be served there.
bool IsSound(const SourceRecord& record) { return !record.removed && !record.spoilt; }

}  // namespace

void World::MendAndCheckLiveness() {
  Mend();
  JoinEverything();
  CheckThatEverythingIsServed();
  CheckThatNothingIsOpen();
}

void World::Mend() {
  while (TakeSparePort(random).joined()) {
  }
  for (const auto& record : Sources()) {
    if (!record->removed && record->spoilt) {
      // Nobody can join it any more, and what it has accepted keeps places of the balancer.
      Call call("source %u is given up", record->id);
      Expect(call, record->handle.Remove(), {});
      record->removed = true;
    }
    if (!IsSound(*record)) continue;
    const auto file = record->file();
    if (file != nullptr) fcntl(file->fd(), F_SETFL, fcntl(file->fd(), F_GETFL) | O_NONBLOCK);
    Call call("source %u is mended", record->id);
    Expect(call, record->handle.SetPolicy(RoundRobin()), {});
    record->resumed.store(true);
    Expect(call, record->handle.Resume(), {});
  }
  FinishAll();
}

void World::JoinEverything() {
  std::vector<std::shared_ptr<PortBox>> boxes;
  {
    const std::lock_guard lock(ports_mutex_);
    boxes = ports_;
  }
  for (const auto& box : boxes) {
    const std::shared_lock stays(box->stays);
    for (const auto& record : Sources())
      if (!record->removed) Join(*box, *record);
  }
}

void World::CheckThatEverythingIsServed() {
  for (const auto& record : Sources()) {
    if (!IsSound(*record)) continue;
    Call call("source %u must be served", record->id);
    if (IsListener(record->kind)) {
      // Many at once, because the last of them may be forgotten. What does not fit into the backlog
      // comes again after seconds.
      const uint32_t burst = std::min(random.Between(1, 12), static_cast<uint32_t>(config.backlog));
      const uint32_t served = AskManyToBeServed(record->address, burst, kServedWithin);
      if (served < burst) {
        PrintStats(BalancerUse(*this)->Stats());
        Fail("of %u clients of source %u, index %u, %u wait in silence", burst, record->id,
             record->handle.index(), burst - served);
      }
      // Of several, because one of them may be served by chance.
      for (int i = 0; i < 3; ++i) {
        const Outcome outcome = AskToBeServed(record->address, kServedWithin);
        if (outcome == Outcome::kServed || (outcome == Outcome::kEnded && record->age_limited))
          continue;
        PrintStats(BalancerUse(*this)->Stats());
        Fail("a client of source %u, index %u, %s", record->id, record->handle.index(),
             outcome == Outcome::kSilence ? "waits in silence" : "was not served");
      }
    } else {
      const Watched watched = record->all();
      Excite(watched);
      pollfd look = {.fd = watched.file->fd(), .events = POLLIN};
      for (int i = 0; i < 500 && poll(&look, 1, 0) != 0; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      if (poll(&look, 1, 0) != 0) PrintStats(BalancerUse(*this)->Stats());
      WaitFor(kServedWithin, "nobody reads source " + std::to_string(record->id),
              [&] { return poll(&look, 1, 0) == 0; });
    }
    call.Returns("it was");
  }
}

void World::CheckThatNothingIsOpen() {
  BalancerStats stats;
  std::string what;
  // What others have accepted may wait for workers that never join again.
  std::set<uint32_t> sound;
  for (const auto& record : Sources())
    if (IsSound(*record)) sound.insert(record->handle.index());
  const auto rests = [&] {
    FinishAll();
    const BalancerUse use(*this);
    stats = use->Stats();
    CheckStats(stats, "at rest");
    for (const SourceStats& source : stats.sources)
      if (source.held != 0 && sound.contains(source.source))
        return what = std::to_string(source.held) + " held", false;
    for (const WorkerStats& worker : stats.workers)
      if (worker.open != 0 || worker.unclaimed != 0)
        return what = "worker " + std::to_string(worker.worker) + " has " +
                      std::to_string(worker.open) + " open, " + std::to_string(worker.unclaimed) +
                      " unclaimed",
               false;
    return true;
  };
  for (int i = 0; i < 2000; ++i) {
    if (rests()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  PrintStats(stats);
  Fail("at rest there is something left: %s", what.c_str());
}

void World::EndBalancer() {
  const bool at_rest = config.checks_liveness && !ending && !master_failed;
  if (config.host == Host::kThread) {
    const BalancerUse use(*this);
    const BalancerStats stats = use ? use->Stats() : BalancerStats{};
    uint64_t by_permit = stats.departed.by_permit;
    for (const WorkerStats& worker : stats.workers) by_permit += worker.by_permit;
    TraceByPermit(by_permit);
  }
  ending.store(true);
  const absl::Duration drain = absl::Milliseconds(at_rest ? 5000 : 100);
  switch (config.end) {
    case End::kShutdown:
    case End::kTwoShutdowns: {
      const BalancerUse use(*this);
      if (!use) return;
      ShutdownReport other;
      std::thread second;
      if (config.end == End::kTwoShutdowns)
        second = std::thread([&, options = DrawShutdown(random, drain)]() mutable {
          NameThread("second");
          Call call("Shutdown");
          other = use->Shutdown(std::move(options));
          call.Returns("%llu refused", static_cast<unsigned long long>(other.refused));
        });
      ShutdownOptions options = DrawShutdown(random, drain);
      Call call("Shutdown");
      const ShutdownReport report = use->Shutdown(std::move(options));
      call.Returns("%llu refused, %llu open%s", static_cast<unsigned long long>(report.refused),
                   static_cast<unsigned long long>(report.open), report.drained ? ", drained" : "");
      CheckReport(report, "Shutdown");
      if (second.joinable()) {
        second.join();
        if (other.refused != report.refused || other.open != report.open ||
            other.drained != report.drained || other.stats.accepted != report.stats.accepted)
          Fail("two shutdowns have different reports");
      }
      if (!use->Ended().has_value()) Fail("Shutdown has returned, but nothing has ended");
      const BalancerStats stats = use->Stats();
      CheckStats(stats, "after the shutdown");
      if (stats.accepted != report.stats.accepted) Fail("Stats after the end are not the report's");
      for (const auto& record : Sources()) ExpectError(call, record->handle.Pause(), kGone);
      break;
    }
    case End::kBeginShutdown: {
      const BalancerUse use(*this);
      if (!use) return;
      Call call("BeginShutdown");
      Expect(call, use->BeginShutdown(DrawShutdown(random, drain)), {});
      WaitFor(10, "what BeginShutdown has begun does not end",
              [&] { return use->Ended().has_value(); });
      CheckReport(*use->Ended(), "Ended");
      break;
    }
    case End::kDestroyed:
      if (config.host != Host::kThread) {
        destroy_on_host.store(true);
        WaitFor(10, "the host does not destroy the balancer", [&] { return !BalancerUse(*this); });
      } else {
        WaitFor(10, "somebody keeps the balancer", [&] { return TryToDestroy(*this, nullptr); });
      }
      break;
    case End::kHostGoneDestroyed:
      break;  // when all threads have ended
  }
}

}  // namespace ringmaster::attack
