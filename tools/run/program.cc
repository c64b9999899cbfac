#include "run/program.h"

#include <elf.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace ringmaster::run {
namespace {

// As deep as the kernel follows scripts.
constexpr int kInterpretersMax = 5;

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#elif defined(__riscv)
constexpr uint16_t kMachine = EM_RISCV;
#else
#error "say which machine this is (e_machine of elf.h)"
#endif

template <typename T>
bool ReadAt(std::ifstream& file, uint64_t offset, T& into) {
  file.clear();
  file.seekg(static_cast<std::streamoff>(offset));
  return static_cast<bool>(file.read(reinterpret_cast<char*>(&into), sizeof(into)));
}

std::string OfElf(const std::string& path, std::ifstream& file) {
  Elf64_Ehdr header{};
  if (!ReadAt(file, 0, header)) return absl::StrCat(path, " is cut off");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != kMachine) {
    return absl::StrCat(path,
                        " is for another kind of processor than ringmaster-run, so nothing "
                        "can be loaded into it");
  }
  bool interpreted = false;
  for (uint32_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr part{};
    if (!ReadAt(file, header.e_phoff + uint64_t{i} * sizeof(part), part)) break;
    interpreted |= part.p_type == PT_INTERP;
  }
  // Names of sections, to know Go by them.
  Elf64_Shdr names{};
  bool go = false;
  if (header.e_shoff != 0 &&
      ReadAt(file, header.e_shoff + uint64_t{header.e_shstrndx} * sizeof(names), names)) {
    std::string text(std::min<uint64_t>(names.sh_size, 1 << 16), '\0');
    file.clear();
    file.seekg(static_cast<std::streamoff>(names.sh_offset));
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    go = text.find(".go.buildinfo") != std::string::npos;
  }
  if (go) {
    return absl::StrCat(path,
                        " is a Go program: it asks the kernel itself, without the C library, "
                        "so nothing that is loaded into it is asked");
  }
  if (!interpreted) {
    return absl::StrCat(path,
                        " is a static program, so nothing can be loaded into it: use one that "
                        "is linked dynamically");
  }
  return "";
}

}  // namespace

std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return access(name.c_str(), X_OK) == 0 ? name : "";
  const char* const path = std::getenv("PATH");
  for (const absl::string_view folder :
       absl::StrSplit(path != nullptr ? path : "/usr/local/bin:/usr/bin:/bin", ':')) {
    std::string candidate = absl::StrCat(folder.empty() ? "." : folder, "/", name);
    struct stat info {};
    if (stat(candidate.c_str(), &info) == 0 && S_ISREG(info.st_mode) &&
        access(candidate.c_str(), X_OK) == 0) {
      return candidate;
    }
  }
  return "";
}

std::string WhyUnreachable(const std::string& path) {
  std::string program = path;
  for (int depth = 0; depth < kInterpretersMax; ++depth) {
    struct stat info {};
    if (stat(program.c_str(), &info) != 0) return "";
    std::ifstream file(program, std::ios::binary);
    char begin[256] = {};
    file.read(begin, sizeof(begin) - 1);
    if (std::memcmp(begin, "#!", 2) == 0) {
      // Of the script itself the kernel asks nothing more.
      std::istringstream line(std::string(begin + 2, std::find(begin + 2, std::end(begin), '\n')));
      std::string word;
      line >> word;
      if (word.size() >= 4 && word.substr(word.size() - 4) == "/env") {
        while (line >> word && (word.front() == '-' || word.find('=') != std::string::npos))
          continue;
      }
      const std::string found = FindProgram(word);
      if (found.empty()) return "";
      program = found;
      continue;
    }
    const bool privileged =
        ((info.st_mode & S_ISUID) != 0 && info.st_uid != geteuid()) ||
        ((info.st_mode & S_ISGID) != 0 && info.st_gid != getegid()) ||
        (geteuid() != 0 && getxattr(program.c_str(), "security.capability", nullptr, 0) > 0);
    if (privileged) {
      return absl::StrCat(program,
                          " gets privileges when it is started (set-user-ID, set-group-ID "
                          "or file capabilities), and the system loads nothing into such a "
                          "program: start ringmaster-run with these privileges instead");
    }
    if (std::memcmp(begin, ELFMAG, SELFMAG) != 0) return "";
    return OfElf(program, file);
  }
  return "";
}

}  // namespace ringmaster::run
