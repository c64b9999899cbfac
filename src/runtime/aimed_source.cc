#include "runtime/aimed_source.h"

#include <sched.h>
#include <sys/epoll.h>

#include <cerrno>

#include "ring/translate.h"
#include "runtime/shared.h"

namespace ringmaster::internal {

// Edge-triggered, so that a mailbox can be emptied of what its worker has no permit for (see
// MailboxShared::Empty). For whoever only polls the set, there is no difference.
//
// A listener that stands in the set is taken out and added again. EPOLL_CTL_MOD is not enough: it
// wakes nobody where the set has found the listener ready before and nobody has looked at the set
// since. A multishot poll looks only when it is woken, so that worker would sleep on.
int EpollSights::Show(int sight, bool again) {
  if (again) Hide(sight);
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.fd = fd_}};
  return epoll_ctl(sight, EPOLL_CTL_ADD, fd_, &event) == 0 ? 0 : errno;
}

// It fails only if the listener was closed, and then it stands in no set any more.
void EpollSights::Hide(int sight) {
  epoll_event event{};
  epoll_ctl(sight, EPOLL_CTL_DEL, fd_, &event);
}

int EpollSights::Waiting() { return ring::BacklogOf(fd_).length; }

void EpollSights::Yield() { sched_yield(); }

void EpollSights::CallMaster() { master_->Knock(); }

}  // namespace ringmaster::internal
