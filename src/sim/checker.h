// The checker: what must be true of a run, told from outside. It shares no code and no state with
// the engine and the ledger. It hears what the kernel did, what the workers did and when a batch is
// over, reads the words of the inboxes as they lie in memory, and keeps its own table of every
// connection: arrived → accepted → reported → offered → served → closed.
//
// What it checks, all the time:
//  * A connection is served once, by the worker to which it was offered, and never after it was
//    refused; no descriptor is in two places; nothing is offered, claimed or closed that is not
//    the master's to give.
//  * Unclaimed offers stay within the window, offered and open ones within the capacity.
//  * Connections of a source are offered for the first time in the order in which they came; what
//    was recalled comes before what was never offered, in the order in which it had been offered.
//  * After a recall a worker is offered nothing until it has moved.
//  * Nothing is recalled before it is old and from nobody who could not be replaced.
//  * An offer to a worker that does not move is not left there while somebody else has credit, and
//    none grows very old while somebody else has nothing to do.
//  * Nothing is held, or left in the backlog, while a worker that waits has credit: whoever makes
//    credit wakes the master.
// The first violation is kept as the failure, and nothing is checked after it.

#ifndef RINGMASTER_SRC_SIM_CHECKER_H_
#define RINGMASTER_SRC_SIM_CHECKER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "sim/trace.h"

namespace ringmaster::sim {

// What the checker must know of a worker; borrows the inbox's storage until the worker has left.
struct CheckedWorker {
  const std::byte* words = nullptr;  // the first word of its inbox
  uint32_t words_count = 0;
  uint32_t window = 0;
  uint32_t capacity = 0;
};

struct CheckerOptions {
  int64_t recall_after_ns = 0;
  int64_t patience_ns = 0;  // how late the master may be by itself
  bool backs_off = false;   // accepts may fail, after which the master waits before the next one
  bool doorbells_are_prompt = true;  // so that a worker that waits is known to wait
};

class Checker {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // Borrows the trace, which hears of offers and recalls.
  Checker(CheckerOptions options, Trace* trace) : options_(options), trace_(trace) {}

  // Why the inboxes may have changed since they were read last.
  enum class Occasion : uint8_t { kBatch, kLeave, kRefuse };

  // --- Set-up. Sources, workers and connections are numbered from 0 as they are added. ---
  void AddSource(bool recall) { sources_.emplace_back().recall = recall; }
  uint32_t AddWorker(const CheckedWorker& worker);
  void OnJoined(uint32_t source, uint32_t worker, int64_t now_ns);
  void OnLeftSource(uint32_t source, uint32_t worker, int64_t now_ns);
  void OnLeft(uint32_t worker, int64_t now_ns);  // and every source with it
  void OnPaused(uint32_t source, bool paused) { sources_[source].paused = paused; }
  void OnStopIntake() { stopping_ = true; }
  void OnRefuseAll(int64_t now_ns);

  // --- The kernel. ---
  uint32_t OnArrival(uint32_t source);
  void OnAborted(uint32_t connection);  // in the backlog
  void OnAccepted(uint32_t connection, int32_t fd);

  // --- The seam: an accepted connection reaches the master, the master closes one. ---
  void OnReported(uint32_t source, int32_t fd);
  void OnRefused(int32_t fd);

  // --- The workers. ---
  // It has begun a claim that cleared `rung`.
  void OnMoved(uint32_t worker, int64_t now_ns);
  // It has taken `word` and begins to serve. Returns the connection, kNone after a failure.
  uint32_t OnClaimed(uint32_t worker, uint64_t word, int64_t now_ns);
  // It serves `connection`, claimed before or not.
  void OnServed(uint32_t worker, uint32_t connection);
  void OnClosed(uint32_t connection);
  // A lease has been released: the place is given back, the fd was closed before.
  void OnReleased(uint32_t worker, int64_t now_ns);
  // It waits and has nothing to wait for, its last knock done; it does not wait any more.
  void OnIdle(uint32_t worker, int64_t now_ns);
  void OnBusy(uint32_t worker);

  // --- The master. ---
  void BeforeBatch(int64_t now_ns);
  void AfterBatch(int64_t now_ns);

  // --- The end. ---
  // Everything that arrived was served and closed; `may_hold` says for each worker whether it died
  // and may therefore keep what it has claimed, and what nobody may recall from it.
  void AtRest(const std::vector<bool>& may_hold);
  // After a shutdown: what was accepted was served or refused.
  void AtShutdown();
  // The claimed of the source's busiest and idlest worker differ by at most `bound`.
  void RoundIsEven(uint32_t source, const std::vector<uint32_t>& workers, uint64_t bound);

  // --- What it has counted. ---
  struct Counts {
    uint64_t reported = 0;
    uint64_t held = 0;
    uint64_t offered = 0;
    uint64_t claimed = 0;
    uint64_t refused = 0;
    uint64_t recalled = 0;  // by age, not by leaving
    uint64_t left = 0;      // taken back because the worker left
  };
  const Counts& counts(uint32_t source) const { return sources_[source].counts; }
  uint32_t unclaimed(uint32_t worker) const { return workers_[worker].unclaimed; }
  uint32_t leased(uint32_t worker) const { return workers_[worker].leased; }
  uint64_t served() const { return served_; }
  bool AllServed() const { return unfinished_ == 0; }

  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  void Fail(std::string text) {
    if (failure_.empty()) failure_ = std::move(text);
  }

 private:
  enum class Where : uint8_t {
    kQueued,
    kAborted,
    kAccepted,
    kHeld,
    kOffered,
    kServed,
    kClosed,
    kRefused
  };

  struct Connection {
    Where where = Where::kQueued;
    uint32_t source = 0;
    uint32_t worker = kNone;  // offered to or served by
    int32_t fd = -1;
    uint64_t number = 0;  // within its source, as reported
    uint32_t recalls = 0;
    bool ever_offered = false;
    uint32_t recalled_from = kNone;
    uint64_t recalled_in = 0;  // reading
    int64_t offered_at_ns = 0;
    int64_t was_offered_at_ns = 0;  // before the last recall
  };

  struct Source {
    bool recall = true;
    bool paused = false;
    uint64_t queued = 0;                // in the backlog
    bool waits = false;                 // something was held or queued after the last batch
    uint64_t first_offers = 0;          // connections offered at least once
    uint64_t first_offers_now = 0;      // of these, in this reading
    uint32_t recalled_held = 0;         // held, and offered before
    std::vector<int64_t> joined_at_ns;  // by worker; negative: has not joined
    std::vector<uint64_t> claimed;      // by worker
    Counts counts;
  };

  struct Worker {
    CheckedWorker facts;
    std::vector<uint64_t> seen;  // words as read last, zero where claimed since
    uint32_t unclaimed = 0;
    uint32_t leased = 0;
    bool left = false;
    bool idle = false;
    bool owes_motion = false;
    int64_t moved_at_ns = 0;
    int64_t credit_since_ns = 0;  // nothing about its credit has changed since
  };

  // A word that is not as it was when it was read last.
  struct Change {
    uint32_t worker = 0;
    uint32_t slot = 0;
    uint64_t word = 0;  // as it is now
  };

  void Read(Occasion occasion, uint32_t worker, uint32_t source, int64_t now_ns);
  void NoteChanges(uint32_t worker);
  void OnRecalled(uint32_t worker, uint64_t word, Occasion occasion, int64_t now_ns);
  void OnOffered(uint32_t worker, uint64_t word, int64_t now_ns);
  void CheckRecallIsDue(const Connection& connection, int64_t now_ns);
  void CheckNeglect(int64_t now_ns);
  void CheckIdleness(int64_t now_ns);
  void CheckOrder();
  void CheckBounds(uint32_t worker);
  int64_t CreditSince(uint32_t source, uint32_t except) const;
  uint32_t Find(int32_t fd) const;
  std::string Name(uint32_t connection) const;

  const CheckerOptions options_;
  Trace* const trace_;
  std::vector<Source> sources_;
  std::vector<Worker> workers_;
  std::vector<Connection> connections_;
  std::vector<uint32_t> by_fd_;      // kNone: not open
  std::vector<Change> changed_;      // in this reading
  std::vector<uint32_t> recalled_;   // connections taken back and not offered again
  std::vector<uint32_t> again_now_;  // connections offered again in this reading
  uint64_t reading_ = 0;
  uint64_t served_ = 0;
  uint64_t unfinished_ = 0;  // neither closed, aborted nor refused
  int64_t last_batch_ns_ = 0;
  bool stopping_ = false;
  bool refusing_ = false;
  std::string failure_;
};

}  // namespace ringmaster::sim

#endif  // RINGMASTER_SRC_SIM_CHECKER_H_
