// The real ringmaster-echo as a child process, for tests.

#ifndef RINGMASTER_TESTS_TOOLS_ECHO_SERVER_H_
#define RINGMASTER_TESTS_TOOLS_ECHO_SERVER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "child_process.h"

namespace ringmaster::testing {

// Path of the program under test, from the environment variable RINGMASTER_ECHO.
std::string EchoProgram();

// Runs the program to its end, as RunToEnd does.
Outcome RunEcho(const std::vector<std::string>& arguments, ChildOptions options = {});

// A server that runs. It listens on a port that the kernel chooses unless `arguments` say where.
class EchoServer {
 public:
  explicit EchoServer(std::vector<std::string> arguments, ChildOptions options = {});

  // Where it listens; empty when it did not come up within kSoon, see `Complaint`.
  const std::string& address() const { return address_; }

  // What it said on stderr, for messages of failed tests.
  std::string Complaint() const { return "stderr: " + child_->err(); }

  ChildProcess& child() { return *child_; }

  // SIGTERM, then waits for the end. Returns the object that it printed (it must run with --json).
  // Null when it did not end with status 0, or the last line of stdout is no JSON object.
  nlohmann::json Stop(std::chrono::milliseconds deadline = kSoon);

  // Waits for the end without asking for it; returns as above.
  nlohmann::json WaitForReport(std::chrono::milliseconds deadline = kSoon);

 private:
  std::unique_ptr<ChildProcess> child_;
  std::string address_;
};

// A directory for Unix sockets that is removed with what is in it.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Why this process cannot use io_uring; empty when it can. For GTEST_SKIP.
std::string WhyNoIoUringHere();

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_TOOLS_ECHO_SERVER_H_
