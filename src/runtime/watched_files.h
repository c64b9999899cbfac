// The files that the sources of a balancer watch. No file is watched twice, and a descriptor that
// was closed, whose number is another file's by now, is not taken for the source.

#ifndef RINGMASTER_SRC_RUNTIME_WATCHED_FILES_H_
#define RINGMASTER_SRC_RUNTIME_WATCHED_FILES_H_

#include <cstdint>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/descriptor.h"

namespace ringmaster::internal {

// A source is entered before it is added, and stays until it has been removed, so that nobody adds
// it a second time meanwhile. It is known here by a number of its own, which is never used again:
// its descriptor's number may be that of another source by the time it is removed.
//
// Any thread.
class WatchedFiles {
 public:
  explicit WatchedFiles(uint32_t masters) : masters_(masters) {}
  WatchedFiles(const WatchedFiles&) = delete;
  WatchedFiles& operator=(const WatchedFiles&) = delete;

  struct Entered {
    uint64_t number;
    uint32_t master;
  };
  // For the master that was asked for, or, if that is -1, for the one with the fewest sources.
  // AlreadyExists if the file is watched.
  absl::StatusOr<Entered> Enter(int fd, int master);
  // The source was added, and users know it by `index`.
  void Confirm(uint64_t number, uint32_t index);
  // The source was removed, or could not be added.
  void Remove(uint64_t number);
  // Nothing is watched any more, and whoever owns the descriptors may close them.
  void RemoveAll();
  // Whether the source's descriptor is still what was entered. A source that is not here any more
  // is none of its business: its master says what has become of it.
  absl::Status CheckOpen(uint64_t number);

 private:
  struct Entry {
    uint64_t number = 0;
    FileId file;
    uint32_t master = 0;
    bool added = false;
    uint32_t index = 0;  // public, once added
  };
  // With the mutex. Null: it is not here.
  Entry* Find(uint64_t number);

  const uint32_t masters_;
  std::mutex mutex_;
  // Guarded by mutex_.
  std::vector<Entry> entries_;
  uint64_t entered_ = 0;  // ever
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_RUNTIME_WATCHED_FILES_H_
