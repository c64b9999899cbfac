// Where the listeners of this server come from, and what whoever started it hears.

#ifndef RINGMASTER_TOOLS_ECHO_GENERATION_H_
#define RINGMASTER_TOOLS_ECHO_GENERATION_H_

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "listener.h"
#include "options.h"
#include "ringmaster/balancer.h"
#include "ringmaster/listeners.h"

namespace ringmaster::echo {

struct Opened {
  std::vector<Listener> listeners;  // at least one for each master, all of one kind
  TakenOver predecessor;            // from whom they are; nobody, if they are not
};

// The listeners of the predecessor, if there is one at --hand-over; otherwise what --listen says.
// An intake that was not chosen is set to what the listeners need.
absl::StatusOr<Opened> OpenListeners(Options& options);

// Tells the service manager, where there is one. What cannot be told goes to stderr, once.
class Service {
 public:
  // How often Ping is to be called; nothing: never.
  std::optional<absl::Duration> ping_every() const { return ping_every_; }

  // `took_over`: the manager has started another process.
  void Ready(const std::string& status, bool took_over);
  void Stopping();
  // This process is about to end, and the service goes on.
  void HandedOver(pid_t successor);
  // That the masters answer, which is asked first.
  void Ping(const Balancer& balancer);

 private:
  static std::optional<absl::Duration> PingEvery();
  void Tell(const ServiceState& state);

  const std::optional<absl::Duration> ping_every_ = PingEvery();
  bool complained_ = false;
};

}  // namespace ringmaster::echo

#endif  // RINGMASTER_TOOLS_ECHO_GENERATION_H_
