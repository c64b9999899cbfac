#include "runtime/event_callback.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/check.h"

namespace ringmaster::internal {
namespace {

thread_local const EventCallback* runs_here = nullptr;

}  // namespace

bool EventCallback::running() const { return runs_here == this; }

void EventCallback::Call(const Event& event) {
  if (!wanted()) return;
  const EventCallback* const outer = std::exchange(runs_here, this);
  try {
    function_(event);
  } catch (const std::exception& thrown) {
    core::Misused(absl::StrCat("the event callback threw \"", thrown.what(),
                               "\". It must not throw, because it is called on the master's "
                               "thread, where nobody could catch it: catch it in the callback")
                      .c_str());
  } catch (...) {
    core::Misused(
        "the event callback threw something. It must not throw, because it is called on the "
        "master's thread, where nobody could catch it: catch it in the callback");
  }
  runs_here = outer;
}

}  // namespace ringmaster::internal
