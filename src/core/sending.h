// Sending: arrivals that are handed over as completions of the workers' own rings, and the master's
// books of them. There are two parts. Sending is about one worker, as Outbox is about one with an
// inbox: what was sent to it and is untaken. Unsettled is about all workers together: what was sent
// and may still fail.
//
// What was sent is in the worker's ring. So it counts as claimed at once, and cannot be recalled.
// Two things are heard of it later, in any order:
//  * The kernel reports, within the turn that submits it, if the sending has failed. Then the
//    arrival is held again. What has not failed is settled: it was received, and the ledger forgets
//    it.
//  * The worker says, by Took, how many it has taken out of its ring. Until then they fill up its
//    window, as unclaimed offers do elsewhere.
//
// Took says how many, never which. So the oldest are assumed to be taken first. It matters for
// tickets alone: what arrives while a ticket is untaken may have been found by it, and is looked
// for again when that is taken. So a worker's books say of each that was sent, in order, whether it
// is a ticket and of which source.
//
// Connections may be installed in the file table of the worker's ring instead (direct). Then the
// kernel says of each what became of it, with a completion that may come many turns later. Until
// then it takes up a slot (core/slots.h); otherwise it is like any that was sent.
//
// Rule "full table". A table that is full is lack of credit: nothing is installed until the worker
// says that there may be room (PortState::rooms). It may say so before the master hears that the
// table was full. So the master remembers what had been said when it sent the connection, and tries
// again if more has been said since. That is one try for each time that the worker says something.
//
// Owned and called by one engine. Only Reserve and SetToken allocate.

#ifndef RINGMASTER_SRC_CORE_SENDING_H_
#define RINGMASTER_SRC_CORE_SENDING_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

#include "core/ledger.h"
#include "core/port_state.h"
#include "core/reserve.h"

namespace ringmaster::core {

class Sending {
 public:
  static constexpr uint32_t kNoTicket = UINT32_MAX;

  // Of a worker with an inbox: nothing is sent to it.
  Sending() = default;
  // Borrows `tally`. `direct`: connections are installed.
  explicit Sending(Tally* tally, bool direct = false) : tally_(tally), direct_(direct) {}

  // Set-up. Allocates for what may be sent to a worker that has such a window.
  void Reserve(size_t window) { core::Reserve(tickets_, 2 * window); }
  // Set-up. The user_data of what is sent of a source; any worker may have one.
  void SetToken(uint32_t source, uint64_t token) {
    if (tokens_.size() <= source) tokens_.resize(source + 1);
    tokens_[source] = token;
  }
  uint64_t token(uint32_t source) const { return tokens_[source]; }

  // Whether arrivals are sent to this worker.
  bool used() const { return tally_ != nullptr; }
  // Whether connections are installed, and not sent.
  bool direct() const { return direct_; }

  // One is to be installed; and the kernel has said what became of one.
  void Install() { ++under_way_; }
  void Told() { --under_way_; }
  uint32_t under_way() const { return under_way_; }

  // By the rule "full table". `rooms`: what the worker had said when what did not fit was sent.
  void FindFull(uint32_t rooms) {
    if (!full_ || static_cast<int32_t>(rooms - full_at_) > 0) full_at_ = rooms;
    full_ = true;
    ++fulls_;
  }
  // `rooms`: what it has said by now.
  bool Full(uint32_t rooms) const { return full_ && rooms == full_at_; }
  // How often something did not fit.
  uint64_t fulls() const { return fulls_; }
  // How many were sent and are not known to be taken.
  uint32_t untaken() const { return static_cast<uint32_t>(sent_ - taken_); }

  // One is sent: a ticket of the source, or kNoTicket.
  void Send(uint32_t ticket) {
    ++sent_;
    tally_->Send();
    tickets_.push_back(ticket);
  }

  // The sending of one has failed. Returns whose its place is now. If the worker has said that it
  // took this one, it stays counted as sent and taken. Otherwise call ForgetNewest or ForgetOldest
  // next.
  Tally::Unsent Unsend() {
    const Tally::Unsent unsent = tally_->Unsend();
    if (unsent != Tally::Unsent::kTaken) --sent_;
    return unsent;
  }

  // How many the worker has taken since this was asked last. Call ForgetOldest next.
  uint32_t NewlyTaken() {
    const uint32_t taken = tally_->Taken() - static_cast<uint32_t>(taken_);
    taken_ += taken;
    return taken;
  }

  // Forgets the oldest `count`, or all that there are. Calls `forget` with the source of each that
  // is a ticket.
  template <typename Forget>
  void ForgetOldest(size_t count, Forget forget) {
    const auto end = tickets_.begin() + static_cast<ptrdiff_t>(std::min(count, tickets_.size()));
    for (auto ticket = tickets_.begin(); ticket != end; ++ticket) {
      if (*ticket != kNoTicket) forget(*ticket);
    }
    tickets_.erase(tickets_.begin(), end);
  }
  // Forgets the newest that is a ticket of this source, or, with kNoTicket, that is no ticket.
  // False: there is none.
  bool ForgetNewest(uint32_t ticket) {
    const auto newest = std::find(tickets_.rbegin(), tickets_.rend(), ticket);
    if (newest == tickets_.rend()) return false;
    tickets_.erase(std::next(newest).base());
    return true;
  }
  // Gives up those tickets of whose sources `give_up` says so: nobody waits for them any more. They
  // still fill up the window.
  template <typename GiveUp>
  void GiveUpTickets(GiveUp give_up) {
    for (uint32_t& ticket : tickets_) {
      if (ticket != kNoTicket && give_up(ticket)) ticket = kNoTicket;
    }
  }

 private:
  Tally* tally_ = nullptr;
  bool direct_ = false;
  bool full_ = false;
  uint32_t full_at_ = 0;
  uint32_t under_way_ = 0;
  uint64_t fulls_ = 0;
  uint64_t sent_ = 0;
  uint64_t taken_ = 0;             // as last seen
  std::vector<uint32_t> tickets_;  // of what is untaken, oldest first
  std::vector<uint64_t> tokens_;   // by source
};

// What was sent and is not known to have been received.
class Unsettled {
 public:
  struct Failure {
    ArrivalId id = kNoArrival;
    int32_t error = 0;
  };

  // Set-up. The windows of all workers that are sent to have changed by so much together.
  void WindowsChange(int64_t by) { windows_ += static_cast<uint64_t>(by); }
  // Set-up. Allocates for what these windows allow. A second window may be sent before it is known
  // that the first one was received; then it is full, and no worker has credit. A batch in the
  // middle of which that happens still gives the credit that it has found: a third window.
  // So many more may fail that are installed.
  void Reserve(size_t slots) {
    size_max_ = 2 * windows_;
    core::Reserve(ids_, ids_max());
    core::Reserve(failures_, ids_max() + slots);
  }
  // How many may be unsettled at once.
  size_t ids_max() const { return 3 * windows_; }
  // Whether nothing more may be sent before something is settled.
  bool full() const { return size_max_ > 0 && ids_.size() >= size_max_; }

  bool empty() const { return ids_.empty(); }
  size_t size() const { return ids_.size(); }

  void Sent(ArrivalId id) { ids_.push_back(id); }

  // The kernel says that sending it has failed; it may say so twice.
  void Failed(ArrivalId id, int32_t error) { failures_.push_back({.id = id, .error = error}); }
  // The youngest failure that was not asked for yet. False: there is none.
  bool NextFailure(Failure& failure) {
    if (failures_.empty()) return false;
    failure = failures_.back();
    failures_.pop_back();
    return true;
  }
  // It is held again.
  void Forget(ArrivalId id) { std::erase(ids_, id); }

  // All that are left have been received. Calls `settle` with each.
  template <typename Settle>
  void SettleAll(Settle settle) {
    for (const ArrivalId id : ids_) settle(id);
    ids_.clear();
  }

 private:
  uint64_t windows_ = 0;
  size_t size_max_ = 0;
  std::vector<ArrivalId> ids_;
  std::vector<Failure> failures_;  // in this batch
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_SENDING_H_
