#!/usr/bin/env python3
"""Tests the rules of tidy.py: each is shown a small tree that keeps it and trees that break it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import tidy

GOOD = {
    "include/ringmaster/policy.h": """
// Comments may say anything: #include <mutex>, exit(1), std::atomic.
#ifndef RINGMASTER_POLICY_H_
#define RINGMASTER_POLICY_H_
#include <cstdint>
namespace ringmaster {
class Policy {
 public:
  uint32_t Pick() const;
};
uint32_t Best();
namespace internal {
struct Hidden {
  uint32_t Value() const;
};
}  // namespace internal
}  // namespace ringmaster
#endif  // RINGMASTER_POLICY_H_
""",
    "include/ringmaster/ringmaster.h": """
#ifndef RINGMASTER_RINGMASTER_H_
#define RINGMASTER_RINGMASTER_H_
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
typedef struct ringmaster_lease {
  size_t words[2];
} ringmaster_lease;
typedef struct ringmaster_options {
  size_t struct_size;  // set it
  int (*on_event)(void* context, const ringmaster_lease* lease);
} ringmaster_options;
int ringmaster_options_init(ringmaster_options* options, size_t struct_size);
int ringmaster_version(const ringmaster_options* options);
#ifdef __cplusplus
}
#endif
#endif  // RINGMASTER_RINGMASTER_H_
""",
    "src/c/source.cc": '#include "ringmaster/ringmaster.h"\n#include "c/handles.h"\n',
    "src/policy/first.cc": '#include "ringmaster/policy.h"\n',
    "src/core/inbox.h": """#ifndef RINGMASTER_SRC_CORE_INBOX_H_
#define RINGMASTER_SRC_CORE_INBOX_H_
#include <atomic>
#include "core/op.h"
#include "ringmaster/policy.h"
inline std::atomic<int> word;
#endif
""",
    "src/core/check.cc": "#include <cstdlib>\nvoid Fail() { std::abort(); }\n",
    "src/ring/uring_ring.cc": '#include <liburing.h>\n#include <unistd.h>\n#include "core/op.h"\n',
    "src/runtime/balancer.cc":
        '#include <thread>\n#include "ring/uring_ring.h"\n#include "ringmaster/balancer.h"\n',
    "src/sim/world.cc": '#include "core/op.h"\n#include "policy/first.h"\n#include "sim/world.h"\n',
    "tools/echo/main.cc": '#include "ringmaster/balancer.h"\n#include "options.h"\n',
    "tools/output/svg.cc": '#include "output/svg.h"\n',
    "tools/sim/main.cc": '#include "sim/study.h"\n#include "output/svg.h"\n',
}


class Tidy(unittest.TestCase):
    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="ringmaster-tidy-")
        self.addCleanup(shutil.rmtree, self.root)
        for path, text in GOOD.items():
            self.write(path, text)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

    def assert_keeps(self, check, *others):
        complaints, looked_at = check(self.root, *others)
        self.assertEqual(complaints, [])
        self.assertGreater(looked_at, 0)

    def assert_breaks(self, check, *others, where, says):
        complaints, _ = check(self.root, *others)
        self.assertEqual(len(complaints), 1, complaints)
        self.assertTrue(complaints[0].startswith(where), complaints)
        self.assertIn(says, complaints[0])

    def need(self, *tools):
        for tool in tools:
            if not shutil.which(tool):
                self.skipTest(f"{tool} is not installed")


class Layering(Tidy):
    def breaks(self, path, text, says, line=1):
        self.write(path, text)
        self.assert_breaks(tidy.check_layering, where=f"{path}:{line}:", says=says)

    def test_the_good_tree_keeps_the_rules(self):
        self.assert_keeps(tidy.check_layering)

    def test_a_lower_layer_may_not_include_a_higher_one(self):
        for path, included in (
                ("src/policy/bad.cc", "core/ledger.h"),
                ("src/policy/bad.cc", "ringmaster/port.h"),
                ("src/core/bad.cc", "ring/errors.h"),
                ("src/core/bad.cc", "runtime/balancer.h"),
                ("src/core/bad.cc", "sim/world.h"),
                ("src/core/bad.cc", "policy/registry.h"),
                ("src/core/bad.cc", "ringmaster/balancer.h"),
                ("src/ring/bad.cc", "runtime/master.h"),
                ("src/ring/bad.cc", "sim/world.h"),
                ("src/ring/bad.cc", "ringmaster/balancer.h"),
                ("src/ring/bad.cc", "listeners/words.h"),
                ("src/listeners/bad.cc", "runtime/master.h"),
                ("src/runtime/bad.cc", "listeners/words.h"),
                ("src/runtime/bad.cc", "sim/world.h"),
                ("src/sim/bad.cc", "ring/uring_ring.h"),
                ("src/sim/bad.cc", "runtime/master.h"),
                ("src/c/bad.cc", "core/engine.h"),
                ("src/c/bad.cc", "runtime/master.h"),
                ("include/ringmaster/bad.h", "core/engine.h"),
                ("include/ringmaster/policy.h", "ringmaster/port.h"),
                ("tools/bad.cc", "core/engine.h"),
                ("tools/bad.cc", "output/svg.h"),
                ("tools/sim/bad.cc", "bench/clock.h"),
                ("tools/output/bad.cc", "bench/clock.h"),
                ("tools/sim/bad.cc", "core/engine.h"),
                ("src/sim/bad.cc", "output/svg.h"),
        ):
            with self.subTest(path=path, included=included):
                before = GOOD.get(path)
                self.breaks(path, f'\n#include "{included}"\n', f"may not include {included}", 2)
                if before is None:
                    os.remove(os.path.join(self.root, path))
                else:
                    self.write(path, before)

    def test_angle_brackets_and_spaces_are_no_way_around(self):
        self.breaks("src/core/bad.cc", "  #  include  <ring/errors.h>\n", "ring/errors.h")

    def test_relative_paths_are_no_way_around(self):
        self.breaks("src/core/bad.cc", '#include "../ring/errors.h"\n', "from the root")

    def test_detours_are_no_way_around(self):
        self.write("src/core/bad.cc", '#include "core/../ring/errors.h"\n')
        complaints, _ = tidy.check_layering(self.root)
        self.assertIn("src/core may not include ring/errors.h", "\n".join(complaints))

    def test_an_unknown_folder_is_reported(self):
        self.breaks("src/extra/bad.cc", "\n", "no layer")

    def test_liburing_has_one_door(self):
        for path in ("src/core/bad.cc", "src/runtime/bad.cc", "src/sim/bad.cc",
                     "include/ringmaster/bad.h"):
            with self.subTest(path=path):
                self.breaks(path, "#include <liburing.h>\n", "<liburing.h>")
                os.remove(os.path.join(self.root, path))

    def test_pure_folders_take_no_impure_header(self):
        for header in ("thread", "mutex", "chrono", "random", "unistd.h", "sys/socket.h", "time.h",
                       "condition_variable", "absl/time/clock.h", "absl/synchronization/mutex.h",
                       "absl/container/flat_hash_map.h"):
            for path in ("src/policy/bad.cc", "src/core/bad.cc", "src/sim/bad.cc"):
                with self.subTest(path=path, header=header):
                    self.breaks(path, f"#include <{header}>\n", f"<{header}>")
                    os.remove(os.path.join(self.root, path))

    def test_policy_h_is_pure_too(self):
        self.breaks("include/ringmaster/policy.h", "#include <thread>\n", "<thread>")

    def test_pure_folders_call_nothing_impure(self):
        self.breaks("src/sim/bad.cc", "int a = rand();\n", "pure: rand")

    def test_atomics_live_in_their_files(self):
        self.breaks("src/core/bad.h", "std::atomic<int> a;\n", "atomics live in")
        self.breaks("src/core/bad.h", "void F() { atomic_thread_fence(0); }\n", "atomics live in")


class Manners(Tidy):
    def test_the_good_tree_keeps_the_rules(self):
        self.assert_keeps(tidy.check_manners)

    def test_each_ill_manner_is_reported(self):
        for code in ("exit(1);", "_exit(1);", "std::quick_exit(1);", "std::abort();",
                     "std::terminate();", "assert(true);", "printf(x);", "std::fprintf(file, x);",
                     "puts(x);", "std::cout << 1;", "std::cerr << 1;", "f(stderr);", "f(stdout);",
                     "write(STDERR_FILENO, x, 1);", "perror(x);", "signal(13, x);",
                     "sigaction(13, x, y);"):
            with self.subTest(code=code):
                self.write("src/runtime/bad.cc", f"void F() {{\n  {code}\n}}\n")
                self.assert_breaks(tidy.check_manners, where="src/runtime/bad.cc:2:",
                                   says="library")

    def test_what_only_looks_like_it_is_fine(self):
        self.write("src/runtime/fine.cc",
                   "// exit(1)\n/* abort() */ static_assert(true);\n"
                   'const char* a = "printf(stderr)";\n'
                   "int b = std::snprintf(c, 1, d); on_exit_event(); e.signal(); char f = '\"';\n")
        self.assert_keeps(tidy.check_manners)

    def test_tools_may_print(self):
        self.write("tools/echo/fine.cc", "void F() { std::printf(x); }\n")
        self.assert_keeps(tidy.check_manners)


class Guards(Tidy):
    def test_the_good_tree_keeps_the_rules(self):
        self.assert_keeps(tidy.check_guards)

    def test_a_guard_of_another_name_is_reported(self):
        self.write("src/ring/bad.h", "#ifndef BAD_H\n#define BAD_H\n#endif\n")
        self.assert_breaks(tidy.check_guards, where="src/ring/bad.h:1:",
                           says="RINGMASTER_SRC_RING_BAD_H_")

    def test_pragma_once_is_no_guard(self):
        self.write("bench/bad.h", "// Says what.\n#pragma once\n")
        self.assert_breaks(tidy.check_guards, where="bench/bad.h:2:",
                           says="RINGMASTER_BENCH_BAD_H_")

    def test_an_empty_header_is_reported(self):
        self.write("tests/core/bad.h", "")
        self.assert_breaks(tidy.check_guards, where="tests/core/bad.h:1:", says="#ifndef")

    def test_code_after_the_guard_is_reported(self):
        name = "RINGMASTER_TOOLS_BAD_H_"
        self.write("tools/bad.h", f"#ifndef {name}\n#define {name}\n#endif\nint a;\n")
        self.assert_breaks(tidy.check_guards, where="tools/bad.h:4:", says="must end the file")


class Initialisers(Tidy):
    def test_the_good_tree_keeps_the_rules(self):
        self.assert_keeps(tidy.check_initialisers)

    def test_members_with_initialisers_classes_and_functions_are_no_matter(self):
        self.write("include/ringmaster/fine.h",
                   "struct Options {\n  int a = 0;\n  std::array<int, 4> b{};  // int c;\n"
                   "  std::function<void(int)> d = nullptr;\n  enum class Kind { kOne };\n"
                   "  int E() const { return a; }\n};\nstruct Other;\nclass Handle {\n  int f_;\n};\n")
        self.assert_keeps(tidy.check_initialisers)

    def test_a_member_without_one_is_reported(self):
        self.write("include/ringmaster/bad.h",
                   "struct Options {\n  int a = 0;\n  std::function<void(int)> b;\n};\n")
        self.assert_breaks(tidy.check_initialisers, where="include/ringmaster/bad.h:3:",
                           says="member b")

    def test_one_inside_of_another_struct_is_reported(self):
        self.write("include/ringmaster/bad.h",
                   "struct Map {\n  struct Place {\n    int x;\n  };\n  std::string name = {};\n};\n")
        self.assert_breaks(tidy.check_initialisers, where="include/ringmaster/bad.h:3:", says="member x")


    def test_a_c_struct_that_cannot_grow_is_reported(self):
        self.write(tidy.C_HEADER, "typedef struct ringmaster_totals {\n  int a;\n} ringmaster_totals;\n")
        self.assert_breaks(tidy.check_initialisers, where=f"{tidy.C_HEADER}:1:", says="struct_size")

    def test_a_c_struct_that_is_passed_in_and_has_no_defaults_is_reported(self):
        self.write(tidy.C_HEADER,
                   "\ntypedef struct ringmaster_totals {\n  size_t struct_size;\n} ringmaster_totals;\n"
                   "int ringmaster_add(int a,\n                   const ringmaster_totals* totals);\n")
        self.assert_breaks(tidy.check_initialisers, where=f"{tidy.C_HEADER}:2:",
                           says="ringmaster_totals_init")


class Headers(Tidy):
    def setUp(self):
        super().setUp()
        self.compilers = [name for name in ("c++", "g++", "clang++") if shutil.which(name)][:1]
        if not self.compilers:
            self.skipTest("no C++ compiler is installed")

    def test_the_good_tree_keeps_the_rules(self):
        self.assert_keeps(tidy.check_headers, self.compilers)

    def breaks(self, name, text):
        path = f"include/ringmaster/{name}"
        self.write(path, text)
        self.assert_breaks(tidy.check_headers, self.compilers, where=path, says="compile alone")

    def test_a_header_that_needs_another_one_is_reported(self):
        self.breaks("bad.h", "#pragma once\nstd::string Name();\n")

    def test_a_header_that_cannot_be_included_twice_is_reported(self):
        self.breaks("bad.h", "struct Twice {};\n")

    def test_a_header_with_a_warning_is_reported(self):
        self.breaks("bad.h", "#pragma once\ninline int F(int unused) { return 1; }\n")

    def test_a_header_that_needs_c_20_is_reported(self):
        self.breaks("bad.h", "#pragma once\nstruct A {};\nvoid F(auto a);\n")

    def test_an_adapter_that_needs_c_20_is_reported(self):
        self.breaks("adapters/bad.h", "#pragma once\n#include <cstddef>\nvoid F(auto a);\n")

    def test_an_adapter_whose_library_is_missing_is_left_out(self):
        self.write("include/ringmaster/adapters/good.h", "#pragma once\n#include <no/such.h>\n")
        self.assert_keeps(tidy.check_headers, self.compilers)

    def test_a_header_that_c_20_refuses_is_reported(self):
        self.breaks("bad.h", "#pragma once\nstruct A {\n  int requires = 0;\n};\n")

    def test_a_header_that_converts_in_silence_is_reported(self):
        self.breaks("bad.h", "#pragma once\ninline char F(int a) { return a; }\n")

    def test_the_c_header_must_be_c(self):
        self.breaks("ringmaster.h", "#pragma once\nint ringmaster_f(int& a);\n")

    def test_the_c_header_must_be_c99(self):
        # C11 and C++ take a typedef twice.
        self.breaks("ringmaster.h", "#pragma once\ntypedef int a;\ntypedef int a;\n")

    def test_without_a_compiler_nothing_is_taken_for_checked(self):
        complaints, _ = tidy.check_headers(self.root, ["no-such-compiler"])
        self.assertEqual(len(complaints), 1)


class Documented(Tidy):
    HEADER = """#ifndef RINGMASTER_POLICY_H_
#define RINGMASTER_POLICY_H_

#include <cstdint>

namespace ringmaster {

class Port;

// Decides.
class Policy {
 public:
  Policy() = default;
  ~Policy() = default;

  // Its decision.
  uint32_t Pick() const;
  uint32_t PickAgain() const;

  uint32_t last = 0;  // the decision before
%s
 private:
  uint32_t Hidden() const;

  uint32_t count_ = 0;
};
%s
}  // namespace ringmaster

#endif  // RINGMASTER_POLICY_H_
"""

    def setUp(self):
        super().setUp()
        os.remove(os.path.join(self.root, tidy.C_HEADER))

    def test_comments_above_or_behind_will_do(self):
        self.write("include/ringmaster/policy.h", self.HEADER % ("", ""))
        self.assert_keeps(tidy.check_documented)

    def test_what_has_none_is_reported(self):
        for member, function, says in (("\n  bool held() const;\n", "", "bool held"),
                                       ("\n  uint32_t a = 0;\n  uint32_t b = 0;\n", "", "uint32_t a"),
                                       ("", "\nuint32_t Best();\n", "Best"),
                                       ("", "\nstruct Facts {\n  int a = 0;\n};\n", "Facts")):
            with self.subTest(says=says):
                self.write("include/ringmaster/policy.h", self.HEADER % (member, function))
                self.assert_breaks(tidy.check_documented, where="include/ringmaster/policy.h:", says=says)


class Symbols(Tidy):
    CODE = """
#include <ringmaster/policy.h>
namespace ringmaster {
uint32_t Policy::Pick() const { return 1; }
uint32_t Best() { return 2; }
}  // namespace ringmaster
extern "C" int ringmaster_options_init() { return 3; }
"""
    VERSION = 'extern "C" int ringmaster_version() { return 4; }\n'


    def library(self, more="", version=VERSION, local=""):
        """A shared library, and the archive of what it is made of; `local` it does not export."""
        compilers = [name for name in ("c++", "g++", "clang++") if shutil.which(name)]
        self.need("nm", "ar")
        if not compilers:
            self.skipTest("no C++ compiler is installed")
        self.write("library.cc", self.CODE + version + more)
        self.write("library.map", f'{{ local: {local or "nothing"}; }};')
        path = os.path.join(self.root, "library")
        subprocess.run([compilers[0], "-c", "-fPIC", "-o", path + ".o",
                        "-I" + os.path.join(self.root, "include"), path + ".cc"], check=True)
        subprocess.run([compilers[0], "-shared", "-nostartfiles", "-o", path + ".so", path + ".o",
                        f"-Wl,--version-script={path}.map"], check=True)
        if os.path.exists(path + ".a"):
            os.remove(path + ".a")
        subprocess.run(["ar", "rc", path + ".a", path + ".o"], check=True)
        return path + ".so", path + ".a"

    def test_what_the_public_headers_declare_may_be_exported(self):
        self.assert_keeps(tidy.check_symbols, *self.library())

    def test_anything_else_is_reported(self):
        for more, says in (
                ("namespace ringmaster::core { int Leak() { return 1; } }", "core::Leak"),
                ("namespace ringmaster { uint32_t internal::Hidden::Value() const { return 1; } }",
                 "internal::Hidden"),
                ("namespace ringmaster { int Undeclared() { return 1; } }", "Undeclared"),
                ("int Global() { return 1; }", "Global"),
                ('extern "C" int ringmaster_leak() { return 1; }', "ringmaster_leak"),
                ("int global_variable = 1;", "global_variable"),
                ("namespace absl { int Leak() { return 1; } }", "absl::Leak"),
        ):
            with self.subTest(more=more):
                library, archive = self.library(more)
                self.assert_breaks(tidy.check_symbols, library, archive, where=library, says=says)

    def test_a_public_function_that_is_not_exported_is_reported(self):
        library, archive = self.library(local="_ZN10ringmaster4BestEv")
        self.assert_breaks(tidy.check_symbols, library, archive, where=library,
                           says="does not export ringmaster::Best()")

    def test_a_function_of_the_c_header_that_is_not_there_is_reported(self):
        library, archive = self.library(version="")
        self.assert_breaks(tidy.check_symbols, library, archive, where=library,
                           says="does not export ringmaster_version")


class Format(Tidy):
    def setUp(self):
        super().setUp()
        reason = tidy.missing_tool("format")
        if reason:
            self.skipTest(reason)
        self.write(".clang-format", "BasedOnStyle: Google\nColumnLimit: 100\n")
        for path in GOOD:
            subprocess.run(["clang-format", "-i", path], cwd=self.root, check=True)

    def test_the_good_tree_keeps_the_rules(self):
        self.assert_keeps(tidy.check_format)

    def test_a_badly_laid_out_file_is_reported(self):
        self.write("bench/bad.cc", "int  a ;\n")
        self.assert_breaks(tidy.check_format, where="bench/bad.cc:1:", says="clang-format -i")


class Wrapping(Tidy):
    FULL = "A line that goes on for so long that the next word does not find any room on it, and its"

    def breaks(self, path, text, line):
        self.write(path, text)
        self.assert_breaks(tidy.check_wrapping, where=f"{path}:{line}:", says="middle of a sentence")
        os.remove(os.path.join(self.root, path))

    def keeps(self, path, text):
        self.write(path, text)
        self.assert_keeps(tidy.check_wrapping)
        os.remove(os.path.join(self.root, path))

    def test_the_good_tree_keeps_the_rules(self):
        self.assert_keeps(tidy.check_wrapping)

    def test_a_comment_that_breaks_off_is_reported(self):
        for path, mark in (("src/core/bad.h", "//"), ("tools/echo/bad.cc", "  //"),
                           ("tests/bad.py", "    #"), ("tests/bad.sh", "#"), ("tools/bad", "#"),
                           ("bench/meson.build", "#")):
            with self.subTest(path=path):
                self.breaks(path, f"{mark} {self.FULL}\n{mark} end\n{mark}   stands alone.\n", 2)
                self.breaks(path, f"{mark}   Term   {self.FULL}\n{mark} end\n{mark} alone.\n", 2)
                self.breaks(path, f"\n{mark}   {self.FULL}\n{mark} end,\n{mark} or so.\n", 3)

    def test_a_text_that_breaks_off_is_reported(self):
        self.breaks("src/ring/bad.cc", f'F(1, "{self.FULL} "\n  "end "\n  "stands alone");\n', 2)

    def test_a_sentence_or_a_comment_may_end_anywhere(self):
        for second in ("end.", "end:", "end;", "(end.)", "", "end\n", "end\n//\n// A paragraph."):
            with self.subTest(second=second):
                self.keeps("src/core/fine.h", f"// {self.FULL}\n// {second}\n// More.\n")

    def test_what_is_no_sentence_may_break_off(self):
        self.keeps("src/core/fine.h", f"// {self.FULL}\n// name     meaning\n// other    more\n")
        self.keeps("src/core/fine.h", f"// {self.FULL[:60]}    {self.FULL[60:]}\n// end\n// of all\n")
        self.keeps("src/core/fine.h", "// for (const Source& source : sources) { // a loop that is so "
                                      "long {\n//   if (a)\n//     return;\n")
        self.keeps("src/core/fine.cc", f'F("{self.FULL}\\n"\n  "end\\n"\n  "more");\n')

    def test_other_lines_may_be_short(self):
        # Behind a line that is not full, with a next word that is long, or at another depth.
        self.keeps("src/core/fine.h", "// A line that is not full\n// at all\n// is no matter.\n")
        self.keeps("src/core/fine.h", f"// {self.FULL}\n// end\n// {'word' * 20}\n")
        self.keeps("src/core/fine.h", f"// {self.FULL}\n  // end\n  // is another comment.\n")
        self.keeps("src/core/fine.cc", f'F("{self.FULL}",\n  "end",\n  "another");\n')


class Links(Tidy):
    def setUp(self):
        super().setUp()
        self.write("docs/B.md", "# The first thing\n\n```\n# no heading\n```\n\n## `Two`: more\n")

    def test_what_is_there_may_be_linked_to(self):
        self.write("docs/A.md", "[b](B.md), [policy](../include/ringmaster/policy.h),"
                                " [two](B.md#two-more) and [here](#a)\n\n# A\n\n"
                                "[elsewhere](https://example.org/nothing)\n"
                                "![picture](B.md)\n\n`[code](nowhere.md)`\n")
        self.assert_keeps(tidy.check_links)

    def test_what_is_not_there_is_reported(self):
        for link, says in (("C.md", "not there"), ("B.md#no-heading", "no heading"),
                           ("B.md#three", "no heading")):
            self.write("docs/A.md", f"# A\n\nSee [it]({link}).\n")
            self.assert_breaks(tidy.check_links, where="docs/A.md:3:", says=says)


class Commands(Tidy):
    def setUp(self):
        super().setUp()
        self.build = os.path.join(self.root, "build")
        self.write("build/meson-info/intro-targets.json", json.dumps(
            [{"filename": [os.path.join(self.build, "tools/a/program")]},
             {"filename": [os.path.join(self.build, "tests/b/b_test")]}]))
        self.write("build/meson-info/intro-tests.json", json.dumps([{"name": "tools-a_test"}]))

    def test_what_the_build_has_may_be_run(self):
        self.write("A.md", "Run `build/tools/a/program --help`, or `ninja -C build\n"
                           "tools/a/program tests/b/b_test && build/tests/b/b_test`.\n\n"
                           "    ninja -C build tests/b/b_test\n    build/tests/b/b_test\n"
                           "    ninja -C build\n"
                           "    meson test -C build --no-rebuild -v tools-a_test \\\n"
                           "        --test-args='--gtest_filter=A.*'\n"
                           "    other-program build/demo/report.html\n")
        self.assert_keeps(tidy.check_commands, self.build)

    def test_what_it_does_not_have_is_reported(self):
        for command, says in (("build/tools/a/other", "tools/a/other"),
                              ("ninja -C build tools/a/program tests/c", "tests/c"),
                              ("X=1 meson test -C build tools-other -v", "tools-other"),
                              ("meson test -C build -v \\\n  tools-other", "tools-other")):
            with self.subTest(command=command):
                self.write("A.md", f"# A\n\n    {command}\n")
                self.assert_breaks(tidy.check_commands, self.build, where="A.md:3:", says=says)


class Figures(Tidy):
    THERE = ("# Method\n\n| what | p50 | p99 |\n|---|---:|---:|\n| fast | 1.5 ms | 2,860 |\n"
             "| slow | 7 ms | 912 |\n")
    MARK = "<!-- figures: docs/METHOD.md -->\n"

    def shows(self, text):
        self.write("docs/METHOD.md", self.THERE)
        self.write("README.md", self.MARK + text)

    def test_a_row_that_stands_there_may_stand_twice(self):
        self.shows("| a | b | c |\n|---|---|---|\n| the fast one | **1.5 ms** | 2,860 |\n\n"
                   "99 is free\n")
        self.assert_keeps(tidy.check_figures)
        self.shows("Of 912, half have 1.5 ms,\nwith p99 free.\n")
        self.assert_keeps(tidy.check_figures)

    def test_another_figure_is_reported(self):
        self.shows("| a | b | c |\n|---|---|---|\n| the fast one | 1.6 ms | 2,860 |\n")
        self.assert_breaks(tidy.check_figures, where="README.md:4:", says="1.6 ms")
        self.shows("Half have 1.5\ns.\n")
        self.assert_breaks(tidy.check_figures, where="README.md:2:", says="1.5 s")

    def test_the_figures_of_a_row_come_from_one_row(self):
        self.shows("| a | b | c |\n|---|---|---|\n| the fast one | 1.5 ms | 912 |\n")
        self.assert_breaks(tidy.check_figures, where="README.md:4:", says="no row")

    def test_a_document_that_is_gone_is_reported(self):
        self.write("README.md", self.MARK + "Half have 1.5 ms.\n")
        self.assert_breaks(tidy.check_figures, where="README.md:1:", says="not there")


class Readme(Tidy):
    def test_its_words_are_counted(self):
        self.write("README.md", "word " * 900)
        self.assert_keeps(tidy.check_readme)
        self.write("README.md", "word " * 901)
        self.assert_breaks(tidy.check_readme, where="README.md:1:", says="901 words")


class CommandLine(Tidy):
    def status(self, *arguments):
        command = [sys.executable, tidy.__file__, *arguments]
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode

    def test_the_exit_status_tells_kept_from_broken(self):
        self.assertEqual(self.status("manners", self.root), 0)
        self.write("src/core/bad.cc", "void F() { exit(1); }\n")
        self.assertEqual(self.status("manners", self.root), 1)

    def test_nothing_to_look_at_is_a_failure(self):
        self.assertEqual(self.status("guards", os.path.join(self.root, "nowhere")), 1)

    def test_a_wrong_command_line_is_a_failure(self):
        self.assertEqual(self.status("layring", self.root), 2)


if __name__ == "__main__":
    unittest.main()
