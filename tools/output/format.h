// How figures are written for people, the same in the terminal and in the page.

#ifndef RINGMASTER_TOOLS_OUTPUT_FORMAT_H_
#define RINGMASTER_TOOLS_OUTPUT_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string>

namespace ringmaster::output {

// With three significant digits and the unit that suits: "88.1 µs", "1.24 ms", "2.00 s".
std::string FormatUs(double us);

// Rounded, with a comma between thousands: "38,364".
std::string FormatCount(double count);

// "62 %".
std::string FormatShare(double share);

// With `digits` after the point.
std::string FormatFixed(double value, int digits);

// "1:05".
std::string FormatMinutes(int64_t ns);

// A dash when it is missing, else what `format` makes of it.
template <typename Format>
std::string FormatFigure(const std::optional<double>& figure, Format format) {
  return figure.has_value() ? format(*figure) : std::string("–");
}

}  // namespace ringmaster::output

#endif  // RINGMASTER_TOOLS_OUTPUT_FORMAT_H_
