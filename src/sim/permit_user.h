// What a worker does with its permits, as runtime/permit_claims.h does, but step by step: it
// accepts by them, in the steps of core/permit_claim.h, and visits desks.

#ifndef RINGMASTER_SRC_SIM_PERMIT_USER_H_
#define RINGMASTER_SRC_SIM_PERMIT_USER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "core/inbox.h"
#include "core/permit_claim.h"
#include "core/permits.h"
#include "core/port_state.h"
#include "sim/sim_sights.h"

namespace ringmaster::sim {

class World;

class PermitUser {
 public:
  // Of the worker `id`. Borrows the state and the inboxes.
  PermitUser(World* world, uint32_t id, core::PortState* state, std::vector<core::Inbox*> inboxes);
  PermitUser(const PermitUser&) = delete;
  PermitUser& operator=(const PermitUser&) = delete;

  // Before what a claim borrows ends.
  void Abandon();

  core::WorkerPermits& of(uint32_t master) { return *permits_[master]; }
  SimSight& sight() { return sight_; }

  // Whether it has a permit.
  bool Has() const;
  bool SightShows();
  // Whether the sight shows any source.
  bool AnyShown() const;

  // --- Visits. First the desks are listed: those from which it has permits, or those that want to
  // hear who waits. Then each step visits one; false: there was none left. ---
  void ListOwn();
  void ListHungry();
  // Takes its permits back itself, and lists their desks.
  void GiveBack();
  bool VisitNext();

  // --- Accepting. One claim after the other, until no more are left of those that it had at first,
  // or it has accepted `connections_left`. ---
  void Begin();
  enum class Did : uint8_t {
    kStep,
    kStarted,  // it has got a permit: from now on its worker may say that it does not wait
    kServes,   // it has accepted `connection()`, whose callback comes next
    kOver
  };
  Did Step(uint32_t& connections_left);
  uint32_t connection() const { return connection_; }
  // After kOver: whether it may have more.
  bool more() const { return more_; }

  // Whether it has been rung by the master and not claimed since.
  bool IsMarked(uint32_t master) const { return inboxes_[master]->Rung(); }
  // Whether it has claimed a permit of the source, and neither accepted nor given up since.
  bool Redeems(uint32_t master, uint32_t index) const {
    return redeems_ && at_.master == master && at_.index == index;
  }
  // Whether it has begun something that ends with a visit of the source's desk.
  bool Visits(uint32_t master, uint32_t index) const;

 private:
  struct Place {
    uint32_t master = 0;
    uint32_t index = 0;  // of the source there
  };

  Did StepOfClaim(uint32_t& connections_left);
  void Reserve();
  void NoteReserved();
  void ForceGates();
  void CountRedeeming();
  core::Permits& PermitsOf(Place place) const;
  bool NextPlace();

  World* const world_;
  const uint32_t id_;
  core::PortState* const state_;
  const std::vector<core::Inbox*> inboxes_;                    // by master
  std::vector<std::unique_ptr<core::WorkerPermits>> permits_;  // by master
  SimSight sight_;

  std::vector<Place> visits_;  // the next one last
  bool visits_own_ = false;    // those from which it has permits

  uint32_t next_master_ = 0;   // whose permits come next
  uint32_t masters_done_ = 0;  // of this round
  std::vector<Place> places_;  // of one master, the next one last
  Place at_;
  bool at_any_ = false;
  uint32_t left_ = 0;  // permits of it that it had at first
  std::optional<core::PermitClaim> claim_;
  bool walks_ = false;     // between Begin and kOver
  bool claimed_ = false;   // a permit, so its worker says that it does not wait
  bool is_busy_ = false;   // and has visited the desks of its other permits, or is about to
  bool accepted_ = false;  // what was accepted is to be served
  bool redeems_ = false;
  bool trouble_ = false;  // the claim could not accept
  uint32_t open_ = 0;     // as of the state, before a step of the claim
  uint32_t source_ = 0;   // of the claim, once it has started
  uint32_t connection_ = 0;
  bool more_ = false;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_PERMIT_USER_H_
