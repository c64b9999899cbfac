#include "attack/checks.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

namespace ringmaster::attack {
namespace {

// Calls `see` with each name in a directory of /proc, but for that of the look itself.
template <class See>
void EachIn(const char* directory, See see) {
  DIR* open = opendir(directory);
  if (open == nullptr) Fail("%s: %s", directory, std::strerror(errno));
  const std::string own = std::to_string(dirfd(open));
  while (const dirent* entry = readdir(open))
    if (entry->d_name[0] != '.' && entry->d_name != own) see(entry->d_name);
  closedir(open);
}

// The thread sanitizer speaks with its symbolizer from its first report on, a suppressed one, too.
bool IsOfTheSanitizer(const char* name) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  char target[8] = {};
  const std::string path = std::string("/proc/self/fd/") + name;
  return readlink(path.c_str(), target, sizeof(target)) > 0 &&
         std::strncmp(target, "pipe:", 5) == 0;
#endif
#endif
  static_cast<void>(name);
  return false;
}

void PrintDescriptors() {
  EachIn("/proc/self/fd", [](const char* name) {
    char target[128];
    const std::string path = std::string("/proc/self/fd/") + name;
    const ssize_t size = readlink(path.c_str(), target, sizeof(target));
    std::fprintf(stderr, "  %s -> %.*s\n", name, static_cast<int>(std::max<ssize_t>(size, 0)),
                 target);
  });
}

void CheckWorker(const WorkerStats& worker, const std::string& when) {
  if (worker.unclaimed > worker.open)
    Fail("%s: worker %u has %u unclaimed, but %u open", when.c_str(), worker.worker,
         worker.unclaimed, worker.open);
  if (worker.assigned < worker.claimed + worker.recalled + worker.moved)
    Fail("%s: worker %u was assigned %llu, claimed %llu, and %llu were recalled, %llu moved",
         when.c_str(), worker.worker, static_cast<unsigned long long>(worker.assigned),
         static_cast<unsigned long long>(worker.claimed),
         static_cast<unsigned long long>(worker.recalled),
         static_cast<unsigned long long>(worker.moved));
  if (worker.oldest_unclaimed < absl::ZeroDuration())
    Fail("%s: worker %u has an offer of the future", when.c_str(), worker.worker);
}

}  // namespace

bool Expect(Call& call, const absl::Status& status, std::initializer_list<absl::StatusCode> codes) {
  call.Returns("%s", status.ToString().c_str());
  if (status.ok()) return true;
  if (std::find(codes.begin(), codes.end(), status.code()) == codes.end())
    Fail("this must not be answered: %s: %s", call.line(), status.ToString().c_str());
  if (status.message().empty()) Fail("an error without a text: %s", call.line());
  return false;
}

void ExpectError(Call& call, const absl::Status& status, absl::StatusCode code) {
  Expect(call, status, {code});
  if (status.ok()) Fail("this must be refused: %s", call.line());
}

void CheckStats(const BalancerStats& stats, const std::string& when) {
  if (!stats.status.ok())
    Fail("%s: no statistics: %s", when.c_str(), stats.status.ToString().c_str());
  uint64_t claimed = stats.departed.claimed;
  uint64_t offered_least = 0;
  for (const WorkerStats& worker : stats.workers) {
    CheckWorker(worker, when);
    claimed += worker.claimed;
  }
  uint64_t held = 0;
  for (const SourceStats& source : stats.sources) {
    const uint64_t gone = source.claimed + source.refused + source.dropped + source.held;
    const uint64_t came = source.accepted + source.passed_on;
    if (came < gone)
      Fail(
          "%s: source %u has accepted %llu, passed on %llu, but claimed %llu, refused %llu, "
          "dropped %llu, held %llu",
          when.c_str(), source.source, static_cast<unsigned long long>(source.accepted),
          static_cast<unsigned long long>(source.passed_on),
          static_cast<unsigned long long>(source.claimed),
          static_cast<unsigned long long>(source.refused),
          static_cast<unsigned long long>(source.dropped),
          static_cast<unsigned long long>(source.held));
    offered_least += came - gone;
    held += source.held;
  }
  if (held > stats.held) Fail("%s: sources hold more than the balancer", when.c_str());
  const uint64_t gone = claimed + stats.refused + stats.dropped + stats.held;
  if (stats.accepted + stats.passed_on < gone + offered_least)
    Fail(
        "%s: %llu accepted, %llu passed on, but %llu claimed, %llu refused, %llu dropped, "
        "%llu held, %llu offered",
        when.c_str(), static_cast<unsigned long long>(stats.accepted),
        static_cast<unsigned long long>(stats.passed_on), static_cast<unsigned long long>(claimed),
        static_cast<unsigned long long>(stats.refused),
        static_cast<unsigned long long>(stats.dropped), static_cast<unsigned long long>(stats.held),
        static_cast<unsigned long long>(offered_least));
}

void PrintStats(const BalancerStats& stats) {
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::fprintf(stderr, "  %llu accepted, %llu refused, %llu dropped, %llu held\n",
               number(stats.accepted), number(stats.refused), number(stats.dropped),
               number(stats.held));
  for (const SourceStats& source : stats.sources)
    std::fprintf(stderr,
                 "  source %u: %llu accepted, %llu claimed, %llu refused, %llu dropped, %llu held, "
                 "%llu pauses, %llu rearms, %llu errors, backlog %d\n",
                 source.source, number(source.accepted), number(source.claimed),
                 number(source.refused), number(source.dropped), number(source.held),
                 number(source.pauses), number(source.rearms), number(source.errors),
                 source.backlog.has_value() ? static_cast<int>(*source.backlog) : -1);
  for (const WorkerStats& worker : stats.workers)
    std::fprintf(stderr,
                 "  worker %u: %llu assigned, %llu claimed, %llu recalled, %llu stalls, "
                 "%u unclaimed, %u open\n",
                 worker.worker, number(worker.assigned), number(worker.claimed),
                 number(worker.recalled), number(worker.stalls), worker.unclaimed, worker.open);
}

void CheckReport(const ShutdownReport& report, const std::string& when) {
  if (!report.status.ok())
    Fail("%s: no report: %s", when.c_str(), report.status.ToString().c_str());
  CheckStats(report.stats, when);
  const BalancerStats& stats = report.stats;
  uint64_t claimed = stats.departed.claimed;
  for (const WorkerStats& worker : stats.workers) claimed += worker.claimed;
  if (stats.held != 0)
    Fail("%s: %llu are still held", when.c_str(), static_cast<unsigned long long>(stats.held));
  if (stats.accepted + stats.passed_on != claimed + stats.refused + stats.dropped)
    Fail("%s: %llu accepted, %llu passed on, but %llu claimed, %llu refused, %llu dropped",
         when.c_str(), static_cast<unsigned long long>(stats.accepted),
         static_cast<unsigned long long>(stats.passed_on), static_cast<unsigned long long>(claimed),
         static_cast<unsigned long long>(stats.refused),
         static_cast<unsigned long long>(stats.dropped));
  if (report.drained && (report.open != 0 || report.refused != 0))
    Fail("%s: drained, but %llu refused and %llu open", when.c_str(),
         static_cast<unsigned long long>(report.refused),
         static_cast<unsigned long long>(report.open));
}

Belongings Count() {
  Belongings count;
  EachIn("/proc/self/fd", [&](const char* name) {
    if (!IsOfTheSanitizer(name)) ++count.descriptors;
  });
  EachIn("/proc/self/task", [&](const char*) { ++count.threads; });
  return count;
}

void CheckNothingIsLeft(const Belongings& before) {
  Belongings now;
  for (int i = 0; i < 1000; ++i) {
    now = Count();
    if (now.descriptors <= before.descriptors && now.threads <= before.threads) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  PrintDescriptors();
  Fail("%zu descriptors and %zu threads are left, there were %zu and %zu", now.descriptors,
       now.threads, before.descriptors, before.threads);
}

}  // namespace ringmaster::attack
