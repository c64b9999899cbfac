// What happens to a connected descriptor on the server's side. Each is in one hand at a time.

#ifndef RINGMASTER_TESTS_ATTACK_SERVED_H_
#define RINGMASTER_TESTS_ATTACK_SERVED_H_

#include "ringmaster/port.h"

namespace ringmaster::attack {

// This number is a connection of ours from now on; the library must not have given it out twice.
void Hold(int fd);
// It is about to be closed.
void LetGo(int fd);

// Answers and closes a connection that is held.
void AnswerAndClose(int fd);
void Answer(Connection connection);

// The flags of an accepted socket are those that its source was asked for.
void CheckFlags(int fd, bool nonblocking, bool close_on_exec);

}  // namespace ringmaster::attack

#endif  // RINGMASTER_TESTS_ATTACK_SERVED_H_
