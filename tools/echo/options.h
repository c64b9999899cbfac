// The command line of ringmaster-echo.

#ifndef RINGMASTER_TOOLS_ECHO_OPTIONS_H_
#define RINGMASTER_TOOLS_ECHO_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "ringmaster/balancer.h"
#include "worker.h"

namespace ringmaster::echo {

// Connections that one worker holds open unless told otherwise.
inline constexpr uint32_t kConnectionsMaxDefault = 16'384;

// Exit status after a command line that makes no sense.
inline constexpr int kWrongOptions = 2;

struct Options {
  std::string listen = "127.0.0.1:7777";
  uint32_t workers = 2;
  std::string policy = "least-loaded";
  Intake intake = Intake::kPollAccept;
  bool intake_given = false;  // otherwise it follows from what is listened on
  Handoff handoff = Handoff::kInbox;
  Host host = Host::kThread;
  uint32_t masters = 1;
  LoopKind loop = LoopKind::kUring;
  uint32_t connections_max = kConnectionsMaxDefault;  // for each worker
  int64_t drain_ms = 10'000;
  std::string hand_over;  // the path of a Unix socket; empty: none
  bool json = false;
};

// What the command line asks for: to run with `options`, or to end at once with `exit_status`. The
// latter is for help, the version or a complaint, which has been printed.
struct CommandLine {
  Options options;
  std::optional<int> exit_status;
};

// Help and version go to stdout with status 0, complaints to stderr with status 2.
CommandLine ParseCommandLine(int argument_count, char** arguments);

// The names that --intake, --handoff, --host and --loop take.
const char* NameOf(Intake intake);
const char* NameOf(Handoff handoff);
const char* NameOf(Host host);
const char* NameOf(LoopKind loop);

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_OPTIONS_H_
