#include "processes/group.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "processes/epoll_kernel.h"
#include "ring/quiet_thread.h"

namespace ringmaster::internal {
namespace {

using processes::EpollKernel;
using processes::kNone;
using processes::kSourcesMax;
using processes::kWorkersMax;
using processes::Mode;
using processes::Source;
using processes::Worker;

// A source that could not be aimed is tried again after this.
constexpr int64_t kLeftMs = 1'000;
// So many looks in vain, and every worker is shown what waits.
constexpr uint32_t kStillMax = 3;
// While connections come, a worker that has accepted none for so long is woken by the next one, and
// puts right what stands in the area of it. What somebody has written there may be why.
constexpr int64_t kAskMs = 1'000;
// Where the keeper itself has found nonsense, it asks so often for so long.
constexpr int64_t kAskInDoubtMs = 20;
constexpr int64_t kDoubtMs = 3'000;

// Whose lock is held over each fork of this process.
class HeldOverForks {
 public:
  static void Add(std::mutex* mutex) {
    static const int registered = pthread_atfork(Lock, Unlock, Unlock);
    static_cast<void>(registered);
    const std::lock_guard lock(self().mutex_);
    self().all_.push_back(mutex);
  }
  static void Remove(std::mutex* mutex) {
    const std::lock_guard lock(self().mutex_);
    std::erase(self().all_, mutex);
  }

 private:
  static HeldOverForks& self() {
    static auto* const it = new HeldOverForks;
    return *it;
  }
  static void Lock() {
    self().mutex_.lock();
    for (std::mutex* const mutex : self().all_) mutex->lock();
  }
  static void Unlock() {
    for (std::mutex* const mutex : self().all_) mutex->unlock();
    self().mutex_.unlock();
  }

  std::mutex mutex_;
  std::vector<std::mutex*> all_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Create(WorkerProcessesOptions options) {
  const absl::StatusOr<processes::PolicyChoice> choice = processes::ChoiceByName(options.policy);
  if (!choice.ok()) return choice.status();
  std::unique_ptr<ProcessGroup> group(new ProcessGroup(std::move(options)));
  if (absl::Status status = group->CheckOptions(); !status.ok()) return status;
  if (absl::Status status = group->SetUp(*choice); !status.ok()) return status;
  return group;
}

absl::Status ProcessGroup::CheckOptions() const {
  if (options_.workers_max == 0 || options_.workers_max > kWorkersMax) {
    return absl::InvalidArgumentError(absl::StrCat("workers_max is ", options_.workers_max,
                                                   ": it must be from 1 to ", kWorkersMax));
  }
  if (options_.thread_name.size() > 15) {
    return absl::InvalidArgumentError(
        absl::StrCat("thread_name \"", options_.thread_name, "\" has more than 15 characters"));
  }
  if (options_.given_max > processes::kLyingMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "given_max is ", options_.given_max, ": it must be from 0 to ", processes::kLyingMax));
  }
  if (options_.given_max == 0 && options_.give_policy != nullptr) {
    return absl::InvalidArgumentError(
        "there is a give_policy, and given_max is 0, so nothing is given: set given_max");
  }
  return absl::OkStatus();
}

absl::Status ProcessGroup::SetUp(const processes::PolicyChoice& choice) {
  absl::StatusOr<std::shared_ptr<ProcessShared>> shared =
      ProcessShared::Create(choice, options_.workers_max);
  if (!shared.ok()) return shared.status();
  shared_ = *std::move(shared);
  keeper_ = std::make_unique<processes::Keeper>(shared_->area(), shared_->descriptors(),
                                                MakePolicy(choice),
                                                static_cast<processes::KeeperEvents&>(*this));
  if (absl::Status status = keeper_->SetUp(); !status.ok()) return status;
  if (options_.given_max > 0) {
    std::unique_ptr<Policy> policy = std::move(options_.give_policy);
    if (policy == nullptr) policy = MakePolicy(choice);
    policy->Prepare(kWorkersMax);
    handing_ = std::make_unique<Handing>(
        *shared_, *keeper_, std::move(policy),
        Handing::Limits{.lying = options_.given_max, .held = options_.held_max});
    if (absl::Status status = handing_->SetUp(); !status.ok()) return status;
    HeldOverForks::Add(&mutex_);
  }
  return options_.own_thread ? StartThread() : absl::OkStatus();
}

ProcessGroup::~ProcessGroup() {
  if (shared_ == nullptr) return;
  // A child has neither the thread nor, perhaps, the mutex.
  if (InParent() && keeper_ != nullptr) {
    BeginShutdown();
    if (has_thread_) {
      const uint64_t one = 1;
      [[maybe_unused]] const ssize_t written = write(stop_, &one, sizeof(one));
      pthread_join(thread_, nullptr);
    }
    SayEnd();
  }
  CloseKeeper();
}

void ProcessGroup::CloseKeeper() {
  if (handing_ != nullptr) HeldOverForks::Remove(&mutex_);
  handing_.reset();
  keeper_.reset();
  if (stop_ >= 0) close(std::exchange(stop_, -1));
}

bool ProcessGroup::InParent() const { return getpid() == shared_->parent(); }

absl::Status ProcessGroup::StartThread() {
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (stop_ < 0) return processes::CannotMake("an eventfd for the keeper's thread");
  const auto run = [](void* self) -> void* {
    static_cast<ProcessGroup*>(self)->Drive();
    return nullptr;
  };
  const int error = ring::StartQuietThread(thread_, options_.thread_name.c_str(), run, this);
  if (error != 0) {
    return absl::ErrnoToStatus(error,
                               "cannot start the keeper's thread: raise the limit of processes "
                               "(ulimit -u), or drive it yourself (own_thread = false)");
  }
  has_thread_ = true;
  return absl::OkStatus();
}

void ProcessGroup::Drive() {
  while (true) {
    std::array<pollfd, 2> fds = {pollfd{.fd = keeper_->fd(), .events = POLLIN, .revents = 0},
                                 pollfd{.fd = stop_, .events = POLLIN, .revents = 0}};
    poll(fds.data(), fds.size(), -1);
    if (fds[1].revents != 0) return;
    const std::lock_guard lock(mutex_);
    keeper_->RunOnce();
  }
}

// --- Calls ---------------------------------------------------------------------------------------

absl::Status ProcessGroup::AddListener(int listen_fd, uint64_t token) {
  if (!InParent()) {
    return absl::FailedPreconditionError(
        "AddListener was called in a child, whose descriptors nobody else has: call it in the "
        "parent, before fork");
  }
  const std::lock_guard lock(mutex_);
  if (ended_) {
    return absl::FailedPreconditionError("BeginShutdown was called: nothing is accepted any more");
  }
  if (absl::Status status = shared_->Add(listen_fd, token); !status.ok()) return status;
  keeper_->Begin(shared_->sources() - 1);
  return absl::OkStatus();
}

absl::Status ProcessGroup::WhyNotGiven() const {
  if (options_.given_max == 0) {
    return absl::FailedPreconditionError(
        "given_max is 0, so there is nothing by which workers get what is given: set "
        "WorkerProcessesOptions::given_max");
  }
  if (!InParent()) {
    return absl::FailedPreconditionError("this is a child, and only the parent gives connections");
  }
  return absl::OkStatus();
}

absl::Status ProcessGroup::Give(int fd, uint64_t token, const Arrival* facts) {
  if (absl::Status status = WhyNotGiven(); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  if (ended_) {
    return absl::FailedPreconditionError("BeginShutdown was called: nothing is given any more");
  }
  return handing_->Give(fd, token, facts);
}

absl::Status ProcessGroup::AcceptAndGive(int listen_fd, uint64_t token) {
  if (absl::Status status = WhyNotGiven(); !status.ok()) return status;
  const std::lock_guard lock(mutex_);
  if (ended_) {
    return absl::FailedPreconditionError("BeginShutdown was called: nothing is accepted any more");
  }
  return handing_->AddListener(listen_fd, token);
}

void ProcessGroup::RunOnce() {
  if (!InParent() || has_thread_) return;
  const std::lock_guard lock(mutex_);
  keeper_->RunOnce();
}

WorkerProcessesStats ProcessGroup::Stats() {
  WorkerProcessesStats stats;
  if (!InParent()) return stats;
  const std::lock_guard lock(mutex_);
  for (uint32_t i = 0; i < shared_->workers_max(); ++i) {
    WorkerProcessStats worker = workers_[i];
    if (worker.pid == 0) continue;
    if (worker.lives) {
      worker.accepted = shared_->area().workers[i].accepted.load();
      worker.open = shared_->area().workers[i].open.load();
      worker.given = shared_->area().workers[i].taken.load();
      if (handing_ != nullptr) worker.unclaimed = handing_->LyingWith(i);
    }
    stats.workers.push_back(worker);
  }
  stats.gone = gone_;
  stats.gone_accepted = gone_accepted_;
  stats.gone_open = gone_open_;
  if (handing_ != nullptr) {
    stats.given = handing_->counts().given;
    stats.taken_back = handing_->counts().taken_back;
    stats.held = handing_->held();
  }
  return stats;
}

void ProcessGroup::BeginShutdown() {
  if (!InParent()) return;
  const std::lock_guard lock(mutex_);
  if (std::exchange(ended_, true)) return;
  for (uint32_t i = 0; i < shared_->sources(); ++i) {
    Source& source = shared_->area().sources[i];
    source.mode.store(Mode::kFree);
    // Whoever holds the desk makes one more step at most.
    uint64_t held = 0;
    source.word.Depose(source.word.Read(), held);
    keeper_->End(i);
  }
  shared_->CloseListeners();
  if (handing_ != nullptr) {
    handing_->StopAccepting();
    if (!handing_->Settle()) return;
  }
  SayEnd();
}

void ProcessGroup::SayEnd() {
  if (std::exchange(said_end_, true)) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(shared_->end(), &one, sizeof(one));
}

// --- The keeper ----------------------------------------------------------------------------------

bool ProcessGroup::IsOwner(uint32_t worker, uint64_t owner) const {
  return worker < shared_->workers_max() && shared_->IsOwner(owner);
}

bool ProcessGroup::IsAimed(uint32_t source, Mode) const {
  return !ended_ && left_until_ms_[source] == 0;
}

void ProcessGroup::OnCame(uint32_t worker, pid_t pid) {
  workers_[worker] = {.pid = pid, .lives = true};
}

void ProcessGroup::OnGone(uint32_t index) {
  const Worker& worker = shared_->area().workers[index];
  workers_[index].accepted = worker.accepted.load();
  workers_[index].open = worker.open.load();
  workers_[index].given = worker.taken.load();
  workers_[index].lives = false;
  ++gone_;
  gone_accepted_ += workers_[index].accepted;
  gone_open_ += workers_[index].open;
  if (handing_ != nullptr) handing_->OnGone(index);
}

void ProcessGroup::OnBell() {
  if (handing_ != nullptr) handing_->OnBell();
}

void ProcessGroup::OnReady(uint32_t number) {
  if (handing_ != nullptr) handing_->OnReady(number);
}

void ProcessGroup::OnLeft(uint32_t source) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  left_until_ms_[source] = int64_t{now.tv_sec} * 1'000 + now.tv_nsec / 1'000'000 + kLeftMs;
}

// What only this process decides, and is something else now, a worker has written that is broken.
int ProcessGroup::OnLook(int64_t now_ms) {
  int wait_ms = -1;
  if (handing_ != nullptr) {
    wait_ms = handing_->OnLook(now_ms);
    if (ended_ && !said_end_ && handing_->Settle()) SayEnd();
  }
  if (ended_) return wait_ms;
  for (uint32_t i = 0; i < shared_->sources(); ++i) {
    HealWorkers(i);
    HealMode(i, now_ms);
    if (left_until_ms_[i] == 0) continue;
    const auto left_ms = static_cast<int>(left_until_ms_[i] - now_ms);
    wait_ms = wait_ms < 0 ? left_ms : std::min(wait_ms, left_ms);
  }
  AskWorkers(now_ms);
  return wait_ms;
}

void ProcessGroup::AskWorkers(int64_t now_ms) {
  if (std::exchange(nonsense_, false)) doubts_until_ms_ = now_ms + kDoubtMs;
  if (now_ms - asked_at_ms_ < (now_ms < doubts_until_ms_ ? kAskInDoubtMs : kAskMs)) return;
  asked_at_ms_ = now_ms;
  for (uint32_t i = 0; i < shared_->workers_max(); ++i) {
    const uint64_t accepted = shared_->area().workers[i].accepted.load();
    if (std::exchange(accepted_[i], accepted) != accepted) continue;
    for (uint32_t source = 0; source < shared_->sources(); ++source) Show(i, source);
    if (handing_ != nullptr) handing_->Ask(i);
  }
}

// A worker that was forked before a listener was added does not have it, and could not take it out
// of its sight.
bool ProcessGroup::HasSource(uint32_t worker, uint32_t source) const {
  const uint64_t owner = keeper_->OwnerOf(worker);
  return owner != 0 && source < ProcessShared::SourcesOf(owner);
}

void ProcessGroup::HealMode(uint32_t source, int64_t now_ms) {
  std::atomic<Mode>& mode = shared_->area().sources[source].mode;
  const Mode found = mode.load();
  if (left_until_ms_[source] != 0) {
    if (now_ms < left_until_ms_[source]) {
      if (found != Mode::kLeft) mode.store(Mode::kLeft);
      return;
    }
    left_until_ms_[source] = 0;
    keeper_->Begin(source);
  } else if (found == Mode::kAimed) {
    return;
  } else if (found == Mode::kLeft) {
    keeper_->Abandon(source);
    return;
  } else {
    nonsense_ = true;
  }
  mode.store(Mode::kAimed);
  keeper_->Repair(source);
}

void ProcessGroup::HealWorkers(uint32_t source) {
  processes::Area& area = shared_->area();
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    if (HasSource(i, source)) {
      std::atomic<uint32_t>& sight = area.workers[i].of_source[source].sight;
      if (sight.load() != i) {
        sight.store(i);
        nonsense_ = true;
      }
      continue;
    }
    // Whoever joins says first whose the number is.
    std::atomic<uint64_t>& joined = area.sources[source].joined;
    const bool nobodys = keeper_->OwnerOf(i) != 0 || area.workers[i].owner.load() == 0;
    if ((joined.load() >> i & 1) != 0 && nobodys) {
      joined.fetch_and(~(uint64_t{1} << i));
      nonsense_ = true;
    }
  }
}

// The permits do not lead anywhere. So everybody is shown what waits, by the kernel alone, and who
// is woken puts right what it knows (ProcessMember::Heal).
void ProcessGroup::OnStill(uint32_t source, uint32_t looks) {
  for (uint32_t i = 0; looks >= kStillMax && i < shared_->workers_max(); ++i) Show(i, source);
}

// Rule "stray" of processes/desk.h says what becomes of it.
void ProcessGroup::Show(uint32_t worker, uint32_t source) {
  if (!HasSource(worker, source)) return;
  EpollKernel(shared_->descriptors(), source).Show(worker, /*asleep=*/false);
}

}  // namespace ringmaster::internal
