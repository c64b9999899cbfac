#include "output/svg.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace ringmaster::output {
namespace {

// A coordinate.
std::string N(double value) { return absl::StrFormat("%.1f", value); }

// To 1, 2 or 5 times a power of ten.
double Round(double value, bool up) {
  const double power = std::pow(10, std::floor(std::log10(value)));
  const double digit = value / power;
  if (up) return power * (digit <= 1 ? 1 : digit <= 2 ? 2 : digit <= 5 ? 5 : 10);
  return power * (digit >= 5 ? 5 : digit >= 2 ? 2 : 1);
}

const char* AnchorName(Anchor anchor) {
  switch (anchor) {
    case Anchor::kStart:
      return "start";
    case Anchor::kMiddle:
      return "middle";
    case Anchor::kEnd:
      return "end";
  }
  return "";
}

std::string Copy(std::string_view text) { return std::string(text); }

}  // namespace

std::string EscapeHtml(std::string_view text) {
  return absl::StrReplaceAll(Copy(text), {{"&", "&amp;"},
                                          {"<", "&lt;"},
                                          {">", "&gt;"},
                                          {"\"", "&quot;"},
                                          {" %", "&#160;%"},
                                          {" ms", "&#160;ms"},
                                          {" µs", "&#160;µs"}});
}

Svg::Svg(double width, double height, std::string_view label) {
  head_ = absl::StrCat("viewBox=\"0 0 ", N(width), " ", N(height), "\" role=\"img\" aria-label=\"",
                       EscapeHtml(label), "\">\n");
}

void Svg::Text(double x, double y, Anchor anchor, std::string_view classes, std::string_view text) {
  absl::StrAppend(&text_, "<text x=\"", N(x), "\" y=\"", N(y), "\" text-anchor=\"",
                  AnchorName(anchor), "\" class=\"", Copy(classes), "\">", EscapeHtml(text),
                  "</text>\n");
}

void Svg::Line(double x1, double y1, double x2, double y2, std::string_view classes) {
  absl::StrAppend(&text_, "<line x1=\"", N(x1), "\" y1=\"", N(y1), "\" x2=\"", N(x2), "\" y2=\"",
                  N(y2), "\" class=\"", Copy(classes), "\"/>\n");
}

void Svg::Box(double x, double y, double width, double height, std::string_view classes,
              std::string_view title) {
  absl::StrAppend(&text_, "<rect x=\"", N(x), "\" y=\"", N(y), "\" width=\"",
                  N(std::max(width, 0.0)), "\" height=\"", N(height), "\" rx=\"2\" class=\"",
                  Copy(classes), "\"");
  Close("rect", title);
}

void Svg::Circle(double x, double y, double radius, std::string_view classes,
                 std::string_view title) {
  absl::StrAppend(&text_, "<circle cx=\"", N(x), "\" cy=\"", N(y), "\" r=\"", N(radius),
                  "\" class=\"", Copy(classes), "\"");
  Close("circle", title);
}

void Svg::Diamond(double x, double y, double reach, std::string_view classes,
                  std::string_view title) {
  absl::StrAppend(&text_, "<path d=\"M", N(x), " ", N(y - reach), "L", N(x + reach), " ", N(y), "L",
                  N(x), " ", N(y + reach), "L", N(x - reach), " ", N(y), "Z\" class=\"",
                  Copy(classes), "\"");
  Close("path", title);
}

void Svg::Close(std::string_view element, std::string_view title) {
  if (title.empty()) {
    text_ += "/>\n";
  } else {
    absl::StrAppend(&text_, "><title>", EscapeHtml(title), "</title></", Copy(element), ">\n");
  }
}

std::string Svg::End() { return absl::StrCat("<svg ", head_, text_, "</svg>\n"); }

std::string Svg::EndAsFile(std::string_view style) {
  return absl::StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" ", head_, "<style>", Copy(style),
                      "</style>\n", text_, "</svg>\n");
}

LinearAxis::LinearAxis(double high, double left, double right)
    : high_(high > 0 ? high : 1), left_(left), right_(right) {}

LogAxis::LogAxis(double low, double high, double left, double right)
    : low_(std::log10(Round(low * 0.8, false))),
      high_(std::log10(Round(high * 1.2, true))),
      left_(left),
      right_(right) {}

double LogAxis::X(double value) const {
  return left_ + (std::log10(value) - low_) / (high_ - low_) * (right_ - left_);
}

std::vector<double> LogAxis::Marks() const {
  std::vector<double> marks;
  const bool many = high_ - low_ > 2.8;
  for (int exponent = static_cast<int>(std::floor(low_)); exponent <= std::ceil(high_);
       ++exponent) {
    for (const double digit : {1.0, 2.0, 5.0}) {
      const double value = digit * std::pow(10, exponent);
      const double at = std::log10(value);
      if (at < low_ - 1e-9 || at > high_ + 1e-9 || (many && digit != 1)) continue;
      marks.push_back(value);
    }
  }
  return marks;
}

}  // namespace ringmaster::output
