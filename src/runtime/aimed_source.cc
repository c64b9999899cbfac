#include "runtime/aimed_source.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>

#include <cerrno>

#include "ring/translate.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

namespace {

// Edge-triggered, so that a mailbox can be emptied of what its worker has no permit for (see
// MailboxShared::Empty). For whoever only polls the set, there is no difference.
constexpr uint32_t kAwake = EPOLLIN | EPOLLET;

}  // namespace

// A listener that stands in the set is taken out and added again. EPOLL_CTL_MOD is not enough: it
// wakes nobody where the set has found the listener ready before and nobody has looked at the set
// since. A multishot poll looks only when it is woken, so that worker would sleep on.
int EpollSights::Add(int sight, bool again, uint32_t events) {
  if (again) Hide(sight);
  epoll_event event{.events = events, .data = {.fd = fd_}};
  return epoll_ctl(sight, EPOLL_CTL_ADD, fd_, &event) == 0 ? 0 : errno;
}

int EpollSights::Show(int sight, bool again) { return Add(sight, again, kAwake); }

int EpollSights::ShowAsleep(int sight, bool again) { return Add(sight, again, 0); }

// The set cannot have found the listener ready before, because that was added for no event. If it
// was taken out meanwhile, this fails, and that is all.
void EpollSights::Wake(int sight, int listener) {
  epoll_event event{.events = kAwake, .data = {.fd = listener}};
  epoll_ctl(sight, EPOLL_CTL_MOD, listener, &event);
}

void EpollSights::Hide(int sight) {
  epoll_event event{};
  epoll_ctl(sight, EPOLL_CTL_DEL, fd_, &event);
}

int EpollSights::Waiting() { return ring::BacklogOf(fd_).length; }

void EpollSights::Yield() { sched_yield(); }

void EpollSights::CallMaster() { master_->Knock(); }

bool AimedSource::SetListener(int number, uint64_t file, uint64_t owner) {
  listener = ring::OwnDescriptor(fcntl(number, F_DUPFD_CLOEXEC, 0), owner);
  sights.SetListener(number, file, listener.get());
  return listener.get() >= 0;
}

bool EpollSights::Gone() { return file_ != 0 && ring::FileOf(number_) != file_; }

}  // namespace ringmaster::internal
