#include "ringmaster/balancer.h"

#include <cerrno>
#include <utility>

#include "ring/process.h"
#include "runtime/apart.h"
#include "runtime/lifeline.h"
#include "runtime/mailbox_shared.h"

namespace ringmaster {
namespace {

absl::Status NoBalancer() {
  return absl::FailedPreconditionError(
      "this Source belongs to no balancer: it must come from Balancer::AddSource");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Balancer>> Balancer::Create(BalancerOptions options) {
  absl::StatusOr<std::shared_ptr<internal::Lifeline>> lifeline;
  const absl::Status created = internal::RunApart([&] {
    lifeline = internal::Lifeline::Create(std::move(options));
    return lifeline.status();
  });
  if (!created.ok()) return created;
  return std::unique_ptr<Balancer>(new Balancer(*std::move(lifeline)));
}

Balancer::Balancer(std::shared_ptr<internal::Lifeline> lifeline) : lifeline_(std::move(lifeline)) {}

Balancer::~Balancer() { lifeline_->Close(); }

absl::StatusOr<Source> Balancer::AddSource(int fd, SourceOptions options) {
  const absl::StatusOr<internal::Lifeline::SourceId> id =
      lifeline_->AddSource(fd, std::move(options));
  if (!id.ok()) return id.status();
  Source source;
  source.lifeline_ = lifeline_;
  source.index_ = id->index;
  source.serial_ = id->serial;
  return source;
}

absl::StatusOr<Port> Balancer::AddWorker(WorkerOptions options) {
  const absl::StatusOr<internal::Lifeline::NewWorker> worker = lifeline_->AddWorker(options);
  if (!worker.ok()) return worker.status();
  Port port;
  port.lifeline_ = lifeline_;
  port.shared_ = worker->shared;
  port.worker_ = worker->index;
  return port;
}

absl::StatusOr<Port> Balancer::AddWorker(const Mailbox& mailbox, WorkerOptions options) {
  if (mailbox.shared_ == nullptr) {
    return absl::InvalidArgumentError(
        "the mailbox is empty: it was moved from, or not made by Mailbox::Create()");
  }
  if (options.ring_fd != -1 || options.tag != 0) {
    return absl::InvalidArgumentError(
        "the worker has a mailbox and a ring: leave ring_fd and tag alone, which the mailbox sets, "
        "or add the worker by its ring, without the mailbox");
  }
  if (options.handoff != Handoff::kInbox) {
    return absl::InvalidArgumentError(
        "a mailbox holds doorbells, not connections: leave handoff at kInbox, or add the worker by "
        "a ring of its own, whose completions carry the connections");
  }
  if (absl::Status status = mailbox.shared_->Occupy(); !status.ok()) return status;
  options.ring_fd = mailbox.fd();
  absl::StatusOr<Port> port = AddWorker(options);
  if (port.ok()) {
    port->shared_->mailbox = mailbox.shared_;
    mailbox.shared_->SetBalancer(port->shared_->balancer->id());
  } else {
    mailbox.shared_->Vacate();
  }
  return port;
}

void AfterForkInChild() {
  const int error = errno;
  ring::CloseDescriptorsOfOtherProcesses();
  errno = error;
}

int Balancer::fd() const { return lifeline_->fd(); }

absl::Status Balancer::Lend(RingLoan loan) { return lifeline_->Lend(std::move(loan)); }

bool Balancer::OnCompletion(const io_uring_cqe& cqe) { return lifeline_->OnCompletion(cqe); }

absl::Status Balancer::RunOnce() { return lifeline_->RunOnce(); }

ShutdownReport Balancer::Shutdown(absl::Duration drain) {
  return lifeline_->Shutdown({.drain = drain});
}

ShutdownReport Balancer::Shutdown(ShutdownOptions options) {
  return lifeline_->Shutdown(std::move(options));
}

absl::Status Balancer::BeginShutdown(ShutdownOptions options) {
  return lifeline_->BeginShutdown(std::move(options));
}

std::optional<ShutdownReport> Balancer::Ended() const { return lifeline_->Ended(); }

BalancerStats Balancer::Stats() const { return lifeline_->Stats(); }

absl::Status Source::Join(Port& port, JoinOptions options) {
  if (lifeline_ == nullptr) return NoBalancer();
  if (port.lifeline_ != lifeline_) {
    return absl::InvalidArgumentError(
        port.joined() ? "the port belongs to another balancer than the source"
                      : "the port has left or was never added: see Balancer::AddWorker");
  }
  return lifeline_->Join({index_, serial_}, port.worker_, port.shared_, options.token);
}

absl::Status Source::Leave(Port& port) {
  if (lifeline_ == nullptr) return NoBalancer();
  return lifeline_->Leave({index_, serial_}, port.worker_, port.shared_);
}

absl::Status Source::Again(int error) {
  return lifeline_ == nullptr ? NoBalancer() : lifeline_->Again({index_, serial_}, error);
}

absl::Status Source::Pause() {
  return lifeline_ == nullptr ? NoBalancer() : lifeline_->SetPaused({index_, serial_}, true);
}

absl::Status Source::Resume() {
  return lifeline_ == nullptr ? NoBalancer() : lifeline_->SetPaused({index_, serial_}, false);
}

absl::Status Source::SetPolicy(std::unique_ptr<Policy> policy) {
  if (lifeline_ == nullptr) return NoBalancer();
  if (policy == nullptr) return absl::InvalidArgumentError("the policy is null");
  return lifeline_->SetPolicy({index_, serial_}, std::move(policy));
}

absl::Status Source::Remove() {
  return lifeline_ == nullptr ? NoBalancer() : lifeline_->RemoveSource({index_, serial_});
}

}  // namespace ringmaster
