#!/usr/bin/env bash
# Installs what is missing on Debian or Ubuntu, and nothing when all is there.
# usage: install-deps.sh build|run|bench|faults|all|more    build: compile; run: the demo too; bench: run, and PostgreSQL;
#                                                            faults: run, the fault suite and the comparison; all: the
#                                                            tests and checks too; more: what only make test-all needs too
set -euo pipefail
cd "$(dirname "$0")/.."

readonly minimum_tor=0.4.8
readonly cargo_deny=0.20.2

fail() {
  echo "install-deps: $*" >&2
  exit 1
}

# at_least WANTED FOUND
at_least() {
  [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]
}

missing_postgresql() {
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || echo postgresql
}

# The C in our dependencies wants a compiler; OpenSSL wants Perl with modules that Debian's perl-base lacks.
missing_packages() {
  command -v cc >/dev/null || echo build-essential
  perl -MFile::Compare -MFindBin -MIPC::Cmd -e 1 2>/dev/null || echo perl
  [ "$1" = build ] && return
  command -v tor >/dev/null && command -v tor-gencert >/dev/null || echo tor
  [ "$1" = run ] && return
  [ "$1" = bench ] && { missing_postgresql; return; }
  command -v faketime >/dev/null || echo faketime
  command -v ip >/dev/null || echo iproute2
  command -v unshare >/dev/null && command -v nsenter >/dev/null || echo util-linux
  python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || echo python3-venv
  [ "$1" = faults ] && return
  command -v javac >/dev/null || echo openjdk-17-jdk-headless
  command -v mvn >/dev/null || echo maven
  command -v weechat >/dev/null || echo weechat-curses
  command -v tmux >/dev/null || echo tmux
  # A test cuts the power of a program's disk, as far as its calls tell what would be left.
  command -v strace >/dev/null || echo strace
  [ "$1" = all ] && return
  command -v debootstrap >/dev/null || echo debootstrap
  missing_postgresql
}

install_packages() {
  command -v apt-get >/dev/null || fail "please install with your package manager: $*"
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "please run as root: apt-get install $*"
    as_root=(sudo)
  fi
  echo "Installing $*"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

check_rust() {
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  [ -n "$wanted" ] || fail "Cargo.toml names no rust-version"
  if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    fail "Rust is missing: install it from https://rustup.rs, then open a new shell"
  fi
  found=$(rustc --version | cut -d ' ' -f 2)
  at_least "$wanted" "$found" || fail "Rust $found is too old, $wanted or later is needed: run rustup update stable"
}

check_component() {
  cargo "$1" --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || fail "cargo $1 is missing: install the package $2 of your Rust distribution"
  rustup component add "$2"
}

check_tor() {
  local found
  found=$(tor --version | sed -n 's/^Tor version \([0-9.]*[0-9]\).*/\1/p')
  at_least "$minimum_tor" "$found" ||
    fail "tor $found is too old, $minimum_tor or later is needed: see https://support.torproject.org/apt"
}

install_cargo_deny() {
  cargo deny --version >/dev/null 2>&1 && return
  echo "Installing cargo-deny; this takes about three minutes"
  env -u CARGO_TARGET_DIR cargo install --locked "cargo-deny@$cargo_deny"
}

main() {
  local level=${1:-} packages
  case $level in
    build | run | bench | faults | all | more) ;;
    *) fail "usage: install-deps.sh build|run|bench|faults|all|more" ;;
  esac
  check_rust
  mapfile -t packages < <(missing_packages "$level")
  if [ "${#packages[@]}" -gt 0 ]; then
    install_packages "${packages[@]}"
    mapfile -t packages < <(missing_packages "$level")
    [ "${#packages[@]}" -eq 0 ] || fail "still missing after installing: ${packages[*]}"
  fi
  if [ "$level" != build ]; then
    check_tor
  fi
  if [ "$level" != run ] && [ "$level" != bench ] && [ "$level" != faults ]; then
    check_component fmt rustfmt
    check_component clippy clippy
  fi
  if [ "$level" = all ] || [ "$level" = more ]; then
    install_cargo_deny
  fi
}

main "$@"
