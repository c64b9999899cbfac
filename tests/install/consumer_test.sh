#!/usr/bin/env bash
# Installs the build into a directory of its own, and builds the programs of README.md, HOSTS.md and
# STOPPING.md against it through pkg-config. The first is built once with the shared library and once
# with the static one. All of them are run. Whoever links the library sees exactly this.
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
# Those of HOSTS.md and STOPPING.md are workers for the main function of the README's. The last one
# has a drain that the test cannot wait out, and is told for how long it must be quiet.
port=$((20000 + $$ % 10000))
main_function() { block README.md | sed -n '/^#include/p; /^int main/,$p'; }
for program in shared static epoll stay; do
  case $program in
    epoll) block tools/docs/HOSTS.md; main_function ;;
    stay)
      block tools/docs/STOPPING.md | sed 's/? 50 :/? atoi(getenv("QUIET_MS")) :/'
      main_function | sed 's/Seconds(10)/Seconds(3600)/; 1i #include <stdlib.h>'
      ;;
    *) block README.md ;;
  esac | sed "s/7777/$port/" >"$scratch/$program.cc"
  [ "$(wc -l <"$scratch/$program.cc")" -gt 15 ] || { echo "no example for $program"; exit 1; }
done

# As README.md says it, with a prefix of one's own.
flags() { pkg-config "${defines[@]}" "$@" ringmaster liburing; }
for program in shared epoll stay; do
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
  end_of_server
}
end_of_server() {
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

# Asked to end before its workers have joined. The signal waits for the program to take it.
for program in shared epoll stay; do
  # shellcheck disable=SC2016
  env -u LD_LIBRARY_PATH --block-signal=TERM sh -c 'kill -TERM $$; exec "$0"' "$scratch/$program" \
    >"$scratch/out" 2>&1 &
  server=$!
  end_of_server
  echo "$program, asked to end at once: ended"
done

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

# Clients that stay, each through a descriptor of its own.
connect() { eval "exec $1<>/dev/tcp/127.0.0.1/$port"; }
# expect DESCRIPTOR PATTERN: the next line matches; without a pattern, the end comes.
expect() {
  local line='' status=0
  IFS= read -r -t 60 -u "$1" line 2>"$scratch/problem" || status=$?
  if [ $# -eq 1 ]; then
    # It says so if the connection was reset.
    if [ $status -eq 1 ] && [ -z "$line" ] && [ ! -s "$scratch/problem" ]; then return; fi
  elif [ $status -eq 0 ] && [[ $line =~ ^$2$ ]]; then
    return
  fi
  echo "stay, client $1: \"$line\" ($status) instead of ${2:-the end}"
  cat "$scratch/problem" "$scratch/out"
  exit 1
}

# One that has never asked is closed when its worker has been quiet.
export QUIET_MS=50
start stay
connect 3
connect 4  # behind it, so that both have been let in when this one is answered
echo once >&4
expect 4 "worker [0-3]: once"
exec 4<&- 4>&-
kill "$server"
expect 3
end_of_server
echo "stay, with a client that is silent: ended"

# Those who have asked are not kept waiting for that, and one in the middle of a line is answered.
export QUIET_MS=3600000
start stay
connect 3
echo once >&3
expect 3 "worker [0-3]: once"
connect 4
printf 'whole\nha' >&4
expect 4 "worker [0-3]: whole"
kill "$server"
expect 3
echo lf >&4
expect 4 "worker [0-3]: half"
expect 4
end_of_server
echo "stay, with clients that have asked: ended"
