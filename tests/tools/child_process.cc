#include "child_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <utility>

namespace ringmaster::testing {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kCannotStart = 127;

// Between fork and exec: system calls only.
[[noreturn]] void Become(const ChildOptions& options, char* const* arguments, int out, int err,
                         pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kCannotStart);  // It died before it could be watched.
  const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(nothing, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  if (options.own_process_group) setpgid(0, 0);
  if (options.descriptors_max.has_value()) {
    const rlimit limit = {*options.descriptors_max, *options.descriptors_max};
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  // Root gains what is in the bounding set when it executes; anybody else has nothing to lose.
  if (options.without_net_bind_service) prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0);
  execv(arguments[0], arguments);
  _exit(kCannotStart);
}

}  // namespace

ChildProcess::ChildProcess(const ChildOptions& options) {
  std::vector<char*> arguments;
  for (const std::string& argument : options.command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  std::array<int, 2> out;
  std::array<int, 2> err;
  if (pipe2(out.data(), O_CLOEXEC) < 0) return;
  if (pipe2(err.data(), O_CLOEXEC) < 0) {
    close(out[0]);
    close(out[1]);
    return;
  }
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) Become(options, arguments.data(), out[1], err[1], parent);
  close(out[1]);
  close(err[1]);
  out_.fd = out[0];
  err_.fd = err[0];
}

ChildProcess::~ChildProcess() {
  if (pid_ > 0 && !status_.has_value()) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  for (const Stream* stream : {&out_, &err_}) {
    if (stream->fd >= 0) close(stream->fd);
  }
}

void ChildProcess::Signal(int signal) const {
  if (pid_ > 0 && !status_.has_value()) kill(pid_, signal);
}

// Waits until one of the streams has something, or has ended. Returns false when neither is open
// any more or the deadline has passed.
bool ChildProcess::ReadSome(Clock::time_point deadline) {
  if (out_.fd < 0 && err_.fd < 0) return false;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
  if (left.count() <= 0) return false;
  // A negative descriptor is passed over by poll.
  std::array<pollfd, 2> fds = {{{out_.fd, POLLIN, 0}, {err_.fd, POLLIN, 0}}};
  if (poll(fds.data(), fds.size(), static_cast<int>(left.count())) <= 0) return errno == EINTR;
  for (Stream* const stream : {&out_, &err_}) {
    if (fds[stream == &out_ ? 0 : 1].revents == 0) continue;
    std::array<char, 4096> bytes;
    const ssize_t count = read(stream->fd, bytes.data(), bytes.size());
    if (count > 0) {
      stream->text.append(bytes.data(), static_cast<size_t>(count));
    } else if (count == 0 || errno != EINTR) {
      close(std::exchange(stream->fd, -1));
    }
  }
  return true;
}

std::optional<std::string> ChildProcess::WaitForLine(Stream& stream, const std::string& text,
                                                     std::chrono::milliseconds deadline) {
  const Clock::time_point end = Clock::now() + deadline;
  for (;;) {
    size_t begin = 0;
    for (size_t line_end; (line_end = stream.text.find('\n', begin)) != std::string::npos;
         begin = line_end + 1) {
      std::string line = stream.text.substr(begin, line_end - begin);
      if (line.find(text) != std::string::npos) return line;
    }
    if (stream.fd < 0 || !ReadSome(end)) return std::nullopt;
  }
}

std::optional<std::string> ChildProcess::WaitForOutLine(const std::string& text,
                                                        std::chrono::milliseconds deadline) {
  return WaitForLine(out_, text, deadline);
}

std::optional<std::string> ChildProcess::WaitForErrLine(const std::string& text,
                                                        std::chrono::milliseconds deadline) {
  return WaitForLine(err_, text, deadline);
}

std::optional<int> ChildProcess::WaitForExit(std::chrono::milliseconds deadline) {
  const Clock::time_point end = Clock::now() + deadline;
  while (ReadSome(end)) {
  }
  // Both streams have ended, so the child has ended or is about to.
  if (pid_ <= 0 || out_.fd >= 0 || err_.fd >= 0) return std::nullopt;
  if (!status_.has_value()) {
    int status = 0;
    if (waitpid(pid_, &status, 0) != pid_) return std::nullopt;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return status_;
}

std::chrono::nanoseconds ChildProcess::CpuTime() const {
  int64_t total_ns = 0;
  std::error_code error;
  const std::filesystem::path tasks = "/proc/" + std::to_string(pid_) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks, error)) {
    int64_t run_ns = 0;
    std::ifstream(task.path() / "schedstat") >> run_ns;
    total_ns += run_ns;
  }
  return std::chrono::nanoseconds(total_ns);
}

Outcome RunToEnd(const ChildOptions& options, std::chrono::milliseconds deadline) {
  ChildProcess child(options);
  Outcome outcome;
  outcome.status = child.WaitForExit(deadline);
  outcome.out = child.out();
  outcome.err = child.err();
  return outcome;
}

void ExpectContains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is missing in: " << text;
}

}  // namespace ringmaster::testing
