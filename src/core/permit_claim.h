// How a worker accepts by one permit (core/desk.h, rule "order"). The steps, in this order:
//
//   kClaim     marks the worker as redeeming, and takes the permit
//   kStart     the caller: from now on the worker may say that it does not wait; which source it is
//   kReserve   a place of the worker, then of the source, then of the balancer, one a step
//   kAccept    the caller
//   then, if it has accepted:        if there was no place, or nothing to accept:
//   kFinish    counts it             kGiveBack  the places, one a step
//                                    kKnock     the caller knocks at masters that wait for a place
//                                    kGiveUp    its other permits go back, too
//   kVisit     the desk
//   kEnd       the worker redeems no more
//   kOver
//
// The port does all steps in one call. The simulator does one step at a time, because others may
// act between any two of them. The order is the same for both, because it stands here only.
//
// One thread: the worker's.

#ifndef RINGMASTER_SRC_CORE_PERMIT_CLAIM_H_
#define RINGMASTER_SRC_CORE_PERMIT_CLAIM_H_

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "core/check.h"
#include "core/desk.h"
#include "core/permits.h"
#include "core/port_state.h"

namespace ringmaster::core {

class PermitClaim {
 public:
  enum class Next : uint8_t {
    kClaim,
    kStart,
    kReserve,
    kAccept,
    kFinish,
    kGiveBack,
    kKnock,
    kGiveUp,
    kVisit,
    kEnd,
    kOver
  };

  // Both are borrowed.
  PermitClaim(PortState* state, Permits* permits) : state_(state), permits_(permits) {}
  // A claim that does not come to its end, because its thread is cancelled or its port leaves, must
  // be abandoned.
  ~PermitClaim() { RINGMASTER_CHECK(next_ == Next::kOver || next_ == Next::kClaim); }
  PermitClaim(const PermitClaim&) = delete;
  PermitClaim& operator=(const PermitClaim&) = delete;

  Next next() const { return next_; }

  // --- The caller's steps ------------------------------------------------------------------------

  // Only who has the permit may ask which source it is for. All are borrowed until kOver. A gate
  // that is null has no limit.
  void Started(Desk* desk, Gate* of_source, Gate* of_all) {
    desk_ = desk;
    gates_ = {of_source, of_all};
    next_ = Next::kReserve;
  }
  // `error`: 0, or the errno for which it could not.
  void Accepted(int error) {
    error_ = error;
    next_ = error == 0 ? Next::kFinish : Next::kGiveBack;
    if (error == 0) places_ = 0;  // they are the connection's
  }
  void Knocked() { next_ = Next::kGiveUp; }

  // --- Every other step --------------------------------------------------------------------------

  void Advance() {
    switch (next_) {
      case Next::kClaim:
        return Claim();
      case Next::kReserve:
        return ReserveNext();
      case Next::kFinish:
        permits_->CountAccepted();
        permits_->Finish();
        next_ = Next::kVisit;
        return;
      case Next::kGiveBack:
        return GiveBackNext();
      case Next::kGiveUp:
        permits_->GiveUp();
        next_ = Next::kVisit;
        return;
      case Next::kVisit:
        next_ = Next::kEnd;
        if (error_ == 0 || error_ == EAGAIN) return desk_->Visit();
        return desk_->VisitInTrouble(error_);
      case Next::kEnd:
        state_->redeeming.fetch_sub(1, std::memory_order_seq_cst);
        next_ = Next::kOver;
        return;
      case Next::kStart:
      case Next::kAccept:
      case Next::kKnock:
      case Next::kOver:
        RINGMASTER_CHECK(false);
    }
  }

  // Undoes what it has done, wherever it is. True: the caller knocks as in kKnock. The desk is not
  // visited, because its policy must not be asked now; the master looks after it.
  bool Abandon() {
    const bool knock = next_ == Next::kKnock || places_ > 0;
    const bool gave_up = next_ == Next::kVisit || next_ == Next::kEnd;
    if (next_ == Next::kClaim || next_ == Next::kOver) return false;
    while (places_ > 0) GiveBackNext();
    if (!gave_up) permits_->GiveUp();
    state_->redeeming.fetch_sub(1, std::memory_order_seq_cst);
    next_ = Next::kOver;
    return knock;
  }

  // Whether it has accepted.
  bool accepted() const { return error_ == 0; }

 private:
  // The gates' places are reserved behind the worker's.
  static constexpr size_t kPlaces = 3;

  void Claim() {
    next_ = Next::kOver;
    if (permits_->Read().claimable == 0) return;
    state_->redeeming.fetch_add(1, std::memory_order_seq_cst);
    next_ = permits_->Claim() ? Next::kStart : Next::kEnd;
  }

  void ReserveNext() {
    const bool reserved = places_ == 0 ? state_->Reserve(Capacity()) : ReserveAt(places_ - 1);
    if (!reserved) {
      error_ = EAGAIN;
      next_ = places_ == 0 ? Next::kGiveUp : Next::kGiveBack;
    } else if (++places_ == kPlaces) {
      next_ = Next::kAccept;
    }
  }
  uint32_t Capacity() const { return state_->places.load(std::memory_order_relaxed); }
  bool ReserveAt(size_t gate) { return gates_[gate] == nullptr || gates_[gate]->Reserve(); }

  void GiveBackNext() {
    --places_;
    if (places_ == 0) {
      state_->Release();
      next_ = Next::kKnock;
    } else if (gates_[places_ - 1] != nullptr) {
      gates_[places_ - 1]->GiveBack();
    }
  }

  PortState* const state_;
  Permits* const permits_;
  Desk* desk_ = nullptr;
  std::array<Gate*, kPlaces - 1> gates_{};  // of the source, of the balancer
  size_t places_ = 0;                       // that are reserved
  int error_ = EAGAIN;
  Next next_ = Next::kClaim;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_PERMIT_CLAIM_H_
