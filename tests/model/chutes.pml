/* The chutes by which a parent gives connections to its workers (src/processes/chute.h, dealing.h):
 * nobody is lost, and nobody is served twice, although each worker may be killed or freeze at any
 * step. An executable model.
 *
 * The parent has accepted each connection. It puts it into the chute of a worker, which is a queue of
 * the kernel that both can take from, and closes its own descriptor. Who takes something out has it
 * alone. The parent takes out what a worker has left there that died, froze, or takes nothing more.
 *
 * Two workers, the parent, and a handful of connections. The model checker visits every interleaving,
 * one step at a time. run.py drives it; README.md lists the rules and what was checked.
 *
 * Properties, each an assertion with a name:
 *   served_once     nobody gets a connection that another one has
 * and when nothing can move any more, if somebody is left who neither is dead nor frozen:
 *   none_lost       each connection was served, or ended with a worker that had taken it
 *
 * Instance (numbers):
 *   CONNECTIONS=2   how many there are
 *   ROOM=1          how many may lie in one chute
 *   KILLS=0         how many workers are killed, after any step; the parent hears of it
 *   FREEZES=0       how many workers freeze for ever, after any step; the parent sees that something
 *                   lies there for long
 *   SLOW=0          how often the parent takes a worker for frozen that goes on afterwards
 *   POOR=0          how many workers run out of descriptors for ever, and say that they take nothing
 * Instance (flags):
 *   ENDS            the parent tells workers the end, after which they leave
 *   DIES            the parent may die instead, which tells the end, and closes what it holds
 * Everything else that is tested by #ifdef is a way to break the protocol, named BAD_….
 */

#define WORKERS 2

#ifndef CONNECTIONS
#define CONNECTIONS 2
#endif
#ifndef ROOM
#define ROOM 1
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef FREEZES
#define FREEZES 0
#endif
#ifndef SLOW
#define SLOW 0
#endif
#ifndef POOR
#define POOR 0
#endif

#define NOBODY 255
#define ASSERT(property, condition) property = (condition); assert(property)

/* The kernel: what lies in each chute, and the news that somebody has taken something. */
chan chute[WORKERS] = [CONNECTIONS] of {byte};
bool room_news;

/* Shared memory. */
bool takes[WORKERS] = true;
byte said[WORKERS]; /* how many it says that it has received */

/* The parent. */
chan held = [CONNECTIONS + 1] of {byte};
byte to_come = CONNECTIONS;
bool end_told;
bool asleep; /* until there is news */
byte given_to[CONNECTIONS] = NOBODY; /* as the parent remembers it */
bool bell;

/* Fate. */
bool dead[WORKERS];
bool buried[WORKERS];
bool frozen[WORKERS];
bool left[WORKERS];
byte kills = KILLS;
byte freezes = FREEZES;
byte slow = SLOW;
byte poor = POOR;

bool taken[CONNECTIONS]; /* by a worker */
bool busy[WORKERS];      /* with one that it has taken */
byte served;
byte ended;              /* with a worker that had taken it, or with the parent that held it */
hidden byte served_once, none_lost;
hidden byte k;

#define LIVES(w) (!dead[w] && !frozen[w])
/* What lies in its chute comes before the end. */
#ifdef BAD_END_FIRST
#define SEES_END(w) true
#else
#define SEES_END(w) (len(chute[w]) == 0)
#endif
#ifdef BAD_TOLD_EARLY
#define SETTLED true
#else
#define SETTLED (len(held) == 0 && len(chute[0]) == 0 && len(chute[1]) == 0)
#endif
#define CAN_GET(w) (takes[w] && !buried[w] && len(chute[w]) < ROOM)

/* ------------------------------------------------------------------------------------------------
 * A worker: takes one out, and serves it.
 */
proctype Work(byte me) {
  byte mine = NOBODY;
  do
  :: atomic { LIVES(me) && takes[me] && !busy[me] && len(chute[me]) > 0 ->
       chute[me] ? mine;
       ASSERT(served_once, !taken[mine]);
       taken[mine] = true;
       busy[me] = true;
       room_news = true /* if the parent watches; otherwise it finds it when it begins to */
     }
  :: atomic { LIVES(me) && busy[me] -> said[me]++; served++; busy[me] = false }
#if POOR > 0
  :: atomic { LIVES(me) && takes[me] && poor > 0 && !busy[me] ->
       poor--;
       takes[me] = false;
#ifndef BAD_NO_BELL
       bell = true
#endif
     }
#endif
#if defined(ENDS) || defined(DIES)
  :: atomic { LIVES(me) && takes[me] && end_told && !busy[me] && SEES_END(me) ->
       takes[me] = false;
       left[me] = true;
       bell = true
     }
#endif
  :: atomic { dead[me] -> ended = ended + busy[me]; busy[me] = false; break }
  od
}

/* ------------------------------------------------------------------------------------------------
 * The parent.
 */

/* Part of a step: what lies there comes back. */
inline TakeBack(w_) {
#ifdef BAD_LEFT_THERE
  skip
#elif defined(BAD_KEEPS_COPIES)
  /* Whatever the worker has not said that it has received is given again. */
  k = 0;
  do
  :: k < CONNECTIONS ->
     if
     :: given_to[k] == w_ && said[w_] == 0 -> given_to[k] = NOBODY; held ! k
     :: else
     fi;
     k++
  :: else -> break
  od;
  do
  :: len(chute[w_]) > 0 -> chute[w_] ? k
  :: else -> break
  od;
  k = 0
#else
  do
  :: len(chute[w_]) > 0 -> chute[w_] ? k; held ! k
  :: else -> break
  od;
  k = 0
#endif
}

/* Steps: puts one into a chute, and closes the parent's own descriptor of it. */
inline Put(w_) {
#ifdef BAD_CLOSES_FIRST
  /* Which may turn out to be full, or ruined, then. */
  atomic { !asleep && CAN_GET(w_) && len(held) > 0 -> held ? c };
  atomic {
    if
    :: chute[w_] ! c
    :: true
    fi;
    c = NOBODY
  }
#else
  atomic { !asleep && CAN_GET(w_) && len(held) > 0 -> held ? c; chute[w_] ! c; given_to[c] = w_ };
  c = NOBODY
#endif
}

proctype Parent() {
  byte c = NOBODY;
  do
  :: atomic { to_come > 0 ->
       to_come--;
#ifdef BAD_FULL_IS_DROPPED
       if
       :: CAN_GET(0) || CAN_GET(1) -> held ! to_come
       :: else
       fi;
#else
       held ! to_come;
#endif
       asleep = false
     }
  :: Put(0)
  :: Put(1)
  /* Nobody has room. */
  :: atomic { !asleep && len(held) > 0 && !CAN_GET(0) && !CAN_GET(1) -> room_news = false };
#ifdef BAD_NO_LOOK_AFTER
     atomic { room_news = false; asleep = true }
#else
     /* From now on the kernel says when somebody takes something, and it says so once at once. */
     atomic { room_news = true; asleep = true };
#endif
     skip
  :: atomic { asleep && room_news -> room_news = false; asleep = !CAN_GET(0) && !CAN_GET(1) }
  :: atomic { bell ->
       bell = false;
       if :: !takes[0] -> TakeBack(0) :: else fi;
       if :: !takes[1] -> TakeBack(1) :: else fi;
       asleep = false
     }
#if KILLS > 0
  :: atomic { dead[0] && !buried[0] -> buried[0] = true; TakeBack(0); asleep = false }
  :: atomic { dead[1] && !buried[1] -> buried[1] = true; TakeBack(1); asleep = false }
#endif
#if FREEZES > 0
  /* Nothing moves there for long. The worker is marked. */
  :: atomic { frozen[0] && takes[0] && len(chute[0]) > 0 -> takes[0] = false; TakeBack(0);
       asleep = false }
  :: atomic { frozen[1] && takes[1] && len(chute[1]) > 0 -> takes[1] = false; TakeBack(1);
       asleep = false }
#endif
#if SLOW > 0
  :: atomic { slow > 0 && given_to[0] == 0 -> slow--; TakeBack(0); asleep = false }
#endif
#ifdef ENDS
  :: atomic { to_come == 0 && !end_told && SETTLED -> end_told = true }
#endif
#ifdef DIES
  :: atomic { c == NOBODY -> ended = ended + to_come + len(held); end_told = true; break }
#endif
  od
}

proctype Fate() {
  do
#if KILLS > 0
  :: atomic { kills > 0 && !dead[0] -> kills--; dead[0] = true }
  :: atomic { kills > 0 && !dead[1] -> kills--; dead[1] = true }
#endif
#if FREEZES > 0
  :: atomic { freezes > 0 && LIVES(0) -> freezes--; frozen[0] = true }
  :: atomic { freezes > 0 && LIVES(1) -> freezes--; frozen[1] = true }
#endif
  :: true -> break
  od
}

#define SERVES(w) (LIVES(w) && (takes[w] || left[w]))
#define STUCK(w) (busy[w] && frozen[w] && !dead[w])

/* When nothing can move any more. */
proctype AtRest() {
  atomic {
    timeout ->
    ASSERT(none_lost, !SERVES(0) && !SERVES(1) ||
                          served + ended + STUCK(0) + STUCK(1) >= CONNECTIONS)
  }
}

init {
  atomic { run Work(0); run Work(1); run Parent(); run Fate(); run AtRest() }
}
