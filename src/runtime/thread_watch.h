// Which thread this is, and the news that a thread ends.

#ifndef RINGMASTER_SRC_RUNTIME_THREAD_WATCH_H_
#define RINGMASTER_SRC_RUNTIME_THREAD_WATCH_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace ringmaster::internal {

// A number for the calling thread. No other thread of the process has had it, or will have it. (A
// pthread_t or a thread id of the kernel goes to a new thread as soon as the old one has ended.)
// Never 0. A forked child's only thread keeps the number.
uint64_t ThisThread();

// Calls a function when a thread ends.
class ThreadWatch {
 public:
  // `on_end` runs on the thread that ends, when its thread_local objects are destroyed. It does not
  // run in a forked child.
  explicit ThreadWatch(std::function<void()> on_end);
  // Afterwards `on_end` is not called any more. The destructor waits for `on_end` if that is
  // running, so `on_end` must not destroy this object.
  ~ThreadWatch();
  ThreadWatch(const ThreadWatch&) = delete;
  ThreadWatch& operator=(const ThreadWatch&) = delete;

  // Watches the calling thread from now on, beside those watched before. Allocates.
  void WatchThisThread();

  struct Link;

 private:
  const std::shared_ptr<Link> link_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_THREAD_WATCH_H_
