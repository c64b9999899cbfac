// Every text names the errno, its cause and a remedy that fits the facts.

#include "ring/errors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "sockets.h"

namespace ringmaster::ring {
namespace {

constexpr char kIoUringTarget[] = "anon_inode:[io_uring]";

ErrorFacts SomeFacts() {
  return {.fd = 7,
          .fd_target = "socket:[4711]",
          .io_uring_disabled = 0,
          .seccomp = 0,
          .descriptors_used = 1021,
          .descriptors_max = 1024,
          .locked_memory_bytes = 65536,
          .processes_max = 333,
          .kernel_release = "6.1.0-sample"};
}

// Whether the status has this code and each of the texts.
void Expect(const absl::Status& status, absl::StatusCode code,
            const std::vector<std::string>& texts) {
  EXPECT_EQ(status.code(), code) << status;
  for (const std::string& text : texts) {
    EXPECT_NE(std::string(status.message()).find(text), std::string::npos)
        << text << " is missing in: " << status;
  }
}

TEST(Errors, BlameTheSysctlWhenItForbidsIoUring) {
  ErrorFacts facts = SomeFacts();
  facts.seccomp = 2;
  facts.io_uring_disabled = 2;
  Expect(DescribeError(Operation::kCreateRing, EPERM, facts), absl::StatusCode::kPermissionDenied,
         {"cannot create an io_uring", "EPERM", "kernel.io_uring_disabled=2",
          "sudo sysctl kernel.io_uring_disabled=0"});
  facts.io_uring_disabled = 1;
  Expect(DescribeError(Operation::kCreateRing, EPERM, facts), absl::StatusCode::kPermissionDenied,
         {"kernel.io_uring_disabled=1", "kernel.io_uring_group"});
}

TEST(Errors, BlameAFilterOtherwise) {
  ErrorFacts facts = SomeFacts();
  facts.seccomp = 2;
  Expect(DescribeError(Operation::kCreateRing, EPERM, facts), absl::StatusCode::kPermissionDenied,
         {"Seccomp: 2", "--security-opt seccomp=unconfined", "io_uring_setup"});
  facts.seccomp = 0;
  Expect(DescribeError(Operation::kCreateRing, EPERM, facts), absl::StatusCode::kPermissionDenied,
         {"Seccomp: 0", "SELinux", "audit log"});
  Expect(DescribeError(Operation::kCreateRing, EPERM, ErrorFacts{}),
         absl::StatusCode::kPermissionDenied, {"seccomp", "sysctl kernel.io_uring_disabled"});
}

TEST(Errors, ExplainWhyARingCannotBeCreated) {
  const ErrorFacts facts = SomeFacts();
  Expect(DescribeError(Operation::kCreateRing, ENOSYS, facts), absl::StatusCode::kUnimplemented,
         {"ENOSYS", "6.1.0-sample", "CONFIG_IO_URING=y"});
  Expect(DescribeError(Operation::kCreateRing, ENOMEM, facts), absl::StatusCode::kResourceExhausted,
         {"ENOMEM", "RLIMIT_MEMLOCK 65536", "ulimit -l unlimited"});
  Expect(DescribeError(Operation::kCreateRing, EMFILE, facts), absl::StatusCode::kResourceExhausted,
         {"EMFILE", "RLIMIT_NOFILE 1024, 1021 used", "ulimit -n"});
  Expect(DescribeError(Operation::kCreateRing, ENFILE, facts), absl::StatusCode::kResourceExhausted,
         {"ENFILE", "fs.file-max"});
  Expect(DescribeError(Operation::kCreateRing, EINVAL, facts), absl::StatusCode::kUnimplemented,
         {"EINVAL", "6.1.0-sample", "Run Linux"});
  Expect(DescribeError(Operation::kRestrictRing, EACCES, facts),
         absl::StatusCode::kPermissionDenied, {"restrict", "EACCES"});
  Expect(DescribeError(Operation::kEnableRing, EPERM, facts), absl::StatusCode::kPermissionDenied,
         {"enable", "EPERM"});
}

TEST(Errors, ExplainWhyAMastersRingFails) {
  const ErrorFacts facts = SomeFacts();
  Expect(DescribeError(Operation::kDriveRing, ENOMEM, facts), absl::StatusCode::kResourceExhausted,
         {"cannot be used any more", "memory limit of the control group"});
  Expect(DescribeError(Operation::kDriveRing, EEXIST, facts), absl::StatusCode::kFailedPrecondition,
         {"another thread"});
  Expect(DescribeError(Operation::kDriveRing, EBADFD, facts), absl::StatusCode::kFailedPrecondition,
         {"not been enabled"});
  Expect(DescribeError(Operation::kDriveRing, EBADR, facts), absl::StatusCode::kResourceExhausted,
         {"dropped"});
}

TEST(Errors, TellADisabledRingFromWhatIsNoRing) {
  ErrorFacts facts = SomeFacts();
  Expect(DescribeError(Operation::kDoorbell, EBADFD, facts), absl::StatusCode::kInvalidArgument,
         {"EBADFD", "descriptor 7 (socket:[4711])", "not an io_uring"});
  facts.fd_target = kIoUringTarget;
  Expect(DescribeError(Operation::kDoorbell, EBADFD, facts), absl::StatusCode::kFailedPrecondition,
         {"EBADFD", "IORING_SETUP_R_DISABLED", "io_uring_enable_rings"});
}

TEST(Errors, ExplainWhyADoorbellFails) {
  const ErrorFacts facts = SomeFacts();
  Expect(DescribeError(Operation::kDoorbell, EBADF, facts), absl::StatusCode::kInvalidArgument,
         {"EBADF", "not open", "ring_fd"});
  Expect(DescribeError(Operation::kDoorbell, EINVAL, facts), absl::StatusCode::kUnimplemented,
         {"IORING_OP_MSG_RING", "5.18"});
  Expect(DescribeError(Operation::kDoorbell, EOWNERDEAD, facts),
         absl::StatusCode::kFailedPrecondition, {"has ended"});
  Expect(DescribeError(Operation::kDoorbell, EOVERFLOW, facts),
         absl::StatusCode::kResourceExhausted, {"completion queue"});
  Expect(DescribeError(Operation::kDoorbell, ENOMEM, facts), absl::StatusCode::kResourceExhausted,
         {"no memory"});
}

TEST(Errors, ExplainWhyASourceCannotBeUsed) {
  const ErrorFacts facts = SomeFacts();
  for (const Operation operation : {Operation::kWatch, Operation::kAccept}) {
    Expect(DescribeError(operation, EINVAL, facts), absl::StatusCode::kFailedPrecondition,
           {"EINVAL", "descriptor 7", "does not listen", "listen()"});
    Expect(DescribeError(operation, ENOTSOCK, facts), absl::StatusCode::kInvalidArgument,
           {"ENOTSOCK", "not a socket"});
    Expect(DescribeError(operation, EOPNOTSUPP, facts), absl::StatusCode::kInvalidArgument,
           {"stream socket"});
    Expect(DescribeError(operation, EBADF, facts), absl::StatusCode::kInvalidArgument,
           {"EBADF", "not open"});
    Expect(DescribeError(operation, EPERM, facts), absl::StatusCode::kPermissionDenied,
           {"regular file"});
    Expect(DescribeError(operation, EACCES, facts), absl::StatusCode::kPermissionDenied,
           {"security module"});
  }
}

TEST(Errors, NameTheLimitThatAcceptingHasReached) {
  ErrorFacts facts = SomeFacts();
  Expect(DescribeError(Operation::kAccept, EMFILE, facts), absl::StatusCode::kResourceExhausted,
         {"cannot accept", "RLIMIT_NOFILE 1024, 1021 used", "ulimit -n", "LimitNOFILE="});
  facts.descriptors_used = 0;
  facts.descriptors_max = kUnlimited;
  Expect(DescribeError(Operation::kAccept, EMFILE, facts), absl::StatusCode::kResourceExhausted,
         {"RLIMIT_NOFILE unlimited)"});
  Expect(DescribeError(Operation::kAccept, ENFILE, facts), absl::StatusCode::kResourceExhausted,
         {"fs.file-max"});
  for (const int error : {ENOMEM, ENOBUFS}) {
    Expect(DescribeError(Operation::kAccept, error, facts), absl::StatusCode::kResourceExhausted,
           {"no memory"});
  }
}

TEST(Errors, ExplainWhyAThreadCannotBeStartedOrBound) {
  const ErrorFacts facts = SomeFacts();
  Expect(DescribeError(Operation::kStartThread, EAGAIN, facts),
         absl::StatusCode::kResourceExhausted, {"RLIMIT_NPROC 333", "pids.max", "ulimit -u"});
  Expect(DescribeError(Operation::kStartThread, EPERM, facts), absl::StatusCode::kPermissionDenied,
         {"EPERM"});
  Expect(DescribeError(Operation::kBindThread, EINVAL, facts), absl::StatusCode::kInvalidArgument,
         {"no such CPU", "Cpus_allowed_list"});
}

TEST(Errors, FallBackToTheErrnoItself) {
  for (const Operation operation :
       {Operation::kCreateRing, Operation::kRestrictRing, Operation::kEnableRing,
        Operation::kDriveRing, Operation::kDoorbell, Operation::kWatch, Operation::kAccept,
        Operation::kMakeDescriptor, Operation::kStartThread, Operation::kBindThread}) {
    Expect(DescribeError(operation, EXDEV, ErrorFacts{}), absl::StatusCode::kInternal,
           {"EXDEV", "Invalid cross-device link"});
    Expect(DescribeError(operation, 4000, ErrorFacts{}), absl::StatusCode::kInternal,
           {"errno 4000"});
  }
}

TEST(Errors, ReadWhatADescriptorIs) {
  const Fd event(eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(ReadErrorFacts(event.get()).fd_target, "anon_inode:[eventfd]");
  EXPECT_EQ(ReadErrorFacts(event.get()).fd, event.get());
  EXPECT_EQ(ReadErrorFacts().fd_target, "");
  EXPECT_EQ(ReadErrorFacts(1 << 20).fd_target, "");
}

TEST(Errors, RecogniseAnIoUring) {
  io_uring ring{};
  if (const int result = io_uring_queue_init(1, &ring, 0); result < 0) {
    GTEST_SKIP() << DescribeError(Operation::kCreateRing, -result, ReadErrorFacts()).ToString();
  }
  EXPECT_EQ(ReadErrorFacts(ring.ring_fd).fd_target, kIoUringTarget);
  io_uring_queue_exit(&ring);
}

// Where /proc has them, as it has on every kernel with io_uring and seccomp.
TEST(Errors, ReadTheFilterOfThisProcess) {
  if (access("/proc/self/status", R_OK) != 0) GTEST_SKIP() << "no /proc";
  EXPECT_GE(ReadErrorFacts().seccomp, 0);
  EXPECT_LE(ReadErrorFacts().seccomp, 2);
  if (access("/proc/sys/kernel/io_uring_disabled", R_OK) != 0) GTEST_SKIP() << "no sysctl";
  EXPECT_GE(ReadErrorFacts().io_uring_disabled, 0);
}

TEST(Errors, CountTheDescriptorsInUse) {
  const uint64_t before = ReadErrorFacts().descriptors_used;
  EXPECT_GE(before, 1u);
  const Fd event(eventfd(0, EFD_CLOEXEC));
  EXPECT_EQ(ReadErrorFacts().descriptors_used, before + 1);
}

// The very situation that the facts are for: not even /proc can be opened any more.
TEST(Errors, ReadWhatCanBeReadWithoutADescriptor) {
  const ErrorFacts before = ReadErrorFacts();
  const NoDescriptorsLeft none;
  const ErrorFacts facts = ReadErrorFacts(0);
  EXPECT_EQ(facts.descriptors_used, 0u);
  EXPECT_LT(facts.descriptors_max, before.descriptors_max);
  EXPECT_EQ(facts.io_uring_disabled, -1);
  EXPECT_EQ(facts.seccomp, -1);
  EXPECT_EQ(facts.kernel_release, before.kernel_release);
}

}  // namespace
}  // namespace ringmaster::ring
