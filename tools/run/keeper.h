// The keeper: the part of ringmaster-run that stays while the server runs (processes/desk.h, rule
// "keeper"). It owns what is shared, answers processes that ask for it, hears which of them have
// died, and repairs where nothing moves. It accepts nothing, and nobody waits for it but a process
// that starts, or meets a listener for the first time.
//
// One thread.

#ifndef RINGMASTER_TOOLS_RUN_KEEPER_H_
#define RINGMASTER_TOOLS_RUN_KEEPER_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ringmaster/policy.h"
#include "run/common.h"

namespace ringmaster::run {

// What one worker did, for its user to see.
struct WorkerReport {
  pid_t pid = 0;
  uint64_t accepted = 0;
  uint32_t open = 0;
  bool lives = false;
};

class Keeper {
 public:
  struct Options {
    PolicyChoice policy;
    std::unique_ptr<Policy> prepared;  // the same, for repairs; null with PolicyKind::kNone
    double stats_seconds = 0;          // between two lines; 0: none
  };
  // Errors are sentences for the user.
  static absl::StatusOr<std::unique_ptr<Keeper>> Create(Options options);
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // The value of kVariable for the server.
  const std::string& variable() const { return variable_; }

  // Until the server and everything that it has left running have ended. Signals that end or
  // instruct a server are passed on to it. Returns the exit status of `server` as a shell has it.
  int Run(pid_t server);

  // Of each worker there ever was, in the order in which they came.
  std::vector<WorkerReport> Report();
  // Sentences for the user, about what could not be done.
  const std::vector<std::string>& remarks() const { return remarks_; }
  bool reached_anybody() const { return hellos_ > 0; }

 private:
  explicit Keeper(Options options);
  absl::Status SetUp();

  void Watch(int fd, uint64_t tag);
  void Unwatch(int fd);
  void Answer(int socket);
  uint32_t AddListener(int fd);
  void LookForChanges();
  void FreeWorker(uint32_t worker);
  void Died(pid_t pid);
  void TakeSignals();
  bool ReapChildren();
  // Returns how long to wait for the next look, in milliseconds; -1: until something happens.
  int LookAfterSources(int64_t now_ms);
  void Repair(uint32_t source);
  // The source is left (Mode::kLeft): everybody hears it, and the user hears why.
  void Abandon(uint32_t source);
  void PrintStats();
  void Remark(std::string text);

  processes::Area& area() { return memory_->area; }

  Options options_;
  Numbers numbers_;
  std::string variable_;
  uint64_t secret_ = 0;
  Memory* memory_ = nullptr;
  int epoll_fd_ = -1;
  int socket_ = -1;
  int life_ = -1;  // see Numbers::Keeper
  int signals_ = -1;
  pid_t server_ = 0;
  int status_ = 0;
  bool server_ended_ = false;
  uint64_t hellos_ = 0;

  // How a source moves.
  struct Motion {
    uint64_t accepted = 0;
    bool waited = false;  // something did at the last look
    int64_t moved_at_ms = 0;
    bool quiet = false;  // its listener wakes the keeper once
    int64_t met_at_ms = 0;
    bool was_had = false;  // by some worker
    bool abandoned = false;
  };
  std::array<Motion, processes::kSourcesMax> motions_;
  struct Mark {
    int64_t lasts_ms = 0;
    int64_t ends_at_ms = 0;
    int64_t forgotten_at_ms = 0;
  };
  std::array<Mark, processes::kWorkersMax> marks_;  // by worker
  std::map<pid_t, int> processes_;                  // with workers, and their pidfds
  struct Known {
    uint64_t owner = 0;
    size_t report = 0;
  };
  std::array<Known, processes::kWorkersMax> known_;
  std::vector<WorkerReport> reports_;
  std::vector<std::string> remarks_;
};

}  // namespace ringmaster::run

#endif  // RINGMASTER_TOOLS_RUN_KEEPER_H_
