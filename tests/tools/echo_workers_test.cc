// How ringmaster-echo goes on when the number of its workers changes: the real program, asked by
// signals, while clients that stay check every byte. Some of them are in the middle of a line, or
// have just sent one, whenever a connection goes from one worker to another.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "echo_server.h"
#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

#ifdef RINGMASTER_TEST_SANITIZED
constexpr size_t kMany = 300;
#else
constexpr size_t kMany = 1000;
#endif

// Clients that stay, for one thread. Each sends lines of its own and demands exactly them back.
class Stayers {
 public:
  // One after the other, each when the one before it has got a line back. So a worker has as many
  // as its policy wants it to have, however slow it is.
  Stayers(const std::string& address, size_t count) {
    for (size_t i = 0; i < count && problem_.empty(); ++i) {
      const int fd = ConnectTo(address, kSoon);
      if (fd < 0) break;
      fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
      clients_.push_back({.fd = fd});
      Say(i);
      Say(i);
      pollfd answer{.fd = fd, .events = POLLIN, .revents = 0};
      const auto until = steady_clock::now() + kSoon;
      while (problem_.empty() && !clients_[i].awaited.empty()) {
        if (poll(&answer, 1, 100) == 1) ReceiveOf(i);
        if (steady_clock::now() > until) Note(i, "got no answer");
      }
    }
  }
  ~Stayers() { Close(); }
  Stayers(const Stayers&) = delete;
  Stayers& operator=(const Stayers&) = delete;

  size_t size() const { return clients_.size(); }
  void Close() {
    for (const Client& client : clients_) close(client.fd);
    clients_.clear();
  }

  // All say a line at once, and get it back.
  void AskAll() {
    for (size_t i = 0; i < size(); ++i) {
      Say(i);
      if (within_line(i)) Say(i);
    }
    ReceiveUntilAnswered();
  }

  // Every `each`-th client goes on, by half a line at a time, until `done`; then all lines end.
  template <typename Done>
  void TalkUntil(size_t each, Done done) {
    for (size_t round = 0; !done(); ++round) {
      for (size_t i = round % each; i < size(); i += each) Say(i);
      Receive(milliseconds(1));
    }
    for (size_t i = 0; i < size(); ++i) {
      if (within_line(i)) Say(i);
    }
    ReceiveUntilAnswered();
  }

  // What was wrong; empty if nothing was.
  const std::string& problem() const { return problem_; }

 private:
  struct Client {
    int fd;
    int halves = 0;            // of lines, that it has sent
    std::string awaited = {};  // what it has sent and not got back
  };

  bool within_line(size_t i) const { return clients_[i].halves % 2 == 1; }

  // The next half of a line.
  void Say(size_t i) {
    Client& client = clients_[i];
    const bool ends = within_line(i);
    ++client.halves;
    const std::string half = std::to_string(i) + (ends ? " ends\n" : " begins line ") +
                             (ends ? "" : std::to_string(client.halves) + ": ");
    client.awaited += half;
    if (send(client.fd, half.data(), half.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(half.size())) {
      Note(i, "cannot send");
    }
  }

  void ReceiveUntilAnswered() {
    const auto until = steady_clock::now() + kSoon;
    while (problem_.empty() && Receive(milliseconds(100)) > 0) {
      if (steady_clock::now() > until) problem_ = "some got no answer";
    }
  }

  // Returns how many still wait for something.
  size_t Receive(milliseconds patience) {
    std::vector<pollfd> waits;
    for (size_t i = 0; i < size(); ++i) {
      // Whoever waits for nothing is told of an end.
      waits.push_back({.fd = clients_[i].fd, .events = POLLIN, .revents = 0});
    }
    poll(waits.data(), waits.size(), static_cast<int>(patience.count()));
    size_t waiting = 0;
    for (size_t i = 0; i < size(); ++i) {
      if (waits[i].revents != 0) ReceiveOf(i);
      waiting += !clients_[i].awaited.empty();
    }
    return waiting;
  }

  void ReceiveOf(size_t i) {
    std::string& awaited = clients_[i].awaited;
    std::array<char, 4096> bytes;
    const ssize_t count = recv(clients_[i].fd, bytes.data(), bytes.size(), 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) return Note(i, count == 0 ? "was hung up on" : "was reset");
    const std::string text(bytes.data(), static_cast<size_t>(count));
    if (!awaited.starts_with(text)) return Note(i, "got other bytes: " + text);
    awaited.erase(0, text.size());
  }

  void Note(size_t i, const std::string& what) {
    if (problem_.empty()) problem_ = "client " + std::to_string(i) + " " + what;
  }

  std::vector<Client> clients_;
  std::string problem_;
};

// Loop and handoff.
using Kind = std::tuple<const char*, const char*>;

class EchoWorkers : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (const std::string reason = WhyNoIoUringHere(); !reason.empty()) GTEST_SKIP() << reason;
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  static std::vector<std::string> Arguments(std::vector<std::string> more) {
    const auto& [loop, handoff] = GetParam();
    more.insert(more.end(), {"--json", "--loop", loop, "--handoff", handoff});
    return more;
  }
  // Whether the server says that; for TalkUntil.
  static auto Says(EchoServer& server, const std::string& line) {
    return [&server, line, until = steady_clock::now() + kSoon] {
      return server.child().WaitForErrLine(line, milliseconds(1)).has_value() ||
             steady_clock::now() > until;
    };
  }
  static bool HasSaid(EchoServer& server, const std::string& line) {
    return server.child().err().find(line) != std::string::npos;
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, EchoWorkers,
                         ::testing::Combine(::testing::Values("uring", "epoll"),
                                            ::testing::Values("inbox", "completion")),
                         [](const auto& instance) {
                           return std::string(std::get<0>(instance.param)) + "_" +
                                  std::get<1>(instance.param);
                         });

TEST_P(EchoWorkers, OneThatLeavesPassesItsConnectionsOnAndNoClientNotices) {
  // More than two workers have if each has kMany: they need not have equally many.
  constexpr size_t kClients = kMany * 5 / 2;
  EchoServer server(Arguments({"--workers", "2", "--policy", "round-robin"}));
  ASSERT_NE(server.address(), "") << server.Complaint();
  Stayers clients(server.address(), kClients);
  ASSERT_EQ(clients.size(), kClients);
  clients.AskAll();
  server.child().Signal(SIGTTOU);
  clients.TalkUntil(5, Says(server, "worker 1 has left"));
  EXPECT_TRUE(HasSaid(server, "worker 1 has left")) << server.Complaint();
  clients.AskAll();
  EXPECT_EQ(clients.problem(), "");
  clients.Close();
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], kClients);
  EXPECT_EQ(result["refused"], 0);
  EXPECT_EQ(result["drained"], true);
  // All that had it are another's, and nobody's who was there is missing.
  EXPECT_GE(result["passed_on"], kMany);
  EXPECT_EQ(result["departed"]["claimed"], result["passed_on"]);
  ASSERT_EQ(result["workers"].size(), 1u) << result;
  EXPECT_EQ(result["workers"][0]["claimed"], kClients);
}

TEST_P(EchoWorkers, OneThatJoinsGetsItsShareAndTheLastOneStays) {
  EchoServer server(Arguments({"--workers", "1"}));
  ASSERT_NE(server.address(), "") << server.Complaint();
  constexpr size_t kClients = 300;
  Stayers clients(server.address(), kClients);
  ASSERT_EQ(clients.size(), kClients);
  clients.AskAll();
  server.child().Signal(SIGTTIN);
  // While nobody says anything, it can choose among all of them.
  EXPECT_TRUE(server.child().WaitForErrLine("worker 0 has passed on 150 connections", kSoon))
      << server.Complaint();
  clients.AskAll();  // what was passed on counts as nobody's until the other worker has it
  server.child().Signal(SIGTTIN);
  clients.TalkUntil(10, Says(server, "worker 1 has passed on "));
  EXPECT_TRUE(HasSaid(server, "worker 1 has passed on ")) << server.Complaint();
  clients.AskAll();
  for (const char* const line : {"worker 2 has left", "worker 1 has left"}) {
    server.child().Signal(SIGTTOU);
    clients.TalkUntil(10, Says(server, line));
    EXPECT_TRUE(HasSaid(server, line)) << server.Complaint();
  }
  server.child().Signal(SIGTTOU);
  clients.TalkUntil(10, Says(server, "worker 0 is the last one, and stays"));
  clients.AskAll();
  EXPECT_EQ(clients.problem(), "");
  EXPECT_TRUE(HasSaid(server, "worker 0 is the last one, and stays")) << server.Complaint();
  clients.Close();
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], kClients);
  EXPECT_EQ(result["refused"], 0);
  EXPECT_EQ(result["drained"], true);
  EXPECT_EQ(result["workers"][0]["claimed"].get<uint64_t>() +
                result["departed"]["claimed"].get<uint64_t>(),
            kClients + result["passed_on"].get<uint64_t>());
}

// Everybody is in the middle of a line, or between two, when the worker is asked to leave.
TEST_P(EchoWorkers, NoLineIsCut) {
  EchoServer server(Arguments({"--workers", "2", "--policy", "round-robin"}));
  ASSERT_NE(server.address(), "") << server.Complaint();
  Stayers clients(server.address(), 20);
  ASSERT_EQ(clients.size(), 20u);
  clients.AskAll();
  int half = 0;
  clients.TalkUntil(1, [&] {
    if (++half == 2) server.child().Signal(SIGTTOU);
    return half == 40;
  });
  clients.TalkUntil(2, Says(server, "worker 1 has left"));
  EXPECT_TRUE(HasSaid(server, "worker 1 has left")) << server.Complaint();
  clients.AskAll();
  EXPECT_EQ(clients.problem(), "");
}

// A worker that accepts itself has nobody to pass a connection on to: it serves what it has.
TEST_P(EchoWorkers, WhatCannotBePassedOnIsServedToItsEnd) {
  if (std::string(std::get<1>(GetParam())) != "inbox") GTEST_SKIP() << "tickets need an inbox";
  EchoServer server(
      Arguments({"--workers", "2", "--policy", "round-robin", "--intake", "readiness"}));
  ASSERT_NE(server.address(), "") << server.Complaint();
  Stayers clients(server.address(), 20);
  ASSERT_EQ(clients.size(), 20u);
  clients.AskAll();
  server.child().Signal(SIGTTOU);
  Stayers late(server.address(), 20);
  for (int i = 0; i < 20; ++i) {
    clients.AskAll();
    late.AskAll();
  }
  EXPECT_EQ(clients.problem(), "");
  EXPECT_EQ(late.problem(), "");
  EXPECT_FALSE(HasSaid(server, "has left")) << server.Complaint();
  clients.Close();
  late.Close();  // who came before the worker had left its source may be with it, too
  EXPECT_TRUE(server.child().WaitForErrLine("worker 1 has left", kSoon)) << server.Complaint();
  Stayers others(server.address(), 20);
  others.AskAll();
  EXPECT_EQ(others.problem(), "");
}

}  // namespace
}  // namespace ringmaster::testing
