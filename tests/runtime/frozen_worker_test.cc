// One worker of four freezes for a second, again and again, while connections arrive on a schedule
// that waits for nobody. Asserted are counts: all are served, once each, and the frozen worker gets
// no more than it may. How late the recalled ones are is printed, beside what would be without
// recall; it is asserted only to be far from the length of the freeze.

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <thread>

#include "support/server.h"

namespace ringmaster {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kFreeze = std::chrono::milliseconds(1000);
constexpr auto kBetweenConnections = std::chrono::microseconds(250);
constexpr int kFreezes = 3;
constexpr int kConnectionsPerFreeze = 5000;  // a quarter of a second more than the freeze
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

double Ms(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

TEST(FrozenWorker, DelaysOnlyWhatItWasOfferedAndThatByLittleMoreThanRecallAfter) {
  if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
  constexpr auto kRecallAfter = std::chrono::milliseconds(10);
  for (const std::string_view policy : PolicyNames()) {
    const testing::Listener listener = testing::Listener::Tcp();
    auto balancer = Balancer::Create().value();
    Source source =
        balancer->AddSource(listener.fd(), {.policy = PolicyByName(policy).value()}).value();
    std::atomic<bool> freeze{false};
    const auto join = [&](int ring_fd, uint64_t tag) {
      absl::StatusOr<Port> port =
          balancer->AddWorker({.ring_fd = ring_fd, .tag = tag, .window = kWindow});
      if (port.ok()) source.Join(*port).IgnoreError();
      return port;
    };
    const auto serve = [&](uint32_t worker, Connection connection) {
      if (freeze.exchange(false)) std::this_thread::sleep_for(kFreeze);
      testing::ServeIndex(worker, std::move(connection));
    };
    std::vector<std::unique_ptr<testing::Worker>> workers;
    for (int i = 0; i < 4; ++i) {
      workers.push_back(std::make_unique<testing::Worker>(join, serve));
    }

    std::vector<Clock::duration> late;
    int frozen = 0;
    for (int i = 0; i < kFreezes; ++i) {
      freeze = true;  // whoever serves next
      std::vector<Clock::duration> latencies = Load(listener, kConnectionsPerFreeze);
      EXPECT_EQ(latencies.size(), static_cast<size_t>(kConnectionsPerFreeze)) << policy;
      for (const Clock::duration latency : latencies) {
        if (latency >= kFreeze) {
          ++frozen;  // in the hands of the worker that froze
        } else if (latency >= kRecallAfter) {
          late.push_back(latency);
        }
      }
    }
    EXPECT_LE(frozen, kFreezes) << policy;
    const BalancerStats stats = balancer->Stats();
    uint64_t claimed = 0;
    for (const WorkerStats& worker : stats.workers) {
      claimed += worker.claimed;
      EXPECT_LE(worker.recalled, uint64_t{2} * kFreezes * kWindow) << policy;
    }
    EXPECT_EQ(claimed, static_cast<uint64_t>(kFreezes) * kConnectionsPerFreeze) << policy;
    std::sort(late.begin(), late.end());
    std::printf("%-15s recalled %3llu, late %3zu of %d", std::string(policy).c_str(),
                static_cast<unsigned long long>(stats.recalled), late.size(),
                kFreezes * kConnectionsPerFreeze);
    if (!late.empty()) {
      std::printf(": median %.1f ms, p99 %.1f ms, longest %.1f ms", Ms(late[late.size() / 2]),
                  Ms(late[late.size() * 99 / 100]), Ms(late.back()));
      EXPECT_LT(late.back(), kFreeze / 2) << policy;
    }
    std::printf("; in the frozen worker's hands %d\n", frozen);
  }
}

}  // namespace
}  // namespace ringmaster
