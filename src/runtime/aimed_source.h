// What a source needs to be aimed: its desk, and what the kernel does for it. Belongs to an index
// of sources at a master, is made when the first source comes that may be aimed, and lives as long
// as the master's shared block: workers find it there.

#ifndef RINGMASTER_SRC_RUNTIME_AIMED_SOURCE_H_
#define RINGMASTER_SRC_RUNTIME_AIMED_SOURCE_H_

#include <atomic>
#include <cstdint>

#include "core/desk.h"

namespace ringmaster::internal {

class MasterShared;

// The sights of workers are epoll sets. Threads: see core::Sights.
class EpollSights final : public core::Sights {
 public:
  explicit EpollSights(MasterShared* master) : master_(master) {}

  // While the master has the desk.
  void SetListener(int fd) { fd_ = fd; }

  int Show(int sight, bool again) override;
  int ShowAsleep(int sight, bool again) override;
  int Listener() const override { return fd_; }
  void Wake(int sight, int listener) override;
  void Hide(int sight) override;
  int Waiting() override;
  void Yield() override;
  void CallMaster() override;

 private:
  int Add(int sight, bool again, uint32_t events);

  MasterShared* const master_;
  int fd_ = -1;
};

struct AimedSource {
  explicit AimedSource(MasterShared* master) : sights(master) {}

  EpollSights sights;
  core::Desk desk;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_AIMED_SOURCE_H_
