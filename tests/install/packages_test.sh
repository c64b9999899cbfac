#!/usr/bin/env bash
# What the two set-up commands say and do on machines that lack something. Every system command that
# they ask is replaced by one that answers as such a machine would.
#
#   packages_test.sh PATH_OF_packages.sh
set -euo pipefail
packages=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

# stub NAME TEXT: a command that runs TEXT.
stub() {
  printf '#!/bin/sh\n%s\n' "$2" >"$scratch/bin/$1"
  chmod +x "$scratch/bin/$1"
}

# A Debian machine without the packages a and b; as root unless said otherwise.
debian() {
  rm -rf "$scratch/bin"
  mkdir "$scratch/bin"
  ln -s "$(command -v bash)" "$(command -v env)" "$(command -v true)" "$scratch/bin/"
  stub id 'echo 0'
  stub dpkg-query 'for last; do :; done; case $last in a|b) exit 1;; *) echo "install ok installed";; esac'
  stub apt-get 'echo "apt-get $*" >>'"$scratch/log"
}

# expect STATUS PATTERN WHAT PACKAGE…: runs ensure_packages there.
expect() {
  local status=$1 pattern=$2 what=$3 got=0
  shift 3
  : >"$scratch/log"
  PATH=$scratch/bin "$scratch/bin/bash" -c '. "$0"; shift 0; ensure_packages "$@"; echo ready' \
    "$packages" "$@" >"$scratch/out" 2>&1 </dev/null || got=$?
  cat "$scratch/out" >>"$scratch/log"
  if [ "$got" -ne "$status" ] || ! grep -qE "$pattern" "$scratch/log"; then
    echo "FAILED: $what: status $got, and:"
    cat "$scratch/log"
    failures=$((failures + 1))
  fi
}

debian
expect 0 '^ready$' 'everything is there' c d
if grep -q apt-get "$scratch/log"; then
  echo "FAILED: installs although everything is there"
  failures=$((failures + 1))
fi
expect 0 '^apt-get .*install .* a b$' 'root installs what is missing' a b c

debian
stub id 'echo 1000'
stub sudo 'if [ "$1" = -n ]; then exit 0; fi; echo "sudo $*" >>'"$scratch/log"
expect 0 '^sudo env .*apt-get .*install .* a$' 'sudo installs what is missing' a c

debian
stub id 'echo 1000'
expect 1 'only root can install them; ask for: apt-get install a b$' 'neither root nor sudo' a b

debian
stub id 'echo 1000'
stub sudo 'exit 1'
expect 1 'only root can install them' 'a sudo that wants a password and no terminal' a

debian
stub apt-get 'case "$*" in *install*) echo "E: no network" >&2; exit 100;; esac'
expect 1 'could not install a;' 'an installation that fails' a

debian
rm "$scratch/bin/apt-get" "$scratch/bin/dpkg-query"
expect 1 'not a Debian system, so install these yourself.*: a b$' 'another distribution' a b

debian
rm "$scratch/bin/apt-get" "$scratch/bin/dpkg-query"
stub meson ':'
stub pkg-config ':'
expect 0 '^ready$' 'another distribution with everything there' a b

exit $((failures > 0))
