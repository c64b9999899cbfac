#include "runtime/watched_files.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "ring/errors.h"

namespace ringmaster::internal {
namespace {

absl::Status WasClosed(int fd) { return ring::ErrorStatus(ring::Operation::kWatch, ESTALE, fd); }

}  // namespace

absl::StatusOr<WatchedFiles::Entered> WatchedFiles::Enter(int fd, int master) {
  const absl::StatusOr<FileId> file = FileIdOf(fd);
  if (!file.ok()) return file.status();
  const std::lock_guard lock(mutex_);
  std::vector<uint32_t> sources(masters_);
  for (const Entry& entry : entries_) {
    ++sources[entry.master];
    if (entry.file.fd == fd && IsOther(entry.file, *file)) return WasClosed(entry.file.fd);
    if (!SameFile(entry.file, *file)) continue;
    return absl::AlreadyExistsError(absl::StrCat(
        "descriptor ", fd, " is that of ",
        entry.added ? absl::StrCat("source ", entry.index) : "a source", " (descriptor ",
        entry.file.fd, ") already: a file is watched only once; use that source"));
  }
  const auto fewest = std::min_element(sources.begin(), sources.end()) - sources.begin();
  const auto chosen = static_cast<uint32_t>(master >= 0 ? master : fewest);
  const uint64_t number = ++entered_;
  entries_.push_back({.number = number, .file = *file, .master = chosen});
  return Entered{.number = number, .master = chosen};
}

WatchedFiles::Entry* WatchedFiles::Find(uint64_t number) {
  const auto entry = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& it) { return it.number == number; });
  return entry == entries_.end() ? nullptr : &*entry;
}

void WatchedFiles::Confirm(uint64_t number, uint32_t index) {
  const std::lock_guard lock(mutex_);
  Entry* const entry = Find(number);
  if (entry == nullptr) return;  // the intake has ended meanwhile
  entry->added = true;
  entry->index = index;
}

void WatchedFiles::Remove(uint64_t number) {
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.number == number; });
}

void WatchedFiles::RemoveAll() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
}

absl::Status WatchedFiles::CheckOpen(uint64_t number) {
  const std::lock_guard lock(mutex_);
  const Entry* const entry = Find(number);
  if (entry == nullptr) return absl::OkStatus();
  const absl::StatusOr<FileId> now = FileIdOf(entry->file.fd);
  return !now.ok() || IsOther(entry->file, *now) ? WasClosed(entry->file.fd) : absl::OkStatus();
}

}  // namespace ringmaster::internal
