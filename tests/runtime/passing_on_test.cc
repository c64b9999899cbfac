// Open connections that workers pass on (Source::PassOn). Method: a worker passes on what it
// claims, or has, and whoever gets it answers the client. Where bytes are on their way meanwhile,
// each client checks its whole stream.

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "balancer_fixture.h"
#include "errands.h"
#include "ringmaster/balancer.h"
#include "ringmaster/policy.h"
#include "support/server.h"

namespace ringmaster {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

#ifdef RINGMASTER_TEST_SANITIZED
constexpr int kMany = 200;
#else
constexpr int kMany = 1000;
#endif

// --- What is refused -----------------------------------------------------------------------------

class PassingOnTest : public BalancerTest {
 protected:
  // Claims at a port of the thread of the test until there is a connection.
  static Connection ClaimOne(Port& port) {
    Connection claimed;
    EXPECT_TRUE(Eventually([&] {
      port.Claim([&](Connection connection) { claimed = std::move(connection); }, 1);
      return claimed.fd() >= 0;
    }));
    return claimed;
  }
  Port AddPort(const Mailbox& mailbox, Source source, WorkerOptions options = {}) {
    Port port = balancer_->AddWorker(mailbox, options).value();
    EXPECT_TRUE(source.Join(port, {.token = 77}).ok());
    return port;
  }
  SourceStats StatsOf(const Source& source) {
    for (const SourceStats& stats : balancer_->Stats().sources) {
      if (stats.source == source.index()) return stats;
    }
    return {};
  }

  const Listener listener_ = Listener::Tcp();
};

TEST_F(PassingOnTest, TheNextWorkerClaimsItWithItsOwnTokenAndLease) {
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  const int client = listener_.Connect();
  Connection connection = ClaimOne(port);
  ASSERT_EQ(write(client, "x", 1), 1);
  const int fd = connection.fd();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port other = AddPort(other_mailbox, source);
  ASSERT_TRUE(source.PassOn(std::move(connection)).ok());
  EXPECT_EQ(connection.fd(), -1);  // NOLINT(bugprone-use-after-move): it is said to be empty
  const Connection again = ClaimOne(other);
  EXPECT_EQ(again.fd(), fd);  // the same socket
  EXPECT_EQ(again.token(), 77u);
  char byte = 0;
  EXPECT_EQ(read(again.fd(), &byte, 1), 1);
  EXPECT_EQ(byte, 'x');
  const SourceStats stats = StatsOf(source);
  EXPECT_EQ(stats.accepted, 1u);
  EXPECT_EQ(stats.passed_on, 1u);
  EXPECT_EQ(stats.claimed, 2u);
  EXPECT_EQ(balancer_->Stats().passed_on, 1u);
  EXPECT_EQ(balancer_->Stats().workers[0].open, 0u);
  EXPECT_EQ(balancer_->Stats().workers[1].open, 1u);
  close(client);
}

// On an error nothing has changed, and the connection is still the caller's.
TEST_F(PassingOnTest, IsRefusedInWordsAndStaysWithTheCaller) {
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  const int client = listener_.Connect();
  Connection connection = ClaimOne(port);
  const int fd = connection.fd();
  const auto refused = [&](Source to, absl::StatusCode code, const char* why) {
    const absl::Status status = to.PassOn(std::move(connection));
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), why)) << status;
    EXPECT_EQ(connection.fd(), fd);  // NOLINT(bugprone-use-after-move): it was not moved from
  };
  refused({}, kPrecondition, "no balancer");
  refused(source, kPrecondition, "no other worker has joined");
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port other = AddPort(other_mailbox, source);
  EXPECT_EQ(source.PassOn(Connection()).code(), kInvalid);
  EXPECT_EQ(source.PassOn(fd, Lease()).code(), kInvalid);

  const Listener tickets = Listener::Tcp();
  Source readiness = AddSource(tickets, {.intake = Intake::kReadiness});
  ASSERT_TRUE(readiness.Join(other).ok());
  refused(readiness, kInvalid, "tickets");

  const auto stranger = Balancer::Create({}).value();
  const Listener third = Listener::Tcp();
  refused(stranger->AddSource(third.fd()).value(), kInvalid, "another balancer");

  const pid_t child = fork();
  if (child == 0) {
    const absl::Status status = source.PassOn(std::move(connection));
    _exit(status.code() == kPrecondition ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);

  ASSERT_TRUE(source.Remove().ok());
  refused(source, kPrecondition, "was removed");
  const Listener fourth = Listener::Tcp();
  Source drains = AddSource(fourth);
  ASSERT_TRUE(drains.Join(other).ok());
  ASSERT_TRUE(balancer_->BeginShutdown({.drain = absl::Minutes(1)}).ok());
  ASSERT_TRUE(Eventually([&] { return port.draining(); }));
  refused(drains, kPrecondition, "shutting down");
  connection = Connection();
  EXPECT_TRUE(balancer_->Shutdown(absl::Seconds(10)).drained);
  close(client);
}

TEST_F(PassingOnTest, NobodyElseIsLeftWhenTheOthersHaveLeft) {
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  const int client = listener_.Connect();
  Connection connection = ClaimOne(port);
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port other = AddPort(other_mailbox, source);
  Port third = balancer_->AddWorker(Mailbox::Create().value()).value();  // has not joined
  other.Leave();
  EXPECT_EQ(source.PassOn(std::move(connection)).code(), kPrecondition);
  ASSERT_TRUE(source.Join(third).ok());
  EXPECT_TRUE(source.PassOn(std::move(connection)).ok());  // NOLINT(bugprone-use-after-move)
  connection = ClaimOne(third);
  // Of a worker that has left, the only one that has joined is another one.
  third.Leave();
  EXPECT_TRUE(source.PassOn(std::move(connection)).ok());
  EXPECT_GE(ClaimOne(port).fd(), 0);
  close(client);
}

// --- What becomes of it --------------------------------------------------------------------------

TEST_F(PassingOnTest, ThePolicySeesWhoConnectsAndTheOthers) {
  class Watching final : public Policy {
   public:
    explicit Watching(std::atomic<uint32_t>* seen) : seen_(seen) {}
    std::string name() const override { return "watching"; }
    FactsNeeded facts() const override { return {.peer = true}; }
    size_t Pick(const Arrival& arrival, const View& view) override {
      *seen_ = arrival.peer.port << 16 | static_cast<uint32_t>(view.joined.size());
      return 0;
    }
    std::atomic<uint32_t>* const seen_;
  };
  std::atomic<uint32_t> seen{0};
  Source source = AddSource(listener_, {.policy = LeastLoaded()});
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  const int client = listener_.Connect();
  Connection connection = ClaimOne(port);
  Port other = AddPort(other_mailbox, source);
  ASSERT_TRUE(source.SetPolicy(std::make_unique<Watching>(&seen)).ok());
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  ASSERT_EQ(getsockname(client, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ASSERT_TRUE(source.PassOn(std::move(connection)).ok());
  connection = ClaimOne(other);
  EXPECT_EQ(seen, uint32_t{ntohs(address.sin_port)} << 16 | 1u);
  close(client);
}

TEST_F(PassingOnTest, KeepsItsPlaceInTheLimitsOfTheSourceThatItIsPassedTo) {
  Create({.capacity = 2});
  Source one = AddSource(listener_, {.capacity = 1});
  const Listener second = Listener::Tcp();
  Source two = AddSource(second, {.capacity = 1});
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, one);
  Port other = AddPort(other_mailbox, two);
  const int client = listener_.Connect();
  Connection connection = ClaimOne(port);
  ASSERT_TRUE(two.PassOn(std::move(connection)).ok());
  connection = ClaimOne(other);
  // Now there is a place at the first, and none at the second.
  const int next = listener_.Connect();
  Connection of_next = ClaimOne(port);
  const int waits = second.Connect();
  // Their ends are those of the right leases: all places are free again.
  connection = Connection();
  of_next = Connection();
  connection = ClaimOne(other);
  const int last = listener_.Connect();
  of_next = ClaimOne(port);
  for (const int fd : {client, next, waits, last}) close(fd);
}

TEST_F(PassingOnTest, IsClosedAndCountedByAShutdownThatFindsItUnclaimed) {
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  std::vector<int> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(listener_.Connect());
  std::vector<Connection> connections;
  for (int i = 0; i < 3; ++i) connections.push_back(ClaimOne(port));
  Port other = AddPort(other_mailbox, source, {.window = 1});
  for (Connection& connection : connections) {
    ASSERT_TRUE(source.PassOn(std::move(connection)).ok());
  }
  const ShutdownReport report = balancer_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(report.refused, 3u);
  EXPECT_FALSE(report.drained);
  EXPECT_EQ(report.open, 0u);
  EXPECT_EQ(report.stats.passed_on, 3u);
  EXPECT_EQ(report.stats.sources[0].claimed, 3u);
  ExpectEnds(clients);
}

TEST_F(PassingOnTest, IsClosedWhenItsSourceIsRemovedAndNobodyIsLeft) {
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  const int client = listener_.Connect();
  Connection connection = ClaimOne(port);
  Port other = AddPort(other_mailbox, source);
  ASSERT_TRUE(source.PassOn(std::move(connection)).ok());
  ASSERT_TRUE(source.Remove().ok());
  port.Leave();
  other.Leave();
  ExpectEnds({client});
  EXPECT_TRUE(Eventually([&] { return balancer_->Stats().refused == 1; }));
}

TEST_F(PassingOnTest, ASurplusIsWhatIsAboveAnEqualShare) {
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source);
  EXPECT_EQ(port.Surplus(), 0u);
  std::vector<int> clients;
  std::vector<Connection> connections;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(listener_.Connect());
    connections.push_back(ClaimOne(port));
  }
  EXPECT_EQ(port.Surplus(), 0u);  // it is alone
  Port other = AddPort(other_mailbox, source);
  EXPECT_EQ(port.Surplus(), 2u);  // of five, three are its share
  EXPECT_EQ(other.Surplus(), 0u);
  for (uint32_t left = port.Surplus(); left > 0; --left) {
    ASSERT_TRUE(source.PassOn(std::move(connections[left])).ok());
  }
  std::array<Connection, 2> passed_on = {ClaimOne(other), ClaimOne(other)};
  EXPECT_EQ(port.Surplus() + other.Surplus(), 0u);
  port.Leave();
  EXPECT_EQ(port.Surplus(), 0u);
  EXPECT_EQ(other.Surplus(), 0u);
  for (const int client : clients) close(client);
}

// --- Every way of working ------------------------------------------------------------------------

struct Way {
  const char* name;
  Intake intake = Intake::kPollAccept;
  Handoff handoff = Handoff::kInbox;
  uint32_t masters = 1;
};

class EveryWay : public PassingOnTest, public ::testing::WithParamInterface<Way> {};
INSTANTIATE_TEST_SUITE_P(
    Ways, EveryWay,
    ::testing::Values(
        Way{.name = "PollAccept"}, Way{.name = "Accept", .intake = Intake::kAccept},
        Way{.name = "Completion", .handoff = Handoff::kCompletion},
        Way{.name = "AcceptCompletion", .intake = Intake::kAccept, .handoff = Handoff::kCompletion},
        Way{.name = "Masters", .masters = 3},
        Way{.name = "MastersCompletion", .handoff = Handoff::kCompletion, .masters = 3}),
    [](const auto& way) { return std::string(way.param.name); });

// The first of three workers passes on all that it gets, in the middle of its claims.
TEST_P(EveryWay, WhatOnePassesOnTheOthersServe) {
  Create({.masters = GetParam().masters});
  Source source = AddSource(listener_, {.policy = RoundRobin(), .intake = GetParam().intake});
  std::atomic<int> refused{0};
  const WorkerOptions options{.handoff = GetParam().handoff, .window = 2};
  const auto giver = AddWorker(
      {source},
      [&](uint32_t, Connection connection) {
        if (!source.PassOn(std::move(connection)).ok()) ++refused;
      },
      options);
  const auto second = AddWorker({source}, ServeIndex, options);
  const auto third = AddWorker({source}, ServeIndex, options);
  constexpr int kClients = 300;
  std::vector<std::thread> clients;
  std::atomic<int> wrong{0};
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back([&] {
      for (int n = 0; n < kClients; ++n) {
        const int server = AskWhoServes(listener_);
        wrong += server < 0 || server == static_cast<int>(giver->index());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong, 0);
  const uint64_t served =
      4 * kClients + AskUntil(listener_, 0, [&] { return giver->claimed() > 0; });
  EXPECT_EQ(refused, 0);
  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(10));
  EXPECT_TRUE(report.drained);
  EXPECT_EQ(report.stats.accepted, served);
  EXPECT_EQ(report.stats.passed_on, giver->claimed());
  EXPECT_EQ(report.stats.sources[0].claimed, served + giver->claimed());
  EXPECT_EQ(report.refused, 0u);
}

// A loop drives the master, and passes on what it claims itself.
TEST_F(PassingOnTest, AHostPassesOnWhatItClaims) {
  Create({.host = Host::kLoop});
  Source source = AddSource(listener_, {.policy = RoundRobin()});
  std::atomic<bool> stop{false};
  std::atomic<int> passed_on{0};
  std::thread host([&] {
    Port port = balancer_->AddWorker({.on_host = true}).value();
    EXPECT_TRUE(source.Join(port).ok());
    while (!stop) {
      pollfd entry{.fd = balancer_->fd(), .events = POLLIN, .revents = 0};
      poll(&entry, 1, 10);
      EXPECT_TRUE(balancer_->RunOnce().ok());
      port.Claim(
          [&](Connection connection) { passed_on += source.PassOn(std::move(connection)).ok(); });
    }
  });
  const auto worker = AddWorker({source});
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(AskWhoServes(listener_), static_cast<int>(worker->index())) << i;
  }
  EXPECT_GT(passed_on, 0);
  stop = true;
  host.join();
}

// Nobody drives the master any more: what is passed on waits for the next host, and is closed if
// the balancer ends before.
TEST_F(PassingOnTest, WaitsForAHostAndIsClosedIfNoneComes) {
  Create({.host = Host::kLoop});
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port port;
  Port other;
  std::vector<Connection> connections;
  std::vector<int> clients;
  const auto as_host = [&](const std::function<bool()>& until) {
    std::thread([&] {
      EXPECT_TRUE(Eventually([&] {
        EXPECT_TRUE(balancer_->RunOnce().ok());
        return until();
      }));
    }).join();
  };
  port = AddPort(mailbox, source);
  for (int i = 0; i < 2; ++i) clients.push_back(listener_.Connect());
  as_host([&] {
    port.Claim([&](Connection connection) { connections.push_back(std::move(connection)); });
    return connections.size() == 2;
  });
  other = AddPort(other_mailbox, source);
  ASSERT_TRUE(source.PassOn(std::move(connections[0])).ok());
  Connection claimed;
  as_host([&] {
    other.Claim([&](Connection connection) { claimed = std::move(connection); });
    return claimed.fd() >= 0;
  });
  ASSERT_TRUE(source.PassOn(std::move(connections[1])).ok());
  const ShutdownReport report = balancer_->Shutdown(absl::Seconds(1));
  EXPECT_EQ(report.refused, 1u);
  EXPECT_EQ(report.stats.passed_on, 2u);
  EXPECT_FALSE(report.drained);
  claimed = Connection();
  ExpectEnds(clients);
}

TEST_F(PassingOnTest, ManyThatArePassedOnTogetherAreOneBatch) {
  Create({.host = Host::kLoop});
  Source source = AddSource(listener_);
  const Mailbox mailbox = Mailbox::Create().value();
  const Mailbox other_mailbox = Mailbox::Create().value();
  Port port = AddPort(mailbox, source, {.window = 256});
  std::vector<int> clients;
  std::vector<Connection> connections;
  for (int i = 0; i < 100; ++i) clients.push_back(listener_.Connect());
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(balancer_->RunOnce().ok());
    port.Claim([&](Connection connection) { connections.push_back(std::move(connection)); });
    return connections.size() == clients.size();
  }));
  Port other = AddPort(other_mailbox, source, {.window = 256});
  EXPECT_TRUE(balancer_->RunOnce().ok());
  for (Connection& connection : connections) {
    ASSERT_TRUE(source.PassOn(std::move(connection)).ok());
  }
  connections.clear();
  EXPECT_TRUE(balancer_->RunOnce().ok());
  other.Claim([&](Connection connection) { connections.push_back(std::move(connection)); });
  EXPECT_EQ(connections.size(), clients.size());
  for (const int client : clients) close(client);
}

// --- Bytes on their way --------------------------------------------------------------------------

// A worker with an epoll loop that keeps its connections and answers each request with the same
// bytes and its own index. It passes connections on between two requests: when it is told to, all
// that it has, and then it leaves.
constexpr size_t kRequestBytes = 8;

class EchoWorker {
 public:
  EchoWorker(Balancer& balancer, Source source) : source_(std::move(source)) {
    port_ = balancer.AddWorker(mailbox_).value();
    EXPECT_TRUE(source_.Join(port_).ok());
    thread_ = std::thread([this] { Run(); });
  }
  ~EchoWorker() { Stop(); }
  EchoWorker(const EchoWorker&) = delete;
  EchoWorker& operator=(const EchoWorker&) = delete;

  // Returns when it has left.
  void PassAllOnAndLeave() {
    errands_.Do([this] { PassAllOn(); });
    Stop();
  }
  void Stop() {
    if (!thread_.joinable()) return;
    errands_.Stop();
    thread_.join();
  }
  size_t size() const { return size_; }
  uint32_t index() const { return port_.worker(); }

 private:
  void Run() {
    Watch(errands_.fd());
    Watch(mailbox_.fd());
    while (!errands_.stopped()) {
      std::array<epoll_event, 64> events;
      const int count = epoll_wait(epoll_fd_, events.data(), events.size(), -1);
      for (int i = 0; i < count; ++i) {
        const int fd = events[static_cast<size_t>(i)].data.fd;
        if (fd == errands_.fd()) {
          errands_.OnReadable();
        } else if (fd == mailbox_.fd()) {
          port_.Claim([this](Connection connection) { Begin(std::move(connection)); });
        } else if (leases_.contains(fd)) {
          Serve(fd);
        }
      }
    }
    port_.Leave();
    while (!leases_.empty()) End(leases_.begin()->first);
    close(epoll_fd_);
  }
  void Watch(int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    EXPECT_EQ(epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event), 0);
  }
  void Begin(Connection connection) {
    const int fd = connection.TakeFd();
    leases_[fd] = connection.TakeLease();
    size_ = leases_.size();
    Watch(fd);
  }
  // A request that is there in part is left to the kernel, so nothing is read that is not answered.
  void Serve(int fd) {
    std::array<char, kRequestBytes + 1> bytes;
    int available = 0;
    if (ioctl(fd, FIONREAD, &available) == 0 && available == 0) return End(fd);
    for (; available >= static_cast<int>(kRequestBytes);
         available -= static_cast<int>(kRequestBytes)) {
      EXPECT_EQ(read(fd, bytes.data(), kRequestBytes), static_cast<ssize_t>(kRequestBytes));
      bytes[kRequestBytes] = static_cast<char>(port_.worker());
      EXPECT_EQ(write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    }
  }
  void End(int fd) {
    const Lease lease = std::move(leases_[fd]);
    leases_.erase(fd);
    size_ = leases_.size();
    close(fd);
  }
  void PassAllOn() {
    EXPECT_TRUE(source_.Leave(port_).ok());
    // What it had claimed by then is there.
    for (auto& [fd, lease] : leases_) {
      EXPECT_EQ(epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr), 0);
      const absl::Status passed_on = source_.PassOn(fd, std::move(lease));
      EXPECT_TRUE(passed_on.ok()) << passed_on;
    }
    leases_.clear();
    size_ = 0;
  }

  Source source_;
  const Mailbox mailbox_ = Mailbox::Create().value();
  const int epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  Errands errands_;
  Port port_;
  std::map<int, Lease> leases_;
  std::atomic<size_t> size_{0};
  std::thread thread_;
};

// Clients that stay, and ask in rounds until they are told to stop. A request is written in two
// parts, all first parts of a round before the second ones, so something is always on its way.
class Stayers {
 public:
  Stayers(const Listener& listener, int count) {
    for (int i = 0; i < count; ++i) clients_.push_back({.fd = listener.Connect()});
  }
  ~Stayers() {
    for (const Client& client : clients_) close(client.fd);
  }
  Stayers(const Stayers&) = delete;
  Stayers& operator=(const Stayers&) = delete;

  void Start() {
    thread_ = std::thread([this] {
      while (!stop_) Round();
    });
  }
  void Stop() {
    stop_ = true;
    thread_.join();
  }
  void Round() {
    for (Client& client : clients_) {
      client.sent = 1 + rounds_ % 3;  // so many requests at once
      Write(client, 0, 5);
    }
    for (Client& client : clients_) Write(client, 5, kRequestBytes * client.sent);
    for (Client& client : clients_) Read(client);
    ++rounds_;
  }
  uint64_t rounds() const { return rounds_; }
  uint64_t wrong() const { return wrong_; }
  // Who has answered the last request of each.
  std::vector<int> servers() const {
    std::vector<int> servers;
    for (const Client& client : clients_) servers.push_back(client.server);
    return servers;
  }

 private:
  struct Client {
    int fd = -1;
    uint64_t next = 0;  // the number of its next request
    uint64_t sent = 0;
    int server = -1;
  };
  // The bytes from `begin` to `end` of its next requests.
  void Write(const Client& client, size_t begin, size_t end) {
    std::string bytes;
    for (uint64_t i = 0; i < client.sent; ++i) {
      const uint64_t request = Request(client, client.next + i);
      bytes.append(reinterpret_cast<const char*>(&request), sizeof(request));
    }
    wrong_ += send(client.fd, bytes.data() + begin, end - begin, MSG_NOSIGNAL) !=
              static_cast<ssize_t>(end - begin);
  }
  void Read(Client& client) {
    for (uint64_t i = 0; i < client.sent; ++i) {
      std::array<char, kRequestBytes + 1> bytes;
      if (recv(client.fd, bytes.data(), bytes.size(), MSG_WAITALL) !=
          static_cast<ssize_t>(bytes.size())) {
        ++wrong_;  // an end, or a reset
        return;
      }
      const uint64_t request = Request(client, client.next++);
      wrong_ += std::memcmp(bytes.data(), &request, sizeof(request)) != 0;
      client.server = bytes[kRequestBytes];
    }
  }
  static uint64_t Request(const Client& client, uint64_t number) {
    return (uint64_t{static_cast<uint32_t>(client.fd)} << 40 | number) * 0x9e3779b97f4a7c15;
  }

  std::vector<Client> clients_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> rounds_{0};
  std::atomic<uint64_t> wrong_{0};
  std::thread thread_;
};

// As many descriptors as the process may have.
void RaiseDescriptorLimit() {
  rlimit limit{};
  EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

class BytesOnTheirWay : public PassingOnTest, public ::testing::WithParamInterface<Intake> {};
INSTANTIATE_TEST_SUITE_P(Intakes, BytesOnTheirWay,
                         ::testing::Values(Intake::kPollAccept, Intake::kAccept),
                         [](const auto& intake) {
                           return std::string(intake.param == Intake::kAccept ? "Accept"
                                                                              : "PollAccept");
                         });

TEST_P(BytesOnTheirWay, AreServedByOthersWhenAWorkerLeavesWithManyConnections) {
  RaiseDescriptorLimit();
  Source source = AddSource(listener_, {.policy = LeastLoaded(), .intake = GetParam()});
  EchoWorker leaver(*balancer_, source);
  Stayers stayers(listener_, kMany);
  stayers.Round();
  ASSERT_EQ(leaver.size(), static_cast<size_t>(kMany));
  EchoWorker second(*balancer_, source);
  EchoWorker third(*balancer_, source);
  stayers.Start();
  ASSERT_TRUE(Eventually([&] { return stayers.rounds() > 2; }));
  leaver.PassAllOnAndLeave();
  const uint64_t moved = stayers.rounds();
  ASSERT_TRUE(Eventually([&] { return stayers.rounds() > moved + 2; }));
  stayers.Stop();
  EXPECT_EQ(stayers.wrong(), 0u);
  std::map<int, int> served;
  for (const int server : stayers.servers()) ++served[server];
  const int of_second = served[static_cast<int>(second.index())];
  const int of_third = served[static_cast<int>(third.index())];
  EXPECT_EQ(of_second + of_third, kMany);
  EXPECT_GT(of_second, 0);
  EXPECT_GT(of_third, 0);
  const SourceStats stats = StatsOf(source);
  EXPECT_EQ(stats.accepted, static_cast<uint64_t>(kMany));
  EXPECT_EQ(stats.passed_on, static_cast<uint64_t>(kMany));
  EXPECT_EQ(stats.claimed, 2 * static_cast<uint64_t>(kMany));
  EXPECT_EQ(stats.refused + stats.dropped, 0u);
}

}  // namespace
}  // namespace ringmaster
