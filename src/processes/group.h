// The parent's side of WorkerProcesses: the keeper, a thread for it, and what the parent knows that
// nobody else can write.

#ifndef RINGMASTER_SRC_PROCESSES_GROUP_H_
#define RINGMASTER_SRC_PROCESSES_GROUP_H_

#include <pthread.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "processes/handing.h"
#include "processes/keeper.h"
#include "processes/shared.h"
#include "ringmaster/processes.h"

namespace ringmaster::internal {

class ProcessGroup final : private processes::KeeperEvents {
 public:
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Create(WorkerProcessesOptions options);
  ~ProcessGroup() override;
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  // In the parent; elsewhere they do nothing.
  absl::Status AddListener(int listen_fd, uint64_t token);
  absl::Status Give(int fd, uint64_t token, const Arrival* facts);
  absl::Status AcceptAndGive(int listen_fd, uint64_t token);
  int fd() const { return keeper_ == nullptr ? -1 : keeper_->fd(); }
  void RunOnce();
  WorkerProcessesStats Stats();
  void BeginShutdown();

  // Any process.
  const std::shared_ptr<ProcessShared>& shared() const { return shared_; }
  // What only this object changes in there, seen as a whole.
  template <typename What>
  auto WithShared(const What& what) {
    // In a child the lock may be held for ever, and nobody else is there.
    std::unique_lock lock(mutex_, std::defer_lock);
    if (InParent()) lock.lock();
    return what(*shared_);
  }
  // In a child, which has no use for what is the keeper's own.
  void CloseKeeper();

 private:
  explicit ProcessGroup(WorkerProcessesOptions options) : options_(std::move(options)) {}
  absl::Status CheckOptions() const;
  absl::Status SetUp(const processes::PolicyChoice& choice);
  absl::Status StartThread();
  void Drive();
  bool InParent() const;

  bool IsOwner(uint32_t worker, uint64_t owner) const override;
  bool IsAimed(uint32_t source, processes::Mode mode) const override;
  void OnCame(uint32_t worker, pid_t pid) override;
  void OnGone(uint32_t worker) override;
  void OnBell() override;
  void OnLeft(uint32_t source) override;
  int OnLook(int64_t now_ms) override;
  void OnStill(uint32_t source, uint32_t looks) override;
  void OnNonsense() override { nonsense_ = true; }
  bool HasSource(uint32_t worker, uint32_t source) const;
  void OnReady(uint32_t number) override;
  absl::Status WhyNotGiven() const;
  void SayEnd();
  void HealMode(uint32_t source, int64_t now_ms);
  void HealWorkers(uint32_t source);
  void AskWorkers(int64_t now_ms);
  void Show(uint32_t worker, uint32_t source);

  WorkerProcessesOptions options_;
  std::shared_ptr<ProcessShared> shared_;
  std::unique_ptr<processes::Keeper> keeper_;
  // What follows, and the keeper. Held over each fork, so that a child knows of every connection
  // that this process has.
  std::mutex mutex_;
  std::unique_ptr<Handing> handing_;  // null: nothing is given
  bool ended_ = false;
  bool said_end_ = false;
  std::array<int64_t, processes::kSourcesMax> left_until_ms_{};  // 0: it is not left
  bool nonsense_ = false;                                        // was found since the last look
  int64_t doubts_until_ms_ = 0;
  int64_t asked_at_ms_ = 0;
  std::array<uint64_t, processes::kWorkersMax> accepted_{};  // when it was asked
  std::array<WorkerProcessStats, processes::kWorkersMax> workers_{};
  uint64_t gone_ = 0;
  uint64_t gone_accepted_ = 0;
  uint64_t gone_open_ = 0;
  int stop_ = -1;  // an eventfd that ends the thread
  bool has_thread_ = false;
  pthread_t thread_{};
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_PROCESSES_GROUP_H_
