// The worker's side: a port receives connections, a lease counts one as open until it is released.
//
// A worker with its own io_uring loop adds one branch to it:
//
//   io_uring_for_each_cqe(&ring, head, cqe) {
//     if (cqe->user_data == kDoorbell)
//       port.Claim([&](ringmaster::Connection connection) { Serve(std::move(connection)); });
//     …
//   }
//
// A worker to whom connections are handed as completions (Handoff::kCompletion) needs even less:
//
//     if (cqe->user_data == kAccepted) {
//       Serve(port.Adopt(cqe->res));  // or, where open connections need not be counted, cqe->res
//       ++taken;
//     }
//     …
//   port.Took(taken);

#ifndef RINGMASTER_PORT_H_
#define RINGMASTER_PORT_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace ringmaster {

class Balancer;
class Port;
class Source;

namespace core {
class Gate;
}
namespace internal {
struct Channel;
struct PortShared;
class Lifeline;
class MasterShared;
}  // namespace internal

// One connection that counts as open at its worker until the lease is released or destroyed. A
// lease may be released from any thread, and after the port and the balancer are gone; a single
// lease is not for several threads at once. Release it after the connection's descriptor is closed:
// a balancer that ran out of descriptors tries again at that moment. Where leases are kept in a
// table by descriptor that workers share, move the lease out of it before you close: the number is
// the next connection's at once, whose lease may be stored there before yours is released.
class [[nodiscard]] Lease {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept
      : shared_(std::exchange(other.shared_, nullptr)), gate_(other.gate_) {}
  Lease& operator=(Lease&& other) noexcept {
    if (this != &other) {
      Release();
      shared_ = std::exchange(other.shared_, nullptr);
      gate_ = other.gate_;
    }
    return *this;
  }
  ~Lease() { Release(); }

  // Whether it still holds the connection open.
  bool held() const { return shared_ != nullptr; }

  // Counts the connection as closed. Does nothing when done before.
  void Release();

 private:
  friend class Port;
  friend class Ticket;
  Lease(internal::PortShared* shared, core::Gate* gate) : shared_(shared), gate_(gate) {}

  internal::PortShared* shared_ = nullptr;
  core::Gate* gate_ = nullptr;  // of the source, if that is limited
};

// A connection that a worker has claimed: its descriptor and its lease. Owns both; destruction
// closes the descriptor, then releases the lease.
class [[nodiscard]] Connection {
 public:
  Connection() = default;
  Connection(Connection&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), token_(other.token_), lease_(std::move(other.lease_)) {}
  Connection& operator=(Connection&& other) noexcept;
  ~Connection();

  // The connected socket: non-blocking and close-on-exec unless the source said otherwise.
  int fd() const { return fd_; }

  // What the worker gave when it joined the source that this connection came from.
  uint64_t token() const { return token_; }

  // Hands the descriptor to the caller, who closes it, before the lease is released.
  [[nodiscard]] int TakeFd() { return std::exchange(fd_, -1); }

  // Hands the lease to the caller.
  Lease TakeLease() { return std::move(lease_); }

 private:
  friend class Port;
  friend class Ticket;
  Connection(int fd, uint64_t token, Lease lease)
      : fd_(fd), token_(token), lease_(std::move(lease)) {}

  int fd_ = -1;
  uint64_t token_ = 0;
  Lease lease_;
};

// A ticket of a source with Intake::kReadiness: the source may have something, and it is for this
// worker to accept, read or take. One ticket may stand for several events, and there may be nothing
// left when it is looked at, so work until EAGAIN or call Again. While it exists it counts as open
// at its worker. Belongs to one thread at a time; may outlive the port and the balancer.
class [[nodiscard]] Ticket {
 public:
  Ticket(Ticket&& other) noexcept;
  Ticket& operator=(Ticket&& other) noexcept;
  ~Ticket();

  // The source's descriptor: borrowed, and shared with the other workers.
  int fd() const { return fd_; }

  // What the worker gave when it joined the source.
  uint64_t token() const { return token_; }

  // What poll(2) said of the source since the last ticket: POLLIN, perhaps POLLHUP, POLLRDHUP or
  // POLLERR, which stand for nothing to accept or read. Of what is no listener one ticket says its
  // end; of a listener Event::Kind::kSourceFailed does, and perhaps a ticket as well.
  uint32_t events() const { return events_; }

  // Of a listening stream socket: accepts one connection, which has the ticket's place among the
  // open ones (a second one takes a place of its own, whatever the capacity). Its fd() is -1 when
  // there is none, or when it cannot be had now (out of descriptors, or because the listener has
  // become blocking: that is asked each time, and it never waits); then the balancer has been told
  // and sees to it that somebody tries again. So have others that wait been announced.
  // -1 also when the ticket is late: its source was removed, or its balancer has ended. Then the
  // descriptor's number is not used, because it may be another socket's by now.
  Connection Accept();

  // The source may have more than this worker takes now: somebody gets another ticket. `error` is
  // the errno of what went wrong, if that was the reason; EAGAIN says that there was nothing, and
  // nobody gets another ticket for it. After a shortage (EMFILE, ENFILE, ENOMEM,
  // ENOBUFS) the balancer waits until a lease is released, or some milliseconds; where it looks as
  // if the source were no listener any more (EINVAL, EBADF, ENOTSOCK, EOPNOTSUPP) its socket is
  // asked, and the source is given up if that confirms it, as with the other intakes. A negative
  // one, as completions carry it, means the same. Does nothing when the ticket is late; no other
  // source hears of it.
  void Again(int error = 0) const;

 private:
  friend class Port;
  Ticket(internal::PortShared* shared, internal::Channel& channel, uint32_t source, uint32_t traits,
         uint32_t events);

  internal::PortShared* shared_;  // held
  internal::MasterShared* master_;
  bool has_place_ = true;
  mutable bool gave_up_ = false;  // by Again, with a reason
  // Of the source, as it was when the ticket was claimed; its index may be another one's later.
  uint32_t source_;
  uint32_t traits_;
  uint32_t events_;
  int fd_;
  core::Gate* gate_;
  uint64_t serial_;
  uint64_t token_;
};

// A worker's half of the books, made by `Balancer::AddWorker`. Belongs to one thread at a time: the
// worker's. A port may outlive its balancer; it then receives nothing more.
class [[nodiscard]] Port {
 public:
  Port() = default;
  Port(Port&& other) noexcept;
  Port& operator=(Port&& other) noexcept;
  // Leaves.
  ~Port();

  // Takes what has been offered, oldest first, and calls `serve` for each connection, at most
  // `connections_max` times. Every offer is claimed immediately before its call, so what waits
  // behind a slow call stays recallable and is served by somebody else. Call it when the doorbell
  // arrives; calling it at any other time is allowed, cheap, and makes no system call unless the
  // balancer waits for credit.
  //
  // Returns whether offers are left; then call it again before you wait, because no further
  // doorbell announces them. (A mailbox stays readable instead, so a level-triggered loop may
  // ignore it.) In a forked child a port is empty and stays so.
  //
  // `serve` may leave, destroy, move or assign to the port. If the port has left, the claim ends
  // when `serve` returns, with false, and what it has not taken goes to others. A Claim within a
  // Claim of the same port does nothing and returns false; the outer one goes on. What `serve`
  // throws leaves Claim, as after a claim that stopped early: call it again before you wait.
  bool Claim(absl::FunctionRef<void(Connection)> serve,
             size_t connections_max = std::numeric_limits<size_t>::max());

  // The same for a worker that has joined sources with Intake::kReadiness and redeems their tickets
  // itself. The first form accepts from a listener whose ticket it claims, by Ticket::Accept, so a
  // worker need not know what the intake of a listener is; a ticket of anything else it gives back
  // by Again, which helps nobody: use this one. What is said of `serve` holds for `redeem`.
  bool Claim(absl::FunctionRef<void(Connection)> serve, absl::FunctionRef<void(Ticket)> redeem,
             size_t arrivals_max = std::numeric_limits<size_t>::max());

  // Handoff::kCompletion: `count` completions that carried connections have been taken out of the
  // ring, so as many more may be sent. Call it once for each batch of completions, after Adopt. A
  // worker that has taken nothing for recall_after although something was sent is handed nothing
  // more until it calls this. Does nothing for more than was sent, and with Handoff::kInbox. Makes
  // no system call unless the balancer waits for credit.
  void Took(size_t count = 1);

  // Handoff::kCompletion: makes a Connection of the descriptor of a completion, which counts as
  // open until its lease is released. Without this a connection stops counting when it was taken,
  // and then `capacity` bounds no more than what is in the ring. May also be called with a
  // connection that has come by another way, and with Handoff::kInbox: then it counts as one more.
  // Takes ownership of `fd`.
  Connection Adopt(int fd, uint64_t token = 0);

  // Changes WorkerOptions::capacity, and WorkerOptions::window, from the next decision on; a worker
  // that has more than it may have now gets nothing until it has less. From any thread that does
  // not use the port otherwise at that time. InvalidArgument for 0, and with Handoff::kInbox for a
  // window larger than the one that the worker was added with, whose room was allocated then.
  absl::Status SetCapacity(uint32_t capacity);
  absl::Status SetWindow(uint32_t window);

  // Leaves the balancer: what was offered and not claimed goes to other workers at once. When it
  // returns, the balancer no longer refers to the worker's ring, which may be closed, also when the
  // balancer was shut down before; on the thread of a host with Host::kRing when its loop has
  // turned. Leases stay valid. Does nothing when done before. In a callback of the balancer, or in
  // a function of a policy, the master cannot be waited for: the port is empty at once, and the
  // balancer lets go of the ring when the callback has returned.
  void Leave();

  // Whether it belongs to a balancer and has not left.
  bool joined() const { return shared_ != nullptr; }

  // The worker's index in policies, events and statistics: stable until it leaves.
  uint32_t worker() const { return worker_; }

 private:
  friend class Balancer;
  friend class Source;
  bool ClaimEach(absl::FunctionRef<void(Connection)> serve, absl::FunctionRef<void(Ticket)>* redeem,
                 size_t arrivals_max);

  internal::PortShared* shared_ = nullptr;
  std::shared_ptr<internal::Lifeline> lifeline_;  // reaches the balancer while there is one
  uint32_t worker_ = 0;
};

}  // namespace ringmaster

#endif  // RINGMASTER_PORT_H_
