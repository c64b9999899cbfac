// One worker of four freezes for a second, or its thread ends without a word.
// Meanwhile connections arrive on a schedule that waits for nobody. Asserted are counts: all are
// served, once each, and the worker that does not move gets no more than it may. How late the
// recalled ones are is printed, beside what would be without recall. It is asserted only to be far
// from the length of the freeze.

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "balancer_fixture.h"
#include "support/server.h"

namespace ringmaster {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kFreeze = std::chrono::milliseconds(1000);
constexpr auto kBetweenConnections = std::chrono::microseconds(250);
constexpr int kConnectionsPerFreeze = 5000;  // a quarter of a second more than the freeze
constexpr int kConnectionsPerDeath = 4000;
constexpr uint32_t kWindow = 32;

// Connects on schedule and notes how long after its intended start each got its answer.
std::vector<Clock::duration> Load(const testing::Listener& listener, int connections) {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  std::map<int, Clock::time_point> starts;
  std::vector<Clock::duration> latencies;
  const auto begin = Clock::now();
  const auto collect = [&](Clock::duration wait_max) {
    const auto wait_ns = std::chrono::nanoseconds(wait_max).count();
    const timespec wait{.tv_sec = wait_ns / 1'000'000'000, .tv_nsec = wait_ns % 1'000'000'000};
    epoll_event events[64];
    const int ready = epoll_pwait2(epoll_fd, events, 64, &wait, nullptr);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      char byte;
      if (read(fd, &byte, 1) == 1) latencies.push_back(Clock::now() - starts[fd]);
      close(fd);
      starts.erase(fd);
    }
  };
  for (int i = 0; i < connections; ++i) {
    const auto start = begin + i * kBetweenConnections;
    for (auto now = Clock::now(); now < start; now = Clock::now()) collect(start - now);
    const int fd = listener.Connect();
    if (fd < 0) break;
    starts[fd] = start;
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
  }
  const auto until = Clock::now() + std::chrono::seconds(10);
  while (!starts.empty() && Clock::now() < until) collect(std::chrono::milliseconds(10));
  close(epoll_fd);
  return latencies;
}

constexpr auto kRecallAfter = std::chrono::milliseconds(10);

// Four workers on one source.
class Crew {
 public:
  Crew(std::string_view policy, testing::Worker::Serve serve) {
    source_ =
        balancer_->AddSource(listener_.fd(), {.policy = PolicyByName(policy).value()}).value();
    const auto join = [this](int ring_fd, uint64_t tag) {
      absl::StatusOr<Port> port =
          balancer_->AddWorker({.ring_fd = ring_fd, .tag = tag, .window = kWindow});
      if (port.ok()) source_.Join(*port).IgnoreError();
      return port;
    };
    for (int i = 0; i < 4; ++i) {
      workers_.push_back(std::make_unique<testing::Worker>(join, serve));
    }
  }

  const testing::Listener& listener() const { return listener_; }
  testing::Worker& worker(size_t index) { return *workers_[index]; }
  BalancerStats Stats() const { return balancer_->Stats(); }

 private:
  const testing::Listener listener_ = testing::Listener::Tcp();
  const std::unique_ptr<Balancer> balancer_ = Balancer::Create().value();
  Source source_;
  std::vector<std::unique_ptr<testing::Worker>> workers_;
};

double Ms(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

void PrintLate(std::string_view policy, uint64_t recalled, std::vector<Clock::duration>& late,
               int connections) {
  std::sort(late.begin(), late.end());
  std::printf("%-20s recalled %3llu, late %3zu of %d", std::string(policy).c_str(),
              static_cast<unsigned long long>(recalled), late.size(), connections);
  if (!late.empty()) {
    std::printf(": median %.1f ms, p99 %.1f ms, longest %.1f ms", Ms(late[late.size() / 2]),
                Ms(late[late.size() * 99 / 100]), Ms(late.back()));
    EXPECT_LT(late.back(), kFreeze / 2) << policy;
  }
}

TEST(FrozenWorker, DelaysOnlyWhatItWasOfferedAndThatByLittleMoreThanRecallAfter) {
  if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  for (const std::string_view policy : PolicyNames()) {
    std::atomic<bool> freeze{false};
    Crew crew(policy, [&](uint32_t worker, Connection connection) {
      if (freeze.exchange(false)) std::this_thread::sleep_for(kFreeze);
      testing::ServeIndex(worker, std::move(connection));
    });
    std::vector<Clock::duration> late;
    int frozen = 0;
    freeze = true;  // whoever serves next
    const std::vector<Clock::duration> latencies = Load(crew.listener(), kConnectionsPerFreeze);
    EXPECT_EQ(latencies.size(), static_cast<size_t>(kConnectionsPerFreeze)) << policy;
    for (const Clock::duration latency : latencies) {
      if (latency >= kFreeze) {
        ++frozen;  // in the hands of the worker that froze
      } else if (latency >= kRecallAfter) {
        late.push_back(latency);
      }
    }
    EXPECT_LE(frozen, 1) << policy;
    const BalancerStats stats = crew.Stats();
    uint64_t claimed = 0;
    for (const WorkerStats& worker : stats.workers) {
      claimed += worker.claimed;
      EXPECT_LE(worker.recalled, uint64_t{2} * kWindow) << policy;
    }
    EXPECT_EQ(claimed, static_cast<uint64_t>(kConnectionsPerFreeze)) << policy;
    PrintLate(policy, stats.recalled, late, kConnectionsPerFreeze);
    std::printf("; in the frozen worker's hands %d\n", frozen);
  }
}

// The thread of one worker returns in the middle of the load, its port still joined. What it has
// served is closed, so nothing may stay open in its books.
TEST(DeadWorker, LosesNothingAndLeaksNoCapacity) {
  if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  for (const std::string_view policy : PolicyNames()) {
    Crew crew(policy, testing::ServeIndex);
    std::thread killer([&] {
      // The busiest one, since some policies leave the others alone at this load.
      size_t doomed = 0;
      for (bool found = false; !found; std::this_thread::yield()) {
        for (size_t i = 0; i < 4 && !found; ++i) {
          found = crew.worker(i).claimed() >= kConnectionsPerDeath / 8;
          doomed = i;
        }
      }
      crew.worker(doomed).Die();
    });
    std::vector<Clock::duration> late;
    const std::vector<Clock::duration> latencies = Load(crew.listener(), kConnectionsPerDeath);
    killer.join();
    EXPECT_EQ(latencies.size(), static_cast<size_t>(kConnectionsPerDeath)) << policy;
    for (const Clock::duration latency : latencies) {
      if (latency >= kRecallAfter) late.push_back(latency);
    }
    // A client has its answer a moment before its connection is closed.
    const auto none_open = [&crew] {
      const BalancerStats stats = crew.Stats();
      return std::all_of(stats.workers.begin(), stats.workers.end(),
                         [](const WorkerStats& worker) { return worker.open == 0; });
    };
    EXPECT_TRUE(Eventually(none_open)) << policy;
    const BalancerStats stats = crew.Stats();
    uint64_t claimed = 0;
    for (const WorkerStats& worker : stats.workers) {
      claimed += worker.claimed;
      EXPECT_EQ(worker.unclaimed, 0u) << policy;
    }
    EXPECT_EQ(claimed, static_cast<uint64_t>(kConnectionsPerDeath)) << policy;
    PrintLate(policy, stats.recalled, late, kConnectionsPerDeath);
    std::printf("\n");
  }
}

}  // namespace
}  // namespace ringmaster
