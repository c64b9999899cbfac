#!/usr/bin/env bash
# Configures and builds the library alone, as README.md says it, and installs it in parts. It needs
# liburing and Abseil and nothing else, and each part holds what it should.
#
#   library_alone_test.sh SOURCE_DIRECTORY COMPILER
set -euo pipefail
source=$1 compiler=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
build=$scratch/build

options=$(sed -n 's/^    meson setup build-library \(-Dtests=.*\)$/\1/p' "$source/README.md")
[ -n "$options" ] || { echo "README.md does not say how the library alone is built"; exit 1; }
# Without optimisation, because only whether it builds is asked.
# shellcheck disable=SC2086
CXX=$compiler meson setup $options -Doptimization=0 -Ddebug=false "$build" "$source" \
  >"$scratch/setup" || { cat "$scratch/setup"; exit 1; }

meson introspect --dependencies "$build" | python3 -c '
import json, sys
names = {dependency["name"] for dependency in json.load(sys.stdin)}
more = sorted(name for name in names - {"liburing", "threads"} if not name.startswith("absl_"))
if more or "liburing" not in names:
    sys.exit(f"asked for {sorted(names)}; the library alone needs none of {more}")
'
ninja -C "$build" --quiet

# install TAG: what `meson install --tags TAG` puts where, one name a line.
install() {
  mkdir "$scratch/$1"
  DESTDIR=$scratch/$1 meson install -C "$build" --no-rebuild --quiet --tags "$1"
  (cd "$scratch/$1" && find . ! -type d -printf '%f\n' | LC_ALL=C sort)
}
expect() {
  if [ "$2" != "$3" ]; then
    printf 'the part "%s" holds\n%s\nand should hold\n%s\n' "$1" "$2" "$3"
    exit 1
  fi
}
version=$(meson introspect --projectinfo "$build" |
          python3 -c 'import json, sys; print(json.load(sys.stdin)["version"])')
expect runtime "$(install runtime)" "libringmaster.so.0
libringmaster.so.$version"
expect devel "$(install devel)" "$(
  { ls "$source"/include/ringmaster | grep '\.h$'
    printf '%s\n' libringmaster.a libringmaster.so ringmaster.pc; } | LC_ALL=C sort)"
expect tools "$(install tools)" ""
