# Sourced by tools/demo and tools/test: makes sure that Debian packages are installed.
# shellcheck shell=bash

# To configure and build everything, tests included, and to try the echo server.
# (Without dpkg-dev, meson installs libraries where Debian does not look for them.)
build_packages=(g++ meson ninja-build pkg-config dpkg-dev liburing-dev libabsl-dev libcli11-dev
                nlohmann-json3-dev libgtest-dev libbenchmark-dev netcat-openbsd
                libuv1-dev libevent-dev libasio-dev libboost-dev)
# What the tests run besides.
test_packages=(clang clang-format lld llvm spin python3 util-linux binutils scdoc cmake zsh fish
               debhelper gunicorn python3-uvicorn uvicorn)

# ensure_packages PACKAGE…: returns when all are there. Otherwise installs the missing ones, as root
# or with sudo; where neither works, says in one sentence what is needed and ends with 1.
ensure_packages() {
  local missing=() package
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    # Not Debian: the build itself says what it misses, if anything.
    if command -v meson >/dev/null && command -v pkg-config >/dev/null &&
       pkg-config --exists liburing absl_status CLI11 nlohmann_json gtest benchmark; then
      return
    fi
    echo "$0: this is not a Debian system, so install these yourself, under the names that your" \
         "distribution gives them: $*" >&2
    exit 1
  fi
  for package in "$@"; do
    case $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) in
      *" installed") ;;
      *) missing+=("$package") ;;
    esac
  done
  if [ ${#missing[@]} -eq 0 ]; then return; fi

  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
      echo "$0: some packages are missing, and only root can install them; ask for:" \
           "apt-get install ${missing[*]}" >&2
      exit 1
    fi
    as_root=(sudo)
  fi
  echo "installing: ${missing[*]}"
  "${as_root[@]}" apt-get -qq update || true  # an old list may do; the installation will tell
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null; then
    echo "$0: apt-get could not install ${missing[*]}; its messages above say why" >&2
    exit 1
  fi
}
