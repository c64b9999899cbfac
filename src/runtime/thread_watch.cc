#include "runtime/thread_watch.h"

#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "ring/process.h"

namespace ringmaster::internal {

struct ThreadWatch::Link {
  explicit Link(std::function<void()> function) : on_end(std::move(function)) {}

  const uint64_t process = ring::ThisProcess();
  std::mutex mutex;
  // Guarded by mutex. Null when the watch was destroyed.
  std::function<void()> on_end;
};

namespace {

std::atomic<uint64_t> threads{0};
thread_local uint64_t this_thread = 0;

// The watches that are told when a thread ends.
struct ThreadEnd {
  std::vector<std::shared_ptr<ThreadWatch::Link>> links;

  ~ThreadEnd() {
    for (const auto& link : links) {
      // This check comes before the lock, which another thread may have held at the moment of the
      // fork.
      if (ring::ThisProcess() != link->process) continue;
      const std::lock_guard lock(link->mutex);
      if (link->on_end) link->on_end();
    }
  }
};
thread_local ThreadEnd thread_end;

}  // namespace

uint64_t ThisThread() {
  if (this_thread == 0) this_thread = threads.fetch_add(1, std::memory_order_relaxed) + 1;
  return this_thread;
}

ThreadWatch::ThreadWatch(std::function<void()> on_end)
    : link_(std::make_shared<Link>(std::move(on_end))) {}

ThreadWatch::~ThreadWatch() {
  if (ring::ThisProcess() != link_->process) return;
  const std::lock_guard lock(link_->mutex);
  link_->on_end = nullptr;
}

void ThreadWatch::WatchThisThread() {
  // Links whose watches are gone are forgotten.
  std::erase_if(thread_end.links, [](const auto& link) { return link.use_count() == 1; });
  thread_end.links.push_back(link_);
}

}  // namespace ringmaster::internal
