#include "output/suggest.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"

namespace ringmaster::output {

size_t EditDistance(std::string_view a, std::string_view b) {
  // By dynamic programming over the prefixes of both.
  std::vector<std::vector<size_t>> distance(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) distance[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) distance[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = distance[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      size_t least = std::min({distance[i - 1][j] + 1, distance[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        least = std::min(least, distance[i - 2][j - 2] + 1);
      }
      distance[i][j] = least;
    }
  }
  return distance[a.size()][b.size()];
}

std::string DidYouMean(std::string_view name, std::span<const std::string> known) {
  // A third of it may be wrong; beyond that a guess is a distraction.
  size_t nearest = name.size() / 3 + 1;
  const std::string* found = nullptr;
  for (const std::string& candidate : known) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < nearest) {
      nearest = distance;
      found = &candidate;
    }
  }
  return found == nullptr ? "" : absl::StrCat("; did you mean ", *found, "?");
}

}  // namespace ringmaster::output
