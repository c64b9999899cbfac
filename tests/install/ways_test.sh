#!/usr/bin/env bash
# Links the library in each of the ways of tools/docs/PACKAGES.md: the programs, the commands and the
# build files are those of the document. All programs run without LD_LIBRARY_PATH.
#
#   ways_test.sh BUILD_DIRECTORY SOURCE_DIRECTORY VERSION
set -euo pipefail
build=$1 source=$2 version=$3
document=$source/tools/docs/PACKAGES.md
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# As if it had been configured with this prefix: only files for pkg-config say where they are.
DESTDIR=$scratch/root meson install -C "$build" --no-rebuild --quiet --tags devel,runtime
pc=$(find "$scratch/root" -name ringmaster.pc)
own=$(pkg-config --variable=prefix "$pc")
prefix=$scratch/root$own
sed -i "s|^prefix=.*|prefix=$prefix|" "${pc%/*}"/*.pc
# As the document says it of a prefix of one's own.
eval "$(sed -n 's/^    \(export .*\)/\1/p' "$document")"
if ! [ "$PKG_CONFIG_PATH/ringmaster.pc" -ef "$pc" ] || [ "$CMAKE_PREFIX_PATH" != "$prefix" ]; then
  echo "PACKAGES.md sends pkg-config to $PKG_CONFIG_PATH and CMake to $CMAKE_PREFIX_PATH; the library is in $prefix"
  exit 1
fi
unset LD_LIBRARY_PATH
libdir=$(pkg-config --variable=libdir ringmaster)

# block LANGUAGE: the first of the document.
block() { awk -v start="\`\`\`$1" '$0 == start { on = 1; next } /^```/ { if (on) exit } on' "$document"; }
mkdir "$scratch/program"
cd "$scratch/program"
block c >version.c
block cpp >version.cc
block cmake >CMakeLists.txt
block meson >meson.build
for file in version.c version.cc CMakeLists.txt meson.build; do
  [ -s "$file" ] || { echo "PACKAGES.md has no $file"; exit 1; }
done

# says PROGRAM: that it runs, and with this version.
says() {
  local said
  said=$("$@" 2>&1) || { fail "$* ended with $?: $said"; return; }
  case $said in
    "compiled for $version, runs with $version"*) echo "$*: $said" ;;
    *) fail "$* says: $said" ;;
  esac
}
# loads PROGRAM LIBRARY: whether it does. (grep reads to the end, or readelf could not write all.)
loads() { readelf -d "$1" | grep "NEEDED.*\[$2" >/dev/null; }

for module in ringmaster ringmaster-c; do
  [ "$(pkg-config --modversion $module)" = "$version" ] || fail "pkg-config: $module is not $version"
done
# A program in C is not to load what it does not call.
libs=$(pkg-config --libs ringmaster-c)
[ "${libs% }" = "-L$libdir -lringmaster" ] || fail "pkg-config --libs ringmaster-c: $libs"

# The commands of the document, with the compilers of this build's kind, and with -O0, because only
# whether it links is asked. They are of one line, or of two with a pipe between them.
c++() { command c++ -O0 -Wall -Wextra -Werror "$@"; }
cc() { command cc -O0 -Wall -Wextra -Werror "$@"; }
mapfile -t commands < <(sed -nE '/^    (cc|c\+\+) .*\|$/{N;s/\n */ /}; s/^    ((cc|c\+\+) .*)/\1/p' "$document")
[ ${#commands[@]} -eq 4 ] || fail "PACKAGES.md has ${#commands[@]} commands that compile, not 4"
number=0
for command in "${commands[@]}"; do
  number=$((number + 1))
  out=version-$number
  # Where the library is not in a directory of the system, as the document says.
  run=$(sed "s| -o version | -o $out |" <<<"$command")
  case $command in
    *--static*) ;;
    *) run+=" -Wl,-rpath,$libdir" ;;
  esac
  if ! eval "$run"; then
    fail "does not link: $command"
    continue
  fi
  says "./$out"
  case $command in
    *--static*) if loads "$out" libringmaster; then fail "loads the shared library: $command"; fi ;;
    *) loads "$out" 'libringmaster\.so\.0\]' || fail "does not load libringmaster.so.0: $command" ;;
  esac
  case $command in
    "cc "*"--libs ringmaster-c)"*)
      if loads "$out" libabsl || loads "$out" 'libstdc++'; then fail "loads too much: $command"; fi ;;
  esac
done

# Which versions CMake finds.
mkdir versions
cp "$libdir/cmake/ringmaster/ringmaster-config-version.cmake" versions
touch versions/ringmaster-config.cmake
echo 'find_package(ringmaster ${ASK} CONFIG REQUIRED)' >ask.cmake
finds() { cmake "-DASK=$1" "-Dringmaster_DIR=$PWD/versions" -P ask.cmake >asked 2>&1; }
IFS=. read -r major minor patch <<<"$version"
for ask in "$version" "$major.$minor" "$major.$minor...$major.$((minor + 1))"; do
  finds "$ask" || { fail "CMake does not find version $ask"; cat asked; }
done
for ask in "$major.$minor.$((patch + 1))" "$major.$((minor + 1))" "$((major + 1)).0" \
           "$((major + 1))...$((major + 2))"; do
  if finds "$ask"; then fail "CMake takes version $version where $ask is asked for"; fi
done

mkdir cmake
if (cd cmake && cmake -G Ninja -DCMAKE_BUILD_TYPE=Debug .. && ninja) >cmake.log 2>&1; then
  for program in version_shared version_static version_c; do says "cmake/$program"; done
  if loads cmake/version_static libringmaster; then fail "CMake: version_static loads the library"; fi
  if loads cmake/version_c libabsl; then fail "CMake: version_c loads Abseil"; fi
else
  cat cmake.log
  fail "CMake does not build it"
fi

# A project in C alone.
mkdir only-c
cat >only-c/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.16)
project(version LANGUAGES C)
find_package(ringmaster 0.1 CONFIG REQUIRED)
add_executable(version_c ../version.c)
target_link_libraries(version_c ringmaster::ringmaster_c)
END
if (cd only-c && cmake -G Ninja . && ninja) >cmake.log 2>&1; then
  says only-c/version_c
else
  cat cmake.log
  fail "CMake does not build it in C"
fi

if (meson setup meson && ninja -C meson) >meson.log 2>&1; then
  says meson/version
  says meson/version_c
else
  cat meson.log
  fail "Meson does not build it with the installed library"
fi

# As a subproject. The library is not compiled once more, but what uses it is compiled and would link
# what the subproject builds.
mkdir subprojects
ln -s "$source" subprojects/ringmaster
objects='version.p/version.cc.o version_c.p/version.c.o'
# shellcheck disable=SC2086
if (meson setup --wrap-mode=forcefallback user && ninja -C user $objects) >meson.log 2>&1; then
  for program in version version_c; do
    if ! ninja -C user -t query $program | grep 'subprojects/ringmaster/src/libringmaster.so' >/dev/null; then
      fail "Meson: $program does not link the subproject's library"
    fi
  done
  # No programs and no tests of this project.
  others=$(meson introspect --targets user | python3 -c '
import json, sys
print(*(it["name"] for it in json.load(sys.stdin) if it["type"] == "executable"))')
  [ "$(tr ' ' '\n' <<<"$others" | LC_ALL=C sort | tr '\n' ' ')" = "version version_c " ] ||
    fail "Meson: as a subproject it would build $others"
else
  cat meson.log
  fail "Meson does not configure it as a subproject"
fi

exit $((failures > 0))
