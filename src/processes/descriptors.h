// The descriptors that processes share, each under one number in all of them. The kernel knows what
// stands in an epoll set by the file and its number. So whoever takes a listener out of somebody's
// sight must have it under the number by which it was put in.

#ifndef RINGMASTER_SRC_PROCESSES_DESCRIPTORS_H_
#define RINGMASTER_SRC_PROCESSES_DESCRIPTORS_H_

#include <array>

#include "processes/area.h"

namespace ringmaster::processes {

// -1: there is none.
struct Descriptors {
  std::array<int, kSightsMax> sights;
  std::array<int, kSourcesMax> listeners;
  int memory = -1;  // of the area
  int bell = -1;    // an eventfd: the keeper is to look what has changed
  // A pidfd of the keeper's process. It stands in every sight, and is readable when the keeper has
  // died.
  int keeper = -1;

  Descriptors() {
    sights.fill(-1);
    listeners.fill(-1);
  }
};

}  // namespace ringmaster::processes

#endif  // RINGMASTER_SRC_PROCESSES_DESCRIPTORS_H_
