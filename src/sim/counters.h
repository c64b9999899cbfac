// What a simulated run counts: how often each fault struck, and which states it reached. A set of
// runs that never reached one of them has not tested it.

#ifndef RINGMASTER_SRC_SIM_COUNTERS_H_
#define RINGMASTER_SRC_SIM_COUNTERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sim/fault_plan.h"

namespace ringmaster::sim {

enum class Milestone : uint8_t {
  kServed,              // connections
  kRecall,              // offers recalled by age
  kRecallFromDead,      // of these, from a worker that had died
  kKnock,               // a worker or a lease knocked at a hungry master
  kBackOff,             // accepting ran out of descriptors
  kFullCq,              // a multishot ended because the completion queue was full
  kHoldLimit,           // a multishot accept was ended because too much was held
  kPollEnded,           // a poll was ended because nobody had credit
  kCapacity,            // a worker was full
  kWindowShrunk,        // a worker's window was below its largest
  kDoorbellRepeated,    // a doorbell was sent again after it failed
  kLeaveWithOffers,     // a worker left and had offers
  kIndexReused,         // a new worker got the index of one that had left
  kRingNumberReused,    // a new worker's ring got the number of one that had left
  kStallReported,       // the engine said that a worker does not move
  kMotionReported,      // the engine said that it moves again
  kEmptyClaim,          // a doorbell came for nothing
  kHandedOver,          // connections, as completions
  kWindowFull,          // a worker had as much in its ring as its window allows
  kHandedOverAgain,     // connections, after handing over had failed
  kFailedAfterLeaving,  // handing over failed, and the worker had left meanwhile
  kReportedLate,        // a batch did not know yet what had become of all that was sent
  kStallOfReceiver,     // a worker that took nothing was reported
  kTookClamped,         // a worker said that it took more than it had got
  kAdopted,             // connections
  kAdoptedLate,         // connections, after Took had counted them
  kLeftWithRing,        // connections in the ring of a worker that left
  kInstalled,           // connections, in the file table of a worker
  kTableFull,           // connections that did not fit
  kUntold,              // connections that were installed, and their workers not told
  kInstalledForLeaver,  // connections whose worker was about to leave, and waited
  kSourceRemoved,       // while a worker had joined
  kBacklogReset,        // connections, of a listener that was closed
  kRefusedOfRemoved,    // connections that a removed source held and nobody could take
  kSourceIndexReused,   // a new source got the index of one that was removed
  kSourceIndexKept,     // a new source did not, because something of it was left
  kSourceGivenUp,       // a source was shut down and the engine noticed
  kPolicySwitched,      // at a source that held something
  kArmedForFacts,       // a multishot accept was ended because the policy needs other facts
  kLimitBelow,          // a limit fell below what the worker had
  kStoppedWithRemoved,  // a shutdown began while the intake of a removed source was ending
  kDrained,             // a run ended with everything served
  kShutDown,            // a run ended by a shutdown
  kRefused,             // connections refused by a shutdown
  kOutlived,            // connections that ended after the engine was destroyed
  kRedeemed,            // tickets that became a connection
  kTicketTooMany,       // tickets that found nothing
  kTicketGivenBack,     // because a worker ran out of descriptors
  kTicketWithdrawn,     // because its source was removed or intake stopped
  kSourceFull,          // a source had as many connections open as it may
  kBalancerFull,        // the same of all sources together
  kDropped,             // connections that grew too old
  kTooOldAtOnce,        // of these, that were when they were accepted
  kGone,                // connections whose clients had hung up when they were accepted
  kPromised,            // a master had reserved a place at a worker
  kMasterTold,          // places that one master gave back were what another one waited for
  kHostBusy,            // a master had to wait for its host
  kCameBy,              // a host looked after its master in the middle of a claim
  kOfferedToItself,     // and was offered something
  kGathered,            // a master let completions wait for one another
  kRoomMade,            // an engine got more room, because more was held than was to be
  kKeptBack,            // a host's ring kept back what its engine had no room for
  kTurnedAway,          // a ring brought more than it had said, for which there was no room
  kOpsPending,          // a host stopped with operations of its last batch pending
  kHostCalled,          // a host made a call between two turns
  kCalledMeanwhile,     // and operations of its last batch were pending
  kTicketLate,          // a ticket was redeemed or came back when its source had been removed
  kTicketOfReused,      // the same, and another source had the index
  kBacklogFull,         // clients dropped because too many waited in the kernel
  kOverflowReported,    // the engine said so
  kShortageEnded,       // the engine said that descriptors are not short any more
  kSuccessTold,         // a worker said so of a ticket, because it was asked
  kTicketSent,          // tickets, as completions
  kGivenBackUntaken,    // one of these was given back before it was said that it was taken
  kCameToRest,          // the thread of a host ended
  kRingLost,            // the same, and its ring was out of reach
  kCalledAtRest,        // calls that came before another host did
  kLocalGivenUp,        // a Unix listener was shut down and the engine noticed
  kGivenUpWithBacklog,  // and there were connections left, for workers to take
  kStallRelieved,       // of the stalls: something was recalled
  kStallInClaim,        // nothing could be, and the worker was inside a claim
  kStallInSilence,      // the same, and it was not
  kSetAside,            // times that a policy picked nobody
  kSetAsideSaid,        // the engine said that a policy has set much aside, or for long
  kAsideFull,           // as much was set aside as may be
  kBusyFirst,           // a worker that woke was busy with something else before it claimed
  kMoved,               // what lay with a worker that is busy went to one that waits
  kWaiterWanted,        // a worker that was about to wait knocked, because a master wanted to know
  kPassedOn,            // connections
  kPassedOnTogether,    // of these, after others that one batch took in with them
  kPassedOnByLeaver,    // of these, by a worker that left
  kPassedOnRecalled,    // recalls of connections that had been passed on
  kWaitsForOthers,      // what was passed on waited, and only its giver had credit
  kStartWaited,         // a client came, and its source waited for workers still
  kStartedByWorkers,    // a source started, because as many workers had joined as it waited for
  kAimed,               // times that a desk was opened
  kByPermit,            // connections that workers have accepted by permits
  kPermitForNothing,    // claims of a permit that found nothing
  kPermitWithoutPlace,  // the same, and no place
  kNoted,               // visits of a desk that somebody held
  kHungryDesk,          // visits of a desk that wanted to hear who waits
  kFreedPlaceShown,     // the same because of a place that became free
  kMarked,              // workers that were rung because they had a permit and nothing moved
  kWokenWithPermit,     // a worker with a permit woke for something else
  kDeskFull,            // times that a holder closed a desk, because too much waited
  kDeskWithoutPlace,    // the same, because nobody had a place
  kDeskInTrouble,       // the same, because of an errno
  kDeskUncounted,       // the same, because the kernel did not say how much waited
  kQuietDesk,           // times that a connection came to a desk that was quiet
  kHiddenBeforeWoken,   // a sight was to be woken, and did not show the source any more
  kRemovedWhileRedeemed,  // a source was removed while a worker was about to accept
};
inline constexpr size_t kMilestoneCount = 111;

inline constexpr std::array<std::string_view, kMilestoneCount> kMilestoneNames = {
    "served",
    "recall",
    "recall_from_dead",
    "knock",
    "back_off",
    "full_cq",
    "hold_limit",
    "poll_ended",
    "capacity",
    "window_shrunk",
    "doorbell_repeated",
    "leave_with_offers",
    "index_reused",
    "ring_number_reused",
    "stall_reported",
    "motion_reported",
    "empty_claim",
    "handed_over",
    "window_full",
    "handed_over_again",
    "failed_after_leaving",
    "reported_late",
    "stall_of_receiver",
    "took_clamped",
    "adopted",
    "adopted_late",
    "left_with_ring",
    "installed",
    "table_full",
    "untold",
    "installed_for_leaver",
    "source_removed",
    "backlog_reset",
    "refused_of_removed",
    "source_index_reused",
    "source_index_kept",
    "source_given_up",
    "policy_switched",
    "armed_for_facts",
    "limit_below",
    "stopped_with_removed",
    "drained",
    "shut_down",
    "refused",
    "outlived",
    "redeemed",
    "ticket_too_many",
    "ticket_given_back",
    "ticket_withdrawn",
    "source_full",
    "balancer_full",
    "dropped",
    "too_old_at_once",
    "gone",
    "promised",
    "master_told",
    "host_busy",
    "came_by",
    "offered_to_itself",
    "gathered",
    "room_made",
    "kept_back",
    "turned_away",
    "ops_pending",
    "host_called",
    "called_meanwhile",
    "ticket_late",
    "ticket_of_reused",
    "backlog_full",
    "overflow_reported",
    "shortage_ended",
    "success_told",
    "ticket_sent",
    "given_back_untaken",
    "came_to_rest",
    "ring_lost",
    "called_at_rest",
    "local_given_up",
    "given_up_with_backlog",
    "stall_relieved",
    "stall_in_claim",
    "stall_in_silence",
    "set_aside",
    "set_aside_said",
    "aside_full",
    "busy_first",
    "moved",
    "waiter_wanted",
    "passed_on",
    "passed_on_together",
    "passed_on_by_leaver",
    "passed_on_recalled",
    "waits_for_others",
    "start_waited",
    "started_by_workers",
    "aimed",
    "by_permit",
    "permit_for_nothing",
    "permit_without_place",
    "noted",
    "hungry_desk",
    "freed_place_shown",
    "marked",
    "woken_with_permit",
    "desk_full",
    "desk_without_place",
    "desk_in_trouble",
    "desk_uncounted",
    "quiet_desk",
    "hidden_before_woken",
    "removed_while_redeemed",
};

struct Counters {
  std::array<uint64_t, kFaultCount> faults{};
  std::array<uint64_t, kMilestoneCount> milestones{};
  uint64_t batches = 0;
  uint64_t events = 0;
  uint64_t strikes = 0;  // of faults that are events
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_COUNTERS_H_
