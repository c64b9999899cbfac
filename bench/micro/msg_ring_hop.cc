// How long does it take to tell another thread something, by MSG_RING and by the older ways?
//
// Two threads on two CPUs send one word back and forth; an iteration is there and back, so a hop is
// half of it. Asleep: both block in the kernel between words, as workers of an idle server do.
// Awake: both look again and again without blocking, so nothing is woken. What remains is the call
// itself. For the futex, whose word is in shared memory, not even that remains.
//
// On one CPU, or where the scheduler is busy with others, Awake measures time slices.

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "bench/micro/pinning.h"

namespace ringmaster::bench {
namespace {

// Why a benchmark is left out, in the words by which its test knows it.
std::string NoIoUring(int error) { return std::string("no io_uring: ") + std::strerror(error); }

enum class Wait : uint8_t { kAsleep, kAwake };

// One direction. `Open` is called by the receiving thread, `Close` by the same; 0 or -errno.
class EventfdWay {
 public:
  int Open(Wait wait) {
    fd_ = eventfd(0, EFD_CLOEXEC | (wait == Wait::kAwake ? EFD_NONBLOCK : 0));
    return fd_ < 0 ? -errno : 0;
  }
  void Close() { close(fd_); }
  void Send() const {
    const uint64_t one = 1;
    while (write(fd_, &one, sizeof(one)) < 0) {
    }
  }
  void Receive() const {
    uint64_t value;
    while (read(fd_, &value, sizeof(value)) < 0) {
    }
  }

 private:
  int fd_ = -1;
};

class PipeWay {
 public:
  int Open(Wait wait) {
    if (pipe2(fds_, O_CLOEXEC) != 0) return -errno;
    if (wait == Wait::kAwake) fcntl(fds_[0], F_SETFL, O_NONBLOCK);
    return 0;
  }
  void Close() {
    close(fds_[0]);
    close(fds_[1]);
  }
  void Send() const {
    const char byte = 0;
    while (write(fds_[1], &byte, 1) < 0) {
    }
  }
  void Receive() const {
    char byte;
    while (read(fds_[0], &byte, 1) < 0) {
    }
  }

 private:
  int fds_[2] = {-1, -1};
};

class FutexWay {
 public:
  int Open(Wait wait) {
    wait_ = wait;
    word_.store(0, std::memory_order_relaxed);
    return 0;
  }
  void Close() {}
  void Send() {
    word_.store(1, std::memory_order_release);
    if (wait_ == Wait::kAsleep) syscall(SYS_futex, &word_, FUTEX_WAKE_PRIVATE, 1, nullptr);
  }
  void Receive() {
    while (word_.exchange(0, std::memory_order_acq_rel) == 0) {
      // A value other than 0 is the word; the kernel looks before it sleeps.
      if (wait_ == Wait::kAsleep) syscall(SYS_futex, &word_, FUTEX_WAIT_PRIVATE, 0, nullptr);
    }
  }

 private:
  Wait wait_ = Wait::kAsleep;
  std::atomic<uint32_t> word_{0};
};

// The receiver's ring is as a worker's. The sender has a ring of its own, which it enters once for
// each word and whose completion it skips.
template <unsigned kFlags>
class RingWay {
 public:
  int Open(Wait wait) {
    wait_ = wait;
    io_uring_params params{};
    params.flags = kFlags;
    const int result = io_uring_queue_init_params(8, &receiver_, &params);
    if (result < 0) return result;
    fd_ = receiver_.ring_fd;
    return 0;
  }
  void Close() { io_uring_queue_exit(&receiver_); }

  // The sending thread's own.
  int OpenSender() { return io_uring_queue_init(8, &sender_, 0); }
  void CloseSender() { io_uring_queue_exit(&sender_); }

  void Send() {
    io_uring_sqe* sqe = io_uring_get_sqe(&sender_);
    io_uring_prep_msg_ring(sqe, fd_, 0, 1, 0);
    io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
    io_uring_submit(&sender_);
  }
  void Receive() {
    io_uring_cqe* cqe = nullptr;
    if (wait_ == Wait::kAsleep) {
      while (io_uring_wait_cqe(&receiver_, &cqe) != 0) {
      }
    } else {
      while (io_uring_peek_cqe(&receiver_, &cqe) != 0) {
        // Remote completions of such a ring appear only when its owner enters the kernel.
        if (kFlags & IORING_SETUP_DEFER_TASKRUN) io_uring_get_events(&receiver_);
      }
    }
    io_uring_cqe_seen(&receiver_, cqe);
  }

 private:
  Wait wait_ = Wait::kAsleep;
  io_uring receiver_{};
  io_uring sender_{};
  int fd_ = -1;
};

template <typename Way>
int OpenSender(Way& way) {
  if constexpr (requires { way.OpenSender(); }) return way.OpenSender();
  return 0;
}
template <typename Way>
void CloseSender(Way& way) {
  if constexpr (requires { way.CloseSender(); }) way.CloseSender();
}

// What the other thread says before the first word.
struct Readiness {
  std::atomic<int> opened{1};  // 1: not yet; else 0 or -errno
  std::atomic<bool> stop{false};
};

template <typename Way>
void Echo(Way& there, Way& back, Wait wait, Readiness& readiness) {
  PinThread(1);
  int result = there.Open(wait);
  if (result == 0) {
    result = OpenSender(back);
    if (result != 0) there.Close();
  }
  readiness.opened.store(result, std::memory_order_release);
  readiness.opened.notify_one();
  if (result != 0) return;
  for (;;) {
    there.Receive();
    // The last word is answered, too, so that nobody leaves while the other still sends.
    const bool stop = readiness.stop.load(std::memory_order_acquire);
    back.Send();
    if (stop) break;
  }
  CloseSender(back);
  there.Close();
}

template <typename Way, Wait kWait>
void ThereAndBack(benchmark::State& state) {
  // On a thread of its own: the affinity must not stay with the benchmark's.
  std::thread([&] {
    PinThread(0);
    Way there;
    Way back;
    Readiness readiness;
    int result = back.Open(kWait);
    if (result == 0) {
      result = OpenSender(there);
      if (result != 0) back.Close();
    }
    if (result != 0) {
      state.SkipWithError(NoIoUring(-result).c_str());
      return;
    }
    std::thread other([&] { Echo(there, back, kWait, readiness); });
    readiness.opened.wait(1, std::memory_order_acquire);
    result = readiness.opened.load(std::memory_order_acquire);
    if (result == 0) {
      for (auto _ : state) {
        there.Send();
        back.Receive();
      }
      readiness.stop.store(true, std::memory_order_release);
      there.Send();
      back.Receive();
    } else {
      state.SkipWithError(NoIoUring(-result).c_str());
    }
    other.join();
    CloseSender(there);
    back.Close();
  }).join();
}

using PlainRing = RingWay<0>;
using DeferRing = RingWay<IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN>;

BENCHMARK(ThereAndBack<DeferRing, Wait::kAsleep>)->Name("Asleep/msg_ring_defer")->UseRealTime();
BENCHMARK(ThereAndBack<PlainRing, Wait::kAsleep>)->Name("Asleep/msg_ring_plain")->UseRealTime();
BENCHMARK(ThereAndBack<EventfdWay, Wait::kAsleep>)->Name("Asleep/eventfd")->UseRealTime();
BENCHMARK(ThereAndBack<PipeWay, Wait::kAsleep>)->Name("Asleep/pipe")->UseRealTime();
BENCHMARK(ThereAndBack<FutexWay, Wait::kAsleep>)->Name("Asleep/futex")->UseRealTime();
BENCHMARK(ThereAndBack<DeferRing, Wait::kAwake>)->Name("Awake/msg_ring_defer")->UseRealTime();
BENCHMARK(ThereAndBack<PlainRing, Wait::kAwake>)->Name("Awake/msg_ring_plain")->UseRealTime();
BENCHMARK(ThereAndBack<EventfdWay, Wait::kAwake>)->Name("Awake/eventfd")->UseRealTime();
BENCHMARK(ThereAndBack<PipeWay, Wait::kAwake>)->Name("Awake/pipe")->UseRealTime();
BENCHMARK(ThereAndBack<FutexWay, Wait::kAwake>)->Name("Awake/futex")->UseRealTime();

}  // namespace
}  // namespace ringmaster::bench

BENCHMARK_MAIN();
