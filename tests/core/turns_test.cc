// Sources of one master that want the same credit, by the rule "longest ago first" of core/rota.h.
// Method: a kernel in memory, and workers that take one offer in each step. One client of a quiet
// source waits at a time. Of the flooded sources there are more clients than can ever be served.
// What is counted are the steps in which somebody else was given something and the quiet source,
// whose client waits, was not.

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "core/engine.h"
#include "engine_fixture.h"
#include "ringmaster/policy.h"
#include "sim/memory_worker.h"
#include "support/allocation_count.h"

namespace ringmaster::core {
namespace {

enum class Intake : uint8_t { kPoll, kAccept, kCounted, kEvent };
constexpr Intake kIntakes[] = {Intake::kPoll, Intake::kAccept, Intake::kCounted, Intake::kEvent};

const char* NameOf(Intake intake) {
  switch (intake) {
    case Intake::kPoll:
      return "poll";
    case Intake::kAccept:
      return "accept";
    case Intake::kCounted:
      return "counted";
    case Intake::kEvent:
      return "event";
  }
  return "";
}

constexpr int32_t kFlood = 40;  // clients that wait at a flooded source
constexpr uint32_t kHold = 8;
constexpr int kSteps = 600;
// How long connections last. A sanitizer finds the same with any of them.
#ifdef RINGMASTER_TEST_SANITIZED
constexpr int kLeaseSteps[] = {1};
#else
constexpr int kLeaseSteps[] = {0, 1, 3};
#endif

struct TestedSource {
  Intake intake = Intake::kPoll;
  bool flooded = true;
  uint32_t workers = 1;  // a set of bits
  bool to_last = false;  // its policy picks the last of the candidates
};

class ToLast final : public Policy {
 public:
  std::string name() const override { return "to-last"; }
  size_t Pick(const Arrival& /*arrival*/, const View& view) override {
    return view.candidates.size() - 1;
  }
};

struct TestedLimits {
  uint32_t window = 1;
  uint32_t capacity = UINT32_MAX;
  uint32_t gate = 0;  // of the balancer; 0: none
  bool completions = false;
  int lease_steps = 0;
};

class Turns {
 public:
  Turns(const std::vector<TestedSource>& sources, uint32_t workers, const TestedLimits& limits)
      : limits_(limits),
        engine_({.recall_after_ns = kRecallAfter,
                 .completion_entries = 64,
                 .watch_fd = kWatchFd,
                 .gate = limits.gate > 0 ? &gate_ : nullptr},
                &hunger_) {
    if (limits.gate > 0) gate_.Limit(limits.gate);
    for (const TestedSource& source : sources) {
      const bool tickets = source.intake == Intake::kCounted || source.intake == Intake::kEvent;
      engine_.AddSource(
          {.fd = kListenFd + static_cast<int32_t>(sources_.size()),
           .intake = {.kind = tickets                            ? IntakeKind::kReadiness
                              : source.intake == Intake::kAccept ? IntakeKind::kAccept
                                                                 : IntakeKind::kPollAccept},
           .countable = source.intake == Intake::kCounted,
           .hold = kHold,
           .policy = source.to_last ? std::make_unique<ToLast>() : LeastLoaded()});
      sources_.push_back({.is = source, .tickets = tickets});
    }
    for (uint32_t index = 0; index < workers; ++index) {
      workers_.push_back({.memory = std::make_unique<MemoryWorker>(limits.window)});
      MemoryWorker& memory = *workers_.back().memory;
      engine_.AddWorker({.inbox = &memory.inbox(),
                         .state = &memory.state(),
                         .tally = limits.completions ? &memory.tally() : nullptr,
                         .ring_fd = 100 + static_cast<int32_t>(index),
                         .capacity = limits.capacity,
                         .window_max = limits.window});
      for (uint32_t source = 0; source < sources_.size(); ++source) {
        if ((sources_[source].is.workers >> index & 1) != 0)
          engine_.Join(SourceIndex(source), index, source);
      }
    }
    Settle();
  }

  // Each step one worker takes one, ends what it has had for long enough, and the master does what
  // there is to do.
  void Run() {
    for (step_ = 0; step_ < kSteps; ++step_) {
      now_ns_ += 1000;
      for (uint32_t source = 0; source < sources_.size(); ++source) {
        Source& it = sources_[source];
        if (it.is.flooded) {
          it.backlog = kFlood;
        } else if (it.backlog == 0 && step_ >= it.comes_at) {
          it.backlog = 1;
        } else {
          continue;
        }
        if (it.polled) Complete({.key = it.armed, .result = kPoll, .more = true});
      }
      for (Worker& worker : workers_) EndLeases(worker);
      if (limits_.lease_steps > 0) Settle();
      Move(static_cast<uint32_t>(step_) % static_cast<uint32_t>(workers_.size()));
      Settle();
      CountSteps();
      if (::testing::Test::HasFatalFailure()) return;
    }
  }

  uint64_t served(uint32_t source) const { return sources_[source].served; }
  // How many steps in a row it was passed over at the most.
  int worst(uint32_t source) const { return sources_[source].worst; }

 private:
  struct Source {
    TestedSource is;
    bool tickets = false;
    int32_t backlog = 0;
    int comes_at = 0;
    bool polled = false;
    bool accepted_from = false;
    OpKey armed;
    uint64_t served = 0;
    uint64_t dealt_before = 0;
    int passed_over = 0;
    int worst = 0;
  };
  struct Worker {
    std::unique_ptr<MemoryWorker> memory;
    std::deque<uint32_t> ring;  // what was sent, by source
    std::deque<int> leases_until;
  };

  void Complete(const Completion& completion) { completions_.push_back(completion); }

  void EndLeases(Worker& worker) {
    for (; !worker.leases_until.empty() && worker.leases_until.front() <= step_;
         worker.leases_until.pop_front()) {
      if (limits_.gate > 0) gate_.GiveBack();
      worker.memory->Release(hunger_);
    }
  }

  void Move(uint32_t index) {
    Worker& worker = workers_[index];
    uint32_t source = 0;
    bool lease = true;
    if (limits_.completions) {
      if (worker.ring.empty()) return;
      source = worker.ring.front();
      worker.ring.pop_front();
      lease = worker.memory->tally().Lease();
      worker.memory->state().Release(worker.memory->tally().Take(1).places);
      hunger_.HearKnock();
    } else {
      std::vector<int32_t> fds;
      worker.memory->inbox().Begin();
      const uint64_t word = worker.memory->inbox().Claim();
      hunger_.HearKnock();
      if (word == 0) return;
      source = Offer::FromWord(word).source;
    }
    ASSERT_TRUE(lease);
    Source& it = sources_[source];
    if (it.tickets) {
      const bool found = it.backlog > 0;
      if (found) Served(it);
      if (it.is.intake == Intake::kEvent && it.backlog > 0) engine_.GiveBack(source, 0);
    } else {
      ++it.served;
    }
    worker.leases_until.push_back(step_ + limits_.lease_steps);
    if (limits_.lease_steps == 0) EndLeases(worker);
  }

  void Served(Source& source) {
    ++source.served;
    Gone(source);
  }
  // A client of the source waits no more.
  void Gone(Source& source) {
    if (--source.backlog == 0) source.comes_at = step_ + 1 + static_cast<int>(source.served % 3);
  }

  void Settle() {
    for (int batches = 0; batches < 100; ++batches) {
      std::vector<Completion> completions;
      std::swap(completions, completions_);
      engine_.OnBatch(completions, now_ns_, ops_);
      engine_.CheckAll(false);
      if (engine_.WantsRoom()) engine_.MakeRoom();
      for (const Op& op : ops_) Answer(op);
      for (uint32_t index = 0; index < sources_.size(); ++index) Flow(index);
      if (completions_.empty() && engine_.WaitMax(now_ns_) != 0) return;
    }
    FAIL() << "the master goes round and round";
  }

  void Answer(const Op& op) {
    if (op.key.kind == OpKind::kSend) {
      workers_[static_cast<size_t>(op.fd - 100)].ring.push_back(static_cast<uint32_t>(op.tag));
      return;
    }
    if (op.key.kind == OpKind::kWatch || op.key.kind == OpKind::kDoorbell) return;
    Source& source = sources_[op.key.index];
    switch (op.key.kind) {
      case OpKind::kPoll:
        source.polled = true;
        source.armed = op.key;
        if (source.backlog > 0) Complete({.key = op.key, .result = kPoll, .more = true});
        return;
      case OpKind::kAcceptEach:
        source.accepted_from = true;
        source.armed = op.key;
        return;
      case OpKind::kPollEnd:
      case OpKind::kAcceptEnd:
        source.polled = source.accepted_from = false;
        Complete({.key = source.armed, .result = -ECANCELED, .more = false});
        return;
      case OpKind::kCount:
        Complete({.key = op.key, .result = source.backlog});
        return;
      case OpKind::kAccept:
        Complete({.key = op.key, .result = source.backlog > 0 ? ++fd_ : -EAGAIN});
        if (source.backlog > 0) Gone(source);
        return;
      default:
        FAIL() << "an operation that nothing asks for";
    }
  }

  // What a multishot accept brings until it is told to end.
  void Flow(uint32_t index) {
    Source& source = sources_[index];
    for (uint32_t i = 0; source.accepted_from && source.backlog > 0 && i < kHold; ++i) {
      Complete({.key = source.armed, .result = ++fd_, .more = true});
      Gone(source);
    }
  }

  void CountSteps() {
    const auto dealt = [this](uint32_t index) {
      const SourceCount& count = engine_.ledger().source(index);
      return count.arrivals - count.held;
    };
    for (uint32_t index = 0; index < sources_.size(); ++index) {
      Source& source = sources_[index];
      bool others = false;
      for (uint32_t other = 0; other < sources_.size(); ++other) {
        const bool shares = (sources_[other].is.workers & source.is.workers) != 0;
        others |= shares && other != index && dealt(other) != sources_[other].dealt_before;
      }
      const bool told =
          source.tickets &&
          (engine_.ledger().source(index).offered > 0 ||
           std::any_of(workers_.begin(), workers_.end(), [index](const Worker& worker) {
             return std::count(worker.ring.begin(), worker.ring.end(), index) > 0;
           }));
      const bool waits = !told && (source.backlog > 0 || engine_.ledger().source(index).held > 0);
      if (!waits || dealt(index) != source.dealt_before) {
        source.passed_over = 0;
      } else if (others) {
        source.worst = std::max(source.worst, ++source.passed_over);
      }
    }
    for (uint32_t index = 0; index < sources_.size(); ++index) {
      sources_[index].dealt_before = dealt(index);
    }
  }

  const TestedLimits limits_;
  Hunger hunger_;
  Gate gate_;
  Engine engine_;
  std::vector<Source> sources_;
  std::vector<Worker> workers_;
  std::vector<Completion> completions_;
  std::vector<Op> ops_;
  int64_t now_ns_ = 1'000'000'000;
  int32_t fd_ = 10'000;
  int step_ = 0;
};

std::string Describe(const std::vector<TestedSource>& sources, const TestedLimits& limits) {
  std::string text;
  for (const TestedSource& source : sources) {
    text += std::string(NameOf(source.intake)) + (source.flooded ? " flooded" : " quiet") + "/" +
            std::to_string(source.workers) + " ";
  }
  return text + "window " + std::to_string(limits.window) + " capacity " +
         std::to_string(limits.capacity) + " gate " + std::to_string(limits.gate) +
         " completions " + std::to_string(limits.completions) + " lease " +
         std::to_string(limits.lease_steps);
}

void Check(const std::vector<TestedSource>& sources, uint32_t workers, const TestedLimits& limits,
           int bound, uint64_t served_min = 20) {
  SCOPED_TRACE(Describe(sources, limits));
  Turns turns(sources, workers, limits);
  turns.Run();
  for (uint32_t index = 0; index < sources.size(); ++index) {
    EXPECT_LE(turns.worst(index), bound) << "source " << index;
    EXPECT_GE(turns.served(index), served_min) << "source " << index;
  }
}

// Calls `check` for every limit.
template <typename Body>
void ForEachLimit(Body check) {
  for (const bool completions : {false, true}) {
    for (const int lease_steps : kLeaseSteps) {
      TestedLimits limits{.completions = completions, .lease_steps = lease_steps};
      check(limits);
      limits.capacity = 1;
      check(limits);
      limits.window = 4;
      check(limits);
      limits.capacity = UINT32_MAX;
      check(limits);
    }
  }
}

class TurnsTest : public EngineTest {
 protected:
  static Completion Counted(int32_t count, uint32_t source = 0) {
    return {.key = {.kind = OpKind::kCount, .index = source}, .result = count};
  }
};

TEST_F(TurnsTest, AQuietSourceIsServedBesideAFloodedOne) {
  for (const Intake flooded : kIntakes) {
    for (const Intake quiet : kIntakes) {
      ForEachLimit([&](const TestedLimits& limits) {
        for (const bool first : {false, true}) {
          std::vector<TestedSource> sources{{.intake = flooded},
                                            {.intake = quiet, .flooded = false}};
          if (first) std::swap(sources[0], sources[1]);
          Check(sources, 1, limits, 2);
        }
      });
    }
  }
}

TEST_F(TurnsTest, AlsoWhereTheyShareSomeWorkersOnly) {
  struct Joined {
    uint32_t flooded;
    uint32_t quiet;
  };
  for (const Joined joined : {Joined{0b11, 0b01}, Joined{0b01, 0b11}, Joined{0b011, 0b110}}) {
    for (const Intake flooded : kIntakes) {
      for (const Intake quiet : kIntakes) {
        ForEachLimit([&](const TestedLimits& limits) {
          for (const bool to_last : {false, true}) {
            Check({{.intake = flooded, .workers = joined.flooded, .to_last = to_last},
                   {.intake = quiet, .flooded = false, .workers = joined.quiet}},
                  3, limits, 4);
          }
        });
      }
    }
  }
}

// Were there one place for all in the order of turns, two pairs could go on taking each other's.
TEST_F(TurnsTest, PairsThatShareNothingDoNotTakeTurnsWithEachOther) {
  for (const Intake one : kIntakes) {
    for (const Intake other : kIntakes) {
      ForEachLimit([&](const TestedLimits& limits) {
        Check({{.intake = one, .workers = 0b01},
               {.intake = other, .workers = 0b01},
               {.intake = one, .workers = 0b10},
               {.intake = other, .workers = 0b10}},
              2, limits, 4);
      });
    }
  }
}

TEST_F(TurnsTest, ThreeInARowOfWhichNeighboursShare) {
  for (const Intake one : kIntakes) {
    for (const Intake middle : kIntakes) {
      ForEachLimit([&](const TestedLimits& limits) {
        Check({{.intake = one, .workers = 0b001},
               {.intake = middle, .workers = 0b011},
               {.intake = one, .flooded = false, .workers = 0b110},
               {.intake = middle, .workers = 0b100}},
              3, limits, 8);
      });
    }
  }
}

// What a multishot accept brings when the limit is reached comes unasked, and is served first.
TEST_F(TurnsTest, AtTheLimitOfTheBalancer) {
  for (const uint32_t gate : {1u, 2u, 5u}) {
    for (const Intake flooded : kIntakes) {
      for (const Intake quiet : kIntakes) {
        ForEachLimit([&](TestedLimits limits) {
          limits.gate = gate;
          const int burst = flooded == Intake::kAccept ? 3 * static_cast<int>(kHold) : 0;
          Check({{.intake = flooded}, {.intake = quiet, .flooded = false}}, 1, limits, 6 + burst,
                10);
          Check({{.intake = quiet, .flooded = false}, {.intake = flooded}}, 1, limits, 6 + burst,
                10);
        });
      }
    }
  }
}

TEST_F(TurnsTest, AtTheLimitOfTheBalancerWhereTheyShareSomeWorkersOnly) {
  struct Joined {
    uint32_t flooded;
    uint32_t quiet;
    uint32_t third;
  };
  for (const Joined joined : {Joined{0b11, 0b01, 0}, Joined{0b01, 0b11, 0},
                              Joined{0b11, 0b10, 0b01}, Joined{0b110, 0b011, 0b100}}) {
    for (const uint32_t gate : {2u, 3u}) {
      for (const Intake flooded : kIntakes) {
        for (const Intake quiet : kIntakes) {
          ForEachLimit([&](TestedLimits limits) {
            if (limits.capacity == 1) return;
            limits.gate = gate;
            std::vector<TestedSource> sources{
                {.intake = flooded, .workers = joined.flooded},
                {.intake = quiet, .flooded = false, .workers = joined.quiet}};
            if (joined.third != 0) {
              sources.push_back({.intake = Intake::kPoll, .workers = joined.third});
            }
            Check(sources, 3, limits, 80, 4);
          });
        }
      }
    }
  }
}

TEST_F(TurnsTest, TwoFloodedSourcesShareWhatThereIs) {
  for (const Intake one : kIntakes) {
    for (const Intake other : kIntakes) {
      ForEachLimit([&](const TestedLimits& limits) {
        Check({{.intake = one}, {.intake = other}}, 1, limits, 2);
      });
    }
  }
}

// --- What is kept --------------------------------------------------------------------------------

TEST_F(TurnsTest, WhatIsHeldDoesNotTakeTheCreditOfAnAccept) {
  AddSource();
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  Batch();
  Batch({Arrival(10), Arrival(11), Edge(1)});
  EXPECT_EQ(Count(OpKind::kAccept), 0u);
  Claim(0);
  Batch();  // the other one's turn
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  EXPECT_EQ(Held(), 1u);
  Batch({Arrival(12)});
  EXPECT_EQ(Unclaimed(0), 0u);
  Batch({Accepted(20, 1)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{20}));
  Batch();
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{11}));
}

TEST_F(TurnsTest, WhatFindsNothingLeavesItsCreditToOthersInTheSameBatch) {
  AddSource();
  AddSource({.multishot_accept = false});
  AddSource({.readiness = true, .countable = true});
  AddWorker({.window = 3});
  Batch();
  Batch({Edge(1), Edge(2)});
  EXPECT_EQ(Count(OpKind::kAccept), 2u);
  EXPECT_EQ(Count(OpKind::kCount), 1u);
  Batch({Arrival(10), Arrival(11), Arrival(12)});
  EXPECT_EQ(Held(), 3u);
  EXPECT_TRUE(hunger_.HearKnock());
  Batch({Accepted(-EAGAIN, 1)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
  Batch({Accepted(-EAGAIN, 1), Counted(0, 2)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{11, 12}));
}

// Between a count and its ticket nobody takes the last place at the worker or in the limits.
TEST_F(TurnsTest, ACountKeepsThePlacesThatItsTicketNeeds) {
  Gate gate;
  gate.Limit(1);
  AddSource();
  AddSource({.readiness = true, .countable = true, .gate = &gate});
  AddWorker({.window = 4, .capacity = 1});
  Batch();
  Batch({Edge(1)});
  EXPECT_EQ(Count(OpKind::kCount), 1u);
  EXPECT_EQ(engine_.open(0), 1u);
  EXPECT_EQ(gate.used(), 1u);
  Batch({Arrival(10)});
  EXPECT_EQ(Held(), 1u);
  Batch({Counted(3, 1)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{kPoll}));
  EXPECT_EQ(engine_.open(0), 1u);
  EXPECT_EQ(gate.used(), 1u);
  workers_[0]->state().Release(1);
  Batch();
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
}

TEST_F(TurnsTest, ACountThatFindsNothingGivesItsPlacesBack) {
  Gate gate;
  gate.Limit(1);
  AddSource({.readiness = true, .countable = true, .gate = &gate});
  AddWorker({.capacity = 1});
  Batch();
  Batch({Edge()});
  EXPECT_TRUE(gate.Full());
  Batch({Counted(0)});
  EXPECT_EQ(engine_.open(0), 0u);
  EXPECT_EQ(gate.used(), 0u);
}

// The first count has found no more than has been told of, and an edge came after it.
TEST_F(TurnsTest, ACountThatIsFollowedByAnotherLeavesItsPlaceToThat) {
  Gate gate;
  gate.Limit(3);
  AddSource({.readiness = true, .countable = true, .gate = &gate});
  AddWorker();
  Batch();
  Batch({Edge()});
  Batch({Counted(1)});
  Batch({Edge()});
  EXPECT_EQ(gate.used(), 2u);  // of the ticket, and of the count
  Batch({Counted(1), Edge()});
  EXPECT_EQ(Count(OpKind::kCount), 1u);
  EXPECT_EQ(gate.used(), 2u);
  Batch({Counted(1)});
  EXPECT_EQ(Count(OpKind::kCount), 0u);
  EXPECT_EQ(gate.used(), 1u);
}

TEST_F(TurnsTest, WhoLeavesTakesWhatWasKeptAlong) {
  AddSource();
  AddSource({.multishot_accept = false});
  AddWorker({.window = 2, .capacity = 2});
  Batch();
  Batch({Edge(1)});
  EXPECT_EQ(Count(OpKind::kAccept), 2u);
  engine_.Leave(SourceIndex(1), 0);
  Batch({Arrival(10), Arrival(11)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10, 11}));
  workers_[0]->state().Release(2);
  engine_.Join(SourceIndex(1), 0);
  Batch({Accepted(20, 1), Accepted(21, 1)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{20, 21}));
}

TEST_F(TurnsTest, OfAWorkerThatIsRemovedNothingIsKept) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1});
  AddWorker({.window = 1});
  Batch();
  Batch({Edge()});
  EXPECT_EQ(Count(OpKind::kAccept), 2u);
  engine_.RemoveWorker(0);
  EXPECT_EQ(AddWorker({.window = 1}), 0u);
  Batch({Accepted(10), Accepted(11)});
  EXPECT_EQ(Claim(0).size() + Claim(1).size(), 2u);
}

// Though it has asked for some already, with which it has nothing to do.
TEST_F(TurnsTest, ASourceThatIsRemovedLetsGoWhenItsAcceptsHaveCompleted) {
  AddSource();
  AddSource({.multishot_accept = false});
  AddWorker({.window = 1, .capacity = 1});
  Batch();
  Batch({Edge(1)});
  EXPECT_EQ(Count(OpKind::kAccept), 1u);
  engine_.RemoveSource(1);
  Batch({Arrival(10), Accepted(-EAGAIN, 1)});
  EXPECT_EQ(Claim(0), (std::vector<int32_t>{10}));
}

TEST_F(TurnsTest, ASourceAloneAsksForAllThatItsWorkersCanHave) {
  AddSource({.multishot_accept = false});
  AddWorker({.window = 3});
  AddWorker({.window = 4, .capacity = 2});
  Batch();
  Batch({Edge()});
  int32_t fd = 10;
  size_t most = 0;
  for (int round = 0; round < 20; ++round) {
    std::vector<Completion> found;
    for (size_t i = Count(OpKind::kAccept); i > 0; --i) found.push_back(Accepted(fd++));
    most = std::max(most, found.size());
    Batch(found);
    if (Count(OpKind::kAccept) > 0) continue;
    for (uint32_t worker = 0; worker < 2; ++worker) {
      Claim(worker);
      workers_[worker]->state().Release(engine_.open(worker));
    }
    Batch();
  }
  EXPECT_EQ(most, 5u);
}

TEST_F(TurnsTest, NeverAllocatesWhereCreditIsContended) {
  AddSource();
  AddSource({.multishot_accept = false});
  AddSource({.readiness = true, .countable = true});
  AddWorker({.window = 1});
  AddWorker({.window = 4, .capacity = 4});
  Batch();
  std::vector<Completion> completions;
  completions.reserve(64);
  int32_t fd = 10;
  uint64_t asked = 0;
  const size_t before = testing::AllocationCount();
  for (int step = 0; step < 1000; ++step) {
    completions.clear();
    for (const Op& op : ops_) {
      if (op.key.kind == OpKind::kAccept) completions.push_back(Accepted(fd++, 1));
      if (op.key.kind == OpKind::kCount) completions.push_back(Counted(3, 2));
    }
    asked += completions.size();
    if (step % 4 == 0) completions.push_back(Arrival(fd++));
    if (engine_.armed(1)) completions.push_back(Edge(1));
    if (engine_.armed(2)) completions.push_back(Edge(2));
    engine_.OnBatch(completions, now_ns_, ops_);
    workers_[step % 2]->Claim(hunger_, nullptr, 1);
    if (step % 2 == 1 && workers_[1]->state().open > 0) workers_[1]->Release(hunger_);
  }
  EXPECT_EQ(testing::AllocationCount(), before);
  EXPECT_GT(asked, 100u);
}

}  // namespace
}  // namespace ringmaster::core
