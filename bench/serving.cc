#include "bench/serving.h"

#include <pthread.h>
#include <sys/socket.h>

#include <cerrno>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "bench/clock.h"

namespace ringmaster::bench {
namespace {

constexpr size_t kReadBytesMax = 4096;

}  // namespace

void Serving::OnTaken() {
  Count(books_.taken);
  if (traits_.delay_ns == 0) return;
  timespec rest{.tv_sec = traits_.delay_ns / kSecond, .tv_nsec = traits_.delay_ns % kSecond};
  while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
  }
}

Serving::Next Serving::OnReadable(int fd) {
  char buffer[kReadBytesMax];
  const ssize_t count = recv(fd, buffer, sizeof(buffer), 0);
  if (count == 0) return Next::kClose;
  if (count < 0) return errno == EAGAIN || errno == EINTR ? Next::kWait : Next::kClose;
  // A request is far smaller than a socket's send buffer and the client has one under way only, so
  // less than the whole goes out on a broken connection alone.
  const ssize_t sent = send(fd, buffer, static_cast<size_t>(count), MSG_NOSIGNAL);
  return sent == count ? Next::kWait : Next::kClose;
}

void Serving::OnEnd() {
  books_.cpu_ns.store(static_cast<uint64_t>(ThreadCpuNs()), std::memory_order_relaxed);
}

void NameWorkerThread(uint32_t worker) {
  pthread_setname_np(pthread_self(), absl::StrCat("worker-", worker).c_str());
}

}  // namespace ringmaster::bench
