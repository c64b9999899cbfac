// The set-up side: a balancer watches sources and deals their arrivals to workers.
//
//   auto balancer = ringmaster::Balancer::Create().value();
//   auto source = balancer->AddSource(listen_fd, {.policy = ringmaster::LeastLoaded()}).value();
//   auto port = balancer->AddWorker({.ring_fd = ring.ring_fd, .tag = kDoorbell}).value();
//   if (auto status = source.Join(port, {.token = kHttp}); !status.ok()) …
//
// Threads: every function here may be called from any thread, but for the two that belong to the
// thread of a host (RunOnce, OnCompletion); each takes effect before it returns, but for
// BeginShutdown. In a callback of the balancer, and in functions of a policy, the master cannot be
// waited for: all but BeginShutdown and Ended, and Stats of a single master in the event callback,
// answer FailedPrecondition there. Errors are absl::Status with the likely cause and the remedy in
// the text, and leave everything as it was.
//
// Descriptors: each master has two, with Host::kRing one; each worker one more at each master until
// it leaves, which is a duplicate of its ring; a mailbox one of its own. A source takes none.
//
// seccomp: which system calls each role makes once a server is set up is listed in
// src/SYSTEM_CALLS.md, and tested under filters that permit no others.
//
// fork: create the balancer after the last fork of a daemon. A child that was forked later has no
// use for it: everything that returns a status answers FailedPrecondition, ports and mailboxes are
// empty, tickets accept nothing, and nothing waits for a lock or wakes the parent's master. But the
// child has copies of the parent's descriptors, and these keep sources watched and ports in use
// when the parent has ended. One that lives on without exec closes them. AfterForkInChild does, and
// BalancerOptions::close_after_fork calls it in every child; so does destroying the Balancer in the
// child, for that balancer alone, whatever handles exist. Your own descriptors are yours to close
// as ever: listeners, rings of workers, and connections, those included that were accepted and that
// nobody has claimed (close_range).

#ifndef RINGMASTER_BALANCER_H_
#define RINGMASTER_BALANCER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "ringmaster/mailbox.h"
#include "ringmaster/policy.h"
#include "ringmaster/port.h"
#include "ringmaster/stats.h"

struct io_uring_cqe;
struct io_uring_sqe;

namespace ringmaster {

// How arrivals are obtained from a source.
enum class Intake : uint8_t {
  // The sole multishot poll on the source; the master accepts, one by one, what there is credit
  // for. What is not admitted stays in the kernel's backlog, and other waiters on the source are
  // woken as if the balancer were not there.
  kPollAccept,
  // Multishot accept: the fewest system calls. Accepts ahead of credit up to the source's hold. The
  // limit of descriptors (RLIMIT_NOFILE) is the one of the moment when it was armed: after it was
  // lowered the kernel goes on to accept beyond it. Pause and Resume arm it anew.
  kAccept,
  // The sole multishot poll on anything that can be polled: a listener, a datagram socket, an
  // eventfd, a timer, a pipe, a device. The arrival is a Ticket: the worker itself accepts or reads
  // (Port::Claim says how; with Handoff::kCompletion the completion's `res` is the poll mask, and
  // Source::Again gives back what the worker does not want). Of a TCP listener there are as many
  // tickets as connections wait; of anything else one at a time, and what comes while it is
  // unclaimed merges into it. Make the descriptor non-blocking: several workers may come to take
  // the same event. Policies that ask for facts of a connection cannot decide about tickets.
  kReadiness,
};

// Who drives the master: its ring and all its decisions.
//
// A host is a thread of yours. The first call of Balancer::RunOnce makes the calling thread the
// host, until that thread ends. As long as there is no host, nothing is accepted, and set-up
// functions work at once on any thread, in any order. With a host they work at once on its own
// thread; on others they wait for it to come by.
//
// When the thread ends, Event::Kind::kHostGone says so, and whoever waits for it gets an answer.
// What has been accepted stays with the balancer, and no source is watched any more. The next
// thread that calls RunOnce goes on. With Host::kRing it lends its own ring first: the ring of the
// thread that has ended may be gone, so the balancer asks nothing of it any more. Where nobody
// shall go on, shut the balancer down before the thread ends.
enum class Host : uint8_t {
  // A thread of the balancer's own. Nobody's slowness delays the intake. It has all signals
  // blocked: they are for the program's threads, and on_event is called on it.
  kThread,
  // A loop of yours, by Balancer::fd and Balancer::RunOnce: no thread, and one wake-up less for
  // what the host's own worker serves. While the host does something else, nothing new reaches the
  // other workers, and nothing is recalled from a worker that is stuck, the host's own included.
  kLoop,
  // The io_uring of a loop of yours (Balancer::Lend): the master's operations travel with the
  // loop's own, by the same system call, and it needs no ring. Otherwise as kLoop.
  kRing,
};

// Host::kRing: the io_uring that the loop lends, and how the two share it. For each entry of its
// completion queue the loop asks Balancer::OnCompletion whether it is the master's; then it calls
// Balancer::RunOnce, then it claims, if it is a worker itself, and then it submits and waits:
//
//   io_uring_submit_and_wait(&ring, 1);
//   io_uring_for_each_cqe(&ring, head, cqe) { if (!balancer->OnCompletion(*cqe)) …; ++seen; }
//   io_uring_cq_advance(&ring, seen);
//   balancer->RunOnce();
//   port.Claim(…);
//
// The ring may be of any kind but one with IORING_SETUP_SQPOLL, whose queue may still be full after
// it was submitted; lend it enabled. The two functions are called by Lend, and then on the host's
// thread, within RunOnce and set-up functions. They must not throw, and are not called after the
// host's thread has ended. BalancerOptions::restrict_ring does not apply.
//
// The ring outlives the balancer, unless the host's thread has ended. Before you destroy either,
// shut the balancer down and ask OnCompletion about what is in the completion queue by then: a
// connection that was accepted and not handed over would stay open. The same goes for a ring whose
// thread ends while the balancer goes on. What OnCompletion is told of it later is closed.
struct RingLoan {
  int ring_fd = -1;
  // The next free entry of the submission queue; null when it is full. io_uring_get_sqe.
  std::function<io_uring_sqe*()> get_sqe = nullptr;
  // Hands the queue to the kernel without waiting; 0 or more, or -errno. io_uring_submit.
  std::function<int()> submit = nullptr;
  // The master's entries are those with (user_data & mask) == value. The mask is made of bits of
  // the highest byte, at least one; the loop has no such user_data of its own.
  uint64_t user_data_mask = 0;
  uint64_t user_data_value = 0;
};

// How arrivals reach a worker.
enum class Handoff : uint8_t {
  // As offers in a bounded inbox; a completion tells the worker's ring only that there are some.
  // What the worker has not claimed can be recalled and served by others.
  kInbox,
  // Each as a completion of the worker's own ring that looks as if the ring had accepted the
  // connection: `res` is the connected descriptor, which the worker owns from then on, `user_data`
  // is the token of the source, `flags` is 0. Nothing has to be armed again: code that arms its
  // multishot accept anew when IORING_CQE_F_MORE is missing must not do so for these. The worker
  // needs no library code to receive. It says by Port::Took how many of these completions it has
  // taken out of its ring, which is how it gets more than `window` of them, and by Port::Adopt that
  // a connection counts as open. What has been handed over cannot be recalled: it waits for its
  // worker however long that takes, and what is in its ring when it leaves is still its own.
  kCompletion,
};

// What a balancer reports while it runs. None of it needs an answer.
struct Event {
  enum class Kind : uint8_t {
    kOutOfDescriptors,  // accepting pauses until a lease is released; said once per episode
    kAccepting,         // it goes on
    kSourceBlocks,      // the listener has become blocking, by whoever shares it; nobody accepts
                        // from it until it is non-blocking again, which is looked at every 200 ms
    kSourceFailed,      // the source cannot be accepted from any more, as its socket has confirmed:
                        // somebody has shut it down, say; it is not watched any more. What had come
                        // to a Unix listener before that is still served
    kWorkerStalled,     // the worker did not move, so offers were recalled, or, where they cannot
                        // be, nothing is handed to it any more; or it has not moved for ten times
                        // recall_after, and nobody else may or can take what waits for it. `text`
                        // says which, and whether it is inside a claim
    kWorkerMoves,       // it moves again
    kDoorbellFailed,    // the worker's ring could not be told, or handed a connection, which goes
                        // to another one; it is tried again later
    kTurnedAway,    // the ring brought more connections than it had said it could; what there was
                    // no room for was closed and counts as refused; never seen so far
    kHostGone,      // the thread of the host has ended: nothing is accepted until another one
                    // calls RunOnce; said on the thread that ends
    kMasterFailed,  // the master's ring is unusable: nothing is accepted any more, and what
                    // nobody has claimed is closed and counted as refused
    kBacklogOverflow,  // the kernel's queue of a source was full, and it has dropped clients; said
                       // once per episode, which ends when it has not overflowed for 10 seconds.
                       // Of listening TCP sockets. Noticed while the master is awake, at most ten
                       // times a second, and by Balancer::Stats
    kPolicyFailed,     // the policy of a source threw, or picked beyond its candidates; the first
                       // of them got the arrival. Said once for each policy
  };
  Kind kind = Kind::kAccepting;
  uint32_t source = 0;    // index, where it concerns a source
  uint32_t worker = 0;    // index, where it concerns a worker
  int error = 0;          // errno, where there is one
  std::string text = "";  // a sentence with cause and remedy
};

struct BalancerOptions {
  Host host = Host::kThread;
  // How many masters serve the workers, 1 to 16, each with a ring and a thread of its own: for more
  // arrivals than one thread can deal, with one SO_REUSEPORT listener for each, say. A source
  // belongs to one of them (SourceOptions::master). Every worker can join the sources of all; what
  // it has open, and all limits, they share. Each offers up to the worker's `window`. More than one
  // is InvalidArgument with a host and with `cpu`.
  uint32_t masters = 1;
  // Name of the master's thread as `top -H` shows it, at most 15 characters. With several masters
  // "-0", "-1" … follow it, and count.
  std::string thread_name = "ringmaster";
  // CPU to which the master's thread is bound; -1: not bound. InvalidArgument with a host.
  int cpu = -1;
  // How old an unclaimed offer must be, and how long its worker must not have moved, before the
  // offer is recalled for another worker. 100 microseconds to 1 minute.
  absl::Duration recall_after = absl::Milliseconds(10);
  // How many connections of all sources may be open at once, at least 1: from before they are
  // accepted to the end of their lease. Exact with kPollAccept and kReadiness; kAccept stops when
  // it is reached, and what is under way then exceeds it. What is not admitted stays in the
  // backlogs.
  uint32_t capacity = UINT32_MAX;
  // Restrict the master's ring to the operations that it uses, for defence in depth.
  bool restrict_ring = true;
  // Whether AfterForkInChild is called in every child that this process forks from now on, by
  // pthread_atfork. Asked for by one balancer, it holds for all. Off, because such a handler cannot
  // be taken back, and runs also in children that call exec at once, which closes everything.
  bool close_after_fork = false;
  // Entries of the master's completion queue: how many arrivals one wake-up can carry. 64 to 65536.
  uint32_t completion_entries = 4096;
  // Called on the master's thread; keep it short, it delays every arrival. If it throws, the
  // process ends with a sentence. Several masters call it one at a time. In it a Port may leave,
  // the Stats of a single master may be read, and BeginShutdown and Ended be called; nothing else
  // of the balancer.
  std::function<void(const Event&)> on_event = nullptr;
};

struct SourceOptions {
  std::unique_ptr<Policy> policy = nullptr;  // default: LeastLoaded()
  // Which of the balancer's masters watches it, from 0; -1: the one that has the fewest sources.
  int master = -1;
  Intake intake = Intake::kPollAccept;
  // kAccept: how many connections may be accepted ahead of credit before accepting pauses, 1 to
  // 1,048,576; of all sources of a master together never more than that. A burst that is already
  // under way may exceed it by as much as the ring brings before its end: what its queue holds and
  // two turns.
  uint32_t hold = 128;
  // How many connections of this source may be open at once, at least 1; counts as
  // BalancerOptions::capacity does. Workers with Handoff::kCompletion cannot join a source that is
  // limited so, because a connection that comes as a completion does not say whose it is.
  uint32_t capacity = UINT32_MAX;
  // A connection that no worker has claimed when it is so old is closed and counts as dropped: its
  // client would get an answer that it does not wait for any more. At least 1 ms; what is beyond
  // the end of the clock, some three centuries, is no limit. Not of what has been handed over as a
  // completion, and refused with kReadiness, where the worker accepts by itself.
  //
  // The age counts from when the client came, so the time in the kernel's queue counts, too: of TCP
  // from the end of the handshake (with TCP_DEFER_ACCEPT from the first data), to the kernel's
  // clock: never too early, and up to two of its ticks too late, which are 1 to 10 ms each. Of a
  // Unix socket, or any other, the kernel does not tell; there it counts from the accept.
  //
  // Whoever has hung up by the time it is accepted is closed at once, whatever its age, and counts
  // as dropped and as gone (SourceStats). Gone is who has reset the connection, or has closed its
  // side and sent nothing. Who has sent a request and then closed its side (shutdown, `nc -N`) is
  // not: it waits for the answer. What hangs up after it was accepted is for its worker to notice.
  // All this costs one system call for each connection of a source with age_max, two for one whose
  // client has closed its side; a source without pays nothing.
  absl::Duration age_max = absl::InfiniteDuration();
  // Whether offers may be recalled from a worker that does not move.
  bool recall = true;
  // Accepted sockets are non-blocking and close-on-exec unless told otherwise, whatever the
  // listener is. A server that has relied on blocking ones asks for them here: one sendfile of 5
  // MiB on a non-blocking socket sends what fits its buffers and returns.
  bool nonblocking = true;
  bool close_on_exec = true;
};

struct WorkerOptions {
  // With a host: the worker is the host itself, has neither ring nor mailbox, and is told nothing:
  // it calls Port::Claim after each RunOnce, and what is offered to it needs no hop. ring_fd and
  // tag stay unset, the handoff is kInbox. With Host::kLoop, Claim looks after the master between
  // two of its callbacks, so that a slow one delays the other workers by itself alone; with
  // Host::kRing claim few connections at a time if serving one takes long.
  bool on_host = false;
  // The worker's io_uring: enabled, of any kind (DEFER_TASKRUN included). The balancer keeps a
  // duplicate of the descriptor until the worker leaves. Its loop waits for one completion
  // (io_uring_submit_and_wait(&ring, 1)), because one doorbell stands for any number of offers: a
  // loop that waits for several sleeps beside it. So it may with kCompletion, where each connection
  // is a completion, until as many have come.
  int ring_fd = -1;
  Handoff handoff = Handoff::kInbox;
  // kInbox: user_data of the completion that says "call Claim". Its res is 0; it may come late,
  // twice or for nothing. The next one is sent only after a Claim, so they need little room in the
  // worker's completion queue.
  uint64_t tag = 0;
  // How many connections of all its sources it may hold open, at least 1; offers count.
  uint32_t capacity = UINT32_MAX;
  // How many unclaimed offers it may have at most, 1 to 1024; with kCompletion, how many
  // completions it may have been sent beyond those that it took. The balancer moves within 1 to
  // this.
  uint32_t window = 32;
  // CPU to which the worker is bound, for affinity policies; -1: that on which it last claimed.
  int cpu = -1;
};

struct JoinOptions {
  uint64_t token = 0;  // comes back with every connection of this source: Connection::token, or
                       // the user_data of a completion
};

// A source of a balancer. A small handle to copy at will; when the balancer has ended or the source
// was removed it answers FailedPrecondition.
class Source {
 public:
  Source() = default;

  // The worker of `port` takes part from now on; the first to join arms the source. May be called
  // on another thread than the worker's, also while that one claims; so may Leave. AlreadyExists
  // when it has joined before, InvalidArgument when the port belongs to another balancer,
  // FailedPrecondition when the source's descriptor was closed and its number is another file's.
  absl::Status Join(Port& port, JoinOptions options = {});

  // The worker takes no part any more; what it was offered and has not claimed goes to others.
  absl::Status Leave(Port& port);

  // With Intake::kReadiness: the source may have more than a worker has taken, or, by `error`, why
  // it could not be taken (EAGAIN: there was nothing): see Ticket::Again. For workers with
  // Handoff::kCompletion, who have no Ticket. From any thread; does not wait. FailedPrecondition,
  // and nothing happens to the source that may have this one's index now, when this one was
  // removed.
  absl::Status Again(int error = 0);

  // Stops and resumes the intake. What has been accepted is still dealt.
  absl::Status Pause();
  absl::Status Resume();

  // Decides by `policy` from the next arrival on. Nothing is lost or dealt twice, and what has been
  // offered stays where it is. What was accepted before is shown to the new policy with the facts
  // that the old one had asked for. InvalidArgument when it is null.
  absl::Status SetPolicy(std::unique_ptr<Policy> policy);

  // Ends the intake for good. When it returns, the balancer does not refer to the descriptor any
  // more: it may be closed, or added anew. What had been accepted is still dealt to the workers
  // that had joined; if the last of them leaves first, what nobody has claimed is closed and counts
  // as refused. What waits in the backlog stays there. The handle, and every copy of it, is of no
  // use any more; its index may be given to another source. With kReadiness, tickets that nobody
  // has claimed are withdrawn. Whoever has claimed one accepts nothing by Ticket::Accept any more,
  // but may still be using the descriptor by itself, so close it when your workers do not do that
  // any more. On the thread of a host with Host::kRing the number is not used any more when it
  // returns, and the socket itself let go by the loop's next turn.
  absl::Status Remove();

  // Index in events and statistics.
  uint32_t index() const { return index_; }

 private:
  friend class Balancer;
  std::shared_ptr<internal::Lifeline> lifeline_;
  uint32_t index_ = 0;
  uint64_t serial_ = 0;  // tells it from others that have had the same index
};

// How a balancer ends. The order in which a server loses nobody who comes meanwhile, for instance
// because its successor listens on the same port by SO_REUSEPORT:
//
//   balancer->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
//
// The listener goes as soon as nothing refers to it, so the kernel leads new clients elsewhere, or
// refuses them at once; those that were let in are served to the end. Clients that wait in the
// backlog at the moment of close() are reset. Linux (5.14) moves them to another socket instead if
// net.ipv4.tcp_migrate_req is 1 and that listens on the same address by SO_REUSEPORT.
//
// Threads: each callback is called once, on the thread of a master, as on_event is; with a host on
// the host's. Keep it short, it delays what is still to be dealt; it must not throw. Of the
// balancer's functions only BeginShutdown and Ended may be called in it; do not destroy the
// balancer there. Shutdown returns after both. If what it tells has happened before the call that
// brings it, it is called by that, on the caller's thread.
struct ShutdownOptions {
  // How long what has been accepted may take to be claimed and to end, from the call on.
  absl::Duration drain = absl::ZeroDuration();

  // The balancer refers to no source any more, and no Ticket exists: now close their descriptors,
  // or use them otherwise. As Source::Remove of each, while the connections live on. Called before
  // `on_ended`, at the latest when `drain` has passed, even if a worker keeps a Ticket then.
  // Tickets that were handed over as completions only their workers know of.
  std::function<void()> on_intake_ended = nullptr;

  // It has ended, with what Shutdown returns.
  std::function<void(const ShutdownReport&)> on_ended = nullptr;
};

class Balancer {
 public:
  // Starts the master's thread, which sleeps until there is something to do; none with a host. What
  // the kernel can do is tried, and the rings are made, on a thread that has ended when this
  // returns, with a host, too: so nothing interrupts the caller when they are closed. The ring of
  // Host::kLoop is used by its host, and there the kernel does: some 50 ms after the balancer has
  // ended, what blocks on the host's thread may end early once, epoll_wait with EINTR, say.
  static absl::StatusOr<std::unique_ptr<Balancer>> Create(BalancerOptions options = {});

  // Shuts down without waiting, unless done before. With a host on the host's thread, or when that
  // runs no more. In the event callback, or in a function of a policy, it ends the process with a
  // sentence: the master that calls would wait for itself. Afterwards fd() is closed, and whatever
  // sources, ports, leases and tickets still exist keep no descriptor open but one eventfd for each
  // master, until the last of them is gone.
  ~Balancer();
  Balancer(const Balancer&) = delete;
  Balancer& operator=(const Balancer&) = delete;

  // Watches a listening stream socket, TCP or Unix; with kReadiness, anything that poll(2) can wait
  // for (InvalidArgument for a regular file or a directory, which are always ready). Borrows `fd`
  // and leaves its flags alone: keep it open until the source is removed or the balancer shut down.
  // Take a listener out of your own loop before: left there it wakes that for the same connections,
  // and whoever comes first accepts them past the policy. Nothing is armed until the first worker
  // joins. Make it non-blocking: before Linux 6.10 kPollAccept refuses a blocking one
  // (FailedPrecondition). ResourceExhausted while its master has 1024 sources. AlreadyExists when
  // this descriptor, or another descriptor of the same socket, is a source of this balancer
  // already; FailedPrecondition when its number is that of a source which was closed without having
  // been removed. Such a source is given up (kSourceFailed) as soon as its number would be used.
  absl::StatusOr<Source> AddSource(int fd, SourceOptions options = {});

  // Takes a worker into the books. It receives nothing until it joins a source.
  absl::StatusOr<Port> AddWorker(WorkerOptions options);

  // The same for a worker that watches a mailbox instead of having an io_uring of its own: ring_fd
  // and tag stay unset, and the handoff is kInbox. A mailbox serves one port at a time: while
  // another one that has it has not left, the answer is FailedPrecondition.
  absl::StatusOr<Port> AddWorker(const Mailbox& mailbox, WorkerOptions options = {});

  // With Host::kLoop: a descriptor that is readable when there is something to do, for level-
  // triggered epoll, poll, or a poll on an io_uring; -1 otherwise. Owned by the balancer. It is
  // readable also as long as there is no host, so a loop may wait before it first calls RunOnce. It
  // stays the same when another thread becomes the host.
  int fd() const;

  // With Host::kRing: lends the ring of the loop that will drive it, before the first RunOnce; and
  // once more when the thread of that loop has ended, for the loop that goes on. An entry of the
  // ring's queue is filled, so that the loop comes round and calls RunOnce however it waits. So
  // call it on the loop's thread, or before that uses the ring. Set-up functions work before it, so
  // the balancer may be there before the loop. FailedPrecondition while a loan is in use.
  // InvalidArgument when user_data_value cannot be told from that of a loan before, of which
  // entries may still come: take another value then. InvalidArgument also for a ring with SQPOLL.
  absl::Status Lend(RingLoan loan);

  // With Host::kRing, on the host's thread: whether the entry of its completion queue is the
  // master's, which keeps what it says until RunOnce. Also after the end, when the last ones come,
  // and of rings that were lent before.
  bool OnCompletion(const io_uring_cqe& cqe);

  // With a host: does what there is to do, without waiting. Call it when fd() is readable, or, with
  // Host::kRing, after the completions of each turn of the loop; calling it at any other time is
  // allowed. Afterwards claim, if the host is a worker itself. The first call makes its thread the
  // host, see Host: as long as that thread lives, others get FailedPrecondition; while it ends,
  // they wait for that, as calls of Lend do. Set-up functions on other threads wait for the host to
  // come by, so it must not wait for those threads. With Host::kRing, FailedPrecondition when the
  // calling thread cannot submit to the ring that was lent (IORING_SETUP_SINGLE_ISSUER, of another
  // thread); the loan has ended then, and another may be lent.
  absl::Status RunOnce();

  // Ends the intake, goes on dealing what has been accepted, and returns when everything has been
  // claimed and every lease released, or when `drain` has passed; then closes what nobody claimed,
  // and ends the master's thread. The workers must go on claiming, and are not told: a server whose
  // connections stay open without traffic closes them itself, or the drain lasts until its
  // deadline. For the listeners see ShutdownOptions: left open, they attract clients whom nobody
  // will serve.
  //
  // A call while another one drains, from another thread, ends that drain at its own deadline if
  // that is earlier; both return the same report, and so does every later call. A worker's own
  // thread must not drain: what it has to claim and to close would wait for itself. Nor must the
  // host's: it waits as well, and claims nothing meanwhile; with Host::kRing it cannot wait for
  // what its own loop would hand over, and does not, so every drain there is one by zero. Those two
  // call BeginShutdown. From a callback the answer is an empty report.
  ShutdownReport Shutdown(ShutdownOptions options);
  // The short form, without callbacks.
  ShutdownReport Shutdown(absl::Duration drain);

  // The same without waiting, from any thread: a worker's, a host's, and in a callback of the
  // balancer, too. The end shows by `on_ended`, or by Ended(). A host goes on calling RunOnce until
  // then; if none has come yet, the balancer has ended when this returns. Shutdown, afterwards,
  // waits for the same end. FailedPrecondition in a forked child.
  absl::Status BeginShutdown(ShutdownOptions options = {});

  // The report, once the balancer has ended; nothing before. Any thread, does not wait.
  std::optional<ShutdownReport> Ended() const;

  // A consistent snapshot, taken by the master between two batches; after Shutdown the report's.
  // See stats.h for what it costs, and for `status`, which says where it cannot be had.
  BalancerStats Stats() const;

 private:
  explicit Balancer(std::shared_ptr<internal::Lifeline> lifeline);
  std::shared_ptr<internal::Lifeline> lifeline_;
};

// In a forked child: closes the child's copies of all that the balancers and mailboxes of its
// parents keep open: their rings, their event descriptors and the duplicates of their workers'
// rings. So no source is watched, and no port is in use, because of this child. All handles may
// still be destroyed, or not. Anywhere else, and a second time, it does nothing: what was made in
// this process stays. What another thread was making or closing at the moment of the fork may stay
// open, too. One system call for each descriptor; async-signal-safe.
void AfterForkInChild();

}  // namespace ringmaster

#endif  // RINGMASTER_BALANCER_H_
