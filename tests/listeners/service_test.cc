// Listeners by number and from systemd, and what a service manager is told. Method: the descriptors
// from 3 on are the test's, in a child of its own, because systemd's protocol begins there. The
// service manager is a datagram socket.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "ringmaster/listeners.h"
#include "sockets.h"

namespace ringmaster {
namespace {

using testing::Bound;
using testing::Child;
using testing::ConnectTo;
using testing::Fd;
using testing::IsCloseOnExec;
using testing::IsNonBlocking;
using testing::IsOpen;
using testing::SameSocket;
using testing::Scratch;

void ExpectRefused(const absl::Status& status, const std::string& why) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_NE(status.message().find(why), std::string::npos) << status;
}

// --- By number -----------------------------------------------------------------------------------

TEST(InheritListener, IsOwnedNonBlockingAndCloseOnExec) {
  const int fd = Bound().Release();
  ASSERT_FALSE(IsNonBlocking(fd));
  ASSERT_FALSE(IsCloseOnExec(fd));
  {
    absl::StatusOr<NamedListener> listener = InheritListener(fd, "http");
    ASSERT_TRUE(listener.ok()) << listener.status();
    EXPECT_EQ(listener->fd(), fd);
    EXPECT_EQ(listener->name(), "http");
    EXPECT_TRUE(IsNonBlocking(fd));
    EXPECT_TRUE(IsCloseOnExec(fd));
    NamedListener moved;
    moved = *std::move(listener);
    EXPECT_EQ(moved.fd(), fd);
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
}

TEST(InheritListener, ADatagramSocketThatIsBoundWillDo) {
  absl::StatusOr<NamedListener> listener = InheritListener(Bound(SOCK_DGRAM).Release());
  EXPECT_TRUE(listener.ok()) << listener.status();
}

TEST(InheritListener, SaysWhatIsWrongWithTheOthersAndLeavesThemAlone) {
  const Fd file(open("/dev/null", O_RDONLY));
  const Fd deaf(socket(AF_INET, SOCK_STREAM, 0));
  const Fd unbound(socket(AF_INET, SOCK_DGRAM, 0));
  const Fd unbound_unix(socket(AF_UNIX, SOCK_DGRAM, 0));
  const Fd listener = Bound();
  const Fd connected = ConnectTo(listener.get());
  ExpectRefused(InheritListener(9999).status(), "is not open");
  ExpectRefused(InheritListener(-1).status(), "is not open");
  ExpectRefused(InheritListener(file.get()).status(), "is not a socket");
  ExpectRefused(InheritListener(deaf.get()).status(), "call listen()");
  ExpectRefused(InheritListener(unbound.get()).status(), "call bind()");
  ExpectRefused(InheritListener(unbound_unix.get()).status(), "call bind()");
  ExpectRefused(InheritListener(connected.get()).status(), "Accept=no");
  for (const Fd* each : {&file, &deaf, &unbound, &connected}) {
    EXPECT_TRUE(IsOpen(each->get()));
    EXPECT_FALSE(IsNonBlocking(each->get()));
  }
}

// --- From systemd --------------------------------------------------------------------------------

// What a service finds: the descriptors from 3 on and the variables. "self" as LISTEN_PID stands
// for the service's own process.
struct Given {
  std::vector<int> fds;
  std::vector<std::pair<std::string, std::string>> variables;
};

// Starts such a service, and says whether it is content.
bool Serve(const Given& given, const std::function<bool()>& is_content) {
  return Child([&] {
           // First out of the way of one another.
           std::vector<int> copies;
           for (const int fd : given.fds) copies.push_back(fcntl(fd, F_DUPFD, 100));
           for (size_t i = 0; i < copies.size(); ++i) dup2(copies[i], 3 + static_cast<int>(i));
           for (const auto& [name, value] : given.variables) {
             setenv(name.c_str(),
                    value == "self" ? std::to_string(getpid()).c_str() : value.c_str(), 1);
           }
           const bool content = is_content() && !::testing::Test::HasFailure();
           return content ? 0 : 1;
         }).Wait() == 0;
}

bool NoVariables() {
  for (const char* const name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}) {
    if (std::getenv(name) != nullptr) return false;
  }
  return true;
}

TEST(ListenersOfService, AreAllThatWerePassedWithTheirNames) {
  const Fd first = Bound();
  const Fd second = Bound(SOCK_DGRAM);
  EXPECT_TRUE(Serve({.fds = {first.get(), second.get()},
                     .variables = {{"LISTEN_PID", "self"},
                                   {"LISTEN_FDS", "2"},
                                   {"LISTEN_FDNAMES", "http:dns"},
                                   {"LISTEN_PIDFDID", "1"}}},
                    [&] {
                      const auto listeners = ListenersOfService();
                      EXPECT_TRUE(listeners.ok()) << listeners.status();
                      EXPECT_EQ(listeners->size(), 2u);
                      EXPECT_EQ(listeners->at(0).fd(), 3);
                      EXPECT_EQ(listeners->at(0).name(), "http");
                      EXPECT_EQ(listeners->at(1).fd(), 4);
                      EXPECT_EQ(listeners->at(1).name(), "dns");
                      EXPECT_TRUE(SameSocket(3, first.get()));
                      for (const int fd : {3, 4}) {
                        EXPECT_TRUE(IsCloseOnExec(fd));
                        EXPECT_TRUE(IsNonBlocking(fd));
                      }
                      return NoVariables();
                    }));
}

TEST(ListenersOfService, WithoutNamesAreUnknownAndTheVariablesMayStay) {
  const Fd first = Bound();
  EXPECT_TRUE(
      Serve({.fds = {first.get()}, .variables = {{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}}}, [] {
        const auto listeners = ListenersOfService({.unset_environment = false});
        return listeners.ok() && listeners->size() == 1 && listeners->at(0).name() == "unknown" &&
               std::getenv("LISTEN_FDS") != nullptr;
      }));
}

// The others may be anything, and stay open for whoever knows them.
TEST(ListenersOfService, OfOneNameLeaveTheOthersAlone) {
  const Fd first = Bound();
  const Fd file(open("/dev/null", O_RDONLY));
  const Given given = {
      .fds = {file.get(), first.get()},
      .variables = {
          {"LISTEN_PID", "self"}, {"LISTEN_FDS", "2"}, {"LISTEN_FDNAMES", "stored:http"}}};
  EXPECT_TRUE(Serve(given, [&] {
    {
      const auto listeners = ListenersOfService({.name = "http"});
      EXPECT_TRUE(listeners.ok()) << listeners.status();
      EXPECT_EQ(listeners->size(), 1u);
      EXPECT_EQ(listeners->at(0).fd(), 4);
    }
    return IsOpen(3) && IsCloseOnExec(3) && !IsOpen(4);
  }));
  EXPECT_TRUE(Serve(given, [] {
    const auto listeners = ListenersOfService({.name = "smtp"});
    return listeners.ok() && listeners->empty();
  }));
  const Fd other = Bound();
  EXPECT_TRUE(Serve({.fds = {file.get(), other.get()}, .variables = given.variables}, [] {
    ExpectRefused(ListenersOfService().status(),
                  "(\"stored\"), which systemd has passed on, is not");
    return IsOpen(3) && IsOpen(4) && !IsNonBlocking(4) && NoVariables();
  }));
}

TEST(ListenersOfService, AreNoneWhereNoneWereMeantForThisProcess) {
  const Fd first = Bound();
  const auto none = [] {
    const auto listeners = ListenersOfService();
    return listeners.ok() && listeners->empty() && NoVariables() && !IsNonBlocking(3);
  };
  EXPECT_TRUE(Serve({.fds = {first.get()}}, none));
  EXPECT_TRUE(Serve({.fds = {first.get()}, .variables = {{"LISTEN_FDS", "1"}}}, none));
  EXPECT_TRUE(Serve({.fds = {first.get()}, .variables = {{"LISTEN_PID", "self"}}}, none));
  // Of a parent that is somebody else.
  EXPECT_TRUE(
      Serve({.fds = {first.get()}, .variables = {{"LISTEN_PID", "1"}, {"LISTEN_FDS", "1"}}}, none));
}

TEST(ListenersOfService, NonsenseIsSaid) {
  const Fd first = Bound();
  const Fd connected = ConnectTo(first.get());
  using Variables = std::vector<std::pair<std::string, std::string>>;
  const auto refuses = [&](const Variables& variables, const std::string& why,
                           std::vector<int> fds = {}) {
    if (fds.empty()) fds = {first.get()};
    EXPECT_TRUE(Serve({.fds = std::move(fds), .variables = variables}, [&] {
      ExpectRefused(ListenersOfService().status(), why);
      return NoVariables() && IsOpen(3);
    })) << why;
  };
  refuses({{"LISTEN_PID", "me"}, {"LISTEN_FDS", "1"}}, "LISTEN_PID is \"me\"");
  refuses({{"LISTEN_PID", "-7"}, {"LISTEN_FDS", "1"}}, "LISTEN_PID is \"-7\"");
  refuses({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "one"}}, "LISTEN_FDS is \"one\"");
  refuses({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "0"}}, "LISTEN_FDS is \"0\"");
  refuses({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "2147483646"}}, "LISTEN_FDS is \"2147483646\"");
  refuses({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "2000000000"}}, "is not open: take them over");
  refuses({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}, {"LISTEN_FDNAMES", "a:b"}}, "has 2 names");
  refuses({{"LISTEN_PID", "self"}, {"LISTEN_FDS", "1"}}, "set Accept=no", {connected.get()});
}

// --- What it is told -----------------------------------------------------------------------------

class NotifyServiceTest : public ::testing::Test {
 protected:
  void TearDown() override {
    for (const char* const name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
      unsetenv(name);
  }

  // Listens where NOTIFY_SOCKET says from now on.
  void ManageAt(const std::string& where) {
    setenv("NOTIFY_SOCKET", where.c_str(), 1);
    manager_ = Fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    where.copy(address.sun_path, sizeof(address.sun_path));
    if (where[0] == '@') address.sun_path[0] = '\0';
    ASSERT_EQ(bind(manager_.get(), reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + where.size())),
              0);
  }
  // What was said since, "" if nothing.
  std::string Said() const {
    std::array<char, 4096> bytes;
    const ssize_t size = recv(manager_.get(), bytes.data(), bytes.size(), 0);
    return size < 0 ? "" : std::string(bytes.data(), static_cast<size_t>(size));
  }

  const Scratch scratch_;
  Fd manager_;
};

TEST_F(NotifyServiceTest, NothingHappensWhereItWasNotAskedFor) {
  unsetenv("NOTIFY_SOCKET");
  const int next = testing::Fd(dup(0)).get();
  EXPECT_TRUE(NotifyService({.ready = true, .status = "a\nb"}).ok());
  EXPECT_EQ(testing::Fd(dup(0)).get(), next);
  EXPECT_EQ(*WatchdogInterval(), absl::InfiniteDuration());
}

TEST_F(NotifyServiceTest, EachStateIsALineOfOneMessage) {
  for (const std::string& where :
       {scratch_ / "notify", "@ringmaster-test-" + std::to_string(getpid())}) {
    ManageAt(where);
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_TRUE(NotifyService({.ready = true, .status = "serves 3 workers"}).ok());
    EXPECT_EQ(Said(), "READY=1\nSTATUS=serves 3 workers\n");
    EXPECT_TRUE(NotifyService({.stopping = true}).ok());
    EXPECT_EQ(Said(), "STOPPING=1\n");
    EXPECT_TRUE(NotifyService({.watchdog = true, .main_pid = 77}).ok());
    EXPECT_EQ(Said(), "WATCHDOG=1\nMAINPID=77\n");
    EXPECT_TRUE(NotifyService({.reloading = true}).ok());
    const std::string reloading = Said();
    EXPECT_EQ(reloading.rfind("RELOADING=1\nMONOTONIC_USEC=", 0), 0u) << reloading;
    EXPECT_TRUE(NotifyService({}).ok());
    EXPECT_EQ(Said(), "");
  }
}

TEST_F(NotifyServiceTest, WhatCannotBeSaidIsAnErrorInWords) {
  ManageAt(scratch_ / "notify");
  ExpectRefused(NotifyService({.status = "two\nlines"}), "more than one line");
  EXPECT_EQ(Said(), "");
  for (const std::string& where :
       {std::string("vsock:2:1234"), std::string("/") + std::string(200, 'x'), std::string("@"),
        std::string()}) {
    setenv("NOTIFY_SOCKET", where.c_str(), 1);
    ExpectRefused(NotifyService({.ready = true}), "neither a path nor an abstract name");
  }
  setenv("NOTIFY_SOCKET", (scratch_ / "nobody").c_str(), 1);
  EXPECT_EQ(NotifyService({.ready = true}).code(), absl::StatusCode::kUnavailable);
}

// Its queue is full, as of one that is stopped. This waits for the second that the header names.
TEST_F(NotifyServiceTest, AManagerThatTakesNothingIsNotWaitedForForEver) {
  ManageAt(scratch_ / "notify");
  absl::Status status;
  for (int i = 0; i < 10'000 && status.ok(); ++i) status = NotifyService({.watchdog = true});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_NE(status.message().find("takes no message"), std::string::npos) << status;
}

TEST_F(NotifyServiceTest, TheWatchdogIsThisProcessesOrNobodys) {
  setenv("WATCHDOG_USEC", "30000000", 1);
  EXPECT_EQ(*WatchdogInterval(), absl::Seconds(30));
  setenv("WATCHDOG_PID", std::to_string(getpid()).c_str(), 1);
  EXPECT_EQ(*WatchdogInterval(), absl::Seconds(30));
  setenv("WATCHDOG_PID", "1", 1);
  EXPECT_EQ(*WatchdogInterval(), absl::InfiniteDuration());
  setenv("WATCHDOG_PID", "x", 1);
  ExpectRefused(WatchdogInterval().status(), "WATCHDOG_PID is \"x\"");
  unsetenv("WATCHDOG_PID");
  for (const char* const value : {"0", "-1", "soon", ""}) {
    setenv("WATCHDOG_USEC", value, 1);
    ExpectRefused(WatchdogInterval().status(), "WATCHDOG_USEC");
  }
}

}  // namespace
}  // namespace ringmaster
