#!/usr/bin/env bash
# Configures the library alone, as README.md says it. It asks for liburing and Abseil and nothing
# else, and compiles the same sources with the same options as BUILD_DIRECTORY, which has compiled
# them. So it need not compile them again. Then what each part of an installation holds.
#
#   library_alone_test.sh BUILD_DIRECTORY SOURCE_DIRECTORY COMPILER
set -euo pipefail
whole=$1 source=$2 compiler=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
build=$scratch/build

options=$(sed -n 's/^    meson setup build-library \(-Dtests=.*\)$/\1/p' "$source/README.md")
[ -n "$options" ] || { echo "README.md does not say how the library alone is built"; exit 1; }
# shellcheck disable=SC2086
CXX=$compiler meson setup $options "$build" "$source" \
  >"$scratch/setup" || { cat "$scratch/setup"; exit 1; }

meson introspect --dependencies "$build" | python3 -c '
import json, sys
names = {dependency["name"] for dependency in json.load(sys.stdin)}
more = sorted(name for name in names - {"liburing", "threads"} if not name.startswith("absl_"))
if more or "liburing" not in names:
    sys.exit(f"asked for {sorted(names)}; the library alone needs none of {more}")
'

python3 - "$build" "$whole" "$source" <<'PY'
import json, os, re, shlex, sys

alone, whole, source = map(os.path.realpath, sys.argv[1:])


def compiles(build):
    """By library and source file: its options, without those that each builder chooses."""
    found = {}
    with open(f"{build}/compile_commands.json") as entries:
        for entry in json.load(entries):
            path = os.path.realpath(os.path.join(build, entry["file"]))
            options = []
            words = iter(shlex.split(entry["command"])[1:])
            for word in words:
                if word in ("-o", "-MQ", "-MF", "-c"):
                    next(words)
                elif word.startswith("-I"):
                    folder = os.path.realpath(os.path.join(build, word[2:]))
                    if os.path.commonpath([folder, build]) != build:  # generated, or not there
                        options.append("-I" + os.path.relpath(folder, source))
                elif not re.match(r"-O|-g|-Werror$", word):
                    options.append(word)
            target = os.path.dirname(entry["output"])
            found.setdefault((target, os.path.relpath(path, source)), options)
    return found


library, everything = compiles(alone), compiles(whole)
if not any(path.startswith("src/runtime/") for _, path in library):
    sys.exit("the library alone compiles nothing of src/runtime")
for (target, path), options in sorted(library.items()):
    if not path.startswith("src/"):
        sys.exit(f"the library alone compiles {path}, which is not below src/")
    if everything.get((target, path)) != options:
        sys.exit(f"{path} of {target} is compiled with\n{options}\nand in the whole build with\n"
                 f"{everything.get((target, path))}")
for target, path in sorted(everything):
    if target.startswith("src/") and (target, path) not in library:
        sys.exit(f"the library alone does not compile {path} of {target}")

# What would be installed has a part, and nothing of the tools is among it.
planned = {}
with os.popen(f"meson introspect --install-plan {shlex.quote(alone)}") as output:
    for kind in json.load(output).values():
        for file in kind.values():
            planned.setdefault(file["tag"], set()).add(os.path.basename(file["destination"]))
if not set(planned) <= {"runtime", "devel"}:
    sys.exit(f"the library alone installs parts {sorted(map(str, planned))}")
PY

# install TAG: what `meson install --tags TAG` puts where, one name a line.
install() {
  mkdir "$scratch/$1"
  DESTDIR=$scratch/$1 meson install -C "$whole" --no-rebuild --quiet --tags "$1"
  (cd "$scratch/$1" && find . ! -type d -printf '%f\n' | LC_ALL=C sort)
}
expect() {
  if [ "$2" != "$3" ]; then
    printf 'the part "%s" holds\n%s\nand should hold\n%s\n' "$1" "$2" "$3"
    exit 1
  fi
}
version=$(meson introspect --projectinfo "$whole" |
          python3 -c 'import json, sys; print(json.load(sys.stdin)["version"])')
expect runtime "$(install runtime)" "libringmaster.so.0
libringmaster.so.$version"
# Pages are there, as the summary says, where the build found scdoc.
pages() { if [ -f "$whole/tools/man/ringmaster.7" ]; then printf '%s\n' "$@"; fi; }
programs='ringmaster-bench ringmaster-echo ringmaster-run ringmaster-sim'
# shellcheck disable=SC2046
expect devel "$(install devel)" "$(
  { find "$source/include/ringmaster" -name '*.h' -printf '%f\n'
    printf '%s\n' libringmaster.a libringmaster.so ringmaster.pc ringmaster-c.pc \
      ringmaster-config.cmake ringmaster-config-version.cmake
    pages ringmaster.7 \
      $(python3 "$source/tools/man/c_pages.py" list "$source/include/ringmaster/ringmaster.h")
  } | LC_ALL=C sort)"
# shellcheck disable=SC2086
expect tools "$(install tools)" "$(
  { printf '%s\n' libringmaster-run.so $programs
    # For bash, zsh and fish.
    printf '%s\n' $programs $(printf '_%s\n' $programs) $(printf '%s.fish\n' $programs)
    pages $(printf '%s.1\n' $programs)
  } | LC_ALL=C sort)"
