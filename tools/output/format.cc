#include "output/format.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace ringmaster::output {
namespace {

std::string ThreeDigits(double value) {
  const int digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return FormatFixed(value, digits);
}

}  // namespace

std::string FormatUs(double us) {
  // The limits are where rounding to three digits gives 1000 of the smaller unit.
  if (us < 999.5) return absl::StrCat(ThreeDigits(us), " µs");
  if (us < 999.5e3) return absl::StrCat(ThreeDigits(us / 1e3), " ms");
  return absl::StrCat(ThreeDigits(us / 1e6), " s");
}

std::string FormatCount(double count) {
  std::string text = absl::StrCat(std::llround(count));
  const size_t first = text.starts_with('-') ? 1 : 0;
  for (size_t at = text.size(); at > first + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string FormatShare(double share) { return absl::StrCat(std::lround(share * 100), " %"); }

std::string FormatFixed(double value, int digits) { return absl::StrFormat("%.*f", digits, value); }

std::string FormatMinutes(int64_t ns) {
  constexpr int64_t kSecond = 1'000'000'000;
  const int64_t seconds = (ns + kSecond / 2) / kSecond;
  return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
}

}  // namespace ringmaster::output
