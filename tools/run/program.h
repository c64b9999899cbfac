// Whether a program can be reached by a library that is loaded into it.

#ifndef RINGMASTER_TOOLS_RUN_PROGRAM_H_
#define RINGMASTER_TOOLS_RUN_PROGRAM_H_

#include <string>

namespace ringmaster::run {

// Where the command `name` is found, as execvp finds it; empty: nowhere.
std::string FindProgram(const std::string& name);

// Why the program cannot be reached, in one sentence; empty if nothing speaks against it. Of a
// script, that of its interpreter.
std::string WhyUnreachable(const std::string& path);

}  // namespace ringmaster::run

#endif  // RINGMASTER_TOOLS_RUN_PROGRAM_H_
