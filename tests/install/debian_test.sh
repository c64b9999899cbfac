#!/usr/bin/env bash
# What would be in the Debian packages, made of what is compiled already: every installed file is in
# one of them, and in the right one. tools/package builds them as they are to be used.
#
#   debian_test.sh BUILD_DIRECTORY SOURCE_DIRECTORY VERSION
set -euo pipefail
build=$1 source=$2 version=$3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# It fails if a file is in none of them.
if ! DEB_BUILD_OPTIONS=noautodbgsym "$source/tools/package" --built "$build" "$scratch" \
    >"$scratch/log" 2>&1; then
  cat "$scratch/log"
  exit 1
fi
cd "$scratch"
files() { dpkg-deb --fsys-tarfile "$1"_"$version"-1_*.deb | tar -t | sed 's|^\./||; /^$/d; /\/$/d'; }
has() {
  local package=$1 file
  shift
  for file in "$@"; do
    grep -qE "^$file\$" "$package.files" || fail "$package does not have $file"
  done
}
for package in libringmaster0 libringmaster-dev ringmaster-tools; do
  files $package >$package.files
  if [ -n "$(grep -v '^usr/' $package.files)" ]; then fail "$package has files outside of usr"; fi
  has $package "usr/share/doc/$package/copyright" "usr/share/doc/$package/changelog.gz"
done
twice=$(sort ./*.files | uniq -d)
[ -z "$twice" ] || fail "in two packages: $twice"

has libringmaster0 'usr/lib/[^/]*/libringmaster\.so\.0' "usr/lib/[^/]*/libringmaster\.so\.$version"
if grep -vE '^usr/(lib/[^/]*/libringmaster\.so\.|share/doc/)' libringmaster0.files; then
  fail "libringmaster0 has more than the library"
fi
has libringmaster-dev usr/include/ringmaster/{balancer,ringmaster,version}.h \
  'usr/lib/[^/]*/libringmaster\.(a|so)' 'usr/lib/[^/]*/pkgconfig/ringmaster(-c)?\.pc' \
  'usr/lib/[^/]*/cmake/ringmaster/ringmaster-config(-version)?\.cmake' \
  'usr/share/man/man3/ringmaster(_port_claim)?\.3\.gz' 'usr/share/man/man7/ringmaster\.7\.gz'
has ringmaster-tools 'usr/lib/[^/]*/ringmaster/libringmaster-run\.so'
for program in ringmaster-bench ringmaster-echo ringmaster-run ringmaster-sim; do
  has ringmaster-tools "usr/bin/$program" "usr/share/man/man1/$program\.1\.gz" \
    "usr/share/bash-completion/completions/$program" "usr/share/zsh/vendor-completions/_$program" \
    "usr/share/fish/vendor_completions\.d/$program\.fish"
done

depends() {
  dpkg-deb -f "$1"_*.deb Depends | grep -E "(^|, )$2( |,|\$)" >/dev/null || fail "$1 does not depend on $2"
}
depends libringmaster0 'liburing2'
depends libringmaster-dev "libringmaster0 \(= $version-1\)"
for library in libabsl-dev liburing-dev; do depends libringmaster-dev $library; done
depends ringmaster-tools "libringmaster0 \(= $version-1\)"

# ringmaster-run finds what it loads into servers.
for package in libringmaster0 ringmaster-tools; do dpkg-deb -x ${package}_*.deb root; done
said=$(LD_LIBRARY_PATH=$(dirname root/usr/lib/*/libringmaster.so.0) \
       root/usr/bin/ringmaster-run -- sh -c 'echo "$LD_PRELOAD"' 2>&1) || true
case $said in
  *root/usr/lib/*/ringmaster/libringmaster-run.so*) ;;
  *) fail "ringmaster-run -- does not load its library: $said" ;;
esac

exit $((failures > 0))
