#include <cerrno>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "c/callbacks.h"
#include "c/handles.h"
#include "c/result.h"
#include "c/structs.h"
#include "ringmaster/balancer.h"
#include "ringmaster/ringmaster.h"

namespace ringmaster::c {
namespace {

static_assert(static_cast<int>(Host::kThread) == RINGMASTER_HOST_THREAD &&
              static_cast<int>(Host::kLoop) == RINGMASTER_HOST_LOOP &&
              static_cast<int>(Host::kRing) == RINGMASTER_HOST_RING);

constexpr bool Is(Event::Kind kind, int value) { return static_cast<int>(kind) == value; }
static_assert(Is(Event::Kind::kOutOfDescriptors, RINGMASTER_EVENT_OUT_OF_DESCRIPTORS) &&
              Is(Event::Kind::kAccepting, RINGMASTER_EVENT_ACCEPTING) &&
              Is(Event::Kind::kSourceBlocks, RINGMASTER_EVENT_SOURCE_BLOCKS) &&
              Is(Event::Kind::kSourceFailed, RINGMASTER_EVENT_SOURCE_FAILED) &&
              Is(Event::Kind::kWorkerStalled, RINGMASTER_EVENT_WORKER_STALLED) &&
              Is(Event::Kind::kWorkerMoves, RINGMASTER_EVENT_WORKER_MOVES) &&
              Is(Event::Kind::kDoorbellFailed, RINGMASTER_EVENT_DOORBELL_FAILED) &&
              Is(Event::Kind::kTurnedAway, RINGMASTER_EVENT_TURNED_AWAY) &&
              Is(Event::Kind::kHostGone, RINGMASTER_EVENT_HOST_GONE) &&
              Is(Event::Kind::kMasterFailed, RINGMASTER_EVENT_MASTER_FAILED) &&
              Is(Event::Kind::kBacklogOverflow, RINGMASTER_EVENT_BACKLOG_OVERFLOW) &&
              Is(Event::Kind::kPolicyFailed, RINGMASTER_EVENT_POLICY_FAILED) &&
              Is(Event::Kind::kSetAside, RINGMASTER_EVENT_SET_ASIDE) &&
              Is(Event::Kind::kTableFull, RINGMASTER_EVENT_TABLE_FULL));

ringmaster_balancer_options DefaultOptions() {
  const BalancerOptions defaults;
  ringmaster_balancer_options options{};
  options.struct_size = sizeof(options);
  options.host = static_cast<int>(defaults.host);
  options.masters = defaults.masters;
  options.cpu = defaults.cpu;
  options.capacity = defaults.capacity;
  options.recall_after_ns = NsOf(defaults.recall_after);
  options.restrict_ring = defaults.restrict_ring;
  options.close_after_fork = defaults.close_after_fork;
  options.completion_entries = defaults.completion_entries;
  return options;
}

// `balancer` will be the handle.
absl::StatusOr<BalancerOptions> Translate(const ringmaster_balancer_options* given,
                                          const ringmaster_balancer* balancer) {
  ringmaster_balancer_options from = DefaultOptions();
  absl::Status status = Read("ringmaster_balancer_options", given, &from);
  status.Update(
      CheckOneOf({"host", from.host}, RINGMASTER_HOST_RING,
                 "RINGMASTER_HOST_THREAD, RINGMASTER_HOST_LOOP and RINGMASTER_HOST_RING"));
  status.Update(CheckYesOrNo(
      {{"restrict_ring", from.restrict_ring}, {"close_after_fork", from.close_after_fork}}));
  status.Update(CheckReserved(from.reserved));
  if (!status.ok()) return status;
  BalancerOptions options;
  options.host = static_cast<Host>(from.host);
  options.masters = from.masters;
  if (from.thread_name != nullptr) options.thread_name = from.thread_name;
  options.cpu = from.cpu;
  options.recall_after = DurationOf(from.recall_after_ns);
  options.capacity = from.capacity;
  options.restrict_ring = from.restrict_ring != 0;
  options.close_after_fork = from.close_after_fork != 0;
  options.completion_entries = from.completion_entries;
  if (from.on_event != nullptr) {
    options.on_event = [balancer, on_event = from.on_event,
                        context = from.context](const Event& event) {
      const ringmaster_event copy = {.struct_size = sizeof(copy),
                                     .kind = static_cast<int>(event.kind),
                                     .source = event.source,
                                     .worker = event.worker,
                                     .error = event.error,
                                     .text = event.text.c_str()};
      const InCallback in_callback(balancer);
      on_event(context, &copy);
    };
  }
  return options;
}

absl::StatusOr<RingLoan> Translate(const ringmaster_ring_loan& given,
                                   const ringmaster_balancer* balancer) {
  ringmaster_ring_loan from{};
  absl::Status status = Read("ringmaster_ring_loan", &given, &from);
  status.Update(CheckReserved(from.reserved));
  if (!status.ok()) return status;
  RingLoan loan{.ring_fd = from.ring_fd,
                .user_data_mask = from.user_data_mask,
                .user_data_value = from.user_data_value};
  void* const context = from.context;
  if (from.get_sqe != nullptr) {
    loan.get_sqe = [balancer, context, get_sqe = from.get_sqe] {
      const InCallback in_callback(balancer);
      return get_sqe(context);
    };
  }
  if (from.submit != nullptr) {
    loan.submit = [balancer, context, submit = from.submit] {
      const InCallback in_callback(balancer);
      return submit(context);
    };
  }
  return loan;
}

ringmaster_shutdown_report Translate(const ShutdownReport& report) {
  ringmaster_shutdown_report to{};
  to.struct_size = sizeof(to);
  to.drained = report.drained;
  to.refused = report.refused;
  to.open = report.open;
  return to;
}

absl::StatusOr<ShutdownOptions> Translate(const ringmaster_shutdown_options* given,
                                          const ringmaster_balancer* balancer) {
  ringmaster_shutdown_options from{};
  absl::Status status = Read("ringmaster_shutdown_options", given, &from);
  if (status.ok() && from.drain_ns < 0) {
    status = absl::InvalidArgumentError(
        "drain_ns is negative: it is how long what was accepted may take, 0 for no time at all");
  }
  if (!status.ok()) return status;
  ShutdownOptions options{.drain = DurationOf(from.drain_ns)};
  void* const context = from.context;
  if (from.on_intake_ended != nullptr) {
    options.on_intake_ended = [balancer, context, told = from.on_intake_ended] {
      const InCallback in_callback(balancer);
      told(context);
    };
  }
  if (from.on_ended != nullptr) {
    options.on_ended = [balancer, context, told = from.on_ended](const ShutdownReport& report) {
      const ringmaster_shutdown_report copy = Translate(report);
      ringmaster_stats stats;
      stats.borrowed = &report.stats;
      const InCallback in_callback(balancer);
      told(context, &copy, &stats);
    };
  }
  return options;
}

// What the caller wants of a report.
absl::Status Tell(ShutdownReport report, ringmaster_shutdown_report* to, ringmaster_stats** stats) {
  if (!report.status.ok()) return report.status;
  if (to != nullptr) {
    absl::Status written =
        Write("ringmaster_shutdown_report", Translate(report), to->struct_size, to);
    if (!written.ok()) return written;
  }
  if (stats != nullptr) *stats = new ringmaster_stats{.own = std::move(report.stats)};
  return absl::OkStatus();
}

// Nothing is begun if the report could not be told in the end.
absl::Status CheckReport(const ringmaster_shutdown_report* report) {
  return report == nullptr ? absl::OkStatus()
                           : CheckStructSize("ringmaster_shutdown_report", report->struct_size);
}

}  // namespace
}  // namespace ringmaster::c

using ringmaster::c::CheckReport;
using ringmaster::c::Do;
using ringmaster::c::Tell;
using ringmaster::c::Translate;

int ringmaster_balancer_options_init(ringmaster_balancer_options* options, size_t struct_size) {
  return Do({{"options", options}}, [&] {
    return ringmaster::c::Write("ringmaster_balancer_options", ringmaster::c::DefaultOptions(),
                                struct_size, options);
  });
}

int ringmaster_balancer_create(const ringmaster_balancer_options* options,
                               ringmaster_balancer** balancer) {
  return Do({{"balancer", balancer}}, [&]() -> absl::Status {
    auto handle = std::make_unique<ringmaster_balancer>();
    absl::StatusOr<ringmaster::BalancerOptions> translated = Translate(options, handle.get());
    if (!translated.ok()) return translated.status();
    absl::StatusOr<std::unique_ptr<ringmaster::Balancer>> created =
        ringmaster::Balancer::Create(*std::move(translated));
    if (!created.ok()) return created.status();
    handle->balancer = *std::move(created);
    *balancer = handle.release();
    return absl::OkStatus();
  });
}

int ringmaster_balancer_free(ringmaster_balancer* balancer) {
  return Do([&]() -> absl::Status {
    if (ringmaster::c::InCallback::Of(balancer) && balancer != nullptr) {
      return absl::FailedPreconditionError(
          "a callback of this balancer, or a function of its policy, cannot free it: the master "
          "would wait for itself. Call ringmaster_balancer_begin_shutdown here, and free it on "
          "another thread");
    }
    delete balancer;
    return absl::OkStatus();
  });
}

int ringmaster_balancer_fd(const ringmaster_balancer* balancer) {
  return Do({{"balancer", balancer}}, [&] {
    const int fd = balancer->balancer->fd();
    if (fd >= 0) return fd;
    return ringmaster::c::Failed(absl::FailedPreconditionError(
        "this balancer has no descriptor to watch: only one with RINGMASTER_HOST_LOOP has, in the "
        "process that has made it"));
  });
}

int ringmaster_balancer_run_once(ringmaster_balancer* balancer) {
  return Do({{"balancer", balancer}}, [&] { return balancer->balancer->RunOnce(); });
}

int ringmaster_ring_loan_init(ringmaster_ring_loan* loan, size_t struct_size) {
  return Do({{"loan", loan}}, [&] {
    ringmaster_ring_loan none{};
    none.ring_fd = -1;
    return ringmaster::c::Write("ringmaster_ring_loan", none, struct_size, loan);
  });
}

int ringmaster_balancer_lend(ringmaster_balancer* balancer, const ringmaster_ring_loan* loan) {
  return Do({{"balancer", balancer}, {"loan", loan}}, [&]() -> absl::Status {
    absl::StatusOr<ringmaster::RingLoan> translated = Translate(*loan, balancer);
    if (!translated.ok()) return translated.status();
    return balancer->balancer->Lend(*std::move(translated));
  });
}

int ringmaster_balancer_on_completion(ringmaster_balancer* balancer,
                                      const struct io_uring_cqe* cqe) {
  return Do({{"balancer", balancer}, {"cqe", cqe}},
            [&] { return balancer->balancer->OnCompletion(*cqe) ? 1 : 0; });
}

int ringmaster_balancer_stats(const ringmaster_balancer* balancer, ringmaster_stats** stats) {
  return Do({{"balancer", balancer}, {"stats", stats}}, [&]() -> absl::Status {
    ringmaster::BalancerStats taken = balancer->balancer->Stats();
    if (!taken.status.ok()) return taken.status;
    *stats = new ringmaster_stats{.own = std::move(taken)};
    return absl::OkStatus();
  });
}

int ringmaster_shutdown_options_init(ringmaster_shutdown_options* options, size_t struct_size) {
  return Do({{"options", options}}, [&] {
    return ringmaster::c::Write("ringmaster_shutdown_options", ringmaster_shutdown_options{},
                                struct_size, options);
  });
}

int ringmaster_balancer_shutdown(ringmaster_balancer* balancer,
                                 const ringmaster_shutdown_options* options,
                                 ringmaster_shutdown_report* report, ringmaster_stats** stats) {
  return Do({{"balancer", balancer}}, [&]() -> absl::Status {
    if (absl::Status status = CheckReport(report); !status.ok()) return status;
    absl::StatusOr<ringmaster::ShutdownOptions> translated = Translate(options, balancer);
    if (!translated.ok()) return translated.status();
    return Tell(balancer->balancer->Shutdown(*std::move(translated)), report, stats);
  });
}

int ringmaster_balancer_begin_shutdown(ringmaster_balancer* balancer,
                                       const ringmaster_shutdown_options* options) {
  return Do({{"balancer", balancer}}, [&]() -> absl::Status {
    absl::StatusOr<ringmaster::ShutdownOptions> translated = Translate(options, balancer);
    if (!translated.ok()) return translated.status();
    return balancer->balancer->BeginShutdown(*std::move(translated));
  });
}

int ringmaster_balancer_ended(const ringmaster_balancer* balancer,
                              ringmaster_shutdown_report* report, ringmaster_stats** stats) {
  return Do({{"balancer", balancer}}, [&] {
    if (absl::Status status = CheckReport(report); !status.ok())
      return ringmaster::c::Failed(status);
    std::optional<ringmaster::ShutdownReport> ended = balancer->balancer->Ended();
    if (!ended.has_value()) return 0;
    const absl::Status told = Tell(*std::move(ended), report, stats);
    return told.ok() ? 1 : ringmaster::c::Failed(told);
  });
}

void ringmaster_after_fork_in_child(void) { ringmaster::AfterForkInChild(); }
