/* The inbox protocol (src/core/inbox.h, src/core/port_state.h) as an executable model.
 *
 * One source, one master, two workers and a handful of arrivals. The model checker visits every
 * interleaving of the processes below, one access to shared memory at a time, and every moment at
 * which a store may leave its store buffer. run.py drives it; README.md lists what was checked.
 *
 * Properties, each an assertion with a name:
 *   served_once              no arrival is served twice
 *   within_window            a worker never holds more unclaimed offers than its window
 *   late_within_two_windows  a worker that does not move costs at most so many late arrivals: one
 *                            window, and one more if the master saw its last move after a recall
 *   offered_into_zero        the master writes an offer only into a word that is zero
 *   open_within_capacity     a worker never has more open connections than its capacity
 *   few_doorbells            doorbells do not pile up in a mailbox
 * and when nothing can move any more:
 *   all_served               every arrival has been served
 *   nobody_forgotten         no worker but a stuck one owes a move that the master could not see
 *
 * Instance (numbers):
 *   ARRIVALS=3   how many connections come in
 *   WINDOW=2     how many unclaimed offers a worker may hold
 *   WORDS        words of an inbox, 2 * WINDOW unless given
 *   TICKS=0      how many looks at ages may find an offer of a healthy worker too old. Age is a
 *                matter of chance here: whatever offer is out may be old. Offers of a stuck worker
 *                are looked at without limit.
 *   STALLS=0     how many workers may get stuck, for ever, before a claim or inside a callback
 *   FAILS        if given: how many doorbells may fail to be sent
 *   CAPACITY     if given: open connections that a worker may hold; leases end at any time
 *   UNASKED      if given: how many claims may be made that no doorbell asked for
 * Instance (flags):
 *   POLLS        a worker also claims when no doorbell told it to
 *   LIMIT        a claim takes one offer and says that some are left; the worker calls again
 *   MAILBOX      the workers watch mailboxes, level-triggered: a worker sleeps only while no doorbell
 *                is there, does not remember that offers are left, and consumes doorbells as
 *                src/runtime/mailbox_shared.h says. Its stores to the queue need no store buffer: it
 *                is the worker itself that next asks the kernel whether the queue is empty
 *   EDGE         with MAILBOX: watched edge-triggered; a worker calls again while offers are left
 *   ALONE        only the first worker takes part
 *   HEALS        at a look at ages, workers with an offer and a clear `rung` are rung again
 *   WEAK         stores also leave the store buffer out of order, unless they are releases
 *   SC           no store buffers: sequential consistency
 * Everything else that is tested by #ifdef is a way to break the protocol, named BAD_….
 */

#ifndef ARRIVALS
#define ARRIVALS 3
#endif
#ifndef WINDOW
#define WINDOW 2
#endif
#ifndef WORDS
#define WORDS (2 * WINDOW)
#endif
#ifndef TICKS
#define TICKS 0
#endif
#ifndef STALLS
#define STALLS 0
#endif

#ifndef DOORBELLS_MAX
#define DOORBELLS_MAX 4
#endif

#define WORKERS 2
#define OTHER(w) (1 - (w))

/* ------------------------------------------------------------------------------------------------
 * Shared memory, and the store buffer that stands between each processor and it.
 *
 * A plain, relaxed or release store enters the processor's own buffer and reaches memory some time
 * later, in order (x86-TSO). A load sees the processor's own latest store, else memory. A
 * read-modify-write, and a sequentially consistent store (an XCHG on x86), waits until the buffer
 * is empty. With WEAK a store may overtake earlier ones to other cells unless it is a release.
 */

#define WORD(w, position) ((w) * WORDS + (position) % WORDS) /* zero, or an arrival's number */
#define TAIL(w) (WORKERS * WORDS + (w))
#define RUNG(w) (WORKERS * WORDS + WORKERS + (w))
#define OPEN(w) (WORKERS * WORDS + 2 * WORKERS + (w))
#define HUNGRY (WORKERS * WORDS + 3 * WORKERS)
#define CELLS (HUNGRY + 1)

byte memory[CELLS];

#define PROCESSORS (WORKERS + 1)
#define MASTER WORKERS /* a worker's processor has the worker's number */
#define DEPTH 6        /* more than is ever buffered: see the assertion in STORE */

typedef StoreBuffer {
  byte length;
  byte cell[DEPTH];
  byte value[DEPTH];
#ifdef WEAK
  bool release[DEPTH];
#endif
};
StoreBuffer buffer[PROCESSORS];

/* Scratch of the steps below, which are atomic: dead between them, hence hidden from the state. */
hidden byte k, m;

/* Part of a step: one store leaves the buffer. */
inline COMMIT(processor, which) {
  memory[buffer[processor].cell[which]] = buffer[processor].value[which];
  m = which;
  do
  :: m + 1 < buffer[processor].length ->
     buffer[processor].cell[m] = buffer[processor].cell[m + 1];
     buffer[processor].value[m] = buffer[processor].value[m + 1];
#ifdef WEAK
     buffer[processor].release[m] = buffer[processor].release[m + 1];
#endif
     m++
  :: else -> break
  od;
  buffer[processor].length--;
  buffer[processor].cell[m] = 0;
  buffer[processor].value[m] = 0;
#ifdef WEAK
  buffer[processor].release[m] = 0;
#endif
  m = 0
}

#define DRAINED(processor) (buffer[processor].length == 0)

/* Part of a step; never waits, and nobody else sees it happen. Buffers do not fill up here: a full
 * one would only make the processor wait, which hides behaviour. */
inline STORE(processor, where, what, is_release) {
  assert(buffer[processor].length < DEPTH);
  buffer[processor].cell[buffer[processor].length] = where;
  buffer[processor].value[buffer[processor].length] = what;
#ifdef WEAK
  buffer[processor].release[buffer[processor].length] = is_release;
#endif
  buffer[processor].length++
}
#define RELAXED false
#define RELEASE true

/* Stands first in a step that loads. Under sequential consistency a load waits for earlier stores;
 * that is all the difference, because FIFO buffers reorder nothing else. */
#ifdef SC
#define MAY_LOAD(processor) DRAINED(processor)
#else
#define MAY_LOAD(processor) true
#endif

/* Part of a step. */
inline LOAD(processor, where, into) {
  into = memory[where];
  k = 0;
  do
  :: k < buffer[processor].length ->
     if
     :: buffer[processor].cell[k] == where -> into = buffer[processor].value[k]
     :: else
     fi;
     k++
  :: else -> break
  od;
  k = 0
}

/* Stands first in a step: waits until the buffer is empty. */
#define EXCHANGE(processor, where, what, into) \
  DRAINED(processor);                          \
  into = memory[where];                        \
  memory[where] = what

/* A processor's other half: what may leave the buffer does so at any time. */
proctype Drain(byte processor) {
  do
  :: d_step { buffer[processor].length > 0 -> COMMIT(processor, 0) }
#ifdef WEAK
  :: d_step { /* The second store overtakes the first; then any order is a chain of such. */
       buffer[processor].length > 1 && !buffer[processor].release[1] &&
         buffer[processor].cell[0] != buffer[processor].cell[1] -> COMMIT(processor, 1) }
  :: d_step {
       buffer[processor].length > 2 && !buffer[processor].release[2] &&
         buffer[processor].cell[0] != buffer[processor].cell[2] &&
         buffer[processor].cell[1] != buffer[processor].cell[2] -> COMMIT(processor, 2) }
#endif
  od
}

/* ------------------------------------------------------------------------------------------------
 * The kernel: the backlog, the poll's edge, doorbells and knocks.
 */

byte backlog;          /* connections that nobody has accepted */
byte arrived;          /* how many have come in so far */
bool edge;             /* the multishot poll has completed; further arrivals merge into it */
byte doorbell[WORKERS]; /* completions that wait in a worker's ring */
#ifdef EDGE
bool signalled[WORKERS]; /* a doorbell has come that the worker's wait has not reported */
#endif
bool knock;            /* the poll on the master's eventfd has completed */

proctype Network() {
  do
  :: atomic { arrived < ARRIVALS -> arrived++; backlog++; edge = true }
  :: else -> break
  od
}

/* ------------------------------------------------------------------------------------------------
 * What is asserted.
 */

byte served[ARRIVALS + 1]; /* by arrival number, from 1: how often it was served */
byte late[WORKERS];        /* offers recalled from a worker since it moved last */
bool stuck[WORKERS];       /* will never move again */
byte stalls = STALLS;      /* workers that may still get stuck */
hidden byte served_once, within_window, late_within_two_windows, offered_into_zero, all_served,
    nobody_forgotten, open_within_capacity, few_doorbells;

#define ASSERT(property, condition) property = (condition); assert(property)

/* ------------------------------------------------------------------------------------------------
 * The master's own memory: the ledger and what it knows of the workers.
 */

byte ledger[WORKERS * WORDS]; /* the arrival in a word, zero when none is */
byte unclaimed[WORKERS];
byte tail[WORKERS];           /* position of the next offer */
bool touched[WORKERS];        /* something was offered and is not published yet */
bool rung[WORKERS];           /* was rung, and not seen cleared since */
bool owes_a_move[WORKERS];    /* an offer was recalled and the worker has not moved since */
byte held;                    /* an arrival that was recalled and is not offered yet */
bool ready;                   /* the source may have more */
#ifdef FAILS
byte fails = FAILS;           /* doorbells that may still fail */
bool doorbell_owed[WORKERS];
#define DOORBELL_OWED(w) doorbell_owed[w]
#else
#define DOORBELL_OWED(w) (false)
#endif
byte ticks = TICKS;

#ifdef CAPACITY
byte open_seen[WORKERS];
#define ROOM(w) (open_seen[w] < CAPACITY)
#else
#define ROOM(w) (true)
#endif

#ifdef ALONE
#define TAKES_PART(w) ((w) == 0)
#else
#define TAKES_PART(w) (true)
#endif

#ifdef BAD_WRITES_ANYWHERE
#define NEXT_WORD_IS_ZERO(w) (true)
#else
#define NEXT_WORD_IS_ZERO(w) (ledger[WORD(w, tail[w])] == 0)
#endif
#define CREDIT(w) \
  (unclaimed[w] < WINDOW && !owes_a_move[w] && NEXT_WORD_IS_ZERO(w) && ROOM(w) && \
   TAKES_PART(w))

#define ANY_AGE(w) (ticks > 0 || stuck[w])
#define OLD_AND_WANTED(w) (unclaimed[w] > 0 && ANY_AGE(w) && CREDIT(OTHER(w)))
/* An offer that is old and that nobody could take now: somebody's credit must wake the master. */
#define WANTED_IN_VAIN (unclaimed[0] > 0 && !CREDIT(1) || unclaimed[1] > 0 && !CREDIT(0))
#ifdef HEALS
#define UNRUNG(w) (unclaimed[w] > 0 && memory[RUNG(w)] == 0 && doorbell[w] == 0)
#else
#define UNRUNG(w) (false)
#endif
#define TO_BE_TOLD(w) (UNRUNG(w) || DOORBELL_OWED(w))
#define TIMER (OLD_AND_WANTED(0) || OLD_AND_WANTED(1) || TO_BE_TOLD(0) || TO_BE_TOLD(1))

#if TICKS > 0 || STALLS > 0
#define RECALLS
#endif

/* Why a master without credit must be told of it. */
#if defined(RECALLS) && !defined(BAD_OFFERS_NEED_NO_HUNGER)
#define SOMETHING_TO_DO (held != 0 || ready || WANTED_IN_VAIN)
#else
#define SOMETHING_TO_DO (held != 0 || ready)
#endif

/* The worker has moved: what was recalled before no longer counts against it. */
#define MOVED(w) owes_a_move[w] = false

/* Part of a step: a doorbell comes into a worker's ring. */
inline Deliver(worker) {
  doorbell[worker]++;
#ifdef EDGE
  signalled[worker] = true;
#endif
#ifdef MAILBOX
  ASSERT(few_doorbells, doorbell[worker] <= DOORBELLS_MAX);
#endif
}

/* Part of a step: a doorbell goes out, or fails and is owed. */
inline SendDoorbell(worker) {
#ifdef FAILS
  if
  :: fails > 0 ->
     fails--;
#ifndef BAD_FAILED_DOORBELL_FORGOTTEN
     doorbell_owed[worker] = true
#endif
  :: Deliver(worker); doorbell_owed[worker] = false
  fi
#else
  Deliver(worker)
#endif
}

/* A step: rings worker w. A doorbell goes out unless one is owed or on its way. */
inline Ring(worker) {
#ifdef BAD_RING_STORED
  d_step { MAY_LOAD(MASTER); LOAD(MASTER, RUNG(worker), x) };
  d_step { STORE(MASTER, RUNG(worker), 1, RELEASE) };
  atomic { DRAINED(MASTER);
#else
  atomic {
    EXCHANGE(MASTER, RUNG(worker), 1, x);
#endif
    if :: x == 0 -> SendDoorbell(worker) :: else fi;
    rung[worker] = true;
    x = 0
  }
}

/* Part of a step: everything offered to worker w may be claimed. */
#ifdef BAD_TAIL_RELAXED
#define PUBLISH(w) STORE(MASTER, TAIL(w), tail[w], RELAXED)
#else
#define PUBLISH(w) STORE(MASTER, TAIL(w), tail[w], RELEASE)
#endif

/* A look consists of these, one step each: the offers of every worker, oldest first, up to the
 * first that is still there; `rung` of those that were rung; `open`.
 */
#define FIRST_RUNG (WORKERS * WORDS)
#define FIRST_OPEN (FIRST_RUNG + WORKERS)
#ifdef CAPACITY
#define LOOKS (FIRST_OPEN + WORKERS)
#else
#define LOOKS FIRST_OPEN
#endif
#define LOOK_WORKER(n) ((n) / WORDS % WORKERS)
#define LOOK_WORD(n) WORD(LOOK_WORKER(n), tail[LOOK_WORKER(n)] + (n) % WORDS)

/* Part of a step: passes what need not be looked at. */
inline NextLook() {
  do
  :: n < FIRST_RUNG && ledger[LOOK_WORD(n)] == 0 -> n++
  :: n >= FIRST_RUNG && n < FIRST_OPEN && !rung[(n - FIRST_RUNG) % WORKERS] -> n++
  :: else -> break
  od
}

/* A step. */
inline LookOnce() {
  d_step {
    MAY_LOAD(MASTER);
    NextLook();
    if
    :: n < FIRST_RUNG ->
       w = LOOK_WORKER(n);
       LOAD(MASTER, LOOK_WORD(n), x);
       if
       :: x == 0 -> ledger[LOOK_WORD(n)] = 0; unclaimed[w]--; MOVED(w); n++
       :: else -> n = (w + 1) * WORDS
       fi
    :: n >= FIRST_RUNG && n < FIRST_OPEN ->
       w = n - FIRST_RUNG;
       LOAD(MASTER, RUNG(w), x);
       if
       :: x == 0 -> rung[w] = false; MOVED(w)
       :: else
       fi;
       n++
#ifdef CAPACITY
    :: n >= FIRST_OPEN && n < LOOKS ->
       w = n - FIRST_OPEN;
       LOAD(MASTER, OPEN(w), open_seen[w]);
       n++
#endif
    :: n == LOOKS
    fi;
    NextLook(); /* so that nothing but a look makes a step */
    x = 0;
    w = 0
  }
}

/* Part of a step: arrival y becomes an offer to worker w. */
inline Offer() {
  LOAD(MASTER, WORD(w, tail[w]), x);
  ASSERT(offered_into_zero, x == 0 && ledger[WORD(w, tail[w])] == 0);
  x = 0;
  ledger[WORD(w, tail[w])] = y;
  unclaimed[w]++;
  ASSERT(within_window, unclaimed[w] <= WINDOW);
#ifdef BAD_TAIL_FIRST
  tail[w]++;
  PUBLISH(w);
  STORE(MASTER, WORD(w, tail[w] - 1), y, RELAXED);
#else
  STORE(MASTER, WORD(w, tail[w]), y, RELAXED);
  tail[w]++;
#endif
  touched[w] = true;
  y = 0;
  w = 0
}

/* Steps: publishes what was offered to a worker in this batch, and rings. */
inline PublishAndRing(worker) {
  if
  :: touched[worker] ->
     touched[worker] = false;
#ifdef BAD_RING_FIRST
     Ring(worker);
     d_step { PUBLISH(worker) }
#else
     d_step { PUBLISH(worker) };
     Ring(worker)
#endif
  :: else
  fi
}

/* Steps: takes back an offer of worker w. */
inline Recall() {
  atomic {
    tick = false;
    if :: !stuck[w] -> ticks-- :: else fi;
    do /* Any offer may be the one that is too old. */
    :: break
    :: y + 1 < unclaimed[w] -> y++
    od;
    d_step {
      n = w * WORDS;
      do
      :: ledger[n] == 0 -> n++
      :: ledger[n] != 0 && y > 0 -> n++; y--
      :: ledger[n] != 0 && y == 0 -> break
      od
    }
  };
#ifdef BAD_RECALL_STORED
  d_step { MAY_LOAD(MASTER); LOAD(MASTER, n, x) };
  d_step {
    if :: x != 0 -> STORE(MASTER, n, 0, RELEASE) :: else fi;
#else
  d_step { /* compare_exchange(offer, 0) */
    DRAINED(MASTER);
    x = memory[n];
    if :: x == ledger[n] -> memory[n] = 0 :: else fi;
#endif
    if
    :: x == ledger[n] ->
       held = x;
       ledger[n] = 0;
       unclaimed[w]--;
#ifndef BAD_CREDIT_BY_RECALL
       owes_a_move[w] = true;
#endif
       late[w]++;
       ASSERT(late_within_two_windows, late[w] <= 2 * WINDOW)
    :: else /* The worker was faster; the next look finds it. */
    fi;
    n = 0;
    x = 0
  };
#ifdef CAPACITY
  if :: held != 0 -> d_step { DRAINED(MASTER); memory[OPEN(w)]-- } :: else fi;
#endif
  /* If it has nothing left to take, only `rung` can show that it moves. */
#ifndef BAD_NOT_RUNG_AFTER_RECALL
  if
  :: !rung[w] && !touched[w] -> Ring(w)
  :: else
  fi;
#endif
  w = 0
}

/* As Engine::OnBatch: look, recall, deal; while out of credit say so and look again; ring. */
proctype Master() {
  byte w, n, x, y;
  bool tick;     /* woken by the timer: offers may be old */
  bool hungered; /* `hungry` was set since something was dealt */

sleep:
  atomic {
    if
    :: TIMER -> tick = true
    :: edge || knock
    fi;
    if :: edge -> edge = false; ready = true :: else fi;
    knock = false
  };

look:
  do
  :: n < LOOKS -> LookOnce()
  :: else -> break
  od;
  n = 0;

#ifdef RECALLS
  if
  :: tick && OLD_AND_WANTED(0) -> w = 0; Recall()
  :: tick && OLD_AND_WANTED(1) -> w = 1; Recall()
  :: else
  fi;
#endif

deal: /* What is held first, then what the source has. */
  atomic {
    if
    :: (held != 0 || ready) && CREDIT(0) -> w = 0
    :: (held != 0 || ready) && CREDIT(1) -> w = 1
    :: else -> goto dealt
    fi;
    if
    :: held != 0 -> y = held; held = 0
    :: held == 0 && backlog > 0 -> y = arrived - backlog + 1; backlog--
    :: held == 0 && backlog == 0 -> ready = false; w = 0; goto deal /* found nothing */
    fi;
    hungered = false;
#ifdef CAPACITY
    DRAINED(MASTER);
    memory[OPEN(w)]++;
    open_seen[w] = memory[OPEN(w)];
    ASSERT(open_within_capacity, memory[OPEN(w)] <= CAPACITY);
#endif
    d_step { Offer() }
  };
  goto deal;

dealt:
  if
  :: !hungered && SOMETHING_TO_DO ->
     hungered = true;
#ifdef BAD_HUNGRY_STORED
     d_step { STORE(MASTER, HUNGRY, 1, RELEASE) };
#else
     d_step { EXCHANGE(MASTER, HUNGRY, 1, x); x = 0 };
#endif
#ifdef BAD_EDGE_FORGOTTEN
     ready = false;
#endif
#ifndef BAD_NO_SECOND_LOOK
     goto look
#endif
  :: else
  fi;

  PublishAndRing(0);
  PublishAndRing(1);
#ifdef HEALS
  if
  :: tick && unclaimed[0] > 0 && !rung[0] -> Ring(0)
  :: tick && unclaimed[1] > 0 && !rung[1] -> Ring(1)
  :: else
  fi;
#endif
#ifdef FAILS
  atomic {
    if
    :: tick && doorbell_owed[0] -> SendDoorbell(0)
    :: tick && doorbell_owed[1] -> SendDoorbell(1)
    :: else
    fi
  };
#endif
  atomic { tick = false; hungered = false; goto sleep }
}

/* ------------------------------------------------------------------------------------------------
 * A worker.
 */

byte cursor[WORKERS]; /* the next position to be claimed */
#ifdef CAPACITY
byte leases[WORKERS]; /* connections that it has open */
#endif

/* Ends every claim and every lease: who takes the flag knocks. */
inline ReadHungry(processor) {
  atomic { MAY_LOAD(processor); d_step { LOAD(processor, HUNGRY, x) } };
  if
  :: x != 0 -> d_step { EXCHANGE(processor, HUNGRY, 0, x); if :: x != 0 -> knock = true :: else fi }
  :: else
  fi
}

#define MAY_STALL (stalls > 0 && !stuck[OTHER(w)])

#ifdef UNASKED
byte unasked = UNASKED;
#endif

proctype Worker(byte w) {
  byte end, x;
#ifdef MAILBOX
  byte counted;
#endif

wait:
  atomic {
    end = 0; x = 0;
    if
#if defined(EDGE)
    :: doorbell[w] > 0 && signalled[w] -> signalled[w] = false
#elif defined(MAILBOX)
    :: doorbell[w] > 0
#else
    :: doorbell[w] > 0 -> doorbell[w]--
#endif
#ifdef UNASKED
    :: unasked > 0 -> unasked--
#endif
#ifdef POLLS
    :: memory[TAIL(w)] != cursor[w] /* at any other time, too */
#endif
#if STALLS > 0
    :: MAY_STALL -> stalls--; stuck[w] = true; goto dead
#endif
    fi
  };

begin:
#if defined(MAILBOX) && !defined(BAD_COUNTED_AFTER_BEGIN)
  counted = doorbell[w];
#endif
#ifdef BAD_KNOCK_BEFORE_CLAIM
  ReadHungry(w);
#endif
#ifdef BAD_TAIL_READ_FIRST
  d_step { MAY_LOAD(w); LOAD(w, TAIL(w), end) };
#endif
#if defined(BAD_RUNG_CLEARED_AFTER)
  skip;
#elif defined(BAD_RUNG_STORED)
  atomic { STORE(w, RUNG(w), 0, RELEASE); late[w] = 0 };
#else
  atomic { EXCHANGE(w, RUNG(w), 0, x); x = 0; late[w] = 0 };
#endif
  d_step {
    MAY_LOAD(w);
#ifndef BAD_TAIL_READ_FIRST
    LOAD(w, TAIL(w), end);
#endif
    if
    :: end - cursor[w] > WORDS ->
#ifdef BAD_SKIPS_TO_TAIL
       cursor[w] = end
#else
       cursor[w] = end - WORDS
#endif
    :: else
    fi
  };
#ifdef BAD_COUNTED_AFTER_BEGIN
  counted = doorbell[w];
#endif

  do
  :: cursor[w] != end ->
#ifdef BAD_CLAIM_STORED
     d_step { MAY_LOAD(w); LOAD(w, WORD(w, cursor[w]), x) };
     d_step {
       if :: x != 0 -> STORE(w, WORD(w, cursor[w]), 0, RELEASE) :: else fi;
#else
     d_step {
       EXCHANGE(w, WORD(w, cursor[w]), 0, x);
#endif
       cursor[w]++;
       if
       :: x != 0 ->
          late[w] = 0;
          served[x]++;
#ifdef CAPACITY
          leases[w]++;
#endif
          ASSERT(served_once, served[x] == 1)
       :: else /* a hole that a recall left */
       fi
     };
#if STALLS > 0
     if
     :: atomic { x != 0 && MAY_STALL -> stalls--; stuck[w] = true; goto dead } /* in its callback */
     :: true
     fi;
#endif
#ifdef BAD_HOLE_ENDS_CLAIM
     if :: x == 0 -> break :: else fi;
#endif
#if defined(LIMIT) || defined(BAD_STOPS_EARLY)
     if :: x != 0 -> break :: else fi
#endif
  :: else -> break
  od;
#ifdef BAD_RUNG_CLEARED_AFTER
  atomic { EXCHANGE(w, RUNG(w), 0, x); late[w] = 0 };
#endif
#ifdef MAILBOX
  atomic {
#ifdef BAD_CONSUMES_WHAT_IS_THERE
    counted = doorbell[w];
#endif
    if
#if defined(BAD_CONSUMES_NONE)
    :: cursor[w] != end -> skip
#elif !defined(BAD_CONSUMES_ALL)
    :: cursor[w] != end && counted > 0 -> doorbell[w] = doorbell[w] - (counted - 1)
#endif
    :: else -> doorbell[w] = doorbell[w] - counted
    fi;
    counted = 0
  };
#endif
#if !defined(BAD_NO_KNOCK) && !defined(BAD_KNOCK_BEFORE_CLAIM)
  ReadHungry(w);
#endif
#if defined(LIMIT) && !defined(BAD_STOPS_EARLY) && (!defined(MAILBOX) || defined(EDGE))
  if
  :: cursor[w] != end -> goto begin /* some are left: calls again before it waits */
  :: else
  fi;
#endif
  goto wait;

dead:
  false
}

#ifdef CAPACITY
/* A connection that is served stays open until its lease ends: at any time, on any thread. */
proctype Leases() {
  byte w, x;

  do
  :: atomic {
       if
       :: leases[0] > 0 -> w = 0
       :: leases[1] > 0 -> w = 1
       fi;
       leases[w]--;
       memory[OPEN(w)]--; /* a fetch_sub; this processor stores nothing, so it need not wait */
       w = 0
     };
#ifndef BAD_NO_KNOCK_BY_LEASES
     if
     :: memory[HUNGRY] != 0 ->
        atomic { x = memory[HUNGRY]; memory[HUNGRY] = 0; if :: x != 0 -> knock = true :: else fi };
        x = 0
     :: else
     fi
#endif
  od
}
#endif

/* ------------------------------------------------------------------------------------------------
 * When nothing can move any more.
 */

proctype AtRest() {
  timeout;
  byte i = 1;
  bool all = true;
  do
  :: i <= ARRIVALS -> all = all && served[i] == 1; i++
  :: else -> break
  od;
  ASSERT(all_served, all && arrived == ARRIVALS && backlog == 0 && held == 0);
  /* It owes no move, or has made it and the master will see so when it looks next. */
  i = 0;
  do
  :: i < WORKERS ->
     ASSERT(nobody_forgotten,
            stuck[i] || !owes_a_move[i] || rung[i] && memory[RUNG(i)] == 0);
     i++
  :: else -> break
  od
}

init {
  atomic {
    run Network();
    run Master();
    run Worker(0);
    run Worker(1);
    run Drain(MASTER);
#if defined(BAD_RUNG_STORED) || defined(BAD_CLAIM_STORED)
    run Drain(0);
    run Drain(1); /* in the right protocol a worker stores nothing */
#endif
#ifdef CAPACITY
    run Leases();
#endif
    run AtRest()
  }
}
