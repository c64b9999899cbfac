// As reuseport, but a program of classic BPF picks the listener (SO_ATTACH_REUSEPORT_CBPF, Linux
// 4.5), for which no privilege is needed. It draws a number. Such a program sees the packet and a
// few facts (the CPU, a random number) but remembers nothing, so no turns can be taken.
//
// What its real-world counterparts do: servers whose workers are bound to a CPU each pick by the
// CPU that the packet came in on, to stay on it. Servers of QUIC pick by a number in the packet.
// The first means nothing here: on loopback that CPU is the client's, and with fewer CPUs than
// workers some would get nothing. A choice at random is no better than the hash: that is to be seen
// here. To program the choice does not help if the program cannot know who is busy. The one of
// reuseport-ebpf can.

#include <linux/filter.h>
#include <sys/socket.h>

#include <cerrno>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/mechanism.h"
#include "bench/mechanisms/mechanisms.h"
#include "bench/mechanisms/reuseport_listeners.h"

namespace ringmaster::bench {
namespace {

absl::Status AttachProgram(int listen_fd, size_t workers) {
  sock_filter code[] = {
      // A ← a random number; A ← A mod workers; pick the listener A.
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<uint32_t>(SKF_AD_OFF + SKF_AD_RANDOM)},
      {BPF_ALU | BPF_MOD | BPF_K, 0, 0, static_cast<uint32_t>(workers)},
      {BPF_RET | BPF_A, 0, 0, 0},
  };
  const sock_fprog program{.len = std::size(code), .filter = code};
  if (setsockopt(listen_fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program)) != 0) {
    return absl::ErrnoToStatus(errno, "cannot attach a program of classic BPF to the listeners");
  }
  return absl::OkStatus();
}

class ReusePortCbpf : public OwnListeners {
 public:
  std::string name() const override { return "reuseport-cbpf"; }
  std::string summary() const override {
    return "as reuseport, but a program of classic BPF picks, at random";
  }

 private:
  absl::Status OnStart(const std::vector<int>& listeners) const override {
    return AttachProgram(listeners.front(), listeners.size());
  }
};

}  // namespace

std::unique_ptr<Mechanism> MakeReusePortCbpf() { return std::make_unique<ReusePortCbpf>(); }

}  // namespace ringmaster::bench
