#include "runtime/event_callback.h"

#include <exception>

#include "absl/strings/str_cat.h"
#include "core/check.h"

namespace ringmaster::internal {

void EventCallback::Call(const Event& event) {
  if (!wanted()) return;
  running_ = true;
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
  running_ = false;
}

}  // namespace ringmaster::internal
