// What the kernel does for the desk of one source (processes::Kernel), in the keeper and in the
// processes of a server. By system calls alone, because the functions of the C library are replaced
// there.

#ifndef RINGMASTER_TOOLS_RUN_KERNEL_H_
#define RINGMASTER_TOOLS_RUN_KERNEL_H_

#include <cstdint>

#include "processes/desk.h"
#include "run/common.h"

namespace ringmaster::run {

class EpollKernel final : public processes::Kernel {
 public:
  EpollKernel(const Numbers& numbers, uint32_t source)
      : numbers_(numbers), listener_(numbers.Listener(source)) {}

  bool Show(uint32_t sight, bool asleep) override;
  void Wake(uint32_t sight) override;
  void Hide(uint32_t sight) override;
  int Waiting() override;
  void HideFromAll() override;
  int64_t NowNs() override;

 private:
  const Numbers numbers_;
  const int listener_;
};

}  // namespace ringmaster::run

#endif  // RINGMASTER_TOOLS_RUN_KERNEL_H_
