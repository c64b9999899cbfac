// A worker's claims. A claim is what a worker does with its inboxes, one from each master, on one
// visit of its loop. Its steps, in this order:
//
//   Start       serving = 1
//   BeginNext   once for each inbox: Inbox::Begin
//   Take        one offer at a time, from each inbox in turn, until none is left or the worker has
//               enough
//   End         serving = 0
//   then        the worker knocks at the hungry masters, if KnocksAtEnd
//
// The port does all steps in one call. The simulator does one step at a time, because a master may
// have a batch between any two of them. The order, the turns of the inboxes and the rule of
// knocking are the same for both, because they stand here only.
//
// Which worker knocks at the end of a claim: one that drives the master itself (`on_host`) knocks
// only if it has moved, which means that the claim found `rung` set or took something. Such a
// worker claims after each turn of the master, and would wake a hungry one for ever. Any other
// worker knocks after every claim: while `serving` was set, policies may have taken it for busy.
//
// One thread: the worker's.

#ifndef RINGMASTER_SRC_CORE_CLAIM_H_
#define RINGMASTER_SRC_CORE_CLAIM_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/inbox.h"
#include "core/port_state.h"

namespace ringmaster::core {

class Claimer {
 public:
  // What a step has taken. A word of zero means that no inbox has anything left for this claim.
  struct Taken {
    uint32_t inbox = 0;  // its index
    uint64_t word = 0;   // see Offer::FromWord
  };

  // All are borrowed; at least one inbox.
  Claimer(PortState* state, std::vector<Inbox*> inboxes)
      : state_(state),
        inboxes_(std::move(inboxes)),
        count_(static_cast<uint32_t>(inboxes_.size())) {}

  // From Start to End.
  bool under_way() const { return under_way_; }

  // `on_host`: the worker drives the master itself; then there is one inbox.
  void Start(bool on_host) {
    under_way_ = true;
    on_host_ = on_host;
    rung_ = took_ = false;
    begun_ = empty_ = 0;
    state_->StartServing();
  }
  // Begins one more inbox. Returns whether that had been rung.
  bool BeginNext() {
    const bool was_rung = inboxes_[begun_++]->Begin();
    rung_ |= was_rung;
    return was_rung;
  }
  bool all_begun() const { return begun_ == count_; }
  // Start and every BeginNext at once.
  void Begin(bool on_host) {
    Start(on_host);
    bool rung = false;
    for (Inbox* const inbox : inboxes_) rung |= inbox->Begin();
    begun_ = count_;
    rung_ = rung;
  }

  // The next offer. The turns of the inboxes go on from claim to claim, so no master is always
  // served last.
  Taken Take() {
    while (empty_ < count_) {
      const uint32_t inbox = turn_;
      if (count_ > 1) turn_ = inbox + 1 == count_ ? 0 : inbox + 1;
      const uint64_t word = inboxes_[inbox]->Claim();
      if (word != 0) {
        empty_ = 0;
        took_ = true;
        return {.inbox = inbox, .word = word};
      }
      ++empty_;
    }
    return {};
  }
  // Whose turn it is: for the simulator, which draws it.
  void SetTurn(uint32_t inbox) { turn_ = inbox; }

  // Whether the claim has taken anything so far.
  bool took() const { return took_; }
  // Whether a host should let the master have a look before the next offer is taken. Not before the
  // last: the worker is about to be idle then, and its loop comes by.
  bool MasterIsDue() const { return on_host_ && took_ && inboxes_.front()->Left(); }

  void End() {
    under_way_ = false;
    state_->EndServing();
  }
  bool KnocksAtEnd() const { return rung_ || took_ || !on_host_; }

  // After the claim: whether offers were left behind. No doorbell announces them.
  bool Left() const {
    return std::any_of(inboxes_.begin(), inboxes_.end(),
                       [](const Inbox* inbox) { return inbox->Left(); });
  }
  // After the claim: whether the master has offered something to its own host meanwhile. No
  // doorbell announces that either.
  bool OfferedToItself() const { return on_host_ && inboxes_.front()->Rung(); }

 private:
  PortState* const state_;
  const std::vector<Inbox*> inboxes_;  // by master
  const uint32_t count_;               // of them
  uint32_t turn_ = 0;                  // the inbox that is taken from next
  uint32_t begun_ = 0;                 // of this claim, as all that follow
  uint32_t empty_ = 0;                 // inboxes in which nothing was found, in a row
  bool under_way_ = false;
  bool on_host_ = false;
  bool rung_ = false;
  bool took_ = false;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_CLAIM_H_
