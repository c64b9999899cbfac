// How many connections may be open at once: the engine at a gate through which leases leave, on
// another thread, at any moment. Method: the other thread reserves a place and gives it back
// without end. After each batch the engine must be asking for something, or have asked to be woken.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine_fixture.h"

namespace ringmaster::core {
namespace {

constexpr int kBatches = 100'000;

class GateTest : public EngineTest {
 protected:
  // As a lease that is taken and released over and over, until the end of the scope. It does not
  // knock: the test looks at the flag instead.
  class Leases {
   public:
    explicit Leases(Gate& gate)
        : thread_([this, &gate] {
            while (!stop_.load(std::memory_order_relaxed)) {
              gate.ForceReserve();
              gate.GiveBack();
            }
          }) {}
    ~Leases() {
      stop_ = true;
      thread_.join();
    }

   private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
  };

  // Whether a lease that ends now makes the master look again, or it looks by itself.
  bool WillLook() { return engine_.WaitMax(now_ns_) == 0 || hunger_.HearKnock(); }

  Gate gate_;
};

TEST_F(GateTest, AReadySourceAsksOrIsHungryWheneverAPlaceBecomesFree) {
  gate_.Limit(1);
  AddSource({.multishot_accept = false, .gate = &gate_});
  AddWorker();
  Batch();
  const Leases leases(gate_);
  int asked = 0;
  for (int i = 0; i < kBatches; ++i) {
    Batch({Edge()});
    if (Count(OpKind::kAccept) > 0) {
      ++asked;
      Batch({Accepted(-EAGAIN)});
      continue;
    }
    ASSERT_TRUE(WillLook()) << "after " << i << " batches, " << asked << " of which asked";
  }
}

TEST_F(GateTest, AMultishotAcceptIsArmedOrHungryWheneverAPlaceBecomesFree) {
  gate_.Limit(1);
  AddSource({.gate = &gate_});
  AddWorker();
  Batch();
  const Leases leases(gate_);
  for (int i = 0; i < kBatches; ++i) {
    Batch();
    if (engine_.armed(0) && Count(OpKind::kAcceptEnd) == 0) continue;
    ASSERT_TRUE(WillLook()) << "after " << i << " batches";
    Batch({End(-ECANCELED)});
  }
}

}  // namespace
}  // namespace ringmaster::core
