#include "runtime/event_text.h"

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "ring/errors.h"
#include "ring/translate.h"

namespace ringmaster::internal {
namespace {

// Says why the worker is said to stall, and what the reason may be.
std::string StallText(const core::EngineEvent& event, const BalancerOptions& options,
                      const Roster& roster) {
  const bool inbox = roster.worker(event.worker).handoff == Handoff::kInbox;
  const absl::Duration still =
      options.recall_after * (event.recalled || !inbox ? 1 : core::kSilentStallFactor);
  std::string text =
      absl::StrCat("worker ", event.worker, " has not moved for ", absl::FormatDuration(still));
  if (!inbox) {
    absl::StrAppend(&text,
                    ": it has not said by Took that it took what was sent to it, and gets nothing "
                    "new until it does");
  } else if (event.recalled) {
    absl::StrAppend(
        &text, ": what it had not claimed was recalled, and it gets nothing new until it moves");
  } else {
    absl::StrAppend(&text,
                    ": what it has not claimed waits for it, because no other worker may or ",
                    "can take that now");
  }
  if (event.serving) {
    absl::StrAppend(&text, ". It is inside a claim: the callback of Claim takes that long");
  } else if (event.told) {
    absl::StrAppend(
        &text,
        ". It was told by a doorbell and has not called Claim: it does something else, or its loop "
        "waits for several completions at once, although one doorbell stands for all offers");
  }
  return text;
}

std::string OverflowText(uint32_t index, const core::Engine& engine, const Roster& roster) {
  const SourceEntry& source = roster.source(index);
  const ring::Backlog backlog = ring::BacklogOf(source.fd);
  const uint64_t discarded = engine.intake(index).overflows;
  return absl::StrCat(
      "the backlog of source ", roster.PublicIndex(index), " (descriptor ", source.fd,
      ") has overflowed: since the source was added the kernel has discarded ", discarded,
      discarded == 1 ? " attempt" : " attempts",
      " to connect, and those clients hang until they try again. ",
      engine.starved(index)
          ? "The workers that have joined have no credit now: make them faster, add workers, or "
            "raise their capacity. For a burst make the backlog longer"
          : "The backlog is too short for such a burst: make it longer",
      " (it is ", backlog.limit, " now: the argument of listen(), and at most net.core.somaxconn)");
}

std::string AsideText(uint32_t source, const core::Engine& engine, const Roster& roster) {
  return absl::StrCat(
      "source ", roster.PublicIndex(source), ": its policy ", engine.policy(source).name(),
      " has picked nobody for ", engine.ledger().source(source).aside,
      " arrivals so far, and for the first of them for ",
      absl::FormatDuration(absl::Nanoseconds(engine.OldestAsideNs(source))),
      ". While it has set aside ", engine.AsideMax(source),
      ", nothing more is taken in. The policy is asked again when a worker can take more or has "
      "less to do, and after 100ms at the latest. See that the workers which it waits for have "
      "credit, or set age_max, which closes what nobody has taken in time");
}

}  // namespace

Event DescribeEvent(const core::EngineEvent& event, const BalancerOptions& options,
                    const core::Engine& engine, const Roster& roster) {
  Event report{
      .source = roster.PublicIndex(event.source), .worker = event.worker, .error = event.error};
  const auto describe = [&](ring::Operation operation, int fd) {
    return std::string(ring::ErrorStatus(operation, event.error, fd).message());
  };
  switch (event.kind) {
    case core::EventKind::kTurnedAway:
      report.kind = Event::Kind::kTurnedAway;
      report.text = absl::StrCat(
          "source ", report.source,
          " has brought more connections at once than the master's ring said it could hold. Those "
          "that there was no room for were closed. This should not happen: please report it");
      break;
    case core::EventKind::kSourceBlocks:
      report.kind = Event::Kind::kSourceBlocks;
      report.text = describe(ring::Operation::kAccept, roster.source(event.source).fd);
      break;
    case core::EventKind::kOutOfDescriptors:
      report.kind = Event::Kind::kOutOfDescriptors;
      report.text = describe(ring::Operation::kAccept, roster.source(event.source).fd);
      break;
    case core::EventKind::kAccepting:
      report.kind = Event::Kind::kAccepting;
      report.text = absl::StrCat("source ", report.source, ": accepting goes on");
      break;
    case core::EventKind::kSourceFailed:
      report.kind = Event::Kind::kSourceFailed;
      report.text = describe(ring::Operation::kWatch, roster.source(event.source).fd);
      break;
    case core::EventKind::kWorkerStalled:
      report.kind = Event::Kind::kWorkerStalled;
      report.text = StallText(event, options, roster);
      break;
    case core::EventKind::kWorkerMoves:
      report.kind = Event::Kind::kWorkerMoves;
      report.text = absl::StrCat("worker ", event.worker, " moves again");
      break;
    case core::EventKind::kDoorbellFailed:
      report.kind = Event::Kind::kDoorbellFailed;
      report.text = describe(ring::Operation::kDoorbell, roster.worker(event.worker).ring_fd.get());
      break;
    case core::EventKind::kBacklogOverflow:
      report.kind = Event::Kind::kBacklogOverflow;
      report.text = OverflowText(event.source, engine, roster);
      break;
    case core::EventKind::kPolicyFailed:
      report.kind = Event::Kind::kPolicyFailed;
      report.text =
          absl::StrCat("source ", report.source, ": ", engine.policy_fault(event.source),
                       ". A policy must not do that: mend it. Where it had to pick a worker, the "
                       "first candidate gets the arrival. This is said once for each policy; "
                       "SourceStats::policy_faults counts how often it happens");
      break;
    case core::EventKind::kTableFull:
      report.kind = Event::Kind::kTableFull;
      report.text = absl::StrCat(
          "worker ", event.worker,
          ": its file table is full, or its ring has none. The connection goes to somebody else or "
          "waits until this worker says Took or releases a lease. Register a larger table before "
          "AddWorker (io_uring_register_files_sparse), or set WorkerOptions::capacity to the slots "
          "that it has. This is said once for each worker; WorkerStats::table_full counts");
      break;
    case core::EventKind::kSetAside:
      report.kind = Event::Kind::kSetAside;
      report.text = AsideText(event.source, engine, roster);
      break;
  }
  return report;
}

}  // namespace ringmaster::internal
