// One turn of a master between two crossings of the seam: the ring has said what completed, and is
// to be told what to do next. The steps, in this order:
//
//   rings     of workers that have left are let go of, once everything submitted has been taken
//   calls     set-up calls that threads have made since the last turn are run
//   passed on what workers have passed on is handed to the engine
//   tickets   what workers have said of their tickets is handed to the engine
//   batch     Engine::OnBatch
//   asking    workers are asked to say when all is well again with a source, if the engine waits
//             for that
//   room      is made in the ledger, where the batch has found too little
//   places    that the batch has set free: the other masters are told; and if one was of a worker
//             that waits and had none, whoever wants a waiter is told
//
// Afterwards the caller sees to what has waited for the end of the turn, and to the events, and
// asks how long the master may sleep (WaitAfterTurn). The runtime, the simulator and the study take
// their turns here, so that what is simulated is what is shipped.
//
// `Caller` is the part that has the ring and the ways in for other threads. It must have:
//
//   bool AllReported()               whether the ring has reported all that was submitted
//   bool KeepsBack()                 whether the ring holds accepted connections for which there
//                                    was no room
//   bool LeaversWait()               whether a worker that has left waits for its ring to be let go
//   void LetGoOfRings()              the first step; does nothing before AllReported
//   bool RunCalls()                  false: the turn ends here
//   span PassedOn()                  connections that workers have passed on since it was asked
//                                    last
//   bool AnythingGivenBack()         whether a worker has said anything of a ticket since it was
//                                    asked last
//   GivenBack& given_back(source)    what they said
//   void TellOthers()                the other masters, if they are hungry
//   void TellOfWaiter()              masters that want a waiter, and hungry desks
//
// One thread: the one that drives the master.

#ifndef RINGMASTER_SRC_CORE_TURN_H_
#define RINGMASTER_SRC_CORE_TURN_H_

#include <cstdint>
#include <vector>

#include "core/engine.h"
#include "core/op.h"
#include "core/port_state.h"

namespace ringmaster::core {

// `completions` are read after the calls have run. `ops` is replaced by what the ring is to do.
// Returns whether room was made in the ledger.
template <typename Caller>
bool TakeTurn(Engine& engine, Caller& caller, const std::vector<Completion>& completions,
              int64_t now_ns, std::vector<Op>& ops) {
  caller.LetGoOfRings();
  if (!caller.RunCalls()) return false;
  if (const auto passed_on = caller.PassedOn(); !passed_on.empty())
    engine.PassOn(passed_on, now_ns);
  const bool given_back = caller.AnythingGivenBack();
  for (uint32_t source = 0; given_back && source < engine.source_slots(); ++source) {
    // Hear leaves out what is late, of a source that has gone.
    engine.GiveBack(source, caller.given_back(source).Hear(engine.source_serial(source)));
  }
  engine.OnBatch(completions, now_ns, ops, caller.AllReported());
  for (uint32_t source = 0; source < engine.source_slots(); ++source) {
    if (engine.WaitsForSuccess(source)) caller.given_back(source).Ask();
  }
  const bool room = engine.WantsRoom() || (caller.KeepsBack() && engine.RoomForEach() == 0);
  if (room) engine.MakeRoom();
  if (engine.PlacesFreed()) caller.TellOthers();
  if (engine.WaiterGotPlace()) caller.TellOfWaiter();
  return room;
}

// For how long the master may sleep after a turn, in nanoseconds; see Engine::WaitMax.
template <typename Caller>
int64_t WaitAfterTurn(const Engine& engine, Caller& caller, int64_t now_ns) {
  // Whoever has left waits until the kernel has taken what was submitted before.
  if (caller.LeaversWait()) return 0;
  // The ring gives what it keeps back to the next turn.
  if (caller.KeepsBack() && engine.RoomForEach() > 0) return 0;
  return engine.WaitMax(now_ns);
}

}  // namespace ringmaster::core

#endif  // RINGMASTER_SRC_CORE_TURN_H_
