#include "processes/keeper.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "processes/desk.h"
#include "processes/epoll_kernel.h"

namespace ringmaster::processes {
namespace {

// While connections come, a look for sources that do not move; and after so long without one the
// next connection wakes the keeper instead.
constexpr int64_t kLookMs = 5;
constexpr int64_t kQuietMs = 1'000;
// A worker that was marked because the machine was busy may sleep on without being asked again. So
// a mark ends by itself; the next one lasts twice as long if it comes soon.
constexpr int64_t kMarkMs = 50;
constexpr int64_t kMarkMsMax = 5'000;
// Between two looks at what the bell has announced.
constexpr int64_t kBellMs = 1;
// Until it tries again what had no descriptor.
constexpr int64_t kAgainMs = 100;
// More than this between two looks nobody accepts: the count is nonsense, and says nothing.
constexpr uint64_t kAcceptedMax = 1'000'000;

enum class Tag : uint64_t { kTimer, kBell, kWorker, kListener, kOther };
uint64_t Tagged(Tag tag, uint64_t number = 0) { return static_cast<uint64_t>(tag) << 32 | number; }

int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000 + now.tv_nsec / 1'000'000;
}

pid_t PidOfOwner(uint64_t owner) { return static_cast<pid_t>(owner >> 32); }

}  // namespace

absl::Status CannotMake(const char* what) {
  const int error = errno;
  const char* remedy = error == EMFILE   ? ": raise the limit of descriptors (ulimit -n)"
                       : error == ENFILE ? ": the system has no more open files (fs.file-max)"
                                         : "";
  return absl::ErrnoToStatus(error, absl::StrCat("cannot make ", what, remedy));
}

Keeper::~Keeper() {
  for (Known& known : known_) {
    if (known.pidfd >= 0) close(std::exchange(known.pidfd, -1));
  }
  for (const int fd : {epoll_fd_, timer_}) {
    if (fd >= 0) close(fd);
  }
}

absl::Status Keeper::SetUp() {
  epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
  if (epoll_fd_ < 0) return CannotMake("an epoll set");
  timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer_ < 0 || !Watch(timer_, EPOLLIN, Tagged(Tag::kTimer))) return CannotMake("a timer");
  if (!Watch(descriptors_.bell, EPOLLIN | EPOLLONESHOT, Tagged(Tag::kBell))) {
    return CannotMake("an entry in an epoll set");
  }
  return absl::OkStatus();
}

bool Keeper::Watch(int fd, uint32_t events, uint64_t tag) {
  epoll_event event{.events = events, .data = {.u64 = tag}};
  return epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool Keeper::WatchFor(int fd, uint32_t events, uint32_t number) {
  if (Watch(fd, events, Tagged(Tag::kOther, number))) return true;
  epoll_event event{.events = events, .data = {.u64 = Tagged(Tag::kOther, number)}};
  return errno == EEXIST && epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event) == 0;
}

void Keeper::Unwatch(int fd) { epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr); }

void Keeper::SetTimer(int64_t at_ms) {
  if (at_ms == timer_at_ms_) return;
  timer_at_ms_ = at_ms;
  itimerspec at{};
  if (at_ms >= 0) {
    at.it_value.tv_sec = at_ms / 1'000;
    at.it_value.tv_nsec = at_ms % 1'000 * 1'000'000 + 1;  // 0 would be never
  }
  timerfd_settime(timer_, TFD_TIMER_ABSTIME, &at, nullptr);
}

void Keeper::LookSoon() {
  const int64_t at_ms = NowMs() + kLookMs;
  if (timer_at_ms_ < 0 || timer_at_ms_ > at_ms) SetTimer(at_ms);
}

void Keeper::RunOnce() {
  std::array<epoll_event, 32> events;
  const int count = epoll_wait(epoll_fd_, events.data(), static_cast<int>(events.size()), 0);
  const int64_t now_ms = NowMs();
  std::vector<pid_t> dead;
  std::array<uint32_t, std::tuple_size_v<decltype(events)>> ready;
  size_t ready_count = 0;
  for (int i = 0; i < count; ++i) {
    const uint64_t tag = events[static_cast<size_t>(i)].data.u64;
    const auto number = static_cast<uint32_t>(tag);
    switch (static_cast<Tag>(tag >> 32)) {
      case Tag::kTimer: {
        uint64_t times = 0;
        [[maybe_unused]] const ssize_t taken = read(timer_, &times, sizeof(times));
        timer_at_ms_ = -1;
        break;
      }
      case Tag::kBell:
        bell_rests_ = true;
        break;
      case Tag::kWorker:
        // Another worker may have the number since.
        if (HasDied(number)) dead.push_back(PidOf(number));
        break;
      case Tag::kListener: {
        // One that was shut down shows that for ever, and nobody comes there any more.
        if ((events[static_cast<size_t>(i)].events & (EPOLLHUP | EPOLLRDHUP)) != 0) break;
        Motion& motion = motions_[number];
        if (std::exchange(motion.quiet, false)) Unwatch(descriptors_.listeners[number]);
        motion.moved_at_ms = now_ms;
        break;
      }
      case Tag::kOther:
        ready[ready_count++] = number;
        break;
    }
  }
  for (const pid_t pid : dead) Died(pid);
  if (bell_rests_ && now_ms - bell_at_ms_ >= kBellMs) TakeBell(now_ms);
  if (looks_again_ && LookForWorkers()) events_.OnBell();
  for (size_t i = 0; i < ready_count; ++i) events_.OnReady(ready[i]);
  int64_t next_ms = looked_at_ms_ + kLookMs;
  if (now_ms >= next_ms) {
    looked_at_ms_ = now_ms;
    const int wait_ms = LookAfterSources(now_ms);
    next_ms = wait_ms < 0 ? -1 : now_ms + wait_ms;
  }
  const auto sooner = [&](int64_t at_ms) {
    next_ms = next_ms < 0 ? at_ms : std::min(next_ms, at_ms);
  };
  if (bell_rests_) sooner(bell_at_ms_ + kBellMs);
  if (looks_again_) sooner(now_ms + kAgainMs);
  SetTimer(next_ms);
}

// Who rings again and again is heard once in a while.
void Keeper::TakeBell(int64_t now_ms) {
  bell_rests_ = false;
  bell_at_ms_ = now_ms;
  uint64_t rung = 0;
  [[maybe_unused]] const ssize_t taken = read(descriptors_.bell, &rung, sizeof(rung));
  epoll_event event{.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = Tagged(Tag::kBell)}};
  epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, descriptors_.bell, &event);
  LookForWorkers();
  events_.OnBell();
}

// --- Workers -------------------------------------------------------------------------------------

pid_t Keeper::PidOf(uint32_t worker) const { return PidOfOwner(known_[worker].owner); }

bool Keeper::HasDied(uint32_t worker) const {
  pollfd process{.fd = known_[worker].pidfd, .events = POLLIN, .revents = 0};
  return process.fd >= 0 && poll(&process, 1, 0) == 1;
}

// Workers may have come. True: some of them are gone already.
bool Keeper::LookForWorkers() {
  std::vector<uint32_t> gone;
  looks_again_ = false;
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    std::atomic<uint64_t>& word = area_.workers[i].owner;
    const uint64_t owner = word.load();
    Known& known = known_[i];
    if (owner == known.owner) continue;
    if (known.owner != 0) {
      // Only the keeper gives numbers away, so this is nonsense.
      word.store(known.owner);
      events_.OnNonsense();
      continue;
    }
    if (!events_.IsOwner(i, owner)) {
      uint64_t nonsense = owner;
      word.compare_exchange_strong(nonsense, 0);
      events_.OnNonsense();
      continue;
    }
    const pid_t pid = PidOfOwner(owner);
    const auto pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0 && errno != ESRCH && errno != EINVAL) {
      looks_again_ = true;
      continue;
    }
    // It lives, and there is no memory for a watch, or the user has too many.
    if (pidfd >= 0 && !Watch(pidfd, EPOLLIN, Tagged(Tag::kWorker, i))) {
      close(pidfd);
      looks_again_ = true;
      continue;
    }
    known = {.owner = owner, .pidfd = pidfd};
    events_.OnCame(i, pid);
    if (pidfd < 0) gone.push_back(i);
  }
  if (!gone.empty()) Bury(gone);
  return !gone.empty();
}

void Keeper::Died(pid_t pid) {
  const bool others_are_gone = LookForWorkers();
  std::vector<uint32_t> gone;
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    if (known_[i].owner != 0 && PidOf(i) == pid) gone.push_back(i);
  }
  if (!gone.empty()) Bury(gone);
  if (!gone.empty() || others_are_gone) events_.OnBell();
}

// Rule "dead": first everything is renewed, whoever held a desk; then the numbers are free again.
void Keeper::Bury(const std::vector<uint32_t>& workers) {
  for (const uint32_t i : workers) {
    Known& known = known_[i];
    if (const int pidfd = std::exchange(known.pidfd, -1); pidfd >= 0) {
      Unwatch(pidfd);
      close(pidfd);
    }
    events_.OnGone(i);
    Worker& worker = area_.workers[i];
    for (Source& source : area_.sources) source.joined.fetch_and(~(uint64_t{1} << i));
    for (Pair& pair : worker.of_source) pair.permits.Clear();
    worker.waits.store(0);
    worker.open.store(0);
  }
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    if (area_.sources[i].mode.load() == Mode::kAimed) Repair(i);
  }
  for (const uint32_t worker : workers) FreeWorker(worker);
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    motions_[i].accepted = AcceptedOf(i);
    motions_[i].waited = false;
  }
}

void Keeper::FreeWorker(uint32_t index) {
  Worker& worker = area_.workers[index];
  for (Pair& pair : worker.of_source) {
    const uint32_t sight = pair.sight.exchange(kNone);
    if (sight < kSightsMax) area_.sights.fetch_and(~(uint64_t{1} << sight));
    pair.permits.Clear();
    pair.permits.Reset();
    pair.shown.store(0);
    pair.has.store(0);
  }
  worker.open.store(0);
  worker.marked.store(0);
  worker.accepted.store(0);
  worker.takes.store(0);
  worker.taken.store(0);
  worker.given.store(0);
  worker.cpu.store(-1);
  known_[index] = {};
  worker.owner.store(0);
}

// --- Sources -------------------------------------------------------------------------------------

void Keeper::Begin(uint32_t source) {
  const int64_t now_ms = NowMs();
  motions_[source] = {.looked_after = true, .moved_at_ms = now_ms, .begun_at_ms = now_ms};
  SetTimer(now_ms + kLookMs);
}

void Keeper::End(uint32_t source) {
  EpollKernel(descriptors_, source).HideFromAll();
  if (motions_[source].quiet) Unwatch(descriptors_.listeners[source]);
  motions_[source] = {};
}

int64_t Keeper::AgeMs(uint32_t source) const { return NowMs() - motions_[source].begun_at_ms; }

bool Keeper::Repair(uint32_t source) {
  if (policy_ == nullptr) return true;
  EpollKernel kernel(descriptors_, source);
  Desk desk(area_, source, kNone, *policy_, kernel);
  if (desk.Repair()) return true;
  Abandon(source);
  return false;
}

void Keeper::Abandon(uint32_t source) {
  if (policy_ == nullptr || std::exchange(motions_[source].abandoned, true)) return;
  EpollKernel kernel(descriptors_, source);
  Desk(area_, source, kNone, *policy_, kernel).Abandon();
  events_.OnLeft(source);
}

uint64_t Keeper::AcceptedOf(uint32_t source) const {
  uint64_t accepted = 0;
  for (const Worker& worker : area_.workers) {
    accepted += worker.of_source[source].permits.accepted();
  }
  return accepted;
}

void Keeper::Mark(uint32_t worker) {
  const int64_t now_ms = NowMs();
  Marked& mark = marks_[worker];
  mark.lasts_ms = now_ms < mark.forgotten_at_ms ? std::min(2 * mark.lasts_ms, kMarkMsMax) : kMarkMs;
  mark.ends_at_ms = now_ms + mark.lasts_ms;
  mark.forgotten_at_ms = mark.ends_at_ms + 2 * mark.lasts_ms;
  area_.workers[worker].marked.store(1);
}

// Rule "frozen".
void Keeper::MarkThoseWithPermits(uint32_t source) {
  for (uint32_t index = 0; index < kWorkersMax; ++index) {
    if (area_.workers[index].of_source[source].permits.Read().out() > 0) Mark(index);
  }
}

void Keeper::LookAfter(uint32_t source, int64_t now_ms) {
  Motion& motion = motions_[source];
  const uint64_t accepted = AcceptedOf(source);
  const int waiting = EpollKernel(descriptors_, source).Waiting();
  const uint64_t more = accepted - motion.accepted;
  const bool moved = more != 0 && more <= kAcceptedMax;
  motion.accepted = accepted;
  if (moved || waiting > 0) motion.moved_at_ms = now_ms;
  const bool still = motion.waited && waiting > 0 && !moved;
  motion.still = still ? motion.still + 1 : 0;
  if (still) {
    MarkThoseWithPermits(source);
    Repair(source);
    events_.OnStill(source, motion.still);
  }
  motion.waited = waiting > 0;
  if (now_ms - motion.moved_at_ms >= kQuietMs && !std::exchange(motion.quiet, true)) {
    Watch(descriptors_.listeners[source], EPOLLIN | EPOLLRDHUP | EPOLLONESHOT,
          Tagged(Tag::kListener, source));
  }
}

// Returns how long to wait for the next look, in milliseconds; -1: until something happens.
int Keeper::LookAfterSources(int64_t now_ms) {
  if (LookForWorkers()) events_.OnBell();
  int wait_ms = events_.OnLook(now_ms);
  for (uint32_t i = 0; i < kWorkersMax; ++i) {
    Worker& worker = area_.workers[i];
    if (worker.marked.load() != 0 && now_ms >= marks_[i].ends_at_ms) worker.marked.store(0);
  }
  for (uint32_t i = 0; i < kSourcesMax; ++i) {
    if (!motions_[i].looked_after || !events_.IsAimed(i, area_.sources[i].mode.load())) continue;
    LookAfter(i, now_ms);
    if (motions_[i].quiet) continue;
    wait_ms =
        wait_ms < 0 ? static_cast<int>(kLookMs) : std::min(wait_ms, static_cast<int>(kLookMs));
  }
  return wait_ms;
}

}  // namespace ringmaster::processes
