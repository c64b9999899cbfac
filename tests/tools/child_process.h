// Runs a program as a child, feeds it signals and reads what it prints, each with a deadline.

#ifndef RINGMASTER_TESTS_TOOLS_CHILD_PROCESS_H_
#define RINGMASTER_TESTS_TOOLS_CHILD_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ringmaster::testing {

// Longer than anything here takes on a loaded machine under a sanitizer: a bound, not an estimate.
inline constexpr std::chrono::seconds kSoon(30);

struct ChildOptions {
  std::vector<std::string> command;  // the program's path first
  // RLIMIT_NOFILE for the child, soft and hard.
  std::optional<uint64_t> descriptors_max;
  // Takes CAP_NET_BIND_SERVICE from the child, also when it runs as root.
  bool without_net_bind_service = false;
  // As a shell with job control starts it. Otherwise job control does nothing to it where the whole
  // suite runs in a session of its own.
  bool own_process_group = false;
};

// A child process and the reading ends of its stdout and stderr. Owns both: destruction kills the
// child if it still runs and collects it. It also dies with the thread that started it. For one
// thread at a time. A child that cannot be started ends with the status 127.
class ChildProcess {
 public:
  explicit ChildProcess(const ChildOptions& options);
  ~ChildProcess();
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  pid_t pid() const { return pid_; }

  void Signal(int signal) const;

  // Reads until stdout (stderr) holds a whole line that contains `text`, and returns that line
  // without its end. Nothing when the deadline passes or the stream ends first.
  std::optional<std::string> WaitForOutLine(const std::string& text,
                                            std::chrono::milliseconds deadline);
  std::optional<std::string> WaitForErrLine(const std::string& text,
                                            std::chrono::milliseconds deadline);

  // Reads to the end of both streams and collects the child. Returns its exit status, 128 plus the
  // signal that ended it, or nothing when the deadline passes.
  std::optional<int> WaitForExit(std::chrono::milliseconds deadline);

  // All that it has printed so far, as far as it has been read.
  const std::string& out() const { return out_.text; }
  const std::string& err() const { return err_.text; }

  // How long all its threads have run on a CPU.
  std::chrono::nanoseconds CpuTime() const;

 private:
  struct Stream {
    int fd = -1;
    std::string text;
  };
  std::optional<std::string> WaitForLine(Stream& stream, const std::string& text,
                                         std::chrono::milliseconds deadline);
  bool ReadSome(std::chrono::steady_clock::time_point deadline);

  pid_t pid_ = -1;
  Stream out_;
  Stream err_;
  std::optional<int> status_;
};

// What a program did that was run to its end.
struct Outcome {
  std::optional<int> status;  // nothing: it had not ended after `deadline`
  std::string out;
  std::string err;
};
Outcome RunToEnd(const ChildOptions& options, std::chrono::milliseconds deadline = kSoon);

// `text` has `part` in it.
void ExpectContains(const std::string& text, const std::string& part);

// A command line, and what the program says against it.
struct WrongLine {
  std::vector<std::string> arguments;
  std::string complaint;
};

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_TOOLS_CHILD_PROCESS_H_
