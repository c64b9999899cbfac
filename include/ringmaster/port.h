// The worker's side. A port receives what the balancer offers to a worker. A lease counts one
// connection as open until it is released.
//
// A worker with its own io_uring loop adds one branch to it:
//
//   io_uring_for_each_cqe(&ring, head, cqe) {
//     if (cqe->user_data == kDoorbell)
//       port.Claim([&](ringmaster::Connection connection) { Serve(std::move(connection)); });
//     …
//   }
//
// A worker with Handoff::kCompletion gets connections as completions, and needs even less:
//
//     if (cqe->user_data == kAccepted) {
//       Serve(port.Adopt(cqe->res));  // or, where open connections need not be counted, cqe->res
//       ++taken;
//     }
//     …
//   port.Took(taken);
//
// With Handoff::kDirect connections come into the worker's own file table. The same, with slots:
//
//     if (cqe->user_data == kAccepted) {
//       Serve(cqe->res, port.AdoptSlot());  // closes the slot first, then releases the lease
//       ++taken;
//     }

#ifndef RINGMASTER_PORT_H_
#define RINGMASTER_PORT_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

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
class BalancerImpl;
class LeaseWords;
class MasterShared;
}  // namespace internal

// One connection that counts as open at its worker, until the lease is released or destroyed.
//
// Threads: any thread may release it, but two threads must not use one lease at once. It may be
// released after the port and the balancer are gone. Where the worker had no place left, a policy
// that may be asked on any thread (Policy::AnyThread) may be asked meanwhile, on the thread that
// releases.
//
// Order: close the connection's descriptor, then release the lease. A balancer that ran out of
// descriptors tries again at the moment of the release.
//
// Some servers keep leases in a table by descriptor, and workers share it. Then move the lease out
// of the table before you close the descriptor. Once it is closed, its number may be the next
// connection's, whose lease may be stored there before yours is released.
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
  friend class Source;
  friend class Ticket;
  friend class internal::LeaseWords;
  Lease(internal::PortShared* shared, core::Gate* gate) : shared_(shared), gate_(gate) {}

  internal::PortShared* shared_ = nullptr;
  core::Gate* gate_ = nullptr;  // of the source, if that is limited
};

// A connection that a worker has claimed. It owns the descriptor and the lease. Its destruction
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

  // Hands the descriptor to the caller, who must close it, and only then let the lease be released.
  [[nodiscard]] int TakeFd() { return std::exchange(fd_, -1); }

  // Hands the lease to the caller.
  Lease TakeLease() { return std::move(lease_); }

 private:
  friend class Port;
  friend class Source;
  friend class Ticket;
  Connection(int fd, uint64_t token, Lease lease)
      : fd_(fd), token_(token), lease_(std::move(lease)) {}

  int fd_ = -1;
  uint64_t token_ = 0;
  Lease lease_;
};

// A ticket of a source with Intake::kReadiness. It says that the source may have something, which
// this worker is to accept or read. One ticket may stand for several events, and nothing may be
// left when the worker looks. So work until EAGAIN, or call Again.
//
// A ticket counts as open at its worker while it exists. It belongs to one thread at a time, and
// may outlive the port and the balancer. It is *late* when its source was removed or its balancer
// has ended. Then Accept and Again do nothing, because the descriptor's number may be another
// file's by now.
class [[nodiscard]] Ticket {
 public:
  Ticket(Ticket&& other) noexcept;
  Ticket& operator=(Ticket&& other) noexcept;
  ~Ticket();

  // The source's descriptor: borrowed, and shared with the other workers.
  int fd() const { return fd_; }

  // What the worker gave when it joined the source.
  uint64_t token() const { return token_; }

  // What poll(2) has said of the source since the last ticket: POLLIN, and perhaps POLLHUP,
  // POLLRDHUP or POLLERR. Those three do not mean that there is something to accept or read. If the
  // source is no listener, one ticket tells its end. If it is a listener,
  // Event::Kind::kSourceFailed tells its end, and perhaps a ticket as well.
  uint32_t events() const { return events_; }

  // For a listening stream socket: accepts one connection, and never waits. The first connection
  // takes over the ticket's count as open. Each further one counts as one more, whatever the
  // capacity.
  //
  // fd() of the result is -1 in three cases. There is no connection. Or it cannot be accepted now:
  // the process is out of descriptors, or the listener has become blocking, which is asked each
  // time. Or the ticket is late. In the first two cases the balancer has been told, and sees to it
  // that somebody tries again when there is reason to. Nor need you call Again for
  // connections that are left: the balancer announces them by further tickets.
  Connection Accept();

  // Gives the ticket back: the source may have more than this worker takes now, and somebody gets
  // another ticket. `error` says why, as an errno; a negative one, as completions carry it, means
  // the same.
  //
  //  * 0: no special reason.
  //  * EAGAIN: there was nothing, so nobody gets another ticket for it.
  //  * EMFILE, ENFILE, ENOMEM, ENOBUFS: a shortage. The balancer waits until a lease is released,
  //    or for some milliseconds.
  //  * EINVAL, EBADF, ENOTSOCK, EOPNOTSUPP: the source looks as if it were no listener any more.
  //    The balancer asks its socket, and gives the source up if that confirms it.
  //
  // Does nothing when the ticket is late.
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

// Through its port a worker receives arrivals and tells what it has done. `Balancer::AddWorker`
// makes it. It belongs to one thread at a time: the worker's. It may outlive its balancer, and
// receives nothing more then.
class [[nodiscard]] Port {
 public:
  Port() = default;
  Port(Port&& other) noexcept;
  Port& operator=(Port&& other) noexcept;
  // Leaves the balancer, see Leave.
  ~Port();

  // Claims what has been offered, oldest first, and calls `serve` for each connection, at most
  // `connections_max` times. Each offer is claimed immediately before its call. So offers that wait
  // behind a slow call can still be recalled and served by somebody else.
  //
  // Call it when the doorbell arrives. You may call it at any other time: that is cheap, and makes
  // no system call unless the balancer waits for credit.
  //
  // Returns whether offers are left. If so, call it again before you wait, because no further
  // doorbell announces them. (A mailbox stays readable instead, so a level-triggered loop may
  // ignore the result.) In a forked child a port is empty and stays so.
  //
  // `serve` may make the port leave, or destroy, move or assign to it. If the port has left, the
  // claim ends when `serve` returns, with false, and what it has not claimed goes to others. A
  // Claim within a Claim of the same port does nothing and returns false; the outer one goes on. If
  // `serve` throws, the exception comes out of Claim, and offers may be left: call it again before
  // you wait.
  bool Claim(absl::FunctionRef<void(Connection)> serve,
             size_t connections_max = std::numeric_limits<size_t>::max());

  // The same for a worker that redeems the tickets of sources with Intake::kReadiness itself. It
  // calls `redeem` for each ticket; what is said of `serve` holds for that.
  //
  // The first form handles tickets by itself. When it claims a listener's ticket, it accepts by
  // Ticket::Accept and calls `serve`, so a worker need not know the intake of a listener. A ticket
  // of anything else it gives back by Ticket::Again, which helps nobody: such sources need this
  // second form.
  bool Claim(absl::FunctionRef<void(Connection)> serve, absl::FunctionRef<void(Ticket)> redeem,
             size_t arrivals_max = std::numeric_limits<size_t>::max());

  // Handoff::kCompletion and kDirect: the worker has taken `count` completions that carried
  // arrivals out of its ring, so the balancer may send as many more. Call it once for each batch of
  // completions, after Adopt. A worker to whom something was sent, and that has taken nothing for
  // recall_after, is handed nothing more until it calls this.
  //
  // What exceeds the number that was sent is ignored. With Handoff::kInbox it does nothing. It
  // makes no system call unless the balancer waits for credit.
  //
  // Handoff::kDirect: it also says that there may be room in the file table. What did not fit is
  // tried again after it, also with a count of 0.
  void Took(size_t count = 1);

  // Handoff::kCompletion: makes a Connection of the descriptor that a completion carries. It counts
  // as open until its lease is released. Without Adopt a connection stops counting when Took says
  // that it was taken; then `capacity` bounds only what is in the ring.
  //
  // You may also call it for a connection that has come by another way, and with Handoff::kInbox:
  // then it counts as one more. Takes ownership of `fd`. That must be a descriptor of the process:
  // never a slot of a file table, whose number is another file's descriptor.
  Connection Adopt(int fd, uint64_t token = 0);

  // Handoff::kDirect: counts the connection of a completion as open, until the lease is released.
  // What Adopt says of leases and of Took holds here. The slot stays the worker's. Close it first
  // (io_uring_prep_close_direct, and wait for its completion), and then release the lease: that
  // says that there is room in the table.
  //
  // To pass such a connection on (Source::PassOn), make a descriptor of it by
  // IORING_OP_FIXED_FD_INSTALL (Linux 6.8), close the slot, and pass on descriptor and lease.
  Lease AdoptSlot();

  // Hints: what this worker does outside of Claim. Without them the balancer knows only that a
  // worker is in no claim. So it takes a worker for one that waits, even while that works on
  // connections that it has. With them policies prefer workers that do wait (Activity). So a new
  // connection does not stand behind a busy loop while another worker has nothing to do.
  //
  // An offer that lies with a busy worker is moved to one that waits, where its policy would have
  // taken either (Policy::MayMove), without waiting for recall_after.
  //
  // Call BeforeWait right before the call in which the loop waits, and AfterWait right after it.
  // AfterWait returns whether something was offered meanwhile. Claim that before anything else, so
  // that it does not stand behind what else woke the loop:
  //
  //     port.BeforeWait();
  //     const int count = epoll_wait(epoll_fd, events, events_max, timeout_ms);
  //     if (port.AfterWait()) port.Claim(serve);
  //
  // A worker that may be woken for a connection of its own (WatchSight) must know whether one waits
  // for it. `by_port`: the wait said so, because the mailbox or the sight was ready. That saves a
  // system call for each wake-up. If the loop does not know, or the wait said nothing of it, leave
  // it out: a connection may have come since.
  //
  //  * A loop of your own (epoll, poll, io_uring): around its wait, as above. A wait that cannot
  //    last, such as one with timeout 0, needs neither. If a wait brings several requests, you may
  //    call AfterWait between two of them as well: what is new then goes first.
  //  * libevent (2.2): in the callbacks of evwatch_prepare_new and evwatch_check_new.
  //  * libuv: BeforeWait in a prepare handle. A check handle is too late for AfterWait: libuv has
  //    called the callbacks of that wait by then. So call AfterWait at the beginning of each
  //    callback that may take long, and in a check handle for the others. A second call does no
  //    harm.
  //  * Asio: around each io_context::run_one, after poll() has found nothing more to do. With run()
  //    the loop cannot be seen: leave the hints out.
  //
  // If the worker has several ports, call both for each of them. Call both or neither: a worker
  // that has called AfterWait counts as busy until it calls BeforeWait. One that calls neither is
  // treated as in no claim, as said above.
  //
  // They cost some nanoseconds. BeforeWait makes a system call only if a master wants to know who
  // waits, and AfterWait only if it is not told `by_port`. A wrong hint leads to a worse choice,
  // never to a lost connection. On the worker's thread only. On a port that has left, of a worker
  // on the host (WorkerOptions::on_host), or in a forked child they do nothing.
  void BeforeWait();
  bool AfterWait(bool by_port = false);

  // A descriptor that is readable when a connection waits for this worker alone. A loop that
  // watches it is woken by the kernel for the connections that its policy gives to this worker,
  // without the master between them: one wake-up for each connection instead of two. When it is
  // readable, call Claim, as after a doorbell. Doorbells come as well: the master deals when it
  // must, for example when nobody has room, or when a worker does not move.
  //
  // A worker with a mailbox has its sight in there, so leave this alone. A worker with an io_uring
  // arms one multishot poll (POLLIN) on the descriptor, and arms it anew whenever a completion
  // lacks IORING_CQE_F_MORE.
  //
  // Sources are decided on in this way if they listen on TCP with Intake::kPollAccept and
  // Host::kThread, are non-blocking and do not drop by age, their policy may be asked on any thread
  // (Policy::AnyThread), and every worker that has joined them has a sight and gives hints
  // (BeforeWait): otherwise nobody knows who waits.
  //
  // Call it before Join, once. Ownership: the port's, until it leaves. On the worker's thread.
  // FailedPrecondition for a port that has left, in a forked child, for a worker on the host, and
  // with Handoff::kCompletion or kDirect; otherwise an error of the kernel.
  absl::StatusOr<int> WatchSight();

  // How many connections this worker has open above an equal share of all that the balancer's
  // workers have: so many it might pass on (Source::PassOn) to be as loaded as the others. It knows
  // nothing of sources that only some workers have joined, nor of a policy's weights; where they
  // matter, compare what BalancerStats tells. Ask once, and then pass so many on: what is on its
  // way counts nowhere until it is offered to somebody. Where workers pass on what is ready
  // (ToPassOn) numbers are uneven for a reason: do not even them out. It takes a mutex and looks at
  // each worker once, and makes no system call. Of a moment: others change meanwhile. 0 for a port
  // that has left, and in a forked child.
  uint32_t Surplus() const;

  // How many of the connections that are ready this worker should pass on (Source::PassOn, with
  // PassOnOptions::request_waits), because others wait who could begin with them at once. Call it
  // before you begin with one of `ready` connections that have something to do now, for each of
  // them. Pass on so many of the last ones, unread, and go on with the others:
  //
  //     for (size_t i = 0; i < ready.size(); ++i) {
  //       for (size_t pass = port.ToPassOn(ready.size() - i); pass > 0; --pass) {
  //         PassOn(ready.back());  // out of the epoll set, and so on; see Source::PassOn
  //         ready.pop_back();
  //       }
  //       Serve(ready[i]);
  //     }
  //
  // So work goes where there is time for it, whatever each connection brings. Equal numbers of
  // connections cannot do that where some ask more often than others, or all ask by chance at once.
  //
  //  * Nothing is passed on that gains little. Passing on costs a hop through the balancer's
  //    thread, so a connection must have to wait here for half a millisecond or longer. The port
  //    measures how long each takes, and says 0 until it knows. Where requests take microseconds,
  //    it says 0 all the time.
  //  * It is never more than others wait with nothing to do, and each of them is counted once in
  //    half a millisecond. That also bounds how much is passed on in a second.
  //  * Nothing goes back and forth: a connection is passed on only when it asks for something, to
  //    somebody who has nothing else to do.
  //
  // It needs hints, of this worker and of the others: without them it says 0. It knows nothing of
  // sources that only some workers have joined. On the worker's thread only. With fewer than two
  // ready it costs nothing; otherwise it looks at the clock, and if something is to be passed on,
  // it takes a mutex and looks at the other workers. It makes no system call. 0 once the balancer
  // drains, for a port that has left, and in a forked child.
  size_t ToPassOn(size_t ready);

  // These change WorkerOptions::capacity and WorkerOptions::window, from the next decision on. A
  // worker that has more than its new limit gets nothing until it has less. Any thread may call
  // them, as long as no other thread uses the port at that time.
  //
  // InvalidArgument for 0. InvalidArgument also, with Handoff::kInbox, for a window larger than the
  // one that the worker was added with, because its inbox was allocated for that.
  absl::Status SetCapacity(uint32_t capacity);
  absl::Status SetWindow(uint32_t window);

  // Leaves the balancer, and with it all its sources. What was offered and not claimed goes to
  // other workers at once. Leases stay valid. Does nothing when the port has left before.
  //
  // When it returns, the balancer no longer refers to the worker's ring, and you may close it; so
  // also after a shutdown. There are two exceptions. On the thread of a host with Host::kRing, the
  // balancer lets go of the ring in the loop's next turn. In a callback of the balancer, or in a
  // function of a policy, nobody can wait for the master. So the port is empty at once, and the
  // balancer lets go of the ring when the callback has returned.
  void Leave();

  // How the balancer ends, as a worker sees it. From the beginning of a shutdown
  // (Balancer::Shutdown, BeginShutdown) `draining` is true: nothing new is accepted, and what was
  // accepted is still dealt. The shutdown waits until every lease is released, or until its
  // deadline. So close connections that are idle now, and each of the others when its request is
  // done. When the balancer has ended, `ended` is true as well: nothing more can be claimed. Then
  // close what is left, and end the loop:
  //
  //   while (!port.ended()) {
  //     …                              // wait; claim when the doorbell arrives
  //     if (port.draining()) …         // close what is idle
  //   }
  //
  // The worker is told of both by a doorbell, as of an offer. Ask after the Claim that the doorbell
  // leads to: what the doorbell announces is true by then. Two kinds of worker have no doorbell.
  // One with `on_host` asks after each RunOnce. One with Handoff::kCompletion or kDirect must be
  // woken by the program.
  //
  // Source::Remove does not make a port drain, because other sources go on. Whoever removes a
  // source tells the workers if they are to close its connections.
  //
  // Both are true for a port that has left, or was never added, and in a forked child. Any thread
  // may ask, as long as no other thread uses the port at that time. They make no system call.
  bool draining() const;
  bool ended() const;

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
  std::shared_ptr<internal::BalancerImpl> balancer_;  // reaches the balancer while there is one
  uint32_t worker_ = 0;
};

}  // namespace ringmaster

#endif  // RINGMASTER_PORT_H_
