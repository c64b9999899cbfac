#include "ringmaster/port.h"

#include <sched.h>
#include <unistd.h>

#include <utility>

#include "core/inbox.h"
#include "runtime/lifeline.h"
#include "runtime/shared.h"

namespace ringmaster {

void Lease::Release() {
  internal::PortShared* shared = std::exchange(shared_, nullptr);
  if (shared == nullptr) return;
  shared->state.Release();
  shared->master->KnockIfHungry();
  shared->Unref();
}

Connection& Connection::operator=(Connection&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    token_ = other.token_;
    lease_ = std::move(other.lease_);
  }
  return *this;
}

Connection::~Connection() {
  if (fd_ >= 0) close(fd_);
}

Port::Port(Port&& other) noexcept
    : shared_(std::exchange(other.shared_, nullptr)),
      lifeline_(std::move(other.lifeline_)),
      worker_(other.worker_) {}

Port& Port::operator=(Port&& other) noexcept {
  if (this != &other) {
    Leave();
    shared_ = std::exchange(other.shared_, nullptr);
    lifeline_ = std::move(other.lifeline_);
    worker_ = other.worker_;
  }
  return *this;
}

Port::~Port() { Leave(); }

bool Port::Claim(absl::FunctionRef<void(Connection)> serve, size_t connections_max) {
  if (shared_ == nullptr) return false;
  core::PortState& state = shared_->state;
  core::Inbox& inbox = shared_->inbox;
  state.serving.store(1, std::memory_order_relaxed);
  if (const int cpu = sched_getcpu(); cpu != state.cpu.load(std::memory_order_relaxed)) {
    state.cpu.store(cpu, std::memory_order_relaxed);
  }
  inbox.Begin();
  for (size_t claimed = 0; claimed < connections_max; ++claimed) {
    const uint64_t word = inbox.Take();
    if (word == 0) break;
    const core::Offer offer = core::Offer::FromWord(word);
    shared_->Ref();
    serve(Connection(offer.fd, shared_->tokens[offer.source], Lease(shared_)));
  }
  const bool left = inbox.Left();
  state.serving.store(0, std::memory_order_relaxed);
  shared_->master->KnockIfHungry();
  return left;
}

void Port::Leave() {
  if (shared_ == nullptr) return;
  lifeline_->RemoveWorker(worker_, shared_);
  lifeline_.reset();
  std::exchange(shared_, nullptr)->Unref();
}

}  // namespace ringmaster
