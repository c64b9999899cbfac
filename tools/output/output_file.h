// The files that a measurement or a simulation leaves behind: whole, or as they were before.

#ifndef RINGMASTER_TOOLS_OUTPUT_OUTPUT_FILE_H_
#define RINGMASTER_TOOLS_OUTPUT_OUTPUT_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace ringmaster::output {

// Whether two paths are those of one file, which need not exist.
bool IsSameFile(const std::string& a, const std::string& b);

// Makes the folder of a file that is to be written, and finds out whether it can be. Leaves nothing
// but the folder, and what is in the file as it is.
absl::Status PrepareFile(const std::string& path);

// Writes a file beside the target and lets it take its place when it is complete. What is no
// regular file (a pipe, /dev/stdout) is written to as it is.
absl::Status WriteFile(const std::string& path, const std::string& text);

}  // namespace ringmaster::output

#endif  // RINGMASTER_TOOLS_OUTPUT_OUTPUT_FILE_H_
