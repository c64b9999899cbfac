#!/usr/bin/env bash
# Installs the build into a directory of its own, and builds the programs of README.md and HOSTS.md
# against it through pkg-config. The first is built once with the shared library and once with the
# static one. All of them are run. Whoever links the library sees exactly this.
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

# block DOCUMENT: its first C++ block.
block() {
  awk '/^```cpp$/ { ++block; inside = 1; next } /^```$/ { inside = 0 }
       inside && block == 1' "$source/$1"
}
# That of HOSTS.md is a worker for the main function of the README's.
port=$((20000 + $$ % 10000))
for program in shared static epoll; do
  if [ $program = epoll ]; then
    { block tools/docs/HOSTS.md; block README.md | sed -n '/^#include/p; /^int main/,$p'; }
  else
    block README.md
  fi | sed "s/7777/$port/" >"$scratch/$program.cc"
  [ "$(wc -l <"$scratch/$program.cc")" -gt 15 ] || { echo "no example for $program"; exit 1; }
done

# As README.md says it, with a prefix of one's own.
flags() { pkg-config "${defines[@]}" "$@" ringmaster liburing; }
for program in shared epoll; do
  # shellcheck disable=SC2046
  "$compiler" -std=c++20 -Wall -Wextra -Werror $(flags --cflags) "$scratch/$program.cc" \
    -o "$scratch/$program" $(flags --libs) -pthread -Wl,-rpath,"$lib"
done
# shellcheck disable=SC2046
"$compiler" -std=c++20 $(flags --cflags) "$scratch/static.cc" -o "$scratch/static" \
  "$lib/libringmaster.a" $(flags --libs-only-l --static | sed 's/-lringmaster//') -pthread
if ldd "$scratch/static" | grep -q libringmaster; then
  echo "the static program links the shared library"
  exit 1
fi

server=
trap 'kill -KILL "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT

# start PROGRAM: returns when it accepts. Where io_uring is refused there is nothing to see.
start() {
  env -u LD_LIBRARY_PATH "$scratch/$1" >"$scratch/out" 2>&1 &
  server=$!
  for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  echo "$1 does not serve:"
  cat "$scratch/out"
  if grep -q io_uring "$scratch/out"; then exit 77; fi
  exit 1
}

# ask PROGRAM WHEN: eight clients get what they are told by README.md.
ask() {
  for _ in 1 2 3 4 5 6 7 8; do
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    timeout 20 cat <&3 || true
    exec 3<&- 3>&-
  done >"$scratch/answers"
  if [ "$(grep -c '^hello from worker [0-3]$' "$scratch/answers")" -ne 8 ]; then
    echo "$1, $2: unexpected answers:"
    cat "$scratch/answers" "$scratch/out"
    exit 1
  fi
  echo "$1, $2: $(sort "$scratch/answers" | uniq -c | tr -s ' \n' ' ')"
}

# The kernel takes a ring apart some time after its process has ended, and only then is the port
# free. Until then a client would still find the old listener.
end() {
  kill "$server"
  local status=0
  wait "$server" 2>/dev/null || status=$?
  if [ $status -ne 0 ]; then
    echo "the server does not end by itself when it is asked to, but with $status:"
    cat "$scratch/out"
    exit 1
  fi
  for _ in $(seq 100); do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
    sleep 0.1
  done
  echo "port $port stays in use after the server has ended"
  exit 1
}

for program in shared static epoll; do
  start $program
  ask $program "started"
  # A second one on the same port says why it ends.
  if env -u LD_LIBRARY_PATH "$scratch/$program" >"$scratch/second" 2>&1 ||
     ! grep -q "$port: Address already in use" "$scratch/second"; then
    echo "$program: the second one on a port does not say so:"
    cat "$scratch/second"
    exit 1
  fi
  kill -STOP "$server"
  until grep -q '^State:.T' "/proc/$server/status"; do :; done
  kill -CONT "$server"
  ask $program "stopped and continued"
  end
  # The connections that it has closed are in TIME-WAIT now.
  start $program
  ask $program "started again"
  end
done
