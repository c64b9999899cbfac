// This process as the shim sees it: what it shares with others, which of its descriptors are
// listeners or counted connections, and its workers. Any thread.
//
// Wherever something is missing or unexpected, the answer is "not ours": then the server does what
// it would do without us. Nothing here prints, ends the process, or waits for anybody but the
// keeper's answer, when a listener is met for the first time.

#ifndef RINGMASTER_TOOLS_RUN_PROCESS_H_
#define RINGMASTER_TOOLS_RUN_PROCESS_H_

#include <sys/epoll.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "processes/area.h"
#include "run/common.h"

namespace ringmaster::run {

// Descriptors from here on are not ours.
inline constexpr int kDescriptorsMax = 1 << 18;

// How a set of this process watches a source.
struct Watch {
  enum class How : uint8_t {
    kNot,
    kListener,  // the listener itself stands in the set
    kSight,     // a sight stands there in its place
  };
  std::atomic<How> how{How::kNot};
  std::atomic<int> fd{-1};  // the listener, as the server calls it
  epoll_event event{};
};

// An epoll set of this process that has watched a listener: a worker. If the set is closed, the
// process's next one goes on as that worker. A process that waits by poll or select, or in accept,
// has no such set. Then it is one worker itself, which is only counted: the kernel wakes all of
// those or one after the other, so they are about even as they are.
struct Set {
  std::atomic<int> epoll_fd{-1};
  std::atomic<uint32_t> worker{processes::kNone};
  // For a moment by whoever changes a watch. Threads that find it locked yield.
  std::atomic_flag locked = ATOMIC_FLAG_INIT;
  std::array<Watch, processes::kSourcesMax> watches;
  // Counted connections that were taken out of the set: next they may be closed by a system call
  // that nobody sees. 0: none.
  static constexpr size_t kTakenOutMax = 64;
  std::array<std::atomic<int>, kTakenOutMax> taken_out{};
  std::atomic<uint32_t> taken_out_count{0};
};

class Process {
 public:
  // The one of this process. Never destroyed, because other threads may run to the very end.
  static Process& Get();

  // Once, when the shim is loaded. Asks the keeper for what is shared.
  void Start();
  // In a child of fork, before anything else: its parent's workers are not its own.
  void AfterFork();
  bool active() const { return active_; }
  // False in a child of vfork, which must change nothing.
  bool IsThisProcess() const;
  // "LD_PRELOAD=…" and "RINGMASTER_RUN=…", as this process was started with them.
  const char* preload() const { return preload_.data(); }
  const char* variable() const { return variable_.data(); }
  // The shim's file.
  const char* path() const { return path_; }
  const Numbers& numbers() const { return numbers_; }
  bool only_counts() const { return memory_->policy.kind == processes::PolicyKind::kNoPolicy; }

  // --- Descriptors ---------------------------------------------------------------------------

  // Which source the descriptor is, if it was met as one; kNone.
  uint32_t SourceOf(int fd) const;
  // It listens from now on.
  void Listens(int fd);
  // A descriptor was closed, or is about to be.
  void Closed(int fd);
  void ClosedRange(unsigned first, unsigned last);
  void Duplicated(int from, int to);

  // --- epoll ---------------------------------------------------------------------------------

  // epoll_ctl. False: not ours. Otherwise `result` is what the call returns, errno included.
  bool Control(int epoll_fd, int op, int fd, epoll_event* event, int& result);
  // The worker whose set this is; null.
  Set* SetOf(int epoll_fd);
  // Around its wait. `sleeps`: the wait may take time.
  void BeforeWait(Set& set, bool sleeps);
  // In the place of AfterWait, if the thread was cancelled in its wait.
  void WaitEnds(Set& set);
  // Takes events out for which there is no permit. Returns how many are left.
  int AfterWait(Set& set, epoll_event* events, int count);

  // --- accept --------------------------------------------------------------------------------

  // Whether it is one, which is met here unless this is its first connection.
  bool IsSource(int fd);
  // It has accepted from one that is none so far.
  void AcceptedFrom(int fd);
  // What accept does with a listener that is a source.
  enum class Way : uint8_t { kAsEver, kPermit, kNoPermit };
  struct Accepting {
    Way way = Way::kAsEver;
    uint32_t source = processes::kNone;
    Set* set = nullptr;
  };
  Accepting BeforeAccept(int fd);
  void AfterAccept(const Accepting& accepting, int accepted);

 private:
  processes::Area& area() { return memory_->area; }
  processes::Mode ModeOf(uint32_t source);
  bool KeeperGone();
  processes::Pair& PairOf(const Set& set, uint32_t source);
  bool Visit(const Set& set, uint32_t source);
  // Somebody watches the source and cannot wait for a permit: it would get all connections.
  void Leave(uint32_t source);

  // What stands for a listener that is no source: it may become one in a child, or at the next
  // connection; or it never does.
  static constexpr uint8_t kListensHere = 253;
  static constexpr uint8_t kAccepted = 254;
  static constexpr uint8_t kNotOurs = 255;
  static_assert(kListensHere > processes::kSourcesMax);

  uint32_t Meet(int fd);
  uint32_t ClaimWorker();
  Set* TakeOwnSet(uint32_t source, int fd);
  bool IsOwn(const Set& set) const { return &set == &sets_.back(); }
  bool Has(Set& set, uint32_t source);
  bool Brought(Set& set, uint32_t source);
  void Used(int fd);
  uint32_t FindSource(uint64_t cookie);
  Set* MakeSet(int epoll_fd);
  void NameSet(const Set& set, int epoll_fd);
  void ReleaseSet(Set& set);
  void ForgetListener(int fd);
  void Uncount(int fd);
  // Servers close by system calls of their own, too (Node does). Looks for what was closed so.
  void FindClosed(Set& set);
  bool WasClosed(int listener, uint32_t source);
  void RingBell();

  int Add(Set& set, uint32_t source, int fd, const epoll_event& event);
  int Modify(Set& set, uint32_t source, const epoll_event& event);
  int Delete(Set& set, uint32_t source);
  // Puts a sight in the place of the listener, or the other way round, as the source's mode wants.
  void Follow(Set& set, uint32_t source);
  bool UseSight(Set& set, uint32_t source, int op, const epoll_event& event);
  void Join(Set& set, uint32_t source);
  void Unjoin(Set& set, uint32_t source);

  bool active_ = false;
  std::atomic<bool> alone_{false};  // the keeper has died
  pid_t pid_ = 0;
  Numbers numbers_;
  processes::Descriptors shared_;  // the same
  std::atomic_flag changes_limit_ = ATOMIC_FLAG_INIT;
  std::array<char, 108> name_{};
  size_t name_length_ = 0;
  uint64_t secret_ = 0;
  const char* path_ = "";
  std::array<char, 4096> preload_{};
  std::array<char, 256> variable_{};
  Memory* memory_ = nullptr;

  std::array<std::atomic<uint64_t>, processes::kSourcesMax> known_{};   // cookies of our duplicates
  std::array<std::atomic<int>, processes::kSourcesMax> descriptors_{};  // the server's, of each
  // The last one is the process itself.
  std::array<Set, processes::kWorkersMax + 1> sets_;
  std::atomic<uint32_t> epoll_workers_{0};
  std::atomic<bool> workers_full_{false};
  // By descriptor: 1 more than the source, the set, the worker that has counted it; 0: none.
  // In memory of their own, of which only what is used exists.
  std::atomic<uint8_t>* source_of_ = nullptr;
  std::atomic<uint8_t>* set_of_ = nullptr;
  std::atomic<uint8_t>* counted_by_ = nullptr;
  // The highest that was ever used, so that closing ranges looks at no more.
  std::atomic<int> highest_{0};
};

}  // namespace ringmaster::run

#endif  // RINGMASTER_TOOLS_RUN_PROCESS_H_
