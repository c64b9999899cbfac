// Pictures as SVG, inside a page or as a file of their own: elements as text, and the axes that
// they stand on. Colours and lines are classes of a style, so that they follow light, dark and
// paper.

#ifndef RINGMASTER_TOOLS_OUTPUT_SVG_H_
#define RINGMASTER_TOOLS_OUTPUT_SVG_H_

#include <string>
#include <string_view>
#include <vector>

namespace ringmaster::output {

// For text and attributes, of HTML and XML. A unit stays on the line of its number.
std::string EscapeHtml(std::string_view text);

enum class Anchor { kStart, kMiddle, kEnd };

// One picture. Lengths are units of its own coordinates, which scale with the page.
class Svg {
 public:
  // `label` tells a reader without eyes what it shows.
  Svg(double width, double height, std::string_view label);

  void Text(double x, double y, Anchor anchor, std::string_view classes, std::string_view text);
  void Line(double x1, double y1, double x2, double y2, std::string_view classes);
  // With `title` shown where a pointer rests on it; empty for none.
  void Box(double x, double y, double width, double height, std::string_view classes,
           std::string_view title = {});
  void Circle(double x, double y, double radius, std::string_view classes,
              std::string_view title = {});
  void Diamond(double x, double y, double reach, std::string_view classes,
               std::string_view title = {});

  // The whole element. Call once, last.
  std::string End();

  // Instead of End: the text of a file that needs no page, with a style of its own.
  std::string EndAsFile(std::string_view style);

 private:
  void Close(std::string_view element, std::string_view title);

  std::string head_;
  std::string text_;
};

// A scale from 0 to `high`.
class LinearAxis {
 public:
  LinearAxis(double high, double left, double right);

  double X(double value) const { return left_ + value / high_ * (right_ - left_); }
  double high() const { return high_; }

 private:
  double high_;
  double left_;
  double right_;
};

// A logarithmic scale from a round value below `low` to one above `high`, both positive.
class LogAxis {
 public:
  LogAxis(double low, double high, double left, double right);

  double X(double value) const;

  // The powers of ten within, and the 2 and 5 between them if there are few.
  std::vector<double> Marks() const;

 private:
  double low_;
  double high_;
  double left_;
  double right_;
};

}  // namespace ringmaster::output

#endif  // RINGMASTER_TOOLS_OUTPUT_SVG_H_
