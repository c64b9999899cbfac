// The library for programs in C, and in languages that can call C. Everything that balancer.h,
// port.h, policy.h, mailbox.h, stats.h and listeners.h offer is offered here. Those headers have
// the whole contract, with the reasons; this one says what each call does, and what is different
// in C. The words (source, worker, port, offer, lease, host …) are those of balancer.h.
//
//   ringmaster_balancer* balancer;
//   ringmaster_source* source;
//   ringmaster_port* port;  // of one worker
//   ringmaster_mailbox* mailbox;
//   if (ringmaster_balancer_create(NULL, &balancer) != 0) puts(ringmaster_last_error()), exit(1);
//   ringmaster_balancer_add_source(balancer, listen_fd, NULL, NULL, &source);
//   ringmaster_mailbox_create(&mailbox);
//   ringmaster_balancer_add_worker(balancer, mailbox, NULL, &port);
//   ringmaster_source_join(source, port, 0);
//   …                               // the worker, when ringmaster_mailbox_fd(mailbox) is readable:
//   ringmaster_connection connection;
//   while (ringmaster_port_claim_one(port, &connection, NULL) == 1) Serve(&connection);
//
// Language. C99 and later, C++17 and later; it includes nothing but headers of the language, and
// version.h, which says which version this is. It has no macro with arguments, no variable argument
// list and no inline function.
//
// Names. All begin with ringmaster_ or RINGMASTER_. The function of a class has the name of the
// class and its own: Balancer::AddWorker is ringmaster_balancer_add_worker. Texts of errors and
// events use the names of the C++ headers; an option has the same name in both.
//
// Results. A function returns 0 or more when it has done what it says, otherwise a negative errno:
//
//   -EINVAL      an argument is null, or a value is wrong
//   -EBUSY       the state does not allow it: the balancer has ended, the port has left, the
//                source was removed, the call comes from a callback or from a forked child
//   -ENOENT      there is no such thing       -EEXIST   it is there already
//   -EPERM       it is forbidden, for instance by a seccomp filter or a sysctl
//   -ENOSYS      the kernel cannot do it
//   -ENOBUFS     a limit is reached: descriptors, memory that may be locked, the kernel's memory, a
//                number that the library limits
//   -ENOMEM      this process has no memory   -ETIMEDOUT   no answer in time
//   -EAGAIN      not at present               -ESTALE      too late
//   -EPROTO      the other side says nonsense -EIO         anything else
//
// ringmaster_last_error() tells in words what was wrong, with the likely cause and the remedy. A
// call that fails leaves everything as it was, unless it says otherwise, and writes no result.
// Nothing here ends the process because of a bad argument or state, and errno means nothing
// afterwards.
//
// Handles. A pointer to one of the types without a body is a handle. The function that makes it
// stores it in its last argument, and the caller frees it by the function …_free, once; that takes
// a null pointer, too, and does nothing. No other function may be using a handle while it is freed.
// Handles may be freed in any order: one that outlives its balancer is of no use, and does no harm.
// A handle that was freed must not be used again.
//
// Threads. Any thread may call any function, except where it says otherwise. Functions of one port
// are for one thread at a time, and so are those of one ticket; ringmaster_source_join and
// ringmaster_source_leave are allowed beside them.
//
// Callbacks. Each is called with the `context` that was given beside it. It must return: no
// longjmp, no exception, no end of its thread. What a callback of the balancer may call stands in
// balancer.h; a function that it may not call answers -EBUSY there.
//
// Structs with a `struct_size`. This first member says how many bytes the caller's struct has, so
// such a struct can grow at its end. Each struct of options is filled in by its function …_init,
// with sizeof(the struct); then change what you want to be different. A null pointer in place of
// options stands for the defaults. A struct that ends early is taken: what it lacks has its
// default. Each size is a multiple of sizeof(size_t). One that is longer is taken if all that this
// library does not know is zero, otherwise it is refused with -EINVAL. So zero means "as before" in
// every field that a later version adds. In a struct that the library fills in, the caller sets
// `struct_size` before the call; what the library does not know becomes zero. In a struct that is
// passed to a callback, the library has set it.
//
// Values. Durations are nanoseconds. An `int` that is called yes or no takes 1 and 0 only. Texts
// end with a 0, and are copied where they are kept.
//
// fork. As balancer.h says: create the balancer after the last fork of a daemon. A child that was
// forked later can free its handles, and call ringmaster_after_fork_in_child; everything else
// answers -EBUSY there, or finds nothing.

#ifndef RINGMASTER_RINGMASTER_H_
#define RINGMASTER_RINGMASTER_H_

#include <stddef.h>
#include <stdint.h>

#include "ringmaster/version.h"

#ifdef __cplusplus
extern "C" {
#endif

struct io_uring_cqe;
struct io_uring_sqe;

// --- Errors, fork --------------------------------------------------------------------------------

// What was wrong with the last call of this thread that has failed: a sentence or several, of at
// most 1023 bytes, in English. Empty if none has failed. Never null. The text belongs to the
// thread, and is valid until another call of it fails, or the thread ends. A call that succeeds
// leaves it.
const char* ringmaster_last_error(void);

// In a forked child: closes the child's copies of everything that the parent's balancers, mailboxes
// and hand-overs keep open. So no source stays watched and no port in use because of this child. A
// child that goes on without exec must call it, unless the parent has set
// `close_after_fork`. In any other process, and when called again, it does nothing.
// Async-signal-safe.
void ringmaster_after_fork_in_child(void);

// --- Handles -------------------------------------------------------------------------------------

// What …_create and the like make, and …_free frees.
typedef struct ringmaster_balancer ringmaster_balancer;
typedef struct ringmaster_source ringmaster_source;
typedef struct ringmaster_port ringmaster_port;
typedef struct ringmaster_ticket ringmaster_ticket;
typedef struct ringmaster_mailbox ringmaster_mailbox;
typedef struct ringmaster_policy ringmaster_policy;
typedef struct ringmaster_stats ringmaster_stats;
typedef struct ringmaster_listeners ringmaster_listeners;
typedef struct ringmaster_hand_over ringmaster_hand_over;

// Duration: no limit.
#define RINGMASTER_FOREVER INT64_MAX

// --- Connections and leases ----------------------------------------------------------------------

// One connection that counts as open at its worker. Plain data: it may be copied as bytes, kept in
// memory of the caller's and carried to another thread. All copies are one lease, so release one of
// them and forget the others. All zeros is the empty lease, which counts nothing.
//
// Any thread may release it, but two threads must not use one lease at once. It may be released
// after the port and the balancer were freed. One that is never released counts for ever.
typedef struct ringmaster_lease {
  uintptr_t words[2];  // the library's own
} ringmaster_lease;

// Counts the connection as closed, and makes the lease empty. Close the connection's descriptor
// first: a balancer that ran out of descriptors tries again at this moment. 0, also for an empty
// lease; -EINVAL for null.
int ringmaster_lease_release(ringmaster_lease* lease);

// Whether the lease is not empty: 1 or 0; -EINVAL for null.
int ringmaster_lease_held(const ringmaster_lease* lease);

// A connection that was claimed. Plain data, as a lease. Descriptor and lease are the caller's. One
// that is all zeros is not empty: it has descriptor 0.
typedef struct ringmaster_connection {
  int fd;             // the connected socket; -1: none
  uint32_t reserved;  // 0
  uint64_t token;     // what the worker gave when it joined the source
  ringmaster_lease lease;
} ringmaster_connection;

// Closes the descriptor, if there is one, then releases the lease, if there is one, and makes both
// empty. 0; -EINVAL for null.
int ringmaster_connection_close(ringmaster_connection* connection);

// --- The balancer --------------------------------------------------------------------------------

// Who drives the master: Host of balancer.h.
enum {
  RINGMASTER_HOST_THREAD = 0,  // a thread of the balancer's own
  RINGMASTER_HOST_LOOP = 1,    // a loop of yours, by ringmaster_balancer_fd
  RINGMASTER_HOST_RING = 2     // a loop of yours, by an io_uring that it lends
};

// What is reported while a balancer runs: Event::Kind of balancer.h.
enum {
  RINGMASTER_EVENT_OUT_OF_DESCRIPTORS = 0,  // accepting pauses until a lease is released
  RINGMASTER_EVENT_ACCEPTING = 1,           // the shortage has ended
  RINGMASTER_EVENT_SOURCE_BLOCKS = 2,       // somebody has made the listener blocking
  RINGMASTER_EVENT_SOURCE_FAILED = 3,       // it can be accepted from no more
  RINGMASTER_EVENT_WORKER_STALLED = 4,      // a worker did not move
  RINGMASTER_EVENT_WORKER_MOVES = 5,        // it does again
  RINGMASTER_EVENT_DOORBELL_FAILED = 6,     // a worker's ring could not be reached
  RINGMASTER_EVENT_TURNED_AWAY = 7,         // the ring brought more connections than it had said
  RINGMASTER_EVENT_HOST_GONE = 8,           // the host's thread has ended
  RINGMASTER_EVENT_MASTER_FAILED = 9,       // the master's ring cannot be used any more
  RINGMASTER_EVENT_BACKLOG_OVERFLOW = 10,   // the kernel has discarded clients
  RINGMASTER_EVENT_POLICY_FAILED = 11,      // the policy of a source picked beyond its candidates
  RINGMASTER_EVENT_SET_ASIDE = 12,          // the policy of a source picks nobody
  RINGMASTER_EVENT_TABLE_FULL = 13          // a connection did not fit into a worker's file table
};

// An event. Valid during the call that it is passed to, the text included.
typedef struct ringmaster_event {
  size_t struct_size;
  int kind;          // RINGMASTER_EVENT_…; later versions may add some
  uint32_t source;   // index, where it concerns a source
  uint32_t worker;   // index, where it concerns a worker
  int error;         // a positive errno, where there is one; otherwise 0
  const char* text;  // a sentence with cause and remedy; never null
} ringmaster_event;

// BalancerOptions of balancer.h, which says more of each.
typedef struct ringmaster_balancer_options {
  size_t struct_size;
  int host;                     // RINGMASTER_HOST_…; default: RINGMASTER_HOST_THREAD
  uint32_t masters;             // 1 to 16; default: 1
  const char* thread_name;      // at most 15 characters; null, the default: "ringmaster"
  int cpu;                      // to which the master's thread is bound; default: -1, not bound
  uint32_t capacity;            // open connections of all sources, 1 or more; default: UINT32_MAX
  int64_t recall_after_ns;      // 100,000 to 60,000,000,000; default: 10,000,000
  int restrict_ring;            // yes or no; default: yes
  int close_after_fork;         // yes or no; default: no
  uint32_t completion_entries;  // 64 to 65536; default: 4096
  uint32_t reserved;            // 0
  // Called with each event, on the thread of a master; null, the default: nobody is told. Keep it
  // short. It may make a port leave, read the statistics of a balancer with one master, and call
  // ringmaster_balancer_begin_shutdown and ringmaster_balancer_ended, and nothing else.
  void (*on_event)(void* context, const ringmaster_event* event);
  void* context;
} ringmaster_balancer_options;

// Fills in the defaults. -EINVAL for null, and for a size without room for an option.
int ringmaster_balancer_options_init(ringmaster_balancer_options* options, size_t struct_size);

// Makes a balancer, and starts the master's thread unless there is a host. Blocks for some
// milliseconds. -EINVAL for options out of range, -EPERM and -ENOSYS where io_uring is forbidden or
// missing, -ENOBUFS at a limit.
int ringmaster_balancer_create(const ringmaster_balancer_options* options,
                               ringmaster_balancer** balancer);

// Shuts down without a drain, unless it has ended before, and frees the handle. With a host, call
// it on the host's thread, or when that thread has ended. -EBUSY, and nothing happens, in a
// callback of this balancer, or in a function of a policy of it: there the master would wait for
// itself.
int ringmaster_balancer_free(ringmaster_balancer* balancer);

// RINGMASTER_HOST_LOOP: a descriptor that is readable when there is something to do. Watch it
// level-triggered; the balancer owns it. -EBUSY when there is none: with another host, and in a
// forked child.
int ringmaster_balancer_fd(const ringmaster_balancer* balancer);

// With a host: does what there is to do, without waiting. The first call makes its thread the host.
// Afterwards claim, if the host is a worker itself. -EBUSY without a host, on another thread than
// the host's, when the balancer has ended, and when the calling thread cannot submit to the ring
// that was lent.
int ringmaster_balancer_run_once(ringmaster_balancer* balancer);

// RINGMASTER_HOST_RING: the io_uring that the loop lends: RingLoan of balancer.h. All members must
// be set.
typedef struct ringmaster_ring_loan {
  size_t struct_size;
  int ring_fd;
  uint32_t reserved;  // 0
  // The next free entry of the submission queue, or null when it is full (io_uring_get_sqe). Called
  // on the host's thread, and by ringmaster_balancer_lend.
  struct io_uring_sqe* (*get_sqe)(void* context);
  // Hands the queue to the kernel without waiting (io_uring_submit): 0 or more, or -errno.
  // Likewise.
  int (*submit)(void* context);
  void* context;
  // The master's entries are those with (user_data & mask) == value. The mask consists of bits of
  // the highest byte, at least one.
  uint64_t user_data_mask;
  uint64_t user_data_value;
} ringmaster_ring_loan;

// Empties the loan, with ring_fd -1. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_ring_loan_init(ringmaster_ring_loan* loan, size_t struct_size);

// Lends the ring of the loop that will drive the master. On the loop's thread, or before that
// thread uses the ring. -EBUSY while a loan is in use, and with another host; -EINVAL for a ring
// with SQPOLL, and for a user_data_value that an earlier loan had whose entries may still come.
int ringmaster_balancer_lend(ringmaster_balancer* balancer, const ringmaster_ring_loan* loan);

// RINGMASTER_HOST_RING, on the host's thread: whether this entry of the completion queue is the
// master's, 1 or 0. If so, the master keeps what it says until ringmaster_balancer_run_once.
int ringmaster_balancer_on_completion(ringmaster_balancer* balancer,
                                      const struct io_uring_cqe* cqe);

// --- Policies ------------------------------------------------------------------------------------

// A policy belongs to the caller until it is passed to ringmaster_balancer_add_source or
// ringmaster_source_set_policy. These take it in any case, also when they fail: do not use or free
// it afterwards.

// Makes a built-in policy: "round-robin", "weighted-round-robin:WEIGHT,…", "exclusive",
// "exclusive-fifo", "affinity-cpu:SLACK", "affinity-hash", "least-loaded:first",
// "two-choices:SEED", "hermes:STILL_MS". A colon and what follows it may be left out. policy.h
// describes each. -EINVAL says what is wrong, and which names there are.
int ringmaster_policy_by_name(const char* name, ringmaster_policy** policy);

// The names that ringmaster_policy_by_name takes, without parameters, by position from 0; null
// beyond the last. Not to be freed.
const char* ringmaster_policy_names(size_t position);

// Who is at the other end of a connection: Peer of policy.h.
enum {
  RINGMASTER_PEER_UNKNOWN = 0,
  RINGMASTER_PEER_IPV4 = 1,
  RINGMASTER_PEER_IPV6 = 2,
  RINGMASTER_PEER_UNIX = 3
};

// What a worker does now: Activity of policy.h. The number is what each connection of such a worker
// weighs in a policy that goes by load.
enum {
  RINGMASTER_ACTIVITY_IDLE = 256,
  RINGMASTER_ACTIVITY_CLAIMING = 257,
  RINGMASTER_ACTIVITY_BUSY = 513
};

// The facts about an arrival that the policy has asked for. Valid during the call.
typedef struct ringmaster_arrival {
  size_t struct_size;
  int32_t incoming_cpu;  // -1: unknown
  int request_waits;     // yes or no: it was passed on with a request that waits
  int peer_kind;         // RINGMASTER_PEER_…
  uint16_t peer_port;    // IPv4 and IPv6, in the byte order of this machine
  // IPv4: 4 bytes in network order; IPv6: 16. Unix: process, user and group of the client, 4 bytes
  // each in the byte order of this machine. The rest is zeros.
  uint8_t peer_address[16];
} ringmaster_arrival;

// A worker that has credit now.
typedef struct ringmaster_candidate {
  uint32_t worker;     // its index
  uint32_t open;       // connections that it serves or has been offered
  uint32_t unclaimed;  // of these, offers of this master that it has not claimed
  uint32_t credit;     // how many more it may be offered now, at least 1
  int32_t cpu;         // on which it last claimed, or to which it is bound; -1: unknown
  int64_t still_ns;    // how long it has not moved although offers wait for it; 0 if none waits
  uint16_t activity;   // RINGMASTER_ACTIVITY_…
  uint8_t on_host;     // 1: the worker drives the master; otherwise 0
} ringmaster_candidate;

// CPUs with equal numbers share the thing; -1: unknown.
typedef struct ringmaster_cpu {
  int32_t core;   // hardware threads of one core
  int32_t cache;  // last-level cache
  int32_t node;   // memory node
} ringmaster_cpu;

// The workers of a source at the moment of a decision. Valid during the call, arrays included.
typedef struct ringmaster_view {
  size_t struct_size;
  const ringmaster_candidate* candidates;  // by ascending index; never empty
  size_t candidate_count;
  const uint32_t* joined;  // all workers that have joined the source, by ascending index
  size_t joined_count;
  const ringmaster_cpu* cpus;  // entry i describes CPU i
  size_t cpu_count;            // 0: nothing is known
} ringmaster_view;

// What `pick` returns to set the arrival aside: Policy::kNobodyNow of policy.h.
#define RINGMASTER_NOBODY_NOW SIZE_MAX

// A policy of one's own: Policy of policy.h. The functions are called on a master's thread, unless
// any_thread says otherwise, never two at a time. They must not call the balancer; `pick` and
// `on_recall` must not allocate or block. Each may be null but for `pick`.
typedef struct ringmaster_policy_functions {
  size_t struct_size;
  const char* name;        // null, the default: "own"
  void* context;           // passed to each of the functions
  int needs_incoming_cpu;  // yes or no; default: no. A system call for each connection
  int needs_peer;          // likewise
  int any_thread;  // yes or no; default: no. Threads of workers may ask it, too; not with needs_…
  uint32_t reserved;  // 0
  // Returns a position in view->candidates, or RINGMASTER_NOBODY_NOW.
  size_t (*pick)(void* context, const ringmaster_arrival* arrival, const ringmaster_view* view);
  // Every worker index is below `worker_slots` from now on. Allocate here. Called before the first
  // `pick`, and again whenever the number grows.
  void (*prepare)(void* context, uint32_t worker_slots);
  // An offer that was picked for `worker` was taken back.
  void (*on_recall)(void* context, uint32_t worker);
  // Whether the policy would have taken `to` as well as `from`, who says that it is busy: 1 or 0.
  int (*may_move)(void* context, const ringmaster_arrival* arrival,
                  const ringmaster_candidate* from, const ringmaster_candidate* to);
  // `worker` has left the source, and its index may be given to another one.
  void (*on_leave)(void* context, uint32_t worker);
  // Policy::Save and Policy::Load: 1 or 0. Both or neither.
  int (*save)(void* context, uint64_t* words, size_t word_count);
  int (*load)(void* context, const uint64_t* words, size_t word_count);
  // Nothing is called any more. Called once, on any thread, if ringmaster_policy_create succeeded.
  void (*destroy)(void* context);
} ringmaster_policy_functions;

// Fills in the defaults. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_policy_functions_init(ringmaster_policy_functions* functions, size_t struct_size);

// Makes a policy of these functions, which are copied. -EINVAL without `pick`, with any_thread
// beside needs_…, and with one of save and load alone.
int ringmaster_policy_create(const ringmaster_policy_functions* functions,
                             ringmaster_policy** policy);

// The policy's name, parameters included: valid until it is freed or passed on. Null for null.
const char* ringmaster_policy_name(const ringmaster_policy* policy);

// Frees a policy that was not passed on.
int ringmaster_policy_free(ringmaster_policy* policy);

// --- Sources -------------------------------------------------------------------------------------

// Any thread may call the functions of a source. Those that return 0 answer -EBUSY when the source
// was removed, when the balancer has ended, in a forked child, and, but for ringmaster_source_again
// and ringmaster_source_pass_on, in callbacks of the balancer.

// How arrivals are obtained: Intake of balancer.h.
enum {
  RINGMASTER_INTAKE_POLL_ACCEPT = 0,  // one accept at a time, as many as there is credit for
  RINGMASTER_INTAKE_ACCEPT = 1,       // multishot accept, ahead of credit up to `hold`
  RINGMASTER_INTAKE_READINESS = 2     // anything that can be polled; workers get tickets
};

// SourceOptions of balancer.h, which says more of each.
typedef struct ringmaster_source_options {
  size_t struct_size;
  int master;              // which master watches it, from 0; default: -1, the least busy
  int intake;              // RINGMASTER_INTAKE_…; default: RINGMASTER_INTAKE_POLL_ACCEPT
  uint32_t start_workers;  // so many join before anything is taken in, 1 or more; default: 1
  uint32_t hold;           // 1 to 1,048,576; default: 128
  uint32_t capacity;       // open connections of this source, 1 or more; default: UINT32_MAX
  int recall;              // yes or no: offers may be recalled; default: yes
  int64_t age_max_ns;      // 1,000,000 or more; default: RINGMASTER_FOREVER
  int permits;             // yes or no: it may be decided before a connection comes; default: yes
  int nonblocking;         // yes or no, of what is accepted; default: yes
  int close_on_exec;       // yes or no, of what is accepted; default: yes
  uint32_t reserved;       // 0
} ringmaster_source_options;

// Fills in the defaults. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_source_options_init(ringmaster_source_options* options, size_t struct_size);

// Watches `fd`: a listening stream socket, or with RINGMASTER_INTAKE_READINESS anything that can be
// polled. Nothing is armed until the first worker joins. Borrows `fd`: keep it open until the
// source is removed or the balancer has ended. Takes `policy`, also when it fails; null:
// least-loaded.
//
// -EINVAL for options out of range, and for a file that cannot be watched. -EEXIST when this socket
// is a source already. -ENOBUFS while its master has 1024 sources. -EBUSY for a blocking listener
// before Linux 6.10, and for the number of a source that was closed and not removed.
int ringmaster_balancer_add_source(ringmaster_balancer* balancer, int fd, ringmaster_policy* policy,
                                   const ringmaster_source_options* options,
                                   ringmaster_source** source);

// The worker of `port` takes part in this source from now on. `token` comes back with each arrival.
// Any thread, also while the worker claims. -EEXIST when it has joined before; -EINVAL for a port
// that has left or is of another balancer; -EBUSY when the source was removed, its descriptor was
// closed, or the balancer has ended.
int ringmaster_source_join(ringmaster_source* source, ringmaster_port* port, uint64_t token);

// The worker takes part no more. What it was offered and has not claimed goes to others. Any
// thread. -EINVAL and -EBUSY as above.
int ringmaster_source_leave(ringmaster_source* source, ringmaster_port* port);

// Stops and resumes the intake. What was accepted is still dealt. Resuming also starts a source
// that waits for start_workers.
int ringmaster_source_pause(ringmaster_source* source);
int ringmaster_source_resume(ringmaster_source* source);

// Decides by `policy` from the next arrival on. Takes `policy`, also when it fails. -EINVAL for
// null, and for a policy that needs facts of connections where arrivals are tickets.
int ringmaster_source_set_policy(ringmaster_source* source, ringmaster_policy* policy);

// RINGMASTER_INTAKE_READINESS, for workers with RINGMASTER_HANDOFF_COMPLETION or
// RINGMASTER_HANDOFF_DIRECT: gives a ticket back. `error` as for ringmaster_ticket_again.
int ringmaster_source_again(ringmaster_source* source, int error);

// A bit of `flags`: the client has sent something that nobody has read, and this worker has no time
// for it while others wait (ringmaster_port_to_pass_on).
#define RINGMASTER_PASS_ON_REQUEST_WAITS 1u

// Passes an open connection on: it is dealt anew among the other workers. Before that, take it out
// of epoll sets, and end what is under way at it. On success descriptor and lease are the
// balancer's, and `lease` is empty. On an error both stay the caller's: -EBUSY when the source was
// removed, the balancer is shutting down, nobody else has joined the source, or in a forked child;
// -EINVAL for no descriptor, no lease, one of another balancer, unknown flags, or
// RINGMASTER_INTAKE_READINESS.
int ringmaster_source_pass_on(ringmaster_source* source, int fd, ringmaster_lease* lease,
                              unsigned flags);

// Ends the intake for good. When it returns, you may close the descriptor, with the exceptions that
// Source::Remove of balancer.h has. The handle is of no use afterwards, and still to be freed.
int ringmaster_source_remove(ringmaster_source* source);

// The index in events and statistics, also when it was removed.
int ringmaster_source_index(const ringmaster_source* source);

// Frees the handle. The source goes on: ringmaster_source_remove ends it, or the balancer's end.
int ringmaster_source_free(ringmaster_source* source);

// --- Workers -------------------------------------------------------------------------------------

// How arrivals reach a worker: Handoff of balancer.h.
enum {
  RINGMASTER_HANDOFF_INBOX = 0,       // by claiming
  RINGMASTER_HANDOFF_COMPLETION = 1,  // each as a completion of the worker's ring
  RINGMASTER_HANDOFF_DIRECT = 2       // each into the file table of the worker's ring
};

// For a worker whose loop is not an io_uring loop: a descriptor that is readable when there is
// something to claim. It serves one port at a time. Take it out of the loop before it is freed. The
// descriptor stays open until the mailbox was freed and its port has left. -EPERM, -ENOSYS,
// -ENOBUFS as for a balancer.
int ringmaster_mailbox_create(ringmaster_mailbox** mailbox);

// What the loop watches for readability; the mailbox owns it. Do nothing else with it.
// Edge-triggered loops claim until nothing is left.
int ringmaster_mailbox_fd(const ringmaster_mailbox* mailbox);

// Frees the handle. A port that it serves keeps it going until it leaves.
int ringmaster_mailbox_free(ringmaster_mailbox* mailbox);

// WorkerOptions of balancer.h, which says more of each. With a mailbox leave ring_fd, tag and
// handoff alone.
typedef struct ringmaster_worker_options {
  size_t struct_size;
  int on_host;        // yes or no: this worker is the host, and needs no ring; default: no
  int ring_fd;        // the worker's io_uring, enabled; default: -1, none
  int handoff;        // RINGMASTER_HANDOFF_…; default: RINGMASTER_HANDOFF_INBOX
  uint32_t capacity;  // how many connections it may have open, 1 or more; default: UINT32_MAX
  uint64_t tag;       // user_data of the doorbell, the completion that says "claim"; default: 0
  uint32_t window;    // how many unclaimed offers it may have, 1 to 1024; default: 32
  int cpu;            // to which it is bound; default: -1, not known
} ringmaster_worker_options;

// Fills in the defaults. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_worker_options_init(ringmaster_worker_options* options, size_t struct_size);

// Takes a worker into the books. It receives nothing until it joins a source. `mailbox` is null for
// a worker with a ring, and for one on the host. The port may outlive the mailbox and the balancer.
// -EINVAL for options out of range or beside a mailbox, and for a ring that is none; -EBUSY while
// the mailbox has another port, and when the balancer has ended; -ENOSYS when the kernel cannot do
// RINGMASTER_HANDOFF_DIRECT.
int ringmaster_balancer_add_worker(ringmaster_balancer* balancer, const ringmaster_mailbox* mailbox,
                                   const ringmaster_worker_options* options,
                                   ringmaster_port** port);

// Called for each connection that is claimed; descriptor and lease are the callee's. Copy the
// struct: it is valid during the call only.
typedef void (*ringmaster_serve)(void* context, const ringmaster_connection* connection);
// Called for each ticket that is claimed; the callee frees it.
typedef void (*ringmaster_redeem)(void* context, ringmaster_ticket* ticket);

// Claims what was offered, oldest first, and calls `serve` for each connection and `redeem` for
// each ticket, at most `arrivals_max` times in all; SIZE_MAX: no limit. Each is claimed immediately
// before its call. With `redeem` null, tickets of listeners are accepted by the library, and those
// of anything else given back. Call it when the doorbell or the mailbox says so; at any other time
// it is cheap. On the worker's thread.
//
// Returns 1 when offers are left: claim again before you wait. Otherwise 0. A callback may make the
// port leave, or free it; then the claim ends with 0. A claim within a claim of the same port does
// nothing and returns 0. -ENOMEM when there was no memory for a ticket, which was given back.
int ringmaster_port_claim(ringmaster_port* port, ringmaster_serve serve, ringmaster_redeem redeem,
                          void* context, size_t arrivals_max);

// The same for one arrival and without a callback. 1: something was claimed, and is the caller's:
// either a connection, or, if `ticket` is not null, a ticket; then connection->fd is -1. Otherwise
// `*ticket` is null. 0: nothing is left, and the worker may wait. So call it until it returns 0; a
// loop with a mailbox that is level-triggered may stop at any time.
int ringmaster_port_claim_one(ringmaster_port* port, ringmaster_connection* connection,
                              ringmaster_ticket** ticket);

// RINGMASTER_HANDOFF_COMPLETION and RINGMASTER_HANDOFF_DIRECT: the worker has taken `count`
// completions that carried arrivals out of its ring. Call it once for each batch, after
// ringmaster_port_adopt. With RINGMASTER_HANDOFF_DIRECT it also says that there may be room in the
// file table.
int ringmaster_port_took(ringmaster_port* port, size_t count);

// Counts a connection that has come as a completion (a descriptor or a slot), or by another way, as
// one more that is open, until the lease is released. Descriptor and slot stay the caller's. -EBUSY
// for a port that has left.
int ringmaster_port_adopt(ringmaster_port* port, ringmaster_lease* lease);

// Hints: right before the call in which the worker's loop waits, and right after it. port.h says
// where they belong in which loop. The second returns 1 when something was offered meanwhile, which
// is to be claimed before anything else; otherwise 0. `by_port`, yes or no: the wait said that the
// mailbox or the sight was ready. Call both or neither. On the worker's thread.
int ringmaster_port_before_wait(ringmaster_port* port);
int ringmaster_port_after_wait(ringmaster_port* port, int by_port);

// A worker with an io_uring: a descriptor to watch by a multishot poll. It is readable when a
// connection waits for this worker alone; then claim. The port owns it until it leaves. Call it
// once, before the worker joins. A worker with a mailbox has its sight in there. -EBUSY for a port
// that has left, in a forked child, on the host, and with other handoffs than
// RINGMASTER_HANDOFF_INBOX.
int ringmaster_port_watch_sight(ringmaster_port* port);

// How many connections this worker has open above an equal share; 0 for a port that has left.
int64_t ringmaster_port_surplus(const ringmaster_port* port);

// How many of `ready` connections that have something to do this worker should pass on, because
// others wait who could begin at once. Needs hints. On the worker's thread. -EINVAL for more than
// INT32_MAX.
int64_t ringmaster_port_to_pass_on(ringmaster_port* port, size_t ready);

// Change the options of these names from the next decision on. Any thread, as long as no other
// thread uses the port. -EINVAL for a value out of range, and with RINGMASTER_HANDOFF_INBOX for a
// window larger than the first one; -EBUSY for a port that has left.
int ringmaster_port_set_capacity(ringmaster_port* port, uint32_t capacity);
int ringmaster_port_set_window(ringmaster_port* port, uint32_t window);

// Leaves the balancer and all its sources. What was offered and not claimed goes to others; leases
// stay valid. When it returns, the worker's ring may be closed, with the exceptions that
// Port::Leave of port.h has. 0, also when the port has left before.
int ringmaster_port_leave(ringmaster_port* port);

// Whether the balancer drains, and whether it has ended: 1 or 0. The worker is told of both by a
// doorbell; ask after the claim that it leads to. While it drains, close what is idle; when it has
// ended, close what is left. Both are 1 for a port that has left and in a forked child. Any thread,
// as long as no other thread uses the port.
int ringmaster_port_draining(const ringmaster_port* port);
int ringmaster_port_ended(const ringmaster_port* port);

// Whether it belongs to a balancer and has not left: 1 or 0.
int ringmaster_port_joined(const ringmaster_port* port);

// The worker's index in policies, events and statistics.
int ringmaster_port_worker(const ringmaster_port* port);

// Leaves, and frees the handle.
int ringmaster_port_free(ringmaster_port* port);

// --- Tickets -------------------------------------------------------------------------------------

// A ticket of a source with RINGMASTER_INTAKE_READINESS: Ticket of port.h. It counts as open at its
// worker until it is freed, and may outlive the port and the balancer. It is late when its source
// was removed or its balancer has ended; then accepting and giving back do nothing.

// The source's descriptor: borrowed, and shared with the other workers.
int ringmaster_ticket_fd(const ringmaster_ticket* ticket);

// What the worker gave when it joined the source; 0 for null.
uint64_t ringmaster_ticket_token(const ringmaster_ticket* ticket);

// What poll(2) has said of the source since the last ticket: POLLIN, and perhaps POLLHUP, POLLRDHUP
// or POLLERR; 0 for null.
uint32_t ringmaster_ticket_events(const ringmaster_ticket* ticket);

// For a listener: accepts one connection, without waiting. 1, and the connection is the caller's;
// or 0 when there is none, it cannot be accepted now, or the ticket is late. The balancer knows
// then.
int ringmaster_ticket_accept(ringmaster_ticket* ticket, ringmaster_connection* connection);

// Gives the ticket back: the source may have more than this worker takes now. `error`: 0, or the
// errno that kept the worker from taking it; EAGAIN says that there was nothing. Free it
// afterwards.
int ringmaster_ticket_again(ringmaster_ticket* ticket, int error);

// Ends the ticket: it counts as open no more. Without ringmaster_ticket_again before, it says that
// the worker had no trouble.
int ringmaster_ticket_free(ringmaster_ticket* ticket);

// --- Statistics ----------------------------------------------------------------------------------

// BalancerStats of stats.h, which says what each number means.
typedef struct ringmaster_totals {
  size_t struct_size;
  uint64_t accepted;      // arrivals since the start
  uint64_t passed_on;     // how often workers have passed connections on
  uint64_t refused;       // closed without having been served
  uint64_t dropped;       // closed as too old or gone, or withdrawn
  uint64_t gone;          // those of `dropped` whose clients had hung up
  uint64_t recalled;      // offers taken back
  uint64_t moved;         // offers moved to waiting workers
  uint64_t held;          // accepted and not offered
  uint64_t master_wakes;  // how often the master has looked
} ringmaster_totals;

// SourceStats of stats.h: of one source. Of tickets where there is no connection.
typedef struct ringmaster_source_stats {
  size_t struct_size;
  uint32_t source;              // index
  int aimed;                    // yes or no: it is decided who gets the next connection
  uint64_t accepted;            // arrivals
  uint64_t passed_on;           // how often one of its connections was passed on
  uint64_t claimed;             // arrivals that workers have claimed
  uint64_t refused;             // closed by a shutdown or a removal, not served
  uint64_t dropped;             // closed as too old or gone; tickets that were withdrawn
  uint64_t gone;                // those of `dropped` whose clients had hung up
  uint64_t held;                // accepted, not offered, at this moment
  uint64_t set_aside;           // of these, those that the policy has picked nobody for
  int64_t oldest_set_aside_ns;  // for how long the oldest of them has been set aside
  uint64_t times_set_aside;     // how often an arrival was set aside
  uint64_t pauses;              // how often the intake stopped
  uint64_t rearms;              // how often it was armed after the first time
  uint64_t errors;              // accepts that failed
  uint64_t policy_faults;       // how often the policy picked beyond its candidates
  // Of listening TCP sockets; -1: not known. How long the kernel's queue is and may become, and how
  // many clients the kernel has discarded because it was full.
  int64_t backlog;
  int64_t backlog_limit;
  int64_t backlog_overflows;
} ringmaster_source_stats;

// WorkerStats of stats.h: of one worker.
typedef struct ringmaster_worker_stats {
  size_t struct_size;
  uint32_t worker;              // index
  uint32_t unclaimed;           // offers that wait for it at this moment
  uint32_t open;                // connections that it has open, offers included
  uint32_t reserved;            // 0
  uint64_t assigned;            // offers made to it
  uint64_t claimed;             // of these, those that it has claimed
  uint64_t by_permit;           // of these, connections that it has accepted itself
  uint64_t recalled;            // offers taken back from it
  uint64_t moved;               // offers that went from it to a worker that waited
  uint64_t doorbells;           // doorbells sent
  uint64_t stalls;              // how often it was found not to move
  uint64_t table_full;          // connections that did not fit into its file table
  int64_t oldest_unclaimed_ns;  // for how long its oldest offer has waited
} ringmaster_worker_stats;

// A consistent snapshot. It wakes the master once; stats.h says what it costs. After the end it is
// that of the end. -EBUSY in a forked child, in a function of a policy, and in the event callback
// of a balancer with several masters.
int ringmaster_balancer_stats(const ringmaster_balancer* balancer, ringmaster_stats** stats);

// Of all sources and workers together.
int ringmaster_stats_totals(const ringmaster_stats* stats, ringmaster_totals* totals);

// How many sources and workers the snapshot has, and each of them by its position from 0. Those
// that were removed or have left are not in it. -EINVAL for a position beyond the last.
int64_t ringmaster_stats_source_count(const ringmaster_stats* stats);
int ringmaster_stats_source(const ringmaster_stats* stats, size_t position,
                            ringmaster_source_stats* source);
int64_t ringmaster_stats_worker_count(const ringmaster_stats* stats);
int ringmaster_stats_worker(const ringmaster_stats* stats, size_t position,
                            ringmaster_worker_stats* worker);

// The sums of the workers that have left.
int ringmaster_stats_departed(const ringmaster_stats* stats, ringmaster_worker_stats* sums);

// Frees a snapshot.
int ringmaster_stats_free(ringmaster_stats* stats);

// --- The end -------------------------------------------------------------------------------------

// What became of everything: ShutdownReport of stats.h.
typedef struct ringmaster_shutdown_report {
  size_t struct_size;
  int drained;        // yes or no: everything was claimed, and every lease released, in time
  uint32_t reserved;  // 0
  uint64_t refused;   // connections that nobody had claimed at the deadline; now closed
  uint64_t open;      // claimed connections still open; their workers keep them
} ringmaster_shutdown_report;

// ShutdownOptions of balancer.h. Each callback is called once, on the thread of a master or the
// host's; on the caller's, if what it tells has happened already.
typedef struct ringmaster_shutdown_options {
  size_t struct_size;
  int64_t drain_ns;  // how long what was accepted may take, 0 or more; default: 0
  // Nothing refers to the sources any more: you may close their descriptors.
  void (*on_intake_ended)(void* context);
  // The balancer has ended. Both pointers are valid during the call, and not to be freed.
  void (*on_ended)(void* context, const ringmaster_shutdown_report* report,
                   const ringmaster_stats* stats);
  void* context;
} ringmaster_shutdown_options;

// Fills in the defaults. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_shutdown_options_init(ringmaster_shutdown_options* options, size_t struct_size);

// Ends the intake and goes on dealing what was accepted, until all of it was claimed and every
// lease released, or the drain has passed. Then closes what nobody has claimed, and ends the
// master. Not with a drain on a thread that claims or hosts: the drain would wait for that thread.
// A later call returns the same report. `report` and `stats` may be null. -EBUSY in a forked child
// and in callbacks of the balancer.
int ringmaster_balancer_shutdown(ringmaster_balancer* balancer,
                                 const ringmaster_shutdown_options* options,
                                 ringmaster_shutdown_report* report, ringmaster_stats** stats);

// The same without waiting. Callbacks of the balancer may call it, too. `on_ended`, or the function
// below, tells when it has ended; a host goes on calling ringmaster_balancer_run_once until then.
// -EBUSY in a forked child.
int ringmaster_balancer_begin_shutdown(ringmaster_balancer* balancer,
                                       const ringmaster_shutdown_options* options);

// 1 when the balancer has ended, with the report and the last statistics; otherwise 0, and nothing
// is written. `report` and `stats` may be null. Does not wait.
int ringmaster_balancer_ended(const ringmaster_balancer* balancer,
                              ringmaster_shutdown_report* report, ringmaster_stats** stats);

// --- Listeners from elsewhere: listeners.h -------------------------------------------------------

// Checks a listener that this process has inherited under a number that it was told, and makes it
// close-on-exec and non-blocking. It stays the caller's. -EINVAL when it is no listener.
int ringmaster_inherit_listener(int fd);

typedef struct ringmaster_service_listeners_options {
  size_t struct_size;
  const char* name;       // only the listeners of this name; null, the default: all
  int unset_environment;  // yes or no: removes LISTEN_… from the environment; default: yes
  uint32_t reserved;      // 0
} ringmaster_service_listeners_options;

// Fills in the defaults. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_service_listeners_options_init(ringmaster_service_listeners_options* options,
                                              size_t struct_size);

// The listeners that systemd has opened for this process; none when there are none. Call it once.
// No other thread may change the environment meanwhile. -EINVAL when the environment makes no
// sense.
int ringmaster_listeners_of_service(const ringmaster_service_listeners_options* options,
                                    ringmaster_listeners** listeners);

// The default of TakeOverOptions::answer_max.
#define RINGMASTER_ANSWER_MAX_NS INT64_C(5000000000)

// Asks the process that serves `path` for its listeners, and waits for `answer_max_ns` at most.
// That process goes on until ringmaster_hand_over_serve tells it that this one serves. If the
// result is freed before, it simply goes on. -ENOENT when nobody serves the path: make listeners of
// your own. -EPERM when another user does; -EAGAIN while it gives them to somebody else; -ETIMEDOUT
// when it does not answer; -EPROTO when it does not speak this protocol; -EINVAL for a path of more
// than 107 bytes.
int ringmaster_take_over(const char* path, int64_t answer_max_ns, ringmaster_listeners** listeners);

// How many there are, and each of them by its position from 0. The handle owns the descriptors,
// until one is taken; the names are valid until it is freed. -EINVAL, or a null name, for a
// position beyond the last; -EBUSY for a descriptor that was taken.
int64_t ringmaster_listeners_count(const ringmaster_listeners* listeners);
int ringmaster_listeners_fd(const ringmaster_listeners* listeners, size_t position);
const char* ringmaster_listeners_name(const ringmaster_listeners* listeners, size_t position);
int ringmaster_listeners_take_fd(ringmaster_listeners* listeners, size_t position);

// Of ringmaster_take_over: the predecessor's process id; otherwise 0.
int ringmaster_listeners_predecessor(const ringmaster_listeners* listeners);

// Closes what was not taken.
int ringmaster_listeners_free(ringmaster_listeners* listeners);

// A listener that is handed over. Borrowed.
typedef struct ringmaster_offered_listener {
  int fd;
  const char* name;  // at most 255 bytes; null: ""
} ringmaster_offered_listener;

// HandOverOptions of listeners.h. The callbacks are called on a thread of the hand-over's own, one
// at a time.
typedef struct ringmaster_hand_over_options {
  size_t struct_size;
  int64_t start_max_ns;  // how long a successor may take until it serves; default: 60 seconds
  // A successor serves: end. Called once at most.
  void (*on_handed_over)(void* context, int successor);
  // The predecessor has stopped or died. A source with RINGMASTER_INTAKE_ACCEPT is to be paused and
  // resumed then, on another thread.
  void (*on_predecessor_ended)(void* context);
  // An attempt came to nothing, and this process goes on. `error` is a negative errno, `why` a text
  // that is valid during the call.
  void (*on_failed)(void* context, int error, const char* why);
  void* context;
} ringmaster_hand_over_options;

// Fills in the defaults. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_hand_over_options_init(ringmaster_hand_over_options* options, size_t struct_size);

// Makes this process the generation that a successor takes over from, at the Unix socket `path`.
// `offered` are borrowed until ringmaster_hand_over_stop has returned, `count` at most 253.
// `predecessor`: what ringmaster_take_over has brought for this path, or null. What it knows of the
// predecessor is used up, also when this fails; its listeners are not, and it is still to be freed.
//
// -EINVAL for no listener, one that is none, a bad name or path. -ENOBUFS for too many. -EEXIST
// when another process serves the path. -EBUSY when there is a file of that name that is no socket.
// -ESTALE when the predecessor does not wait any more: this process should end.
int ringmaster_hand_over_serve(const char* path, const ringmaster_offered_listener* offered,
                               size_t count, const ringmaster_hand_over_options* options,
                               ringmaster_listeners* predecessor, ringmaster_hand_over** hand_over);

// Nothing refers to the listeners any more when this returns. Call it when the balancer's intake
// has ended. Any thread, callbacks included. Returns 1 when a successor has taken over, otherwise
// 0.
int ringmaster_hand_over_stop(ringmaster_hand_over* hand_over);

// Stops, and frees the handle. -EBUSY, and nothing happens, in one of its callbacks.
int ringmaster_hand_over_free(ringmaster_hand_over* hand_over);

// ServiceState of listeners.h: what a service manager is told, all that is set in one message.
typedef struct ringmaster_service_state {
  size_t struct_size;
  int ready;           // yes or no: it serves
  int reloading;       // yes or no
  int stopping;        // yes or no
  int watchdog;        // yes or no: it is alive
  int main_pid;        // who the service is from now on; 0: nothing is said of it
  uint32_t reserved;   // 0
  const char* status;  // a line for people; null: none
} ringmaster_service_state;

// Fills in the defaults: nothing is told. -EINVAL as for ringmaster_balancer_options_init.
int ringmaster_service_state_init(ringmaster_service_state* state, size_t struct_size);

// Tells the service manager, if NOTIFY_SOCKET says that there is one. Waits a second at most.
// -EINVAL for a status of several lines, or a bad NOTIFY_SOCKET; -EAGAIN when nobody takes the
// message. Go on in both cases.
int ringmaster_notify_service(const ringmaster_service_state* state);

// How often the service manager wants to hear that this process is alive, in nanoseconds;
// RINGMASTER_FOREVER if it does not. -EINVAL when the environment makes no sense.
int ringmaster_watchdog_interval(int64_t* interval_ns);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // RINGMASTER_RINGMASTER_H_
