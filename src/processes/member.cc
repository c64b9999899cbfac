#include "processes/member.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "processes/chute.h"
#include "processes/desk.h"
#include "processes/epoll_kernel.h"

namespace ringmaster::internal {
namespace {

using processes::EpollKernel;
using processes::kNone;
using processes::kSightsMax;
using processes::kSourcesMax;
using processes::Mode;
using processes::Pair;
using processes::Source;
using processes::Worker;

// So long a worker waits for a place, for the keeper to have heard of whoever had it.
constexpr int64_t kPlaceNs = 1'000'000'000;
// So many wake-ups in a row without a permit, each within kVainNs of the one before, and the worker
// accepts as it would without us.
constexpr uint32_t kVainMax = 8;
constexpr int64_t kVainNs = 200'000'000;
// So often one Claim looks at the sight, and so many accepts may fail in it.
constexpr int kLooksMax = 4;
constexpr int kFailuresMax = 16;
// Without descriptors it tries again after this.
constexpr int64_t kStandsBackNs = 10'000'000;

// Of this process; 0: none so far. A forked child sees its parent's number.
std::atomic<pid_t> joined_process{0};

int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

bool Readable(int fd, int timeout_ms = 0) {
  pollfd one{.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&one, 1, timeout_ms) == 1 && (one.revents & POLLIN) != 0;
}

}  // namespace

// --- Join and leave ------------------------------------------------------------------------------

ProcessMember::ProcessMember(std::shared_ptr<ProcessShared> shared)
    : shared_(std::move(shared)), pid_(getpid()), policy_(MakePolicy(shared_->choice())) {}

bool ProcessMember::Mine() const { return !left_ && getpid() == pid_; }

absl::StatusOr<std::shared_ptr<ProcessMember>> ProcessMember::Inherit(const std::string& value) {
  if (joined_process.load() != 0) {
    return absl::FailedPreconditionError(
        "this process, or one that it was forked from, has joined before: Inherit is for a program "
        "that exec has started");
  }
  absl::StatusOr<std::shared_ptr<ProcessShared>> shared = ProcessShared::FromVariable(value);
  if (!shared.ok()) return shared.status();
  absl::StatusOr<std::shared_ptr<ProcessMember>> member = Join(*shared);
  if (member.ok()) {
    (*shared)->CloseOnExec();
  } else {
    // They are somebody else's, or it is called again.
    (*shared)->Forget();
  }
  return member;
}

absl::StatusOr<std::shared_ptr<ProcessMember>> ProcessMember::Join(
    std::shared_ptr<ProcessShared> shared) {
  if (getpid() == shared->parent()) {
    return absl::FailedPreconditionError(
        "Join was called in the parent, whose part is to look after the workers: call it in a "
        "child, after fork");
  }
  if (joined_process.load() == getpid()) {
    return absl::FailedPreconditionError(
        "this process has joined before, and a process joins once: go on with that port, or start "
        "another process");
  }
  if (shared->sources() == 0 && !shared->has_chutes()) {
    return absl::FailedPreconditionError(
        "there is nothing to serve: call AddListener before the fork of this process, or set "
        "given_max");
  }
  if (absl::Status status = shared->Check(); !status.ok()) return status;
  std::shared_ptr<ProcessMember> member(new ProcessMember(std::move(shared)));
  if (absl::Status status = member->TakePlace(); !status.ok()) {
    member->left_ = true;
    return status;
  }
  joined_process.store(member->pid_);
  member->Enter();
  return member;
}

bool ProcessMember::TryPlace() {
  for (uint32_t i = 0; i < shared_->workers_max(); ++i) {
    std::atomic<uint64_t>& owner = area().workers[i].owner;
    uint64_t found = owner.load();
    // It may be its own already, from before exec.
    if (found == owner_ || (found == 0 && owner.compare_exchange_strong(found, owner_))) {
      worker_ = i;
      return true;
    }
  }
  return false;
}

absl::Status ProcessMember::TakePlace() {
  const int64_t until_ns = NowNs() + kPlaceNs;
  owner_ = shared_->OwnerOf(pid_, shared_->sources());
  while (!TryPlace()) {
    RingBell();
    if (NowNs() > until_ns) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "all ", shared_->workers_max(),
          " workers that there may be have joined: raise WorkerProcessesOptions::workers_max"));
    }
    if (Readable(shared_->descriptors().keeper, 1)) {
      return absl::FailedPreconditionError("the parent has ended: start the server anew");
    }
  }
  return absl::OkStatus();
}

void ProcessMember::Enter() {
  Worker& worker = mine();
  worker.open.store(0);
  worker.accepted.store(0);
  worker.waits.store(0);
  worker.woke_at_ns.store(NowNs());
  worker.taken.store(0);
  worker.takes.store(0);
  for (uint32_t source = 0; source < shared_->sources(); ++source) {
    PermitsOf(source).Clear();
    PairOf(source).has.store(1);
  }
  if (shared_->has_chutes()) shared_->KeepOnlyChute(worker_);
  WatchChute();
  RingBell();
  for (uint32_t source = 0; source < shared_->sources(); ++source) JoinSource(source);
}

void ProcessMember::JoinSource(uint32_t source) {
  own_[source].joined = true;
  PairOf(source).sight.store(worker_);
  area().sources[source].joined.fetch_or(uint64_t{1} << worker_);
  Visit(source);
}

void ProcessMember::UnjoinSource(uint32_t source) {
  if (!std::exchange(own_[source].joined, false)) return;
  area().sources[source].joined.fetch_and(~(uint64_t{1} << worker_));
  PermitsOf(source).Withdraw();
  // A holder that shows it after this finds that this worker has not joined, or this worker finds
  // it shown and takes it out.
  EpollKernel(shared_->descriptors(), source).Hide(worker_);
  PairOf(source).shown.store(0);
  Visit(source);
}

// The parent takes back what lies there then.
void ProcessMember::UnwatchChute() {
  if (std::exchange(takes_, 0) == 0) return;
  mine().takes.store(0);
  chute_ready_ = false;
  epoll_ctl(sight(), EPOLL_CTL_DEL, shared_->chute(worker_), nullptr);
  RingBell();
}

void ProcessMember::WatchChute() {
  const int chute = shared_->chute(worker_);
  if (chute < 0 || takes_ != 0) return;
  epoll_event event{.events = EPOLLIN, .data = {.fd = chute}};
  // Whoever had the place before may have left it there.
  if (epoll_ctl(sight(), EPOLL_CTL_ADD, chute, &event) != 0 &&
      (errno != EEXIST || epoll_ctl(sight(), EPOLL_CTL_MOD, chute, &event) != 0)) {
    return;
  }
  takes_ = shared_->chute_number(worker_);
  mine().takes.store(takes_);
  chute_ready_ = true;
}

void ProcessMember::Leave() {
  if (!Mine()) return;
  UnwatchChute();
  for (uint32_t source = 0; source < shared_->sources(); ++source) {
    UnjoinSource(source);
    PairOf(source).has.store(0);
    if (own_[source].alone_fd >= 0) close(std::exchange(own_[source].alone_fd, -1));
  }
  mine().waits.store(0);
  RingBell();
  left_ = true;
  shared_->CloseDescriptors();
}

int ProcessMember::sight() const { return Mine() ? shared_->descriptors().sights[worker_] : -1; }

// --- What it says in the area --------------------------------------------------------------------

void ProcessMember::RingBell() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(shared_->descriptors().bell, &one, sizeof(one));
}

void ProcessMember::Visit(uint32_t source) {
  if (alone_) return;
  EpollKernel kernel(shared_->descriptors(), source);
  processes::Desk desk(area(), source, worker_, *policy_, kernel);
  if (!desk.Visit()) RingBell();
}

void ProcessMember::SayBusy() {
  Worker& worker = mine();
  if (worker.waits.load(std::memory_order_relaxed) == 0) return;
  worker.woke_at_ns.store(NowNs(), std::memory_order_relaxed);
  worker.waits.store(0, std::memory_order_seq_cst);
}

// Before an accept, so that the next decision knows of it, and so that whoever is killed has
// counted what ends with it.
void ProcessMember::CountOpen(int32_t more) {
  open_.fetch_add(static_cast<uint32_t>(more));
  // Where threads count at once, one may write what it has read before another one counted. So each
  // looks again after it has written.
  uint32_t written = 0;
  do {
    written = open_.load();
    mine().open.store(written, std::memory_order_seq_cst);
  } while (written != open_.load());
}

void ProcessMember::Released() {
  if (getpid() != pid_) return;
  CountOpen(-1);
  released_.store(true);
}

// What only this worker writes, and is something else now, somebody has written who is broken.
void ProcessMember::Heal() {
  Worker& worker = mine();
  if (worker.owner.load(std::memory_order_relaxed) != owner_) {
    worker.owner.store(owner_);
    RingBell();
  }
  const uint32_t open = open_.load(std::memory_order_relaxed);
  if (worker.open.load(std::memory_order_relaxed) != open) worker.open.store(open);
  if (worker.accepted.load(std::memory_order_relaxed) != accepted_) {
    worker.accepted.store(accepted_);
  }
  if (worker.takes.load(std::memory_order_relaxed) != takes_) {
    worker.takes.store(takes_);
    RingBell();
  }
  for (uint32_t source = 0; source < shared_->sources(); ++source) {
    if (!own_[source].joined) continue;
    Pair& pair = PairOf(source);
    const bool redeems = pair.permits.Read().redeeming != 0;
    if (redeems) pair.permits.Clear();
    if (redeems || pair.sight.load(std::memory_order_relaxed) != worker_ ||
        !area().sources[source].Joined(worker_)) {
      JoinSource(source);
    }
  }
}

// --- Waits ---------------------------------------------------------------------------------------

bool ProcessMember::HasPermit(uint32_t source) {
  return own_[source].joined && PermitsOf(source).Read().claimable > 0;
}

// The kernel decides.
bool ProcessMember::Aside(uint32_t source) {
  return alone_ || area().sources[source].mode.load(std::memory_order_relaxed) == Mode::kLeft;
}

void ProcessMember::BeforeWait() {
  if (!Mine() || claiming_) return;
  if (stands_back_until_ns_ != 0 && (released_.exchange(false) || NowNs() >= stands_back_until_ns_))
    ComeBack();
  Heal();
  Worker& worker = mine();
  if (worker.waits.load(std::memory_order_relaxed) == 0) {
    worker.waits.store(1, std::memory_order_seq_cst);
  }
  worker.Moved();
  for (uint32_t source = 0; source < shared_->sources() && !alone_; ++source) {
    if (!own_[source].joined) continue;
    Source& shared = area().sources[source];
    if (Aside(source)) {
      EpollKernel(shared_->descriptors(), source).Show(worker_, /*asleep=*/false);
    } else if (shared.TakeHungry(worker.open.load(std::memory_order_relaxed))) {
      Visit(source);
    }
  }
}

bool ProcessMember::AfterWait(bool by_port) {
  if (!Mine() || claiming_) return false;
  mine().Moved();
  // Rule "first" of processes/desk.h.
  if (by_port) return true;
  SayBusy();
  for (uint32_t source = 0; source < shared_->sources(); ++source) {
    if (HasPermit(source)) return true;
  }
  return takes_ != 0 && mine().given.load(std::memory_order_relaxed) != 0;
}

// --- Claims --------------------------------------------------------------------------------------

uint32_t ProcessMember::NextWithPermit() {
  if (alone_) return kNone;
  for (uint32_t i = 0; i < shared_->sources(); ++i) {
    const uint32_t source = (next_ + i) % shared_->sources();
    if (!own_[source].joined || !PermitsOf(source).Claim()) continue;
    next_ = source + 1;
    return source;
  }
  return kNone;
}

bool ProcessMember::Claim(absl::FunctionRef<void(ProcessConnection)> serve,
                          size_t connections_max) {
  if (!Mine() || claiming_) return false;
  // `serve` may destroy the port.
  const std::shared_ptr<ProcessMember> self = shared_from_this();
  struct Claiming {
    bool& flag;
    ~Claiming() { flag = false; }
  } claiming{claiming_};
  claiming_ = true;
  mine().Moved();
  int looks = 0;
  int failures = 0;
  // A permit whose connection somebody else has taken comes back to whoever waits, often to this
  // worker. So the sight is looked at first then: it may have shown something else.
  bool looks_first = false;
  if (takes_ != 0 && mine().given.load(std::memory_order_relaxed) != 0) chute_ready_ = true;
  for (size_t served = 0; served < connections_max;) {
    if (chute_ready_ && !std::exchange(permits_turn_, false)) {
      ProcessConnection connection = TakeGiven();
      if (connection.fd() < 0) continue;
      permits_turn_ = true;
      ++served;
      serve(std::move(connection));
      if (!Mine()) return false;
      continue;
    }
    uint32_t source = std::exchange(looks_first, false) ? kNone : NextWithPermit();
    const bool by_permit = source != kNone;
    if (!by_permit) {
      if (chute_ready_) continue;
      if (looks++ == kLooksMax) return true;
      const Seen seen = LookAtSight();
      if (seen.permits || seen.given) continue;
      if (seen.without == kNone) return false;
      source = seen.without;
    }
    ProcessConnection connection = Accept(source, by_permit);
    if (connection.fd() < 0) {
      if (++failures == kFailuresMax) return true;
      looks_first = true;
      continue;
    }
    ++served;
    serve(std::move(connection));
    if (!Mine()) return false;
  }
  return true;
}

ProcessConnection ProcessMember::Accept(uint32_t source, bool by_permit) {
  SayBusy();
  CountOpen(1);
  const int fd = accept4(shared_->descriptors().listeners[source], nullptr, nullptr,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
  const int error = fd < 0 ? errno : 0;
  core::Permits& permits = PermitsOf(source);
  if (fd >= 0) {
    own_[source].vain = 0;
    mine().accepted.store(++accepted_, std::memory_order_relaxed);
    mine().cpu.store(sched_getcpu(), std::memory_order_relaxed);
    permits.CountAccepted();
    if (by_permit) permits.Finish();
    Visit(source);
    return ProcessConnection(fd, shared_->token(source), ProcessLease(shared_from_this()));
  }
  CountOpen(-1);
  if (by_permit) permits.GiveUp();
  AcceptFailed(source, error);
  Visit(source);
  return {};
}

// One that the parent has given. `chute_ready_` is false afterwards if there is none.
ProcessConnection ProcessMember::TakeGiven() {
  SayBusy();
  mine().given.store(0, std::memory_order_seq_cst);
  CountOpen(1);
  processes::Given given;
  const int error = processes::TakeOut(shared_->chute(worker_), given);
  if (error == 0) {
    mine().accepted.store(++accepted_, std::memory_order_relaxed);
    mine().taken.store(++taken_, std::memory_order_relaxed);
    mine().cpu.store(sched_getcpu(), std::memory_order_relaxed);
    return ProcessConnection(given.fd, given.token, ProcessLease(shared_from_this()));
  }
  CountOpen(-1);
  if (error == EBADMSG) return {};
  chute_ready_ = false;
  if (error == EPIPE) {
    UnwatchChute();
  } else if (error != EAGAIN) {
    StandBack();
  }
  return {};
}

void ProcessMember::StandBack() {
  // Others may have some. A sight that showed something would wake this worker for ever.
  released_.store(false);
  stands_back_until_ns_ = NowNs() + kStandsBackNs;
  UnwatchChute();
  for (uint32_t i = 0; i < shared_->sources() && !alone_; ++i) UnjoinSource(i);
}

void ProcessMember::AcceptFailed(uint32_t source, int error) {
  switch (error) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
      StandBack();
      break;
    case EAGAIN:
      if (!EpollKernel(shared_->descriptors(), source).HasEnded()) break;
      [[fallthrough]];
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
    case EOPNOTSUPP:
      // It listens no more.
      UnjoinSource(source);
      if (own_[source].alone_fd >= 0) {
        epoll_ctl(sight(), EPOLL_CTL_DEL, own_[source].alone_fd, nullptr);
        close(std::exchange(own_[source].alone_fd, -1));
      }
      break;
    default:  // nothing there, or its client is gone
      break;
  }
}

void ProcessMember::ComeBack() {
  stands_back_until_ns_ = 0;
  if (draining_ || alone_) return;
  WatchChute();
  for (uint32_t source = 0; source < shared_->sources(); ++source) JoinSource(source);
}

// --- Wake-ups without a permit -------------------------------------------------------------------

ProcessMember::Seen ProcessMember::LookAtSight() {
  Seen seen;
  std::array<epoll_event, kSourcesMax + 5> events;
  const int count =
      epoll_wait(sight(), events.data(), static_cast<int>(events.size()), /*timeout=*/0);
  for (int i = 0; i < count; ++i) {
    if (events[static_cast<size_t>(i)].data.fd == shared_->chute(worker_)) seen.given = true;
  }
  // What was given before the end comes first.
  if (seen.given) LookAtChute();
  if (chute_ready_) return seen;
  for (int i = 0; i < count; ++i) {
    const int fd = events[static_cast<size_t>(i)].data.fd;
    if (fd == shared_->end()) OnEnd();
    if (fd == shared_->descriptors().keeper) OnParentGone();
    for (uint32_t source = 0; source < shared_->sources(); ++source) {
      if (fd == shared_->descriptors().listeners[source]) LookAtSource(source, seen);
    }
  }
  return seen;
}

// The parent shows it to a worker that takes nothing, so that it says whether it can again.
void ProcessMember::LookAtChute() {
  if (takes_ == 0 && stands_back_until_ns_ != 0 && NowNs() >= stands_back_until_ns_) ComeBack();
  if (takes_ != 0) {
    chute_ready_ = true;
  } else {
    epoll_ctl(sight(), EPOLL_CTL_DEL, shared_->chute(worker_), nullptr);
  }
}

// Rule "stray" of processes/desk.h.
void ProcessMember::LookAtSource(uint32_t source, Seen& seen) {
  if (!own_[source].joined) {
    if (stands_back_until_ns_ != 0 && NowNs() >= stands_back_until_ns_) {
      ComeBack();
    } else {
      EpollKernel(shared_->descriptors(), source).Hide(worker_);
    }
    seen.permits |= HasPermit(source);
    return;
  }
  if (Aside(source)) {
    seen.without = source;
    return;
  }
  if (!HasPermit(source)) {
    Heal();
    PairOf(source).shown.store(1, std::memory_order_seq_cst);
    Visit(source);
  }
  if (HasPermit(source)) {
    seen.permits = true;
    return;
  }
  Own& own = own_[source];
  const int64_t now_ns = NowNs();
  own.vain = now_ns - own.vain_at_ns < kVainNs ? own.vain + 1 : 1;
  own.vain_at_ns = now_ns;
  if (own.vain < kVainMax) return;
  own.vain = 0;
  seen.without = source;
}

void ProcessMember::OnEnd() {
  epoll_ctl(sight(), EPOLL_CTL_DEL, shared_->end(), nullptr);
  draining_ = true;
  alone_ = false;
  for (uint32_t source = 0; source < shared_->sources(); ++source) UnjoinSource(source);
}

// Rule "alone". By a number of its own, under which nobody else takes the listener out.
void ProcessMember::OnParentGone() {
  epoll_ctl(sight(), EPOLL_CTL_DEL, shared_->descriptors().keeper, nullptr);
  if (draining_ || Readable(shared_->end())) return;
  alone_ = true;
  for (uint32_t source = 0; source < shared_->sources(); ++source) {
    EpollKernel kernel(shared_->descriptors(), source);
    kernel.Hide(worker_);
    own_[source].joined = true;
    const int listener = shared_->descriptors().listeners[source];
    own_[source].alone_fd = fcntl(listener, F_DUPFD_CLOEXEC, 0);
    epoll_event event{.events = EPOLLIN, .data = {.fd = listener}};
    if (own_[source].alone_fd < 0 ||
        epoll_ctl(sight(), EPOLL_CTL_ADD, own_[source].alone_fd, &event) != 0) {
      kernel.Show(worker_, /*asleep=*/false);
    }
  }
}

}  // namespace ringmaster::internal
