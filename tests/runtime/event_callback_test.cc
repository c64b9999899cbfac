// Who is inside the program's event callback (runtime/event_callback.h).

#include "runtime/event_callback.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

namespace ringmaster::internal {
namespace {

// A policy is asked on a worker's thread while the master's thread is in the callback. What it asks
// of its balancer is refused, because it is not the callback that asks.
TEST(EventCallbackTest, RunsOnOneThreadOnly) {
  const EventCallback* it = nullptr;
  bool here = false;
  bool elsewhere = true;
  const std::function<void(const Event&)> function = [&](const Event&) {
    here = it->running();
    std::thread([&] { elsewhere = it->running(); }).join();
  };
  EventCallback callback(&function);
  it = &callback;
  EXPECT_FALSE(callback.running());
  callback.Call({});
  EXPECT_TRUE(here);
  EXPECT_FALSE(elsewhere);
  EXPECT_FALSE(callback.running());
}

TEST(EventCallbackTest, KnowsItsOwnCallback) {
  const EventCallback* other = nullptr;
  bool others = true;
  const std::function<void(const Event&)> function = [&](const Event&) {
    others = other->running();
  };
  EventCallback callback(&function);
  const EventCallback second(&function);
  other = &second;
  callback.Call({});
  EXPECT_FALSE(others);
}

}  // namespace
}  // namespace ringmaster::internal
