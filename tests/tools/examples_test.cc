// The programs of tools/examples, as a user runs them, against clients that check what they get.
// What a client waits for is bounded by kSoon, which is no estimate. Each program is asked to end
// while clients keep silent connections; none of them waits out its drain of ten seconds.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "child_process.h"
#include "echo_server.h"
#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// Below the drain of the examples, so that who waits it out is found.
constexpr std::chrono::seconds kBeforeTheDeadline(8);

std::string PathOf(const std::string& name) {
  const char* const folder = std::getenv("RINGMASTER_EXAMPLES");
  return std::string(folder == nullptr ? "." : folder) + "/" + name;
}

sockaddr_in Address(const char* host, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  inet_pton(AF_INET, host, &address.sin_addr);
  return address;
}

// A port that nothing uses now. Below those that the kernel gives to clients, so that no client of
// another test gets it before the server does.
uint16_t FreePort(int type) {
  static uint32_t next = static_cast<uint32_t>(getpid());
  while (true) {
    const auto port = static_cast<uint16_t>(20'000 + next++ % 10'000);
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Address("0.0.0.0", port);
    const bool free = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    close(fd);
    if (free) return port;
  }
}

class ExamplesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = WhyNoIoUringHere(); !why.empty()) GTEST_SKIP() << why;
  }

  // Returns when it accepts.
  void Start(const std::string& name, const std::vector<std::string>& more = {}) {
    port_ = FreePort(SOCK_STREAM);
    Run(name, more);
    const auto until = Clock::now() + kSoon;
    while (Clock::now() < until) {
      const int client = Connect();
      if (client >= 0) {
        close(client);
        return;
      }
      poll(nullptr, 0, 5);
    }
    FAIL() << name << " does not accept: " << child_->err();
  }
  void Run(const std::string& name, const std::vector<std::string>& more = {}) {
    std::vector<std::string> command = {PathOf(name), std::to_string(port_)};
    command.insert(command.end(), more.begin(), more.end());
    child_ = std::make_unique<ChildProcess>(ChildOptions{.command = command});
  }
  bool Exists(const std::string& name) const { return std::filesystem::exists(PathOf(name)); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // A blocking client, or -errno. It comes from `source`, unless that is null.
  int Connect(const char* source = nullptr) const {
    if (source == nullptr) return ConnectTo(address(), kSoon);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in from = Address(source, 0);
    const sockaddr_in to = Address("127.0.0.1", port_);
    EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof(from)), 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    return fd;
  }
  // What the server says to a client that says nothing.
  std::string Ask(const char* source = nullptr) const {
    const int fd = Connect(source);
    std::string answer = ReadToTheEnd(fd);
    close(fd);
    return answer;
  }
  // What comes until the server closes; "error: " and the errno if that ends it.
  static std::string ReadToTheEnd(int fd) {
    std::string text;
    std::array<char, 256> bytes;
    ssize_t size;
    while ((size = recv(fd, bytes.data(), bytes.size(), 0)) > 0) {
      text.append(bytes.data(), static_cast<size_t>(size));
    }
    return size == 0 ? text : "error: " + std::to_string(errno);
  }
  static std::string ReadLine(int fd) {
    std::string text;
    for (char byte = 0; byte != '\n' && recv(fd, &byte, 1, 0) == 1;) text += byte;
    return text;
  }
  static void Send(int fd, const std::string& text) {
    EXPECT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

  // It ends because of the signal, and says so.
  void ExpectToEnd() {
    child_->Signal(SIGTERM);
    EXPECT_EQ(child_->WaitForExit(kBeforeTheDeadline), 0) << child_->err();
    EXPECT_NE(child_->err().find("because of: Terminated"), std::string::npos) << child_->err();
  }

  uint16_t port_ = 0;
  std::unique_ptr<ChildProcess> child_;
};

class EchoExamplesTest : public ExamplesTest, public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, EchoExamplesTest,
                         ::testing::Values("epoll_loop", "epoll_loop_in_c", "uring_loop",
                                           "coroutine_loop", "libuv_loop", "libevent_loop",
                                           "asio_loop", "hosted_on_loop", "forked_workers"),
                         [](const auto& instance) { return std::string(instance.param); });

TEST_P(EchoExamplesTest, EchoesAndDoesNotWaitForSilentClients) {
  if (!Exists(GetParam())) GTEST_SKIP() << "the library that it needs was not found";
  Start(GetParam());
  if (HasFatalFailure()) return;
  for (const EchoEnd end : {EchoEnd::kHalfClose, EchoEnd::kClose}) {
    const EchoReport report = RunEchoClient({.address = address(),
                                             .connections = 200,
                                             .parallel = 20,
                                             .payload_bytes_max = 1000,
                                             .end = end,
                                             .deadline = kSoon});
    EXPECT_EQ(report.echoed, 200u) << report.first_problem;
  }
  std::vector<int> silent;
  for (int i = 0; i < 20; ++i) {
    silent.push_back(Connect());
    // Half of them have asked before.
    if (i % 2 == 0) continue;
    Send(silent.back(), "once\n");
    EXPECT_EQ(ReadLine(silent.back()), "once\n");
  }
  ExpectToEnd();
  for (const int client : silent) {
    EXPECT_EQ(ReadToTheEnd(client), "");
    close(client);
  }
}

// Those that are built on the adapters take the name of a policy, and tell who has served how many.
class SpreadTest : public ExamplesTest, public ::testing::WithParamInterface<const char*> {
 protected:
  // Has the server serve 10,000 connections, and returns how many more one worker had than another.
  uint64_t ServeInTurn() {
    Start(GetParam(), {"round-robin"});
    if (HasFatalFailure()) return 0;
    constexpr uint32_t kConnections = 10'000;
    const EchoReport report = RunEchoClient({.address = address(),
                                             .connections = kConnections,
                                             .parallel = 50,
                                             .payload_bytes_max = 100,
                                             .end = EchoEnd::kClose,
                                             .deadline = kSoon});
    EXPECT_EQ(report.echoed, kConnections) << report.first_problem;
    ExpectToEnd();
    std::istringstream lines(child_->out());
    std::vector<uint64_t> served;
    for (std::string line; std::getline(lines, line);) {
      unsigned long number = 0;
      EXPECT_EQ(std::sscanf(line.c_str(), "worker %*u: %lu", &number), 1) << line;
      served.push_back(number);
    }
    EXPECT_EQ(served.size(), 4u) << child_->out();
    if (served.empty()) return 0;
    EXPECT_GE(std::accumulate(served.begin(), served.end(), uint64_t{0}), kConnections);
    const auto [least, most] = std::minmax_element(served.begin(), served.end());
    return *most - *least;
  }
};

INSTANTIATE_TEST_SUITE_P(All, SpreadTest,
                         ::testing::Values("coroutine_loop", "libuv_loop", "libevent_loop",
                                           "asio_loop"),
                         [](const auto& instance) { return std::string(instance.param); });

// Turns are exact, except that a worker is forgiven some if it is kept from the CPU for too long.
// So on a machine that is busy the server may try again. A turn may be owed at the end.
TEST_P(SpreadTest, FourWorkersServeTenThousandConnectionsInTurn) {
  if (!Exists(GetParam())) GTEST_SKIP() << "the library that it needs was not found";
  uint64_t more = ServeInTurn();
  for (int tries = 1; more > 2 && tries < 5 && !HasFailure(); ++tries) more = ServeInTurn();
  EXPECT_LE(more, 2u) << child_->out();
}

TEST_P(EchoExamplesTest, SaysWhyItCannotStart) {
  if (!Exists(GetParam())) GTEST_SKIP() << "the library that it needs was not found";
  Start(GetParam());
  if (HasFatalFailure()) return;
  ChildProcess second({.command = {PathOf(GetParam()), std::to_string(port_)}});
  EXPECT_EQ(second.WaitForExit(kSoon), 1);
  EXPECT_NE(second.err().find("cannot listen: Address already in use"), std::string::npos)
      << second.err();
  ExpectToEnd();
}

class EveryExampleTest : public ExamplesTest, public ::testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(All, EveryExampleTest,
                         ::testing::Values("epoll_loop", "epoll_loop_in_c", "uring_loop",
                                           "coroutine_loop", "libuv_loop", "libevent_loop",
                                           "asio_loop", "hosted_on_loop", "forked_workers",
                                           "hosted_on_ring", "graceful_shutdown", "leaving_worker",
                                           "hand_over", "rolling_restart", "rolling_reuseport",
                                           "own_policy", "udp_tickets"),
                         [](const auto& instance) { return std::string(instance.param); });

// The balancer may have ended before its workers have joined. The signal waits until the program
// takes it.
TEST_P(EveryExampleTest, EndsByItselfIfAskedToBeforeItHasStarted) {
  if (!Exists(GetParam())) GTEST_SKIP() << "the library that it needs was not found";
  const uint16_t port = FreePort(SOCK_STREAM);
  std::vector<std::string> command = {"/usr/bin/env",
                                      "--block-signal=TERM",
                                      "/bin/sh",
                                      "-c",
                                      "kill -TERM $$; exec \"$@\"",
                                      "sh",
                                      PathOf(GetParam()),
                                      std::to_string(port)};
  if (GetParam() == std::string("own_policy")) {
    command.insert(command.end(), {"127.0.1.0", "127.0.1.255"});
  }
  child_ = std::make_unique<ChildProcess>(ChildOptions{.command = command});
  EXPECT_EQ(child_->WaitForExit(kBeforeTheDeadline), 0) << child_->err();
}

TEST_F(ExamplesTest, AHostedRingAnswersThroughAllItsWorkers) {
  Start("hosted_on_ring");
  if (HasFatalFailure()) return;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Ask().substr(0, 17), "served by worker ");
  ExpectToEnd();
}

TEST_F(ExamplesTest, ARangeOfAddressesBelongsToOneWorker) {
  Start("own_policy", {"127.0.1.0", "127.0.1.255"});
  if (HasFatalFailure()) return;
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(Ask("127.0.1.9"), "served by worker 0\n");
    const std::string other = Ask("127.0.2.9");
    EXPECT_EQ(other.substr(0, 17), "served by worker ");
    EXPECT_NE(other, "served by worker 0\n");
  }
  ExpectToEnd();
}

TEST_F(ExamplesTest, AForkedWorkerThatIsKilledIsReplacedAndNoneOutlivesItsParent) {
  Start("forked_workers");
  if (HasFatalFailure()) return;
  const auto workers = [&] {
    const std::string parent = std::to_string(child_->pid());
    std::ifstream children("/proc/" + parent + "/task/" + parent + "/children");
    return std::set<pid_t>(std::istream_iterator<pid_t>(children), {});
  };
  const auto becomes = [&](const auto& what) {
    const auto until = Clock::now() + kSoon;
    while (!what() && Clock::now() < until) poll(nullptr, 0, 1);
    return what();
  };
  ASSERT_TRUE(becomes([&] { return workers().size() == 4; }));
  const pid_t killed = *workers().begin();
  kill(killed, SIGKILL);
  EXPECT_TRUE(becomes([&] { return workers().size() == 4 && !workers().contains(killed); }));
  const int client = Connect();
  Send(client, "still there\n");
  EXPECT_EQ(ReadLine(client), "still there\n");
  // What is left of it would go on accepting.
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const std::set<pid_t> orphans = workers();
  child_->Signal(SIGKILL);
  EXPECT_EQ(child_->WaitForExit(kSoon), 128 + SIGKILL);
  for (const pid_t worker : orphans) {
    int status = 0;
    EXPECT_EQ(waitpid(worker, &status, 0), worker);
    EXPECT_TRUE(WIFEXITED(status));
  }
  close(client);
}

// One after the other leaves, until the last one has all clients, who are asking all the time.
TEST_F(ExamplesTest, WorkersLeaveAndTheirClientsStay) {
  Start("leaving_worker");
  if (HasFatalFailure()) return;
  std::vector<int> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(Connect());
  const auto ask_all = [&] {
    for (const int client : clients) Send(client, "one half");
    for (const int client : clients) Send(client, " and the other\n");
    for (const int client : clients) EXPECT_EQ(ReadLine(client), "one half and the other\n");
  };
  const auto threads = [&] {
    const std::string tasks = "/proc/" + std::to_string(child_->pid()) + "/task";
    return std::distance(std::filesystem::directory_iterator(tasks), {});
  };
  ask_all();
  const auto before = threads();
  for (int left = 1; left <= 4; ++left) {
    child_->Signal(SIGUSR1);
    const auto until = Clock::now() + kSoon;
    do {
      ask_all();
    } while (threads() != before - std::min(left, 3) && Clock::now() < until && !HasFailure());
    EXPECT_EQ(threads(), before - std::min(left, 3));
  }
  for (int i = 0; i < 10; ++i) ask_all();
  ExpectToEnd();
  for (const int client : clients) {
    EXPECT_EQ(ReadToTheEnd(client), "");
    close(client);
  }
}

TEST_F(ExamplesTest, DatagramsAreAnswered) {
  port_ = FreePort(SOCK_DGRAM);
  Run("udp_tickets");
  const int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const sockaddr_in to = Address("127.0.0.1", port_);
  ASSERT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
  const auto until = Clock::now() + kSoon;
  for (int answered = 0; answered < 50 && Clock::now() < until;) {
    const std::string text = std::to_string(answered);
    // Before it is bound, nothing comes back but an error.
    static_cast<void>(send(client, text.data(), text.size(), 0));
    pollfd readable{.fd = client, .events = POLLIN, .revents = 0};
    std::array<char, 64> bytes;
    if (poll(&readable, 1, 100) != 1) continue;
    const ssize_t size = recv(client, bytes.data(), bytes.size(), 0);
    if (size < 0) continue;
    const std::string answer(bytes.data(), static_cast<size_t>(size));
    if (!answer.ends_with(": " + text)) continue;  // late, and asked for again meanwhile
    EXPECT_EQ(answer.substr(0, 7), "worker ");
    ++answered;
  }
  EXPECT_LT(Clock::now(), until) << child_->err();
  ExpectToEnd();
  close(client);
}

// At the end who is idle is closed at once, and who has begun to ask is answered.
TEST_F(ExamplesTest, KeptConnectionsEndBetweenTwoRequests) {
  Start("graceful_shutdown");
  if (HasFatalFailure()) return;
  const std::string request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  const int idle = Connect();
  for (int i = 0; i < 3; ++i) {
    Send(idle, request);
    EXPECT_EQ(ReadLine(idle), "HTTP/1.1 200 OK\r\n");
    EXPECT_EQ(ReadLine(idle), "Content-Length: 3\r\n");
    EXPECT_EQ(ReadLine(idle), "\r\n");
    EXPECT_EQ(ReadLine(idle), "hi\n");
  }
  // It has asked before, so the server has claimed it by now.
  const int asking = Connect();
  Send(asking, request);
  for (int i = 0; i < 4; ++i) ReadLine(asking);
  Send(asking, request.substr(0, 10));
  child_->Signal(SIGTERM);
  EXPECT_EQ(ReadToTheEnd(idle), "");
  while (const int late = Connect()) {
    if (late < 0) break;
    close(late);
  }
  Send(asking, request.substr(10));
  EXPECT_EQ(ReadToTheEnd(asking),
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nhi\n");
  EXPECT_EQ(child_->WaitForExit(kBeforeTheDeadline), 0) << child_->err();
  close(idle);
  close(asking);
}

// --- Restarts ------------------------------------------------------------------------------------

// Clients that come one by one, two milliseconds apart, whatever becomes of those before them. Each
// waits for "served by process PID" and the end.
class Visitors {
 public:
  explicit Visitors(uint16_t port) : to_(Address("127.0.0.1", port)) {}
  ~Visitors() {
    for (const Visit& visit : visits_) close(visit.fd);
  }

  // Lets `count` more come. Those that have come are looked after meanwhile.
  void Come(int count) {
    next_ = Clock::now();
    for (int i = 0; i < count; ++i, next_ += kApart) {
      LookAfter(next_);
      Begin();
    }
  }
  // Until nobody waits any more, or for kSoon.
  void Finish() {
    const auto until = Clock::now() + kSoon;
    while (!visits_.empty() && Clock::now() < until) LookAfter(Clock::now() + kApart);
    unanswered_ += static_cast<int>(visits_.size());
  }

  int answered() const { return answered_; }
  int unanswered() const { return unanswered_; }
  int failed() const { return failed_; }
  const std::string& first_problem() const { return first_problem_; }
  // From when a visitor was to come until it had its answer, for the one for whom it took longest.
  milliseconds longest() const { return std::chrono::duration_cast<milliseconds>(longest_); }
  // Who has answered, and who did so last.
  const std::set<pid_t>& processes() const { return processes_; }
  pid_t last_process() const { return last_process_; }

 private:
  static constexpr milliseconds kApart{2};  // 500 a second

  struct Visit {
    int fd;
    Clock::time_point begun;
    std::string answer;
  };

  void Begin() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&to_), sizeof(to_)) != 0 &&
        errno != EINPROGRESS) {
      Failed("connect", errno);
      close(fd);
      return;
    }
    visits_.push_back({.fd = fd, .begun = next_, .answer = ""});
  }

  void LookAfter(Clock::time_point until) {
    do {
      std::vector<pollfd> waits;
      for (const Visit& visit : visits_) {
        waits.push_back({.fd = visit.fd, .events = POLLIN, .revents = 0});
      }
      const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
      poll(waits.data(), waits.size(), left > 0 ? static_cast<int>(left) : 0);
      for (size_t i = visits_.size(); i > 0; --i) {
        if (waits[i - 1].revents != 0 && !Receive(visits_[i - 1])) {
          close(visits_[i - 1].fd);
          visits_.erase(visits_.begin() + static_cast<ptrdiff_t>(i - 1));
        }
      }
    } while (Clock::now() < until);
  }

  // False: it is over.
  bool Receive(Visit& visit) {
    std::array<char, 128> bytes;
    const ssize_t size = recv(visit.fd, bytes.data(), bytes.size(), 0);
    if (size < 0 && errno == EAGAIN) return true;
    if (size < 0) return Failed("recv", errno);
    if (size > 0) {
      visit.answer.append(bytes.data(), static_cast<size_t>(size));
      return true;
    }
    int process = 0;
    if (std::sscanf(visit.answer.c_str(), "served by process %d\n", &process) != 1) {
      return Failed("an unexpected answer", 0);
    }
    ++answered_;
    last_process_ = process;
    processes_.insert(process);
    longest_ = std::max<nanoseconds>(longest_, Clock::now() - visit.begun);
    return false;
  }

  bool Failed(const char* what, int error) {
    ++failed_;
    if (first_problem_.empty()) first_problem_ = std::string(what) + ": " + strerror(error);
    return false;
  }

  const sockaddr_in to_;
  Clock::time_point next_;
  std::vector<Visit> visits_;
  int answered_ = 0;
  int unanswered_ = 0;
  int failed_ = 0;
  std::string first_problem_;
  nanoseconds longest_{};
  std::set<pid_t> processes_;
  pid_t last_process_ = 0;
};

class RestartTest : public ExamplesTest {
 protected:
  static constexpr int kRestarts = 3;
  static constexpr int kVisitorsBetween = 400;

  static void ExpectNobodyLost(const char* how, const Visitors& visitors) {
    std::printf("%s: %d restarts among %d connections, 500 a second; the longest took %lld ms\n",
                how, kRestarts, visitors.answered(),
                static_cast<long long>(visitors.longest().count()));
    EXPECT_EQ(visitors.failed(), 0) << visitors.first_problem();
    EXPECT_EQ(visitors.unanswered(), 0);
    EXPECT_EQ(visitors.answered(), (kRestarts + 1) * kVisitorsBetween);
    EXPECT_EQ(visitors.processes().size(), size_t{kRestarts} + 1);
  }
};

TEST_F(RestartTest, HandingTheListenerOverLosesNobody) {
  // Each generation is a child of the one before, and becomes one of this process.
  ASSERT_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  Start("rolling_restart");
  if (HasFatalFailure()) return;
  Visitors visitors(port_);
  visitors.Come(kVisitorsBetween);
  for (int i = 0; i < kRestarts; ++i) {
    ASSERT_GT(visitors.last_process(), 0) << visitors.first_problem();  // 0 would be ourselves
    ASSERT_EQ(kill(visitors.last_process(), SIGHUP), 0);
    visitors.Come(kVisitorsBetween);
  }
  visitors.Finish();
  ExpectNobodyLost("handing the listener over", visitors);
  kill(visitors.last_process(), SIGTERM);
  for (const pid_t process : visitors.processes()) {
    if (process == child_->pid()) continue;
    int status = -1;
    EXPECT_EQ(waitpid(process, &status, 0), process);
    EXPECT_EQ(status, 0);
  }
  // Its successors have its streams, too, so these end with the last of them.
  EXPECT_EQ(child_->WaitForExit(kSoon), 0) << child_->err();
}

// Each generation is started by the same command.
TEST_F(RestartTest, TakingTheListenerOverLosesNobody) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/hand-over";
  Start("hand_over", {path});
  if (HasFatalFailure()) return;
  Visitors visitors(port_);
  visitors.Come(kVisitorsBetween);
  for (int i = 0; i < kRestarts; ++i) {
    const std::unique_ptr<ChildProcess> before = std::move(child_);
    Run("hand_over", {path});
    visitors.Come(kVisitorsBetween);
    EXPECT_EQ(before->WaitForExit(kBeforeTheDeadline), 0) << before->err();
  }
  visitors.Finish();
  ExpectNobodyLost("taking the listener over", visitors);
  ExpectToEnd();
}

TEST_F(RestartTest, AListenerOfItsOwnLosesNobody) {
  Start("rolling_reuseport");
  if (HasFatalFailure()) return;
  Visitors visitors(port_);
  visitors.Come(kVisitorsBetween);
  for (int i = 0; i < kRestarts; ++i) {
    const std::unique_ptr<ChildProcess> before = std::move(child_);
    Run("rolling_reuseport", {std::to_string(before->pid())});
    visitors.Come(kVisitorsBetween);
    EXPECT_EQ(before->WaitForExit(kBeforeTheDeadline), 0) << before->err();
  }
  visitors.Finish();
  ExpectNobodyLost("SO_REUSEPORT", visitors);
  ExpectToEnd();
}

}  // namespace
}  // namespace ringmaster::testing
