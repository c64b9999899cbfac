// What ringmaster-run and the part of it that is loaded into servers (the *shim*) agree on: which
// policy, which descriptor numbers, and how a process asks for what it needs.
//
// The kernel knows what stands in an epoll set by the file and its number. So whoever takes a
// listener out of somebody's sight must have it under the number by which it was put in, and all
// processes use the same numbers for what they share. These are as high as the limit allows, where
// a server meets them least.

#ifndef RINGMASTER_TOOLS_RUN_COMMON_H_
#define RINGMASTER_TOOLS_RUN_COMMON_H_

#include <array>
#include <cstdint>

#include "processes/area.h"

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
  // An eventfd: the keeper is to look what has changed.
  int Bell() const {
    return first + static_cast<int>(processes::kSightsMax + processes::kSourcesMax);
  }
  // The memory of processes::Area.
  int Memory() const { return Bell() + 1; }
  // The end of a pipe whose other end only the keeper has: it hangs up when the keeper has died. It
  // stands in every sight.
  int Keeper() const { return Bell() + 2; }
  bool Has(int fd) const { return first >= 0 && fd >= first && fd < first + kCount; }
};

// The policies that may decide before a connection comes, and keep what they remember in words.
enum class PolicyKind : uint32_t { kNone, kRoundRobin, kLeastLoaded, kTwoChoices, kHermes };
struct PolicyChoice {
  PolicyKind kind = PolicyKind::kNone;
  uint64_t parameter = 0;  // of two-choices the seed, of hermes the milliseconds
};

// What stands at the beginning of the shared memory.
struct Memory {
  PolicyChoice policy;
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
