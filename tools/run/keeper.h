// The part of ringmaster-run that stays while the server runs. It owns what is shared, answers
// processes that ask for it, and is the keeper of the desks (processes/keeper.h). Nobody waits for
// it but a process that starts, or meets a listener for the first time.
//
// One thread.

#ifndef RINGMASTER_TOOLS_RUN_KEEPER_H_
#define RINGMASTER_TOOLS_RUN_KEEPER_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "processes/keeper.h"
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

class Keeper final : private processes::KeeperEvents {
 public:
  struct Options {
    processes::PolicyChoice policy;
    double stats_seconds = 0;  // between two lines; 0: none
  };
  // Errors are sentences for the user.
  static absl::StatusOr<std::unique_ptr<Keeper>> Create(Options options);
  ~Keeper() override;
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

  enum class Tag : uint64_t { kSocket, kSignals, kKeeper };
  void Watch(int fd, Tag tag);
  void Answer(int socket);
  uint32_t AddListener(int fd);
  void TakeSignals();
  bool ReapChildren();

  void OnCame(uint32_t worker, pid_t pid) override;
  void OnGone(uint32_t worker) override;
  // Workers no longer have a listener, perhaps.
  void OnBell() override;
  // Everybody hears it, and the user hears why.
  void OnLeft(uint32_t source) override;

  void PrintStats();
  void Remark(std::string text);

  processes::Area& area() { return memory_->area; }

  Options options_;
  Numbers numbers_;
  processes::Descriptors descriptors_;
  std::string variable_;
  uint64_t secret_ = 0;
  Memory* memory_ = nullptr;
  std::unique_ptr<processes::Keeper> keeper_;
  int epoll_fd_ = -1;
  int socket_ = -1;
  int signals_ = -1;
  pid_t server_ = 0;
  int status_ = 0;
  bool server_ended_ = false;
  uint64_t hellos_ = 0;
  std::array<bool, processes::kSourcesMax> was_had_{};  // by some worker

  // Of each worker which report is its own.
  std::array<size_t, processes::kWorkersMax> report_of_{};
  std::vector<WorkerReport> reports_;
  std::vector<std::string> remarks_;
};

}  // namespace ringmaster::run

#endif  // RINGMASTER_TOOLS_RUN_KEEPER_H_
