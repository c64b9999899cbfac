// A kernel for desks of processes: one listener, sights, and who would be woken.

#ifndef RINGMASTER_TESTS_PROCESSES_FAKE_KERNEL_H_
#define RINGMASTER_TESTS_PROCESSES_FAKE_KERNEL_H_

#include <array>
#include <cstdint>
#include <functional>

#include "processes/desk.h"

namespace ringmaster::processes {

class FakeKernel final : public Kernel {
 public:
  // What a sight is.
  enum class Shows : uint8_t { kNothing, kAsleep, kSource };

  bool Show(uint32_t sight, bool asleep) override {
    Before();
    if (fails) return false;
    sights[sight] = asleep ? Shows::kAsleep : Shows::kSource;
    return true;
  }
  void Wake(uint32_t sight) override {
    Before();
    if (sights[sight] == Shows::kAsleep) sights[sight] = Shows::kSource;
  }
  void Hide(uint32_t sight) override {
    Before();
    sights[sight] = Shows::kNothing;
  }
  int Waiting() override {
    Before();
    return waiting;
  }
  void HideFromAll() override {
    for (uint32_t sight = 0; sight < kSightsMax; ++sight) Hide(sight);
  }
  int64_t NowNs() override { return now_ns; }

  // Whether whoever watches the sight is awake, if it waits.
  bool Wakes(uint32_t sight) const { return waiting > 0 && sights[sight] == Shows::kSource; }

  std::array<Shows, kSightsMax> sights{};
  int waiting = 0;  // negative: it does not say
  bool fails = false;
  int64_t now_ns = 1'000'000'000;
  // Before each call but NowNs, for instance to act as somebody else, or to throw.
  std::function<void()> before;

 private:
  void Before() {
    if (before) before();
  }
};

}  // namespace ringmaster::processes

#endif  // RINGMASTER_TESTS_PROCESSES_FAKE_KERNEL_H_
