#include "c/result.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <initializer_list>
#include <string_view>

#include "ringmaster/ringmaster.h"

namespace ringmaster::c {
namespace {

// Of a fixed size, so that even a lack of memory can be told.
thread_local std::array<char, 1024> last_error{};

void Keep(std::initializer_list<std::string_view> parts) {
  size_t used = 0;
  for (const std::string_view part : parts) {
    const size_t size = std::min(part.size(), last_error.size() - 1 - used);
    std::copy_n(part.data(), size, last_error.data() + used);
    used += size;
  }
  last_error[used] = '\0';
}

}  // namespace

int ErrnoOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return EINVAL;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kCancelled:
      return EBUSY;
    case absl::StatusCode::kNotFound:
      return ENOENT;
    case absl::StatusCode::kAlreadyExists:
      return EEXIST;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return EPERM;
    case absl::StatusCode::kUnimplemented:
      return ENOSYS;
    case absl::StatusCode::kResourceExhausted:
      return ENOBUFS;
    case absl::StatusCode::kDeadlineExceeded:
      return ETIMEDOUT;
    case absl::StatusCode::kUnavailable:
      return EAGAIN;
    case absl::StatusCode::kAborted:
      return ESTALE;
    case absl::StatusCode::kDataLoss:
      return EPROTO;
    default:
      return EIO;
  }
}

int Failed(const absl::Status& why) {
  Keep({std::string_view(why.message().data(), why.message().size())});
  return -ErrnoOf(why.code());
}

int Null(const char* argument) {
  Keep({argument,
        " is null: pass what the function that makes it has stored, or the address of a "
        "variable of yours"});
  return -EINVAL;
}

int NoMemory() {
  Keep({"this process has no memory left"});
  return -ENOMEM;
}

int Threw(const char* what) {
  Keep({"an exception came out of a callback or of the library, which it must not: ", what});
  return -EIO;
}

}  // namespace ringmaster::c

const char* ringmaster_last_error(void) { return ringmaster::c::last_error.data(); }

const char* ringmaster_version(void) { return RINGMASTER_VERSION_STRING; }

uint32_t ringmaster_version_number(void) { return RINGMASTER_VERSION_NUMBER; }
