// The Unix socket where a successor asks for the listeners: a file, and who listens there.

#ifndef RINGMASTER_SRC_LISTENERS_MEETING_PLACE_H_
#define RINGMASTER_SRC_LISTENERS_MEETING_PLACE_H_

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ring/process.h"

namespace ringmaster::internal {

// A socket that listens at a path, and which file that was. It goes from one generation to the next
// like the listeners. So there is no moment at which nobody can be asked, or at which two files are
// exchanged.
struct MeetingPlace {
  std::string path;
  ring::OwnDescriptor socket;
  uint64_t device = 0;
  uint64_t inode = 0;

  // Whether the file at the path is this socket's still.
  bool IsThere() const;
  // Removes the file if it is.
  void Remove() const;
};

// InvalidArgument unless `path` can be that of a Unix socket.
absl::Status CheckPath(const std::string& path);

// Makes the socket, for this user alone. A file that is a socket and that nobody listens on is
// replaced. Waits for others that make theirs in the same directory, for a second at most.
absl::StatusOr<MeetingPlace> OpenMeetingPlace(const std::string& path);

// A connection to whoever listens at the path, or -errno. It does not wait: EAGAIN says that too
// many ask at once.
int Meet(const std::string& path);

// Who is at the other end of a connection: the user and the process. For the one who has connected,
// that is who has called listen().
struct Other {
  uid_t user = static_cast<uid_t>(-1);
  pid_t process = 0;
};
Other OtherEndOf(int fd);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_LISTENERS_MEETING_PLACE_H_
