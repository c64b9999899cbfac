// The program's event callback, as one master calls it.

#ifndef RINGMASTER_SRC_RUNTIME_EVENT_CALLBACK_H_
#define RINGMASTER_SRC_RUNTIME_EVENT_CALLBACK_H_

#include <functional>

#include "ringmaster/balancer.h"

namespace ringmaster::internal {

// The thread that drives the master, inside it (runtime/inside.h); `running` any thread.
class EventCallback {
 public:
  // Borrows the function, which may be empty.
  explicit EventCallback(const std::function<void(const Event&)>* function)
      : function_(*function) {}
  EventCallback(const EventCallback&) = delete;
  EventCallback& operator=(const EventCallback&) = delete;

  // Whether anybody wants to hear of events.
  bool wanted() const { return function_ != nullptr; }
  // Does nothing when it is not wanted. Ends the process if the callback throws.
  void Call(const Event& event);
  // Whether the callback is running on this thread, and so it is the callback that asks. Another
  // thread that is inside the balancer is a policy's, at a desk.
  bool running() const;

 private:
  const std::function<void(const Event&)>& function_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_EVENT_CALLBACK_H_
