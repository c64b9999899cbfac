#include "ring/errors.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ring/doorbell.h"

namespace ringmaster::ring {
namespace {

uint64_t SoftLimit(decltype(RLIMIT_NOFILE) resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return 0;
  return limit.rlim_cur == RLIM_INFINITY ? kUnlimited : limit.rlim_cur;
}

// 0 when it cannot be counted, which is so when no descriptor is left to open the directory with.
uint64_t CountDescriptors() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  uint64_t used = 0;
  while (const dirent* entry = readdir(directory)) {
    if (entry->d_name[0] != '.') ++used;
  }
  closedir(directory);
  return used - 1;  // without the directory itself
}

// The beginning of a file, enough for those that are read here; empty when it cannot be read.
std::string ReadBeginning(const char* path) {
  char text[4096];
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  const ssize_t length = read(fd, text, sizeof(text));
  close(fd);
  return length > 0 ? std::string(text, static_cast<size_t>(length)) : std::string();
}

int ReadIoUringDisabled() {
  int value = -1;
  return absl::SimpleAtoi(ReadBeginning("/proc/sys/kernel/io_uring_disabled"), &value) ? value : -1;
}

int ReadSeccomp() {
  constexpr std::string_view kLabel = "\nSeccomp:";
  const std::string status = ReadBeginning("/proc/self/status");
  const size_t label = status.find(kLabel);
  if (label == std::string::npos) return -1;
  const size_t begin = label + kLabel.size();
  int value = -1;
  return absl::SimpleAtoi(status.substr(begin, status.find('\n', begin) - begin), &value) ? value
                                                                                          : -1;
}

std::string ReadTarget(int fd) {
  char target[256];
  const ssize_t length =
      readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), target, sizeof(target));
  return length > 0 ? std::string(target, static_cast<size_t>(length)) : std::string();
}

std::string ErrnoName(int error) {
#ifdef __GLIBC__
  if (const char* name = strerrorname_np(error)) return name;
#endif
  return absl::StrCat("errno ", error);
}

std::string LimitText(uint64_t limit) {
  return limit == kUnlimited ? "unlimited" : absl::StrCat(limit);
}

std::string FdText(const ErrorFacts& facts) {
  if (facts.fd_target.empty()) return absl::StrCat("descriptor ", facts.fd);
  return absl::StrCat("descriptor ", facts.fd, " (", facts.fd_target, ")");
}

std::string Tried(Operation operation, const ErrorFacts& facts) {
  switch (operation) {
    case Operation::kCreateRing:
      return "cannot create an io_uring";
    case Operation::kRestrictRing:
      return "cannot restrict the master's io_uring to the operations that it uses";
    case Operation::kEnableRing:
      return "cannot enable the master's io_uring";
    case Operation::kDriveRing:
      return "the master's io_uring cannot be used any more";
    case Operation::kDoorbell:
      return absl::StrCat("cannot ring the worker's io_uring, ", FdText(facts));
    case Operation::kWatch:
      return absl::StrCat("cannot watch the source, ", FdText(facts));
    case Operation::kAccept:
      return absl::StrCat("cannot accept from the source, ", FdText(facts));
    case Operation::kMakeDescriptor:
      return "cannot make a descriptor";
    case Operation::kStartThread:
      return "cannot start a thread of the balancer";
    case Operation::kBindThread:
      return "cannot bind the master's thread to its CPU";
  }
  return "an operation failed";
}

Cause NotPermitted(const ErrorFacts& facts) {
  constexpr absl::StatusCode kCode = absl::StatusCode::kPermissionDenied;
  constexpr char kContainer[] =
      "Docker and containerd block io_uring by default: run the container with --security-opt "
      "seccomp=unconfined, or with a profile that allows io_uring_setup, io_uring_enter and "
      "io_uring_register";
  if (facts.io_uring_disabled == 2) {
    return {kCode,
            "the sysctl kernel.io_uring_disabled=2 forbids it to everybody. Allow it: sudo sysctl "
            "kernel.io_uring_disabled=0"};
  }
  // With 1, a privileged process or one in the group is let through, yet a filter may refuse it.
  if (facts.io_uring_disabled == 1) {
    return {kCode,
            "the sysctl kernel.io_uring_disabled=1 forbids it to unprivileged processes outside "
            "the group kernel.io_uring_group. Join that group, or allow it: sudo sysctl "
            "kernel.io_uring_disabled=0"};
  }
  if (facts.seccomp == 2) {
    return {kCode, absl::StrCat("a seccomp filter is active in this process (Seccomp: 2) and most "
                                "likely blocks it. ",
                                kContainer)};
  }
  if (facts.seccomp == 0) {
    return {kCode,
            "neither kernel.io_uring_disabled nor a seccomp filter (Seccomp: 0) explains it, so a "
            "security module most likely forbids it. Look for a denial in the audit log (SELinux "
            "class io_uring, or AppArmor) and allow it there"};
  }
  return {kCode,
          absl::StrCat("most likely a seccomp filter, such as a container's, blocks it. ",
                       kContainer, ". If there is none, see sysctl kernel.io_uring_disabled")};
}

Cause OutOfDescriptors(const ErrorFacts& facts) {
  std::string limit = LimitText(facts.descriptors_max);
  if (facts.descriptors_used != 0) absl::StrAppend(&limit, ", ", facts.descriptors_used, " used");
  return {absl::StatusCode::kResourceExhausted,
          absl::StrCat("this process is out of file descriptors (RLIMIT_NOFILE ", limit,
                       "). Raise the limit: ulimit -n 65536, or LimitNOFILE= in a systemd unit")};
}

// What an errno means whatever was tried. False when it says nothing by itself.
bool CommonCause(int error, const ErrorFacts& facts, Cause* cause) {
  switch (error) {
    case EMFILE:
      *cause = OutOfDescriptors(facts);
      return true;
    case ENFILE:
      *cause = {absl::StatusCode::kResourceExhausted,
                "the whole system is out of file descriptors. Raise the limit: sudo sysctl "
                "fs.file-max=…, or find who holds them in /proc/sys/fs/file-nr"};
      return true;
    case ENOMEM:
    case ENOBUFS:
      *cause = {absl::StatusCode::kResourceExhausted,
                "the kernel has no memory for it. Look at the memory limit of the control group "
                "and at what else uses the memory of this machine"};
      return true;
    default:
      return false;
  }
}

bool RingCause(Operation operation, int error, const ErrorFacts& facts, Cause* cause) {
  switch (error) {
    case EPERM:
      *cause = NotPermitted(facts);
      return true;
    case EACCES:
      *cause = {absl::StatusCode::kPermissionDenied,
                "a security module, or a restriction on this ring, forbids it. Look for a denial "
                "in the audit log"};
      return true;
    case ENOSYS:
      *cause = {absl::StatusCode::kUnimplemented,
                absl::StrCat(KernelText(facts),
                             " has no io_uring, or a seccomp profile hides it. Run a kernel with "
                             "CONFIG_IO_URING=y, or a profile that allows io_uring_setup, "
                             "io_uring_enter and io_uring_register")};
      return true;
    case ENOMEM:
      if (operation != Operation::kCreateRing) return false;
      *cause = {absl::StatusCode::kResourceExhausted,
                absl::StrCat("the limit of locked memory is most likely too low (RLIMIT_MEMLOCK ",
                             LimitText(facts.locked_memory_bytes),
                             " bytes; the rings of all processes of this user count). Raise it: "
                             "ulimit -l unlimited, LimitMEMLOCK= in a systemd unit, --ulimit "
                             "memlock=-1 for a container; or ask for fewer completion entries")};
      return true;
    case EINVAL:
      *cause = {absl::StatusCode::kUnimplemented,
                absl::StrCat(KernelText(facts),
                             " does not know a flag that was asked for. Run Linux 6.1 or later")};
      return true;
    case EBADFD:
      *cause = {absl::StatusCode::kFailedPrecondition,
                "the ring has not been enabled. Enable it first, with io_uring_enable_rings"};
      return true;
    case EEXIST:
      *cause = {
          absl::StatusCode::kFailedPrecondition,
          "the ring belongs to the thread that enabled it, and another thread uses it. Use it on "
          "the thread that enabled it only, or make it without IORING_SETUP_SINGLE_ISSUER"};
      return true;
    case EBADR:
      *cause = {absl::StatusCode::kResourceExhausted,
                "the kernel had no memory to keep a completion and dropped it, so the balancer "
                "cannot know any more what it has. Look at the memory limit of the control group, "
                "and create another balancer"};
      return true;
    default:
      return false;
  }
}

bool SourceCause(int error, Cause* cause) {
  switch (error) {
    case EBADF:
      *cause = {absl::StatusCode::kInvalidArgument,
                "it is not open. Keep a source open until the balancer is shut down"};
      return true;
    case EINVAL:
      *cause = {absl::StatusCode::kFailedPrecondition,
                "the socket does not listen, or not any more. Call listen() before it is added, "
                "and do not call shutdown() while it is watched"};
      return true;
    case ESTALE:
      *cause = {absl::StatusCode::kFailedPrecondition,
                "it was closed while it was a source, and its number stands for another file now. "
                "Remove the source before you close its descriptor; what has the number now may be "
                "added when that is done"};
      return true;
    case EDEADLK:
      *cause = {absl::StatusCode::kFailedPrecondition,
                "it has become blocking: O_NONBLOCK belongs to the open file, and another process "
                "or thread that shares it has cleared it. Nobody accepts from it, because a thread "
                "that came too late for a connection would wait for the next one. Set O_NONBLOCK "
                "again; accepting then goes on by itself"};
      return true;
    case ENOTSOCK:
      *cause = {absl::StatusCode::kInvalidArgument,
                "it is not a socket. Pass a listening TCP or Unix stream socket"};
      return true;
    case EOPNOTSUPP:
      *cause = {absl::StatusCode::kInvalidArgument,
                "a socket of this type has no connections to accept. Pass a listening TCP or Unix "
                "stream socket"};
      return true;
    case EPERM:
      *cause = {absl::StatusCode::kPermissionDenied,
                "the kernel forbids it: either a file of this kind cannot be watched (a regular "
                "file is always ready), or a firewall rule or security module refuses. Pass a "
                "listening TCP or Unix stream socket, and look at the audit log"};
      return true;
    case EACCES:
      *cause = {absl::StatusCode::kPermissionDenied,
                "a security module forbids it. Look for a denial in the audit log"};
      return true;
    default:
      return false;
  }
}

bool ThreadCause(Operation operation, int error, const ErrorFacts& facts, Cause* cause) {
  if (error == EAGAIN && operation == Operation::kStartThread) {
    *cause = {
        absl::StatusCode::kResourceExhausted,
        absl::StrCat("no more threads are allowed (RLIMIT_NPROC ", LimitText(facts.processes_max),
                     " for this user, or the pids.max of the control group). Raise it: "
                     "ulimit -u, TasksMax= in a systemd unit, --pids-limit for a container")};
    return true;
  }
  if (error == EINVAL && operation == Operation::kBindThread) {
    *cause = {absl::StatusCode::kInvalidArgument,
              "there is no such CPU, or the cpuset of this process does not contain it. Choose one "
              "of Cpus_allowed_list in /proc/self/status, or -1 for none"};
    return true;
  }
  if (error == EPERM) {
    *cause = {absl::StatusCode::kPermissionDenied,
              "the limits or the security profile of this process forbid it"};
    return true;
  }
  return false;
}

bool SpecificCause(Operation operation, int error, const ErrorFacts& facts, Cause* cause) {
  switch (operation) {
    case Operation::kCreateRing:
    case Operation::kRestrictRing:
    case Operation::kEnableRing:
    case Operation::kDriveRing:
      return RingCause(operation, error, facts, cause);
    case Operation::kDoorbell:
      return DoorbellCause(error, facts, cause);
    case Operation::kWatch:
    case Operation::kAccept:
      return SourceCause(error, cause);
    case Operation::kStartThread:
    case Operation::kBindThread:
      return ThreadCause(operation, error, facts, cause);
    case Operation::kMakeDescriptor:
      return false;
  }
  return false;
}

}  // namespace

std::string KernelText(const ErrorFacts& facts) {
  return facts.kernel_release.empty() ? "this kernel"
                                      : absl::StrCat("this kernel (", facts.kernel_release, ")");
}

ErrorFacts ReadErrorFacts(int fd) {
  ErrorFacts facts;
  facts.fd = fd;
  if (fd >= 0) facts.fd_target = ReadTarget(fd);
  facts.io_uring_disabled = ReadIoUringDisabled();
  facts.seccomp = ReadSeccomp();
  facts.descriptors_used = CountDescriptors();
  facts.descriptors_max = SoftLimit(RLIMIT_NOFILE);
  facts.locked_memory_bytes = SoftLimit(RLIMIT_MEMLOCK);
  facts.processes_max = SoftLimit(RLIMIT_NPROC);
  utsname system{};
  if (uname(&system) == 0) facts.kernel_release = system.release;
  return facts;
}

absl::Status DescribeError(Operation operation, int error, const ErrorFacts& facts) {
  Cause cause;
  if (!SpecificCause(operation, error, facts, &cause) && !CommonCause(error, facts, &cause)) {
    cause.text = std::generic_category().message(error);
  }
  return absl::Status(
      cause.code, absl::StrCat(Tried(operation, facts), ": ", ErrnoName(error), ": ", cause.text));
}

absl::Status ErrorStatus(Operation operation, int error, int fd) {
  return DescribeError(operation, error, ReadErrorFacts(fd));
}

}  // namespace ringmaster::ring
