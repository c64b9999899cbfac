// A server for tests whose workers are processes: how such a worker serves, and clients that count
// what becomes of them.
//
// A worker answers each byte with a line: its process, and what it knows of its parent. It keeps a
// connection until its client ends it.

#ifndef RINGMASTER_TESTS_PROCESSES_PROCESS_SERVER_H_
#define RINGMASTER_TESTS_PROCESSES_PROCESS_SERVER_H_

#include <netinet/in.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>

#include "ringmaster/processes.h"

namespace ringmaster::testing {

// No process of a test lives longer.
inline constexpr unsigned kProcessSecondsMax = 150;

// Until the parent ends the group and no connection is left. Then the process ends with 0, or with
// 1 if it cannot join. `poor`: once it serves, there is no descriptor for a connection.
[[noreturn]] void ServeAsWorker(absl::StatusOr<ProcessPort> port, bool poor = false);

// A non-blocking listener on 127.0.0.1, with a port that the kernel chooses.
class ProcessListener {
 public:
  ProcessListener();
  ~ProcessListener();
  int fd() const { return fd_; }
  // A blocking client whose calls last 10 seconds at most, or -errno.
  int Connect() const;

 private:
  int fd_;
  sockaddr_in address_{};
};

struct Answer {
  pid_t pid = 0;  // 0: there was none
  bool parent_gone = false;
  bool draining = false;
};
// Sends a byte and reads the answer.
Answer Ask(int fd);
// Of a client that connects, asks and closes.
Answer AskOnce(const ProcessListener& listener);

// Clients that come at a rate, ask once, and go when they are answered.
class ClientLoad {
 public:
  using Clock = std::chrono::steady_clock;

  ClientLoad(const ProcessListener& listener, int per_second);
  ~ClientLoad();
  ClientLoad(const ClientLoad&) = delete;
  ClientLoad& operator=(const ClientLoad&) = delete;

  // A child that was forked has copies, by which its parent's clients would go on.
  void CloseInChild();

  // Lets clients come until then.
  void RunUntil(Clock::time_point until);
  // Until nobody waits any more; false: somebody does after `patience`.
  bool Finish(std::chrono::milliseconds patience);

  uint64_t answered() const { return answered_; }
  uint64_t refused() const { return refused_; }
  uint64_t lost() const { return lost_; }  // accepted, and ended without an answer
  size_t waiting() const { return begun_.size(); }
  std::chrono::milliseconds longest() const { return longest_; }
  // By whom, since the last call.
  std::map<pid_t, uint64_t> TakeAnsweredBy();

 private:
  void Come();
  void LookAfter(int timeout_ms);

  const ProcessListener& listener_;
  const int per_second_;
  const int epoll_fd_;
  Clock::time_point next_;
  std::unordered_map<int, Clock::time_point> begun_;  // by descriptor
  std::map<pid_t, uint64_t> answered_by_;
  uint64_t answered_ = 0;
  uint64_t refused_ = 0;
  uint64_t lost_ = 0;
  std::chrono::milliseconds longest_{};
};

}  // namespace ringmaster::testing

#endif  // RINGMASTER_TESTS_PROCESSES_PROCESS_SERVER_H_
