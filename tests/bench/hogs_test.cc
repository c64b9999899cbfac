#include "bench/hogs.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cerrno>

namespace ringmaster::bench {
namespace {

TEST(Hogs, AreThereUntilTheyAreLetGo) {
  {
    const auto hogs = Hogs::Start(3);
    ASSERT_TRUE(hogs.ok()) << hogs.status();
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), 0);  // none has ended
  }
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // and now there is none
  EXPECT_EQ(errno, ECHILD);
}

TEST(Hogs, MayBeNone) {
  EXPECT_TRUE(Hogs::Start(0).ok());
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);
}

}  // namespace
}  // namespace ringmaster::bench
