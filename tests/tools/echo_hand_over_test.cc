// One generation of ringmaster-echo after the other, while clients come: the real program, started
// again by the same command. And how it gets listeners from elsewhere.
//
// RINGMASTER_TEST_HAND_OVERS says how many generations follow each other; 100 take two minutes.

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "echo_server.h"
#include "ringmaster/listeners.h"
#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using ::testing::Values;

#ifdef RINGMASTER_TEST_SANITIZED
constexpr microseconds kApart{5000};
constexpr int kVisitorsBetween = 30;
#else
constexpr microseconds kApart{500};  // 2,000 a second
constexpr int kVisitorsBetween = 300;
#endif

int HandOvers() {
  const char* const text = std::getenv("RINGMASTER_TEST_HAND_OVERS");
  const int value = text == nullptr ? 0 : std::atoi(text);
  return value > 0 ? value : 5;
}

// Clients that come one by one by a schedule, whatever becomes of those before them, from the
// beginning to the end of its life. Each asks for one line, demands it back, and closes.
class Visitors {
 public:
  explicit Visitors(const std::string& address)
      : port_(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)))),
        epoll_(epoll_create1(EPOLL_CLOEXEC)),
        thread_([this] { Run(); }) {}
  ~Visitors() {
    Stop();
    for (const Visit& visit : visits_) {
      if (visit.fd >= 0) close(visit.fd);
    }
    close(epoll_);
  }
  Visitors(const Visitors&) = delete;
  Visitors& operator=(const Visitors&) = delete;

  // No more come. Returns when all have been served, or after kSoon.
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }

  // Whether so many more are answered soon.
  bool WaitForMore(int count) const {
    const int enough = answered_ + count;
    const Clock::time_point until = Clock::now() + kSoon;
    while (answered_ < enough && Clock::now() < until) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return answered_ >= enough;
  }

  // After Stop. How many have come, and how many of them were not served, and why.
  size_t came() const { return visits_.size(); }
  int refused() const { return refused_; }
  int reset() const { return reset_; }
  int wrong() const { return wrong_; }
  int unanswered() const { return open_; }
  int first_error() const { return first_error_; }

  // How long those took who were to come at that time, in order.
  std::vector<microseconds> Times(const std::function<bool(Clock::time_point)>& counts) const {
    std::vector<microseconds> times;
    for (const Visit& visit : visits_) {
      if (visit.answered && counts(visit.due))
        times.push_back(std::chrono::duration_cast<microseconds>(visit.took));
    }
    std::ranges::sort(times);
    return times;
  }

 private:
  struct Visit {
    Clock::time_point due;
    Clock::duration took;
    int fd = -1;
    bool asked = false;
    bool answered = false;
  };

  void Run() {
    std::array<epoll_event, 256> events;
    Clock::time_point next = Clock::now();
    std::optional<Clock::time_point> end;
    while (!end.has_value() || (open_ > 0 && Clock::now() < *end)) {
      if (stop_ && !end.has_value()) end = Clock::now() + kSoon;
      for (; !end.has_value() && next <= Clock::now(); next += kApart) Come(next);
      // A millisecond is as exact as epoll_wait is; who comes late counts from when it was due.
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 1);
      for (int i = 0; i < count; ++i) Look(visits_[events[static_cast<size_t>(i)].data.u32]);
    }
  }

  void Come(Clock::time_point due) {
    const auto number = static_cast<uint32_t>(visits_.size());
    visits_.push_back({.due = due});
    Visit& visit = visits_.back();
    ++open_;
    visit.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(visit.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    // Many addresses, so that those that have closed do not use up the ports.
    address.sin_addr.s_addr = htonl(EchoSourceAddress(number));
    if (bind(visit.fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      return Fail(visit, errno);
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port_);
    if (connect(visit.fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 &&
        errno != EINPROGRESS) {
      return Fail(visit, errno);
    }
    epoll_event event{.events = EPOLLIN | EPOLLOUT | EPOLLET, .data = {.u32 = number}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, visit.fd, &event);
  }

  void Look(Visit& visit) {
    if (visit.fd < 0) return;
    if (!visit.asked) {
      if (send(visit.fd, "line\n", 5, MSG_NOSIGNAL) < 0) {
        if (errno != EAGAIN) Fail(visit, errno);
        return;
      }
      visit.asked = true;
    }
    std::array<char, 16> bytes;
    const ssize_t size = recv(visit.fd, bytes.data(), bytes.size(), 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size < 0) return Fail(visit, errno);
    if (std::string_view(bytes.data(), static_cast<size_t>(size)) != "line\n") {
      return Fail(visit, 0);
    }
    visit.answered = true;
    ++answered_;
    visit.took = Clock::now() - visit.due;
    Close(visit);
  }

  void Fail(Visit& visit, int error) {
    if (first_error_ == 0) first_error_ = error;
    ++(error == ECONNREFUSED ? refused_ : error == ECONNRESET || error == EPIPE ? reset_ : wrong_);
    Close(visit);
  }

  void Close(Visit& visit) {
    close(std::exchange(visit.fd, -1));
    --open_;
  }

  const uint16_t port_;
  const int epoll_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> answered_ = 0;
  std::deque<Visit> visits_;
  int open_ = 0;
  int refused_ = 0;
  int reset_ = 0;
  int wrong_ = 0;
  int first_error_ = 0;
  std::thread thread_;
};

double MillisecondsAt(const std::vector<microseconds>& times, double share) {
  if (times.empty()) return 0;
  const auto at = static_cast<size_t>(share * static_cast<double>(times.size() - 1));
  return static_cast<double>(times[at].count()) / 1000;
}

// A listener without close-on-exec, as it is inherited.
int Inheritable() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(fd, 512), 0);
  return fd;
}

class EchoHandOver : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = WhyNoIoUringHere(); !reason.empty()) GTEST_SKIP() << reason;
  }
  std::string path() const { return scratch_.path() + "/hand-over"; }
  // The arguments of each generation.
  std::vector<std::string> Line(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> line = {"--json", "--hand-over", path()};
    line.insert(line.end(), more.begin(), more.end());
    return line;
  }
  static void ExpectServes(const EchoServer& server, uint32_t connections = 20) {
    const EchoReport report =
        RunEchoClient({.address = server.address(), .connections = connections, .parallel = 5});
    EXPECT_EQ(report.echoed, connections) << report.first_problem;
  }

  const ScratchDirectory scratch_;
};

// --- While clients come --------------------------------------------------------------------------

class EchoHandOverOf : public EchoHandOver,
                       public ::testing::WithParamInterface<std::vector<std::string>> {};

INSTANTIATE_TEST_SUITE_P(Kind, EchoHandOverOf,
                         Values(std::vector<std::string>{},
                                std::vector<std::string>{"--intake", "accept"},
                                std::vector<std::string>{"--intake", "readiness"},
                                std::vector<std::string>{"--loop", "epoll"},
                                std::vector<std::string>{"--masters", "2"}),
                         [](const auto& instance) {
                           std::string name = "default";
                           for (const std::string& each : instance.param) name += "_" + each;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(EchoHandOverOf, NobodyIsRefusedAndNobodyIsReset) {
  const int hand_overs = HandOvers();
  auto server = std::make_unique<EchoServer>(Line(GetParam()));
  ASSERT_NE(server->address(), "") << server->Complaint();
  const std::string address = server->address();
  Visitors visitors(address);
  std::vector<std::pair<Clock::time_point, Clock::time_point>> moments;
  uint64_t accepted = 0;
  for (int i = 0; i < hand_overs && !HasFailure(); ++i) {
    // A time of quiet, to compare with, in which nobody else accepts.
    ASSERT_TRUE(visitors.WaitForMore(kVisitorsBetween));
    const Clock::time_point begun = Clock::now();
    auto next = std::make_unique<EchoServer>(Line(GetParam()));
    EXPECT_EQ(next->address(), address) << next->Complaint();
    const nlohmann::json report = server->WaitForReport();
    moments.emplace_back(begun, Clock::now());
    ASSERT_TRUE(report.is_object()) << server->Complaint();
    EXPECT_EQ(report["drained"], true);
    EXPECT_EQ(report["refused"], 0);
    EXPECT_GT(report["accepted"], 0);
    accepted += report["accepted"].get<uint64_t>();
    server = std::move(next);
  }
  visitors.Stop();
  const nlohmann::json report = server->Stop();
  ASSERT_TRUE(report.is_object()) << server->Complaint();
  accepted += report["accepted"].get<uint64_t>();
  EXPECT_GE(accepted, visitors.came());
  EXPECT_EQ(visitors.refused(), 0);
  EXPECT_EQ(visitors.reset(), 0);
  EXPECT_EQ(visitors.wrong(), 0) << strerror(visitors.first_error());
  EXPECT_EQ(visitors.unanswered(), 0);

  const auto around = [&](Clock::time_point time) {
    return std::ranges::any_of(
        moments, [&](const auto& moment) { return time >= moment.first && time <= moment.second; });
  };
  const std::vector<microseconds> during = visitors.Times(around);
  const std::vector<microseconds> else_when =
      visitors.Times([&](Clock::time_point time) { return !around(time); });
  std::printf(
      "%d hand-overs among %zu connections, one each %lld us: %d refused, %d reset; while a "
      "generation follows another (%zu): p50 %.2f, p99 %.2f, longest %.2f ms; at other times "
      "(%zu): p50 %.2f, p99 %.2f, longest %.2f ms\n",
      hand_overs, visitors.came(), static_cast<long long>(kApart.count()), visitors.refused(),
      visitors.reset(), during.size(), MillisecondsAt(during, 0.5), MillisecondsAt(during, 0.99),
      MillisecondsAt(during, 1), else_when.size(), MillisecondsAt(else_when, 0.5),
      MillisecondsAt(else_when, 0.99), MillisecondsAt(else_when, 1));
}

// Two servers on one listener for a second, as if a hand-over took so long. One ends, the other one
// goes on.
TEST_P(EchoHandOverOf, TwoMayServeOneListenerForAsLongAsTheyLike) {
  const auto& kind = GetParam();
  if (std::ranges::find(kind, "--masters") != kind.end()) {
    GTEST_SKIP() << "an inherited socket without SO_REUSEPORT is for one master of one server";
  }
  const int listener = Inheritable();
  std::vector<std::string> line = {"--json", "--listen", "fd:" + std::to_string(listener)};
  line.insert(line.end(), kind.begin(), kind.end());
  EchoServer one(line);
  EchoServer other(line);
  close(listener);
  ASSERT_NE(one.address(), "") << one.Complaint();
  ASSERT_EQ(other.address(), one.address()) << other.Complaint();
  Visitors visitors(one.address());
  std::this_thread::sleep_for(std::chrono::seconds(1));
  const Clock::time_point asked = Clock::now();
  const nlohmann::json first = one.Stop();
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - asked);
  std::this_thread::sleep_for(milliseconds(100));
  visitors.Stop();
  const nlohmann::json second = other.Stop();
  ASSERT_TRUE(first.is_object() && second.is_object()) << one.Complaint() << other.Complaint();
  // Tickets may find nothing, so there may be more of them than clients.
  EXPECT_GE(first["accepted"].get<uint64_t>() + second["accepted"].get<uint64_t>(),
            visitors.came());
  EXPECT_EQ(visitors.refused() + visitors.reset() + visitors.wrong() + visitors.unanswered(), 0)
      << strerror(visitors.first_error());
  const std::vector<microseconds> times = visitors.Times([](Clock::time_point) { return true; });
  std::printf(
      "two servers on one listener: %llu and %llu of %zu, one ends in %lld ms; p99 %.2f, longest "
      "%.2f ms\n",
      static_cast<unsigned long long>(first["accepted"].get<uint64_t>()),
      static_cast<unsigned long long>(second["accepted"].get<uint64_t>()), visitors.came(),
      static_cast<long long>(took.count()), MillisecondsAt(times, 0.99), MillisecondsAt(times, 1));
}

// A predecessor that never accepts: all that it hands on is what waits in the kernel's queue.
TEST_F(EchoHandOver, AQueueThatNobodyHasAcceptedFromIsServedBySuccessor) {
  constexpr int kWaiting = 200;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener, 512), 0);
  ASSERT_EQ(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string where = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  std::vector<int> clients;
  for (int i = 0; i < kWaiting; ++i) {
    clients.push_back(ConnectTo(where, kSoon));
    ASSERT_GE(clients.back(), 0);
    ASSERT_EQ(send(clients.back(), "x\n", 2, 0), 2);
  }
  auto hand_over = HandOver::Serve(path(), {{.fd = listener, .name = ""}});
  ASSERT_TRUE(hand_over.ok()) << hand_over.status();
  EchoServer server(Line());
  ASSERT_EQ(server.address(), where) << server.Complaint();
  EXPECT_TRUE((*hand_over)->Stop());
  close(listener);
  int served = 0;
  for (const int client : clients) {
    std::array<char, 4> bytes;
    served += recv(client, bytes.data(), bytes.size(), 0) == 2 ? 1 : 0;
    close(client);
  }
  EXPECT_EQ(served, kWaiting);
  EXPECT_EQ(server.Stop()["accepted"], kWaiting);
}

// The kernel wakes one multishot accept for a client: that of the predecessor, which ends without
// having looked. Method: its ring is one that does nothing before it is asked (DEFER_TASKRUN).
TEST_F(EchoHandOver, AWakeUpThatGoesToAnEndingAcceptIsNotLost) {
  auto old = std::make_unique<EchoServer>(Line({"--intake", "accept"}));
  ASSERT_NE(old->address(), "") << old->Complaint();
  absl::StatusOr<TakenOver> taken = TakeOver(path());
  ASSERT_TRUE(taken.ok()) << taken.status();
  const NamedListener listener = std::move(taken->listeners()[0]);
  auto hand_over = HandOver::Serve(path(), {{.fd = listener.fd(), .name = listener.name()}}, {},
                                   *std::move(taken));
  ASSERT_TRUE(hand_over.ok()) << hand_over.status();
  ASSERT_TRUE(old->WaitForReport().is_object()) << old->Complaint();

  io_uring ring;
  ASSERT_EQ(io_uring_queue_init(4, &ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN),
            0);
  io_uring_sqe* const sqe = io_uring_get_sqe(&ring);
  io_uring_prep_multishot_accept(sqe, listener.fd(), nullptr, nullptr, 0);
  ASSERT_EQ(io_uring_submit(&ring), 1);
  EchoServer server(Line({"--intake", "accept"}));
  ASSERT_EQ(server.address(), old->address()) << server.Complaint();
  const int client = ConnectTo(server.address(), kSoon);
  ASSERT_EQ(send(client, "x\n", 2, 0), 2);
  io_uring_queue_exit(&ring);
  EXPECT_TRUE((*hand_over)->Stop());
  std::array<char, 4> bytes;
  EXPECT_EQ(recv(client, bytes.data(), bytes.size(), 0), 2) << strerror(errno);
  close(client);
}

TEST_F(EchoHandOver, ASuccessorThatCannotStartChangesNothing) {
  EchoServer server(Line());
  ASSERT_NE(server.address(), "") << server.Complaint();
  // Too few descriptors for its rings.
  ChildOptions poor;
  poor.descriptors_max = 12;
  const Outcome outcome = RunEcho(Line(), poor);
  EXPECT_EQ(outcome.status, 1);
  ExpectContains(outcome.err, "out of file descriptors");
  EXPECT_TRUE(server.child()
                  .WaitForErrLine("has got the listeners and has ended before", kSoon)
                  .has_value())
      << server.Complaint();
  ExpectServes(server);
  EchoServer next(Line());
  EXPECT_EQ(next.address(), server.address());
  ASSERT_TRUE(server.WaitForReport().is_object()) << server.Complaint();
  ExpectServes(next);
}

TEST_F(EchoHandOver, APredecessorThatIsKilledLeavesItsPathToTheNext) {
  auto server = std::make_unique<EchoServer>(Line());
  ASSERT_NE(server->address(), "") << server->Complaint();
  server->child().Signal(SIGKILL);
  ASSERT_EQ(server->child().WaitForExit(kSoon), 128 + SIGKILL);
  EchoServer next(Line({"--listen", server->address()}));
  ASSERT_EQ(next.address(), server->address()) << next.Complaint();
  ExpectServes(next);
  EXPECT_TRUE(next.Stop().is_object());
  EXPECT_NE(access(path().c_str(), F_OK), 0);
}

// Its file goes with it, and is removed by the last.
TEST_F(EchoHandOver, AUnixSocketGoesWithItsFile) {
  const std::string file = scratch_.path() + "/socket";
  auto server = std::make_unique<EchoServer>(Line({"--listen", "unix:" + file}));
  ASSERT_EQ(server->address(), "unix:" + file) << server->Complaint();
  for (int i = 0; i < 3; ++i) {
    auto next = std::make_unique<EchoServer>(Line({"--listen", "unix:" + file}));
    ASSERT_EQ(next->address(), "unix:" + file) << next->Complaint();
    ASSERT_TRUE(server->WaitForReport().is_object()) << server->Complaint();
    server = std::move(next);
    ExpectServes(*server);
  }
  EXPECT_TRUE(server->Stop().is_object()) << server->Complaint();
  EXPECT_NE(access(file.c_str(), F_OK), 0);
}

TEST_F(EchoHandOver, DatagramsGoOn) {
  auto server = std::make_unique<EchoServer>(Line({"--listen", "udp:127.0.0.1:0"}));
  ASSERT_TRUE(server->address().starts_with("udp:127.0.0.1:")) << server->Complaint();
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const std::string port = server->address().substr(server->address().rfind(':') + 1);
  address.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
  const int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(connect(client, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const auto is_echoed = [&](const std::string& text) {
    EXPECT_EQ(send(client, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    pollfd readable{.fd = client, .events = POLLIN, .revents = 0};
    poll(&readable, 1, static_cast<int>(milliseconds(kSoon).count()));
    std::array<char, 64> bytes;
    const ssize_t size = recv(client, bytes.data(), bytes.size(), MSG_DONTWAIT);
    return size >= 0 && std::string(bytes.data(), static_cast<size_t>(size)) == text;
  };
  EXPECT_TRUE(is_echoed("first"));
  // It follows from the socket what it is, and what its intake is.
  const Outcome accepts = RunEcho(Line({"--intake", "accept"}));
  EXPECT_EQ(accepts.status, 2);
  ExpectContains(accepts.err, "from an inherited datagram socket nothing can be accepted");
  auto next = std::make_unique<EchoServer>(Line());
  ASSERT_EQ(next->address(), server->address()) << next->Complaint();
  ASSERT_TRUE(server->WaitForReport().is_object()) << server->Complaint();
  EXPECT_TRUE(is_echoed("second"));
  EXPECT_TRUE(next->Stop().is_object()) << next->Complaint();
  close(client);
}

// All of them are served, also by fewer masters, and by more.
TEST_F(EchoHandOver, TheNumberOfMastersMayChange) {
  auto server = std::make_unique<EchoServer>(Line({"--masters", "3"}));
  ASSERT_NE(server->address(), "") << server->Complaint();
  for (const char* const masters : {"1", "2", "4"}) {
    auto next = std::make_unique<EchoServer>(Line({"--masters", masters}));
    ASSERT_EQ(next->address(), server->address()) << next->Complaint();
    ASSERT_TRUE(server->WaitForReport().is_object()) << server->Complaint();
    server = std::move(next);
    // The kernel deals them to all sockets by a hash.
    ExpectServes(*server, 200);
  }
}

// --- Listeners from elsewhere, and what a service manager hears ----------------------------------

// A blocking one, as systemd passes it on by default.
TEST_F(EchoHandOver, ItServesAnInheritedDescriptor) {
  const int listener = Inheritable();
  {
    EchoServer server({"--json", "--listen", "fd:" + std::to_string(listener)});
    ASSERT_TRUE(server.address().starts_with("127.0.0.1:")) << server.Complaint();
    ExpectServes(server);
    ASSERT_TRUE(server.Stop().is_object());
  }
  close(listener);
}

// The process becomes the program, so the number stays.
ChildOptions AsSystemd(int listener, const std::string& names) {
  return {.command = {"/bin/sh", "-c",
                      "exec 3<&" + std::to_string(listener) +
                          "; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=" + names + " exec \"$@\"",
                      "sh"}};
}

TEST_F(EchoHandOver, ItServesWhatSystemdPassesOn) {
  const int listener = Inheritable();
  for (const char* const where : {"systemd", "systemd:http"}) {
    EchoServer server({"--json", "--listen", where}, AsSystemd(listener, "http"));
    ASSERT_TRUE(server.address().starts_with("127.0.0.1:")) << server.Complaint();
    ExpectServes(server);
    ASSERT_TRUE(server.Stop().is_object());
  }
  const Outcome other = RunEcho({"--listen", "systemd:smtp"}, AsSystemd(listener, "http"));
  EXPECT_EQ(other.status, 1);
  ExpectContains(other.err, "no listener of the name \"smtp\"");
  close(listener);
}

class ServiceManager {
 public:
  explicit ServiceManager(const std::string& path)
      : fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  ~ServiceManager() { close(fd_); }
  ServiceManager(const ServiceManager&) = delete;
  ServiceManager& operator=(const ServiceManager&) = delete;

  // The next message that is no WATCHDOG=1, or that is one.
  std::string Hear(bool watchdog = false) const {
    while (true) {
      pollfd readable{.fd = fd_, .events = POLLIN, .revents = 0};
      if (poll(&readable, 1, static_cast<int>(milliseconds(kSoon).count())) != 1) return "nothing";
      std::array<char, 4096> bytes;
      const ssize_t size = recv(fd_, bytes.data(), bytes.size(), 0);
      std::string text(bytes.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
      if ((text == "WATCHDOG=1\n") == watchdog) return text;
    }
  }

 private:
  const int fd_;
};

TEST_F(EchoHandOver, TheServiceManagerHearsOfEachGeneration) {
  const std::string socket_path = scratch_.path() + "/notify";
  const ServiceManager manager(socket_path);
  const ChildOptions notify = {
      .command = {"/usr/bin/env", "NOTIFY_SOCKET=" + socket_path, "WATCHDOG_USEC=100000"}};
  EchoServer server(Line(), notify);
  ASSERT_NE(server.address(), "") << server.Complaint();
  EXPECT_EQ(manager.Hear(), "READY=1\nSTATUS=listening on " + server.address() + "\n");
  EXPECT_EQ(manager.Hear(/*watchdog=*/true), "WATCHDOG=1\n");
  EchoServer next(Line(), notify);
  ASSERT_EQ(next.address(), server.address()) << next.Complaint();
  // Either may say it first.
  const std::string main_pid = "MAINPID=" + std::to_string(next.child().pid()) + "\n";
  std::vector<std::string> said = {manager.Hear(), manager.Hear()};
  std::ranges::sort(said, {}, &std::string::size);
  EXPECT_EQ(said[0], main_pid);
  EXPECT_EQ(said[1], "READY=1\n" + main_pid + "STATUS=listening on " + next.address() + "\n");
  ASSERT_TRUE(server.WaitForReport().is_object()) << server.Complaint();
  EXPECT_TRUE(next.Stop().is_object()) << next.Complaint();
  EXPECT_EQ(manager.Hear(), "STOPPING=1\n");
}

}  // namespace
}  // namespace ringmaster::testing
