// What ringmaster-run and the part of it that is loaded into servers (the *shim*) agree on: which
// policy, which descriptor numbers, and how a process asks for what it needs.
//
// The numbers of what they share (processes/descriptors.h) are as high as the limit allows, where a
// server meets them least.

#ifndef RINGMASTER_TOOLS_RUN_COMMON_H_
#define RINGMASTER_TOOLS_RUN_COMMON_H_

#include <array>
#include <cstdint>

#include "processes/area.h"
#include "processes/choice.h"
#include "processes/descriptors.h"

namespace ringmaster::run {

// NAME:SECRET:FIRST, all that a process needs to find the keeper: the abstract Unix socket where it
// answers, what must be said there, and the first of the descriptor numbers.
inline constexpr char kVariable[] = "RINGMASTER_RUN";
inline constexpr char kPreload[] = "LD_PRELOAD";

// The numbers from `first` on.
struct Numbers {
  static constexpr int kCount =
      static_cast<int>(processes::kSightsMax + processes::kSourcesMax + 3);

  int first = -1;

  int Sight(uint32_t sight) const { return first + static_cast<int>(sight); }
  int Listener(uint32_t source) const {
    return first + static_cast<int>(processes::kSightsMax + source);
  }
  int Bell() const {
    return first + static_cast<int>(processes::kSightsMax + processes::kSourcesMax);
  }
  int Memory() const { return Bell() + 1; }
  int Keeper() const { return Bell() + 2; }
  bool Has(int fd) const { return first >= 0 && fd >= first && fd < first + kCount; }

  processes::Descriptors All() const {
    processes::Descriptors all;
    for (uint32_t i = 0; i < processes::kSightsMax; ++i) all.sights[i] = Sight(i);
    for (uint32_t i = 0; i < processes::kSourcesMax; ++i) all.listeners[i] = Listener(i);
    all.bell = Bell();
    all.memory = Memory();
    all.keeper = Keeper();
    return all;
  }
};

// What stands at the beginning of the shared memory.
struct Memory {
  processes::PolicyChoice policy;
  processes::Area area;
};

// One request for each connection to the keeper's socket (SOCK_SEQPACKET), and one answer.
struct Request {
  enum class Kind : uint32_t {
    kHello,     // the answer brings the memory, the bell and all sights
    kListener,  // a listener comes with it; the answer says which source it is
  };
  static constexpr uint64_t kMagic = 0x31'6e75'722d'6d72;

  uint64_t magic = kMagic;
  uint64_t secret = 0;
  Kind kind = Kind::kHello;
  uint32_t unused = 0;
};
struct Answer {
  uint64_t magic = Request::kMagic;
  int32_t error = 0;  // an errno
  uint32_t source = processes::kNone;
};

}  // namespace ringmaster::run

#endif  // RINGMASTER_TOOLS_RUN_COMMON_H_
