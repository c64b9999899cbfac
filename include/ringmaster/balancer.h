// The set-up side: a balancer watches sources and deals their arrivals to workers.
//
//   auto balancer = ringmaster::Balancer::Create().value();
//   auto source = balancer->AddSource(listen_fd, {.policy = ringmaster::LeastLoaded()}).value();
//   auto port = balancer->AddWorker({.ring_fd = ring.ring_fd, .tag = kDoorbell}).value();
//   if (auto status = source.Join(port, {.token = kHttp}); !status.ok()) …
//
// Words. A *source* is a descriptor that the balancer watches, a listener in most cases. An
// *arrival* is what comes from it: a connection, or a ticket (Intake::kReadiness). A *worker*
// serves arrivals, and its *port* (port.h) receives them. A *master* is a ring and the thread that
// drives it: it accepts, and decides who gets what. An *offer* is an arrival that waits in the
// inbox of a worker. The worker *claims* it by Port::Claim, or the master *recalls* it for another
// worker. A *doorbell* is the completion that tells a worker's ring to claim. A *lease* is one open
// connection. A worker has *credit* when the balancer may offer it more.
//
// Threads. Any thread may call any function here. Only RunOnce and OnCompletion belong to one
// thread: the host's. Each call takes effect before it returns; only BeginShutdown does not wait.
//
// Callbacks. In a callback of the balancer, and in a function of a policy, nobody can wait for the
// master. The master itself is the caller. There every function that waits for it answers
// FailedPrecondition. BeginShutdown, Ended and Source::Again do not wait. Stats works in the event
// callback of a balancer with one master. Port::Leave lets go of the worker's ring later.
//
// Errors. Each error is an absl::Status whose text names the likely cause and the remedy. A call
// that fails leaves everything as it was.
//
// Descriptors. Each master holds two, or one with Host::kRing. Each worker costs one more at each
// master until it leaves: a duplicate of its ring. If it has a sight (Port::WatchSight), it costs
// another. A mailbox holds two of its own. A source costs none; or one if workers may accept from
// it (SourceOptions::permits): a duplicate of the listener, as long as it is a source.
//
// C++. The library is built as C++20. The headers are for C++17 as well; what is written above as
// {.policy = …} is then a struct whose members are assigned.
//
// seccomp. src/SYSTEM_CALLS.md lists the system calls that each role makes once a server is set up.
// Tests run under filters that permit no others.
//
// fork. Create the balancer after the last fork of a daemon. A child that was forked later cannot
// use it. There everything that returns a status answers FailedPrecondition, ports and mailboxes
// are empty, and tickets accept nothing. No call waits for a lock or wakes the parent's master.
//
// But the child has copies of the balancer's descriptors. While they are open, sources stay watched
// and ports stay in use even after the parent has ended. A child that goes on without exec must
// close them, in one of three ways:
//
//  * It calls AfterForkInChild.
//  * The parent sets BalancerOptions::close_after_fork, which makes every child call it.
//  * The child destroys the Balancer. That closes the copies of this balancer alone, whatever
//    handles exist.
//
// Your own descriptors are yours to close, as ever: listeners, the rings of workers, and
// connections. The connections that were accepted and that nobody has claimed belong to these
// (close_range).

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
#include "ringmaster/version.h"

struct io_uring_cqe;
struct io_uring_sqe;

namespace ringmaster {

namespace internal {
class BalancerImpl;
class Master;
struct SourceKey;
}  // namespace internal

// How the balancer obtains arrivals from a source.
enum class Intake : uint8_t {
  // One multishot poll watches the source, and the master accepts one connection at a time, as many
  // as there is credit for. All others stay in the kernel's backlog. Other processes that wait for
  // the source are woken as if the balancer were not there.
  kPollAccept,
  // Multishot accept: the fewest system calls. It accepts ahead of credit, up to the source's
  // `hold`. It goes by the limit of descriptors (RLIMIT_NOFILE) at the moment when it was armed. If
  // you lower the limit later, the kernel still accepts beyond it. Source::Pause and Source::Resume
  // arm it anew.
  //
  // A multishot accept cannot ask for a place before it accepts. So if the source or the balancer
  // has a `capacity`, the master accepts one connection at a time, as with kPollAccept.
  kAccept,
  // One multishot poll watches anything that can be polled: a listener, a datagram socket, an
  // eventfd, a timer, a pipe, a device. The arrival is a Ticket, and the worker that claims it
  // accepts or reads by itself, see the second Port::Claim.
  //
  // A TCP listener brings as many tickets as connections wait. Anything else brings one ticket at a
  // time; what happens while that is unclaimed merges into it. Make the descriptor non-blocking,
  // because several workers may come for the same event. A policy that needs facts of a connection
  // is InvalidArgument here, because a ticket has none.
  //
  // With Handoff::kCompletion, `res` of the completion is the poll mask, and a worker gives back
  // what it does not want by Source::Again.
  kReadiness,
};

// Who drives the master: its ring and all its decisions.
//
// A host is a thread of yours. The first call of Balancer::RunOnce makes the calling thread the
// host, until that thread ends. While there is no host, nothing is accepted, and set-up functions
// work at once on any thread, in any order. While there is one, they work at once on the host's
// thread. On other threads they wait until the host calls RunOnce.
//
// When the host's thread ends, Event::Kind::kHostGone says so, and calls that were waiting for the
// host return. The balancer keeps what it has accepted, and watches no source. The next thread that
// calls RunOnce becomes the host. With Host::kRing that thread lends its own ring first: the
// balancer asks nothing more of the old ring, which may be gone. If no thread is to go on, shut the
// balancer down before the host's thread ends.
enum class Host : uint8_t {
  // The balancer starts a thread of its own. No slow worker delays the intake. The thread blocks
  // all signals, because these are for the program's threads. on_event is called on it.
  kThread,
  // A loop of yours drives the master, by Balancer::fd and Balancer::RunOnce. There is no further
  // thread, and what the host's own worker serves costs one wake-up less. While the host does
  // something else, nothing new reaches the other workers. Nor is anything recalled meanwhile from
  // a worker that is stuck, the host's own included.
  kLoop,
  // As kLoop, but the master has no ring: a loop of yours lends its io_uring (Balancer::Lend). The
  // master's operations travel with the loop's own, by the same system call.
  kRing,
};

// Host::kRing: the io_uring that the loop lends, and how the loop and the master share it. In each
// turn the loop does this:
//
//   io_uring_submit_and_wait(&ring, 1);
//   io_uring_for_each_cqe(&ring, head, cqe) { if (!balancer->OnCompletion(*cqe)) …; ++seen; }
//   io_uring_cq_advance(&ring, seen);
//   balancer->RunOnce();
//   port.Claim(…);  // if the loop is a worker itself
//
// The ring may be of any kind but one with IORING_SETUP_SQPOLL, whose queue may still be full after
// a submit. Lend it enabled. BalancerOptions::restrict_ring does not apply to it.
//
// Threads: Lend calls the two functions below; later they are called on the host's thread, within
// RunOnce and set-up functions. They must not throw. They are not called after the host's thread
// has ended.
//
// Lifetime: the ring outlives the balancer, unless the host's thread has ended. Before you destroy
// either of them, shut the balancer down, then ask OnCompletion about everything that is in the
// completion queue. Otherwise a connection that was accepted and not yet handed over stays open. Do
// the same with a ring whose thread ends while the balancer goes on: OnCompletion closes what it is
// told of that ring later.
//
// When the host's thread ends and its ring lives on, the master leaves nothing armed there: on that
// thread it ends everything with IORING_REGISTER_SYNC_CANCEL. The kernel may not have that call
// (before Linux 6.0), or a restriction of the ring may forbid it. Then close the ring with its
// thread. Otherwise the multishot accept of Intake::kAccept stays armed there. It takes the wake-up
// for a client from whoever listens, and that client waits until the next one comes. If another
// thread goes on with the same ring, submit once before the first thread ends. Otherwise a later
// submit would arm what the master has prepared and nobody has submitted.
struct RingLoan {
  int ring_fd = -1;
  // Returns the next free entry of the submission queue, or null when the queue is full, as
  // io_uring_get_sqe does.
  std::function<io_uring_sqe*()> get_sqe = nullptr;
  // Hands the queue to the kernel without waiting, as io_uring_submit does. Returns 0 or more, or
  // -errno.
  std::function<int()> submit = nullptr;
  // The master's entries are those with (user_data & mask) == value. The mask consists of bits of
  // the highest byte, at least one. The loop must not use such user_data itself.
  uint64_t user_data_mask = 0;
  uint64_t user_data_value = 0;
};

// How arrivals reach a worker.
enum class Handoff : uint8_t {
  // As offers in a bounded inbox. A completion tells the worker's ring only that there are offers.
  // What the worker has not claimed can be recalled and served by others.
  kInbox,
  // Each as a completion of the worker's own ring, as if that ring had accepted the connection.
  // `res` is the connected descriptor, which the worker owns from then on; `user_data` is the token
  // of the source; `flags` is 0. The worker needs no library code to receive it.
  //
  // Do not arm anything for these completions: code that arms its multishot accept anew when
  // IORING_CQE_F_MORE is missing must leave them out.
  //
  // The worker calls Port::Took to say how many of these completions it has taken out of its ring.
  // Only then does it get more than `window` of them. It calls Port::Adopt to make a connection
  // count as open.
  //
  // What has been handed over cannot be recalled: it waits for its worker however long that takes.
  // What is in the ring when the worker leaves still belongs to the worker.
  kCompletion,
  // The same, but the connection comes into the registered file table of the worker's ring, and
  // `res` is its slot there: a direct descriptor. It is no descriptor of the process, so it is for
  // requests of that ring only (IOSQE_FIXED_FILE), and close(slot) would close something else. The
  // worker owns the slot from then on, and closes it by io_uring_prep_close_direct. For servers
  // that live on direct descriptors.
  //
  // Port::Took and `window` are as with kCompletion. Port::AdoptSlot makes a connection count as
  // open; there is no Connection, so nothing of the library closes a slot.
  //
  // Register a table before AddWorker. The kernel chooses free slots in it, within the range that
  // io_uring_register_file_alloc_range may have set. A full table is no error: the connection goes
  // to another worker, or waits, until the worker calls Took (with 0, if it has nothing to take) or
  // releases a lease. So if the worker uses slots for other files as well, say Took(0) when one has
  // become free. With a `capacity` of no more than the slots that are for connections, the table is
  // never full.
  //
  // A worker that leaves waits for what is on its way into its table, and then owns all that is
  // there. A ticket of a source with Intake::kReadiness comes as with kCompletion.
  //
  // Needs a kernel that can install files in another ring's table (Linux 6.18 can). AddWorker tries
  // it: Unimplemented says that this one cannot. FailedPrecondition if the ring has no table, and
  // with Host::kRing. A connection counts against the process's limit of descriptors only until it
  // is installed.
  kDirect,
};

// What a balancer reports while it runs. No event needs an answer.
struct Event {
  enum class Kind : uint8_t {
    // The process, or the system, has no descriptors left. Accepting pauses until a lease is
    // released. Said once per episode.
    kOutOfDescriptors,
    // The shortage has ended, and accepting goes on.
    kAccepting,
    // Somebody who shares the listener has made it blocking. Nobody accepts from it until it is
    // non-blocking again; the balancer looks every 200 ms.
    kSourceBlocks,
    // The source cannot be accepted from any more, for instance because somebody has shut it down;
    // its socket has confirmed that. The balancer watches it no more. Connections that had reached
    // a Unix listener before are still served.
    kSourceFailed,
    // The worker did not move: it neither claimed an offer nor began to claim. Either its offers
    // were recalled, or, if they cannot be, nothing more is handed to it. Or it has not moved for
    // ten times recall_after, and no other worker may or can take what waits for it. `text` says
    // which, and whether the worker is inside a claim.
    kWorkerStalled,
    // A worker that had stalled moves again.
    kWorkerMoves,
    // The doorbell could not be sent to the worker's ring, or a connection, as a completion or into
    // its file table. Such a connection goes to another worker. The balancer tries the ring again
    // later. If `error` is EOVERFLOW and the handoff is kDirect, the kernel has installed the
    // connection and had no memory to tell the worker. That connection is ended, and counts as
    // dropped.
    kDoorbellFailed,
    // The master's ring has brought more connections than it had said it could. Those that there
    // was no room for were closed and count as refused. Never seen so far.
    kTurnedAway,
    // The host's thread has ended, and nothing is accepted until another thread calls RunOnce. Said
    // on the thread that ends.
    kHostGone,
    // The master's ring cannot be used any more. Nothing more is accepted; what nobody has claimed
    // is closed and counts as refused.
    kMasterFailed,
    // The kernel's queue of a listening TCP socket was full, and the kernel has discarded clients.
    // Said once per episode; an episode ends when the queue has not overflowed for 10 seconds. The
    // master notices while it is awake, at most ten times a second, and when Balancer::Stats is
    // called.
    kBacklogOverflow,
    // The policy of a source threw, or picked beyond its candidates. The first candidate got the
    // arrival. Said once for each policy.
    kPolicyFailed,
    // The policy of a source has picked nobody for an arrival for a second, or has set aside as
    // many as it may (SourceOptions::hold). `text` has the numbers. Said once, until nothing of the
    // source is held any more.
    kSetAside,
    // With Handoff::kDirect: a connection did not fit into a worker's file table, or its ring has
    // none. Said once for each worker; WorkerStats::table_full counts.
    kTableFull,
  };
  Kind kind = Kind::kAccepting;
  uint32_t source = 0;    // index, where it concerns a source
  uint32_t worker = 0;    // index, where it concerns a worker
  int error = 0;          // errno, where there is one
  std::string text = "";  // a sentence with cause and remedy
};

struct BalancerOptions {
  Host host = Host::kThread;
  // How many masters serve the workers, 1 to 16. Each has a ring and a thread of its own. Use
  // several when one thread cannot deal all arrivals, for instance with one SO_REUSEPORT listener
  // for each. A source belongs to one master (SourceOptions::master). Every worker can join the
  // sources of all of them. The masters share what a worker has open, and all limits; but each
  // offers up to the worker's `window`. More than one is InvalidArgument with a host, and with
  // `cpu`.
  uint32_t masters = 1;
  // Name of the master's thread as `top -H` shows it, at most 15 characters. With several masters
  // "-0", "-1" … are appended, and count towards the 15.
  std::string thread_name = "ringmaster";
  // CPU to which the master's thread is bound; -1: not bound. InvalidArgument with a host.
  int cpu = -1;
  // An offer is recalled for another worker when it has been unclaimed for this long and its worker
  // has not moved for this long. 100 microseconds to 1 minute.
  absl::Duration recall_after = absl::Milliseconds(10);
  // How many connections of all sources may be open at once, at least 1. A connection counts from
  // before it is accepted to the end of its lease. The limit is exact. What is not admitted stays
  // in the backlogs.
  uint32_t capacity = UINT32_MAX;
  // Restricts the master's ring to the operations that it uses, for defence in depth.
  bool restrict_ring = true;
  // Calls AfterForkInChild in every child that this process forks from now on, by pthread_atfork.
  // When one balancer asks for it, it holds for all. It is off by default for two reasons. Such a
  // handler cannot be taken back. And it runs also in children that call exec at once, which closes
  // everything anyway.
  bool close_after_fork = false;
  // Entries of the master's completion queue: how many arrivals one wake-up can carry. 64 to 65536.
  uint32_t completion_entries = 4096;
  // Called on the master's thread. Keep it short, because it delays every arrival. Several masters
  // call it one at a time. If it throws, the process ends with a sentence. It may make a Port
  // leave, read the Stats of a balancer with one master, and call BeginShutdown and Ended. It may
  // use nothing else of the balancer.
  std::function<void(const Event&)> on_event = nullptr;
};

struct SourceOptions {
  std::unique_ptr<Policy> policy = nullptr;  // default: LeastLoaded()
  // Which of the balancer's masters watches it, from 0; -1: the one that has the fewest sources.
  int master = -1;
  Intake intake = Intake::kPollAccept;
  // The source takes nothing in before so many workers have joined, at least 1. What waits when a
  // server starts, after a restart above all, would otherwise go to the worker that joins first,
  // because nobody else is there. Workers that leave later do not stop it again. If fewer workers
  // join than that, Source::Resume starts it.
  uint32_t start_workers = 1;
  // kAccept without a capacity: how many connections may be accepted ahead of credit before
  // accepting pauses, 1 to 1,048,576. All sources of a master together never hold more than that
  // maximum. A burst that is already under way may exceed `hold` by as much as the ring brings
  // before the accept ends. That is what its queue holds, and two turns.
  //
  // With every intake: how many arrivals the policy may set aside (Policy::kNobodyNow) before
  // nothing more is taken in. A source sets aside at least 1 and at most 1,024, whatever is asked
  // for.
  uint32_t hold = 128;
  // How many connections of this source may be open at once, at least 1. They count as for
  // BalancerOptions::capacity. Workers with Handoff::kCompletion or kDirect cannot join a source
  // with such a limit. A connection that comes as a completion does not say which source it is of.
  uint32_t capacity = UINT32_MAX;
  // A connection that no worker has claimed at this age is closed and counts as dropped, because
  // its client no longer waits for an answer. At least 1 ms. A duration beyond the end of the
  // clock, some three centuries, is no limit. It does not apply to what has been handed over as a
  // completion. With kReadiness it is InvalidArgument, because there the worker accepts by itself.
  //
  // The age counts from when the client came, so it includes the time in the kernel's queue. For
  // TCP that is the end of the handshake (with TCP_DEFER_ACCEPT the first data) by the kernel's
  // clock. The drop is never too early, and at most two of the kernel's ticks too late; a tick is 1
  // to 10 ms. For a Unix socket, or any other, the kernel does not tell when the client came; there
  // the age counts from the accept.
  //
  // A connection whose client is gone when it is accepted is closed at once, whatever its age. It
  // counts as dropped and as gone (SourceStats). A client is gone when it has reset the connection,
  // or has closed its side and sent nothing. A client that has sent a request and then closed its
  // side (shutdown, `nc -N`) waits for the answer, and is not gone. Workers themselves notice
  // clients that hang up after the accept.
  //
  // The cost is one system call for each connection of a source with age_max, and two if the client
  // has closed its side. A source without age_max pays nothing.
  absl::Duration age_max = absl::InfiniteDuration();
  // Whether offers may be recalled from a worker that does not move.
  bool recall = true;
  // Whether the policy may decide who gets a connection before it comes, where that is possible
  // (see Port::WatchSight). Then the kernel wakes that worker, which accepts by itself: one wake-up
  // for each connection instead of two. false: the master accepts and deals all connections. Choose
  // that if a decision must go by the loads at the moment of the arrival, not at the arrival
  // before; or if a claim must make no system call.
  bool permits = true;
  // Whether accepted sockets are non-blocking and close-on-exec, whatever the listener is. A server
  // that relies on blocking sockets sets `nonblocking` to false. On a non-blocking socket a call
  // may do only part of its work. One sendfile of 5 MiB sends what fits into the socket's buffer,
  // and returns.
  bool nonblocking = true;
  bool close_on_exec = true;
};

struct WorkerOptions {
  // With a host: this worker is the host itself. It has neither ring nor mailbox, and nothing tells
  // it of offers. It calls Port::Claim after each RunOnce, so what is offered to it needs no
  // wake-up. Leave ring_fd and tag unset; the handoff is kInbox.
  //
  // With Host::kLoop, Claim looks after the master between two of its callbacks, so a slow callback
  // delays the other workers only while it lasts. With Host::kRing it does not: claim few
  // connections at a time if serving one takes long.
  bool on_host = false;
  // The worker's io_uring: enabled, of any kind, DEFER_TASKRUN included. The balancer keeps a
  // duplicate of the descriptor until the worker leaves.
  //
  // With kInbox the worker's loop waits for one completion (io_uring_submit_and_wait(&ring, 1)),
  // because one doorbell stands for any number of offers. A loop that waits for several completions
  // sleeps while offers wait. With kCompletion and kDirect each connection is a completion, so a
  // loop that waits for several sleeps until that many have come.
  int ring_fd = -1;
  Handoff handoff = Handoff::kInbox;
  // kInbox: `user_data` of the doorbell, the completion that says "call Claim". Its `res` is 0. It
  // may come late, twice or for nothing. The next one is sent only after a Claim, so doorbells need
  // little room in the worker's completion queue.
  uint64_t tag = 0;
  // How many connections of all its sources the worker may have open, at least 1; offers count.
  uint32_t capacity = UINT32_MAX;
  // How many unclaimed offers the worker may have at most, 1 to 1024. With kCompletion and kDirect:
  // how many completions may have been sent to it beyond those that it took. The balancer moves the
  // worker's actual window between 1 and this.
  uint32_t window = 32;
  // CPU to which the worker is bound, for affinity policies; -1: the one on which it last claimed.
  int cpu = -1;
};

struct JoinOptions {
  // A value of yours that comes back with every arrival of this source: as Connection::token or
  // Ticket::token, or as the user_data of a completion.
  uint64_t token = 0;
};

// How a connection is passed on.
struct PassOnOptions {
  // Its client has sent something that nobody has read, and this worker has no time for it while
  // others wait (Port::ToPassOn). So the connection goes to a worker that says that it waits
  // (Port::BeforeWait): the policy is shown those alone, whatever else they have. If nobody waits
  // by then, it decides among all the others.
  bool request_waits = false;
};

// A source of a balancer. The handle is small; copy it at will. When the balancer has ended, or the
// source was removed, every function answers FailedPrecondition.
class Source {
 public:
  Source() = default;

  // The worker of `port` takes part in this source from now on. The first worker that joins arms
  // the source, and gets what waits until others have joined; SourceOptions::start_workers makes
  // the source wait for them. Any thread may call this, and Leave, also while the worker claims on
  // its own thread.
  //
  // AlreadyExists when the worker has joined before. InvalidArgument when the port belongs to
  // another balancer. FailedPrecondition when the source's descriptor was closed and its number is
  // another file's.
  absl::Status Join(Port& port, JoinOptions options = {});

  // The worker takes part in this source no more. What it was offered of this source and has not
  // claimed goes to others.
  absl::Status Leave(Port& port);

  // With Intake::kReadiness, for workers with Handoff::kCompletion, who have no Ticket: gives a
  // ticket back, as Ticket::Again does. Without `error`, the source may have more than the worker
  // has taken. With it, `error` is the errno that kept the worker from taking it; EAGAIN says that
  // there was nothing.
  //
  // Any thread; does not wait. FailedPrecondition when this source was removed; then nothing
  // happens to another source that has its index now.
  absl::Status Again(int error = 0);

  // Passes an open connection on: the balancer deals it anew, by the policy of this source, among
  // the other workers. So a worker that is about to leave, or has more than its share
  // (Port::Surplus), moves connections that are idle, and their clients do not notice:
  //
  //   source.Leave(port);                    // it gets nothing new meanwhile
  //   for (Connection& connection : idle)
  //     if (!source.PassOn(std::move(connection)).ok()) Keep(std::move(connection));
  //
  // Whoever gets it claims it like a new connection, with a token of its own and a new lease, and
  // knows nothing of what was before. What the kernel has received and nobody has read travels with
  // the socket. Everything else is the worker's: so pass a connection on between two requests, when
  // all that was read is answered and all that is to be sent is written. Take the socket out of
  // epoll sets and end what is under way at it (an io_uring operation, a timer) before. A
  // connection with state in this process, such as a TLS session, cannot be passed on, unless that
  // state is found again by the descriptor, for instance in a table that the workers share.
  //
  // A worker that wakes and finds several connections ready, while others wait, need not serve them
  // one after the other. Port::ToPassOn tells how many of them to pass on; PassOnOptions says how.
  //
  // The worker whose lease this is does not get it back as long as it and somebody else have joined
  // the source, not even when the others have no credit: then it waits for them. Meanwhile the
  // worker gets new connections as before. Otherwise it is like a connection that was just
  // accepted: it keeps its place in the capacities of the source and of the balancer, and is closed
  // and counts as refused if a shutdown, or the removal of the source, finds it unclaimed. Its age
  // (SourceOptions::age_max) counts from now, and SourceOptions::hold does not count it. It may be
  // of another source of this balancer; from now on it counts as one of this source.
  //
  // Any thread; does not wait. Many in a row cost one wake-up of the master. On success the
  // descriptor and the lease are the balancer's, and the worker has one open connection less. On an
  // error nothing has changed, and both stay yours: FailedPrecondition when the source was removed,
  // the balancer is shutting down or has ended, nobody else has joined the source, or in a forked
  // child. InvalidArgument when there is no descriptor or no lease, the lease is of another
  // balancer, or the source has Intake::kReadiness.
  absl::Status PassOn(Connection&& connection, PassOnOptions options = {});
  absl::Status PassOn(int fd, Lease&& lease, PassOnOptions options = {});

  // Stops and resumes the intake. What has been accepted is still dealt. Resume also starts a
  // source that waits for start_workers.
  absl::Status Pause();
  absl::Status Resume();

  // Decides by `policy` from the next arrival on. Nothing is lost or dealt twice, and what has been
  // offered stays where it is. What was accepted before is shown to the new policy with the facts
  // that the old one had asked for. InvalidArgument when it is null.
  absl::Status SetPolicy(std::unique_ptr<Policy> policy);

  // Ends the intake for good. When it returns, the balancer does not refer to the descriptor any
  // more: you may close it, or add it anew. There is one exception, on the thread of a host with
  // Host::kRing. There the descriptor's number is not used any more, but the kernel lets go of the
  // socket only in the loop's next turn.
  //
  // What had been accepted is still dealt to the workers that had joined. If the last of them
  // leaves first, what nobody has claimed is closed and counts as refused. What waits in the
  // kernel's backlog stays there.
  //
  // With kReadiness, tickets that nobody has claimed are withdrawn. A worker that has claimed one
  // gets nothing more from Ticket::Accept, but may still be using the descriptor by itself. So
  // close the descriptor only when your workers have finished with it.
  //
  // The handle, and every copy of it, is of no use afterwards. Its index may be given to another
  // source.
  absl::Status Remove();

  // Index in events and statistics.
  uint32_t index() const { return index_; }

 private:
  friend class Balancer;
  internal::SourceKey key() const;

  std::shared_ptr<internal::BalancerImpl> balancer_;
  internal::Master* master_ = nullptr;  // whose source it is; null: of none
  uint32_t index_ = 0;
  uint32_t index_at_master_ = 0;
  uint64_t serial_ = 0;  // tells it from others that have had the same index at the master
  uint64_t number_ = 0;  // tells it from all others that the balancer ever had
};

// How a balancer ends. A server may be replaced while clients come, for instance by a successor
// that listens on the same port by SO_REUSEPORT. This order loses none of them, but for those that
// are in the backlog when the listener is closed:
//
//   balancer->Shutdown({.drain = absl::Seconds(10), .on_intake_ended = [&] { close(listen_fd); }});
//
// The listener is closed as soon as nothing refers to it. From then on the kernel leads new clients
// elsewhere, or refuses them at once. Those that were let in are served to the end. Clients that
// wait in the backlog at the moment of close() are reset. Linux (since 5.14) moves them to another
// socket instead if net.ipv4.tcp_migrate_req is 1 and that socket listens on the same address by
// SO_REUSEPORT.
//
// Threads: each callback is called once, on the thread of a master, as on_event is; with a host, on
// the host's thread. But if what it reports has happened already when you ask for the end, that
// call itself calls it, on your thread. Shutdown returns after both callbacks.
//
// Keep a callback short, because it delays what is still to be dealt. It must not throw. Of the
// balancer's functions it may call BeginShutdown and Ended only. It must not destroy the balancer.
struct ShutdownOptions {
  // How long what has been accepted may take to be claimed and to end. Counts from the call.
  absl::Duration drain = absl::ZeroDuration();

  // Called when the balancer refers to no source any more and no Ticket exists. Now you may close
  // the sources' descriptors, or use them otherwise, as after Source::Remove of each; the
  // connections live on. It is called before `on_ended`. When `drain` has passed it is called even
  // if a worker still keeps a Ticket. It does not wait for tickets that were handed over as
  // completions, because only their workers know of them.
  std::function<void()> on_intake_ended = nullptr;

  // Called when the balancer has ended, with the report that Shutdown returns.
  std::function<void(const ShutdownReport&)> on_ended = nullptr;
};

class Balancer {
 public:
  // Makes a balancer, and starts the master's thread unless there is a host. That thread sleeps
  // until there is something to do.
  //
  // The kernel's features are tried, and the rings are made, on a thread that has ended when this
  // returns. So closing those rings interrupts none of your threads. One exception: a host uses the
  // ring of Host::kLoop. Some 50 ms after the balancer has ended, what blocks on the host's thread
  // may end early once, for instance epoll_wait with EINTR.
  static absl::StatusOr<std::unique_ptr<Balancer>> Create(BalancerOptions options = {});

  // Shuts down without waiting, unless that was done before. With a host, destroy it on the host's
  // thread, or when that thread has ended. In the event callback, or in a function of a policy, it
  // ends the process with a sentence. The master that calls would wait for itself.
  //
  // Afterwards fd() is closed. Sources, ports, leases and tickets that still exist keep one eventfd
  // open for each master, until the last of them is gone. They keep no other descriptor.
  ~Balancer();
  Balancer(const Balancer&) = delete;
  Balancer& operator=(const Balancer&) = delete;

  // Watches a listening stream socket, TCP or Unix; with kReadiness, anything that poll(2) can wait
  // for. Nothing is armed until the first worker joins.
  //
  // Ownership: borrows `fd` and leaves its flags alone. Keep it open until the source is removed or
  // the balancer has ended. Take a listener out of your own loop first. Otherwise it wakes that
  // loop for the same connections, and your loop may accept them past the policy. Make it
  // non-blocking: before Linux 6.10, kPollAccept refuses a blocking one (FailedPrecondition).
  //
  // Errors: InvalidArgument for a regular file or a directory, which are always ready.
  // ResourceExhausted while its master has 1024 sources. AlreadyExists when this descriptor, or
  // another descriptor of the same socket, is a source of this balancer already. FailedPrecondition
  // when the number is that of a source whose descriptor was closed before the source was removed.
  // The balancer gives up such a source (kSourceFailed) as soon as it would use that number.
  absl::StatusOr<Source> AddSource(int fd, SourceOptions options = {});

  // Takes a worker into the books. It receives nothing until it joins a source.
  absl::StatusOr<Port> AddWorker(WorkerOptions options);

  // The same for a worker that watches a mailbox instead of having an io_uring of its own. Leave
  // ring_fd and tag unset; the handoff is kInbox. A mailbox serves one port at a time:
  // FailedPrecondition until the port that had it has left.
  absl::StatusOr<Port> AddWorker(const Mailbox& mailbox, WorkerOptions options = {});

  // With Host::kLoop: a descriptor that is readable when there is something to do; otherwise -1.
  // Watch it by level-triggered epoll, by poll, or by a poll on an io_uring. The balancer owns it.
  // It is also readable while there is no host, so a loop may wait for it before the first RunOnce.
  // If the balancer has ended by then, it is readable until a thread has called RunOnce and heard
  // of it. It stays the same when another thread becomes the host.
  int fd() const;

  // With Host::kRing: lends the ring of the loop that will drive the master, before the first
  // RunOnce. When the thread of that loop has ended, the loop that goes on lends its own. Set-up
  // functions work before it, so the balancer may exist before the loop.
  //
  // Call it on the loop's thread, or before that thread uses the ring. It fills an entry of the
  // submission queue. The completion of that makes the loop come round to RunOnce, however it
  // waits.
  //
  // FailedPrecondition while a loan is in use. InvalidArgument for a ring with SQPOLL.
  // InvalidArgument also when user_data_value cannot be told from that of an earlier loan whose
  // entries may still come: choose another value then.
  absl::Status Lend(RingLoan loan);

  // With Host::kRing, on the host's thread: returns whether this entry of the completion queue is
  // the master's. If it is, the master keeps what it says until RunOnce. Call it also for entries
  // that come after the balancer has ended, and for those of rings that were lent before.
  bool OnCompletion(const io_uring_cqe& cqe);

  // With a host: does what there is to do, without waiting. Call it when fd() is readable, or, with
  // Host::kRing, in each turn of the loop after the completions. You may call it at any other time
  // as well. Afterwards claim, if the host is a worker itself.
  //
  // The first call makes its thread the host, see Host. While that thread lives, others get
  // FailedPrecondition. While it ends, their calls of RunOnce and Lend wait until it has ended.
  // Set-up functions on other threads wait for the host's next RunOnce, so the host must not wait
  // for those threads.
  //
  // With Host::kRing, FailedPrecondition when the calling thread cannot submit to the ring that was
  // lent (IORING_SETUP_SINGLE_ISSUER, of another thread). The loan has ended then, and another ring
  // may be lent.
  absl::Status RunOnce();

  // Ends the intake and goes on dealing what has been accepted. Returns when all of it has been
  // claimed and every lease released, or when `drain` has passed. Then it closes what nobody has
  // claimed, and ends the master's thread. For the listeners see ShutdownOptions: while they are
  // open, they attract clients that nobody will serve.
  //
  // The workers must go on claiming. They are told of the shutdown (Port::draining). A connection
  // that stays open without traffic is for its worker to close, or the drain lasts until its
  // deadline.
  //
  // Another thread may call it during a drain. That ends the drain at the new deadline if that is
  // earlier. Both calls return the same report, and so does every later call.
  //
  // On a worker's own thread do not drain, because the drain would wait for what that thread has to
  // claim and to close. The same goes for the host's thread. With Host::kRing a drain on the host's
  // thread does not even wait. What it would wait for comes through the host's own loop, so it
  // counts as a drain of zero. Workers and hosts call BeginShutdown instead. In a callback the
  // answer is an empty report.
  ShutdownReport Shutdown(ShutdownOptions options);
  // The short form, without callbacks.
  ShutdownReport Shutdown(absl::Duration drain);

  // Shuts down without waiting. Any thread may call it: a worker's, a host's, and also a callback
  // of the balancer. `on_ended` or Ended() tells when the balancer has ended. A host goes on
  // calling RunOnce until then. If there has been no host yet, the balancer has ended when this
  // returns. A later Shutdown waits for the same end. FailedPrecondition in a forked child.
  absl::Status BeginShutdown(ShutdownOptions options = {});

  // The report, once the balancer has ended; nothing before. Any thread; does not wait.
  std::optional<ShutdownReport> Ended() const;

  // A consistent snapshot, taken by the master between two batches. After the end it is the one of
  // the report. stats.h says what it costs; BalancerStats::status says where it cannot be had.
  BalancerStats Stats() const;

 private:
  explicit Balancer(std::shared_ptr<internal::BalancerImpl> impl);
  std::shared_ptr<internal::BalancerImpl> impl_;
};

// In a forked child: closes the child's copies of everything that the balancers, mailboxes and
// hand-overs (listeners.h) of its parents keep open. So no source is watched and no port in use
// because of this child. These are their rings, their event descriptors, the duplicates of rings
// and listeners, and the sockets by which generations talk. Handles may still be destroyed
// afterwards, or not.
//
// In any other process, and when called a second time, it does nothing: what this process has made
// stays. If another thread was making or closing something at the moment of the fork, that may stay
// open. One system call for each descriptor; async-signal-safe.
void AfterForkInChild();

}  // namespace ringmaster

#endif  // RINGMASTER_BALANCER_H_
