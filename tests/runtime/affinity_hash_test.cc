// Stickiness on the real ring: clients that bind addresses of 127.0.0.0/8 are told by each worker
// which one it is. Nothing is recalled, because a machine that holds a worker up for longer than
// recall_after would rightly make another one serve.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "ringmaster/balancer.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr uint32_t kWorkers = 4;
constexpr uint32_t kClients = 64;
constexpr int kConnectionsEach = 10;

// Like AskWhoServes, from 127.1.0.0 + `client`.
int AskWhoServes(const testing::Listener& listener, uint32_t client) {
  sockaddr_in server{};
  socklen_t size = sizeof(server);
  if (getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&server), &size) != 0) return -errno;
  sockaddr_in own{.sin_family = AF_INET};
  own.sin_addr.s_addr = htonl(0x7f010000 + client);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  uint8_t worker = 0;
  int answer = -EPIPE;
  if (bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof(own)) != 0 ||
      connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof(server)) != 0) {
    answer = -errno;
  } else if (recv(fd, &worker, 1, MSG_WAITALL) == 1) {
    answer = worker;
  }
  close(fd);
  return answer;
}

class AffinityHashTest : public ::testing::TestWithParam<Intake> {
 protected:
  void SetUp() override {
    if (const std::string why = testing::WhyNoIoUring(); !why.empty()) GTEST_SKIP() << why;
    balancer_ = Balancer::Create().value();
  }

  void Serve(const testing::Listener& listener) {
    source_ = balancer_
                  ->AddSource(listener.fd(),
                              {.policy = AffinityHash(), .intake = GetParam(), .recall = false})
                  .value();
    for (uint32_t i = 0; i < kWorkers; ++i) AddWorker();
  }

  void AddWorker() {
    const auto join = [this](int ring_fd, uint64_t tag) {
      absl::StatusOr<Port> port = balancer_->AddWorker({.ring_fd = ring_fd, .tag = tag});
      if (port.ok()) source_.Join(*port).IgnoreError();
      return port;
    };
    workers_.push_back(std::make_unique<testing::Worker>(join, testing::ServeIndex));
  }

  std::unique_ptr<Balancer> balancer_;
  Source source_;
  std::vector<std::unique_ptr<testing::Worker>> workers_;
};

TEST_P(AffinityHashTest, ServesEveryAddressByOneWorkerAndUsesThemAll) {
  const testing::Listener listener = testing::Listener::Tcp();
  Serve(listener);
  std::vector<int> homes;
  for (uint32_t client = 0; client < kClients; ++client) {
    homes.push_back(AskWhoServes(listener, client));
    ASSERT_GE(homes.back(), 0) << "client " << client;
  }
  for (int i = 1; i < kConnectionsEach; ++i) {
    for (uint32_t client = 0; client < kClients; ++client) {
      ASSERT_EQ(AskWhoServes(listener, client), homes[client]) << "client " << client;
    }
  }
  EXPECT_EQ(std::set<int>(homes.begin(), homes.end()).size(), kWorkers);
}

TEST_P(AffinityHashTest, MovesOnlyTheAddressesOfAWorkerThatLeaves) {
  const testing::Listener listener = testing::Listener::Tcp();
  Serve(listener);
  std::vector<int> homes;
  for (uint32_t client = 0; client < kClients; ++client) {
    homes.push_back(AskWhoServes(listener, client));
  }
  const int left = static_cast<int>(workers_.back()->index());
  workers_.pop_back();
  for (uint32_t client = 0; client < kClients; ++client) {
    const int home = AskWhoServes(listener, client);
    ASSERT_GE(home, 0);
    ASSERT_EQ(home != homes[client], homes[client] == left) << "client " << client;
  }
}

// All clients of a test are one process.
TEST_P(AffinityHashTest, ServesTheConnectionsOfAProcessByOneWorkerOnAUnixSocket) {
  const testing::Listener listener = testing::Listener::Unix();
  Serve(listener);
  const int home = testing::AskWhoServes(listener);
  ASSERT_GE(home, 0);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(testing::AskWhoServes(listener), home);
}

INSTANTIATE_TEST_SUITE_P(Intakes, AffinityHashTest,
                         ::testing::Values(Intake::kPollAccept, Intake::kAccept),
                         [](const auto& instance) {
                           return instance.param == Intake::kAccept ? "accept" : "poll_accept";
                         });

}  // namespace
}  // namespace ringmaster
