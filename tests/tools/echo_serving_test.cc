// How ringmaster-echo serves and ends: the real program, checked from outside.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <optional>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "echo_server.h"
#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::Values;

// A connected blocking socket, closed at the end.
class Client {
 public:
  explicit Client(const std::string& address) : fd_(ConnectTo(address, kSoon)) {}
  Client(Client&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Client& operator=(Client&&) = delete;
  ~Client() { Close(); }

  int fd() const { return fd_; }
  bool connected() const { return fd_ >= 0; }
  void Close() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

  bool Send(const std::string& text) const {
    return send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }

  // What comes next, at most `size` bytes; "(end)" at the end of the stream, "(reset)", or
  // "(nothing)" when nothing comes for kSoon.
  std::string Receive(size_t size = 4096) const {
    std::string text(size, '\0');
    const ssize_t count = recv(fd_, text.data(), size, 0);
    if (count == 0) return "(end)";
    if (count < 0) return errno == ECONNRESET ? "(reset)" : "(nothing)";
    text.resize(static_cast<size_t>(count));
    return text;
  }

 private:
  int fd_;
};

class EchoServing : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = WhyNoIoUringHere(); !reason.empty()) GTEST_SKIP() << reason;
    // A thousand clients need more than the usual soft limit.
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
};

TEST_F(EchoServing, PrintsThePortThatTheKernelChose) {
  EchoServer server({});
  ASSERT_NE(server.address(), "") << server.Complaint();
  EXPECT_TRUE(server.address().starts_with("127.0.0.1:"));
  EXPECT_NE(server.address(), "127.0.0.1:0");
  EXPECT_TRUE(server.child().WaitForOutLine("nc 127.0.0.1 ", kSoon).has_value());
  EXPECT_EQ(server.child().err(), "");
  EXPECT_EQ(RunEchoClient({.address = server.address()}).echoed, 1U);
}

// Address, loop and handoff.
using At = std::tuple<std::string, std::string, std::string>;

// The same claims for each kind of address, and for every loop and handoff.
class EchoServingAt : public EchoServing, public ::testing::WithParamInterface<At> {
 protected:
  void SetUp() override {
    EchoServing::SetUp();
    if (!IsSkipped() && Address()[0] == '[' && !HasIpv6()) GTEST_SKIP() << "no IPv6 here";
  }
  static std::string Address() { return std::get<0>(GetParam()); }
  // A server at the address, with `more` arguments.
  std::vector<std::string> Arguments(std::vector<std::string> more = {}) const {
    const auto& [address, loop, handoff] = GetParam();
    std::vector<std::string> arguments = {"--json", "--listen",  Where(), "--loop",
                                          loop,     "--handoff", handoff};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  // The argument of --listen; the path of a Unix socket lies in a directory that goes with the
  // test.
  std::string Where() const {
    return Address() == "unix" ? "unix:" + scratch_.path() + "/socket" : Address();
  }
  static bool HasIpv6() {
    const int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) close(fd);
    return fd >= 0;
  }

 private:
  const ScratchDirectory scratch_;
};

std::string NameOfAt(const ::testing::TestParamInfo<At>& instance) {
  const auto& [address, loop, handoff] = instance.param;
  const std::string name = address == "unix" ? "Unix" : address[0] == '[' ? "Ipv6" : "Ipv4";
  return name + "_" + loop + "_" + handoff;
}

INSTANTIATE_TEST_SUITE_P(Address, EchoServingAt,
                         ::testing::Combine(Values("127.0.0.1:0", "[::1]:0", "unix"),
                                            Values("uring", "epoll"),
                                            Values("inbox", "completion")),
                         NameOfAt);
// A file table is that of a ring.
INSTANTIATE_TEST_SUITE_P(Slots, EchoServingAt,
                         ::testing::Combine(Values("127.0.0.1:0", "unix"), Values("uring"),
                                            Values("direct")),
                         NameOfAt);

TEST_P(EchoServingAt, EchoesEveryConnectionExactly) {
  EchoServer server(Arguments());
  ASSERT_NE(server.address(), "") << server.Complaint();
  for (const EchoEnd end : {EchoEnd::kHalfClose, EchoEnd::kClose}) {
    const EchoReport report = RunEchoClient({.address = server.address(),
                                             .connections = 1000,
                                             .parallel = 50,
                                             .payload_bytes_min = 1,
                                             .payload_bytes_max = 20'000,
                                             .end = end});
    EXPECT_EQ(report.echoed, 1000U) << report.first_problem;
  }
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], 2000);
}

TEST_P(EchoServingAt, EightMebibytesComeBackThroughOneConnection) {
  constexpr size_t kBytes = size_t{8} << 20;
  EchoServer server(Arguments());
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report = RunEchoClient(
      {.address = server.address(), .payload_bytes_min = kBytes, .payload_bytes_max = kBytes});
  EXPECT_EQ(report.echoed, 1U) << report.first_problem;
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  uint64_t echoed = 0;
  for (const nlohmann::json& worker : result["workers"]) {
    echoed += worker["bytes_echoed"].get<uint64_t>();
  }
  EXPECT_EQ(echoed, kBytes);
}

// The end of the stream right behind the data, over and over. Some kernels' multishot receive loses
// it on Unix sockets, and the client would wait for ever.
TEST_P(EchoServingAt, HalfCloseRightBehindTheDataIsSeen) {
  EchoServer server(Arguments());
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = 2000,
                                           .parallel = 4,
                                           .payload_bytes_min = 100,
                                           .payload_bytes_max = 100});
  EXPECT_EQ(report.echoed, 2000U) << report.first_problem;
}

TEST_P(EchoServingAt, ClientThatDoesNotReadIsNotReadFromAndStallsNobody) {
  // All on one worker, so that whoever is stalled shares it with the client that stalls.
  EchoServer server(Arguments({"--workers", "1"}));
  ASSERT_NE(server.address(), "") << server.Complaint();
  Client silent(server.address());
  ASSERT_TRUE(silent.connected());

  // The buffers of two loopback sockets hold some megabytes; a server that reads on regardless
  // would take everything.
  constexpr size_t kTooMuch = size_t{128} << 20;
  constexpr milliseconds kNoRoomFor(300);
  std::vector<char> piece(size_t{64} << 10);
  size_t sent = 0;
  while (sent < kTooMuch) {
    pollfd writable = {silent.fd(), POLLOUT, 0};
    if (poll(&writable, 1, static_cast<int>(kNoRoomFor.count())) == 0) break;
    FillPayload(7, sent, piece.data(), piece.size());
    const ssize_t count =
        send(silent.fd(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0) {
      ASSERT_EQ(errno, EAGAIN);
      continue;
    }
    sent += static_cast<size_t>(count);
  }
  EXPECT_LT(sent, kTooMuch);

  const EchoReport others = RunEchoClient({.address = server.address(),
                                           .connections = 200,
                                           .parallel = 10,
                                           .payload_bytes_max = 30'000});
  EXPECT_EQ(others.echoed, 200U) << others.first_problem;

  ASSERT_EQ(shutdown(silent.fd(), SHUT_WR), 0);
  size_t received = 0;
  for (;;) {
    const std::string got = silent.Receive(piece.size());
    if (got == "(end)") break;
    ASSERT_TRUE(got != "(reset)" && got != "(nothing)") << got << " after " << received;
    ASSERT_LE(received + got.size(), sent);
    FillPayload(7, received, piece.data(), got.size());
    ASSERT_TRUE(std::equal(got.begin(), got.end(), piece.begin())) << "near " << received;
    received += got.size();
  }
  EXPECT_EQ(received, sent);
}

// 2,000 connections, 50 at a time, each with a payload of its own length.
EchoReport EchoManySizes(const std::string& address) {
  return RunEchoClient({.address = address,
                        .connections = 2000,
                        .parallel = 50,
                        .payload_bytes_min = 1,
                        .payload_bytes_max = 20'000});
}

class EchoServingWithLoop : public EchoServing,
                            public ::testing::WithParamInterface<std::string> {};
INSTANTIATE_TEST_SUITE_P(Loop, EchoServingWithLoop, Values("uring", "epoll"),
                         [](const auto& instance) { return instance.param; });

TEST_P(EchoServingWithLoop, TheWorkersAcceptThemselves) {
  const ScratchDirectory scratch;
  for (const std::string& where :
       {std::string("127.0.0.1:0"), "unix:" + scratch.path() + "/socket"}) {
    EchoServer server({"--json", "--workers", "4", "--intake", "readiness", "--loop", GetParam(),
                       "--listen", where});
    ASSERT_NE(server.address(), "") << server.Complaint();
    const EchoReport report = EchoManySizes(server.address());
    EXPECT_EQ(report.echoed, 2000U) << report.first_problem;
    const nlohmann::json result = server.Stop();
    ASSERT_TRUE(result.is_object()) << server.Complaint();
    EXPECT_EQ(result["drained"], true);
  }
}

// With the master beside a worker's own work, or with several that have a socket each. For every
// handoff, all workers serve what any of them accepts.
TEST_P(EchoServingWithLoop, WhoeverAcceptsAllWorkersServe) {
  using Line = std::vector<std::string>;
  const std::string loop = GetParam();
  const char* const host = loop == "uring" ? "ring" : "loop";
  for (const Line& masters : {Line{"--host", host}, Line{"--masters", "2"}}) {
    for (const char* handoff : {"inbox", "completion"}) {
      Line line = {"--json",   "--workers",   "3",      "--handoff", handoff,
                   "--policy", "round-robin", "--loop", loop};
      line.insert(line.end(), masters.begin(), masters.end());
      EchoServer server(line);
      ASSERT_NE(server.address(), "") << server.Complaint();
      const EchoReport report = EchoManySizes(server.address());
      EXPECT_EQ(report.echoed, 2000U) << report.first_problem;
      const nlohmann::json result = server.Stop();
      ASSERT_TRUE(result.is_object()) << server.Complaint();
      EXPECT_EQ(result["accepted"], 2000);
      EXPECT_EQ(result["drained"], true);
      for (const nlohmann::json& worker : result["workers"]) EXPECT_GT(worker["claimed"], 0);
    }
  }
}

// One after the other, so that none is lost for want of room.
TEST_P(EchoServingWithLoop, EveryDatagramComesBack) {
  EchoServer server(
      {"--json", "--workers", "4", "--loop", GetParam(), "--listen", "udp:127.0.0.1:0"});
  ASSERT_TRUE(server.address().starts_with("udp:127.0.0.1:")) << server.Complaint();
  const std::string port = server.address().substr(server.address().rfind(':') + 1);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::stoi(port)));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  for (uint32_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(send(client, &i, sizeof(i), 0), static_cast<ssize_t>(sizeof(i)));
    pollfd back = {client, POLLIN, 0};
    ASSERT_EQ(poll(&back, 1, 10'000), 1) << i;
    uint32_t echoed = 0;
    ASSERT_EQ(recv(client, &echoed, sizeof(echoed), 0), static_cast<ssize_t>(sizeof(echoed)));
    ASSERT_EQ(echoed, i);
  }
  close(client);
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["drained"], true);
}

TEST_F(EchoServing, MoreSilentClientsThanReceiveBuffersStallNobody) {
  const ScratchDirectory scratch;
  EchoServer server({"--json", "--workers", "1", "--drain-ms", "0", "--listen",
                     "unix:" + scratch.path() + "/socket"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  std::vector<Client> silent;
  const std::vector<char> piece(size_t{64} << 10);
  for (int i = 0; i < 300; ++i) {
    silent.emplace_back(server.address());
    ASSERT_TRUE(silent.back().connected());
  }
  // Until nobody takes anything any more.
  for (bool taken = true; taken;) {
    taken = false;
    for (const Client& client : silent) {
      while (send(client.fd(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT) > 0) {
        taken = true;
      }
    }
  }
  const EchoReport others =
      RunEchoClient({.address = server.address(), .connections = 200, .parallel = 10});
  EXPECT_EQ(others.echoed, 200U) << others.first_problem;
}

TEST_F(EchoServing, ClientsThatVanishLeaveNothingOpen) {
  EchoServer server({"--json"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  for (int i = 0; i < 100; ++i) {
    Client client(server.address());
    ASSERT_TRUE(client.connected());
    ASSERT_TRUE(client.Send("going"));
    // Closing with no lingering is a reset for the other side.
    const linger at_once = {1, 0};
    setsockopt(client.fd(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }
  const EchoReport report = RunEchoClient({.address = server.address(), .connections = 100});
  EXPECT_EQ(report.echoed, 100U) << report.first_problem;
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["drained"], true);
  EXPECT_EQ(result["open"], 0);
}

TEST_F(EchoServing, ConnectionsBeyondTheMaximumWaitForTheirTurn) {
  EchoServer server({"--json", "--workers", "2", "--connections-max", "3"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report =
      RunEchoClient({.address = server.address(), .connections = 500, .parallel = 100});
  EXPECT_EQ(report.echoed, 500U) << report.first_problem;
}

TEST_F(EchoServing, ReportHasExactlyTheFieldsThatAreDocumented) {
  EchoServer server({"--json", "--workers", "3", "--policy", "round-robin"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = 30,
                                           .payload_bytes_min = 10,
                                           .payload_bytes_max = 10});
  ASSERT_EQ(report.echoed, 30U) << report.first_problem;
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result.size(), 9U) << result;
  EXPECT_EQ(result["accepted"], 30);
  EXPECT_EQ(result["refused"], 0);
  EXPECT_EQ(result["drained"], true);
  EXPECT_EQ(result["open"], 0);
  EXPECT_EQ(result["passed_on"], 0);
  EXPECT_EQ(result["departed"].size(), 6U) << result;
  for (const nlohmann::json& number : result["departed"]) EXPECT_EQ(number, 0) << result;
  ASSERT_EQ(result["workers"].size(), 3U) << result;
  uint64_t assigned = 0;
  uint64_t claimed = 0;
  uint64_t recalled = 0;
  uint64_t moved = 0;
  uint64_t bytes_echoed = 0;
  for (uint32_t i = 0; i < 3; ++i) {
    nlohmann::json worker = result["workers"][i];
    EXPECT_EQ(worker.size(), 8U) << worker;
    EXPECT_TRUE(worker.contains("stalls")) << worker;
    EXPECT_EQ(worker["worker"], i);
    EXPECT_EQ(worker["open"], 0);
    assigned += worker["assigned"].get<uint64_t>();
    claimed += worker["claimed"].get<uint64_t>();
    recalled += worker["recalled"].get<uint64_t>();
    moved += worker["moved"].get<uint64_t>();
    bytes_echoed += worker["bytes_echoed"].get<uint64_t>();
  }
  EXPECT_EQ(claimed, 30U);
  EXPECT_EQ(result["recalled"], recalled);
  EXPECT_EQ(result["moved"], moved);
  EXPECT_EQ(assigned, claimed + recalled + moved);
  EXPECT_EQ(bytes_echoed, 300U);
}

TEST_F(EchoServing, JsonLeavesOnlyTheAddressAndTheReportOnStdout) {
  EchoServer server({"--json"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  ASSERT_TRUE(server.Stop().is_object()) << server.Complaint();
  const std::string& out = server.child().out();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2) << out;
  EXPECT_NE(server.child().err().find("try it: nc 127.0.0.1"), std::string::npos);
}

// Returns the cells of the row that `label` begins.
std::vector<std::string> TableRow(const std::string& text, const std::string& label) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream cells(line);
    std::vector<std::string> row;
    for (std::string cell; cells >> cell;) row.push_back(cell);
    if (!row.empty() && row.front() == label) return row;
  }
  return {};
}

TEST_F(EchoServing, TableShowsWhatEveryWorkerDid) {
  EchoServer server({"--workers", "2", "--policy", "round-robin"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report = RunEchoClient({.address = server.address(), .connections = 20});
  ASSERT_EQ(report.echoed, 20U) << report.first_problem;
  server.child().Signal(SIGINT);
  ASSERT_EQ(server.child().WaitForExit(kSoon), 0) << server.Complaint();
  const std::string& out = server.child().out();
  EXPECT_EQ(TableRow(out, "worker"),
            (std::vector<std::string>{"worker", "assigned", "claimed", "recalled", "open", "bytes",
                                      "echoed"}));
  uint64_t claimed = 0;
  for (const char* const worker : {"0", "1"}) {
    const std::vector<std::string> row = TableRow(out, worker);
    ASSERT_EQ(row.size(), 6U) << out;
    claimed += std::stoull(row[2]);
  }
  EXPECT_EQ(claimed, 20U) << out;
  EXPECT_NE(out.find("accepted 20, refused 0"), std::string::npos) << out;
}

TEST_F(EchoServing, FirstSignalLetsOpenConnectionsFinish) {
  EchoServer server({"--json", "--drain-ms", "60000"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  Client client(server.address());
  ASSERT_TRUE(client.Send("before"));
  ASSERT_EQ(client.Receive(), "before");
  server.child().Signal(SIGTERM);
  ASSERT_TRUE(server.child().WaitForErrLine("no more connections", kSoon).has_value());
  ASSERT_TRUE(client.Send("after"));
  EXPECT_EQ(client.Receive(), "after");
  client.Close();
  const nlohmann::json result = server.WaitForReport();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["drained"], true);
  EXPECT_EQ(result["open"], 0);
}

// A drain ends when nobody has anything to wait for, whatever way a worker has of being told.
TEST_P(EchoServingWithLoop, SilentClientsDoNotKeepItFromEnding) {
  using Line = std::vector<std::string>;
  for (const Line& kind :
       {Line{}, Line{"--handoff", "completion"}, Line{"--masters", "2"},
        Line{"--intake", "readiness"}, Line{"--host", GetParam() == "uring" ? "ring" : "loop"}}) {
    Line line = {"--json", "--loop", GetParam(), "--workers", "4", "--drain-ms", "30000"};
    line.insert(line.end(), kind.begin(), kind.end());
    EchoServer server(line);
    ASSERT_NE(server.address(), "") << server.Complaint();
    std::vector<Client> silent;
    for (int i = 0; i < 100; ++i) {
      silent.emplace_back(server.address());
      ASSERT_TRUE(silent.back().connected());
      // Those that ask come last, so nobody is left in a backlog, where a client is reset.
      if (i < 50) continue;
      ASSERT_TRUE(silent.back().Send("a line\n"));
      ASSERT_EQ(silent.back().Receive(7), "a line\n");
    }
    const auto begun = std::chrono::steady_clock::now();
    const nlohmann::json result = server.Stop(std::chrono::seconds(20));
    const auto took = std::chrono::steady_clock::now() - begun;
    ASSERT_TRUE(result.is_object()) << server.Complaint();
    EXPECT_EQ(result["drained"], true);
    EXPECT_GE(result["accepted"], 100);  // more where some tickets find nothing
    for (const Client& client : silent) EXPECT_EQ(client.Receive(), "(end)");
    std::printf("%s %s: SIGTERM with 100 silent clients took %lld ms\n", GetParam().c_str(),
                kind.empty() ? "" : kind.back().c_str(),
                static_cast<long long>(
                    std::chrono::duration_cast<std::chrono::milliseconds>(took).count()));
  }
}

// While one drains, another one is started on the same address, and serves every new client.
TEST_P(EchoServingWithLoop, ASuccessorTakesTheAddressWhileItDrains) {
  const ScratchDirectory scratch;
  const std::string unix_address = "unix:" + scratch.path() + "/socket";
  using Line = std::vector<std::string>;
  for (const Line& kind :
       {Line{}, Line{"--masters", "2"}, Line{"--intake", "readiness"},
        Line{"--host", GetParam() == "uring" ? "ring" : "loop"}, Line{"--listen", unix_address}}) {
    Line line = {"--json", "--loop", GetParam(), "--drain-ms", "60000"};
    line.insert(line.end(), kind.begin(), kind.end());
    EchoServer server(line);
    ASSERT_NE(server.address(), "") << server.Complaint();
    Client client(server.address());
    ASSERT_TRUE(client.connected());
    ASSERT_TRUE(client.Send("before"));
    EXPECT_EQ(client.Receive(6), "before");
    server.child().Signal(SIGTERM);
    ASSERT_TRUE(server.child().WaitForErrLine("no more connections", kSoon).has_value());
    EchoServer successor({"--json", "--listen", server.address()});
    ASSERT_EQ(successor.address(), server.address()) << successor.Complaint();
    const EchoReport report =
        RunEchoClient({.address = server.address(), .connections = 200, .parallel = 10});
    EXPECT_EQ(report.echoed, 200U) << report.first_problem;
    ASSERT_TRUE(client.Send("after"));
    EXPECT_EQ(client.Receive(5), "after");
    ASSERT_EQ(shutdown(client.fd(), SHUT_WR), 0);
    const nlohmann::json result = server.WaitForReport();
    ASSERT_TRUE(result.is_object()) << server.Complaint();
    // A ticket may find nothing, if its connection was counted while it was being accepted.
    const bool tickets = !kind.empty() && kind.back() == "readiness";
    EXPECT_GE(result["accepted"], 1);
    if (!tickets) {
      EXPECT_EQ(result["accepted"], 1);
    }
    EXPECT_EQ(result["drained"], true);
  }
}

// A server that is killed leaves its listener to the kernel, which takes its io_uring apart a
// little later.
TEST_P(EchoServingWithLoop, ItIsStartedAgainAtOnceAfterSigkill) {
  const ScratchDirectory scratch;
  for (const std::string& where :
       {std::string("127.0.0.1:0"), "unix:" + scratch.path() + "/socket"}) {
    std::optional<EchoServer> server;
    server.emplace(std::vector<std::string>{"--json", "--loop", GetParam(), "--listen", where});
    for (int i = 0; i < 10; ++i) {
      ASSERT_NE(server->address(), "") << server->Complaint();
      const std::string address = server->address();
      EXPECT_EQ(RunEchoClient({.address = address, .connections = 5}).echoed, 5U);
      server->child().Signal(SIGKILL);
      ASSERT_EQ(server->child().WaitForExit(kSoon), 128 + SIGKILL);
      server.emplace(std::vector<std::string>{"--json", "--loop", GetParam(), "--listen", address});
    }
  }
}

TEST_F(EchoServing, ConnectionsOpenAtTheDeadlineAreClosedAndCounted) {
  EchoServer server({"--json", "--drain-ms", "100"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const Client client(server.address());
  ASSERT_TRUE(client.Send("here"));
  ASSERT_EQ(client.Receive(), "here");
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["drained"], false);
  EXPECT_EQ(result["open"], 1);
  EXPECT_EQ(client.Receive(), "(end)");
}

TEST_F(EchoServing, SecondSignalEndsTheWait) {
  // Without the second signal the server would outlast the deadline of this test.
  EchoServer server({"--json", "--drain-ms", "3600000"});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const Client client(server.address());
  ASSERT_TRUE(client.Send("here"));
  ASSERT_EQ(client.Receive(), "here");
  server.child().Signal(SIGTERM);
  ASSERT_TRUE(server.child().WaitForErrLine("a second signal", kSoon).has_value());
  server.child().Signal(SIGINT);
  const nlohmann::json result = server.WaitForReport();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], 1);
  EXPECT_EQ(result["drained"], false);
  EXPECT_EQ(result["open"], 1);
  EXPECT_EQ(client.Receive(), "(end)");
}

TEST_F(EchoServing, SixtyFourDescriptorsServeAThousandClientsInTheEnd) {
  EchoServer server({"--json", "--workers", "4"}, {.descriptors_max = 64});
  ASSERT_NE(server.address(), "") << server.Complaint();
  const EchoReport report = RunEchoClient({.address = server.address(),
                                           .connections = 1000,
                                           .parallel = 1000,
                                           .deadline = std::chrono::seconds(60)});
  EXPECT_EQ(report.echoed, 1000U) << report.first_problem;
  EXPECT_EQ(report.reset, 0U);
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], 1000);
  EXPECT_EQ(result["refused"], 0);
}

// Takes what has come back until nothing comes for `quiet`. Marks who was served.
void CollectEchoes(const std::vector<Client>& clients, std::vector<bool>& served,
                   milliseconds quiet) {
  for (;;) {
    std::vector<pollfd> fds;
    for (size_t i = 0; i < clients.size(); ++i) {
      fds.push_back({served[i] ? -1 : clients[i].fd(), POLLIN, 0});
    }
    if (poll(fds.data(), fds.size(), static_cast<int>(quiet.count())) <= 0) return;
    for (size_t i = 0; i < clients.size(); ++i) {
      if (fds[i].revents != 0) served[i] = clients[i].Receive() == "x";
    }
  }
}

TEST_F(EchoServing, WithoutDescriptorsItWaitsWithoutSpinning) {
  EchoServer server({"--json", "--workers", "4"}, {.descriptors_max = 64});
  ASSERT_NE(server.address(), "") << server.Complaint();
  std::vector<Client> clients;
  for (int i = 0; i < 100; ++i) {
    clients.emplace_back(server.address());
    ASSERT_TRUE(clients.back().connected());
    ASSERT_TRUE(clients.back().Send("x"));
  }
  ASSERT_TRUE(server.child().WaitForErrLine("descriptor", kSoon).has_value());
  std::vector<bool> served(clients.size());
  CollectEchoes(clients, served, milliseconds(500));
  const auto served_count = std::count(served.begin(), served.end(), true);
  ASSERT_GT(served_count, 0);
  ASSERT_LT(served_count, 64);

  // Those that were served stay open, so for this long nobody can be accepted.
  constexpr milliseconds kHeld(2000);
  const auto begin = std::chrono::steady_clock::now();
  const std::chrono::nanoseconds cpu_before = server.child().CpuTime();
  CollectEchoes(clients, served, kHeld);
  const std::chrono::nanoseconds cpu = server.child().CpuTime() - cpu_before;
  const std::chrono::nanoseconds elapsed = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(std::count(served.begin(), served.end(), true), served_count);
  EXPECT_GT(server.child().CpuTime().count(), 0);
  const double share = static_cast<double>(cpu.count()) / static_cast<double>(elapsed.count());
  EXPECT_LT(share, 0.02);
  RecordProperty("cpu_share", std::to_string(share));
  std::printf("%ld connections held, cpu %.4f %% of one CPU while nothing could be accepted\n",
              static_cast<long>(served_count), 100 * share);

  // As they go, the others get their turn.
  for (size_t i = 0; i < clients.size(); ++i) {
    if (served[i]) clients[i].Close();
  }
  for (size_t i = 0; i < clients.size(); ++i) {
    if (served[i]) continue;
    EXPECT_EQ(clients[i].Receive(), "x");
    clients[i].Close();
  }
  const nlohmann::json result = server.Stop();
  ASSERT_TRUE(result.is_object()) << server.Complaint();
  EXPECT_EQ(result["accepted"], 100);
  EXPECT_EQ(result["drained"], true);
}

}  // namespace
}  // namespace ringmaster::testing
