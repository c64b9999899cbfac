// Method: the test is the kernel and the workers. It hands completions and the time to the engine,
// reads the operations that come back, and claims from the inboxes in memory.

#ifndef RINGMASTER_TESTS_CORE_ENGINE_FIXTURE_H_
#define RINGMASTER_TESTS_CORE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "core/engine.h"
#include "core/inbox.h"
#include "core/op.h"
#include "core/port_state.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"

namespace ringmaster::core {

using sim::MemoryWorker;

inline constexpr int32_t kWatchFd = 3;
inline constexpr int32_t kListenFd = 4;
inline constexpr int32_t kPoll = 1;  // POLLIN
inline constexpr uint32_t kSlots = 5;
inline constexpr int64_t kRecallAfter = 10'000'000;

struct TestWorkerOptions {
  uint32_t window = 4;
  uint32_t capacity = UINT32_MAX;
  bool completions = false;  // arrivals are handed over as completions
  bool direct = false;       // the same, and connections are installed in its file table
  bool sight = false;        // so it may get permits
};

struct TestSourceOptions {
  bool multishot_accept = true;  // what arrives is simply reported then
  uint32_t hold = 64;
  bool recall = true;
  bool readiness = false;      // arrivals are tickets
  bool countable = false;      // and their number can be asked for
  Gate* gate = nullptr;        // how many connections may be open
  bool listens = true;         // connections come from it
  uint32_t start_workers = 1;  // before so many have joined, nothing is taken in
  Desk* desk = nullptr;        // by which it may be aimed
  Sights* sights = nullptr;
  bool hides_end = false;  // its multishot accept does not complete when it is shut down
};

class EngineTest : public ::testing::Test {
 protected:
  uint32_t AddSource(TestSourceOptions options = {},
                     std::unique_ptr<Policy> policy = LeastLoaded()) {
    return engine_.AddSource(
        {.fd = kListenFd + static_cast<int32_t>(engine_.source_slots()),
         .intake = {.kind = options.readiness          ? IntakeKind::kReadiness
                            : options.multishot_accept ? IntakeKind::kAccept
                                                       : IntakeKind::kPollAccept,
                    .listens = options.listens,
                    .hides_end = options.hides_end},
         .countable = options.countable,
         .hold = options.hold,
         .recall = options.recall,
         .start_workers = options.start_workers,
         .gate = options.gate,
         .policy = std::move(policy),
         .desk = options.desk,
         .sights = options.sights,
         .hungry = &hungry_desks_});
  }

  // Joins every source that there is.
  uint32_t AddWorker(TestWorkerOptions options = {}) {
    auto worker = std::make_unique<MemoryWorker>(options.window);
    if (options.sight) permits_.push_back(std::make_unique<WorkerPermits>());
    const uint32_t index = engine_.AddWorker(
        {.inbox = &worker->inbox(),
         .state = &worker->state(),
         .tally = options.completions || options.direct ? &worker->tally() : nullptr,
         .direct = options.direct,
         .ring_fd = 100 + static_cast<int32_t>(workers_.size()),
         .tag = 200 + workers_.size(),
         .capacity = options.capacity,
         .window_max = options.window,
         .sight = options.sight ? static_cast<int>(workers_.size()) : -1,
         .permits = options.sight ? permits_.back().get() : nullptr});
    if (index == workers_.size()) {
      workers_.push_back(std::move(worker));
    } else {
      workers_[index] = std::move(worker);
    }
    for (uint32_t source = 0; source < engine_.source_slots(); ++source) {
      if (!engine_.source_removed(source))
        engine_.Join(SourceIndex(source), index, Token(source, index));
    }
    return index;
  }

  static uint64_t Token(uint32_t source, uint32_t worker) { return 1000 * (source + 1) + worker; }

  // One batch. Remembers the operations that arm, so that they can be completed.
  void Batch(std::vector<Completion> completions = {}, bool all_reported = true) {
    engine_.OnBatch(completions, now_ns_, ops_, all_reported);
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kPoll || op.key.kind == OpKind::kAcceptEach) {
        if (armed_.size() <= op.key.index) armed_.resize(op.key.index + 1);
        armed_[op.key.index] = op.key;
      }
    }
    engine_.CheckAll(false, ring_keeps_its_word_);
  }

  size_t Count(OpKind kind) const {
    return static_cast<size_t>(std::count_if(ops_.begin(), ops_.end(),
                                             [kind](const Op& op) { return op.key.kind == kind; }));
  }
  const Op& Only(OpKind kind) const {
    EXPECT_EQ(Count(kind), 1u);
    return *std::find_if(ops_.begin(), ops_.end(),
                         [kind](const Op& op) { return op.key.kind == kind; });
  }
  size_t CountEvents(EventKind kind) const {
    return static_cast<size_t>(
        std::count_if(engine_.events().begin(), engine_.events().end(),
                      [kind](const EngineEvent& event) { return event.kind == kind; }));
  }

  // What the kernel may answer.
  Completion Edge(uint32_t source = 0) const {
    return {.key = armed_[source], .result = kPoll, .more = true};
  }
  Completion Arrival(int32_t fd, uint32_t source = 0) const {
    return {.key = armed_[source], .result = fd, .more = true};
  }
  Completion End(int32_t result, uint32_t source = 0) const {
    return {.key = armed_[source], .result = result, .more = false};
  }
  static Completion Accepted(int32_t result, uint32_t source = 0) {
    return {.key = {.kind = OpKind::kAccept, .index = source}, .result = result};
  }
  static Completion State(int32_t result, uint32_t source = 0) {
    return {.key = {.kind = OpKind::kState, .index = source}, .result = result};
  }
  static Completion Knock() { return {.key = {.kind = OpKind::kWatch}, .result = 1, .more = true}; }
  static Completion Failed(const Op& op, int32_t error) {
    return {.key = op.key, .result = -error};
  }

  std::vector<int32_t> Claim(uint32_t worker) {
    std::vector<int32_t> fds;
    workers_[worker]->Claim(hunger_, &fds);
    return fds;
  }
  uint32_t Unclaimed(uint32_t worker) const { return engine_.ledger().worker(worker).unclaimed; }
  uint64_t Held(uint32_t source = 0) const { return engine_.ledger().source(source).held; }

  bool ring_keeps_its_word_ = true;  // see core/room.h
  Hunger hunger_;
  SourceSet hungry_desks_;
  std::vector<std::unique_ptr<WorkerPermits>> permits_;
  Engine engine_{{.recall_after_ns = kRecallAfter,
                  .completion_entries = 64,
                  .slots = kSlots,
                  .watch_fd = kWatchFd},
                 &hunger_};
  std::vector<std::unique_ptr<MemoryWorker>> workers_;
  std::vector<Op> ops_;
  std::vector<OpKey> armed_;
  int64_t now_ns_ = 1'000'000'000;
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_TESTS_CORE_ENGINE_FIXTURE_H_
