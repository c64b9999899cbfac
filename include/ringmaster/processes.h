// Workers that are processes. A server that forks its workers (pre-forked) makes a WorkerProcesses
// before it forks. A policy decides then which of the processes gets the next connection, before
// that comes, and the kernel wakes that process. Nobody stands between a client and its worker.
//
//   auto workers = ringmaster::WorkerProcesses::Create({.policy = "least-loaded"});
//   (*workers)->AddListener(listen_fd);
//   for (int i = 0; i < 4; ++i) {
//     if (fork() == 0) Work((*workers)->Join());  // never returns
//   }
//
//   void Work(absl::StatusOr<ringmaster::ProcessPort> port) {
//     …                                           // watch port->sight() in a loop of your own
//     port->BeforeWait();
//     const int count = epoll_wait(epoll_fd, events, events_max, -1);
//     port->AfterWait();
//     …                                           // if the sight is among the events:
//     port->Claim([&](ringmaster::ProcessConnection connection) { Serve(std::move(connection)); });
//   }
//
// A parent may also accept by itself, or have connections from elsewhere, and give each to a worker
// (given_max, Give, AcceptAndGive). Then the policy sees the connection first, and workers need not
// have the listener. tools/docs/PROCESSES.md says when to take which.
//
// It needs no io_uring, and shares no file with Balancer, which is for workers that are threads.
// For servers that were not written for the library there is ringmaster-run.
//
// What the processes share is a piece of memory and some descriptors:
//
//  * A worker that is killed, whenever that is, costs the connections that it had open. Its place
//    is free again when the keeper has heard of it, which takes a moment.
//  * A worker that is stopped or hangs keeps no connection waiting for more than some milliseconds.
//  * A worker that is broken and writes nonsense into the memory spoils the balance while it does.
//    What is read from there is checked, and made right again. Neither the parent nor another
//    worker crashes, or touches memory of its own for it. But a worker that means harm has the
//    listener, as in every pre-forked server: it can accept connections and not serve them.
//  * If the parent dies, the workers serve on, and the kernel decides between them
//    (ProcessPort::parent_gone).
//
// Descriptors: one for each worker that there may be, one for each listener, and four more. The
// parent has one more for each worker that there is, and three for the keeper. With given_max there
// are two more for each worker that there may be, of which a worker keeps one in all. All are
// close-on-exec.

#ifndef RINGMASTER_PROCESSES_H_
#define RINGMASTER_PROCESSES_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/policy.h"

namespace ringmaster {

class ProcessPort;

namespace internal {
class ProcessGroup;
class ProcessMember;
class ProcessShared;
}  // namespace internal

struct WorkerProcessesOptions {
  // Who gets the next connection, by a name that PolicyByName takes: "round-robin",
  // "least-loaded:first", "two-choices:SEED" or "hermes:STILL_MS". The others need to see a
  // connection first, or cannot be shared among processes.
  std::string policy = "least-loaded";
  // How many may have joined at once, 1 to 64. One that was killed counts until the keeper has
  // heard of it.
  uint32_t workers_max = 16;
  // The keeper looks after the workers: who has died, and where nothing moves. By default it has a
  // thread of its own, which blocks all signals. Otherwise a loop of yours drives it, by
  // WorkerProcesses::fd and RunOnce. While that does something else, a killed worker's place is not
  // free again, and connections that were meant for it wait.
  bool own_thread = true;
  // Name of that thread as `top -H` shows it, at most 15 characters.
  std::string thread_name = "ringmaster";

  // Connections that this process gives to its workers (WorkerProcesses::Give and AcceptAndGive).
  // How many may lie with one worker that it has not claimed, 1 to 64. 0: none are given. 8 is
  // plenty: they keep a worker busy until the next look.
  uint32_t given_max = 0;
  // Who gets them. It is asked in this process when the connection is there, so it may be any
  // policy, also one that goes by the peer. It must not call back. Null: one by the name `policy`.
  // While it picks nobody (Policy::kNobodyNow), the connection is held.
  std::unique_ptr<Policy> give_policy = nullptr;
  // How many of them this process holds while no worker has room. Those that come back from workers
  // are held beside.
  uint32_t held_max = 1024;
};

// One worker, as the parent sees it.
struct WorkerProcessStats {
  pid_t pid = 0;
  uint64_t accepted = 0;   // connections
  uint64_t given = 0;      // of these, those that the parent has given
  uint32_t open = 0;       // of accepted; if it does not live: those that ended with it
  uint32_t unclaimed = 0;  // given to it, and not claimed so far
  bool lives = false;
};

struct WorkerProcessesStats {
  // Those that live, and of the dead those whose places nobody has taken since.
  std::vector<WorkerProcessStats> workers = {};
  // Of all workers that have died or ended.
  uint64_t gone = 0;
  uint64_t gone_accepted = 0;
  uint64_t gone_open = 0;  // connections that ended with them
  // Connections that this process has given, or is to give.
  uint64_t given = 0;       // in all, but for those that have come back and lie with nobody
  uint64_t taken_back = 0;  // from workers that had not claimed them
  uint64_t held = 0;        // now
};

// The parent's side.
//
// Threads: in the parent any thread may call everything, but RunOnce belongs to one thread. Fork
// while no other thread is inside a call. In a child only Join and what serves exec do anything:
// KeepAcrossExec, Variable and Descriptors.
//
// Children. How they are started is the program's business: by fork, by fork and exec, again
// whenever one has died. The program collects them (waitpid). All must be in the parent's PID
// namespace.
class WorkerProcesses {
 public:
  // InvalidArgument names what cannot be. Otherwise an error of the kernel, most often that there
  // are too few descriptors.
  static absl::StatusOr<std::unique_ptr<WorkerProcesses>> Create(
      WorkerProcessesOptions options = {});
  // As BeginShutdown; it waits for nobody. In a child it closes that child's copies of the
  // descriptors, unless a port needs them.
  ~WorkerProcesses();
  WorkerProcesses(const WorkerProcesses&) = delete;
  WorkerProcesses& operator=(const WorkerProcesses&) = delete;

  // From now on workers accept at this listener, which must be non-blocking; TCP or a Unix socket.
  // `token` comes back with each connection. At most 16.
  //
  // Workers that are started later have it. Those that were forked or exec'ed before have no such
  // descriptor and never get its connections. So add listeners first; one that is added later is
  // served as workers are replaced.
  //
  // Ownership: `listen_fd` stays yours, and may be closed at once: parent and children have
  // duplicates. Clients are refused when all of them are closed (see BeginShutdown). A child that
  // was forked should close its copy of yours.
  absl::Status AddListener(int listen_fd, uint64_t token = 0);

  // Gives a connection to the worker that give_policy picks. `fd` may be any socket: one that this
  // process has accepted, has got from another one, or has read the beginning of. It is the group's
  // from now on, which makes it non-blocking, switches SO_LINGER off unless that resets, and closes
  // it here when it has been given. `token` comes back with it.
  //
  // Never waits. If no worker has room, the connection is held, and given as soon as one has. What
  // lies with a worker unclaimed when that dies, is stopped or hangs goes to another one.
  // ResourceExhausted: held_max are held. FailedPrecondition: given_max is 0, in a child, and after
  // BeginShutdown. After an error `fd` is still yours.
  //
  // Close what is yours of it otherwise before you fork; what the group holds, a child closes in
  // Join.
  absl::Status Give(int fd, uint64_t token = 0);
  // The same, with facts that you know better than the kernel. Behind a proxy that is the peer of
  // which the proxy tells. A policy that hashes the peer may be shown anything there, such as a
  // hash of the name for which a TLS client asks.
  absl::Status Give(int fd, uint64_t token, const Arrival& facts);
  // The keeper accepts at this listener, while a worker has room, and gives what it has accepted.
  // The others wait in the backlog. Otherwise as AddListener, except that workers have no part of
  // the listener, so it may be added at any time.
  absl::Status AcceptAndGive(int listen_fd, uint64_t token = 0);

  // In a child, after fork: makes it a worker. Once in each process, which has one port.
  //
  // Waits for the keeper if all places are taken, for a second at most, because one may be that of
  // a worker that was just killed; then ResourceExhausted. FailedPrecondition in the parent, if
  // this process has joined before, after BeginShutdown, and where one of the descriptors is closed
  // or something else now: between fork and Join close nothing that the group has opened.
  absl::StatusOr<ProcessPort> Join();

  // For workers that are another program, or this one anew. The child of fork calls KeepAcrossExec
  // before exec: from then on its descriptors are not close-on-exec any more. The new program gets
  // Variable() in its environment ("RINGMASTER_PROCESSES=…"), and calls ProcessPort::Inherit. Ask
  // for the variable before the fork: it allocates. KeepAcrossExec is async-signal-safe. Where
  // something else starts the process (posix_spawn), it must leave open what Descriptors() lists,
  // each under its number.
  std::string Variable() const;
  std::vector<int> Descriptors() const;
  void KeepAcrossExec() const;

  // Without a thread of its own: readable when the keeper has something to do. Then call RunOnce,
  // which does not wait. Watch it level-triggered. With a thread RunOnce does nothing. In a child
  // that has joined it is -1.
  int fd() const;
  void RunOnce();

  // What each worker has accepted and has open.
  WorkerProcessesStats Stats() const;

  // No connections are accepted from now on, and each worker is told, by its sight
  // (ProcessPort::draining). With given_max it is told when the last connection that was given or
  // held has been claimed, and until then the keeper must be driven. The parent closes its
  // duplicates of the listeners, a worker closes its own when its port leaves. Whatever waits in a
  // backlog then, or comes later, is for somebody else who has the listener, or is refused. The
  // keeper goes on counting until the destructor.
  void BeginShutdown();

 private:
  explicit WorkerProcesses(std::unique_ptr<internal::ProcessGroup> group);

  std::unique_ptr<internal::ProcessGroup> group_;
};

// One connection that counts as open at its worker, until the lease is released or destroyed. Any
// thread may release it, but two threads must not use one lease at once. It may be released after
// the port has left. Close the connection's descriptor first. In a forked child of the worker it
// does nothing.
class [[nodiscard]] ProcessLease {
 public:
  ProcessLease() = default;
  ProcessLease(ProcessLease&& other) noexcept = default;
  ProcessLease& operator=(ProcessLease&& other) noexcept;
  ~ProcessLease() { Release(); }

  // Whether it still holds the connection open.
  bool held() const { return member_ != nullptr; }

  // Counts the connection as closed. Does nothing when done before.
  void Release();

 private:
  friend class internal::ProcessMember;
  explicit ProcessLease(std::shared_ptr<internal::ProcessMember> member)
      : member_(std::move(member)) {}

  std::shared_ptr<internal::ProcessMember> member_;
};

// A connection that a worker has accepted or was given. It owns the descriptor and the lease. Its
// destruction closes the descriptor, then releases the lease.
class [[nodiscard]] ProcessConnection {
 public:
  ProcessConnection() = default;
  ProcessConnection(ProcessConnection&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), token_(other.token_), lease_(std::move(other.lease_)) {}
  ProcessConnection& operator=(ProcessConnection&& other) noexcept;
  ~ProcessConnection();

  // The connected socket: non-blocking and close-on-exec.
  int fd() const { return fd_; }
  // What AddListener, AcceptAndGive or Give was given for it.
  uint64_t token() const { return token_; }
  // Hands the descriptor to the caller, who must close it, and only then let the lease be released.
  [[nodiscard]] int TakeFd() { return std::exchange(fd_, -1); }
  // Hands the lease to the caller.
  ProcessLease TakeLease() { return std::move(lease_); }

 private:
  friend class internal::ProcessMember;
  ProcessConnection(int fd, uint64_t token, ProcessLease lease)
      : fd_(fd), token_(token), lease_(std::move(lease)) {}

  int fd_ = -1;
  uint64_t token_ = 0;
  ProcessLease lease_;
};

// A worker's side. It belongs to one thread at a time. In a forked child of the worker it is empty
// and stays so.
class [[nodiscard]] ProcessPort {
 public:
  ProcessPort() = default;
  ProcessPort(ProcessPort&& other) noexcept;
  ProcessPort& operator=(ProcessPort&& other) noexcept;
  // Leaves, see Leave.
  ~ProcessPort();

  // After exec only: as WorkerProcesses::Join, by the environment variable RINGMASTER_PROCESSES and
  // the descriptors that it names, which are close-on-exec afterwards. FailedPrecondition says what
  // is missing. If it fails, it leaves the descriptors as they are, and may be called again.
  static absl::StatusOr<ProcessPort> Inherit();

  // A descriptor that is readable when Claim has something to do. Watch it level-triggered, by
  // epoll, poll, or a multishot poll of an io_uring that is armed anew whenever F_MORE is missing.
  // The port owns it. -1 if it has left.
  int sight() const;

  // Accepts by permits, and calls `serve` for each connection, at most `connections_max` times.
  // Call it when the sight is readable, or after AfterWait has said so.
  //
  // Returns whether something may be left. Then call it again before you wait. (A loop that watches
  // the sight level-triggered may ignore the result.) `serve` may make the port leave, or destroy,
  // move or assign to it. A Claim within a Claim does nothing and returns false. If `serve` throws,
  // the exception comes out of Claim: call it again before you wait.
  //
  // While this process or the system has no descriptors or memory for a connection, the worker
  // stands back, and others get what comes. It tries again when a lease is released, and whenever
  // nobody else takes what waits.
  bool Claim(absl::FunctionRef<void(ProcessConnection)> serve,
             size_t connections_max = std::numeric_limits<size_t>::max());

  // Hints, as in Port: call BeforeWait right before the call in which the loop waits, and AfterWait
  // right after it. A worker that has not come back to its wait for 10 ms is late: it gets a
  // connection only where all workers are late. The hints make no system call, unless somebody
  // wants to know who waits.
  //
  // AfterWait returns whether there is something to claim. Claim it before anything else, so that
  // it does not stand behind what else woke the loop. `by_port`: the wait has brought the sight and
  // nothing else.
  void BeforeWait();
  bool AfterWait(bool by_port = false);

  // Gets no more connections, and closes the process's duplicates of the listeners. Take the sight
  // out of your loop first: it is closed. Leases stay valid. A process joins once, so this is for
  // its end. Does nothing when it has left before.
  void Leave();

  // Whether BeginShutdown was called in the parent. The sight tells it, and Claim takes notice.
  // Nothing more will come. Take the sight out of the loop, call Leave, serve what is open to its
  // end, and end. True for a port that has left.
  bool draining() const;

  // Whether the parent has died without BeginShutdown. The sight tells it, and Claim takes notice.
  // The worker serves on: it accepts whatever it is first at, as without a policy. It may as well
  // end. False for a port that has left.
  bool parent_gone() const;

  // Whether it has joined and not left.
  bool joined() const;
  // The worker's index in policies and statistics; another worker may have it later.
  uint32_t worker() const { return worker_; }

 private:
  friend class WorkerProcesses;
  explicit ProcessPort(std::shared_ptr<internal::ProcessMember> member);

  std::shared_ptr<internal::ProcessMember> member_;
  uint32_t worker_ = 0;
};

}  // namespace ringmaster

#endif  // RINGMASTER_PROCESSES_H_
