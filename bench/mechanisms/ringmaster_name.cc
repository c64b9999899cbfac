#include "bench/mechanisms/ringmaster_name.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "ringmaster/policy.h"

namespace ringmaster::bench {
namespace {

// The words of a name after the policy, the default first. A handoff or a host that the library
// learns is added here and to the servers below; a handoff has a worker of its own.
struct IntakeName {
  std::string_view name;
  Intake intake;
};
constexpr IntakeName kIntakes[] = {{"poll-accept", Intake::kPollAccept},
                                   {"accept", Intake::kAccept},
                                   {"readiness", Intake::kReadiness}};
constexpr std::string_view kInbox = "inbox";
constexpr std::string_view kCompletion = "completion";
constexpr std::string_view kMailbox = "mailbox";
// Into the file table of the worker's ring.
constexpr std::string_view kDirect = "direct";
constexpr std::string_view kCompletionRegister = "completion-register";
constexpr std::string_view kInboxRegister = "inbox-register";
constexpr std::string_view kHandoffs[] = {kInbox,  kCompletion,         kMailbox,
                                          kDirect, kCompletionRegister, kInboxRegister};
// As the library's Host has them. Several masters are "thread-2" and "thread-4", each with a
// listener of its own.
constexpr std::string_view kThread = "thread";
// The first worker: by a descriptor that its loop watches, or on its own ring.
constexpr std::string_view kLoop = "loop";
constexpr std::string_view kRing = "ring";
constexpr std::string_view kPassOn = "pass-on";
constexpr std::string_view kHints = "hints";
constexpr std::string_view kNoHints = "no-hints";
constexpr std::string_view kDealt = "dealt";
constexpr std::string_view kBesides[] = {kPassOn, kHints, kNoHints, kDealt};
constexpr std::string_view kHosts[] = {kThread, "thread-2", "thread-4", kLoop, kRing};
// What they were called once.
constexpr std::pair<std::string_view, std::string_view> kFormerHosts[] = {
    {"dedicated", kThread},
    {"dedicated-2", "thread-2"},
    {"dedicated-4", "thread-4"},
    {"worker", kLoop}};

absl::Status Unknown(std::string_view what, std::string_view word,
                     const std::vector<std::string>& known) {
  return absl::InvalidArgumentError(absl::StrCat(
      "ringmaster has no ", std::string(what), " \"", std::string(word), "\" here; known are: ",
      absl::StrJoin(known, ", "), " (a name is ringmaster:POLICY/INTAKE/HANDOFF/HOST)"));
}

absl::StatusOr<std::string_view> OneOf(std::span<const std::string_view> known,
                                       std::string_view what, std::string_view word) {
  for (const std::string_view candidate : known) {
    if (candidate == word) return candidate;
  }
  return Unknown(what, word, std::vector<std::string>(known.begin(), known.end()));
}

}  // namespace

bool RingmasterName::passes_on() const {
  return pass_on && intake != Intake::kReadiness && !has_tables();
}

bool RingmasterName::hosted() const { return host == kLoop || rides(); }

bool RingmasterName::rides() const { return host == kRing; }

bool RingmasterName::hands_over() const {
  return handoff == kCompletion || handoff == kCompletionRegister || installs();
}

bool RingmasterName::installs() const { return handoff == kDirect; }

bool RingmasterName::has_tables() const {
  return installs() || handoff == kCompletionRegister || handoff == kInboxRegister;
}

bool RingmasterName::has_mailboxes() const { return handoff == kMailbox; }

uint32_t RingmasterName::masters() const {
  const bool several = host.starts_with(kThread) && host.size() > kThread.size();
  return several ? static_cast<uint32_t>(host.back() - '0') : 1;
}

std::string RingmasterName::text() const {
  const std::string_view besides = dealt ? kDealt : !hints ? kNoHints : !pass_on ? kHints : "";
  return absl::StrCat(policy, "/", std::string(intake_word), "/", std::string(handoff), "/",
                      std::string(host), besides.empty() ? "" : "/", std::string(besides));
}

absl::StatusOr<RingmasterName> ParseRingmasterName(std::string_view name) {
  const std::vector<std::string> words = absl::StrSplit(std::string(name), '/');
  if (words.size() > 5) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"ringmaster:", std::string(name),
                     "\" has more parts than ringmaster:POLICY/INTAKE/HANDOFF/HOST/BESIDES"));
  }
  const absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(words[0]);
  if (!policy.ok()) return policy.status();
  RingmasterName variant{.policy = (*policy)->name(),
                         .intake = kIntakes[0].intake,
                         .intake_word = kIntakes[0].name,
                         .handoff = kHandoffs[0],
                         .host = kHosts[0]};
  if (words.size() > 1) {
    std::vector<std::string> known;
    bool found = false;
    for (const IntakeName& intake : kIntakes) {
      known.emplace_back(intake.name);
      if (intake.name != words[1]) continue;
      variant.intake = intake.intake;
      variant.intake_word = intake.name;
      found = true;
    }
    if (!found) return Unknown("intake", words[1], known);
  }
  if (words.size() > 2) {
    const absl::StatusOr<std::string_view> handoff = OneOf(kHandoffs, "handoff", words[2]);
    if (!handoff.ok()) return handoff.status();
    variant.handoff = *handoff;
  }
  if (words.size() > 3) {
    for (const auto& [former, name_now] : kFormerHosts) {
      if (words[3] != former) continue;
      return absl::InvalidArgumentError(absl::StrCat("ringmaster: the host ", words[3],
                                                     " is called ", std::string(name_now), " now"));
    }
    const absl::StatusOr<std::string_view> host = OneOf(kHosts, "host", words[3]);
    if (!host.ok()) return host.status();
    variant.host = *host;
  }
  if (words.size() > 4) {
    const absl::StatusOr<std::string_view> besides = OneOf(kBesides, "word", words[4]);
    if (!besides.ok()) return besides.status();
    variant.hints = *besides != kNoHints;
    variant.dealt = *besides == kDealt;
    variant.pass_on = *besides == kPassOn || variant.dealt;
  }
  if (words.size() > 4 && words[4] == kPassOn && variant.has_tables()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ringmaster:", variant.text(),
        ": a worker that receives through its ring has read what it ",
        "is ready for, and so has nothing to pass on; take hints, or the handoff inbox"));
  }
  if (variant.hosted() && (variant.hands_over() || variant.has_tables())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "ringmaster:", variant.text(), ": the host claims, and so do the other workers here; take ",
        "the handoff inbox, or the host thread"));
  }
  if (variant.hosted() && variant.has_mailboxes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("ringmaster:", variant.text(), ": the host has a ring here, and all workers ",
                     "are alike; take the handoff inbox, or the host thread"));
  }
  if (variant.intake == Intake::kReadiness) {
    const FactsNeeded facts = (*policy)->facts();
    if (facts.incoming_cpu || facts.peer) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ringmaster:", variant.text(), ": the policy decides by facts of a connection, and a ",
          "ticket has none; take the intake poll-accept, or another policy"));
    }
    if (variant.hands_over()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "ringmaster:", variant.text(), ": the workers here redeem tickets out of their inboxes; ",
          "take the handoff inbox, or the intake poll-accept"));
    }
  }
  return variant;
}

}  // namespace ringmaster::bench
