// The keeper's part of the protocol (processes/desk.h, rule "keeper"), which is the same whoever
// the processes are: which workers there are, who has died, and where nothing moves. It accepts
// nothing, and nobody waits for it.
//
// What others write into the area it does not believe: whose a worker is it remembers itself, until
// that process has died. It holds one descriptor for each worker, and is woken by what others write
// once in kBellMs at most, so nobody can make it spin or grow.
//
// One thread at a time.

#ifndef RINGMASTER_SRC_PROCESSES_KEEPER_H_
#define RINGMASTER_SRC_PROCESSES_KEEPER_H_

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "processes/area.h"
#include "processes/descriptors.h"
#include "ringmaster/policy.h"

namespace ringmaster::processes {

// What `errno` says of something that could not be made, with the remedy.
absl::Status CannotMake(const char* what);

// What its owner does about it. Called on the keeper's thread.
class KeeperEvents {
 public:
  virtual ~KeeperEvents() = default;
  // Whether a worker may write this of its owner, or it must be nonsense.
  virtual bool IsOwner(uint32_t worker, uint64_t owner) const {
    (void)worker, (void)owner;
    return true;
  }
  // Whether the source is aimed, of which that is written.
  virtual bool IsAimed(uint32_t source, Mode mode) const {
    (void)source;
    return mode == Mode::kAimed;
  }
  virtual void OnCame(uint32_t worker, pid_t pid) = 0;
  // Just before the worker's number is given away.
  virtual void OnGone(uint32_t worker) = 0;
  // Something has changed in the area.
  virtual void OnBell() = 0;
  // The source cannot be aimed (Mode::kLeft). Once for each source, until it begins again.
  virtual void OnLeft(uint32_t source) = 0;
  // Before each look for sources that do not move. Returns in how many milliseconds it wants the
  // next one; -1: whenever there is one.
  virtual int OnLook(int64_t now_ms) {
    (void)now_ms;
    return -1;
  }
  // So many looks one after the other have found that something waits and nothing moves, though
  // each of them has repaired.
  virtual void OnStill(uint32_t source, uint32_t looks) { (void)source, (void)looks; }
  // Somebody has written over what is the keeper's alone.
  virtual void OnNonsense() {}
  // What WatchFor has watched under that number.
  virtual void OnReady(uint32_t number) { (void)number; }
};

class Keeper {
 public:
  // Area, descriptors and events are borrowed. `policy`: prepared for kWorkersMax; null: nothing is
  // decided.
  Keeper(Area& area, const Descriptors& descriptors, std::unique_ptr<Policy> policy,
         KeeperEvents& events)
      : area_(area), descriptors_(descriptors), policy_(std::move(policy)), events_(events) {}
  // Closes its descriptors, in a forked child its copies of them.
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  absl::Status SetUp();

  // Readable when RunOnce has something to do. Constant after SetUp.
  int fd() const { return epoll_fd_; }
  // Does what there is to do, and does not wait.
  void RunOnce();
  // There is a look for what does not move within some milliseconds.
  void LookSoon();

  // Watches something of its owner's, which is told by OnReady. False: it cannot. `events` may be
  // changed by calling it again.
  bool WatchFor(int fd, uint32_t events, uint32_t number);
  void Unwatch(int fd);

  // A source begins or ends: mode and cookie are the caller's business.
  void Begin(uint32_t source);
  void End(uint32_t source);
  // Whoever this was, its workers are gone.
  void Died(pid_t pid);
  // Renews, if it is aimed. False: it is left now.
  bool Repair(uint32_t source);
  void Abandon(uint32_t source);
  // Rule "frozen", for a worker that has something and does not move.
  void Mark(uint32_t worker);

  // Of which process a worker is; 0: nobody's.
  pid_t PidOf(uint32_t worker) const;
  // What the worker's word says of its owner; 0: nobody has the number.
  uint64_t OwnerOf(uint32_t worker) const { return known_[worker].owner; }
  // For how long the source has been there.
  int64_t AgeMs(uint32_t source) const;

 private:
  struct Known {
    uint64_t owner = 0;
    int pidfd = -1;
  };
  // How a source moves.
  struct Motion {
    bool looked_after = false;
    uint64_t accepted = 0;
    bool waited = false;  // something did at the last look
    uint32_t still = 0;   // looks
    int64_t moved_at_ms = 0;
    bool quiet = false;  // its listener wakes the keeper once
    int64_t begun_at_ms = 0;
    bool abandoned = false;
  };
  struct Marked {
    int64_t lasts_ms = 0;
    int64_t ends_at_ms = 0;
    int64_t forgotten_at_ms = 0;
  };

  bool Watch(int fd, uint32_t events, uint64_t tag);
  bool LookForWorkers();
  bool HasDied(uint32_t worker) const;
  void Bury(const std::vector<uint32_t>& workers);
  void FreeWorker(uint32_t worker);
  uint64_t AcceptedOf(uint32_t source) const;
  int LookAfterSources(int64_t now_ms);
  void LookAfter(uint32_t source, int64_t now_ms);
  void MarkThoseWithPermits(uint32_t source);
  void TakeBell(int64_t now_ms);
  void SetTimer(int64_t at_ms);

  Area& area_;
  const Descriptors& descriptors_;
  const std::unique_ptr<Policy> policy_;
  KeeperEvents& events_;
  int epoll_fd_ = -1;
  int timer_ = -1;
  int64_t timer_at_ms_ = -1;  // -1: it is not set
  int64_t looked_at_ms_ = 0;
  bool bell_rests_ = false;
  int64_t bell_at_ms_ = 0;
  bool looks_again_ = false;  // for workers, because a descriptor or a watch was missing
  std::array<Known, kWorkersMax> known_;
  std::array<Motion, kSourcesMax> motions_;
  std::array<Marked, kWorkersMax> marks_;
};

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_KEEPER_H_
