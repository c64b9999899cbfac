// What a descriptor must be to be served as a listener, for all ways by which one can come.

#ifndef RINGMASTER_SRC_LISTENERS_INHERITED_H_
#define RINGMASTER_SRC_LISTENERS_INHERITED_H_

#include <string>

#include "absl/status/status.h"

namespace ringmaster::internal {

// InvalidArgument unless `fd` is a listening stream socket, or a bound datagram socket. `which`
// begins the sentence, such as "descriptor 3".
absl::Status CheckInherited(int fd, const std::string& which);

// Makes a descriptor that was checked close-on-exec and non-blocking.
void MakeOurs(int fd);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_LISTENERS_INHERITED_H_
