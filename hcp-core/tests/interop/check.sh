#!/usr/bin/env bash
# Lets the Python implementation of the protocol, made from docs/protocol.md alone, talk to the library.
# usage: check.sh [--without-tor] [PYTEST-ARGUMENT…]
#
# The Rust side is what `cargo build --workspace --all-targets` makes: a call of cargo for this package alone would choose
# other features for its dependencies and compile Arti anew. --without-tor builds it alone and without Arti, in a minute.
# Needs Debian's python3 (3.11 or later) and python3-venv.
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly target=${CARGO_TARGET_DIR:-target} interop=hcp-core/tests/interop
readonly venv=$target/interop-venv requirements=$interop/requirements.txt

run() {
  printf '+ %s\n' "$*"
  "$@"
}

make_venv() {
  # Written last, so that an environment that was left half made is made again.
  local stamp=$venv/requirements.txt
  if cmp --silent "$requirements" "$stamp" && "$venv/bin/python" -c '' 2>/dev/null; then
    return
  fi
  run python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
  run python3 -m venv --clear "$venv"
  run "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$requirements"
  cp "$requirements" "$stamp"
}

main() {
  local build=(cargo build --workspace --examples)
  if [ "${1:-}" = --without-tor ]; then
    shift
    build=(cargo build -p hcp-core --no-default-features --example interop-peer)
  fi
  make_venv
  run "${build[@]}"
  HCP_INTEROP_PEER=$(realpath "$target/debug/examples/interop-peer")
  export HCP_INTEROP_PEER PYTHONDONTWRITEBYTECODE=1
  run "$venv/bin/python" -m pytest --rootdir "$interop" --config-file "$interop/pytest.ini" "$interop" "$@"
}

main "$@"
