/* Tickets before arrivals: the protocol of a source that is aimed, as an executable model.
 *
 * A ticket is a turn that was issued before its arrival. Each worker has a sight, an epoll set of
 * its own, which its loop watches; the listener stands in the sights of those that hold a ticket,
 * so that the kernel wakes the worker whose turn it is. Each source has a desk. Whoever holds it
 * runs the policy, keeps the source's books and changes the sights; nobody waits for it.
 *
 * One or two sources, two or three workers, the master, leases, and a handful of arrivals. The
 * model checker visits every interleaving of the processes below, one access to shared memory or
 * one system call at a time. run.py drives it; README.md lists the rules and what was checked.
 *
 * Properties, each an assertion with a name:
 *   alone_at_the_desk    one thread at a time runs the policy
 *   turn_used_once       a ticket is claimed once, or withdrawn
 *   books_are_seen       whoever holds the desk sees what its last holder wrote
 *   open_within_capacity a worker never has more open connections than its capacity
 *   few_false_wakeups    workers that were woken by a sight and found nothing (with FALSE_WAKEUPS)
 *   few_failed_accepts   accepts that found no descriptor (with SHORTAGE)
 *   number_is_open       nobody uses the number of a source's descriptor after it was closed
 *   sight_is_open        nor that of a sight
 * and when nothing can move any more:
 *   all_served           no arrival waits
 *   desk_is_free         nobody holds a desk
 *   one_stands           exactly one ticket is out at a source that is aimed, none at another
 *   stands_in_sight      the listener stands in the sight of the worker that holds it, and in no
 *                        other
 *   stands_at_a_waiter   that worker waits, if anybody waits
 *   nobody_forgotten     no worker is marked but one that never moves again
 *   let_go               the number of a source that was removed is closed, as is the sight of a
 *                        worker that has left, unless somebody is frozen who might use it
 *
 * Instance (numbers):
 *   WORKERS=2        how many workers
 *   SOURCES=1        how many sources
 *   ARRIVALS=3       how many connections come in at each source
 *   WIDTH=2          how many tickets of a source may be out
 *   DISTRACTIONS=0   how often a worker is woken by something else, or for nothing
 *   STALLS=0         how many workers may compute for ever, outside their wait
 *   FREEZES=0        how many workers may freeze, after any step
 *   TICKS=0          how many looks of the master's timer may take a healthy worker for one that
 *                    does not move. Frozen workers are looked at without limit, when nothing else
 *                    moves.
 *   CAPACITY         if given: open connections that a worker may have; leases end at any time, on
 *                    another thread
 *   OPEN_AT_FIRST=0  with CAPACITY: connections that are open at first, at the last workers
 *   FALSE_WAKEUPS    if given: how many workers may be woken by a sight and find nothing
 *   OTHERS=0         connections that somebody else accepts, who listens with the same socket
 *   FAILS=0          how many times EPOLL_CTL_ADD may fail
 * Instance (flags):
 *   LEVEL            the loops watch their sights level-triggered, not edge-triggered
 *   ALONE            only the first worker takes part
 *   NO_HINTS         the workers do not say when they wait
 *   EAGER            one that may be claimed is always out, also while somebody redeems one
 *   DOZES            the master sleeps without a timer when nothing waits, until the next arrival
 *   WEAK             plain stores become visible at any time, unless they are released
 *   UNCOUNTED        the kernel says only whether anything waits, not how much
 *   NO_THAW          who froze stays frozen (otherwise it may thaw, or not)
 *   SHORTAGE         for a while there are no descriptors, and accept fails
 *   REMOVED          the first source is removed, at any time
 *   LEAVES           the last worker leaves, at any time when it waits
 * Everything else that is tested by #ifdef is a way to break the protocol, named BAD_….
 */

#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef SOURCES
#define SOURCES 1
#endif
#ifndef ARRIVALS
#define ARRIVALS 3
#endif
#ifndef WIDTH
#define WIDTH 2
#endif
#ifndef DISTRACTIONS
#define DISTRACTIONS 0
#endif
#ifndef STALLS
#define STALLS 0
#endif
#ifndef FREEZES
#define FREEZES 0
#endif
#ifndef TICKS
#define TICKS 0
#endif
#if FREEZES > 0 || TICKS > 0
#define MARKS
#endif

#ifndef OPEN_AT_FIRST
#define OPEN_AT_FIRST 0
#endif
#ifndef FAILS
#define FAILS 0
#endif
#if FAILS > 0 || defined(SHORTAGE)
#define DEALS /* the master may have to deal */
#endif
#if defined(DEALS) || defined(REMOVED)
#define MODES
#endif

/* The processes that visit desks. A worker's has the worker's number. */
#define LEASES WORKERS
#define MASTER (WORKERS + 1)
#define USER (WORKERS + 2)
#define PROCESSORS (WORKERS + 3)

#define ALL_SOURCES ((1 << SOURCES) - 1)
#define AT(s, w) ((s) * WORKERS + (w))

#define ASSERT(property, condition) property = (condition); assert(property)

/* ------------------------------------------------------------------------------------------------
 * The kernel: backlogs and sights.
 */

byte backlog[SOURCES]; /* connections that nobody has accepted */
byte to_come[SOURCES]; /* connections that are still to come */
bool in_sight[SOURCES * WORKERS]; /* the listener stands in the worker's sight */
bool asleep_in[SOURCES * WORKERS]; /* but asks for no event: it wakes nobody */
bool reported[SOURCES * WORKERS]; /* and the sight has something to report to the worker's wait */
#ifdef MARKS
bool doorbell[WORKERS];
#endif
#if defined(DEALS) || defined(DOZES)
bool edge[SOURCES];    /* the master's poll has completed; further arrivals merge into it */
#endif
#ifdef DEALS
bool knock;            /* the poll on the master's eventfd has completed */
byte fails = FAILS;
#ifdef SHORTAGE
bool shortage;         /* there are no descriptors */
byte failed_accepts;
#endif
#endif
#ifdef REMOVED
bool closed[SOURCES];  /* the number of the listener's descriptor is somebody else's by now */
#define NUMBER_IS_OPEN(source) ASSERT(number_is_open, !closed[source])
#else
#define NUMBER_IS_OPEN(source) skip
#endif
#ifdef LEAVES
bool sight_closed;     /* that of the last worker */
#define SIGHT_IS_OPEN(w) ASSERT(sight_is_open, (w) != WORKERS - 1 || !sight_closed)
#else
#define SIGHT_IS_OPEN(w) skip
#endif

#ifdef LEVEL
#define SIGHT_WAKES(s, w) \
  (reported[AT(s, w)] || in_sight[AT(s, w)] && !asleep_in[AT(s, w)] && backlog[s] > 0)
#else
#define SIGHT_WAKES(s, w) (reported[AT(s, w)])
#endif

#ifdef FALSE_WAKEUPS
byte false_wakeups;
bool roused[WORKERS]; /* inside its wait, by a sight that is not about to be emptied */
bool inside_wait[WORKERS];
#define ROUSE(w) if :: inside_wait[w] -> roused[w] = true :: else fi
#else
#define ROUSE(w) skip
#endif

/* One atomic number: the tickets that a worker may claim, and those that it has claimed and is
 * about to accept by. */
byte claimable[SOURCES * WORKERS];
byte redeeming[SOURCES * WORKERS];

/* Part of a step: a connection comes in. Every sight that holds the listener has it to report. */
inline Arrive(source) {
  to_come[source]--;
  backlog[source]++;
#if defined(DEALS) || defined(DOZES)
  edge[source] = true;
#endif
  k = 0;
  do
  :: k < WORKERS ->
     if
     :: in_sight[AT(source, k)] && !asleep_in[AT(source, k)] ->
        if :: claimable[AT(source, k)] > 0 -> ROUSE(k) :: else fi;
        reported[AT(source, k)] = true
     :: else
     fi;
     k++
  :: else -> break
  od;
  k = 0
}

/* Part of a step: EPOLL_CTL_ADD, after EPOLL_CTL_DEL where the listener stands in the sight. It
 * makes the kernel look. */
inline Arm(source, worker) {
  NUMBER_IS_OPEN(source);
  SIGHT_IS_OPEN(worker);
#ifdef BAD_ARMED_ONCE
  if
  :: !in_sight[AT(source, worker)] && backlog[source] > 0 ->
     reported[AT(source, worker)] = true
#else
  if
  :: backlog[source] > 0 -> ROUSE(worker); reported[AT(source, worker)] = true
#endif
  :: else
  fi;
  in_sight[AT(source, worker)] = true;
  asleep_in[AT(source, worker)] = false
}

/* Part of a step: the same for no event at all. */
inline Stand(source, worker) {
  NUMBER_IS_OPEN(source);
  SIGHT_IS_OPEN(worker);
  if
  :: reported[AT(source, worker)] -> reported[AT(source, worker)] = false
  :: true
  fi;
  in_sight[AT(source, worker)] = true;
  asleep_in[AT(source, worker)] = true
}

/* Part of a step: EPOLL_CTL_MOD, by which a listener that stands there asks for events. It makes
 * the kernel look. If somebody has taken the listener out meanwhile, it fails, and that is all. */
inline Awaken(source, worker) {
  NUMBER_IS_OPEN(source);
  SIGHT_IS_OPEN(worker);
  if
  :: in_sight[AT(source, worker)] ->
     asleep_in[AT(source, worker)] = false;
#ifndef BAD_WOKEN_WITHOUT_A_LOOK
     if
     :: backlog[source] > 0 -> ROUSE(worker); reported[AT(source, worker)] = true
     :: else
     fi
#endif
  :: else
  fi
}

/* Part of a step: EPOLL_CTL_DEL. What was reported already may be seen nevertheless, or not. */
inline Disarm(source, worker) {
  NUMBER_IS_OPEN(source);
  SIGHT_IS_OPEN(worker);
  in_sight[AT(source, worker)] = false;
  asleep_in[AT(source, worker)] = false;
  if
  :: reported[AT(source, worker)] -> reported[AT(source, worker)] = false
  :: true
  fi
}

/* Scratch of steps, which are atomic: dead between them, hence hidden from the state. */
hidden byte k;

#ifndef OTHERS
#define OTHERS 0
#endif
#if OTHERS > 0
byte others = OTHERS;
#endif

proctype Network() {
  do
  :: d_step { to_come[0] > 0 -> Arrive(0) }
#if OTHERS > 0
  :: d_step { others > 0 && backlog[0] > 0 -> others--; backlog[0]-- }
#endif
#if SOURCES > 1
  :: d_step { to_come[1] > 0 -> Arrive(1) }
  :: to_come[0] == 0 && to_come[1] == 0 -> break
#else
#if OTHERS > 0
  :: to_come[0] == 0 && (others == 0 || backlog[0] == 0) -> break
#else
  :: to_come[0] == 0 -> break
#endif
#endif
  od
}

/* ------------------------------------------------------------------------------------------------
 * Shared memory. Every access to it is an exchange, a compare-and-exchange or sequentially
 * consistent, so nothing ever waits in a store buffer. Some ways to break the protocol store; then
 * each processor has a store buffer, as in inbox.pml (x86-TSO). With SC a load waits until its
 * processor's buffer is empty, which is sequential consistency.
 */

#define WAITING(w) (w) /* the worker waits, or is about to */
#define HUNGRY WORKERS /* a bit for each source: somebody who can take a ticket is wanted */
#define CELLS (WORKERS + 1)
byte memory[CELLS];

#if defined(BAD_WAITING_RAISED_BY_STORE) || defined(BAD_WAITING_LOWERED_BY_STORE) || \
    defined(BAD_HUNGRY_SET_BY_STORE)
#define DEPTH 2
typedef StoreBuffer {
  byte length;
  byte cell[DEPTH];
  byte value[DEPTH];
};
StoreBuffer buffer[PROCESSORS];

#define DRAINED(p) (buffer[p].length == 0)
#ifdef SC
#define MAY_LOAD(p) DRAINED(p)
#else
#define MAY_LOAD(p) true
#endif
/* A processor sees its own latest store, else memory. */
#define LOAD(p, where)                                                              \
  (buffer[p].length > 1 && buffer[p].cell[1] == (where) -> buffer[p].value[1] :     \
   (buffer[p].length > 0 && buffer[p].cell[0] == (where) -> buffer[p].value[0] :    \
    memory[where]))

inline STORE(p, where, what) {
  assert(buffer[p].length < DEPTH);
  buffer[p].cell[buffer[p].length] = where;
  buffer[p].value[buffer[p].length] = what;
  buffer[p].length++
}

proctype Drain(byte p) {
  do
  :: d_step { buffer[p].length > 0 ->
       memory[buffer[p].cell[0]] = buffer[p].value[0];
       buffer[p].cell[0] = buffer[p].cell[1];
       buffer[p].value[0] = buffer[p].value[1];
       buffer[p].cell[1] = 0;
       buffer[p].value[1] = 0;
       buffer[p].length-- }
  od
}
#else
#define DRAINED(p) true
#define MAY_LOAD(p) true
#define LOAD(p, where) memory[where]
#endif

#ifdef MARKS
bool marked[WORKERS];  /* the master has rung, and the worker has not moved since */
#endif
#ifdef CAPACITY
byte open[WORKERS];    /* places taken */
byte leases[WORKERS];  /* connections that are open */
#endif

mtype = { kFree, kHeld, kNote, kAimed, kDealt, kGone };
mtype desk[SOURCES];   /* free, held, or held with a note: look again */
#ifdef MODES
mtype mode[SOURCES];   /* written at the desk: by its tickets, by the master, not at all any more */
#define MODE_IS(source, which) (mode[source] == (which))
#else
#define MODE_IS(source, which) ((which) == kAimed)
#endif
#ifdef SHORTAGE
bool told_short[SOURCES]; /* somebody has found no descriptor */
#endif
#ifdef REMOVED
bool to_go[SOURCES];   /* the source is to be removed */
#endif
#ifdef LEAVES
bool left_it[WORKERS]; /* the worker takes part no longer */
#endif
#if defined(WEAK) || defined(BAD_DESK_LEFT_RELAXED)
#define BOOKS
byte books_unseen; /* whose plain stores to the books are under way: its number + 1 */
#ifdef WEAK
#define WEAKLY true
#else
#define WEAKLY false /* an exchange waits until the store buffer is empty */
#endif
#endif
byte wakers[SOURCES];  /* a bit for each process that has left the desk, and is to wake workers */
byte holder[SOURCES];  /* of a desk that is not free; for the checks alone */

/* ------------------------------------------------------------------------------------------------
 * What is asserted.
 */

byte at_the_policy[SOURCES];
byte turns[SOURCES];   /* issued, and neither claimed nor withdrawn */
bool stalled[WORKERS]; /* computes for ever */
bool frozen[WORKERS];
bool for_ever[WORKERS]; /* and will not thaw */
byte stalls = STALLS;
byte freezes = FREEZES;
byte ticks = TICKS;
byte distractions = DISTRACTIONS;
#ifdef DEALS
bool alert; /* the master looks at every edge of its poll; otherwise it sleeps through them */
#ifdef SHORTAGE
bool backed_off; /* and tries again when there are descriptors: in truth, from time to time */
#endif
#endif
#ifdef MARKS
#ifdef DOZES
bool asleep; /* the master waits for the next edge, without a timer */
#define TIMER !asleep
#else
#define TIMER true
#endif
bool vain; /* nobody has claimed a ticket since the last rescue */
#endif
hidden byte books_are_seen, alone_at_the_desk, turn_used_once, open_within_capacity,
    few_false_wakeups,
    few_failed_accepts, number_is_open, sight_is_open, all_served, desk_is_free, one_stands,
    stands_in_sight, stands_at_a_waiter, nobody_forgotten, let_go;

/* ------------------------------------------------------------------------------------------------
 * The desk.
 */

/* What its holder has seen of a worker. */
#define GONE 0  /* it is marked, or has left */
#define FULL 1  /* it has no place */
#define CAN 2
#define WAITS 3 /* it can, and it waits */

#if WORKERS == 3
#define SOMEBODY(state) (seen[0] == (state) || seen[1] == (state) || seen[2] == (state))
#else
#define SOMEBODY(state) (seen[0] == (state) || seen[1] == (state))
#endif
#define BEST(w) (seen[w] == WAITS || seen[w] == CAN && !SOMEBODY(WAITS))
#ifdef BAD_LEFT_WHERE_IT_IS
#define ASTRAY(w) (seen[w] == GONE || seen[w] == FULL)
#else
#define ASTRAY(w) (!BEST(w))
#endif

/* Part of a step: a ticket stays at, or goes to, one that does not wait. */
#ifdef BAD_HUNGRY_FOR_PLACES_ONLY
#define WANT_SOMEBODY_WHO_WAITS(w) skip
#else
#define WANT_SOMEBODY_WHO_WAITS(w) if :: seen[w] != WAITS -> wanting = true :: else fi
#endif

/* Steps: sees a worker. */
inline See(me, w_) {
#ifdef NO_HINTS
  seen[w_] = WAITS;
#elif defined(ALONE)
  atomic { seen[w_] = ((w_) > 0 -> GONE : (memory[WAITING(w_)] -> WAITS : CAN)) };
#else
  atomic { MAY_LOAD(me) -> seen[w_] = (LOAD(me, WAITING(w_)) -> WAITS : CAN) };
#endif
#ifdef CAPACITY
#ifdef BAD_TICKET_HOLDS_A_PLACE
  d_step { if :: open[w_] - claimable[AT(s, w_)] >= CAPACITY -> seen[w_] = FULL :: else fi };
#else
  d_step { if :: open[w_] >= CAPACITY -> seen[w_] = FULL :: else fi };
#endif
#endif
#ifdef MARKS
  d_step { if :: marked[w_] -> seen[w_] = GONE :: else fi };
#endif
#ifdef LEAVES
  d_step { if :: left_it[w_] -> seen[w_] = GONE; gone = true :: else fi };
#endif
}

/* A step: takes back what a worker cannot take now, if somebody else can; else counts it. */
inline WithdrawOrCount(me, w_) {
#ifdef BAD_WITHDRAWN_BY_STORE
  next = claimable[AT(s, w_)];
#endif
  d_step {
    DRAINED(me);
#ifdef BAD_WITHDRAWN_BY_STORE
    if :: next > 0 && ASTRAY(w_) -> claimable[AT(s, w_)] = next :: else fi;
    next = 0;
#endif
    if
    :: claimable[AT(s, w_)] > 0 && ASTRAY(w_) ->
#ifdef BAD_TICKET_HOLDS_A_PLACE
       open[w_] = open[w_] - claimable[AT(s, w_)];
#endif
       ASSERT(turn_used_once, turns[s] >= claimable[AT(s, w_)]);
       turns[s] = turns[s] - claimable[AT(s, w_)];
       claimable[AT(s, w_)] = 0
    :: claimable[AT(s, w_)] > 0 && !ASTRAY(w_) ->
       out = out + claimable[AT(s, w_)];
       WANT_SOMEBODY_WHO_WAITS(w_)
    :: else
    fi;
#ifndef BAD_REDEEMING_NOT_COUNTED
#ifdef BAD_REDEEMING_OF_MARKED_COUNTED
    busy = busy + redeeming[AT(s, w_)]
#else
    if :: seen[w_] != GONE -> busy = busy + redeeming[AT(s, w_)] :: else fi
#endif
#endif
  }
}

/* Part of a step, after the tickets: how many more are to be issued. */
inline CountBacklog() {
#ifndef BAD_COUNTED_FIRST
  n = backlog[s];
#endif
  late = n > 0;
#ifdef UNCOUNTED
  n = (n > 0 -> out + 1 : 0);
#endif
  n = (n > out + busy -> n - out - busy : 0);
#ifndef BAD_NOTHING_STANDS
#ifdef EAGER
  if :: out == 0 && n == 0 -> n = 1 :: else fi;
#else
  if :: out == 0 && busy == 0 && n == 0 -> n = 1 :: else fi;
#endif
#endif
  n = (n > WIDTH - out -> WIDTH - out : n);
  out = 0;
  busy = 0
}

/* Part of a step: one more ticket. */
inline Add() {
#ifdef BAD_TICKET_HOLDS_A_PLACE
  open[next]++;
#endif
  claimable[AT(s, next)]++;
  turns[s]++;
  n--;
  WANT_SOMEBODY_WHO_WAITS(next)
}

/* Part of a step: whom this wakes might run in the place of the holder at once. So where something
 * waits nobody is woken before the desk is free. */
inline Show() {
  if
  :: late -> Stand(s, next); to_wake = to_wake | 1 << next
  :: else -> Arm(s, next)
  fi
}

/* A step, after the desk. */
inline WakeLater(w_) {
  atomic {
    if
    :: to_wake & 1 << w_ -> to_wake = to_wake & ~(1 << w_); Awaken(s, w_)
    :: else
    fi
  }
}

/* A step: empties the sight of a worker without a ticket. */
inline Empty(w_) {
  atomic {
    if
#ifndef BAD_SIGHTS_NOT_EMPTIED
    :: in_sight[AT(s, w_)] && claimable[AT(s, w_)] == 0 -> Disarm(s, w_)
#endif
    :: else
    fi
  }
}

#ifdef MODES
/* A step. */
inline Withdraw(me, w_) {
  d_step {
    DRAINED(me);
    turns[s] = turns[s] - claimable[AT(s, w_)];
    claimable[AT(s, w_)] = 0
  }
}
#endif

#ifdef DEALS
/* Steps: the master accepts and hands over (what becomes of it then: inbox.pml), until nothing
 * waits; then it may try tickets again. */
inline Deal() {
  n = 0;
deal:
#ifdef CAPACITY
  atomic { if :: next = 0 :: next = 1 fi };
reserve:
  atomic {
    if
    :: open[next] < CAPACITY -> open[next]++; n = 0; goto accept_one
    :: else -> n++; next = 1 - next
    fi
  };
  if
  :: n < 2 -> goto reserve
  :: n == 2 && !hungered ->
     atomic { n = 0; hungered = true; memory[HUNGRY] = memory[HUNGRY] | 1 << s };
     goto deal
  :: else -> n = 0; next = 0; goto leave
  fi;
accept_one:
#endif
  atomic {
#ifdef SHORTAGE
    if
    :: shortage -> out = 1; backed_off = true
    :: else ->
#endif
       if
       :: backlog[s] > 0 ->
          backlog[s]--;
#ifdef CAPACITY
          leases[next]++;
          next = 0;
#endif
          goto deal
       :: else
       fi
#ifdef SHORTAGE
    fi
#endif
  };
#ifdef CAPACITY
  open[next]--;
  next = 0;
#endif
#ifdef SHORTAGE
  if :: out == 1 -> out = 0; goto leave :: else fi;
#endif
  if
  :: true /* stays with it */
  :: mode[s] = kAimed; alert = false; goto aimed
  fi
}
#endif

#ifdef REMOVED
/* Steps: the number is closed when nobody redeems any more. Nobody begins to. */
inline LetGo() {
#ifndef BAD_CLOSED_BEFORE_THEY_ARE_WOKEN
  wakers[s] == 0;
#endif
#ifndef BAD_CLOSED_AT_ONCE
  atomic { if :: redeeming[AT(s, 0)] > 0 -> goto leave :: else fi };
  atomic { if :: redeeming[AT(s, 1)] > 0 -> goto leave :: else fi };
#endif
  closed[s] = true
}
#endif

/* Steps: visits the desk of source s. Once in each process that does, because of its labels. */
#ifdef LEAVES
#define LEAVER ; bool gone
#else
#define LEAVER
#endif
#define VISITOR                  \
  byte s, n, out, busy, next;    \
  byte seen[WORKERS];            \
  byte to_wake;                  \
  bool late, wanting, hungered, again LEAVER
inline Visit(me) {
#ifdef BAD_NO_DESK
  skip;
take_desk:
  skip;
#else
  atomic {
    true;
take_desk:
    DRAINED(me);
    if
    :: desk[s] == kFree -> desk[s] = kHeld; holder[s] = me
    :: else ->
#ifndef BAD_NO_NOTE
       desk[s] = kNote;
#endif
       goto left
    fi
  };
#endif

look:
#ifdef REMOVED
  atomic { if :: to_go[s] -> mode[s] = kGone :: else fi };
#endif
#ifdef SHORTAGE
  atomic {
    if
    :: told_short[s] ->
       told_short[s] = false;
       if :: mode[s] == kAimed -> mode[s] = kDealt :: else fi
    :: else
    fi
  };
#endif
#ifdef MODES
  if :: !MODE_IS(s, kAimed) -> goto unaimed :: else fi;
aimed:
#endif
#ifdef BAD_COUNTED_FIRST
  n = backlog[s];
#endif
  See(me, 0);
  See(me, 1);
#if WORKERS == 3
  See(me, 2);
#endif
  WithdrawOrCount(me, 0);
  WithdrawOrCount(me, 1);
#if WORKERS == 3
  WithdrawOrCount(me, 2);
#endif
  atomic { CountBacklog(); if :: n == 0 -> goto emptying :: else fi };

issue: /* for whom the policy says: any of the best */
  atomic {
    at_the_policy[s]++;
    ASSERT(alone_at_the_desk, at_the_policy[s] == 1);
#ifdef BOOKS
    ASSERT(books_are_seen, books_unseen == 0 || books_unseen == me + 1);
    books_unseen = me + 1;
#endif
    if
    :: BEST(0) -> next = 0
    :: BEST(1) -> next = 1
#if WORKERS == 3
    :: BEST(2) -> next = 2
#endif
    :: !SOMEBODY(WAITS) && !SOMEBODY(CAN) ->
       at_the_policy[s]--; wanting = true; n = 0; goto emptying
    fi;
#ifdef BAD_NO_DESK
  };
  atomic {
#endif
    at_the_policy[s]--;
    DRAINED(me);
#ifdef BAD_ADDED_BY_STORE
    out = claimable[AT(s, next)]
  };
  atomic {
    claimable[AT(s, next)] = out;
    out = 0;
#endif
#ifdef BAD_ARMED_FIRST
    d_step { Arm(s, next) }
  };
  d_step { Add() };
#else
    d_step { Add() }
  };
#if FAILS > 0
  atomic {
    if
    :: fails > 0 && !in_sight[AT(s, next)] ->
       fails--;
       next = 0;
       n = 0;
       again = false;
       wanting = false;
#ifndef BAD_FAILURE_IGNORED
       mode[s] = kDealt;
       goto unaimed
#else
       goto emptying
#endif
    :: true
    fi;
    Show()
  };
#else
  atomic { Show() };
#endif
#endif
  atomic {
#if !defined(BAD_NO_LOOK_AFTER) && !defined(NO_HINTS)
    MAY_LOAD(me);
    if :: seen[next] == WAITS && !LOAD(me, WAITING(next)) -> again = true :: else fi;
#endif
    next = 0;
    if :: n > 0 -> goto issue :: else fi
  };

emptying:
  Empty(0);
  Empty(1);
#if WORKERS == 3
  Empty(2);
#endif
  atomic {
    seen[0] = 0;
    seen[1] = 0;
#if WORKERS == 3
    seen[2] = 0;
#endif
#ifdef LEAVES
    if
    :: gone ->
#ifndef BAD_CLOSED_BEFORE_THEY_ARE_WOKEN
       wakers[s] == 0;
#endif
       sight_closed = true;
       to_wake = to_wake & ~(1 << WORKERS - 1);
       gone = false
    :: else
    fi;
#endif
    if
    :: again -> again = false; wanting = false; goto look
    :: !again && wanting && !hungered -> /* says so, and then looks again */
       wanting = false;
       hungered = true;
#ifdef BAD_HUNGRY_SET_BY_STORE
       STORE(me, HUNGRY, 1);
#else
       DRAINED(me);
       memory[HUNGRY] = memory[HUNGRY] | (1 << s);
#endif
#ifndef BAD_NO_SECOND_LOOK
       goto look
#else
       goto leave
#endif
    :: else -> wanting = false; goto leave_now
    fi
  };

#ifdef MODES
unaimed: /* no ticket is out, and the listener is in no sight */
  to_wake = 0;
  Withdraw(me, 0);
  Withdraw(me, 1);
#if WORKERS == 3
  Withdraw(me, 2);
#endif
#ifndef BAD_SHORTAGE_LEAVES_SIGHTS
  Empty(0);
  Empty(1);
#if WORKERS == 3
  Empty(2);
#endif
#endif
  seen[0] = 0;
  seen[1] = 0;
#if WORKERS == 3
  seen[2] = 0;
#endif
#ifdef REMOVED
  if
  :: MODE_IS(s, kGone) -> LetGo()
  :: else
  fi;
#endif
#ifdef DEALS
#ifndef BAD_MASTER_NOT_TOLD
  if
  :: MODE_IS(s, kDealt) && me != MASTER -> knock = true
  :: else
  fi;
#endif
  if
  :: MODE_IS(s, kDealt) && me == MASTER -> alert = true; edge[s] = false
  :: else -> goto leave
  fi;
  Deal()
#endif
#endif

leave:
  atomic {
    true;
leave_now:
    hungered = false;
    DRAINED(me);
#ifdef BOOKS
#ifdef BAD_DESK_LEFT_RELAXED
    if :: WEAKLY || books_unseen != me + 1 :: else -> books_unseen = 0 fi;
#else
    books_unseen = 0;
#endif
#endif
    if
#ifdef BAD_NO_DESK
    :: true
#elif defined(BAD_LEFT_BY_STORE)
    :: desk[s] == kHeld -> goto leave_by_store
    :: else -> desk[s] = kHeld; goto look
#else
    :: desk[s] == kHeld ->
       desk[s] = kFree;
       holder[s] = 0;
       if :: to_wake == 0 -> goto left :: else -> wakers[s] = wakers[s] | 1 << me fi
    :: else ->
       desk[s] = kHeld;
#ifdef BAD_WAKES_FORGOTTEN
       to_wake = 0;
#endif
       goto look
#endif
    fi
  };
  /* without the desk */
  WakeLater(0);
  WakeLater(1);
#if WORKERS == 3
  WakeLater(2);
#endif
  wakers[s] = wakers[s] & ~(1 << me)
#ifdef BAD_LEFT_BY_STORE
  ;
leave_by_store:
  desk[s] = kFree
#endif
}

/* ------------------------------------------------------------------------------------------------
 * A worker.
 */

/* A step. */
inline Claim() {
  DRAINED(w);
  claimable[AT(s, w)]--;
  redeeming[AT(s, w)]++;
  ASSERT(turn_used_once, turns[s] > 0);
  turns[s]--;
#ifdef MARKS
  vain = false;
#endif
  got = true
}

#if STALLS > 0
#define MAY_STALL :: stalls > 0 -> stalls--; stalled[w] = true; goto dead
#else
#define MAY_STALL
#endif
#if SOURCES == 1
#define OTHERS_TOLD true
#else
#define OTHERS_TOLD (others == 0 || others == 2)
#endif
#if SOURCES == 1 || defined(BAD_KEEPS_THE_OTHERS)
#define OTHERS_DUE false
#else
#define OTHERS_DUE (got && others == 0 && claimable[AT(1 - s, w)] > 0)
#endif
#if SOURCES == 1 || defined(BAD_KEEPS_WHAT_IT_PASSED)
#define PASSED_ANY false
#else
#define PASSED_ANY (others == 0 && claimable[AT(0, w)] > 0)
#endif

proctype Worker(byte w) provided (!frozen[w]) {
  VISITOR;
  byte mask;
  bool sighted, got, asking;
#if SOURCES > 1
  byte others; /* since it woke, other desks than those of its claims: 0 not visited, 1 is visiting,
                  2 visited after it had accepted, 3 visited at the end */
#endif
#ifdef FALSE_WAKEUPS
  bool in_vain;
#endif
#ifdef SHORTAGE
  bool failed;
#endif

wait:
  atomic {
    DRAINED(w);
    if
#if SOURCES > 1
    :: SIGHT_WAKES(0, w) || SIGHT_WAKES(1, w) ->
       reported[AT(1, w)] = false;
#else
    :: SIGHT_WAKES(0, w) ->
#endif
       reported[AT(0, w)] = false;
#ifdef FALSE_WAKEUPS
       in_vain = roused[w];
#endif
       sighted = true
#ifdef MARKS
    :: doorbell[w] -> doorbell[w] = false
#endif
    :: distractions > 0 -> distractions--
#ifdef LEAVES
    :: w == WORKERS - 1 ->
       left_it[w] = true;
       asking = true;
       mask = ALL_SOURCES;
#ifdef BAD_SIGHT_CLOSED_AT_ONCE
       sight_closed = true;
#endif
       goto ask
#endif
    fi;
#ifdef FALSE_WAKEUPS
    roused[w] = false;
    inside_wait[w] = false
#endif
  };
#if defined(MARKS) && !defined(BAD_MARKS_STAY)
  atomic { DRAINED(w) -> marked[w] = false };
#endif
#ifndef BAD_LOWERED_FIRST
first_claim: /* whom its sight has woken claims while its tickets are not astray yet */
  atomic {
    if
    :: sighted && claimable[AT(s, w)] > 0 -> Claim()
#if SOURCES > 1
    :: sighted && claimable[AT(s, w)] == 0 && s + 1 < SOURCES -> s++; goto first_claim
    :: sighted && claimable[AT(s, w)] == 0 && s + 1 == SOURCES -> s = 0
#else
    :: sighted && claimable[AT(s, w)] == 0
#endif
    :: !sighted
    fi
  };
#endif
#ifdef BAD_WAITING_LOWERED_BY_STORE
  atomic { STORE(w, WAITING(w), 0) };
#else
  memory[WAITING(w)] = 0;
#endif
#ifndef BAD_LOWERED_FIRST
  if
  :: got -> goto redeem
  :: else
  fi;
#endif

claim: /* Of source s, as long as it has tickets; then of the next one. */
  atomic {
    true;
claim_again:
    if
    :: claimable[AT(s, w)] > 0 && DRAINED(w) ->
#ifdef BAD_CLAIMED_BY_STORE
       goto claim_by_store
#else
       Claim()
#endif
    :: claimable[AT(s, w)] > 0 && !sighted -> /* somebody else may take it */
#ifndef BAD_TICKETS_STAY
       goto visit
#else
       goto next_source
#endif
    :: claimable[AT(s, w)] == 0 && MAY_LOAD(w) -> goto next_source
    fi
  };
redeem:
#ifdef CAPACITY
  atomic {
#ifndef BAD_TICKET_HOLDS_A_PLACE
    if
    :: open[w] < CAPACITY -> open[w]++
    :: else -> got = false; goto finish
    fi;
#endif
    ASSERT(open_within_capacity, open[w] <= CAPACITY)
  };
#endif
  atomic {
    NUMBER_IS_OPEN(s);
#ifdef SHORTAGE
    if
    :: shortage && backlog[s] > 0 ->
       failed_accepts++;
       ASSERT(few_failed_accepts, failed_accepts <= WIDTH * (ARRIVALS + 1));
       got = false;
       failed = true;
       goto failed_to_accept
    :: else
    fi;
#endif
    if
    :: backlog[s] > 0 ->
       backlog[s]--;
#ifdef CAPACITY
       leases[w]++;
#endif
#ifdef FALSE_WAKEUPS
       in_vain = false;
#endif
       goto finish
    :: else -> got = false
    fi
  };
#ifdef SHORTAGE
failed_to_accept:
  if
#ifndef BAD_SHORTAGE_NOT_TOLD
  :: failed -> told_short[s] = true
#endif
  :: else
  fi;
  failed = false;
#endif
#ifdef CAPACITY
  open[w]--;
#endif
finish:
  atomic {
    DRAINED(w);
    redeeming[AT(s, w)]--;
    if
    :: !got ->
#ifdef BAD_TICKET_HOLDS_A_PLACE
       open[w] = open[w] - claimable[AT(s, w)];
#endif
       turns[s] = turns[s] - claimable[AT(s, w)];
       claimable[AT(s, w)] = 0
    :: else
    fi;
#ifdef BAD_NO_VISIT_AFTER
    if :: got -> goto left :: else fi;
#endif
#ifdef BAD_NO_VISIT_IN_VAIN
    if :: !got -> goto left :: else fi;
#endif
  };

visit:
  Visit(w);
left:
  atomic {
    true;
left_again:
    if
    :: asking -> goto ask_next
#if SOURCES > 1
    :: !asking && OTHERS_DUE -> /* it serves, and that takes time */
       others = 1;
       s = 1 - s;
       goto visit
    :: !asking && others == 1 -> others = 2; s = 1 - s; goto left_again
    :: !asking && others == 3 -> s = SOURCES - 1; goto next_source
#endif
    :: !asking && !OTHERS_DUE && OTHERS_TOLD && got ->
       got = false;
       s = 0;
       if
       MAY_STALL
#ifdef BAD_STOPS_EARLY
       :: goto next_source
#else
       :: goto claim_again
#endif
       fi
    :: !asking && !OTHERS_DUE && OTHERS_TOLD && !got -> goto next_source
    fi
  };

next_source:
#if SOURCES > 1
  atomic {
    if
    :: s + 1 < SOURCES -> s++; goto claim
    :: s + 1 == SOURCES && PASSED_ANY -> /* it came just before the worker said that it does not wait */
       others = 3;
       s = 0;
       goto visit
    :: s + 1 == SOURCES && !PASSED_ANY -> s = 0
    fi;
#else
  atomic {
#endif
    sighted = false;
#if SOURCES > 1
    others = 0;
#endif
#ifdef FALSE_WAKEUPS
    if :: in_vain -> false_wakeups++; in_vain = false :: else fi;
    ASSERT(few_false_wakeups, false_wakeups <= FALSE_WAKEUPS);
#endif
    if
    MAY_STALL
    :: true
    fi;
#if defined(BAD_WAITING_RAISED_BY_STORE)
    STORE(w, WAITING(w), 1)
#elif defined(BAD_LOOKS_BEFORE_IT_WAITS)
    goto read_hungry
#else
    DRAINED(w);
    memory[WAITING(w)] = 1
#endif
  };
read_hungry:
  atomic {
    if
    :: MAY_LOAD(w) && LOAD(w, HUNGRY) == 0 -> goto asked
    :: DRAINED(w) && memory[HUNGRY] != 0 -> mask = memory[HUNGRY]; memory[HUNGRY] = 0; asking = true
    fi
  };
ask:
  atomic {
    true;
ask_next:
    if
    :: mask == 0 -> asking = false; s = 0; goto asked
    :: mask & 1 -> s = 0; mask = mask & ~1; goto take_desk
    :: !(mask & 1) && mask & 2 -> s = 1; mask = 0; goto take_desk
    fi
  };

asked:
#ifdef LEAVES
  if :: left_it[w] -> goto gone_away :: else fi;
#endif
#ifdef BAD_LOOKS_BEFORE_IT_WAITS
  memory[WAITING(w)] = 1;
#endif
#ifdef FALSE_WAKEUPS
  inside_wait[w] = true;
#endif
  goto wait;

#ifdef BAD_CLAIMED_BY_STORE
claim_by_store:
  n = claimable[AT(s, w)];
  atomic { claimable[AT(s, w)] = n; n = 0; Claim(); goto redeem };
#endif
#if STALLS > 0
dead:
  false;
#endif
#ifdef LEAVES
gone_away:
#endif
  false
}

#ifdef CAPACITY
/* A connection that is served stays open until its lease ends: at any time, on any thread. */
proctype Leases() {
  VISITOR;
  byte mask;

end:
  atomic {
    s = 0;
    if
    :: leases[0] > 0 -> leases[0]--; open[0]--
    :: leases[1] > 0 -> leases[1]--; open[1]--
#if WORKERS == 3
    :: leases[2] > 0 -> leases[2]--; open[2]--
#endif
    fi
  };
#ifdef BAD_NO_KNOCK_BY_LEASES
  goto end;
#endif
  atomic {
    if
    :: MAY_LOAD(LEASES) && LOAD(LEASES, HUNGRY) == 0 -> goto end
    :: DRAINED(LEASES) && memory[HUNGRY] != 0 -> mask = memory[HUNGRY]; memory[HUNGRY] = 0
    fi
  };
ask:
  atomic {
    if
    :: mask == 0 -> goto end
    :: mask & 1 -> s = 0; mask = mask & ~1
    :: !(mask & 1) && mask & 2 -> s = 1; mask = 0
    fi
  };
  Visit(LEASES);
left:
  goto ask
}
#endif

/* ------------------------------------------------------------------------------------------------
 * The master, its timer, and what happens to it and to others.
 */

#ifdef MARKS

#define HAS_TICKETS(s, w) (claimable[AT(s, w)] + redeeming[AT(s, w)] > 0)
#if WORKERS == 3
#define ANYBODY_GONE (for_ever[0] || for_ever[1] || for_ever[2])
#else
#define ANYBODY_GONE (for_ever[0] || for_ever[1])
#endif
#if SOURCES > 1
#define ANYTHING_WAITS (backlog[0] > 0 || backlog[1] > 0)
#else
#define ANYTHING_WAITS (backlog[0] > 0)
#endif
#ifdef BAD_NO_RESCUE
#define RESCUE_DUE false
#else
#define RESCUE_DUE (TIMER && ANYTHING_WAITS && ANYBODY_GONE && !vain)
#endif

/* Part of a step: whom the timer takes for one that does not move. */
inline Suspect(w_) {
  if
  :: HAS_TICKETS(s, w_) && (!vain || for_ever[w_]) -> mask = mask | 1 << w_
  :: !vain || !HAS_TICKETS(s, w_) || !for_ever[w_]
  fi
}

/* A step: the mark is `rung`, and who had not been rung gets a doorbell. */
inline Mark(w_) {
  d_step {
    if
    :: mask & 1 << w_ ->
#ifndef BAD_MARKED_WITHOUT_DOORBELL
       if :: !marked[w_] -> doorbell[w_] = true :: else fi;
#endif
       marked[w_] = true
    :: else
    fi
  }
}

#endif

#if defined(MARKS) || defined(DEALS)
proctype Master() {
  VISITOR;
  byte mask;

end:
  atomic {
    mask = 0;
    s = 0;
    if
#ifdef DEALS
    :: knock -> knock = false; goto visit
    :: alert && edge[0] -> goto visit
#ifdef SHORTAGE
    :: backed_off && !shortage -> backed_off = false; goto visit
#endif
#endif
#ifdef MARKS
    :: ticks > 0 && ANYTHING_WAITS -> ticks--
    :: timeout && RESCUE_DUE -> vain = true /* nothing has moved for long */
#ifdef DOZES
    :: asleep && edge[0] -> asleep = false; goto end
    :: !asleep && backlog[0] == 0 -> goto doze /* it has been quiet for long */
#endif
#endif
    fi;
#ifdef MARKS
#if SOURCES > 1
    if
    :: backlog[0] > 0
    :: backlog[1] > 0 -> s = 1
    fi;
#endif
    Suspect(0);
    Suspect(1);
#if WORKERS == 3
    Suspect(2)
#endif
  };
  Mark(0);
  Mark(1);
#if WORKERS == 3
  Mark(2);
#endif
#else
  };
#endif
visit:
  Visit(MASTER);
left:
  goto end;

#ifdef DOZES
doze: /* what was reported so far is seen by the count that follows */
#ifdef BAD_COUNTED_BEFORE_THE_EDGE
  if :: backlog[0] > 0 -> goto end :: else fi;
  edge[0] = false;
  asleep = true;
#else
  edge[0] = false;
  if :: backlog[0] == 0 -> asleep = true :: else fi;
#endif
  goto end
#endif
}
#endif

#ifdef BOOKS
proctype Commit() {
  do
  :: d_step { books_unseen != 0 -> books_unseen = 0 }
  od
}
#endif

#ifdef SHORTAGE
proctype Shortage() {
  shortage = true;
  shortage = false
}
#endif

#ifdef REMOVED
/* The caller of Remove. Afterwards the number is no longer the library's. */
proctype Remover() {
  VISITOR;

  to_go[0] = true;
#ifdef BAD_CLOSED_WITHOUT_DESK
  closed[0] = true;
#endif
  Visit(USER);
left:
  skip
}
#endif

#if FREEZES > 0
#define HOLDS_A_DESK(w) (holder[0] == (w) && desk[0] != kFree || wakers[0] & 1 << (w))
proctype Freezer() {
  byte w;

  do
  :: atomic { freezes > 0 ->
       freezes--;
       if
       :: !frozen[0] -> w = 0
       :: !frozen[1] -> w = 1
#if WORKERS == 3
       :: !frozen[2] -> w = 2
#endif
       fi;
       frozen[w] = true;
       if
       :: !HOLDS_A_DESK(w) -> for_ever[w] = true
#ifndef NO_THAW
       :: true
#endif
       fi
     }
     if
     :: !for_ever[w] -> frozen[w] = false
     :: for_ever[w]
     fi
  :: freezes == 0 -> break
  od
}
#endif

/* ------------------------------------------------------------------------------------------------
 * When nothing can move any more.
 */

proctype AtRest() {
  byte s, w, out;
  bool armed, well, somebody_gone, somebody_waits, forgotten;

#if FREEZES > 0
  timeout && !RESCUE_DUE;
#else
  timeout;
#endif
  d_step {
    armed = true;
    well = true;
    do
    :: w < WORKERS ->
       if
       :: for_ever[w] -> somebody_gone = true
#ifdef LEAVES
       :: left_it[w] -> skip
       :: !for_ever[w] && !stalled[w] && !left_it[w] ->
#else
       :: !for_ever[w] && !stalled[w] ->
#endif
          somebody_waits = true;
#ifdef MARKS
          if :: marked[w] -> forgotten = true :: else fi
#endif
       :: else
       fi;
       w++
    :: else -> break
    od;
    do
    :: s < SOURCES ->
       ASSERT(all_served, to_come[s] == 0 && (backlog[s] == 0 || MODE_IS(s, kGone)));
       ASSERT(desk_is_free, desk[s] == kFree);
       w = 0;
       out = 0;
       do
       :: w < WORKERS ->
          out = out + claimable[AT(s, w)];
          if
          :: !for_ever[w] && (in_sight[AT(s, w)] && !asleep_in[AT(s, w)]) !=
               (claimable[AT(s, w)] > 0) -> armed = false
          :: else
          fi;
#ifndef NO_HINTS
          if
          :: !for_ever[w] && claimable[AT(s, w)] > 0 && memory[WAITING(w)] == 0 &&
               somebody_waits -> well = false
          :: else
          fi;
#endif
          w++
       :: else -> break
       od;
       ASSERT(one_stands, out == (MODE_IS(s, kAimed) -> 1 : 0) || somebody_gone);
       ASSERT(stands_in_sight, armed);
       ASSERT(stands_at_a_waiter, well);
       s++
    :: else -> break
    od;
#ifdef REMOVED
    ASSERT(let_go, closed[0] || somebody_gone);
#endif
#ifdef LEAVES
    ASSERT(let_go, sight_closed || !left_it[WORKERS - 1]);
#endif
    ASSERT(nobody_forgotten, !forgotten)
  }
}

init {
  atomic {
    byte j;
    do
    :: j < WORKERS ->
       memory[WAITING(j)] = 1;
#ifdef FALSE_WAKEUPS
       inside_wait[j] = true;
#endif
       j++
    :: else -> break
    od;
#ifdef CAPACITY
    j = OPEN_AT_FIRST;
    do
    :: j > 0 ->
       j--;
       open[(2 * WORKERS - 1 - j) % WORKERS]++;
       leases[(2 * WORKERS - 1 - j) % WORKERS]++
    :: else -> break
    od;
#endif
    j = 0;
    do /* The first ticket of each source stands at the first worker, if that has a place. */
    :: j < SOURCES ->
       desk[j] = kFree;
#ifdef MODES
       mode[j] = kAimed;
#endif
       to_come[j] = ARRIVALS;
#ifdef CAPACITY
       if
       :: open[0] == CAPACITY -> memory[HUNGRY] = ALL_SOURCES
       :: else ->
#endif
          claimable[AT(j, 0)] = 1;
#ifdef BAD_TICKET_HOLDS_A_PLACE
          open[0]++;
#endif
          turns[j] = 1;
          in_sight[AT(j, 0)] = true;
#ifdef CAPACITY
       fi;
#endif
       j++
    :: else -> break
    od;
    j = 0;
    run Network();
    run Worker(0);
    run Worker(1);
#if WORKERS == 3
    run Worker(2);
#endif
#ifdef CAPACITY
    run Leases();
#endif
#if defined(MARKS) || defined(DEALS)
    run Master();
#endif
#ifdef BOOKS
    run Commit();
#endif
#ifdef SHORTAGE
    run Shortage();
#endif
#ifdef REMOVED
    run Remover();
#endif
#if FREEZES > 0
    run Freezer();
#endif
#ifdef DEPTH
    run Drain(0);
    run Drain(1);
#ifdef CAPACITY
    run Drain(LEASES);
#endif
#endif
#ifndef BAD_NO_DESK /* which disturbs the rest in many ways */
    run AtRest()
#endif
  }
}
