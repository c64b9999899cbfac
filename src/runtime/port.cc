#include "ringmaster/port.h"

#include <sched.h>
#include <unistd.h>

#include <utility>

#include "core/inbox.h"
#include "runtime/lifeline.h"
#include "runtime/mailbox_shared.h"
#include "runtime/shared.h"

namespace ringmaster {

namespace {

void NoteCpu(core::PortState& state) {
  if (const int cpu = sched_getcpu(); cpu != state.cpu.load(std::memory_order_relaxed)) {
    state.cpu.store(cpu, std::memory_order_relaxed);
  }
}

absl::Status NotJoined() {
  return absl::FailedPreconditionError(
      "the port has left or was never added: see Balancer::AddWorker");
}

}  // namespace

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
  NoteCpu(state);
  // Before Begin, and consumed at the end: runtime/mailbox_shared.h says why.
  internal::MailboxShared* const mailbox = shared_->mailbox.get();
  const uint32_t doorbells = mailbox == nullptr ? 0 : mailbox->Count();
  inbox.Begin();
  for (size_t claimed = 0; claimed < connections_max; ++claimed) {
    const uint64_t word = inbox.Take();
    if (word == 0) break;
    const core::Offer offer = core::Offer::FromWord(word);
    shared_->Ref();
    const uint64_t token = shared_->tokens[offer.source].load(std::memory_order_relaxed);
    serve(Connection(offer.fd, token, Lease(shared_)));
  }
  const bool left = inbox.Left();
  if (mailbox != nullptr) mailbox->Consume(doorbells, left);
  state.serving.store(0, std::memory_order_release);
  shared_->master->KnockIfHungry();
  return left;
}

void Port::Took(size_t count) {
  if (shared_ == nullptr) return;
  const core::Tally::Took took = shared_->tally.Take(count);
  if (took.count == 0) return;
  NoteCpu(shared_->state);
  if (took.places > 0) shared_->state.Release(took.places);
  shared_->master->KnockIfHungry();
}

Connection Port::Adopt(int fd, uint64_t token) {
  if (shared_ == nullptr) return Connection(fd, token, Lease());
  if (!shared_->tally.Lease()) shared_->state.Take();
  shared_->Ref();
  return Connection(fd, token, Lease(shared_));
}

absl::Status Port::SetCapacity(uint32_t capacity) {
  if (shared_ == nullptr) return NotJoined();
  return lifeline_->SetCapacity(worker_, shared_, capacity);
}

absl::Status Port::SetWindow(uint32_t window) {
  if (shared_ == nullptr) return NotJoined();
  return lifeline_->SetWindow(worker_, shared_, window);
}

void Port::Leave() {
  if (shared_ == nullptr) return;
  lifeline_->RemoveWorker(worker_, shared_);
  if (const auto mailbox = std::move(shared_->mailbox)) mailbox->GiveBack();
  lifeline_.reset();
  std::exchange(shared_, nullptr)->Unref();
}

}  // namespace ringmaster
