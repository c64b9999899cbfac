#!/usr/bin/env bash
# Installs the build into a directory of its own, builds the README's examples against it through
# pkg-config, the first once with the shared library and once with the static one, and runs them:
# whoever links the library sees exactly this.
#
#   consumer_test.sh BUILD_DIRECTORY SOURCE_DIRECTORY COMPILER
set -euo pipefail
build=$1 source=$2 compiler=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

DESTDIR=$scratch/root meson install -C "$build" --no-rebuild --quiet
pc=$(find "$scratch/root" -name ringmaster.pc)
# As if the directory were the root of the file system.
export PKG_CONFIG_PATH=${pc%/*}
prefix=$(pkg-config --variable=prefix ringmaster)
defines=(--define-variable=prefix="$scratch/root$prefix")
lib=$(pkg-config "${defines[@]}" --variable=libdir ringmaster)

# block N: the Nth C++ block of the README.
block() {
  awk -v wanted="$1" '/^```cpp$/ { ++block; inside = 1; next } /^```$/ { inside = 0 }
                      inside && block == wanted' "$source/README.md"
}
# The second block is a worker for the main function of the first. Each program on a port of its own,
# for the one that was used last stays taken for a while.
port=$((20000 + $$ % 10000))
for program in shared static epoll; do
  port=$((port + 1))
  if [ $program = epoll ]; then
    { block 2; block 1 | sed -n '/^int main/,$p'; }
  else
    block 1
  fi | sed "s/7777/$port/" >"$scratch/$program.cc"
  [ "$(wc -l <"$scratch/$program.cc")" -gt 15 ] || { echo "no example in README.md"; exit 1; }
done

flags() { pkg-config "${defines[@]}" "$@" ringmaster liburing; }
for program in shared epoll; do
  # shellcheck disable=SC2046
  "$compiler" -std=c++20 -Wall -Wextra -Wno-missing-field-initializers -Werror $(flags --cflags) \
    "$scratch/$program.cc" -o "$scratch/$program" $(flags --libs) -pthread
done
# shellcheck disable=SC2046
"$compiler" -std=c++20 $(flags --cflags) "$scratch/static.cc" -o "$scratch/static" \
  "$lib/libringmaster.a" $(flags --libs-only-l --static | sed 's/-lringmaster//') -pthread
if ldd "$scratch/static" | grep -q libringmaster; then
  echo "the static program links the shared library"
  exit 1
fi

port=$((port - 3))
for program in shared static epoll; do
  port=$((port + 1))
  LD_LIBRARY_PATH=$lib "$scratch/$program" >"$scratch/out" 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  if ! kill -0 "$server" 2>/dev/null; then
    wait "$server" || true
    cat "$scratch/out"
    # Where io_uring is refused there is nothing to see.
    if grep -q io_uring "$scratch/out"; then exit 77; fi
    exit 1
  fi
  for _ in 1 2 3 4 5 6 7 8; do
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    cat <&3
    exec 3<&- 3>&-
  done >"$scratch/answers"
  kill "$server"
  wait "$server" 2>/dev/null || true
  if [ "$(grep -c '^hello from worker [0-3]$' "$scratch/answers")" -ne 8 ]; then
    echo "$program: unexpected answers:"
    cat "$scratch/answers"
    exit 1
  fi
  echo "$program: $(sort "$scratch/answers" | uniq -c | tr -s ' \n' ' ')"
done
