#include "ringmaster/balancer.h"

#include <cerrno>
#include <utility>

#include "ring/process.h"
#include "runtime/apart.h"
#include "runtime/balancer_impl.h"
#include "runtime/mailbox_shared.h"

namespace ringmaster {
namespace {

absl::Status NoBalancer() {
  return absl::FailedPreconditionError(
      "this Source belongs to no balancer: it must come from Balancer::AddSource");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Balancer>> Balancer::Create(BalancerOptions options) {
  absl::StatusOr<std::shared_ptr<internal::BalancerImpl>> impl;
  const absl::Status created = internal::RunApart([&] {
    impl = internal::BalancerImpl::Create(std::move(options));
    return impl.status();
  });
  if (!created.ok()) return created;
  return std::unique_ptr<Balancer>(new Balancer(*std::move(impl)));
}

Balancer::Balancer(std::shared_ptr<internal::BalancerImpl> impl) : impl_(std::move(impl)) {}

Balancer::~Balancer() { impl_->Close(); }

absl::StatusOr<Source> Balancer::AddSource(int fd, SourceOptions options) {
  const absl::StatusOr<internal::BalancerImpl::AddedSource> added =
      impl_->AddSource(fd, std::move(options));
  if (!added.ok()) return added.status();
  Source source;
  source.balancer_ = impl_;
  source.master_ = added->master;
  source.index_ = added->master->PublicIndex(added->key);
  source.index_at_master_ = added->key.index;
  source.serial_ = added->key.serial;
  source.number_ = added->number;
  return source;
}

absl::StatusOr<Port> Balancer::AddWorker(WorkerOptions options) {
  const absl::StatusOr<internal::BalancerImpl::AddedWorker> worker = impl_->AddWorker(options);
  if (!worker.ok()) return worker.status();
  Port port;
  port.balancer_ = impl_;
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
  options.ring_fd = mailbox.shared_->ring_fd();
  absl::StatusOr<Port> port = AddWorker(options);
  if (!port.ok()) {
    mailbox.shared_->Vacate();
    return port;
  }
  port->shared_->mailbox = mailbox.shared_;
  mailbox.shared_->SetBalancer(port->shared_->balancer->id());
  if (const absl::StatusOr<int> sight = port->WatchSight(); !sight.ok()) return sight.status();
  return port;
}

void AfterForkInChild() {
  const int error = errno;
  ring::CloseDescriptorsOfOtherProcesses();
  errno = error;
}

int Balancer::fd() const { return impl_->first_master().fd(); }

absl::Status Balancer::Lend(RingLoan loan) { return impl_->first_master().Lend(std::move(loan)); }

bool Balancer::OnCompletion(const io_uring_cqe& cqe) {
  return impl_->first_master().OnCompletion(cqe);
}

absl::Status Balancer::RunOnce() { return impl_->first_master().RunOnce(); }

ShutdownReport Balancer::Shutdown(absl::Duration drain) { return Shutdown({.drain = drain}); }

ShutdownReport Balancer::Shutdown(ShutdownOptions options) {
  return impl_->Shutdown(std::move(options));
}

absl::Status Balancer::BeginShutdown(ShutdownOptions options) {
  return impl_->BeginShutdown(std::move(options));
}

std::optional<ShutdownReport> Balancer::Ended() const { return impl_->Ended(); }

BalancerStats Balancer::Stats() const { return impl_->Stats(); }

internal::SourceKey Source::key() const { return {.index = index_at_master_, .serial = serial_}; }

absl::Status Source::Join(Port& port, JoinOptions options) {
  if (master_ == nullptr) return NoBalancer();
  if (port.balancer_ != balancer_) {
    return absl::InvalidArgumentError(
        port.joined() ? "the port belongs to another balancer than the source"
                      : "the port has left or was never added: see Balancer::AddWorker");
  }
  if (absl::Status status = balancer_->CheckOpen(number_); !status.ok()) return status;
  return master_->Join(key(), port.worker_, port.shared_, options.token);
}

absl::Status Source::Leave(Port& port) {
  return master_ == nullptr ? NoBalancer() : master_->Leave(key(), port.worker_, port.shared_);
}

absl::Status Source::Again(int error) {
  return master_ == nullptr ? NoBalancer() : master_->GiveBack(key(), error);
}

absl::Status Source::PassOn(Connection&& connection, PassOnOptions options) {
  absl::Status passed_on = PassOn(connection.fd_, std::move(connection.lease_), options);
  if (passed_on.ok()) connection.fd_ = -1;
  return passed_on;
}

absl::Status Source::PassOn(int fd, Lease&& lease, PassOnOptions options) {
  if (master_ == nullptr) return NoBalancer();
  if (fd < 0 || !lease.held()) {
    return absl::InvalidArgumentError(
        "there is no open connection: it needs a descriptor and the lease by which it counts as "
        "open (see Port::Adopt)");
  }
  absl::Status passed_on = master_->PassOn(key(), fd, lease.shared_, lease.gate_, options);
  if (passed_on.ok()) std::exchange(lease.shared_, nullptr)->Unref();
  return passed_on;
}

absl::Status Source::Pause() {
  return master_ == nullptr ? NoBalancer() : master_->SetPaused(key(), true);
}

absl::Status Source::Resume() {
  return master_ == nullptr ? NoBalancer() : master_->SetPaused(key(), false);
}

absl::Status Source::SetPolicy(std::unique_ptr<Policy> policy) {
  if (master_ == nullptr) return NoBalancer();
  if (policy == nullptr) return absl::InvalidArgumentError("the policy is null");
  return master_->SetPolicy(key(), std::move(policy));
}

absl::Status Source::Remove() {
  if (master_ == nullptr) return NoBalancer();
  return balancer_->RemoveSource({.master = master_, .key = key(), .number = number_});
}

}  // namespace ringmaster
