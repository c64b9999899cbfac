// A server under test in a process of its own: its CPU time and context switches are then the
// kernel's own figures, a crash is told from a slow run, and nothing is left of it afterwards.

#ifndef RINGMASTER_BENCH_SERVER_PROCESS_H_
#define RINGMASTER_BENCH_SERVER_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/books.h"
#include "bench/mechanism.h"
#include "bench/target.h"

namespace ringmaster::bench {

// What a whole life of a server has cost.
struct ServerCost {
  int64_t cpu_ns = 0;
  int64_t context_switches = 0;
};

class ServerProcess {
 public:
  // Forks and starts `mechanism` in the child; returns when it is ready to serve. Call it while the
  // calling process has one thread. A failure is the mechanism's own, with its words.
  static absl::StatusOr<std::unique_ptr<ServerProcess>> Start(
      const Mechanism& mechanism, Transport transport, const std::vector<WorkerTraits>& workers);

  // Stops it, if that has not been done, and waits for its end.
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  const Target& target() const { return target_; }

  // From any thread.
  std::vector<uint64_t> TakenByWorker() const;
  // What all its threads have computed so far. From any thread; 0 after its end.
  int64_t CpuNs() const;

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
