// Tests without_io_uring from inside. It exits with 0 if all three io_uring system calls fail with
// the errno named by the argument. Otherwise it exits with 1 and a word on the first that does not.

#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <initializer_list>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const int expected = std::strcmp(argv[1], "EPERM") == 0 ? EPERM : ENOSYS;
  // The arguments are wrong on purpose: a kernel that looks at them creates nothing and answers
  // EFAULT, EBADF or EINVAL.
  for (const long call : {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}) {
    const int seen = syscall(call, -1, nullptr, 0, 0, nullptr, 0) == -1 ? errno : 0;
    if (seen == expected) continue;
    std::printf("system call %ld answers %s, not %s\n", call, std::strerror(seen), argv[1]);
    return 1;
  }
  return 0;
}
