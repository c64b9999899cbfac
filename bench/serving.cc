#include "bench/serving.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "bench/request.h"

namespace ringmaster::bench {
namespace {

void Sleep(int64_t ns) {
  timespec rest{.tv_sec = ns / kSecond, .tv_nsec = ns % kSecond};
  while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
  }
}

}  // namespace

bool MeansShortage(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

Serving::Serving(const ServerOptions& options, uint32_t index)
    : call(options.books->workers[index]),
      index_(index),
      traits_(options.workers[index]),
      books_(options.books->workers[index]),
      orders_(options.books->orders[index]),
      stopping_(options.books->stopping) {}

void Serving::OnWake() {
  Count(books_.wakes);
  arrival_ = false;
  busy_ = false;
}

void Serving::OnTurnEnd() {
  if (arrival_) Count(books_.arrival_wakes);
  if (!busy_) Count(books_.empty_wakes);
  arrival_ = false;
  busy_ = true;  // a turn without a wake-up, if one follows, is no empty wake-up
}

void Serving::OnTaken() {
  Count(books_.taken);
  busy_ = true;
  ++open_;
  if (open_ > books_.open_max.load(std::memory_order_relaxed)) {
    books_.open_max.store(open_, std::memory_order_relaxed);
  }
  if (stopping_.load(std::memory_order_relaxed)) return;
  if (traits_.delay_ns > 0) Sleep(traits_.delay_ns);
  if (const int64_t rest_ns = orders_.rest_ns.load(std::memory_order_relaxed); rest_ns > 0) {
    orders_.rest_ns.store(0, std::memory_order_relaxed);
    Sleep(rest_ns);
  }
}

void Serving::OnPassedOn() {
  Count(books_.passed_on);
  --open_;
}

Serving::Next Serving::OnReadable(int fd) {
  char buffer[kReadBytesMax];
  const ssize_t count = call(recv, fd, buffer, sizeof(buffer), 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return Next::kWait;
  const Next next = Answer({buffer, static_cast<size_t>(std::max<ssize_t>(count, 0))});
  if (count <= 0) return next;
  // A request is far smaller than a socket's send buffer, and the client has one under way only. So
  // less than the whole goes out on a broken connection alone.
  const ssize_t sent = call(send, fd, buffer, static_cast<size_t>(count), MSG_NOSIGNAL);
  return sent == count ? next : Next::kClose;
}

Serving::Next Serving::Answer(std::span<char> received) {
  busy_ = true;
  if (received.empty()) return Next::kClose;
  if (received[0] == kUnmarked) {
    Compute(WorkOf(received));
    if (traits_.request_ns > 0 && !stopping_.load(std::memory_order_relaxed)) {
      Sleep(traits_.request_ns);
    }
    received[0] = static_cast<char>(index_);
  }
  return traits_.hangs_up ? Next::kClose : Next::kWait;
}

bool Serving::rests() const {
  return traits_.delay_ns > 0 || orders_.rest_ns.load(std::memory_order_relaxed) > 0;
}

bool Serving::TakesTime(std::span<const char> received) const {
  return traits_.request_ns > 0 || WorkOf(received) > 0;
}

void Serving::Close(int fd) {
  call(close, fd);
  --open_;
}

void Serving::OnEnd() {
  books_.cpu_ns.store(static_cast<uint64_t>(ThreadCpuNs()), std::memory_order_relaxed);
}

void NameWorkerThread(uint32_t worker) {
  pthread_setname_np(pthread_self(), absl::StrCat("worker-", worker).c_str());
}

}  // namespace ringmaster::bench
