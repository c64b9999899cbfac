// The main function of every test binary. It is like GoogleTest's own, but a run in which every
// test that ran was skipped exits with 77. Meson reports that as skipped instead of passed. At the
// end it says which features were missing.

#include <gtest/gtest.h>

#include <cstdio>
#include <set>
#include <string>

namespace {

constexpr int kSkipped = 77;  // what Meson and Automake take for "skipped"

// Remembers why tests were skipped; each reason once.
class SkipReasons : public testing::EmptyTestEventListener {
 public:
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (result.skipped()) reasons_.insert(result.message());
  }
  void Print() const {
    for (const std::string& reason : reasons_) {
      const char* text = reason.empty() ? "(no reason given)" : reason.c_str();
      std::printf("skipped because: %s\n", text);
    }
  }

 private:
  std::set<std::string> reasons_;
};

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  auto* reasons = new SkipReasons;
  testing::UnitTest& unit_test = *testing::UnitTest::GetInstance();
  unit_test.listeners().Append(reasons);  // the listeners own it from now on
  const int result = RUN_ALL_TESTS();
  reasons->Print();
  const bool all_skipped = unit_test.skipped_test_count() > 0 &&
                           unit_test.skipped_test_count() == unit_test.test_to_run_count();
  return result == 0 && all_skipped ? kSkipped : result;
}
