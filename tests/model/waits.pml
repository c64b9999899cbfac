/* Who waits (PortState::hint, the third flag of Hunger, src/core/mover.h) as an
 * executable model: an offer behind a worker that turned out to be busy is moved to one that waits.
 *
 * One master, two workers, a few arrivals. What inbox.pml has shown is taken for granted here: the
 * offers of a worker are a set, published and rung in order, and who takes one out owns it. run.py
 * drives the model; README.md lists what was checked.
 *
 * A worker wakes for a doorbell, or for work of its own, which may take for ever. It says that it
 * woke and looks whether something was offered to it by then. If so, it claims before it works.
 *
 * Properties, each an assertion with a name:
 *   served_once      no arrival is served twice
 *   moved_once       no arrival is moved twice
 * and when nothing can move any more:
 *   not_behind_busy  no arrival that may be moved lies with a worker that is busy for ever, while
 *                    the other one waits and has nothing unclaimed
 *   all_served       unless somebody is busy for ever, every arrival has been served
 *
 * Instance (numbers):
 *   ARRIVALS=2  how many connections come in
 *   WORKS=2     how often workers wake for work of their own
 *   BUSY=1      how many workers may be busy with it for ever
 *   YOUNG=1     how often what lies with a busy worker is too young to be moved
 * Everything else that is tested by #ifdef is a way to break the protocol, named BAD_….
 */

#ifndef ARRIVALS
#define ARRIVALS 2
#endif
#ifndef WORKS
#define WORKS 2
#endif
#ifndef BUSY
#define BUSY 1
#endif
#ifndef YOUNG
#define YOUNG 1
#endif

#define WORKERS 2
#define OTHER(w) (1 - (w))
#define BIT(i) (1 << (i))

/* The name stands first in the assertion, where run.py finds it. */
#define ASSERT(name, condition) { bool name = (condition); assert(name) }

/* Shared memory. */
byte offers[WORKERS]; /* sets of arrivals: bit i is arrival i */
bool rung[WORKERS];
bool waiting[WORKERS];
bool wants; /* the flag: the master wants to hear of who waits */

/* What stands in a store buffer. In the right protocol nothing does: all of these are exchanges,
 * or sequentially consistent stores, which wait until the buffer is empty. */
bool late_waiting[WORKERS], late_busy[WORKERS], late_wants;
#define DRAINED(w) (!late_waiting[w] && !late_busy[w])

/* The kernel. */
bool doorbell[WORKERS];
bool knock, timer;
byte arrived, backlog;

/* For the properties. */
byte served[ARRIVALS], moves[ARRIVALS];
byte works = WORKS, may_stay_busy = BUSY, young = YOUNG;
bool busy_for_ever[WORKERS];

proctype Network() {
  do
  :: atomic { arrived < ARRIVALS -> arrived++; backlog++ }
  od
}

#if defined(BAD_WAITING_STORED) || defined(BAD_BUSY_STORED) || defined(BAD_FLAG_STORED)
proctype Drain() {
  do
  :: atomic { late_waiting[0] -> waiting[0] = true; late_waiting[0] = false }
  :: atomic { late_waiting[1] -> waiting[1] = true; late_waiting[1] = false }
  :: atomic { late_busy[0] && !late_waiting[0] -> waiting[0] = false; late_busy[0] = false }
  :: atomic { late_busy[1] && !late_waiting[1] -> waiting[1] = false; late_busy[1] = false }
  :: atomic { late_wants -> wants = true; late_wants = false }
  od
}
#endif

/* --- The master ------------------------------------------------------------------------------ */

byte moved; /* its books: a set of arrivals */

#define MOVABLE(w) ((offers[w] & ~moved) != 0)
#define IDLE(w) (waiting[w] && offers[w] == 0)

inline RingIt(w) {
  atomic {
    if
    :: !rung[w] -> rung[w] = true; doorbell[w] = true
    :: else
    fi
  }
}

/* Takes one offer back that may be moved, if there still is one. */
inline RecallOne(from) {
  i = 0;
  do
  :: i < ARRIVALS && (offers[from] & ~moved & BIT(i)) == 0 -> i++
  :: else -> break
  od;
  if
  :: i < ARRIVALS ->
     offers[from] = offers[from] & ~BIT(i);
     moves[i]++;
     ASSERT(moved_once, moves[i] == 1);
#ifndef BAD_MOVES_AGAIN
     moved = moved | BIT(i)
#endif
  :: else
  fi
}

proctype Master() {
  byte i, w, next;
  bool due, again, busy[WORKERS];

  do
  :: atomic {
       backlog > 0 || knock || timer || again -> knock = false; timer = false; again = false;
       /* Age by chance: what lies with somebody who is busy may be old enough, or not yet. */
       if
       :: due = true
       :: young > 0 -> young--; due = false
       fi
     };

     /* Deals: to whomever the policy wants. */
     if
     :: backlog > 0 ->
        atomic {
          backlog--;
          if
          :: w = 0
          :: w = 1
          fi
#ifdef BAD_LOOKS_BEFORE_RINGING
          ;
          busy[0] = !waiting[0];
          busy[1] = !waiting[1]
#endif
        };
        /* Published; the worker may find it before it is rung. */
        atomic { offers[w] = offers[w] | BIT(next); next++ };
        RingIt(w)
     :: else
     fi;

     /* Moves: from somebody who is busy to somebody who waits with nothing unclaimed. */
     w = 0;
     do
     :: w < WORKERS ->
        if
        :: due && !waiting[w] && MOVABLE(w) ->
           if
           :: IDLE(OTHER(w)) ->
              atomic { RecallOne(w) };
              if
              :: i < ARRIVALS ->
                 atomic { offers[OTHER(w)] = offers[OTHER(w)] | BIT(i) };
                 RingIt(OTHER(w))
              :: else
              fi
           :: else
           fi
        :: else
        fi;
        w++
     :: else -> break
     od;

     /* After it has rung, it looks who is busy. */
#ifndef BAD_LOOKS_BEFORE_RINGING
     busy[0] = !waiting[0];
     busy[1] = !waiting[1];
#endif
     if
     :: atomic { busy[0] && MOVABLE(0) || busy[1] && MOVABLE(1) ->
          if
          :: !due -> timer = true
          :: due ->
#ifdef BAD_FLAG_STORED
             late_wants = true
#else
             wants = true
#endif
          fi
        };
        /* Once the flag is up, it looks once more who waits. */
#ifndef BAD_NO_SECOND_LOOK
        atomic {
          again = due && (busy[0] && MOVABLE(0) && IDLE(1) || busy[1] && MOVABLE(1) && IDLE(0))
        }
#endif
     :: else -> atomic { !late_wants -> wants = false }
     fi;
     atomic { i = 0; w = 0; due = false; busy[0] = false; busy[1] = false }
  od
}

/* --- The workers ----------------------------------------------------------------------------- */

inline SayWaiting(w) {
#ifdef BAD_WAITING_STORED
  atomic { !late_busy[w] -> late_waiting[w] = true }
#else
  atomic { DRAINED(w) -> waiting[w] = true }
#endif
}

inline ReadWants(w) {
#ifndef BAD_NEVER_KNOCKS
  if
  :: atomic { wants -> wants = false; knock = true }
  :: else
  fi
#else
  skip
#endif
}

proctype Worker(byte w) {
  bool own, offered;
  byte i;

  do
  :: /* It waits. */
     if
     :: atomic { doorbell[w] -> doorbell[w] = false }
     :: atomic { works > 0 -> works--; own = true }
     fi;

     /* AfterWait. */
#ifdef BAD_BUSY_STORED
     atomic { !late_waiting[w] -> late_busy[w] = true };
#else
     atomic { DRAINED(w) -> waiting[w] = false };
#endif
#ifdef BAD_WORKS_FIRST
     offered = false;
#else
     offered = rung[w];
#endif
     if
     :: atomic { own && !offered && may_stay_busy > 0 -> may_stay_busy--; busy_for_ever[w] = true };
        break
     :: true
     fi;

     /* Claims: an exchange, then what is there by then. */
     atomic { DRAINED(w) -> rung[w] = false };
     d_step {
       i = 0;
       do
       :: i < ARRIVALS ->
          if
          :: (offers[w] & BIT(i)) != 0 ->
             served[i]++;
             ASSERT(served_once, served[i] == 1)
          :: else
          fi;
          i++
       :: else -> break
       od;
       offers[w] = 0;
       i = 0;
       own = false;
       offered = false
     };

     /* BeforeWait. */
#ifdef BAD_READS_THE_FLAG_FIRST
     ReadWants(w);
     SayWaiting(w)
#else
     SayWaiting(w);
     ReadWants(w)
#endif
  od
}

/* --- When nothing can move any more ---------------------------------------------------------- */

proctype AtRest() {
  timeout;
  ASSERT(not_behind_busy, !(busy_for_ever[0] && MOVABLE(0) && IDLE(1)) &&
                          !(busy_for_ever[1] && MOVABLE(1) && IDLE(0)));
  byte i;
  bool all = arrived == ARRIVALS && backlog == 0;
  do
  :: i < ARRIVALS -> all = all && served[i] == 1; i++
  :: else -> break
  od;
  ASSERT(all_served, all || busy_for_ever[0] || busy_for_ever[1])
}

init {
  atomic {
    waiting[0] = true;
    waiting[1] = true;
    run Network();
#if defined(BAD_WAITING_STORED) || defined(BAD_BUSY_STORED) || defined(BAD_FLAG_STORED)
    run Drain();
#endif
    run Master();
    run Worker(0);
    run Worker(1);
    run AtRest()
  }
}
