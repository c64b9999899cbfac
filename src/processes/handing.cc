#include "processes/handing.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/accept_error.h"
#include "core/op.h"
#include "ring/translate.h"

namespace ringmaster::internal {
namespace {

using processes::ChuteEnds;
using processes::Given;
using processes::kWorkersMax;

// What the keeper watches for us: the chutes by their places, then listeners.
constexpr uint32_t kFirstListener = kWorkersMax;
constexpr size_t kListenersMax = processes::kSourcesMax;
// So many are accepted at one listener before the others are looked at.
constexpr int kAcceptsMax = 32;
// Without descriptors, until it accepts again.
constexpr int64_t kShortageMs = 20;
// While something is held or lies in a chute.
constexpr int kLookMs = 5;
constexpr int kNudgeMs = processes::Dealing::kNudgeNs / 1'000'000;

}  // namespace

Handing::Handing(ProcessShared& shared, processes::Keeper& keeper, std::unique_ptr<Policy> policy,
                 Limits limits)
    : shared_(shared),
      keeper_(keeper),
      limits_(limits),
      dealing_(shared.area(), *this, std::move(policy),
               {.places = shared.workers_max(), .lying_max = limits.lying}),
      facts_(core::FactBits(dealing_.policy().facts())) {
  ins_.fill(-1);
}

Handing::~Handing() {
  // In a child the connection goes on, whatever it is set to.
  const bool in_parent = getpid() == shared_.parent();
  for (const Given& given : dealing_.TakeHeld()) {
    in_parent ? ring::CloseConnection(given.fd) : static_cast<void>(close(given.fd));
  }
  for (const Accepted& listener : listeners_) {
    if (listener.fd >= 0) close(listener.fd);
  }
  for (const int in : ins_) {
    if (in >= 0) close(in);
  }
}

absl::Status Handing::SetUp() {
  for (uint32_t i = 0; i < shared_.workers_max(); ++i) {
    ChuteEnds ends;
    if (const int error = processes::MakeChute(ends); error != 0) {
      return absl::ErrnoToStatus(
          error,
          absl::StrCat("cannot make a pair of sockets for each worker",
                       error == EMFILE ? ": raise the limit of descriptors (ulimit -n)" : ""));
    }
    ins_[i] = ends.in;
    shared_.SetChute(i, ends.out);
  }
  return absl::OkStatus();
}

absl::Status Handing::AddListener(int listen_fd, uint64_t token) {
  if (absl::Status status = ProcessShared::CheckListener(listen_fd); !status.ok()) return status;
  if (listeners_.size() == kListenersMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there are ", kListenersMax, " listeners, and no more are possible"));
  }
  const int duplicate = fcntl(listen_fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0) return absl::ErrnoToStatus(errno, "cannot make a duplicate of the listener");
  listeners_.push_back({.fd = duplicate, .token = token});
  Go();
  return absl::OkStatus();
}

absl::Status Handing::Give(int fd, uint64_t token, const Arrival* facts) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return absl::InvalidArgumentError(absl::StrCat(fd, " is no open descriptor"));
  if (dealing_.held() >= limits_.held) {
    return absl::ResourceExhaustedError(
        absl::StrCat(dealing_.held(),
                     " connections are held, because no worker has room: accept "
                     "no more until Stats().held is less, or close this one"));
  }
  if ((flags & O_NONBLOCK) == 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  dealing_.Hold(
      {.fd = fd, .token = token, .facts = facts != nullptr ? *facts : ring::FactsOf(fd, facts_)});
  Go();
  keeper_.LookSoon();
  return absl::OkStatus();
}

// --- What the keeper tells -----------------------------------------------------------------------

void Handing::OnReady(uint32_t number) {
  if (number >= kFirstListener && number - kFirstListener < listeners_.size()) {
    Accept(listeners_[number - kFirstListener]);
  }
  Go();
}

void Handing::OnGone(uint32_t worker) {
  dealing_.OnGone(worker);
  if (dealing_.IsRuined(worker) || !processes::IsSound(shared_.chute(worker))) MakeAnew(worker);
}

int Handing::OnLook(int64_t now_ms) {
  dealing_.Look();
  if (short_until_ms_ != 0 && now_ms >= short_until_ms_) short_until_ms_ = 0;
  Go();
  if (held() > 0 || dealing_.Lies()) return kLookMs;
  if (short_until_ms_ != 0) return static_cast<int>(short_until_ms_ - now_ms);
  // Nobody is told when a worker that stands back could go on.
  return !listeners_.empty() && dealing_.SomebodyTakesNothing() && !dealing_.HasRoom() ? kNudgeMs
                                                                                       : -1;
}

// --- What goes on --------------------------------------------------------------------------------

bool Handing::MayAccept() {
  return short_until_ms_ == 0 && held() < limits_.held && dealing_.HasRoom();
}

// Deals what is held, and sees to it that this process is told when it can go on.
void Handing::Go() {
  dealing_.Deal();
  if (held() == 0 && listeners_.empty()) return WatchRoom(false);
  const bool may_accept = !listeners_.empty() && MayAccept();
  Arm(may_accept);
  const bool lacks_room = !dealing_.HasRoom();
  // Whoever has made room just before it was watched is announced at once.
  WatchRoom(lacks_room);
}

void Handing::Accept(Accepted& listener) {
  for (int accepts = 0; accepts < kAcceptsMax && listener.fd >= 0 && MayAccept(); ++accepts) {
    const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      dealing_.Hold({.fd = fd, .token = listener.token, .facts = ring::FactsOf(fd, facts_)});
      dealing_.Deal();
      continue;
    }
    switch (core::AcceptErrorOf(errno)) {
      case core::AcceptError::kShortage:
        short_until_ms_ = NowNs() / 1'000'000 + kShortageMs;
        return;
      case core::AcceptError::kDoubt:  // it listens no more
        keeper_.Unwatch(listener.fd);
        close(std::exchange(listener.fd, -1));
        return;
      case core::AcceptError::kConnection:
        break;
      default:
        return;
    }
  }
}

// Level-triggered. A listener at which nothing can be accepted would be ready for ever.
void Handing::Arm(bool accepts) {
  for (size_t i = 0; i < listeners_.size(); ++i) {
    Accepted& listener = listeners_[i];
    if (listener.fd < 0 || listener.armed == accepts) continue;
    const bool armed = keeper_.WatchFor(listener.fd, accepts ? uint32_t{EPOLLIN} : 0u,
                                        kFirstListener + static_cast<uint32_t>(i));
    if (armed) listener.armed = accepts;
  }
}

// Edge-triggered, so that the kernel tells each time that somebody takes something out.
void Handing::WatchRoom(bool watches) {
  if (std::exchange(watches_room_, watches) == watches) return;
  for (uint32_t i = 0; i < shared_.workers_max(); ++i) {
    if (watches) {
      keeper_.WatchFor(ins_[i], EPOLLOUT | EPOLLET, i);
    } else {
      keeper_.Unwatch(ins_[i]);
    }
  }
}

// Somebody has ruined it, who is gone.
void Handing::MakeAnew(uint32_t worker) {
  ChuteEnds ends;
  if (processes::MakeChute(ends) != 0) return;  // it stays ruined, and is tried again at the next
  if (watches_room_) keeper_.Unwatch(ins_[worker]);
  close(std::exchange(ins_[worker], ends.in));
  watches_room_ = false;
  shared_.ReplaceChute(worker, ends.out);
  dealing_.OnNewChute(worker);
}

void Handing::Ask(uint32_t worker) {
  if (Number(worker) != 0) Nudge(worker);
}

void Handing::StopAccepting() {
  for (Accepted& listener : std::exchange(listeners_, {})) {
    if (listener.fd < 0) continue;
    keeper_.Unwatch(listener.fd);
    close(listener.fd);
  }
}

bool Handing::Settle() {
  dealing_.Deal(/*at_any_cost=*/true);
  keeper_.LookSoon();
  return held() == 0 && !dealing_.Lies();
}

// --- What the kernel does ------------------------------------------------------------------------

int Handing::Put(uint32_t worker, const Given& given) {
  const int error = processes::PutIn(ins_[worker], given);
  // Whoever gets it may be the first to close it, and have told the kernel to wait then.
  if (error == 0) ring::CloseConnection(given.fd);
  return error;
}

int Handing::Take(uint32_t worker, Given& given) {
  return processes::TakeOut(shared_.chute(worker), given);
}

uint32_t Handing::Lying(uint32_t worker) { return processes::LyingIn(shared_.chute(worker)); }

uint64_t Handing::Number(uint32_t worker) {
  return keeper_.OwnerOf(worker) == 0 ? 0 : shared_.chute_number(worker);
}

void Handing::Nudge(uint32_t worker) {
  const int chute = shared_.chute(worker);
  if (processes::LyingIn(chute) == 0) processes::Nudge(ins_[worker]);
  // A worker that stands back has taken it out of its sight.
  epoll_event event{.events = EPOLLIN, .data = {.fd = chute}};
  epoll_ctl(shared_.descriptors().sights[worker], EPOLL_CTL_ADD, chute, &event);
}

int64_t Handing::NowNs() { return ring::NowNs(); }

}  // namespace ringmaster::internal
