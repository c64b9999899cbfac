#!/usr/bin/env bash
# That each of tools/examples has fewer than 80 lines, and compiles against the installed library by
# the command in its first lines, without a warning.
#
#   examples_test.sh BUILD_DIRECTORY SOURCE_DIRECTORY COMPILER
set -euo pipefail
build=$1 source=$2 compiler=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

DESTDIR=$scratch/root meson install -C "$build" --no-rebuild --quiet --tags devel,runtime
pc=$(find "$scratch/root" -name ringmaster.pc)
export PKG_CONFIG_PATH=${pc%/*}
prefix=$(pkg-config --variable=prefix ringmaster)
# As if the directory were the root of the file system.
pkg-config() { command pkg-config --define-variable=prefix="$scratch/root$prefix" "$@"; }
# The compiler as the commands call it; -O0, because only whether it compiles is asked.
c++() { "$compiler" -O0 -Wall -Wextra -Werror "$@"; }
cc() { command cc -O0 -Wall -Wextra -Werror "$@"; }

cd "$source/tools/examples"
for example in *.cc *.c; do
  name=${example%.*}
  lines=$(wc -l <"$example")
  if [ "$lines" -ge 80 ]; then
    echo "FAILED: $example has $lines lines"
    failures=$((failures + 1))
  fi
  if ! grep -q "^| \[$example\]($example) |" README.md; then
    echo "FAILED: README.md does not list $example"
    failures=$((failures + 1))
  fi
  command=$(sed -n 's|^//   \(c++ .*\)|\1|p; s|^//   \(cc .*\)|\1|p' "$example")
  if [ -z "$command" ]; then
    echo "FAILED: $example does not say how it is compiled"
    failures=$((failures + 1))
    continue
  fi
  library=$(sed -n 's/^\(libuv\|libevent\)_loop$/\1/p' <<<"$name")
  if [ -n "$library" ] && ! command pkg-config --exists "$library"; then
    echo "$example: $library is missing"
    continue
  fi
  if [ "$name" = asio_loop ] && ! echo '#include <asio.hpp>' | "$compiler" -E -x c++ - >"$scratch/asio" 2>&1; then
    echo "$example: Asio is missing"
    continue
  fi
  while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n || true; done
  if ! eval "$(sed "s| -o [a-z_]*| -o $scratch/$name|" <<<"$command")"; then
    echo "FAILED: $example does not compile by: $command"
    touch "$scratch/$name.failed"
  fi &
done
wait
failures=$((failures + $(find "$scratch" -name '*.failed' | wc -l)))
exit $((failures > 0))
