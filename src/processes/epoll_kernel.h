// What the kernel does for the desk of one source, in the keeper and in the processes of a server.
// Where ringmaster-run is loaded, the functions of the C library are replaced. So these are system
// calls.

#ifndef RINGMASTER_SRC_PROCESSES_EPOLL_KERNEL_H_
#define RINGMASTER_SRC_PROCESSES_EPOLL_KERNEL_H_

#include <cstdint>

#include "processes/descriptors.h"
#include "processes/desk.h"

namespace ringmaster::processes {

class EpollKernel final : public Kernel {
 public:
  // `descriptors` is borrowed.
  EpollKernel(const Descriptors& descriptors, uint32_t source)
      : descriptors_(descriptors), listener_(descriptors.listeners[source]) {}

  bool Show(uint32_t sight, bool asleep) override;
  void Wake(uint32_t sight) override;
  void Hide(uint32_t sight) override;
  int Waiting() override;
  void HideFromAll() override;
  int64_t NowNs() override;

  // Whether somebody has shut the listener down. One on a Unix socket is readable for ever then,
  // and to accept there says that nobody waits.
  bool HasEnded() const;

 private:
  const Descriptors& descriptors_;
  const int listener_;
};

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_EPOLL_KERNEL_H_
