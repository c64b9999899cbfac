#!/usr/bin/env python3
"""The rules of the architecture, as checks.

    tidy.py layering ROOT              which folder may include which; what pure folders may not use
    tidy.py manners ROOT               no printing, no exits, no signals in the library
    tidy.py guards ROOT                include guards are named after the file
    tidy.py initialisers ROOT          every member of a public struct has an initialiser; in C, its
                                       size is its first member, and a function fills it in
    tidy.py documented ROOT            what the public headers declare has a comment
    tidy.py headers ROOT COMPILER...   every public header compiles alone, as C++17 and as C++20
    tidy.py symbols ROOT LIBRARY ARCHIVE
                                       the shared library exports what the public headers declare and
                                       no more; the static one tells what is defined
    tidy.py format ROOT                clang-format has nothing to change
    tidy.py wrapping ROOT              no comment or text is broken off behind a full line
    tidy.py links ROOT                 what documents link to is there, headings included
    tidy.py commands ROOT BUILD        what documents let a reader run is there in a full build
    tidy.py figures ROOT               figures that stand twice are the same in both places
    tidy.py readme ROOT                the README is short enough to be read

Prints each violation as file:line: what is wrong. Exits with 0 if there is none, with 1 if there is
one or if nothing was found to check, with 77 (skipped) if a tool is missing.
"""

import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

SKIPPED = 77
CODE_FOLDERS = ("include", "src", "tests", "bench", "tools")
CLANG_FORMAT_VERSION = "14"  # other versions lay some lines out differently

# --- The rules -----------------------------------------------------------------------------------

# What the files of a folder may include of the project, by the beginning of the included path. A
# folder under src/ that is not listed is a violation: decide where it belongs and add it.
POLICY_H = "ringmaster/policy.h"
SPAN_H = "ringmaster/span.h"
# Headers alone, that nothing else includes. Each needs a library that the user has.
ADAPTERS_FOLDER = "include/ringmaster/adapters"
LAYERS = {
    ADAPTERS_FOLDER: ("ringmaster/",),
    "include/ringmaster": ("ringmaster/",),
    "src/policy": (POLICY_H, "policy/"),
    "src/core": (POLICY_H, "core/"),
    "src/ring": (POLICY_H, "core/", "ring/"),
    "src/listeners": ("ringmaster/", "core/", "ring/", "listeners/"),
    "src/runtime": ("ringmaster/", "policy/", "core/", "ring/", "runtime/"),
    "src/processes": ("ringmaster/", "core/accept_error.h", "core/op.h", "core/permits.h",
                      "ring/quiet_thread.h", "ring/translate.h", "processes/"),
    "src/sim": (POLICY_H, "policy/", "core/", "sim/"),
    "src/c": ("ringmaster/", "c/"),
    # How figures become text, pictures and files, for bench and for the simulator's program, which
    # plays the pure layers.
    "tools/output": ("output/",),
    "bench": ("ringmaster/", "output/", "bench/"),
    "tools/sim": (POLICY_H, "sim/", "output/"),
    "tools/run": ("ringmaster/", "processes/", "core/permits.h", "run/"),
    "tools": ("ringmaster/",),
}
PROJECT_PREFIXES = ("ringmaster/", "policy/", "core/", "ring/", "listeners/", "runtime/", "sim/", "c/",
                    "output/", "bench/", "processes/", "run/")

# What processes decide by is as pure as what threads do.
DESKS = ("src/processes/area.h", "src/processes/dealing.h", "src/processes/dealing.cc",
         "src/processes/desk.h", "src/processes/desk.cc")

# policy.h is the bottom of everything, and a span is all that it needs.
LAYER_EXCEPTIONS = {"include/ringmaster/policy.h": (SPAN_H,),
                    "include/ringmaster/span.h": (),
                    **dict.fromkeys(DESKS, (POLICY_H, "core/permits.h", "processes/"))}

# The one door to io_uring.
LIBURING_FOLDER = "src/ring"

# No system call, clock, thread, lock, randomness or global.
PURE_FOLDERS = ("src/policy", "src/core", "src/sim")
PURE_FILES = ("include/ringmaster/policy.h", "include/ringmaster/span.h", *DESKS)
IMPURE_HEADERS = re.compile(
    r"(sys|linux|net|netinet|arpa|asm)/.*"
    r"|(unistd|fcntl|poll|sched|pthread|semaphore|signal|time|dirent|netdb|dlfcn|syscall)\.h"
    r"|thread|mutex|shared_mutex|condition_variable|future|semaphore|barrier|latch|stop_token"
    r"|chrono|ctime|random|csignal|csetjmp|filesystem"
    r"|absl/(time/clock|synchronization|random|container/.*hash).*")
IMPURE_WORDS = re.compile(
    r"\b(thread_local|getenv|syscall|rand|srand|gettimeofday|clock_gettime)\b")
ATOMIC_FILES = ("src/core/inbox.h", "src/core/permits.h", "src/core/port_state.h",
                "src/processes/area.h")
ATOMICS = re.compile(r"\batomic(_\w+)?\b")

# Whoever includes the public headers may not be at C++20 yet.
HEADER_LANGUAGES = (["-x", "c++", "-std=c++20"], ["-x", "c++", "-std=c++17"])
# Adapters take long to compile, so one compiler does that. As C++20, and by the other one, they are
# compiled with the programs that use them.
ADAPTER_LANGUAGES = (["-x", "c++", "-std=c++17"],)
CXX20_ADAPTERS = ("include/ringmaster/adapters/coroutine.h",)

# The public headers that are C as well as C++. The structs of the first begin with their size, so that
# they can grow at their end. These cannot: they stand in arrays, or are copied as bytes.
C_HEADER = "include/ringmaster/ringmaster.h"
C_HEADERS = (C_HEADER, "include/ringmaster/version.h")
C_LANGUAGES = (["-x", "c", "-std=c99"],)
C_FIXED_STRUCTS = ("ringmaster_lease", "ringmaster_connection", "ringmaster_candidate",
                   "ringmaster_cpu", "ringmaster_offered_listener")

# The library ends the process only here, and prints nowhere else.
MANNERS_FOLDER = "src"
MANNERS_EXCEPTION = "src/core/check.cc"
ILL_MANNERS = (
    (re.compile(r"\b(exit|_exit|_Exit|quick_exit|abort|terminate|at_quick_exit|atexit)\s*\("),
     "the library ends the process only by a broken RINGMASTER_CHECK"),
    (re.compile(r"\bassert\s*\("),
     "in the library use RINGMASTER_CHECK: assert prints, or does nothing"),
    (re.compile(r"\b(printf|fprintf|vprintf|vfprintf|dprintf|puts|fputs|putchar|perror)\s*\("
                r"|\b(stdout|stderr|STDOUT_FILENO|STDERR_FILENO)\b|\bstd::(cout|cerr|clog)\b"),
     "the library prints nothing: report it by the event callback or a status"),
    (re.compile(r"(?<![.>\w])(signal|sigaction|sigprocmask|pthread_sigmask)\s*\("),
     "the library leaves signals to the program"),
)

# --- Files and their text ------------------------------------------------------------------------


def source_files(root, folders, endings=(".h", ".cc", ".c")):
    """The paths, relative to `root` and in order, of the source files in its `folders`."""
    found = []
    for folder in folders:
        for path, names, files in os.walk(os.path.join(root, folder)):
            names[:] = [name for name in names if not name.startswith((".", "build"))]
            for name in files:
                if name.endswith(endings):
                    found.append(os.path.relpath(os.path.join(path, name), root))
    return sorted(found)


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


COMMENT_OR_TEXT = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<raw>[^(\s]*)\(.*?\)(?P=raw)"|"(?:\\.|[^"\\\n])*"'
    r"|(?<!\w)'(?:\\.|[^'\\\n])+'",
    re.DOTALL)


def without_comments(text, and_strings=False):
    """The text with comments, and strings if asked for, blanked; line numbers stay."""

    def blank(match):
        if match.group().startswith(("//", "/*")) or and_strings:
            return re.sub(r"[^\n]", " ", match.group())
        return match.group()

    return COMMENT_OR_TEXT.sub(blank, text)


def numbered_lines(text):
    return enumerate(text.split("\n"), start=1)


def includes(text):
    """Line number, "<" or '"', and path of every include."""
    for number, line in numbered_lines(without_comments(text)):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if match:
            yield number, match.group(1), match.group(2)


def layer_of(path):
    """The key of LAYERS that rules `path`; None if there is none."""
    for folder in LAYERS:
        if path.startswith(folder + "/"):
            return folder
    return None


# --- The checks: each returns what it complains about, and how many files it looked at ----------


def check_layering(root):
    complaints = []
    files = source_files(root, ("include", "src", "tools"))
    for path in files:
        text = read(root, path)
        layer = layer_of(path)
        if layer is None:
            if path.startswith(("src/", "include/")):
                complaints.append(f"{path}:1: belongs to no layer that tidy.py knows")
                continue
            layer = "tools"
        allowed = LAYER_EXCEPTIONS.get(path, LAYERS[layer])
        pure = layer in PURE_FOLDERS or path in PURE_FILES
        for number, _, included in includes(text):
            where = f"{path}:{number}"
            normal = os.path.normpath(included)
            if included.startswith("..") or normal != included:
                complaints.append(f"{where}: say where {included} is from the root of the layers")
            if normal.startswith(PROJECT_PREFIXES) and not normal.startswith(allowed):
                complaints.append(f"{where}: {layer} may not include {normal}")
            if re.match(r"liburing(/|\.h)", normal):
                if layer not in ("tools", LIBURING_FOLDER, ADAPTERS_FOLDER):
                    complaints.append(f"{where}: only {LIBURING_FOLDER} may include <{normal}>")
            if pure and IMPURE_HEADERS.fullmatch(normal):
                complaints.append(f"{where}: {layer} is pure and may not include <{normal}>")
        if pure:
            for number, line in numbered_lines(without_comments(text, and_strings=True)):
                match = IMPURE_WORDS.search(line)
                if match:
                    complaints.append(f"{path}:{number}: {layer} is pure: {match.group()}")
                match = ATOMICS.search(line)
                if match and path not in ATOMIC_FILES:
                    complaints.append(f"{path}:{number}: atomics live in {ATOMIC_FILES} only")
    return complaints, len(files)


def check_manners(root):
    complaints = []
    files = source_files(root, (MANNERS_FOLDER,))
    for path in files:
        if path == MANNERS_EXCEPTION:
            continue
        for number, line in numbered_lines(without_comments(read(root, path), and_strings=True)):
            for pattern, why in ILL_MANNERS:
                match = pattern.search(line)
                if match:
                    complaints.append(f"{path}:{number}: {match.group().strip()}: {why}")
    return complaints, len(files)


def guard_of(path):
    short = re.sub(r"^include/ringmaster/", "", path)
    return "RINGMASTER_" + re.sub(r"[^A-Za-z0-9]", "_", short).upper() + "_"


def check_guards(root):
    complaints = []
    files = source_files(root, CODE_FOLDERS, endings=(".h",))
    for path in files:
        guard = guard_of(path)
        code = without_comments(read(root, path))
        lines = [(number, line.strip()) for number, line in numbered_lines(code) if line.strip()]
        expected = [f"#ifndef {guard}", f"#define {guard}"]
        if [line for _, line in lines[:2]] != expected:
            number = lines[0][0] if lines else 1
            complaints.append(f"{path}:{number}: must begin with {expected[0]} and {expected[1]}")
        elif not lines[-1][1].startswith("#endif"):
            complaints.append(f"{path}:{lines[-1][0]}: the include guard must end the file")
    return complaints, len(files)


STRUCT = re.compile(r"\bstruct\s+\w+\s*\{")
MEMBER_WITHOUT = re.compile(r"^\s*(?!using\b|friend\b|return\b)[\w:<>,&*\s()]*[\w>*&]\s+(\w+);",
                            re.MULTILINE)


C_STRUCT = re.compile(r"^typedef struct (\w+) \{\s*(.*?);.*?^\} \1;", re.MULTILINE | re.DOTALL)


def complaints_about_c_structs(path, code):
    for struct in C_STRUCT.finditer(code):
        where = f"{path}:{code.count(chr(10), 0, struct.start()) + 1}"
        name = struct.group(1)
        if name in C_FIXED_STRUCTS:
            continue
        if struct.group(2) != "size_t struct_size":
            yield f"{where}: {name} does not begin with size_t struct_size, so it can never grow"
        taken = re.search(rf"^int \w+\([^;]*\bconst {name}\*", code, re.MULTILINE)
        if taken and not re.search(rf"^int {name}_init\({name}\* ", code, re.MULTILINE):
            yield f"{where}: no function {name}_init fills {name} in"


def check_initialisers(root):
    """A user who names some members of the options gets no warning about the rest then."""
    complaints = []
    files = source_files(root, ("include",), endings=(".h",))
    for path in files:
        code = without_comments(read(root, path), and_strings=True)
        if path == C_HEADER:
            complaints += complaints_about_c_structs(path, code)
            continue
        for struct in STRUCT.finditer(code):
            depth, end = 1, struct.end()
            while depth > 0 and end < len(code):
                depth += {"{": 1, "}": -1}.get(code[end], 0)
                end += 1
            for member in MEMBER_WITHOUT.finditer(code, struct.end(), end):
                number = code.count("\n", 0, member.start(1)) + 1
                complaint = f"{path}:{number}: the member {member.group(1)} has no initialiser"
                if complaint not in complaints:
                    complaints.append(complaint)
    return complaints, len(files)


# What needs no comment of its own: it does what its kind always does, or is none of the user's.
SELF_EVIDENT = re.compile(r"= default;|= delete;|\boperator\b|~\w+\(|^\s*(#|\}|friend\b|using\b|template\b"
                          r"|public:|(class|struct) \w+;|namespace\b|extern\b)")
NOT_PUBLIC = (re.compile(r"^namespace (internal|core) \{\n.*?^\}.*?\n", re.MULTILINE | re.DOTALL),
              re.compile(r"^ private:\n.*?(?=^\};)", re.MULTILINE | re.DOTALL))


def check_documented(root):
    """Declarations that stand together, without an empty line between them, have a comment."""
    complaints = []
    looked_at = 0
    for path in source_files(root, ("include",), endings=(".h",)):
        text = read(root, path)
        for pattern in NOT_PUBLIC:
            text = pattern.sub(lambda found: "\n" * found[0].count("\n"), text)
        for block in re.finditer(r"(?:.+\n)+", text):
            lines = [line for line in block[0].split("\n")
                     if line.strip() and not re.match(r"\s*//|#|\}  //|extern", line)]
            declared = [line for line in lines if not SELF_EVIDENT.search(line)]
            if not declared:
                continue
            looked_at += 1
            if not any("//" in line for line in block[0].split("\n")
                       if not re.match(r"#|\}  // namespace|extern", line)):
                number = text.count("\n", 0, block.start()) + 1
                complaints.append(f"{path}:{number}: has no comment: {declared[0].strip()}")
    return complaints, looked_at


def check_headers(root, compilers):
    complaints = []
    files = source_files(root, ("include",), endings=(".h",))
    flags = ["-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Wshadow", "-Werror", "-fsyntax-only",
             "-I" + os.path.join(root, "include")]

    def output_of(run):
        path, compiler, language = run
        included = os.path.relpath(path, "include")
        # Twice, for the include guard.
        text = f"#include <{included}>\n#include <{included}>\n"
        if path.startswith(ADAPTERS_FOLDER):
            # It includes its library first; that may be missing.
            library = next(name for _, mark, name in includes(read(root, path)) if mark == "<")
            text = f"#if __has_include(<{library}>)\n{text}#endif\n"
        done = subprocess.run([*shlex.split(compiler), *flags, *language, "-"], input=text, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.stdout or "it ends with an error" if done.returncode != 0 else ""

    def languages_of(path, compiler):
        if path.startswith(ADAPTERS_FOLDER):
            languages = HEADER_LANGUAGES[:1] if path in CXX20_ADAPTERS else ADAPTER_LANGUAGES
            return languages if compiler == compilers[0] else ()
        return (*HEADER_LANGUAGES, *(C_LANGUAGES if path in C_HEADERS else ()))

    runs = [(path, compiler, language)
            for path in files
            for compiler in dict.fromkeys(compilers) if shutil.which(shlex.split(compiler)[0])
            for language in languages_of(path, compiler)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        outputs = list(pool.map(output_of, runs))
    for path in files:
        bad = [(run, output) for run, output in zip(runs, outputs) if run[0] == path and output]
        if bad:
            how = ", ".join(" ".join([compiler, *language]) for (_, compiler, language), _ in bad)
            complaints.append(f"{path}:1: does not compile alone: {how}\n{bad[0][1]}")
    if not any(shutil.which(shlex.split(compiler)[0]) for compiler in compilers):
        return [f"none of the compilers is there: {', '.join(compilers)}"], len(files)
    return complaints, len(files)


def blocks_blanked(code, opening):
    """`code` without what stands in the braces that follow each match of `opening`."""
    result = []
    position = 0
    for match in re.finditer(opening, code):
        if match.start() < position:
            continue
        result.append(code[position:match.start()])
        depth = 1
        position = match.end()
        while depth > 0 and position < len(code):
            depth += {"{": 1, "}": -1}.get(code[position], 0)
            position += 1
    result.append(code[position:])
    return "".join(result)


def declared_names(root):
    """The names of classes and functions that the public headers declare in ringmaster."""
    names = set()
    for path in source_files(root, ("include",), endings=(".h",)):
        code = without_comments(read(root, path), and_strings=True)
        code = blocks_blanked(code, r"namespace internal \{")
        classes = r"^(?:class|struct)\s+(?:\[\[\w+\]\]\s*)?(\w+)"
        names.update(re.findall(classes, code, re.MULTILINE))
        # Functions at the beginning of a line, hence not members.
        names.update(re.findall(r"^[A-Za-z][\w:<>,&*\[\] ]*?\b(\w+)\(", code, re.MULTILINE))
    return names


def declared_in_c(root):
    """The functions of the headers for C."""
    headers = [path for path in C_HEADERS if os.path.exists(os.path.join(root, path))]
    code = "\n".join(without_comments(read(root, path), and_strings=True) for path in headers)
    return set(re.findall(r"^(?!typedef)[a-z][\w* ]*?\b(ringmaster_\w+)\(", code, re.MULTILINE))


PUBLIC_SYMBOL = re.compile(r"ringmaster::(\w+)")


def defined_functions(archive, names):
    """Those that public headers declare, and that are not inline."""
    run = subprocess.run(["nm", "-C", "--defined-only", archive], text=True, check=True,
                         stdout=subprocess.PIPE)
    for symbol in re.findall(r"^[0-9a-f]+ T (.*)", run.stdout, re.MULTILINE):
        public = PUBLIC_SYMBOL.match(symbol)
        if public and public.group(1) in names:
            yield symbol


def check_symbols(root, library, archive):
    names = declared_names(root)
    missing = declared_in_c(root)
    in_c = frozenset(missing)
    run = subprocess.run(["nm", "-DC", "--defined-only", library], text=True, check=True,
                         stdout=subprocess.PIPE)
    complaints = []
    found = set()
    exported = 0
    for line in run.stdout.splitlines():
        match = re.match(r"[0-9a-f]*\s+(\w)\s+(.*)", line)
        if not match or match.group(1) == "A":  # the names of versions
            continue
        exported += 1
        symbol = re.sub(r"^(typeinfo for|typeinfo name for|vtable for|VTT for|guard variable for|"
                        r"construction vtable for|(non-)?virtual thunk to) ", "", match.group(2))
        symbol = re.sub(r"@.*$", "", symbol)
        public = PUBLIC_SYMBOL.match(symbol)
        missing.discard(symbol)
        found.add(symbol)
        if symbol in in_c or public and public.group(1) in names:
            continue
        complaints.append(f"{library}: exports {match.group(2)}, which no public header declares")
    for name in sorted(set(defined_functions(archive, names)) - found):
        complaints.append(f"{library}: does not export {name}, which a public header declares: add it to "
                          "src/ringmaster.map")
    for name in sorted(missing):
        complaints.append(f"{library}: does not export {name}, which a header for C declares")
    return complaints, exported


def check_format(root):
    files = source_files(root, CODE_FOLDERS)

    def complaint_of(path):
        run = subprocess.run(["clang-format", "--dry-run", "-Werror", path], cwd=root, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if run.returncode == 0:
            return None
        first = run.stdout.splitlines()[0] if run.stdout else path
        return f"{first} (clang-format -i {path})"

    # One after the other they take most of the time that a test has.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [complaint for complaint in pool.map(complaint_of, files) if complaint], len(files)


# What formatters leave behind when a line has become too long. Its end stands on a line of its own,
# in the middle of a sentence, and the rest of the sentence does not follow. So of three lines the
# first must be full, the second break off although a good part of the third would have fitted.
LINE_MAX = 100
LINE_FULL = 85  # columns from which on a line counts as full
LINE_SPARE = 20  # columns that stay free even with the next word on the line
SENTENCE_ENDS = re.compile(r"([.:;?!{}]|\\n)[)\"'`*]*$|^$")
IN_COLUMNS = re.compile(r"\S {2,}\S")  # the lines of a table are as long as its cells
COMMENT_MARKS = {".h": "//", ".cc": "//", ".c": "//", ".py": "#", ".sh": "#", ".build": "#", "": "#"}
STRING = r'"((?:\\.|[^"\\])*)"'
STRINGS = [re.compile(line) for line in (".*?" + STRING, " *" + STRING, " *" + STRING + ".*")]


def texts_of(lines, mark):
    """What three lines say, if they are one comment or one string literal in parts."""
    comments = [re.fullmatch(f"( *){mark}(.*)", line) for line in lines]
    if all(comments) and len({match.group(1) for match in comments}) == 1:
        return [match.group(2).rstrip() for match in comments]
    strings = [string.fullmatch(line) for string, line in zip(STRINGS, lines)]
    return [match.group(1).rstrip() for match in strings] if all(strings) else None


def breaks_off(lines, texts):
    """Whether the second of three lines breaks off; `texts` is what they say."""
    if any(SENTENCE_ENDS.search(text) for text in texts[:2]) or not texts[2]:
        return False
    # What comes first may be a term that stands before its meaning.
    first = re.sub(r"^ *\S+ {2,}", "", texts[0])
    if any(IN_COLUMNS.search(text) for text in (first, *texts[1:])):
        return False
    with_next_word = len(lines[1].rstrip('"')) + 1 + len(texts[2].split()[0])
    return len(lines[0]) >= LINE_FULL and with_next_word <= LINE_MAX - LINE_SPARE


def check_wrapping(root):
    complaints = []
    endings = {path: os.path.splitext(path)[1]
               for path in source_files(root, CODE_FOLDERS, endings=("",))}
    files = [path for path, ending in endings.items() if ending in COMMENT_MARKS]
    for path in files:
        lines = read(root, path).split("\n")
        for number, three in enumerate(zip(lines, lines[1:], lines[2:]), start=2):
            texts = texts_of(three, COMMENT_MARKS[endings[path]])
            if texts and breaks_off(three, texts):
                complaints.append(f"{path}:{number}: breaks off in the middle of a sentence: "
                                  f"{three[1].strip()}")
    return complaints, len(files)


# --- Documents -----------------------------------------------------------------------------------

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:")


def documents(root):
    return source_files(root, ("",), endings=(".md",))


def without_code(text):
    """Of a document; lines stay where they are."""
    def blank(found):
        return "\n" * found[0].count("\n")
    text = re.sub(r"^```.*?^```", blank, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors_of(text):
    """As the usual renderers make them of headings."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?)\s*$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_links(root):
    complaints = []
    looked_at = 0
    for path in documents(root):
        for number, line in enumerate(without_code(read(root, path)).split("\n"), start=1):
            for found in LINK.finditer(line):
                link = found[1] or found[2]
                if ELSEWHERE.match(link):
                    continue
                looked_at += 1
                file, _, anchor = link.partition("#")
                target = path
                if file:
                    target = os.path.normpath(os.path.join(os.path.dirname(path), file))
                if not os.path.exists(os.path.join(root, target)):
                    complaints.append(f"{path}:{number}: links to {link}, which is not there")
                elif anchor and anchor not in anchors_of(read(root, target)):
                    complaints.append(f"{path}:{number}: {target} has no heading #{anchor}")
    return complaints, looked_at


# What a document lets a reader run: programs, targets of ninja, and tests by name. A command may go on
# in the next line.
RUNS_PROGRAM = re.compile(r"(?<![\w./-])build/((?:bench|tests|tools)/[\w./-]*\w)")
RUNS_NINJA = re.compile(r"ninja -C build((?:\s+(?!build/)[\w-]+/[\w./-]*\w)+)")
RUNS_TEST = re.compile(r"meson test -C build\b((?:[^`\n\\]|\\\n)*)")


def check_commands(root, build):
    with open(os.path.join(build, "meson-info/intro-targets.json"), encoding="utf-8") as file:
        targets = {os.path.relpath(path, build) for target in json.load(file)
                   for path in target["filename"]}
    with open(os.path.join(build, "meson-info/intro-tests.json"), encoding="utf-8") as file:
        tests = {test["name"] for test in json.load(file)}
    complaints = []
    looked_at = 0
    for path in documents(root):
        text = read(root, path)
        named = [(found.start(1), word, targets) for pattern in (RUNS_PROGRAM, RUNS_NINJA)
                 for found in pattern.finditer(text) for word in found[1].split()]
        named += [(found.start(), word, tests) for found in RUNS_TEST.finditer(text)
                  for word in re.findall(r"(?<!\S)[a-z]+-[\w-]+", found[1])]
        looked_at += len(named)
        for at, word, known in named:
            if word not in known:
                number = text.count("\n", 0, at) + 1
                complaints.append(f"{path}:{number}: names {word}, which the build does not have")
    return complaints, looked_at


# A table or paragraph behind `<!-- figures: FILE -->` (a path from the root) repeats figures of that
# document. All figures of a row must stand in one row there; those of a paragraph, anywhere.
REPEATS = re.compile(r"<!-- figures: (\S+) -->")
FIGURE = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?: ?(?:µs|ms|s|%)(?!\w))?")


def figures_of(text):
    return {figure.rstrip(",") for figure in FIGURE.findall(text.replace("*", ""))}


def check_figures(root):
    complaints = []
    looked_at = 0
    for path in documents(root):
        lines = read(root, path).split("\n")
        for number, line in enumerate(lines):
            found = REPEATS.fullmatch(line.strip())
            if not found:
                continue
            if not os.path.exists(os.path.join(root, found[1])):
                complaints.append(f"{path}:{number + 1}: {found[1]} is not there")
                continue
            there = read(root, found[1]).split("\n")
            rows = [figures_of(row) for row in there if row.startswith("|")]
            everywhere = figures_of("\n".join(there))
            block = []  # each row of a table, or a whole paragraph; and its first line
            for at in range(number + 1, len(lines)):
                if not lines[at].strip():
                    if block:
                        break
                elif block and not lines[at].startswith("|"):
                    block[-1] = (block[-1][0], block[-1][1] + " " + lines[at].strip())
                else:
                    block.append((at + 1, lines[at]))
            for at, text in block:
                figures = figures_of(text)
                looked_at += len(figures)
                if not text.startswith("|"):
                    missing = figures - everywhere
                    if missing:
                        complaints.append(f"{path}:{at}: {found[1]} does not have "
                                          f"{', '.join(sorted(missing))}")
                elif figures and not any(figures <= row for row in rows):
                    complaints.append(f"{path}:{at}: no row of {found[1]} has all of "
                                      f"{', '.join(sorted(figures))}")
    return complaints, looked_at


# Programs included. What is for reference has documents of its own.
README_WORDS_MAX = 900


def check_readme(root):
    words = len(read(root, "README.md").split())
    if words <= README_WORDS_MAX:
        return [], words
    return [f"README.md:1: has {words} words, more than {README_WORDS_MAX}: move what is not for "
            "everybody into tools/docs"], words


def missing_tool(check):
    """Why the check cannot run here; None if it can."""
    if check == "symbols" and not shutil.which("nm"):
        return "nm (binutils) is not installed"
    if check == "format":
        if not shutil.which("clang-format"):
            return "clang-format is not installed"
        version = subprocess.run(["clang-format", "--version"], text=True, check=True,
                                 stdout=subprocess.PIPE).stdout
        if not re.search(rf"version {CLANG_FORMAT_VERSION}\.", version):
            return f"clang-format is not version {CLANG_FORMAT_VERSION}: {version.strip()}"
    return None


CHECKS = {
    "layering": check_layering,
    "manners": check_manners,
    "guards": check_guards,
    "initialisers": check_initialisers,
    "documented": check_documented,
    "headers": lambda root, *compilers: check_headers(root, compilers),
    "symbols": check_symbols,
    "format": check_format,
    "wrapping": check_wrapping,
    "links": check_links,
    "commands": check_commands,
    "figures": check_figures,
    "readme": check_readme,
}


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in CHECKS:
        print(__doc__)
        return 2
    check, root, *others = sys.argv[1:]
    missing = missing_tool(check)
    if missing:
        print(f"skipped: {missing}")
        return SKIPPED
    complaints, looked_at = CHECKS[check](root, *others)
    for complaint in complaints:
        print(complaint)
    print(f"{check}: looked at {looked_at}, found {len(complaints)} to complain about")
    return 1 if complaints or looked_at == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
