#include "output/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace ringmaster::output {
namespace {

namespace fs = std::filesystem;

absl::Status CannotWrite(int error, const std::string& path) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot write ", path));
}

// Where the text goes first, and the name that it gets when it is complete.
struct Draft {
  int fd = -1;
  std::string path;    // of the draft; empty: the target itself is written to
  std::string target;  // symbolic links followed
};

// A draft in the target's folder, from where it can be renamed. Where none can be made although the
// target can be written to, as in a folder that belongs to somebody else, the target itself.
absl::StatusOr<Draft> Begin(const std::string& path) {
  std::error_code ignored;
  Draft draft{.target = fs::weakly_canonical(path, ignored).string()};
  if (draft.target.empty()) draft.target = path;
  // One that is missing may be a typing error, so it is not made.
  const fs::path directory = fs::path(path).parent_path();
  if (!directory.empty() && !fs::exists(directory, ignored)) {
    return absl::NotFoundError(absl::StrCat("cannot write ", path, ": there is no directory ",
                                            directory.string(), "; create it first"));
  }
  struct stat before {};
  const bool exists = stat(path.c_str(), &before) == 0;
  // Neither created nor emptied here: nothing changes before there is something to write.
  if (exists) {
    draft.fd = open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (draft.fd < 0) return CannotWrite(errno, path);
    if (!S_ISREG(before.st_mode)) return draft;
  }
  std::string name = (fs::path(draft.target).parent_path() / ".ringmaster-XXXXXX").string();
  const int fd = mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0 && !exists) return CannotWrite(errno, path);
  if (fd < 0) return draft;
  if (exists) close(draft.fd);
  // As it was, or as any new file is.
  const mode_t mask = umask(0);
  umask(mask);
  fchmod(fd, exists ? before.st_mode & 07777 : 0666 & ~mask);
  draft.fd = fd;
  draft.path = name;
  return draft;
}

// The errno of what failed; 0: all is written.
int Write(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t count = write(fd, text.data() + at, text.size() - at);
    if (count < 0 && errno != EINTR) return errno;
    if (count > 0) at += static_cast<size_t>(count);
  }
  return 0;
}

}  // namespace

bool IsSameFile(const std::string& a, const std::string& b) {
  std::error_code error;
  if (fs::equivalent(a, b, error) && !error) return true;
  const fs::path one = fs::weakly_canonical(fs::absolute(a, error), error);
  const fs::path other = fs::weakly_canonical(fs::absolute(b, error), error);
  return !one.empty() && one == other;
}

absl::Status PrepareFile(const std::string& path) {
  const absl::StatusOr<Draft> draft = Begin(path);
  if (!draft.ok()) return draft.status();
  close(draft->fd);
  if (!draft->path.empty()) unlink(draft->path.c_str());
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  const absl::StatusOr<Draft> draft = Begin(path);
  if (!draft.ok()) return draft.status();
  const bool in_place = draft->path.empty();
  int error = Write(draft->fd, text);
  // What was longer before must not show behind the end; of a pipe there is nothing to cut.
  if (error == 0 && in_place && ftruncate(draft->fd, static_cast<off_t>(text.size())) != 0 &&
      errno != EINVAL) {
    error = errno;
  }
  if (close(draft->fd) != 0 && error == 0) error = errno;
  if (!in_place && error == 0 && rename(draft->path.c_str(), draft->target.c_str()) != 0) {
    error = errno;
  }
  if (error == 0) return absl::OkStatus();
  if (!in_place) unlink(draft->path.c_str());
  return CannotWrite(error, path);
}

}  // namespace ringmaster::output
