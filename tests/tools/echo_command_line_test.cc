// What ringmaster-echo says and answers before it serves: the real program is run to its end.

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "echo_server.h"
#include "ringmaster/policy.h"
#include "support/echo_client.h"

namespace ringmaster::testing {
namespace {

using ::testing::Test;
using ::testing::TestWithParam;
using ::testing::Values;

// A complaint is one line that names the program.
void ExpectOneSentence(const std::string& text) {
  EXPECT_TRUE(text.starts_with("ringmaster-echo: ")) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
}

TEST(EchoCommandLine, HelpNamesEveryOptionAndPolicy) {
  const Outcome help = RunEcho({"--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_EQ(help.err, "");
  for (const char* const option :
       {"--listen", "--workers", "--policy", "--intake", "--handoff", "--loop", "--connections-max",
        "--drain-ms", "--json", "--help", "--hand-over", "fd:N", "systemd[:NAME]", "--version",
        "127.0.0.1:7777", "least-loaded", "poll-accept"}) {
    ExpectContains(help.out, option);
  }
  for (const std::string_view policy : PolicyNames()) {
    ExpectContains(help.out, std::string(policy));
  }
}

TEST(EchoCommandLine, VersionIsOneLine) {
  const Outcome version = RunEcho({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_EQ(version.out, "ringmaster-echo " RINGMASTER_VERSION "\n");
  EXPECT_EQ(version.err, "");
}

class EchoWrongOptions : public TestWithParam<WrongLine> {};

TEST_P(EchoWrongOptions, AreComplainedAboutWithStatusTwo) {
  const Outcome outcome = RunEcho(GetParam().arguments);
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.out, "");
  ExpectContains(outcome.err, GetParam().complaint);
}

INSTANTIATE_TEST_SUITE_P(
    All, EchoWrongOptions,
    Values(WrongLine{{"--bogus"}, "--bogus"}, WrongLine{{"7777"}, "7777"},
           WrongLine{{"--workers", "0"}, "--workers"}, WrongLine{{"--workers", "x"}, "--workers"},
           WrongLine{{"--policy", "nobody-first"}, "round-robin"},
           WrongLine{{"--intake", "guess"}, "poll-accept"}, WrongLine{{"--host", "guess"}, "ring"},
           WrongLine{{"--masters", "0"}, "--masters"}, WrongLine{{"--masters", "17"}, "--masters"},
           WrongLine{{"--masters", "2", "--host", "ring"}, "--host thread"},
           WrongLine{{"--host", "dedicated"}, "called thread now"},
           WrongLine{{"--host", "worker"}, "called ring now with --loop uring, and loop with"},
           WrongLine{{"--host", "loop"}, "--host ring"},
           WrongLine{{"--host", "ring", "--loop", "epoll"}, "--host loop"},
           WrongLine{{"--masters", "2", "--listen", "unix:/tmp/x"}, "HOST:PORT"},
           WrongLine{{"--handoff", "guess"}, "completion"}, WrongLine{{"--loop", "guess"}, "epoll"},
           WrongLine{{"--drain-ms", "-1"}, "--drain-ms"}, WrongLine{{"--listen"}, "--listen"},
           WrongLine{{"--listen", "7777"}, "there is no port in it"},
           WrongLine{{"--listen", ":7777"}, "there is no host in it"},
           WrongLine{{"--listen", "::1:7777"}, "brackets"},
           WrongLine{{"--listen", "127.0.0.1:65536"}, "0 to 65535"},
           WrongLine{{"--listen", "127.0.0.1:7x"}, "0 to 65535"},
           WrongLine{{"--listen", "unix:"}, "1 to 107 bytes"},
           WrongLine{{"--listen", "fd:"}, "not the number of a descriptor"},
           WrongLine{{"--listen", "fd:3x"}, "not the number of a descriptor"},
           WrongLine{{"--listen", "fd:-1"}, "not the number of a descriptor"},
           WrongLine{{"--listen", "fd:999"}, "descriptor 999 is not open"},
           WrongLine{{"--listen", "fd:0"}, "descriptor 0 is not a socket"},
           WrongLine{{"--hand-over"}, "--hand-over"},
           WrongLine{{"--hand-over", std::string(108, 'x')}, "1 to 107 bytes"},
           WrongLine{{"--listen", "udp:127.0.0.1"}, "there is no port in it"},
           WrongLine{{"--listen", "udp:127.0.0.1:0", "--intake", "accept"}, "readiness"},
           WrongLine{{"--listen", "udp:127.0.0.1:0", "--handoff", "completion"}, "poll-accept"},
           WrongLine{{"--intake", "readiness", "--handoff", "completion"}, "poll-accept"},
           WrongLine{{"--intake", "readiness", "--handoff", "direct"}, "poll-accept"},
           WrongLine{{"--handoff", "direct", "--loop", "epoll"}, "--loop uring"},
           WrongLine{{"--handoff", "direct", "--host", "ring"}, "--host thread"}));

TEST(EchoAddress, UnknownHostIsNamed) {
  // An empty label is refused by the resolver itself, so that no name server is asked.
  const Outcome outcome = RunEcho({"--listen", "no..such:0"});
  EXPECT_EQ(outcome.status, 1);
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "the host \"no..such\" is unknown");
}

TEST(EchoAddress, AddressOfNoInterfaceIsRefused) {
  // 192.0.2.0/24 is reserved for documentation.
  const Outcome outcome = RunEcho({"--listen", "192.0.2.1:0"});
  EXPECT_EQ(outcome.status, 1);
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "no interface of this machine has that address");
}

TEST(EchoAddress, PrivilegedPortSaysWhatIsMissing) {
  int first_unprivileged = 1024;
  std::ifstream("/proc/sys/net/ipv4/ip_unprivileged_port_start") >> first_unprivileged;
  if (first_unprivileged <= 1) GTEST_SKIP() << "every port is unprivileged here";
  const Outcome outcome = RunEcho({"--listen", "127.0.0.1:1"}, {.without_net_bind_service = true});
  EXPECT_EQ(outcome.status, 1);
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "CAP_NET_BIND_SERVICE");
}

TEST(EchoAddress, MissingDirectoryIsNamed) {
  const ScratchDirectory scratch;
  const Outcome outcome = RunEcho({"--listen", "unix:" + scratch.path() + "/none/socket"});
  EXPECT_EQ(outcome.status, 1);
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "directory does not exist");
}

TEST(EchoAddress, FileThatIsNoSocketIsLeftAlone) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/notes";
  std::ofstream(path) << "keep me";
  const Outcome outcome = RunEcho({"--listen", "unix:" + path});
  EXPECT_EQ(outcome.status, 1);
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "not a socket");
  std::string content;
  std::getline(std::ifstream(path), content);
  EXPECT_EQ(content, "keep me");
}

TEST(EchoAddress, NothingFromSystemdIsSaid) {
  const Outcome outcome = RunEcho({"--listen", "systemd"});
  EXPECT_EQ(outcome.status, 1);
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "systemd has passed on no listener; start this by a socket unit");
}

// The program finds a kernel that refuses io_uring.
class EchoWithoutIoUring : public TestWithParam<std::string> {};

TEST_P(EchoWithoutIoUring, EndsWithTheCause) {
  const char* const without_io_uring = std::getenv("RINGMASTER_WITHOUT_IO_URING");
  if (without_io_uring == nullptr) GTEST_SKIP() << "RINGMASTER_WITHOUT_IO_URING is not set";
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/socket";
  const Outcome outcome =
      RunEcho({"--listen", "unix:" + path}, {.command = {without_io_uring, GetParam()}});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "");
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "io_uring");
  ExpectContains(outcome.err, GetParam() == "EPERM" ? "seccomp" : "kernel");
  EXPECT_NE(access(path.c_str(), F_OK), 0) << "the socket has been left behind";
}

INSTANTIATE_TEST_SUITE_P(Errno, EchoWithoutIoUring, Values("EPERM", "ENOSYS"),
                         [](const auto& instance) { return instance.param; });

// The rest needs a server that runs.
class EchoTakenAddress : public Test {
 protected:
  void SetUp() override {
    if (const std::string reason = WhyNoIoUringHere(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

TEST_F(EchoTakenAddress, TcpPortInUseIsRefusedAndItsServerServesOn) {
  EchoServer first({"--json"});
  ASSERT_NE(first.address(), "") << first.Complaint();
  const Outcome second = RunEcho({"--listen", first.address()});
  EXPECT_EQ(second.status, 1);
  ExpectOneSentence(second.err);
  ExpectContains(second.err, "in use");
  ExpectContains(second.err, first.address());
  const EchoReport report = RunEchoClient({.address = first.address()});
  EXPECT_EQ(report.echoed, 1U) << report.first_problem;
}

// Also where both would share a port among their own masters.
TEST_F(EchoTakenAddress, APortThatMastersShareIsNotSharedWithAnotherServer) {
  EchoServer first({"--json", "--masters", "2"});
  ASSERT_NE(first.address(), "") << first.Complaint();
  const Outcome second = RunEcho({"--masters", "2", "--listen", first.address()});
  EXPECT_EQ(second.status, 1);
  ExpectContains(second.err, "in use");
}

TEST_F(EchoTakenAddress, APathThatCannotBeServedEndsItBeforeItSaysThatItListens) {
  const ScratchDirectory scratch;
  const Outcome outcome =
      RunEcho({"--listen", "127.0.0.1:0", "--hand-over", scratch.path() + "/none/hand-over"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.out, "");
  ExpectOneSentence(outcome.err);
  ExpectContains(outcome.err, "its directory does not exist");
}

TEST_F(EchoTakenAddress, LiveUnixPathIsRefusedAndItsServerServesOn) {
  const ScratchDirectory scratch;
  const std::string where = "unix:" + scratch.path() + "/socket";
  EchoServer first({"--json", "--listen", where});
  ASSERT_EQ(first.address(), where) << first.Complaint();
  const Outcome second = RunEcho({"--listen", where});
  EXPECT_EQ(second.status, 1);
  ExpectOneSentence(second.err);
  ExpectContains(second.err, "in use");
  const EchoReport report = RunEchoClient({.address = where});
  EXPECT_EQ(report.echoed, 1U) << report.first_problem;
}

TEST_F(EchoTakenAddress, AbandonedUnixPathIsTakenOverAndRemovedAtTheEnd) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/socket";
  {
    // Closed without unlink, as a server that was killed leaves it.
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(listen(fd, 1), 0);
    close(fd);
  }
  ASSERT_EQ(access(path.c_str(), F_OK), 0);
  EchoServer server({"--json", "--listen", "unix:" + path});
  ASSERT_EQ(server.address(), "unix:" + path) << server.Complaint();
  const EchoReport report = RunEchoClient({.address = server.address(), .connections = 10});
  EXPECT_EQ(report.echoed, 10U) << report.first_problem;
  EXPECT_TRUE(server.Stop().is_object()) << server.Complaint();
  EXPECT_NE(access(path.c_str(), F_OK), 0) << "the socket has been left behind";
}

TEST_F(EchoTakenAddress, PathThatAnotherServerHasReplacedIsNotRemoved) {
  const ScratchDirectory scratch;
  const std::string path = scratch.path() + "/socket";
  EchoServer first({"--json", "--listen", "unix:" + path});
  ASSERT_NE(first.address(), "") << first.Complaint();
  ASSERT_EQ(unlink(path.c_str()), 0);
  EchoServer second({"--json", "--listen", "unix:" + path});
  ASSERT_NE(second.address(), "") << second.Complaint();
  EXPECT_TRUE(first.Stop().is_object()) << first.Complaint();
  const EchoReport report = RunEchoClient({.address = second.address()});
  EXPECT_EQ(report.echoed, 1U) << report.first_problem;
}

}  // namespace
}  // namespace ringmaster::testing
