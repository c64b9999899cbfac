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

constexpr std::array<std::string_view, 9> kNames = {
    "round-robin",   "weighted-round-robin", "exclusive",   "exclusive-fifo", "affinity-cpu",
    "affinity-hash", "least-loaded",         "two-choices", "hermes"};

// Names that people may know from other software, and that spelling would not lead to the right
// one.
constexpr std::array<std::pair<std::string_view, std::string_view>, 20> kOtherWords = {{
    {"exclusive-lifo", "exclusive"},
    {"lifo", "exclusive"},
    {"fifo", "exclusive-fifo"},
    {"rr", "round-robin"},
    {"affinity", "affinity-cpu"},
    {"least-connections", "least-loaded"},
    {"least-conn", "least-loaded"},
    {"leastconn", "least-loaded"},
    {"wrr", "weighted-round-robin"},
    {"weighted", "weighted-round-robin"},
    {"weighted-rr", "weighted-round-robin"},
    {"p2c", "two-choices"},
    {"power-of-two", "two-choices"},
    {"power-of-two-choices", "two-choices"},
    {"random-two", "two-choices"},
    {"hash", "affinity-hash"},
    {"ip-hash", "affinity-hash"},
    {"source-hash", "affinity-hash"},
    {"rendezvous", "affinity-hash"},
    {"sticky", "affinity-hash"},
}};

// A longer name is not a typing error. This bounds the work of EditDistance.
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

// The text in quotes, harmless to show whatever it holds. It becomes a std::string first, because
// Abseil may have a string_view of its own.
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
  text += "; some take parameters, as in weighted-round-robin:4,1,1 and affinity-cpu:8.";
  return absl::InvalidArgumentError(text);
}

// Nothing when `text` is anything but a whole number that `Number` can hold.
template <typename Number>
std::optional<Number> WholeNumber(std::string_view text) {
  Number number{};
  const char* const end = text.data() + text.size();
  const auto [parsed_end, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || parsed_end != end) return std::nullopt;
  return number;
}

// `what` says which parameter it is, and which numbers it may be.
absl::Status NotAWholeNumber(const char* what, std::string_view parameter) {
  return absl::InvalidArgumentError(std::string(what) + "; it is " + Quoted(parameter) + ".");
}

PolicyOr MakeAffinityCpu(std::string_view parameter) {
  const auto slack = WholeNumber<uint32_t>(parameter);
  if (slack.has_value()) return AffinityCpu({.slack = *slack});
  return NotAWholeNumber(
      "The slack of policy affinity-cpu must be a whole number from 0 to 4294967295, as in "
      "affinity-cpu:8",
      parameter);
}

PolicyOr MakeLeastLoaded(std::string_view parameter) {
  if (parameter == "first") return LeastLoaded({.rotate_ties = false});
  return absl::InvalidArgumentError(
      "The parameter of policy least-loaded says which of equals gets the connection; it must be "
      "\"first\", or be left out, and then they take turns; it is " +
      Quoted(parameter) + ".");
}

PolicyOr MakeTwoChoices(std::string_view parameter) {
  const auto seed = WholeNumber<uint64_t>(parameter);
  if (seed.has_value()) return TwoChoices({.seed = *seed});
  return NotAWholeNumber(
      "The seed of policy two-choices must be a whole number from 0 to 18446744073709551615, as in "
      "two-choices:7",
      parameter);
}

PolicyOr MakeHermes(std::string_view parameter) {
  const auto still_ms_max = WholeNumber<uint32_t>(parameter);
  if (still_ms_max.has_value()) return Hermes({.still_ms_max = *still_ms_max});
  return NotAWholeNumber(
      "The parameter of policy hermes says after how many milliseconds without motion a worker "
      "gets no more; it must be a whole number from 0 to 4294967295, as in hermes:5",
      parameter);
}

PolicyOr MakeWeightedRoundRobin(std::string_view parameter) {
  WeightedRoundRobinOptions options;
  for (size_t begin = 0; begin <= parameter.size();) {
    const size_t end = std::min(parameter.find(',', begin), parameter.size());
    const auto weight = WholeNumber<uint32_t>(parameter.substr(begin, end - begin));
    if (!weight.has_value()) {
      return NotAWholeNumber(
          "The weights of policy weighted-round-robin must be whole numbers with commas between "
          "them, that of worker 0 first, as in weighted-round-robin:4,1,1",
          parameter);
    }
    options.weights.push_back(*weight);
    begin = end + 1;
  }
  return WeightedRoundRobin(std::move(options));
}

// `name` is one of kNames; the options are the defaults.
PolicyOr MakePlain(std::string_view name) {
  if (name == "round-robin") return RoundRobin();
  if (name == "weighted-round-robin") return WeightedRoundRobin();
  if (name == "exclusive") return Exclusive(WakeOrder::kLifo);
  if (name == "exclusive-fifo") return Exclusive(WakeOrder::kFifo);
  if (name == "affinity-cpu") return AffinityCpu();
  if (name == "affinity-hash") return AffinityHash();
  if (name == "two-choices") return TwoChoices();
  if (name == "hermes") return Hermes();
  return LeastLoaded();
}

PolicyOr MakeWith(std::string_view name, std::string_view parameter) {
  if (name == "weighted-round-robin") return MakeWeightedRoundRobin(parameter);
  if (name == "affinity-cpu") return MakeAffinityCpu(parameter);
  if (name == "least-loaded") return MakeLeastLoaded(parameter);
  if (name == "two-choices") return MakeTwoChoices(parameter);
  if (name == "hermes") return MakeHermes(parameter);
  return absl::InvalidArgumentError("Policy " + std::string(name) +
                                    " takes no parameter, but was given " + Quoted(parameter) +
                                    ".");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Policy>> PolicyByName(std::string_view name) {
  const size_t colon = name.find(':');
  const std::string_view base = name.substr(0, colon);
  if (std::find(kNames.begin(), kNames.end(), base) == kNames.end()) return UnknownName(base);
  return colon == std::string_view::npos ? MakePlain(base) : MakeWith(base, name.substr(colon + 1));
}

Span<const std::string_view> PolicyNames() { return kNames; }

}  // namespace ringmaster
