// A mechanism: one way in which accepted connections reach the workers of a server.
//
// Each is one file in mechanisms/ that implements Mechanism and stands in the table of
// mechanism.cc. What happens to a connection afterwards is the same for all, see serving.h.

#ifndef RINGMASTER_BENCH_MECHANISM_H_
#define RINGMASTER_BENCH_MECHANISM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/books.h"
#include "bench/target.h"

namespace ringmaster::bench {

// What distinguishes one worker from the others.
struct WorkerTraits {
  int64_t delay_ns = 0;            // how long it sleeps with each connection before it serves it
  uint32_t capacity = UINT32_MAX;  // how many connections it may have open at once
  int64_t request_ns = 0;          // how long it sleeps with each request before it answers
  bool hangs_up = false;           // closes when it has answered; otherwise the client does
};

struct ServerOptions {
  int listen_fd = -1;                 // listening, non-blocking; borrowed
  Target target;                      // its address
  std::vector<WorkerTraits> workers;  // one for each worker, 1 to kWorkersMax
  ServerBooks* books = nullptr;       // outlives the server
};

// A server that runs. Destruction stops it: all its threads end, its connections are closed and its
// books complete.
class Server {
 public:
  virtual ~Server() = default;

  // Brings up to date what the books do not show while the server runs. Called on the thread that
  // started it.
  virtual void WriteBooks() {}
};

class Mechanism {
 public:
  virtual ~Mechanism() = default;

  // As command lines and reports write it.
  virtual std::string name() const = 0;

  // One sentence.
  virtual std::string summary() const = 0;

  // Why it cannot run on this machine over `transport`, and what would help; empty if it can. A
  // comparison tells of it and goes on with the others.
  virtual std::string WhyNot(Transport /*transport*/) const { return ""; }

  // Whether the listener must be bound so that others can be bound to the same port (SO_REUSEPORT).
  virtual bool shares_port() const { return false; }

  // Whether a worker serves one connection from its beginning to its end before it takes the next.
  virtual bool serves_one_at_a_time() const { return false; }

  // Whether a connection takes a descriptor of the process as long as it is open.
  virtual bool takes_descriptors() const { return true; }

  // Starts the workers, in their order, and returns when all are ready to serve. Called in a
  // process of its own, after the fork. A failure says cause and remedy, and leaves nothing
  // running.
  virtual absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options) const = 0;
};

// Makes a mechanism from a name: "epoll-exclusive", "ringmaster:POLICY/INTAKE/HANDOFF/HOST", of
// which everything after the policy may be left out. InvalidArgument names the known ones.
absl::StatusOr<std::unique_ptr<Mechanism>> MakeMechanism(std::string_view name);

// The names to show: every rival, and ringmaster with each of its policies. Each is the name() of
// what it makes.
std::vector<std::string> MechanismNames();

// The names of those whose workers serve from the file tables of their rings: rivals, and the ways
// in which ringmaster gets connections there. They serve in another way than all others do, so they
// are a set of their own.
std::vector<std::string> DirectMechanismNames();

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MECHANISM_H_
