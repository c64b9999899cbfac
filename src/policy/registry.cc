// Policies by the names that command lines and configuration files use: NAME or NAME:PARAMETER.
// Set-up only; may allocate.

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "ringmaster/policy.h"

namespace ringmaster {
namespace {

using PolicyOr = absl::StatusOr<std::unique_ptr<Policy>>;

constexpr std::array<std::string_view, 5> kNames = {"round-robin", "exclusive", "exclusive-fifo",
                                                    "affinity-cpu", "least-loaded"};

// What people may write who know it from elsewhere, where spelling would not lead to the right one.
constexpr std::array<std::pair<std::string_view, std::string_view>, 7> kOtherWords = {{
    {"exclusive-lifo", "exclusive"},
    {"lifo", "exclusive"},
    {"fifo", "exclusive-fifo"},
    {"rr", "round-robin"},
    {"affinity", "affinity-cpu"},
    {"least-connections", "least-loaded"},
    {"leastconn", "least-loaded"},
}};

// A longer name is nobody's slip of the pen; it bounds the work of EditDistance.
constexpr size_t kGuessedNameSizeMax = 32;

// Characters to insert, remove or replace to turn `a` into `b`.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// The name that was probably meant; empty when none is near.
std::string_view GuessName(std::string_view name) {
  if (name.size() > kGuessedNameSizeMax) return {};
  std::string plain(name);
  absl::AsciiStrToLower(&plain);
  std::replace(plain.begin(), plain.end(), '_', '-');
  for (const auto& [other_word, known] : kOtherWords) {
    if (plain == other_word) return known;
  }
  std::string_view nearest;
  size_t distance_min = kGuessedNameSizeMax;
  for (const std::string_view known : kNames) {
    const size_t distance = EditDistance(plain, known);
    if (distance <= known.size() / 4 && distance < distance_min) {
      nearest = known;
      distance_min = distance;
    }
  }
  return nearest;
}

// In quotes, harmless to show whatever it holds. Takes a std::string on its way, because an Abseil
// may have a string_view of its own.
std::string Quoted(std::string_view text) {
  return '"' + absl::Utf8SafeCEscape(std::string(text)) + '"';
}

absl::Status UnknownName(std::string_view name) {
  std::string text = "There is no policy " + Quoted(name);
  const std::string_view guess = GuessName(name);
  text += guess.empty() ? "." : "; did you mean " + Quoted(guess) + "?";
  const char* separator = " Known are ";
  for (const std::string_view known : kNames) {
    text.append(separator).append(known);
    separator = ", ";
  }
  text += "; affinity-cpu takes a parameter, as in affinity-cpu:8.";
  return absl::InvalidArgumentError(text);
}

PolicyOr MakeAffinityCpu(std::optional<std::string_view> parameter) {
  if (!parameter.has_value()) return AffinityCpu();
  AffinityCpuOptions options;
  const char* const end = parameter->data() + parameter->size();
  const auto [parsed_end, error] = std::from_chars(parameter->data(), end, options.slack);
  if (error != std::errc() || parsed_end != end) {
    return absl::InvalidArgumentError(
        "The slack of policy affinity-cpu must be a whole number from 0 to 4294967295, as in "
        "affinity-cpu:8; it is " +
        Quoted(*parameter) + ".");
  }
  return AffinityCpu(options);
}

PolicyOr MakePlain(std::string_view name) {
  if (name == "round-robin") return RoundRobin();
  if (name == "exclusive") return Exclusive(WakeOrder::kLifo);
  if (name == "exclusive-fifo") return Exclusive(WakeOrder::kFifo);
  return LeastLoaded();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> PolicyByName(std::string_view name) {
  const size_t colon = name.find(':');
  const std::string_view base = name.substr(0, colon);
  std::optional<std::string_view> parameter;
  if (colon != std::string_view::npos) parameter = name.substr(colon + 1);

  if (std::find(kNames.begin(), kNames.end(), base) == kNames.end()) return UnknownName(base);
  if (base == "affinity-cpu") return MakeAffinityCpu(parameter);
  if (parameter.has_value()) {
    return absl::InvalidArgumentError("Policy " + std::string(base) +
                                      " takes no parameter, but was given " + Quoted(*parameter) +
                                      ".");
  }
  return MakePlain(base);
}

std::span<const std::string_view> PolicyNames() { return kNames; }

}  // namespace ringmaster
