// A worker of WorkerProcesses: how a process accepts by permits. It is for the library what
// tools/run/process.h is for servers that know nothing of it, with one sight for all listeners.
//
// What it alone decides, it remembers itself: its owner's number, which sources it has joined, how
// many connections it has open. Before each wait it puts that right in the area, if somebody has
// written nonsense there. And who is woken again and again for a connection, and finds no permit,
// accepts without one (kVainMax). So connections are served whatever somebody writes.
//
// One thread at a time, but for Released.

#ifndef RINGMASTER_SRC_PROCESSES_MEMBER_H_
#define RINGMASTER_SRC_PROCESSES_MEMBER_H_

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "processes/shared.h"
#include "ringmaster/policy.h"
#include "ringmaster/processes.h"

namespace ringmaster::internal {

class ProcessMember : public std::enable_shared_from_this<ProcessMember> {
 public:
  static absl::StatusOr<std::shared_ptr<ProcessMember>> Join(std::shared_ptr<ProcessShared> shared);
  // After exec; `value`: of ProcessShared::kVariable.
  static absl::StatusOr<std::shared_ptr<ProcessMember>> Inherit(const std::string& value);

  bool Claim(absl::FunctionRef<void(ProcessConnection)> serve, size_t connections_max);
  void BeforeWait();
  bool AfterWait(bool by_port);
  void Leave();

  int sight() const;
  bool draining() const { return draining_ || !Mine(); }
  bool parent_gone() const { return alone_; }
  // False in a forked child.
  bool Mine() const;
  uint32_t worker() const { return worker_; }

  // A lease has ended. Any thread.
  void Released();

 private:
  // What the sight has shown of sources.
  struct Seen {
    bool permits = false;                 // for one at least there is a permit
    bool given = false;                   // something lies in the chute
    uint32_t without = processes::kNone;  // this one is to be accepted from without
  };
  // What this worker has of a source.
  struct Own {
    bool joined = false;
    int alone_fd = -1;  // a duplicate of the listener, if the parent is gone
    uint32_t vain = 0;  // wake-ups in a row without a permit
    int64_t vain_at_ns = 0;
  };

  explicit ProcessMember(std::shared_ptr<ProcessShared> shared);
  absl::Status TakePlace();
  bool TryPlace();
  void Enter();

  processes::Area& area() { return shared_->area(); }
  processes::Worker& mine() { return area().workers[worker_]; }
  processes::Pair& PairOf(uint32_t source) { return mine().of_source[source]; }
  core::Permits& PermitsOf(uint32_t source) { return PairOf(source).permits; }
  bool HasPermit(uint32_t source);
  bool Aside(uint32_t source);

  void Visit(uint32_t source);
  void RingBell();
  void JoinSource(uint32_t source);
  void UnjoinSource(uint32_t source);
  void Heal();
  void SayBusy();
  void CountOpen(int32_t more);

  uint32_t NextWithPermit();
  ProcessConnection Accept(uint32_t source, bool by_permit);
  ProcessConnection TakeGiven();
  void WatchChute();
  void UnwatchChute();
  void AcceptFailed(uint32_t source, int error);
  void StandBack();
  Seen LookAtSight();
  void LookAtSource(uint32_t source, Seen& seen);
  void LookAtChute();
  void OnEnd();
  void OnParentGone();
  void ComeBack();

  const std::shared_ptr<ProcessShared> shared_;
  const pid_t pid_;
  const std::unique_ptr<Policy> policy_;
  uint32_t worker_ = processes::kNone;
  uint64_t owner_ = 0;
  std::array<Own, processes::kSourcesMax> own_;
  uint32_t next_ = 0;  // the source that is claimed from next
  std::atomic<uint32_t> open_{0};
  uint64_t accepted_ = 0;
  uint64_t taken_ = 0;  // of accepted_: what the parent has given
  uint64_t takes_ = 0;  // the chute's number; 0: it takes nothing
  bool chute_ready_ = false;
  bool permits_turn_ = false;  // the next connection is one of a listener, if there is one
  bool claiming_ = false;
  bool alone_ = false;
  bool draining_ = false;
  bool left_ = false;
  // Out of descriptors: when it tries again, or sooner if a lease has ended.
  int64_t stands_back_until_ns_ = 0;
  std::atomic<bool> released_{false};
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_PROCESSES_MEMBER_H_
