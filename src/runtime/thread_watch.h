// Threads that others rely on: who they are, and the news that one ends.

#ifndef RINGMASTER_SRC_RUNTIME_THREAD_WATCH_H_
#define RINGMASTER_SRC_RUNTIME_THREAD_WATCH_H_

#include <cstdint>
#include <functional>
#include <memory>

namespace ringmaster::internal {

// The calling thread. No other thread of the process has had this number or will have it, unlike a
// pthread_t or a thread id of the kernel, which go to a new thread as soon as the old one has
// ended. Never 0. A forked child's only thread keeps it.
uint64_t ThisThread();

// Calls a function when a thread ends.
class ThreadWatch {
 public:
  // `on_end` runs on the thread that ends, when its thread_local objects are destroyed; not in a
  // forked child.
  explicit ThreadWatch(std::function<void()> on_end);
  // Afterwards `on_end` is not called any more. Waits for it if it is running, so it must not be
  // destroyed by it.
  ~ThreadWatch();
  ThreadWatch(const ThreadWatch&) = delete;
  ThreadWatch& operator=(const ThreadWatch&) = delete;

  // The calling thread, from now on beside those before. Allocates.
  void WatchThisThread();

  struct Link;

 private:
  const std::shared_ptr<Link> link_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_THREAD_WATCH_H_
