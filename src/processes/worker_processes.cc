#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "processes/group.h"
#include "processes/member.h"
#include "processes/shared.h"
#include "ringmaster/processes.h"

namespace ringmaster {

using internal::ProcessGroup;
using internal::ProcessMember;
using internal::ProcessShared;

// --- The parent's side ---------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<WorkerProcesses>> WorkerProcesses::Create(
    WorkerProcessesOptions options) {
  absl::StatusOr<std::unique_ptr<ProcessGroup>> group = ProcessGroup::Create(std::move(options));
  if (!group.ok()) return group.status();
  return std::unique_ptr<WorkerProcesses>(new WorkerProcesses(*std::move(group)));
}

WorkerProcesses::WorkerProcesses(std::unique_ptr<ProcessGroup> group) : group_(std::move(group)) {}

WorkerProcesses::~WorkerProcesses() = default;

absl::Status WorkerProcesses::AddListener(int listen_fd, uint64_t token) {
  return group_->AddListener(listen_fd, token);
}

absl::Status WorkerProcesses::Give(int fd, uint64_t token) {
  return group_->Give(fd, token, nullptr);
}

absl::Status WorkerProcesses::Give(int fd, uint64_t token, const Arrival& facts) {
  return group_->Give(fd, token, &facts);
}

absl::Status WorkerProcesses::AcceptAndGive(int listen_fd, uint64_t token) {
  return group_->AcceptAndGive(listen_fd, token);
}

absl::StatusOr<ProcessPort> WorkerProcesses::Join() {
  absl::StatusOr<std::shared_ptr<ProcessMember>> member = ProcessMember::Join(group_->shared());
  if (!member.ok()) return member.status();
  group_->CloseKeeper();
  return ProcessPort(*std::move(member));
}

std::string WorkerProcesses::Variable() const {
  return absl::StrCat(
      ProcessShared::kVariable, "=",
      group_->WithShared([](const ProcessShared& shared) { return shared.Variable(); }));
}

std::vector<int> WorkerProcesses::Descriptors() const {
  return group_->WithShared([](const ProcessShared& shared) {
    std::vector<int> descriptors;
    shared.ForEachDescriptor([&](int fd) { descriptors.push_back(fd); });
    return descriptors;
  });
}

void WorkerProcesses::KeepAcrossExec() const {
  if (getpid() == group_->shared()->parent()) return;
  group_->shared()->ForEachDescriptor([](int fd) { fcntl(fd, F_SETFD, 0); });
}

int WorkerProcesses::fd() const { return group_->fd(); }

void WorkerProcesses::RunOnce() { group_->RunOnce(); }

WorkerProcessesStats WorkerProcesses::Stats() const { return group_->Stats(); }

void WorkerProcesses::BeginShutdown() { group_->BeginShutdown(); }

// --- A worker's side -----------------------------------------------------------------------------

ProcessLease& ProcessLease::operator=(ProcessLease&& other) noexcept {
  if (this != &other) {
    Release();
    member_ = std::move(other.member_);
  }
  return *this;
}

void ProcessLease::Release() {
  if (member_ == nullptr) return;
  member_->Released();
  member_.reset();
}

ProcessConnection& ProcessConnection::operator=(ProcessConnection&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    token_ = other.token_;
    lease_ = std::move(other.lease_);
  }
  return *this;
}

ProcessConnection::~ProcessConnection() {
  if (fd_ >= 0) close(fd_);
}

ProcessPort::ProcessPort(std::shared_ptr<ProcessMember> member)
    : member_(std::move(member)), worker_(member_->worker()) {}

ProcessPort::ProcessPort(ProcessPort&& other) noexcept
    : member_(std::move(other.member_)), worker_(other.worker_) {}

ProcessPort& ProcessPort::operator=(ProcessPort&& other) noexcept {
  if (this != &other) {
    Leave();
    member_ = std::move(other.member_);
    worker_ = other.worker_;
  }
  return *this;
}

ProcessPort::~ProcessPort() { Leave(); }

absl::StatusOr<ProcessPort> ProcessPort::Inherit() {
  const char* const value = std::getenv(ProcessShared::kVariable);
  if (value == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        ProcessShared::kVariable,
        " is not set, so this program was not started as a worker: its parent must give it "
        "WorkerProcesses::Variable() in its environment; after a mere fork, call "
        "WorkerProcesses::Join"));
  }
  absl::StatusOr<std::shared_ptr<ProcessMember>> member = ProcessMember::Inherit(value);
  if (!member.ok()) return member.status();
  return ProcessPort(*std::move(member));
}

int ProcessPort::sight() const { return member_ == nullptr ? -1 : member_->sight(); }

bool ProcessPort::Claim(absl::FunctionRef<void(ProcessConnection)> serve, size_t connections_max) {
  return member_ != nullptr && member_->Claim(serve, connections_max);
}

void ProcessPort::BeforeWait() {
  if (member_ != nullptr) member_->BeforeWait();
}

bool ProcessPort::AfterWait(bool by_port) {
  return member_ != nullptr && member_->AfterWait(by_port);
}

void ProcessPort::Leave() {
  if (member_ == nullptr) return;
  member_->Leave();
  member_.reset();
}

bool ProcessPort::draining() const { return member_ == nullptr || member_->draining(); }

bool ProcessPort::parent_gone() const {
  return member_ != nullptr && member_->Mine() && member_->parent_gone();
}

bool ProcessPort::joined() const { return member_ != nullptr && member_->Mine(); }

}  // namespace ringmaster
