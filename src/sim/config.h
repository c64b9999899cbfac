// What a seed draws before a simulated run begins, and what a run may break on purpose.

#ifndef RINGMASTER_SRC_SIM_CONFIG_H_
#define RINGMASTER_SRC_SIM_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "sim/fault_plan.h"

namespace ringmaster::sim {

struct SimSourceConfig {
  uint32_t master = 0;                  // modulo their number
  std::string policy = "least-loaded";  // as PolicyByName takes it
  bool multishot_accept = false;
  uint32_t hold = 16;
  bool recall = true;
  bool readiness = false;             // its workers get tickets and accept themselves
  bool countable = false;             // readiness: the kernel tells how many connections wait
  uint32_t capacity = 0;              // connections open at once; 0: no limit
  int64_t age_max_ns = 0;             // drops what nobody has claimed by then; 0: never
  bool tells_age = true;              // age_max_ns: the kernel tells when a client came
  uint32_t backlog_max = UINT32_MAX;  // how many may wait in the kernel
  uint32_t nobody_of_8 = 0;           // so many of eight times its policy picks nobody
  bool strict = false;                // its policy picks one worker for each client, or nobody
  uint32_t start_workers = 1;         // before so many have joined it takes nothing in
  bool aimed = false;                 // whenever it can be: its workers accept by permits then
  bool local = false;                 // a Unix listener, which keeps its backlog when it is shut
                                      // down, and never tells an accept; not countable
};

struct SimWorkerConfig {
  bool completions = false;  // connections are handed over as completions of its ring
  bool took_first = false;   // completions: says Took before it adopts, one at a time
  uint32_t adopts_of_8 = 8;  // completions: so many of eight connections are adopted
  uint32_t table = 0;        // completions: they are installed in a file table with so many slots;
                             // 0: it has none, and gets descriptors
  uint32_t capacity = UINT32_MAX;
  uint32_t window = 1;
  int32_t cpu = -1;
  uint32_t sources = 0xff;  // bit i: joins the sources i, i + 8, i + 16 …
  int64_t joins_at_ns = 0;
  bool hints = false;       // it says when it waits; not of a host
  bool sight = false;       // hints: it watches a sight, by which it may get permits
  bool level = false;       // sight: its loop is level-triggered, and it claims as with a mailbox
  uint32_t works_of_8 = 0;  // hints: so many of eight times it has something else to do before it
                            // claims, and wakes for that
};

// How connections come and how long they are served.
struct Workload {
  uint32_t arrivals = 0;  // of all sources together
  int64_t gap_ns_mean = 0;
  Ratio burst;  // how often an arrival brings others at the same moment
  uint32_t burst_max = 1;
  uint32_t flood_of_16 = 0;     // so many of sixteen arrivals come to the first source
  int64_t service_ns_mean = 0;  // in the callback
  int64_t lease_ns_mean = 0;    // from the claim to the end of the lease
};

struct SimConfig {
  uint64_t seed = 0;    // that has drawn it; of no further meaning
  uint64_t course = 0;  // the course of events follows from it
  uint32_t masters = 1;
  bool hosted = false;           // the first worker drives the only master
  uint32_t host_steps_max = 16;  // of one call of RunOnce
  std::vector<SimSourceConfig> sources;
  std::vector<SimWorkerConfig> workers;
  int64_t recall_after_ns = 0;
  uint32_t capacity = 0;             // connections of all sources open at once; 0: no limit
  uint32_t completion_entries = 64;  // of the simulated completion queue
  uint32_t completions_max = 64;     // that one turn may bring
  // What the engine is told of that queue; 0: the truth. If it is less, the ring keeps back what
  // the engine has no room for, or the engine must turn it away.
  uint32_t entries_told = 0;
  bool keeps_back = false;
  uint32_t slots = 64;  // of each master's own file table
  int32_t descriptors_max = INT32_MAX;
  uint32_t strikes_max = UINT32_MAX;  // after so many faults no more strike
  bool defers_task_work = true;       // edges become completions at the end of a turn only
  bool accepts_at_reap = false;       // a single accept happens when its completion is read
  int64_t tick_ns = 0;                // in which the kernel tells when a client came; 0: exactly
  int64_t turn_ns_max = 0;            // what crossing the seam costs
  int64_t wake_ns_max = 0;            // how long a sleeper takes to wake
  bool shuts_down = false;            // ends by a shutdown with a deadline instead of a drain
  int64_t shutdown_drain_ns = 0;      // its deadline
  FaultPlan faults;
  Workload workload;
};

// Draws the whole configuration. The course of events is not part of it.
SimConfig DrawConfig(uint64_t seed);
SimSourceConfig DrawSource(Prng& prng);
// Leaves nothing for which it could never be aimed.
void MakeAimable(Prng& prng, SimSourceConfig& source);
std::string DrawPolicyName(Prng& prng);

// The whole configuration in one line, as far as it differs from the defaults; ParseConfig reads it
// again. InvalidArgument says which word it does not understand.
std::string Describe(const SimConfig& config);
absl::StatusOr<SimConfig> ParseConfig(std::string_view text);

// A part that is broken on purpose, to show that the checker notices.
enum class Breakage : uint8_t {
  kNone,
  kWorkerKeepsRung,         // a claim that leaves `rung` set
  kWorkerServesTwice,       // a claimed offer is served a second time
  kWorkerDropsOffer,        // a claimed offer is never served
  kWorkerNeverKnocks,       // a claim that does not read `hungry`
  kWorkerWorksFirst,        // a worker that woke does something else before it claims
  kWorkerHidesThatItWaits,  // a worker that is about to wait does not read whether anybody wants it
  kWorkerLooksUpNeighbour,  // a claim that finds the token of another source
  kWorkerForgetsItsRing,    // a worker that leaves serves nothing of what is in its ring
  kWorkerHidesRoom,         // a worker does not say that there may be room in its file table
  kLeaverDoesNotWait,       // a worker has left while something is being installed at it
  kRingHidesInstalled,      // a connection is installed, and the master is not told
  kTicketForgotten,         // a worker finds no descriptor and does not give the ticket back
  kTicketWithoutSerial,     // a ticket that is given back goes to whatever source has the index now
  kTicketUsesItsNumber,     // a ticket is redeemed by a number that is another socket's by then
  kTookGivesNoCredit,       // Took that does not tell the master
  kTookGivesCreditTwice,    // Took that counts double
  kAdoptTakesAnotherPlace,  // Adopt that counts a place that is counted already
  kLeaseNeverKnocks,        // a lease release that does not read `hungry`
  kLeaseReleasesTwice,      // the place of a connection is given back twice
  kLeaseForgotten,          // the place of a connection is never given back
  kGateForgotten,           // the place of a connection in the source's limit is never given back
  kGateReleasedTwice,       // the same is given back twice
  kRingLosesDoorbell,       // a doorbell is lost without an error
  kRingLosesSend,           // a connection is handed over and lost without an error
  kRingHidesSendFailure,    // handing over fails and nothing completes
  kRingSendsTwice,          // a connection is handed over twice
  kRingLosesEdge,           // an edge is dropped
  kRingCountsTooFew,        // a count of what waits leaves one out
  kRingHidesOverflows,      // the ring says that a backlog has never overflowed
  kRingHidesTheHangUp,      // a poll shows that a listener is readable, not that it was shut down
  kSocketDeniesItsEnd,      // a Unix listener that was shut down says that it listens
  kSocketNeverListens,      // a socket that listens says that it does not
  kRingLosesConnection,     // an accepted connection is never reported
  kRingReportsTwice,        // an accepted connection is reported twice
  kRingHidesTheEnd,         // a multishot operation ends and says that it goes on
  kRingKeepsNothingBack,    // connections that there is no room for are returned nevertheless
  kRingKeepsArmed,          // the intake of a removed source says that it has ended and goes on
  kMasterNeverLooksAtAge,   // the master's timer never fires
  kHostForgetsItself,       // a host does not look for what it was offered in the middle of a claim
  kHostCallsBetweenTurns,   // a host's call is done while operations of its last batch are pending
  kTicketTellsNothing,      // a worker does not say that all is well again when it is asked
  kTicketHidesShortage,     // a worker does not say that it ran out of descriptors
  kMasterHidesStalls,       // nobody hears that a worker does not move
  kMasterForgetsTook,       // a master that waits for nothing but Took does not ask to be woken
  kMasterTellsNobody,       // a master gives places back and wakes no other one
  kMasterClosesRingTooEarly,  // a ring's number is free before all that was submitted was taken
  kPolicySkipsOneWorker,      // the round never comes to the first worker
  kPolicyNeverPicks,          // a policy picks nobody for ever
  kMasterForgetsAside,        // a master that waits for nothing but what is set aside sleeps on
  kMasterAsksTooMuch,         // a master sets aside more than it was told to
  kSwitchDropsArrival,        // what arrives in the batch of a policy switch is dropped
  kMasterOverlooksHangUps,    // a master takes clients that have hung up for waiting
  kMasterCountsFromAccept,    // a master forgets for how long clients have waited before
  kMasterCountsTooMuch,       // a master takes clients for older than they are
  kPassedOnForgotten,         // a connection that is passed on never reaches its master
  kPassedOnKeepsItsPlace,     // whoever has passed a connection on never gives its place back
  kPassedOnWakesNobody,       // whoever passes a connection on does not wake its master
  kMasterForgetsGivers,       // a master does not know who has passed something on
  kMasterForgetsOthers,       // a master that waits for nothing but others than givers sleeps on
  kSourceStartsEarly,         // a source does not wait for its workers
  kSourceStartsLate,          // a source waits for more workers than it was told to
  // By the rules of core/desk.h.
  kVisitorLeavesNoNote,    // who finds a desk held goes away
  kPermitNeverVisits,      // a worker that has claimed a permit does not visit the desk
  kPermitWithoutPlace,     // a worker accepts by a permit and takes no place
  kPermitUnmarked,         // nobody knows that a worker uses the number of a listener by a permit
  kPermitCountsNot,        // what is redeeming is not counted, so that there are too many permits
  kPermitHidesTrouble,     // a worker could not accept by a permit, and says that nothing was there
  kPermitStays,            // a permit is not taken back where a desk is closed
  kSightWokenBlindly,      // a sight that is woken does not look
  kSightSleepsOn,          // a sight that was shown a source asleep is not woken
  kSightStays,             // a sight goes on showing a source
  kDeskHidesThatItIsBusy,  // a worker that woke for something else keeps its permits
  kDeskHidesThatItWaits,   // a worker that is about to wait does not visit hungry desks
  kFreedPlaceStaysHidden,  // nor does whoever frees a place of one that waits
  kDeskCallsNobody,        // who closes a desk does not wake the master
  kMasterNeverLooksAtDesk,  // the master does not look after desks
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_CONFIG_H_
