// A worker with coroutines (C++20) on an io_uring of its own.
//
//   ringmaster::Detached Accept(ringmaster::AwaitablePort& port) {
//     while (auto connection = co_await port.Next()) Serve(port, *std::move(connection));
//   }
//   …
//   auto added = balancer.AddWorker({.ring_fd = ring.ring_fd, .tag = kDoorbell});
//   …                                                         // source.Join(*added)
//   ringmaster::AwaitablePort port(*std::move(added), ring, kDoorbell);
//   Accept(port);
//   while (!port.port().ended() || …) port.Turn();
// A program that has coroutines needs Next, and in its loop Wait and OnCompletion.

#ifndef RINGMASTER_ADAPTERS_COROUTINE_H_
#define RINGMASTER_ADAPTERS_COROUTINE_H_

#include <liburing.h>

#include <coroutine>
#include <cstdint>
#include <exception>
#include <optional>
#include <utility>

#include "ringmaster/port.h"

namespace ringmaster {

// What a coroutine returns that runs by itself: nobody waits for it.
struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

// A request of the ring. Prepare its entry, then co_await it: that is `res` of its completion.
// AwaitablePort::Turn knows it by the user_data, which is its address.
struct AwaitableRequest {
  io_uring_sqe* sqe = nullptr;
  int result = 0;
  std::coroutine_handle<> waiter = nullptr;

  // What co_await asks for: it waits in any case, and is resumed with `res`.
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> suspended) {
    waiter = suspended;
    io_uring_sqe_set_data(sqe, this);
  }
  int await_resume() const { return result; }
};

// A port whose connections a coroutine waits for. It belongs to the thread of the ring. It owns the
// port, and must outlive the coroutines that use it.
class AwaitablePort {
 public:
  // `port` was added with `ring` and with `tag`, which no other completion has as user_data.
  AwaitablePort(Port port, io_uring& ring, uint64_t tag)
      : port_(std::move(port)), ring_(&ring), tag_(tag) {}
  AwaitablePort(const AwaitablePort&) = delete;
  AwaitablePort& operator=(const AwaitablePort&) = delete;

  // For Port::draining, Port::ToPassOn and so on.
  Port& port() { return port_; }

  // The next connection; nothing, once the balancer has ended or the port has left. What nobody
  // asks for can be recalled and served by others. One coroutine may wait at a time.
  auto Next() {
    class Awaiter {
     public:
      bool await_ready() { return port.Take(); }
      void await_suspend(std::coroutine_handle<> waiter) { port.waiter_ = waiter; }
      std::optional<Connection> await_resume() { return std::exchange(port.taken_, std::nullopt); }
      AwaitablePort& port;
    };
    return Awaiter{*this};
  }

  // Submits, and waits for a completion, for `timeout` at most. It gives the hints of the port.
  // Returns what io_uring_submit_and_wait_timeout does, so -ETIME when nothing has come.
  int Wait(__kernel_timespec* timeout = nullptr) {
    io_uring_cqe* first = nullptr;
    const bool waits = io_uring_cq_ready(ring_) == 0;
    if (waits) port_.BeforeWait();
    const int result = io_uring_submit_and_wait_timeout(ring_, &first, 1, timeout, nullptr);
    if (waits && port_.AfterWait()) Resume();
    return result;
  }

  // To be asked about each completion. Whether it was the port's; then whoever waits may go on.
  bool OnCompletion(const io_uring_cqe& cqe) {
    if (cqe.user_data != tag_) return false;
    Resume();
    return true;
  }

  // A free entry of the submission queue. It submits what is there when the queue is full.
  io_uring_sqe* Entry() {
    io_uring_sqe* entry = nullptr;
    while ((entry = io_uring_get_sqe(ring_)) == nullptr) io_uring_submit(ring_);
    return entry;
  }

  // Waits, then resumes whose requests are completed. For a ring that has no others beside the
  // port.
  int Turn(__kernel_timespec* timeout = nullptr) {
    const int result = Wait(timeout);
    for (io_uring_cqe* next = nullptr; io_uring_peek_cqe(ring_, &next) == 0;) {
      const io_uring_cqe cqe = *next;
      io_uring_cqe_seen(ring_, next);
      if (OnCompletion(cqe)) continue;
      auto* const request = static_cast<AwaitableRequest*>(io_uring_cqe_get_data(&cqe));
      request->result = cqe.res;
      request->waiter.resume();
    }
    return result;
  }

  // Leaves the balancer. Whoever waits in Next is told.
  void Leave() {
    port_.Leave();
    Resume();
  }

 private:
  // Whether there is something to tell. At most one connection is claimed, so that others can still
  // have the rest. If one came behind a claim that found nothing, no doorbell announces it.
  bool Take() {
    const auto take = [this](Connection connection) { taken_ = std::move(connection); };
    while (port_.Claim(take, 1) && !taken_.has_value()) continue;
    return taken_.has_value() || port_.ended();
  }
  void Resume() {
    if (waiter_ != nullptr && Take()) std::exchange(waiter_, nullptr).resume();
  }

  Port port_;
  io_uring* ring_;
  uint64_t tag_;
  std::coroutine_handle<> waiter_ = nullptr;
  std::optional<Connection> taken_;
};

}  // namespace ringmaster

#endif  // RINGMASTER_ADAPTERS_COROUTINE_H_
