#include "options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "listener.h"
#include "ringmaster/policy.h"

namespace ringmaster::echo {
namespace {

constexpr uint32_t kWorkersMax = 1024;
constexpr uint32_t kMastersMax = 16;
constexpr uint32_t kConnectionsMaxMax = 1'000'000;
constexpr int64_t kDrainMsMax = 24 * 60 * 60 * 1000;

const std::map<std::string, Intake>& Intakes() {
  static const auto* const kIntakes =
      new std::map<std::string, Intake>{{"poll-accept", Intake::kPollAccept},
                                        {"accept", Intake::kAccept},
                                        {"readiness", Intake::kReadiness}};
  return *kIntakes;
}

const std::map<std::string, Handoff>& Handoffs() {
  static const auto* const kHandoffs =
      new std::map<std::string, Handoff>{{"inbox", Handoff::kInbox},
                                         {"completion", Handoff::kCompletion},
                                         {"direct", Handoff::kDirect}};
  return *kHandoffs;
}

const std::map<std::string, Host>& Hosts() {
  static const auto* const kHosts = new std::map<std::string, Host>{
      {"thread", Host::kThread}, {"loop", Host::kLoop}, {"ring", Host::kRing}};
  return *kHosts;
}

const std::map<std::string, LoopKind>& Loops() {
  static const auto* const kLoops =
      new std::map<std::string, LoopKind>{{"uring", LoopKind::kUring}, {"epoll", LoopKind::kEpoll}};
  return *kLoops;
}

template <typename T>
const char* NameIn(const std::map<std::string, T>& names, T wanted) {
  for (const auto& [name, value] : names) {
    if (value == wanted) return name.c_str();
  }
  return "unknown";
}

std::string KnownPolicies() {
  std::string names;
  for (const std::string_view name : PolicyNames()) {
    if (!names.empty()) names += ", ";
    names += name;
  }
  return names;
}

// CLI11 wants a validator to return what is wrong, or nothing.
std::string CheckPolicy(const std::string& name) {
  const absl::StatusOr<std::unique_ptr<Policy>> policy = PolicyByName(name);
  return policy.ok() ? std::string() : std::string(policy.status().message());
}

// Earlier versions had other names. A script that still uses them is told the new ones.
std::string CheckHost(const std::string& name) {
  if (name == "dedicated") return "dedicated is called thread now";
  if (name == "worker") {
    return "worker is called ring now with --loop uring, and loop with --loop epoll";
  }
  return "";
}

// What is wrong with options that are fine one by one; empty if nothing is.
std::string CheckTogether(const Options& options) {
  if (IsDatagrams(options.listen) && options.intake != Intake::kReadiness) {
    return "with a udp: address nothing can be accepted: leave --intake away, or choose --intake "
           "readiness";
  }
  if (options.intake == Intake::kReadiness && options.handoff != Handoff::kInbox) {
    return "with --intake readiness this server's workers claim tickets from their inboxes: leave "
           "--handoff away, or choose --intake poll-accept";
  }
  if (options.handoff == Handoff::kDirect && options.loop != LoopKind::kUring) {
    return "with --handoff direct a worker's connections are in the file table of its io_uring: "
           "choose --loop uring, or --handoff completion";
  }
  if (options.handoff == Handoff::kDirect && options.host != Host::kThread) {
    return "a balancer that shares a worker's io_uring has no file table of its own, which this "
           "handoff needs: choose --host thread, or --handoff completion";
  }
  if (options.masters > 1 && options.host != Host::kThread) {
    return "a worker can host only one master: leave --masters away, or choose --host thread";
  }
  if (options.host == Host::kRing && options.loop != LoopKind::kUring) {
    return "with --loop epoll no worker has a ring to lend: choose --host loop, or --loop uring";
  }
  if (options.host == Host::kLoop && options.loop != LoopKind::kEpoll) {
    return "with --loop uring the first worker lends its ring: choose --host ring, or --loop epoll";
  }
  if (options.masters > 1 && IsUnix(options.listen)) {
    return "each of several masters needs a socket of its own, and a Unix socket cannot be shared: "
           "leave --masters away, or listen on HOST:PORT";
  }
  return "";
}

}  // namespace

const char* NameOf(Intake intake) { return NameIn(Intakes(), intake); }
const char* NameOf(Handoff handoff) { return NameIn(Handoffs(), handoff); }
const char* NameOf(Host host) { return NameIn(Hosts(), host); }
const char* NameOf(LoopKind loop) { return NameIn(Loops(), loop); }

CommandLine ParseCommandLine(int argument_count, char** arguments) {
  CommandLine result;
  Options& options = result.options;
  options.workers = std::max(2U, std::thread::hardware_concurrency());
  std::string intake = NameOf(options.intake);
  std::string handoff = NameOf(options.handoff);
  std::string host = NameOf(options.host);
  std::string loop = NameOf(options.loop);

  CLI::App app{
      "An echo server whose connections are dealt to its workers by libringmaster: whatever a\n"
      "client sends comes back. SIGTERM or Ctrl-C stops accepting, waits for open connections\n"
      "and prints what every worker did; a second one ends the wait. SIGTTOU makes one worker\n"
      "leave, which passes its connections on, and SIGTTIN adds one, which gets its share of\n"
      "them; clients notice neither.",
      "ringmaster-echo"};
  app.set_version_flag("--version", "ringmaster-echo " RINGMASTER_VERSION);
  app.get_formatter()->column_width(28);
  app.add_option("--listen", options.listen,
                 "where to listen: HOST:PORT, [IPV6]:PORT, unix:PATH, or udp:HOST:PORT for "
                 "datagrams; port 0 lets the kernel choose; or what is there already: fd:N, a "
                 "descriptor that is inherited, or systemd[:NAME], by a socket unit")
      ->type_name("ADDRESS")
      ->capture_default_str();
  app.add_option("--workers", options.workers, "how many workers serve, each with its own thread")
      ->type_name("N")
      ->check(CLI::Range(1U, kWorkersMax))
      ->capture_default_str();
  app.add_option("--policy", options.policy, "who gets the next connection: " + KnownPolicies())
      ->type_name("NAME")
      ->check(CLI::Validator(CheckPolicy, ""))
      ->capture_default_str();
  const CLI::Option* const intake_option =
      app.add_option("--intake", intake,
                     "who accepts: the balancer, one by one (poll-accept) or by a multishot accept "
                     "(accept), or the workers themselves (readiness; always for datagrams)")
          ->type_name("NAME")
          ->check(CLI::IsMember(Intakes(), CLI::ignore_case).description(""))
          ->capture_default_str();
  app.add_option("--handoff", handoff,
                 "how connections reach a worker: in an inbox, from which the balancer can recall "
                 "them (inbox), or each as a completion of the worker's own ring (completion), or "
                 "the same into the ring's file table (direct; a worker that leaves keeps those)")
      ->type_name("NAME")
      ->check(CLI::IsMember(Handoffs(), CLI::ignore_case).description(""))
      ->capture_default_str();
  app.add_option("--host", host,
                 "where the balancer runs: in a thread of its own (thread), or in that of the "
                 "first worker, driven by its epoll loop (loop) or sharing its io_uring (ring)")
      ->type_name("NAME")
      ->check(CLI::Validator(CheckHost, ""))
      ->check(CLI::IsMember(Hosts(), CLI::ignore_case).description(""))
      ->capture_default_str();
  app.add_option("--masters", options.masters,
                 "how many threads accept, each from a socket of its own (SO_REUSEPORT)")
      ->type_name("N")
      ->check(CLI::Range(1U, kMastersMax))
      ->capture_default_str();
  app.add_option("--loop", loop, "what the workers' loops are built on: uring or epoll")
      ->type_name("NAME")
      ->check(CLI::IsMember(Loops(), CLI::ignore_case).description(""))
      ->capture_default_str();
  app.add_option(
         "--connections-max", options.connections_max,
         "how many connections each worker may have open; others wait in the kernel's queue")
      ->type_name("N")
      ->check(CLI::Range(1U, kConnectionsMaxMax))
      ->capture_default_str();
  app.add_option("--drain-ms", options.drain_ms,
                 "how long connections that are not idle may take after a signal, in milliseconds")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, kDrainMsMax))
      ->capture_default_str();
  app.add_option("--hand-over", options.hand_over,
                 "take the listeners over from the server that was started with the same PATH, if "
                 "there is one, and hand them on to the next: to replace a server, start it again")
      ->type_name("PATH");
  app.add_flag("--json", options.json,
               "print one JSON object on stdout at the end instead of a table; the remarks at the "
               "start go to stderr");

  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::ParseError& outcome) {
    // CLI11 has a status for each kind of complaint; scripts know the one that getopt made usual.
    result.exit_status = app.exit(outcome, std::cout, std::cerr) == 0 ? 0 : kWrongOptions;
    return result;
  }
  options.intake = Intakes().at(intake);
  options.handoff = Handoffs().at(handoff);
  options.host = Hosts().at(host);
  options.loop = Loops().at(loop);
  options.intake_given = !intake_option->empty();
  if (IsDatagrams(options.listen) && !options.intake_given) options.intake = Intake::kReadiness;
  if (const std::string complaint = CheckTogether(options); !complaint.empty()) {
    std::cerr << "ringmaster-echo: " << complaint << '\n';
    result.exit_status = kWrongOptions;
  }
  return result;
}

}  // namespace ringmaster::echo
