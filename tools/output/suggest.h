// What somebody may have meant who misspelt a name.

#ifndef RINGMASTER_TOOLS_OUTPUT_SUGGEST_H_
#define RINGMASTER_TOOLS_OUTPUT_SUGGEST_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace ringmaster::output {

// How many characters to insert, drop or replace, or neighbours to swap, to make `b` of `a`.
size_t EditDistance(std::string_view a, std::string_view b);

// "; did you mean X?" for the nearest of `known`, or nothing if none is near.
std::string DidYouMean(std::string_view name, std::span<const std::string> known);

}  // namespace ringmaster::output

#endif  // RINGMASTER_TOOLS_OUTPUT_SUGGEST_H_
