// The clients of one generator, and the epoll set in which they wait for their answers.

#ifndef RINGMASTER_BENCH_CLIENT_SET_H_
#define RINGMASTER_BENCH_CLIENT_SET_H_

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <vector>

#include "absl/status/status.h"
#include "bench/clock.h"

namespace ringmaster::bench {

// `Client` has `int fd`, the socket of its connection; -1: it has none. For one thread. Destruction
// closes what is open.
template <typename Client>
class ClientSet {
 public:
  ClientSet() = default;
  ClientSet(const ClientSet&) = delete;
  ClientSet& operator=(const ClientSet&) = delete;
  ~ClientSet() {
    for (const Client& client : clients_) {
      if (client.fd >= 0) close(client.fd);
    }
    if (epoll_fd_ >= 0) close(epoll_fd_);
  }

  // Once. InvalidArgument when there are to be none.
  absl::Status Make(size_t count) {
    if (count == 0) return absl::InvalidArgumentError("a load needs at least one client");
    clients_.resize(count);
    epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    return epoll_fd_ >= 0 ? absl::OkStatus()
                          : absl::ErrnoToStatus(errno, "cannot make an epoll set");
  }

  // Waits for events until then. Returns how many there are.
  template <size_t size>
  int WaitUntil(int64_t until_ns, epoll_event (&events)[size]) const {
    const int64_t wait_ns = std::max<int64_t>(until_ns - NowNs(), 0);
    const timespec timeout{.tv_sec = wait_ns / kSecond, .tv_nsec = wait_ns % kSecond};
    return epoll_pwait2(epoll_fd_, events, size, &timeout, nullptr);
  }

  int epoll_fd() const { return epoll_fd_; }
  size_t size() const { return clients_.size(); }
  Client& operator[](size_t index) { return clients_[index]; }
  auto begin() { return clients_.begin(); }
  auto end() { return clients_.end(); }

 private:
  int epoll_fd_ = -1;
  std::vector<Client> clients_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_CLIENT_SET_H_
