// What happens to a process that may open few descriptors, or none.

#ifndef RINGMASTER_TESTS_SUPPORT_DESCRIPTOR_LIMIT_H_
#define RINGMASTER_TESTS_SUPPORT_DESCRIPTOR_LIMIT_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

namespace ringmaster {

// The number that the next descriptor gets: the lowest that is free.
inline int NextDescriptor() {
  const int next = fcntl(0, F_DUPFD_CLOEXEC, 0);
  close(next);
  return next;
}

// While it lives, this process opens no descriptor with the number `limit` or a higher one
// (RLIMIT_NOFILE). Those that are open stay.
class DescriptorLimit {
 public:
  explicit DescriptorLimit(int limit) {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    rlimit tight = before_;
    tight.rlim_cur = static_cast<rlim_t>(limit);
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  }
  DescriptorLimit(const DescriptorLimit&) = delete;
  DescriptorLimit& operator=(const DescriptorLimit&) = delete;
  ~DescriptorLimit() { EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &before_), 0); }

 private:
  rlimit before_{};
};

}  // namespace ringmaster

#endif  // RINGMASTER_TESTS_SUPPORT_DESCRIPTOR_LIMIT_H_
