#include <cstddef>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "c/handles.h"
#include "c/result.h"
#include "c/structs.h"
#include "ringmaster/ringmaster.h"
#include "ringmaster/stats.h"

namespace ringmaster::c {
namespace {

template <typename Number>
int64_t OrUnknown(std::optional<Number> number) {
  return number.has_value() ? static_cast<int64_t>(*number) : -1;
}

ringmaster_totals Translate(const BalancerStats& from) {
  return {.struct_size = sizeof(ringmaster_totals),
          .accepted = from.accepted,
          .passed_on = from.passed_on,
          .refused = from.refused,
          .dropped = from.dropped,
          .gone = from.gone,
          .recalled = from.recalled,
          .moved = from.moved,
          .held = from.held,
          .master_wakes = from.master_wakes};
}

ringmaster_source_stats Translate(const SourceStats& from) {
  return {.struct_size = sizeof(ringmaster_source_stats),
          .source = from.source,
          .aimed = from.aimed,
          .accepted = from.accepted,
          .passed_on = from.passed_on,
          .claimed = from.claimed,
          .refused = from.refused,
          .dropped = from.dropped,
          .gone = from.gone,
          .held = from.held,
          .set_aside = from.set_aside,
          .oldest_set_aside_ns = NsOf(from.oldest_set_aside),
          .times_set_aside = from.times_set_aside,
          .pauses = from.pauses,
          .rearms = from.rearms,
          .errors = from.errors,
          .policy_faults = from.policy_faults,
          .backlog = OrUnknown(from.backlog),
          .backlog_limit = OrUnknown(from.backlog_limit),
          .backlog_overflows = OrUnknown(from.backlog_overflows)};
}

ringmaster_worker_stats Translate(const WorkerStats& from) {
  return {.struct_size = sizeof(ringmaster_worker_stats),
          .worker = from.worker,
          .unclaimed = from.unclaimed,
          .open = from.open,
          .reserved = 0,
          .assigned = from.assigned,
          .claimed = from.claimed,
          .by_permit = from.by_permit,
          .recalled = from.recalled,
          .moved = from.moved,
          .doorbells = from.doorbells,
          .stalls = from.stalls,
          .table_full = from.table_full,
          .oldest_unclaimed_ns = NsOf(from.oldest_unclaimed)};
}

template <typename From, typename To>
absl::Status TellOne(const char* name, const std::vector<From>& all, size_t position, To* to) {
  if (position >= all.size()) {
    return absl::InvalidArgumentError(absl::StrCat("position is ", position, ", but there are ",
                                                   all.size(), " of them, numbered from 0"));
  }
  return Write(name, Translate(all[position]), to->struct_size, to);
}

}  // namespace
}  // namespace ringmaster::c

using ringmaster::c::Do;
using ringmaster::c::TellOne;
using ringmaster::c::Translate;
using ringmaster::c::Write;

int ringmaster_stats_totals(const ringmaster_stats* stats, ringmaster_totals* totals) {
  return Do({{"stats", stats}, {"totals", totals}}, [&] {
    return Write("ringmaster_totals", Translate(stats->stats()), totals->struct_size, totals);
  });
}

int64_t ringmaster_stats_source_count(const ringmaster_stats* stats) {
  return Do({{"stats", stats}},
            [&] { return static_cast<int64_t>(stats->stats().sources.size()); });
}

int ringmaster_stats_source(const ringmaster_stats* stats, size_t position,
                            ringmaster_source_stats* source) {
  return Do({{"stats", stats}, {"source", source}}, [&] {
    return TellOne("ringmaster_source_stats", stats->stats().sources, position, source);
  });
}

int64_t ringmaster_stats_worker_count(const ringmaster_stats* stats) {
  return Do({{"stats", stats}},
            [&] { return static_cast<int64_t>(stats->stats().workers.size()); });
}

int ringmaster_stats_worker(const ringmaster_stats* stats, size_t position,
                            ringmaster_worker_stats* worker) {
  return Do({{"stats", stats}, {"worker", worker}}, [&] {
    return TellOne("ringmaster_worker_stats", stats->stats().workers, position, worker);
  });
}

int ringmaster_stats_departed(const ringmaster_stats* stats, ringmaster_worker_stats* sums) {
  return Do({{"stats", stats}, {"sums", sums}}, [&] {
    return Write("ringmaster_worker_stats", Translate(stats->stats().departed), sums->struct_size,
                 sums);
  });
}

int ringmaster_stats_free(ringmaster_stats* stats) {
  return Do([&]() -> absl::Status {
    if (stats != nullptr && stats->borrowed != nullptr) {
      return absl::FailedPreconditionError(
          "these statistics were lent to on_ended, and end with its call: free what "
          "ringmaster_balancer_stats, …_shutdown and …_ended have stored");
    }
    delete stats;
    return absl::OkStatus();
  });
}
