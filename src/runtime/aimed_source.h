// What a source needs to be aimed: its desk, and what the kernel does for it. Belongs to an index
// of sources at a master, is made when the first source comes that may be aimed, and lives as long
// as the master's shared block: workers find it there.

#ifndef RINGMASTER_SRC_RUNTIME_AIMED_SOURCE_H_
#define RINGMASTER_SRC_RUNTIME_AIMED_SOURCE_H_

#include <cstdint>

#include "core/desk.h"
#include "ring/process.h"

namespace ringmaster::internal {

class MasterShared;

// The sights of workers are epoll sets. Threads: see core::Sights.
class EpollSights final : public core::Sights {
 public:
  explicit EpollSights(MasterShared* master) : master_(master) {}

  // While the master has the desk. `number` and `file` as core::Op has them; `own`: a duplicate.
  void SetListener(int number, uint64_t file, int own) {
    number_ = number;
    file_ = file;
    fd_ = own;
  }

  int Show(int sight, bool again) override;
  int ShowAsleep(int sight, bool again) override;
  int Listener() const override { return fd_; }
  void Wake(int sight, int listener) override;
  void Hide(int sight) override;
  int Waiting() override;
  void Yield() override;
  void CallMaster() override;
  bool Gone() override;

 private:
  int Add(int sight, bool again, uint32_t events);

  MasterShared* const master_;
  int number_ = -1;
  uint64_t file_ = 0;
  int fd_ = -1;
};

struct AimedSource {
  explicit AimedSource(MasterShared* master) : sights(master) {}

  // Set-up, while the master has the desk and nobody redeems. False: there is no descriptor left,
  // so the source is not aimed. `owner` as ring::OwnDescriptor takes it.
  bool SetListener(int number, uint64_t file, uint64_t owner);

  EpollSights sights;
  core::Desk desk;
  // A duplicate of our own. The program may close its descriptor although the source is there
  // still, and the number may be another listener's then: nobody accepts from that. It is closed
  // when no worker redeems a permit any more.
  ring::OwnDescriptor listener;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_AIMED_SOURCE_H_
