// ringmaster-run before whole servers that know nothing of it: each way in which real ones start
// their workers and accept, what must not go wrong around that, and what is said where nothing can
// be done. Method: forking_server answers with its process, so clients see who serves them.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tools/child_process.h"

namespace ringmaster::testing {
namespace {

std::string Program(const char* variable) {
  const char* const path = std::getenv(variable);
  return path != nullptr ? path : "";
}
std::string RunProgram() { return Program("RINGMASTER_RUN_PROGRAM"); }
std::string Forking() { return Program("RINGMASTER_FORKING_SERVER"); }

int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{.tv_sec = 10, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

uint16_t FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  close(fd);
  return ntohs(address.sin_port);
}

// Who serves the connection; empty: nobody.
std::string AskWho(int fd) {
  if (send(fd, "?\n", 2, MSG_NOSIGNAL) != 2) return "";
  std::string answer;
  char byte = 0;
  while (recv(fd, &byte, 1, 0) == 1 && byte != '\n') answer += byte;
  return answer;
}

class RunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (RunProgram().empty() || Forking().empty()) GTEST_SKIP() << "the suite says where they are";
  }
  void TearDown() override {
    for (const int fd : clients_) close(fd);
    if (child_ == nullptr) return;
    child_->Signal(SIGTERM);
    EXPECT_TRUE(child_->WaitForExit(kSoon).has_value());
  }

  void Start(std::vector<std::string> server, const std::string& policy = "least-loaded",
             int listeners = 1) {
    std::vector<std::string> command = {RunProgram()};
    command.insert(command.end(), run_options_.begin(), run_options_.end());
    command.insert(command.end(), {"--policy", policy, "--", Forking()});
    command.insert(command.end(), server.begin(), server.end());
    for (int i = 0; i < listeners; ++i) {
      ports_.push_back(FreePort());
      command.push_back(std::to_string(ports_.back()));
    }
    child_ =
        std::make_unique<ChildProcess>(ChildOptions{.command = command, .own_process_group = true});
    AwaitWorkers(4);
  }
  // Connections one after the other, until so many workers have served one.
  void AwaitWorkers(size_t count) {
    std::map<std::string, int> seen;
    const auto until = std::chrono::steady_clock::now() + kSoon;
    while (seen.size() < count && std::chrono::steady_clock::now() < until) {
      const int fd = Connect(ports_[0]);
      if (fd < 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        continue;
      }
      held_.push_back(fd);
      if (const std::string who = AskWho(fd); !who.empty()) {
        ++seen[who];
        ++served_;
      }
      if (held_.size() > 200) LetGo();
    }
    ASSERT_GE(seen.size(), count);
    LetGo();
  }
  // Returns when each has been closed by its worker, and counts no more.
  void LetGo() {
    for (const int fd : held_) {
      shutdown(fd, SHUT_WR);
      char rest[64];
      while (recv(fd, rest, sizeof(rest), 0) > 0) continue;
      close(fd);
    }
    held_.clear();
  }
  // Until the last line of what ringmaster-run says matches.
  bool LastLineBecomes(const std::string& pattern) {
    const std::regex wanted(pattern);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    do {
      child_->WaitForErrLine("not said", std::chrono::milliseconds(60));
      const std::string& text = child_->err();
      const size_t end = text.rfind('\n');
      if (end == std::string::npos) continue;
      const size_t begin = text.rfind('\n', end - 1) + 1;
      if (std::regex_search(text.substr(begin, end - begin), wanted)) return true;
    } while (std::chrono::steady_clock::now() < until);
    return false;
  }
  // Opens connections that stay, asks each, and returns how many each worker has, the most first.
  std::vector<int> Spread(int count) {
    std::map<std::string, int> by_worker;
    for (int i = 0; i < count; ++i) {
      const int fd = Connect(ports_[static_cast<size_t>(i) % ports_.size()]);
      EXPECT_GE(fd, 0);
      clients_.push_back(fd);
      const std::string who = AskWho(fd);
      EXPECT_NE(who, "") << i;
      ++by_worker[who];
      ++served_;
    }
    std::vector<int> counts;
    for (const auto& [worker, connections] : by_worker) counts.push_back(connections);
    std::sort(counts.rbegin(), counts.rend());
    return counts;
  }
  // Where the machine is so busy that a worker gets no CPU for milliseconds, it loses a turn. So
  // there are three attempts.
  void ExpectEven() {
    std::vector<int> counts;
    for (int attempt = 0; attempt < 3; ++attempt) {
      counts = Spread(64);
      // What stands at one listener was decided before the last connection of another.
      if (counts.size() == 4 && counts.front() - counts.back() <= static_cast<int>(ports_.size())) {
        return;
      }
      held_ = std::exchange(clients_, {});
      LetGo();
    }
    ADD_FAILURE() << ::testing::PrintToString(counts);
  }

  // Ends the server, and looks whether each connection was counted that was served.
  void ExpectAllCounted() {
    for (const int fd : clients_) close(fd);
    clients_.clear();
    child_->Signal(SIGTERM);
    EXPECT_EQ(child_->WaitForExit(kSoon), 0);
    ExpectContains(child_->err(), "4 workers accepted " + std::to_string(served_) + ";");
    child_.reset();
  }

  size_t served_ = 0;
  std::vector<std::string> run_options_ = {"--report"};
  std::vector<uint16_t> ports_;
  std::unique_ptr<ChildProcess> child_;
  std::vector<int> clients_;
  std::vector<int> held_;
};

struct Way {
  const char* name;
  std::vector<std::string> server;
  int listeners = 1;
};

class EveryWay : public RunTest, public ::testing::WithParamInterface<Way> {};

TEST_P(EveryWay, IsEven) {
  const std::vector<std::string>& words = GetParam().server;
  if (geteuid() != 0 && std::count(words.begin(), words.end(), "--leave") > 0) {
    GTEST_SKIP() << "only root can go to another root folder";
  }
  Start(GetParam().server, "least-loaded", GetParam().listeners);
  if (HasFatalFailure()) return;
  ExpectEven();
}

INSTANTIATE_TEST_SUITE_P(
    Servers, EveryWay,
    ::testing::Values(
        Way{"forked", {}}, Way{"forked_until_no_more", {"--take", "all"}},
        Way{"exclusive", {"--exclusive"}}, Way{"edge_triggered", {"--edge", "--take", "all"}},
        Way{"pwait", {"--wait", "pwait"}}, Way{"pwait2", {"--wait", "pwait2"}},
        Way{"started_by_exec", {"--start", "exec", "--late-listen"}},
        Way{"passed_by_a_socket", {"--start", "pass", "--late-listen"}},
        Way{"threads", {"--start", "threads"}},
        Way{"taken_out_and_added_anew", {"--again", "3", "--exclusive"}},
        Way{"blocking", {"--blocking"}}, Way{"closing_ranges", {"--close-ranges"}},
        Way{"closing_ranges_before_exec", {"--start", "exec", "--close-ranges"}},
        Way{"with_an_environment_of_its_own", {"--start", "exec", "--clean"}},
        Way{"with_two_listeners", {}, 2}, Way{"with_two_listeners_of_one_name", {"--one-name"}, 2},
        Way{"asking_once", {"--once"}}, Way{"with_many_sets_one_after_the_other", {"--sets", "40"}},
        Way{"with_a_lower_limit", {"--limit", "150"}},
        Way{"started_with_a_lower_limit", {"--limit", "150", "--start", "exec"}},
        Way{"closing_in_a_signal_handler", {"--handler"}},
        Way{"from_an_empty_root_as_nobody", {"--leave"}},
        Way{"listening_from_an_empty_root_as_nobody", {"--leave", "--late-listen"}}),
    [](const ::testing::TestParamInfo<Way>& way) { return std::string(way.param.name); });

// Those who could not wait for a permit would take everything.
TEST_F(RunTest, IfThereAreTooManyWorkersTheKernelDecides) {
  Start({"--workers", "70"});
  if (HasFatalFailure()) return;
  EXPECT_TRUE(child_->WaitForErrLine("the server has more than 64 workers", kSoon).has_value());
  EXPECT_GE(Spread(40).size(), 1u);
}

TEST_F(RunTest, RoundRobinGoesRound) {
  Start({}, "round-robin");
  if (HasFatalFailure()) return;
  ExpectEven();
}

TEST_F(RunTest, CountsFallThoughConnectionsAreClosedBehindItsBack) {
  run_options_ = {"--stats", "0.05"};
  Start({"--raw-close"});
  if (HasFatalFailure()) return;
  Spread(40);
  for (const int fd : clients_) close(fd);
  clients_.clear();
  EXPECT_TRUE(LastLineBecomes("^ringmaster-run:( [0-9]+: [0-9]+ accepted, 0 open;?){4}$"))
      << child_->err();
}

// Clients are refused as soon as the server has closed its listener, though its processes live on.
class ClosingTest : public RunTest,
                    public ::testing::WithParamInterface<std::pair<const char*, const char*>> {};

TEST_P(ClosingTest, AListenerThatTheServerHasClosedRefuses) {
  const auto& [how, policy] = GetParam();
  Start(*how == '\0' ? std::vector<std::string>{} : std::vector<std::string>{how}, policy);
  if (HasFatalFailure()) return;
  Spread(16);  // these keep workers busy
  child_->Signal(SIGTERM);
  int fd = -1;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while ((fd = Connect(ports_[0])) >= 0 && std::chrono::steady_clock::now() < until) {
    close(fd);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_LT(fd, 0);
  if (fd >= 0) close(fd);
}

INSTANTIATE_TEST_SUITE_P(Servers, ClosingTest,
                         ::testing::Values(std::pair{"", "least-loaded"}, std::pair{"", "none"},
                                           std::pair{"--raw-close", "least-loaded"},
                                           std::pair{"--raw-close", "none"}));

TEST_F(RunTest, NobodyIsLostWhenWorkersAreKilled) {
  Start({});
  if (HasFatalFailure()) return;
  for (int i = 0; i < 20; ++i) {
    const int fd = Connect(ports_[0]);
    const std::string who = AskWho(fd);
    ASSERT_NE(who, "") << i;
    // Idle by now, with a permit or without, or holding nothing.
    kill(std::stoi(who), SIGKILL);
    close(fd);
    for (int next = 0; next < 4; ++next) {
      const int other = Connect(ports_[0]);
      ASSERT_NE(AskWho(other), "") << i;
      close(other);
    }
  }
}

// What it was about to take is somebody else's.
TEST_F(RunTest, AThreadThatIsCancelledInAcceptHoldsNothing) {
  Start({"--blocking"});
  if (HasFatalFailure()) return;
  Spread(4);
  for (const int fd : clients_) {
    ASSERT_EQ(send(fd, "c", 1, MSG_NOSIGNAL), 1);
    ASSERT_NE(AskWho(fd), "");
  }
  held_ = std::exchange(clients_, {});
  LetGo();
  ExpectEven();
}

TEST_F(RunTest, ADuplicateIsTheSameListener) {
  Start({"--duplicate"});
  if (HasFatalFailure()) return;
  ExpectEven();
  ExpectAllCounted();
}

// They need no balance. What each accepts is counted all the same.
class CountingTest : public RunTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(CountingTest, WhoeverWaitsWithoutEpollIsCounted) {
  Start({"--wait", GetParam(), "--blocking"});
  if (HasFatalFailure()) return;
  for (int i = 0; i < 40; ++i) {
    const int fd = Connect(ports_[0]);
    EXPECT_NE(AskWho(fd), "") << i;
    close(fd);
    ++served_;
  }
  ExpectAllCounted();
}

INSTANTIATE_TEST_SUITE_P(Servers, CountingTest, ::testing::Values("nothing", "poll", "select"));

// Its number lives on, its epoll sets do not.
TEST_F(RunTest, AWorkerThatStartsItselfAnewIsOneWorker) {
  run_options_ = {"--stats", "0.05"};
  Start({});
  if (HasFatalFailure()) return;
  const int fd = Connect(ports_[0]);
  const std::string who = AskWho(fd);
  close(fd);
  kill(std::stoi(who), SIGUSR1);
  // Each worker, so the new one too.
  AwaitWorkers(4);
  ExpectEven();
  EXPECT_TRUE(LastLineBecomes("^ringmaster-run:( [0-9]+: [0-9]+ accepted, 16 open;?){4}$"))
      << child_->err();
}

TEST_F(RunTest, WhoeverStopsLosesItsTurn) {
  Start({});
  if (HasFatalFailure()) return;
  const int fd = Connect(ports_[0]);
  const pid_t stopped = std::stoi(AskWho(fd));
  kill(stopped, SIGSTOP);
  clients_.push_back(fd);
  const std::vector<int> counts = Spread(30);
  kill(stopped, SIGCONT);
  EXPECT_EQ(counts.size(), 3u) << ::testing::PrintToString(counts);
}

TEST_F(RunTest, AReloadLosesNobodyAndTheNewOnesAreEven) {
  Start({});
  if (HasFatalFailure()) return;
  child_->Signal(SIGHUP);
  for (int i = 0; i < 100; ++i) {
    const int fd = Connect(ports_[0]);
    ASSERT_GE(fd, 0);
    ASSERT_NE(AskWho(fd), "") << i;
    close(fd);
  }
  AwaitWorkers(4);
  ExpectEven();
}

// A shell waits until what it has started stops, and that is ringmaster-run.
TEST_F(RunTest, ItStopsWithItsServerAndGoesOnWithIt) {
  Start({});
  if (HasFatalFailure()) return;
  child_->Signal(SIGTSTP);
  siginfo_t info{};
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (info.si_pid == 0 && std::chrono::steady_clock::now() < until) {
    ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child_->pid()), &info, WSTOPPED | WNOHANG), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(info.si_pid, child_->pid());
  child_->Signal(SIGCONT);
  Spread(8);
  // That it goes on is seen when it ends.
}

// A server without its keeper serves on.
TEST_F(RunTest, IfRingmasterRunIsKilledTheServerServesOn) {
  Start({});
  if (HasFatalFailure()) return;
  const int fd = Connect(ports_[0]);
  const pid_t worker = std::stoi(AskWho(fd));
  std::ifstream status("/proc/" + std::to_string(worker) + "/stat");
  std::string word;
  pid_t master = 0;
  status >> word >> word >> word >> master;
  child_->Signal(SIGKILL);
  for (int i = 0; i < 40; ++i) {
    const int other = Connect(ports_[0]);
    EXPECT_NE(AskWho(other), "") << i;
    clients_.push_back(other);
  }
  close(fd);
  for (const int client : clients_) close(client);
  clients_.clear();
  kill(master, SIGTERM);
  child_.reset();
}

// Otherwise clients would wait in the queue of a listener that nobody serves.
TEST_F(RunTest, WhenTheServerHasClosedItsListenerClientsAreRefused) {
  Start({});
  if (HasFatalFailure()) return;
  const int fd = Connect(ports_[0]);
  ASSERT_NE(AskWho(fd), "");
  child_->Signal(SIGTERM);  // the workers serve what they have
  const auto until = std::chrono::steady_clock::now() + kSoon;
  int refused = 0;
  while (std::chrono::steady_clock::now() < until) {
    const int other = Connect(ports_[0]);
    if (other < 0) {
      refused = 1;
      break;
    }
    close(other);
  }
  EXPECT_EQ(refused, 1);
  EXPECT_NE(AskWho(fd), "");
  close(fd);
  EXPECT_EQ(child_->WaitForExit(kSoon), 0);
  child_.reset();
}

TEST_F(RunTest, ReportsWhatEachWorkerDid) {
  Start({});
  if (HasFatalFailure()) return;
  Spread(16);
  child_->Signal(SIGTERM);
  for (const int fd : clients_) close(fd);
  clients_.clear();
  EXPECT_EQ(child_->WaitForExit(kSoon), 0);
  ExpectContains(child_->err(), "4 workers accepted ");
  child_.reset();
}

TEST_F(RunTest, WithNoPolicyItCountsAndChangesNothing) {
  Start({"--take", "all"}, "none");
  if (HasFatalFailure()) return;
  Spread(16);
  child_->Signal(SIGTERM);
  for (const int fd : clients_) close(fd);
  clients_.clear();
  EXPECT_EQ(child_->WaitForExit(kSoon), 0);
  ExpectContains(child_->err(), " accepted ");
  child_.reset();
}

class SentenceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (RunProgram().empty()) GTEST_SKIP() << "the suite says where it is";
  }
  static Outcome With(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), RunProgram());
    return RunToEnd({.command = arguments});
  }
};

TEST_F(SentenceTest, ItsExitStatusIsThatOfTheServer) {
  EXPECT_EQ(With({"--", "/bin/sh", "-c", "exit 7"}).status, 7);
  EXPECT_EQ(With({"--", "/bin/sh", "-c", "kill -KILL $$"}).status, 128 + SIGKILL);
  const Outcome none = With({"--", "no-such-program-anywhere"});
  EXPECT_EQ(none.status, 127);
  ExpectContains(none.err, "there is no program \"no-such-program-anywhere\"");
}

TEST_F(SentenceTest, PoliciesThatDecideLaterAreRefused) {
  for (const std::string policy :
       {"affinity-cpu", "affinity-hash", "weighted-round-robin", "exclusive"}) {
    const Outcome outcome = With({"--policy", policy, "--", "/bin/true"});
    EXPECT_EQ(outcome.status, 2) << policy;
    ExpectContains(outcome.err, "decides when a connection is there");
  }
  const Outcome unknown = With({"--policy", "fairest", "--", "/bin/true"});
  EXPECT_EQ(unknown.status, 2);
  ExpectContains(unknown.err, "least-loaded");
}

TEST_F(SentenceTest, AStaticProgramRunsAsWithoutIt) {
  const Outcome outcome = With({"--", Program("RINGMASTER_STATIC_PROGRAM"), "x"});
  EXPECT_EQ(outcome.status, 3);
  ExpectContains(outcome.err, "is a static program, so nothing can be loaded into it");
}

// What a program with privileges loads is up to the system.
TEST_F(SentenceTest, AProgramWithPrivilegesIsNamed) {
  const std::filesystem::path copy =
      std::filesystem::temp_directory_path() / ("ringmaster-run-" + std::to_string(getpid()));
  std::filesystem::copy_file("/bin/true", copy);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(copy.c_str(), 65534, 65534), 0);
  } else {
    std::filesystem::remove(copy);
    GTEST_SKIP() << "only root can make a program somebody else's";
  }
  std::filesystem::permissions(copy, std::filesystem::perms(04755));
  const Outcome outcome = With({"--", copy.string()});
  std::filesystem::remove(copy);
  EXPECT_EQ(outcome.status, 0);
  ExpectContains(outcome.err, "gets privileges when it is started");
}

TEST_F(SentenceTest, TheServersOptionsAreItsOwn) {
  EXPECT_EQ(With({"/bin/sh", "-c", "exit 5"}).status, 5);
  EXPECT_EQ(With({"--policy", "round-robin", "/bin/sh", "-c", "exit 6"}).status, 6);
  EXPECT_EQ(With({"--policy=none", "--report", "--", "/bin/sh", "-c", "exit 7"}).status, 7);
  const Outcome nothing = With({"--report"});
  EXPECT_EQ(nothing.status, 2);
  ExpectContains(nothing.err, "the server's command is missing");
}

// Else a server that systemd starts with its listeners does not take them.
TEST_F(SentenceTest, WhatIsForOneProcessIsForTheServer) {
  const Outcome outcome =
      RunToEnd({.command = {"/bin/sh", "-c",
                            "export LISTEN_PID=$$ WATCHDOG_PID=1; exec \"$0\" -- /bin/sh -c "
                            "'test $LISTEN_PID = $$ && test $WATCHDOG_PID = 1'",
                            RunProgram()}});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
}

TEST_F(SentenceTest, WhateverIsStartedIsReached) {
  const Outcome outcome = With({"--", Program("RINGMASTER_STARTS_PROGRAMS")});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "");
}

TEST_F(SentenceTest, WhereNobodyAcceptsTheReportSaysSo) {
  const Outcome outcome = With({"--report", "--", "/bin/echo", "hello"});
  EXPECT_EQ(outcome.status, 0);
  ExpectContains(outcome.err, "no process was seen to accept");
}

TEST_F(SentenceTest, AnEmptyEnvironmentLosesNothing) {
  const Outcome outcome = With({"--", "/usr/bin/env", "-i", "/bin/sh", "-c",
                                "test -n \"$RINGMASTER_RUN\" && test -n \"$LD_PRELOAD\""});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
}

// One that does not listen is no server; it runs all the same.
TEST_F(SentenceTest, AProgramThatIsNoServerRuns) {
  const Outcome outcome = With({"--", "/bin/echo", "hello"});
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.out, "hello\n");
  EXPECT_EQ(outcome.err, "");
}

}  // namespace
}  // namespace ringmaster::testing
