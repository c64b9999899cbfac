// A server under test, in a process of its own. So its CPU time and context switches are the
// kernel's own figures, a crash is told from a slow run, and nothing is left of it afterwards.

#ifndef RINGMASTER_BENCH_SERVER_PROCESS_H_
#define RINGMASTER_BENCH_SERVER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/books.h"
#include "bench/mechanism.h"
#include "bench/target.h"

namespace ringmaster::bench {

struct ServerSetUp {
  Transport transport = Transport::kTcp;
  std::vector<WorkerTraits> workers;  // one for each
  std::vector<int> cpus;              // on which all its threads run; none: on any
  uint32_t descriptor_limit = 0;      // its RLIMIT_NOFILE; 0: as this process has it
  uint32_t descriptor_room = 0;       // see ServerBooks::descriptor_limit
};

// What has been counted until now. A cost is the difference between two of these.
struct ServerCounts {
  int64_t at_ns = 0;            // monotonic
  std::vector<uint64_t> taken;  // by worker
  // Of all workers together.
  uint64_t wakes = 0;
  uint64_t empty_wakes = 0;
  uint64_t arrival_wakes = 0;
  // Of the thread that accepts for them; 0 if there is none.
  uint64_t master_wakes = 0;
  uint64_t doorbells = 0;
  // Of all threads.
  uint64_t system_calls = 0;
  int64_t context_switches = 0;  // voluntary or not, as the kernel counts them
  int64_t cpu_ns = 0;            // as the scheduler counts it, to the nanosecond
  int64_t recalled = -1;         // negative: the mechanism cannot recall

  uint64_t Taken() const;
};

// What a whole life of a server has cost.
struct ServerCost {
  int64_t cpu_ns = 0;
  int64_t context_switches = 0;
};

// Why a thread could not be made, and what would help.
absl::Status NoThread(const std::system_error& error);

class ServerProcess {
 public:
  // Forks and starts `mechanism` in the child; returns when it is ready to serve. Call it while the
  // calling process has one thread. A failure is the mechanism's own, with its words.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(const Mechanism& mechanism,
                                                              const ServerSetUp& set_up);

  // Stops it, if that has not been done, and waits for its end.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const Target& target() const { return target_; }

  // From any thread.
  std::vector<uint64_t> TakenByWorker() const;
  // What all its threads have computed so far. From any thread; 0 after its end.
  int64_t CpuNs() const;

  // Everything that is counted, now. Wakes the server's main thread, which asks the mechanism for
  // what it does not publish. Fails when the server is gone. One thread at a time.
  absl::StatusOr<ServerCounts> ReadCounts();

  // The worker sleeps so long with the next connection that it takes. From any thread.
  void Freeze(uint32_t worker, int64_t ns);
  // The worker takes no more connections from its next turn on. From any thread.
  void TellToLeave(uint32_t worker);

  // Ends the server and completes its books. Fails when it crashed or had to be killed.
  absl::StatusOr<ServerCost> Stop();

  const ServerBooks& books() const { return *books_; }

 private:
  ServerProcess() = default;

  Target target_;
  size_t workers_ = 0;
  ServerBooks* books_ = nullptr;  // a shared mapping
  pid_t pid_ = -1;
  int control_fd_ = -1;  // closing it tells the server to stop; the end of this process does too
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_SERVER_PROCESS_H_
