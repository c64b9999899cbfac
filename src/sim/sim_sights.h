// What the simulated kernel does for sources that are aimed (core/desk.h): the sights of workers,
// and what a desk asks of the kernel.

#ifndef RINGMASTER_SRC_SIM_SIM_SIGHTS_H_
#define RINGMASTER_SRC_SIM_SIM_SIGHTS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/desk.h"

namespace ringmaster::sim {

class World;

// The sight of a worker: an epoll set of listeners, which its loop watches. Each is registered
// edge-triggered. The set is readable while a listener on its list of ready ones is readable.
class SimSight {
 public:
  bool Shows(uint32_t source) const { return At(source) != State::kOutside; }
  // Whether it is told when that is readable.
  bool IsAwake(uint32_t source) const { return Shows(source) && At(source) != State::kAsleep; }
  void Add(uint32_t source, bool asleep) {
    if (states_.size() <= source) states_.resize(source + 1, State::kOutside);
    states_[source] = asleep ? State::kAsleep : State::kShown;
  }
  void Remove(uint32_t source) { states_[source] = State::kOutside; }

  // The kernel has looked at a listener that it shows, and that is readable: whoever waits wakes.
  void SetReady(uint32_t source) {
    states_[source] = State::kReady;
    edge_ = true;
  }
  // Whether that has happened since it was asked last: what a loop sees that is edge-triggered.
  bool TakeEdge() { return std::exchange(edge_, false); }
  // What poll() says of it. `readable` says so of a listener. Those that are not leave the list.
  template <typename Readable>
  bool IsReadable(Readable readable) {
    bool any = false;
    for (uint32_t source = 0; source < states_.size(); ++source) {
      if (states_[source] != State::kReady) continue;
      if (readable(source)) {
        any = true;
      } else {
        states_[source] = State::kShown;
      }
    }
    return any;
  }
  // epoll_wait(): everything on the list has been reported.
  void Empty() { std::replace(states_.begin(), states_.end(), State::kReady, State::kShown); }

 private:
  enum class State : uint8_t { kOutside, kAsleep, kShown, kReady };
  State At(uint32_t source) const {
    return source < states_.size() ? states_[source] : State::kOutside;
  }

  std::vector<State> states_;  // by source
  bool edge_ = false;
};

// The kernel for one desk. While whoever holds that is in here, others may go on.
class SimSights final : public core::Sights {
 public:
  explicit SimSights(World* world) : world_(world) {}

  // While the master has the desk.
  void SetSource(uint32_t source) { source_ = source; }
  uint32_t source() const { return source_; }

  int Show(int sight, bool again) override;
  int ShowAsleep(int sight, bool again) override;
  int Listener() const override;
  void Wake(int sight, int listener) override;
  void Hide(int sight) override;
  int Waiting() override;
  void Yield() override;
  void CallMaster() override;

 private:
  World* const world_;
  uint32_t source_ = 0;
};

// What an index of sources needs to be aimed, as in the runtime.
struct SimDesk {
  explicit SimDesk(World* world) : sights(world) {}

  SimSights sights;
  core::Desk desk;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_SIM_SIGHTS_H_
