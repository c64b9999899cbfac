// The desk that processes share, with chance: workers are killed, freeze and are overtaken at each
// call to the kernel, and somebody writes nonsense into everything that is shared. Each failure
// names its seed; all is drawn from that, on one thread.

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "processes/area.h"
#include "processes/desk.h"
#include "ringmaster/policy.h"
#include "support/split_mix.h"

namespace ringmaster::processes {
namespace {

using testing::SplitMix;

// Ends the turn of whoever acts.
class Ended {};

// Ends a run that would go on for ever.
class Endless {};
constexpr uint64_t kCallsMax = 100'000;

// One listener. Every call is a place where others may act.
class SharedKernel final : public Kernel {
 public:
  enum class Shows : uint8_t { kNothing, kAsleep, kSource };

  bool Show(uint32_t sight, bool asleep) override {
    Call();
    sights.at(sight) = asleep ? Shows::kAsleep : Shows::kSource;
    return shows;
  }
  void Wake(uint32_t sight) override {
    Call();
    if (sights.at(sight) == Shows::kAsleep) sights.at(sight) = Shows::kSource;
  }
  void Hide(uint32_t sight) override {
    Call();
    sights.at(sight) = Shows::kNothing;
  }
  int Waiting() override {
    Call();
    return waiting;
  }
  void HideFromAll() override {
    // Where it is overtaken, half of it is done.
    for (uint32_t sight = 0; sight < kSightsMax; ++sight) {
      if (sight < 4) Call();
      sights[sight] = Shows::kNothing;
    }
  }
  int64_t NowNs() override { return now_ns; }

  std::array<Shows, kSightsMax> sights{};
  int waiting = 0;
  bool shows = true;
  int64_t now_ns = 1'000'000'000;
  uint64_t calls = 0;
  std::function<void()> meanwhile;

 private:
  void Call() {
    if (++calls == kCallsMax) throw Endless();
    now_ns += 1'000;
    meanwhile();
  }
};

std::unique_ptr<Policy> AnyPolicy(SplitMix& random) {
  const std::span<const std::string_view> names = PolicyNames();
  auto policy = PolicyByName(names[random.Next() % names.size()]);
  // One that cannot be shared is not given to a desk.
  std::array<uint64_t, kPolicyWords> words{};
  std::unique_ptr<Policy> chosen = policy.ok() ? *std::move(policy) : LeastLoaded();
  chosen->Prepare(kWorkersMax);
  if (chosen->Save(words)) return chosen;
  chosen = LeastLoaded();
  chosen->Prepare(kWorkersMax);
  return chosen;
}

// Some workers and the keeper.
class World {
 public:
  static constexpr uint32_t kNestedMax = 3;
  static constexpr uint32_t kOvertakenMax = 100;

  explicit World(uint64_t seed) : random_(seed) {
    workers_ = 2 + static_cast<uint32_t>(random_.Next() % 4);
    one_in_ = 4 + random_.Next() % 60;
    source().mode = Mode::kAimed;
    kernel_.meanwhile = [this] { Meanwhile(); };
    for (uint32_t i = 0; i <= workers_; ++i) policies_.push_back(AnyPolicy(random_));
    for (uint32_t i = 0; i < workers_; ++i) Join(i);
    As(workers_, [&] { Repair(); });
  }

  // Empty, or what is wrong.
  std::string Run() {
    try {
      return RunToTheEnd();
    } catch (const Endless&) {
      return "it never ends";
    }
  }

 private:
  std::string RunToTheEnd() {
    for (uint32_t i = 0; i < workers_; ++i) Turn(i);
    for (int turn = 0; turn < 40; ++turn) {
      if (random_.Next() % 3 == 0) Arrive();
      AnybodyActs();
    }
    quiet_ = true;
    // Nobody dies any more, and nobody is overtaken.
    for (uint32_t i = 0; i < workers_; ++i) {
      if (state_[i] == State::kDead) Bury(i);
    }
    int in_vain = 0;
    for (int round = 0; round < 200 && kernel_.waiting > 0; ++round) {
      const uint64_t accepted = accepted_;
      for (uint32_t i = 0; i < workers_; ++i) Turn(i);
      in_vain = accepted == accepted_ ? in_vain + 1 : 0;
      // Only where somebody is frozen the keeper's clock is needed.
      if (in_vain % 4 == 3 && AnybodyFrozen()) Recall();
    }
    if (!AnybodyLives()) return "";
    if (kernel_.waiting > 0) return "connections wait, and nobody is woken:" + Picture();
    if (accepted_ != arrived_) return "a connection was lost or accepted twice";
    if (AnybodyFrozen()) return "";
    if (NamedWord::HolderOf(source().word.Read()) != 0) return "somebody holds the desk";
    uint32_t out = 0;
    for (uint32_t i = 0; i < workers_; ++i) {
      const core::Permits::Count permits = pair(i).permits.Read();
      out += permits.claimable;
      if (permits.redeeming != 0) return "a permit is redeemed for ever";
      if (permits.claimable > 0 && !Shown(i)) return "a permit stands where nothing is shown";
      if (permits.claimable > 0 && state_[i] != State::kLives) return "a permit is nobody's";
      if (permits.claimable == 0 && Shown(i) && worker(i).marked == 0) {
        return "a sight shows what its worker has no permit for:" + Picture();
      }
    }
    if (out == 0) return "no permit stands";
    return "";
  }

  enum class State : uint8_t { kLives, kFrozen, kDead, kGone };

  Worker& worker(uint32_t index) { return area_->workers[index]; }
  Pair& pair(uint32_t index) { return worker(index).of_source[0]; }
  Source& source() { return area_->sources[0]; }
  bool Shown(uint32_t index) const { return kernel_.sights[index] == SharedKernel::Shows::kSource; }
  bool AnybodyLives() const { return Any(State::kLives); }
  bool AnybodyFrozen() const { return Any(State::kFrozen); }
  bool Any(State state) const {
    for (uint32_t i = 0; i < workers_; ++i) {
      if (state_[i] == state) return true;
    }
    return false;
  }

  std::string Picture() {
    std::string picture = "\nhungry " + std::to_string(source().hungry) + ", torn " +
                          std::to_string(source().torn) + ", held by " +
                          std::to_string(NamedWord::HolderOf(source().word.Read()));
    for (uint32_t i = 0; i < workers_; ++i) {
      constexpr std::array kStates = {"lives", "frozen", "dead", "gone"};
      const core::Permits::Count permits = pair(i).permits.Read();
      picture += "\n" + std::to_string(i) + " " + kStates[static_cast<size_t>(state_[i])] +
                 ": waits " + std::to_string(worker(i).waits) + ", marked " +
                 std::to_string(worker(i).marked) + ", permits " +
                 std::to_string(permits.claimable) + " + " + std::to_string(permits.redeeming) +
                 ", shown " + std::to_string(pair(i).shown) + ", sight " +
                 std::to_string(static_cast<int>(kernel_.sights[i]));
    }
    return picture;
  }

  void Arrive() {
    ++kernel_.waiting;
    ++arrived_;
  }

  // --- What may come between two steps of somebody.

  void Meanwhile() {
    if (quiet_ || overtaken_ == kOvertakenMax || random_.Next() % one_in_ != 0) return;
    ++overtaken_;
    const uint32_t me = acts_.empty() ? kNone : acts_.back();
    switch (random_.Next() % 12) {
      case 0:
        if (me < workers_ && deaths_ < 2) {
          ++deaths_;
          state_[me] = State::kDead;
          throw Ended();
        }
        break;
      case 1:
        if (me < workers_ && freezes_ < 1) {
          ++freezes_;
          state_[me] = State::kFrozen;
          throw Ended();
        }
        break;
      case 2:
        Arrive();
        break;
      case 3:
        kernel_.now_ns += 2 * Desk::kLateNs;
        break;
      default:
        // Whoever was about to make a step stands still for as long.
        for (uint64_t turns = 1 + random_.Next() % 3; turns > 0; --turns) AnybodyActs();
    }
  }

  void AnybodyActs() {
    if (acts_.size() >= kNestedMax) return;
    const auto who = static_cast<uint32_t>(random_.Next() % (workers_ + 1));
    for (const uint32_t acting : acts_) {
      if (acting == who) return;
    }
    if (who < workers_) {
      if (random_.Next() % 8 == 0) {
        As(who, [&] { Distraction(who); });
      } else {
        Turn(who);
      }
      return;
    }
    for (uint32_t i = 0; i < workers_; ++i) {
      if (state_[i] == State::kDead) {
        Bury(i);
        return;
      }
    }
    for (uint32_t i = 0; i < workers_; ++i) {
      if (state_[i] == State::kGone && random_.Next() % 2 == 0) {
        Join(i);
        return;
      }
    }
    Recall();
  }

  template <typename Act>
  void As(uint32_t who, Act act) {
    if (who < workers_ && state_[who] != State::kLives) return;
    acts_.push_back(who);
    try {
      act();
    } catch (const Ended&) {
    }
    acts_.pop_back();
  }

  // --- Workers, as the shim has them.

  void Join(uint32_t index) {
    state_[index] = State::kLives;
    policies_[index] = AnyPolicy(random_);
    worker(index).owner = ++owners_;
    pair(index).sight = index;
    source().joined |= uint64_t{1} << index;
    As(index, [&] { Enter(index); });
  }
  void Visit(uint32_t index) {
    kernel_.meanwhile();
    Desk(*area_, 0, index, *policies_[index], kernel_).Visit();
  }
  void Enter(uint32_t index) {
    worker(index).waits = 1;
    kernel_.meanwhile();
    worker(index).Moved();
    if (source().hungry.exchange(0) != 0) Visit(index);
  }
  void Leave(uint32_t index) {
    worker(index).woke_at_ns = kernel_.now_ns;
    worker(index).waits = 0;
    kernel_.meanwhile();
  }
  // Something else wakes it.
  void Distraction(uint32_t index) {
    Leave(index);
    worker(index).Moved();
    if (pair(index).permits.Read().claimable > 0) Visit(index);
    if (random_.Next() % 2 == 0) kernel_.now_ns += 2 * Desk::kLateNs;
    kernel_.meanwhile();
    Enter(index);
  }
  // It wakes, if its sight wakes it.
  void Turn(uint32_t index) {
    if (kernel_.waiting == 0 || !Shown(index)) return;
    As(index, [&] { Accept(index); });
  }
  void Accept(uint32_t index) {
    core::Permits& permits = pair(index).permits;
    worker(index).Moved();
    kernel_.meanwhile();
    if (!permits.Claim()) {
      pair(index).shown = 1;
      Visit(index);
      return;
    }
    bool found = true;
    do {
      Leave(index);
      found = kernel_.waiting > 0;
      if (found) {
        --kernel_.waiting;
        ++accepted_;
        permits.CountAccepted();
        kernel_.meanwhile();
        permits.Finish();
      } else {
        kernel_.meanwhile();
        permits.GiveUp();
      }
      worker(index).Moved();
      Visit(index);
      kernel_.meanwhile();
    } while (found && permits.Claim());
    Enter(index);
  }

  // --- The keeper.

  void Repair() { Desk(*area_, 0, kNone, *policies_[workers_], kernel_).Repair(); }
  void Bury(uint32_t index) {
    As(workers_, [&] {
      source().joined &= ~(uint64_t{1} << index);
      pair(index).permits.Clear();
      worker(index).waits = 0;
      kernel_.meanwhile();
      Repair();
      pair(index).sight = kNone;
      pair(index).permits.Clear();
      pair(index).shown = 0;
      worker(index).marked = 0;
      worker(index).owner = 0;
      state_[index] = State::kGone;
    });
  }
  // The keeper believes that nothing moves, which may be wrong.
  void Recall() {
    if (kernel_.waiting == 0) return;
    As(workers_, [&] {
      for (uint32_t i = 0; i < workers_; ++i) {
        if (pair(i).permits.Read().out() > 0) worker(i).marked = 1;
      }
      Repair();
    });
  }

  SplitMix random_;
  std::unique_ptr<Area> area_ = std::make_unique<Area>();
  SharedKernel kernel_;
  uint32_t workers_ = 0;
  uint64_t one_in_ = 1;
  std::vector<std::unique_ptr<Policy>> policies_;  // one for each process; the keeper's is the last
  std::array<State, kWorkersMax> state_{};
  std::vector<uint32_t> acts_;  // each of them stands still while the next one acts
  bool quiet_ = false;
  uint32_t overtaken_ = 0;
  uint32_t deaths_ = 0;
  uint32_t freezes_ = 0;
  uint64_t owners_ = 0;
  uint64_t arrived_ = 0;
  uint64_t accepted_ = 0;
};

TEST(DeskSeedsTest, WhoeverIsKilledOrFreezesEveryConnectionIsAccepted) {
  for (uint64_t seed = 1; seed <= 8'000; ++seed) {
    ASSERT_EQ(World(seed).Run(), "") << "seed " << seed;
  }
}

// A worker that is broken or hostile writes what it likes, also while somebody else holds the desk.
class Scribbler {
 public:
  explicit Scribbler(uint64_t seed) : random_(seed) {
    kernel_.meanwhile = [this] {
      if (random_.Next() % one_in_ != 0) return;
      for (uint64_t times = random_.Next() % 40; times > 0; --times) Scribble();
    };
    for (uint32_t i = 0; i < kWorkersMax; ++i) area_->workers[i].of_source[0].sight = i;
  }

  void Run() {
    one_in_ = 1 + random_.Next() % 40;
    const std::unique_ptr<Policy> policy = AnyPolicy(random_);
    for (int visit = 0; visit < 6; ++visit) {
      for (uint64_t times = random_.Next() % 200; times > 0; --times) Scribble();
      kernel_.waiting = static_cast<int>(random_.Next() % 40) - 1;
      kernel_.shows = random_.Next() % 16 != 0;
      // Mostly it is aimed, or there would be nothing to see.
      if (random_.Next() % 4 != 0) area_->sources[0].mode = Mode::kAimed;
      if (random_.Next() % 4 == 0) area_->sources[0].joined = ~uint64_t{0};
      const uint32_t me = random_.Next() % 3 == 0 ? kNone : random_.Next() % kWorkersMax;
      Desk desk(*area_, 0, me, *policy, kernel_);
      me == kNone ? desk.Repair() : desk.Visit();
    }
  }

 private:
  // Any word of what is shared, as bytes.
  void Scribble() {
    auto* const bytes = reinterpret_cast<unsigned char*>(area_.get());
    const size_t worker_at = reinterpret_cast<unsigned char*>(area_->workers.data()) - bytes;
    const size_t source_at = reinterpret_cast<unsigned char*>(area_->sources.data()) - bytes;
    size_t at = 0;
    switch (random_.Next() % 4) {
      case 0:  // the source
        at = source_at + random_.Next() % sizeof(Source);
        break;
      case 1:  // its first words: who holds it, and so on
        at = source_at + random_.Next() % offsetof(Source, memory);
        break;
      case 2:  // what a worker has of it
        at = worker_at + random_.Next() % kWorkersMax * sizeof(Worker) +
             offsetof(Worker, of_source) + random_.Next() % sizeof(Pair);
        break;
      default:  // a worker
        at = worker_at + random_.Next() % kWorkersMax * sizeof(Worker) +
             random_.Next() % offsetof(Worker, of_source);
    }
    const size_t word = at / sizeof(uint32_t) * sizeof(uint32_t);
    const uint64_t drawn = random_.Next();
    // Small numbers and those at the ends are more harmful than most others.
    const uint32_t value = drawn % 4 == 0   ? static_cast<uint32_t>(drawn >> 8 & 0x7f)
                           : drawn % 4 == 1 ? UINT32_MAX - static_cast<uint32_t>(drawn >> 8 & 3)
                                            : static_cast<uint32_t>(drawn >> 32);
    reinterpret_cast<std::atomic<uint32_t>*>(bytes + word)->store(value);
  }

  SplitMix random_;
  std::unique_ptr<Area> area_ = std::make_unique<Area>();
  SharedKernel kernel_;
  uint64_t one_in_ = 1;
};

TEST(DeskSeedsTest, NonsenseInWhatIsSharedHarmsNobodyElse) {
  for (uint64_t seed = 1; seed <= 8'000; ++seed) {
    ASSERT_NO_THROW(Scribbler(seed).Run()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace ringmaster::processes
