// Tests that pass, fail and skip on purpose; test_main_test.sh picks some and looks at the exit
// status that main makes of them.

#include <gtest/gtest.h>

namespace {

TEST(Sample, Passes) {}
TEST(Sample, Fails) { FAIL() << "on purpose"; }
TEST(Sample, SkipsForWantOfWings) { GTEST_SKIP() << "this machine has no wings"; }
TEST(Sample, SkipsForWantOfGills) { GTEST_SKIP() << "this machine has no gills"; }

}  // namespace
