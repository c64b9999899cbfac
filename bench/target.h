// The listening socket under test and how to reach it.

#ifndef RINGMASTER_BENCH_TARGET_H_
#define RINGMASTER_BENCH_TARGET_H_

#include <sys/socket.h>

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace ringmaster::bench {

// As long as the kernel permits by default (net.core.somaxconn), so that a slow server shows in the
// latency and not in retransmitted SYNs.
inline constexpr int kBacklog = 4096;

enum class Transport : uint8_t { kTcp, kUnix };

// "tcp" or "unix".
std::string_view TransportName(Transport transport);

// Where a load generator connects to.
struct Target {
  Transport transport = Transport::kTcp;
  sockaddr_storage address{};
  socklen_t address_size = 0;
};

// A listening socket on a loopback port, or an abstract Unix address, that the kernel chose:
// nothing is left behind in a file system. Non-blocking and close-on-exec. Owns the descriptor.
// `shares_port`: others can be bound to the same port (SO_REUSEPORT).
class Listener {
 public:
  static absl::StatusOr<Listener> Create(Transport transport, bool shares_port = false);

  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;
  ~Listener();

  int fd() const { return fd_; }
  const Target& target() const { return target_; }

 private:
  Listener(int fd, const Target& target) : fd_(fd), target_(target) {}

  int fd_;
  Target target_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_TARGET_H_
