// What the kernel does for a desk, as the test says.

#ifndef RINGMASTER_TESTS_CORE_FAKE_SIGHTS_H_
#define RINGMASTER_TESTS_CORE_FAKE_SIGHTS_H_

#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <thread>
#include <utility>

#include "core/desk.h"

namespace ringmaster::core {

// The kernel, for a desk. A sight is the worker's index.
class FakeSights final : public Sights {
 public:
  int Show(int sight, bool again) override {
    asleep.erase(sight);
    return Stand(sight, again);
  }
  int ShowAsleep(int sight, bool again) override {
    asleep.insert(sight);
    return Stand(sight, again);
  }
  int Listener() const override { return kListener; }
  void Wake(int sight, int listener) override {
    EXPECT_EQ(listener, kListener);
    if (!shown.contains(sight)) return;
    asleep.erase(sight);
    if (on_wake != nullptr) on_wake(sight);
  }
  void Hide(int sight) override {
    EXPECT_EQ(shown.erase(sight), 1U) << sight;
    asleep.erase(sight);
  }
  int Waiting() override {
    ++looks;
    Call(on_waiting);
    return waiting;
  }
  void Yield() override {
    if (on_yield != nullptr) on_yield();
    std::this_thread::yield();
  }
  void CallMaster() override { ++calls; }
  bool Gone() override { return gone; }

  std::set<int> shown;
  std::set<int> asleep;  // of these
  int waiting = 0;
  int show_fails = 0;  // errno of the next
  int looks = 0;
  int calls = 0;
  bool gone = false;
  std::function<void()> on_show;     // once
  std::function<void()> on_waiting;  // once
  std::function<void(int)> on_wake;
  std::function<void()> on_yield;

 private:
  static constexpr int kListener = 7;

  int Stand(int sight, bool again) {
    EXPECT_EQ(again, shown.contains(sight)) << "of sight " << sight;
    shown.insert(sight);
    Call(on_show);
    return std::exchange(show_fails, 0);
  }
  static void Call(std::function<void()>& once) {
    if (const auto now = std::exchange(once, nullptr)) now();
  }
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_TESTS_CORE_FAKE_SIGHTS_H_
