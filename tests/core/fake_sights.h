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
    EXPECT_EQ(again, shown.contains(sight)) << "of sight " << sight;
    shown.insert(sight);
    Call(on_show);
    return std::exchange(show_fails, 0);
  }
  void Hide(int sight) override { EXPECT_EQ(shown.erase(sight), 1U) << sight; }
  int Waiting() override {
    ++looks;
    Call(on_waiting);
    return waiting;
  }
  void Yield() override { std::this_thread::yield(); }
  void CallMaster() override { ++calls; }

  std::set<int> shown;
  int waiting = 0;
  int show_fails = 0;  // errno of the next
  int looks = 0;
  int calls = 0;
  std::function<void()> on_show;     // once
  std::function<void()> on_waiting;  // once

 private:
  static void Call(std::function<void()>& once) {
    if (const auto now = std::exchange(once, nullptr)) now();
  }
};

}  // namespace ringmaster::core

#endif  // RINGMASTER_TESTS_CORE_FAKE_SIGHTS_H_
