/* The desk that processes share: how a keeper and its workers keep one source going although each
 * of them may be killed, or freeze, at any step. An executable model.
 *
 * A permit is leave to accept one connection, issued before the connection comes. Each worker is a
 * process with a slot. The slot has a sight, an epoll set that stands in the place of the listener
 * in the worker's own epoll set. The listener stands in the sights of those that have a permit. Who
 * holds the desk issues permits and changes the sights. The keeper never accepts: it watches the
 * workers and repairs.
 *
 * One source, two workers, the keeper, and a handful of arrivals. The model checker visits every
 * interleaving of the processes below, one step at a time, and kills or freezes a worker between
 * any two steps. aim.pml checks what is the same among threads (who waits, hungry, places, store
 * buffers); here stands what is different among processes. run.py drives it; README.md lists the
 * rules and what was checked.
 *
 * Properties, each an assertion with a name:
 *   one_late_step      who was deposed at the desk makes one step more, and no second
 *   few_vain_wakeups   nobody is woken again and again to find no permit (with VAIN_MAX)
 * and when nothing can move any more, if somebody is left who neither is dead nor frozen:
 *   all_served         no arrival waits
 *   desk_is_free       nobody holds the desk
 *   one_stands         exactly one permit is out at those that are left
 *   stands_in_sight    the listener stands in the sight of the worker that has it, and in no other
 *                      but of one that is marked
 *   stands_at_a_waiter that worker waits
 *   slots_are_free     no slot belongs to a dead worker
 *
 * Instance (numbers):
 *   ARRIVALS=2       how many connections come in
 *   WIDTH=2          how many permits may be out
 *   KILLS=0          how many workers are killed, after any step
 *   BIRTHS=0         how many workers may come, into slots that are free
 *   FREEZES=0        how many workers freeze for ever, after any step
 *   RECALLS=0        how many times the keeper takes those for frozen who hold the desk or have
 *                    permits, and who are only slow: they go on afterwards, as one that thaws
 *   WIPES=0          how many times somebody who is broken writes zeros over all that is shared, after
 *                    any step
 *   DISTRACTIONS=0   how often a worker is woken by something else
 *   VAIN_MAX         if given: how many wake-ups may find no permit, of workers that then look
 *                    themselves
 * Instance (flags):
 *   LEVEL            the loops watch their sights level-triggered and accept once for each wake-up,
 *                    otherwise edge-triggered and until there is no permit
 *   KEEPER_DIES      the keeper is killed, after any step
 * Everything else that is tested by #ifdef is a way to break the protocol, named BAD_….
 */

#define WORKERS 2

#ifndef ARRIVALS
#define ARRIVALS 2
#endif
#ifndef WIDTH
#define WIDTH 2
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef BIRTHS
#define BIRTHS 0
#endif
#ifndef FREEZES
#define FREEZES 0
#endif
#ifndef RECALLS
#define RECALLS 0
#endif
#ifndef WIPES
#define WIPES 0
#endif
#ifndef DISTRACTIONS
#define DISTRACTIONS 0
#endif
#if FREEZES > 0 || RECALLS > 0
#define MARKS
#endif
#if KILLS > 0 || WIPES > 0 || defined(MARKS)
#define RENEWS
#endif

/* Who stands in the word. 0: nobody. */
#define KEEPER WORKERS
#define NAME(me) ((me) + 1)

#define ASSERT(property, condition) property = (condition); assert(property)

/* ------------------------------------------------------------------------------------------------
 * The kernel: the backlog and the sights.
 */

byte backlog;
byte to_come = ARRIVALS;
bool in_sight[WORKERS]; /* the listener stands in the sight of the slot */
bool asleep_in[WORKERS]; /* but asks for no event: it wakes nobody */
bool reported[WORKERS]; /* and the sight has something to report to the worker's wait */

/* ------------------------------------------------------------------------------------------------
 * Shared memory. Every access is sequentially consistent.
 */

byte word;              /* who holds the desk. Its term is not modelled: a worker is one thread */
bool noted;             /* the other field of the word: look again */
bool hungry;            /* the desk wants to hear who waits next */
bool torn;              /* what stands here may be wrong: whoever looks next makes it anew */
bool taken[WORKERS];    /* the slot has an owner */
bool waits[WORKERS];
bool marked[WORKERS];
byte claimable[WORKERS]; /* these two fields are one word */
byte redeeming[WORKERS];
bool shown[WORKERS];    /* what holders believe of in_sight */

/* ------------------------------------------------------------------------------------------------
 * Fate, and what is asserted.
 */

bool dead[WORKERS];
bool frozen[WORKERS];
byte vain_recalls;      /* recalls of the frozen since somebody claimed: three in vain end it */
bool keeper_is_dead;
byte struck;            /* who is killed or frozen right now: */
bool halted[WORKERS + 1]; /* nobody else moves until that is done */
byte kills = KILLS;
byte births = BIRTHS;
byte freezes = FREEZES;
byte recalls = RECALLS;
byte wipes = WIPES;
byte vain_shows;        /* since somebody accepted: three in vain end it */
byte distractions = DISTRACTIONS;
bool given[WORKERS];    /* the slot of a dead worker may be somebody else's */
byte to_wake[WORKERS + 1]; /* a bit for each sight that a holder has yet to wake */
byte late[WORKERS + 1]; /* steps made at the desk since somebody else got it */
byte vain;              /* wake-ups without a permit */
hidden byte one_late_step, few_vain_wakeups, all_served, desk_is_free, one_stands, stands_in_sight,
    stands_at_a_waiter, slots_are_free;
hidden byte k;

/* Part of a step: a connection comes in. */
inline Arrive() {
  to_come--;
  backlog++;
  k = 0;
  do
  :: k < WORKERS ->
     if :: in_sight[k] && !asleep_in[k] -> reported[k] = true :: else fi;
     k++
  :: else -> break
  od;
  k = 0
}

/* Part of a step: EPOLL_CTL_ADD, after EPOLL_CTL_DEL where the listener stands in the sight. It
 * makes the kernel look. */
inline Add(w_) {
  if :: backlog > 0 -> reported[w_] = true :: else fi;
  in_sight[w_] = true;
  asleep_in[w_] = false
}

/* Part of a step: the same for no event at all. */
inline Stand(w_) {
  in_sight[w_] = true;
  asleep_in[w_] = true;
  if
  :: reported[w_] -> reported[w_] = false
  :: true
  fi
}

/* Part of a step: EPOLL_CTL_MOD, by which a listener that stands there asks for events. It makes
 * the kernel look. If somebody has taken the listener out meanwhile, it fails, and that is all. */
inline Awaken(w_) {
  if
  :: in_sight[w_] ->
     asleep_in[w_] = false;
     if :: backlog > 0 -> reported[w_] = true :: else fi
  :: else
  fi
}

/* Part of a step: EPOLL_CTL_DEL. What was reported already may be seen nevertheless, or not. */
inline Delete(w_) {
  in_sight[w_] = false;
  asleep_in[w_] = false;
  if
  :: reported[w_] -> reported[w_] = false
  :: true
  fi
}

#ifdef LEVEL
#define SIGHT_WAKES(w) (reported[w] || in_sight[w] && !asleep_in[w] && backlog > 0)
#else
#define SIGHT_WAKES(w) (reported[w])
#endif

proctype Network() provided (struck == 0) {
  do
  :: d_step { to_come > 0 -> Arrive() }
  :: to_come == 0 -> break
  od
}

/* ------------------------------------------------------------------------------------------------
 * The desk.
 */

/* Part of a step, the last before one that changes something: who was deposed changes nothing more.
 * In between it may be deposed: that one step is late. */
#ifdef BAD_DOES_NOT_ASK
#define ASK(me) skip
#elif defined(BAD_UNNAMED)
#define ASK(me) if :: word != 0 :: else -> goto deposed fi
#else
#define ASK(me) if :: word == NAME(me) :: else -> goto deposed fi
#endif

/* Part of a step that changes something. */
#if RECALLS > 0
#define ACT(me)                                                        \
  if                                                                   \
  :: word != NAME(me) ->                                               \
     late[me]++; ASSERT(one_late_step, late[me] <= 1)                  \
  :: else                                                              \
  fi
#else
#define ACT(me) skip
#endif

/* What the holder has seen of a worker. */
#define GONE 0  /* nobody has the slot */
#define MARKED 1
#define LATE 2  /* it does not wait, and has not for a while */
#define CAN 3
#define IDLE 4  /* it waits, without a permit */

#define SOMEBODY(state) (seen[0] == (state) || seen[1] == (state))
#define BEST(w) (seen[w] >= CAN || seen[w] == LATE && seen[1 - (w)] < CAN)
#define ASTRAY(w) (seen[w] <= MARKED || seen[w] == LATE && SOMEBODY(IDLE))

/* A step: sees a worker. What is a while is left to chance. */
inline See(w_) {
  atomic {
    had[w_] = claimable[w_];
#ifdef BAD_REDEEMING_OF_MARKED_COUNTED
    out = out + claimable[w_] + redeeming[w_];
#else
    out = out + claimable[w_] + (marked[w_] -> 0 : redeeming[w_]);
#endif
    if
    :: !taken[w_] -> seen[w_] = GONE
    :: taken[w_] && marked[w_] -> seen[w_] = MARKED
    :: taken[w_] && !marked[w_] && !waits[w_] -> seen[w_] = LATE
    :: taken[w_] && !marked[w_] && !waits[w_] -> seen[w_] = CAN
    :: taken[w_] && !marked[w_] && waits[w_] ->
       seen[w_] = (claimable[w_] + redeeming[w_] > 0 -> CAN : IDLE)
    fi
  }
}

/* Part of a step: if all are marked, that says nothing. */
inline SeeAll() {
  all_marked = seen[0] <= MARKED && seen[1] <= MARKED;
  k = 0;
  do
  :: k < WORKERS ->
     if
     :: all_marked && seen[k] == MARKED -> seen[k] = CAN; out = out + redeeming[k]
     :: else
     fi;
     k++
  :: else -> break
  od;
  k = 0
}

/* Steps: takes a permit back that is astray. */
inline TakeBack(me, w_) {
  if
  :: had[w_] > 0 && ASTRAY(w_) ->
     atomic {
       ACT(me);
       out = out - had[w_];
       claimable[w_] = 0;
       had[w_] = 0;
       ASK(me)
     }
  :: else
  fi
}

/* Steps: makes anew what the desk says of a slot, whatever that is. */
inline Renew(me, w_) {
  atomic { ACT(me); claimable[w_] = 0; ASK(me) };
  atomic {
    ACT(me);
#ifdef BAD_RENEWS_WHAT_IS_SHOWN
    if :: shown[w_] -> Delete(w_) :: else fi;
    shown[w_] = false;
#else
    shown[w_] = false;
    Delete(w_);
#endif
    ASK(me)
  }
}

/* The sight of a worker without a permit shows nothing. That of one that is marked wakes it while
 * something waits, if it still can be woken. */
#ifdef BAD_MARKED_ARE_HIDDEN
#define TO_SHOW(w) false
#define TO_HIDE(w) (shown[w] && claimable[w] == 0)
#else
#define RINGS(w) (busy && taken[w] && (seen[w] == MARKED || all_marked))
#define TO_SHOW(w) (RINGS(w) && !shown[w] && claimable[w] == 0)
#define TO_HIDE(w) (!RINGS(w) && shown[w] && claimable[w] == 0)
#endif
#define WRONGLY_SHOWN(w) (TO_SHOW(w) || TO_HIDE(w))

/* Steps. */
inline Correct(me, w_) {
  if
  :: atomic { TO_SHOW(w_) -> ACT(me); shown[w_] = true; ASK(me) };
     atomic { ACT(me); Add(w_); ASK(me) }
  :: atomic { TO_HIDE(w_) -> ACT(me); shown[w_] = false; ASK(me) };
     atomic { ACT(me); Delete(w_); ASK(me) }
  :: else
  fi
}

/* A step, after the desk: whom this wakes may run in the place of the holder. */
inline WakeLater(me, w_) {
  atomic {
    if
    :: to_wake[me] & 1 << w_ -> to_wake[me] = to_wake[me] & ~(1 << w_); Awaken(w_)
    :: else
    fi
  }
}

/* Steps: visits the desk. Once in each process that does, because of its labels. */
#define VISITOR           \
  byte n, out, next;      \
  byte seen[WORKERS];     \
  byte had[WORKERS];      \
  bool busy, all_marked, wanting, hungered, had_it

#define FORGET(me_)     \
  n = 0;                \
  out = 0;              \
  next = 0;             \
  seen[0] = 0;          \
  seen[1] = 0;          \
  had[0] = 0;           \
  had[1] = 0;           \
  busy = false;         \
  all_marked = false;   \
  to_wake[me_] = 0;     \
  wanting = false;      \
  hungered = false;     \
  had_it = false

inline Visit(me) {
  atomic {
#if RECALLS > 0
    late[me] = 0;
#endif
    if
#ifdef BAD_HOLDER_STAYS
    :: me == KEEPER && word == 0 -> word = NAME(me); goto renew
    :: me != KEEPER && word == 0 -> word = NAME(me)
#elif defined(BAD_DEATH_ONLY_VISITS)
    :: me == KEEPER && (word == 0 || dead[word - 1]) -> word = NAME(me); noted = false; goto look
    :: me != KEEPER && word == 0 -> word = NAME(me)
#else
    :: me == KEEPER -> word = NAME(me); noted = false; goto renew
    :: me != KEEPER && word == 0 -> word = NAME(me)
#endif
    :: else ->
#ifndef BAD_NO_NOTE
       noted = true;
#endif
       goto left
    fi
  };

look:
#ifdef RENEWS
  atomic {
    if
    :: torn -> ACT(me); torn = false; ASK(me)
    :: else -> goto see
    fi
  };
#else
  goto see;
#endif
renew:
#ifndef BAD_NO_RENEWAL
  Renew(me, 0);
  Renew(me, 1);
#endif

see:
  See(0);
  See(1);
  atomic {
    SeeAll();
    ASK(me);
    if
    :: had[0] > 0 && ASTRAY(0) || had[1] > 0 && ASTRAY(1)
    :: else -> goto count
    fi
  };
  TakeBack(me, 0);
  TakeBack(me, 1);

count: /* by the kernel; after the permits */
  atomic {
    busy = backlog > 0;
    n = (backlog > out -> backlog - out : 0);
    if :: out == 0 && n == 0 -> n = 1 :: else fi;
    n = (n <= WIDTH - out -> n : (out > WIDTH -> 0 : WIDTH - out));
    out = 0;
    ASK(me);
    if
    :: WRONGLY_SHOWN(0) || WRONGLY_SHOWN(1)
    :: else -> if :: n > 0 -> goto issue :: else -> goto issued fi
    fi
  };
  Correct(me, 0);
  Correct(me, 1);
  if :: n == 0 -> goto issued_all :: else fi;

issue: /* to whom the policy says: any of the best */
  atomic {
    if
    :: BEST(0) -> next = 0
    :: BEST(1) -> next = 1
    :: seen[0] <= MARKED && seen[1] <= MARKED -> n = 0; wanting = true; goto issued
    fi;
#ifndef BAD_SHOWN_FIRST
    ACT(me);
    claimable[next]++;
    ASK(me);
#endif
    if :: !shown[next] -> shown[next] = true; goto show_it :: else fi
  };
  atomic { ACT(me); Delete(next); ASK(me) };
show_it:
  atomic {
    ACT(me);
    if
    :: busy -> Stand(next); to_wake[me] = to_wake[me] | 1 << next
    :: else -> Add(next)
    fi;
    ASK(me)
  };
#ifdef BAD_SHOWN_FIRST
  atomic { ACT(me); claimable[next]++; ASK(me) };
#endif
  atomic {
    if :: seen[next] == IDLE -> seen[next] = CAN :: else fi;
    had[next]++;
    next = 0;
    n--;
    if :: n > 0 -> goto issue :: else -> goto issued fi
  };

issued_all:
  atomic {
    true;
issued:
    wanting = wanting || had[0] > 0 && seen[0] == LATE || had[1] > 0 && seen[1] == LATE;
    seen[0] = 0;
    seen[1] = 0;
    had[0] = 0;
    had[1] = 0;
    if
    :: wanting && !hungered -> wanting = false; hungered = true
    :: else -> wanting = false; goto leave
    fi
  };
  hungry = true; /* says so, and then looks once more */
  goto look;

leave: /* by one compare-and-exchange on the whole word */
  atomic {
    hungered = false;
    busy = false;
    all_marked = false;
    if
#ifdef BAD_UNNAMED
    :: word != 0 && noted -> noted = false; goto look
    :: word == 0 -> goto left
    :: word != 0 && !noted -> word = 0;
#else
    :: word == NAME(me) && noted -> noted = false; goto look
    :: word != NAME(me) -> goto deposed
    :: word == NAME(me) && !noted -> word = 0;
#endif
#ifdef VAIN_MAX
       had_it = true;
#endif
       if :: to_wake[me] == 0 -> goto left :: else fi
    fi
  };
  WakeLater(me, 0);
  WakeLater(me, 1);
  goto left;

  atomic {
    true;
deposed: /* it may have made a step that nobody knows of */
    FORGET(me);
#ifndef BAD_DEPOSED_SAYS_NOTHING
    torn = true;
#endif
  };
#ifndef BAD_DEPOSED_GOES_ON
  goto visit
#else
  goto left
#endif
}

/* ------------------------------------------------------------------------------------------------
 * A worker.
 */

#define STRUCK struck = 0; halted[0] = false; halted[1] = false; halted[KEEPER] = false

/* Part of a step: it moves. */
#if defined(MARKS) && !defined(BAD_MARKS_STAY)
#define ClearMark() marked[w] = false
#else
#define ClearMark() skip
#endif

/* Part of a step: what only the worker itself writes, and is something else now, it puts right. */
#ifdef BAD_NOT_HEALED
#define UNHEALED(w) false
#elif defined(BAD_REDEEMING_NOT_HEALED)
#define UNHEALED(w) (!taken[w])
#else
#define UNHEALED(w) (!taken[w] || redeeming[w] > 0)
#endif
inline Heal() {
#if WIPES > 0
  if
  :: UNHEALED(w) ->
     taken[w] = true;
#ifndef BAD_REDEEMING_NOT_HEALED
     claimable[w] = 0;
     redeeming[w] = 0
#endif
  :: else
  fi
#else
  skip
#endif
}

/* Part of a step. */
inline Claim() {
#if FREEZES > 0
  vain_recalls = 0;
#endif
  claimable[w]--;
  redeeming[w]++
}

proctype Worker(byte w) provided (!halted[w]) {
  VISITOR;
  bool sighted, got, asked;

alive:
  {
    goto enter;

wait:
    atomic {
      if
      :: SIGHT_WAKES(w) -> reported[w] = false; sighted = true
      :: distractions > 0 -> distractions--; goto moves
#if defined(KEEPER_DIES) && !defined(BAD_ALONE)
      :: keeper_is_dead -> goto aside /* the sight watches the keeper, too */
#endif
      fi
    };
#ifdef BAD_LOWERED_FIRST
    waits[w] = false;
#endif
    /* Whom its sight has woken still counts as one that waits until it has claimed: its permit is
     * not astray before. If it finds none, it goes on waiting as far as others are concerned. */
    atomic {
      if
      :: claimable[w] > 0 -> Claim()
#ifdef BAD_STRAY_LOWERS
      :: else
#else
      :: else -> goto stray
#endif
      fi
    };

moves:
    waits[w] = false;
    atomic { /* it has left its wait */
      ClearMark();
      if
      :: redeeming[w] > 0 -> goto take
      :: redeeming[w] == 0 && sighted -> goto claim
      :: !sighted && claimable[w] > 0 -> goto visit
      :: !sighted && claimable[w] == 0 -> goto enter
      fi
    };

claim: /* and accepts, as long as it has permits */
    atomic {
      if
      :: claimable[w] > 0 -> Claim()
      :: claimable[w] == 0 && sighted -> goto stray
      :: claimable[w] == 0 && !sighted -> goto enter
      fi
    };
take:
    atomic {
      sighted = false;
      got = backlog > 0;
      if :: got -> backlog--; vain_shows = 0 :: else fi
    };
    atomic {
      ClearMark();
#if WIPES > 0
      /* Below zero it is nonsense that counts as a permit which is out. */
      redeeming[w] = (redeeming[w] > 0 -> redeeming[w] - 1 : 1);
#else
      redeeming[w]--;
#endif
      if
      :: !got -> claimable[w] = 0
#ifdef BAD_NO_VISIT_AFTER
      :: got -> got = false; goto claim
#else
      :: got
#endif
      fi;
      goto visit
    };

stray: /* it has no permit */
    atomic {
      sighted = false;
      asked = true;
      ClearMark();
      Heal();
      shown[w] = true
    };

visit:
    Visit(w);
    atomic {
      true;
left:
#ifdef VAIN_MAX
      if
      :: asked && had_it -> vain++; ASSERT(few_vain_wakeups, vain <= VAIN_MAX)
      :: else
      fi;
      had_it = false;
#endif
#if !defined(BAD_STRAY_LOWERS) && !defined(BAD_LOWERED_FIRST)
      if
      :: asked -> asked = false; goto wait
#if WIPES > 0
      /* It has been woken in vain for long, and accepts without a permit. */
      :: asked && claimable[w] == 0 && backlog > 0 ->
         asked = false;
         waits[w] = false;
         backlog--;
         vain_shows = 0;
         got = true;
         goto visit
#endif
      :: else
      fi;
#endif
      asked = false;
#ifndef LEVEL
      if :: got -> got = false; goto claim :: else fi
#else
      got = false
#endif
    };

enter:
#ifdef MARKS
    atomic { ClearMark() };
#endif
#if WIPES > 0
    atomic {
      if
      :: UNHEALED(w) -> Heal(); goto visit
      :: else
      fi
    };
#endif
    waits[w] = true;
    atomic {
      if
      :: hungry -> hungry = false; goto visit
      :: else -> goto wait
      fi
    };

aside: /* it has put the listener into its own epoll set in the place of its sight */
    atomic { FORGET(w); sighted = false; got = false; asked = false };
    do
    :: atomic { backlog > 0 -> backlog-- }
    od
  } unless { struck == NAME(w) };

  atomic {
    STRUCK;
    FORGET(w);
    sighted = false;
    got = false;
    asked = false
  };
  atomic { /* somebody else gets the slot, and puts its sight into an epoll set of its own */
    births > 0 && given[w] ->
    births--;
    given[w] = false;
    dead[w] = false;
    taken[w] = true;
    reported[w] = in_sight[w] && !asleep_in[w] && backlog > 0;
    goto alive
  }
}

/* ------------------------------------------------------------------------------------------------
 * The keeper.
 */

#define PERMITS(w) (claimable[w] + redeeming[w])

/* Something waits, somebody is frozen, and nothing else moves any more. (A recall at any other time
 * is one of RECALLS.) */
#ifdef BAD_RECALLS_PERMITS_ONLY
#define TO_RECALL (PERMITS(0) + PERMITS(1) > 0)
#else
#define TO_RECALL true
#endif
#if FREEZES > 0
#define RECALL_DUE \
  (backlog > 0 && (frozen[0] || frozen[1]) && vain_recalls < 3 && !keeper_is_dead && TO_RECALL)
#elif WIPES > 0
/* Something waits and nothing moves, so everybody is shown it. */
#define RECALL_DUE (backlog > 0 && vain_shows < 3)
#else
#define RECALL_DUE false
#endif

proctype Keeper() provided (!halted[KEEPER]) {
  VISITOR;
  byte w;
  bool burying, showing;

  {
    true;
rest:
    atomic {
      if
      :: dead[0] && !given[0] -> w = 0; burying = true; goto bury
      :: dead[1] && !given[1] -> w = 1; burying = true; goto bury
#if RECALLS > 0
      :: recalls > 0 && backlog > 0 && (word != 0 || PERMITS(0) + PERMITS(1) > 0) ->
         recalls--; goto mark
#endif
#if FREEZES > 0
      :: timeout && RECALL_DUE -> vain_recalls++; goto mark
#elif WIPES > 0
      :: timeout && RECALL_DUE -> vain_shows++; showing = true; goto visit
#endif
      fi
    };

bury:
#ifdef BAD_GIVEN_FIRST
    given[w] = true;
#endif
#ifdef BAD_REDEEMING_STAYS
    claimable[w] = 0;
#else
    atomic { claimable[w] = 0; redeeming[w] = 0 };
#endif
    atomic { waits[w] = false; marked[w] = false; taken[w] = false };
    goto visit;

mark: /* nothing was accepted for long */
#ifdef MARKS
    atomic { if :: PERMITS(0) > 0 -> marked[0] = true :: else fi };
    atomic { if :: PERMITS(1) > 0 -> marked[1] = true :: else fi };
#endif

visit:
    Visit(KEEPER);
    atomic {
      true;
left:
      FORGET(KEEPER);
      if
      :: burying -> given[w] = true; burying = false
#if WIPES > 0 && !defined(BAD_ONLY_REPAIRS)
      :: showing -> Add(0); Add(1)
#endif
      :: else
      fi;
      showing = false;
      w = 0;
      goto rest
    }
  } unless { struck == NAME(KEEPER) }
  d_step { STRUCK; FORGET(KEEPER); w = 0; burying = false; showing = false }
}

/* ------------------------------------------------------------------------------------------------
 * What befalls them.
 */

inline Strike(me) {
  struck = NAME(me);
  halted[0] = (me) != 0;
  halted[1] = (me) != 1;
  halted[KEEPER] = (me) != KEEPER
}

inline Kill(w_) {
  kills--;
  if :: !frozen[w_] -> Strike(w_) :: else fi;
  dead[w_] = true;
  frozen[w_] = false;
  reported[w_] = false
}

inline Freeze(w_) {
  freezes--;
  Strike(w_);
  frozen[w_] = true
}

#if WIPES > 0
inline Wipe() {
  wipes--;
  word = 0;
  noted = false;
  hungry = false;
  torn = false;
  k = 0;
  do
  :: k < WORKERS ->
     taken[k] = false;
     waits[k] = false;
     claimable[k] = 0;
     redeeming[k] = 0;
     shown[k] = false;
     k++
  :: else -> break
  od;
  k = 0
}
#endif

proctype Fate() provided (struck == 0) {
  do
  :: d_step { kills > 0 && !dead[0] -> Kill(0) }
  :: d_step { kills > 0 && !dead[1] -> Kill(1) }
  :: d_step { freezes > 0 && !dead[0] && !frozen[0] -> Freeze(0) }
  :: d_step { freezes > 0 && !dead[1] && !frozen[1] -> Freeze(1) }
#ifdef KEEPER_DIES
  :: d_step { !keeper_is_dead -> keeper_is_dead = true; Strike(KEEPER) }
#endif
#if WIPES > 0
  :: d_step { wipes > 0 -> Wipe() }
#endif
  od
}

#define LEFT(w) (!dead[w] && !frozen[w])

proctype AtRest() {
  timeout && !RECALL_DUE;
  d_step {
    if
    :: !LEFT(0) && !LEFT(1)
    :: LEFT(0) || LEFT(1) ->
       ASSERT(all_served, to_come == 0 && backlog == 0);
       if
       :: keeper_is_dead || WIPES > 0 /* the next arrival may have to be shown, too */
       :: !keeper_is_dead && WIPES == 0 ->
          ASSERT(slots_are_free, dead[0] <= given[0] && dead[1] <= given[1]);
          ASSERT(desk_is_free, word == 0 || frozen[word - 1]);
          if
          :: word != 0
          :: word == 0 ->
             ASSERT(one_stands, claimable[0] + claimable[1] == 1 ||
                    (dead[0] || frozen[0] || marked[0]) && (dead[1] || frozen[1] || marked[1]) ||
                    frozen[0] || frozen[1]);
             ASSERT(stands_in_sight, frozen[0] || frozen[1] ||
                    in_sight[0] >= (claimable[0] > 0) && in_sight[1] >= (claimable[1] > 0) &&
                    in_sight[0] <= (claimable[0] > 0 || marked[0]) &&
                    in_sight[1] <= (claimable[1] > 0 || marked[1]) &&
                    !asleep_in[0] && !asleep_in[1]);
             ASSERT(stands_at_a_waiter,
                    (claimable[0] == 0 || frozen[0] || waits[0]) &&
                    (claimable[1] == 0 || frozen[1] || waits[1]))
          fi
       fi
    fi
  }
}

init {
  atomic {
    taken[0] = true;
    taken[1] = true;
    waits[0] = true;
    waits[1] = true;
    claimable[0] = 1;
    shown[0] = true;
    in_sight[0] = true;
    run Network();
    run Worker(0);
    run Worker(1);
    run Keeper();
    run Fate();
    run AtRest()
  }
}
