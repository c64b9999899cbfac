#include "attack/served.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "attack/clients.h"
#include "attack/things.h"
#include "attack/trace.h"

namespace ringmaster::attack {
namespace {

std::atomic<bool> held[OwnRings::kDescriptorsMax];

void SendAnswer(int fd) {
  if (send(fd, &kAnswerByte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) == 1) return;
  if (errno != EPIPE && errno != ECONNRESET && errno != ENOTCONN)
    Fail("cannot answer on descriptor %d: %s", fd, strerror(errno));
}

}  // namespace

void Hold(int fd) {
  if (fd < 0 || fd >= OwnRings::kDescriptorsMax) Fail("a connection has the descriptor %d", fd);
  if (held[fd].exchange(true)) Fail("descriptor %d was given out twice", fd);
}

void LetGo(int fd) {
  if (!held[fd].exchange(false)) Fail("descriptor %d is not ours", fd);
}

void AnswerAndClose(int fd) {
  SendAnswer(fd);
  LetGo(fd);
  if (close(fd) != 0) Fail("descriptor %d was closed by somebody else", fd);
}

void Answer(Connection connection) {
  SendAnswer(connection.fd());
  LetGo(connection.fd());
}

void CheckFlags(int fd, bool nonblocking, bool close_on_exec) {
  const int status = fcntl(fd, F_GETFL);
  const int descriptor = fcntl(fd, F_GETFD);
  if (status < 0 || descriptor < 0) Fail("descriptor %d is not open", fd);
  if (((status & O_NONBLOCK) != 0) != nonblocking) Fail("descriptor %d: O_NONBLOCK is wrong", fd);
  if (((descriptor & FD_CLOEXEC) != 0) != close_on_exec)
    Fail("descriptor %d: FD_CLOEXEC is wrong", fd);
}

}  // namespace ringmaster::attack
