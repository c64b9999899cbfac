// What the tests of the runtime share: a balancer on the real ring, workers that join its sources,
// and ways to wait for one another. Time enters only as a bound on how long a test may take, never
// as something that is asserted. Where a test needs an order of events, it holds one side back
// until the other has reported.

#ifndef RINGMASTER_TESTS_RUNTIME_BALANCER_FIXTURE_H_
#define RINGMASTER_TESTS_RUNTIME_BALANCER_FIXTURE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {

using testing::AskWhoServes;
using testing::Listener;
using testing::ServeIndex;
using testing::Worker;

// A gate that one thread waits at until another opens it.
class Gate {
 public:
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

// Waits until `condition` holds, looking again and again; false after ten seconds.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::yield();
  }
  return true;
}

// Asks `connections` times, one after the other, and goes on until `done`. Returns how many were
// served. For tests in which each of several workers must get something: while a busy machine keeps
// the thread of one from running, the others get all. A worker that is never woken ends the test.
template <typename Condition>
uint64_t AskUntil(const Listener& listener, uint64_t connections, Condition done) {
  constexpr uint64_t kConnectionsMax = 100'000;
  uint64_t served = 0;
  for (; served < connections || !done(); ++served) {
    const int server = served == kConnectionsMax ? -1 : AskWhoServes(listener);
    if (server >= 0) continue;
    ADD_FAILURE() << "after " << served << " connections: "
                  << (served == kConnectionsMax ? "still not done" : strerror(-server));
    break;
  }
  return served;
}

// Each of the clients gets an answer, which begins with a byte. Closes them.
inline void ExpectAnswers(const std::vector<int>& clients) {
  for (const int client : clients) {
    char byte;
    EXPECT_EQ(read(client, &byte, 1), 1);
    close(client);
  }
}

// Each of the clients is closed without an answer. Closes them, too.
inline void ExpectEnds(const std::vector<int>& clients) {
  for (const int client : clients) {
    char byte;
    EXPECT_EQ(read(client, &byte, 1), 0);
    close(client);
  }
}

// Clients that ask again and again, each on a connection of its own, until they are stopped. They
// share the listeners, which must outlive them, evenly.
class Clients {
 public:
  Clients(std::vector<const Listener*> listeners, int count) {
    for (int i = 0; i < count; ++i) {
      const Listener* listener = listeners[static_cast<size_t>(i) % listeners.size()];
      threads_.emplace_back([this, listener] {
        while (!stop_) ++(AskWhoServes(*listener) >= 0 ? served_ : failed_);
      });
    }
  }
  Clients(const Clients&) = delete;
  Clients& operator=(const Clients&) = delete;
  ~Clients() { Stop(); }

  // Returns when the last answer is there.
  void Stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  // Lets so many more be served.
  bool Go(uint64_t connections) {
    const uint64_t before = served_;
    return Eventually([&] { return served_ >= before + connections; });
  }

  uint64_t served() const { return served_; }
  uint64_t failed() const { return failed_; }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> served_{0};
  std::atomic<uint64_t> failed_{0};
  std::vector<std::thread> threads_;
};

// What workers keep without serving it, until the test lets go. Any thread may call it.
class Kept {
 public:
  // For a worker that keeps what it claims; this outlives the worker.
  Worker::Serve serve() {
    return [this](uint32_t, Connection connection) {
      std::lock_guard lock(mutex_);
      connections_.push_back(std::move(connection));
      most_ = std::max(most_, connections_.size());
    };
  }
  size_t size() {
    std::lock_guard lock(mutex_);
    return connections_.size();
  }
  // At once, so far.
  size_t most() {
    std::lock_guard lock(mutex_);
    return most_;
  }
  // All of them, for the caller to let go.
  std::vector<Connection> TakeAll() {
    std::lock_guard lock(mutex_);
    return std::exchange(connections_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<Connection> connections_;
  size_t most_ = 0;
};

class BalancerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
    Create({});
  }

  void Create(BalancerOptions options) {
    options.on_event = [this](const Event& event) {
      std::lock_guard lock(mutex_);
      events_.push_back(event);
    };
    balancer_ = Balancer::Create(std::move(options)).value();
  }

  Source AddSource(const Listener& listener, SourceOptions options = {}) {
    return balancer_->AddSource(listener.fd(), std::move(options)).value();
  }

  // A worker that joins `sources`, each with its position as token; from Worker::kTokens on when
  // connections are handed over to it as completions.
  std::unique_ptr<Worker> AddWorker(std::vector<Source> sources, Worker::Serve serve = ServeIndex,
                                    WorkerOptions options = {}) {
    return std::make_unique<Worker>(
        [=, this](int ring_fd, uint64_t tag) mutable -> absl::StatusOr<Port> {
          options.ring_fd = ring_fd;
          options.tag = tag;
          const bool handed_over = options.handoff == Handoff::kCompletion;
          absl::StatusOr<Port> port = balancer_->AddWorker(options);
          if (!port.ok()) return port;
          for (uint64_t i = 0; i < sources.size(); ++i) {
            const uint64_t token = handed_over ? Worker::kTokens + i : i;
            const absl::Status joined = sources[i].Join(*port, {.token = token});
            if (!joined.ok()) return joined;
          }
          return port;
        },
        std::move(serve));
  }

  bool SawEvent(Event::Kind kind) {
    std::lock_guard lock(mutex_);
    return std::any_of(events_.begin(), events_.end(),
                       [&](const Event& event) { return event.kind == kind; });
  }

  std::mutex mutex_;
  std::vector<Event> events_;
  std::unique_ptr<Balancer> balancer_;
};

}  // namespace ringmaster

#endif  // RINGMASTER_TESTS_RUNTIME_BALANCER_FIXTURE_H_
