#include "runtime/calls.h"

#include <utility>

namespace ringmaster::internal {

void CallQueue::Add(Call& call) {
  if (last_ == nullptr) {
    first_ = &call;
  } else {
    last_->next = &call;
  }
  last_ = &call;
}

void CallQueue::Run() {
  std::unique_lock lock(lock_.mutex);
  while (first_ != nullptr) {
    Call* call = first_;
    first_ = call->next;
    if (first_ == nullptr) last_ = nullptr;
    lock.unlock();
    call->result = call->run();
    const bool waits = call->result.ok() && call->until != nullptr && !(*call->until)();
    lock.lock();
    if (waits) {
      call->next = ran_;
      ran_ = call;
      continue;
    }
    call->done = true;
    lock_.changed.notify_all();
  }
}

void CallQueue::EndDue() {
  if (ran_ == nullptr) return;
  const std::unique_lock lock(lock_.mutex);
  for (Call** link = &ran_; *link != nullptr;) {
    Call* const call = *link;
    if (!(*call->until)()) {
      link = &call->next;
      continue;
    }
    *link = call->next;
    call->done = true;
    lock_.changed.notify_all();
  }
}

void CallQueue::Forget(const Call& call) {
  for (Call** link = &ran_; *link != nullptr; link = &(*link)->next) {
    if (*link != &call) continue;
    *link = call.next;
    return;
  }
}

void CallQueue::EndAll(const absl::Status& status) {
  for (Call* call = std::exchange(first_, nullptr); call != nullptr;) {
    Call* const next = call->next;
    call->result = status;
    call->done = true;
    call = next;
  }
  last_ = nullptr;
  for (Call* call = std::exchange(ran_, nullptr); call != nullptr;) {
    Call* const next = call->next;
    call->done = true;
    call = next;
  }
  lock_.changed.notify_all();
}

bool Departures::Add(uint32_t worker, PortShared* shared) {
  const std::unique_lock lock(mutex_);
  if (!ended_) departures_.push_back({.worker = worker, .shared = shared});
  return !ended_;
}

std::vector<Departures::Departure> Departures::Take(bool last) {
  const std::unique_lock lock(mutex_);
  ended_ |= last;
  return std::exchange(departures_, {});
}

}  // namespace ringmaster::internal
