#include "runtime/roster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace ringmaster::internal {

Redeemers::~Redeemers() {
  for (PortShared* const shared : held_) shared->Unref();
}

void Redeemers::Add(PortShared* shared) {
  if (shared == nullptr) return;
  shared->Ref();
  held_.push_back(shared);
}

void Redeemers::Wait() const {
  for (const PortShared* const shared : held_) shared->WaitForRedeemers();
}

Roster::~Roster() {
  for (const WorkerEntry& worker : workers_) {
    if (worker.shared != nullptr) worker.shared->Unref();  // the indexes end with the balancer
  }
  for (PortShared* const holder : ticket_holders_) holder->Unref();
}

absl::Status Roster::Check(SourceKey source) const {
  if (source.index < sources_.size() && sources_[source.index].used &&
      sources_[source.index].serial == source.serial) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat("source ", PublicIndex(source.index),
                                                    " was removed: add it again with AddSource"));
}

absl::Status Roster::Check(uint32_t worker, const PortShared* shared) const {
  if (Has(worker, shared)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "the port belongs to no worker of this balancer: see Balancer::AddWorker");
}

void Roster::AddSource(uint32_t index, const SourceEntry& source) {
  if (index >= sources_.size()) sources_.resize(index + 1);
  had_tickets_ |= source.tickets;
  may_have_permits_ |= source.may_be_aimed;
  sources_[index] = source;
}

void Roster::AddWorker(uint32_t index, WorkerEntry worker) {
  if (index >= workers_.size()) workers_.resize(index + 1);
  worker.shared->Ref();
  worker.shared->EnterBooks();
  workers_[index] = std::move(worker);
}

void Roster::AddTo(Redeemers& redeemers) const {
  for (const WorkerEntry& worker : workers_) redeemers.Add(worker.shared);
}

void Roster::Release(uint32_t index, const core::Engine& engine) {
  const core::WorkerCount& count = engine.ledger().worker(index);
  departed_.assigned += count.assigned + engine.ByPermit(index);
  departed_.claimed += count.claimed + engine.ByPermit(index);
  departed_.by_permit += engine.ByPermit(index);
  departed_.recalled += count.recalled;
  departed_.doorbells += engine.doorbells(index);
  departed_.stalls += engine.stalls(index);
  departed_.table_full += engine.table_fulls(index);
  std::erase_if(ticket_holders_, [](PortShared* holder) {
    const bool done = holder->tickets.load(std::memory_order_acquire) == 0;
    if (done) holder->Unref();
    return done;
  });
  if (had_tickets_) {
    workers_[index].shared->Ref();
    ticket_holders_.push_back(workers_[index].shared);
  }
  Forget(index);
}

void Roster::Forget(uint32_t index) {
  WorkerEntry worker = std::exchange(workers_[index], {});
  if (worker.ring_fd.get() >= 0) rings_to_close_.push_back(std::move(worker.ring_fd));
  if (worker.sight.get() >= 0) rings_to_close_.push_back(std::move(worker.sight));
  worker.shared->KeepRing(master_);
  worker.shared->LeaveBooks(index);
  worker.shared->Unref();
}

void Roster::CloseAllRingsSoon() {
  for (WorkerEntry& worker : workers_) {
    if (worker.ring_fd.get() >= 0) rings_to_close_.push_back(std::move(worker.ring_fd));
  }
}

bool Roster::TicketsOut() const {
  const auto redeems = [](const WorkerEntry& worker) {
    return worker.shared != nullptr &&
           worker.shared->state.redeeming.load(std::memory_order_seq_cst) != 0;
  };
  if (may_have_permits_ && std::any_of(workers_.begin(), workers_.end(), redeems)) return true;
  if (!had_tickets_) return false;
  const auto holds = [](const PortShared* worker) {
    return worker != nullptr && (worker->state.serving.load(std::memory_order_seq_cst) != 0 ||
                                 worker->tickets.load(std::memory_order_seq_cst) != 0);
  };
  return std::any_of(workers_.begin(), workers_.end(),
                     [&](const WorkerEntry& worker) { return holds(worker.shared); }) ||
         std::any_of(ticket_holders_.begin(), ticket_holders_.end(), holds);
}

uint64_t Roster::Open() const {
  uint64_t open = 0;
  for (const WorkerEntry& worker : workers_) {
    if (worker.shared != nullptr) open += worker.shared->state.open.load();
  }
  return open;
}

}  // namespace ringmaster::internal
