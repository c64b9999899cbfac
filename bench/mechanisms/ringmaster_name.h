// What says how the library serves in a measurement: POLICY/INTAKE/HANDOFF/HOST. What is left out
// at the end of a name is the library's default. A fifth part says what the workers do besides:
// "pass-on", which is not shown, "hints", or "no-hints". With hints they say when they wait; those
// who pass on also pass on what is ready for them while others wait. A worker that is the host
// never does either, and tickets are not passed on. "dealt" is as "pass-on", and says that the
// master deals all connections, so that no source is aimed.
//
// Three handoffs are for workers that live on the file tables of their rings. With "direct" the
// master installs connections there. With "completion-register" and "inbox-register" a descriptor
// comes as with "completion" and "inbox", and the worker puts it into its table itself. What such a
// worker is ready for it has read, so it passes nothing on.

#ifndef RINGMASTER_BENCH_MECHANISMS_RINGMASTER_NAME_H_
#define RINGMASTER_BENCH_MECHANISMS_RINGMASTER_NAME_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "ringmaster/balancer.h"

namespace ringmaster::bench {

struct RingmasterName {
  std::string policy;  // as PolicyByName takes it
  Intake intake = {};
  // Words of the name, which live for ever.
  std::string_view intake_word = {};
  std::string_view handoff = {};
  std::string_view host = {};
  bool hints = true;
  bool pass_on = true;  // it gives hints then
  bool dealt = false;

  bool passes_on() const;      // what is ready for a worker
  bool hosted() const;         // by the first worker, in its loop or on its ring
  bool rides() const;          // on its ring
  bool hands_over() const;     // each connection as a completion of the worker's ring
  bool installs() const;       // in the file table of that ring
  bool has_tables() const;     // so connections are slots of them, however they come
  bool has_mailboxes() const;  // so the workers have epoll sets, not rings
  uint32_t masters() const;    // each with a listener of its own if there are several
  std::string text() const;    // the name in full
};

// InvalidArgument says which words are known, or why these do not go together.
absl::StatusOr<RingmasterName> ParseRingmasterName(std::string_view name);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISMS_RINGMASTER_NAME_H_
